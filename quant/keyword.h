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
 * Behind it     proxquant: prox x + (1 - prox) y, x being w' for weights; else, where a policy asks for
 *               it, quant_loss_alpha times a distance between x and y on top of the loss
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
#define KW_MAX_ACC 2
typedef struct KwWeight {
    int nacc;                                                  /* sums of row_bwd, at most KW_MAX_ACC; 0: one */
    void (*view)(float *w, size_t n);                          /* in place; kept from forward to backward. NULL: none */
    void (*measured)(QInst *q);                                /* Keyword.measure is there; may set q->fault */
    void (*row)(const QInst *q, int group, const float *w, float *y, size_t n); /* y may be w */
    void (*sum)(const QInst *q, int group, const float *w, const float *g, size_t n, double acc[2]);
    void (*summed)(QInst *q, const double total[2]);           /* before the first row_bwd */
    /* dw may be g; acc: nacc sums of each group */
    void (*row_bwd)(const QInst *q, int group, const float *w, const float *g, float *dw, size_t n, double *acc);
    void (*end)(QInst *q, const double *acc);                  /* nacc of each group, group by group */
} KwWeight;

/* L1: mean |x - y|; L2: mean (x - y)^2; QDL: |<x, y> / <y, y> - 1|. */
typedef enum KwLossKind { KW_L1, KW_L2, KW_QDL } KwLossKind;

typedef struct Keyword {
    KwTag tag;                     /* of its own: a policy may change it */
    const KwTag *o;                /* that one */
    const QFn *inner;              /* the role without blend and loss: see kw_use */
    int (*configure)(QInst *q, Err *e); /* the tag has changed: derived fields, kw_use. NULL: nothing to do */
    int (*steps)(QInst *q, struct QuantForm *f, Err *e); /* activations, outputs: see kw_form */
    const KwWeight *weight;
    KwMeasure needs;               /* what `measured` wants to know of each group */
    int levels, groups, norm_groups, stable;
    int counts;                    /* what a training step adds to iteration */
    bool fixed_levels;             /* made for so many levels */
    int num_levels;                /* the attribute of this name; lsq keeps it without reading it */
    bool by_level_num;             /* lsq */
    bool normalizes, restores;     /* restores: where it normalizes */
    bool progressive;              /* a change of level_num rescales the clip level */
    bool passes;                   /* this forward, and its backward: the tensor unchanged */
    float n;                       /* levels - 1 */
    float prox;                    /* proxquant: share of the tensor as it was */
    struct {
        bool on;
        KwLossKind kind;
        double alpha, xy, yy; /* <x, y>, <y, y> of this forward */
    } loss;
    Param *clip, *gamma, *basis;   /* NULL: none */
    Param *iteration, *level_num;
    float *mean, *std;             /* norm_groups */
    double *measure;               /* groups: sum or maximum of the magnitudes of w */
    char fault[320];
} Keyword;

/* Level count, groups, and the state every quantizer of the language has. With 32 bits the instance is
 * switched off, and the caller declares nothing either (q->enabled is false). */
int kw_init(QInst *q, ParamStore *ps, Err *e);
/* "quant_weight", "quant_activation", "quant_output": where the parameters of a role stand below the layer. */
const char *kw_child(QRole role);
/* A trained parameter: [groups, 1, 1, 1] (weights), [1, groups, 1, 1], or [1] where plain_one. */
Param *kw_add_param(QInst *q, ParamStore *ps, float start, const char *name, bool plain_one);
Param *kw_add_state(QInst *q, ParamStore *ps, float start, const char *name); /* [1], not trained */
void kw_add_clip(QInst *q, ParamStore *ps);
/* A clip level that checkpoints hold and the warm-up moves, and nothing reads. */
void kw_add_idle_clip(QInst *q, ParamStore *ps);
void kw_add_gamma(QInst *q, ParamStore *ps); /* where the tag asks for one */
void kw_release(QInst *q);
/* Last thing of init and configure: the instance works by fn, behind it the blend and the loss where
 * they are on. */
void kw_use(QInst *q, const QFn *fn);

/* ---- a policy's attributes (keyword_attr.c) ----
 * Both set q->relower where programs do not fit any more. Numbers: stable, level_num, num_levels
 * (the same, but for lsq), progressive, half_range, adaptive_restore, norm_group, scale, correlate,
 * quant_loss_enable, quant_loss_alpha, prox, and the tensors clip_val, gamma, alphaN, basis. Texts:
 * adaptive, grad_type, quant_loss_function; and any number or truth value as the original reads it. */
int kw_set(QInst *q, const char *attr, double v, Err *e);
int kw_set_text(QInst *q, const char *attr, const char *text, Err *e);
/* Read when a net is built and never again: set without effect. */
bool kw_attr_idle(const QInst *q, const char *attr);
/* Layers: stem and classifier stay float unless first_bit and last_bit say otherwise; the image itself always. */
int kw_unit_bits(const QOpts *o, QRole role, unsigned marks, int bits);

void kw_begin(QInst *q, const QCtx *c); /* first thing of every forward: counts, decides about the warm-up */
void kw_fault(QInst *q, const char *fmt, ...) PRINTF_LIKE(2, 3); /* "LAYER: text" */
/* A forward that passes, or has a fault: does the row and says so. */
bool kw_idle(const QInst *q, const float *x, float *y, size_t n);
bool kw_idle_bwd(const QInst *q, const float *dy, float *dx, size_t n);
void kw_warm_clip(QInst *q, float largest);
bool kw_divisor(QInst *q, const Param *p); /* all values are finite and not 0; else q->fault */
float kw_steps_before(const Keyword *k);   /* in training, behind kw_begin: iteration before this step */
/* Zeros around a map count: for methods that map 0 to 0, where the loss is a mean. */
bool kw_pad_counts(const QInst *q);

/* Activations by their rows where not all rows are alike (one group). */
bool kw_act_is_whole(const Keyword *k); /* warm-up, gamma */
void kw_act_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);
void kw_act_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void kw_act_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);

/* Activations value by value, channels innermost: one row is a pixel of a map, or a sample of a linear layer. */
typedef struct KwRows {
    size_t c, n; /* channels, rows */
} KwRows;
KwRows kw_rows(const Tensor *x);

double kw_weights(const QInst *q); /* how many the tensor has */
/* STE-scale: of n values, `inside` that are not clipped: sqrt(n / inside) where that is at least 2, else 1. */
float kw_inside_factor(double n, double inside);

/* Weights, by Keyword.weight. */
void kw_weight_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);
void kw_weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void kw_weight_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);
/* w' as this forward's statistics make it, and a gradient to it as one to w: values [at, at + n). */
void kw_weight_seen(const QInst *q, const Tensor *w, size_t at, size_t n, float *to);
void kw_weight_seen_bwd(const QInst *q, const Tensor *w, size_t at, size_t n, float *g);

/* Blend and loss around what kw_use was given (keyword_blend.c). */
extern const QFn kw_blended;
/* prox of an epoch (from 0), for proxquant_step: from 10 on, 1 at epoch 0 down to 0 at that epoch; below
 * 10 one part of so many less at the start and at each of the n epochs `at`, and 0 where n is below 0
 * (a schedule without such epochs). */
double kw_proxquant_share(int step, int epoch, const int *at, int n);

/* QFn.form of them all: Keyword.steps, with gamma and blend behind. `steps` adds the method's own
 * operations to f, and may set q->fault. -1 with `e`: the settings allow none. (keyword_form.c) */
int kw_form(QInst *q, struct QuantForm *f, Err *e);
void kw_clip_form(struct QuantForm *f, float top, float steps); /* round(min(max(x, 0), top) steps) / steps */

extern const QFn kw_dorefa_weight; /* pact has the same */
extern const QKey kw_dorefa_weight_keys[];

/* ---- rows of QMethod.keys that several methods have ---- */
#define KW_KEYS   {.key = "proxquant"}, {.key = "padding_after_quant"} /* all of them */
#define KW_STABLE {.key = "stable"}, {.key = "stable_epoch"}           /* those with a warm-up */
#define KW_VAR_MEAN                                                                                \
    {.key = "wt_adaptive", .value = "var-mean"},                                                   \
        {.key = "independent_norm", .with = "wt_adaptive", .with_value = "var-mean"}

#endif
