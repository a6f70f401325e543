/* engine/prim.h -- the oneDNN shim: the only interface to the library, in our own shapes and raw
 * pointers.
 *
 * Activations are NHWC, float or (ConvShape.bf16) bfloat16; weights are plain float OIHW outside and
 * in the library's own (packed) format inside. Scratchpads are the caller's: the library's own would tie a primitive to the thread that
 * made it. */
#ifndef ENGINE_PRIM_H
#define ENGINE_PRIM_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/err.h"

typedef struct Prim Prim; /* engine and stream; one per model */
Prim *prim_open(Err *e);
void prim_close(Prim *p);
const char *prim_version(char *buf, size_t n); /* "2.6.3, AVX512_CORE_..." */
bool prim_has_bf16(void); /* this machine (and ONEDNN_MAX_CPU_ISA) has bf16 convolutions */

/* ---- convolution ---- */
typedef struct ConvShape {
    int n, ic, ih, iw, oc, oh, ow, k, stride, pad;
    int dilation, groups; /* 1 = none */
    bool bias;
    bool any;     /* activations in the library's favourite format: measurements only */
    bool bf16;    /* maps, their gradients and packed weights are bf16; sums, biases and gradients
                     of weights float */
    bool dst_f32; /* with bf16: the result of CONV_FWD is float */
    bool one_thread; /* works in the thread that runs it: several can run at once */
} ConvShape;

/* A 1x1 convolution of square maps. */
static inline ConvShape conv_shape_1x1(int n, int ic, int side, int oc, int stride)
{
    const int out = (side - 1) / stride + 1;
    const ConvShape s = {.n = n,
                         .ic = ic,
                         .ih = side,
                         .iw = side,
                         .oc = oc,
                         .oh = out,
                         .ow = out,
                         .k = 1,
                         .stride = stride,
                         .dilation = 1,
                         .groups = 1};
    return s;
}

typedef enum ConvDir { CONV_FWD, CONV_BWD_DATA, CONV_BWD_WEIGHTS } ConvDir;

typedef struct PrimConv PrimConv;
PrimConv *prim_conv_new(Prim *p, ConvDir dir, const ConvShape *s, Err *e);
void prim_conv_free(PrimConv *c);
const char *prim_conv_impl(const PrimConv *c);
size_t prim_conv_scratch(const PrimConv *c);
size_t
prim_conv_packed_bytes(const PrimConv *c); /* weights (or their gradient) in the packed format */
bool prim_conv_plain(const PrimConv *c);   /* packed format is plain OIHW: no copy needed */
void prim_conv_pack(const PrimConv *c, const float *oihw, void *packed);
void prim_conv_unpack(const PrimConv *c, const void *packed, float *oihw);
/* FWD: a = src, w = packed weights, b = bias or NULL, out = dst.
 * BWD_DATA: a = diff_dst, w = packed weights, out = diff_src.
 * BWD_WEIGHTS: a = src, b = diff_dst, w = packed diff weights (written), out = diff bias or NULL.
 */
void prim_conv_run(const PrimConv *c, const void *a, void *w, const void *b, void *out,
                   void *scratch);

/* Minimum seconds of `reps` runs on zero data, reorders excluded; < 0 when the library has no such
 * primitive. */
double prim_conv_time(Prim *p, ConvDir dir, const ConvShape *s, int reps);

/* ---- pooling, NHWC ---- */
typedef struct PoolShape {
    int n, c, ih, iw, oh, ow, kh, kw, stride, pad;
    bool max, count_pad;
} PoolShape;
typedef struct PrimPool PrimPool;
PrimPool *prim_pool_new(Prim *p, const PoolShape *s, bool train, Err *e);
void prim_pool_free(PrimPool *m);
size_t prim_pool_scratch(const PrimPool *m);
size_t prim_pool_workspace(const PrimPool *m); /* kept from forward to backward (max) */
void prim_pool_fwd(const PrimPool *m, const float *src, float *dst, void *workspace, void *scratch);
void prim_pool_bwd(const PrimPool *m, const float *ddst, float *dsrc, void *workspace,
                   void *scratch);

/* Row-major C[m,n] = alpha * op(A) op(B) + beta * C. */
void prim_sgemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda,
                const float *b, int ldb, float beta, float *c, int ldc);

#endif
