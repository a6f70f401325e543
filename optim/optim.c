/* optim/optim.c -- the table of rules, checking options, and the step over all parameters. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "optim/rule.h"

const OptimRule optim_rules[] = {
    {"sgd", "stochastic gradient descent with momentum", 1, 0, sgd_step},
    {"SGD", "same as sgd", 1, 0, sgd_step},
    {"adam", "Adam, decay inside the gradient", 2, 0, adam_step},
    {"ADAM", "same as adam", 2, 0, adam_step},
    {"rmsprop", "RMSprop with momentum", 2, 1, rmsprop_step},
    {NULL, NULL, 0, 0, NULL},
};

const OptimRule *optim_find(const char *name)
{
    for (const OptimRule *r = optim_rules; r->name; r++)
        if (str_eq(r->name, name)) return r;
    return NULL;
}

RuleArgs rule_args(const Param *p, double lr, double wd, int64_t t)
{
    RuleArgs r = {
        .p = p->value.data, .g = p->grad.data, .lr = (float)lr, .wd = (float)wd, .first = t == 0};
    ASSERT(r.g, "%s has no gradient", p->name);
    r.decay = r.p;
    if (p->step_on) {
        ASSERT(tensor_len(p->step_on) == tensor_len(&p->value),
               "%s: its latent copy has another shape", p->name);
        r.p = p->step_on->data;
    }
    if (p->decay_from) {
        ASSERT(tensor_len(p->decay_from) == tensor_len(&p->value),
               "%s: decays towards another shape", p->name);
        r.decay = p->decay_from->data;
    }
    for (int i = 0; i < p->nslots; i++) r.s[i] = p->slot[i].data;
    return r;
}

void rule_run(const Param *p, const RuleArgs *r, RuleChunk f)
{
    size_t n = tensor_len(&p->value);
    if (n <= PAR_CHUNK) {
        f(r, 0, n);
        return;
    }
    PARALLEL_FOR(i, par_chunks(n))
    {
        size_t lo = (size_t)i * PAR_CHUNK;
        f(r, lo, lo + par_chunk_len(n, (size_t)i));
    }
}

/* "KEY: unknown X 'NAME'; did you mean ...". `rows` are structs that begin with their name. */
static void unknown(Err *e, const char *key, const char *name, const void *rows, size_t size)
{
    const char *list[64], *near;
    size_t n = 0;
    for (const char *row = rows; n < ARRAY_LEN(list); row += size, n++) {
        memcpy(&list[n], row, sizeof list[n]);
        if (!list[n]) break;
    }
    near = str_nearest(name ? name : "", list, n);
    err_add(e, ERR_CONFIG, "%s: unknown '%s'; %s%s%s", key, name ? name : "",
            near ? "did you mean '" : "expected one like '", near ? near : list[0],
            near ? "'?" : "'");
}

static void check_schedule(const OptimOpts *o, const Schedule *s, Err *e)
{
    if ((s->needs & SN_MILESTONES) && !o->nmilestones)
        err_add(e, ERR_CONFIG, "lr_scheduler: '%s' needs multistep_lr_milestones", s->name);
    if ((s->needs & SN_LR_LIST) && !o->nlr_list)
        err_add(e, ERR_CONFIG, "lr_scheduler: '%s' needs lr_list", s->name);
    if ((s->needs & SN_STEP_SIZE) && o->step_size < 1)
        err_add(e, ERR_CONFIG, "lr_scheduler: '%s' needs a lr_step_size of 1 or more", s->name);
    if ((s->needs & SN_POWER) && !(o->power > 0))
        err_add(e, ERR_CONFIG, "lr_scheduler: '%s' needs a poly_power above 0", s->name);
}

int optim_check(const OptimOpts *o, Err *e)
{
    const Schedule *s = schedule_find(o->lr_scheduler);
    Err sum = {0};
    if (!optim_find(o->optimizer))
        unknown(&sum, "optimizer", o->optimizer, optim_rules, sizeof *optim_rules);
    if (s)
        check_schedule(o, s, &sum);
    else
        unknown(&sum, "lr_scheduler", o->lr_scheduler, schedules, sizeof *schedules);
    if (!decay_scheme_find(o->weight_decay_scheme))
        unknown(&sum, "weight_decay_scheme", o->weight_decay_scheme, decay_schemes,
                sizeof *decay_schemes);
    if (!(o->lr >= 0) || isinf(o->lr))
        err_add(&sum, ERR_CONFIG, "lr: %g; expected 0 or more", o->lr);
    if (!(o->momentum >= 0 && o->momentum < 1))
        err_add(&sum, ERR_CONFIG, "momentum: %g is outside [0, 1)", o->momentum);
    if (!(o->weight_decay >= 0))
        err_add(&sum, ERR_CONFIG, "weight_decay: %g; expected 0 or more", o->weight_decay);
    if (o->nesterov && (o->momentum <= 0 || o->dampening != 0))
        err_add(&sum, ERR_CONFIG, "nesterov: needs momentum above 0 and dampening 0");
    if (o->num_epochs < 0) err_add(&sum, ERR_CONFIG, "num_epochs: %d", o->num_epochs);
    for (int i = 0; i < o->nmilestones; i++)
        if (o->milestones[i] <= (i ? o->milestones[i - 1] : 0)) {
            err_add(&sum, ERR_CONFIG,
                    "multistep_lr_milestones: %d does not ascend; expected epochs above 0",
                    o->milestones[i]);
            break;
        }
    if (!(o->warmup_epochs >= 0))
        err_add(&sum, ERR_CONFIG, "warmup_epochs: %g; expected 0 or more", o->warmup_epochs);
    if (!(o->lr_min >= 0 && (o->lr_min <= o->lr || o->lr_min == 0)))
        err_add(&sum, ERR_CONFIG, "lr_min: %g is outside 0 .. lr %g", o->lr_min, o->lr);
    return sum.kind == ERR_NONE ? 0 : err_add(e, sum.kind, "%s", sum.msg);
}

/* The first rule whose text stands in the name, or -1. */
static int find_group(const OptimOpts *o, const char *name)
{
    for (int g = 0; g < o->ngroups; g++)
        if (strstr(name, o->group[g].match)) return g;
    return -1;
}

/* Entries of a list that no parameter's name contains. quant_weight also means weights that a
 * quantizer reads. */
static void tell_unnamed(const char *key, const char *const *list, int n, const ParamStore *ps,
                         LogLevel level)
{
    for (int k = 0; k < n; k++) {
        bool named = str_eq(list[k], "quant_weight");
        for (int i = 0; i < ps->n && !named; i++)
            named = ps->p[i]->kind != PK_BUFFER && strstr(ps->p[i]->name, list[k]);
        if (!named)
            log_msg(level, "%s: no parameter name contains '%s': it has no effect", key, list[k]);
    }
}

int optim_init(Optim *op, const OptimOpts *o, ParamStore *ps, Err *e)
{
    bool used[OPTIM_MAX_GROUPS] = {false}, quantized = false;
    LogLevel level;
    *op = (Optim){0};
    if (optim_check(o, e)) return -1;
    op->opts = o;
    op->rule = optim_find(o->optimizer);
    op->schedule = schedule_find(o->lr_scheduler);
    op->scheme = decay_scheme_find(o->weight_decay_scheme);
    op->nparams = ps->n;
    op->group = xcalloc((size_t)ps->n + 1, sizeof *op->group);
    op->custom = xcalloc((size_t)ps->n + 1, sizeof *op->custom);
    op->awake = 1;
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        op->group[i] = -1;
        quantized |= p->kind == PK_CLIP;
        if (p->kind == PK_BUFFER) continue;
        op->group[i] = find_group(o, p->name);
        op->custom[i] = custom_bits(o, p);
        if (op->group[i] >= 0) used[op->group[i]] = true;
        p->nslots = op->rule->nslots;
        p->momentum = op->rule->momentum;
        for (int k = 0; k < p->nslots; k++) {
            p->slot[k] = tensor_make(DT_F32, p->value.ndim, p->value.dim, NULL);
            p->slot[k].data = arena_alloc(&ps->arena, tensor_bytes(&p->slot[k]));
        }
    }
    level = quantized ? LOG_WARN : LOG_DEBUG; /* a float net shares its recipe with others */
    tell_unnamed("custom_decay_list", o->custom_decay_list, o->ncustom_decay, ps, level);
    tell_unnamed("custom_lr_list", o->custom_lr_list, o->ncustom_lr, ps, level);
    for (int g = 0; g < o->ngroups; g++)
        if (!used[g])
            log_msg(level, "no parameter name contains '%s': its rate and decay are not used",
                    o->group[g].match);
    if (o->warmup_epochs > 0 && !op->schedule->warmup)
        log_msg(LOG_WARN, "lr_scheduler '%s' has no warm-up: warmup_epochs does not ramp the rate",
                op->schedule->name);
    return 0;
}

void optim_step(Optim *op, ParamStore *ps, double epoch)
{
    ASSERT(ps->n == op->nparams, "%d parameters, %d at the start", ps->n, op->nparams);
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        if (!p->trained || p->kind == PK_BUFFER) continue;
        op->rule->step(p, op->opts, optim_param_lr(op, p, epoch), optim_decay(op, p), p->updates++);
        param_touch(p);
    }
    op->t++;
}

void optim_free(Optim *op)
{
    free(op->group);
    free(op->custom);
    *op = (Optim){0};
}
