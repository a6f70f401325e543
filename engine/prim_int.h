/* engine/prim_int.h -- 8-bit convolutions of oneDNN: u8 or s8 activations, s8 weights, sums of 32
 * bits. Activations NHWC, weights packed by the library, scratch from the caller.
 *
 * Whether the numbers are right is the caller's business: without VNNI the library adds pairs of
 * products in 16 bits, which saturate, and it halves the weights of s8 activations; results pass
 * through float wherever a bias, a scale or a clip is applied, and in some kernels always. */
#ifndef ENGINE_PRIM_INT_H
#define ENGINE_PRIM_INT_H

#include <stdint.h>

#include "engine/prim.h"
#include "engine/tensor.h"

typedef struct PrimIntShape {
    ConvShape conv; /* .bias, .any: not used */
    DType src, dst; /* DT_U8 or DT_S8; DT_S32 (plain sums), DT_U8 or DT_S8 */
    /* With an 8-bit dst: clip(round((sum + bias) 2^-shift), lo, hi), half to even, in float: exact
     * where |sum| and |sum + bias| stay below 2^24. */
    int shift, lo, hi;
} PrimIntShape;

typedef struct PrimIntConv PrimIntConv;
PrimIntConv *prim_int_conv_new(Prim *p, const PrimIntShape *s, Err *e);
void prim_int_conv_free(PrimIntConv *c);
const char *prim_int_conv_impl(const PrimIntConv *c);
size_t prim_int_conv_scratch(const PrimIntConv *c);
size_t prim_int_conv_packed_bytes(const PrimIntConv *c);
void prim_int_conv_pack(const PrimIntConv *c, const int8_t *oihw, void *packed);
/* bias: [oc], only with an 8-bit dst */
void prim_int_conv_run(const PrimIntConv *c, const void *src, const void *packed,
                       const int32_t *bias, void *dst, void *scratch);

#endif
