/* run/bn_calib.h -- running statistics of the batch norms anew, before a test. */
#ifndef RUN_BN_CALIB_H
#define RUN_BN_CALIB_H

#include "run/session.h"

/* Replaces mean and variance of every batch norm of the session's widths by the average over
 * bn_calib_batch_num training batches (-1: one epoch), each with the same weight, as PyTorch's
 * norms do with momentum None after a reset. Weights and the buffers of quantizers are as before.
 * Needs the training data of the session. 0, or -1 with `e`. */
int bn_calibrate(Session *s, Err *e);

#endif
