/* quant/fat_quant.c -- FAT: weights pass a learned spectral mask (fat.h) before an ordinary
 * quantizer with a learned clip level.
 *
 * P: round(u L) / L, half to even, or with `power: true` the nearest power of two.
 *
 * Weights       wn = (w - mean) / std;  Y = spectral mask of wn, rows = output channels;  v = Y / a
 *               y = a sign(v) P(min(|v|, 1)),  L = 2^(bits - 1) - 1
 *               dY = dy, not masked; da = sum of dy (P - v) inside the clip, dy sign(v) outside;
 *               then back through the mask; dw = dwn / std, mean and std being constants
 * Activations   u = x / a;  y = a P(min(u, 1)),  L = 2^bits - 1
 *               dx = dy where u <= 1, else 0
 *   cifar       da = sum of dy (P - u) inside the clip, dy outside
 *   imagenet    da = sum of dy outside the clip (as PACT)
 *
 * fat_uniform is what the original has in MobileNet V2 for all but the convolutions that end a block
 * (units marked UM_WIDE): only the mean is subtracted, no spectral mask. First and last layers are
 * fixed8's.
 *
 * Source: see fat.c; fat_quantization.py of the folders cifar10 and imagenet.
 * Differs from the code: constant weights and a clip level of 0 are faults instead of NaN; 1 bit
 * for weights is refused (no level but 0). See docs/methods/fat.md. */
#include "quant/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "quant/fat.h"
#include "quant/grid.h"
#include "quant/stat.h"

typedef struct Variant {
    const char *name;
    float act_init, uniform_act_init;
    bool pact; /* gradient of activations' clip levels from beyond the clip only */
} Variant;

static const Variant variants[] = {{"cifar", 5, 5, false}, {"imagenet", 8, 5, true}};

#define WEIGHT_INIT 3.0f
#define MAX_BITS    8

typedef struct FatQuant {
    Grid grid;
    const Variant *variant;
    Fat fat;         /* rows 0: without the mask */
    bool warned;     /* about a negative clip level */
    float mean, std; /* weights: as the last forward found them */
    char fault[320];
} FatQuant;

enum { P_ALPHA, P_TRANSFORM };

/* The part common to both roles: variant, bits, levels. */
static int init_grid(QInst *q, int min_bits, GridRange range, Err *e)
{
    FatQuant *f = q->priv;
    const int bits = q->role == Q_WEIGHT ? q->bits - 1 : q->bits;
    f->variant = quant_variant(q, variants, ARRAY_LEN(variants), sizeof *variants, e);
    if (!f->variant) return -1;
    if (q->bits < min_bits || q->bits > MAX_BITS)
        return err_set(e, ERR_CONFIG, "%s: %s has %d to %d bits or 32 for %s, not %d", q->unit,
                       q->method->name, min_bits, MAX_BITS,
                       q->role == Q_WEIGHT ? "weights" : "activations", q->bits);
    if (q->opts->power) {
        LevelSet set;
        int none = levels_pot(&set, bits);
        ASSERT(!none, "%s: no level set of %d bits", q->name, bits);
        grid_init_levels(&f->grid, &set, range);
    } else {
        grid_init_uniform(&f->grid, (1 << bits) - 1, range);
    }
    return 0;
}

/* Reads the clip level; false with q->fault set when it cannot be used. */
static bool read_alpha(QInst *q)
{
    FatQuant *f = q->priv;
    return grid_read_clip(q, &f->grid, q->p[P_ALPHA], "FAT", &f->warned, f->fault, sizeof f->fault);
}

static void add_alpha_grad(QInst *q, double grad)
{
    if (!q->fault) *(float *)q->p[P_ALPHA]->grad.data += (float)grad;
}

/* ---- activations ---- */

static int init_act(QInst *q, float start, ParamStore *ps, Err *e)
{
    const double given = q->opts->act_clip_init;
    if (q->bits == 32) {
        q->enabled = false;
        return 0;
    }
    q->p[q->np++] =
        store_scalar(ps, PK_CLIP, given > 0 ? (float)given : start, "%sact_alpha", q->name);
    return init_grid(q, 1, GRID_BELOW, e);
}

static int act_init(QInst *q, ParamStore *ps, Err *e)
{
    const Variant *v = quant_variant(q, variants, ARRAY_LEN(variants), sizeof *variants, e);
    return v ? init_act(q, v->act_init, ps, e) : -1;
}

static int uniform_act_init(QInst *q, ParamStore *ps, Err *e)
{
    const Variant *v = quant_variant(q, variants, ARRAY_LEN(variants), sizeof *variants, e);
    return v ? init_act(q, v->uniform_act_init, ps, e) : -1;
}

static void act_begin(QInst *q, const QCtx *c)
{
    (void)c;
    read_alpha(q);
}

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const FatQuant *f = q->priv;
    grid_row(&f->grid, x, y, n);
}

/* Sum of dy beyond the clip. */
static double beyond(const Grid *g, const float *x, const float *dy, size_t n)
{
    const float lo = g->lo, hi = g->hi;
    double sum = 0;
    PAR_PRAGMA_(omp simd reduction(+ : sum))
    for (size_t i = 0; i < n; i++) sum += x[i] >= lo && x[i] <= hi ? 0.0 : (double)dy[i];
    return sum;
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const FatQuant *f = q->priv;
    const double outside = f->variant->pact ? beyond(&f->grid, x, dy, n) : 0; /* dx may be dy */
    const double all = grid_row_bwd(&f->grid, x, dy, dx, n, true);
    acc[0] += f->variant->pact ? outside : all;
}

static void act_end(QInst *q, const double *acc)
{
    const FatQuant *f = q->priv;
    add_alpha_grad(q, f->variant->pact ? acc[0] : acc[0] / (double)param_scalar(q->p[P_ALPHA]));
}

static int act_form(QInst *q, QuantForm *f, Err *e)
{
    const FatQuant *p = q->priv;
    read_alpha(q);
    return grid_act_form(q, &p->grid, f, e);
}

/* ---- weights ---- */

static int init_weight(QInst *q, ParamStore *ps, Err *e)
{
    const double given = q->opts->wt_clip_init;
    if (q->bits == 32) {
        q->enabled = false;
        return 0;
    }
    q->p[q->np++] = store_scalar(ps, PK_CLIP, given > 0 ? (float)given : WEIGHT_INIT,
                                 "%sweight_quant.wgt_alpha", q->name);
    return init_grid(q, 2, GRID_BOTH, e);
}

static int weight_init(QInst *q, ParamStore *ps, Err *e)
{
    FatQuant *f = q->priv;
    size_t n = 1;
    int square[2];
    if (init_weight(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    for (int i = 1; i < q->ndim; i++) n *= (size_t)q->shape[i];
    square[0] = square[1] = q->shape[0];
    q->p[q->np++] = store_add(ps, PK_CLIP, DT_F32, (Init){INIT_CONST, 1.0f / (float)q->shape[0], 0},
                              2, square, "%sweight_quant.transform.weight", q->name);
    fat_init(&f->fat, q->shape[0], (int)n);
    return 0;
}

static void weight_release(QInst *q)
{
    FatQuant *f = q->priv;
    if (f) fat_free(&f->fat);
}

/* Saved: what the mask leaves, then Y. Both blocks of fat.h are whole cache lines. */
static void weight_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    const FatQuant *f = q->priv;
    const bool mask = f->fat.rows > 0;
    const size_t kept = (mask ? fat_save_len(&f->fat) : 0) * sizeof(float) + tensor_bytes(x);
    *scratch = (mask ? fat_scratch_len(&f->fat) : 0) * sizeof(float);
    if (ph == PH_TRAIN)
        *save = kept;
    else
        *scratch += kept;
}

/* Mean and deviation of the whole tensor; false with q->fault set when they cannot be used. */
static bool read_stats(QInst *q, const Tensor *x)
{
    FatQuant *f = q->priv;
    const size_t n = tensor_len(x);
    double mean, std;
    stat_mean_std(x->data, n, &mean, &std);
    f->mean = (float)mean;
    f->std = f->fat.rows ? (float)std : 1;
    if (f->std > 0 && isfinite(f->std) && isfinite(f->mean)) return true;
    snprintf(f->fault, sizeof f->fault,
             "%sweight: %zu weight%s with standard deviation %g; FAT divides by it", q->name, n,
             n == 1 ? "" : "s", std);
    q->fault = f->fault;
    return false;
}

static void weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    FatQuant *f = q->priv;
    const size_t n = tensor_len(x);
    const bool mask = f->fat.rows > 0;
    const float *w = x->data;
    float *out = y->data, *scratch = c->scratch, *save = c->save, *restored;
    if (c->phase != PH_TRAIN) save = scratch + (mask ? fat_scratch_len(&f->fat) : 0);
    restored = save + (mask ? fat_save_len(&f->fat) : 0);
    if (!read_alpha(q) || !read_stats(q, x)) {
        memset(out, 0, tensor_bytes(y));
        return;
    }
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        const float mean = f->mean, std = f->std;
        SIMD_FOR(i, par_chunk_len(n, (size_t)k)) restored[at + i] = (w[at + i] - mean) / std;
    }
    if (mask)
        fat_forward(&f->fat, q->p[P_TRANSFORM]->value.data, restored, restored, save, scratch);
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        grid_row(&f->grid, restored + at, out + at, par_chunk_len(n, (size_t)k));
    }
}

static void weight_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    FatQuant *f = q->priv;
    const size_t n = tensor_len(x);
    const bool mask = f->fat.rows > 0;
    const float *restored = (float *)c->save + (mask ? fat_save_len(&f->fat) : 0), *g = dy->data;
    float *out = dx ? dx->data : NULL;
    double part[STAT_PARTS], sum = 0;
    if (q->fault) { /* the output was zeros whatever the weights */
        if (out) memset(out, 0, tensor_bytes(x));
        return;
    }
    PARALLEL_FOR(k, STAT_PARTS)
    {
        const StatSpan s = stat_span(n, (size_t)k);
        part[k] = grid_row_bwd(&f->grid, restored + s.from, g + s.from, NULL, s.to - s.from, false);
    }
    for (int k = 0; k < STAT_PARTS; k++) sum += part[k];
    add_alpha_grad(q, sum / (double)param_scalar(q->p[P_ALPHA]));
    if (mask)
        fat_backward(&f->fat, q->p[P_TRANSFORM]->value.data, c->save, g, out,
                     q->p[P_TRANSFORM]->grad.data, c->scratch);
    else if (out && out != g)
        memcpy(out, g, tensor_bytes(x));
    if (!out || !mask) return;
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        const float std = f->std;
        SIMD_FOR(i, par_chunk_len(n, (size_t)k)) out[at + i] /= std;
    }
}

/* ---- the original's line ---- */

/* What the mask makes of the weights w as they are now, into y; returns what fat_forward leaves. NULL:
 * they cannot be normalised. The caller frees. */
static float *restore(const QInst *q, const Tensor *w, float *y)
{
    const FatQuant *f = q->priv;
    const size_t n = tensor_len(w);
    float *save, *scratch;
    double mean, std;
    stat_mean_std(w->data, n, &mean, &std);
    if (!f->fat.rows) std = 1;
    if (!((float)std > 0) || !isfinite(std)) return NULL;
    for (size_t i = 0; i < n; i++) y[i] = (((const float *)w->data)[i] - (float)mean) / (float)std;
    if (!f->fat.rows) return xcalloc(1, sizeof *save);
    save = xaligned(fat_save_len(&f->fat) * sizeof *save);
    scratch = xaligned(fat_scratch_len(&f->fat) * sizeof *scratch);
    fat_forward(&f->fat, q->p[P_TRANSFORM]->value.data, y, y, save, scratch);
    free(scratch);
    return save;
}

typedef struct MaskRange {
    double min, max, mean;
} MaskRange;

/* Of the mask of the weights as they are now; NaN where there is none. */
static MaskRange mask_range(const QInst *q)
{
    const FatQuant *f = q->priv;
    MaskRange r = {2, -1, 0};
    float *y = xaligned(tensor_bytes(&q->owner->value)), *save = restore(q, &q->owner->value, y);
    for (int i = 0; save && i < f->fat.rows; i++) {
        const float *m = fat_mask(&f->fat, save, i);
        for (int k = 0; k < f->fat.bins; k++) {
            r.max = fmax(r.max, (double)m[k]);
            r.min = fmin(r.min, (double)m[k]);
            r.mean += (double)m[k];
        }
    }
    r.mean /= (double)f->fat.rows * f->fat.bins;
    if (!save) r = (MaskRange){(double)NAN, (double)NAN, (double)NAN};
    free(save);
    free(y);
    return r;
}

static int figures(QInst *q, QFigure *out, int max)
{
    const FatQuant *f = q->priv;
    if (max < 1 || !f || !q->np || !f->fat.rows) return 0;
    out[0] = (QFigure){"mask_mean", mask_range(q).mean};
    return 1;
}

/* Magnitudes and mask of each frequency, over the rows. */
static void view_spectrum(const Fat *fat, const float *save, QView *v)
{
    const size_t bins = (size_t)fat->bins;
    v->bins = fat->bins;
    v->length = fat->n;
    v->magnitude = xcalloc(bins, sizeof *v->magnitude);
    v->mask = xcalloc(bins, sizeof *v->mask);
    v->mask_low = xcalloc(bins, sizeof *v->mask_low);
    v->mask_high = xcalloc(bins, sizeof *v->mask_high);
    for (size_t k = 0; k < bins; k++) {
        double magnitude = 0, mask = 0; /* masks lie within less of 1 than floats add up to */
        float low = 1, high = 0;
        for (int r = 0; r < fat->rows; r++) {
            const float m = fat_mask(fat, save, r)[k];
            magnitude += (double)fat_magnitude(fat, save, r)[k];
            mask += (double)m;
            low = fminf(low, m);
            high = fmaxf(high, m);
        }
        v->magnitude[k] = (float)(magnitude / fat->rows);
        v->mask[k] = (float)(mask / fat->rows);
        v->mask_low[k] = low;
        v->mask_high[k] = high;
    }
}

static void view(const QInst *q, const Tensor *x, QView *v)
{
    const FatQuant *f = q->priv;
    float *save = q->np ? restore(q, x, v->before) : NULL;
    if (!save) return;
    v->has_before = true;
    if (f->fat.rows) view_spectrum(&f->fat, save, v);
    free(save);
}

static int show(const QInst *wt, const QInst *act, char *line, size_t n)
{
    const FatQuant *f = wt->priv;
    char mask[80] = "", clip[80] = "";
    if (!wt->np) return snprintf(line, n, "%s", "");
    if (f->fat.rows) {
        const MaskRange r = mask_range(wt);
        snprintf(mask, sizeof mask, "frequency mask, max: %.3f, min: %.3f;  ", r.max, r.min);
    }
    if (act && act->np && act->p[P_ALPHA]->kind == PK_CLIP)
        snprintf(clip, sizeof clip, ", activation alpha: %.3f",
                 (double)param_scalar(act->p[P_ALPHA]));
    return snprintf(line, n, "%sweight alpha: %.3f%s", mask, (double)param_scalar(wt->p[P_ALPHA]),
                    clip);
}

// clang-format off
#define ACT(INIT)                                                                                  \
    {.priv_size = sizeof(FatQuant), .nacc = 1, .init = INIT, .begin = act_begin, .row = act_row,   \
     .row_bwd = act_row_bwd, .end = act_end, .form = act_form}
#define WEIGHT(INIT)                                                                               \
    {.priv_size = sizeof(FatQuant), .init = INIT, .need = weight_need, .forward = weight_forward,  \
     .backward = weight_backward, .show = show, .figures = figures, .view = view,                  \
     .release = weight_release}
// clang-format on

static const QFn act = ACT(act_init), uniform_act = ACT(uniform_act_init);
static const QFn weight = WEIGHT(weight_init), uniform_weight = WEIGHT(init_weight);

const QMethod quant_fat = {
    .name = "fat",
    .doc = "weights through a learned spectral mask, then uniform levels or powers of two (power)",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .traits = QT_ZERO_FIXED,
    .default_edge_bits = 8,
    .edge_method = "fixed8_fat",
    .wide_method = "fat_uniform",
};

const QMethod quant_fat_uniform = {
    .name = "fat_uniform",
    .doc = "FAT's quantizer without its mask: only the mean is taken off the weights",
    .role = {[Q_WEIGHT] = &uniform_weight, [Q_ACT] = &uniform_act},
    .traits = QT_ZERO_FIXED,
    .default_edge_bits = 8,
    .edge_method = "fixed8_fat",
};
