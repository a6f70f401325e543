/* quant/f8net_ops.h -- the nodes an F8Net layer is made of.
 *
 *   q  = f8_act(x)                    the input in fixed point (x already divided by s)
 *   Ws = f8_scale(W)                  s W,  s = 2^fl |alpha| / B: the clip level of the input
 *   y0 = conv(q, Ws)                  both in training only, for the statistics
 *   Wf, bf = f8_fold(y0, W, gamma, beta)    norm and s folded in, divided by the scaling r of the
 *                                     layer that consumes the output, rounded
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

/* Logits of a linear layer: in training; outside of it, the same numbers; as the original has them,
 * divided by scaling and rescaling, which then are not in the weights but under the biases. */
typedef enum F8Logits { F8_TRAIN, F8_EVAL, F8_DIVIDED } F8Logits;

typedef struct F8Layer {
    Fixed input, weight;
    F8Source source; /* of fractional lengths; F8_GIVEN: input_fl, weight_fl */
    FixedMetric metric;
    bool per_channel; /* F8_METRIC: a length per input channel, and per output channel of weights */
    int input_fl, weight_fl;
    float momentum;       /* of the average of input lengths */
    bool image;           /* the input is pixels k/256: rectified, length 8, no clip level */
    bool pure;            /* no clipping, no rounding */
    bool no_clip;         /* s = 1 */
    bool quant_bias;      /* evaluation: biases rounded to 32 bits */
    bool rescale;         /* linear: weights brought to deviation 1 / sqrt(outputs), or with */
    bool rescale_stddev;  /* this to the one they had before rounding */
    bool given_weight_fl; /* weights have weight_fl whatever the source */
    float pool_factor;    /* weights are multiplied by it; 0: 1 */
    Param *alpha;         /* 0-d, of the owner; NULL with image, pure or no_clip */
    Param *fraclen;       /* buffer [1] or [channels]; NULL with F8_GIVEN or pure */
    Param *twin[3];       /* buffers that follow it: of layers that read the same numbers */
    int ntwins;
} F8Layer;

/* s of channel 0; the length input numbers have outside training. */
float f8_scaling(const F8Layer *l);
int f8_input_fl(const F8Layer *l);
/* The ends an input is clipped to outside training; infinite where it is not. */
void f8_input_ends(const F8Layer *l, float *low, float *high);

/* train: lengths of this batch and the average moves; else the average, rounded. x NHWC or [n, c].
 */
int graph_f8_act(Graph *g, const char *name, int x, const F8Layer *l, bool train);
/* w: [oc, ic / groups, k, k]. */
int graph_f8_scale(Graph *g, const char *name, int w, const F8Layer *l, int groups);
/* y0 -1: running statistics. With quant_bias an input of several lengths is that of a depthwise
 * convolution. next NULL: r = 1. out: weights like w, bias [oc]. */
void graph_f8_fold(Graph *g, const char *name, int y0, int w, int groups, int gamma, int beta,
                   const F8Layer *l, const F8Layer *next, const NormStats *st, int out[2]);
/* A convolution outside training, with its norm. w: [oc, ic / groups, per]. */
typedef struct F8Conv {
    size_t oc, ic, per, groups;
    const float *w, *gamma, *beta;
    const NormStats *st;
} F8Conv;
/* The folded weights and biases an evaluation computes with, those of graph_f8_fold and
 * graph_f8_linear; wf like w, bf: [oc]. b NULL: no bias, bf is not written. NULL, or what is wrong
 * with the parameters. */
const char *f8_eval_conv(const F8Layer *l, const F8Layer *next, const F8Conv *c, float *wf,
                         float *bf);
const char *f8_eval_linear(const F8Layer *l, F8Logits logits, const float *w, const float *b,
                           size_t oc, size_t per, float *wf, float *bf);
/* A convolution outside training as whole numbers: wf = k / 2^fl of the folded weights, bias the folded
 * one at the length of the input plus fl. k: like w; bias: [oc]. One length per layer. */
void f8_convert_conv(const F8Layer *l, const F8Layer *next, const F8Conv *c, int8_t *k,
                     int32_t *bias, int *weight_fl);
/* The same for a linear layer, [oc, per]; b NULL: no bias. `divisor`: its logits are those of
 * training divided by it. false: all its rounded weights are equal, and rescaling is on. */
bool f8_convert_linear(const F8Layer *l, const float *w, const float *b, size_t oc, size_t per,
                       int8_t *k, int32_t *bias, int *weight_fl, double *divisor);

/* The fractional length weights have outside training, folded ones those of a convolution; over output
 * channels, where each has its own, the mean. */
double f8_conv_fl(const F8Layer *l, const F8Layer *next, const F8Conv *c);
double f8_linear_fl(const F8Layer *l, const float *w, size_t oc, size_t per);

/* a + b s_from / s_to, and a ReLU: a sum of numbers in units of two layers. */
int graph_f8_sum(Graph *g, const char *name, int a, int b, const F8Layer *from, const F8Layer *to,
                 bool relu);
/* The sum over the map / 2^shift. */
int graph_f8_pool(Graph *g, const char *name, int x, int shift);
/* bias -1: none, and out[1] is -1. */
void graph_f8_linear(Graph *g, const char *name, int w, int bias, const F8Layer *l, F8Logits logits,
                     int out[2]);

#endif
