/* quant/keyword.h -- what the quantizers of the keyword language (model-quantization) have in common:
 * level counts, groups, the warm-up, normalised weights, a trained factor behind the quantizer.
 *
 * A method's private data begins with a Keyword. Values of a tensor fall into `groups` groups, each
 * with parameters of its own: weights in runs of the flattened tensor, activations by channel.
 *
 * Weights       w' = w, or (w - mean) / std over each of norm_groups runs ("var-mean", std with n - 1,
 *               both constants in backward);  y = method(w') [* gamma] [* std + mean]
 * Warm-up       for `stable` training steps y is w' (x for activations), and the clip level becomes the
 *               mean of the steps' largest magnitudes
 *
 * Source: aim-uofa/model-quantization, models/quant.py, class quantization. Differs: `iteration` counts
 * training steps only, so that evaluating changes nothing; without deviation w' is a fault, not NaN;
 * level_num says what is in use and is not read back, so that a checkpoint of another width may be
 * the start. */
#ifndef QUANT_KEYWORD_H
#define QUANT_KEYWORD_H

#include "quant/quant.h"

#define KW_MAX_LEVELS 256

typedef enum KwMeasure { KW_NOTHING, KW_ABS_SUM, KW_ABS_MAX } KwMeasure;

/* A method's view of weights: rows over pieces of one group. w: normalised, and behind `view`. */
typedef struct KwWeight {
    void (*view)(float *w, size_t n);                          /* in place; kept from forward to backward. NULL: none */
    void (*measured)(QInst *q);                                /* Keyword.measure is there; may set q->fault */
    void (*row)(const QInst *q, int group, const float *w, float *y, size_t n); /* y may be w */
    void (*sum)(const QInst *q, int group, const float *w, const float *g, size_t n, double acc[2]);
    void (*summed)(QInst *q, const double total[2]);           /* before the first row_bwd */
    /* dw may be g; acc is a sum of its own for each group */
    void (*row_bwd)(const QInst *q, int group, const float *w, const float *g, float *dw, size_t n, double *acc);
    void (*end)(QInst *q, const double *acc);                  /* groups of them */
} KwWeight;

typedef struct Keyword {
    const KwTag *o;
    const KwWeight *weight;
    KwMeasure needs;               /* what `measured` wants to know of each group */
    int levels, groups, norm_groups, stable;
    bool normalizes, restores;
    bool progressive;              /* a change of level_num rescales the clip level */
    bool passes;                   /* this forward, and its backward: the tensor unchanged */
    float n;                       /* levels - 1 */
    Param *clip, *gamma;           /* NULL: none */
    Param *iteration, *level_num;
    float *mean, *std;             /* norm_groups */
    double *measure;               /* groups: sum or maximum of the magnitudes of w */
    char fault[320];
} Keyword;

/* Level count, groups, and the state every quantizer of the language has. With 32 bits the instance is
 * switched off, and the caller declares nothing either (q->enabled is false). */
int kw_init(QInst *q, ParamStore *ps, Err *e);
/* The clip level: [groups, 1, 1, 1] (weights), [1, groups, 1, 1], or [1]. */
void kw_add_clip(QInst *q, ParamStore *ps);
void kw_add_gamma(QInst *q, ParamStore *ps); /* where the tag asks for one */
void kw_release(QInst *q);
/* Attributes of a policy: stable, num_levels and level_num, progressive, adaptive_restore, clip_val, gamma. */
int kw_set(QInst *q, const char *attr, double v, Err *e);
/* Layers: stem and classifier stay float unless first_bit and last_bit say otherwise; the image itself always. */
int kw_unit_bits(const QOpts *o, QRole role, unsigned marks, int bits);

void kw_begin(QInst *q, const QCtx *c); /* first thing of every forward: counts, decides about the warm-up */
void kw_fault(QInst *q, const char *fmt, ...) PRINTF_LIKE(2, 3); /* "LAYER: text" */
/* A forward that passes, or has a fault: does the row and says so. */
bool kw_idle(const QInst *q, const float *x, float *y, size_t n);
bool kw_idle_bwd(const QInst *q, const float *dy, float *dx, size_t n);
void kw_warm_clip(QInst *q, float largest);
bool kw_clip_usable(QInst *q); /* every clip level is finite and not 0; else q->fault */

/* Activations by their rows where not all rows are alike: warm-up, gamma (one group). */
bool kw_act_is_whole(const Keyword *k);
void kw_act_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);
void kw_act_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void kw_act_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);

/* Weights, by Keyword.weight. */
void kw_weight_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);
void kw_weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void kw_weight_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);

extern const QFn kw_dorefa_weight; /* pact has the same */

#endif
