/* io/safetensors.c -- safetensors files: what our checkpoints are.
 *
 *   u64    length of the header, little-endian
 *   JSON   {"__metadata__": {"key": "text", ...},
 *           "name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...}, spaces
 *   bytes  the tensors, C order, little-endian, no holes; offsets count from here
 *
 * Two keys of the metadata are ours: qrun.crc32 over the bytes of all tensors, and
 * qrun.header_crc32 over the header itself with its own eight digits read as '0'. Both are optional
 * in files of others. The same input always gives the same bytes. */
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "io/fs.h"
#include "io/tensorfile.h"

#define HEADER_MAX ((uint64_t)100 << 20)
#define META       "__metadata__"
#define DATA_CRC   "qrun.crc32"
#define HEADER_CRC "qrun.header_crc32"
#define NO_CRC     "00000000"
#define CRC_LEN    8

/* ---- writing ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const MetaOut *)a)->key, ((const MetaOut *)b)->key);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const TensorOut *const *)a)->name, (*(const TensorOut *const *)b)->name);
}

/* Repeated names would give a file that no reader takes. */
static void assert_distinct(const TensorOut *t, int n)
{
    const TensorOut **v = xmalloc((size_t)n * sizeof *v);
    for (int i = 0; i < n; i++) v[i] = &t[i];
    qsort(v, (size_t)n, sizeof *v, by_name);
    for (int i = 0; i < n; i++) {
        ASSERT(!str_eq(v[i]->name, META), "tensor named '%s'", v[i]->name);
        ASSERT(i == 0 || !str_eq(v[i - 1]->name, v[i]->name), "two tensors '%s'", v[i]->name);
    }
    free(v);
}

/* A JSON string; -1 when the text is not UTF-8. */
static int put_string(Str *out, const char *s, Err *e)
{
    json_t *j = json_string(s);
    char *text = j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    json_decref(j);
    if (!text) return err_set(e, ERR_RUN, "a name or value that is not UTF-8");
    str_puts(out, text);
    free(text);
    return 0;
}

static int put_meta(Str *h, const MetaOut *m, int nm, unsigned crc, Err *e)
{
    MetaOut *all = xmalloc(((size_t)nm + 2) * sizeof *all);
    char digits[CRC_LEN + 1];
    int rc = 0;
    snprintf(digits, sizeof digits, "%08x", crc);
    if (nm) memcpy(all, m, (size_t)nm * sizeof *m);
    all[nm++] = (MetaOut){DATA_CRC, digits};
    all[nm++] = (MetaOut){HEADER_CRC, NO_CRC};
    qsort(all, (size_t)nm, sizeof *all, by_key);
    str_puts(h, "{\"" META "\":{");
    for (int i = 0; rc == 0 && i < nm; i++) {
        ASSERT(i == 0 || !str_eq(all[i - 1].key, all[i].key), "metadata '%s' twice", all[i].key);
        if (i) str_puts(h, ",");
        rc = put_string(h, all[i].key, e);
        str_puts(h, ":");
        if (rc == 0) rc = put_string(h, all[i].value, e);
    }
    str_puts(h, "}");
    free(all);
    return rc;
}

static int put_tensor(Str *h, const TensorOut *t, size_t begin, Err *e)
{
    const char *type = elem_safe_name(t->t->dtype);
    ASSERT(type && t->t->layout == LY_ROW, "%s: dtype %d, layout %d", t->name, t->t->dtype,
           t->t->layout);
    str_puts(h, ",");
    if (put_string(h, t->name, e) < 0) return -1;
    str_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", type);
    for (int i = 0; i < t->t->ndim; i++) str_printf(h, "%s%d", i ? "," : "", t->t->dim[i]);
    str_printf(h, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor_bytes(t->t));
    return 0;
}

/* Where the eight digits of the header's own checksum stand, or NULL. */
static char *find_header_crc(char *h, size_t n)
{
    static const char mark[] = "\"" HEADER_CRC "\":\"";
    char *at = memmem(h, n, mark, sizeof mark - 1);
    if (!at) return NULL;
    at += sizeof mark - 1;
    return (size_t)(h + n - at) > CRC_LEN ? at : NULL;
}

static int make_header(Str *h, const TensorOut *t, int n, const MetaOut *m, int nm, Err *e)
{
    char digits[CRC_LEN + 1];
    uLong crc = crc32_z(0, NULL, 0);
    size_t at = 0;
    for (int i = 0; i < n; i++)
        if (tensor_bytes(t[i].t)) crc = crc32_z(crc, t[i].t->data, tensor_bytes(t[i].t));
    if (put_meta(h, m, nm, (unsigned)crc, e) < 0) return -1;
    for (int i = 0; i < n; i++) {
        if (put_tensor(h, &t[i], at, e) < 0) return -1;
        at += tensor_bytes(t[i].t);
    }
    str_puts(h, "}");
    while (h->len % 8) str_puts(h, " ");
    if (h->len > HEADER_MAX) return err_set(e, ERR_RUN, "a header of more than 100 MB");
    snprintf(digits, sizeof digits, "%08x",
             (unsigned)crc32_z(0, (const unsigned char *)h->s, h->len));
    memcpy(find_header_crc(h->s, h->len), digits, CRC_LEN);
    return 0;
}

int safetensors_write(const char *path, const TensorOut *t, int n, const MetaOut *m, int nm, Err *e)
{
    Str h = {0};
    AtomicFile a;
    uint64_t len;
    int rc;
    assert_distinct(t, n);
    rc = make_header(&h, t, n, m, nm, e);
    if (rc < 0) {
        err_prefix(e, "%s", path);
    } else {
        rc = fs_begin(&a, path, e);
    }
    if (rc == 0) { /* faults of fwrite are reported by fs_commit */
        len = h.len;
        fwrite(&len, sizeof len, 1, a.f);
        fwrite(h.s, 1, h.len, a.f);
        for (int i = 0; i < n; i++)
            if (tensor_bytes(t[i].t)) fwrite(t[i].t->data, 1, tensor_bytes(t[i].t), a.f);
        rc = fs_commit(&a, e);
    }
    str_free(&h);
    return rc;
}

/* ---- reading ---- */

typedef struct Entry {
    const char *name;
    const json_t *shape;
    const ElemType *type;
    uint64_t begin, end;
    int order; /* in the header */
} Entry;

static int by_place(const void *a, const void *b)
{
    const Entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return x->order - y->order;
}

static const ElemType *find_type(const char *name)
{
    for (size_t i = 0; name && i < elem_ntypes; i++)
        if (str_eq(elem_types[i].safe, name)) return &elem_types[i];
    return NULL;
}

/* One entry of the header, without its data. */
static int read_entry(Entry *x, const char *name, const json_t *j, uint64_t data_len, Err *e)
{
    const json_t *off = json_object_get(j, "data_offsets");
    const char *dtype = json_string_value(json_object_get(j, "dtype"));
    json_int_t begin = -1, end = -1;
    x->name = name;
    x->shape = json_object_get(j, "shape");
    if (!dtype || !json_is_array(x->shape) || json_array_size(off) != 2 || json_object_size(j) != 3)
        return err_set(e, ERR_DATA, "tensor '%.200s': not a dtype, a shape and two data_offsets",
                       name);
    x->type = find_type(dtype);
    if (!x->type)
        return err_set(e, ERR_DATA, "tensor '%.200s': dtype '%.40s' is not known", name, dtype);
    if (json_is_integer(json_array_get(off, 0))) begin = json_integer_value(json_array_get(off, 0));
    if (json_is_integer(json_array_get(off, 1))) end = json_integer_value(json_array_get(off, 1));
    if (begin < 0 || end < begin || (uint64_t)end > data_len)
        return err_set(e, ERR_DATA, "tensor '%.200s': data_offsets outside the file", name);
    x->begin = (uint64_t)begin;
    x->end = (uint64_t)end;
    return 0;
}

/* Asked before anything is allocated: a shape claims no more than the file has. */
static bool shape_fits(const int64_t *dim, size_t n, uint64_t bytes)
{
    for (size_t i = 0; i < n; i++)
        if (dim[i] == 0) return bytes == 0;
    for (size_t i = 0; i < n; i++) {
        if (dim[i] < 0 || bytes % (uint64_t)dim[i]) return false;
        bytes /= (uint64_t)dim[i];
    }
    return bytes == 1;
}

static int add_tensor(TensorFile *f, const Entry *x, const unsigned char *data, Err *e)
{
    int64_t dim[TENSOR_MAX_DIM + 1];
    size_t n = json_array_size(x->shape);
    if (n > TENSOR_MAX_DIM)
        return err_set(e, ERR_DATA, "tensor '%.200s' has %zu dimensions; at most %d are read",
                       x->name, n, TENSOR_MAX_DIM);
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(x->shape, i);
        dim[i] = json_is_integer(d) ? json_integer_value(d) : -1;
    }
    dim[n] = x->type->size; /* the bytes of an element as one more dimension */
    if (!shape_fits(dim, n + 1, x->end - x->begin))
        return err_set(e, ERR_DATA, "tensor '%.200s': the shape does not fit its data", x->name);
    if (tensorfile_add(f, x->name, x->type, (int)n, dim, e) < 0) return -1;
    x->type->convert(data + x->begin, x->type->size, f->v[f->n - 1].t.data,
                     tensor_len(&f->v[f->n - 1].t));
    return 0;
}

static int read_meta(TensorFile *f, const json_t *meta, Err *e)
{
    const char *key;
    json_t *value;
    f->meta = arena_alloc(&f->arena, json_object_size(meta) * sizeof *f->meta);
    if (meta && !json_is_object(meta)) return err_set(e, ERR_DATA, META " is not an object");
    for (void *it = json_object_iter((json_t *)(uintptr_t)meta); it;
         it = json_object_iter_next((json_t *)(uintptr_t)meta, it)) {
        key = json_object_iter_key(it);
        value = json_object_iter_value(it);
        if (!json_is_string(value))
            return err_set(e, ERR_DATA, META ": '%.200s' is not a text", key);
        tensorfile_add_meta(f, key, json_string_value(value));
    }
    return 0;
}

/* Tensors sorted by place must cover the data from end to end. */
static int read_tensors(TensorFile *f, json_t *header, const unsigned char *data, uint64_t len,
                        Err *e)
{
    size_t n = json_object_size(header), k = 0;
    Entry *x = xcalloc(n, sizeof *x);
    uint64_t at = 0;
    int rc = 0;
    for (void *it = json_object_iter(header); rc == 0 && it;
         it = json_object_iter_next(header, it)) {
        if (str_eq(json_object_iter_key(it), META)) continue;
        x[k].order = (int)k;
        rc = read_entry(&x[k++], json_object_iter_key(it), json_object_iter_value(it), len, e);
    }
    if (rc == 0) qsort(x, k, sizeof *x, by_place);
    f->v = arena_alloc(&f->arena, k * sizeof *f->v);
    for (size_t i = 0; rc == 0 && i < k; i++) {
        if (x[i].begin != at)
            rc = err_set(e, ERR_DATA, "tensor '%.200s': its data %s", x[i].name,
                         x[i].begin < at ? "overlaps another's" : "has a gap in front");
        else
            rc = add_tensor(f, &x[i], data, e);
        at = x[i].end;
    }
    if (rc == 0 && at != len)
        rc = err_set(e, ERR_DATA, "%llu bytes that belong to no tensor",
                     (unsigned long long)(len - at));
    free(x);
    return rc;
}

static int check_crc(const TensorFile *f, const char *key, uLong have, Err *e)
{
    const char *want = tensors_meta(f, key);
    char digits[CRC_LEN + 1];
    snprintf(digits, sizeof digits, "%08x", (unsigned)have);
    if (!want || str_eq(want, digits)) return 0;
    return err_set(e, ERR_DATA, "damaged: the checksum %s does not match", key);
}

static int check_header_crc(const TensorFile *f, const unsigned char *header, size_t n, Err *e)
{
    char *copy, *at;
    int rc;
    if (!tensors_meta(f, HEADER_CRC)) return 0;
    copy = xstrndup((const char *)header, n);
    at = find_header_crc(copy, n);
    if (at) memcpy(at, NO_CRC, CRC_LEN);
    rc = check_crc(f, HEADER_CRC, crc32_z(0, (const unsigned char *)copy, n), e);
    free(copy);
    return rc;
}

static int read_file(TensorFile *f, const FileMap *m, Err *e)
{
    json_error_t where;
    json_t *header;
    uint64_t n;
    int rc = 0;
    if (m->len < sizeof n) return err_set(e, ERR_DATA, "too short for a safetensors file");
    memcpy(&n, m->data, sizeof n);
    if (n > HEADER_MAX) return err_set(e, ERR_DATA, "a header of more than 100 MB");
    if (n > m->len - sizeof n) return err_set(e, ERR_DATA, "the file ends inside its header");
    header = json_loadb((const char *)m->data + sizeof n, n, JSON_REJECT_DUPLICATES, &where);
    if (!header) {
        for (char *c = where.text; *c; c++) /* it may quote the file */
            if ((unsigned char)*c < ' ') *c = '?';
        return err_set(e, ERR_DATA, "header, byte %d: %s", where.position + (int)sizeof n,
                       where.text);
    }
    if (!json_is_object(header)) rc = err_set(e, ERR_DATA, "the header is no JSON object");
    f->format = "safetensors";
    if (rc == 0) rc = read_meta(f, json_object_get(header, META), e);
    if (rc == 0) rc = check_header_crc(f, m->data + sizeof n, n, e);
    if (rc == 0) rc = read_tensors(f, header, m->data + sizeof n + n, m->len - sizeof n - n, e);
    if (rc == 0)
        rc = check_crc(f, DATA_CRC, crc32_z(0, m->data + sizeof n + n, m->len - sizeof n - n), e);
    json_decref(header);
    return rc;
}

int safetensors_read(TensorFile *f, const char *path, Err *e)
{
    FileMap m;
    int rc;
    *f = (TensorFile){0};
    if (fs_map(&m, path, e) < 0) return -1;
    rc = read_file(f, &m, e);
    if (rc < 0) {
        err_prefix(e, "%s", path);
        tensors_free(f);
    }
    fs_unmap(&m);
    return rc;
}
