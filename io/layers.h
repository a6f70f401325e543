/* io/layers.h -- the layers of a state dict, and two nets paired by position instead of by name.
 *
 * Checkpoints of the same topology name their tensors differently; the order of the modules is what
 * they share. The k-th convolution of one is the k-th convolution of the other, and so with norms
 * and linear layers, each kind on its own, since some nets declare all convolutions of a block
 * before its norms. Every pair must agree in shape. */
#ifndef IO_LAYERS_H
#define IO_LAYERS_H

#include "io/ckpt.h"

typedef enum LayerKind { LAYER_CONV, LAYER_NORM, LAYER_LINEAR, LAYER_NKINDS } LayerKind;
typedef enum LayerPart { LP_WEIGHT, LP_BIAS, LP_MEAN, LP_VAR, LAYER_NPARTS } LayerPart;

typedef struct Layer {
    LayerKind kind;
    const char *name;       /* of its weight, or of the first of its tensors */
    int prefix;             /* how much of `name` is the layer's own */
    int part[LAYER_NPARTS]; /* index of the tensor; -1: it has none */
} Layer;

typedef struct Layers {
    Layer *v;
    int n, count[LAYER_NKINDS];
} Layers;

/* In the order of the tensors. A one-dimensional weight without running statistics (the slopes of a
 * PReLU) is no layer, nor is anything of a quantizer. Names are borrowed. */
void layers_of_file(Layers *l, const TensorFile *f);
void layers_of_store(Layers *l, const ParamStore *ps);
void layers_free(Layers *l);
const Layer *layers_at(const Layers *l, LayerKind kind, int k); /* the k-th of a kind, or NULL */
/* "20 convolutions, 20 norms, 1 linear layer" */
void layers_text(const Layers *l, Str *out);

/* Gives the tensors of `f` the names of the parameters at the same place and takes all others out;
 * a 1x1 convolution standing where the net has its last linear layer becomes its weight. Counters
 * and the quantizers' own tensors are paired when `all` is set and both sides have as many with
 * that ending and of that shape, else left out. `pairs`: one line each, may be NULL. -1 with one
 * line in `e` (ERR_DATA, without the file's name) when a layer is missing, left over or of another
 * shape. */
int layers_rename(TensorFile *f, const ParamStore *ps, bool all, Str *pairs, Err *e);

#endif
