/* optim/rmsprop.c -- RMSprop, as torch.optim.RMSprop (not centred).
 *
 * d = g + wd p;  s = a s + (1 - a) d^2;  v = mu v + d / (sqrt(s) + eps);  p -= lr v. */
#include "optim/rule.h"

#include <math.h>

static void chunk(const RuleArgs *r, size_t lo, size_t hi)
{
    float *p = r->p + lo, *s = r->s[0] + lo, *v = r->s[1] + lo;
    const float *g = r->g + lo, *w = r->decay + lo;
    const float lr = r->lr, wd = r->wd, a = r->a, eps = r->b, mu = r->c;
    SIMD_FOR(i, hi - lo)
    {
        float d = g[i] + wd * w[i];
        s[i] = a * s[i] + (1 - a) * d * d;
        v[i] = mu * v[i] + d / (sqrtf(s[i]) + eps);
        p[i] -= lr * v[i];
    }
}

void rmsprop_step(Param *p, const OptimOpts *o, double lr, double wd, int64_t t)
{
    RuleArgs r = rule_args(p, lr, wd, t);
    r.a = (float)(o->optim_decay > 0 ? o->optim_decay : 0.99);
    r.b = (float)(o->optim_eps > 0 ? o->optim_eps : 1e-8);
    r.c = (float)o->momentum;
    rule_run(p, &r, chunk);
}
