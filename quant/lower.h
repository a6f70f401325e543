/* quant/lower.h -- Spec -> Graph for one (phase, variant, batch). The only place that knows how quantizers are placed.
 *
 * Default, for a convolution: [padding] -> [act quantizer] -> conv( , [weight quantizer]) -> [out quantizer]; a norm, the sum and the activation behind
 * it and the act quantizers of the readers become one chain node when opts.fuse. A method with `.lower` does its own units through
 * the functions below. */
#ifndef QUANT_LOWER_H
#define QUANT_LOWER_H

#include "engine/ops.h"
#include "quant/qplan.h"

typedef struct Lower {
    Graph *g;
    const Spec *spec;
    QPlan *qp;
    Phase phase;
    int variant, batch;
    float smoothing;
    int *value;     /* per unit: its value, -1: not yet, or swallowed by a fusion */
    int *quantized; /* per conv or linear: its quantized input where it is made already, else -1 */
    bool *padded;   /* per conv: that input has the zeros of its padding around it */
    int *conv;      /* per conv or linear: what its convolution makes, else -1 */
    int input, labels, logits, loss; /* labels, loss: -1 outside training */
} Lower;

/* The two halves of lower_graph, for graphs with an input or an end of their own: lower_begin fills lw but for `input`, which the
 * caller sets to a value of g; lower_units then gives every unit its value. */
void lower_begin(Lower *lw, Graph *g, QPlan *qp, Phase phase, int variant, int batch);
int lower_units(Lower *lw, Err *e);
/* Fills g. Value indices of input, labels, logits, loss are left in lw. */
int lower_graph(Lower *lw, Graph *g, QPlan *qp, Phase phase, int variant, int batch, float smoothing, Err *e);
/* The same; with `soft` the value `labels` is that of soft targets, f32 [batch, classes]. */
int lower_graph_to(Lower *lw, Graph *g, QPlan *qp, Phase phase, int variant, int batch, bool soft, float smoothing, Err *e);
void lower_free(Lower *lw);

/* ---- for those who look at a layer while a finished graph runs ---- */

/* Tensors of a conv or linear unit. */
typedef enum LayerTensor {
    LT_INPUT,            /* what the quantizer of its input reads (QUnit.plain_input); float: as LT_QUANTIZED */
    LT_QUANTIZED,        /* what its convolution reads */
    LT_WEIGHT,           /* its parameter */
    LT_QUANTIZED_WEIGHT, /* what its convolution reads as weight */
    LT_OUTPUT,           /* what its convolution makes, with its bias, before a quantizer of outputs */
    LT_COUNT
} LayerTensor;
static inline bool layer_tensor_is_map(LayerTensor t) /* one for each image */
{
    return t != LT_WEIGHT && t != LT_QUANTIZED_WEIGHT;
}

/* Its value, or -1 where the unit has no convolution in this graph. *node: right after that node it is there. */
int lower_tensor(const Lower *lw, int unit, LayerTensor t, int *node);

/* ---- for methods with `.lower` ---- */
/* The default lowering of a conv or linear unit. */
int lower_default(Lower *lw, int unit, Err *e);
/* Value of input i as it is. */
int lower_input(const Lower *lw, int unit, int i);
/* Value of the unit's input, quantized by its act role (made by a chain, or a node of its own); the input itself when float. Zeros
 * are put around it where they change what the quantizer does (QFn.pad_matters, unless padding_after_quant); lower_conv knows. */
int lower_act(Lower *lw, int unit);
/* Value of its weight, quantized; the parameter when float. */
int lower_weight(Lower *lw, int unit);
/* A convolution or linear with the unit's geometry. bias -1: none. */
int lower_conv(Lower *lw, int unit, int x, int w, int bias);
/* Sets the unit's result; a unit with a value is skipped by the lowering: this is how a method swallows the norm behind it. */
void lower_set(Lower *lw, int unit, int value);
NormStats lower_norm_stats(const Lower *lw, int norm_unit);
bool lower_trains(const Lower *lw); /* batch statistics, gradients */

#endif
