/* quant/intexec.h -- runs an IntNet fast and exactly: 8-bit convolutions of oneDNN where they are
 * exact on this machine (a self-test at start tells), else by an exact way around; bias, shift and
 * clamp fused into the convolution where the result is proven to be the same. */
#ifndef QUANT_INTEXEC_H
#define QUANT_INTEXEC_H

#include "engine/prim.h"
#include "quant/intnet.h"

typedef struct IntExec IntExec;

/* For batches of up to `batch` images. net and p are borrowed. NULL with `e`. */
IntExec *intexec_new(const IntNet *net, int batch, Prim *p, Err *e);
void intexec_free(IntExec *x);

/* n <= batch images of the input's type, NHWC. logits: [n, classes], the caller's. */
void intexec_run(IntExec *x, const void *image, int n, int32_t *logits);

/* What was chosen, in one line for the log: "int8 by oneDNN (VNNI), 20 of 21 requantizations
 * fused", or which exact way around was taken and why. Valid as long as x. */
const char *intexec_how(const IntExec *x);

#endif
