/* test/probe/counting.c -- activations scaled by a running maximum that forward moves.
 *
 *   s' = |x|max at the first batch, later (1 - r) s + r |x|max (training only);  clip = s' / 2
 *   y = clip round(u L) / L,  u = x / clip in [-1, 1]
 *   dx = dy inside; outside the gradient reaches the clip and through it the largest value of the
 * batch
 *
 * Backward uses the clip that forward saved: between the two another program may have moved the
 * buffer. */
#include "test/probe/probe.h"

#include <math.h>
#include <string.h>

#include "engine/par.h"

#define RATE  0.25f
#define SHARE 0.5f /* of the running maximum */

typedef struct Saved {
    float clip, slope; /* slope: d clip / d x[at] */
    size_t at;
} Saved;

enum { P_MAX, P_COUNT };

static int init(QInst *q, ParamStore *ps, Err *e)
{
    if (q->bits < 2 || q->bits > 8)
        return err_set(e, ERR_CONFIG, "%s: probe_counting has 2 to 8 bits, not %d", q->name,
                       q->bits);
    q->p[q->np++] = store_scalar(ps, PK_BUFFER, 0, "%srunning_max", q->name);
    q->p[q->np++] =
        store_add(ps, PK_BUFFER, DT_S64, (Init){INIT_CONST, 0, 0}, 0, NULL, "%sbatches", q->name);
    return 0;
}

static void need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    (void)q, (void)x, (void)scratch;
    if (ph == PH_TRAIN) *save = sizeof(Saved);
}

/* Moves the running maximum; what backward will want goes to `s`. */
static void count(QInst *q, const float *x, size_t n, Saved *s)
{
    int64_t *batches = q->p[P_COUNT]->value.data;
    const float old = param_scalar(q->p[P_MAX]), rate = *batches ? RATE : 1;
    s->at = 0;
    for (size_t i = 1; i < n; i++)
        if (fabsf(x[i]) > fabsf(x[s->at])) s->at = i;
    param_set_scalar(q->p[P_MAX], (1 - rate) * old + rate * fabsf(x[s->at]));
    s->clip = SHARE * param_scalar(q->p[P_MAX]);
    s->slope = SHARE * rate * (x[s->at] < 0 ? -1.0f : 1.0f);
    ++*batches;
    param_touch(q->p[P_COUNT]);
}

static void forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const float *xs = x->data, levels = (float)((1 << (q->bits - 1)) - 1);
    const bool smooth = str_eq(q->opts->method_opts, "smooth");
    float *ys = y->data, clip;
    if (c->phase == PH_TRAIN) {
        count(q, xs, tensor_len(x), c->save);
        clip = ((const Saved *)c->save)->clip;
    } else {
        clip = SHARE * param_scalar(q->p[P_MAX]);
    }
    if (!(clip > 0)) { /* an image of zeros, or nothing counted yet */
        memmove(ys, xs, tensor_bytes(x));
        return;
    }
    PARALLEL_FOR(i, tensor_len(x))
    {
        const float u = fminf(fmaxf(xs[i] / clip, -1), 1);
        ys[i] = clip * (smooth ? u : rintf(u * levels) / levels);
    }
}

static void backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Saved *s = c->save;
    const float *xs = x->data, *g = dy->data;
    const size_t n = tensor_len(x);
    double sum = 0;
    float *out = dx ? dx->data : NULL;
    (void)q;
    if (!out) return;
    for (size_t i = 0; i < n; i++) {
        const bool in = fabsf(xs[i]) <= s->clip || !(s->clip > 0);
        if (!in) sum += xs[i] < 0 ? -(double)g[i] : (double)g[i];
        out[i] = in ? g[i] : 0;
    }
    out[s->at] += (float)(sum * (double)s->slope);
}

static const QFn act = {.init = init, .need = need, .forward = forward, .backward = backward};

const QMethod probe_counting = {
    .name = "probe_counting",
    .doc = "uniform activations scaled by a running maximum",
    .role = {[Q_ACT] = &act},
    .traits = QT_ZERO_FIXED,
};
