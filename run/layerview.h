/* run/layerview.h -- the weights of each layer as pictures need them: a histogram, the levels they
 * are rounded to, the error of the rounding, and a method's spectrum. */
#ifndef RUN_LAYERVIEW_H
#define RUN_LAYERVIEW_H

#include "run/model.h"

enum { VIEW_BINS = 48, VIEW_MAX_LEVELS = 256, VIEW_DRAWN_LEVELS = 32 };

typedef struct LayerView {
    const char *name, *method; /* method NULL: float. Borrowed from the model */
    char shape[80];
    int bits;
    size_t weights;
    double sqnr; /* dB; NaN: float, or not to be told; infinite: nothing is lost */
    double bin[VIEW_BINS], share[VIEW_BINS]; /* middles; % of the weights */
    int nlevels; /* values that the rounded weights take; -1: above VIEW_MAX_LEVELS */
    double level[VIEW_MAX_LEVELS]; /* where they stand among the weights */
    const char *scale;             /* what `bin` is measured in: "weight", ... */
    int nspectrum;                 /* 0: the method has none */
    double *frequency, *magnitude, *mask, *mask_low, *mask_high;
} LayerView;

typedef struct LayerViews {
    LayerView *v;
    int n, variant;
    Arena arena;
} LayerViews;

/* Of every convolution and linear layer, as `variant` of the net rounds them now, in the order of
 * the modules.
 *
 * Signal to quantization noise: var(w) / var(w - (a q + b)), w the weights as they are rounded and
 * q the rounded ones, a and b the best scale and offset: methods differ in whether they give
 * weights back on their own scale, and a norm behind the layer takes both up anyway. */
void layerviews_make(LayerViews *l, Model *m, int variant);
void layerviews_free(LayerViews *l);

#endif
