/* optim/clip.c -- the norm of all gradients, and keeping it below a limit (torch's clip_grad_norm_).
 */
#include <math.h>

#include "engine/par.h"
#include "optim/optim.h"

enum { PARTS = 64 }; /* sums of their own, added in order */

static double squares(const float *g, size_t n)
{
    const size_t step = (n + PARTS - 1) / PARTS;
    double part[PARTS], sum = 0;
    PARALLEL_FOR(k, PARTS)
    {
        const size_t from = (size_t)k * step, to = from + step;
        double s = 0;
        for (size_t i = from; i < to && i < n; i++) s += (double)g[i] * (double)g[i];
        part[k] = s;
    }
    for (int k = 0; k < PARTS; k++) sum += part[k];
    return sum;
}

double gradient_norm(const ParamStore *ps)
{
    double sum = 0;
    for (int i = 0; i < ps->n; i++) {
        const Param *p = ps->p[i];
        if (p->kind != PK_BUFFER && p->grad.data)
            sum += squares(p->grad.data, tensor_len(&p->value));
    }
    return sqrt(sum);
}

void gradient_clip(ParamStore *ps, double norm, double max_norm)
{
    const float by = (float)(max_norm / (norm + 1e-6));
    float *g = ps->grads;
    if (!(by < 1)) return;
    PARALLEL_FOR(b, par_chunks(ps->n_grads))
    {
        float *at = g + (size_t)b * PAR_CHUNK;
        const size_t n = par_chunk_len(ps->n_grads, (size_t)b);
        SIMD_FOR(i, n) at[i] *= by;
    }
}
