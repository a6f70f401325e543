/* quant/intnet.c -- see intnet.h: the list, what its numbers can be, and the plain execution. */
#include "quant/intnet.h"

#include <stdlib.h>
#include <string.h>

/* ---- the list ---- */

const char *int_kind_name(IntKind k)
{
    static const char *const name[IK_NKINDS] = {"input",   "conv",    "linear", "relu",
                                                "requant", "maxpool", "add",    "sum"};
    return name[k];
}

/* What is wrong with the operation, or NULL. */
static const char *fault(const IntNet *net, const IntOp *op)
{
    static const int nin[IK_NKINDS] = {0, 1, 1, 1, 1, 1, 2, 1};
    const IntOp *x = NULL;
    bool narrow = op->type == DT_U8 || op->type == DT_S8, narrow_in;
    if ((op->kind == IK_INPUT) != (net->n == 0)) return "the input is operation 0, and only that";
    if (op->nin != nin[op->kind]) return "number of inputs";
    for (int i = 0; i < op->nin; i++)
        if (op->in[i] < 0 || op->in[i] >= net->n) return "inputs come first";
    if (op->c < 1 || op->h < 1 || op->w < 1) return "shape";
    if (op->nin) x = &net->op[op->in[0]];
    narrow_in = x && (x->type == DT_U8 || x->type == DT_S8);
    if (!narrow && op->type != DT_S32) return "type";
    switch (op->kind) {
    case IK_INPUT:
        return narrow ? NULL : "the image has 8 bits";
    case IK_CONV: {
        const IntConv *a = &op->u.conv;
        const int reach = (a->k - 1) * a->dilation + 1;
        if (!narrow_in || op->type != DT_S32) return "8 bits in, 32 out";
        if (a->groups < 1 || x->c % a->groups || op->c % a->groups) return "groups";
        if ((x->h + 2 * a->pad - reach) / a->stride + 1 != op->h ||
            (x->w + 2 * a->pad - reach) / a->stride + 1 != op->w || x->h + 2 * a->pad < reach ||
            x->w + 2 * a->pad < reach)
            return "map";
        return NULL;
    }
    case IK_LINEAR:
        if (!narrow_in || op->type != DT_S32) return "8 bits in, 32 out";
        return op->h == 1 && op->w == 1 ? NULL : "map";
    case IK_REQUANT:
        if (!narrow || op->u.requant.divisor < 1 || op->u.requant.lo > op->u.requant.hi)
            return "divisor and limits";
        if (op->type == DT_U8 ? op->u.requant.lo < 0 || op->u.requant.hi > 255
                              : op->u.requant.lo < -128 || op->u.requant.hi > 127)
            return "limits outside the type";
        break;
    case IK_MAXPOOL:
        if (op->u.pool.pad >= op->u.pool.k ||
            (op->h - 1) * op->u.pool.stride - op->u.pool.pad >= x->h ||
            (op->w - 1) * op->u.pool.stride - op->u.pool.pad >= x->w)
            return "a window of padding only";
        return op->type == x->type && op->c == x->c ? NULL : "type";
    case IK_SUM:
        return op->h == 1 && op->w == 1 && op->c == x->c && !narrow_in ? NULL : "map";
    case IK_ADD:
        if (op->u.shift[0] < 0 || op->u.shift[1] < 0 || op->u.shift[0] > 31 || op->u.shift[1] > 31)
            return "shift";
        break;
    case IK_RELU:
    case IK_NKINDS:
        break;
    }
    for (int i = 0; i < op->nin; i++) {
        x = &net->op[op->in[i]];
        if (x->type != DT_S32) return "32 bits in";
        if (x->c != op->c || x->h != op->h || x->w != op->w) return "map";
    }
    return op->kind == IK_REQUANT || op->type == DT_S32 ? NULL : "32 bits out";
}

int intnet_add(IntNet *net, const IntOp *op)
{
    const char *wrong = fault(net, op);
    IntOp *o;
    ASSERT(!wrong, "operation %d (%s %s): %s", net->n, int_kind_name(op->kind),
           op->name ? op->name : "", wrong);
    mem_grow(&net->op, &net->cap, (size_t)net->n + 1, sizeof *net->op);
    o = &net->op[net->n];
    *o = *op;
    o->name = arena_strdup(&net->arena, op->name ? op->name : "");
    return net->n++;
}

void intnet_free(IntNet *net)
{
    free(net->op);
    arena_free(&net->arena);
    memset(net, 0, sizeof *net);
}

/* Values one output of the operation reads: those of a group and window. */
static size_t taps_of(const IntNet *net, const IntOp *op)
{
    const IntOp *x = &net->op[op->in[0]];
    if (op->kind == IK_LINEAR) return (size_t)x->c * (size_t)x->h * (size_t)x->w;
    return (size_t)(x->c / op->u.conv.groups) * (size_t)op->u.conv.k * (size_t)op->u.conv.k;
}

/* ---- ranges ---- */

static const IntRange whole = {INT32_MIN, INT32_MAX};

static IntRange join(IntRange a, IntRange b)
{
    return (IntRange){a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
}

IntRange intnet_conv_range(const IntNet *net, int i, IntRange x, bool with_bias)
{
    const IntOp *op = &net->op[i];
    const size_t taps = taps_of(net, op);
    const int8_t *w = op->u.conv.w;
    IntRange all = {INT64_MAX, INT64_MIN};
    x = join(x, (IntRange){0, 0}); /* padding */
    for (int o = 0; o < op->c; o++, w += taps) {
        const int64_t b = with_bias && op->u.conv.bias ? op->u.conv.bias[o] : 0;
        int64_t up = 0, down = 0;
        for (size_t t = 0; t < taps; t++) {
            up += w[t] > 0 ? w[t] : 0;
            down -= w[t] < 0 ? w[t] : 0;
        }
        all = join(all, (IntRange){up * x.lo - down * x.hi + b, up * x.hi - down * x.lo + b});
    }
    return all;
}

void intnet_ranges(const IntNet *net, IntRange *range)
{
    for (int i = 0; i < net->n; i++) {
        const IntOp *op = &net->op[i];
        IntRange in[2] = {{0, 0}, {0, 0}}, *r = &range[i];
        for (int k = 0; k < op->nin; k++)
            in[k] = int_range_wraps(range[op->in[k]]) ? whole : range[op->in[k]];
        *r = in[0];
        switch (op->kind) {
        case IK_INPUT:
            *r = op->type == DT_U8 ? (IntRange){0, 255} : (IntRange){-128, 127};
            break;
        case IK_CONV:
        case IK_LINEAR:
            *r = intnet_conv_range(net, i, in[0], true);
            break;
        case IK_RELU:
            r->lo = r->lo < 0 ? 0 : r->lo;
            r->hi = r->hi < 0 ? 0 : r->hi;
            break;
        case IK_REQUANT:
            r->lo = int_requant(r->lo, op->u.requant.shift, op->u.requant.divisor, op->u.requant.lo,
                                op->u.requant.hi);
            r->hi = int_requant(r->hi, op->u.requant.shift, op->u.requant.divisor, op->u.requant.lo,
                                op->u.requant.hi);
            break;
        case IK_ADD:
            for (int k = 0; k < 2; k++) {
                in[k].lo *= (int64_t)1 << op->u.shift[k];
                in[k].hi *= (int64_t)1 << op->u.shift[k];
            }
            *r = (IntRange){in[0].lo + in[1].lo, in[0].hi + in[1].hi};
            break;
        case IK_SUM: {
            const IntOp *x = &net->op[op->in[0]];
            r->lo *= (int64_t)x->h * x->w;
            r->hi *= (int64_t)x->h * x->w;
            break;
        }
        case IK_MAXPOOL:
        case IK_NKINDS:
            break;
        }
    }
}

bool int_range_wraps(IntRange r)
{
    return r.lo < INT32_MIN || r.hi > INT32_MAX;
}

void intnet_bounds(const IntNet *net, int64_t *bound)
{
    IntRange *r = xcalloc((size_t)net->n, sizeof *r);
    intnet_ranges(net, r);
    for (int i = 0; i < net->n; i++) bound[i] = r[i].hi > -r[i].lo ? r[i].hi : -r[i].lo;
    free(r);
}

/* ---- the plain execution ---- */

int32_t int_requant(int64_t x, int shift, int32_t divisor, int32_t lo, int32_t hi)
{
    /* |x| 2^62 and divisor 2^62 fit 128 bits */
    ASSERT(shift >= -62 && shift <= 62 && divisor > 0, "shift %d, divisor %d", shift, divisor);
    const __int128 num = (__int128)x * ((int64_t)1 << (shift < 0 ? -shift : 0)),
                   den = (__int128)divisor * ((int64_t)1 << (shift > 0 ? shift : 0));
    __int128 q = num / den, rem = num % den;
    if (rem < 0) { /* now 0 <= rem < den */
        rem += den;
        q--;
    }
    if (2 * rem > den || (2 * rem == den && q % 2 != 0)) q++;
    return q < lo ? lo : q > hi ? hi : (int32_t)q;
}

static void ref_conv(const IntOp *op, const IntOp *xo, const int32_t *x, int32_t *y)
{
    const IntConv *a = &op->u.conv;
    const int icg = xo->c / a->groups, ocg = op->c / a->groups;
    for (int oy = 0; oy < op->h; oy++)
        for (int ox = 0; ox < op->w; ox++)
            for (int o = 0; o < op->c; o++) {
                uint32_t s = a->bias ? (uint32_t)a->bias[o] : 0;
                for (int ky = 0; ky < a->k; ky++)
                    for (int kx = 0; kx < a->k; kx++) {
                        const int iy = oy * a->stride - a->pad + ky * a->dilation,
                                  ix = ox * a->stride - a->pad + kx * a->dilation;
                        if (iy < 0 || ix < 0 || iy >= xo->h || ix >= xo->w) continue;
                        for (int i = 0; i < icg; i++)
                            s += (uint32_t)(x[(iy * xo->w + ix) * xo->c + o / ocg * icg + i] *
                                            a->w[((o * icg + i) * a->k + ky) * a->k + kx]);
                    }
                *y++ = (int32_t)s;
            }
}

/* Weights in C,H,W order, values in H,W,C order. */
static void ref_linear(const IntOp *op, const IntOp *xo, const int32_t *x, int32_t *y)
{
    const IntConv *a = &op->u.conv;
    const int map = xo->h * xo->w, taps = xo->c * map;
    for (int o = 0; o < op->c; o++) {
        uint32_t s = a->bias ? (uint32_t)a->bias[o] : 0;
        for (int i = 0; i < taps; i++)
            s += (uint32_t)(x[i % map * xo->c + i / map] * a->w[o * taps + i]);
        y[o] = (int32_t)s;
    }
}

static void ref_maxpool(const IntOp *op, const IntOp *xo, const int32_t *x, int32_t *y)
{
    const int k = op->u.pool.k, stride = op->u.pool.stride, pad = op->u.pool.pad;
    for (int oy = 0; oy < op->h; oy++)
        for (int ox = 0; ox < op->w; ox++)
            for (int c = 0; c < op->c; c++) {
                int32_t m = INT32_MIN;
                for (int iy = oy * stride - pad; iy < oy * stride - pad + k; iy++)
                    for (int ix = ox * stride - pad; ix < ox * stride - pad + k; ix++) {
                        int32_t v;
                        if (iy < 0 || ix < 0 || iy >= xo->h || ix >= xo->w) continue;
                        v = x[(iy * xo->w + ix) * xo->c + c];
                        m = v > m ? v : m;
                    }
                *y++ = m;
            }
}

static void ref_op(const IntNet *net, int i, const void *image, int32_t *const *val)
{
    const IntOp *op = &net->op[i], *xo = op->nin ? &net->op[op->in[0]] : NULL;
    const int32_t *a = op->nin ? val[op->in[0]] : NULL, *b = op->nin > 1 ? val[op->in[1]] : NULL;
    const int n = op->c * op->h * op->w;
    int32_t *y = val[i];
    switch (op->kind) {
    case IK_INPUT:
        for (int j = 0; j < n; j++)
            y[j] = op->type == DT_U8 ? ((const uint8_t *)image)[j] : ((const int8_t *)image)[j];
        break;
    case IK_CONV:
        ref_conv(op, xo, a, y);
        break;
    case IK_LINEAR:
        ref_linear(op, xo, a, y);
        break;
    case IK_RELU:
        for (int j = 0; j < n; j++) y[j] = a[j] > 0 ? a[j] : 0;
        break;
    case IK_REQUANT:
        for (int j = 0; j < n; j++)
            y[j] = int_requant(a[j], op->u.requant.shift, op->u.requant.divisor, op->u.requant.lo,
                               op->u.requant.hi);
        break;
    case IK_MAXPOOL:
        ref_maxpool(op, xo, a, y);
        break;
    case IK_ADD:
        for (int j = 0; j < n; j++)
            y[j] =
                (int32_t)(((uint32_t)a[j] << op->u.shift[0]) + ((uint32_t)b[j] << op->u.shift[1]));
        break;
    case IK_SUM:
        for (int c = 0; c < op->c; c++) {
            uint32_t s = 0;
            for (int j = 0; j < xo->h * xo->w; j++) s += (uint32_t)a[j * op->c + c];
            y[c] = (int32_t)s;
        }
        break;
    case IK_NKINDS:
        break;
    }
}

void intnet_reference(const IntNet *net, const void *image, int n, int32_t **value, int32_t *logits)
{
    Arena tmp = {0};
    int32_t **val = arena_alloc(&tmp, (size_t)net->n * sizeof *val);
    const IntOp *in = &net->op[0];
    const size_t pixels = (size_t)in->c * (size_t)in->h * (size_t)in->w,
                 classes = (size_t)net->op[net->out].c * (size_t)net->op[net->out].h *
                           (size_t)net->op[net->out].w;
    for (int i = 0; i < net->n; i++) {
        const IntOp *op = &net->op[i];
        if (!value || !value[i])
            val[i] =
                arena_alloc(&tmp, (size_t)op->c * (size_t)op->h * (size_t)op->w * sizeof **val);
    }
    for (int k = 0; k < n; k++) {
        for (int i = 0; i < net->n; i++) {
            const IntOp *op = &net->op[i];
            if (value && value[i])
                val[i] = value[i] + (size_t)k * (size_t)op->c * (size_t)op->h * (size_t)op->w;
            ref_op(net, i, (const char *)image + (size_t)k * pixels, val);
        }
        memcpy(logits + (size_t)k * classes, val[net->out], classes * sizeof *logits);
    }
    arena_free(&tmp);
}
