/* quant/intnet.h -- a network of whole numbers only: what int_op_only runs and what is exported.
 *
 * A flat list of operations in topological order; the value of operation i is value i, and a number
 * is its integer / 2^fl. Images are 8-bit numbers, NHWC; everything between requantizations is s32.
 * Knows nothing of Spec, quantizers or training: quant/f8int.c builds one from an F8Net. */
#ifndef QUANT_INTNET_H
#define QUANT_INTNET_H

#include "engine/tensor.h"

typedef enum IntKind {
    IK_INPUT,   /* the image, DT_U8 or DT_S8; always operation 0 */
    IK_CONV,    /* 8-bit input, s32 output: sums and the bias, wrapping as 32-bit integers do */
    IK_LINEAR,  /* the same for [n, c]; weights read the input in C,H,W order (it is 1x1 or flat) */
    IK_RELU,    /* s32 */
    IK_REQUANT, /* s32 -> 8 bits: clamp(round(x / (divisor 2^shift)), lo, hi), half to even */
    IK_MAXPOOL, /* s32 or 8 bits; padding never wins */
    IK_ADD,     /* s32: (a << shift[0]) + (b << shift[1]) */
    IK_SUM,     /* s32: over the map; output 1x1 */
    IK_NKINDS
} IntKind;

typedef struct IntConv {
    int k, stride, pad, dilation, groups; /* linear: 1, 1, 0, 1, 1 */
    const int8_t *w;                      /* [oc, ic / groups, k, k], -127 .. 127 */
    const int32_t *bias;                  /* [oc], or NULL */
    int weight_fl;
} IntConv;

typedef struct IntOp {
    IntKind kind;
    const char *name; /* of conv and linear: the checkpoint prefix; "" for most others */
    int nin, in[2];
    int c, h, w; /* of the output; linear, sum: c x 1 x 1 */
    DType type;  /* of the output */
    int fl;
    union {
        IntConv conv;
        struct {
            int shift; /* may be negative: a left shift (64 bits wide, then clamped) */
            int32_t divisor, lo, hi;
        } requant;
        struct {
            int k, stride, pad;
        } pool;
        int shift[2]; /* add: >= 0 */
    } u;
} IntOp;

typedef struct IntNet {
    IntOp *op;
    int n;
    size_t cap;
    int out;     /* the logits, s32 */
    Arena arena; /* names, weights, biases */
} IntNet;

/* Appends a copy of *op (name is copied; weights must lie in net->arena). Returns its index. */
int intnet_add(IntNet *net, const IntOp *op);
void intnet_free(IntNet *net);
const char *int_kind_name(IntKind k);

/* Largest magnitude any number of operation i can have, from the weights and the range of the
 * image; > INT32_MAX: its sums may wrap. bound: net->n entries. */
void intnet_bounds(const IntNet *net, int64_t *bound);

/* Smallest and largest value; outside of 32 bits where sums may wrap: readers then see any 32-bit
 * number. range: net->n entries. */
typedef struct IntRange {
    int64_t lo, hi;
} IntRange;
void intnet_ranges(const IntNet *net, IntRange *range);
bool int_range_wraps(IntRange r);
/* Of convolution or linear i over all channels, when its input lies in x or is padding. */
IntRange intnet_conv_range(const IntNet *net, int i, IntRange x, bool with_bias);

/* One operation after the other in the plainest way, one image at a time: what the fast execution
 * is tested against. image: [n, h, w, c] of the input's type. value (may be NULL): per operation a
 * block for n images (NHWC s32), or NULL where not wanted. logits: [n, classes]. */
void intnet_reference(const IntNet *net, const void *image, int n, int32_t **value,
                      int32_t *logits);

/* clamp(round(x / (divisor 2^shift)), lo, hi), half to even; -62 <= shift <= 62. */
int32_t int_requant(int64_t x, int shift, int32_t divisor, int32_t lo, int32_t hi);

#endif
