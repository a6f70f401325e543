/* engine/spec.h -- what a net builder writes: a flat list of units with checkpoint names.
 *
 * A unit has one output; unit index = value index. Units stand in topological order (a unit reads
 * only earlier ones), the body of a residual block before its shortcut. The Spec knows nothing of
 * quantization: methods, bits and clip owners live beside it in quant/qplan.h. */
#ifndef ENGINE_SPEC_H
#define ENGINE_SPEC_H

#include "engine/store.h"

#define UNIT_MAX_IN 4

typedef enum UnitKind {
    U_INPUT,
    U_CONV,
    U_LINEAR,
    U_NORM,
    U_ACT,
    U_POOL,
    U_ADD,
    U_CONCAT,
    U_SCALE, /* times a trained scalar */
    U_SHIFT, /* plus a trained scalar (Fixup) */
    U_PAD,
    U_FLATTEN, /* to [n, c*h*w], C,H,W order */
    U_DROPOUT,
    U_SPACE_TO_DEPTH,
    U_DEPTH_TO_SPACE,
    U_NKINDS
} UnitKind;

typedef enum NormKind {
    NK_BATCH,
    NK_GROUP,    /* statistics of each image over runs of channels; none are kept */
    NK_INSTANCE, /* the same over each channel */
    NK_STATIC,   /* statistics as they start (mean 0, variance 1 - eps) or were loaded */
    NK_FROZEN,   /* the same, and scale and shift are buffers too */
    NK_REVERSE   /* scale and shift, then a batch norm with the same scale and shift */
} NormKind;
typedef enum ActKind { AK_RELU, AK_RELU6, AK_LEAKY, AK_PRELU, AK_NONE } ActKind;
typedef enum PoolKind { POOL_MAX, POOL_AVG, POOL_GLOBAL_AVG } PoolKind;

typedef struct ConvAttr {
    int oc, k, stride, pad, dilation, groups; /* 0 for dilation, groups, stride: 1 */
    bool bias;
    Init init, bias_init; /* INIT_CONST 0 by default: builders say what the original does */
} ConvAttr;

typedef struct LinearAttr {
    int out;
    bool bias;
    Init init, bias_init;
} LinearAttr;

typedef struct NormAttr {
    NormKind kind;
    float eps, momentum; /* momentum as PyTorch's: new = (1 - m) old + m batch */
    bool affine;
    int groups;        /* NK_GROUP */
    float weight_init; /* 1 for most, 0 for zero_init_residual */
} NormAttr;

typedef struct ActAttr {
    ActKind kind;
    float slope; /* AK_LEAKY; initial slope of AK_PRELU */
    bool one_slope; /* AK_PRELU: one for all channels, not one each */
} ActAttr;

typedef struct PoolAttr {
    PoolKind kind;
    int k, stride, pad;
    bool ceil_mode; /* rounds up: a last window counts that begins in the map or the padding before it */
    bool count_pad; /* averages: divide by k k everywhere, also where ceil_mode goes beyond the padding
                       (PyTorch leaves that part out); else by what lies in the map */
} PoolAttr;

enum {                   /* Unit.marks */
       UM_FIRST = 1,     /* the stem: first_bit and the method's rule for first layers */
       UM_LAST = 2,      /* the classifier */
       UM_SKIP = 4,      /* the convolution of a shortcut */
       UM_OWN_CLIP = 8,  /* does not share the clip level of its class */
       UM_NO_QUANT = 16, /* never quantized, whatever the policy */
       UM_SIGNED = 32,   /* its input may be negative (behind a linear bottleneck) */
       UM_INNER = 64,    /* a ReLU between two convolutions of one block, read by nothing else */
       UM_WIDE = 128,    /* a convolution between linear bottlenecks: all of MobileNet V2 but those
                            that end a block, and the stem */
       UM_UNUSED = 256,  /* declares its parameters, as its original does, and nothing else: nothing
                            reads it, it is not run, and not a reader */
       UM_COUNTED = 512  /* a stem that policies count among the layers, though it stays float */
};

typedef struct Unit {
    UnitKind kind;
    const char *name; /* parameter prefix, "" for units without parameters */
    int nin, in[UNIT_MAX_IN];
    union {
        ConvAttr conv;
        LinearAttr linear;
        NormAttr norm;
        ActAttr act;
        PoolAttr pool;
        int pad[4]; /* top, bottom, left, right */
        int block;  /* space-to-depth */
        float p;    /* dropout */
        float init; /* scale, shift */
    } u;
    unsigned marks;
    float order;    /* parameters are declared in this order; default: the unit's index */
    int c, h, w;    /* output shape; linear, flatten: c x 1 x 1 */
    int ic, ih, iw; /* shape of in[0] */
    /* analyses, filled by spec_finish */
    int nreaders; /* units that read this one */
    int reader;   /* the only reader, or -1 */
    int norm;     /* conv, linear: the norm that is its single reader, or -1 */
} Unit;

typedef struct Spec {
    Unit *u;
    int n;
    size_t cap;
    int out; /* the logits */
    Arena arena;
    Err err; /* the first fault a builder made; reported by spec_finish */
} Spec;

/* Builders return the unit's index. After a fault (impossible shape) they go on with a harmless
 * value and spec_finish reports it, so that a builder needs no checks of its own. Names are
 * printf-formatted. */
int spec_input(Spec *s, int c, int h, int w);
int spec_conv(Spec *s, int x, ConvAttr a, const char *fmt, ...) PRINTF_LIKE(4, 5);
int spec_linear(Spec *s, int x, LinearAttr a, const char *fmt, ...) PRINTF_LIKE(4, 5);
int spec_norm(Spec *s, int x, NormAttr a, const char *fmt, ...) PRINTF_LIKE(4, 5);
int spec_act(Spec *s, int x, ActAttr a, const char *fmt, ...) PRINTF_LIKE(4, 5);
int spec_pool(Spec *s, int x, PoolAttr a);
int spec_add(Spec *s, int a, int b);
int spec_concat(Spec *s, const int *x, int n);
int spec_scale(Spec *s, int x, float init, const char *fmt, ...) PRINTF_LIKE(4, 5);
int spec_shift(Spec *s, int x, float init, const char *fmt, ...) PRINTF_LIKE(4, 5);
int spec_pad(Spec *s, int x, int top, int bottom, int left, int right);
int spec_flatten(Spec *s, int x);
int spec_dropout(Spec *s, int x, float p);
int spec_space_to_depth(Spec *s, int x, int block);
int spec_depth_to_space(Spec *s, int x, int block);

void spec_mark(Spec *s, int unit, unsigned marks);

/* Declare the parameters of `unit` just before those of `before` (checkpoints whose order is not
 * that of the data). */
void spec_declare_before(Spec *s, int unit, int before);

/* Whether a norm keeps a mean and a variance. */
static inline bool norm_has_stats(NormKind k)
{
    return k != NK_GROUP && k != NK_INSTANCE;
}

/* Sets the output, checks everything, fills the analyses. -1 with `e` set when a builder made a
 * fault. */
int spec_finish(Spec *s, int out, Err *e);

/* The same units with the same names, shapes, marks, initial values and order of declaration. Both finished. */
bool spec_equal(const Spec *a, const Spec *b);

/* Units in the order their parameters are declared: `order` has s->n entries. */
void spec_declaration_order(const Spec *s, int *order);

const char *unit_kind_name(UnitKind k);
int64_t unit_macs(const Unit *u);         /* per image; 0 for units without multiplications */
void spec_print(const Spec *s, Str *out); /* one line a unit */
void spec_free(Spec *s);

#endif
