/* quant/form.c -- see form.h. */
#include "quant/form.h"

#include <stdlib.h>

#include "quant/qplan.h"

void form_step(QuantForm *f, FormOp op, float v)
{
    ASSERT(f->n < FORM_MAX_STEPS, "more than %d steps", FORM_MAX_STEPS);
    f->step[f->n++] = (FormStep){op, v};
}

/* The quantizer of a value; none: no steps. */
static int value_form(const QPlan *qp, int unit, QRole role, int variant, QuantForm *f, Err *e)
{
    QInst *q = qplan_get(qp, unit, role, variant);
    *f = (QuantForm){0};
    if (!q) return 0;
    if (!q->fn->form)
        return err_set(e, ERR_CONFIG,
                       "%s: its %s is quantized (%s, %d bits), which has no form in float "
                       "operations",
                       qp->spec->u[unit].name, role == Q_ACT ? "input" : "output", q->method->name,
                       q->bits);
    return q->fn->form(q, f, e);
}

/* The weights as the quantizer gives them in an evaluation; the parameter's own where there is
 * none. */
static int weights(const QPlan *qp, int unit, int variant, LayerForm *f, Err *e)
{
    QInst *q = qplan_get(qp, unit, Q_WEIGHT, variant);
    const QUnit *qu = &qp->u[unit];
    const Tensor *t = &qu->weight->value;
    QCtx c = {.phase = PH_EVAL};
    size_t save, scratch;
    Tensor y = *t;
    f->w = t->data;
    f->b = qu->bias ? qu->bias->value.data : NULL;
    f->quantized = q != NULL;
    if (!q) return 0;
    qinst_need(q, t, PH_EVAL, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    y.data = arena_alloc(f->arena, tensor_bytes(t));
    qinst_forward(q, t, &y, &c);
    free(c.save);
    free(c.scratch);
    f->w = y.data;
    return q->fault ? err_set(e, ERR_RUN, "%s", q->fault) : 0;
}

int layer_form_default(const QPlan *qp, int unit, int variant, LayerForm *f, Err *e)
{
    Arena *arena = f->arena;
    *f = (LayerForm){.arena = arena};
    if (value_form(qp, unit, Q_ACT, variant, &f->in, e) ||
        value_form(qp, unit, Q_OUT, variant, &f->out, e))
        return -1;
    return arena ? weights(qp, unit, variant, f, e) : 0;
}

int layer_form(const QPlan *qp, int unit, int variant, LayerForm *f, Err *e)
{
    const QMethod *m = qp->u[unit].method;
    if (!m) return layer_form_default(qp, unit, variant, f, e);
    if (!m->form)
        return err_set(e, ERR_CONFIG,
                       "%s: method '%s' has layers of its own kind, without a form "
                       "in float operations",
                       qp->spec->u[unit].name, m->name);
    return m->form(qp, unit, variant, f, e);
}

int unit_form(const QPlan *qp, int unit, UnitForm *f, Err *e)
{
    const QMethod *m = qp->act_method;
    *f = (UnitForm){.factor = 1};
    if (!m || !m->lower_other) return 0;
    if (!m->form_other)
        return err_set(e, ERR_CONFIG,
                       "%s: method '%s' has units of its own kind, without a form in "
                       "float operations",
                       qp->spec->u[unit].name, m->name);
    m->form_other(qp, unit, f);
    return 0;
}
