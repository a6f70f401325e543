/* run/original_log.h -- log_file: FILE, the key: a log in the layout of wxwang0104/Quantized_ResNet,
 * appended to the file: the settings, a line every log_interval updates and evaluation batches with
 * the last value and the average of each quantity, and the accuracy after each evaluation. */
#ifndef RUN_ORIGINAL_LOG_H
#define RUN_ORIGINAL_LOG_H

#include <stdio.h>

#include "run/config.h"
#include "run/metrics.h"

typedef struct OriginalLog {
    FILE *f; /* NULL: none is kept */
    int every;
    int64_t n;         /* batches of this pass */
    double time, data; /* their sums */
    Meter all;
} OriginalLog;

/* Opens the file of `c` if it names one, and writes the settings. */
int original_log_open(OriginalLog *l, const Config *c, Err *e);
void original_log_close(OriginalLog *l);

/* A pass over training or evaluation images begins; its batches, seconds each took (data: of which
 * waiting); an evaluation ends. Nothing without a file. */
void original_log_begin(OriginalLog *l, bool test);
void original_log_train(OriginalLog *l, int64_t epoch, int64_t batch, int64_t batches, double time,
                        double data, const Meter *m);
void original_log_test(OriginalLog *l, int64_t batch, int64_t batches, double time, const Meter *m);
void original_log_end(OriginalLog *l);

#endif
