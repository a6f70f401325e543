/* test/probe/variants.c -- uniform steps below a learned clip level; in a net of several bit widths
 * each has levels and clip of its own.
 *
 *   u = x / a clipped to [lo, 1], lo = 0 (activations) or -1 (weights);  y = a round(u L) / L
 *   dx = dy inside, else 0;  da = sum of dy (y / a - u) inside, dy times the end outside
 *
 * A policy may set `levels`. */
#include "test/probe/probe.h"

#include <math.h>
#include <stdio.h>

#include "engine/par.h"

typedef struct Uniform {
    float levels, alpha, lo; /* alpha: as the last forward read it */
    bool smooth;
    char fault[160];
} Uniform;

static int init(QInst *q, ParamStore *ps, float clip, const char *name, Err *e)
{
    Uniform *u = q->priv;
    if (q->bits < 2 || q->bits > 8)
        return err_set(e, ERR_CONFIG, "%s: probe_variants has 2 to 8 bits, not %d", q->name,
                       q->bits);
    u->lo = q->role == Q_WEIGHT ? -1 : 0;
    u->levels = (float)((1 << (q->role == Q_WEIGHT ? q->bits - 1 : q->bits)) - 1);
    u->smooth = str_eq(q->opts->method_opts, "smooth");
    q->p[q->np++] = store_scalar(ps, PK_CLIP, clip, "%s%s.%d", q->name, name, q->variant);
    return 0;
}

static int init_act(QInst *q, ParamStore *ps, Err *e)
{
    return init(q, ps, 1.5f + 0.5f * (float)q->variant, "act_clip", e);
}

static int init_weight(QInst *q, ParamStore *ps, Err *e)
{
    return init(q, ps, 0.2f - 0.05f * (float)q->variant, "weight_clip", e);
}

static void begin(QInst *q, const QCtx *c)
{
    Uniform *u = q->priv;
    (void)c;
    u->alpha = param_scalar(q->p[0]);
    q->fault = NULL;
    if (u->alpha > 0) return;
    snprintf(u->fault, sizeof u->fault, "%s: the clip level is %g", q->p[0]->name,
             (double)u->alpha);
    q->fault = u->fault;
}

static void row(const QInst *q, const float *x, float *y, size_t n)
{
    const Uniform *p = q->priv;
    for (size_t i = 0; i < n; i++) {
        float u = fminf(fmaxf(x[i] / p->alpha, p->lo), 1);
        y[i] = q->fault ? 0 : p->alpha * (p->smooth ? u : rintf(u * p->levels) / p->levels);
    }
}

static void row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                    double *acc)
{
    const Uniform *p = q->priv;
    for (size_t i = 0; i < n; i++) {
        const float u = x[i] / p->alpha, d = dy[i];
        const bool in = u >= p->lo && u <= 1;
        const float to = !in         ? fminf(fmaxf(u, p->lo), 1)
                         : p->smooth ? 0
                                     : rintf(u * p->levels) / p->levels - u;
        acc[0] += (double)d * (double)to;
        if (dx) dx[i] = in ? d : 0;
    }
}

static void end(QInst *q, const double *acc)
{
    *(float *)q->p[0]->grad.data += (float)acc[0];
}

static int set(QInst *q, const char *attr, double v, Err *e)
{
    Uniform *u = q->priv;
    if (!str_eq(attr, "levels")) return -1;
    if (!(v >= 1 && v < 256))
        return err_set(e, ERR_CONFIG, "%s: %g levels; expected 1..255", q->name, v);
    u->levels = (float)v;
    return 0;
}

#define UNIFORM                                                                                    \
    .priv_size = sizeof(Uniform), .nacc = 1, .begin = begin, .row = row, .row_bwd = row_bwd,       \
    .end = end, .set = set
static const QFn act = {UNIFORM, .init = init_act}, weight = {UNIFORM, .init = init_weight};

const QMethod probe_variants = {
    .name = "probe_variants",
    .doc = "uniform steps, a clip level for each bit width",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .traits = QT_ZERO_FIXED | QT_VARIANTS,
};
