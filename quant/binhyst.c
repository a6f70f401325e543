/* quant/binhyst.c -- one-bit weights kept by a latent copy. The activations of the method are in
 * binhyst_act.c.
 *
 * Weights      The net computes with w, the optimizer moves the latent copy l (the gradient and the
 *              decay being those at w). After each step, with s = mean |l| over the tensor and T =
 *              weight_thres, for the sign of l before the step and l after it:
 *                the same sign           w = sign(l) s
 *                it went through 0       w = sign(l) s where |l| >= T, else l s for this one step
 *                either is 0             w = l s
 *              Before the first step w is what the net was initialised (or loaded) with, and l
 *              begins as its copy.
 *
 * First convolution and classifier stay float, inputs included.
 *
 * The sign of l before a step is that of w (s > 0), so it needs no memory of its own; a latent copy
 * that is 0 throughout has not begun: were it otherwise, s and with it w would be 0 too.
 *
 * Source: wxwang0104/Quantized_ResNet, myoptimizer/sgd_threshold_pact.py (SGD_THRESHOLD_PACT.step).
 * Differs: the latent copy is saved; the original begins with a random one after a resume. See
 * docs/methods/hysteresis.md. */
#include "quant/binhyst.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/par.h"
#include "engine/spec.h"
#include "quant/stat.h"

/* ---- weights ---- */

typedef struct Flips { /* changes of sign since they were asked for; not saved */
    uint64_t flips, seen; /* of so many weights, one update each */
} Flips;

static int weight_init(QInst *q, ParamStore *ps, Err *e)
{
    if (q->bits == 32) {
        q->enabled = false;
        return 0;
    }
    if (q->bits != 1)
        return err_set(e, ERR_CONFIG, "%s: hysteresis has 1 bit or 32 for weights, not %d", q->unit,
                       q->bits);
    if (!(q->opts->weight_thres >= 0))
        return err_set(e, ERR_CONFIG, "weight_thres: %g; expected 0 or more",
                       q->opts->weight_thres);
    q->p[q->np++] = store_add(ps, PK_BUFFER, DT_F32, (Init){INIT_CONST, 0, 0}, q->ndim, q->shape,
                              "%slatent", q->name);
    q->owner->step_on = &q->p[0]->value;
    return 0;
}

static bool begun(const Tensor *latent)
{
    const float *l = latent->data;
    const size_t n = tensor_len(latent);
    size_t i = 0;
    while (i < n && l[i] == 0) i++;
    return i < n;
}

static void weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    if (y->data != x->data) memcpy(y->data, x->data, tensor_bytes(x));
    if (c->phase != PH_TRAIN || begun(&q->p[0]->value)) return;
    memcpy(q->p[0]->value.data, x->data, tensor_bytes(x));
    param_touch(q->p[0]);
}

static float mean_magnitude(const float *x, size_t n)
{
    double part[STAT_PARTS], sum = 0;
    PARALLEL_FOR(k, STAT_PARTS)
    {
        const StatSpan s = stat_span(n, (size_t)k);
        double own = 0;
        for (size_t i = s.from; i < s.to; i++) own += fabs((double)x[i]);
        part[k] = own;
    }
    for (int k = 0; k < STAT_PARTS; k++) sum += part[k];
    return (float)(sum / (double)n);
}

/* In units of s; `before` has the sign the latent weight had. */
static inline float in_use(float before, float l, float threshold)
{
    if (before > 0 && l > 0) return 1;
    if (before < 0 && l < 0) return -1;
    if (before < 0 && l >= threshold && l > 0) return 1;
    if (before > 0 && l <= -threshold && l < 0) return -1;
    return l;
}

static void weight_after_step(QInst *q)
{
    const float threshold = (float)q->opts->weight_thres;
    Flips *count = q->priv;
    const float *l;
    float *w, s;
    size_t n;
    if (!q->np || !begun(&q->p[0]->value)) return;
    l = q->p[0]->value.data;
    w = q->owner->value.data;
    n = tensor_len(&q->owner->value);
    s = mean_magnitude(l, n);
    for (size_t i = 0; i < n; i++) {
        const float before = w[i];
        w[i] = in_use(before, l[i], threshold) * s;
        count->flips += (before > 0 && w[i] < 0) || (before < 0 && w[i] > 0);
    }
    count->seen += n;
    param_touch(q->owner);
    param_touch(q->p[0]);
}

/* Per cent of the weights that change their sign in an update. */
static int weight_figures(QInst *q, QFigure *f, int max)
{
    Flips *count = q->priv;
    if (max < 1 || !count || !count->seen) return 0;
    f[0] = (QFigure){"flips", 100.0 * (double)count->flips / (double)count->seen};
    *count = (Flips){0};
    return 1;
}

/* What is rounded is the latent copy. */
static void weight_view(const QInst *q, const Tensor *x, QView *v)
{
    if (!q->np || !begun(&q->p[0]->value)) return;
    memcpy(v->before, q->p[0]->value.data, tensor_bytes(x));
    v->has_before = true;
}

/* ---- the method ---- */

static int unit_bits(const QOpts *o, QRole role, unsigned marks, int bits)
{
    (void)o;
    (void)role;
    return marks & (UM_FIRST | UM_LAST) ? 32 : bits;
}

static const QFn weight = {.priv_size = sizeof(Flips),
                           .init = weight_init,
                           .forward = weight_forward,
                           .after_step = weight_after_step,
                           .figures = weight_figures,
                           .view = weight_view};

const QMethod quant_hysteresis = {
    .name = "hysteresis",
    .doc = "1-bit weights with a latent copy and a threshold at 0; activations in whole numbers",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &binhyst_act},
    .traits = QT_ZERO_FIXED | QT_DECLARES_AT_32,
    .unit_bits = unit_bits,
};
