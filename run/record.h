/* run/record.h -- what is written down of a training: metrics.jsonl, TensorBoard events,
 * curves.svg. */
#ifndef RUN_RECORD_H
#define RUN_RECORD_H

#include "io/tfevents.h"
#include "run/metrics.h"
#include "run/runfolder.h"
#include "run/session.h"

typedef struct Recorder {
    MetricsLog *log;
    TfEvents *tf; /* NULL: tensorboard: false */
    const Session *s;
    char *metrics, *curves; /* paths; curves NULL: plots: false */
} Recorder;

/* Cuts what is there back to `keep_step` (-1: everything), then appends. */
int record_open(Recorder *r, const RunFolder *f, const Session *s, int64_t keep_step, Err *e);

/* The updates since the last such row. */
int record_interval(Recorder *r, const MetricsRow *row, Err *e);

/* A finished epoch (or the end by max_steps). val NULL: it was not evaluated. */
int record_epoch(Recorder *r, const MetricsRow *train, const Meter *val, const WidthMeters *w,
                 Err *e);

/* Rows are on the disk, before a checkpoint that follows them; events reach the file; draws the curves when asked to. */
int record_flush(Recorder *r, bool curves, Err *e);
void record_close(Recorder *r);

/* curves.svg from a metrics.jsonl: loss, top-1, learning rate, clip levels. */
int curves_write(const char *metrics, const char *svg, Err *e);

#endif
