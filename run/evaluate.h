/* run/evaluate.h -- one pass over the validation data, shared by training and test. */
#ifndef RUN_EVALUATE_H
#define RUN_EVALUATE_H

#include "run/progress.h"
#include "run/session.h"

/* Top-k and plain cross-entropy over the whole split. `p` may be NULL. 0; 1: a signal asked to
 * stop, *m is incomplete; -1 with `e`. */
int evaluate(Session *s, Progress *p, Meter *m, Err *e);

#endif
