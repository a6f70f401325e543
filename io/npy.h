/* io/npy.h -- .npy files (engine/tensor.h) written row by row, for as many rows as come. */
#ifndef IO_NPY_H
#define IO_NPY_H

#include "io/fs.h"
#include "engine/tensor.h"

typedef struct NpyRows {
    AtomicFile file;
    Tensor shape; /* dim[0] counts the rows so far; no data */
    bool open;
} NpyRows;

/* Rows of ndim dimensions (0: single numbers). Until npy_close, PATH is what it was. */
int npy_open(NpyRows *f, const char *path, DType type, int ndim, const int *dim, Err *e);
/* n more rows. Faults of writing are reported by npy_close. */
void npy_rows(NpyRows *f, const void *data, int n);
int npy_close(NpyRows *f, Err *e);
void npy_abandon(NpyRows *f); /* nothing is left of it; one that is not open is left alone */

#endif
