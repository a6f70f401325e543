/* optim/groups.c -- which rate and decay each parameter has. Schemes by dimensions are F8Net's and
 * AdaBits'; the rule of model-quantization ("no_decay_small") is one of them. */
#include "optim/optim.h"

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
    if (g >= 0 && o->group[g].weight_decay >= 0) return o->group[g].weight_decay;
    return scheme_decays(op->scheme, &p->value) ? o->weight_decay : 0;
}
