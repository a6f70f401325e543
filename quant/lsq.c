/* quant/lsq.c -- LSQ: uniform levels over a learned range, for weights and activations alike.
 *
 * C = |clip_val|, n levels less one, round to even, backward through the rounding:
 * half range   v = clip(x / C, 0, 1),  r = round(v n) / n                     activations
 * full range   v = clip(x / C, -1, 1), r = 2 round((v + 1) / 2 n) / n - 1     weights
 * y = r C;  with m = 1 where v is not clipped (ends included):
 * dx = f dy m,  dC = sum over the group of dy (r - f m x / C),  dclip = dC sign(clip_val) factor
 *   f       grad_type STE-scale: sqrt(values / values inside), where at least 2; else 1
 *   factor  grad_scale: s sqrt(fan), s / sqrt(fan), s sqrt(N), s / sqrt(N), s = scale, N = values
 * in a group (activations: of the batch); a factor in [1, 2) counts as 1. Of a grouped
 * convolution's weights both count all input channels of the layer.
 *
 * Source: Esser et al. 2019, "Learned Step Size Quantization", with the range in place of the step;
 * aim-uofa/model-quantization, models/quant.py. Differs: N of activations is what the maps of the
 * batch really have (fm_map_values sets another); a clip_val of 0 is a fault instead of NaN. See
 * docs/methods/lsq.md. */
#include <math.h>
#include <string.h>

#include "engine/par.h"
#include "quant/form.h"
#include "quant/keyword.h"
#include "quant/stat.h"

typedef struct Lsq {
    Keyword k;
    bool half, ste_scale;
    float clip; /* of one group: magnitude */
    float f;    /* STE-scale */
} Lsq;

#define KERNEL static inline __attribute__((always_inline))
#define BLOCK  256 /* summed in float, then in double */

/* r of v; NaN stays NaN through `clipped`. */
KERNEL float level(bool half, float n, float v)
{
    return half ? rintf(v * n) / n : 2 * rintf((v + 1) / 2 * n) / n - 1;
}

KERNEL float clipped(bool half, float u)
{
    const float low = half ? 0 : -1;
    u = u < low ? low : u;
    return u > 1 ? 1 : u;
}

KERNEL void map(bool half, float n, float C, const float *x, float *y, size_t len)
{
    SIMD_FOR(i, len) y[i] = level(half, n, clipped(half, x[i] / C)) * C;
}

/* Returns dC of the row. */
KERNEL double map_bwd(bool half, float n, float C, float f, const float *x, const float *dy,
                      float *dx, size_t len)
{
    const float low = half ? 0 : -1;
    double total = 0;
    for (size_t at = 0; at < len; at += BLOCK) {
        const size_t end = len - at < BLOCK ? len : at + BLOCK;
        float sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = at; i < end; i++) {
            const float u = x[i] / C;
            sum += dy[i] * (level(half, n, clipped(half, u)) - (u >= low && u <= 1 ? f * u : 0));
        }
        total += (double)sum;
        if (!dx) continue;
        PAR_PRAGMA_(omp simd)
        for (size_t i = at; i < end; i++) {
            const float u = x[i] / C;
            dx[i] = u >= low && u <= 1 ? f * dy[i] : 0;
        }
    }
    return total;
}

/* The factor on gradients of clip_val: N values in a group. */
static double grad_factor(const QInst *q, double N)
{
    const KwTag *o = ((const Lsq *)q->priv)->k.o;
    const bool linear = q->role == Q_WEIGHT && q->ndim == 2;
    double fan = 1, f;
    if (str_eq(o->grad_scale, "none")) return 1;
    for (int i = q->role == Q_WEIGHT && !linear; i < q->ndim; i++) fan *= q->shape[i];
    if (q->role != Q_WEIGHT)
        fan = q->shape[0];
    else
        fan *= q->conv_groups, N *= q->conv_groups;
    f = sqrt(strstr(o->grad_scale, "fan") ? fan : floor(N));
    f = str_starts(o->grad_scale, "scale-") ? o->scale / f : o->scale * f;
    return floor(f) == 1 ? 1 : f;
}

static void add_clip_grad(QInst *q, int group, double dC, double N)
{
    const Keyword *k = q->priv;
    const Param *clip = k->clip;
    const double sign = ((const float *)clip->value.data)[group] < 0 ? -1 : 1;
    if (q->role == Q_ACT && q->opts->kw.fm_map_values > 0)
        N = (double)(q->shape[0] / k->groups) * q->opts->kw.fm_map_values;
    ((float *)clip->grad.data)[group] += (float)(dC * sign * grad_factor(q, N));
}

static float magnitude(const Lsq *p, int group)
{
    return fabsf(((const float *)p->k.clip->value.data)[group]);
}

static int configure(QInst *q, Err *e);
static int steps(QInst *q, QuantForm *f, Err *e);

static int init(QInst *q, ParamStore *ps, Err *e)
{
    Lsq *p = q->priv;
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    p->k.configure = configure;
    p->k.steps = steps;
    kw_add_clip(q, ps);
    kw_add_gamma(q, ps);
    return configure(q, e);
}

/* ---- activations with one clip level: rows ---- */

static void act_begin(QInst *q, const QCtx *c)
{
    Lsq *p = q->priv;
    kw_begin(q, c);
    if (!p->k.passes && kw_divisor(q, p->k.clip)) p->clip = magnitude(p, 0);
}

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const Lsq *p = q->priv;
    if (kw_idle(q, x, y, n)) return;
    if (p->half)
        map(true, p->k.n, p->clip, x, y, n);
    else
        map(false, p->k.n, p->clip, x, y, n);
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const Lsq *p = q->priv;
    if (kw_idle_bwd(q, dy, dx, n)) return;
    acc[0] += p->half ? map_bwd(true, p->k.n, p->clip, 1, x, dy, dx, n)
                      : map_bwd(false, p->k.n, p->clip, 1, x, dy, dx, n);
    acc[1] += (double)n;
}

static void act_end(QInst *q, const double *acc)
{
    if (!q->fault) add_clip_grad(q, 0, acc[0], acc[1]);
}

/* ---- activations with a clip level for each group of channels, STE-scale, gamma, warm-up ----
 * Values stand channel by channel: one row is one pixel of a map, or one sample of a linear layer.
 */

static int group_of(const Keyword *k, const KwRows *r, size_t channel)
{
    return (int)(channel * (size_t)k->groups / r->c);
}

/* Sums of one part, each for every channel: dC, dgamma. */
enum { SUMS = 2 };

static void whole_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    const KwRows r = kw_rows(x);
    (void)q, (void)ph;
    *save = 2 * r.c * sizeof(float); /* of each channel: C, gamma */
    *scratch = STAT_PARTS * SUMS * r.c * sizeof(double);
}

static void whole_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Lsq *p = q->priv;
    const KwRows r = kw_rows(x);
    const bool half = p->half;
    const float *xs = x->data, n = p->k.n;
    float *ys = y->data, *C = c->save, *gamma = C + r.c;
    kw_begin(q, c);
    if (p->k.passes && c->phase == PH_TRAIN) kw_warm_clip(q, stat_absmax(xs, r.n * r.c));
    if (!p->k.passes) kw_divisor(q, p->k.clip);
    if (kw_idle(q, xs, ys, r.n * r.c)) return;
    for (size_t k = 0; k < r.c; k++) {
        C[k] = magnitude(p, group_of(&p->k, &r, k));
        gamma[k] = p->k.gamma ? ((const float *)p->k.gamma->value.data)[group_of(&p->k, &r, k)] : 1;
    }
    PARALLEL_FOR(i, r.n)
    {
        const float *xr = xs + (size_t)i * r.c;
        float *yr = ys + (size_t)i * r.c;
        SIMD_FOR(k, r.c) yr[k] = level(half, n, clipped(half, xr[k] / C[k])) * C[k] * gamma[k];
    }
}

static double count_inside(const Lsq *p, const float *x, const float *C, const KwRows *r)
{
    const float low = p->half ? 0 : -1;
    double part[STAT_PARTS], all = 0;
    PARALLEL_FOR(s, STAT_PARTS)
    {
        const StatSpan span = stat_split(r->n, (size_t)s);
        size_t inside = 0;
        for (size_t i = span.from; i < span.to; i++)
            for (size_t k = 0; k < r->c; k++) {
                const float u = x[i * r->c + k] / C[k];
                inside += u >= low && u <= 1;
            }
        part[s] = (double)inside;
    }
    for (int s = 0; s < STAT_PARTS; s++) all += part[s];
    return all;
}

static void whole_rows_bwd(const Lsq *p, const KwRows *r, StatSpan span, const float *x,
                           const float *dy, float *dx, const float *C, double *sum)
{
    const float *gamma = C + r->c, n = p->k.n, f = p->f, low = p->half ? 0 : -1;
    const bool half = p->half;
    double *dC = sum, *dgamma = sum + r->c;
    memset(sum, 0, SUMS * r->c * sizeof *sum);
    for (size_t i = span.from; i < span.to; i++) {
        const float *xr = x + i * r->c, *gr = dy + i * r->c;
        float *dr = dx ? dx + i * r->c : NULL;
        SIMD_FOR(k, r->c)
        {
            const float u = xr[k] / C[k], l = level(half, n, clipped(half, u));
            const float g = gr[k] * gamma[k];
            dgamma[k] += (double)(gr[k] * (l * C[k]));
            dC[k] += (double)(g * (l - (u >= low && u <= 1 ? f * u : 0)));
        }
        if (!dr) continue;
        SIMD_FOR(k, r->c)
        {
            const float u = xr[k] / C[k];
            dr[k] = u >= low && u <= 1 ? f * (gr[k] * gamma[k]) : 0;
        }
    }
}

static void whole_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    Lsq *p = q->priv;
    const KwRows r = kw_rows(x);
    const float *xs = x->data, *g = dy->data, *C = c->save;
    float *d = dx ? dx->data : NULL;
    double *sums = c->scratch;
    if (kw_idle_bwd(q, g, d, r.n * r.c)) return;
    if (p->ste_scale) p->f = kw_inside_factor((double)(r.n * r.c), count_inside(p, xs, C, &r));
    PARALLEL_FOR(s, STAT_PARTS)
    whole_rows_bwd(p, &r, stat_split(r.n, (size_t)s), xs, g, d, C, sums + (size_t)s * SUMS * r.c);
    for (int group = 0; group < p->k.groups; group++) {
        double dC = 0, dgamma = 0;
        for (size_t s = 0; s < STAT_PARTS; s++)
            for (size_t k = 0; k < r.c; k++) {
                if (group_of(&p->k, &r, k) != group) continue;
                dC += sums[s * SUMS * r.c + k];
                dgamma += sums[s * SUMS * r.c + r.c + k];
            }
        add_clip_grad(q, group, dC, (double)(r.n * r.c) / p->k.groups);
        if (p->k.gamma) ((float *)p->k.gamma->grad.data)[group] += (float)dgamma;
    }
}

/* `level` of `clipped`, between a division by C and a multiplication. */
static int steps(QInst *q, QuantForm *f, Err *e)
{
    const Lsq *p = q->priv;
    const int G = p->k.groups;
    float *C = arena_alloc(f->arena, (size_t)G * sizeof *C);
    (void)e;
    kw_divisor(q, p->k.clip);
    for (int g = 0; g < G; g++) C[g] = magnitude(p, g);
    form_by_group(f, FORM_DIV, G, C);
    form_step(f, FORM_MAX, p->half ? 0 : -1);
    form_step(f, FORM_MIN, 1);
    if (!p->half) {
        form_step(f, FORM_ADD, 1);
        form_step(f, FORM_DIV, 2);
    }
    form_step(f, FORM_MUL, p->k.n);
    form_step(f, FORM_ROUND, 0);
    if (!p->half) form_step(f, FORM_MUL, 2);
    form_step(f, FORM_DIV, p->k.n);
    if (!p->half) form_step(f, FORM_ADD, -1);
    form_by_group(f, FORM_MUL, G, C);
    return 0;
}

/* ---- weights ---- */

static void row(const QInst *q, int group, const float *w, float *y, size_t n)
{
    const Lsq *p = q->priv;
    map(false, p->k.n, magnitude(p, group), w, y, n);
}

static void sum(const QInst *q, int group, const float *w, const float *g, size_t n, double acc[2])
{
    const float C = magnitude(q->priv, group);
    double inside = 0;
    (void)g;
    PAR_PRAGMA_(omp simd reduction(+ : inside))
    for (size_t i = 0; i < n; i++) inside += fabsf(w[i] / C) <= 1 ? 1 : 0;
    acc[0] = inside, acc[1] = (double)n;
}

static void summed(QInst *q, const double total[2])
{
    ((Lsq *)q->priv)->f = kw_inside_factor(total[1], total[0]);
}

static void row_bwd(const QInst *q, int group, const float *w, const float *g, float *dw, size_t n,
                    double *acc)
{
    const Lsq *p = q->priv;
    *acc += map_bwd(false, p->k.n, magnitude(p, group), p->f, w, g, dw, n);
}

static void end(QInst *q, const double *acc)
{
    const Lsq *p = q->priv;
    const double n = kw_weights(q) / p->k.groups;
    for (int g = 0; g < p->k.groups; g++) add_clip_grad(q, g, acc[g], n);
}

static const KwWeight plain = {.row = row, .row_bwd = row_bwd, .end = end};
static const KwWeight scaled = {
    .row = row, .sum = sum, .summed = summed, .row_bwd = row_bwd, .end = end};

/* ---- the method ---- */

/* In the full range 0 lies between two levels where their number is even; STE-scale counts zeros.
 */
static bool pad_matters(const QInst *q)
{
    const Lsq *p = q->priv;
    return p->ste_scale || (!p->half && p->k.levels % 2 == 0) || kw_pad_counts(q);
}

#define COMMON                                                                                     \
    .priv_size = sizeof(Lsq), .init = init, .set = kw_set, .set_text = kw_set_text,                \
    .release = kw_release

static const QFn act = {COMMON,
                        .nacc = 2,
                        .begin = act_begin,
                        .row = act_row,
                        .row_bwd = act_row_bwd,
                        .end = act_end,
                        .form = kw_form,
                        .pad_matters = pad_matters};

static const QFn act_whole = {COMMON,
                              .need = whole_need,
                              .forward = whole_forward,
                              .backward = whole_backward,
                              .form = kw_form,
                              .pad_matters = pad_matters};

static const QFn weight = {COMMON, .need = kw_weight_need, .forward = kw_weight_forward,
                           .backward = kw_weight_backward};

static int configure(QInst *q, Err *e)
{
    Lsq *p = q->priv;
    (void)e;
    p->half = q->role != Q_WEIGHT && p->k.o->half_range;
    p->ste_scale = str_eq(p->k.o->grad_type, "STE-scale");
    p->f = 1;
    p->k.by_level_num = true;
    p->k.weight = p->ste_scale ? &scaled : &plain;
    if (q->role == Q_WEIGHT)
        kw_use(q, &weight);
    else
        kw_use(q, kw_act_is_whole(&p->k) || p->k.groups > 1 || p->ste_scale ? &act_whole : &act);
    return 0;
}

/* Of any tensor, by the prefix of its keys. */
#define TAG_KEYS(tag)                                                                              \
    {.key = tag "_level"}, {.key = tag "_boundary"}, {.key = tag "_quant_group"}, {.key = tag "_grad_type", .value = "STE-scale"},      \
        {.key = tag "_grad_scale"}, {.key = tag "_scale", .with = tag "_grad_scale"},                            \
        {.key = tag "_correlate", .with = "stable"}, KW_STABLE, KW_KEYS

static const QKey weight_keys[] = {TAG_KEYS("wt"), KW_VAR_MEAN, {.key = "wt_gamma"}, {0}};
static const QKey act_keys[] = {TAG_KEYS("fm"), {.key = "fm_half_range"}, {.key = "fm_map_values"}, {0}};
static const QKey out_keys[] = {TAG_KEYS("ot"), {.key = "ot_half_range"}, {.key = "ot_gamma"}, {0}};

const QMethod quant_lsq = {
    .name = "lsq",
    .doc = "uniform levels over a learned range, of weights and activations (LSQ)",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act, [Q_OUT] = &act},
    .keys = {[Q_WEIGHT] = weight_keys, [Q_ACT] = act_keys, [Q_OUT] = out_keys},
    .unit_bits = kw_unit_bits,
};
