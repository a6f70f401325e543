/* test/probe/latent.c -- one-bit weights with a latent copy.
 *
 * The parameter is the weight in use, `latent` what the optimizer moves; weight decay reads the
 * weight in use. After each step s = mean |latent|;  sign = that of latent where |latent| >= BAND
 * s, else the sign in use;  weight = sign s Before the first step the net uses its initial (or
 * loaded) weights, which the latent copy then starts from. */
#include "test/probe/probe.h"

#include <math.h>
#include <string.h>

#define BAND 0.1

enum { P_LATENT, P_STEPS };

static int init(QInst *q, ParamStore *ps, Err *e)
{
    if (q->bits != 1)
        return err_set(e, ERR_CONFIG, "%s: probe_latent has 1 bit, not %d", q->name, q->bits);
    q->p[P_LATENT] = store_add(ps, PK_BUFFER, DT_F32, (Init){INIT_CONST, 0, 0}, q->ndim, q->shape,
                               "%slatent", q->name);
    q->p[P_STEPS] =
        store_add(ps, PK_BUFFER, DT_S64, (Init){INIT_CONST, 0, 0}, 0, NULL, "%ssteps", q->name);
    q->np = 2;
    q->owner->step_on = &q->p[P_LATENT]->value;
    return 0;
}

static void forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    memmove(y->data, x->data, tensor_bytes(x));
    if (c->phase != PH_TRAIN || *(const int64_t *)q->p[P_STEPS]->value.data) return;
    memcpy(q->p[P_LATENT]->value.data, x->data, tensor_bytes(x));
    param_touch(q->p[P_LATENT]);
}

static void after_step(QInst *q)
{
    const size_t n = tensor_len(&q->owner->value);
    const float *l = q->p[P_LATENT]->value.data;
    float *w = q->owner->value.data, s;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs((double)l[i]);
    s = (float)(sum / (double)n);
    for (size_t i = 0; i < n; i++) {
        const float decides = fabs((double)l[i]) >= BAND * (double)s ? l[i] : w[i];
        w[i] = decides < 0 ? -s : s;
    }
    ++*(int64_t *)q->p[P_STEPS]->value.data;
    param_touch(q->owner);
    param_touch(q->p[P_LATENT]);
    param_touch(q->p[P_STEPS]);
}

static const QFn weight = {.init = init, .forward = forward, .after_step = after_step};

const QMethod probe_latent = {
    .name = "probe_latent",
    .doc = "one-bit weights with a latent copy",
    .role = {[Q_WEIGHT] = &weight},
};
