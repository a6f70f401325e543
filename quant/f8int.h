/* quant/f8int.h -- an F8Net as whole numbers. */
#ifndef QUANT_F8INT_H
#define QUANT_F8INT_H

#include "quant/intnet.h"
#include "quant/qplan.h"

/* Fills *net from a net whose layers are F8Net's, with the weights and statistics as they are now.
 * converted: as integize and int_op_only have it, not int_infer; they differ only under
 * compat: original (which layer carries the factor of the average pool). *unit: the logits of
 * training are the integer logits times it. -1 with `e` naming the layer that has no integer form, or
 * the parameter that no whole numbers can be made of (NaN, a clip level of 0).
 * Free with intnet_free in either case. */
int f8int_build(const QPlan *qp, bool converted, IntNet *net, double *unit, Err *e);

/* The length, word and sign of the image's numbers: how a float image (n values) becomes the input
 * of `net`. u8: pixels k / 256 by length 8. */
void f8int_image(const IntNet *net, const float *x, size_t n, void *to);

#endif
