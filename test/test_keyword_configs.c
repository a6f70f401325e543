/* test/test_keyword_configs.c -- the 52 configurations of model-quantization: each file of
 * configs/keyword makes the same run as its config.xxxx (test/keyword_configs.tsv), is built at
 * full size, and makes an update at reduced size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/fs.h"
#include "quant/qplan.h"
#include "run/keys.h"
#include "run/session.h"

enum { ROWS = 52, COLUMNS = 8 };

typedef struct Row {
    char *name, *model, *dataset, *batch, *epochs, *keyword, *pretrained, *options;
} Row;

static char *folder, *table;
static Row rows[ROWS];

static int setup(void **state)
{
    char name[] = "/tmp/qrun-kwconf-XXXXXX", *rest, *line;
    size_t len;
    int n = 0;
    Err e = {0};
    (void)state;
    folder = mkdtemp(name) ? xstrdup(name) : NULL;
    rest = table = fs_read("test/keyword_configs.tsv", 0, &len, &e);
    if (!folder || !table) return -1;
    while ((line = strsep(&rest, "\n"))) {
        char **field = (char **)&rows[n];
        if (!*line || *line == '#') continue;
        if (n == ROWS) return -1;
        for (int i = 0; i < COLUMNS; i++)
            if (!(field[i] = strsep(&line, "\t"))) return -1;
        n++;
    }
    return n == ROWS ? 0 : -1;
}

static int teardown(void **state)
{
    char *cmd = xasprintf("rm -rf '%s'", folder);
    const int rc = system(cmd);
    (void)state;
    free(cmd);
    free(folder);
    free(table);
    return rc;
}

static void load(Config *c, const char *file, int n, char **overrides)
{
    Err e = {0};
    if (config_load(c, file, n, overrides, &e)) fail_msg("%s", e.msg);
}

static char *yml_of(const Row *r)
{
    return xasprintf("configs/keyword/%s.yml", r->name);
}

/* As a file of the original would be written. */
static void write_shell(const Row *r, const char *path)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "# %s\ndataset='%s'\nmodel='%s'\n", r->name, r->dataset, r->model);
    if (!str_eq(r->epochs, "-")) fprintf(f, "epochs=%s\n", r->epochs);
    fprintf(
        f, "train_batch=%s\nval_batch=50\nkeyword='%s'\npretrained='%s'\noptions=\"$options --pretrained $pretrained %s\"\n",
        r->batch, r->keyword, r->pretrained, r->options);
    assert_int_equal(fclose(f), 0);
}

/* A factor that the original's file gives and nobody reads there: our files leave it out. */
static char *const without_effect[] = {"wt_scale=0.5"};

static void test_same(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) {
        char *shell = xasprintf("%s/config.%s", folder, rows[i].name), *yml = yml_of(&rows[i]);
        char *resolved = fs_join(folder, "resolved.yml");
        const bool idle = strstr(rows[i].options, "--wt_scale") != NULL;
        Str text = {0}, names = {0};
        Config a, b;
        Err e = {0};
        write_shell(&rows[i], shell);
        load(&a, shell, idle, (char **)(uintptr_t)without_effect);
        load(&b, yml, 0, NULL);
        config_resolved(&b, &text);
        if (fs_write(resolved, text.s, text.len, &e) ||
            config_differs(&a, resolved, &names, &e) != 0)
            fail_msg("%s: %s%s", rows[i].name, names.s ? names.s : "", e.msg);
        config_free(&a);
        config_free(&b);
        str_free(&text);
        str_free(&names);
        free(shell);
        free(yml);
        free(resolved);
    }
}

/* Weights of a parameter, to see whether an update moved it. */
static double sum_of(ParamStore *ps)
{
    double sum = 0;
    for (int i = 0; i < ps->n; i++) {
        const float *v = ps->p[i]->value.data;
        if (ps->p[i]->kind != PK_WEIGHT) continue;
        for (size_t k = 0; k < tensor_len(&ps->p[i]->value); k++)
            sum += (double)v[k] * (double)(k % 17 + 1);
    }
    return sum;
}

/* Names of the table that `narrow` makes small: width_alpha is read by the flexible nets and
 * MobileNets. */
static void step(const Row *r)
{
    char *yml = yml_of(r),
         *narrow = str_starts(r->model, "resnet") || str_starts(r->model, "mobilenet")
                       ? xstrdup("width_alpha=0.125")
                       : xstrdup("width_alpha=1");
    char *const small[] = {(char[]){"dataset=synthetic"},
                           (char[]){"synth_train=2"},
                           (char[]){"batch_size=2"},
                           (char[]){"test_only=false"},
                           (char[]){"threads=1"},
                           (char[]){"pretrained_file=\"\""},
                           str_eq(r->dataset, "cifar100") || str_starts(r->model, "pytorch")
                               ? (char[]){"image_size=32"}
                               : (char[]){"image_size=64"},
                           narrow};
    Config c;
    Session s;
    Optim optim;
    const Batch *b;
    Err e = {0};
    double loss = 0, before;
    load(&c, yml, ARRAY_LEN(small), (char **)(uintptr_t)small);
    if (session_open(&s, &c, &e) || session_data(&s, SPLIT_TRAIN, &e))
        fail_msg("%s: %s", r->name, e.msg);
    store_alloc_grads(model_store(s.model));
    if (optim_init(&optim, &c.optim, model_store(s.model), &e)) fail_msg("%s: %s", r->name, e.msg);
    if (loader_seek(s.loader[SPLIT_TRAIN], 0, 0, &e) ||
        loader_next(s.loader[SPLIT_TRAIN], &b, &e) != 1)
        fail_msg("%s: %s", r->name, e.msg);
    before = sum_of(model_store(s.model));
    store_zero_grads(model_store(s.model));
    if (model_train_batch(s.model, 0, b, 0, &loss, NULL, &e)) fail_msg("%s: %s", r->name, e.msg);
    optim_step(&optim, model_store(s.model), 0);
    model_after_step(s.model);
    if (!isfinite(loss)) fail_msg("%s: loss %g", r->name, loss);
    if (sum_of(model_store(s.model)) == before) fail_msg("%s: no weight moved", r->name);
    optim_free(&optim);
    session_free(&s);
    config_free(&c);
    free(narrow);
    free(yml);
}

static void test_step(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) step(&rows[i]);
}

/* At full size: every layer, and what quantizes it; no values. */
static void test_build(void **state)
{
    (void)state;
    for (int i = 0; i < ROWS; i++) {
        char *yml = yml_of(&rows[i]);
        Config c;
        InputShape in;
        Spec spec = {0};
        ParamStore ps = {0};
        QPlan qp = {0};
        Err e = {0};
        load(&c, yml, 0, NULL);
        if (data_input_shape(&c.data, &in, &c.net.num_classes, &e)) fail_msg("%s: %s", yml, e.msg);
        c.net.in_c = in.c;
        c.net.in_h = in.h;
        c.net.in_w = in.w;
        if (net_build(&spec, &c.net, &e) || qplan_build(&qp, &spec, &c.quant, &ps, &e))
            fail_msg("%s: %s", yml, e.msg);
        assert_int_equal(in.h, str_eq(rows[i].dataset, "cifar100") ? 32 : 224);
        qplan_free(&qp);
        store_free(&ps);
        spec_free(&spec);
        config_free(&c);
        free(yml);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_build),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
