/* io/pth_state.c -- pth_read: the state dict of a PyTorch checkpoint as a TensorFile. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/pth.h"
#include "io/tensorfile.h"

#define WRAPPER "module." /* what DataParallel puts in front of every name */

/* Shared and expanded storages let a small file ask for much memory: this much beyond 16 times the
 * file is refused. */
#define COPY_SLACK ((uint64_t)64 << 20)

static bool is_scalar(const PyObj *o)
{
    return o->kind == PY_BOOL || o->kind == PY_INT || o->kind == PY_FLOAT || o->kind == PY_STR;
}

/* The shortest text that reads back as the same double. */
static void put_double(Str *out, double v)
{
    char buf[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, v);
        if (strtod(buf, NULL) == v) break;
    }
    str_puts(out, buf);
}

static void put_scalar(Str *out, const PyObj *o)
{
    if (o->kind == PY_BOOL)
        str_puts(out, o->i ? "true" : "false");
    else if (o->kind == PY_INT)
        str_printf(out, "%lld", (long long)o->i);
    else if (o->kind == PY_FLOAT)
        put_double(out, o->f);
    else
        for (size_t i = 0; i < o->n; i++)
            if ((unsigned char)o->s[i] >= ' ') str_putn(out, o->s + i, 1);
}

/* A tensor of one element, such as best_acc1. */
static int put_tensor(Str *out, Pth *p, const PyObj *o, Err *e)
{
    union {
        float f;
        int64_t l;
        int32_t i;
        int8_t b;
        uint8_t u;
    } v = {0};
    PthTensor t;
    if (pth_tensor(p, o, &t, e) < 0) return -1;
    if (t.len != 1) return 0;
    pth_copy(&t, &v);
    switch (t.type->dtype) {
    case DT_F32:
        put_double(out, (double)v.f);
        break;
    case DT_S64:
        str_printf(out, "%lld", (long long)v.l);
        break;
    case DT_S32:
        str_printf(out, "%d", (int)v.i);
        break;
    case DT_S8:
        str_printf(out, "%d", v.b);
        break;
    default:
        str_printf(out, "%d", v.u);
    }
    return 0;
}

/* The scalars of the dict `o` (and, where asked, its tensors of one element), under `prefix`. */
static int add_scalars(TensorFile *f, Pth *p, const PyObj *o, const char *prefix, bool tensors,
                       Err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && o && o->kind == PY_DICT && i < o->n; i++) {
        const PyObj *key = o->v[2 * i], *value = o->v[2 * i + 1];
        Str k = {0}, v = {0};
        if (key->kind != PY_STR && key->kind != PY_BYTES) continue;
        if (is_scalar(value))
            put_scalar(&v, value);
        else if (tensors && pth_is_tensor(value))
            rc = put_tensor(&v, p, value, e);
        str_puts(&k, prefix);
        str_putn(&k, key->s, key->n);
        if (rc == 0 && v.len) tensorfile_add_meta(f, k.s, v.s);
        str_free(&k);
        str_free(&v);
    }
    return rc;
}

/* The dict that holds the parameters; `*key` is where, NULL at top level. */
static const PyObj *find_state(const PyObj *top, const char **key, Err *e)
{
    static const char *const keys[] = {"state_dict", "model", "net"};
    Str have = {0};
    *key = NULL;
    if (top->kind != PY_DICT) {
        err_set(e, ERR_DATA, "holds a %s, not a state dict",
                pth_is_tensor(top) ? "tensor" : py_kind_name(top->kind));
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const PyObj *o = py_get(top, keys[i]);
        *key = keys[i];
        if (o && o->kind == PY_DICT) return o;
    }
    *key = NULL;
    for (size_t i = 0; i < top->n; i++)
        if (pth_is_tensor(top->v[2 * i + 1])) return top;
    for (size_t i = 0; i < top->n && i < 20; i++) {
        const PyObj *k = top->v[2 * i];
        if (k->kind == PY_STR)
            str_printf(&have, "%s'%.*s'", have.len ? ", " : "", (int)(k->n < 60 ? k->n : 60), k->s);
    }
    err_set(e, ERR_DATA,
            "no state dict: neither 'state_dict', 'model' or 'net' nor tensors at top "
            "level; keys: %s",
            have.len ? have.s : "none");
    str_free(&have);
    return NULL;
}

/* One entry of the state dict. */
static int add_entry(TensorFile *f, Pth *p, const PyObj *key, const PyObj *value, uint64_t *copied,
                     Err *e)
{
    uint64_t limit = 16 * (uint64_t)(p->map.len + p->zip.arena.total) + COPY_SLACK;
    char *name;
    PthTensor t;
    int rc;
    if (key->kind != PY_STR && key->kind != PY_BYTES)
        return err_set(e, ERR_DATA, "a tensor whose name is a %s", py_kind_name(key->kind));
    if (key->n && memchr(key->s, 0, key->n))
        return err_set(e, ERR_DATA, "a NUL in a tensor's name");
    if (pth_tensor(p, value, &t, e) < 0) return -1;
    *copied += (uint64_t)t.len * dtype_size(t.type->dtype);
    if (*copied > limit)
        return err_set(e, ERR_DATA, "tensors far larger than the file (shared or expanded)");
    name = xstrndup(key->s, key->n);
    rc = tensorfile_add(f, name, t.type, t.ndim, t.dim, e);
    free(name);
    if (rc == 0) pth_copy(&t, f->v[f->n - 1].t.data);
    return rc;
}

static void strip_wrapper(TensorFile *f)
{
    for (int i = 0; i < f->n; i++)
        if (!str_starts(f->v[i].name, WRAPPER)) return;
    for (int i = 0; i < f->n; i++) f->v[i].name += strlen(WRAPPER);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A dict of Python has each key once, but its pickle may repeat one. */
static int check_names(const TensorFile *f, Err *e)
{
    const char **names = xmalloc((size_t)f->n * sizeof *names);
    int rc = 0;
    for (int i = 0; i < f->n; i++) names[i] = f->v[i].name;
    qsort(names, (size_t)f->n, sizeof *names, by_name);
    for (int i = 1; rc == 0 && i < f->n; i++)
        if (str_eq(names[i - 1], names[i]))
            rc = err_set(e, ERR_DATA, "two tensors named '%.200s'", names[i]);
    free(names);
    return rc;
}

static int read_state(TensorFile *f, Pth *p, Err *e)
{
    const char *key = NULL;
    const PyObj *state = find_state(p->top, &key, e);
    uint64_t copied = 0;
    int rc = 0;
    if (!state) return -1;
    f->v = arena_alloc(&f->arena, state->n * sizeof *f->v);
    f->meta = arena_alloc(&f->arena, (p->top->n + state->n) * sizeof *f->meta);
    for (size_t i = 0; rc == 0 && i < state->n; i++) {
        const PyObj *o = state->v[2 * i + 1];
        if (pth_is_tensor(o))
            rc = add_entry(f, p, state->v[2 * i], o, &copied, e);
        else if (key && !is_scalar(o) && o->kind != PY_NONE)
            rc = err_set(e, ERR_DATA, "an entry of '%s' is a %s, not a tensor", key,
                         py_kind_name(o->kind));
    }
    if (rc == 0) rc = check_names(f, e);
    if (rc == 0) rc = add_scalars(f, p, p->top, "", key != NULL, e);
    if (rc == 0 && key) {
        char *prefix = xasprintf("%s/", key);
        rc = add_scalars(f, p, state, prefix, false, e);
        free(prefix);
    }
    if (rc == 0) strip_wrapper(f);
    return rc;
}

int pth_read(TensorFile *f, const char *path, Err *e)
{
    Pth p;
    int rc = pth_open(&p, path, e);
    *f = (TensorFile){0};
    if (rc == 0) {
        f->format = p.format;
        rc = read_state(f, &p, e);
        if (rc < 0) err_prefix(e, "%s", path);
    }
    pth_close(&p);
    if (rc < 0) tensors_free(f);
    return rc;
}
