/* run/recipe.h -- what a training changes of its net from epoch to epoch: the policy's rules, blends and
 * slopes of quantizers. All of it follows from the configuration and the epoch alone. */
#ifndef RUN_RECIPE_H
#define RUN_RECIPE_H

#include "run/session.h"

/* All rules of the policy on a net that is thrown away: a fault in one of a late epoch is told now. */
int recipe_try(Config *cfg, Err *e);
/* Once, when an epoch is known to have so many batches. */
void recipe_begin(Session *s, int64_t batches);
/* Before the first batch of an epoch (from 0), and when a run goes on within it. */
int recipe_epoch(Session *s, int64_t epoch, Err *e);

#endif
