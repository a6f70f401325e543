/* io/elem.h -- element types of checkpoint files, and how they become ours: one table for
 * safetensors and PyTorch. */
#ifndef IO_ELEM_H
#define IO_ELEM_H

#include "engine/tensor.h"

typedef struct ElemType {
    const char *torch;   /* "float32" */
    const char *storage; /* PyTorch's class: "FloatStorage" */
    const char *safe;    /* safetensors: "F32" */
    int size;            /* bytes of an element in the file */
    DType dtype;         /* after conversion: all floats f32, int16 to s32, bool to u8 */
    /* n elements, `stride` bytes apart and not aligned, to a packed array of dtype */
    void (*convert)(const unsigned char *src, ptrdiff_t stride, void *dst, size_t n);
} ElemType;

extern const ElemType elem_types[];
extern const size_t elem_ntypes;

/* How a dtype of ours is written to safetensors ("F32"); NULL when it is not. */
const char *elem_safe_name(DType t);

#endif
