/* test/test_optim.c -- rules, schedules and parameter groups against the originals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/par.h"
#include "optim/optim.h"

static Tensor array(Arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
static Tensor array(Arena *a, const char *fmt, ...)
{
    char path[256];
    Tensor t;
    Err e = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    if (npy_read(path, a, &t, &e)) fail_msg("%s", e.msg);
    return t;
}

static const OptimOpts plain = {.optimizer = "sgd",
                                .lr = 0.1,
                                .lr_scheduler = "constant",
                                .num_epochs = 10,
                                .gamma = 0.1,
                                .power = 1};

/* ---- schedules ---- */

typedef struct Case {
    const char *file; /* below test/golden */
    OptimOpts o;
    int iters; /* per epoch; the table has a row per iteration, or per epoch when 0 */
    int first_epoch;
} Case;

/* The rows of the table against optim_lr of the run's rate (column 0) and of the groups (the
 * others). */
static void expect_table(const Case *c)
{
    Arena a = {0};
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    Tensor t = array(&a, "test/golden/%s", c->file);
    const float *v = t.data;
    int columns = t.ndim > 1 ? t.dim[1] : 1;
    double worst = 0;
    if (optim_init(&op, &c->o, &ps, &e)) fail_msg("%s: %s", c->file, e.msg);
    for (int row = 0; row < t.dim[0]; row++) {
        int per = c->iters ? c->iters : 1;
        double epoch = c->first_epoch + row / per + (double)(row % per) / per;
        for (int k = 0; k < columns; k++) {
            double want = (double)v[row * columns + k], got = optim_lr(&op, k - 1, epoch);
            double err = fabs(got - want), bound = 1e-9 + 2e-6 * fabs(want);
            if (err > bound)
                fail_msg("%s: row %d column %d: %.9g, expected %.9g", c->file, row, k, got, want);
            if (want > 1e-9) worst = fmax(worst, err / want);
        }
    }
    print_message("%-50s %d x %d, largest relative error %.1e\n", c->file, t.dim[0], columns,
                  worst);
    optim_free(&op);
    store_free(&ps);
    arena_free(&a);
}

static void test_apot_schedules(void **state)
{
    Case c = {.file = "apot/schedule_cifar.lr.npy", .o = plain};
    (void)state;
    c.o.lr = 0.04;
    c.o.lr_scheduler = "multistep";
    c.o.num_epochs = 300;
    c.o.milestone_compat = 1;
    c.o.nmilestones = 2;
    c.o.milestones[0] = 150;
    c.o.milestones[1] = 225;
    c.o.ngroups = 2;
    c.o.group[0] = (GroupRule){"act_alpha", 0.1, -1};
    c.o.group[1] = (GroupRule){"wgt_alpha", 0.02, -1};
    expect_table(&c);
    c.file = "apot/schedule_cifar_start200.lr.npy";
    c.first_epoch = c.o.start_epoch = 200;
    expect_table(&c);
    c = (Case){.file = "apot/schedule_imagenet.lr.npy", .o = plain};
    c.o.lr = 0.01;
    c.o.lr_scheduler = "multistep";
    c.o.num_epochs = 120;
    c.o.nmilestones = 3;
    for (int i = 0; i < 3; i++) c.o.milestones[i] = 30 * (i + 1);
    expect_table(&c);
}

static void test_f8net_schedules(void **state)
{
    static const char *const names[] = {"constant",      "multistep",         "multistep_iter",
                                        "exp_decaying",  "exp_decaying_iter", "linear_decaying",
                                        "cos_annealing", "cos_annealing_iter"};
    char file[128];
    Case c = {.file = file, .o = plain, .iters = 7};
    (void)state;
    c.o.num_epochs = 12;
    c.o.step_epochs = 1.0 / 7;
    c.o.nmilestones = 2;
    c.o.milestones[0] = 4;
    c.o.milestones[1] = 8;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        c.o.lr_scheduler = names[i];
        c.o.gamma = strcmp(names[i], "exp_decaying") ? 0.1 : 0.9;
        c.o.lr = 0.05;
        c.o.warmup_epochs = 0;
        snprintf(file, sizeof file, "f8net/lr_%s_bs256.out_lr.npy", names[i]);
        expect_table(&c);
        c.o.lr =
            0.2; /* 1024 images a step: four times the rate, reached from the file's in 5 epochs */
        c.o.warmup_lr = 0.05;
        c.o.warmup_epochs = 5;
        snprintf(file, sizeof file, "f8net/lr_%s_bs1024.out_lr.npy", names[i]);
        expect_table(&c);
    }
    c.o.lr_scheduler = "cos_annealing_iter";
    c.o.lr = 0.8;
    c.o.warmup_lr = 0.1;
    c.o.warmup_epochs = 3;
    snprintf(file, sizeof file, "f8net/lr_cos_iter_warmup3.out_lr.npy");
    expect_table(&c);
    c.o.lr_scheduler = "exp_decaying";
    c.o.lr = 0.1;
    c.o.gamma = 0.5;
    c.o.step_size = 3;
    c.o.warmup_epochs = 0;
    snprintf(file, sizeof file, "f8net/lr_exp_decaying_period3.out_lr.npy");
    expect_table(&c);
}

static void test_keyword_schedules(void **state)
{
    static const struct {
        const char *file, *name;
        double lr, gamma, lr_min;
        int nmilestones, milestones[3], epochs, iters;
    } rows[] = {
        {"decay.out_lr_epoch.npy", "decay", 0.01, 0.98, 0, 0, {0}, 25, 0},
        {"fix.out_lr_epoch.npy", "fix", 0.003, 0.98, 0, 0, {0}, 5, 0},
        {"fix_step.out_lr_epoch.npy", "fix_step", 0.1, 0.1, 0, 0, {0}, 20, 0},
        {"custom_step.out_lr_epoch.npy", "custom_step", 0.005, 0.1, 0, 3, {15, 25, 35}, 40, 0},
        {"custom_step_0p2.out_lr_epoch.npy", "custom_step", 0.1, 0.2, 0, 3, {60, 120, 160}, 200, 0},
        {"poly_one.out_lr_epoch.npy", "poly", 0.001, 1, 0, 1, {120}, 120, 0},
        {"poly_multi.out_lr_epoch.npy", "poly", 0.02, 0.9, 1e-4, 2, {8, 20}, 30, 0},
        {"sgdr_one.out_lr_iter.npy", "sgdr", 0.005, 0.98, 0, 1, {6}, 6, 5},
        {"sgdr_restart.out_lr_iter.npy", "sgdr", 0.001, 0.98, 1e-6, 2, {2, 6}, 12, 5},
        {"cos.out_lr_epoch.npy", "cos", 0.01, 0.98, 1e-4, 1, {4}, 12, 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char file[128];
        Case c = {.file = file, .o = plain, .iters = rows[i].iters};
        snprintf(file, sizeof file, "keyword-schedule/%s", rows[i].file);
        c.o.lr_scheduler = rows[i].name;
        c.o.lr = rows[i].lr;
        c.o.gamma = c.o.power = rows[i].gamma;
        c.o.lr_min = rows[i].lr_min;
        c.o.step_size = 6;
        c.o.num_epochs = rows[i].epochs;
        c.o.nmilestones = rows[i].nmilestones;
        memcpy(c.o.milestones, rows[i].milestones, sizeof rows[i].milestones);
        expect_table(&c);
    }
}

static double rate(const OptimOpts *o, double epoch)
{
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    double lr;
    if (optim_init(&op, o, &ps, &e)) fail_msg("%s", e.msg);
    lr = optim_lr(&op, -1, epoch);
    optim_free(&op);
    return lr;
}

static void expect_rate(const OptimOpts *o, double epoch, double want)
{
    double got = rate(o, epoch);
    if (fabs(got - want) > 1e-12 + 1e-9 * fabs(want))
        fail_msg("%s at epoch %g: %.12g, expected %.12g", o->lr_scheduler, epoch, got, want);
}

static void test_other_schedules(void **state)
{
    OptimOpts o = plain;
    (void)state;
    /* the rates of the published APoT event files: ramp over 2500 updates of 1250 an epoch, ending
     * one update early */
    o.lr = 0.04;
    o.lr_scheduler = "multistep_iter";
    o.num_epochs = 100;
    o.warmup_lr = 0.01;
    o.warmup_epochs = 2499.0 / 1250;
    o.nmilestones = 3;
    for (int i = 0; i < 3; i++) o.milestones[i] = 30 * (i + 1);
    expect_rate(&o, 0, 0.01);
    expect_rate(&o, 1249 / 1250.0, 0.01 + 0.03 * 1249 / 2499);
    expect_rate(&o, 2499 / 1250.0, 0.04);
    expect_rate(&o, 29.999, 0.04);
    expect_rate(&o, 30, 0.004);
    o.warmup_lr = 0.4; /* a "warm-up" may go down */
    expect_rate(&o, 0, 0.4);

    o = plain; /* lr_list */
    o.lr_scheduler = "custom";
    o.nlr_list = 2;
    o.lr_list[0] = 0.01;
    o.lr_list[1] = 0.001;
    expect_rate(&o, 0.5, 0.01);
    expect_rate(&o, 1, 0.001);
    expect_rate(&o, 7, 0.001);

    o = plain; /* cycles of 2, 4, 8 epochs */
    o.lr_scheduler = "sgdr";
    o.cycle = 2;
    o.cycle_mult = 2;
    o.num_epochs = 14;
    expect_rate(&o, 0, 0.1);
    expect_rate(&o, 1, 0.05);
    expect_rate(&o, 2, 0.1);
    expect_rate(&o, 4, 0.05);
    expect_rate(&o, 6, 0.1);
    expect_rate(&o, 10, 0.05);
    o.lr_scheduler = "sgdr_step";
    expect_rate(&o, 10, 0.0005);
    o.lr_min = 4e-4; /* where every cycle ends, however low it began */
    expect_rate(&o, 10, 4e-4 + (1e-3 - 4e-4) / 2);
    expect_rate(&o, 6, 1e-3);
    o.lr_min = 0;
    o.cycle_mult = 1; /* cycles of 2 epochs */
    o.lr_scheduler = "sgdr";
    o.num_epochs = 1000000;
    expect_rate(&o, 1.5, 0.05 * (1 + cos(M_PI * 0.75)));
    expect_rate(&o, 2, 0.1);
    expect_rate(&o, 999999, 0.05);

    o = plain; /* the rate that a warm-up reached is where the cosine begins */
    o.lr_scheduler = "sgdr";
    o.num_epochs = 9;
    o.nmilestones = 1;
    o.milestones[0] = 5;
    o.warmup_epochs = 1;
    expect_rate(&o, 0.5, 0.05);
    expect_rate(&o, 1, 0.1);
    expect_rate(&o, 3, 0.05);
    expect_rate(&o, 5, 0.1);
    expect_rate(&o, 7, 0.05);
    o.warmup_epochs = 5;
    expect_rate(&o, 5, 0.1);
    o.warmup_epochs = 7;
    expect_rate(&o, 7, 0.1);
    expect_rate(&o, 8, 0.05);

    o = plain;
    o.lr_scheduler = "linear";
    o.lr_min = 0.02;
    o.warmup_epochs = 2;
    expect_rate(&o, 1, 0.05);
    expect_rate(&o, 2, 0.1);
    expect_rate(&o, 6, 0.06);
    expect_rate(&o, 10, 0.02);

    for (const Schedule *s = schedules; s->name; s++) { /* every row gives a sane rate everywhere */
        o = plain;
        o.lr_scheduler = s->name;
        o.step_size = 3;
        o.nmilestones = o.nlr_list = 1;
        o.milestones[0] = 4;
        o.lr_list[0] = 0.1;
        for (int i = 0; i <= 40; i++) {
            double lr = rate(&o, i * 0.25);
            if (!(lr >= 0 && lr <= 0.1 + 1e-12)) fail_msg("%s: %g at %g", s->name, lr, i * 0.25);
        }
    }
}

/* ---- rules ---- */

/* Runs `steps` updates of the tensors `names` (NULL at the end) and compares with
 * PREFIX.out_NAME_after.npy. */
static void expect_updates(const char *prefix, const OptimOpts *o, const char *const *names,
                           int steps)
{
    Arena a = {0};
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    Tensor grads[8];
    double worst = 0;
    for (int i = 0; names[i]; i++) {
        Tensor in = array(&a, "test/golden/%s.in_%s.npy", prefix, names[i]);
        Param *p = store_add(&ps, PK_WEIGHT, DT_F32, (Init){0}, in.ndim, in.dim, "%s", names[i]);
        memcpy(p->value.data, in.data, tensor_bytes(&in));
        grads[i] = array(&a, "test/golden/%s.in_grad_%s.npy", prefix, names[i]);
        assert_int_equal(tensor_len(&grads[i]), (size_t)steps * tensor_len(&in));
        p->trained = true;
    }
    store_alloc_grads(&ps);
    if (optim_init(&op, o, &ps, &e)) fail_msg("%s: %s", prefix, e.msg);
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < ps.n; i++) {
            size_t n = tensor_len(&ps.p[i]->value);
            memcpy(ps.p[i]->grad.data, (const float *)grads[i].data + (size_t)s * n,
                   n * sizeof(float));
        }
        optim_step(&op, &ps, 0);
    }
    assert_int_equal(op.t, steps);
    for (int i = 0; i < ps.n; i++) {
        Tensor want = array(&a, "test/golden/%s.out_%s_after.npy", prefix, names[i]);
        const float *w = want.data, *v = ps.p[i]->value.data;
        for (size_t k = 0; k < tensor_len(&want); k++) {
            double err = fabs((double)v[k] - (double)w[k]);
            if (err > 1e-6 + 1e-5 * fabs((double)w[k]))
                fail_msg("%s: %s[%zu] = %.9g, expected %.9g", prefix, names[i], k, (double)v[k],
                         (double)w[k]);
            worst = fmax(worst, err);
        }
    }
    print_message("%-40s largest error %.1e\n", prefix, worst);
    optim_free(&op);
    store_free(&ps);
    arena_free(&a);
}

static void test_sgd(void **state)
{
    static const char *const schemes[] = {"all", "only_no_depthwise", "only_no_bn",
                                          "no_depthwise_no_bn"};
    static const char *const names[] = {"conv_w", "dw_w", "fc_w", "fc_b", "bn_w", "bn_b", NULL};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        for (int nesterov = 0; nesterov < 2; nesterov++) {
            char prefix[64];
            OptimOpts o = plain;
            o.momentum = 0.9;
            o.nesterov = nesterov;
            o.weight_decay = 0.01;
            o.weight_decay_scheme = schemes[i];
            snprintf(prefix, sizeof prefix, "f8net/sgd_%s_%s", schemes[i],
                     nesterov ? "nesterov" : "plain");
            expect_updates(prefix, &o, names, 3);
        }
    }
}

static void test_rmsprop(void **state)
{
    static const char *const names[] = {"conv_w", "dw_w",      "fc_w", "fc_b",
                                        "bn_w",   "alpha_vec", NULL};
    OptimOpts o = plain;
    (void)state;
    o.optimizer = "rmsprop";
    o.lr = 0.05;
    o.momentum = 0.9;
    o.weight_decay = 0.01;
    o.optim_decay = 0.9;
    o.optim_eps = 0.001;
    expect_updates("adabits/opt_rmsprop", &o, names, 3);
}

/* A store with one parameter of n values 1 and gradient 0.5. */
static Param *one_param(ParamStore *ps, int n)
{
    Param *p = store_add(ps, PK_WEIGHT, DT_F32, (Init){INIT_CONST, 1, 0}, 1, &n, "w");
    store_init(ps, 1);
    store_alloc_grads(ps);
    for (int i = 0; i < n; i++) ((float *)p->grad.data)[i] = 0.5f;
    p->trained = true;
    return p;
}

static void expect_scalar(const Param *p, double want)
{
    double got = (double)param_scalar(p);
    if (fabs(got - want) > 1e-6) fail_msg("%s: %.9g, expected %.9g", p->name, got, want);
}

/* By hand: with a constant gradient both moments are exact: a step is lr * g / (|g| + eps). */
static void test_adam(void **state)
{
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    OptimOpts o = plain;
    Param *p = one_param(&ps, 3);
    (void)state;
    o.optimizer = "adam";
    o.lr = 1e-3;
    assert_int_equal(optim_init(&op, &o, &ps, &e), 0);
    for (int i = 0; i < 5; i++) optim_step(&op, &ps, 0);
    expect_scalar(p, 1 - 5e-3);
    assert_int_equal(p->nslots, 2);
    assert_true(fabs((double)*(float *)p->slot[0].data - 0.5 * (1 - pow(0.9, 5))) < 1e-6);
    optim_free(&op);
    store_free(&ps);
}

static void test_sgd_details(void **state)
{
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    OptimOpts o = plain;
    float latent = 3;
    Tensor other = tensor_make(DT_F32, 0, NULL, &latent);
    Param *p = one_param(&ps, 1);
    uint32_t version;
    (void)state;
    o.momentum = 0.5;
    o.dampening = 0.25;
    o.weight_decay = 0.1;
    p->decay_from = &other;
    assert_int_equal(optim_init(&op, &o, &ps, &e), 0);
    version = p->version;
    optim_step(&op, &ps, 0); /* d = 0.5 + 0.1 * 3, v = d */
    expect_scalar(p, 1 - 0.1 * 0.8);
    assert_true(p->version > version);
    optim_step(&op, &ps, 0); /* v = 0.5 * 0.8 + 0.75 * 0.8 */
    expect_scalar(p, 1 - 0.1 * (0.8 + 1.0));
    p->trained = false; /* neither update nor decay */
    version = p->version;
    optim_step(&op, &ps, 0);
    expect_scalar(p, 0.82);
    assert_int_equal(p->version, version);
    assert_int_equal(op.t, 3);
    p->trained = p->has_lr = p->has_wd = true; /* its own rate and decay: nothing moves */
    optim_step(&op, &ps, 0);
    expect_scalar(p, 0.82);
    optim_free(&op);
    store_free(&ps);
}

/* The same bits for any number of threads, also where a tensor has several chunks. */
static void test_threads(void **state)
{
    enum { N = 3 * PAR_CHUNK + 77 };
    float *first = xcalloc(N, sizeof *first);
    (void)state;
    for (const OptimRule *r = optim_rules; r->name; r++) {
        for (int threads = 1; threads <= 3; threads++) {
            ParamStore ps = {0};
            Optim op;
            Err e = {0};
            OptimOpts o = plain;
            int n = N;
            Param *p = store_add(&ps, PK_WEIGHT, DT_F32, (Init){INIT_NORMAL, 0, 1}, 1, &n, "w");
            par_set_threads(threads);
            store_init(&ps, 7);
            store_alloc_grads(&ps);
            p->trained = true;
            o.optimizer = r->name;
            o.momentum = 0.9;
            o.weight_decay = 1e-2;
            assert_int_equal(optim_init(&op, &o, &ps, &e), 0);
            for (int s = 0; s < 3; s++) {
                for (int i = 0; i < N; i++)
                    ((float *)p->grad.data)[i] = (float)((i * 37 + s) % 101 - 50);
                optim_step(&op, &ps, 0);
            }
            if (threads == 1)
                memcpy(first, p->value.data, N * sizeof *first);
            else
                assert_memory_equal(first, p->value.data, N * sizeof *first);
            optim_free(&op);
            store_free(&ps);
        }
    }
    free(first);
}

static int warnings;
static char last_warning[256];
static void count_warnings(LogLevel level, const char *text)
{
    if (level != LOG_WARN) return;
    warnings++;
    snprintf(last_warning, sizeof last_warning, "%s", text);
}

static void test_groups(void **state)
{
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    OptimOpts o = plain;
    int conv[] = {4, 2, 3, 3};
    Param *w, *act, *bn;
    (void)state;
    w = store_add(&ps, PK_WEIGHT, DT_F32, (Init){0}, 4, conv, "layer1.0.conv1.weight");
    act = store_scalar(&ps, PK_CLIP, 8, "layer1.0.conv1.act_alpha");
    bn = store_add(&ps, PK_NORM, DT_F32, (Init){0}, 1, conv, "layer1.0.bn1.weight");
    o.weight_decay = 5e-4;
    o.weight_decay_scheme = "weights";
    o.ngroups = 2;
    o.group[0] = (GroupRule){"act_alpha", 0.4, 1e-4};
    o.group[1] = (GroupRule){"wgt_alpha", 0.02, -1};
    warnings = 0;
    log_set(LOG_INFO, count_warnings);
    assert_int_equal(optim_init(&op, &o, &ps, &e), 0);
    log_set(LOG_INFO, NULL);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "'wgt_alpha'"));
    optim_free(&op);
    o.group[1] = (GroupRule){"bn1", 0.02, -1};
    o.custom_decay_list[0] = "bn1", o.custom_decay_list[1] = "clip_val";
    o.ncustom_decay = 2;
    o.custom_lr_list[0] = "quant_weight", o.custom_lr_list[1] = "conv1";
    o.ncustom_lr = 2;
    warnings = 0;
    log_set(LOG_INFO, count_warnings);
    assert_int_equal(optim_init(&op, &o, &ps, &e), 0);
    log_set(LOG_INFO, NULL);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "custom_decay_list: no parameter name contains 'clip_val'"));
    optim_free(&op);
    o.group[1] = (GroupRule){"wgt_alpha", 0.02, -1};
    o.ncustom_decay = o.ncustom_lr = 0;
    assert_int_equal(optim_init(&op, &o, &ps, &e), 0);
    assert_int_equal(op.group[w->index], -1);
    assert_int_equal(op.group[act->index], 0);
    assert_float_equal(optim_lr(&op, 0, 0), 0.4, 1e-12);
    assert_float_equal(optim_lr(&op, 1, 0), 0.02, 1e-12);
    assert_float_equal(optim_lr(&op, -1, 0), 0.1, 1e-12);
    assert_float_equal(optim_decay(&op, w), 5e-4, 1e-12);
    assert_float_equal(optim_decay(&op, act), 1e-4, 1e-12);
    assert_float_equal(optim_decay(&op, bn), 0, 0);
    optim_free(&op);
    store_free(&ps);
}

static void test_check(void **state)
{
    Err e = {0};
    OptimOpts o = plain;
    (void)state;
    assert_int_equal(optim_check(&o, &e), 0);
    o.optimizer = "sgdd";
    o.lr_scheduler = "multistp";
    o.weight_decay_scheme = "weigths";
    o.nesterov = true;
    o.lr = NAN;
    o.nmilestones = 2;
    o.milestones[0] = 9;
    o.milestones[1] = 9;
    assert_int_equal(optim_check(&o, &e), -1);
    assert_int_equal(e.kind, ERR_CONFIG);
    {
        static const char *const parts[] = {"did you mean 'sgd'?",
                                            "did you mean 'multistep'?",
                                            "did you mean 'weights'?",
                                            "nesterov: needs",
                                            "lr: nan",
                                            "milestones: 9 does not ascend"};
        for (size_t i = 0; i < ARRAY_LEN(parts); i++)
            if (!strstr(e.msg, parts[i])) fail_msg("'%s' lacks '%s'", e.msg, parts[i]);
    }
    o = plain;
    o.lr_scheduler = "multistep";
    e = (Err){0};
    assert_int_equal(optim_check(&o, &e), -1);
    assert_string_equal(e.msg, "lr_scheduler: 'multistep' needs multistep_lr_milestones");
}

/* A parameter that is trained from a later update on: its first is its own first, as in PyTorch. */
static void test_late_parameters(void **state)
{
    static const char *const rules[] = {"sgd", "adam", "rmsprop"};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(rules); k++) {
        const OptimOpts o = {.optimizer = rules[k],
                             .lr_scheduler = "constant",
                             .lr = 0.125,
                             .momentum = 0.5,
                             .dampening = 0.25,
                             .num_epochs = 9};
        ParamStore ps = {0};
        Param *early = store_scalar(&ps, PK_CLIP, 1, "early"), *late = store_scalar(&ps, PK_CLIP, 1, "late");
        float first[3];
        Optim op;
        Err e = {0};
        store_init(&ps, 1);
        store_alloc_grads(&ps);
        if (optim_init(&op, &o, &ps, &e)) fail_msg("%s", e.msg);
        early->trained = true;
        for (int i = 0; i < 8; i++) {
            *(float *)early->grad.data = *(float *)late->grad.data = 0.5f;
            late->trained = i >= 5;
            optim_step(&op, &ps, 0);
            if (i < 3) first[i] = param_scalar(early);
            if (i >= 5 && param_scalar(late) != first[i - 5])
                fail_msg("%s: update %d of the late one gives %.9g, of the early one %.9g", rules[k],
                         i - 4, (double)param_scalar(late), (double)first[i - 5]);
        }
        assert_int_equal(late->updates, 3);
        optim_free(&op);
        store_free(&ps);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apot_schedules),
        cmocka_unit_test(test_f8net_schedules),
        cmocka_unit_test(test_keyword_schedules),
        cmocka_unit_test(test_other_schedules),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_rmsprop),
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_late_parameters),
        cmocka_unit_test(test_sgd_details),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
