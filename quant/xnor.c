/* quant/xnor.c -- XNOR: the sign of a weight or an activation times a mean magnitude; XNOR++ with
 * gamma.
 *
 * Activations   y = E (x < 0 ? -1 : 1);  E by fm_custom: 1 (none), the mean of |x| over the
 *               channels of a pixel (channel) or over the map of a channel (resolution), per image
 *               dx = dy (none), dy where |x| < 1 (STE), dy max(0, 2 - 2 |x|) (Triangle)
 * Weights       y = E_k (w' < 0 ? -1 : 1), E_k = mean |w'| of the group
 *               dw' = dy, or dy where |w'| < 1 (STE)
 *
 * E is no factor of the gradient.
 *
 * Source: Rastegari et al. 2016, "XNOR-Net"; Bulat, Tzimiropoulos 2019, "XNOR-Net++";
 * aim-uofa/model-quantization, models/xnor.py. Differs: there is no warm-up (the original's never
 * ends). See docs/methods/xnor.md. */
#include <math.h>
#include <string.h>

#include "engine/par.h"
#include "quant/form.h"
#include "quant/keyword.h"

typedef enum Slope { SLOPE_ONE, SLOPE_STE, SLOPE_TRIANGLE } Slope;

typedef struct Xnor {
    Keyword k;
    Slope slope;
    bool by_channel; /* E of each channel; else of each pixel */
} Xnor;

static const KwWeight signs;
static int configure(QInst *q, Err *e);
static int steps(QInst *q, QuantForm *f, Err *e);

static int init(QInst *q, ParamStore *ps, Err *e)
{
    Xnor *p = q->priv;
    if (q->bits != 32 && q->bits != 1)
        return err_set(e, ERR_CONFIG, "%s: xnor has 1 bit or 32, not %d", q->unit, q->bits);
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    p->k.fixed_levels = true;
    p->k.configure = configure;
    p->k.steps = steps;
    p->k.weight = &signs;
    p->k.needs = KW_ABS_SUM;
    p->by_channel = str_eq(q->opts->kw.fm_custom, "resolution");
    kw_add_gamma(q, ps);
    return configure(q, e);
}

/* Activations have an E of their own. */
static bool is_scaled(const QInst *q)
{
    return ((const Xnor *)q->priv)->by_channel || str_eq(q->opts->kw.fm_custom, "channel");
}

static inline float sign_of(float x)
{
    return x < 0 ? -1 : x >= 0 ? 1 : x; /* NaN stays NaN */
}

static void slope_row(Slope s, const float *x, const float *dy, float *dx, size_t n)
{
    if (s == SLOPE_STE)
        SIMD_FOR(i, n) dx[i] = fabsf(x[i]) < 1 ? dy[i] : 0;
    else if (s == SLOPE_TRIANGLE)
        SIMD_FOR(i, n) dx[i] = fabsf(x[i]) < 1 ? dy[i] * (2 - 2 * fabsf(x[i])) : 0;
    else if (dx != dy)
        memcpy(dx, dy, n * sizeof *dx);
}

/* ---- activations ---- */

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    (void)q;
    SIMD_FOR(i, n) y[i] = sign_of(x[i]);
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    (void)acc;
    if (dx) slope_row(((const Xnor *)q->priv)->slope, x, dy, dx, n);
}

/* One pixel: c channels beside each other. */
static void scale_pixel(const float *x, float *y, size_t c)
{
    double sum = 0;
    float e;
    PAR_PRAGMA_(omp simd reduction(+ : sum))
    for (size_t k = 0; k < c; k++) sum += (double)fabsf(x[k]);
    e = (float)(sum / (double)c);
    SIMD_FOR(k, c) y[k] = e * sign_of(x[k]);
}

/* One image of `area` pixels; sum: c doubles. */
static void scale_channels(const float *x, float *y, size_t area, size_t c, double *sum)
{
    memset(sum, 0, c * sizeof *sum);
    for (size_t i = 0; i < area; i++) SIMD_FOR(k, c) sum[k] += (double)fabsf(x[i * c + k]);
    for (size_t i = 0; i < area; i++)
        SIMD_FOR(k, c) y[i * c + k] = (float)(sum[k] / (double)area) * sign_of(x[i * c + k]);
}

static void act_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    (void)q, (void)ph;
    *save = 0;
    *scratch = (size_t)x->dim[0] * kw_rows(x).c * sizeof(double);
}

static void act_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const size_t ch = kw_rows(x).c, rows = tensor_len(x) / ch, images = (size_t)x->dim[0];
    const float *xs = x->data;
    float *ys = y->data;
    double *sums = c->scratch;
    kw_begin(q, c);
    if (!((const Xnor *)q->priv)->by_channel) {
        PARALLEL_FOR(i, rows) scale_pixel(xs + (size_t)i * ch, ys + (size_t)i * ch, ch);
        return;
    }
    PARALLEL_FOR(i, images)
    {
        const size_t at = (size_t)i * (rows / images) * ch;
        scale_channels(xs + at, ys + at, rows / images, ch, sums + (size_t)i * ch);
    }
}

/* E is a mean of another order: its last bits may differ. */
static int steps(QInst *q, QuantForm *f, Err *e)
{
    static const float from[] = {0, 0}, to[] = {-1, 1};
    const bool by_channel = ((const Xnor *)q->priv)->by_channel;
    const int sign = form_levels(f, 2, false, 1, from, to);
    int size;
    (void)e;
    if (!is_scaled(q)) return 0;
    size = form_of(f, FORM_ABS, 0, -1);
    form_of(f, FORM_MUL, form_mean(f, by_channel ? FORM_MAP : FORM_PIXEL, size), sign);
    return 0;
}

/* ---- weights ---- */

static void measured(QInst *q)
{
    Xnor *p = q->priv;
    const double n = kw_weights(q) / p->k.groups;
    for (int g = 0; g < p->k.groups; g++) p->k.measure[g] /= n; /* now E of the group */
}

static void row(const QInst *q, int group, const float *w, float *y, size_t n)
{
    const float e = (float)((const Keyword *)q->priv)->measure[group];
    SIMD_FOR(i, n) y[i] = e * sign_of(w[i]);
}

static void row_bwd(const QInst *q, int group, const float *w, const float *g, float *dw, size_t n,
                    double *acc)
{
    (void)group, (void)acc;
    slope_row(((const Xnor *)q->priv)->slope, w, g, dw, n);
}

static const KwWeight signs = {.measured = measured, .row = row, .row_bwd = row_bwd};

/* ---- the method ---- */

/* 0 becomes +1, or +E. Around a map padded first, E of a pixel is 0. */
static bool pad_matters(const QInst *q)
{
    return !str_eq(q->opts->kw.fm_custom, "channel") || kw_pad_counts(q);
}

#define COMMON                                                                                     \
    .priv_size = sizeof(Xnor), .init = init, .set = kw_set, .set_text = kw_set_text,               \
    .release = kw_release

#define ACT                                                                                        \
    COMMON, .row = act_row, .row_bwd = act_row_bwd, .form = kw_form, .pad_matters = pad_matters

static const QFn act = {ACT, .begin = kw_begin};
static const QFn act_scaled = {ACT, .need = act_need, .forward = act_forward};
static const QFn weight = {COMMON, .need = kw_weight_need, .forward = kw_weight_forward,
                           .backward = kw_weight_backward};

static int configure(QInst *q, Err *e)
{
    static const char *const slopes[] = {"none", "STE", "Triangle"};
    Xnor *p = q->priv;
    (void)e;
    p->k.stable = 0;
    p->slope = SLOPE_ONE;
    for (size_t i = 0; i < ARRAY_LEN(slopes); i++)
        if (str_eq(p->k.o->grad_type, slopes[i])) p->slope = (Slope)i;
    kw_use(q, q->role == Q_WEIGHT ? &weight : is_scaled(q) ? &act_scaled : &act);
    return 0;
}

static const QKey weight_keys[] = {{.key = "wt_quant_group"}, {.key = "wt_grad_type", .value = "STE"}, {.key = "wt_gamma"}, KW_VAR_MEAN, KW_KEYS, {0}};
static const QKey act_keys[] = {
    {.key = "fm_grad_type", .value = "STE"}, {.key = "fm_grad_type", .value = "Triangle"}, {.key = "fm_custom"}, KW_KEYS, {0}};

const QMethod quant_xnor = {
    .name = "xnor",
    .doc = "signs times a mean magnitude (XNOR-Net); wt_gamma: with a trained factor (XNOR-Net++)",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .keys = {[Q_WEIGHT] = weight_keys, [Q_ACT] = act_keys},
    .unit_bits = kw_unit_bits,
};
