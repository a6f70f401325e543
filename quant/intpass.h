/* quant/intpass.h -- what integer networks do between convolutions, in as few trips through memory
 * as there are: one pass takes one or two maps of sums, adds biases, aligns, takes the maximum of
 * a window, applies the ReLU, and writes the 32-bit result and all its requantizations. */
#ifndef QUANT_INTPASS_H
#define QUANT_INTPASS_H

#include "quant/intnet.h"

#define PASS_MAX_Q 4
#define PASS_MAX_C 16384

typedef struct PassTerm {
    const int32_t *src;
    const int32_t *bias; /* pass_wide(c) numbers, by pass_widen */
    int shift;
} PassTerm;

typedef struct PassQuant {
    DType type;
    int shift;
    int32_t divisor, lo, hi;
    void *dst;
} PassQuant;

typedef struct Pass {
    int n, h, w, c; /* of the outputs */
    int nterms;
    PassTerm term[2];
    struct {
        int k, stride, pad, ih, iw; /* k 0: none. One term, not shifted; sums do not wrap */
    } window;
    bool relu;
    int32_t *dst; /* or NULL; may be a term's src where there is no window */
    int nq;
    PassQuant q[PASS_MAX_Q];
} Pass;

/* Length of a table of c channels, repeated to make long rows, and the table of v (NULL: zeros). */
size_t pass_wide(int c);
void pass_widen(const int32_t *v, int c, int32_t *wide);
void pass_run(const Pass *p);

/* The maximum of windows of 8-bit numbers. */
typedef struct PassPool {
    DType type;
    int n, h, w, c, k, stride, pad, ih, iw;
} PassPool;
void pass_maxpool(const PassPool *p, const void *src, void *dst);

/* [n, map, c] -> [n, c], wrapping */
void pass_sum(const int32_t *src, int n, size_t map, int c, int32_t *dst);

#endif
