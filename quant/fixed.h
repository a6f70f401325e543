/* quant/fixed.h -- fixed-point numbers: rounding to them, and choosing where the binary point
 * stands.
 *
 *   Q(x) = clamp(round(x 2^fl), lo, B) / 2^fl     B = 2^(bits - signed) - 1,  lo = -B or 0
 *
 * round is to nearest, ties to even; `floating` leaves it out. The gradient passes where the
 * rounded, unclamped value lies strictly between the ends (signed: |t| < B; unsigned: 0 < t < B).
 * Source: F8Net, models/fix_quant_ops.py. */
#ifndef QUANT_FIXED_H
#define QUANT_FIXED_H

#include <stdbool.h>
#include <stddef.h>

#define FIXED_MAX_FL 32 /* fractional lengths of up to 32 bits */

typedef struct Fixed {
    int bits;
    bool neg;      /* signed */
    bool floating; /* clamps only */
} Fixed;

typedef enum FixedMetric { FM_STD, FM_MAE, FM_RMS } FixedMetric;

float fixed_top(Fixed f);  /* B */
int fixed_max_fl(Fixed f); /* the largest fractional length: bits - signed */
int fixed_round_fl(Fixed f,
                   float fl); /* to the nearest, ties to even, within 0 .. fixed_max_fl; NaN: 0 */

/* One fractional length for all n values. y may be x; dx may be dy. */
void fixed_row(Fixed f, int fl, const float *x, float *y, size_t n);
void fixed_row_bwd(Fixed f, int fl, const float *x, const float *dy, float *dx, size_t n);

/* A tensor over all threads: `rows` rows of c values. fl has one entry for all (nfl 1), one per
 * column (nfl = c: channels of an NHWC map) or one per row (by_row, nfl = rows: output channels of
 * weights). */
typedef struct FixedView {
    size_t rows, c, nfl;
    bool by_row;
} FixedView;
void fixed_tensor(Fixed f, FixedView v, const float *fl, const float *x, float *y);
void fixed_tensor_bwd(Fixed f, FixedView v, const float *fl, const float *x, const float *dy,
                      float *dx);

/* Statistic of n values that stand `stride` apart; sums in double, in an order that does not depend
 * on the threads. */
double fixed_statistic(FixedMetric m, const float *x, size_t n, size_t stride);
/* floor(log2(c / metric)) within 0 .. fixed_max_fl; c is the metric's constant (fitted for 8 bits).
 * metric 0: the largest. */
int fixed_fl_of(Fixed f, FixedMetric m, double metric);
/* The fractional length of least root mean square error over n values; ties: the smaller. error
 * (may be NULL): that of every candidate 0 .. fixed_max_fl. bits - signed is at most 16. */
int fixed_fl_search(Fixed f, const float *x, size_t n, double *error);

/* By which a value is divided before it is rounded, so that the level alpha becomes the largest
 * number: 2^fl |alpha| / B. */
float fixed_scaling(Fixed f, int fl, float alpha);

#endif
