/* engine/tensor.h -- a typed, shaped view of memory, layout copies, and .npy files. */
#ifndef ENGINE_TENSOR_H
#define ENGINE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/err.h"
#include "engine/mem.h"

#define TENSOR_MAX_DIM 5

typedef enum DType { DT_F32, DT_BF16, DT_S64, DT_S32, DT_S8, DT_U8, DT_NTYPES } DType;

/* LY_ROW: C order of dim[]. LY_NHWC: dim[] stays N,C,H,W while memory is N,H,W,C. */
typedef enum Layout { LY_ROW, LY_NHWC } Layout;

typedef struct Tensor {
    DType dtype;
    Layout layout;
    int ndim, dim[TENSOR_MAX_DIM]; /* 0 dimensions: one element */
    int exp2; /* fixed point: real = stored * 2^-exp2; 0 for float. Used by integer programs only */
    void *data; /* borrowed */
} Tensor;

size_t dtype_size(DType t);
const char *dtype_name(DType t); /* "f32", "bf16", ... */

/* Number of elements / bytes. Dimensions are non-negative and their product has been checked. */
size_t tensor_len(const Tensor *t);
size_t tensor_bytes(const Tensor *t);

Tensor tensor_make(DType dtype, int ndim, const int *dim, void *data);
bool tensor_same_shape(const Tensor *a, const Tensor *b);

/* "[16, 3, 3, 3]" into buf (at least 80 bytes); returns buf. */
const char *tensor_shape_text(const Tensor *t, char *buf);

/* Activations between the two layouts; n,c,h,w are the logical dimensions. src and dst do not
 * overlap. */
void nchw_to_nhwc(const float *src, float *dst, int n, int c, int h, int w);
void nhwc_to_nchw(const float *src, float *dst, int n, int c, int h, int w);

/* IEEE half and bfloat16 to float; float to bfloat16 rounds to nearest even. */
float half_to_float(uint16_t h);
float bf16_to_float(uint16_t h);
uint16_t float_to_bf16(float f);

/* Any .npy of version 1.0..3.0 with little-endian f4, i4, i8, i1, u1, b1 (as u8) or f8 (to f32), C
 * order, at most TENSOR_MAX_DIM dimensions. Data is allocated in `a`. Errors name the file. */
int npy_read(const char *path, Arena *a, Tensor *t, Err *e);
/* What stands before the data; the same number of bytes for any shape. */
enum { NPY_HEADER = 192 };
size_t npy_header(const Tensor *t, char head[NPY_HEADER]);
int npy_write(const char *path, const Tensor *t, Err *e);

#endif
