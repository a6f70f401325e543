/* optim/adam.c -- Adam with the decay inside the gradient, as torch.optim.Adam.
 *
 * d = g + wd p;  m = b1 m + (1 - b1) d;  v = b2 v + (1 - b2) d^2
 * p -= lr / (1 - b1^n) * m / (sqrt(v) / sqrt(1 - b2^n) + eps),  n = updates of this
 * parameter including this one. */
#include "optim/rule.h"

#include <math.h>

static void chunk(const RuleArgs *r, size_t lo, size_t hi)
{
    float *p = r->p + lo, *m = r->s[0] + lo, *v = r->s[1] + lo;
    const float *g = r->g + lo, *w = r->decay + lo;
    const float lr = r->lr, wd = r->wd, b1 = r->a, b2 = r->b, eps = r->c, root = r->d;
    SIMD_FOR(i, hi - lo)
    {
        float d = g[i] + wd * w[i];
        m[i] = b1 * m[i] + (1 - b1) * d;
        v[i] = b2 * v[i] + (1 - b2) * d * d;
        p[i] -= lr * (m[i] / (sqrtf(v[i]) / root + eps));
    }
}

void adam_step(Param *p, const OptimOpts *o, double lr, double wd, int64_t t)
{
    double b1 = o->beta1 > 0 ? o->beta1 : 0.9, b2 = o->beta2 > 0 ? o->beta2 : 0.999;
    RuleArgs r = rule_args(p, lr / (1 - pow(b1, (double)(t + 1))), wd, t);
    r.a = (float)b1;
    r.b = (float)b2;
    r.c = (float)(o->optim_eps > 0 ? o->optim_eps : 1e-8);
    r.d = (float)sqrt(1 - pow(b2, (double)(t + 1)));
    rule_run(p, &r, chunk);
}
