/* quant/pact.c -- PACT: activations clipped at a trained level; weights are DoReFa's.
 *
 * a = clip_val, n levels less one, round to even, backward through the rounding, a constant in it:
 * y  = round(v n / a) / (n / a),   v = min(max(x, 0), a)
 * dx = dy where 0 <= x < a, else 0;   da = sum of dy where max(x, 0) >= a
 *
 * Source: Choi et al. 2018, "PACT: Parameterized Clipping Activation for Quantized Neural
 * Networks"; aim-uofa/model-quantization, models/quant.py and dorefa.py. Differs: a level of 0 is a
 * fault instead of NaN; a negative one is followed literally (y = a) and warned about. See
 * docs/methods/pact.md. */
#include <math.h>

#include "engine/par.h"
#include "quant/form.h"
#include "quant/keyword.h"

typedef struct Pact {
    Keyword k;
    float clip, steps;
    bool warned;
} Pact;

static int act_configure(QInst *q, Err *e);
static int act_steps(QInst *q, QuantForm *f, Err *e);

static int act_init(QInst *q, ParamStore *ps, Err *e)
{
    Pact *p = q->priv;
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    p->k.groups = 1; /* one level whatever fm_quant_group says */
    p->k.configure = act_configure;
    p->k.steps = act_steps;
    kw_add_clip(q, ps);
    return act_configure(q, e);
}

static void act_begin(QInst *q, const QCtx *c)
{
    Pact *p = q->priv;
    kw_begin(q, c);
    if (p->k.passes || !kw_divisor(q, p->k.clip)) return;
    p->clip = param_scalar(p->k.clip);
    p->steps = p->k.n / p->clip;
    if (p->clip > 0 || p->warned) return;
    log_msg(LOG_WARN, "%s: the clip level has become negative (%g)", p->k.clip->name,
            (double)p->clip);
    p->warned = true;
}

static int act_steps(QInst *q, QuantForm *f, Err *e)
{
    const Pact *p = q->priv;
    (void)e;
    act_begin(q, &(QCtx){.phase = PH_EVAL});
    kw_clip_form(f, p->clip, p->steps);
    return 0;
}

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const Pact *p = q->priv;
    const float a = p->clip, s = p->steps;
    if (kw_idle(q, x, y, n)) return;
    SIMD_FOR(i, n)
    {
        float v = x[i] < 0 ? 0 : x[i]; /* NaN stays NaN */
        v = v >= a ? a : v;
        y[i] = rintf(v * s) / s;
    }
}

#define BLOCK 256 /* summed in float, then in double */

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const Pact *p = q->priv;
    const float a = p->clip;
    double total = 0;
    if (kw_idle_bwd(q, dy, dx, n)) return;
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t end = n - at < BLOCK ? n : at + BLOCK;
        float sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = at; i < end; i++) {
            const float v = x[i] > 0 ? x[i] : 0;
            sum += v >= a ? dy[i] : 0;
        }
        total += (double)sum;
        if (!dx) continue;
        PAR_PRAGMA_(omp simd)
        for (size_t i = at; i < end; i++) {
            const float v = x[i] > 0 ? x[i] : 0;
            dx[i] = x[i] >= 0 && v < a ? dy[i] : 0;
        }
    }
    acc[0] += total;
}

static void act_end(QInst *q, const double *acc)
{
    const Pact *p = q->priv;
    if (!q->fault && !p->k.passes) *(float *)p->k.clip->grad.data += (float)acc[0];
}

#define ACT                                                                                        \
    .priv_size = sizeof(Pact), .nacc = 1, .init = act_init, .begin = act_begin, .row = act_row,    \
    .row_bwd = act_row_bwd, .end = act_end, .form = kw_form, .set = kw_set,                        \
    .set_text = kw_set_text, .pad_matters = kw_pad_counts, .release = kw_release

static const QFn act = {ACT};
static const QFn act_whole = {ACT, .need = kw_act_need, .forward = kw_act_forward,
                              .backward = kw_act_backward};

static int act_configure(QInst *q, Err *e)
{
    (void)e;
    kw_use(q, kw_act_is_whole(q->priv) ? &act_whole : &act);
    return 0;
}

static const QKey act_keys[] = {
    {.key = "fm_level"}, {.key = "fm_boundary"}, {.key = "fm_correlate", .with = "stable"}, KW_STABLE, KW_KEYS, {0}};

const QMethod quant_pact = {
    .name = "pact",
    .doc = "uniform levels below a trained clip level, weights as dorefa (PACT)",
    .role = {[Q_WEIGHT] = &kw_dorefa_weight, [Q_ACT] = &act},
    .keys = {[Q_WEIGHT] = kw_dorefa_weight_keys, [Q_ACT] = act_keys},
    .traits = QT_ZERO_FIXED,
    .unit_bits = kw_unit_bits,
};
