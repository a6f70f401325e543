/* test/one.h -- one quantizer with tensors of its own, outside of any net. */
#ifndef TEST_ONE_H
#define TEST_ONE_H

#include "quant/quant.h"

typedef struct One {
    ParamStore ps;
    QOpts o;
    QInst q;
    Tensor x, y, dy, dx;
    QCtx c;
    double aux; /* of c.aux_loss */
    float *memory;
} One;

#define ONE_MAX 6000 /* values of a tensor */

static const int map_dim[] = {3, 5, 6, 7}, weight_dim[] = {4, 3, 3, 3};

One *new_one(One *t); /* default options in t->o, for the caller to change */
/* In training. dim: N, C, H, W, kept as N, H, W, C; or a weight. Refusals fail the test. */
void open_one(One *t, const char *method, QRole role, int bits, int ndim, const int *dim);
/* The memory that passes need, where an attribute has changed it. */
void room_one(One *t);
void close_one(One *t);
void fill_one(One *t, double low, double high); /* x; dy within -1 .. 1 */
void run_one(One *t);                           /* forward and backward */
double grad_sum(const Param *p);

#endif
