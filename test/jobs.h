/* test/jobs.h -- a test program runs itself again, once for each of its parts, as many at a time as there are
 * processors. A part that crashes is a part that failed. */
#ifndef TEST_JOBS_H
#define TEST_JOBS_H

#include "engine/mem.h"

typedef struct Job {
    const char *arg;     /* the program's only argument */
    int pid, out;        /* 0: not started; file its output goes to */
    bool done;
    int status;          /* 0: it ended well */
    double cpu_s;
    Str text;            /* what it printed */
} Job;

typedef struct Jobs {
    Job *job;
    int n, next, running;
} Jobs;

/* Starts the first; arg[n] outlives the jobs. */
void jobs_start(Jobs *j, const char *const *arg, int n);
/* Waits for job i, starting others meanwhile. Its text and times are there until jobs_free. */
const Job *jobs_wait(Jobs *j, int i);
void jobs_free(Jobs *j);

#endif
