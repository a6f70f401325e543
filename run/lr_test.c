/* run/lr_test.c -- lr_test: true: the learning rate at the start of each epoch, and nothing else. */
#include <stdio.h>

#include "run/modes.h"

int lr_test_run(Run *run, Err *e)
{
    const Config *c = run->cfg;
    ParamStore none = {0};
    Optim op;
    int r = optim_init(&op, &c->optim, &none, e);
    for (int64_t epoch = 0; !r && epoch < run_epochs(&c->run); epoch++) {
        if (epoch < c->run.num_epochs)
            printf("epoch %lld: lr %.9g\n", (long long)epoch + 1, optim_lr(&op, -1, (double)epoch));
        else
            printf("epoch %lld: lr as at the end of epoch %d\n", (long long)epoch + 1, c->run.num_epochs);
    }
    optim_free(&op);
    fflush(stdout);
    return r;
}
