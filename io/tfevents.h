/* io/tfevents.h -- TensorBoard event files: scalars and histograms. Encoding by protobuf-c from
 * io/tfevents.proto. */
#ifndef IO_TFEVENTS_H
#define IO_TFEVENTS_H

#include <stdint.h>

#include "engine/mem.h"

typedef struct TfEvents TfEvents;
/* Appends to the newest event file in `dir`, after dropping every record of a step > `keep_step`
 * (resume), or starts a file events.out.tfevents.<unix>.<host>. keep_step -1: keep nothing of old
 * files. */
TfEvents *tfevents_open(const char *dir, int64_t keep_step, Err *e);
int tfevents_scalar(TfEvents *t, const char *tag, int64_t step, double value, Err *e);
int tfevents_histogram(TfEvents *t, const char *tag, int64_t step, const float *v, size_t n,
                       Err *e);
int tfevents_flush(TfEvents *t, Err *e);
void tfevents_close(TfEvents *t);

/* Reading (tests, report): calls `f` for each scalar; checks every CRC. */
typedef void (*TfScalar)(void *arg, const char *tag, int64_t step, double value, double wall);
int tfevents_read(const char *path, TfScalar f, void *arg, Err *e);

#endif
