/* quant/fatnn_groups.c -- FATNN's activations with groups of channels; equations in fatnn.c.
 *
 * Values stand channel by channel: a row is one pixel of a map, or one sample of a linear layer.
 * The steps of its group stand once more for each channel. */
#include "quant/fatnn.h"

#include <string.h>

#include "engine/par.h"
#include "quant/stat.h"

enum { T_OFF, T_A, T_INV, TABLES };

void fatnn_groups_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    const size_t c = kw_rows(x).c;
    (void)q, (void)ph;
    *save = FATNN_STEPS * TABLES * c * sizeof(float);
    *scratch = STAT_PARTS * FATNN_STEPS * c * sizeof(double);
}

static void fill_tables(const Fatnn *p, const KwRows *r, float *table)
{
    for (size_t k = 0; k < r->c; k++) {
        const Steps s = fatnn_steps(p, (int)(k * (size_t)p->k.groups / r->c));
        for (size_t i = 0; i < FATNN_STEPS; i++) {
            float *t = table + i * TABLES * r->c + k;
            t[T_OFF * r->c] = s.off[i], t[T_A * r->c] = s.a[i], t[T_INV * r->c] = s.inv[i];
        }
    }
}

static float low_of(const Fatnn *p, int step)
{
    return p->half || step ? 0 : -1;
}

void fatnn_groups_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Fatnn *p = q->priv;
    const KwRows r = kw_rows(x);
    const float *xs = x->data;
    float *ys = y->data, *table = c->save;
    kw_begin(q, c);
    if (p->k.passes && c->phase == PH_TRAIN) kw_warm_clip(q, stat_absmax(xs, r.n * r.c));
    if (!p->k.passes && fatnn_usable(q)) fill_tables(p, &r, table);
    if (kw_idle(q, xs, ys, r.n * r.c)) return;
    PARALLEL_FOR(i, r.n)
    {
        const float *xr = xs + (size_t)i * r.c;
        float *yr = ys + (size_t)i * r.c;
        for (int k = 0; k < p->n; k++) {
            const float *t = table + (size_t)k * TABLES * r.c, low = low_of(p, k);
            if (k == 0)
                SIMD_FOR(j, r.c) yr[j] = code((xr[j] - t[j]) * t[T_A * r.c + j], low);
            else
                SIMD_FOR(j, r.c) yr[j] += code((xr[j] - t[j]) * t[T_A * r.c + j], low);
        }
    }
}

static double row_inside(const float *x, const float *t, size_t c, float low)
{
    int count = 0;
    PAR_PRAGMA_(omp simd reduction(+ : count))
    for (size_t j = 0; j < c; j++) {
        const float u = (x[j] - t[j]) * t[T_A * c + j];
        count += u >= low && u <= low + 1;
    }
    return count;
}

static void groups_inside(const Fatnn *p, const KwRows *r, const float *x, const float *table,
                          double *inside)
{
    double part[STAT_PARTS][FATNN_STEPS] = {{0}};
    PARALLEL_FOR(s, STAT_PARTS)
    {
        const StatSpan span = stat_split(r->n, (size_t)s);
        for (size_t i = span.from; i < span.to; i++)
            for (int k = 0; k < p->n; k++)
                part[s][k] +=
                    row_inside(x + i * r->c, table + (size_t)k * TABLES * r->c, r->c, low_of(p, k));
    }
    for (int k = 0; k < p->n; k++) {
        inside[k] = 0;
        for (int s = 0; s < STAT_PARTS; s++) inside[k] += part[s][k];
    }
}

/* One row; sum: dA of each step and channel. */
KERNEL void row_n_bwd(int n, const float *table, size_t c, float low, const float *f,
                      const float *x, const float *dy, float *dx, double *sum)
{
    const size_t step = TABLES * c;
    const float *o0 = table, *o1 = o0 + step, *o2 = o1 + step;
    const float *a0 = o0 + c, *a1 = o1 + c, *a2 = o2 + c;
    PAR_PRAGMA_(omp simd)
    for (size_t j = 0; j < c; j++) {
        const float v0 = x[j] - o0[j], v1 = x[j] - o1[j], v2 = x[j] - o2[j], g = dy[j];
        const float t0 = through(v0 * a0[j], low, g * f[0]);
        const float t1 = n > 1 ? through(v1 * a1[j], 0, g * f[1]) : 0;
        const float t2 = n > 2 ? through(v2 * a2[j], 0, g * f[2]) : 0;
        sum[j] += (double)(t0 * v0 + (t1 * a1[j] + t2 * a2[j]) * a0[c + j]);
        if (n > 1) sum[c + j] += (double)(t1 * v1 + t2 * a2[j] * a1[c + j]);
        if (n > 2) sum[2 * c + j] += (double)(t2 * v2);
        if (dx) dx[j] = t0 * a0[j] + t1 * a1[j] + t2 * a2[j];
    }
}

static void rows_bwd(const Fatnn *p, const KwRows *r, StatSpan span, const float *table,
                     const float *f, const float *x, const float *dy, float *dx, double *sum)
{
    const float low = low_of(p, 0);
    memset(sum, 0, FATNN_STEPS * r->c * sizeof *sum);
    for (size_t i = span.from * r->c; i < span.to * r->c; i += r->c) {
        float *to = dx ? dx + i : NULL;
        if (p->n == 1)
            row_n_bwd(1, table, r->c, low, f, x + i, dy + i, to, sum);
        else if (p->n == 2)
            row_n_bwd(2, table, r->c, low, f, x + i, dy + i, to, sum);
        else
            row_n_bwd(3, table, r->c, low, f, x + i, dy + i, to, sum);
    }
}

void fatnn_groups_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Fatnn *p = q->priv;
    const KwRows r = kw_rows(x);
    const float *xs = x->data, *g = dy->data, *table = c->save;
    float *d = dx ? dx->data : NULL, f[FATNN_STEPS] = {1, 1, 1};
    const size_t per = FATNN_STEPS * r.c;
    double *sums = c->scratch, inside[FATNN_STEPS];
    if (kw_idle_bwd(q, g, d, r.n * r.c)) return;
    if (p->ste_scale) {
        groups_inside(p, &r, xs, table, inside);
        for (int k = 0; k < p->n; k++) f[k] = kw_inside_factor((double)(r.n * r.c), inside[k]);
    }
    PARALLEL_FOR(s, STAT_PARTS)
    rows_bwd(p, &r, stat_split(r.n, (size_t)s), table, f, xs, g, d, sums + (size_t)s * per);
    for (size_t group = 0; group < (size_t)p->k.groups; group++) {
        const size_t run = r.c / (size_t)p->k.groups;
        double dA[FATNN_STEPS] = {0};
        for (size_t s = 0; s < STAT_PARTS; s++)
            for (size_t i = 0; i < (size_t)p->n; i++)
                for (size_t j = group * run; j < (group + 1) * run; j++)
                    dA[i] += sums[s * per + i * r.c + j];
        fatnn_add_grads(p, (int)group, dA);
    }
}
