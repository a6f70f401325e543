/* quant/f8net_ops.h -- the nodes an F8Net layer is made of.
 *
 *   q  = f8_act(x)                    the input in fixed point (x already divided by s)
 *   Ws = f8_scale(W)                  s W,  s = 2^fl |alpha| / B: the clip level of the input
 *   y0 = conv(q, Ws)                  training only, for the statistics
 *   Wf, bf = f8_fold(y0, Ws, gamma, beta)   norm folded, divided by the scaling r of the layer that
 *                                     consumes the output, rounded
 *   y  = conv(q, Wf) + bf
 *
 *   Wf, bf = f8_linear(W, b)          the same for a linear layer, which nothing follows
 *
 * Gradients go through the batch statistics, s and r; fractional lengths have none. In training a
 * layer updates its average fractional length in f8_act, before its own s is taken; whoever runs
 * earlier in the step has seen it as it was. Source: F8Net, models/fix_quant_ops.py. */
#ifndef QUANT_F8NET_OPS_H
#define QUANT_F8NET_OPS_H

#include "engine/ops.h"
#include "quant/fixed.h"

typedef enum F8Source { F8_GIVEN, F8_METRIC, F8_SEARCH } F8Source;

typedef struct F8Layer {
    Fixed input, weight;
    F8Source source; /* of fractional lengths; F8_GIVEN: input_fl, weight_fl */
    FixedMetric metric;
    bool per_channel; /* F8_METRIC: a length per input channel, and per output channel of weights */
    int input_fl, weight_fl;
    float momentum;      /* of the average of input lengths */
    bool image;          /* the input is pixels k/256: rectified, length 8, no clip level */
    bool pure;           /* no clipping, no rounding */
    bool no_clip;        /* s = 1 */
    bool quant_bias;     /* evaluation: biases rounded to 32 bits */
    bool rescale;        /* linear: weights brought to deviation 1 / sqrt(outputs), or with */
    bool rescale_stddev; /* this to the one they had before rounding */
    Param *alpha;        /* 0-d, of the owner; NULL with image, pure or no_clip */
    Param *fraclen;      /* buffer [1] or [channels]; NULL with F8_GIVEN or pure */
} F8Layer;

/* train: lengths of this batch and the average moves; else the average, rounded. x NHWC or [n, c].
 */
int graph_f8_act(Graph *g, const char *name, int x, const F8Layer *l, bool train);
/* w: [oc, ic / groups, k, k]. */
int graph_f8_scale(Graph *g, const char *name, int w, const F8Layer *l, int groups);
/* y0 -1: running statistics. With quant_bias an input of several lengths is that of a depthwise
 * convolution. next NULL: r = 1. out: weights like ws, bias [oc]. */
void graph_f8_fold(Graph *g, const char *name, int y0, int ws, int gamma, int beta,
                   const F8Layer *l, const F8Layer *next, const NormStats *st, int out[2]);
/* bias -1: none, and out[1] is -1. Outside training weights are not rescaled, biases divided
 * instead: logits are those of training divided by the scaling and the factor. */
void graph_f8_linear(Graph *g, const char *name, int w, int bias, const F8Layer *l, bool train,
                     int out[2]);

#endif
