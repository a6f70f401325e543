/* run/clips.h -- the trained parameters of the quantizers, by layer: shown as the originals do, and
 * recorded. */
#ifndef RUN_CLIPS_H
#define RUN_CLIPS_H

#include "run/model.h"

/* One line per quantized layer, in the order of the modules:
 * "clipping threshold weight alpha: 1.569000, activation alpha: 1.438000". Nothing for methods
 * without any. */
void clips_print(Model *m);

/* "alpha_wgt/<layer>" and "alpha_act/<layer>" with their values, and what the methods add of their own
 * (figures of QFn and QMethod): "flips/<layer>", "mask_mean/<layer>", "fraclen_in/<layer>" ... */
typedef struct ClipList {
    int n;
    size_t cap, value_cap;
    const char **tag;
    double *value;
    Arena arena;
} ClipList;

void clips_collect(Model *m, ClipList *c); /* c is zeroed */
void clips_free(ClipList *c);

#endif
