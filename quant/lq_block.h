/* quant/lq_block.h -- LQ-Nets: levels of a block of values, and the sums that a fit of the basis needs of them. */
#ifndef QUANT_LQ_BLOCK_H
#define QUANT_LQ_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "quant/keyword.h"

enum {
    LQ_DIGITS = 8,    /* bits at most */
    LQ_AT_ONCE = 16,  /* thresholds compared in registers; so many never reached ones stand behind the last */
    LQ_BLOCK = 1024   /* values summed in float, then in double */
};

/* One group for one forward: n levels. Level k is taken by values above t[k], which ascends; the lowest by all others. */
typedef struct LqLevels {
    int n, bits;
    float s[KW_MAX_LEVELS + LQ_AT_ONCE], t[KW_MAX_LEVELS + LQ_AT_ONCE]; /* both ascending; t[0] is not looked at */
    int32_t code[KW_MAX_LEVELS + LQ_AT_ONCE];                           /* digits of level k, in 8 bits */
} LqLevels;

/* n <= LQ_BLOCK values of one group: y = level of (x - norm[0]) / norm[1], times norm[1], plus norm[0]; y may be x; NaN stays NaN.
 * sum (NULL: none; lq_sums entries, added to): how many values, their sum, for each digit i the sum of those that have it, for
 * i and j <= i how many have both; of values as normed. */
void lq_block(const LqLevels *v, const float *norm, const float *x, float *y, size_t n, double *sum);
size_t lq_sums(int bits);

#endif
