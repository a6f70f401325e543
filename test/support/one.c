/* test/support/one.c -- see test/one.h. */
#include "test/one.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

void open_one(One *t, const char *method, QRole role, int bits, int ndim, const int *dim)
{
    const bool map = role != Q_WEIGHT && ndim == 4;
    Param *owner = NULL;
    Err e = {0};
    t->o.wt_bit = t->o.fm_bit = t->o.ot_bit = bits;
    if (role == Q_WEIGHT)
        owner = store_add(&t->ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, ndim, dim, "weight");
    if (qinst_init(&t->q, quant_find(method), role, bits, 0, &t->o, &t->ps, owner, 0,
                   map ? 3 : ndim, map ? dim + 1 : dim, "layer.", &e))
        fail_msg("%s", e.msg);
    store_init(&t->ps, 1);
    store_alloc_grads(&t->ps);
    t->memory = xcalloc(4 * ONE_MAX, sizeof *t->memory);
    t->x = tensor_make(DT_F32, ndim, dim, t->memory);
    if (map) t->x.layout = LY_NHWC;
    assert_true(tensor_len(&t->x) <= ONE_MAX);
    t->y = t->dy = t->dx = t->x;
    t->y.data = t->memory + ONE_MAX, t->dy.data = t->memory + 2 * ONE_MAX,
    t->dx.data = t->memory + 3 * ONE_MAX;
    t->c = (QCtx){.phase = PH_TRAIN, .want_dx = true, .aux_loss = &t->aux};
    room_one(t);
}

void room_one(One *t)
{
    size_t save, scratch;
    if (!t->q.enabled) return;
    qinst_need(&t->q, &t->x, PH_TRAIN, &save, &scratch);
    free(t->c.save);
    free(t->c.scratch);
    t->c.save = xaligned(save + 64);
    t->c.scratch = xaligned(scratch + 64);
}

void close_one(One *t)
{
    qinst_free(&t->q);
    store_free(&t->ps);
    free(t->c.save);
    free(t->c.scratch);
    free(t->memory);
}

One *new_one(One *t)
{
    *t = (One){0};
    qopts_default(&t->o);
    return t;
}

void fill_one(One *t, double low, double high)
{
    Rng r = rng_stream(3, RNG_TEST, 0, 0);
    float *x = t->x.data, *dy = t->dy.data;
    for (size_t i = 0; i < tensor_len(&t->x); i++) {
        x[i] = (float)rng_range(&r, low, high);
        dy[i] = (float)rng_range(&r, -1, 1);
    }
}

void run_one(One *t)
{
    t->aux = 0;
    qinst_forward(&t->q, &t->x, &t->y, &t->c);
    store_zero_grads(&t->ps);
    qinst_backward(&t->q, &t->x, &t->dy, &t->dx, &t->c);
}

double grad_sum(const Param *p)
{
    double sum = 0;
    for (size_t i = 0; i < tensor_len(&p->value); i++)
        sum += (double)((const float *)p->grad.data)[i];
    return sum;
}
