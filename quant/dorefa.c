/* quant/dorefa.c -- DoReFa: uniform levels below a fixed bound; weights through tanh.
 *
 * L levels, n = L - 1, B the boundary (1), round to even, backward through the rounding.
 * Activations   v = clip(x, 0, B), y = round(v n / B) / (n / B);  dx = dy where 0 <= x <= B
 * Weights       t = tanh(w'), M = max |t|, u = t / 2M + 1/2, y = 2 round(u n / B) / (n / B) - 1
 *               dt = dy / M, less sign(t) sum(dy t) / M^2 shared among the elements at M
 *               dw' = dt (1 - t^2)
 *   wt_bin      2 levels: y = mean |w'|, or its negative where w' < 0; dw' = dy
 *
 * Source: Zhou et al. 2016, "DoReFa-Net"; aim-uofa/model-quantization, models/quant.py and
 * dorefa.py. Differs: weights that are all 0 are a fault instead of NaN. See
 * docs/methods/dorefa.md. */
#include <math.h>

#include "engine/par.h"
#include "quant/form.h"
#include "quant/keyword.h"
#include "quant/tanh.h"

typedef struct Dorefa {
    Keyword k;
    float steps; /* n / B */
    float bound;
    float max, peak; /* weights: M; what the elements at M get in backward */
    double dot, peaks;
    float scale; /* wt_bin */
} Dorefa;

static void set_steps(Dorefa *p)
{
    p->bound = p->k.o->boundary > 0 ? (float)p->k.o->boundary : 1;
    p->steps = p->k.n / p->bound;
}

/* ---- activations, outputs ---- */

static int act_configure(QInst *q, Err *e);
static int act_steps(QInst *q, QuantForm *f, Err *e);

static int act_init(QInst *q, ParamStore *ps, Err *e)
{
    Dorefa *p = q->priv;
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    p->k.groups = 1;
    p->k.configure = act_configure;
    p->k.steps = act_steps;
    kw_add_gamma(q, ps);
    return act_configure(q, e);
}

static void act_begin(QInst *q, const QCtx *c)
{
    kw_begin(q, c);
    set_steps(q->priv);
}

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const Dorefa *p = q->priv;
    const float B = p->bound, s = p->steps;
    if (kw_idle(q, x, y, n)) return;
    SIMD_FOR(i, n)
    {
        float v = x[i] < 0 ? 0 : x[i]; /* NaN stays NaN */
        v = v > B ? B : v;
        y[i] = rintf(v * s) / s;
    }
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const Dorefa *p = q->priv;
    const float B = p->bound;
    (void)acc;
    if (kw_idle_bwd(q, dy, dx, n) || !dx) return;
    SIMD_FOR(i, n) dx[i] = x[i] >= 0 && x[i] <= B ? dy[i] : 0;
}

static int act_steps(QInst *q, QuantForm *f, Err *e)
{
    const Dorefa *p = q->priv;
    (void)e;
    set_steps(q->priv);
    kw_clip_form(f, p->bound, p->steps);
    return 0;
}

/* ---- weights ---- */

static void view(float *w, size_t n)
{
    tanh_row(w, w, n);
}

static void measured(QInst *q)
{
    Dorefa *p = q->priv;
    double max = 0;
    set_steps(p);
    for (int g = 0; g < p->k.groups; g++) max = p->k.measure[g] > max ? p->k.measure[g] : max;
    p->max = (float)max;
    if (!(p->max > 0)) kw_fault(q, "all weights are 0; DoReFa divides by the largest");
}

static void row(const QInst *q, int group, const float *t, float *y, size_t n)
{
    const Dorefa *p = q->priv;
    const float m = 2 * p->max, s = p->steps;
    (void)group;
    SIMD_FOR(i, n) y[i] = 2 * (rintf((t[i] / m + 0.5f) * s) / s) - 1;
}

static void sum(const QInst *q, int group, const float *t, const float *g, size_t n, double acc[2])
{
    const Dorefa *p = q->priv;
    const float m = p->max;
    double dot = 0, peaks = 0;
    (void)group;
    PAR_PRAGMA_(omp simd reduction(+ : dot, peaks))
    for (size_t i = 0; i < n; i++) {
        dot += (double)g[i] * (double)t[i];
        peaks += fabsf(t[i]) == m ? 1 : 0;
    }
    acc[0] = dot, acc[1] = peaks;
}

static void summed(QInst *q, const double total[2])
{
    Dorefa *p = q->priv;
    p->peak = (float)(total[0] / ((double)p->max * (double)p->max) / total[1]);
}

static void row_bwd(const QInst *q, int group, const float *t, const float *g, float *dw, size_t n,
                    double *acc)
{
    const Dorefa *p = q->priv;
    const float m = p->max, peak = p->peak;
    (void)group, (void)acc;
    SIMD_FOR(i, n)
    {
        const float through_max = fabsf(t[i]) == m ? (t[i] < 0 ? -peak : peak) : 0;
        dw[i] = (g[i] / m - through_max) * (1 - t[i] * t[i]);
    }
}

static void bin_measured(QInst *q)
{
    Dorefa *p = q->priv;
    double all = 0;
    for (int g = 0; g < p->k.groups; g++) all += p->k.measure[g];
    p->scale = (float)(all / kw_weights(q));
}

static void bin_row(const QInst *q, int group, const float *w, float *y, size_t n)
{
    const float e = ((const Dorefa *)q->priv)->scale;
    (void)group;
    SIMD_FOR(i, n) y[i] = w[i] >= 0 ? e : w[i] < 0 ? -e : w[i]; /* NaN stays NaN */
}

static void bin_row_bwd(const QInst *q, int group, const float *w, const float *g, float *dw,
                        size_t n, double *acc)
{
    (void)q, (void)group, (void)w, (void)acc;
    SIMD_FOR(i, n) dw[i] = g[i];
}

static const KwWeight through_tanh = {.view = view,
                                      .measured = measured,
                                      .row = row,
                                      .sum = sum,
                                      .summed = summed,
                                      .row_bwd = row_bwd};
static const KwWeight binary = {.measured = bin_measured, .row = bin_row, .row_bwd = bin_row_bwd};

static int weight_init(QInst *q, ParamStore *ps, Err *e)
{
    Dorefa *p = q->priv;
    bool bin;
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    bin = q->opts->kw.wt_bin && p->k.levels == 2;
    p->k.fixed_levels = bin;
    p->k.weight = bin ? &binary : &through_tanh;
    p->k.needs = bin ? KW_ABS_SUM : KW_ABS_MAX;
    kw_add_gamma(q, ps);
    kw_use(q, q->fn);
    return 0;
}

#define ACT                                                                                        \
    .priv_size = sizeof(Dorefa), .init = act_init, .begin = act_begin, .row = act_row,             \
    .row_bwd = act_row_bwd, .form = kw_form, .set = kw_set, .set_text = kw_set_text,               \
    .pad_matters = kw_pad_counts, .release = kw_release

static const QFn act = {ACT};
static const QFn act_whole = {ACT, .need = kw_act_need, .forward = kw_act_forward,
                              .backward = kw_act_backward};

static int act_configure(QInst *q, Err *e)
{
    (void)e;
    kw_use(q, kw_act_is_whole(q->priv) ? &act_whole : &act);
    return 0;
}

const QKey kw_dorefa_weight_keys[] = {{.key = "wt_level"}, {.key = "wt_boundary"}, {.key = "wt_quant_group"}, {.key = "wt_gamma"}, {.key = "wt_bin"},
                                      KW_VAR_MEAN,  KW_STABLE,       KW_KEYS,            {0}};
static const QKey act_keys[] = {{.key = "fm_level"}, {.key = "fm_boundary"}, KW_STABLE, KW_KEYS, {0}};
static const QKey out_keys[] = {{.key = "ot_level"}, {.key = "ot_boundary"}, {.key = "ot_gamma"}, KW_STABLE, KW_KEYS, {0}};

const QFn kw_dorefa_weight = {
    .priv_size = sizeof(Dorefa),
    .init = weight_init,
    .need = kw_weight_need,
    .forward = kw_weight_forward,
    .backward = kw_weight_backward,
    .set = kw_set,
    .set_text = kw_set_text,
    .release = kw_release,
};

const QMethod quant_dorefa = {
    .name = "dorefa",
    .doc =
        "uniform levels below a fixed bound, weights through tanh; wt_bin: binary weights (DoReFa)",
    .role = {[Q_WEIGHT] = &kw_dorefa_weight, [Q_ACT] = &act, [Q_OUT] = &act},
    .keys = {[Q_WEIGHT] = kw_dorefa_weight_keys, [Q_ACT] = act_keys, [Q_OUT] = out_keys},
    .traits = QT_ZERO_FIXED,
    .unit_bits = kw_unit_bits,
};
