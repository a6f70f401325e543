/* quant/stat.h -- statistics of a tensor, summed in double, the same for any number of threads. */
#ifndef QUANT_STAT_H
#define QUANT_STAT_H

#include <stddef.h>

/* Mean and unbiased standard deviation (n - 1; 0 for n < 2). */
void stat_mean_std(const float *x, size_t n, double *mean, double *std);
float stat_max(const float *x, size_t n); /* n > 0; a NaN is not seen */
float stat_absmax(const float *x, size_t n);

/* The parts a sum over a tensor is split into: fixed, so that their order is. */
#define STAT_PARTS 64

typedef struct StatSpan {
    size_t from, to;
} StatSpan;

StatSpan stat_span(size_t n, size_t part);  /* of single values */
StatSpan stat_split(size_t n, size_t part); /* of n larger things */

#endif
