/* run/metrics.h -- top-k counts, meters, the result line, and metrics.jsonl. */
#ifndef RUN_METRICS_H
#define RUN_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/mem.h"

#define TOPK_MAX 5

/* Which k are counted; k[0] is always 1, since "best" goes by it. */
typedef struct TopK {
    int k[TOPK_MAX], n;
} TopK;

/* Sums over samples. Kept as sums, so that a resumed epoch goes on with the very same numbers. */
typedef struct Meter {
    double loss;
    int64_t n, right[TOPK_MAX];
} Meter;

void topk_init(TopK *t, const int *k, int n);

/* Adds n samples' counts to m->n and m->right (not the loss). logits [n, classes]; a label < 0 is
 * not counted. Equal logits rank by index, lower first; a label whose logit is NaN is never right.
 */
void topk_count(const TopK *t, const float *logits, const int32_t *label, int n, int classes,
                Meter *m);

/* An evaluation by bit width. n is 0 for nets of one width. */
#define METER_MAX_WIDTHS 8
typedef struct WidthMeters {
    int n, bits[METER_MAX_WIDTHS], act_bits[METER_MAX_WIDTHS]; /* of activations; 0: as bits */
    Meter m[METER_MAX_WIDTHS];
} WidthMeters;

void meter_add(Meter *to, const Meter *m);
double meter_loss(const Meter *m);           /* mean; 0 of nothing */
double meter_percent(const Meter *m, int i); /* top-k[i] in percent; 0 of nothing */

/* Exact text of a meter (the loss as a hexadecimal float) and back; parse returns 0, or -1 on bad
 * text. */
void meter_text(const Meter *m, Str *out);
int meter_parse(const char *text, Meter *m);

/* "top1=92.58 top5=99.80 loss=0.2301 images=10000 seconds=12.3", and with several widths, of which
 * these are the means, " top1_5bit=93.10 top1_4bit=92.06" ("top1_w4a8" for a pair). */
void meter_result(const Meter *m, const WidthMeters *w, const TopK *t, double seconds, Str *out);

/* ---- metrics.jsonl: one object a line; keys never change type ---- */
typedef struct MetricsRow {
    int64_t step, epoch; /* updates made; epoch from 1 */
    const char *split;   /* "train": since the last such row; "epoch": the whole epoch; "val" */
    const Meter *meter;
    double lr, img_s;
    double grad_norm; /* NaN: left out */
    double data_wait; /* share of the time spent waiting for the loader; NaN: left out */
} MetricsRow;

typedef struct MetricsLog MetricsLog;

/* Opens for appending, after dropping every line whose step is above `keep_step` or that is torn.
 */
MetricsLog *metrics_open(const char *path, int64_t keep_step, Err *e);
int metrics_row(MetricsLog *m, const TopK *t, const MetricsRow *r, Err *e);
/* A row of named values (split "params"): clip levels. */
int metrics_values(MetricsLog *m, int64_t step, int64_t epoch, int n, const char *const *name,
                   const double *value, Err *e);
int metrics_sync(MetricsLog *m, Err *e); /* all rows are on the disk */
void metrics_close(MetricsLog *m);

/* Reading: every number of every whole line, in order of the file. `line` counts from 0. */
typedef void (*MetricsEach)(void *arg, int64_t line, int64_t step, const char *split,
                            const char *key, double value);
int metrics_read(const char *path, MetricsEach f, void *arg, Err *e);

#endif
