/* quant/apot.c -- additive powers of two: levels that are sums of a few powers of two, clip levels
 * are learned, weights are normalised first.
 *
 * P: the nearest level, or round(u * L) / L for `power: false`.
 *
 * Activations   u = x / a;   y = a * P(u clipped)
 *               da = sum of dy * (P - u) inside the clip, dy * P outside;   dx = dy inside, else 0
 *   cifar             clipped to u <= 1 only
 *   imagenet, mnist   clipped to 0 <= u <= 1
 *
 * Weights       wn = (w - mean) / std;   v = wn / a;   y = a * sign(v) * P(min(|v|, 1))
 *               2 bits: P = round in every variant
 *   cifar             dv is not masked; mean and std are constants in backward
 *   imagenet, mnist   dv masked outside [-1, 1] except at 2 bits ("calibrated gradient"); backward
 *                     goes through mean and std: with G the gradient to wn,
 *                     dw = (G - mean(G) - wn * sum(G * wn) / (n - 1)) / std
 *
 * Source: Li, Dong, Wang 2020, "Additive Powers-of-Two Quantization"; yhhhli/APoT_Quantization,
 * quant_layer.py of the folders CIFAR10, ImageNet and MNIST, whose rules differ as listed.
 * Differs from the code: constant weights and a clip level of 0 are faults instead of NaN; widths
 * without a level set are refused. See docs/methods/apot.md. */
#include "quant/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "quant/grid.h"
#include "quant/stat.h"

typedef struct Variant {
    const char *name;
    const char *weight_alpha; /* name of the weights' clip level */
    float act_init, weight_init;
    bool clip_below;   /* activations below 0 are clipped and get no gradient */
    bool mask_weights; /* no gradient beyond the clip, above 2 bits */
    bool through_norm; /* backward goes through mean and std */
    bool grad_scale;   /* honours QOpts.grad_scale */
    bool at_32;        /* the clip levels exist, unused, at 32 bits */
    int weight_max_bits;
} Variant;

// clang-format off
static const Variant variants[] = {
    { "cifar",    "weight_quant.wgt_alpha", 8, 3, false, false, false, false, false, 5 },
    { "imagenet", "weight_alpha",           6, 3, true,  true,  true,  true,  true,  8 },
    { "mnist",    "weight_alpha",           6, 3, true,  true,  true,  true,  true,  8 },
};
// clang-format on

#define MAX_BITS      8
#define MAX_APOT_BITS 6

typedef struct Apot {
    Grid grid;
    const Variant *variant;
    bool warned;            /* about a negative clip level */
    bool normalize, masked; /* weights */
    float mean, std;        /* weights: as the last forward found them */
    char fault[320];
} Apot;

/* The part common to both roles: variant, bits, level set (weights have one bit less for
 * magnitudes). */
static int init(QInst *q, int max_bits, GridRange range, float alpha_init, const char *alpha_name,
                ParamStore *ps, Err *e)
{
    Apot *p = q->priv;
    const bool weight = q->role == Q_WEIGHT, power = q->opts->power && !(weight && q->bits == 2);
    const int set_bits = weight ? q->bits - 1 : q->bits;
    if (q->bits == 32) {
        q->enabled = false;
        if (!p->variant->at_32) return 0;
    } else {
        LevelSet set;
        if (q->opts->power && q->opts->additive && max_bits > MAX_APOT_BITS)
            max_bits = MAX_APOT_BITS;
        if (q->bits < 2 || q->bits > max_bits)
            return err_set(e, ERR_CONFIG, "%s: apot (%s, %s) has 2 to %d bits or 32 for %s, not %d",
                           q->unit, p->variant->name,
                           !q->opts->power     ? "power: false"
                           : q->opts->additive ? "additive"
                                               : "additive: false",
                           max_bits, weight ? "weights" : "activations", q->bits);
        if (!power) {
            grid_init_uniform(&p->grid, (1 << set_bits) - 1, range);
        } else {
            int none = q->opts->additive ? levels_apot(&set, set_bits) : levels_pot(&set, set_bits);
            ASSERT(!none, "%s: no level set of %d bits", q->name, set_bits);
            grid_init_levels(&p->grid, &set, range);
        }
    }
    q->p[q->np++] = store_scalar(ps, PK_CLIP, alpha_init, "%s%s", q->name, alpha_name);
    return 0;
}

/* Reads the clip level; false with q->fault set when it cannot be used. */
static bool read_alpha(QInst *q)
{
    Apot *p = q->priv;
    return grid_read_clip(q, &p->grid, q->p[0], "APoT", &p->warned, p->fault, sizeof p->fault);
}

/* `sum` is alpha times the gradient to alpha. */
static void add_alpha_grad(QInst *q, double sum)
{
    const Apot *p = q->priv;
    const double alpha = (double)param_scalar(q->p[0]);
    const double scale =
        p->variant->grad_scale && q->opts->grad_scale != 0 ? q->opts->grad_scale : 1;
    if (!q->fault) *(float *)q->p[0]->grad.data += (float)(sum / alpha * scale);
}

/* ---- activations ---- */

static int act_init(QInst *q, ParamStore *ps, Err *e)
{
    Apot *p = q->priv;
    const double start = q->opts->act_clip_init;
    p->variant = quant_variant(q, variants, ARRAY_LEN(variants), sizeof *variants, e);
    if (!p->variant) return -1;
    return init(q, MAX_BITS, p->variant->clip_below ? GRID_UNIT : GRID_BELOW,
                start > 0 ? (float)start : p->variant->act_init, "act_alpha", ps, e);
}

static void act_begin(QInst *q, const QCtx *c)
{
    (void)c;
    read_alpha(q);
}

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const Apot *p = q->priv;
    grid_row(&p->grid, x, y, n);
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const Apot *p = q->priv;
    acc[0] += grid_row_bwd(&p->grid, x, dy, dx, n, true);
}

static void act_end(QInst *q, const double *acc)
{
    add_alpha_grad(q, acc[0]);
}

static int act_form(QInst *q, QuantForm *f, Err *e)
{
    const Apot *p = q->priv;
    read_alpha(q);
    return grid_act_form(q, &p->grid, f, e);
}

/* ---- weights ---- */

static int weight_init(QInst *q, ParamStore *ps, Err *e)
{
    Apot *p = q->priv;
    const double start = q->opts->wt_clip_init;
    p->variant = quant_variant(q, variants, ARRAY_LEN(variants), sizeof *variants, e);
    if (!p->variant) return -1;
    p->normalize = q->opts->wt_normalize;
    p->masked = p->variant->mask_weights && q->bits > 2;
    return init(q, p->variant->weight_max_bits, GRID_BOTH,
                start > 0 ? (float)start : p->variant->weight_init, p->variant->weight_alpha, ps,
                e);
}

/* Mean and deviation of the whole tensor; false with q->fault set when they cannot be used. */
static bool read_stats(QInst *q, const Tensor *x)
{
    Apot *p = q->priv;
    const size_t n = tensor_len(x);
    double mean = 0, std = 1;
    if (p->normalize) stat_mean_std(x->data, n, &mean, &std);
    p->mean = (float)mean;
    p->std = (float)std;
    if (p->std > 0 && isfinite(p->std)) return true;
    snprintf(p->fault, sizeof p->fault,
             "%sweight: %zu weight%s with standard deviation %g; APoT divides by it (wt_normalize: "
             "false does not)",
             q->name, n, n == 1 ? "" : "s", std);
    q->fault = p->fault;
    return false;
}

static inline void normalize_row(const Apot *p, const float *w, float *wn, size_t n)
{
    const float mean = p->mean, std = p->std;
    SIMD_FOR(i, n) wn[i] = (w[i] - mean) / std;
}

static void weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Apot *p = q->priv;
    const float *w = x->data;
    float *out = y->data;
    const size_t n = tensor_len(x);
    (void)c;
    if (!read_alpha(q) || !read_stats(q, x)) {
        memset(out, 0, tensor_bytes(y));
        return;
    }
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK, len = par_chunk_len(n, (size_t)k);
        normalize_row(p, w + at, out + at, len);
        grid_row(&p->grid, out + at, out + at, len);
    }
}

/* Elements worked on at once: the normalised weights are made again, in a buffer of this size. */
#define BLOCK 512

/* First pass over one part: dx = G, the gradient to the normalised weights; sums for alpha and for
 * the norm. */
static void weight_part(const Apot *p, const float *w, const float *dy, float *dx, StatSpan s,
                        double *sum)
{
    double alpha = 0, g = 0, gw = 0;
    for (size_t at = s.from; at < s.to; at += BLOCK) {
        const size_t len = s.to - at < BLOCK ? s.to - at : BLOCK;
        float wn[BLOCK], *d = dx ? dx + at : NULL;
        normalize_row(p, w + at, wn, len);
        alpha += grid_row_bwd(&p->grid, wn, dy + at, d, len, p->masked);
        if (!d) continue;
        PAR_PRAGMA_(omp simd reduction(+ : g, gw))
        for (size_t i = 0; i < len; i++) {
            g += (double)d[i];
            gw += (double)d[i] * (double)wn[i];
        }
    }
    sum[0] = alpha;
    sum[1] = g;
    sum[2] = gw;
}

/* Second pass: G to the gradient of the weights, in place. */
static void weight_norm_bwd(const Apot *p, const float *w, float *dx, StatSpan s, float mean_g,
                            float k)
{
    const float mean = p->mean, std = p->std;
    PAR_PRAGMA_(omp simd)
    for (size_t i = s.from; i < s.to; i++) dx[i] = (dx[i] - mean_g - (w[i] - mean) / std * k) / std;
}

static void weight_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    Apot *p = q->priv;
    const size_t n = tensor_len(x);
    const float *w = x->data, *g = dy->data;
    float *out = dx ? dx->data : NULL;
    double part[STAT_PARTS][3], sum[3] = {0};
    bool through = p->normalize && p->variant->through_norm;
    (void)c;
    if (q->fault) { /* the output was zeros whatever the weights */
        if (out) memset(out, 0, tensor_bytes(x));
        return;
    }
    PARALLEL_FOR(k, STAT_PARTS) weight_part(p, w, g, out, stat_span(n, (size_t)k), part[k]);
    for (int k = 0; k < STAT_PARTS; k++)
        for (int i = 0; i < 3; i++) sum[i] += part[k][i];
    add_alpha_grad(q, sum[0]);
    if (out) {
        const float mean_g = through ? (float)(sum[1] / (double)n) : 0;
        const float slope = through ? (float)(sum[2] / (double)(n - 1)) : 0;
        PARALLEL_FOR(k, STAT_PARTS)
        weight_norm_bwd(p, w, out, stat_span(n, (size_t)k), mean_g, slope);
    }
}

/* As the original prints it: rounded to 3 decimals, shown with 6. */
static double round3(const Param *p)
{
    char text[64];
    snprintf(text, sizeof text, "%.3f", (double)param_scalar(p));
    return strtod(text, NULL);
}

static const QFn act;

static int show(const QInst *wt, const QInst *at, char *line, size_t n)
{
    if (!wt->np) return snprintf(line, n, "%s", "");
    if (!at || at->fn != &act || !at->np)
        return snprintf(line, n, "clipping threshold weight alpha: %f", round3(wt->p[0]));
    return snprintf(line, n, "clipping threshold weight alpha: %f, activation alpha: %f",
                    round3(wt->p[0]), round3(at->p[0]));
}

static const QFn act = {
    .priv_size = sizeof(Apot),
    .nacc = 1,
    .init = act_init,
    .begin = act_begin,
    .row = act_row,
    .row_bwd = act_row_bwd,
    .end = act_end,
    .form = act_form,
};

static const QFn weight = {
    .priv_size = sizeof(Apot),
    .init = weight_init,
    .forward = weight_forward,
    .backward = weight_backward,
    .show = show,
};

const QMethod quant_apot = {
    .name = "apot",
    .doc = "additive powers of two, learned clip levels; power: false is uniform, additive: false "
           "plain powers of two",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .traits = QT_ZERO_FIXED | QT_DECLARES_AT_32,
    .default_edge_bits = 8,
    .edge_method = "fixed8",
};
