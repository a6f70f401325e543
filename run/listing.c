/* run/listing.c -- see listing.h. */
#include "run/listing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "run/session.h"

/* ---- the two kinds of files ---- */

static void list_tensors(Listing *l)
{
    const TensorFile *f = &l->tensors;
    l->format = f->format;
    l->v = xcalloc((size_t)f->n + 1, sizeof *l->v);
    for (l->n = 0; l->n < f->n; l->n++) {
        const Tensor *t = &f->v[l->n].t;
        ListEntry *x = &l->v[l->n];
        *x = (ListEntry){.name = f->v[l->n].name,
                         .type = f->v[l->n].type,
                         .ndim = t->ndim,
                         .dtype = t->dtype,
                         .data = t->data,
                         .len = tensor_len(t)};
        for (int i = 0; i < t->ndim; i++) x->dim[i] = t->dim[i];
    }
}

/* ONNX's number of each type, with our type where the values can be read. */
static const struct {
    const char *name;
    DType dtype;
    bool readable;
} onnx_types[] = {
    [1] = {"FLOAT", DT_F32, true},      [2] = {"UINT8", DT_U8, true},
    [3] = {"INT8", DT_S8, true},        [4] = {"UINT16", DT_F32, false},
    [5] = {"INT16", DT_F32, false},     [6] = {"INT32", DT_S32, true},
    [7] = {"INT64", DT_S64, true},      [9] = {"BOOL", DT_U8, true},
    [10] = {"FLOAT16", DT_F32, false},  [11] = {"DOUBLE", DT_F32, false},
    [16] = {"BFLOAT16", DT_BF16, true}, [22] = {"INT4", DT_F32, false},
};

static void list_onnx(Listing *l)
{
    const OnnxFile *f = &l->onnx;
    l->format = "onnx";
    l->v = xcalloc((size_t)f->ninit + 1, sizeof *l->v);
    for (l->n = 0; l->n < f->ninit; l->n++) {
        const OnnxTensor *t = &f->init[l->n];
        const size_t type = (size_t)t->type;
        const bool known = t->type > 0 && type < ARRAY_LEN(onnx_types) && onnx_types[type].name;
        ListEntry *x = &l->v[l->n];
        *x = (ListEntry){.name = t->name,
                         .type = known ? onnx_types[type].name : "other",
                         .ndim = t->ndim,
                         .len = 1};
        for (int i = 0; i < t->ndim; i++) {
            x->dim[i] = t->dim[i];
            x->len *= (size_t)t->dim[i];
        }
        if (!known || !onnx_types[type].readable) continue;
        x->dtype = onnx_types[type].dtype;
        x->data = t->bytes == x->len * dtype_size(x->dtype) ? t->data : NULL;
    }
}

/* A protobuf of ONNX begins with its first field, the version of the format: a small varint. So may
 * the length at the beginning of a safetensors file, which '{' follows. */
static int looks_like_onnx(const char *path, Err *e)
{
    FileMap m;
    int yes;
    if (fs_map(&m, path, e)) return -1;
    yes = m.len > 2 && m.data[0] == 0x08 && m.data[1] < 0x80 && !(m.len > 8 && m.data[8] == '{');
    fs_unmap(&m);
    return yes;
}

int listing_open(Listing *l, const char *path, Err *e)
{
    int onnx;
    *l = (Listing){0};
    if (!(l->path = weights_path(path, e))) return -1;
    if ((onnx = looks_like_onnx(l->path, e)) < 0) return -1;
    if (onnx) {
        l->is_onnx = true;
        if (onnx_read(&l->onnx, l->path, e)) return -1;
        list_onnx(l);
    } else {
        if (tensors_read(&l->tensors, l->path, e)) return -1;
        list_tensors(l);
    }
    return 0;
}

void listing_close(Listing *l)
{
    free(l->v);
    free(l->path);
    if (l->is_onnx) onnx_file_free(&l->onnx);
    tensors_free(&l->tensors);
    *l = (Listing){0};
}

/* ---- looking at them ---- */

const ListEntry *listing_find(const Listing *l, const char *name)
{
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->v[i].name, name)) return &l->v[i];
    return NULL;
}

double listing_value(const ListEntry *t, size_t i)
{
    const unsigned char *p = (const unsigned char *)t->data + i * dtype_size(t->dtype);
    union {
        float f;
        int64_t l;
        int32_t i;
        uint16_t h;
    } u;
    switch (t->dtype) {
    case DT_F32:
        memcpy(&u.f, p, sizeof u.f);
        return (double)u.f;
    case DT_BF16:
        memcpy(&u.h, p, sizeof u.h);
        return (double)bf16_to_float(u.h);
    case DT_S64:
        memcpy(&u.l, p, sizeof u.l);
        return (double)u.l;
    case DT_S32:
        memcpy(&u.i, p, sizeof u.i);
        return u.i;
    case DT_S8:
        return (signed char)*p;
    default:
        return *p;
    }
}

const char *listing_shape(const ListEntry *t, char buf[128])
{
    size_t at = 1;
    strcpy(buf, "[");
    for (int i = 0; i < t->ndim && at < 128 - 24; i++) /* ", ", 20 characters, "]" and the end */
        at += (size_t)snprintf(buf + at, 128 - at, "%s%" PRId64, i ? ", " : "", t->dim[i]);
    snprintf(buf + at, 128 - at, "]");
    return buf;
}
