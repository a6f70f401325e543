/* test/test_onnx_f8net.c -- F8Net's nets from their configurations to whole numbers to ONNX, on
 * small images: ONNX Runtime gives the logits of the exact execution (quant/intexec) to the bit.
 * Weights at random, statistics of a training batch. QRUN_FULL=1: four nets instead of two. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/f8int.h"
#include "quant/intexec.h"
#include "run/export.h"
#include "run/session.h"
#include "test/onnx_judge.h"

enum { BATCH = 4, STEPS = 1, CLASSES = 10 };
#define MOMENTUM 0.1f /* of the norms */

static const struct {
    const char *name, *file;
    int layers; /* convolutions and the classifier */
    bool full;  /* only with QRUN_FULL */
} nets_of[] = {
    {"res18", "configs/f8net/res18_fix_quant_test_int_op_only.yml", 21, false},
    {"mbv2", "configs/f8net/mbv2_fix_quant_test_int_op_only.yml", 53, false},
    {"mbv1", "configs/f8net/mbv1_fix_quant_test_int_op_only.yml", 28, true},
    {"res50", "configs/f8net/res50_fix_quant_ptcv_pretrained_test_int_op_only.yml", 54, true},
};

/* Pixels k / 256, NHWC. */
static void draw(Rng *g, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_below(g, 256) / 256;
}

/* Statistics of the norms become those of the last batch instead of a running average, which would
 * need many. */
static void warm_up(Session *s, const char *name, float *x, size_t image)
{
    Rng g = rng_stream(9, RNG_TEST, 0, 0);
    int32_t label[BATCH];
    ParamStore *ps = model_store(s->model);
    Err e = {0};
    double loss;
    for (int step = 0; step < STEPS; step++) {
        draw(&g, x, BATCH * image);
        for (int i = 0; i < BATCH; i++) label[i] = (int32_t)rng_below(&g, CLASSES);
        if (model_prepare(s->model, PH_TRAIN, 0, BATCH, &e)) fail_msg("%s: %s", name, e.msg);
        for (int i = 0; i < ps->n; i++)
            if (strstr(ps->p[i]->name, "running_"))
                memset(ps->p[i]->value.data, 0, tensor_bytes(&ps->p[i]->value));
        store_zero_grads(ps);
        if (model_train(s->model, 0, x, label, BATCH, step, &loss, NULL, &e))
            fail_msg("%s: %s", name, e.msg);
    }
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        float *v = p->value.data;
        for (size_t k = 0; strstr(p->name, "running_") && k < tensor_len(&p->value); k++)
            v[k] /= MOMENTUM;
        param_touch(p);
    }
}

/* The image in the network's own numbers, and what they give. */
static void put_tensors(Judge *j, Model *m, const IntNet *net, const float *x, const char *name)
{
    IntExec *run;
    Err e = {0};
    const IntOp *in = &net->op[0], *out = &net->op[net->out];
    const int dim[4] = {BATCH, in->c, in->h, in->w}, odim[2] = {BATCH, out->c};
    const size_t map = (size_t)in->h * (size_t)in->w, c = (size_t)in->c, image = map * c;
    uint8_t *nhwc = xcalloc(BATCH, image), *nchw = xcalloc(BATCH, image);
    int32_t *logits = xcalloc((size_t)BATCH * (size_t)out->c, sizeof *logits);
    Tensor tx = tensor_make(in->type, 4, dim, nchw), ty = tensor_make(DT_S32, 2, odim, logits);
    int apart = 0;
    f8int_image(net, x, BATCH * image, nhwc);
    for (size_t n = 0; n < BATCH; n++)
        for (size_t p = 0; p < map; p++)
            for (size_t k = 0; k < c; k++)
                nchw[n * image + k * map + p] = nhwc[n * image + p * c + k];
    run = intexec_new(net, BATCH, model_prim(m), &e);
    if (!run) fail_msg("%s: %s", name, e.msg);
    intexec_run(run, nhwc, BATCH, logits);
    intexec_free(run);
    for (int i = out->c; i < BATCH * out->c; i++) apart += logits[i] != logits[i - out->c];
    if (!apart) fail_msg("%s: all images have the same logits", name);
    judge_tensors(j, &tx, &ty);
    free(nhwc);
    free(nchw);
    free(logits);
}

static void test_nets(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(nets_of); i++) {
        if (nets_of[i].full && !getenv("QRUN_FULL")) continue;
        char *over[] = {"dataset=synthetic", "data_transforms=", "num_classes=10",
                        "topk=[1]",          "image_size=32",    "data_loader_workers=0"};
        const char *name = nets_of[i].name;
        Config cfg;
        Session s = {0};
        IntNet net = {0};
        ExportForms f;
        Err e = {0};
        double unit;
        float *x;
        size_t image;
        if (config_load(&cfg, nets_of[i].file, ARRAY_LEN(over), over, &e) ||
            session_open(&s, &cfg, &e))
            fail_msg("%s: %s", name, e.msg);
        image = (size_t)s.input.c * (size_t)s.input.h * (size_t)s.input.w;
        x = xaligned(BATCH * image * sizeof *x);
        warm_up(&s, name, x, image);
        if (f8int_build(model_qplan(s.model), true, &net, &unit, &e))
            fail_msg("%s: %s", name, e.msg);
        for (int strict = 0; strict < 2 - (i > 0); strict++) {
            const ExportOpts o = {.net = name, .input = &s.input, .integers_only = strict};
            char full[64];
            snprintf(full, sizeof full, "%s%s", name, strict ? "_strict" : "");
            if (export_intnet(&net, &o, judge_add(*state, full), &f, &e))
                fail_msg("%s: %s", full, e.msg);
            put_tensors(*state, s.model, &net, x, full);
            print_message(
                "# %s: %d QLinearConv, %d float (sums up to %.2g x 2^24), %d integer, %d wide\n",
                full, f.qlinear, f.f32, f.worst, f.integer, f.wide);
            if (f.qlinear + f.f32 + f.integer != nets_of[i].layers)
                fail_msg("%s: %d layers", full, f.qlinear + f.f32 + f.integer);
            if ((f.qlinear > 0) == strict) fail_msg("%s: %d QLinearConv", full, f.qlinear);
        }
        intnet_free(&net);
        free(x);
        session_free(&s);
        config_free(&cfg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nets),
        cmocka_unit_test(judge_test_check),
        cmocka_unit_test(judge_test_all),
        cmocka_unit_test(judge_test_disabled),
    };
    return cmocka_run_group_tests(tests, judge_setup, judge_teardown);
}
