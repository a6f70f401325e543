/* run/integer.h -- F8Net's integer stages: int_infer, integize, int_op_only. One network of whole
 * numbers serves all three; they differ in what is written and, under compat: original, in the
 * layer that carries the factor of the average pool. */
#ifndef RUN_INTEGER_H
#define RUN_INTEGER_H

#include "quant/intexec.h"
#include "run/config.h"
#include "run/export.h"
#include "run/model.h"

/* Metadata of the checkpoints they write: the stage's name. */
#define INT_STAGE_META "qrun.stage"

typedef struct IntStage {
    const char *name;                        /* the key that asks for it */
    bool converted;                          /* weights as integize and int_op_only have them */
    const char *file;                        /* base name of what it writes; NULL: nothing */
    const char *(*folder)(const RunOpts *o); /* where the user wants it; "": the test's folder */
    const char *folder_key;
    DType stored; /* of the numbers in its checkpoint */
} IntStage;

/* The stage the configuration asks for, the strictest where it asks for several; NULL: none. */
const IntStage *int_stage(const RunOpts *o);

typedef struct Integers {
    IntNet net;
    IntExec *exec;
    double unit; /* logits of training per integer */
    int classes;
    void *image;              /* a batch of the network's input */
    int32_t *sums;            /* a batch of integer logits */
    float *logits;            /* the same times unit */
    int64_t compared, differ; /* int_compare: logits looked at; unlike the simulated net's */
    int32_t largest;          /* by so many units at most */
} Integers;

/* Whether the model has everything of which whole numbers are made, or a file (`weights`) lacks
 * what training in fixed point finds: such a net has lengths, but they mean nothing. */
int integers_check_loaded(Model *m, const IntStage *st, const char *weights, Err *e);
/* Builds the network from the model's weights as they are now, for batches of up to `batch`; logs
 * how it will be run. */
int integers_open(Integers *x, Model *m, const IntStage *st, int batch, Err *e);
void integers_close(Integers *x);

/* n images (NHWC floats, the values the net reads). Logits in units of training: [n, classes];
 * valid until the next call. */
const float *integers_eval(Integers *x, const float *image, int n);

/* Counts where the integer logits are not those of the simulated net (logits of training). */
void integers_compare(Integers *x, const float *simulated, int n);

/* Makes the folders of the stage's files; fails when these could not be written there. */
int integers_check_output(const char *folder, const IntStage *st, Err *e);
/* <folder>/checkpoints/<file>.safetensors and <folder>/onnx_files/<file>.onnx. */
int integers_write(const Integers *x, const char *folder, const IntStage *st, const ExportOpts *o,
                   Err *e);

#endif
