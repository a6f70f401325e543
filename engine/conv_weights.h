/* engine/conv_weights.h -- the gradient of the weights of a bf16 convolution, in parts of the
 * batch: each thread takes one with a primitive of its own, and the parts are added in order.
 *
 * The library's own way has its threads meet at barriers inside the primitive, where they spin:
 * on a shared machine, where a thread may be away for milliseconds, that costs more than the
 * arithmetic. As there, the sums depend on the number of threads, not on their timing. */
#ifndef ENGINE_CONV_WEIGHTS_H
#define ENGINE_CONV_WEIGHTS_H

#include "engine/prim.h"

typedef struct ConvWeights ConvWeights;
ConvWeights *conv_weights_new(Prim *p, const ConvShape *s, Err *e);
void conv_weights_free(ConvWeights *c);
size_t conv_weights_scratch(const ConvWeights *c);
/* x, dy: bf16 maps. dw (plain) and db may be NULL. */
void conv_weights_run(const ConvWeights *c, const void *x, const void *dy, float *dw, float *db,
                      void *scratch);

#endif
