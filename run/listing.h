/* run/listing.h -- the tensors of any file that holds some: what `qrun inspect` and `qrun diff`
 * look at. */
#ifndef RUN_LISTING_H
#define RUN_LISTING_H

#include "io/ckpt.h"
#include "io/onnx.h"

typedef struct ListEntry {
    const char *name, *type; /* type: as in the file */
    int ndim;
    int64_t dim[TENSOR_MAX_DIM + 3];
    DType dtype;      /* of data */
    const void *data; /* not aligned; NULL: of a type whose values are not read */
    size_t len;
} ListEntry;

typedef struct Listing {
    char *path; /* of the file */
    const char *format;
    ListEntry *v; /* in file order */
    int n;
    bool is_onnx;
    TensorFile tensors; /* one of the two is in use */
    OnnxFile onnx;
} Listing;

/* `path`: a safetensors, PyTorch or ONNX file, told by content, or a run folder (its best, else its
 * last checkpoint). ERR_DATA; call listing_close in either case. */
int listing_open(Listing *l, const char *path, Err *e);
void listing_close(Listing *l); /* takes a zeroed Listing */

const ListEntry *listing_find(const Listing *l, const char *name);
double listing_value(const ListEntry *t, size_t i);
const char *listing_shape(const ListEntry *t, char buf[128]); /* "[16, 3, 3, 3]"; returns buf */

#endif
