/* quant/quant.h -- all that the author of a quantization method reads.
 *
 * A method offers up to three roles (weight, input activation, output). A role is either
 *   elementwise: `begin`, `row`, `row_bwd`, `end`  -- fused with norm and activation by quant/chain.c, or mapped over
 *                a whole tensor by qinst_forward/qinst_backward; or
 *   whole-tensor: `forward`, `backward`            -- where a method needs all values at once.
 * See docs/adding.md for a walk-through. */
#ifndef QUANT_QUANT_H
#define QUANT_QUANT_H

#include "engine/store.h"

typedef enum QRole { Q_WEIGHT, Q_ACT, Q_OUT, Q_NROLES } QRole;
typedef enum Phase { PH_TRAIN, PH_EVAL, PH_CALIB, PH_INT_SIM, PH_INT } Phase;

struct QMethod;

/* F8Net: fixed-point numbers of a word length and a fractional length fl; see docs/methods/f8net.md. */
typedef struct F8Opts {
    int weight_format[2], nweight_format;       /* [word length, fl]; empty: [wt_bit, wt_bit - 1] */
    int input_format[2], ninput_format;         /* empty: [fm_bit, fm_bit - 2] */
    const char *format_type;                    /* per_layer, per_channel, per_model; "": fl as given in the formats */
    bool format_from_metric;                    /* fl from a statistic, `metric`: std, mae, rms */
    const char *metric;
    bool format_grid_search;                    /* fl of the least error; before format_from_metric */
    double momentum_for_metric;                 /* of the average of input lengths */
    bool input_fraclen_sharing;                 /* layers that share a clip level share the average too */
    bool floating_model;                        /* clipped, not rounded */
    bool floating_wo_clip;                      /* with floating_model: plain float */
    bool no_clipping;                           /* clip at the largest number instead of a trained level */
    bool rescale_forward, rescale_forward_conv; /* weights of the linear layer, of convolutions, to a fixed deviation */
    bool quant_bias;                            /* outside training: biases of 32 bits */
    bool quant_avgpool, pool_fusing;            /* average pool by a shift; its factor in the convolution before it */
    bool image;                                 /* the first layer reads pixels k / 256 */
    bool original;                              /* compat: original */
} F8Opts;

/* The keyword language (model-quantization): what a method does with one kind of tensor. See quant/keyword.h. */
typedef struct KwTag {
    int level;               /* levels, 2..256; 0: 2 ^ bits */
    bool half_range;         /* levels on [0, ..]; false: on both sides of 0 */
    double scale;            /* place of LQ's thresholds; factor of grad_scale */
    double correlate;        /* on the largest magnitude of the warm-up; 0: none */
    double boundary;         /* where values are clipped, or where the clip level starts; 0: 1 */
    int quant_group;         /* groups; below 0: values in one; 0, or no divisor: the default */
    const char *adaptive;    /* none, mean, var, mean-var, var-mean */
    const char *grad_type;   /* none, STE, STE-scale, Triangle */
    const char *grad_scale;  /* none, fan-scale, scale-fan, element-scale, scale-element */
    bool gamma;              /* a trained factor behind the quantizer */
} KwTag;

typedef struct KwOpts {
    KwTag tag[Q_NROLES];     /* by QRole */
    bool wt_bin;             /* dorefa, pact: weights of 2 levels are their sign times their mean magnitude */
    bool independent_norm;   /* var-mean over the whole weight, not by group */
    bool custom_update;      /* lq, closed_form: the basis is the mean of all steps' */
    bool closed_form;        /* fatnn: activations are scaled by least squares */
    bool proxquant;          /* tensors blend from float to quantized over the epochs */
    int proxquant_step;      /* how fast: see proxquant_share */
    bool padding_after_quant; /* zeros around a map are put there behind the quantizer, and stay 0 */
    double fm_map_values;    /* lsq: values of a channel that grad_scale counts; 0: those of the batch */
    const char *fm_custom;   /* xnor: factor of an activation: none, channel, resolution */
    int stable;              /* so many training steps pass tensors on unchanged and set clip levels */
} KwOpts;

typedef struct QOpts {
    const char *wt_quant, *fm_quant, *ot_quant; /* rows of quant_methods; "" or "none" = float */
    int wt_bit, fm_bit, ot_bit;                 /* 32 = float */
    int first_bit, last_bit;                    /* 0 = the method's rule; 32 = float */
    const char *quant_variant;                  /* method's variant: apot has cifar, imagenet, mnist */
    bool power, additive;                       /* APoT: false = uniform; false = plain powers of two */
    bool wt_normalize;                          /* APoT: weights to mean 0 and deviation 1 first */
    double grad_scale;                          /* APoT imagenet/mnist: factor on alpha gradients; 0 = none */
    double act_clip_init, wt_clip_init;         /* 0 = the method's */
    double weight_thres;                        /* hysteresis: a weight that goes through 0 counts from this magnitude on */
    int quantize_layer[3];                      /* hysteresis: activation bits by stage; 0 = fm_bit */
    double activation_lr, activation_regu;      /* hysteresis pact: step and decay of the learned thresholds */
    double loss_regu;                           /* hysteresis pact: the loss gets this times the sum of their squares */
    double sigmoid_alpha, start_alpha, end_alpha; /* hysteresis pact_sigmoid: steepness; its course with use_alpha_decay */
    bool use_alpha_decay;
    bool fuse;                                  /* fused chains; false: one op at a time */
    bool bf16;                                  /* training and evaluation: bf16 operands of convolutions and linear layers */
    int bits_list[8], nbits_list;               /* variants (AdaBits); 0 = one */
    int act_bits_list[8];                       /* their activations; 0 = as bits_list */
    bool switch_norm;                           /* a norm of its own for each variant; false: all use the first */
    bool stats_sharing;                         /* the norms of all variants share weight and bias (not the statistics) */
    int extra_bits[4], extra_act_bits[4], nextra; /* more variants, to evaluate only: norm and clip level of the first. act 0: as bits */
    const char *weight_quant_scheme, *act_quant_scheme; /* AdaBits: original, modified, centered */
    bool clamp;                                 /* AdaBits: at 32 bits weights are tanh(w) / max |tanh(w)| */
    bool rescale, rescale_conv;                 /* AdaBits: weights of the linear layer, of convolutions, to a fixed deviation */
    const char *rescale_type;                   /* AdaBits: constant (from the shape) or stddev (of the latent weight) */
    bool weight_only;                           /* AdaBits: activations stay float */
    bool switch_alpha;                          /* AdaBits: a clip level for each entry of bits_list */
    double act_clip_inits[8];                   /* AdaBits with switch_alpha: start of each entry's clip level */
    int nact_clip_inits;                        /* as many as bits_list; 0: act_clip_init for all */
    bool pact_fp;                               /* AdaBits: clip activations that are not quantized too */
    bool double_side;                           /* AdaBits: inputs marked UM_SIGNED are quantized on both sides of 0 */
    F8Opts f8;
    KwOpts kw;
    int edge_min_bits;                          /* AdaBits: least weight bits of first and last layer; 0 = the largest of bits_list */
    const char *method_opts;                    /* free text for experimental methods: "key=value,..." */
    const struct QMethod *const *extra_methods; /* looked up before quant_methods: tests, trials. NULL, or ended by NULL */
} QOpts;

/* A named number of an instance: "flips", 0.3. */
typedef struct QFigure {
    const char *name;
    double value;
} QFigure;

/* What pictures show of a weight quantizer beside its input and output. */
typedef struct QView {
    float *before;                                  /* room for the tensor: what is rounded, on the scale of the levels */
    bool has_before;                                /* it was filled in; else the tensor is rounded, up to scale and offset */
    int bins, length;                               /* spectrum: bin k is frequency k / length; 0: none */
    float *magnitude, *mask, *mask_low, *mask_high; /* [bins], over the rows: mean, mean, least, largest. Made by malloc */
} QView;

struct QFn;
struct QuantForm;
/* One quantizer of one tensor, in one bit variant. Made once, shared by all programs. */
typedef struct QInst {
    const struct QFn *fn;
    const struct QMethod *method;
    const QOpts *opts;
    const char *name;      /* prefix for its parameters, with the dot: "layer1.0.conv1." */
    const char *unit;      /* the unit it belongs to, for messages: "layer1.0.conv1" */
    QRole role;
    int bits, variant;
    unsigned marks;        /* of the unit: UM_FIRST, UM_LAST */
    int shape[TENSOR_MAX_DIM], ndim; /* of the tensor it quantizes; activations: C,H,W (any batch) */
    int conv_groups;       /* of the convolution: its weight has so many times fewer input channels than the layer */
    bool enabled;          /* a policy may switch it off: the tensor then passes unchanged */
    bool relower;          /* set by `set`: programs made before do not fit any more; who called it drops them and clears this */
    Param *owner;          /* weight role: the latent weight */
    Param *p[6];           /* its parameters and buffers, in order of declaration */
    int np;
    int first_own, nown;   /* what init declared, as indices of the store: p and buffers beside it */
    const char *fault;     /* set by begin, forward or form when the tensor cannot be quantized (constant weights, clip level 0): one line that
                            * names the parameter, valid as long as the instance. The output is then zeros, never NaN; the executor
                            * stops the run with this text. NULL when the last begin or forward went well. */
    void *priv;            /* fn->priv_size bytes, zeroed: level tables, FFT plans, what `begin` read */
} QInst;

typedef struct QCtx {
    Phase phase;
    void *save;            /* fn->need's save bytes: written in forward, read in backward */
    void *scratch;
    double *aux_loss;      /* add an auxiliary loss here */
    bool want_dx;          /* backward: dx is needed (else dx is NULL) */
} QCtx;

#define Q_MAX_ACC 4
#define QSET_UNKNOWN (-2)

/* One role. Only `init` and either `row` or `forward` are required; no `backward`/`row_bwd`: gradient passes straight through. */
typedef struct QFn {
    size_t priv_size;
    int nacc;              /* sums that row_bwd makes, at most Q_MAX_ACC */

    /* Declares parameters (q->p), checks bits, builds tables. Errors name q->name. */
    int (*init)(QInst *q, ParamStore *ps, Err *e);

    /* Elementwise. `begin` runs once per forward, before the rows: it reads parameters into priv, and rows of forward and
     * backward use only that, so that backward sees what forward saw. Rows run on several threads; they are pure.
     * row_bwd: dx = gradient (dx may be dy); acc[k] += sums over the row. `end` gets the sums of the whole tensor, after backward,
     * and ADDS into q->p[k]->grad. */
    void (*begin)(QInst *q, const QCtx *c);
    void (*row)(const QInst *q, const float *x, float *y, size_t n);          /* y may be x */
    void (*row_bwd)(const QInst *q, const float *x, const float *dy, float *dx, size_t n, double *acc);
    void (*end)(QInst *q, const double *acc);
    /* Whole tensor. backward writes dx (never adds) and ADDS into q->p[k]->grad. */
    void (*need)(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);
    void (*forward)(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
    void (*backward)(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);

    /* An evaluation of activations or outputs as a list of float operations (quant/form.h), bit by bit, with the parameters as they
     * are; f has no steps yet. -1 with `e`. */
    int (*form)(QInst *q, struct QuantForm *f, Err *e);

    void (*after_step)(QInst *q);                                /* after the optimizer: hysteresis, prox */
    int (*set)(QInst *q, const char *attr, double v, Err *e);    /* a policy's `attr = v`; -1: a fault, QSET_UNKNOWN: not its attribute */
    int (*set_text)(QInst *q, const char *attr, const char *v, Err *e); /* the same, any value as it is written. NULL: numbers only */
    bool (*pad_matters)(const QInst *q);                         /* activations: zeros around the map change the result. NULL: never */
    int (*show)(const QInst *wt, const QInst *act, char *line, size_t n); /* weight role: the original's line of thresholds */
    /* For metrics.jsonl, once per epoch: at most `max` figures beside the clip level; how many. Counts begin anew. */
    int (*figures)(QInst *q, QFigure *f, int max);
    void (*view)(const QInst *q, const Tensor *x, QView *v);     /* for pictures; v is zeroed but for `before` */
    void (*release)(QInst *q);
} QFn;

/* A configuration key that a role of a method reads. Rows of one key: any of them. A key that some method has in its rows
 * has no effect with the others, and is then refused, or noted (run/config_reads.c). */
typedef struct QKey {
    const char *key;                                             /* "wt_level" */
    const char *value;                                           /* other than its default: this one only; NULL: any */
    const char *with, *with_value;                               /* and only where this key has that value; NULL: any but its default */
} QKey;

struct Lower;
struct LayerForm;
struct QPlan;
struct Unit;
struct UnitForm;
typedef struct QMethod {
    const char *name, *doc;
    const char *alias;                                           /* another name in configurations; NULL: none */
    const QFn *role[Q_NROLES];                                   /* NULL = not offered */
    const QKey *keys[Q_NROLES];                                  /* ended by one without a name; NULL: none that only some methods read */
    unsigned traits;
    int default_edge_bits;                                       /* first and last layer when first_bit/last_bit is 0; 0 = like the rest */
    const char *edge_method;                                     /* method of their weights ("fixed8"), NULL = this one */
    const char *wide_method;                                     /* method of units marked UM_WIDE, NULL = this one */
    /* Bits of a unit where the run asks for `bits`: the method's rule for first and last layers, instead of the two fields above;
     * an instance is then made everywhere (32: it only declares, see traits). NULL: no rule of its own. */
    int (*unit_bits)(const QOpts *o, QRole role, unsigned marks, int bits);
    /* Instead of the default chain for a conv or linear unit: see quant/lower.h. NULL = default. */
    int (*lower)(struct Lower *lw, int unit, Err *e);
    /* As QFn.figures, of a unit whose weights the method quantizes and of what stands around it. NULL: none. */
    int (*figures)(const struct QPlan *qp, int unit, QFigure *f, int max);
    /* Any other unit of a net whose activations the method quantizes: sets its value, or leaves it to the default by setting none. */
    void (*lower_other)(struct Lower *lw, int unit);
    /* What `lower` and `lower_other` make of a unit outside training, for exports: quant/form.h. NULL: has no such form. */
    int (*form)(const struct QPlan *qp, int unit, int variant, struct LayerForm *f, Err *e);
    void (*form_other)(const struct QPlan *qp, int unit, struct UnitForm *f);
} QMethod;

enum { /* QMethod.traits */
    QT_ZERO_FIXED = 1,       /* maps 0 to 0: padding commutes with it */
    QT_DECLARES_AT_32 = 2,   /* instances are made at 32 bits too: init declares what checkpoints hold, and leaves q->enabled false */
    QT_VARIANTS = 8,         /* a layer may have an instance for each entry of bits_list */
    QT_DECLARES_FIRST = 16,  /* activation instances of convolutions declare before the weight */
    QT_CHAINED = 4           /* `.lower` takes its input by lower_act, so that the chain before it may quantize it */
};

extern const QMethod *const quant_methods[]; /* ended by NULL */
const QMethod *quant_find(const char *name);

/* The row of a method's variants (n structs of `size` bytes that begin with their name) that the run's
 * quant_variant names; the first when it names none. NULL with `e`, suggesting a name. */
const void *quant_variant(const QInst *q, const void *rows, size_t n, size_t size, Err *e);

/* Whole-tensor forward and backward of any role: what qfn offers, else its rows over chunks, sums in chunk order. A
 * disabled instance copies. x, y, dy, dx: same shape; y may be x and dx may be dy; dx may be NULL when it is not needed.
 * c->save and c->scratch have the bytes of qinst_need. */
void qinst_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void qinst_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);
void qinst_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);

/* The same by a role that is not (or not yet) q->fn. */
void qfn_forward(const QFn *fn, QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void qfn_backward(const QFn *fn, QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);
void qfn_need(const QFn *fn, const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);

/* Makes one instance (calls init). `name` is copied, `o` is borrowed. Used by tests and, for any convolution, by qplan.c. -1 with `e`. */
int qinst_init(QInst *q, const QMethod *m, QRole role, int bits, int variant, const QOpts *o, ParamStore *ps, Param *owner,
               unsigned marks, int ndim, const int *shape, const char *name, Err *e);
int qinst_init_grouped(QInst *q, const QMethod *m, QRole role, int bits, int variant, const QOpts *o, ParamStore *ps, Param *owner,
                       unsigned marks, int conv_groups, int ndim, const int *shape, const char *name, Err *e);
void qinst_free(QInst *q);
/* Whether its init declared the parameter. */
static inline bool qinst_owns(const QInst *q, const Param *p)
{
    return p->index >= q->first_own && p->index < q->first_own + q->nown;
}

/* "5bit", or "w4a8" where activations have other bits; act 0: as bits. */
const char *width_text(int bits, int act, char text[16]);

void qopts_default(QOpts *o); /* what config's defaults are; for tests */

#endif
