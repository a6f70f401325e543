/* run/runrecord.h -- what a run folder says of a run, read back: run.json, resolved.yml and
 * metrics.jsonl. For reports and comparisons. */
#ifndef RUN_RUNRECORD_H
#define RUN_RUNRECORD_H

#include <jansson.h>

#include "run/history.h"

typedef struct RunOption {
    const char *key, *value, *origin; /* origin "": the default */
} RunOption;

typedef struct RunRecord {
    const char *dir;   /* borrowed */
    json_t *run;       /* run.json; an empty object where there is none */
    char *resolved;    /* text of resolved.yml, or NULL */
    RunOption *option; /* its lines */
    int noptions;
    size_t cap;
    History history;
    Arena arena;
} RunRecord;

/* A damaged file is warned about and left out. ERR_DATA when the folder is none, or of no run; free
 * it in either case. */
int runrecord_read(RunRecord *r, const char *dir, Err *e);
void runrecord_free(RunRecord *r); /* takes a zeroed one */

/* A member of an object, or with `b` a member of that member; "" and NaN where it is not there. */
const char *json_text_at(const json_t *o, const char *a, const char *b);
double json_number_at(const json_t *o, const char *a, const char *b);

const char *runrecord_option(const RunRecord *r, const char *key); /* "" where it is not there */

/* Over all starts of the program: seconds; the peak of memory in bytes, NaN: not recorded. */
double runrecord_seconds(const RunRecord *r);
double runrecord_peak_memory(const RunRecord *r);
/* Rounded to so many digits; "-" where it is not finite. Returns buf. */
const char *runrecord_number(double v, int digits, char buf[40]);
double runrecord_speed(const RunRecord *r); /* images/s of the last epoch; NaN: none */

#endif
