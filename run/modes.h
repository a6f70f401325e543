/* run/modes.h -- what `qrun FILE` does, chosen by the configuration. */
#ifndef RUN_MODES_H
#define RUN_MODES_H

#include "run/config.h"

/* One call of the program. Modes fill in how the process is to end. */
typedef struct Run {
    Config *cfg;
    int argc; /* the command line, for run.json and for "to go on, type" */
    char **argv;
    double started; /* log_clock() */
    int status;     /* exit status when nothing failed: 0, or 75: stopped early on purpose */
    int signal;     /* end by this signal */
} Run;

typedef struct Mode {
    const char *name, *doc;
    bool (*selected)(const Config *c); /* NULL: always */
    int (*run)(Run *r, Err *e);        /* 0, or -1 with the Err that gives the exit status */
} Mode;

extern const Mode modes[]; /* tested top down; ended by a NULL name */
const Mode *mode_select(const Config *c);

int train_run(Run *r, Err *e);
int test_run(Run *r, Err *e);
int profiling_run(Run *r, Err *e);
int lr_test_run(Run *r, Err *e);

/* pretrained_file, else what a training in log_dir left; "" where only fp_pretrained_file or an import is asked
 * for; NULL with `e` where there is nothing. The caller frees. */
char *weights_to_test(const Config *cfg, Err *e);

/* Prints the one result line on stdout. */
void run_print_result(const char *line);

/* ERR_EXPECT when top-1 is below expect_top1_min. */
int run_check_expectation(const Config *c, double top1, Err *e);

#endif
