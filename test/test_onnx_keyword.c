/* test/test_onnx_keyword.c -- nets quantized by the keyword language's methods as ONNX files.
 *
 * Forms of activations and outputs (quant/form.h) against evaluation: every method, at its
 * thresholds and beside them, to the bit; where a mean of the map is a factor, to its last bits.
 * Whole nets on ONNX Runtime against qrun's evaluation: a value at a threshold may take the other
 * level, since sums have another order; few images may differ, and the log says how many did. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/spec.h"
#include "quant/keyword.h"
#include "run/config.h"
#include "test/form_run.h"
#include "test/one.h"
#include "test/onnx_net.h"

/* ---- forms against evaluation ---- */

typedef struct FormCase {
    const char *label, *method;
    QRole role;
    int bits;
    KwTag tag;        /* scale 0: 0.5; texts NULL: none */
    KwOpts kw;        /* all but the tags */
    double low, high; /* of clip levels and alphas */
    double apart;     /* differences in parts of a value; 0: none */
    float prox;
} FormCase;

// clang-format off
static const FormCase forms[] = {
    { "dorefa 2 bits",             "dorefa", Q_ACT, 2, .tag = { .half_range = true } },
    { "dorefa 8 bits below 3",     "dorefa", Q_ACT, 8, .tag = { .half_range = true, .boundary = 3 } },
    { "dorefa output, gamma",      "dorefa", Q_OUT, 4, .tag = { .gamma = true } },
    { "pact 4 bits",               "pact",   Q_ACT, 4, .tag = { .half_range = true }, .low = 0.5, .high = 3 },
    { "pact below 0",              "pact",   Q_ACT, 3, .tag = { .half_range = true }, .low = -2, .high = -1 },
    { "lsq half",                  "lsq",    Q_ACT, 4, .tag = { .half_range = true }, .low = 0.5, .high = 3 },
    { "lsq full",                  "lsq",    Q_ACT, 2, .low = -3, .high = 3 },
    { "lsq full, 3 levels",        "lsq",    Q_ACT, 2, .tag = { .level = 3 }, .low = -3, .high = 3 },
    { "lsq full, 3 groups",        "lsq",    Q_ACT, 8, .tag = { .quant_group = 3 }, .low = -3, .high = 3 },
    { "lsq half, by channel",      "lsq",    Q_ACT, 3, .tag = { .half_range = true, .quant_group = -1 }, .low = 0.5, .high = 3 },
    { "lsq output, groups, gamma", "lsq",    Q_OUT, 5, .tag = { .gamma = true, .quant_group = 2 }, .low = 0.5, .high = 3 },
    { "lq 2 bits",                 "lq",     Q_ACT, 2, .tag = { .half_range = true } },
    { "lq full, 3 groups",         "lq",     Q_ACT, 3, .tag = { .quant_group = 3 } },
    { "lq scale 0.3",              "lq",     Q_ACT, 4, .tag = { .scale = 0.3 } },
    { "lq scale 3",                "lq",     Q_ACT, 3, .tag = { .half_range = true, .scale = 3 } },
    { "lq scale 2.5, 3 groups",    "lq",     Q_ACT, 5, .tag = { .quant_group = 3, .scale = 2.5 } },
    { "lq 3 levels of one bit",    "lq",     Q_ACT, 1, .tag = { .level = 3 } },
    { "lq 5 bits, 2 groups",       "lq",     Q_ACT, 5, .tag = { .quant_group = 2 } },
    { "lq 8 bits",                 "lq",     Q_ACT, 8, .tag = { .half_range = true } },
    { "lq mean",                   "lq",     Q_ACT, 3, .tag = { .half_range = true, .adaptive = "mean" }, .apart = 1e-6 },
    { "lq var, 2 groups",          "lq",     Q_ACT, 2, .tag = { .adaptive = "var", .quant_group = 2 }, .apart = 1e-6 },
    { "xnor",                      "xnor",   Q_ACT, 1, .tag = { .half_range = true } },
    { "xnor channel",              "xnor",   Q_ACT, 1, .kw = { .fm_custom = "channel" }, .apart = 1e-6 },
    { "xnor resolution",           "xnor",   Q_ACT, 1, .kw = { .fm_custom = "resolution" }, .apart = 1e-6 },
    { "fatnn 2 levels",            "fatnn",  Q_ACT, 1, .tag = { .half_range = true }, .low = -2, .high = 2 },
    { "fatnn 3 levels",            "fatnn",  Q_ACT, 2, .tag = { .half_range = true, .level = 3 }, .low = 0.7, .high = 3 },
    { "fatnn 4 levels, 3 groups",  "fatnn",  Q_ACT, 2, .tag = { .half_range = true, .quant_group = 3 }, .low = -3, .high = 3 },
    { "fatnn both sides",          "fatnn",  Q_ACT, 2, .tag = { .level = 3, .quant_group = -2 }, .low = 0.5, .high = 3 },
    { "fatnn closed form",         "fatnn",  Q_ACT, 2, .tag = { .half_range = true }, .kw = { .closed_form = true }, .low = 0.5, .high = 3 },
    { "proxquant lsq",             "lsq",    Q_ACT, 3, .kw = { .proxquant = true }, .low = 0.5, .high = 3, .prox = 0.3f },
    { "proxquant lq mean",         "lq",     Q_ACT, 2, .tag = { .adaptive = "mean" }, .kw = { .proxquant = true }, .apart = 1e-6, .prox = 0.8f },
    { "proxquant, ended",          "dorefa", Q_ACT, 3, .kw = { .proxquant = true } },
    { "warm-up",                   "lsq",    Q_ACT, 3, .kw = { .stable = 5 }, .low = 0.5, .high = 3 },
};
// clang-format on

static void set_options(QOpts *o, QRole role, const KwTag *tag, const KwOpts *kw)
{
    KwTag tags[Q_NROLES], *t = &tags[role];
    memcpy(tags, o->kw.tag, sizeof tags);
    *t = *tag;
    if (t->scale == 0) t->scale = 0.5;
    if (!t->adaptive) t->adaptive = "none";
    t->grad_type = t->grad_scale = "none";
    o->kw = *kw;
    memcpy(o->kw.tag, tags, sizeof tags);
    if (!o->kw.fm_custom) o->kw.fm_custom = "none";
}

/* Numbers as training leaves them: levels and factors of no special value. */
static void set_params(One *t, const FormCase *c, Rng *g)
{
    for (int i = 0; i < t->ps.n; i++) {
        Param *p = t->ps.p[i];
        const char *name = strrchr(p->name, '.') + 1;
        const bool factor = str_eq(name, "gamma") || str_eq(name, "basis");
        float *v = p->value.data;
        if (str_eq(name, "iteration")) v[0] = 3;
        if (!factor && !str_eq(name, "clip_val") && !str_starts(name, "alpha")) continue;
        for (size_t k = 0; k < tensor_len(&p->value); k++)
            v[k] *= factor ? (float)rng_range(g, 0.7, 1.3) : (float)rng_range(g, c->low, c->high);
    }
    ((Keyword *)t->q.priv)->prox = c->prox;
}

/* One of the thresholds, or of the places where uniform levels change: in float the steps may
 * change beside them. */
static float threshold(const One *t, const QuantForm *f, size_t channel, Rng *g)
{
    const Keyword *k = t->q.priv;
    const int i = (int)rng_range(g, 0, f->nlevels ? f->nlevels : k->levels);
    const float *clip = k->clip ? k->clip->value.data : NULL;
    const double a = k->clip ? fabs((double)clip[channel * (size_t)k->groups / (size_t)f->c])
                     : k->o->boundary > 0 ? k->o->boundary
                                          : 1;
    if (f->nlevels) return i ? f->threshold[i * f->tables + (f->tables > 1 ? (int)channel : 0)] : 0;
    return (float)(a * ((t->o.kw.tag[t->q.role].half_range || str_eq(t->q.method->name, "dorefa"))
                            ? (i + 0.5) / (double)k->n
                            : 2 * (i + 0.5) / (double)k->n - 1));
}

/* A third at thresholds and beside them, some zeros. */
static void fill(One *t, const QuantForm *f, Rng *g)
{
    float *x = t->x.data;
    for (size_t i = 0; i < tensor_len(&t->x); i++) {
        const int what = (int)rng_range(g, 0, 12);
        const float at = threshold(t, f, i % (size_t)f->c, g);
        x[i] = what == 0   ? at
               : what == 1 ? nextafterf(at, INFINITY)
               : what == 2 ? nextafterf(at, -INFINITY)
               : what == 3 ? at * (float)rng_range(g, 0.999999, 1.000001)
               : what == 4 ? 0.0f * (float)rng_range(g, -1, 1)
                           : (float)rng_range(g, -4, 4);
    }
}

static void one_form(const FormCase *c, uint64_t number)
{
    static const int dim[] = {4, 6, 9, 8};
    Arena arena = {0};
    One t;
    QuantForm f = {.arena = &arena, .c = dim[1], .image = 6 * 9 * 8};
    Rng g = rng_stream(17, RNG_TEST, number, 0);
    Err e = {0};
    double most = 0;
    size_t n, differ = 0, at_levels = 0;
    float *form;
    set_options(&new_one(&t)->o, c->role, &c->tag, &c->kw);
    open_one(&t, c->method, c->role, c->bits, 4, dim);
    set_params(&t, c, &g);
    t.c.phase = PH_EVAL;
    n = tensor_len(&t.x);
    form = xcalloc(n, sizeof *form);
    if (t.q.fn->form(&t.q, &f, &e)) fail_msg("%s: %s", c->label, e.msg);
    for (int round = 0; round < 20; round++) {
        const float *x = t.x.data, *y = t.y.data;
        if (c->apart > 0)
            fill_one(&t, -2, 3);
        else
            fill(&t, &f, &g);
        qinst_forward(&t.q, &t.x, &t.y, &t.c);
        if (t.q.fault) fail_msg("%s: %s", c->label, t.q.fault);
        form_run(&f, dim[0], dim[2] * dim[3], x, form);
        for (size_t i = 0; i < n; i++) {
            at_levels += x[i] != y[i];
            if (form[i] == y[i]) continue;
            differ++;
            most = fmax(most, fabs((double)form[i] - (double)y[i]) / fabs((double)y[i]));
            if (!(most <= c->apart))
                fail_msg("%s: of %a evaluation makes %a, the form %a", c->label, (double)x[i],
                         (double)y[i], (double)form[i]);
        }
    }
    if (c->kw.stable ? at_levels : !at_levels)
        fail_msg("%s: %zu values change", c->label, at_levels);
    print_message("# %-26s %2d steps, %3d levels in %d tables: %zu of %zu values differ", c->label,
                  f.n, f.nlevels, f.tables, differ, 20 * n);
    print_message(differ ? ", by %.2g of the value at most\n" : "\n", most);
    free(form);
    arena_free(&arena);
    close_one(&t);
}

static void test_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) one_form(&forms[i], i);
}

/* ---- parameters that cannot be used ---- */

static void test_refused(void **state)
{
    static const int dim[] = {2, 4, 3, 3};
    Arena arena = {0};
    One t;
    QuantForm f = {.arena = &arena, .c = 4};
    Err e = {0};
    (void)state;
    open_one(new_one(&t), "pact", Q_ACT, 2, 4, dim);
    *(float *)t.q.p[0]->value.data = 0;
    assert_int_equal(t.q.fn->form(&t.q, &f, &e), -1);
    assert_string_equal(e.msg, "layer.quant_activation: clip_val[0] is 0; pact divides by it");
    close_one(&t);
    arena_free(&arena);
}

/* ---- nets ---- */

enum { IMAGES = 16, FLIPS = 4 };
#define WEIGHTS                                                                                    \
    {                                                                                              \
        INIT_NORMAL, 0, 0.2f                                                                       \
    }

typedef struct NetCase {
    const char *net, *label, *wt, *fm;
    int wt_bit, fm_bit;
    KwTag wt_tag, fm_tag, ot_tag;
    KwOpts kw;
    const char *ot; /* at 5 bits; NULL: none */
    int last_bit;
    double clip; /* act_clip_init */
} NetCase;

// clang-format off
static const NetCase net_cases[] = {
    { "resnet20_cifar", "_dorefa",       "dorefa", "dorefa", 2, 2, .fm_tag = { .half_range = true, .boundary = 2 } },
    { "resnet20_cifar", "_dorefa_bin",   "dorefa", "dorefa", 1, 3, .fm_tag = { .half_range = true }, .kw = { .wt_bin = true }, .ot = "dorefa", .ot_tag = { .gamma = true } },
    { "resnet20_cifar", "_pact",         "pact",   "pact",   4, 4, .wt_tag = { .adaptive = "var-mean" }, .fm_tag = { .half_range = true }, .last_bit = 8, .clip = 3 },
    { "resnet20_cifar", "_lsq",          "lsq",    "lsq",    3, 4, .wt_tag = { .adaptive = "var-mean", .boundary = 2 }, .fm_tag = { .half_range = true }, .clip = 3 },
    { "resnet20_cifar", "_lsq_groups",   "lsq",    "lsq",    4, 4, .wt_tag = { .adaptive = "var-mean", .quant_group = 1, .boundary = 2, .gamma = true }, .fm_tag = { .half_range = true, .quant_group = -1 }, .last_bit = 8, .clip = 3 },
    { "mobilenetv1",    "_lsq_255",      "lsq",    "lsq",    8, 8, .wt_tag = { .adaptive = "var-mean", .boundary = 3 }, .fm_tag = { .level = 255 }, .clip = 4 },
    { "resnet20_cifar", "_lq",           "lq",     "lq",     3, 2, .fm_tag = { .half_range = true } },
    { "resnet20_cifar", "_lq_groups",    "lq",     "lq",     2, 3, .wt_tag = { .adaptive = "mean-var" }, .fm_tag = { .half_range = true, .quant_group = 4 }, .last_bit = 3 },
    { "resnet20_cifar", "_lq_many",      "lq",     "lq",     5, 6, .fm_tag = { .half_range = true, .quant_group = 2 }, .last_bit = 5 },
    { "resnet20_cifar", "_lq_mean",      "lq",     "lq",     3, 2, .fm_tag = { .half_range = true, .adaptive = "mean" } },
    { "resnet20_cifar", "_lq_var",       "lq",     "lq",     3, 3, .fm_tag = { .adaptive = "var" }, .last_bit = 3 },
    { "resnet20_cifar", "_fatnn",        "fatnn",  "fatnn",  2, 2, .wt_tag = { .level = 3, .adaptive = "var-mean", .scale = 1 }, .fm_tag = { .half_range = true, .scale = 1.3 } },
    { "resnet20_cifar", "_fatnn_closed", "lsq",    "fatnn",  2, 2, .wt_tag = { .adaptive = "var-mean" }, .fm_tag = { .half_range = true, .level = 3, .scale = 2 }, .kw = { .closed_form = true } },
    { "vgg_small",      "_lsq_dorefa",   "lsq",    "dorefa", 2, 4, .wt_tag = { .adaptive = "var-mean" }, .fm_tag = { .half_range = true, .boundary = 3 } },
    { "both_sides",     "_lsq_full",     "lsq",    "lsq",    4, 2, .wt_tag = { .adaptive = "var-mean" }, .fm_tag = { .quant_group = 3 }, .ot = "lsq", .ot_tag = { .level = 31, .quant_group = 2, .boundary = 30, .gamma = true }, .clip = 2 },
    { "both_sides",     "_lsq_after",    "lsq",    "lsq",    4, 2, .wt_tag = { .adaptive = "var-mean" }, .fm_tag = { .quant_group = -1 }, .kw = { .padding_after_quant = true }, .clip = 2 },
    { "both_sides",     "_lq_var",       "lq",     "lq",     3, 3, .fm_tag = { .adaptive = "var", .quant_group = 3 } },
    { "both_sides",     "_lq_mean_var",  "lq",     "lq",     3, 5, .wt_tag = { .adaptive = "var" }, .fm_tag = { .quant_group = 3 } },
    { "both_sides",     "_xnor",         "xnor",   "xnor",   1, 1, .wt_tag = { .gamma = true } },
    { "both_sides",     "_xnor_channel", "xnor",   "xnor",   1, 1, .kw = { .fm_custom = "channel", .padding_after_quant = true } },
    { "both_sides",     "_xnor_map",     "xnor",   "xnor",   1, 1, .kw = { .fm_custom = "resolution" } },
    { "both_sides",     "_fatnn",        "fatnn",  "fatnn",  2, 2, .wt_tag = { .level = 3, .scale = 8 }, .fm_tag = { .level = 3, .quant_group = 3 }, .kw = { .proxquant = true } },
};
// clang-format on

/* No value is kept from being negative; linear layers that are quantized read lists of features. */
static int both_sides(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const NormAttr bn = {
        .kind = NK_BATCH, .eps = 1e-5f, .momentum = 0.1f, .affine = true, .weight_init = 1};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w), y;
    (void)net, (void)names;
    x = spec_conv(s, x, (ConvAttr){.oc = 12, .k = 3, .pad = 1, .init = WEIGHTS}, "a.conv");
    x = spec_norm(s, x, bn, "a.norm");
    y = spec_conv(s, x, (ConvAttr){.oc = 12, .k = 3, .pad = 2, .dilation = 2, .init = WEIGHTS},
                  "b.conv");
    x = spec_add(s, x, spec_norm(s, y, bn, "b.norm"));
    x = spec_conv(s, x,
                  (ConvAttr){.oc = 6, .k = 3, .stride = 2, .pad = 1, .groups = 3, .init = WEIGHTS},
                  "c.conv");
    x = spec_norm(s, x, bn, "c.norm");
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_AVG, .k = 2, .stride = 2});
    x = spec_linear(s, spec_flatten(s, x), (LinearAttr){.out = 24, .init = WEIGHTS}, "d.linear");
    x = spec_norm(s, x, bn, "d.norm");
    x = spec_linear(s, x, (LinearAttr){.out = o->num_classes, .bias = true, .init = WEIGHTS},
                    "e.linear");
    return spec_finish(s, x, e);
}

static const NetDef net_both = {
    .name = "both_sides", .doc = "", .build = both_sides, .in_c = 3, .in_h = 16, .in_w = 16};
static const NetDef *const extra[] = {&net_both, NULL};

static const NetDef *net(const char *name)
{
    for (int i = 0; nets[i]; i++)
        if (str_eq(nets[i]->name, name)) return nets[i];
    assert_string_equal(name, net_both.name);
    return &net_both;
}

static void test_nets(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(net_cases); i++) {
        const NetCase *c = &net_cases[i];
        QOpts o;
        qopts_default(&o);
        set_options(&o, Q_WEIGHT, &c->wt_tag, &c->kw);
        set_options(&o, Q_ACT, &c->fm_tag, &c->kw);
        set_options(&o, Q_OUT, &c->ot_tag, &c->kw);
        o.wt_quant = c->wt, o.fm_quant = c->fm, o.ot_quant = c->ot ? c->ot : "none";
        o.wt_bit = c->wt_bit, o.fm_bit = c->fm_bit, o.ot_bit = c->ot ? 5 : 32;
        o.last_bit = c->last_bit;
        o.act_clip_init = c->clip;
        onnx_net_add(*state, &(OnnxNetCase){.net = net(c->net),
                                            .extra = extra,
                                            .q = &o,
                                            .label = c->label,
                                            .size = str_eq(c->net, "vgg_small") ? 32 : 16,
                                            .batch = IMAGES,
                                            .flips = FLIPS});
    }
}

/* Blocks of many branches, space-to-depth, groups of channels, factors behind weights: nets as the
 * original's configurations have them, with the widths and words of theirs. */
static void test_configs(void **state)
{
    static const char *const names[] = {
        "group-net.eval.imagenet.bin.resnet18.base5.cabs",
        "ldq.lsq.finetune.cifar100.2bit.resnet20.cbsa.cba",
        "lq-net.eval.dali.2bit.resnet18-fg8",
        "non-uniform.eval.imagenet.2bit.torch-resnet18",
        "xnor.train-scratch.dali.bin.resnet18-xnor++",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *overrides[] = {"dataset_dir=."},
             *file = xasprintf("configs/keyword/%s.yml", names[i]),
             *label = xasprintf("_%.*s", (int)strcspn(names[i], "."), names[i]);
        Config c;
        const NetDef *def;
        Err e = {0};
        if (config_load(&c, file, 1, overrides, &e)) fail_msg("%s", e.msg);
        if (!(def = net_select(&c.net, &e))) fail_msg("%s: %s", file, e.msg);
        onnx_net_add(*state, &(OnnxNetCase){.net = def,
                                            .opts = &c.net,
                                            .q = &c.quant,
                                            .label = label,
                                            .size = strstr(file, "cifar") ? 16 : 32,
                                            .batch = 4,
                                            .flips = 1});
        config_free(&c);
        free(label);
        free(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),          cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nets),           cmocka_unit_test(test_configs),
        cmocka_unit_test(judge_test_check),    cmocka_unit_test(judge_test_all),
        cmocka_unit_test(judge_test_disabled),
    };
    return cmocka_run_group_tests(tests, judge_setup, judge_teardown);
}
