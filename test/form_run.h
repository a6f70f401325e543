/* test/form_run.h -- a quantizer's form (quant/form.h) carried out step by step. Include cmocka.h
 * first. */
#ifndef TEST_FORM_RUN_H
#define TEST_FORM_RUN_H

#include "quant/form.h"

/* x, y [images][pixels][f->c], f->c 0 counting as 1. Means are summed in double. */
void form_run(const QuantForm *f, int images, int pixels, const float *x, float *y);

#endif
