/* run/export_weights.h -- export_weights: FILE, the key: the net with its weights as the quantizers
 * leave them (FAT: after mask and rounding), without what only those need. With wt_quant: none, and
 * activations as before, it computes the same logits, and nothing is spent on weights. */
#ifndef RUN_EXPORT_WEIGHTS_H
#define RUN_EXPORT_WEIGHTS_H

#include "run/session.h"

/* Before any work: the file can be written, and the method has weights of its own. 0 also when nothing
 * is to be exported, here and below. */
int export_weights_check(const Session *s, Err *e);
int export_weights_session(const Session *s, Err *e);

#endif
