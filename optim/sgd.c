/* optim/sgd.c -- stochastic gradient descent with momentum, as torch.optim.SGD.
 *
 * d = g + wd p;  first update: v = d, later: v = mu v + (1 - dampening) d
 * p -= lr (d + mu v) with Nesterov, lr v without;  without momentum p -= lr d. */
#include "optim/rule.h"

static void plain(const RuleArgs *r, size_t lo, size_t hi)
{
    float *p = r->p + lo;
    const float *g = r->g + lo, *w = r->decay + lo;
    const float lr = r->lr, wd = r->wd;
    SIMD_FOR(i, hi - lo) p[i] -= lr * (g[i] + wd * w[i]);
}

static void momentum(const RuleArgs *r, size_t lo, size_t hi)
{
    float *p = r->p + lo, *v = r->s[0] + lo;
    const float *g = r->g + lo, *w = r->decay + lo;
    const float lr = r->lr, wd = r->wd, mu = r->first ? 0 : r->a, in = r->first ? 1 : r->b;
    if (r->nesterov) {
        SIMD_FOR(i, hi - lo)
        {
            float d = g[i] + wd * w[i];
            v[i] = mu * v[i] + in * d;
            p[i] -= lr * (d + r->a * v[i]);
        }
    } else {
        SIMD_FOR(i, hi - lo)
        {
            v[i] = mu * v[i] + in * (g[i] + wd * w[i]);
            p[i] -= lr * v[i];
        }
    }
}

void sgd_step(Param *p, const OptimOpts *o, double lr, double wd, int64_t t)
{
    RuleArgs r = rule_args(p, lr, wd, t);
    r.a = (float)o->momentum;
    r.b = (float)(1 - o->dampening);
    r.nesterov = o->nesterov;
    rule_run(p, &r, o->momentum > 0 ? momentum : plain);
}
