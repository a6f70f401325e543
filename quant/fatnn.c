/* quant/fatnn.c -- FATNN: two to four levels between thresholds that are all trained; the result is
 * the level's number, not a value on the scale of the tensor.
 *
 * A_i = |alpha_i|, i < levels - 1; step i is v_i = clip((x - off_i) A_i, low_i, low_i + 1), and
 * y  = sum_i round(v_i), ties to even          (closed_form, activations: times `basis`)
 * half range   off_0 = 0, off_(i+1) = off_i + 1 / A_i, low_i = 0: 0, 1, 2, 3
 * full range   off_i = 0, low_0 = -1, low_1 = 0: -1, 0, 1; weights always
 * Backward passes through the roundings; with m_i = 1 where v_i is not clipped (ends included):
 * dx = dy sum_i f_i m_i A_i
 * dA_i = sum dy f_i m_i (x - off_i)  + half range: sum_(k>i) sum dy f_k m_k A_k / A_i^2
 *   f_i  grad_type STE-scale: sqrt(values / values inside step i), where at least 2; else 1
 * closed_form, in training: e = <x, y> / <y, y>, the mean of x where no level but 0 is taken; basis
 * becomes e, or with custom_update (basis t + e) / (t + 1), and counts as a constant in backward.
 *
 * Source: Chen et al. 2021, "FATNN: Fast and Accurate Ternary Neural Networks";
 * aim-uofa/model-quantization, models/quant.py, keyword non-uniform. Differs: an alpha of 0 is a
 * fault instead of NaN. See docs/methods/fatnn.md. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/par.h"
#include "quant/fatnn.h"
#include "quant/form.h"
#include "quant/stat.h"

#define BLOCK 256 /* summed in float, then in double */

KERNEL void map_n(int n, const Steps *s, const float *x, float *y, size_t len)
{
    const Steps t = *s;
    SIMD_FOR(i, len)
    {
        float sum = code((x[i] - t.off[0]) * t.a[0], t.low[0]);
        if (n > 1) sum += code((x[i] - t.off[1]) * t.a[1], t.low[1]);
        if (n > 2) sum += code((x[i] - t.off[2]) * t.a[2], t.low[2]);
        y[i] = sum;
    }
}

/* acc[i] += dA_i */
KERNEL void map_n_bwd(int n, const Steps *s, const float *x, const float *dy, float *dx, size_t len,
                      double *acc)
{
    const Steps t = *s;
    for (size_t at = 0; at < len; at += BLOCK) {
        const size_t end = len - at < BLOCK ? len : at + BLOCK;
        float s0 = 0, s1 = 0, s2 = 0;
        PAR_PRAGMA_(omp simd reduction(+ : s0, s1, s2))
        for (size_t i = at; i < end; i++) {
            const float v0 = x[i] - t.off[0], v1 = x[i] - t.off[1], v2 = x[i] - t.off[2];
            const float t0 = through(v0 * t.a[0], t.low[0], dy[i] * t.f[0]);
            const float t1 = n > 1 ? through(v1 * t.a[1], t.low[1], dy[i] * t.f[1]) : 0;
            const float t2 = n > 2 ? through(v2 * t.a[2], t.low[2], dy[i] * t.f[2]) : 0;
            s0 += t0 * v0 + (t1 * t.a[1] + t2 * t.a[2]) * t.inv[0];
            s1 += t1 * v1 + t2 * t.a[2] * t.inv[1];
            s2 += t2 * v2;
        }
        acc[0] += (double)s0;
        if (n > 1) acc[1] += (double)s1;
        if (n > 2) acc[2] += (double)s2;
        if (!dx) continue;
        PAR_PRAGMA_(omp simd)
        for (size_t i = at; i < end; i++) {
            const float g = dy[i];
            float d = through((x[i] - t.off[0]) * t.a[0], t.low[0], g * t.f[0]) * t.a[0];
            if (n > 1) d += through((x[i] - t.off[1]) * t.a[1], t.low[1], g * t.f[1]) * t.a[1];
            if (n > 2) d += through((x[i] - t.off[2]) * t.a[2], t.low[2], g * t.f[2]) * t.a[2];
            dx[i] = d;
        }
    }
}

static void map(int n, const Steps *s, const float *x, float *y, size_t len)
{
    if (n == 1)
        map_n(1, s, x, y, len);
    else if (n == 2)
        map_n(2, s, x, y, len);
    else
        map_n(3, s, x, y, len);
}

static void map_bwd(int n, const Steps *s, const float *x, const float *dy, float *dx, size_t len,
                    double *acc)
{
    if (n == 1)
        map_n_bwd(1, s, x, dy, dx, len, acc);
    else if (n == 2)
        map_n_bwd(2, s, x, dy, dx, len, acc);
    else
        map_n_bwd(3, s, x, dy, dx, len, acc);
}

/* ---- parameters ---- */

Steps fatnn_steps(const Fatnn *p, int group)
{
    Steps s = {.f = {1, 1, 1}};
    float off = 0;
    for (int i = 0; i < p->n; i++) {
        s.a[i] = fabsf(((const float *)p->alpha[i]->value.data)[group]);
        s.off[i] = p->half ? off : 0;
        s.low[i] = p->half || i ? 0 : -1;
        s.inv[i] = p->half ? 1 / (s.a[i] * s.a[i]) : 0;
        s.f[i] = p->f[i];
        off += 1 / s.a[i];
    }
    return s;
}

bool fatnn_usable(QInst *q)
{
    const Fatnn *p = q->priv;
    for (int i = 0; i < p->n; i++)
        if (!kw_divisor(q, p->alpha[i])) return false;
    return true;
}

/* dA_i of a group into the gradient of alpha_i. */
void fatnn_add_grads(const Fatnn *p, int group, const double *dA)
{
    for (int i = 0; i < p->n; i++) {
        const Param *alpha = p->alpha[i];
        const double sign = ((const float *)alpha->value.data)[group] < 0 ? -1 : 1;
        ((float *)alpha->grad.data)[group] += (float)(dA[i] * sign);
    }
}

/* Values whose step k is not clipped. */
static double inside_run(const Steps *t, int k, const float *x, size_t n)
{
    const float off = t->off[k], a = t->a[k], low = t->low[k];
    int count = 0;
    PAR_PRAGMA_(omp simd reduction(+ : count))
    for (size_t i = 0; i < n; i++) {
        const float u = (x[i] - off) * a;
        count += u >= low && u <= low + 1;
    }
    return count;
}

static int check(const QInst *q, Err *e)
{
    const Fatnn *p = q->priv;
    const char *tag = q->role == Q_WEIGHT ? "wt" : "fm";
    if (q->role == Q_WEIGHT && p->k.levels != 3)
        return err_set(e, ERR_CONFIG,
                       "%s: fatnn has 3 levels of weights, not %d; expected wt_level: 3", q->unit,
                       p->k.levels);
    if (p->k.levels > FATNN_STEPS + 1)
        return err_set(e, ERR_CONFIG,
                       "%s: fatnn has 2 to 4 levels, not %d; expected %s_level or %s_bit: 1 or 2",
                       q->unit, p->k.levels, tag, tag);
    if (!p->half && p->k.levels != 3)
        return err_set(e, ERR_CONFIG,
                       "%s: fatnn on both sides of 0 has 3 levels, not %d; expected fm_level: 3 or "
                       "fm_half_range: true",
                       q->unit, p->k.levels);
    if (q->role == Q_ACT && q->opts->kw.closed_form && p->k.groups > 1)
        return err_set(e, ERR_CONFIG,
                       "%s: closed_form has one group of channels, not %d; expected "
                       "fm_quant_group: 0 or 1",
                       q->unit, p->k.groups);
    return 0;
}

static int configure(QInst *q, Err *e);
static int steps(QInst *q, QuantForm *f, Err *e);

static int init(QInst *q, ParamStore *ps, Err *e)
{
    Fatnn *p = q->priv;
    char name[16];
    double start;
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    p->half = q->role == Q_ACT && p->k.tag.half_range;
    p->n = p->k.levels - 1;
    if (check(q, e)) return -1;
    p->k.fixed_levels = true;
    p->k.configure = configure;
    p->k.steps = steps;
    p->basis = 1;
    for (int i = 0; i < FATNN_STEPS; i++) p->f[i] = 1;
    if (q->role == Q_ACT) kw_add_idle_clip(q, ps); /* in checkpoints; the warm-up moves it */
    start = p->k.tag.scale;
    if (q->role == Q_ACT && p->k.tag.boundary > 0) start /= p->k.tag.boundary;
    for (int i = 0; i < p->n; i++) {
        snprintf(name, sizeof name, "alpha%d", i);
        p->alpha[i] = kw_add_param(q, ps, (float)start, name, true);
    }
    p->closed = q->role == Q_ACT && q->opts->kw.closed_form;
    if (p->closed) {
        p->k.counts = 2;
        p->k.basis = kw_add_state(q, ps, 1, "basis");
        p->auxil = kw_add_state(q, ps, 0, "auxil");
    }
    kw_add_gamma(q, ps);
    return configure(q, e);
}

/* ---- activations: rows ---- */

static void act_begin(QInst *q, const QCtx *c)
{
    Fatnn *p = q->priv;
    kw_begin(q, c);
    if (!p->k.passes && fatnn_usable(q)) p->one = fatnn_steps(p, 0);
}

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const Fatnn *p = q->priv;
    if (!kw_idle(q, x, y, n)) map(p->n, &p->one, x, y, n);
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const Fatnn *p = q->priv;
    if (!kw_idle_bwd(q, dy, dx, n)) map_bwd(p->n, &p->one, x, dy, dx, n, acc);
}

static void act_end(QInst *q, const double *acc)
{
    if (!q->fault) fatnn_add_grads(q->priv, 0, acc);
}

/* ---- activations with one group: STE-scale, warm-up, closed form ---- */

enum { X_Y, Y_Y, X, DOTS }; /* sums of the closed form */

static void whole_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    (void)q, (void)ph;
    *save = 0;
    *scratch = par_chunks(tensor_len(x)) * FATNN_STEPS * sizeof(double);
}

static void dots(const float *x, const float *y, size_t n, double *sum)
{
    double xy = 0, yy = 0, all = 0;
    PAR_PRAGMA_(omp simd reduction(+ : xy, yy, all))
    for (size_t i = 0; i < n; i++) {
        xy += (double)x[i] * (double)y[i];
        yy += (double)y[i] * (double)y[i];
        all += (double)x[i];
    }
    sum[X_Y] = xy, sum[Y_Y] = yy, sum[X] = all;
}

/* A step of the closed form. */
static void fit(QInst *q, const Tensor *x, double *sums)
{
    Fatnn *p = q->priv;
    const size_t n = tensor_len(x);
    const float *xs = x->data, t = kw_steps_before(&p->k);
    double all[DOTS] = {0};
    float e, b = *(const float *)p->k.basis->value.data;
    PARALLEL_FOR(i, par_chunks(n))
    {
        const size_t at = (size_t)i * PAR_CHUNK, len = par_chunk_len(n, (size_t)i);
        float y[PAR_CHUNK];
        map(p->n, &p->one, xs + at, y, len);
        dots(xs + at, y, len, sums + (size_t)i * DOTS);
    }
    for (size_t i = 0; i < par_chunks(n); i++)
        for (size_t k = 0; k < DOTS; k++) all[k] += sums[i * DOTS + k];
    e = (float)(all[Y_Y] != 0 ? all[X_Y] / all[Y_Y] : all[X] / (double)n);
    if (!isfinite(e)) {
        kw_fault(q, "values that are not finite; closed_form fits basis to them");
        return;
    }
    b = q->opts->kw.custom_update ? (b * t + e) / (t + 1) : e;
    *(float *)p->auxil->value.data = e;
    *(float *)p->k.basis->value.data = b;
    param_touch(p->k.basis);
}

static void whole_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Fatnn *p = q->priv;
    const size_t n = tensor_len(x);
    const bool fits = p->closed && c->phase == PH_TRAIN;
    const float *xs = x->data;
    float *ys = y->data, by;
    kw_begin(q, c);
    if (p->k.passes && c->phase == PH_TRAIN) kw_warm_clip(q, stat_absmax(xs, n));
    if ((!p->k.passes || fits) && fatnn_usable(q)) {
        for (int i = 0; i < FATNN_STEPS; i++) p->f[i] = 1;
        p->one = fatnn_steps(p, 0);
        if (fits) fit(q, x, c->scratch);
    }
    if (kw_idle(q, xs, ys, n)) return;
    by = p->basis = p->closed ? *(const float *)p->k.basis->value.data : 1;
    PARALLEL_FOR(i, par_chunks(n))
    {
        const size_t at = (size_t)i * PAR_CHUNK, len = par_chunk_len(n, (size_t)i);
        float *to = ys + at;
        map(p->n, &p->one, xs + at, to, len);
        if (p->closed) SIMD_FOR(k, len) to[k] *= by;
    }
}

static void count_inside(const Fatnn *p, const float *x, size_t n, double *sums, double *inside)
{
    PARALLEL_FOR(i, par_chunks(n))
    for (int k = 0; k < p->n; k++)
        sums[(size_t)i * FATNN_STEPS + (size_t)k] =
            inside_run(&p->one, k, x + (size_t)i * PAR_CHUNK, par_chunk_len(n, (size_t)i));
    for (int k = 0; k < p->n; k++) {
        inside[k] = 0;
        for (size_t i = 0; i < par_chunks(n); i++) inside[k] += sums[i * FATNN_STEPS + (size_t)k];
    }
}

static void whole_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    Fatnn *p = q->priv;
    const size_t n = tensor_len(x);
    const float *xs = x->data, *g = dy->data;
    float *d = dx ? dx->data : NULL;
    double *sums = c->scratch, inside[FATNN_STEPS], dA[FATNN_STEPS] = {0};
    if (kw_idle_bwd(q, g, d, n)) return;
    if (p->ste_scale) count_inside(p, xs, n, sums, inside);
    for (int i = 0; i < p->n; i++)
        p->one.f[i] = (p->ste_scale ? kw_inside_factor((double)n, inside[i]) : 1) * p->basis;
    memset(sums, 0, par_chunks(n) * FATNN_STEPS * sizeof *sums);
    PARALLEL_FOR(i, par_chunks(n))
    {
        const size_t at = (size_t)i * PAR_CHUNK;
        map_bwd(p->n, &p->one, xs + at, g + at, d ? d + at : NULL, par_chunk_len(n, (size_t)i),
                sums + (size_t)i * FATNN_STEPS);
    }
    for (size_t i = 0; i < par_chunks(n); i++)
        for (int k = 0; k < p->n; k++) dA[k] += sums[i * FATNN_STEPS + (size_t)k];
    fatnn_add_grads(p, 0, dA);
}

/* ---- activations in float operations ---- */

typedef struct Step {
    float off, a, low;
} Step;

static bool is_up(const void *arg, float x)
{
    const Step *s = arg;
    return code((x - s->off) * s->a, s->low) > s->low;
}

/* Steps stand one behind the other, so their sum is a level between thresholds. */
static int steps(QInst *q, QuantForm *f, Err *e)
{
    const Fatnn *p = q->priv;
    const int L = p->k.levels, G = p->k.groups;
    const float by = p->closed ? param_scalar(p->k.basis) : 1;
    float *t = arena_alloc(f->arena, (size_t)L * (size_t)G * sizeof *t),
          *y = arena_alloc(f->arena, (size_t)L * (size_t)G * sizeof *y);
    (void)e;
    if (!fatnn_usable(q)) return 0;
    for (int g = 0; g < G; g++) {
        const Steps s = fatnn_steps(p, g);
        for (int k = 0; k < L; k++) {
            const Step step = {s.off[k ? k - 1 : 0], s.a[k ? k - 1 : 0], s.low[k ? k - 1 : 0]};
            t[k * G + g] = k ? form_smallest(is_up, &step) : 0;
            y[k * G + g] = (s.low[0] + (float)k) * by;
        }
    }
    form_levels(f, L, false, G, t, y);
    return 0;
}

/* ---- weights ---- */

static void row(const QInst *q, int group, const float *w, float *y, size_t n)
{
    const Steps s = fatnn_steps(q->priv, group);
    map(2, &s, w, y, n);
}

static void measured(QInst *q)
{
    fatnn_usable(q);
}

static void sum(const QInst *q, int group, const float *w, const float *g, size_t n, double acc[2])
{
    const Steps s = fatnn_steps(q->priv, group);
    (void)g;
    for (int k = 0; k < 2; k++) acc[k] = inside_run(&s, k, w, n);
}

static void summed(QInst *q, const double total[2])
{
    Fatnn *p = q->priv;
    for (int k = 0; k < 2; k++) p->f[k] = kw_inside_factor(kw_weights(q), total[k]);
}

static void row_bwd(const QInst *q, int group, const float *w, const float *g, float *dw, size_t n,
                    double *acc)
{
    const Steps s = fatnn_steps(q->priv, group);
    map_bwd(2, &s, w, g, dw, n, acc);
}

static void end(QInst *q, const double *acc)
{
    const Fatnn *p = q->priv;
    for (int g = 0; g < p->k.groups; g++) fatnn_add_grads(p, g, acc + 2 * g);
}

static const KwWeight plain = {
    .nacc = 2, .measured = measured, .row = row, .row_bwd = row_bwd, .end = end};
static const KwWeight scaled = {.nacc = 2,
                                .measured = measured,
                                .row = row,
                                .sum = sum,
                                .summed = summed,
                                .row_bwd = row_bwd,
                                .end = end};

/* ---- the method ---- */

/* A sum over the map that zeros are counted in. */
static bool pad_matters(const QInst *q)
{
    const Fatnn *p = q->priv;
    return p->ste_scale || p->closed || kw_pad_counts(q);
}

#define COMMON                                                                                     \
    .priv_size = sizeof(Fatnn), .init = init, .set = kw_set, .set_text = kw_set_text,              \
    .release = kw_release
#define ACT COMMON, .form = kw_form, .pad_matters = pad_matters

static const QFn act = {
    ACT,           .nacc = FATNN_STEPS, .begin = act_begin, .row = act_row, .row_bwd = act_row_bwd,
    .end = act_end};

static const QFn act_whole = {ACT, .need = whole_need, .forward = whole_forward,
                              .backward = whole_backward};

static const QFn act_groups = {ACT, .need = fatnn_groups_need, .forward = fatnn_groups_forward,
                               .backward = fatnn_groups_backward};

static const QFn weight = {COMMON, .need = kw_weight_need, .forward = kw_weight_forward,
                           .backward = kw_weight_backward};

static int configure(QInst *q, Err *e)
{
    Fatnn *p = q->priv;
    const KwTag *o = &p->k.tag;
    p->half = q->role == Q_ACT && o->half_range;
    p->ste_scale = str_eq(o->grad_type, "STE-scale");
    if (check(q, e)) return -1;
    for (int i = 0; i < FATNN_STEPS; i++) p->f[i] = 1;
    p->k.weight = p->ste_scale ? &scaled : &plain;
    if (q->role == Q_WEIGHT)
        kw_use(q, &weight);
    else
        kw_use(q, p->k.groups > 1                                       ? &act_groups
                  : kw_act_is_whole(&p->k) || p->ste_scale || p->closed ? &act_whole
                                                                        : &act);
    return 0;
}

#define TAG_KEYS(tag)                                                                              \
    {.key = tag "_level"}, {.key = tag "_quant_group"}, {.key = tag "_grad_type", .value = "STE-scale"}, {.key = tag "_scale"}, KW_STABLE, KW_KEYS

static const QKey weight_keys[] = {TAG_KEYS("wt"), KW_VAR_MEAN, {.key = "wt_gamma"}, {0}};
static const QKey act_keys[] = {TAG_KEYS("fm"),   {.key = "fm_boundary"}, {.key = "fm_half_range"},
                                {.key = "closed_form"},  {.key = "custom_update", .with = "closed_form"}, {0}};

const QMethod quant_fatnn = {
    .name = "fatnn",
    .alias = "non-uniform",
    .doc = "two to four levels between trained thresholds, as whole numbers (FATNN)",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .keys = {[Q_WEIGHT] = weight_keys, [Q_ACT] = act_keys},
    .traits = QT_ZERO_FIXED,
    .unit_bits = kw_unit_bits,
};
