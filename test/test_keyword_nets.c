/* test/test_keyword_nets.c -- nets of the keyword language: their state dicts as the original has them (names,
 * order, shapes, types, what is learned, constant initial values), words that contradict a net, initial
 * values by distribution. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "nets/blocks.h"
#include "run/model.h"
#include "test/words.h"

#define FOLDER "test/state_dicts"

static Model *open_model(const char *model, const char *words, const char *options, int classes, int size, Err *e)
{
    Config cfg;
    Model *m = NULL;
    if (!words_config(&cfg, model, words, options, e)) {
        NetOpts o = cfg.net;
        o.num_classes = classes;
        o.in_c = 3;
        o.in_h = o.in_w = size;
        m = model_new(&o, &cfg.quant, 0, 1, e);
    }
    config_free(&cfg);
    return m;
}

/* ---- state dicts ---- */

/* Fields of a line, separated by tabs; the text is cut. */
static int split(char *line, char **field, int max)
{
    int n = 0;
    line[strcspn(line, "\r\n")] = 0;
    for (char *p = line; n < max; n++) {
        char *tab = strchr(p, '\t');
        field[n] = p;
        if (!tab) return n + 1;
        *tab = 0;
        p = tab + 1;
    }
    return n;
}

static void shape_text(const Tensor *t, char *out, size_t size)
{
    size_t at = 0;
    if (!t->ndim) snprintf(out, size, "scalar");
    for (int i = 0; i < t->ndim; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%d", i ? "x" : "", t->dim[i]);
}

static const char *type_text(DType d)
{
    return d == DT_F32 ? "float32" : d == DT_S64 ? "int64" : d == DT_S32 ? "int32" : "?";
}

/* index, t, name, shape, dtype, kind, role, start */
static void check_row(const char *at, char **f, const Param *p)
{
    char shape[64];
    const bool learned = str_eq(f[6], "learned");
    if (!str_eq(f[2], p->name)) fail_msg("%s: %s here, %s there", at, p->name, f[2]);
    shape_text(&p->value, shape, sizeof shape);
    if (!str_eq(f[3], shape)) fail_msg("%s: %s is %s, not %s", at, p->name, shape, f[3]);
    if (!str_eq(f[4], type_text(p->value.dtype))) fail_msg("%s: %s is not %s", at, p->name, f[4]);
    if (learned == (p->kind == PK_BUFFER)) fail_msg("%s: %s is %s", at, p->name, learned ? "not learned" : "learned");
    if (str_eq(f[5], "const"))
        for (size_t i = 0; i < tensor_len(&p->value); i++)
            if (fabs((double)((const float *)p->value.data)[i] - atof(f[7])) > 1e-6)
                fail_msg("%s: %s starts with %g, not %s", at, p->name, (double)((const float *)p->value.data)[i], f[7]);
}

/* "# model M<TAB>keyword W<TAB>options O<TAB>learned values N" */
static Model *open_header(const char *path, char *line, long long *learned)
{
    char *f[4];
    const char *words, *options;
    int classes = 1000, size = 224;
    Err e = {0};
    Model *m;
    if (split(line, f, 4) != 4 || !str_starts(f[0], "# model ") || !str_starts(f[1], "keyword ") ||
        !str_starts(f[2], "options ") || sscanf(f[3], "learned values %lld", learned) != 1)
        fail_msg("%s: not the first line of a state dict", path);
    words = f[1] + strlen("keyword ");
    options = f[2] + strlen("options ");
    if (strstr(words, "cifar")) size = 32, classes = strstr(words, "cifar100") ? 100 : 10;
    m = open_model(f[0] + strlen("# model "), words, str_eq(options, "-") ? "" : options, classes, size, &e);
    if (!m) fail_msg("%s: %s", path, e.msg);
    return m;
}

static void check_file(const char *name)
{
    char path[300], line[1024], at[400], *f[8];
    long long learned, have = 0;
    const ParamStore *ps;
    Model *m;
    int k = 0;
    FILE *file;
    snprintf(path, sizeof path, FOLDER "/%s", name);
    file = fopen(path, "r");
    if (!file || !fgets(line, sizeof line, file)) fail_msg("%s: cannot be read", path);
    m = open_header(path, line, &learned);
    ps = model_store(m);
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i]->kind != PK_BUFFER) have += (long long)tensor_len(&ps->p[i]->value);
    if (have != learned) fail_msg("%s: %lld learned values, not %lld", path, have, learned);
    if (!fgets(line, sizeof line, file)) fail_msg("%s: no table", path);
    for (int n = 3; fgets(line, sizeof line, file); n++, k++) {
        snprintf(at, sizeof at, "%s:%d", path, n);
        f[7] = line + strlen(line);
        if (split(line, f, 8) < 7) fail_msg("%s: not a row", at);
        if (k >= ps->n) fail_msg("%s: the net has no tensor %s", at, f[2]);
        check_row(at, f, ps->p[k]);
    }
    if (k < ps->n) fail_msg("%s: the net has more: %s", path, ps->p[k]->name);
    printf("# %-36s %4d tensors, %lld learned values\n", name, k, have);
    fclose(file);
    model_free(m);
}

static int is_list(const struct dirent *d)
{
    return str_starts(d->d_name, "kw-") && str_ends(d->d_name, ".tsv");
}

static void state_dicts(void **state)
{
    struct dirent **list;
    const int n = scandir(FOLDER, &list, is_list, alphasort);
    (void)state;
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        check_file(list[i]->d_name);
        free(list[i]);
    }
    free(list);
}

/* ---- what a net has not ---- */

static void refused(void **state)
{
    static const struct {
        const char *model, *words, *options, *why;
    } cases[] = {
        {"mobilenetv1", "cifar10, origin", "", "net 'mobilenetv1' needs the order of its layers; expected one of cbas, cbsa, bacs"},
        {"mobilenetv1", "cifar10, cabs", "", "net 'mobilenetv1' has no order cabs; expected one of cbas, cbsa, bacs"},
        {"mobilenetv2", "cifar10, cbsa", "", "net 'mobilenetv2' has no order cbsa; expected one of cbas, bacs"},
        {"mobilenetv2", "cifar10", "", "net 'mobilenetv2' needs the order of its layers"},
        {"vgg_small", "cifar10", "", "net 'vgg_small' needs the order of its layers; expected one of bac, cba, abc"},
        {"mobilenetv1", "cifar10, cbas, bireal, block_skip, react", "", "shortcuts of bireal or of block_skip, not both"},
        {"mobilenetv1", "cifar10, cbas, bireal", "", "needs react"},
        {"mobilenetv1", "cifar10, bacs, block_skip", "", "expected cbas or cbsa"},
        {"mobilenetv1", "cifar10, cbas, origin, prone, preBN", "", "no preBN together with prone"},
        {"mobilenetv2", "cifar10, cbas, prone, preBN", "", "no preBN together with prone"},
        {"mobilenetv2", "cifar10, cbas, prone, bn_before_restore", "", "no bn_before_restore together with prone"},
        {"mobilenetv1", "cifar10, cbas", "--base 2", "has no parallel branches; expected 1, not 2"},
        {"mobilenetv2", "cifar10, cbas", "--base 2", "has no parallel branches; expected 1, not 2"},
        {"vgg_small", "cifar10, cba", "--base 2", "has no parallel branches; expected 1, not 2"},
        {"nin", "cifar10", "--base 2", "has no parallel branches; expected 1, not 2"},
        {"mobilenetv1", "cifar10, cbas, bireal, react", "--width_alpha 0.3", "bireal: 19 channels of model.0.point_conv.0 are no multiple of the 9 before them"},
        {"mobilenetv1", "cifar10, cbas, group-norm", "", "group-norm needs fm_quant_group"},
        {"resnet18", "cifar10, origin", "", "net 'resnet18' needs the order of its layers; expected one of cbas, cbsa, cabs, bacs, bcas"},
        {"resnet50", "cifar10, cbsa", "", "net 'resnet50' needs origin"},
        {"resnet50", "cifar10, origin, bcas", "", "net 'resnet50' has no order bcas; expected one of cbas, cbsa, cabs, bacs"},
        {"resnet50", "cifar10, origin, cbsa, DCHR", "", "DCHR is for nets of basic blocks"},
        {"resnet20", "cifar10, origin, bacs, ReShapeResolution", "--order c", "ReShapeResolution does not go with bacs; expected cbas, cbsa or cabs"},
        {"resnet20", "cifar10, cbsa, ReShapeResolution, f1x1", "--order c", "f1x1 pads its 1x1 convolution"},
        {"resnet20", "cifar10, cbsa, ReShapeResolution, f3x3, ldn3x3", "--order c", "ldn3x3 and f3x3 exclude each other"},
        {"resnet20", "cifar10, cbsa, ReShapeResolution", "", "ReShapeResolution with order: none; expected letters c, b, a"},
        {"resnet20", "cifar10, cbsa, ReShapeResolution", "--order ba", "ReShapeResolution with order: ba; expected letters c, b, a, one c among them"},
        {"resnet20", "cifar10, cbsa, prone, preBN", "", "prone and preBN exclude each other"},
        {"resnet20", "cifar10, cbsa, origin, fixup", "--base 3", "fixup has one branch a block; base: 3"},
        {"resnet20", "cifar10, cbsa, group-norm", "", "group-norm needs fm_quant_group"},
        {"resnet34_", "cifar10, cbsa, origin, singleconv", "", "is too large"},
        {"resnet20", "cifar10, origin, cbsa, prone", "--input_size 28", "behind layer3.0.relu2.0 a map of 7 x 7 is added to one of 8 x 8"},
        {"resnet20", "cifar10, cbsa, prone", "--input_size 28", "behind layer3.0.bn1.0 a map of 7 x 7 is added to one of 8 x 8"},
        {"pytorch-resnet18", "group-norm", "", "group-norm needs fm_quant_group"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Err e = {0};
        Model *m = open_model(cases[i].model, cases[i].words, cases[i].options, 10, 32, &e);
        if (m) fail_msg("%s with %s %s: not refused", cases[i].model, cases[i].words, cases[i].options);
        assert_int_equal(e.kind, ERR_CONFIG);
        if (!strstr(e.msg, cases[i].why))
            fail_msg("%s with %s: '%s' does not say '%s'", cases[i].model, cases[i].words, e.msg, cases[i].why);
    }
}

/* ---- words beside each other ---- */

static void build(Spec *s, const char *model, const char *words, const char *options, int size)
{
    Err e = {0};
    if (words_spec(s, model, words, options, 10, size, &e)) fail_msg("%s with %s: %s", model, words, e.msg);
}

static int unit_named(const Spec *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (str_eq(s->u[i].name, name)) return i;
    fail_msg("no unit %s", name);
    return -1;
}

/* Kernel and padding of one convolution. */
static void kernels(void **state)
{
    static const struct {
        const char *model, *words, *options, *conv;
        int size, k, pad, extent; /* of its output */
    } rows[] = {
        /* the words f and s are of basic blocks: a bottleneck's 3x3 stays one */
        {"resnet50", "cifar10,origin,cbsa,prone,no_prone_downsample,s1x1,singleconv", "", "layer2.0.conv2.0", 32, 3, 1, 16},
        /* s3x3 goes before s1x1 */
        {"resnet20", "cifar10,origin,cbsa,prone,s1x1,s3x3", "", "layer1.0.conv2.0", 32, 3, 1, 32},
        {"resnet20", "cifar10,origin,cbsa,prone,s1x1", "", "layer1.0.conv2.0", 32, 1, 0, 32},
        {"resnet20", "cifar10,origin,cbsa,prone,s1x1,s3x3,ReShapeResolution", "--order c", "layer2.0.conv2.0", 32, 3, 1, 16},
        /* force_padding is of basic blocks too */
        {"resnet20", "cifar10,origin,cbsa,force_padding,singleconv", "", "layer3.0.conv1.0", 28, 3, 2, 8},
        {"resnet50", "cifar10,origin,cbsa,force_padding,singleconv", "", "layer3.0.conv2.0", 28, 3, 1, 7},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Spec s;
        const Unit *u;
        build(&s, rows[i].model, rows[i].words, rows[i].options, rows[i].size);
        u = &s.u[unit_named(&s, rows[i].conv)];
        if (u->u.conv.k != rows[i].k || u->u.conv.pad != rows[i].pad || u->h != rows[i].extent)
            fail_msg("%s with %s: %s has kernel %d, padding %d, map %d; expected %d, %d, %d", rows[i].model,
                     rows[i].words, rows[i].conv, u->u.conv.k, u->u.conv.pad, u->h, rows[i].k, rows[i].pad,
                     rows[i].extent);
        spec_free(&s);
    }
}

/* What a block adds at its end. Fixup's offset comes before the branch, an identity with a norm (which Fixup
 * takes out again) is one, and without a branch the input itself is added. */
static void added_at_the_end(void **state)
{
    static const struct {
        const char *words;
        bool offset;
    } rows[] = {{"cifar10,origin,cbsa,fix,fixup,bias", false},
                {"cifar10,origin,cbsa,fix,fixup,bias,identify_norm", true}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Spec s;
        int sum, offset;
        build(&s, "resnet20", rows[i].words, "", 32);
        sum = unit_named(&s, "layer1.1.fixup_bias2b") + 1;
        offset = unit_named(&s, "layer1.1.fixup_bias1a");
        assert_int_equal(s.u[sum].kind, U_ADD);
        if ((s.u[sum].in[1] == offset) != rows[i].offset)
            fail_msg("%s: unit %d is added, the offset is unit %d", rows[i].words, s.u[sum].in[1], offset);
        spec_free(&s);
    }
}

/* Slopes of PReLU stand before the convolutions, where the original makes its activations. */
static void slopes_first(void **state)
{
    static const char *const want[] = {"features.2.relu1", "features.2.relu2", "features.2.conv1"};
    Spec s;
    int *order, at = 0;
    (void)state;
    build(&s, "mobilenetv2", "cifar10,cbas,PReLU", "", 32);
    order = xcalloc((size_t)s.n, sizeof *order);
    spec_declaration_order(&s, order);
    while (at < s.n && !str_starts(s.u[order[at]].name, "features.2.")) at++;
    for (size_t i = 0; i < ARRAY_LEN(want); i++) assert_string_equal(s.u[order[at + (int)i]].name, want[i]);
    free(order);
    spec_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_dicts),
        cmocka_unit_test(refused),
        cmocka_unit_test(kernels),
        cmocka_unit_test(added_at_the_end),
        cmocka_unit_test(slopes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
