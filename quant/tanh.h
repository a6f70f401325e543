/* quant/tanh.h -- the hyperbolic tangent of many values, for methods that bound weights with it. */
#ifndef QUANT_TANH_H
#define QUANT_TANH_H

#include <stddef.h>

/* y = tanh(x), which may be x: the nearest float, but where the two next to the exact value are as near to within
 * 1e-4 of their distance (libm's tanhf is off by up to two floats). NaN stays NaN. */
void tanh_row(const float *x, float *y, size_t n);

#endif
