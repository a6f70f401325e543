/* test/support/onnx_net.c -- see test/onnx_net.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/export.h"
#include "test/onnx_net.h"

/* Parameters as a trained net may have them, none at a value that hides a fault. */
static void randomize(ParamStore *ps)
{
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        float *v = p->value.data;
        const bool var = str_ends(p->name, "running_var");
        Rng g = rng_stream(5, RNG_TEST, (uint64_t)i, 0);
        if (p->value.dtype != DT_F32 || p->kind == PK_CLIP) continue;
        if (p->kind == PK_WEIGHT && v[0] != 0) continue; /* its own initial values */
        for (size_t k = 0; k < tensor_len(&p->value); k++)
            v[k] = var                    ? (float)rng_range(&g, 0.5, 2)
                   : p->kind == PK_WEIGHT ? (float)(0.3 * rng_normal(&g))
                   : p->kind == PK_NORM && str_ends(p->name, ".weight")
                       ? (float)rng_range(&g, 0.6, 1.4)
                       : (float)(0.2 * rng_normal(&g));
        param_touch(p);
    }
}

Model *onnx_net_open(const OnnxNetCase *c)
{
    NetOpts o = c->opts ? *c->opts : net_usual(c->net);
    Err e = {0};
    Model *m;
    o.num_classes = ONNX_NET_CLASSES;
    o.in_c = c->net->in_c;
    o.in_h = o.in_w = c->size;
    o.extra = c->extra;
    m = model_new(&o, c->q, 0, 11, &e);
    if (!m) fail_msg("%s: %s", c->net->name, e.msg);
    randomize(model_store(m));
    return m;
}

#define MOMENTUM 0.1f /* of the norms */
enum { SETTLED = 16 }; /* images: of two alone, maps of one pixel have no variance to speak of */
static const int32_t no_labels[SETTLED];

/* Running statistics become those of a batch: with others the images of a deep net end with the
 * same logits, or with huge ones, whatever the file says. */
static void settle(Model *m, const OnnxNetCase *c, const float *images)
{
    ParamStore *ps = model_store(m);
    float **was = xcalloc((size_t)ps->n, sizeof *was);
    Err e = {0};
    for (int i = 0; i < ps->n; i++) {
        if (!strstr(ps->p[i]->name, "running_")) continue;
        was[i] = xaligned(tensor_bytes(&ps->p[i]->value));
        memcpy(was[i], ps->p[i]->value.data, tensor_bytes(&ps->p[i]->value));
    }
    if (model_observe(m, c->variant, images, no_labels, SETTLED, 0, &e))
        fail_msg("%s: %s", c->net->name, e.msg);
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        float *v = p->value.data;
        for (size_t k = 0; was[i] && k < tensor_len(&p->value); k++) {
            if (v[k] != was[i][k]) v[k] = (v[k] - (1 - MOMENTUM) * was[i][k]) / MOMENTUM;
            if (str_ends(p->name, "var") && !(v[k] > 1e-3f)) v[k] = 1e-3f;
        }
        if (was[i]) param_touch(p);
        free(was[i]);
    }
    free(was);
}

/* Logits of the first images of the batch, [batch, classes], to be freed. */
static float *evaluate(Model *m, const OnnxNetCase *c, const float *images)
{
    const size_t bytes = sizeof(float) * (size_t)c->batch * ONNX_NET_CLASSES;
    const float *logits;
    float *z = xaligned(bytes);
    double loss;
    Err e = {0};
    if (model_eval(m, c->variant, images, no_labels, c->batch, c->batch, &loss, &logits, &e))
        fail_msg("%s%s: %s", c->net->name, c->label, e.msg);
    memcpy(z, logits, bytes);
    return z;
}

/* How far rounding moves the logits of a float net: the largest difference when each weight moves
 * by a rounding, 2^-23 of itself. That it takes after the sums of another program to a factor of
 * two, from 4e-7 of MNIST's smallest net to 2e-3 of ResNet-152, was measured on every net. The
 * weights are left moved. */
static double rounding(Model *m, const OnnxNetCase *c, const float *images, const float *logits)
{
    ParamStore *ps = model_store(m);
    Rng g = rng_stream(13, RNG_TEST, 0, 0);
    double most = 0;
    float *z;
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        float *v = p->value.data;
        if (p->kind != PK_WEIGHT) continue;
        for (size_t k = 0; k < tensor_len(&p->value); k++) v[k] *= 1 + (float)(0x1p-23 * rng_normal(&g));
        param_touch(p);
    }
    z = evaluate(m, c, images);
    for (int i = 0; i < c->batch * ONNX_NET_CLASSES; i++)
        most = fmax(most, fabs((double)z[i] - (double)logits[i]));
    free(z);
    return most;
}

/* Nothing is rounded to levels. */
static bool is_float(const QOpts *q)
{
    return (str_eq(q->wt_quant, "none") || q->wt_bit == 32) && (str_eq(q->fm_quant, "none") || q->fm_bit == 32) &&
           (str_eq(q->ot_quant, "none") || q->ot_bit == 32);
}

void onnx_net_add(Judge *j, const OnnxNetCase *c)
{
    Model *m = onnx_net_open(c);
    const int size = c->size, dim[4] = {c->batch, c->net->in_c, size, size},
              out[2] = {c->batch, ONNX_NET_CLASSES};
    const size_t n = (size_t)SETTLED * (size_t)c->net->in_c * (size_t)size * (size_t)size;
    const ExportOpts o = {.net = c->net->name, .keep_norms = c->keep_norms, .variant = c->variant};
    float *nhwc = xaligned(n * sizeof *nhwc), *nchw = xaligned(n * sizeof *nchw), *logits;
    char name[96];
    const char *path;
    double most = 0, apart = 0, atol;
    Rng g = rng_stream(7, RNG_TEST, 0, 0);
    Tensor in = tensor_make(DT_F32, 4, dim, nchw), want;
    Err e = {0};
    ASSERT(c->batch <= SETTLED, "%d images", c->batch);
    snprintf(name, sizeof name, "%s%s", c->net->name, c->label);
    for (size_t i = 0; i < n; i++) nhwc[i] = (float)rng_normal(&g);
    nhwc_to_nchw(nhwc, nchw, c->batch, c->net->in_c, size, size);
    settle(m, c, nhwc);
    logits = evaluate(m, c, nhwc);
    want = tensor_make(DT_F32, 2, out, logits);
    for (int i = 0; i < c->batch * ONNX_NET_CLASSES; i++) {
        most = fmax(most, fabs((double)logits[i]));
        apart = fmax(apart, fabs((double)logits[i] - (double)logits[i % ONNX_NET_CLASSES]));
    }
    if (!(most > 1e-3)) fail_msg("%s: logits up to %g only", name, most);
    path = judge_add(j, name);
    if (export_float(model_qplan(m), &o, path, &e)) fail_msg("%s: %s", name, e.msg);
    judge_tensors(j, &in, &want);
    atol = is_float(c->q) ? 4 * rounding(m, c, nhwc, logits) + 1e-6 * most : 1e-4 * most;
    if (!(apart > 0.01 * most && apart > 20 * atol))
        fail_msg("%s: logits up to %g, of different images only %g apart, rounding %g", name, most,
                 apart, atol);
    judge_allow(j, atol, c->flips);
    free(logits);
    free(nhwc);
    free(nchw);
    model_free(m);
}
