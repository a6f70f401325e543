/* test/test_bf16.c -- precision: bf16. Rounding bit by bit; convolutions in all directions against
 * sums in double of the same operands; a step of every method and of nets of every family beside
 * the float one; the same bytes twice, and after a save and a resume. */
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

#include "engine/bf16.h"
#include "engine/exec.h"
#include "engine/prim.h"
#include "io/fs.h"
#include "quant/quant.h"
#include "test/probe/probe.h"

static bool lacks_bf16(const char *test)
{
    if (prim_has_bf16()) return false;
    printf("%s: skipped, this processor has no AVX-512\n", test);
    return true;
}

/* ---- rounding ---- */

static void rounding(void **state)
{
    enum { N = 1 << 16 };
    static float f[N], back[N];
    static uint16_t h[N];
    (void)state;
    for (uint32_t low = 0; low < 4; low++) { /* every upper half; below, at, above a tie */
        static const uint32_t lows[] = {0, 0x7FFF, 0x8000, 0x8001};
        for (uint32_t i = 0; i < N; i++) {
            const uint32_t u = i << 16 | lows[low];
            memcpy(&f[i], &u, sizeof u);
        }
        bf16_round(f, h, N);
        bf16_widen(h, back, N);
        for (size_t i = 0; i < N; i++) {
            const uint16_t want = float_to_bf16(f[i]);
            const float wide = bf16_to_float(h[i]);
            if (h[i] != want)
                fail_msg("%a: %04x instead of %04x", (double)f[i], h[i], (unsigned)want);
            if (memcmp(&back[i], &wide, sizeof wide)) fail_msg("%04x widened", h[i]);
            if (isfinite(f[i]) && isfinite(wide) && fabsf(f[i]) > 0x1p-126f)
                assert_true(fabsf(wide - f[i]) <= fabsf(f[i]) * 0x1p-8f);
        }
    }
}

/* ---- convolutions ---- */

static float *operand(Rng *r, size_t n, uint16_t **h)
{
    float *f = xaligned(n * sizeof *f);
    *h = xaligned(n * sizeof **h);
    for (size_t i = 0; i < n; i++) f[i] = (float)rng_normal(r);
    bf16_round(f, *h, n);
    bf16_widen(*h, f, n);
    return f;
}

/* A sum in double, and that of the magnitudes, from which the tolerance follows. */
typedef struct Sum {
    double v, mag;
} Sum;

/* One pass over all products x w dy; each goes to the sum of the direction asked for. */
static Sum *products(const ConvShape *s, ConvDir d, const float *x, const float *w, const float *dy)
{
    const size_t nx = (size_t)s->n * (size_t)s->ih * (size_t)s->iw * (size_t)s->ic,
                 nw = (size_t)s->oc * (size_t)s->ic * (size_t)s->k * (size_t)s->k,
                 ny = (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->oc;
    Sum *sum = xcalloc(d == CONV_FWD ? ny : d == CONV_BWD_DATA ? nx : nw, sizeof *sum);
    for (int n = 0; n < s->n; n++)
        for (int i = 0; i < s->oh * s->ow * s->k * s->k; i++) {
            const int kx = i % s->k, ky = i / s->k % s->k, p = i / s->k / s->k,
                      iy = p / s->ow * s->stride - s->pad + ky * s->dilation,
                      ix = p % s->ow * s->stride - s->pad + kx * s->dilation;
            if (iy < 0 || ix < 0 || iy >= s->ih || ix >= s->iw) continue;
            for (int o = 0; o < s->oc; o++)
                for (int c = 0; c < s->ic; c++) {
                    const size_t ax = (size_t)(((n * s->ih + iy) * s->iw + ix) * s->ic + c),
                                 ay = (size_t)((n * s->oh * s->ow + p) * s->oc + o),
                                 aw = (size_t)(((o * s->ic + c) * s->k + ky) * s->k + kx);
                    const double t = d == CONV_FWD        ? (double)x[ax] * (double)w[aw]
                                     : d == CONV_BWD_DATA ? (double)dy[ay] * (double)w[aw]
                                                          : (double)x[ax] * (double)dy[ay];
                    Sum *to = &sum[d == CONV_FWD ? ay : d == CONV_BWD_DATA ? ax : aw];
                    to->v += t, to->mag += fabs(t);
                }
        }
    return sum;
}

/* A bf16 result is off by half a unit of 8 bits at most, a float one by none; float sums in any
 * order lose at most some 2^-24 of the magnitudes each time. */
static void compare(const char *what, const Sum *want, const void *got, DType t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float buf;
        const double v = (double)*bf16_piece(got, t, i, 1, &buf), off = fabs(v - want[i].v),
                     may = want[i].mag * 0x1p-18 + (t == DT_BF16 ? fabs(want[i].v) * 0x1p-8 : 0);
        if (!(off <= may))
            fail_msg("%s [%zu]: %.9g instead of %.9g (off by %g, at most %g)", what, i, v,
                     want[i].v, off, may);
    }
}

static void conv_once(Prim *p, ConvShape s, ConvDir d, bool dst_f32)
{
    const size_t nx = (size_t)s.n * (size_t)s.ih * (size_t)s.iw * (size_t)s.ic,
                 nw = (size_t)s.oc * (size_t)s.ic * (size_t)s.k * (size_t)s.k,
                 ny = (size_t)s.n * (size_t)s.oh * (size_t)s.ow * (size_t)s.oc;
    Rng r = rng_stream(3, RNG_TEST, (uint64_t)d, 0);
    uint16_t *hx, *hw, *hy;
    float *x = operand(&r, nx, &hx), *w = operand(&r, nw, &hw), *dy = operand(&r, ny, &hy);
    float *dw = xaligned(nw * sizeof *dw);
    void *out = xaligned((nx > ny ? nx : ny) * sizeof(float)), *packed, *scratch;
    char what[160];
    Sum *want = products(&s, d, x, w, dy);
    Err e = {0};
    PrimConv *c;
    s.bf16 = true, s.dst_f32 = dst_f32;
    c = prim_conv_new(p, d, &s, &e);
    if (!c) fail_msg("%s", e.msg);
    packed = xaligned(prim_conv_packed_bytes(c) + 64);
    scratch = xaligned(prim_conv_scratch(c) + 64);
    snprintf(what, sizeof what, "%d -> %d, %dx%d, k%d s%d d%d, direction %d, %s", s.ic, s.oc, s.ih,
             s.iw, s.k, s.stride, s.dilation, (int)d, prim_conv_impl(c));
    if (d == CONV_BWD_WEIGHTS) {
        prim_conv_run(c, hx, packed, hy, NULL, scratch);
        prim_conv_unpack(c, packed, dw);
        compare(what, want, dw, DT_F32, nw);
    } else {
        prim_conv_pack(c, w, packed);
        prim_conv_run(c, d == CONV_FWD ? hx : hy, packed, NULL, out, scratch);
        compare(what, want, out, d == CONV_FWD && dst_f32 ? DT_F32 : DT_BF16,
                d == CONV_FWD ? ny : nx);
    }
    if (strstr(prim_conv_impl(c), "ref")) printf("  slow: %s\n", what);
    prim_conv_free(c);
    free(x), free(w), free(dy), free(hx), free(hw), free(hy), free(dw), free(out), free(packed);
    free(scratch), free(want);
}

static void convolutions(void **state)
{
    static const struct {
        int n, ic, oc, size, k, stride, pad, dilation;
    } shapes[] = {
        {2, 3, 16, 12, 3, 1, 1, 1},  {2, 16, 16, 12, 3, 1, 1, 1}, {2, 16, 32, 12, 3, 2, 1, 1},
        {2, 16, 32, 12, 1, 2, 0, 1}, {2, 64, 64, 8, 3, 1, 1, 1},  {1, 3, 64, 20, 7, 2, 3, 1},
        {2, 1, 8, 9, 5, 1, 0, 1},    {2, 5, 7, 9, 3, 2, 1, 1},    {2, 17, 33, 6, 1, 1, 0, 1},
        {3, 12, 6, 7, 3, 1, 2, 2},   {5, 64, 10, 1, 1, 1, 0, 1},  {2, 32, 1, 5, 3, 1, 1, 1},
        {1, 40, 24, 7, 5, 1, 2, 1},  {2, 96, 80, 3, 3, 2, 1, 1},  {1, 2, 3, 4, 1, 2, 0, 1},
    };
    Err e = {0};
    Prim *p;
    int done = 0;
    (void)state;
    if (lacks_bf16("convolutions")) return;
    p = prim_open(&e);
    assert_non_null(p);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        const int reach = (shapes[i].k - 1) * shapes[i].dilation + 1,
                  out = (shapes[i].size + 2 * shapes[i].pad - reach) / shapes[i].stride + 1;
        const ConvShape s = {.n = shapes[i].n,
                             .ic = shapes[i].ic,
                             .ih = shapes[i].size,
                             .iw = shapes[i].size,
                             .oc = shapes[i].oc,
                             .oh = out,
                             .ow = out,
                             .k = shapes[i].k,
                             .stride = shapes[i].stride,
                             .pad = shapes[i].pad,
                             .dilation = shapes[i].dilation,
                             .groups = 1};
        for (int d = CONV_FWD; d <= CONV_BWD_WEIGHTS; d++) conv_once(p, s, (ConvDir)d, false);
        conv_once(p, s, CONV_FWD, true);
        done += 4;
    }
    printf("%d bf16 convolutions\n", done);
    prim_close(p);
}

/* ---- nets ---- */

/* A method of the registry at bits it has. */
typedef struct Trial {
    const char *net, *wt, *fm;
    int bits, size;
    double cosine; /* at least this one between the gradients of float and bf16 */
} Trial;

static void open_trial(Rig *r, RigOpts *o, const Trial *t, bool bf16)
{
    Err e = {0};
    rig_defaults(o);
    o->quant.extra_methods = NULL;
    o->net = (NetOpts){.model = t->net,
                       .names = "",
                       .num_classes = 10,
                       .in_c = 3,
                       .in_h = t->size,
                       .in_w = t->size};
    o->quant.wt_quant = t->wt, o->quant.fm_quant = t->fm;
    o->quant.wt_bit = o->quant.fm_bit = t->bits;
    if (str_eq(t->wt, "apot") || str_starts(t->wt, "fat")) o->quant.quant_variant = "cifar";
    if (str_starts(t->wt, "fat")) o->quant.power = false;
    if (str_eq(t->wt, "f8net"))
        o->quant.f8.format_type = "per_layer", o->quant.f8.format_from_metric = true;
    o->quant.bf16 = bf16;
    o->optim.lr = 1e-4;
    if (rig_open(r, o, &e)) fail_msg("%s %s: %s", t->net, t->wt, e.msg);
}

/* Cosine between the gradients of all weights of two nets. */
static double cosine(const ParamStore *a, const ParamStore *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < a->n; i++) {
        const float *u = a->p[i]->grad.data, *v = b->p[i]->grad.data;
        const size_t n = tensor_len(&a->p[i]->value);
        for (size_t k = 0; u && a->p[i]->kind == PK_WEIGHT && k < n; k++) {
            ab += (double)u[k] * (double)v[k];
            aa += (double)u[k] * (double)u[k];
            bb += (double)v[k] * (double)v[k];
        }
    }
    return ab / sqrt(aa * bb);
}

/* In nets without quantizers bf16 is noise of 2^-9 in each operation; what it does to gradients
 * grows with the depth through the signs of the activations. In the others it moves values to the
 * next level, and so early in training gradients soon have little in common: -1, not compared. */
static const Trial trials[] = {
    {"resnet20", "none", "none", 32, 16, 0.95},
    {"vgg7_cifar", "none", "none", 32, 32, 0.97},
    {"mobilenet_v2", "none", "none", 32, 32, -1},
    {"resnet20", "apot", "apot", 4, 16, -1},
    {"resnet20", "adabits", "adabits", 4, 16, -1},
    {"resnet20", "dorefa", "dorefa", 4, 16, -1},
    {"resnet20", "f8net", "f8net", 8, 16, 0.8},
    {"resnet20", "fat", "fat", 4, 16, -1},
    {"resnet20", "fat_uniform", "fat_uniform", 4, 16, -1},
    {"resnet20", "hysteresis", "hysteresis", 1, 16, -1},
    {"resnet20", "lq", "lq", 2, 16, -1},
    {"resnet20", "lsq", "lsq", 4, 16, -1},
    {"resnet20", "pact", "pact", 4, 16, -1},
    {"resnet20", "xnor", "xnor", 1, 16, -1},
};

static void beside_float(void **state)
{
    (void)state;
    if (lacks_bf16("beside_float")) return;
    for (size_t i = 0; i < ARRAY_LEN(trials); i++) {
        const Trial *t = &trials[i];
        RigOpts oa, ob;
        Rig a, b;
        Err e = {0};
        double la, lb, cos, ea, eb;
        open_trial(&a, &oa, t, false);
        open_trial(&b, &ob, t, true);
        la = rig_gradients(&a, &e), lb = rig_gradients(&b, &e);
        cos = cosine(model_store(a.m), model_store(b.m));
        ea = rig_eval(&a, 0, &e), eb = rig_eval(&b, 0, &e);
        printf("%-14s %-12s loss %.4f, bf16 %.4f; evaluated %.4f, %.4f; gradients' cosine %.5f\n",
               t->net, t->wt, la, lb, ea, eb, cos);
        if ((t->cosine > -1 && !(cos >= t->cosine)) || !(fabs(la - lb) <= 0.3 * la) || !isfinite(ea + eb))
            fail_msg("%s %s: too far from float; %s", t->net, t->wt, e.msg);
        rig_step(&b, &e);
        if (!isfinite(rig_step(&b, &e))) fail_msg("%s %s: %s", t->net, t->wt, e.msg);
        rig_close(&a);
        rig_close(&b);
    }
}

/* Two nets take the same steps, one with a save and a resume between; all bytes are the same. */
static void same_bytes(void **state)
{
    static const Trial t = {"resnet20", "apot", "apot", 4, 16, 0};
    char dir[] = "/tmp/qrun-bf16.XXXXXX", text[200];
    RigOpts oa, ob;
    Rig a, b;
    Err e = {0};
    char *folder;
    const char *differs;
    (void)state;
    if (lacks_bf16("same_bytes")) return;
    assert_non_null(mkdtemp(dir));
    folder = fs_join(dir, "checkpoints");
    assert_int_equal(fs_mkdirs(folder, &e), 0);
    open_trial(&a, &oa, &t, true);
    for (int i = 0; i < 2; i++) assert_true(isfinite(rig_step(&a, &e)));
    if (rig_save(&a, dir, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < 2; i++) assert_true(isfinite(rig_step(&a, &e)));
    open_trial(&b, &ob, &t, true);
    if (rig_resume(&b, dir, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < 2; i++) assert_true(isfinite(rig_step(&b, &e)));
    differs = rig_difference(&a, &b, text, sizeof text);
    if (differs) fail_msg("%s", differs);
    rig_close(&a);
    rig_close(&b);
    snprintf(text, sizeof text, "rm -rf %s", dir);
    assert_int_equal(system(text), 0);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(beside_float),
        cmocka_unit_test(same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
