/* test/test_onnx_int.c -- networks of whole numbers as ONNX files: random ones with every kind of
 * operation, and one for each way a layer or a requantization can be written, against
 * intnet_reference to the bit. Each also in the form without any float. QRUN_FULL=1: more random
 * ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rng.h"
#include "run/export.h"
#include "test/onnx_judge.h"

enum { BATCH = 3, RANDOM_NETS = 24, RANDOM_NETS_FULL = 300 };

/* ---- building ---- */

typedef struct Build {
    IntNet net;
    Rng r;
    int conv; /* how many there are: their names */
} Build;

static int pick(Build *b, int lo, int hi)
{
    return lo + (int)rng_below(&b->r, (uint32_t)(hi - lo + 1));
}

static int input(Build *b, DType type, int c, int h, int w)
{
    const IntOp op = {.kind = IK_INPUT, .name = "", .c = c, .h = h, .w = w, .type = type, .fl = 8};
    return intnet_add(&b->net, &op);
}

typedef struct ConvOpts {
    int oc, k, stride, pad, dilation, groups;
    int most; /* magnitude of weights */
    int bias; /* magnitude of biases; 0: none */
    bool one_sign;
} ConvOpts;

static int layer(Build *b, int x, IntKind kind, const ConvOpts *o)
{
    const IntOp *in = &b->net.op[x];
    const bool linear = kind == IK_LINEAR;
    IntConv a = {o->k, o->stride, o->pad, o->dilation, o->groups, NULL, NULL, 6};
    const int icg = linear ? in->c * in->h * in->w : in->c / o->groups;
    const int reach = (a.k - 1) * a.dilation + 1;
    const size_t n = (size_t)o->oc * (size_t)icg * (linear ? 1 : (size_t)(a.k * a.k));
    int8_t *w = arena_alloc(&b->net.arena, n);
    int32_t *bias = arena_alloc(&b->net.arena, (size_t)o->oc * sizeof *bias);
    char name[32];
    IntOp op = {.kind = kind,
                .nin = 1,
                .in = {x},
                .c = o->oc,
                .h = 1,
                .w = 1,
                .type = DT_S32,
                .fl = in->fl + 6};
    for (size_t i = 0; i < n; i++)
        w[i] = (int8_t)pick(b, o->one_sign ? o->most : -o->most, o->most);
    for (int i = 0; i < o->oc; i++) bias[i] = pick(b, -(o->bias / 2), o->bias / 2) * 2;
    if (!linear) {
        op.h = (in->h + 2 * a.pad - reach) / a.stride + 1;
        op.w = (in->w + 2 * a.pad - reach) / a.stride + 1;
    } else {
        a = (IntConv){1, 1, 0, 1, 1, NULL, NULL, 6};
    }
    a.w = w;
    a.bias = o->bias ? bias : NULL;
    snprintf(name, sizeof name, "layer%d.conv.", b->conv++);
    op.name = name;
    op.u.conv = a;
    return intnet_add(&b->net, &op);
}

static int conv(Build *b, int x, ConvOpts o)
{
    return layer(b, x, IK_CONV, &o);
}

static int like(Build *b, int x, IntKind kind)
{
    IntOp op = b->net.op[x];
    op.kind = kind;
    op.name = "";
    op.nin = 1;
    op.in[0] = x;
    memset(&op.u, 0, sizeof op.u);
    if (kind == IK_SUM) op.h = op.w = 1;
    return intnet_add(&b->net, &op);
}

static int maxpool(Build *b, int x, int k, int stride, int pad)
{
    IntOp op = b->net.op[x];
    op.kind = IK_MAXPOOL;
    op.name = "";
    op.nin = 1;
    op.in[0] = x;
    op.h = (op.h + 2 * pad - k) / stride + 1;
    op.w = (op.w + 2 * pad - k) / stride + 1;
    op.u.pool.k = k, op.u.pool.stride = stride, op.u.pool.pad = pad;
    return intnet_add(&b->net, &op);
}

static int requant(Build *b, int x, DType type, int shift, int divisor, int lo, int hi)
{
    IntOp op = b->net.op[x];
    op.kind = IK_REQUANT;
    op.name = "";
    op.nin = 1;
    op.in[0] = x;
    op.type = type;
    op.fl -= shift;
    op.u.requant.shift = shift, op.u.requant.divisor = divisor;
    op.u.requant.lo = lo, op.u.requant.hi = hi;
    return intnet_add(&b->net, &op);
}

static int add(Build *b, int x, int y, int sx, int sy)
{
    IntOp op = b->net.op[x];
    op.kind = IK_ADD;
    op.name = "";
    op.nin = 2;
    op.in[0] = x, op.in[1] = y;
    op.u.shift[0] = sx, op.u.shift[1] = sy;
    return intnet_add(&b->net, &op);
}

static int linear(Build *b, int x, int out, int most, int bias)
{
    return layer(b, x, IK_LINEAR, &(ConvOpts){.oc = out, .most = most, .bias = bias});
}

/* The shift that brings what the operation can be into 8 bits, or some bits fewer: real sums are
 * smaller. */
static int fitting_shift(const Build *b, int x)
{
    int64_t *bound = xcalloc((size_t)b->net.n, sizeof *bound), most;
    int shift = 0;
    intnet_bounds(&b->net, bound);
    most = bound[x];
    free(bound);
    while (most >> shift > 255) shift++;
    return shift > 3 ? shift - 3 : 0;
}

static int fitted(Build *b, int x, DType type)
{
    const int n = fitting_shift(b, x) + pick(b, -1, 1);
    return requant(b, x, type, n, 1, type == DT_U8 ? 0 : -128, type == DT_U8 ? 255 : 127);
}

/* ---- one net for each way ---- */

typedef struct Way {
    const char *name;
    void (*make)(Build *b);
    ExportForms want; /* counts of the ordinary form */
} Way;

static const ConvOpts c3 = {
    .oc = 8, .k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1, .most = 127, .bias = 5000};

static void way_qlinear(Build *b)
{
    int x = input(b, DT_U8, 3, 8, 8);
    x = maxpool(b, like(b, conv(b, x, c3), IK_RELU), 3, 2, 1);
    x = requant(b, x, DT_U8, 9, 1, 0, 15);
    x = requant(b, conv(b, x, c3), DT_U8, 8, 1, 3, 200);
    b->net.out = linear(b, x, 10, 127, 9000);
}

static void way_signed(Build *b)
{
    int x = input(b, DT_S8, 4, 7, 6);
    x = requant(b, like(b, conv(b, x, c3), IK_RELU), DT_S8, 9, 1, -128, 100);
    x = requant(b, conv(b, x, c3), DT_U8, 9, 1, 0, 255); /* s8 in, u8 out */
    x = requant(b, conv(b, x, c3), DT_S8, 9, 1, -7, 7);  /* and the other way */
    b->net.out = linear(b, x, 5, 100, 0);
}

static void way_depthwise(Build *b)
{
    ConvOpts o = c3;
    int x = input(b, DT_U8, 8, 9, 9);
    o.groups = 8, o.stride = 2;
    x = requant(b, conv(b, x, o), DT_U8, 7, 1, 0, 255);
    o.groups = 4, o.oc = 12, o.dilation = 2, o.pad = 2, o.stride = 1;
    x = requant(b, conv(b, x, o), DT_U8, -2, 1, 0, 255);
    b->net.out = linear(b, x, 5, 100, 100);
}

static void way_residual(Build *b)
{
    int x = input(b, DT_U8, 8, 6, 6), y, z;
    y = conv(b, x, c3);
    x = fitted(b, like(b, y, IK_RELU), DT_U8);
    z = add(b, conv(b, x, c3), y, 3, 0);
    z = like(b, z, IK_RELU);
    x = requant(b, z, DT_U8, 12, 1, 0, 255);
    x = like(b, add(b, conv(b, x, c3), z, 0, 1), IK_RELU);
    x = like(b, x, IK_SUM);
    x = requant(b, x, DT_U8, 10, 36, 0, 255); /* D = 36864 */
    b->net.out = linear(b, x, 5, 100, 100);
}

/* Sums of 576 products of one sign: beyond 2^24, and with the bias near 2^31. */
static void way_wide(Build *b)
{
    const ConvOpts o = {.oc = 6,
                        .k = 3,
                        .stride = 1,
                        .pad = 1,
                        .dilation = 1,
                        .groups = 1,
                        .most = 127,
                        .bias = 1 << 30,
                        .one_sign = true};
    int x = input(b, DT_U8, 64, 5, 5), y = conv(b, x, o), z;
    x = requant(b, like(b, maxpool(b, y, 2, 1, 0), IK_RELU), DT_U8, 16, 1, 0,
                255); /* behind a cast */
    z = conv(b, x, c3);
    x = requant(b, maxpool(b, add(b, y, y, 2, 0), 2, 1, 0), DT_S8, 25, 1, -128,
                127); /* s32 wraps, s64 */
    x = add(b, conv(b, x, c3), z, 31, 1);
    x = requant(b, x, DT_S8, 20, 3, -100, 100);
    b->net.out = linear(b, x, 5, 127, 100);
}

/* Sums over the map: exact in float; in s32; and wrapping. */
static void way_sums(Build *b)
{
    static const int bias[] = {10, 3 << 24, 1 << 30};
    int x = input(b, DT_U8, 4, 5, 5), y = -1;
    for (int i = 0; i < 3; i++) {
        const ConvOpts o = {
            .oc = 4, .k = 1, .stride = 1, .dilation = 1, .groups = 1, .most = 9, .bias = bias[i]};
        const int sum = like(b, conv(b, x, o), IK_SUM);
        y = y < 0 ? sum : add(b, sum, y, 0, 0);
    }
    b->net.out = y;
}

/* Requantizations at the ends of what a shift may be. */
static void way_shifts(Build *b)
{
    static const struct {
        int shift, divisor;
    } r[] = {{-62, 1},     {62, 1}, {-62, INT32_MAX}, {62, INT32_MAX}, {-25, 1 << 30},
             {-19, 70001}, {30, 1}, {31, 1},          {0, 70001},      {17, 1}};
    const ConvOpts o = {
        .oc = 4, .k = 1, .stride = 1, .dilation = 1, .groups = 1, .most = 127, .bias = 1 << 30};
    const ConvOpts one = {.oc = 4, .k = 1, .stride = 1, .dilation = 1, .groups = 1, .most = 3};
    int x = input(b, DT_S8, 4, 5, 5), y = conv(b, x, o), z = -1;
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        x = conv(b,
                 requant(b, i % 3 ? y : conv(b, 0, one), i % 2 ? DT_U8 : DT_S8, r[i].shift,
                         r[i].divisor, i % 2 ? 0 : -128, 127),
                 one);
        z = z < 0 ? x : add(b, x, z, 0, 1);
    }
    b->net.out = linear(b, requant(b, z, DT_S8, 4, 1, -128, 127), 5, 127, 100);
}

static const Way ways[] = {
    {"qlinear", way_qlinear, {.qlinear = 2, .f32 = 1}},
    {"signed", way_signed, {.qlinear = 3, .f32 = 1}},
    {"depthwise", way_depthwise, {.qlinear = 2, .f32 = 1}},
    {"residual", way_residual, {.qlinear = 0, .f32 = 4}},
    {"wide", way_wide, {.f32 = 3, .integer = 1}},
    {"shifts", way_shifts, {.qlinear = 3, .f32 = 12, .integer = 1}},
    {"sums", way_sums, {.f32 = 1, .integer = 2}},
};

/* ---- random nets ---- */

static int random_conv(Build *b, int x, int oc, int stride, bool same)
{
    const IntOp *in = &b->net.op[x];
    ConvOpts o = {
        .oc = oc, .k = pick(b, 0, 2) ? 3 : 1, .stride = stride, .dilation = 1, .groups = 1};
    static const int most[] = {1, 7, 127, 127}, bias[] = {0, 100, 1 << 20, 1 << 30};
    if (!same && in->h > 4 && in->w > 4 && pick(b, 0, 3) == 0) o.dilation = 2;
    o.pad = o.k == 1 ? 0 : o.dilation;
    if (!same && o.k == 3 && in->h > 4 && in->w > 4 && pick(b, 0, 4) == 0) o.pad--;
    if (pick(b, 0, 2) == 0 && in->c % 2 == 0 && oc % 2 == 0) o.groups = oc % in->c == 0 ? in->c : 2;
    o.most = most[pick(b, 0, 3)];
    o.bias = bias[pick(b, 0, pick(b, 0, 3))];
    return conv(b, x, o);
}

static DType type8(Build *b)
{
    return pick(b, 0, 3) ? DT_U8 : DT_S8;
}

/* s32 -> 8 bits: mostly a shift that keeps the numbers apart, now and then anything. */
static int random_requant(Build *b, int x)
{
    static const int divisor[] = {3, 49, 64, 1000, 70001};
    const DType type = type8(b);
    const int least = type == DT_U8 ? 0 : -128, most = type == DT_U8 ? 255 : 127;
    int lo = least, hi = most, d = 1, n = fitting_shift(b, x) + pick(b, -2, 2);
    if (pick(b, 0, 3) == 0) lo = pick(b, least, 0), hi = pick(b, 1, most);
    if (pick(b, 0, 3) == 0) {
        d = divisor[pick(b, 0, 4)];
        for (int k = d; k > 1 && n > -20; k /= 2) n--;
    }
    if (pick(b, 0, 30) == 0) n = pick(b, -62, 62);
    return requant(b, x, type, n, d, lo, hi);
}

static void random_net(Build *b)
{
    int x = input(b, type8(b), pick(b, 1, 6), pick(b, 6, 10), pick(b, 6, 10)),
        blocks = pick(b, 1, 3);
    for (int i = 0; i < blocks; i++) {
        const IntOp *in = &b->net.op[x];
        const int oc = pick(b, 1, 4) * 2, stride = in->h > 4 && in->w > 4 ? pick(b, 1, 2) : 1;
        int y = random_conv(b, x, oc, stride, true), z;
        if (pick(b, 0, 1)) { /* a shortcut */
            z = random_conv(b, x, oc, stride, true);
            if (pick(b, 0, 1)) {
                z = random_requant(b, pick(b, 0, 1) ? like(b, z, IK_RELU) : z);
                z = random_conv(b, z, oc, 1, true);
            }
            y = add(b, y, z, pick(b, 0, 3), pick(b, 0, 2) * pick(b, 0, 5));
        }
        if (pick(b, 0, 2)) y = like(b, y, IK_RELU);
        if (pick(b, 0, 3) == 0 && b->net.op[y].h > 3 && b->net.op[y].w > 3)
            y = maxpool(b, y, pick(b, 2, 3), pick(b, 1, 2), pick(b, 0, 1));
        x = random_requant(b, y);
        if (pick(b, 0, 3) == 0 && b->net.op[x].h > 3 && b->net.op[x].w > 3)
            x = maxpool(b, x, 2, 2, 0);
    }
    if (pick(b, 0, 1)) { /* average: sum, divided while it is requantized */
        x = like(b, random_conv(b, x, 6, 1, false), IK_SUM);
        x = random_requant(b, x);
    }
    b->net.out = linear(b, x, 7, 127, pick(b, 0, 1) ? 1 << 20 : 0);
}

/* ---- cases ---- */

/* An image and the logits of it. */
static void put_tensors(Judge *j, Build *b)
{
    const IntNet *net = &b->net;
    const IntOp *in = &net->op[0], *out = &net->op[net->out];
    const int dim[4] = {BATCH, in->c, in->h, in->w}, odim[2] = {BATCH, out->c * out->h * out->w};
    const size_t map = (size_t)in->h * (size_t)in->w, c = (size_t)in->c, image = map * c;
    uint8_t *nhwc = xcalloc(BATCH, image), *nchw = xcalloc(BATCH, image);
    int32_t *logits = xcalloc((size_t)odim[0] * (size_t)odim[1], sizeof *logits);
    Tensor x = tensor_make(in->type, 4, dim, nchw), y = tensor_make(DT_S32, 2, odim, logits);
    for (size_t i = 0; i < BATCH * image; i++) nhwc[i] = (uint8_t)rng_below(&b->r, 256);
    memset(nhwc, in->type == DT_U8 ? 255 : 127, image); /* one at the limit */
    for (size_t n = 0; n < BATCH; n++)
        for (size_t p = 0; p < map; p++)
            for (size_t k = 0; k < c; k++)
                nchw[n * image + k * map + p] = nhwc[n * image + p * c + k];
    intnet_reference(net, nhwc, BATCH, NULL, logits);
    judge_tensors(j, &x, &y);
    free(nhwc);
    free(nchw);
    free(logits);
}

/* Both forms of a net; counts of the ordinary one. */
static ExportForms add_case(Judge *j, Build *b, const char *name)
{
    ExportForms forms = {0};
    for (int strict = 0; strict < 2; strict++) {
        const ExportOpts o = {.net = name, .integers_only = strict};
        char full[64];
        Err e = {0};
        snprintf(full, sizeof full, "%s%s", name, strict ? "_strict" : "");
        if (export_intnet(&b->net, &o, judge_add(j, full), strict ? NULL : &forms, &e))
            fail_msg("%s: %s", full, e.msg);
        put_tensors(j, b);
    }
    return forms;
}

static void test_ways(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        Build b = {.r = rng_stream(1, RNG_TEST, i, 0)};
        ExportForms f;
        ways[i].make(&b);
        f = add_case(*state, &b, ways[i].name);
        if (f.qlinear != ways[i].want.qlinear || f.f32 != ways[i].want.f32 ||
            f.integer != ways[i].want.integer)
            fail_msg("%s: %d QLinearConv, %d float, %d integer; expected %d, %d, %d", ways[i].name,
                     f.qlinear, f.f32, f.integer, ways[i].want.qlinear, ways[i].want.f32,
                     ways[i].want.integer);
        intnet_free(&b.net);
    }
}

static void test_random(void **state)
{
    const int nets = getenv("QRUN_FULL") ? RANDOM_NETS_FULL : RANDOM_NETS;
    ExportForms all = {0};
    for (int i = 0; i < nets; i++) {
        Build b = {.r = rng_stream(2, RNG_TEST, (uint64_t)i, 0)};
        char name[32];
        ExportForms f;
        random_net(&b);
        snprintf(name, sizeof name, "random_%d", i);
        f = add_case(*state, &b, name);
        all.qlinear += f.qlinear, all.f32 += f.f32, all.integer += f.integer;
        intnet_free(&b.net);
    }
    print_message("# %d random nets: %d QLinearConv, %d float, %d ConvInteger\n", nets, all.qlinear,
                  all.f32, all.integer);
    assert_true(all.qlinear && all.f32 && all.integer);
}

/* No float anywhere in the strict form: neither an operator that makes one nor a constant. */
static void test_strict(void **state)
{
    static const char *const floats[] = {"Conv",  "Gemm", "QLinearConv",     "QuantizeLinear",
                                         "Round", "Relu", "DequantizeLinear"};
    const Judge *j = *state;
    int seen = 0;
    for (int i = 0; i < j->n; i++) {
        OnnxFile f;
        Err e = {0};
        if (!str_ends(j->c[i].name, "_strict")) continue;
        if (onnx_read(&f, j->c[i].model, &e)) fail_msg("%s", e.msg);
        for (int k = 0; k < f.ninit; k++)
            if (f.init[k].type == onnx_type(DT_F32))
                fail_msg("%s: '%s' is float", j->c[i].name, f.init[k].name);
        for (int k = 0; k < f.nnode; k++)
            for (size_t t = 0; t < ARRAY_LEN(floats); t++)
                if (!strcmp(f.node[k].op, floats[t]))
                    fail_msg("%s: a node %s", j->c[i].name, f.node[k].op);
        onnx_file_free(&f);
        seen++;
    }
    assert_true(seen > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways),      cmocka_unit_test(test_random),
        cmocka_unit_test(test_strict),    cmocka_unit_test(judge_test_check),
        cmocka_unit_test(judge_test_all), cmocka_unit_test(judge_test_disabled),
    };
    return cmocka_run_group_tests(tests, judge_setup, judge_teardown);
}
