/* test/test_finetune.c -- epochs cut short by finetune_iters, calibration of norms before a test,
 * lines of every batch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/fs.h"
#include "quant/qplan.h"
#include "run/bn_calib.h"
#include "run/checkpoint.h"
#include "run/log.h"
#include "run/modes.h"
#include "run/session.h"
#include "test/support/temp.h"

static char *root;
static Str logged; /* lines at info level */

static void keep_line(LogLevel level, const char *text)
{
    if (level <= LOG_INFO) str_printf(&logged, "%s\n", text);
}

static int make_root(void **state)
{
    (void)state;
    log_set(LOG_INFO, keep_line);
    return (root = temp_folder("finetune")) ? 0 : -1;
}

static int drop_root(void **state)
{
    (void)state;
    str_free(&logged);
    return temp_remove(root);
}

/* 8 batches of 32 small images an epoch, 3 epochs; `more`: overrides separated by blanks. */
static void load_small(Config *c, const char *dir, const char *more)
{
    static const char *const fixed[] = {
        "synth_train=256", "synth_val=64",      "batch_size=32", "num_epochs=3", "model=resnet20",
        "log_interval=1",  "tensorboard=false", "plots=false",   "lr=0.1",       "warmup_epochs=0"};
    char *o[ARRAY_LEN(fixed) + 16];
    int n = 0;
    Err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) o[n++] = xstrdup(fixed[i]);
    o[n++] = xasprintf("log_dir=%s/%s", root, dir);
    while (*more) {
        const size_t len = strcspn(more, " ");
        o[n++] = xasprintf("%.*s", (int)len, more);
        more += len + (more[len] == ' ');
    }
    if (config_load(c, "smoke", n, o, &e)) fail_msg("%s", e.msg);
    while (n) free(o[--n]);
}

#define FLOAT "wt_quant=none fm_quant=none wt_bit=32 fm_bit=32"

/* One start of the program; its exit status. */
static int start(const char *dir, const char *more)
{
    char name[] = "qrun", *argv[] = {name, NULL};
    Config c;
    Run run = {.cfg = &c, .argc = 1, .argv = argv, .started = log_clock()};
    Err e = {0};
    int out = dup(STDOUT_FILENO), r;
    load_small(&c, dir, more);
    str_free(&logged);
    assert_non_null(freopen("/dev/null", "w", stdout));
    r = mode_select(&c)->run(&run, &e);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    log_close();
    log_set(LOG_INFO, keep_line);
    if (r) fail_msg("%s: %s", more, e.msg);
    config_free(&c);
    return run.status;
}

static char *read_run(const char *dir, const char *name, size_t *len)
{
    char *run = fs_join(root, dir), *path = fs_join(run, name), *s;
    Err e = {0};
    s = fs_read(path, 0, len, &e);
    if (!s) fail_msg("%s", e.msg);
    free(run);
    free(path);
    return s;
}

/* ---- finetune_iters ---- */

/* Rates of the updates: row "train" of each, and row "epoch" for the last of an epoch. */
static int read_rates(const char *dir, double rate[64])
{
    size_t len;
    char *s = read_run(dir, "metrics.jsonl", &len), *save, *line;
    int n = 0;
    for (line = strtok_r(s, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *step = strstr(line, "\"step\":"), *lr = strstr(line, "\"lr\":");
        int i;
        if (!lr) continue;
        assert_non_null(step);
        i = atoi(step + 7);
        assert_in_range(i, 1, 63);
        rate[i] = atof(lr + 5);
        if (i > n) n = i;
    }
    free(s);
    return n;
}

static void rates_of_cut_epochs(void **state)
{
    double rate[64] = {0};
    (void)state;
    assert_int_equal(start("cos", "finetune_iters=3 lr_scheduler=cos_annealing_iter"), 0);
    assert_int_equal(read_rates("cos", rate), 9);
    for (int i = 0; i < 9; i++) { /* updates against 3 whole epochs of 8 */
        const double want = 0.1 * (1 + cos(M_PI * i / 24)) / 2;
        if (fabs(rate[i + 1] - want) > 1e-6)
            fail_msg("update %d: lr %.8f, expected %.8f", i + 1, rate[i + 1], want);
    }
    assert_int_equal(start("step", "finetune_iters=3 lr_scheduler=multistep "
                                   "multistep_lr_milestones=[1,2] multistep_lr_gamma=0.5"),
                     0);
    assert_int_equal(read_rates("step", rate), 9);
    for (int i = 0; i < 9; i++) { /* epochs count, not updates */
        const double want = 0.1 * pow(0.5, i / 3);
        if (fabs(rate[i + 1] - want) > 1e-6)
            fail_msg("update %d: lr %.8f, expected %.8f", i + 1, rate[i + 1], want);
    }
    /* a limit beyond the epoch is none */
    assert_int_equal(
        start("whole", "finetune_iters=500 num_epochs=2 lr_scheduler=cos_annealing_iter"), 0);
    assert_int_equal(read_rates("whole", rate), 16);
    assert_true(fabs(rate[16] - 0.1 * (1 + cos(M_PI * 15 / 16)) / 2) < 1e-6);
}

/* Each cut epoch draws its own batches: the second is not the first again. */
static void epochs_differ(void **state)
{
    size_t len;
    char *s, *a, *b;
    (void)state;
    assert_int_equal(start("lr0", "finetune_iters=2 num_epochs=2 lr=0 warmup_epochs=0"), 0);
    s = read_run("lr0", "metrics.jsonl", &len);
    a = strstr(s, "\"loss\":"); /* the first batch of each epoch; nothing is learned */
    b = strstr(s, "\"step\":3,");
    assert_non_null(a);
    assert_non_null(b);
    b = strstr(b, "\"loss\":");
    assert_non_null(b);
    assert_true(atof(a + 7) != atof(b + 7));
    free(s);
}

/* Stopped after every single update and started again: the bytes of the undisturbed run. */
static void stopped_after_every_update(void **state)
{
    static const char *const more = "finetune_iters=3 lr_scheduler=cos_annealing_iter "
                                    "wt_quant=adabits fm_quant=adabits wt_bit=4 fm_bit=4";
    char *often = xasprintf("%s max_time=0.000001", more), *a, *b;
    double calm[64] = {0}, rate[64] = {0};
    size_t na, nb;
    int starts = 0, status;
    (void)state;
    assert_int_equal(start("calm", more), 0);
    do {
        status = start("often", often);
        assert_true(status == 0 || status == 75);
        starts++;
    } while (status == 75 && starts < 30);
    assert_in_range(starts, 9, 29);
    a = read_run("calm", "checkpoints/last.safetensors", &na);
    b = read_run("often", "checkpoints/last.safetensors", &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    assert_int_equal(read_rates("calm", calm), read_rates("often", rate));
    for (int i = 1; i <= 9; i++) /* also of those whose evaluation came after a new start */
        if (calm[i] != rate[i])
            fail_msg("update %d: lr %.9g, undisturbed %.9g", i, rate[i], calm[i]);
    print_message("%d starts for 9 updates in 3 epochs of 8 batches: %zu equal bytes\n", starts,
                  na);
    free(a);
    free(b);
    free(often);
}

/* ---- bn_calib_before_test ---- */

static void open_session(Config *c, Session *s, const char *more)
{
    Err e = {0};
    load_small(c, "none", more);
    if (session_open(s, c, &e) || session_data(s, SPLIT_TRAIN, &e)) fail_msg("%s", e.msg);
}

/* Mean and unbiased variance of each channel of the first convolution's output, averaged over the
 * first batches; by definition. */
static void first_norm(const Session *s, int batches, double mean[16], double var[16])
{
    const float *w = store_find(model_store(s->model), "conv1.weight")->value.data;
    Err e = {0};
    const Batch *b;
    enum { SIDE = 32 };
    if (loader_seek(s->loader[SPLIT_TRAIN], 0, 0, &e)) fail_msg("%s", e.msg);
    memset(mean, 0, 16 * sizeof *mean);
    memset(var, 0, 16 * sizeof *var);
    for (int i = 0; i < batches; i++) {
        if (loader_next(s->loader[SPLIT_TRAIN], &b, &e) != 1) fail_msg("%s", e.msg);
        for (int o = 0; o < 16; o++) {
            const double n = (double)b->n * SIDE * SIDE;
            double sum = 0, sq = 0;
            for (int p = 0; p < b->n * SIDE * SIDE; p++) {
                const int img = p / (SIDE * SIDE), y = p / SIDE % SIDE, x = p % SIDE;
                double z = 0;
                for (int k = 0; k < 27; k++) {
                    const int c = k / 9, yy = y + k / 3 % 3 - 1, xx = x + k % 3 - 1;
                    if (yy < 0 || xx < 0 || yy >= SIDE || xx >= SIDE) continue;
                    z += (double)w[o * 27 + k] *
                         (double)b->x[((img * SIDE + yy) * SIDE + xx) * 3 + c];
                }
                sum += z;
                sq += z * z;
            }
            mean[o] += sum / n / batches;
            var[o] += (sq - sum * sum / n) / (n - 1) / batches;
        }
    }
}

/* Every buffer set to something else. */
static void spoil_norms(Session *s, float value)
{
    ParamStore *ps = model_store(s->model);
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        float *v = p->value.data;
        if (!strstr(p->name, ".running_")) continue;
        for (size_t k = 0; k < tensor_len(&p->value); k++) v[k] = value;
        param_touch(p);
    }
}

static void calibrate(Session *s)
{
    Err e = {0};
    if (bn_calibrate(s, &e)) fail_msg("%s", e.msg);
}

static void norms_are_averages(void **state)
{
    Config c;
    Session s;
    double mean[16], var[16];
    const float *m, *v;
    (void)state;
    open_session(&c, &s, "bn_calib_batch_num=2 " FLOAT);
    spoil_norms(&s, 5);
    calibrate(&s);
    first_norm(&s, 2, mean, var);
    m = store_find(model_store(s.model), "bn1.running_mean")->value.data;
    v = store_find(model_store(s.model), "bn1.running_var")->value.data;
    for (int i = 0; i < 16; i++)
        if (fabs((double)m[i] - mean[i]) > 1e-5 || fabs((double)v[i] / var[i] - 1) > 1e-5)
            fail_msg("channel %d: mean %.8f var %.8f, expected %.8f %.8f", i, (double)m[i],
                     (double)v[i], mean[i], var[i]);
    session_free(&s);
    config_free(&c);
}

/* All bytes of a store, norms' statistics included or not. */
static uint64_t hash_store(const ParamStore *ps, bool norms)
{
    uint64_t h = 1469598103934665603u;
    for (int i = 0; i < ps->n; i++) {
        const Param *p = ps->p[i];
        const unsigned char *b = p->value.data;
        if (!norms && strstr(p->name, ".running_")) continue;
        for (size_t k = 0; k < tensor_bytes(&p->value); k++) h = (h ^ b[k]) * 0x100000001B3u;
    }
    return h;
}

/* Whatever the statistics were; nothing else moves, not the averages of a quantizer either; each
 * width has its own. */
static void nothing_else_moves(void **state)
{
    static const char *const kinds[] = {
        "bn_calib_batch_num=-1 wt_quant=f8net fm_quant=f8net weight_format=[8,7] "
        "input_format=[8,6] format_type=per_layer format_from_metric=true metric=std",
        "bn_calib_batch_num=3 wt_quant=adabits fm_quant=adabits bits_list=[5,3] "
        "adaptive_training=true",
    };
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        Config c;
        Session s;
        uint64_t rest, first;
        open_session(&c, &s, kinds[k]);
        spoil_norms(&s, 3);
        rest = hash_store(model_store(s.model), false);
        calibrate(&s);
        first = hash_store(model_store(s.model), true);
        assert_true(hash_store(model_store(s.model), false) == rest);
        spoil_norms(&s, 0.25f);
        calibrate(&s);
        assert_true(hash_store(model_store(s.model), true) == first);
        for (int i = 0; i < model_store(s.model)->n; i++) {
            const Param *p = model_store(s.model)->p[i];
            if (strstr(p->name, ".running_")) assert_true(*(const float *)p->value.data != 0.25f);
        }
        session_free(&s);
        config_free(&c);
    }
}

/* A test with calibration: another result than without, the checkpoint as it was. */
static void tests_with_calibration(void **state)
{
    char *a, *b, *plain, *calibrated;
    size_t na, nb, n;
    (void)state;
    assert_int_equal(start("cal", FLOAT " num_epochs=1 max_steps=2"), 0);
    a = read_run("cal", "checkpoints/best.safetensors", &na);
    assert_int_equal(start("cal", FLOAT " num_epochs=1 test_only=true"), 0);
    plain = read_run("cal", "test/run.json", &n);
    assert_null(strstr(logged.s, "bn_calib"));
    assert_int_equal(start("cal", FLOAT " num_epochs=1 test_only=true bn_calib_before_test=true "
                                        "bn_calib_batch_num=4"),
                     0);
    calibrated = read_run("cal", "test/run.json", &n);
    if (!strstr(logged.s, "statistics of the norms from 4 batches")) fail_msg("%s", logged.s);
    b = read_run("cal", "checkpoints/best.safetensors", &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    assert_non_null(strstr(plain, "\"loss\":"));
    assert_string_not_equal(strstr(plain, "\"loss\":"), strstr(calibrated, "\"loss\":"));
    free(a);
    free(b);
    free(plain);
    free(calibrated);
}

/* ---- print_each_iter ---- */

static int lines_with(const char *word)
{
    int n = 0;
    for (const char *s = logged.s; s && (s = strstr(s, word)); s += strlen(word)) n++;
    return n;
}

static void lines_of_batches(void **state)
{
    (void)state;
    assert_int_equal(start("lines", "num_epochs=1 print_each_iter=True topk=[1,5]"), 0);
    assert_int_equal(lines_with("train batch "), 8);
    assert_int_equal(lines_with("val batch "), 2);
    assert_non_null(strstr(logged.s, "val batch 2: loss "));
    assert_non_null(strstr(logged.s, "  top5 "));
    assert_int_equal(start("quiet", "num_epochs=1"), 0);
    assert_int_equal(lines_with("batch "), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_of_cut_epochs),        cmocka_unit_test(epochs_differ),
        cmocka_unit_test(stopped_after_every_update), cmocka_unit_test(norms_are_averages),
        cmocka_unit_test(nothing_else_moves),         cmocka_unit_test(tests_with_calibration),
        cmocka_unit_test(lines_of_batches),
    };
    return cmocka_run_group_tests(tests, make_root, drop_root);
}
