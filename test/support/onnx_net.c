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

/* Running statistics become those of the batch: with others the images of a deep net end with the
 * same logits, whatever the file says. */
static void settle(Model *m, const OnnxNetCase *c, const float *images, const int32_t *label)
{
    ParamStore *ps = model_store(m);
    float **was = xcalloc((size_t)ps->n, sizeof *was);
    Err e = {0};
    for (int i = 0; i < ps->n; i++) {
        if (!strstr(ps->p[i]->name, "running_")) continue;
        was[i] = xaligned(tensor_bytes(&ps->p[i]->value));
        memcpy(was[i], ps->p[i]->value.data, tensor_bytes(&ps->p[i]->value));
    }
    if (model_observe(m, c->variant, images, label, c->batch, 0, &e))
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

void onnx_net_add(Judge *j, const OnnxNetCase *c)
{
    Model *m = onnx_net_open(c);
    const int size = c->size, dim[4] = {c->batch, c->net->in_c, size, size},
              out[2] = {c->batch, ONNX_NET_CLASSES};
    const size_t n = (size_t)c->batch * (size_t)c->net->in_c * (size_t)size * (size_t)size;
    const ExportOpts o = {.net = c->net->name, .keep_norms = c->keep_norms, .variant = c->variant};
    int32_t *label = xcalloc((size_t)c->batch, sizeof *label);
    float *nhwc = xaligned(n * sizeof *nhwc), *nchw = xaligned(n * sizeof *nchw);
    const float *logits;
    char name[96];
    const char *path;
    double loss, most = 0, apart = 0;
    Rng g = rng_stream(7, RNG_TEST, 0, 0);
    Tensor in = tensor_make(DT_F32, 4, dim, nchw), want;
    Err e = {0};
    snprintf(name, sizeof name, "%s%s", c->net->name, c->label);
    for (size_t i = 0; i < n; i++) nhwc[i] = (float)rng_normal(&g);
    nhwc_to_nchw(nhwc, nchw, c->batch, c->net->in_c, size, size);
    settle(m, c, nhwc, label);
    if (model_eval(m, c->variant, nhwc, label, c->batch, c->batch, &loss, &logits, &e))
        fail_msg("%s: %s", name, e.msg);
    want = tensor_make(DT_F32, 2, out, (void *)(uintptr_t)logits);
    for (int i = 0; i < c->batch * ONNX_NET_CLASSES; i++) {
        most = fmax(most, fabs((double)logits[i]));
        apart = fmax(apart, fabs((double)logits[i] - (double)logits[i % ONNX_NET_CLASSES]));
    }
    if (!(most > 1e-3)) fail_msg("%s: logits up to %g only", name, most);
    if (!(apart > 0.01 * most))
        fail_msg("%s: logits up to %g, of different images only %g apart", name, most, apart);
    path = judge_add(j, name, (c->rtol > 0 ? c->rtol : 1e-4) * most);
    judge_allow(j, c->flips);
    if (export_float(model_qplan(m), &o, path, &e)) fail_msg("%s: %s", name, e.msg);
    judge_tensors(j, &in, &want);
    free(label);
    free(nhwc);
    free(nchw);
    model_free(m);
}
