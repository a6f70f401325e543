/* quant/keyword_form.c -- activations and outputs of the keyword language in float operations
 * (quant/form.h): what every method has around its own steps. See keyword.h. */
#include "quant/form.h"
#include "quant/keyword.h"

/* z = prox x + (1 - prox) y, as keyword_blend.c has it. */
static void blend(QuantForm *f, float prox)
{
    const int y = form_step(f, FORM_MUL, 1 - prox), x = form_of(f, FORM_MUL, 0, -1);
    f->step[x - 1].v = prox;
    form_of(f, FORM_ADD, x, y);
}

int kw_form(QInst *q, QuantForm *f, Err *e)
{
    const Keyword *k = q->priv;
    kw_begin(q, &(QCtx){.phase = PH_EVAL});
    if (k->passes) return 0;
    if (k->steps(q, f, e)) return -1;
    if (q->fault) return err_set(e, ERR_RUN, "%s", q->fault);
    if (k->gamma) form_by_group(f, FORM_MUL, k->groups, k->gamma->value.data);
    if (q->opts->kw.proxquant && k->prox > 0) blend(f, k->prox);
    return 0;
}

void kw_clip_form(QuantForm *f, float top, float steps)
{
    form_step(f, FORM_MAX, 0);
    form_step(f, FORM_MIN, top);
    form_step(f, FORM_MUL, steps);
    form_step(f, FORM_ROUND, 0);
    form_step(f, FORM_DIV, steps);
}
