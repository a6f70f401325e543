/* run/evaluate.h -- one pass over the validation data, shared by training and test. */
#ifndef RUN_EVALUATE_H
#define RUN_EVALUATE_H

#include "run/progress.h"
#include "run/session.h"

/* Top-k and plain cross-entropy over the whole split: of every width of the session in *w, and their
 * sum in *m. `p` may be NULL. 0; 1: a signal asked to stop, *m is incomplete; -1 with `e`. */
int evaluate(Session *s, Progress *p, Meter *m, WidthMeters *w, Err *e);

/* One line for each width. */
void evaluate_print(const WidthMeters *w);

#endif
