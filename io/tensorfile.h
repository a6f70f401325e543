/* io/tensorfile.h -- for the readers behind tensors_read: filling a TensorFile. */
#ifndef IO_TENSORFILE_H
#define IO_TENSORFILE_H

#include "io/ckpt.h"
#include "io/elem.h"

/* Takes the next place of f->v, whose room the reader has allocated. Data is zeroed memory of the
 * arena, to be filled by type->convert. -1 when the name or shape is none that the program can
 * hold. */
int tensorfile_add(TensorFile *f, const char *name, const ElemType *type, int ndim,
                   const int64_t *dim, Err *e);
void tensorfile_add_meta(TensorFile *f, const char *key, const char *value); /* room as above */

int safetensors_read(TensorFile *f, const char *path, Err *e);

#endif
