/* test/support/naive_conv.c -- see naive_conv.h. */
#include "test/support/naive_conv.h"

#include <math.h>

double naive_conv(const NaiveConv *g, const float *x, const float *w, int oc, int oy, int ox,
                  double *mag)
{
    const int per = g->ic / g->groups, first = oc / (g->oc / g->groups) * per;
    double sum = 0;
    *mag = 0;
    for (int c = 0; c < per; c++)
        for (int i = 0; i < g->k * g->k; i++) {
            const int iy = oy * g->stride - g->pad + i / g->k * g->dilation,
                      ix = ox * g->stride - g->pad + i % g->k * g->dilation;
            double v;
            if (iy < 0 || ix < 0 || iy >= g->ih || ix >= g->iw) continue;
            v = (double)x[((first + c) * g->ih + iy) * g->iw + ix] *
                (double)w[(oc * per + c) * g->k * g->k + i];
            sum += v;
            *mag += fabs(v);
        }
    return sum;
}
