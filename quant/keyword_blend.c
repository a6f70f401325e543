/* quant/keyword_blend.c -- what stands behind a quantizer of the keyword language, around any
 * method.
 *
 * x is the tensor as the method sees it (weights: normalised), y its result.
 *   proxquant  z = prox x + (1 - prox) y, in training and evaluation; prox is set for each epoch
 *   loss       in training alpha L(x, y) on top of the loss: L1 mean |x - y|, L2 mean (x - y)^2,
 *              QDL |<x, y> / <y, y> - 1|; only without proxquant
 * Gradients go through both x and y. The warm-up has neither.
 *
 * Source: aim-uofa/model-quantization, models/quant.py (quantization_value), task_cls.py. Differs:
 * the share of a short proxquant ends at 0; the original goes on below. */
#include <math.h>
#include <string.h>

#include "engine/par.h"
#include "quant/keyword.h"

double kw_proxquant_share(int step, int epoch, const int *at, int n)
{
    int passed = 0;
    double share;
    if (step >= 10) {
        share = 1 - (double)epoch / step;
    } else {
        if (n < 0) return 0;
        for (int i = 0; i < n; i++) passed += at[i] <= epoch;
        share = 1 - (double)(passed + 1) / step;
    }
    return share > 0 ? share : 0;
}

/* save: the method's, y; scratch: the method's, the gradient of y, sums. */
typedef struct Room {
    size_t save, scratch, tensor, sums;
} Room;

enum { DIST, X_Y, Y_Y, SUMS };

static size_t whole_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static Room room_of(const QInst *q, const Tensor *x, Phase ph)
{
    Room r;
    qfn_need(((const Keyword *)q->priv)->inner, q, x, ph, &r.save, &r.scratch);
    r.save = whole_lines(r.save), r.scratch = whole_lines(r.scratch);
    r.tensor = whole_lines(tensor_bytes(x));
    r.sums = par_chunks(tensor_len(x)) * SUMS * sizeof(double);
    return r;
}

static void need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    const Room r = room_of(q, x, ph);
    *save = r.save + (((const Keyword *)q->priv)->loss.on ? r.tensor : 0);
    *scratch = r.scratch + r.tensor + r.sums;
}

static bool is_off(const QInst *q)
{
    return q->fault || ((const Keyword *)q->priv)->passes;
}

/* Values [at, at + n) of x. */
static const float *seen(const QInst *q, const Tensor *x, size_t at, size_t n, float *buf)
{
    if (q->role != Q_WEIGHT) return (const float *)x->data + at;
    kw_weight_seen(q, x, at, n, buf);
    return buf;
}

static void add_sums(KwLossKind kind, const float *x, const float *y, size_t n, double *sum)
{
    double dist = 0, xy = 0, yy = 0;
    PAR_PRAGMA_(omp simd reduction(+ : dist, xy, yy))
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - (double)y[i];
        dist += kind == KW_L1 ? fabs(d) : d * d;
        xy += (double)x[i] * (double)y[i];
        yy += (double)y[i] * (double)y[i];
    }
    sum[DIST] = dist, sum[X_Y] = xy, sum[Y_Y] = yy;
}

/* y is kept for backward. */
static void measure(QInst *q, const Tensor *x, const float *y, float *kept, double *sums,
                    double *aux)
{
    Keyword *k = q->priv;
    const size_t n = tensor_len(x);
    double all[SUMS] = {0};
    memcpy(kept, y, n * sizeof *kept);
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        float buf[PAR_CHUNK];
        add_sums(k->loss.kind, seen(q, x, at, len, buf), y + at, len, sums + (size_t)b * SUMS);
    }
    for (size_t b = 0; b < par_chunks(n); b++)
        for (size_t i = 0; i < SUMS; i++) all[i] += sums[b * SUMS + i];
    k->loss.xy = all[X_Y], k->loss.yy = all[Y_Y];
    if (k->loss.kind == KW_QDL)
        all[DIST] = k->loss.yy > 0 ? fabs(k->loss.xy / k->loss.yy - 1) : 0;
    else
        all[DIST] /= (double)n;
    if (aux) *aux += k->loss.alpha * all[DIST];
}

static void forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const Keyword *k = q->priv;
    const Room r = room_of(q, x, c->phase);
    const size_t n = tensor_len(x);
    const float p = k->prox;
    float *ys = y->data;
    qfn_forward(k->inner, q, x, y, c);
    if (is_off(q)) return;
    if (!q->opts->kw.proxquant) {
        if (c->phase == PH_TRAIN)
            measure(q, x, ys, (void *)((char *)c->save + r.save),
                    (void *)((char *)c->scratch + r.scratch + r.tensor), c->aux_loss);
        return;
    }
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        float buf[PAR_CHUNK];
        const float *xs = seen(q, x, at, len, buf);
        SIMD_FOR(i, len) ys[at + i] = p * xs[i] + (1 - p) * ys[at + i];
    }
}

/* Gradients of alpha L to x and to y. */
static void loss_grads(const Keyword *k, size_t count, const float *x, const float *y, size_t n,
                       float *gx, float *gy)
{
    const double xy = k->loss.xy, yy = k->loss.yy, a = k->loss.alpha / (double)count;
    if (k->loss.kind == KW_QDL) {
        const double s = yy > 0 ? (xy >= yy ? k->loss.alpha : -k->loss.alpha) / yy : 0;
        const double back = yy > 0 ? 2 * xy / yy : 0;
        SIMD_FOR(i, n)
        {
            gx[i] = (float)(s * (double)y[i]);
            gy[i] = (float)(s * ((double)x[i] - back * (double)y[i]));
        }
        return;
    }
    SIMD_FOR(i, n)
    {
        const double d = (double)x[i] - (double)y[i];
        const double g = k->loss.kind == KW_L2 ? 2 * d : d > 0 ? 1 : d < 0 ? -1 : 0;
        gx[i] = (float)(a * g);
        gy[i] = -gx[i];
    }
}

static void backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Keyword *k = q->priv;
    const Room r = room_of(q, x, c->phase);
    const size_t n = tensor_len(x);
    const bool blends = q->opts->kw.proxquant;
    const float p = k->prox, *g = dy->data, *kept = (void *)((char *)c->save + r.save);
    Tensor inner = *dy;
    float *to = inner.data = (void *)((char *)c->scratch + r.scratch), *d;
    if (is_off(q)) {
        qfn_backward(k->inner, q, x, dy, dx, c);
        return;
    }
    ASSERT(!dx || dx->data != dy->data, "%s: gradients in place", q->unit);
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        float buf[PAR_CHUNK], gx[PAR_CHUNK], gy[PAR_CHUNK];
        if (blends)
            SIMD_FOR(i, len) to[at + i] = (1 - p) * g[at + i];
        else {
            loss_grads(k, n, seen(q, x, at, len, buf), kept + at, len, gx, gy);
            SIMD_FOR(i, len) to[at + i] = g[at + i] + gy[i];
        }
    }
    qfn_backward(k->inner, q, x, &inner, dx, c);
    if (!dx) return;
    d = dx->data;
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        float buf[PAR_CHUNK], gx[PAR_CHUNK], gy[PAR_CHUNK];
        if (blends)
            SIMD_FOR(i, len) gx[i] = p * g[at + i];
        else
            loss_grads(k, n, seen(q, x, at, len, buf), kept + at, len, gx, gy);
        if (q->role == Q_WEIGHT) kw_weight_seen_bwd(q, x, at, len, gx);
        SIMD_FOR(i, len) d[at + i] += gx[i];
    }
}

static bool pad_matters(const QInst *q)
{
    const QFn *inner = ((const Keyword *)q->priv)->inner;
    return inner->pad_matters && inner->pad_matters(q);
}

const QFn kw_blended = {
    .need = need,
    .forward = forward,
    .backward = backward,
    .form = kw_form,
    .set = kw_set,
    .set_text = kw_set_text,
    .pad_matters = pad_matters,
    .release = kw_release,
};
