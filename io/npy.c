/* io/npy.c -- see npy.h. */
#include "io/npy.h"

int npy_open(NpyRows *f, const char *path, DType type, int ndim, const int *dim, Err *e)
{
    char head[NPY_HEADER];
    *f = (NpyRows){0};
    f->shape.dtype = type;
    f->shape.ndim = ndim + 1;
    for (int i = 0; i < ndim; i++) f->shape.dim[i + 1] = dim[i];
    if (fs_begin(&f->file, path, e)) return -1;
    f->open = true;
    fwrite(head, 1, npy_header(&f->shape, head), f->file.f);
    return 0;
}

void npy_rows(NpyRows *f, const void *data, int n)
{
    Tensor rows = f->shape;
    rows.dim[0] = n;
    fwrite(data, dtype_size(rows.dtype), tensor_len(&rows), f->file.f);
    f->shape.dim[0] += n;
}

int npy_close(NpyRows *f, Err *e)
{
    char head[NPY_HEADER];
    const size_t n = npy_header(&f->shape, head);
    f->open = false;
    if (fseek(f->file.f, 0, SEEK_SET) || fwrite(head, 1, n, f->file.f) != n) {
        err_set(e, ERR_RUN, "%s: could not be written", f->file.path);
        fs_abandon(&f->file);
        return -1;
    }
    return fs_commit(&f->file, e);
}

void npy_abandon(NpyRows *f)
{
    if (f->open) fs_abandon(&f->file);
    f->open = false;
}
