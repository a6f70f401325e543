/* run/fan_out.h -- a checkpoint of one bit width into a net of several. */
#ifndef RUN_FAN_OUT_H
#define RUN_FAN_OUT_H

#include "engine/store.h"
#include "io/ckpt.h"

/* Gives every norm NAME.bn.K of the net that the file lacks the tensors of NAME.bn.0 or of NAME,
 * whichever the file has, and every vector of clip levels the file's single one. Names of the file
 * that only served as a source are taken out of it. Returns the number of tensors made. */
int fan_out(TensorFile *f, const ParamStore *ps);

#endif
