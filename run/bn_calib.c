/* run/bn_calib.c -- see bn_calib.h.
 *
 * Source: snap-research/F8Net, fix_train.py, whose own calibration names a class that does not
 * exist and so never ran. A norm leaves m * (statistics of the batch) in running buffers that were
 * 0 before: nothing of the engine need know of calibration. */
#include "run/bn_calib.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "quant/qplan.h"
#include "run/log.h"

typedef struct Calib {
    Session *s;
    ParamStore *ps;
    char **saved; /* by parameter: the bytes of a buffer before; NULL: no buffer */
    double **sum; /* by parameter: statistics of all batches; NULL: no statistic */
    int64_t *n;   /* by parameter: batches in it */
} Calib;

static void begin(Calib *c, Session *s)
{
    ParamStore *ps = model_store(s->model);
    const size_t n = (size_t)ps->n + 1;
    *c = (Calib){s, ps, xcalloc(n, sizeof *c->saved), xcalloc(n, sizeof *c->sum),
                 xcalloc(n, sizeof *c->n)};
    for (int i = 0; i < ps->n; i++) {
        const Tensor *t = &ps->p[i]->value;
        if (ps->p[i]->kind != PK_BUFFER) continue;
        c->saved[i] = xmalloc(tensor_bytes(t) + 1);
        memcpy(c->saved[i], t->data, tensor_bytes(t));
    }
}

static void restore(Calib *c)
{
    for (int i = 0; i < c->ps->n; i++) {
        if (!c->saved[i]) continue;
        memcpy(c->ps->p[i]->value.data, c->saved[i], tensor_bytes(&c->ps->p[i]->value));
        param_touch(c->ps->p[i]);
    }
}

static void end(Calib *c)
{
    for (int i = 0; i < c->ps->n; i++) {
        free(c->saved[i]);
        free(c->sum[i]);
    }
    free(c->saved);
    free(c->sum);
    free(c->n);
}

static void clear(Calib *c, Param *p, float momentum)
{
    (void)c;
    (void)momentum;
    memset(p->value.data, 0, tensor_bytes(&p->value));
    param_touch(p);
}

static void collect(Calib *c, Param *p, float momentum)
{
    const float *now = p->value.data;
    const size_t n = tensor_len(&p->value);
    double **sum = &c->sum[p->index];
    if (!*sum) *sum = xcalloc(n + 1, sizeof **sum);
    for (size_t i = 0; i < n; i++) (*sum)[i] += (double)now[i] / (double)momentum;
    c->n[p->index]++;
}

/* Calls f for mean and variance of each batch norm of a width. */
static void each_stat(Calib *c, int variant, void (*f)(Calib *, Param *, float momentum))
{
    const Spec *spec = model_spec(c->s->model);
    const QPlan *qp = model_qplan(c->s->model);
    for (int i = 0; i < spec->n; i++) {
        const Unit *u = &spec->u[i];
        const NormParams *p = &qp->u[i].norm[variant];
        if (u->kind != U_NORM || u->u.norm.kind != NK_BATCH) continue;
        f(c, p->mean, u->u.norm.momentum);
        f(c, p->var, u->u.norm.momentum);
    }
}

static int observe(Calib *c, const Batch *b, Err *e)
{
    for (int k = 0; k < c->s->nwidths; k++) {
        const int v = c->s->width[k];
        each_stat(c, v, clear);
        if (model_observe(c->s->model, v, b->x, b->label, b->n, b->number, e)) return -1;
        each_stat(c, v, collect);
        restore(c);
    }
    return 0;
}

static void put_averages(Calib *c)
{
    for (int i = 0; i < c->ps->n; i++) {
        Param *p = c->ps->p[i];
        float *v = p->value.data;
        if (!c->sum[i]) continue;
        for (size_t k = 0; k < tensor_len(&p->value); k++)
            v[k] = (float)(c->sum[i][k] / (double)c->n[i]);
        param_touch(p);
    }
}

static int all_batches(Calib *c, int64_t batches, Err *e)
{
    Loader *l = c->s->loader[SPLIT_TRAIN];
    const Batch *b;
    int r = 1;
    if (loader_seek(l, 0, 0, e)) return -1;
    for (int64_t i = 0; i < batches && (r = loader_next(l, &b, e)) == 1; i++) {
        if (observe(c, b, e)) return -1;
    }
    return r < 0 ? -1 : 0;
}

int bn_calibrate(Session *s, Err *e)
{
    const int64_t whole = loader_batches(s->loader[SPLIT_TRAIN]),
                  given = s->cfg->run.bn_calib_batch_num,
                  batches = given < 0 || given > whole ? whole : given;
    Calib c;
    int r;
    begin(&c, s);
    r = all_batches(&c, batches, e);
    restore(&c);
    if (!r) {
        put_averages(&c);
        log_msg(LOG_INFO, "bn_calib_before_test: statistics of the norms from %" PRId64 " batches",
                batches);
    }
    end(&c);
    return r;
}
