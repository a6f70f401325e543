/* run/export_int.c -- an IntNet as an ONNX graph that gives the same bits on any runtime that
 * follows the standard.
 *
 * A convolution becomes, in this order of preference:
 *   QLinearConv   with the ReLU, max pools and requantization that alone read it: power-of-two
 * scales, so the one rounding is that of the requantization. Pools move behind it, as rounding and
 *                 clamping keep the order of numbers.
 *   Conv, Gemm    in float on whole numbers
 *   ConvInteger   with an s32 Add for the bias; slow in today's runtimes. Linear layers too:
 * MatMulInteger saturates on processors without VNNI in a widely used one. The first two only where
 * no sum can reach 2^24: most |x| sum |w| + |b|, per output channel, is below it, and so is every
 * partial sum. */
#include "run/export_int.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

const char *int_op_name(const IntExport *x, int op, char *buf, size_t n)
{
    const IntOp *o = &x->net->op[op];
    const size_t len = strlen(o->name);
    if (len) /* prefixes may come with their dot */
        snprintf(buf, n, "%.*s", (int)(len - (o->name[len - 1] == '.')), o->name);
    else
        snprintf(buf, n, "%s_%d", int_kind_name(o->kind), op);
    return buf;
}

const char *int_part(IntExport *x, const char *op, const char *name, const char *part,
                     const char *const *in)
{
    char full[320];
    snprintf(full, sizeof full, "%s/%s", name, part);
    return onnx_node(x->m, op, full, in);
}

const char *int_zero(IntExport *x, int op)
{
    return onnx_scalar(x->m, x->v[op].type, x->v[op].zero);
}

/* 8 bits to float and back, by way of a zero point. */
static const char *by_scale_1(IntExport *x, int op, const char *node, const char *part,
                              const char *value)
{
    return int_part(x, node, INT_OP_NAME(x, op), part,
                    ONNX_IN(value, onnx_scalar(x->m, DT_F32, 1), int_zero(x, op)));
}

static const char *cast(IntExport *x, int op, const char *part, DType type, const char *value)
{
    value = int_part(x, "Cast", INT_OP_NAME(x, op), part, ONNX_IN(value));
    onnx_attr_int(x->m, "to", onnx_type(type));
    return value;
}

const char *int_value(IntExport *x, int op, IntRep rep)
{
    IntValue *v = &x->v[op];
    const char **r = v->rep;
    if (r[rep]) return r[rep];
    switch (rep) {
    case REP_BYTE:
        ASSERT(r[REP_FLOAT], "operation %d has no value of 8 bits", op);
        r[rep] = by_scale_1(x, op, "QuantizeLinear", "u8", r[REP_FLOAT]);
        break;
    case REP_FLOAT:
        ASSERT(v->most < EXACT_FLOAT, "operation %d does not fit a float", op);
        r[rep] = !r[REP_INT] && v->zero
                     ? by_scale_1(x, op, "DequantizeLinear", "f32", r[REP_BYTE])
                     : cast(x, op, "f32", DT_F32, r[REP_INT] ? r[REP_INT] : r[REP_BYTE]);
        break;
    default:
        if (!r[REP_FLOAT] && v->zero) int_value(x, op, REP_FLOAT);
        r[rep] = cast(x, op, "s32", DT_S32, r[REP_FLOAT] ? r[REP_FLOAT] : r[REP_BYTE]);
    }
    return r[rep];
}

IntRep int_wide(const IntExport *x, int op)
{
    const IntValue *v = &x->v[op];
    if (x->o->integers_only) return REP_INT;
    if (v->rep[REP_FLOAT]) return REP_FLOAT;
    return v->rep[REP_INT] ? REP_INT : REP_FLOAT;
}

/* `value` of operation `op` with the wanted number of dimensions. */
static const char *shaped(IntExport *x, int op, const char *value, const char *name, int rank)
{
    const IntOp *o = &x->net->op[op];
    if (x->v[op].rank == rank) return value;
    if (rank == 4)
        return int_part(x, "Reshape", name, "map",
                        ONNX_IN(value, onnx_list(x->m, 4, (const int[]){0, o->c, o->h, o->w})));
    value = int_part(x, "Flatten", name, "flat", ONNX_IN(value));
    onnx_attr_int(x->m, "axis", 1);
    return value;
}

const char *int_clip_byte(IntExport *x, int op, const char *value, const char *name, int lo, int hi)
{
    const IntValue *v = &x->v[op];
    const int least = v->type == DT_U8 ? 0 : -128, greatest = v->type == DT_U8 ? 255 : 127;
    lo += v->zero;
    hi += v->zero;
    if (lo <= least && hi >= greatest) return value;
    return int_part(x, "Clip", name, "clip",
                    ONNX_IN(value, onnx_scalar(x->m, v->type, (double)lo),
                            onnx_scalar(x->m, v->type, (double)hi)));
}

/* ---- convolution and linear layers ---- */

/* The layer's weights seen as those of a convolution. */
typedef struct Layer {
    const IntOp *op;
    const IntConv *a;
    const char *name;
    int in, icg;     /* channels a group reads; linear: the whole map */
    int64_t sum;     /* largest sum of magnitudes, bias included */
    int most_weight; /* largest magnitude of a weight */
} Layer;

static Layer layer_of(const IntExport *x, int op, const char *name)
{
    const IntOp *o = &x->net->op[op];
    const IntOp *src = &x->net->op[o->in[0]];
    const IntConv *a = &o->u.conv;
    const bool linear = o->kind == IK_LINEAR;
    Layer l = {.op = o, .a = a, .name = name, .in = o->in[0]};
    size_t row;
    l.icg = linear ? src->c * src->h * src->w : src->c / a->groups;
    row = (size_t)l.icg * (linear ? 1 : (size_t)a->k * (size_t)a->k);
    for (int c = 0; c < o->c; c++) {
        const int8_t *w = a->w + (size_t)c * row;
        int64_t sum = 0;
        for (size_t i = 0; i < row; i++) {
            sum += abs(w[i]);
            if (abs(w[i]) > l.most_weight) l.most_weight = abs(w[i]);
        }
        sum = sum * x->v[l.in].most + (a->bias ? llabs((long long)a->bias[c]) : 0);
        if (sum > l.sum) l.sum = sum;
    }
    return l;
}

/* The s8 weights, in the shape of a convolution or (2 dimensions) of a Gemm. */
static const char *layer_weight(IntExport *x, const Layer *l, int ndim)
{
    const int k = l->op->kind == IK_LINEAR ? 1 : l->a->k, dim[4] = {l->op->c, l->icg, k, k};
    return onnx_init(x->m, DT_S8, ndim, dim, l->a->w, "%s.weight", l->name);
}

static const char *layer_weight_f32(IntExport *x, const Layer *l, int ndim)
{
    const char *w = int_part(x, "Cast", l->name, "weight", ONNX_IN(layer_weight(x, l, ndim)));
    onnx_attr_int(x->m, "to", onnx_type(DT_F32));
    return w;
}

/* The bias with `ndim` dimensions, the first one the channels; NULL when there is none. */
static const char *layer_bias(IntExport *x, const Layer *l, int ndim)
{
    const int dim[3] = {l->op->c, 1, 1};
    if (!l->a->bias) return NULL;
    return onnx_init(x->m, DT_S32, ndim, dim, l->a->bias, "%s.bias", l->name);
}

static const char *layer_bias_f32(IntExport *x, const Layer *l)
{
    float *b;
    if (!l->a->bias) return NULL;
    b = onnx_alloc(x->m, (size_t)l->op->c * sizeof *b);
    for (int i = 0; i < l->op->c; i++) b[i] = (float)l->a->bias[i];
    return onnx_init(x->m, DT_F32, 1, &l->op->c, b, "%s.bias", l->name);
}

static void conv_attrs(IntExport *x, const Layer *l)
{
    const IntConv *a = l->a;
    const bool linear = l->op->kind == IK_LINEAR;
    const int k = linear ? 1 : a->k, s = linear ? 1 : a->stride, d = linear ? 1 : a->dilation,
              p = linear ? 0 : a->pad;
    onnx_attr_ints(x->m, "kernel_shape", 2, (const int[]){k, k});
    onnx_attr_ints(x->m, "strides", 2, (const int[]){s, s});
    onnx_attr_ints(x->m, "pads", 4, (const int[]){p, p, p, p});
    onnx_attr_ints(x->m, "dilations", 2, (const int[]){d, d});
    onnx_attr_int(x->m, "group", linear ? 1 : a->groups);
}

static void integer_layer(IntExport *x, int op, const Layer *l)
{
    const bool linear = l->op->kind == IK_LINEAR;
    const char *in = int_value(x, l->in, REP_BYTE), *y, *b = layer_bias(x, l, 3);
    if (linear) /* a convolution of a 1x1 map */
        in = int_part(x, "Reshape", l->name, "map",
                      ONNX_IN(in, onnx_list(x->m, 4, (const int[]){0, l->icg, 1, 1})));
    else
        in = shaped(x, l->in, in, l->name, 4);
    y = int_part(x, "ConvInteger", l->name, "sum",
                 ONNX_IN(in, layer_weight(x, l, 4), x->v[l->in].zero ? int_zero(x, l->in) : NULL));
    conv_attrs(x, l);
    if (b) y = onnx_node(x->m, "Add", l->name, ONNX_IN(y, b));
    x->v[op].rep[REP_INT] = y;
    x->forms.integer++;
}

static void float_layer(IntExport *x, int op, const Layer *l)
{
    const bool linear = l->op->kind == IK_LINEAR;
    const int rank = linear ? 2 : 4;
    const char *in = shaped(x, l->in, int_value(x, l->in, REP_FLOAT), l->name, rank),
               *w = layer_weight_f32(x, l, rank);
    x->v[op].rank = rank;
    x->v[op].rep[REP_FLOAT] =
        onnx_node(x->m, linear ? "Gemm" : "Conv", l->name, ONNX_IN(in, w, layer_bias_f32(x, l)));
    if (linear)
        onnx_attr_int(x->m, "transB", 1);
    else
        conv_attrs(x, l);
    x->forms.f32++;
}

/* ---- pools ---- */

static void pool_attrs(IntExport *x, int op)
{
    const IntOp *o = &x->net->op[op], *in = &x->net->op[o->in[0]];
    const int k = o->u.pool.k, s = o->u.pool.stride, p = o->u.pool.pad;
    const int bottom = (o->h - 1) * s + k - in->h - p, right = (o->w - 1) * s + k - in->w - p;
    onnx_attr_ints(x->m, "kernel_shape", 2, (const int[]){k, k});
    onnx_attr_ints(x->m, "strides", 2, (const int[]){s, s});
    onnx_attr_ints(x->m, "pads", 4,
                   (const int[]){p, p, bottom > 0 ? bottom : 0, right > 0 ? right : 0});
}

/* Pools of s32, which ONNX does not have: the largest of k k shifted maps, below a padding that
 * never wins. */
static const char *pool_of_slices(IntExport *x, int op, const char *value, const char *name)
{
    const IntOp *o = &x->net->op[op];
    const int k = o->u.pool.k, s = o->u.pool.stride, p = o->u.pool.pad;
    const int pads[8] = {0, 0, p, p, 0, 0, p + k, p + k}, axes[2] = {2, 3}, steps[2] = {s, s};
    const char **in = xcalloc((size_t)(k * k) + 1, sizeof *in), *y;
    value = int_part(x, "Pad", name, "pad",
                     ONNX_IN(value, onnx_list(x->m, 8, pads), onnx_scalar(x->m, DT_S32, INT_MIN)));
    for (int i = 0; i < k * k; i++) {
        const int from[2] = {i / k, i % k},
                  to[2] = {i / k + (o->h - 1) * s + 1, i % k + (o->w - 1) * s + 1};
        in[i] = int_part(x, "Slice", name, "tap",
                         ONNX_IN(value, onnx_list(x->m, 2, from), onnx_list(x->m, 2, to),
                                 onnx_list(x->m, 2, axes), onnx_list(x->m, 2, steps)));
    }
    y = onnx_node(x->m, "Max", name, in);
    free(in);
    return y;
}

static int pool_op(IntExport *x, int op)
{
    const IntOp *o = &x->net->op[op];
    const int in = o->in[0];
    const char *name = INT_OP_NAME(x, op);
    IntValue *v = &x->v[op];
    IntRep rep = x->v[in].rep[REP_BYTE] && o->type != DT_S32 ? REP_BYTE : int_wide(x, in);
    const char *value;
    if (rep == REP_INT && !x->o->integers_only && x->v[in].most < EXACT_FLOAT) rep = REP_FLOAT;
    value = shaped(x, in, int_value(x, in, rep), name, 4);
    v->rank = 4;
    if (rep == REP_INT) {
        v->rep[rep] = pool_of_slices(x, op, value, name);
    } else {
        v->rep[rep] = onnx_node(x->m, "MaxPool", name, ONNX_IN(value));
        pool_attrs(x, op);
    }
    return 0;
}

/* ---- QLinearConv and what it swallows ---- */

/* The requantization that ends the chain of ReLUs and pools behind a convolution, each read only by
 * the next; -1 when there is none that QLinearConv can do. */
static int chain_end(const IntExport *x, int op, bool *relu)
{
    const IntNet *net = x->net;
    int at = op;
    *relu = false;
    for (;;) {
        const IntOp *o;
        at = x->v[at].reader;
        if (at < 0) return -1;
        o = &net->op[at];
        if (o->kind == IK_RELU) {
            *relu = true;
        } else if (o->kind == IK_REQUANT) {
            return o->u.requant.divisor == 1 && (!*relu || o->u.requant.hi >= 0) ? at : -1;
        } else if (o->kind != IK_MAXPOOL) {
            return -1;
        }
    }
}

static void qlinear_layer(IntExport *x, int op, const Layer *l, int end, bool relu)
{
    static const int8_t zero =
        0; /* one for each layer: ONNX Runtime rewrites it together with the weight */
    const IntNet *net = x->net;
    const IntOp *r = &net->op[end];
    const IntOp *src = &net->op[l->in];
    int64_t stored;
    const int lo = relu && r->u.requant.lo < 0 ? 0 : r->u.requant.lo;
    const double sx = ldexp(1, -src->fl), sw = ldexp(1, -l->a->weight_fl);
    const char *in = shaped(x, l->in, int_value(x, l->in, REP_BYTE), l->name, 4), *y;
    y = onnx_node(x->m, "QLinearConv", l->name,
                  ONNX_IN(in, onnx_scalar(x->m, DT_F32, sx), int_zero(x, l->in),
                          layer_weight(x, l, 4), onnx_scalar(x->m, DT_F32, sw),
                          onnx_init(x->m, DT_S8, 0, NULL, &zero, "%s.weight_zero", l->name),
                          onnx_scalar(x->m, DT_F32, ldexp(sx * sw, r->u.requant.shift)),
                          int_zero(x, end), layer_bias(x, l, 1)));
    conv_attrs(x, l);
    y = int_clip_byte(x, end, y, l->name, lo, r->u.requant.hi);
    for (int at = x->v[op].reader; at != end; at = x->v[at].reader) {
        x->v[at].done = true;
        if (net->op[at].kind != IK_MAXPOOL) continue;
        y = onnx_node(x->m, "MaxPool", INT_OP_NAME(x, at), ONNX_IN(y));
        pool_attrs(x, at);
    }
    x->v[end].done = true;
    x->v[end].rank = 4;
    x->v[end].rep[REP_BYTE] = y;
    x->forms.qlinear++;
    stored = x->v[l->in].zero ? UINT8_MAX : x->v[l->in].most;
    if (src->c / l->a->groups > 1 && 2 * stored * l->most_weight > INT16_MAX) x->forms.wide++;
}

/* Scales are powers of two that a float has. */
static bool scales_fit(const IntExport *x, const Layer *l, int end)
{
    const int fx = x->net->op[l->in].fl, fw = l->a->weight_fl,
              fy = fx + fw - x->net->op[end].u.requant.shift;
    return abs(fx) <= 60 && abs(fw) <= 60 && abs(fy) <= 120;
}

static int layer_op(IntExport *x, int op)
{
    const char *name = INT_OP_NAME(x, op);
    const Layer l = layer_of(x, op, name);
    const bool exact = l.sum < EXACT_FLOAT && !x->o->integers_only;
    const double part = (double)l.sum / EXACT_FLOAT;
    bool relu = false;
    const int end = l.op->kind == IK_CONV && exact ? chain_end(x, op, &relu) : -1;
    x->v[op].rank = 4;
    if (end >= 0 && scales_fit(x, &l, end)) {
        qlinear_layer(x, op, &l, end, relu);
    } else if (exact) {
        float_layer(x, op, &l);
    } else {
        integer_layer(x, op, &l);
    }
    if (!exact) {
        log_msg(x->o->integers_only ? LOG_DEBUG : LOG_INFO,
                "export_onnx: %s: ConvInteger (slow): sums up to %.3g x 2^24%s", name, part,
                x->o->integers_only ? "" : ", which float does not hold exactly");
        return 0;
    }
    if (part > x->forms.worst) x->forms.worst = part;
    log_msg(LOG_DEBUG, "export_onnx: %s: %s: sums up to %.3g x 2^24", name,
            end >= 0 ? "QLinearConv" : "float on whole numbers", part);
    return 0;
}

/* ---- the other operations ---- */

static int input_op(IntExport *x, int op)
{
    const IntOp *o = &x->net->op[op];
    const char *image = onnx_input(x->m, "input", o->type, 4, (const int[]){0, o->c, o->h, o->w});
    x->v[op].rank = 4;
    if (x->v[op].zero) /* from s8 */
        x->v[op].rep[REP_FLOAT] = cast(x, op, "f32", DT_F32, image);
    else
        x->v[op].rep[REP_BYTE] = image;
    return 0;
}

static int relu_op(IntExport *x, int op)
{
    const int in = x->net->op[op].in[0];
    const IntRep rep = int_wide(x, in);
    const char *name = INT_OP_NAME(x, op), *value = int_value(x, in, rep);
    x->v[op].rep[rep] = rep == REP_FLOAT ? onnx_node(x->m, "Relu", name, ONNX_IN(value))
                                         : onnx_node(x->m, "Max", name,
                                                     ONNX_IN(value, onnx_scalar(x->m, DT_S32, 0)));
    return 0;
}

static const char *shifted(IntExport *x, const char *value, const char *name, IntRep rep, int shift)
{
    const double by = rep == REP_INT ? (double)(int32_t)(1u << shift) : ldexp(1, shift);
    if (!shift) return value;
    return int_part(x, "Mul", name, "shift",
                    ONNX_IN(value, onnx_scalar(x->m, rep == REP_INT ? DT_S32 : DT_F32, by)));
}

static int add_op(IntExport *x, int op)
{
    const IntOp *o = &x->net->op[op];
    const char *name = INT_OP_NAME(x, op), *in[2];
    double most = 0;
    IntRep rep = REP_FLOAT;
    for (int k = 0; k < 2; k++) {
        most += ldexp((double)x->v[o->in[k]].most, o->u.shift[k]);
        if (int_wide(x, o->in[k]) == REP_INT) rep = REP_INT;
    }
    if (most >= EXACT_FLOAT) rep = REP_INT;
    for (int k = 0; k < 2; k++) {
        in[k] = shaped(x, o->in[k], int_value(x, o->in[k], rep), name, x->v[op].rank);
        in[k] = shifted(x, in[k], name, rep, o->u.shift[k]);
    }
    x->v[op].rep[rep] = onnx_node(x->m, "Add", name, ONNX_IN(in[0], in[1]));
    return 0;
}

/* Where the sum may leave 32 bits it is made in 64 and cut, as s32 sums saturate in ONNX Runtime.
 */
static int sum_op(IntExport *x, int op)
{
    const IntOp *o = &x->net->op[op], *src = &x->net->op[o->in[0]];
    const char *name = INT_OP_NAME(x, op), *axes = onnx_list(x->m, 2, (const int[]){2, 3});
    const double most = (double)x->v[o->in[0]].most * src->h * src->w;
    const IntRep rep = most < EXACT_FLOAT ? int_wide(x, o->in[0]) : REP_INT;
    const char *value = shaped(x, o->in[0], int_value(x, o->in[0], rep), name, 4);
    const bool wraps = most > INT32_MAX;
    x->v[op].rank = 4;
    if (wraps) value = cast(x, op, "s64", DT_S64, value);
    value = onnx_node(x->m, "ReduceSum", name, ONNX_IN(value, axes));
    x->v[op].rep[rep] = wraps ? cast(x, op, "s32", DT_S32, value) : value;
    return 0;
}

static int (*const write_op[IK_NKINDS])(IntExport *x, int op) = {
    [IK_INPUT] = input_op,
    [IK_CONV] = layer_op,
    [IK_LINEAR] = layer_op,
    [IK_RELU] = relu_op,
    [IK_REQUANT] = export_requant,
    [IK_MAXPOOL] = pool_op,
    [IK_ADD] = add_op,
    [IK_SUM] = sum_op,
};

/* ---- the whole ---- */

static void find_readers(IntExport *x)
{
    const IntNet *net = x->net;
    for (int i = 0; i < net->n; i++) x->v[i].reader = -1;
    for (int i = 0; i < net->n; i++)
        for (int k = 0; k < net->op[i].nin; k++) {
            IntValue *v = &x->v[net->op[i].in[k]];
            v->reader = v->reader == -1 ? i : -2;
        }
    x->v[net->out].reader = -2; /* read from outside */
}

static int build(IntExport *x)
{
    const IntNet *net = x->net;
    const IntOp *out = &net->op[net->out];
    const char *value;
    for (int i = 0; i < net->n; i++) {
        if (x->v[i].done) continue;
        if (!x->v[i].rank && net->op[i].nin) x->v[i].rank = x->v[net->op[i].in[0]].rank;
        if (write_op[net->op[i].kind](x, i)) return -1;
    }
    value = shaped(x, net->out, int_value(x, net->out, REP_INT), "logits", 2);
    onnx_output(x->m, value, "output", DT_S32, 2, (const int[]){0, out->c * out->h * out->w});
    export_meta(x->m, x->o);
    onnx_meta(x->m, "form", "%s",
              x->o->integers_only ? "integers only" : "integers, in part as float");
    onnx_meta(x->m, "input_fl", "%d", net->op[0].fl); /* real = stored / 2^fl */
    onnx_meta(x->m, "output_fl", "%d", out->fl);
    return 0;
}

static void report(const IntExport *x, const char *path)
{
    const ExportForms *f = &x->forms;
    log_msg(
        LOG_INFO,
        "%s: %d layers as QLinearConv, %d as float on whole numbers (sums up to %.2g of what float "
        "holds exactly), %d as ConvInteger",
        path, f->qlinear, f->f32, f->worst, f->integer);
    if (f->wide)
        log_msg(
            LOG_INFO,
            "%s: on processors without VNNI, ONNX Runtime needs session.x64quantprecision=1 for %d "
            "layers",
            path, f->wide);
}

int export_intnet(const IntNet *net, const ExportOpts *o, const char *path, ExportForms *forms,
                  Err *e)
{
    IntExport x = {.net = net, .o = o, .e = e};
    int64_t *bound = xcalloc((size_t)net->n, sizeof *bound);
    int r;
    x.m = onnx_new(o->net, NULL);
    x.v = xcalloc((size_t)net->n, sizeof *x.v);
    intnet_bounds(net, bound);
    for (int i = 0; i < net->n; i++) {
        const bool biased = net->op[i].type == DT_S8 && !o->integers_only;
        x.v[i].most = bound[i];
        x.v[i].zero = biased ? 128 : 0;
        x.v[i].type = biased ? DT_U8 : net->op[i].type;
    }
    free(bound);
    find_readers(&x);
    r = build(&x) ? -1 : onnx_write(x.m, path, e);
    if (!r) report(&x, path);
    if (forms) *forms = x.forms;
    free(x.v);
    onnx_free(x.m);
    return r;
}
