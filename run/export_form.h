/* run/export_form.h -- a quantizer (quant/form.h) as nodes of an ONNX graph. */
#ifndef RUN_EXPORT_FORM_H
#define RUN_EXPORT_FORM_H

#include "io/onnx.h"
#include "quant/form.h"

/* The value behind all steps; `value` itself where there are none. Nodes are called LAYER/PART.
 * Each step is an operator whose float result is that of the step. rank: dimensions of `value`, 4
 * or 2. */
const char *export_form(Onnx *m, const char *value, int rank, const QuantForm *f, const char *layer,
                        const char *part);

#endif
