/* test/test_keyword_policy.c -- the keyword language's quantizers within a net: what a policy
 * changes of them, and zeros around maps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/keyword.h"
#include "quant/lower.h"
#include "run/model.h"
#include "test/one.h"
#include "test/probe/probe.h"

/* ---- attributes ---- */

static void open_row(One *t, const char *method, QRole role, int bits)
{
    open_one(new_one(t), method, role, bits, 4, role == Q_WEIGHT ? weight_dim : map_dim);
}

static int set(One *t, const char *attr, const char *value, Err *e)
{
    *e = (Err){0};
    t->q.relower = false;
    return t->q.fn->set_text(&t->q, attr, value, e);
}

/* Every attribute that has an effect has one. */
static void attributes_have_effect(void **state)
{
    static const struct {
        const char *method;
        QRole role;
        int bits;
        const char *attr, *value;
        bool relower;
    } rows[] = {
        {"lsq", Q_ACT, 2, "half_range", "False", true},
        {"lsq", Q_ACT, 2, "stable", "3", true},
        {"lsq", Q_ACT, 2, "stable", "4e10", true},
        {"lsq", Q_ACT, 2, "level_num", "3", false},
        {"lsq", Q_ACT, 3, "level_num", "-2", false},
        {"lsq", Q_ACT, 2, "clip_val", "0.4", false},
        {"lsq", Q_ACT, 2, "grad_type", "STE-scale", true},
        {"lsq", Q_WEIGHT, 2, "adaptive", "var-mean", true},
        {"lsq", Q_WEIGHT, 2, "adaptive", "'var-mean'", true},
        {"lsq", Q_WEIGHT, 2, "clip_val", "0.4", false},
        {"lsq", Q_WEIGHT, 2, "quant_loss_enable", "yes", true},
        {"dorefa", Q_WEIGHT, 2, "num_levels", "3", false},
        {"dorefa", Q_ACT, 2, "num_levels", "3", false},
        {"pact", Q_ACT, 2, "clip_val", "2", false},
        {"fatnn", Q_ACT, 2, "alpha1", "0.7", false},
        {"fatnn", Q_ACT, 2, "grad_type", "STE-scale", true},
        {"lq", Q_WEIGHT, 2, "basis", "0.3", false},
        {"lq", Q_WEIGHT, 2, "scale", "0.2", false},
        {"lq", Q_ACT, 2, "adaptive", "var", true},
        {"xnor", Q_ACT, 1, "grad_type", "STE", true},
    };
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        One a, b;
        Err e;
        open_row(&a, rows[k].method, rows[k].role, rows[k].bits);
        open_row(&b, rows[k].method, rows[k].role, rows[k].bits);
        fill_one(&a, -6, 7), fill_one(&b, -6, 7);
        if (set(&b, rows[k].attr, rows[k].value, &e)) fail_msg("%s: %s", rows[k].attr, e.msg);
        if (b.q.relower != rows[k].relower)
            fail_msg("%s %s: programs %s", rows[k].method, rows[k].attr,
                     b.q.relower ? "dropped" : "kept");
        room_one(&b);
        run_one(&a), run_one(&b);
        if (!memcmp(a.y.data, b.y.data, tensor_bytes(&a.y)) &&
            !memcmp(a.dx.data, b.dx.data, tensor_bytes(&a.dx)) && a.aux == b.aux)
            fail_msg("%s: %s: %s changes nothing", rows[k].method, rows[k].attr, rows[k].value);
        close_one(&a), close_one(&b);
    }
}

static void attributes_refused(void **state)
{
    static const struct {
        const char *method;
        QRole role;
        int bits;
        const char *attr, *value, *says; /* NULL: accepted, without effect */
    } rows[] = {
        {"lsq", Q_WEIGHT, 2, "adaptive", "meen",
         "adaptive: meen; expected one of none, var, mean, mean-var, var-mean"},
        {"lsq", Q_WEIGHT, 2, "quant_loss_function", "L3", "expected one of L1, L2, QDL"},
        {"lsq", Q_WEIGHT, 2, "stable", "soon", "stable: soon; expected a number"},
        {"lsq", Q_WEIGHT, 2, "clip_val", "wide", "clip_val: wide; expected a number"},
        {"lsq", Q_WEIGHT, 2, "colour", "red", "lsq has no attribute 'colour'"},
        {"lsq", Q_WEIGHT, 2, "gamma", "2", "lsq has no attribute 'gamma'"},
        {"lsq", Q_WEIGHT, 2, "level_num", "1", "level_num: 1 levels; expected 2 to 256"},
        {"lsq", Q_WEIGHT, 2, "norm_group", "3",
         "norm_group: 3; expected 1 or the number of groups"},
        {"fatnn", Q_ACT, 2, "level_num", "3", "fatnn keeps the 4 it was made with"},
        {"fatnn", Q_ACT, 2, "half_range", "False", "fatnn on both sides of 0 has 3 levels, not 4"},
        {"lq", Q_ACT, 2, "num_levels", "-1", "lq keeps the 4 it was made with"},
        {"lq", Q_ACT, 2, "half_range", "False", "lq keeps the digits it was made with"},
        {"lsq", Q_WEIGHT, 32, "stable", "3", "not quantized, so it has no 'stable'"},
        {"lsq", Q_WEIGHT, 2, "boundary", "3", NULL},
        {"lsq", Q_WEIGHT, 2, "grad_scale", "fan-scale", NULL},
        {"lsq", Q_WEIGHT, 2, "quant_group", "1", NULL},
        {"lsq", Q_WEIGHT, 2, "num_levels", "3", NULL},
        {"dorefa", Q_WEIGHT, 2, "norm_group", "4", NULL},
    };
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        One t;
        Err e;
        int r;
        open_row(&t, rows[k].method, rows[k].role, rows[k].bits);
        r = set(&t, rows[k].attr, rows[k].value, &e);
        if (!rows[k].says && !kw_attr_idle(&t.q, rows[k].attr) &&
            !str_eq(rows[k].attr, "norm_group"))
            fail_msg("%s counts as one with an effect", rows[k].attr);
        if (!rows[k].says && r) fail_msg("%s: %s", rows[k].attr, e.msg);
        if (rows[k].says && (!r || !strstr(e.msg, rows[k].says)))
            fail_msg("%s: '%s' does not say '%s'", rows[k].attr, e.msg, rows[k].says);
        close_one(&t);
    }
}

/* ---- in a net ---- */

static RigOpts options(const char *method, bool half)
{
    RigOpts o;
    rig_defaults(&o);
    o.quant.wt_quant = o.quant.fm_quant = method;
    o.quant.wt_bit = o.quant.fm_bit = 2;
    o.quant.kw.tag[Q_ACT].half_range = half;
    o.quant.kw.tag[Q_WEIGHT].adaptive = "var-mean";
    o.optim.lr = 1e-3;
    return o;
}

static Rig open_rig(const RigOpts *o)
{
    Rig r;
    Err e = {0};
    if (rig_open(&r, o, &e)) fail_msg("%s", e.msg);
    return r;
}

/* A loss that a policy switches on within a run reaches the programs and the loss that is reported.
 */
static void loss_in_a_net(void **state)
{
    const RigOpts o = options("lsq", true);
    Rig r = open_rig(&o);
    double plain, more;
    Err e = {0};
    (void)state;
    plain = rig_gradients(&r, &e);
    assert_int_equal(model_set(r.m, "layer1.0.conv1", "quant_loss_enable", 1, &e), 2);
    assert_int_equal(model_set(r.m, "layer1.0.conv1", "quant_loss_alpha", 100, &e), 2);
    more = rig_gradients(&r, &e);
    if (!(more > plain + 0.1)) fail_msg("loss %g, %g with quant_loss", plain, more);
    for (int i = 0; i < 3; i++) assert_true(isfinite(rig_step(&r, &e)));
    rig_close(&r);
}

/* proxquant at a share of 1 is the float net (but for normalised weights), at 0 the quantized one.
 */
static void blend_in_a_net(void **state)
{
    RigOpts o = options("lsq", true), plain;
    Rig blended, quantized, floating;
    Err e = {0};
    (void)state;
    o.quant.kw.tag[Q_WEIGHT].adaptive = "none";
    plain = o;
    o.quant.kw.proxquant = true;
    blended = open_rig(&o), quantized = open_rig(&plain);
    plain.quant.wt_quant = plain.quant.fm_quant = "none";
    floating = open_rig(&plain);
    assert_true(rig_eval(&blended, 0, &e) == rig_eval(&quantized, 0, &e));
    assert_true(model_set(blended.m, "layer", "prox", 1, &e) > 0);
    assert_true(rig_eval(&blended, 0, &e) == rig_eval(&floating, 0, &e));
    rig_close(&blended), rig_close(&quantized), rig_close(&floating);
}

static int pads(const RigOpts *o)
{
    Rig r = open_rig(o);
    Str text = {0};
    int n = 0;
    model_print(r.m, PH_EVAL, 2, &text);
    for (const char *at = text.s; (at = strstr(at, " pad")); at++) n += at[4] == ' ';
    str_free(&text);
    rig_close(&r);
    return n;
}

/* Only quantizers that make something of 0, or count zeros, cost a pass for them. */
static void padding_costs_only_where_it_matters(void **state)
{
    static const struct {
        const char *method;
        bool half, after;
        const char *grad_type;
        int bits;
        bool pads;
    } rows[] = {
        {"lsq", true, false, "none", 2, false},    {"lsq", true, false, "STE-scale", 2, true},
        {"lsq", false, false, "none", 2, true},    {"lsq", false, true, "none", 2, false},
        {"dorefa", true, false, "none", 2, false}, {"pact", true, false, "none", 2, false},
        {"lq", true, false, "none", 2, false},     {"lq", false, true, "none", 2, false},
        {"lq", false, false, "none", 2, true},
        {"xnor", true, false, "STE", 1, true},     {"xnor", true, true, "STE", 1, false},
    };
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        RigOpts o = options(rows[k].method, rows[k].half);
        int n;
        o.quant.wt_bit = o.quant.fm_bit = rows[k].bits;
        o.quant.kw.tag[Q_ACT].grad_type = rows[k].grad_type;
        o.quant.kw.padding_after_quant = rows[k].after;
        n = pads(&o);
        if ((n > 0) != rows[k].pads)
            fail_msg("row %zu, %s: %d nodes of padding", k, rows[k].method, n);
    }
}

/* ---- a convolution ---- */

enum { SIDE = 5, IN = 3, OUT = 4 };

/* Output of a 3x3 convolution with full-range activations of two bits; `apart`: the zeros are a
 * unit of their own in front of it. */
static void convolve(bool apart, bool after, float *y)
{
    const int dim[4] = {2, IN, SIDE, SIDE};
    Spec s = {0};
    QOpts o;
    ParamStore ps = {0};
    QPlan qp;
    Graph g;
    Lower lw;
    Plan plan = {0};
    Exec x = {0};
    Prim *prim;
    Param *in;
    Rng r = rng_stream(9, RNG_TEST, 0, 0);
    char *memory;
    int unit = spec_input(&s, IN, SIDE, SIDE);
    Err e = {0};
    qopts_default(&o);
    o.fm_quant = "lsq", o.fm_bit = 2;
    o.kw.tag[Q_ACT].half_range = false;
    o.kw.padding_after_quant = after;
    if (apart) unit = spec_pad(&s, unit, 1, 1, 1, 1);
    unit = spec_conv(
        &s, unit,
        (ConvAttr){.oc = OUT, .k = 3, .stride = 1, .pad = !apart, .init = {INIT_UNIFORM, -1, 1}},
        "conv");
    prim = prim_open(&e);
    if (!prim || spec_finish(&s, spec_flatten(&s, unit), &e) || qplan_build(&qp, &s, &o, &ps, &e))
        fail_msg("%s", e.msg);
    in = store_add(&ps, PK_WEIGHT, DT_F32, (Init){INIT_UNIFORM, -1, 1}, 4, dim, "x");
    in->value.layout = LY_NHWC;
    store_init(&ps, 1);
    for (size_t i = 0; i < tensor_len(&in->value); i++)
        ((float *)in->value.data)[i] = (float)rng_range(&r, -1, 1);
    graph_init(&g, false);
    lower_begin(&lw, &g, &qp, PH_EVAL, 0, 2);
    lw.input = graph_param(&g, in);
    if (lower_units(&lw, &e) || graph_finish(&g, prim, &e)) fail_msg("%s", e.msg);
    plan_make(&plan, &g, false);
    memory = xaligned(plan.arena_bytes + 1);
    exec_init(&x, &g, &plan, memory);
    x.phase = PH_EVAL;
    exec_forward(&x, store_version(&ps));
    memcpy(y, x.data[lw.value[unit]], 2 * OUT * SIDE * SIDE * sizeof *y);
    exec_free(&x);
    plan_free(&plan);
    free(memory);
    lower_free(&lw);
    graph_free(&g);
    qplan_free(&qp);
    store_free(&ps);
    spec_free(&s);
    prim_close(prim);
}

static void padded_first(void **state)
{
    float first[2 * OUT * SIDE * SIDE], apart[2 * OUT * SIDE * SIDE], after[2 * OUT * SIDE * SIDE];
    int same = 0;
    (void)state;
    convolve(false, false, first);
    convolve(true, false, apart);
    convolve(false, true, after);
    assert_memory_equal(first, apart, sizeof first);
    for (int n = 0, i = 0; n < 2; n++)
        for (int h = 0; h < SIDE; h++)
            for (int w = 0; w < SIDE; w++)
                for (int c = 0; c < OUT; c++, i++) {
                    const bool edge = !h || !w || h == SIDE - 1 || w == SIDE - 1;
                    same += edge && first[i] == after[i];
                    if (!edge && fabsf(first[i] - after[i]) > 1e-6f)
                        fail_msg("inside the map: %g and %g", (double)first[i], (double)after[i]);
                }
    if (same > 8) fail_msg("%d of 128 outputs at the border are alike; 0 is no level", same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attributes_have_effect),
        cmocka_unit_test(attributes_refused),
        cmocka_unit_test(loss_in_a_net),
        cmocka_unit_test(blend_in_a_net),
        cmocka_unit_test(padding_costs_only_where_it_matters),
        cmocka_unit_test(padded_first),
    };
    return cmocka_run_group_tests_name("keyword policy", tests, NULL, NULL);
}
