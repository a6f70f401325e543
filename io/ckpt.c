/* io/ckpt.c -- checkpoint files of any kind: which reader a file is for, and looking things up in
 * what was read. */
#include "io/ckpt.h"

#include <string.h>

#include "io/fs.h"
#include "io/tensorfile.h"

/* safetensors begin with a length of 8 bytes and '{'. No PyTorch file has a '{' there: the magic
 * number of the legacy container (or a frame's length) and the compression method of a zip member
 * cover that byte. */
int tensors_read(TensorFile *f, const char *path, Err *e)
{
    FileMap m;
    bool safe;
    *f = (TensorFile){0};
    if (fs_map(&m, path, e) < 0) return -1;
    safe = m.len > 8 && m.data[8] == '{';
    fs_unmap(&m);
    return safe ? safetensors_read(f, path, e) : pth_read(f, path, e);
}

const Tensor *tensors_find(const TensorFile *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->v[i].name, name) == 0) return &f->v[i].t;
    return NULL;
}

const char *tensors_meta(const TensorFile *f, const char *key)
{
    for (int i = 0; i < f->nmeta; i++)
        if (strcmp(f->meta[i].key, key) == 0) return f->meta[i].value;
    return NULL;
}

void tensors_free(TensorFile *f)
{
    arena_free(&f->arena);
    *f = (TensorFile){0};
}

int tensorfile_add(TensorFile *f, const char *name, const ElemType *type, int ndim,
                   const int64_t *dim, Err *e)
{
    int small[TENSOR_MAX_DIM] = {0};
    int64_t len = 1;
    Tensor *t = &f->v[f->n].t;
    if (ndim > TENSOR_MAX_DIM)
        return err_set(e, ERR_DATA, "tensor '%.200s' has %d dimensions; at most %d are read", name,
                       ndim, TENSOR_MAX_DIM);
    for (const char *s = name; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 127)
            return err_set(e, ERR_DATA, "a tensor with a control character in its name");
    for (int i = 0; i < ndim; i++) {
        if (dim[i] < 0 || dim[i] > INT32_MAX)
            return err_set(e, ERR_DATA, "tensor '%.200s': impossible shape", name);
        small[i] = (int)dim[i];
    }
    for (int i = 0; i < ndim; i++)
        if (__builtin_mul_overflow(len, dim[i], &len) || len > INT32_MAX)
            return err_set(e, ERR_DATA, "tensor '%.200s' has more than 2^31 - 1 elements", name);
    *t = tensor_make(type->dtype, ndim, small, NULL);
    t->data = arena_alloc(&f->arena, tensor_bytes(t));
    f->v[f->n].type = type->safe;
    f->v[f->n++].name = arena_strdup(&f->arena, name);
    return 0;
}

void tensorfile_add_meta(TensorFile *f, const char *key, const char *value)
{
    f->meta[f->nmeta].key = arena_strdup(&f->arena, key);
    f->meta[f->nmeta++].value = arena_strdup(&f->arena, value);
}
