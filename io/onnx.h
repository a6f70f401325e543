/* io/onnx.h -- ONNX files: a model is built node by node, written in one go, and read back.
 *
 * The encoding is that of onnx.proto (Debian's libonnx-dev) by protobuf-c; opset 13, IR version 7,
 * standard operators only. Values and initializers share one set of names, nodes have another; both
 * are unique. Everything a model holds lives as long as the model; data of initializers is borrowed
 * until onnx_free, so weights are never copied. */
#ifndef IO_ONNX_H
#define IO_ONNX_H

#include "engine/tensor.h"

enum { ONNX_OPSET = 13, ONNX_IR_VERSION = 7 };

typedef struct Onnx Onnx;

Onnx *onnx_new(const char *graph_name, const char *doc);
void onnx_free(Onnx *m);

/* Memory that lives as long as the model: for data of initializers made on the way. */
void *onnx_alloc(Onnx *m, size_t bytes);

/* metadata_props; a key stands there once. */
void onnx_meta(Onnx *m, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* An input or output of the graph. dim[0] is the batch and stands there as the symbol N. An output
 * is a value made by a node; it is renamed to `name`. Both return the name. */
const char *onnx_input(Onnx *m, const char *name, DType type, int ndim, const int *dim);
const char *onnx_output(Onnx *m, const char *value, const char *name, DType type, int ndim,
                        const int *dim);

/* An initializer (type F32, S64, S32, S8 or U8). data is borrowed. */
const char *onnx_init(Onnx *m, DType type, int ndim, const int *dim, const void *data,
                      const char *fmt, ...) PRINTF_LIKE(6, 7);
/* A constant without dimensions; asking for it again gives the same one. */
const char *onnx_scalar(Onnx *m, DType type, double value);
/* A list of s64, as Reshape, Pad and ReduceSum take it; shared as well. */
const char *onnx_list(Onnx *m, int n, const int *v);

/* Adds a node; returns the name of its one output, NAME/out. `in` ends with NULL; "" leaves an
 * optional input out. `name` gets a number behind it when it is taken. Attributes go to the node
 * added last. */
const char *onnx_node(Onnx *m, const char *op, const char *name, const char *const *in);
#define ONNX_IN(...) ((const char *const[]){__VA_ARGS__, NULL})
void onnx_attr_int(Onnx *m, const char *name, int v);
void onnx_attr_ints(Onnx *m, const char *name, int n, const int *v);
void onnx_attr_float(Onnx *m, const char *name, float v);
void onnx_attr_text(Onnx *m, const char *name, const char *v);

/* ONNX's number of a type, for the attribute `to` of Cast. */
int onnx_type(DType t);

/* Writes PATH (atomically), then reads it back and compares it with the model. */
int onnx_write(const Onnx *m, const char *path, Err *e);

/* What a file holds; strings live in `arena`. */
typedef struct OnnxTensor {
    const char *name;
    int type; /* ONNX's number */
    int ndim;
    int64_t dim[TENSOR_MAX_DIM + 3]; /* inputs and outputs: -1 where it is a symbol */
    const void *data;                /* initializers with raw_data, else NULL */
    size_t bytes;
} OnnxTensor;

typedef struct OnnxNodeInfo {
    const char *op, *name;
    int nin, nout;
    const char **in, **out;
} OnnxNodeInfo;

typedef struct OnnxFile {
    int64_t ir_version, opset;
    const char *producer;
    OnnxTensor *init, *input, *output;
    int ninit, ninput, noutput;
    OnnxNodeInfo *node;
    int nnode;
    struct {
        const char *key, *value;
    } * meta;
    int nmeta;
    Arena arena;
} OnnxFile;

/* Parses a file and checks what every runtime relies on: a version and an opset, data of the size
 * the shape asks for, every name made once and before it is read, every output made, no initializer
 * that nothing reads. ERR_DATA with `e` naming file and fault. Release with onnx_file_free, after a
 * failure too. */
int onnx_read(OnnxFile *f, const char *path, Err *e);
void onnx_file_free(OnnxFile *f);

#endif
