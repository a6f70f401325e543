/* quant/tanh.c -- see tanh.h. In double and without a branch, so that it goes through vector registers:
 *   e^(2 |x|) = 2^n e^t, |t| <= ln 2 / 2;   e^t - 1 by its series up to t^10;   tanh = (e^(2|x|) - 1) / (e^(2|x|) + 1)
 * e^t - 1 is never added to 1 where n is 0, so that small values keep all their digits. */
#include "quant/tanh.h"

#include <math.h>
#include <stdint.h>

#include "engine/par.h"

#define LOG2_E 1.4426950408889634
#define LN_2   0.6931471805599453

void tanh_row(const float *x, float *y, size_t n)
{
    SIMD_FOR(i, n)
    {
        const float size = fabsf(x[i]);
        const double a = size < 10 ? (double)size : 10; /* 1 from 9.02 on */
        const double z = 2 * LOG2_E * a, whole = rint(z), t = (z - whole) * LN_2;
        const double power = (double)(1 << (int32_t)whole);
        double q = 1.0 / 3628800;
        q = q * t + 1.0 / 362880;
        q = q * t + 1.0 / 40320;
        q = q * t + 1.0 / 5040;
        q = q * t + 1.0 / 720;
        q = q * t + 1.0 / 120;
        q = q * t + 1.0 / 24;
        q = q * t + 1.0 / 6;
        q = q * t + 0.5;
        q = power * (q * t * t + t) + (power - 1); /* e^(2a) - 1 */
        const float r = copysignf((float)(q / (q + 2)), x[i]);
        y[i] = x[i] == x[i] ? r : x[i];
    }
}
