/* quant/intconv.h -- one exact 8-bit convolution of an IntNet on this machine.
 *
 * Candidates are tried in order of speed. Each is run, in the very shape and number ranges of the
 * layer, on numbers chosen to break it (pairs of products that overflow 16 bits, sums that need
 * more than a float's 24 bits, padding at every edge) and taken only when nothing differs. */
#ifndef QUANT_INTCONV_H
#define QUANT_INTCONV_H

#include "engine/prim.h"
#include "quant/intnet.h"

typedef enum I8Way {
    I8_DIRECT,      /* oneDNN as it is */
    I8_SPLIT,       /* w = a + b with |a|, |b| <= 64: no 16-bit pair sum overflows; two runs */
    I8_SHIFT,       /* s8 input as u8, 128 added, padding included; the bias takes it back */
    I8_SHIFT_SPLIT, /* both */
    I8_OWN,         /* plain loops */
    I8_NWAYS
} I8Way;

/* clamp(round((sum + bias) 2^-shift), lo, hi), half to even, as part of the convolution. */
typedef struct I8Fuse {
    DType type;
    int shift, lo, hi;
} I8Fuse;

typedef struct I8Conv I8Conv;

/* Operation i (conv or linear) for `batch` images with inputs in x. fuse: wished for, or NULL; it
 * is granted where it is proven to change nothing. */
I8Conv *i8conv_new(Prim *p, const IntNet *net, int i, IntRange x, int batch, const I8Fuse *fuse);
void i8conv_free(I8Conv *c);

I8Way i8conv_way(const I8Conv *c);
bool i8conv_fused(const I8Conv *c);
/* [oc]: what the reader of an unfused convolution's sums has to add (wrapping). */
const int32_t *i8conv_bias(const I8Conv *c);
size_t i8conv_scratch(const I8Conv *c);
/* dst: s32 sums without bias, or the 8-bit numbers of `fuse` */
void i8conv_run(const I8Conv *c, const void *src, void *dst, void *scratch);

#endif
