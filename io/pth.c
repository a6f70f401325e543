/* io/pth.c -- see pth.h. Source of the format: torch/serialization.py and torch/_utils.py of torch
 * 1.13, and the files they write. */
#include "io/pth.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX  200
#define VISITS_MAX ((size_t)4 << 20) /* shared containers are visited once per path */
#define LEN_MAX    INT32_MAX         /* elements of a tensor */
#define MAGIC_LEN  10

/* ---- the names a file may mention ---- */

/* N_STORAGE + i: row i of elem_types */
enum { N_STORAGE = 0, N_TENSOR = 100, N_TENSOR_V2, N_PARAMETER, N_DICT };

/* Rows of storages are in the order of elem_types (asserted in pth_open). */
static const PyGlobal pth_names[] = {
    {"torch", "FloatStorage", 0, N_STORAGE + 0},
    {"torch", "HalfStorage", 0, N_STORAGE + 1},
    {"torch", "BFloat16Storage", 0, N_STORAGE + 2},
    {"torch", "DoubleStorage", 0, N_STORAGE + 3},
    {"torch", "LongStorage", 0, N_STORAGE + 4},
    {"torch", "IntStorage", 0, N_STORAGE + 5},
    {"torch", "ShortStorage", 0, N_STORAGE + 6},
    {"torch", "CharStorage", 0, N_STORAGE + 7},
    {"torch", "ByteStorage", 0, N_STORAGE + 8},
    {"torch", "BoolStorage", 0, N_STORAGE + 9},
    {"collections", "OrderedDict", PG_DICT, N_DICT},
    {"torch._utils", "_rebuild_tensor", PG_CALL, N_TENSOR},
    {"torch._utils", "_rebuild_tensor_v2", PG_CALL, N_TENSOR_V2},
    {"torch._utils", "_rebuild_parameter", PG_CALL, N_PARAMETER},
};
static const PickleRules object_rules = {pth_names, ARRAY_LEN(pth_names), PICKLE_PERSID};
static const PickleRules header_rules = {NULL, 0, PICKLE_BIGINT};

static int bad(Err *e, const char *what)
{
    return err_set(e, ERR_DATA, "%s", what);
}

/* ---- persistent ids: ('storage', type, key, location, elements[, view]) ---- */

/* Fit for a message and for a member of the archive. */
static bool key_is_plain(const PthStorage *s)
{
    for (size_t i = 0; i < s->nkey; i++)
        if ((unsigned char)s->key[i] < ' ' || s->key[i] == '/' || s->key[i] == 127) return false;
    return s->nkey > 0 && s->nkey < 64;
}

/* Fills `s`, except for its data. */
static int read_persid(const PyObj *o, PthStorage *s, Err *e)
{
    const PyObj *id = o->kind == PY_PERSID ? o->v[0] : NULL, *key;
    if (!id || id->kind != PY_TUPLE || id->n < 5 || id->n > 6 || !py_is_text(id->v[0], "storage"))
        return bad(e, "a persistent id that is no storage");
    if (id->v[1]->kind != PY_GLOBAL || id->v[1]->g->id >= N_TENSOR)
        return bad(e, "a storage of unknown type");
    key = id->v[2];
    if (key->kind != PY_STR && key->kind != PY_BYTES)
        return bad(e, "a storage key that is no text");
    s->type = &elem_types[id->v[1]->g->id];
    s->key = key->s;
    s->nkey = key->n;
    if (!key_is_plain(s)) return bad(e, "a storage key that is not a plain name");
    if (!py_int(id->v[4], &s->n) || s->n < 0) return bad(e, "a storage of negative size");
    if (id->n == 6 && id->v[5]->kind != PY_NONE)
        return bad(e, "a view of a storage (torch before 0.4), which is not supported");
    return 0;
}

static int by_key(const void *a, const void *b)
{
    const PthStorage *x = a, *y = b;
    size_t n = x->nkey < y->nkey ? x->nkey : y->nkey;
    int c = n ? memcmp(x->key, y->key, n) : 0;
    return c ? c : x->nkey < y->nkey ? -1 : x->nkey > y->nkey;
}

static int size_fault(const PthStorage *s, uint64_t have, Err *e)
{
    return err_set(e, ERR_DATA,
                   "storage '%.*s': %lld elements of %d bytes by the pickle, %llu bytes stored",
                   (int)s->nkey, s->key, (long long)s->n, s->type->size, (unsigned long long)have);
}

static int not_found(const PthStorage *s, Err *e)
{
    return err_set(e, ERR_DATA, "no storage '%.*s' in the file", (int)s->nkey, s->key);
}

static int storage_from_zip(Pth *p, PthStorage *s, Err *e)
{
    char *name = xasprintf("%sdata/%.*s", p->folder, (int)s->nkey, s->key);
    ZipMember *m = zip_find(&p->zip, name);
    free(name);
    if (!m) return not_found(s, e);
    if (m->size % (uint64_t)s->type->size || m->size / (uint64_t)s->type->size != (uint64_t)s->n)
        return size_fault(s, m->size, e);
    s->data = zip_bytes(&p->zip, m, e);
    return s->data ? 0 : -1;
}

static int storage_from_table(const Pth *p, PthStorage *s, Err *e)
{
    const PthStorage *have =
        p->nstorage ? bsearch(s, p->storage, p->nstorage, sizeof *s, by_key) : NULL;
    if (!have || !have->data) return not_found(s, e);
    *s = *have;
    return 0;
}

/* Fills `s` from the persistent id `o`, its data included. */
static int find_storage(Pth *p, const PyObj *o, PthStorage *s, Err *e)
{
    if (read_persid(o, s, e) < 0) return -1;
    return p->folder ? storage_from_zip(p, s, e) : storage_from_table(p, s, e);
}

/* ---- tensors ---- */

bool pth_is_tensor(const PyObj *o)
{
    return o->kind == PY_CALL;
}

/* Up to PTH_MAX_DIM integers >= 0; the number of them, or -1. */
static int read_dims(const PyObj *o, int64_t dim[PTH_MAX_DIM])
{
    if (o->kind != PY_TUPLE || o->n > PTH_MAX_DIM) return -1;
    for (size_t i = 0; i < o->n; i++)
        if (!py_int(o->v[i], &dim[i]) || dim[i] < 0) return -1;
    return (int)o->n;
}

/* Sets t->len and checks that every element lies in the storage. */
static int check_bounds(PthTensor *t, Err *e)
{
    int64_t last = t->offset, step;
    t->len = 1;
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] == 0) t->len = 0;
    if (t->len == 0) return 0; /* nothing is read */
    for (int i = 0; i < t->ndim; i++)
        if (__builtin_mul_overflow(t->len, t->dim[i], &t->len) || t->len > LEN_MAX)
            return bad(e, "a tensor of more than 2^31 - 1 elements");
    for (int i = 0; i < t->ndim; i++)
        if (__builtin_mul_overflow(t->dim[i] - 1, t->stride[i], &step) ||
            __builtin_add_overflow(last, step, &last))
            return bad(e, "strides that overflow");
    if (last >= t->storage_len)
        return err_set(e, ERR_DATA, "reaches element %lld of a storage of %lld", (long long)last,
                       (long long)t->storage_len);
    return 0;
}

int pth_tensor(Pth *p, const PyObj *o, PthTensor *t, Err *e)
{
    PthStorage s = {0};
    const PyObj *a;
    *t = (PthTensor){0};
    /* _rebuild_parameter(tensor, requires_grad, hooks): the tensor. A parameter of a parameter does
     * not occur. */
    if (o->kind == PY_CALL && o->g->id == N_PARAMETER) {
        if (o->v[0]->n != 3) return bad(e, "_rebuild_parameter with wrong arguments");
        o = o->v[0]->v[0];
    }
    if (o->kind != PY_CALL || o->g->id == N_PARAMETER) return bad(e, "not a tensor");
    a = o->v[0]; /* (storage, offset, sizes, strides[, requires_grad, hooks[, metadata]]) */
    if (o->g->id == N_TENSOR ? a->n != 4 : a->n != 6 && a->n != 7)
        return err_set(e, ERR_DATA, "%s with %zu arguments", o->g->name, a->n);
    if (a->v[0]->kind != PY_PERSID) return bad(e, "a tensor without a storage");
    if (!py_int(a->v[1], &t->offset) || t->offset < 0) return bad(e, "a negative storage offset");
    t->ndim = read_dims(a->v[2], t->dim);
    if (t->ndim < 0) return bad(e, "sizes that are not up to 8 integers >= 0");
    if (read_dims(a->v[3], t->stride) != t->ndim)
        return bad(e, "strides that are not one integer >= 0 for each size");
    if (find_storage(p, a->v[0], &s, e) < 0) return -1;
    t->type = s.type;
    t->data = s.data;
    t->storage_len = s.n;
    return check_bounds(t, e);
}

void pth_copy(const PthTensor *t, void *dst)
{
    int64_t at[PTH_MAX_DIM] = {0}, size = t->type->size, row, step, pos = t->offset;
    int outer = t->ndim - 1;
    char *out = dst;
    if (t->len == 0) return;
    row = t->ndim ? t->dim[outer] : 1;
    step = t->ndim ? t->stride[outer] : 1;
    /* as long as the inner dimensions are packed, take them as one row */
    while (outer > 0 && step == t->stride[t->ndim - 1] && t->stride[outer - 1] == row * step)
        row *= t->dim[--outer];
    for (;;) {
        int i = outer - 1;
        t->type->convert(t->data + pos * size, (ptrdiff_t)(step * size), out, (size_t)row);
        out += (size_t)row * dtype_size(t->type->dtype);
        for (; i >= 0; i--) { /* the next index of the outer dimensions */
            pos += t->stride[i];
            if (++at[i] < t->dim[i]) break;
            pos -= at[i] * t->stride[i];
            at[i] = 0;
        }
        if (i < 0) return;
    }
}

/* ---- walking ---- */

typedef struct Walk {
    Pth *p;
    const PthVisitor *v;
    Str path;
    size_t visits;
    Err *e;
} Walk;

static void put_key(Str *path, const PyObj *key)
{
    switch (key->kind) {
    case PY_STR:
    case PY_BYTES:
        for (size_t i = 0; i < key->n; i++) {
            char c = key->s[i];
            str_putn(path, (unsigned char)c < ' ' || c == 127 ? "?" : &c, 1);
        }
        break;
    case PY_INT:
    case PY_BOOL:
        str_printf(path, "%lld", (long long)key->i);
        break;
    default:
        str_printf(path, "<%s>", py_kind_name(key->kind));
    }
}

static int visit(Walk *w, const PyObj *o, int depth);

/* The i-th entry of a container, under `key` or its number. */
static int visit_entry(Walk *w, const PyObj *key, size_t i, const PyObj *value, int depth)
{
    size_t len = w->path.len;
    int rc;
    if (depth > 0) str_puts(&w->path, "/");
    if (key)
        put_key(&w->path, key);
    else
        str_printf(&w->path, "%zu", i);
    rc = visit(w, value, depth + 1);
    w->path.len = len;
    w->path.s[len] = 0;
    return rc;
}

static int visit_tensor(Walk *w, const PyObj *o, const char *path)
{
    PthTensor t;
    if (pth_tensor(w->p, o, &t, w->e) < 0) {
        err_prefix(w->e, "tensor '%.200s'", path);
        return -1;
    }
    return w->v->tensor ? w->v->tensor(w->v->arg, path, &t, w->e) : 0;
}

static int visit(Walk *w, const PyObj *o, int depth)
{
    const char *path = w->path.s ? w->path.s : "";
    int rc = 0;
    if (depth > DEPTH_MAX) return bad(w->e, "objects nested deeper than 200, or in themselves");
    if (w->visits++ == VISITS_MAX) return bad(w->e, "too many objects");
    switch (o->kind) {
    case PY_DICT:
        for (size_t i = 0; rc == 0 && i < o->n; i++)
            rc = visit_entry(w, o->v[2 * i], i, o->v[2 * i + 1], depth);
        return rc;
    case PY_LIST:
    case PY_TUPLE:
        for (size_t i = 0; rc == 0 && i < o->n; i++) rc = visit_entry(w, NULL, i, o->v[i], depth);
        return rc;
    case PY_CALL:
        return visit_tensor(w, o, path);
    case PY_GLOBAL:
    case PY_PERSID:
        return err_set(w->e, ERR_DATA, "'%.200s' is a bare %s", path, py_kind_name(o->kind));
    default:
        return w->v->scalar ? w->v->scalar(w->v->arg, path, o, w->e) : 0;
    }
}

int pth_walk(Pth *p, const PthVisitor *v, Err *e)
{
    Walk w = {.p = p, .v = v, .e = e};
    int rc = visit(&w, p->top, 0);
    str_free(&w.path);
    return rc;
}

/* ---- the zip container ---- */

/* The one member TOP/data.pkl. */
static ZipMember *find_pickle(const Zip *z, Err *e)
{
    ZipMember *found = NULL;
    bool script = false;
    for (size_t i = 0; i < z->n; i++) {
        const char *slash = strchr(z->m[i].name, '/');
        if (!slash) continue;
        script |= str_eq(slash, "/constants.pkl") || str_starts(slash, "/code/");
        if (!str_eq(slash, "/data.pkl")) continue;
        if (found) {
            err_set(e, ERR_DATA, "two members data.pkl");
            return NULL;
        }
        found = &z->m[i];
    }
    if (!found)
        err_set(e, ERR_DATA, "a zip archive without data.pkl: no PyTorch checkpoint%s",
                script ? " (but TorchScript)" : "");
    return found;
}

static int check_byteorder(Pth *p, Err *e)
{
    char *name = xasprintf("%sbyteorder", p->folder);
    ZipMember *m = zip_find(&p->zip, name);
    const unsigned char *s;
    free(name);
    if (!m) return 0;
    s = zip_bytes(&p->zip, m, e);
    if (!s) return -1;
    if (m->size >= 6 && memcmp(s, "little", 6) == 0) return 0;
    return err_set(e, ERR_DATA, "written in byte order '%.*s'; only little is read",
                   (int)(m->size < 8 ? m->size : 8), s);
}

static int open_zip(Pth *p, Err *e)
{
    ZipMember *m;
    const unsigned char *s;
    p->format = "pth-zip";
    if (zip_open(&p->zip, p->map.data, p->map.len, e) < 0) return -1;
    m = find_pickle(&p->zip, e);
    if (!m) return -1;
    p->folder = xstrndup(m->name, (size_t)(strchr(m->name, '/') + 1 - m->name));
    if (check_byteorder(p, e) < 0) return -1;
    s = zip_bytes(&p->zip, m, e);
    return s ? pickle_read(&p->pickle, s, m->size, &object_rules, e) : -1;
}

/* ---- the legacy container: five pickles, then the raw storages ---- */

static int check_magic(const PyObj *o, Err *e)
{
    static const char magic[MAGIC_LEN] = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    if (o->kind != PY_BIGINT || o->n != MAGIC_LEN || memcmp(o->s, magic, MAGIC_LEN) != 0)
        return bad(e, "wrong magic number: no PyTorch checkpoint");
    return 0;
}

static int check_version(const PyObj *o, Err *e)
{
    int64_t v;
    if (!py_int(o, &v)) return bad(e, "a protocol version that is no integer");
    if (v != 1001)
        return err_set(e, ERR_DATA, "protocol version %lld; only 1001 is known", (long long)v);
    return 0;
}

static int check_system(const PyObj *o, Err *e)
{
    const PyObj *little = py_get(o, "little_endian");
    if (!little || little->kind != PY_BOOL) return bad(e, "no entry little_endian in the header");
    return little->i ? 0 : bad(e, "written big-endian; only little-endian is read");
}

/* All storages that the object pickle mentions, each once. Uses of one key must agree. */
static int collect_storages(Pth *p, Err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < p->pickle.nobj; i++) n += p->pickle.obj[i]->kind == PY_PERSID;
    p->storage = arena_alloc(&p->arena, n * sizeof *p->storage);
    for (size_t i = 0; i < p->pickle.nobj; i++) {
        const PyObj *o = p->pickle.obj[i];
        if (o->kind == PY_PERSID && read_persid(o, &p->storage[p->nstorage++], e) < 0) return -1;
    }
    qsort(p->storage, n, sizeof *p->storage, by_key);
    p->nstorage = 0;
    for (size_t i = 0; i < n; i++) {
        PthStorage *s = &p->storage[i], *last = p->nstorage ? &p->storage[p->nstorage - 1] : NULL;
        if (!last || by_key(last, s) != 0)
            p->storage[p->nstorage++] = *s;
        else if (last->n != s->n || last->type != s->type)
            return err_set(e, ERR_DATA, "storage '%.*s' is described in two ways", (int)s->nkey,
                           s->key);
    }
    return 0;
}

static PthStorage *listed_storage(const Pth *p, const PyObj *key)
{
    PthStorage want = {.key = key->s, .nkey = key->n};
    return p->nstorage ? bsearch(&want, p->storage, p->nstorage, sizeof want, by_key) : NULL;
}

/* Every storage stands in the list of keys once, and the list has no others (their size would be
 * unknown). */
static int check_keys(Pth *p, const PyObj *keys, Err *e)
{
    bool unused = false;
    if (keys->kind != PY_LIST) return bad(e, "the list of storage keys is no list");
    for (size_t i = 0; i < keys->n; i++) {
        const PyObj *k = keys->v[i];
        PthStorage *s;
        if (k->kind != PY_STR && k->kind != PY_BYTES)
            return bad(e, "a storage key that is no text");
        s = listed_storage(p, k);
        if (s && s->listed) return bad(e, "a storage that occurs twice");
        if (s)
            s->listed = true;
        else
            unused = true;
    }
    for (size_t i = 0; i < p->nstorage; i++)
        if (!p->storage[i].listed) return not_found(&p->storage[i], e);
    return unused ? bad(e, "a storage that no tensor uses") : 0;
}

/* The raw part: for each key an int64 count and the elements. */
static int locate_storages(Pth *p, const PyObj *keys, size_t at, Err *e)
{
    if (check_keys(p, keys, e) < 0) return -1;
    for (size_t i = 0; i < keys->n; i++) {
        PthStorage *s = listed_storage(p, keys->v[i]);
        uint64_t count, bytes;
        if (p->map.len - at < sizeof count) return bad(e, "the file ends before its storages do");
        memcpy(&count, p->map.data + at, sizeof count);
        at += sizeof count;
        if (count != (uint64_t)s->n)
            return err_set(e, ERR_DATA,
                           "storage '%.*s': %lld elements by the pickle, %llu by its header",
                           (int)s->nkey, s->key, (long long)s->n, (unsigned long long)count);
        if (__builtin_mul_overflow(count, (uint64_t)s->type->size, &bytes) ||
            bytes > p->map.len - at)
            return size_fault(s, p->map.len - at, e);
        s->data = p->map.data + at;
        at += bytes;
    }
    if (at != p->map.len)
        return err_set(e, ERR_DATA, "%zu bytes behind the last storage", p->map.len - at);
    return 0;
}

static int open_legacy(Pth *p, Err *e)
{
    static const struct {
        const char *what;
        const PickleRules *rules;
        int (*check)(const PyObj *o, Err *e);
    } parts[] = {{"magic number", &header_rules, check_magic},
                 {"version", &header_rules, check_version},
                 {"header", &header_rules, check_system},
                 {"object", &object_rules, NULL},
                 {"storage keys", &header_rules, NULL}};
    Pickle part = {0};
    size_t at = 0;
    int rc = 0;
    p->format = "pth-legacy";
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(parts); i++) {
        Pickle *k = parts[i].rules == &object_rules ? &p->pickle : &part;
        pickle_free(&part);
        rc = pickle_read(k, p->map.data + at, p->map.len - at, parts[i].rules, e);
        if (rc == 0 && parts[i].check) rc = parts[i].check(k->top, e);
        if (rc < 0) err_prefix(e, "%s", parts[i].what);
        at += k->used;
    }
    if (rc == 0) rc = collect_storages(p, e);
    if (rc == 0) rc = locate_storages(p, part.top, at, e);
    pickle_free(&part);
    return rc;
}

/* ---- opening ---- */

/* Also the calls and storages that the object does not contain: a file is sound or refused. */
static int check_leftovers(Pth *p, Err *e)
{
    for (size_t i = 0; i < p->pickle.nobj; i++) {
        const PyObj *o = p->pickle.obj[i];
        PthStorage s;
        PthTensor t;
        if (o->kind == PY_CALL && pth_tensor(p, o, &t, e) < 0) return -1;
        if (o->kind == PY_PERSID && find_storage(p, o, &s, e) < 0) return -1;
    }
    return 0;
}

static int open_container(Pth *p, Err *e)
{
    const unsigned char *b = p->map.data;
    size_t n = p->map.len;
    if (n == 0) return bad(e, "the file is empty");
    if (n >= 4 && memcmp(b, "PK\3\4", 4) == 0) return open_zip(p, e);
    if (b[0] == 0x80) return open_legacy(p, e);
    if (n >= 262 && memcmp(b + 257, "ustar", 5) == 0)
        return bad(e, "the tar container of torch before 0.2, which is not supported");
    return bad(e, "no checkpoint; expected a PyTorch or safetensors file");
}

int pth_open(Pth *p, const char *path, Err *e)
{
    static const PthVisitor nothing = {0};
    int rc;
    *p = (Pth){.map = {.data = (const unsigned char *)"", .fd = -1}};
    for (size_t i = 0; i < elem_ntypes; i++)
        ASSERT(str_eq(pth_names[i].name, elem_types[i].storage), "row %zu of pth_names", i);
    if (fs_map(&p->map, path, e) < 0) return -1;
    rc = open_container(p, e);
    p->top = p->pickle.top;
    if (rc == 0) rc = pth_walk(p, &nothing, e);
    if (rc == 0) rc = check_leftovers(p, e);
    return rc < 0 ? err_prefix(e, "%s", path) : 0;
}

void pth_close(Pth *p)
{
    pickle_free(&p->pickle);
    zip_close(&p->zip);
    free(p->folder);
    arena_free(&p->arena);
    fs_unmap(&p->map);
    *p = (Pth){.map = {.data = (const unsigned char *)"", .fd = -1}};
}
