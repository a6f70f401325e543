/* test/support/naive_conv.h -- one output of a convolution by its definition, in double. */
#ifndef TEST_SUPPORT_NAIVE_CONV_H
#define TEST_SUPPORT_NAIVE_CONV_H

typedef struct NaiveConv {
    int ic, ih, iw, oc, oh, ow, k, stride, pad, groups, dilation;
} NaiveConv;

/* x: one image [ic, ih, iw], w: [oc, ic / groups, k, k]. *mag: the sum of the magnitudes, from
 * which a tolerance follows. */
double naive_conv(const NaiveConv *g, const float *x, const float *w, int oc, int oy, int ox,
                  double *mag);

#endif
