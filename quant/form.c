/* quant/form.c -- see form.h. */
#include "quant/form.h"

#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "quant/qplan.h"

/* ---- steps ---- */

static int add(QuantForm *f, FormStep s)
{
    ASSERT(f->n < FORM_MAX_STEPS, "more than %d steps", FORM_MAX_STEPS);
    f->step[f->n++] = s;
    return f->n;
}

int form_step(QuantForm *f, FormOp op, float v)
{
    return add(f, (FormStep){.op = op, .left = f->n, .right = -1, .v = v});
}

/* Rows [n][groups] as [n][channels]. */
static const float *spread(const QuantForm *f, int n, int groups, const float *v)
{
    const int c = groups == 1 ? 1 : f->c;
    float *to = arena_alloc(f->arena, (size_t)n * (size_t)c * sizeof *to);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < c; k++)
            to[(size_t)i * (size_t)c + (size_t)k] = v[i * groups + (int)((int64_t)k * groups / c)];
    return to;
}

int form_by_group(QuantForm *f, FormOp op, int groups, const float *v)
{
    const int at = form_step(f, op, v[0]);
    if (groups > 1) f->step[at - 1].by_channel = spread(f, 1, groups, v);
    return at;
}

int form_levels(QuantForm *f, int n, bool above, int groups, const float *threshold,
                const float *value)
{
    ASSERT(!f->nlevels && n <= FORM_MAX_LEVELS, "%d levels behind %d", n, f->nlevels);
    f->nlevels = n;
    f->above = above;
    f->tables = groups == 1 ? 1 : f->c;
    f->threshold = spread(f, n, groups, threshold);
    f->value = spread(f, n, groups, value);
    return form_step(f, FORM_LEVELS, 0);
}

int form_of(QuantForm *f, FormOp op, int left, int right)
{
    return add(f, (FormStep){.op = op, .left = left, .right = right});
}

int form_mean(QuantForm *f, FormPart part, int left)
{
    return add(f, (FormStep){.op = FORM_MEAN, .left = left, .right = -1, .part = part});
}

/* Whole numbers in the order of the floats they stand for. */
static float float_at(int64_t rank)
{
    const uint32_t bits = rank >= 0 ? (uint32_t)rank : (uint32_t)-rank | 0x80000000u;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float form_smallest(bool (*reached)(const void *arg, float x), const void *arg)
{
    int64_t high = 0x7f7fffff, low = -high; /* FLT_MAX */
    while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        if (reached(arg, float_at(mid)))
            high = mid;
        else
            low = mid + 1;
    }
    return float_at(high);
}

/* ---- layers ---- */

/* The quantizer of a value; none: no steps. */
static int value_form(const QPlan *qp, int unit, QRole role, int variant, LayerForm *l, Err *e)
{
    QInst *q = qplan_get(qp, unit, role, variant);
    QuantForm *f = role == Q_ACT ? &l->in : &l->out;
    const Unit *u = &qp->spec->u[unit];
    const int c = role == Q_ACT ? u->ic : u->c,
              pad = role == Q_ACT && l->pad_first ? u->u.conv.pad : 0;
    *f = (QuantForm){.arena = l->arena, .c = c};
    f->image = (size_t)c * (size_t)((role == Q_ACT ? u->ih : u->h) + 2 * pad) *
               (size_t)((role == Q_ACT ? u->iw : u->w) + 2 * pad);
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
    const QInst *q = qplan_get(qp, unit, Q_ACT, variant);
    *f = (LayerForm){.arena = f->arena, .values_only = f->values_only};
    f->pad_first = q && qplan_pads_first(qp, unit, q);
    if (value_form(qp, unit, Q_ACT, variant, f, e) || value_form(qp, unit, Q_OUT, variant, f, e))
        return -1;
    return f->values_only ? 0 : weights(qp, unit, variant, f, e);
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
