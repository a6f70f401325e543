/* test/probe/rig.c -- see probe.h. Images and labels are a pure function of the step, as a loader's
 * are. */
#include "test/probe/probe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/qplan.h"
#include "run/checkpoint.h"

const QMethod *const probe_methods[] = {&probe_fold, &probe_variants, &probe_counting,
                                        &probe_latent, NULL};

void rig_defaults(RigOpts *o)
{
    *o = (RigOpts){
        .net =
            {.model = "resnet20", .names = "", .num_classes = 10, .in_c = 3, .in_h = 8, .in_w = 8},
        .optim = {.optimizer = "sgd",
                  .lr = 0.05,
                  .momentum = 0.9,
                  .weight_decay = 1e-3,
                  .weight_decay_scheme = "all",
                  .lr_scheduler = "constant",
                  .num_epochs = 10,
                  .gamma = 0.1,
                  .power = 1,
                  .group = {{"clip", 0.0002, -1}},
                  .ngroups = 1},
        .batch = 4,
        .steps_per_epoch = 3,
    };
    qopts_default(&o->quant);
    o->quant.extra_methods = probe_methods;
}

static size_t image_len(const NetOpts *n)
{
    return (size_t)n->in_c * (size_t)n->in_h * (size_t)n->in_w;
}

int rig_open(Rig *r, const RigOpts *o, Err *e)
{
    *r = (Rig){.o = o, .variants = o->quant.nbits_list ? o->quant.nbits_list : 1};
    r->m = model_new(&o->net, &o->quant, 0, 11, e);
    if (!r->m) return -1;
    if (optim_init(&r->optim, &o->optim, model_store(r->m), e)) return -1;
    r->x = xaligned((size_t)o->batch * image_len(&o->net) * sizeof *r->x);
    r->label = xcalloc((size_t)o->batch, sizeof *r->label);
    return 0;
}

void rig_close(Rig *r)
{
    model_free(r->m);
    optim_free(&r->optim);
    free(r->x);
    free(r->label);
    *r = (Rig){0};
}

static void draw(Rig *r, int64_t step, int n)
{
    const NetOpts *no = &r->o->net;
    Rng g = rng_stream(23, RNG_TEST, (uint64_t)step, 0);
    for (size_t i = 0; i < (size_t)n * image_len(no); i++) r->x[i] = (float)rng_normal(&g);
    for (int i = 0; i < n; i++) r->label[i] = (int32_t)rng_below(&g, (uint32_t)no->num_classes);
}

static int in_epoch(const Rig *r)
{
    return (int)(r->step % r->o->steps_per_epoch);
}

static int epoch_of(const Rig *r)
{
    return (int)(r->step / r->o->steps_per_epoch);
}

double rig_gradients(Rig *r, Err *e)
{
    const int n = in_epoch(r) == r->o->steps_per_epoch - 1 ? (r->o->batch + 1) / 2 : r->o->batch;
    double sum = 0;
    draw(r, r->step, n);
    if (model_prepare(r->m, PH_TRAIN, 0, n, e)) return (double)NAN;
    store_zero_grads(model_store(r->m));
    for (int v = 0; v < r->variants; v++) {
        double loss;
        if (model_train(r->m, v, r->x, r->label, n, r->step, &loss, NULL, e)) return (double)NAN;
        sum += loss;
    }
    return sum;
}

double rig_eval(Rig *r, int variant, Err *e)
{
    const int n = r->o->batch - 1;
    double loss;
    draw(r, -1, n);
    if (model_eval(r->m, variant, r->x, r->label, n, r->o->batch, &loss, NULL, e))
        return (double)NAN;
    return loss / n;
}

/* Each parameter's gradient to a mean square of 1. */
static void unit_gradients(ParamStore *ps)
{
    for (int i = 0; i < ps->n; i++) {
        const size_t n = ps->p[i]->trained ? tensor_len(&ps->p[i]->grad) : 0;
        float *g = ps->p[i]->grad.data;
        double squares = 0;
        for (size_t k = 0; k < n; k++) squares += (double)g[k] * (double)g[k];
        for (size_t k = 0; k < n && squares > 0; k++) g[k] = (float)((double)g[k] / sqrt(squares / (double)n));
    }
}

double rig_step(Rig *r, Err *e)
{
    double loss;
    if (r->o->policy && in_epoch(r) == 0 && r->o->policy(r->m, epoch_of(r), e)) return (double)NAN;
    loss = rig_gradients(r, e);
    if (!isfinite(loss)) return loss;
    if (r->o->unit_gradients) unit_gradients(model_store(r->m));
    optim_step(&r->optim, model_store(r->m), epoch_of(r));
    model_after_step(r->m);
    r->step++;
    for (int v = 0; in_epoch(r) == 0 && v < r->variants; v++)
        if (!isfinite(rig_eval(r, v, e))) return (double)NAN;
    return loss;
}

/* ---- checkpoints ---- */

static Checkpoint checkpoint(Rig *r, TrainState *st, InputShape *in)
{
    state_init(st);
    *in = (InputShape){
        .c = r->o->net.in_c, .h = r->o->net.in_h, .w = r->o->net.in_w, .std = {1, 1, 1}};
    st->step = r->step;
    st->epoch = epoch_of(r);
    st->batch = in_epoch(r);
    return (Checkpoint){model_store(r->m), &r->optim, in, "normalized", "", st};
}

int rig_save(Rig *r, const char *dir, Err *e)
{
    TrainState st;
    InputShape in;
    Checkpoint c = checkpoint(r, &st, &in);
    return checkpoint_save(dir, &c, e);
}

int rig_resume(Rig *r, const char *dir, Err *e)
{
    TrainState st;
    InputShape in;
    Checkpoint c = checkpoint(r, &st, &in);
    if (checkpoint_peek(dir, &st, e) != 1) return -1;
    /* an epoch that has not begun yet gets its rules from rig_step */
    for (int64_t epoch = 0;
         r->o->policy && (epoch < st.epoch || (epoch == st.epoch && st.batch > 0)); epoch++)
        if (r->o->policy(r->m, (int)epoch, e)) return -1;
    if (checkpoint_resume(dir, &c, e) != 1) return -1;
    r->step = st.step;
    return 0;
}

/* ---- comparing ---- */

static const char *tensors_differ(const Tensor *a, const Tensor *b, const char *what,
                                  const char *name, char *buf, size_t n)
{
    const unsigned char *u = a->data, *v = b->data;
    size_t bytes = tensor_bytes(a), at = 0, wrong = 0;
    if (!memcmp(u, v, bytes)) return NULL;
    for (size_t i = bytes; i-- > 0;)
        if (u[i] != v[i]) at = i, wrong++;
    if (a->dtype == DT_F32)
        snprintf(buf, n, "%s %s: %zu of %zu bytes differ, first at [%zu]: %.9g and %.9g", what,
                 name, wrong, bytes, at / 4, (double)((const float *)a->data)[at / 4],
                 (double)((const float *)b->data)[at / 4]);
    else
        snprintf(buf, n, "%s %s: %zu of %zu bytes differ", what, name, wrong, bytes);
    return buf;
}

const char *rig_difference(const Rig *a, const Rig *b, char *buf, size_t n)
{
    const ParamStore *s = model_store(a->m), *t = model_store(b->m);
    const char *d = NULL;
    if (s->n != t->n || a->step != b->step || a->optim.t != b->optim.t) {
        snprintf(buf, n, "%d and %d parameters, step %d and %d", s->n, t->n, (int)a->step,
                 (int)b->step);
        return buf;
    }
    for (int i = 0; i < s->n && !d; i++) {
        const Param *p = s->p[i], *q = t->p[i];
        d = tensors_differ(&p->value, &q->value, p->kind == PK_BUFFER ? "buffer" : "parameter",
                           p->name, buf, n);
        for (int k = 0; k < p->nslots && !d; k++)
            d = tensors_differ(&p->slot[k], &q->slot[k], "state of", p->name, buf, n);
    }
    return d;
}

/* ---- finite differences ---- */

/* All buffers, one after another, out of the store or back into it. */
static void buffers(ParamStore *ps, char *to, const char *from)
{
    size_t at = 0;
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        const size_t bytes = tensor_bytes(&p->value);
        if (p->kind != PK_BUFFER) continue;
        if (to) memcpy(to + at, p->value.data, bytes);
        if (from) memcpy(p->value.data, from + at, bytes), param_touch(p);
        at += bytes;
    }
}

static size_t buffer_bytes(const ParamStore *ps)
{
    size_t n = 0;
    for (int i = 0; i < ps->n; i++)
        n += ps->p[i]->kind == PK_BUFFER ? tensor_bytes(&ps->p[i]->value) : 0;
    return n;
}

/* The loss with entry k of p set to v, everything else put back afterwards. */
static double loss_at(Rig *r, Param *p, size_t k, float v, const char *before)
{
    float *w = p->value.data, old = w[k];
    double loss;
    Err e = {0};
    w[k] = v;
    param_touch(p);
    loss = rig_gradients(r, &e);
    w[k] = old;
    param_touch(p);
    buffers(model_store(r->m), NULL, before);
    return loss;
}

typedef enum Verdict { FD_WRONG, FD_KINK, FD_RIGHT } Verdict;

/* Is `want` the derivative at entry k? A kink (relu, clip) nearby spoils a central difference: a
 * smaller step is tried then, and in the end it is enough for `want` to lie between the slopes of
 * the two sides. */
static Verdict difference(Rig *r, Param *p, size_t k, double want, double here, double tolerance,
                          const char *before, double *central)
{
    const float old = ((const float *)p->value.data)[k];
    Verdict v = FD_WRONG;
    for (float h = 1e-3f; h > 5e-5f && v != FD_RIGHT; h /= 4) {
        const double up = loss_at(r, p, k, old + h, before),
                     down = loss_at(r, p, k, old - h, before);
        const double above = (up - here) / (double)h, below = (here - down) / (double)h;
        const double noise = fabs(here) * 0x1p-23 / (double)h; /* the loss is a float */
        *central = (above + below) / 2;
        if (fabs(*central - want) <= tolerance + noise)
            v = FD_RIGHT;
        else if (want >= fmin(above, below) - tolerance - noise &&
                 want <= fmax(above, below) + tolerance + noise)
            v = FD_KINK;
    }
    return v;
}

const char *rig_finite_differences(Rig *r, int per_param, int *compared, char *buf, size_t n)
{
    ParamStore *ps = model_store(r->m);
    Rng g = rng_stream(31, RNG_TEST, 0, 0);
    char *before = xcalloc(1, buffer_bytes(ps) + 1);
    const char *wrong = NULL;
    float *grads;
    double here, central = 0;
    int kinks = 0;
    Err e = {0};
    *compared = 0;
    buffers(ps, before, NULL);
    here = rig_gradients(r, &e);
    if (!isfinite(here)) {
        free(before);
        snprintf(buf, n, "%.200s", e.msg);
        return buf;
    }
    buffers(ps, NULL, before);
    grads = xcalloc(ps->n_grads, sizeof *grads);
    memcpy(grads, ps->grads, ps->n_grads * sizeof *grads);
    for (int i = 0; i < ps->n && !wrong; i++) {
        Param *p = ps->p[i];
        const size_t len = tensor_len(&p->value);
        const float *d;
        double big = 0;
        if (p->kind == PK_BUFFER || !p->trained) continue;
        d = grads + ((const float *)p->grad.data - ps->grads);
        for (size_t k = 0; k < len; k++) big = fmax(big, fabs((double)d[k]));
        for (int t = 0; t < per_param && !wrong; t++, ++*compared) {
            const size_t k = rng_below(&g, (uint32_t)len);
            const Verdict v =
                difference(r, p, k, (double)d[k], here, 1e-3 + 0.02 * big, before, &central);
            kinks += v == FD_KINK;
            if (v != FD_WRONG) continue;
            snprintf(buf, n, "%s[%zu]: gradient %g, finite difference %g (largest gradient %g)",
                     p->name, k, (double)d[k], central, big);
            wrong = buf;
        }
    }
    if (!wrong && kinks * 10 > *compared) {
        snprintf(buf, n, "%d of %d gradients only lie between the slopes of two sides", kinks,
                 *compared);
        wrong = buf;
    }
    free(before);
    free(grads);
    return wrong;
}
