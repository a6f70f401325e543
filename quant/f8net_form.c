/* quant/f8net_form.c -- F8Net's float nets (floating_model) in plain float numbers: norms and clip
 * levels folded into the weights as an evaluation has them, inputs clipped. Nets of fixed-point
 * numbers have no such form: whole numbers say them exactly (f8int.h). */
#include <math.h>

#include "quant/f8net.h"

/* The clip of a layer's input; a layer that reads what an earlier one has clipped takes that. */
static void input_form(const QPlan *qp, int unit, const F8Layer *l, QuantForm *f)
{
    const Unit *u = &qp->spec->u[unit];
    const int units = f8net_units(qp, u->in[0]);
    F8Layer other = *l;
    float low, high;
    if (units >= 0 && !qp->opts->f8.original && qp->spec->u[units].in[0] == u->in[0])
        f8net_layer(qp, units, false, &other);
    f8_input_ends(&other, &low, &high);
    if (low > -INFINITY) form_step(f, FORM_MAX, low);
    if (high < INFINITY) form_step(f, FORM_MIN, high);
}

static int linear_form(const QPlan *qp, int unit, const F8Layer *l, LayerForm *f, Err *e)
{
    const Unit *u = &qp->spec->u[unit];
    const QUnit *qu = &qp->u[unit];
    const Tensor *t = &qu->weight->value;
    const float *b = qu->bias ? qu->bias->value.data : NULL;
    float *w = arena_alloc(f->arena, tensor_bytes(t)),
          *bf = b ? arena_alloc(f->arena, (size_t)u->c * sizeof *bf) : NULL;
    const char *fault = f8_eval_linear(l, qp->opts->f8.original ? F8_DIVIDED : F8_EVAL, t->data, b,
                                       (size_t)t->dim[0], (size_t)t->dim[1], w, bf);
    f->w = w;
    f->b = bf;
    return fault ? err_set(e, ERR_RUN, "%s: %s", u->name, fault) : 0;
}

static int conv_form(const QPlan *qp, int unit, const F8Layer *l, LayerForm *f, Err *e)
{
    const Unit *u = &qp->spec->u[unit];
    const QUnit *qu = &qp->u[unit];
    const Tensor *t = &qu->weight->value;
    const NormParams *np = &qp->u[u->norm].norm[0];
    const NormStats st = {np->mean, np->var, np->count, qp->spec->u[u->norm].u.norm.eps, 0};
    const int to = f8net_units(qp, unit), groups = u->u.conv.groups ? u->u.conv.groups : 1;
    float *w = arena_alloc(f->arena, tensor_bytes(t)),
          *b = arena_alloc(f->arena, (size_t)u->c * sizeof *b);
    const F8Conv c = {.oc = (size_t)t->dim[0],
                      .ic = (size_t)t->dim[1],
                      .per = (size_t)t->dim[2] * (size_t)t->dim[3],
                      .groups = (size_t)groups,
                      .w = t->data,
                      .gamma = np->scale->value.data,
                      .beta = np->shift->value.data,
                      .st = &st};
    F8Layer next;
    const char *fault;
    if (to >= 0) f8net_layer(qp, to, false, &next);
    fault = f8_eval_conv(l, to >= 0 ? &next : NULL, &c, w, b);
    f->w = w;
    f->b = b;
    f->norm = true;
    return fault ? err_set(e, ERR_RUN, "%s: %s", u->name, fault) : 0;
}

int f8net_form(const QPlan *qp, int unit, int variant, LayerForm *f, Err *e)
{
    const Unit *u = &qp->spec->u[unit];
    F8Layer l;
    (void)variant;
    *f = (LayerForm){.arena = f->arena, .values_only = f->values_only};
    if (!qp->opts->f8.floating_model)
        return err_set(
            e, ERR_CONFIG,
            "%s: fixed-point numbers are not written as float; expected a stage of whole "
            "numbers (integize, int_op_only) or floating_model",
            u->name);
    if (u->kind == U_CONV && (u->norm < 0 || qp->u[unit].bias || !qp->u[u->norm].norm[0].scale))
        return err_set(
            e, ERR_CONFIG,
            "%s: F8Net needs a batch norm right behind each convolution, and none of its "
            "own bias",
            u->name);
    f8net_layer(qp, unit, false, &l);
    input_form(qp, unit, &l, &f->in);
    if (f->values_only) return 0;
    return u->kind == U_LINEAR ? linear_form(qp, unit, &l, f, e) : conv_form(qp, unit, &l, f, e);
}

/* What lower_other of f8net.c makes of them: terms of a float net's sums are always in the same
 * units. */
void f8net_form_other(const QPlan *qp, int unit, UnitForm *f)
{
    const Unit *u = &qp->spec->u[unit];
    const int shift = f8net_pool_shift(&qp->opts->f8);
    if (u->kind == U_ACT)
        f->same = u->marks & UM_INNER && u->u.act.kind == AK_RELU && f8net_is(qp, u->reader);
    if (u->kind == U_POOL && shift >= 0 && u->u.pool.kind == POOL_GLOBAL_AVG)
        f->factor = ldexpf((float)u->ih * (float)u->iw, -shift);
}
