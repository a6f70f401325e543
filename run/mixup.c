/* run/mixup.c -- see mixup.h. */
#include "run/mixup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"

/* Gamma(a) up to its scale: Marsaglia and Tsang 2000; below 1 through Gamma(a + 1). As a logarithm, since
 * for small a both draws of a Beta may lie below the smallest double. */
static double draw_log_gamma(Rng *r, double a)
{
    const double up = a < 1 ? log(1 - rng_uniform(r)) / a : 0, b = a < 1 ? a + 1 : a;
    const double d = b - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = rng_normal(r), v = pow(1 + c * x, 3), u = 1 - rng_uniform(r);
        if (1 + c * x > 0 && log(u) < 0.5 * x * x + d - d * v + d * log(v)) return log(d * v) + up;
    }
}

double draw_beta(Rng *r, double alpha)
{
    const double x = draw_log_gamma(r, alpha), y = draw_log_gamma(r, alpha);
    return 1 / (1 + exp(y - x));
}

void mixup_init(Mixup *m, double alpha, uint64_t seed, int classes, size_t image, int batch_size)
{
    const size_t n = (size_t)batch_size;
    *m = (Mixup){.alpha = alpha, .seed = seed, .classes = classes, .image = image};
    m->order = xcalloc(n, sizeof *m->order);
    m->b.x = xaligned(n * image * sizeof *m->b.x);
    m->b.label = xcalloc(n, sizeof *m->b.label);
    m->b.target = xaligned(n * (size_t)classes * sizeof *m->b.target);
    m->b.size = batch_size;
}

const Batch *mixup_batch(Mixup *m, const Batch *b)
{
    Rng r = rng_stream(m->seed, RNG_MIXUP, b->epoch, (uint64_t)b->number);
    const double share = draw_beta(&r, m->alpha);
    const float one = (float)share, other = (float)(1 - share);
    const size_t classes = (size_t)m->classes, image = m->image;
    ASSERT(b->n <= m->b.size, "%d images, room for %d", b->n, m->b.size);
    for (int i = 0; i < b->n; i++) m->order[i] = (uint32_t)i;
    rng_shuffle(&r, m->order, (size_t)b->n);
    m->b.n = b->n;
    m->b.epoch = b->epoch;
    m->b.number = b->number;
    m->b.index = b->index;
    memset(m->b.target, 0, (size_t)b->n * classes * sizeof *m->b.target);
    PARALLEL_FOR(i, b->n)
    {
        const size_t j = m->order[i];
        const float *x = b->x + (size_t)i * image, *y = b->x + j * image;
        float *to = m->b.x + (size_t)i * image, *target = m->b.target + (size_t)i * classes;
        SIMD_FOR(k, image) to[k] = one * x[k] + other * y[k];
        target[b->label[i]] += one;
        target[b->label[j]] += other;
        m->b.label[i] = b->label[share >= 0.5 ? (size_t)i : j];
    }
    return &m->b;
}

void mixup_free(Mixup *m)
{
    free(m->order);
    free(m->b.x);
    free(m->b.label);
    free(m->b.target);
    *m = (Mixup){0};
}
