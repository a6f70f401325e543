/* test/golden_fixed_int.c -- op `layer` in whole numbers: a convolution, a linear layer, the pools.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops.h"
#include "quant/f8int.h"
#include "test/golden_f8net.h"

static void expect_integers(Case *c, const char *name, const int32_t *got, size_t n)
{
    const Yaml *v = yaml_path(c->y, arena_printf(&c->arena, "outputs.%s", name));
    int64_t *want;
    size_t len;
    if (!v || !golden_integers(c, v, name, &want, &len)) return;
    if (len == n)
        golden_same_integers(c, name, got, want, n);
    else
        case_fail(c, "%s has %zu numbers, expected %zu", name, n, len);
}

static void expect_length(Case *c, const char *name, int fl)
{
    const Yaml *v = yaml_path(c->y, arena_printf(&c->arena, "outputs.%s", name));
    const float got = (float)fl;
    if (v) case_expect(c, name, v, &got, 1);
}

static int32_t *widen(Case *c, const int8_t *k, size_t n)
{
    int32_t *to = arena_alloc(&c->arena, (n + 1) * sizeof *to);
    for (size_t i = 0; i < n; i++) to[i] = k[i];
    return to;
}

/* The image operation of a net, filled with x quantized (NHWC). */
static void *put_input(Case *c, IntNet *net, const F8Layer *l, const Tensor *x)
{
    const size_t n = tensor_len(x);
    const bool map = x->ndim == 4;
    float *nhwc = arena_alloc(&c->arena, n * sizeof *nhwc);
    void *image = arena_alloc(&c->arena, n + 1);
    int32_t *k = arena_alloc(&c->arena, (n + 1) * sizeof *k);
    IntOp in = {.kind = IK_INPUT,
                .name = "x",
                .c = x->dim[1],
                .h = map ? x->dim[2] : 1,
                .w = map ? x->dim[3] : 1,
                .type = l->input.neg ? DT_S8 : DT_U8,
                .fl = f8_input_fl(l)};
    intnet_add(net, &in);
    nchw_to_nhwc(x->data, nhwc, x->dim[0], in.c, in.h, in.w);
    f8int_image(net, nhwc, n, image);
    f8int_image(net, x->data, n, nhwc); /* as in the file, for the comparison */
    for (size_t i = 0; i < n; i++) k[i] = l->input.neg ? ((int8_t *)nhwc)[i] : ((uint8_t *)nhwc)[i];
    expect_integers(c, "int_x", k, n);
    return image;
}

/* y of the case: integer sums by their power of two. */
static void check_sums(Case *c, const IntNet *net, const void *image, int n)
{
    const IntOp *op = &net->op[net->out];
    const size_t len = (size_t)n * (size_t)op->c * (size_t)op->h * (size_t)op->w;
    int32_t *sums = arena_alloc(&c->arena, (len + 1) * sizeof *sums);
    float *y = arena_alloc(&c->arena, (len + 1) * sizeof *y),
          *disk = arena_alloc(&c->arena, (len + 1) * sizeof *y);
    if (!case_bool(c, "params.int_infer", false)) return;
    intnet_reference(net, image, n, NULL, sums);
    for (size_t i = 0; i < len; i++) y[i] = ldexpf((float)sums[i], -op->fl);
    nhwc_to_nchw(y, disk, n, op->c, op->h, op->w);
    case_expect(c, "y", yaml_path(c->y, "outputs.y"), disk, len);
}

void golden_fixed_integers(Case *c, const F8Layer *l, const F8Layer *next, const ParamStore *ps,
                           const NormStats *st, const Tensor *x)
{
    const Param *conv = store_find(ps, "conv.weight"), *w = conv ? conv : store_find(ps, "weight");
    const Param *b = store_find(ps, "bias");
    const int oc = w->value.dim[0], k = conv ? w->value.dim[2] : 1;
    const size_t n = tensor_len(&w->value), per = n / (size_t)oc;
    int8_t *ints;
    int32_t *bias;
    IntNet net = {0};
    IntOp op = {.kind = conv ? IK_CONV : IK_LINEAR,
                .name = "layer",
                .nin = 1,
                .c = oc,
                .h = 1,
                .w = 1,
                .type = DT_S32};
    void *image;
    double divisor;
    if (!yaml_path(c->y, "outputs.int_weight")) return;
    ints = arena_alloc(&net.arena, n);
    bias = arena_alloc(&net.arena, (size_t)oc * sizeof *bias);
    op.u.conv = (IntConv){.k = k,
                          .stride = (int)case_int(c, "params.stride", 1),
                          .pad = (int)case_int(c, "params.pad", 0),
                          .dilation = 1,
                          .groups = (int)case_int(c, "params.groups", 1),
                          .w = ints,
                          .bias = bias};
    if (conv)
        f8_convert_conv(l, next,
                        &(F8Conv){(size_t)oc, (size_t)w->value.dim[1], (size_t)k * (size_t)k,
                                  (size_t)op.u.conv.groups, w->value.data,
                                  store_find(ps, "bn.weight")->value.data,
                                  store_find(ps, "bn.bias")->value.data, st},
                        ints, bias, &op.u.conv.weight_fl);
    else if (!f8_convert_linear(l, w->value.data, b ? b->value.data : NULL, (size_t)oc, per, ints,
                                bias, &op.u.conv.weight_fl, &divisor))
        case_fail(c, "the rounded weights are all equal");
    image = put_input(c, &net, l, x);
    op.fl = net.op[0].fl + op.u.conv.weight_fl;
    if (conv) {
        op.h = (net.op[0].h + 2 * op.u.conv.pad - k) / op.u.conv.stride + 1;
        op.w = (net.op[0].w + 2 * op.u.conv.pad - k) / op.u.conv.stride + 1;
    }
    net.out = intnet_add(&net, &op);
    expect_integers(c, "int_weight", widen(c, ints, n), n);
    expect_integers(c, "int_bias", bias, (size_t)oc);
    expect_length(c, "weight_fraclen", op.u.conv.weight_fl);
    expect_length(c, "weight_fl", op.u.conv.weight_fl);
    expect_length(c, "used_input_fraclen", net.op[0].fl);
    expect_length(c, "input_fl", net.op[0].fl);
    expect_length(c, "output_fl", op.fl);
    check_sums(c, &net, image, x->dim[0]);
    intnet_free(&net);
}

/* ---- pools ---- */

/* One pool node on x of the case; y is left in `tap`, its shape in `shape`. */
static void run_pool(Case *c, const Tensor *x, int shift, Tap *tap, Tensor *shape)
{
    Graph g;
    Plan plan = {0};
    Exec ex = {0};
    Err e = {0};
    Prim *prim = prim_open(&e);
    const int k = (int)case_int(c, "params.kernel", 1), s = (int)case_int(c, "params.stride", 1),
              pad = (int)case_int(c, "params.pad", 0);
    const PoolAttr a = {.kind = POOL_MAX, .k = k, .stride = s, .pad = pad};
    float *nhwc = arena_alloc(&c->arena, tensor_bytes(x));
    char *memory = NULL;
    int in, y;
    nchw_to_nhwc(x->data, nhwc, x->dim[0], x->dim[1], x->dim[2], x->dim[3]);
    graph_init(&g, false);
    in = graph_external(&g, tensor_nhwc(x->dim[0], x->dim[1], x->dim[2], x->dim[3]), "x");
    y = shift ? graph_f8_pool(&g, "pool", in, shift)
              : graph_pool(&g, "pool", in, a, (x->dim[2] + 2 * pad - k) / s + 1,
                           (x->dim[3] + 2 * pad - k) / s + 1);
    *shape = g.v[y].t;
    y = graph_tap(c, &g, "end", y, tap, NULL);
    g.v[y].keep = true;
    if (!prim || graph_finish(&g, prim, &e)) {
        case_fail(c, "%s", e.msg);
    } else {
        plan_make(&plan, &g, true);
        memory = xaligned(plan.arena_bytes + 1);
        exec_init(&ex, &g, &plan, memory);
        exec_bind(&ex, in, nhwc);
        exec_forward(&ex, 1);
    }
    exec_free(&ex);
    plan_free(&plan);
    graph_free(&g);
    prim_close(prim);
    free(memory);
}

/* Numbers up to 64 * 255 as the sums of a convolution of two 8-bit channels each, summed over the
 * map. */
static void check_int_sum(Case *c, const Tensor *x)
{
    enum { HIGH = 64 };
    const int n = x->dim[0], ch = x->dim[1], map = x->dim[2] * x->dim[3];
    IntNet net = {0};
    IntOp op = {
        .kind = IK_INPUT, .name = "x", .c = 2 * ch, .h = x->dim[2], .w = x->dim[3], .type = DT_U8};
    unsigned char *image = arena_alloc(&c->arena, (size_t)(n * 2 * ch * map));
    int32_t *sums = arena_alloc(&c->arena, (size_t)(n * ch) * sizeof *sums);
    int8_t *w = arena_alloc(&c->arena, 2 * (size_t)ch);
    const float *v = x->data;
    op.fl = (int)case_int(c, "params.input_fl", 0);
    intnet_add(&net, &op);
    for (int i = 0; i < ch; i++) w[2 * i] = HIGH, w[2 * i + 1] = 1;
    op.kind = IK_CONV, op.nin = 1, op.c = ch, op.type = DT_S32;
    op.u.conv = (IntConv){.k = 1, .stride = 1, .dilation = 1, .groups = ch, .w = w};
    op.in[0] = 0;
    op.in[0] = intnet_add(&net, &op);
    op.kind = IK_SUM, op.h = op.w = 1;
    op.fl += (int)case_int(c, "params.shift", 0);
    net.out = intnet_add(&net, &op);
    for (int i = 0; i < n * ch * map; i++) {
        const int at = i / (ch * map) * map + i % map, k = i / map % ch;
        const int number = (int)v[i];
        image[(at * ch + k) * 2] = (unsigned char)(number / HIGH);
        image[(at * ch + k) * 2 + 1] = (unsigned char)(number % HIGH);
    }
    intnet_reference(&net, image, n, NULL, sums);
    expect_integers(c, "int_sum", sums, (size_t)(n * ch));
    if (op.fl != (int)case_int(c, "params.output_fl", 0))
        case_fail(c, "the length of the sum is %d", op.fl);
    intnet_free(&net);
}

void golden_fixed_pool(Case *c)
{
    const int shift = (int)case_int(c, "params.shift", 0);
    Tap tap = {0};
    Tensor x, shape;
    float *disk;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x)) return;
    run_pool(c, &x, shift, &tap, &shape);
    if (case_done(c)) return;
    disk = arena_alloc(&c->arena, (tap.n + 1) * sizeof *disk);
    nhwc_to_nchw(tap.value, disk, shape.dim[0], shape.dim[1], shape.dim[2], shape.dim[3]);
    case_expect(c, "y", yaml_path(c->y, shift ? "outputs.float_result" : "outputs.y"), disk, tap.n);
    if (shift) check_int_sum(c, &x);
}
