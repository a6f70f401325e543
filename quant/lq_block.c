/* quant/lq_block.c -- see lq_block.h. Every threshold is compared with every value, 16 of them at a time with values, levels
 * and digits in vector registers; numbers of digits are counted in bytes. */
#include "quant/lq_block.h"

#include <math.h>
#include <string.h>

#include "engine/par.h"

enum { LANES = 64 }; /* bytes of a vector, and codes of one byte in it */
typedef float V __attribute__((vector_size(LANES), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(LANES), aligned(4), may_alias));
typedef uint8_t VB __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint64_t VL __attribute__((vector_size(LANES)));

/* From level k - 1 to k, where a threshold of `count` from `from` on is below. A constant count is unrolled. */
static inline __attribute__((always_inline)) void climb(const LqLevels *v, int from, int count, const float *u,
                                                        float *level, int32_t *code, size_t n)
{
    float t[LQ_AT_ONCE], s[LQ_AT_ONCE];
    int32_t c[LQ_AT_ONCE];
    for (int k = 0; k < count; k++) t[k] = v->t[from + k], s[k] = v->s[from + k], c[k] = v->code[from + k];
    SIMD_FOR(i, n)
    {
        float value = level[i];
        int32_t digits = code[i];
#pragma GCC unroll 16
        for (int k = 0; k < count; k++) {
            value = u[i] > t[k] ? s[k] : value;
            digits = u[i] > t[k] ? c[k] : digits;
        }
        level[i] = value;
        code[i] = digits;
    }
}

/* Level and digits of each value. */
static void find_codes(const LqLevels *v, const float *u, float *level, int32_t *code, size_t n)
{
    const int L = v->n;
    SIMD_FOR(i, n) level[i] = v->s[0], code[i] = v->code[0];
    if (L <= 2)
        climb(v, 1, 1, u, level, code, n);
    else if (L <= 4)
        climb(v, 1, 3, u, level, code, n);
    else if (L <= 8)
        climb(v, 1, 7, u, level, code, n);
    else
        for (int k = 1; k < L; k += LQ_AT_ONCE) climb(v, k, LQ_AT_ONCE, u, level, code, n);
}

static double sum_lanes(V v)
{
    double sum = 0;
    for (size_t i = 0; i < LANES / sizeof(float); i++) sum += (double)v[i];
    return sum;
}

/* The sum of all n values, a multiple of 16, and for each digit of those that have it. Constant bits are unrolled. */
static inline __attribute__((always_inline)) void sum_digits(const float *u, const int32_t *code, size_t n, int bits,
                                                             double *all, double *has)
{
    V sum = {0}, of[LQ_DIGITS] = {{0}};
    for (size_t k = 0; k < n; k += LANES / sizeof *u) {
        const V x = *(const V *)(u + k);
        const VI c = *(const VI *)(code + k);
        sum += x;
#pragma GCC unroll 8
        for (int i = 0; i < bits; i++) of[i] += (V)((VI)x & ((c & 1 << i) != 0));
    }
    *all += sum_lanes(sum);
#pragma GCC unroll 8
    for (int i = 0; i < bits; i++) has[i] += sum_lanes(of[i]);
}

/* How many of n <= LQ_BLOCK codes, a multiple of 64, have all digits of a mask that is not 0. */
static unsigned count_codes(const uint8_t *code, size_t n, int mask)
{
    const VB m = (VB){0} + (uint8_t)mask;
    VB counts = {0}; /* LQ_BLOCK / LANES at most in each byte, so that eight of them fit into one */
    VL sum;
    unsigned all = 0;
    for (size_t k = 0; k < n; k += LANES) counts -= (VB)((*(const VB *)(code + k) & m) == m);
    sum = (VL)counts * 0x0101010101010101u >> 56;
    for (size_t i = 0; i < LANES / sizeof(uint64_t); i++) all += (unsigned)sum[i];
    return all;
}

/* Adds what n <= LQ_BLOCK values of a group, with these codes, give to its sums. Both are filled up with zeros. */
static void add_block(int bits, float *u, int32_t *code, size_t n, double *sum)
{
    const size_t whole = (n + LANES - 1) / LANES * LANES;
    uint8_t byte[LQ_BLOCK];
    double *all = sum + 1, *has = sum + 2, *both = has + bits;
    memset(u + n, 0, (whole - n) * sizeof *u);
    memset(code + n, 0, (whole - n) * sizeof *code);
    SIMD_FOR(k, whole) byte[k] = (uint8_t)code[k];
    sum[0] += (double)n;
    switch (bits) {
    case 1: sum_digits(u, code, whole, 1, all, has); break;
    case 2: sum_digits(u, code, whole, 2, all, has); break;
    case 3: sum_digits(u, code, whole, 3, all, has); break;
    case 4: sum_digits(u, code, whole, 4, all, has); break;
    default: sum_digits(u, code, whole, bits, all, has);
    }
    for (int i = 0; i < bits; i++)
        for (int j = 0; j <= i; j++) *both++ += count_codes(byte, whole, 1 << i | 1 << j);
}

void lq_block(const LqLevels *v, const float *norm, const float *x, float *y, size_t n, double *sum)
{
    const float m = norm[0], s = norm[1];
    float u[LQ_BLOCK], level[LQ_BLOCK];
    int32_t code[LQ_BLOCK];
    if (m != 0 || s != 1) {
        SIMD_FOR(i, n) u[i] = (x[i] - m) / s;
    } else {
        memcpy(u, x, n * sizeof *u);
    }
    find_codes(v, u, level, code, n);
    if (sum) add_block(v->bits, u, code, n, sum);
    SIMD_FOR(i, n)
    {
        const float value = level[i] * s + m;
        y[i] = isnan(u[i]) ? u[i] : value;
    }
}

size_t lq_sums(int bits)
{
    const size_t n = (size_t)bits;
    return 2 + n + n * (n + 1) / 2;
}
