/* run/export_requant.c -- s32 -> 8 bits: clamp(round(x / D), lo, hi), half to even, D = d 2^n, in
 * standard operators, exactly. Four ways, the first that is proven:
 *
 *   QuantizeLinear   d = 1 and |x| < 2^24: the quotient by a power of two is exact, and it rounds
 * half to even and saturates. the same behind Cast   d = 1, n <= 16, any s32: where the cast
 * rounds, |x| >= 2^24, so that |x / D| >= 256, beyond every limit; a rounded quotient is never
 * brought back below it. Div, Round       |x| < 2^24 and D < 2^16: x / D lies on a tie or at least
 * 1 / (2 D) > 2^-17 from it, and a float below 256 is nearer to the true quotient than that. whole
 * numbers    r = x mod D, q = (x - r) / D, plus 1 where 2 r + (q mod 2) > D. In s32 where nothing
 *                    can leave it, else in s64. */
#include "run/export_int.h"

#include <math.h>

enum { TIE_SAFE = 1 << 16, CAST_SHIFT = 16 };

static const char *by_quantize(IntExport *x, int op, const char *value, const char *name)
{
    const IntOp *r = &x->net->op[op];
    return onnx_node(
        x->m, "QuantizeLinear", name,
        ONNX_IN(value, onnx_scalar(x->m, DT_F32, ldexp(1, r->u.requant.shift)), int_zero(x, op)));
}

static const char *to_type(IntExport *x, const char *value, const char *name, const char *part,
                           DType type)
{
    value = int_part(x, "Cast", name, part, ONNX_IN(value));
    onnx_attr_int(x->m, "to", onnx_type(type));
    return value;
}

/* Clipped numbers of type `t` to their 8 bits. */
static const char *to_byte(IntExport *x, int op, const char *value, const char *name, DType t)
{
    const IntValue *v = &x->v[op];
    if (v->zero)
        value =
            int_part(x, "Add", name, "zero", ONNX_IN(value, onnx_scalar(x->m, t, (double)v->zero)));
    value = onnx_node(x->m, "Cast", name, ONNX_IN(value));
    onnx_attr_int(x->m, "to", onnx_type(v->type));
    return value;
}

static const char *by_division(IntExport *x, int op, const char *value, const char *name)
{
    const IntOp *r = &x->net->op[op];
    const double d = ldexp((double)r->u.requant.divisor, r->u.requant.shift);
    value = int_part(x, "Div", name, "div", ONNX_IN(value, onnx_scalar(x->m, DT_F32, d)));
    value = int_part(x, "Round", name, "round", ONNX_IN(value));
    value = int_part(x, "Clip", name, "clip",
                     ONNX_IN(value, onnx_scalar(x->m, DT_F32, (double)r->u.requant.lo),
                             onnx_scalar(x->m, DT_F32, (double)r->u.requant.hi)));
    return to_byte(x, op, value, name, DT_F32);
}

/* Beyond these, a shift gives what it gives there: x / 2^60 rounds to 0, and x 2^40 / d is beyond
 * every limit for x other than 0, as d is below 2^31. */
enum { MOST_DOWN = 60, MOST_UP = 40, CLIP_UP = 20 };

static const char *by_integers(IntExport *x, int op, const char *value, const char *name)
{
    const IntOp *r = &x->net->op[op];
    const int n = r->u.requant.shift, up = n < -MOST_UP ? MOST_UP : -n;
    const double d = fmin(ldexp((double)r->u.requant.divisor, n > 0 ? n : 0), ldexp(1, MOST_DOWN)),
                 limit = ldexp(1, CLIP_UP);
    const bool narrow = n >= 0 && d <= 0x1p30 && (double)x->v[r->in[0]].most + d < 0x1p31;
    const DType t = narrow ? DT_S32 : DT_S64;
    const char *div, *rem, *q, *one;
    if (!narrow) value = to_type(x, value, name, "s64", DT_S64);
    if (up >= CLIP_UP) /* keeps the product in 64 bits; 2^20 2^20 / d is beyond every limit */
        value = int_part(x, "Clip", name, "limit",
                         ONNX_IN(value, onnx_scalar(x->m, t, -limit), onnx_scalar(x->m, t, limit)));
    if (up > 0)
        value = int_part(x, "Mul", name, "up", ONNX_IN(value, onnx_scalar(x->m, t, ldexp(1, up))));
    div = onnx_scalar(x->m, t, d);
    rem = int_part(x, "Mod", name, "rem", ONNX_IN(value, div)); /* 0 .. D - 1 */
    q = int_part(x, "Sub", name, "whole", ONNX_IN(value, rem));
    q = int_part(x, "Div", name, "div", ONNX_IN(q, div));
    one = int_part(x, "Mod", name, "odd", ONNX_IN(q, onnx_scalar(x->m, t, 2)));
    one = int_part(x, "Add", name, "rem_odd", ONNX_IN(one, rem));
    one = int_part(x, "Add", name, "rem_rem_odd", ONNX_IN(one, rem));
    one = int_part(x, "Greater", name, "above", ONNX_IN(one, div));
    one = to_type(x, one, name, "one", t);
    q = int_part(x, "Add", name, "rounded", ONNX_IN(q, one));
    q = int_part(x, "Clip", name, "clip",
                 ONNX_IN(q, onnx_scalar(x->m, t, (double)r->u.requant.lo),
                         onnx_scalar(x->m, t, (double)r->u.requant.hi)));
    return to_byte(x, op, q, name, t);
}

int export_requant(IntExport *x, int op)
{
    const IntOp *r = &x->net->op[op];
    const int in = r->in[0], n = r->u.requant.shift, d = r->u.requant.divisor;
    const IntRep rep = int_wide(x, in);
    const char *name = INT_OP_NAME(x, op), *y;
    bool clip = true;
    if (rep == REP_FLOAT && d == 1) {
        y = by_quantize(x, op, int_value(x, in, REP_FLOAT), name);
    } else if (rep == REP_FLOAT && ldexp(d, n > 0 ? n : 0) < TIE_SAFE) {
        y = by_division(x, op, int_value(x, in, REP_FLOAT), name);
        clip = false;
    } else if (!x->o->integers_only && d == 1 && n <= CAST_SHIFT) {
        y = to_type(x, int_value(x, in, REP_INT), name, "f32", DT_F32);
        y = by_quantize(x, op, y, name);
    } else {
        y = by_integers(x, op, int_value(x, in, REP_INT), name);
        clip = false;
    }
    if (clip) y = int_clip_byte(x, op, y, name, r->u.requant.lo, r->u.requant.hi);
    x->v[op].rep[REP_BYTE] = y;
    return 0;
}
