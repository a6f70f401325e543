/* run/export.h -- nets as ONNX files (io/onnx.h). Input `input` [N,C,H,W], output `output`
 * [N,classes]; parameters are named as in the state dict. */
#ifndef RUN_EXPORT_H
#define RUN_EXPORT_H

#include "data/data.h"
#include "io/onnx.h"
#include "quant/intnet.h"
#include "quant/qplan.h"

typedef struct ExportOpts {
    const char *net;         /* name of the graph: that of the model */
    const char *weights;     /* the file they were loaded from, for the metadata; or NULL */
    const InputShape *input; /* constants of the normalization, for the metadata; or NULL */
    /* float nets */
    int variant;       /* entry of bits_list */
    const char *width; /* its name, for the metadata; NULL: the net has one width */
    bool keep_norms;   /* BatchNormalization nodes; false: folded into the layers before them */
    /* integer nets */
    bool integers_only; /* no float tensor anywhere, however slow */
} ExportOpts;

/* What stands in the way of export_float, before anything is computed: layers without a form in
 * float operations (quant/form.h). 0, or -1 with the first of them in `e`. */
int export_float_check(const QPlan *qp, int variant, Err *e);

/* The net as evaluation runs it, in float. Weights that are quantized stand there on their levels
 * (their norms are then not folded), quantized activations are float operations that give the same
 * bits as the quantizer's rows. Verified by reading the file back. */
int export_float(const QPlan *qp, const ExportOpts *o, const char *path, Err *e);

/* How the layers of an integer net were written. */
typedef struct ExportForms {
    int qlinear;  /* QLinearConv: convolution, ReLU and requantization in one */
    int f32;      /* Conv or Gemm in float on whole numbers, proven exact: no sum reaches 2^24 */
    int integer;  /* ConvInteger, MatMulInteger */
    int wide;     /* of qlinear: layers whose pairs of products may exceed 16 bits */
    double worst; /* largest bound of a sum among qlinear and f32, in parts of 2^24 */
} ExportForms;

/* `input` is the 8-bit image, `output` the logits as s32: the same bits as intnet_reference. Which
 * form each layer took goes to the log, and counted to *forms (may be NULL). */
int export_intnet(const IntNet *net, const ExportOpts *o, const char *path, ExportForms *forms,
                  Err *e);

/* What both kinds of export say about themselves in the metadata. */
void export_meta(Onnx *m, const ExportOpts *o);

#endif
