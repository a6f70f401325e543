/* run/import.h -- weights that another program trained, into a net of the same topology.
 *
 * pytorchcv's and NVIDIA's checkpoints have names of their own; their layers are paired with the
 * net's by position (io/layers.h). Nothing is downloaded: pytorchcv's file is looked for where the
 * user or pytorchcv itself has put it. */
#ifndef RUN_IMPORT_H
#define RUN_IMPORT_H

#include "io/ckpt.h"
#include "run/session.h"

bool import_wanted(const RunOpts *o);

/* The imports that the configuration asks for, one after the other, as the original does. 0, or -1
 * with ERR_DATA. */
int import_weights(Session *s, Err *e);

/* Gives the tensors of a file the net's names, and shows the pairs at debug level. `key` and
 * `path`: for messages. */
int import_by_position(Session *s, const char *key, const char *path, TensorFile *f, bool all,
                       Err *e);

#endif
