/* io/elem.c -- see elem.h. */
#include "io/elem.h"

#include <string.h>

/* A converter: reads FROM at each stride and writes `expression` (of x) as TO. */
#define CONVERTER(name, FROM, TO, expression)                                                      \
    static void name(const unsigned char *src, ptrdiff_t stride, void *dst, size_t n)              \
    {                                                                                              \
        TO *out = dst;                                                                             \
        for (size_t i_ = 0; i_ < n; i_++) {                                                        \
            FROM x;                                                                                \
            memcpy(&x, src + (ptrdiff_t)i_ * stride, sizeof x);                                    \
            out[i_] = expression;                                                                  \
        }                                                                                          \
    }

CONVERTER(copy_8, uint8_t, uint8_t, x)
CONVERTER(copy_32, uint32_t, uint32_t, x)
CONVERTER(copy_64, uint64_t, uint64_t, x)
CONVERTER(from_bool, uint8_t, uint8_t, x != 0)
CONVERTER(from_short, int16_t, int32_t, x)
CONVERTER(from_double, double, float, (float)x)
CONVERTER(from_half, uint16_t, float, half_to_float(x))
CONVERTER(from_bfloat, uint16_t, float, bf16_to_float(x))

/* The first row of a dtype is the one it is written as. */
const ElemType elem_types[] = {
    {"float32", "FloatStorage", "F32", 4, DT_F32, copy_32},
    {"float16", "HalfStorage", "F16", 2, DT_F32, from_half},
    {"bfloat16", "BFloat16Storage", "BF16", 2, DT_F32, from_bfloat},
    {"float64", "DoubleStorage", "F64", 8, DT_F32, from_double},
    {"int64", "LongStorage", "I64", 8, DT_S64, copy_64},
    {"int32", "IntStorage", "I32", 4, DT_S32, copy_32},
    {"int16", "ShortStorage", "I16", 2, DT_S32, from_short},
    {"int8", "CharStorage", "I8", 1, DT_S8, copy_8},
    {"uint8", "ByteStorage", "U8", 1, DT_U8, copy_8},
    {"bool", "BoolStorage", "BOOL", 1, DT_U8, from_bool},
};
const size_t elem_ntypes = ARRAY_LEN(elem_types);

const char *elem_safe_name(DType t)
{
    if (t == DT_BF16) return "BF16"; /* read back as f32 */
    for (size_t i = 0; i < elem_ntypes; i++)
        if (elem_types[i].dtype == t) return elem_types[i].safe;
    return NULL;
}
