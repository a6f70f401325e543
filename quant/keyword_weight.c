/* quant/keyword_weight.c -- weights of the keyword language: normalisation, groups, gamma and the
 * method's rows, piece by piece. See keyword.h.
 *
 * A piece is a run of at most PAR_CHUNK weights of one group: the unit of parallel work and of
 * summation, so that sums do not depend on the threads. */
#include <math.h>
#include <string.h>

#include "engine/par.h"
#include "quant/keyword.h"
#include "quant/stat.h"

typedef struct Pieces {
    size_t len, per_group, count; /* weights of a group; pieces of a group, of all */
} Pieces;

typedef struct Piece {
    size_t at, n;
    int group, run; /* run: of mean and std */
} Piece;

static Pieces pieces_of(const Keyword *k, const Tensor *x)
{
    Pieces p = {.len = tensor_len(x) / (size_t)k->groups};
    p.per_group = par_chunks(p.len);
    p.count = p.per_group * (size_t)k->groups;
    return p;
}

static Piece piece(const Keyword *k, const Pieces *p, size_t i)
{
    const size_t group = i / p->per_group, chunk = i % p->per_group;
    return (Piece){.at = group * p->len + chunk * PAR_CHUNK,
                   .n = par_chunk_len(p->len, chunk),
                   .group = (int)group,
                   .run = k->norm_groups == 1 ? 0 : (int)group};
}

enum { ACC = 2, GAMMA = ACC + KW_MAX_ACC, SUMS }; /* doubles a piece: two of `sum`, those of row_bwd, one of gamma */

static size_t accs(const Keyword *k)
{
    return k->weight->nacc ? (size_t)k->weight->nacc : 1;
}

void kw_weight_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    const Keyword *k = q->priv;
    (void)ph;
    *save = k->weight->view ? tensor_bytes(x) : 0;
    *scratch = (pieces_of(k, x).count * SUMS + (size_t)k->groups * accs(k)) * sizeof(double);
}

/* Mean and deviation of each run; false with q->fault set when one cannot be divided by. */
static bool read_stats(QInst *q, const Tensor *x)
{
    Keyword *k = q->priv;
    const size_t len = tensor_len(x) / (size_t)k->norm_groups;
    const float *w = x->data;
    if (!k->normalizes) return true;
    PARALLEL_FOR(r, k->norm_groups)
    {
        double mean, std;
        stat_mean_std(w + (size_t)r * len, len, &mean, &std);
        k->mean[r] = (float)mean;
        k->std[r] = (float)std;
    }
    for (int r = 0; r < k->norm_groups; r++) {
        if (k->std[r] > 0 && isfinite(k->std[r])) continue;
        kw_fault(q,
                 "%zu weights of group %d with standard deviation %g; wt_adaptive: var-mean "
                 "divides by it",
                 len, r, (double)k->std[r]);
        return false;
    }
    return true;
}

/* w' of a piece: in `to`, or where it stands already. */
static const float *normalized(const Keyword *k, const Piece *p, const float *w, float *to)
{
    const float mean = k->normalizes ? k->mean[p->run] : 0,
                std = k->normalizes ? k->std[p->run] : 1;
    if (!k->normalizes) return w;
    SIMD_FOR(i, p->n) to[i] = (w[i] - mean) / std;
    return to;
}

/* What the method's rows get: from the kept view, or made again. */
static const float *viewed(const Keyword *k, const Piece *p, const float *w, const float *kept,
                           float *to)
{
    return kept ? kept + p->at : normalized(k, p, w + p->at, to);
}

static double magnitude(KwMeasure what, const float *w, size_t n)
{
    double sum = 0;
    if (what == KW_ABS_MAX) return (double)stat_absmax(w, n);
    PAR_PRAGMA_(omp simd reduction(+ : sum))
    for (size_t i = 0; i < n; i++) sum += (double)fabsf(w[i]);
    return sum;
}

/* The view is made and kept, and measured. */
static void prepare(QInst *q, const float *w, float *kept, const Pieces *ps, double *of_piece)
{
    Keyword *k = q->priv;
    const KwWeight *m = k->weight;
    if (!kept && !k->needs) return;
    PARALLEL_FOR(b, ps->count)
    {
        const Piece p = piece(k, ps, (size_t)b);
        float buf[PAR_CHUNK], *to = kept ? kept + p.at : buf;
        const float *v = normalized(k, &p, w + p.at, to);
        if (kept) {
            if (v != to) memcpy(to, v, p.n * sizeof *to);
            m->view(to, p.n);
            v = to;
        }
        of_piece[b] = k->needs ? magnitude(k->needs, v, p.n) : 0;
    }
    for (int g = 0; g < k->groups; g++) {
        double all = 0;
        for (size_t i = 0; i < ps->per_group; i++) {
            const double v = of_piece[(size_t)g * ps->per_group + i];
            all = k->needs == KW_ABS_MAX ? (v > all ? v : all) : all + v;
        }
        k->measure[g] = all;
    }
}

/* Warm-up: w', whose largest magnitude moves the clip level. */
static void pass(QInst *q, const Tensor *x, Tensor *y, const Pieces *ps, Phase phase)
{
    const Keyword *k = q->priv;
    const float *w = x->data;
    float *out = y->data;
    PARALLEL_FOR(b, ps->count)
    {
        const Piece p = piece(k, ps, (size_t)b);
        const float *v = normalized(k, &p, w + p.at, out + p.at);
        if (v != out + p.at) memcpy(out + p.at, v, p.n * sizeof *out);
    }
    if (k->clip && phase == PH_TRAIN) kw_warm_clip(q, stat_absmax(out, tensor_len(y)));
}

static bool restores(const Keyword *k)
{
    return k->restores && k->normalizes;
}

static float factor(const Keyword *k, int group)
{
    return k->gamma ? ((const float *)k->gamma->value.data)[group] : 1;
}

void kw_weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Keyword *k = q->priv;
    const KwWeight *m = k->weight;
    const Pieces ps = pieces_of(k, x);
    const float *w = x->data;
    float *out = y->data, *kept = m->view ? c->save : NULL;
    kw_begin(q, c);
    if (read_stats(q, x) && k->passes) {
        pass(q, x, y, &ps, c->phase);
        return;
    }
    if (!q->fault && k->clip) kw_divisor(q, k->clip);
    if (!q->fault) {
        prepare(q, w, kept, &ps, c->scratch);
        if (m->measured) m->measured(q);
    }
    if (q->fault) {
        memset(out, 0, tensor_bytes(y));
        return;
    }
    PARALLEL_FOR(b, ps.count)
    {
        const Piece p = piece(k, &ps, (size_t)b);
        const float gamma = factor(k, p.group);
        float *to = out + p.at;
        m->row(q, p.group, viewed(k, &p, w, kept, to), to, p.n);
        if (k->gamma) SIMD_FOR(i, p.n) to[i] *= gamma;
        if (restores(k)) {
            const float mean = k->mean[p.run], std = k->std[p.run];
            SIMD_FOR(i, p.n) to[i] = to[i] * std + mean;
        }
    }
}

/* ---- backward ---- */

/* The gradient to the method's own result: dy times what stands behind it. */
static const float *inner(const Keyword *k, const Piece *p, const float *dy, float *to)
{
    const float by = factor(k, p->group) * (restores(k) ? k->std[p->run] : 1);
    if (!k->gamma && !restores(k)) return dy;
    SIMD_FOR(i, p->n) to[i] = dy[i] * by;
    return to;
}

static double gamma_sum(const QInst *q, const Piece *p, const float *v, const float *dy, float *buf)
{
    const Keyword *k = q->priv;
    double dot = 0;
    k->weight->row(q, p->group, v, buf, p->n);
    PAR_PRAGMA_(omp simd reduction(+ : dot))
    for (size_t i = 0; i < p->n; i++) dot += (double)dy[i] * (double)buf[i];
    return restores(k) ? dot * (double)k->std[p->run] : dot;
}

static void divide_by_std(const Keyword *k, const Piece *p, const float *g, float *dw)
{
    const float std = k->normalizes ? k->std[p->run] : 1;
    if (k->normalizes)
        SIMD_FOR(i, p->n) dw[i] = g[i] / std;
    else if (dw != g)
        memcpy(dw, g, p->n * sizeof *dw);
}

/* The pass over all weights before the rows of backward, where the method asks for one. */
static void sum_up(QInst *q, const float *w, const float *g, const float *kept, const Pieces *ps,
                   double *sums)
{
    const Keyword *k = q->priv;
    double total[2] = {0};
    if (!k->weight->sum) return;
    PARALLEL_FOR(b, ps->count)
    {
        const Piece p = piece(k, ps, (size_t)b);
        float wbuf[PAR_CHUNK], gbuf[PAR_CHUNK];
        double acc[2] = {0};
        k->weight->sum(q, p.group, viewed(k, &p, w, kept, wbuf), inner(k, &p, g + p.at, gbuf), p.n,
                       acc);
        sums[(size_t)b * SUMS] = acc[0], sums[(size_t)b * SUMS + 1] = acc[1];
    }
    for (size_t b = 0; b < ps->count; b++)
        for (int i = 0; i < 2; i++) total[i] += sums[b * SUMS + (size_t)i];
    k->weight->summed(q, total);
}

/* Sums of the pieces into the gradients of gamma and of the method's parameter. */
static void add_up(QInst *q, const Pieces *ps, const double *sums, double *of_group)
{
    const Keyword *k = q->priv;
    for (int g = 0; g < k->groups; g++) {
        double gamma = 0, *acc = of_group + (size_t)g * accs(k);
        memset(acc, 0, accs(k) * sizeof *acc);
        for (size_t i = 0; i < ps->per_group; i++) {
            const double *s = sums + ((size_t)g * ps->per_group + i) * SUMS;
            for (size_t j = 0; j < accs(k); j++) acc[j] += s[ACC + j];
            gamma += s[GAMMA];
        }
        if (k->gamma) ((float *)k->gamma->grad.data)[g] += (float)gamma;
    }
    if (k->weight->end) k->weight->end(q, of_group);
}

void kw_weight_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Keyword *k = q->priv;
    const KwWeight *m = k->weight;
    const Pieces ps = pieces_of(k, x);
    const float *w = x->data, *g = dy->data, *kept = m->view ? c->save : NULL;
    float *d = dx ? dx->data : NULL;
    double *sums = c->scratch;
    if (q->fault) { /* the output was zeros whatever the weights */
        if (d) memset(d, 0, tensor_bytes(x));
        return;
    }
    if (!k->passes) sum_up(q, w, g, kept, &ps, sums);
    PARALLEL_FOR(b, ps.count)
    {
        const Piece p = piece(k, &ps, (size_t)b);
        float wbuf[PAR_CHUNK], gbuf[PAR_CHUNK], dbuf[PAR_CHUNK], *to = d ? d + p.at : dbuf;
        const float *dyb = g + p.at, *v;
        double acc[KW_MAX_ACC] = {0}, gamma = 0;
        if (k->passes) {
            divide_by_std(k, &p, dyb, to);
            continue;
        }
        v = viewed(k, &p, w, kept, wbuf);
        if (k->gamma) gamma = gamma_sum(q, &p, v, dyb, gbuf);
        m->row_bwd(q, p.group, v, inner(k, &p, dyb, gbuf), to, p.n, acc);
        divide_by_std(k, &p, to, to);
        memcpy(sums + (size_t)b * SUMS + ACC, acc, sizeof acc);
        sums[(size_t)b * SUMS + GAMMA] = gamma;
    }
    if (!k->passes) add_up(q, &ps, sums, sums + ps.count * SUMS);
}

/* ---- for who stands behind the quantizer ---- */

void kw_weight_seen(const QInst *q, const Tensor *w, size_t at, size_t n, float *to)
{
    const Keyword *k = q->priv;
    const size_t run = tensor_len(w) / (size_t)k->norm_groups;
    const float *from = (const float *)w->data + at;
    if (!k->normalizes) memcpy(to, from, n * sizeof *to);
    for (size_t i = 0; k->normalizes && i < n; i++)
        to[i] = (from[i] - k->mean[(at + i) / run]) / k->std[(at + i) / run];
}

void kw_weight_seen_bwd(const QInst *q, const Tensor *w, size_t at, size_t n, float *g)
{
    const Keyword *k = q->priv;
    const size_t run = tensor_len(w) / (size_t)k->norm_groups;
    for (size_t i = 0; k->normalizes && i < n; i++) g[i] /= k->std[(at + i) / run];
}
