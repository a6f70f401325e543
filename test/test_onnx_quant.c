/* test/test_onnx_quant.c -- nets with quantized activations, and F8Net's float nets, as ONNX files.
 *
 * A quantizer's form (quant/form.h) gives the bits of its rows: every method, far and near its
 * thresholds. Whole nets on ONNX Runtime: logits are those of qrun's evaluation; its sums have
 * another order, so that now and then a value at a threshold takes the other level: few images may
 * differ, and the log says how many did. F8Net's float nets have no levels: none may. QRUN_FULL=1:
 * a ResNet-50 too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/spec.h"
#include "quant/form.h"
#include "run/export.h"
#include "test/form_run.h"
#include "test/onnx_net.h"

/* ---- forms against rows ---- */

static const struct {
    const char *method, *variant, *scheme;
    bool power, additive, two_sided, pact;
    int bits;
    float clip; /* 0: the method's */
} quantizers[] = {
    {"adabits", "", "original", 1, 1, 0, 0, 4, 3.7f},
    {"adabits", "", "original", 1, 1, 1, 0, 3, 2.3f},
    {"adabits", "", "modified", 1, 1, 0, 0, 5, 1.1f},
    {"adabits", "", "modified", 1, 1, 1, 0, 2, 0.7f},
    {"adabits", "", "centered", 1, 1, 0, 0, 8, 6},
    {"adabits", "", "centered", 1, 1, 1, 0, 1, -2.9f},
    {"adabits", "", "original", 1, 1, 1, 1, 32, 1.3f},
    {"apot", "cifar", "original", 0, 1, 0, 0, 4, 2.7f},
    {"apot", "imagenet", "original", 0, 1, 0, 0, 8, 0.9f},
    {"apot", "cifar", "original", 0, 1, 0, 0, 3, -1.7f},
    {"apot", "cifar", "original", 1, 1, 0, 0, 4, 3.1f},
    {"apot", "imagenet", "original", 1, 1, 0, 0, 3, -1.9f},
    {"apot", "mnist", "original", 1, 0, 0, 0, 4, 1.3f},
    {"apot", "cifar", "original", 1, 1, 0, 0, 2, 8},
    {"apot", "cifar", "original", 1, 1, 0, 0, 5, 3.3f},
    {"apot", "imagenet", "original", 1, 1, 0, 0, 6, -2.1f},
    {"apot", "mnist", "original", 1, 0, 0, 0, 8, 1.9f},
    {"fat", "cifar", "original", 0, 1, 0, 0, 5, 4.4f},
    {"fat_uniform", "imagenet", "original", 0, 1, 0, 0, 2, 1.6f},
    {"hysteresis", "", "original", 1, 1, 0, 0, 4, 0},
    {"hysteresis", "pact", "original", 1, 1, 0, 0, 4, 2.2f},
};

/* The row on x and on its neighbours. */
static void compare_near(const QInst *q, const QuantForm *f, size_t i, float x)
{
    const float at[] = {nextafterf(x, -INFINITY), x, nextafterf(x, INFINITY)};
    float y[ARRAY_LEN(at)], form[ARRAY_LEN(at)];
    q->fn->row(q, at, y, ARRAY_LEN(at));
    form_run(f, 1, ARRAY_LEN(at), at, form);
    for (size_t k = 0; k < ARRAY_LEN(at); k++)
        if (form[k] != y[k])
            fail_msg("quantizer %zu (%s, %d bits): of %a the row makes %a, the form %a", i,
                     q->method->name, q->bits, (double)at[k], (double)y[k], (double)form[k]);
}

static void test_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(quantizers); i++) {
        const int shape[3] = {4, 2, 2};
        ParamStore ps = {0};
        QOpts o;
        QInst q;
        Arena arena = {0};
        QuantForm f = {.arena = &arena};
        QCtx c = {.phase = PH_EVAL};
        Err e = {0};
        Rng g = rng_stream(3, RNG_TEST, i, 0);
        float clip;
        qopts_default(&o);
        o.quant_variant = quantizers[i].variant;
        o.act_quant_scheme = quantizers[i].scheme;
        o.power = quantizers[i].power;
        o.additive = quantizers[i].additive;
        o.double_side = quantizers[i].two_sided;
        o.pact_fp = quantizers[i].pact;
        if (qinst_init(&q, quant_find(quantizers[i].method), Q_ACT, quantizers[i].bits, 0, &o, &ps,
                       NULL, UM_SIGNED, 3, shape, "a.", &e))
            fail_msg("quantizer %zu: %s", i, e.msg);
        store_init(&ps, 1);
        if (q.np) *(float *)q.p[0]->value.data = quantizers[i].clip;
        if (q.fn->begin) q.fn->begin(&q, &c);
        if (q.fn->form(&q, &f, &e)) fail_msg("quantizer %zu: %s", i, e.msg);
        clip = q.np ? quantizers[i].clip : 15;
        for (int k = -300; k <= 300; k++) { /* thresholds of uniform levels, and beyond the ends */
            compare_near(&q, &f, i, clip * (float)k / 255);
            compare_near(&q, &f, i, clip * (float)k / 256);
            compare_near(&q, &f, i, clip * ((float)k + 0.5f) / 15);
        }
        for (int k = 0; k < f.nlevels; k++) compare_near(&q, &f, i, f.threshold[k]);
        for (int k = 0; k < 20000; k++)
            compare_near(&q, &f, i, (float)((double)clip * rng_range(&g, -1.5, 1.5)));
        qinst_free(&q);
        store_free(&ps);
        arena_free(&arena);
    }
}

/* ---- nets ---- */

enum { IMAGES = 16, FLIPS = 4 };

static const NetDef *net(const char *name)
{
    for (int i = 0; nets[i]; i++)
        if (str_eq(nets[i]->name, name)) return nets[i];
    fail_msg("no net '%s'", name);
    return NULL;
}

static void adabits(QOpts *o)
{
    static const int bits[] = {5, 4, 3}, act[] = {0, 6, 0};
    qopts_default(o);
    o->wt_quant = o->fm_quant = "adabits";
    o->nbits_list = (int)ARRAY_LEN(bits);
    memcpy(o->bits_list, bits, sizeof bits);
    memcpy(o->act_bits_list, act, sizeof act);
    o->switch_alpha = o->rescale_conv = true;
    o->weight_quant_scheme = "centered";
    o->act_clip_init = 2;
}

/* Every width of a ResNet by every scheme; MobileNet V2 on both sides of 0; without activations. */
static void test_adabits(void **state)
{
    static const char *const scheme[] = {"original", "modified", "centered"};
    static const char *const label[] = {"_5_original", "_w4a6_modified", "_3_centered"};
    QOpts o;
    OnnxNetCase c = {
        .net = net("resnet20_cifar"), .q = &o, .size = 16, .batch = IMAGES, .flips = FLIPS};
    adabits(&o);
    for (int v = 0; v < 3; v++) {
        o.act_quant_scheme = scheme[v];
        c.label = label[v];
        c.variant = v;
        onnx_net_add(*state, &c);
    }
    c.net = net("mobilenet_v2");
    c.label = "_w4a6_both_sides";
    c.variant = 1;
    o.double_side = true;
    onnx_net_add(*state, &c);
    o.weight_only = o.stats_sharing = true;
    c.label = "_weight_only";
    c.flips = 0;
    onnx_net_add(*state, &c);
}

/* Methods of elementwise activations, by their forms alone. */
static void test_methods(void **state)
{
    static const struct {
        const char *net, *wt, *fm, *label;
        bool power;
        int wt_bit, fm_bit;
    } cases[] = {
        {"resnet20_cifar", "apot", "apot", "_apot4", true, 4, 4},
        {"resnet20_cifar", "apot", "apot", "_apot5", true, 5, 5},
        {"resnet20_cifar", "apot", "apot", "_uniform5", false, 5, 5},
        {"mnist_resnet10", "fat", "fat", "_fat4", false, 4, 4},
        {"vgg7_cifar", "hysteresis", "hysteresis", "_hysteresis", true, 1, 3},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const NetDef *n = net(cases[i].net);
        QOpts o;
        qopts_default(&o);
        o.wt_quant = cases[i].wt, o.fm_quant = cases[i].fm;
        o.wt_bit = cases[i].wt_bit, o.fm_bit = cases[i].fm_bit;
        o.power = cases[i].power;
        onnx_net_add(*state, &(OnnxNetCase){.net = n,
                                            .q = &o,
                                            .label = cases[i].label,
                                            .size = n->in_h / 2,
                                            .batch = IMAGES,
                                            .flips = FLIPS});
    }
}

/* With and without clip, all that a float net of F8Net does otherwise than another. */
static void test_f8net(void **state)
{
    static const struct {
        const char *net, *label;
        bool wo_clip, no_clipping, original, quant_bias, image, full;
        double clip;
    } cases[] = { /* 50 layers clipped at 1.5 make 2^17 of a rounding, clipped at 4 2^9 */
        {"resnet20_cifar", "_f8_clip", false, false, false, false, false, false, 1.5},
        {"resnet20_cifar", "_f8_bias", false, false, false, true, true, false, 1.5},
        {"resnet20_cifar", "_f8_no_clipping", false, true, false, false, true, false, 1.5},
        {"resnet18", "_f8_original", false, false, true, false, true, false, 1.5},
        {"mobilenet_v1", "_f8_wo_clip", true, false, false, false, false, false, 1.5},
        {"mobilenet_v2", "_f8_clip", false, false, false, false, true, false, 1.5},
        {"resnet50", "_f8_clip", false, false, false, false, true, true, 4},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        QOpts o;
        if (cases[i].full && !getenv("QRUN_FULL")) continue;
        qopts_default(&o);
        o.wt_quant = o.fm_quant = "f8net";
        o.wt_bit = o.fm_bit = 32;
        o.act_clip_init = cases[i].clip;
        o.f8.floating_model = o.f8.quant_avgpool = o.f8.pool_fusing = true;
        o.f8.floating_wo_clip = cases[i].wo_clip;
        o.f8.no_clipping = cases[i].no_clipping;
        o.f8.original = cases[i].original;
        o.f8.quant_bias = cases[i].quant_bias;
        o.f8.image = cases[i].image;
        o.f8.format_type = "per_layer";
        o.f8.format_from_metric = true;
        onnx_net_add(*state, &(OnnxNetCase){.net = net(cases[i].net),
                                            .q = &o,
                                            .label = cases[i].label,
                                            .size = 64,
                                            .batch = 8});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),          cmocka_unit_test(test_adabits),
        cmocka_unit_test(test_methods),        cmocka_unit_test(test_f8net),
        cmocka_unit_test(judge_test_check),    cmocka_unit_test(judge_test_all),
        cmocka_unit_test(judge_test_disabled),
    };
    return cmocka_run_group_tests(tests, judge_setup, judge_teardown);
}
