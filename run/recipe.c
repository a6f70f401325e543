/* run/recipe.c -- see recipe.h. */
#include "run/recipe.h"

#include "quant/keyword.h"
#include "quant/qplan.h"

int recipe_try(Config *cfg, Err *e)
{
    Session s = {0};
    int r;
    if (!cfg->run.policy.n) return 0;
    r = session_open(&s, cfg, e) || session_rules(&s, run_epochs(&cfg->run) - 1, e) ? -1 : 0;
    session_free(&s);
    cfg->run.policy.told = true;
    return r;
}

static void set_stable(QInst *q, void *arg)
{
    Err none = {0};
    if (q->fn->set && q->bits < 32) q->fn->set(q, "stable", *(const double *)arg, &none);
}

void recipe_begin(Session *s, int64_t batches)
{
    const Config *c = s->cfg;
    double steps = (double)c->run.stable_epoch * (double)batches;
    if (steps > 0 && !c->quant.kw.stable) qplan_each(model_qplan(s->model), set_stable, &steps);
}

static void set_alpha(QInst *q, void *arg)
{
    Err none = {0};
    if (q->role == Q_ACT && str_eq(q->method->name, "hysteresis") && q->fn->set)
        q->fn->set(q, "alpha", *(const double *)arg, &none);
}

/* use_alpha_decay: the steepness of this epoch. */
static void set_steepness(Session *s, int64_t epoch)
{
    const QOpts *q = &s->cfg->quant;
    double alpha = q->start_alpha + (double)epoch * (q->end_alpha - q->start_alpha) /
                                        (double)run_epochs(&s->cfg->run);
    if (q->use_alpha_decay) qplan_each(model_qplan(s->model), set_alpha, &alpha);
}

static void set_prox(QInst *q, void *arg)
{
    Err none = {0};
    if (q->fn == &kw_blended) kw_set(q, "prox", *(const double *)arg, &none);
}

/* proxquant: the share of float tensors in this epoch. */
static void set_blend(Session *s, int64_t epoch)
{
    double share = config_proxquant_share(s->cfg, epoch);
    if (s->cfg->quant.kw.proxquant) qplan_each(model_qplan(s->model), set_prox, &share);
}

int recipe_epoch(Session *s, int64_t epoch, Err *e)
{
    set_steepness(s, epoch);
    if (session_rules(s, epoch, e)) return -1;
    set_blend(s, epoch);
    return 0;
}
