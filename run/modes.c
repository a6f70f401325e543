/* run/modes.c -- see modes.h. */
#include "run/modes.h"

#include <stdio.h>

static bool wants_test(const Config *c)
{
    return c->run.test_only;
}

static bool wants_profiling(const Config *c)
{
    return c->run.profiling_only;
}

static bool wants_lr_test(const Config *c)
{
    return c->run.lr_test;
}

const Mode modes[] = {
    {"rates", "print the learning rate at the start of each epoch (lr_test: true)", wants_lr_test,
     lr_test_run},
    {"costs", "print parameters, MACs, MB and bit operations by bit width (profiling_only: true)",
     wants_profiling, profiling_run},
    {"test", "evaluate pretrained_file, or the best checkpoint of log_dir (test_only: true)",
     wants_test, test_run},
    {"train", "train, evaluate after each epoch, keep the last and the best checkpoint", NULL,
     train_run},
    {NULL, NULL, NULL, NULL},
};

const Mode *mode_select(const Config *c)
{
    const Mode *m = modes;
    while (m->selected && !m->selected(c)) m++;
    return m;
}

void run_print_result(const char *line)
{
    printf("%s\n", line);
    fflush(stdout);
}

int run_check_expectation(const Config *c, double top1, Err *e)
{
    if (c->run.expect_top1_min < 0 || top1 >= c->run.expect_top1_min) return 0;
    return err_set(e, ERR_EXPECT, "top1=%.2f is below expect_top1_min: %g", top1,
                   c->run.expect_top1_min);
}
