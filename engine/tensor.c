/* engine/tensor.c -- see tensor.h. */
#include "engine/tensor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"

static const struct {
    size_t size;
    const char *name, *npy;
} types[DT_NTYPES] = {
    [DT_F32] = {4, "f32", "<f4"}, [DT_BF16] = {2, "bf16", NULL}, [DT_S64] = {8, "s64", "<i8"},
    [DT_S32] = {4, "s32", "<i4"}, [DT_S8] = {1, "s8", "|i1"},    [DT_U8] = {1, "u8", "|u1"},
};

size_t dtype_size(DType t)
{
    return types[t].size;
}

const char *dtype_name(DType t)
{
    return types[t].name;
}

size_t tensor_len(const Tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    return n;
}

size_t tensor_bytes(const Tensor *t)
{
    return tensor_len(t) * types[t->dtype].size;
}

Tensor tensor_make(DType dtype, int ndim, const int *dim, void *data)
{
    Tensor t = {.dtype = dtype, .ndim = ndim, .data = data};
    ASSERT(ndim >= 0 && ndim <= TENSOR_MAX_DIM, "%d dimensions", ndim);
    for (int i = 0; i < ndim; i++) t.dim[i] = dim[i];
    return t;
}

bool tensor_same_shape(const Tensor *a, const Tensor *b)
{
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

const char *tensor_shape_text(const Tensor *t, char *buf)
{
    char *p = buf;
    *p++ = '[';
    for (int i = 0; i < t->ndim; i++) p += sprintf(p, "%s%d", i ? ", " : "", t->dim[i]);
    strcpy(p, "]");
    return buf;
}

/* n matrices [rows, cols] to [cols, rows]. */
static void transpose(const float *src, float *dst, int n, size_t rows, size_t cols)
{
    PARALLEL_FOR(i, n)
    {
        const float *s = src + (size_t)i * rows * cols;
        float *d = dst + (size_t)i * rows * cols;
        for (size_t c = 0; c < cols; c++)
            for (size_t r = 0; r < rows; r++) d[c * rows + r] = s[r * cols + c];
    }
}

void nchw_to_nhwc(const float *src, float *dst, int n, int c, int h, int w)
{
    transpose(src, dst, n, (size_t)c, (size_t)h * (size_t)w);
}

void nhwc_to_nchw(const float *src, float *dst, int n, int c, int h, int w)
{
    transpose(src, dst, n, (size_t)h * (size_t)w, (size_t)c);
}

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023;
    if (exp == 31) return from_bits(sign | 0x7F800000u | man << 13);
    if (exp) return from_bits(sign | (exp + 112) << 23 | man << 13);
    return (sign ? -1.0f : 1.0f) * (float)man * 0x1p-24f;
}

float bf16_to_float(uint16_t h)
{
    return from_bits((uint32_t)h << 16);
}

uint16_t float_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 64); /* NaN stays NaN */
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

/* ---- .npy ---- */

/* The text after 'key': in a npy header, or NULL. */
static const char *npy_field(const char *head, const char *key)
{
    const char *p = strstr(head, key);
    if (!p) return NULL;
    p = strchr(p, ':');
    if (!p) return NULL;
    do p++;
    while (*p == ' ');
    return p;
}

static int npy_shape(const char *p, Tensor *t)
{
    size_t n = 1;
    t->ndim = 0;
    if (*p++ != '(') return -1;
    while (*p && *p != ')') {
        char *end;
        long d = strtol(p, &end, 10);
        if (end == p || d < 0 || d > INT32_MAX || t->ndim == TENSOR_MAX_DIM) return -1;
        if (d && n > SIZE_MAX / 16 / (size_t)d) return -1;
        n *= (size_t)d;
        t->dim[t->ndim++] = (int)d;
        p = end;
        while (*p == ',' || *p == ' ' || *p == 'L') p++;
    }
    return *p == ')' ? 0 : -1;
}

int npy_read(const char *path, Arena *a, Tensor *t, Err *e)
{
    unsigned char pre[12];
    char *head = NULL;
    const char *descr, *order, *shape;
    size_t hlen, n;
    bool is_f64 = false;
    int r = -1;
    FILE *f = fopen(path, "rb");
    *t = (Tensor){0};
    if (!f) return err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
    if (fread(pre, 1, 10, f) != 10 || memcmp(pre, "\x93NUMPY", 6) != 0 || pre[6] < 1 ||
        pre[6] > 3) {
        err_set(e, ERR_DATA, "%s: not a .npy file", path);
        goto out;
    }
    hlen = pre[8] | (size_t)pre[9] << 8;
    if (pre[6] > 1) {
        if (fread(pre + 10, 1, 2, f) != 2) goto cut;
        hlen |= (size_t)pre[10] << 16 | (size_t)pre[11] << 24;
    }
    if (hlen > 65536) {
        err_set(e, ERR_DATA, "%s: npy header of %zu bytes", path, hlen);
        goto out;
    }
    head = xcalloc(hlen + 1, 1);
    if (fread(head, 1, hlen, f) != hlen) goto cut;
    descr = npy_field(head, "'descr'");
    order = npy_field(head, "'fortran_order'");
    shape = npy_field(head, "'shape'");
    if (!descr || *descr != '\'' || !order || !shape || !str_starts(order, "False") ||
        npy_shape(shape, t) < 0) {
        err_set(e, ERR_DATA, "%s: npy header not understood: %s", path, head);
        goto out;
    }
    t->dtype = DT_NTYPES;
    for (int i = 0; i < DT_NTYPES; i++)
        if (types[i].npy && !strncmp(descr + 1, types[i].npy, 3)) t->dtype = (DType)i;
    if (!strncmp(descr + 1, "|b1", 3)) t->dtype = DT_U8;
    if (!strncmp(descr + 1, "<f8", 3)) t->dtype = DT_F32, is_f64 = true;
    if (t->dtype == DT_NTYPES) {
        err_set(e, ERR_DATA, "%s: npy type %.6s is not supported", path, descr);
        goto out;
    }
    n = tensor_len(t);
    t->data = arena_alloc(a, tensor_bytes(t));
    if (is_f64) {
        for (size_t i = 0; i < n; i++) {
            double d;
            if (fread(&d, sizeof d, 1, f) != 1) goto cut;
            ((float *)t->data)[i] = (float)d;
        }
    } else if (n && fread(t->data, dtype_size(t->dtype), n, f) != n) {
        goto cut;
    }
    r = 0;
    goto out;
cut:
    err_set(e, ERR_DATA, "%s: file ends early", path);
out:
    free(head);
    fclose(f);
    return r;
}

size_t npy_header(const Tensor *t, char head[NPY_HEADER])
{
    char shape[96] = "";
    size_t len = 0, n;
    ASSERT(types[t->dtype].npy, "no npy type for %s", types[t->dtype].name);
    for (int i = 0; i < t->ndim; i++)
        len += (size_t)snprintf(shape + len, sizeof shape - len, "%d,", t->dim[i]);
    memset(head, ' ', NPY_HEADER);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    n = (size_t)snprintf(head + 10, NPY_HEADER - 10,
                         "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                         types[t->dtype].npy, shape);
    head[10 + n] = ' ';
    head[NPY_HEADER - 1] = '\n';
    head[8] = (char)(unsigned char)(NPY_HEADER - 10);
    head[9] = 0;
    return NPY_HEADER;
}

int npy_write(const char *path, const Tensor *t, Err *e)
{
    char head[NPY_HEADER];
    FILE *f = fopen(path, "wb");
    if (!f) return err_set(e, ERR_RUN, "%s: %s", path, strerror(errno));
    fwrite(head, 1, npy_header(t, head), f);
    fwrite(t->data, dtype_size(t->dtype), tensor_len(t), f);
    if (ferror(f) | fclose(f)) return err_set(e, ERR_RUN, "%s: %s", path, strerror(errno));
    return 0;
}
