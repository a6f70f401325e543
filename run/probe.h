/* run/probe.h -- probe_list: tensors of layers as a test, or the first evaluation of a training,
 * computes them, as .npy files, for looking at what quantization does to a net.
 *
 *   <index>-<layer>-<item>.npy   Maps: float, [images, C, H, W] (a linear layer's [images, n]), of
 * the first probe_iteration batches; those that are stored as bf16 are rounded to it. Others: in
 * their own order and type. Of several widths each has its own: <index>-<layer>-<item>_5bit.npy
 *   probe.json                   what is there: file, index, layer, item, shape, method and bits
 *
 * Items: before-quant, after-quant (the input of a layer as its quantizer and its convolution read
 * it), weight, weight-quant, output (of the convolution), and the names of what the quantizer of
 * the input holds (clip_val, basis ...). Layers: numbered as by_index of a policy numbers them.
 *
 * Source: aim-uofa/model-quantization, keyword `probe`, models/quant.py: the first two and the
 * last, of every layer that quantizes its input, of the first batch that is evaluated, in whatever
 * mode; probe_index and probe_iteration are read by nobody there. */
#ifndef RUN_PROBE_H
#define RUN_PROBE_H

#include "run/session.h"

typedef struct Probe Probe;

/* Items and layers that the net does not have: ERR_CONFIG at the key's place. The session has its
 * net. */
int probe_check(const Session *s, Err *e);

/* Where the configuration asks for it, begins to watch the evaluations of the session's model:
 * s->probe. The files go into dump_dir, else FOLDER/probe. */
int probe_begin(Session *s, const char *folder, Err *e);
/* Ends the files and writes probe.json; s->probe is NULL then. Nothing where it was NULL. */
int probe_end(Session *s, Err *e);
void probe_abandon(Session *s); /* the same, without the files of maps */

/* ---- for evaluations ---- */
/* What comes is computed at the session's k-th width. */
void probe_width(Probe *p, int k);
/* A batch has been evaluated at all widths. Faults of writing. */
int probe_batch(Probe *p, Err *e);

#endif
