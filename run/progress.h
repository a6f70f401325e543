/* run/progress.h -- the progress line: where the run stands, how fast it goes, when it will be
 * done.
 *
 * On a terminal the line is redrawn up to ten times a second; otherwise a plain line comes every 30
 * s. The time left counts the steps and the evaluations still to come, and starts from where this
 * process started. */
#ifndef RUN_PROGRESS_H
#define RUN_PROGRESS_H

#include "run/config.h"
#include "run/metrics.h"

typedef struct Progress {
    int64_t epochs, batches; /* of the whole run; training batches per epoch */
    int64_t total_steps;
    int64_t eval_batches, evals_left;
    double eval_s; /* duration of the last evaluation, 0: none made yet */
    double step_s; /* smoothed duration of a step, 0: none made yet */
    int64_t seen;  /* steps of this process */
    double last_shown;
} Progress;

/* What is to be done from `epoch` on: totals, and the evaluations still to come. */
void progress_plan(Progress *p, const RunOpts *o, int64_t epoch, int64_t batches,
                   int64_t eval_batches);

/* An evaluation follows `epoch` (from 0). */
bool progress_evaluates(const RunOpts *o, int64_t epoch);

/* One step took `seconds` (the first of a process, which builds its programs, is not counted). */
void progress_step(Progress *p, double seconds);

typedef struct ProgressNow {
    int64_t epoch, batch, step; /* epoch from 1 */
    const Meter *meter;
    double lr, img_s, wait; /* wait: share of the time spent waiting for data */
} ProgressNow;

double progress_eta(const Progress *p, int64_t step); /* seconds, < 0: not known yet */
void progress_line(const Progress *p, const ProgressNow *n, Str *out);
void progress_show(Progress *p, const ProgressNow *n); /* when it is time */
void progress_eval(Progress *p, int64_t batch);        /* during an evaluation */

/* print_each_iter: one log line of one batch. */
void progress_batch(const char *phase, int64_t batch, const Meter *m, const TopK *topk);

/* "1:02:03", "4:05", "12 s" */
const char *duration_text(double seconds, char *buf, size_t n);

#endif
