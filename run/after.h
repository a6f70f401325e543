/* run/after.h -- waiting for another process to end: `qrun --after PID CONFIG`. */
#ifndef RUN_AFTER_H
#define RUN_AFTER_H

#include <stdbool.h>

#include "engine/err.h"

/* Returns when there is no process of that number (any more); *waited: there was one. Does not look
 * at how it ended. Not a number, or our own: -1 with ERR_CONFIG. */
int after_process(const char *pid, bool *waited, Err *e);

#endif
