/* quant/f8int.c -- see f8int.h. Source: F8Net, models/fix_quant_ops.py (int_weight, int_bias, the
 * requantization by shifts) and the IntModel classes beside its nets.
 * Differs: the average pool divides exactly, in whole numbers; terms of a sum are brought to the
 * same units (both unless compat: original asks otherwise, see f8net.c). */
#include "quant/f8int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/f8net.h"

/* The integers of a unit's value: operation `op`, to be divided by `divisor` as well. */
typedef struct Number {
    int op;
    int32_t divisor;
} Number;

typedef struct Builder {
    const QPlan *qp;
    IntNet *net;
    bool converted;
    double unit;
    Number *of; /* per unit */
} Builder;

/* The name of a layer in the original's integer nets, whose bodies have the ReLUs as entries:
 * NAME.body.1.conv is NAME.body.2 there. The caller's arena. */
static const char *integer_name(Arena *a, const char *name)
{
    const size_t len = strlen(name), conv = str_ends(name, ".conv") ? strlen(".conv") : 0;
    char *own = arena_printf(a, "%.*s", (int)(len - conv), name), *dot = strrchr(own, '.');
    if (!conv || !dot || dot - own < 5 || strncmp(dot - 5, ".body", 5) != 0) return own;
    return arena_printf(a, "%.*s.%d", (int)(dot - own), own, 2 * atoi(dot + 1));
}

static const IntOp *op_of(const Builder *b, int unit)
{
    return &b->net->op[b->of[unit].op];
}

static int64_t top(Fixed f)
{
    return f.neg ? ((int64_t)1 << (f.bits - 1)) - 1 : ((int64_t)1 << f.bits) - 1;
}

/* The 8-bit input of a layer. */
static int build_input(Builder *b, int unit, const F8Layer *l, Err *e)
{
    const Unit *u = &b->qp->spec->u[unit];
    const Number x = b->of[u->in[0]];
    const IntOp *from = &b->net->op[x.op];
    const int fl = f8_input_fl(l), hi = (int)top(l->input);
    IntOp op = {.kind = IK_REQUANT,
                .name = "",
                .nin = 1,
                .in = {x.op},
                .c = from->c,
                .h = from->h,
                .w = from->w};
    op.type = l->input.neg ? DT_S8 : DT_U8;
    op.fl = fl;
    op.u.requant.shift = from->fl - fl;
    op.u.requant.divisor = x.divisor;
    op.u.requant.lo = l->input.neg ? -hi : 0;
    op.u.requant.hi = hi;
    if (from->kind == IK_INPUT) {
        if (from->type == op.type && from->fl == fl) return x.op;
        return err_set(e, ERR_CONFIG,
                       "%s: reads the image in another format than the first layer; integer "
                       "inference has one",
                       u->name);
    }
    for (int i = x.op + 1; i < b->net->n; i++) { /* another reader has made it */
        const IntOp *o = &b->net->op[i];
        if (o->kind == IK_REQUANT && o->in[0] == x.op && o->type == op.type && o->fl == fl &&
            o->u.requant.hi == hi)
            return i;
    }
    return intnet_add(b->net, &op);
}

static int build_conv(Builder *b, int unit, Err *e)
{
    const QPlan *qp = b->qp;
    const Unit *u = &qp->spec->u[unit];
    const ConvAttr *a = &u->u.conv;
    const QUnit *qu = &qp->u[unit];
    const int to = f8net_units(qp, unit), groups = a->groups ? a->groups : 1;
    const size_t ic = (size_t)(u->ic / groups), per = (size_t)a->k * (size_t)a->k;
    IntOp op = {.kind = IK_CONV,
                .name = integer_name(&b->net->arena, u->name),
                .nin = 1,
                .c = u->c,
                .h = u->h,
                .w = u->w,
                .type = DT_S32};
    const NormParams *np;
    NormStats st;
    F8Layer l, next;
    int8_t *w;
    int32_t *bias;
    int x;
    if (u->norm < 0 || qu->bias)
        return err_set(e, ERR_CONFIG, "%s: F8Net needs a batch norm right behind each convolution",
                       u->name);
    f8net_layer(qp, unit, b->converted, &l);
    if (to >= 0) f8net_layer(qp, to, b->converted, &next);
    x = build_input(b, unit, &l, e);
    if (x < 0) return -1;
    np = &qp->u[u->norm].norm[0];
    st = (NormStats){np->mean, np->var, np->count, qp->spec->u[u->norm].u.norm.eps, 0};
    w = arena_alloc(&b->net->arena, (size_t)u->c * ic * per);
    bias = arena_alloc(&b->net->arena, (size_t)u->c * sizeof *bias);
    f8_convert_conv(&l, to >= 0 ? &next : NULL,
                    &(F8Conv){(size_t)u->c, ic, per, (size_t)groups, qu->weight->value.data,
                              np->scale->value.data, np->shift->value.data, &st},
                    w, bias, &op.u.conv.weight_fl);
    op.in[0] = x;
    op.fl = b->net->op[x].fl + op.u.conv.weight_fl;
    op.u.conv = (IntConv){.k = a->k,
                          .stride = a->stride ? a->stride : 1,
                          .pad = a->pad,
                          .dilation = a->dilation ? a->dilation : 1,
                          .groups = groups,
                          .w = w,
                          .bias = bias,
                          .weight_fl = op.u.conv.weight_fl};
    b->of[unit] = b->of[u->norm] = (Number){intnet_add(b->net, &op), 1};
    return 0;
}

/* A linear layer that reads a map is a convolution as large as the map. */
static int build_linear(Builder *b, int unit, Err *e)
{
    const Unit *u = &b->qp->spec->u[unit];
    const QUnit *qu = &b->qp->u[unit];
    const size_t per = (size_t)u->ic * (size_t)u->ih * (size_t)u->iw;
    IntOp op = {.kind = IK_LINEAR,
                .name = integer_name(&b->net->arena, u->name),
                .nin = 1,
                .c = u->c,
                .h = 1,
                .w = 1,
                .type = DT_S32};
    const IntOp *from;
    F8Layer l;
    int8_t *w = arena_alloc(&b->net->arena, (size_t)u->c * per);
    int32_t *bias = arena_alloc(&b->net->arena, (size_t)u->c * sizeof *bias);
    int x, fl;
    f8net_layer(b->qp, unit, b->converted, &l);
    x = build_input(b, unit, &l, e);
    if (x < 0) return -1;
    from = &b->net->op[x];
    if (from->h != from->w)
        return err_set(e, ERR_CONFIG, "%s: integer inference reads square maps, this one is %dx%d",
                       u->name, from->h, from->w);
    if (!f8_convert_linear(&l, qu->weight->value.data, qu->bias ? qu->bias->value.data : NULL,
                           (size_t)u->c, per, w, bias, &fl, &b->unit))
        return err_set(e, ERR_CONFIG,
                       "%s: its rounded weights are all equal: rescale_forward divides by "
                       "their deviation",
                       u->name);
    op.kind = from->h > 1 ? IK_CONV : IK_LINEAR;
    op.in[0] = x;
    op.fl = from->fl + fl;
    op.u.conv = (IntConv){.k = from->h,
                          .stride = 1,
                          .dilation = 1,
                          .groups = 1,
                          .w = w,
                          .bias = bias,
                          .weight_fl = fl};
    b->unit = ldexp(b->unit, -op.fl);
    b->of[unit] = (Number){intnet_add(b->net, &op), 1};
    return 0;
}

/* The length a term of a sum has in the units of the sum. */
static int term_length(const Builder *b, int unit, int term, Err *e)
{
    const QPlan *qp = b->qp;
    const int from = f8net_units(qp, term), to = f8net_units(qp, unit), fl = op_of(b, term)->fl;
    F8Layer l, m;
    int shift;
    double ratio;
    if (qp->opts->f8.original || from < 0 || from == to) return fl;
    f8net_layer(qp, from, b->converted, &l);
    f8net_layer(qp, to, b->converted, &m);
    ratio = (double)f8net_rescaling(&l, &m);
    if (frexp(ratio, &shift) != 0.5)
        return err_set(e, ERR_CONFIG,
                       "sum before '%s': its terms differ by a factor of %g, which is no shift",
                       qp->spec->u[to].name, ratio);
    return fl - (shift - 1);
}

static int build_sum(Builder *b, int unit, Err *e)
{
    const Unit *u = &b->qp->spec->u[unit];
    IntOp op = {
        .kind = IK_ADD, .name = "", .nin = 2, .c = u->c, .h = u->h, .w = u->w, .type = DT_S32};
    int fl[2];
    Err none = {0};
    for (int i = 0; i < 2; i++) {
        if (b->of[u->in[i]].divisor != 1 || op_of(b, u->in[i])->type != DT_S32)
            return err_set(e, ERR_CONFIG, "integer inference cannot add the image, or means");
        fl[i] = term_length(b, unit, u->in[i], &none);
        if (none.msg[0]) {
            *e = none;
            return -1;
        }
        op.in[i] = b->of[u->in[i]].op;
    }
    op.fl = fl[0] > fl[1] ? fl[0] : fl[1];
    for (int i = 0; i < 2; i++) op.u.shift[i] = op.fl - fl[i];
    b->of[unit] = (Number){intnet_add(b->net, &op), 1};
    return 0;
}

static int build_pool(Builder *b, int unit, Err *e)
{
    const Unit *u = &b->qp->spec->u[unit];
    const PoolAttr *p = &u->u.pool;
    const int shift = f8net_pool_shift(&b->qp->opts->f8);
    IntOp op = {.name = "", .nin = 1, .c = u->c, .h = u->h, .w = u->w};
    int32_t divisor = b->of[u->in[0]].divisor;
    op.in[0] = b->of[u->in[0]].op;
    op.type = op_of(b, u->in[0])->type;
    op.fl = op_of(b, u->in[0])->fl;
    if (p->kind == POOL_MAX && !p->ceil_mode) {
        op.kind = IK_MAXPOOL;
        op.u.pool.k = p->k, op.u.pool.stride = p->stride, op.u.pool.pad = p->pad;
    } else if (p->kind == POOL_GLOBAL_AVG && divisor == 1) {
        op.kind = IK_SUM;
        op.type = DT_S32;
        op.fl += shift >= 0 ? shift : 0;
        divisor = shift >= 0 ? 1 : u->ih * u->iw;
    } else {
        return err_set(e, ERR_CONFIG,
                       "integer inference has max pools and one global average, not this pool");
    }
    b->of[unit] = (Number){intnet_add(b->net, &op), divisor};
    return 0;
}

static int build_act(Builder *b, int unit, Err *e)
{
    const Unit *u = &b->qp->spec->u[unit];
    const IntOp *from = op_of(b, u->in[0]);
    IntOp op = {.kind = IK_RELU,
                .name = "",
                .nin = 1,
                .in = {b->of[u->in[0]].op},
                .c = from->c,
                .h = from->h,
                .w = from->w,
                .type = DT_S32,
                .fl = from->fl};
    b->of[unit] = b->of[u->in[0]];
    if (u->u.act.kind == AK_NONE || (u->marks & UM_INNER && f8net_is(b->qp, u->reader))) return 0;
    if (u->u.act.kind != AK_RELU)
        return err_set(e, ERR_CONFIG, "%s: integer inference has no activation but ReLU", u->name);
    b->of[unit].op = intnet_add(b->net, &op);
    return 0;
}

static int build_image(Builder *b, int unit, Err *e)
{
    const Spec *s = b->qp->spec;
    const Unit *u = &s->u[unit];
    IntOp op = {.kind = IK_INPUT, .name = "input", .c = u->c, .h = u->h, .w = u->w};
    F8Layer l;
    int first = 0;
    while (first < s->n && !(f8net_is(b->qp, first) && s->u[first].in[0] == unit)) first++;
    if (first == s->n)
        return err_set(e, ERR_CONFIG, "integer inference needs a first layer that F8Net quantizes");
    f8net_layer(b->qp, first, b->converted, &l);
    op.type = l.input.neg ? DT_S8 : DT_U8;
    op.fl = f8_input_fl(&l);
    b->of[unit] = (Number){intnet_add(b->net, &op), 1};
    return 0;
}

static int build_unit(Builder *b, int unit, Err *e)
{
    const Unit *u = &b->qp->spec->u[unit];
    switch (u->kind) {
    case U_INPUT:
        return build_image(b, unit, e);
    case U_CONV:
    case U_LINEAR:
        if (!f8net_is(b->qp, unit))
            return err_set(e, ERR_CONFIG,
                           "%s: not quantized by F8Net; integer inference needs every layer so",
                           u->name);
        return u->kind == U_CONV ? build_conv(b, unit, e) : build_linear(b, unit, e);
    case U_NORM:
        if (b->of[unit].op >= 0) return 0;
        return err_set(e, ERR_CONFIG,
                       "%s: a norm that is not behind a convolution has no integer form", u->name);
    case U_ACT:
        return build_act(b, unit, e);
    case U_POOL:
        return build_pool(b, unit, e);
    case U_ADD:
        return build_sum(b, unit, e);
    case U_FLATTEN:
    case U_DROPOUT:
        b->of[unit] = b->of[u->in[0]];
        return 0;
    default:
        return err_set(e, ERR_CONFIG, "%s: integer inference has no %s", u->name,
                       unit_kind_name(u->kind));
    }
}

/* ---- parameters that whole numbers can be made of ---- */

static int check_values(const Param *p, bool divides, Err *e)
{
    const float *v = p ? p->value.data : NULL;
    for (size_t i = 0; p && i < tensor_len(&p->value); i++) {
        if (isfinite(v[i]) && (!divides || v[i] != 0)) continue;
        return err_set(e, ERR_RUN, "%s: a value of %g; integer inference needs finite numbers%s", p->name,
                       (double)v[i], divides ? " other than 0" : "");
    }
    return 0;
}

static int check_unit(const QPlan *qp, int unit, Err *e)
{
    const QUnit *qu = &qp->u[unit];
    const int behind = qp->spec->u[unit].norm;
    const NormParams *np = behind >= 0 ? qp->u[behind].norm : &(NormParams){0};
    const Param *const plain[] = {qu->weight, qu->bias, np->scale, np->shift, np->mean, np->var};
    F8Layer l;
    if (!f8net_is(qp, unit)) return 0;
    f8net_layer(qp, unit, false, &l);
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (check_values(plain[i], false, e)) return -1;
    for (size_t i = 0; np->var && i < tensor_len(&np->var->value); i++)
        if (((const float *)np->var->value.data)[i] < 0)
            return err_set(e, ERR_RUN, "%s: a variance below 0", np->var->name);
    return check_values(l.alpha, true, e) || check_values(l.fraclen, false, e) ? -1 : 0;
}

int f8int_build(const QPlan *qp, bool converted, IntNet *net, double *unit, Err *e)
{
    const Spec *s = qp->spec;
    const F8Opts *o = &qp->opts->f8;
    Builder b = {.qp = qp, .net = net, .converted = converted};
    int r = 0;
    *net = (IntNet){0};
    if (o->floating_model || str_eq(o->format_type, "per_channel") || qp->opts->wt_bit > 8 ||
        qp->opts->fm_bit > 8)
        return err_set(
            e, ERR_CONFIG,
            "integer inference needs rounded numbers of at most 8 bits, one length per layer");
    for (int i = 0; i < s->n; i++)
        if (check_unit(qp, i, e)) return -1;
    b.of = xcalloc((size_t)s->n, sizeof *b.of);
    for (int i = 0; i < s->n; i++) b.of[i].op = -1;
    for (int i = 0; i < s->n && r == 0; i++) r = build_unit(&b, i, e);
    if (r == 0 && op_of(&b, s->out)->kind != IK_LINEAR && op_of(&b, s->out)->kind != IK_CONV)
        r = err_set(e, ERR_CONFIG, "integer inference needs a net that ends with a linear layer");
    if (r == 0) net->out = b.of[s->out].op;
    *unit = b.unit;
    free(b.of);
    return r;
}

void f8int_image(const IntNet *net, const float *x, size_t n, void *to)
{
    const IntOp *in = &net->op[0];
    const Fixed f = {.bits = 8, .neg = in->type == DT_S8};
    const float hi = fixed_top(f), lo = f.neg ? -hi : 0;
    for (size_t i = 0; i < n; i++) {
        const float k = rintf(ldexpf(x[i], in->fl)), v = k < lo ? lo : k > hi ? hi : k;
        if (f.neg)
            ((int8_t *)to)[i] = (int8_t)v;
        else
            ((uint8_t *)to)[i] = (uint8_t)v;
    }
}
