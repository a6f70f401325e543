/* run/probe.h -- probe_list: tensors of layers as an evaluation computes them, as .npy files, for
 * looking at what quantization does to a net.
 *
 *   <index>-<layer>-<item>.npy   float. Maps: [images, C, H, W] (a linear layer's [images, n]), of the
 *                                first probe_iteration batches. Weights: in their own order. Of
 *                                several widths each has its own: <index>-<layer>-<item>_5bit.npy
 *   probe.json                   what is there: file, index, layer, item, shape, method and bits
 *
 * Items: before-quant, after-quant (the input of a layer as its quantizer and its convolution read
 * it), weight, weight-quant, output (of the convolution), and the names of what the quantizer of the
 * input holds (clip_val, basis ...). Layers: numbered as by_index of a policy numbers them.
 *
 * Source: aim-uofa/model-quantization, keyword `probe`, models/quant.py: the first two and the last,
 * of every layer that quantizes its input, for one batch; probe_index and probe_iteration are read by
 * nobody there. */
#ifndef RUN_PROBE_H
#define RUN_PROBE_H

#include "run/session.h"

typedef struct Probe Probe;

/* Whether the configuration asks for it. */
bool probe_wanted(const Config *c);
/* Items and layers that the net does not have: ERR_CONFIG at the key's place. The session has its net. */
int probe_check(const Session *s, Err *e);
/* Begins to watch the evaluations of the session's model; makes the folder. NULL with `e`. */
Probe *probe_open(const Session *s, const char *dir, Err *e);
/* The next evaluation is of the session's k-th width. */
void probe_width(Probe *p, int k);
/* A batch has been evaluated at all widths. Faults of writing. */
int probe_batch(Probe *p, Err *e);
/* Ends the files and writes probe.json. */
int probe_close(Probe *p, Err *e);
void probe_free(Probe *p); /* files that are not closed are left out; NULL: nothing */

#endif
