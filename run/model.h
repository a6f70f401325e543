/* run/model.h -- a net with its parameters, quantizers and programs. */
#ifndef RUN_MODEL_H
#define RUN_MODEL_H

#include "data/data.h"
#include "nets/nets.h"
#include "quant/lower.h"

typedef struct Model Model;

/* Whether so many copies of its weights have room in the machine's memory; -1 with ERR_CONFIG. model_new asks
 * for one of them. */
int model_fits(const Spec *s, int copies, Err *e);

/* Builds the Spec, assigns quantizers, declares and initialises parameters. classes, c, h, w are
 * taken from `no`. */
Model *model_new(const NetOpts *no, const QOpts *qo, double label_smoothing, uint64_t seed, Err *e);
void model_free(Model *m);

const Spec *model_spec(const Model *m);
ParamStore *model_store(Model *m);
QPlan *model_qplan(Model *m);
struct Prim *model_prim(Model *m);

/* Builds (or finds) the program for (phase, variant, batch); it is also done on first use by the
 * calls below. */
int model_prepare(Model *m, Phase phase, int variant, int batch, Err *e);

/* Forward and backward of one batch; gradients are ADDED into the store (zero them first). label
 * -1: not counted. Mean loss over the counted samples; logits stay valid until the next call
 * ([batch, classes], may be NULL). A non-finite loss: -1 with ERR_DIVERGED naming the first node
 * with a non-finite output. `step` seeds dropout. */
int model_train(Model *m, int variant, const float *x, const int32_t *label, int batch,
                int64_t step, double *loss, const float **logits, Err *e);
/* The same of b->n images with hard or soft targets. */
int model_train_batch(Model *m, int variant, const Batch *b, int64_t step, double *loss,
                      const float **logits, Err *e);
/* The forward pass of training alone: running statistics move, as do the buffers of quantizers; no
 * gradient, no loss. */
int model_observe(Model *m, int variant, const float *x, const int32_t *label, int batch,
                  int64_t step, Err *e);
/* Forward only, with running statistics. n images of x (NHWC) and labels; the model pads partial
 * batches itself: `batch` is the program's size, n <= batch. Sum (not mean) of the plain
 * cross-entropy over n. */
int model_eval(Model *m, int variant, const float *x, const int32_t *label, int n, int batch,
               double *loss_sum, const float **logits, Err *e);
/* Somebody who looks at tensors of layers while evaluations compute them. */
typedef struct ModelWatch {
    const unsigned *want; /* per unit of the Spec: bits 1 << LayerTensor */
    /* `t` is there during the call; maps have the n images of model_eval, not the padding. */
    void (*see)(void *arg, int unit, LayerTensor which, const Tensor *t);
    void *arg;
} ModelWatch;
/* From the next model_eval on; NULL: nobody looks any more. Borrowed. Programs are made anew where
 * one of the tensors would not be made otherwise; results are the same to the bit. */
void model_watch(Model *m, const ModelWatch *w);
/* Sum of the plain cross-entropy of n rows of logits; label -1: not counted. */
double cross_entropy_sum(const float *z, int classes, const int32_t *label, int n);
void model_after_step(Model *m); /* after the optimizer: every quantizer's after_step */

/* Policy: `enable`, or a method's own attribute, on every instance whose name contains `pattern`.
 * Number of instances set, or -1 with `e`. Programs are dropped when the graph changes. */
int model_set(Model *m, const char *pattern, const char *attr, double value, Err *e);
void model_drop_programs(Model *m);

/* Activations that such a program would need; none is made. */
int model_plan_bytes(Model *m, Phase phase, int variant, int batch, size_t *bytes, Err *e);
size_t model_arena_bytes(const Model *m); /* planned activations, the largest program */
/* The graph: nodes, shapes, implementations, bytes, lifetimes. */
void model_print(Model *m, Phase ph, int batch, Str *out);

/* Time per op of a program, measured over `steps` runs on random data (qrun profile). */
typedef struct OpTime {
    const char *name, *op, *impl;
    double fwd_s, bwd_s; /* per run, minimum */
    double flops, bytes; /* of the forward pass */
} OpTime;
int model_profile(Model *m, Phase ph, int batch, int steps, OpTime **t, int *n, double *total_s,
                  Err *e);

#endif
