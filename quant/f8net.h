/* quant/f8net.h -- the fixed-point layers of a net, as F8Net links them: who owns a clip level, in
 * whose units numbers travel. See docs/methods/f8net.md. */
#ifndef QUANT_F8NET_H
#define QUANT_F8NET_H

#include "quant/f8net_ops.h"
#include "quant/form.h"
#include "quant/qplan.h"

/* A convolution or linear unit that F8Net quantizes. */
bool f8net_is(const QPlan *qp, int unit);

/* The layer by whose scaling the numbers of a value are divided (that which will consume them); -1:
 * by none. */
int f8net_units(const QPlan *qp, int value);

/* A layer with its parameters, which are borrowed. pooled: the factor of the average pool behind it
 * is in its weights (compat: original; at conversion to integers other layers carry it than in
 * training: `conversion`). */
void f8net_layer(const QPlan *qp, int unit, bool conversion, F8Layer *l);

/* Numbers in `units` brought to those of layer `to`: times this. */
float f8net_rescaling(const F8Layer *units, const F8Layer *to);

/* Shift of the average pool where it is done by one (compat: original with quant_avgpool, for maps
 * of 7x7 whatever they are); -1: a mean. */
int f8net_pool_shift(const F8Opts *o);

/* QMethod.form and form_other: quant/f8net_form.c. */
int f8net_form(const QPlan *qp, int unit, int variant, LayerForm *f, Err *e);
void f8net_form_other(const QPlan *qp, int unit, UnitForm *f);

#endif
