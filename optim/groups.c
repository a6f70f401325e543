/* optim/groups.c -- which rate and decay each parameter has. Schemes by dimensions are F8Net's and
 * AdaBits'; the rule of model-quantization ("no_decay_small") is one of them. */
#include "optim/rule.h"

#include <string.h>

// clang-format off
const DecayScheme decay_schemes[] = {
    /*                                                                         conv   depthw fc    vector scalar */
    {"all",                "every trained parameter",                          true,  true,  true, true,  true},
    {"only_no_depthwise",  "all but depthwise weights and scalars",            true,  false, true, true,  false},
    {"only_no_bn",         "convolution and fc weights only",                  true,  true,  true, false, false},
    {"weights",            "same as only_no_bn",                               true,  true,  true, false, false},
    {"no_depthwise_no_bn", "convolution and fc weights, not depthwise ones",   true,  false, true, false, false},
    {"no_small",           "same as no_depthwise_no_bn",                       true,  false, true, false, false},
    {NULL, NULL, false, false, false, false, false},
};
// clang-format on

const DecayScheme *decay_scheme_find(const char *name)
{
    if (!name || !*name) return decay_schemes;
    for (const DecayScheme *s = decay_schemes; s->name; s++)
        if (str_eq(s->name, name)) return s;
    return NULL;
}

static bool scheme_decays(const DecayScheme *s, const Tensor *t)
{
    switch (t->ndim) {
    case 0:
        return s->scalar;
    case 1:
        return s->vector;
    case 4:
        return t->dim[1] == 1 ? s->depthwise : s->conv;
    default:
        return s->fc;
    }
}

double optim_decay(const Optim *op, const Param *p)
{
    const OptimOpts *o = op->opts;
    int g = op->group[p->index];
    if (p->has_wd) return (double)p->wd_fixed;
    if (op->custom[p->index] & OC_DECAY) return o->custom_decay;
    if (g >= 0 && o->group[g].weight_decay >= 0) return o->group[g].weight_decay;
    return scheme_decays(op->scheme, &p->value) ? o->weight_decay : 0;
}

static bool contains_one(const char *name, const char *const *list, int n)
{
    for (int i = 0; i < n; i++)
        if (strstr(name, list[i])) return true;
    return false;
}

static bool names_quantized(const OptimOpts *o)
{
    for (int i = 0; i < o->ncustom_lr; i++)
        if (str_eq(o->custom_lr_list[i], "quant_weight")) return true;
    return false;
}

unsigned char custom_bits(const OptimOpts *o, const Param *p)
{
    unsigned char bits = 0;
    if (contains_one(p->name, o->custom_decay_list, o->ncustom_decay)) bits |= OC_DECAY;
    if (contains_one(p->name, o->custom_lr_list, o->ncustom_lr))
        bits |= OC_LR;
    else if (p->quantized && names_quantized(o))
        bits |= OC_PINNED;
    return bits;
}

bool optim_pinned(const Optim *op, const Param *p)
{
    return op->custom[p->index] & OC_PINNED;
}

/* As the original: a rate that is not pinned is overwritten by the schedules that move per epoch,
 * those with restarts apart. */
static bool overwritten(const Optim *op)
{
    return op->opts->custom_lr_compat && !op->schedule->per_iteration &&
           !str_eq(op->schedule->name, "cos");
}

double optim_param_lr(const Optim *op, const Param *p, double epoch)
{
    const OptimOpts *o = op->opts;
    const unsigned char bits = op->custom[p->index];
    if (p->has_lr) return (double)p->lr_fixed;
    if (bits & OC_PINNED) return o->custom_lr;
    if (bits & OC_LR && !overwritten(op)) {
        OptimOpts own = *o; /* floors of a schedule are rates, so the factor depends on the base */
        Optim as = *op;
        own.lr = o->custom_lr;
        as.opts = &own;
        return optim_lr(&as, -1, epoch);
    }
    return optim_lr(op, op->group[p->index], epoch);
}

void optim_wake(Optim *op, int64_t batch)
{
    const int64_t n = op->opts->wakeup;
    op->awake = batch < n ? (double)batch / (double)n : 1;
}
