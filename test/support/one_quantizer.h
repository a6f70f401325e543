/* test/support/one_quantizer.h -- one quantizer instance with its parameters and nothing around it.
 */
#ifndef TEST_ONE_QUANTIZER_H
#define TEST_ONE_QUANTIZER_H

#include "quant/quant.h"

typedef struct OneQuantizer {
    ParamStore ps;
    QOpts o;
    QInst q;
    Param *x;   /* what is quantized: a weight, or a tensor that stands for an activation. Normal
                   numbers */
    void *save; /* of the last forward in training */
    Err e;
} OneQuantizer;

/* Uniform levels unless `power`. -1 with t->e set. */
int one_quantizer_init(OneQuantizer *t, const char *method, QRole role, int bits, int rows, int n,
                       const char *variant, bool power);
void one_quantizer_free(OneQuantizer *t);
void one_quantizer_forward(OneQuantizer *t, Phase ph, float *y);
/* After a forward in training. dx [rows, n]; gradients of the parameters are added to. */
void one_quantizer_backward(OneQuantizer *t, const float *dy, float *dx);

#endif
