/* test/golden_pth.c -- see golden_pth.h. What a case holds is described in
 * test/golden/torch-checkpoints/README.md.
 *
 * expect: ok           every tensor and scalar by path, compared exactly, and none besides them
 * expect: error        refused with one line that names the file and holds every text of
 * message_must_mention
 * expect: ok_or_error  either, without a crash */
#include "test/golden_pth.h"

#include <stdlib.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/pth.h"

#define WITNESS "qrun_was_here" /* the hostile files would create it if they were run */

typedef struct Leaf {
    char *path;
    PthTensor t; /* or */
    const PyObj *o;
} Leaf;

typedef struct Leaves {
    Leaf *v;
    size_t n, cap;
} Leaves;

typedef struct Found {
    Leaves tensors, scalars;
} Found;

static Leaf *add_leaf(Leaves *l, const char *path)
{
    mem_grow(&l->v, &l->cap, l->n + 1, sizeof *l->v);
    l->v[l->n] = (Leaf){.path = xstrdup(path)};
    return &l->v[l->n++];
}

static int take_tensor(void *arg, const char *path, const PthTensor *t, Err *e)
{
    Found *f = arg;
    (void)e;
    add_leaf(&f->tensors, path)->t = *t;
    return 0;
}

static int take_scalar(void *arg, const char *path, const PyObj *o, Err *e)
{
    Found *f = arg;
    (void)e;
    add_leaf(&f->scalars, path)->o = o;
    return 0;
}

static void free_leaves(Leaves *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->v[i].path);
    free(l->v);
}

static const Leaf *find_leaf(const Leaves *l, const char *path)
{
    for (size_t i = 0; i < l->n; i++)
        if (str_eq(l->v[i].path, path)) return &l->v[i];
    return NULL;
}

/* ---- tensors ---- */

static bool same_ints(const Yaml *want, const int64_t *have, int n)
{
    if (!want || want->n != n) return false;
    for (int i = 0; i < n; i++) {
        long long v;
        if (!yaml_int(want->v[i], &v) || v != have[i]) return false;
    }
    return true;
}

static int64_t int_at(const Tensor *t, size_t i)
{
    switch (t->dtype) {
    case DT_S64:
        return ((const int64_t *)t->data)[i];
    case DT_S32:
        return ((const int32_t *)t->data)[i];
    case DT_S8:
        return ((const int8_t *)t->data)[i];
    default:
        return ((const uint8_t *)t->data)[i];
    }
}

static bool same_float(float a, float b)
{
    return (a != a && b != b) || memcmp(&a, &b, sizeof a) == 0; /* -0 is not 0 */
}

static bool same_value(const Tensor *have, const Tensor *want, size_t i, double *a, double *b)
{
    if (have->dtype == DT_F32 && want->dtype == DT_F32) {
        *a = (double)((const float *)have->data)[i];
        *b = (double)((const float *)want->data)[i];
        return same_float((float)*a, (float)*b);
    }
    *a = have->dtype == DT_F32 ? 0 : (double)int_at(have, i);
    *b = want->dtype == DT_F32 ? 0 : (double)int_at(want, i);
    return have->dtype != DT_F32 && want->dtype != DT_F32 && int_at(have, i) == int_at(want, i);
}

/* The expected content: an .npy, a number, or an empty list. */
static bool expected(const Yaml *y, const char *dir, Arena *a, const Tensor *have, Tensor *want,
                     Err *e)
{
    const Yaml *file = yaml_get(y, "file"), *value = yaml_get(y, "value");
    long long l;
    double d;
    bool b;
    if (file) {
        char *path = fs_join(dir, file->s);
        int rc = npy_read(path, a, want, e);
        free(path);
        return rc == 0;
    }
    *want = tensor_make(have->dtype == DT_F32 ? DT_F32 : DT_S64, have->ndim, have->dim,
                        arena_alloc(a, sizeof l));
    if (!value) return false;
    if (value->kind == Y_LIST) return value->n == 0 && tensor_len(have) == 0;
    if (want->dtype == DT_F32) {
        if (!yaml_double(value, &d)) return false;
        *(float *)want->data = (float)d;
        return true;
    }
    if (!yaml_int(value, &l)) {
        if (!yaml_bool(value, &b)) return false;
        l = b;
    }
    *(int64_t *)want->data = l;
    return true;
}

static void compare_values(const Tensor *have, const Tensor *want, const char *path, Str *why)
{
    size_t bad = 0, n = tensor_len(have);
    double a, b;
    if (tensor_len(want) != n) {
        str_printf(why, "%s: %zu values, expected %zu; ", path, n, tensor_len(want));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (same_value(have, want, i, &a, &b)) continue;
        if (!bad++) str_printf(why, "%s[%zu]: %.9g, expected %.9g", path, i, a, b);
    }
    if (bad) str_printf(why, " (%zu of %zu differ); ", bad, n);
}

static void check_tensor(const Yaml *y, const char *dir, const Leaves *found, Str *why)
{
    const char *path = yaml_get(y, "path")->s;
    const Leaf *l = find_leaf(found, path);
    const Yaml *offset = yaml_get(y, "storage_offset");
    int dim[PTH_MAX_DIM];
    long long want_offset;
    Arena arena = {0};
    Tensor have, want;
    Err e = {0};
    if (!l) {
        str_printf(why, "no tensor '%s'; ", path);
        return;
    }
    if (!str_eq(l->t.type->torch, yaml_get(y, "dtype")->s))
        str_printf(why, "%s: dtype %s; ", path, l->t.type->torch);
    if (!same_ints(yaml_get(y, "shape"), l->t.dim, l->t.ndim))
        str_printf(why, "%s: other shape; ", path);
    if (!same_ints(yaml_get(y, "stride"), l->t.stride, l->t.ndim))
        str_printf(why, "%s: other stride; ", path);
    if (!yaml_int(offset, &want_offset) || want_offset != l->t.offset)
        str_printf(why, "%s: storage offset %lld; ", path, (long long)l->t.offset);
    for (int i = 0; i < l->t.ndim; i++) dim[i] = (int)l->t.dim[i];
    have = tensor_make(l->t.type->dtype, l->t.ndim, dim, NULL);
    have.data = arena_alloc(&arena, tensor_bytes(&have));
    pth_copy(&l->t, have.data);
    if (expected(y, dir, &arena, &have, &want, &e))
        compare_values(&have, &want, path, why);
    else
        str_printf(why, "%s: the expected content cannot be read: %s; ", path, e.msg);
    arena_free(&arena);
}

/* ---- scalars ---- */

static bool same_scalar(const PyObj *o, const Yaml *v)
{
    long long l;
    double d;
    bool b;
    switch (o->kind) {
    case PY_NONE:
        return yaml_null(v);
    case PY_BOOL:
        return yaml_bool(v, &b) && b == (o->i != 0);
    case PY_INT:
        return yaml_int(v, &l) && l == o->i;
    case PY_FLOAT:
        return yaml_double(v, &d) && d == o->f;
    default:
        return v->kind == Y_SCALAR && py_is_text(o, v->s);
    }
}

static void check_scalar(const Yaml *y, const Leaves *found, Str *why)
{
    const char *path = yaml_get(y, "path")->s;
    const Leaf *l = find_leaf(found, path);
    if (!l)
        str_printf(why, "no scalar '%s'; ", path);
    else if (!same_scalar(l->o, yaml_get(y, "value")))
        str_printf(why, "%s: a %s of another value; ", path, py_kind_name(l->o->kind));
}

/* ---- cases ---- */

static void check_content(Pth *p, const Yaml *y, const char *dir, Str *why)
{
    const Yaml *tensors = yaml_get(y, "tensors"), *scalars = yaml_get(y, "scalars");
    Found f = {0};
    PthVisitor v = {&f, take_tensor, take_scalar};
    Err e = {0};
    if (pth_walk(p, &v, &e) != 0) str_printf(why, "%s; ", e.msg);
    for (int i = 0; tensors && i < tensors->n; i++)
        check_tensor(tensors->v[i], dir, &f.tensors, why);
    for (int i = 0; scalars && i < scalars->n; i++) check_scalar(scalars->v[i], &f.scalars, why);
    if (!tensors || f.tensors.n != (size_t)tensors->n)
        str_printf(why, "%zu tensors, expected %d; ", f.tensors.n, tensors ? tensors->n : 0);
    if (!scalars || f.scalars.n != (size_t)scalars->n)
        str_printf(why, "%zu scalars, expected %d; ", f.scalars.n, scalars ? scalars->n : 0);
    free_leaves(&f.tensors);
    free_leaves(&f.scalars);
}

static void check_refusal(const Err *e, const Yaml *y, const char *path, Str *why)
{
    const Yaml *mention = yaml_get(y, "message_must_mention");
    if (e->kind != ERR_DATA) str_printf(why, "error of kind %d; ", (int)e->kind);
    if (!strstr(e->msg, path)) str_printf(why, "'%s' does not name the file; ", e->msg);
    if (strchr(e->msg, '\n')) str_printf(why, "'%s' has several lines; ", e->msg);
    for (int i = 0; mention && i < mention->n; i++) {
        const char *text = strstr(e->msg, path) ? strstr(e->msg, path) + strlen(path) : e->msg;
        if (!strstr(text, mention->v[i]->s))
            str_printf(why, "'%s' does not mention '%s'; ", e->msg, mention->v[i]->s);
    }
}

int golden_pth_case(const Yaml *y, const char *dir, Str *why)
{
    const Yaml *file = yaml_path(y, "params.file"), *expect = yaml_get(y, "expect");
    const char *want = expect && expect->kind == Y_SCALAR ? expect->s : "";
    TensorFile state;
    char *path;
    Err e = {0}, e2 = {0};
    Pth p;
    int rc, rc2;
    if (!file || (!str_eq(want, "ok") && !str_eq(want, "error") && !str_eq(want, "ok_or_error"))) {
        str_puts(why, "no params.file, or an unknown expect; ");
        return 0;
    }
    path = fs_join(dir, file->s);
    rc = pth_open(&p, path, &e);
    rc2 = tensors_read(&state, path, &e2); /* the usual way in must come to the same end */
    if (rc2 == 0) tensors_free(&state);
    if (str_eq(want, "ok") && rc < 0) str_printf(why, "refused: %s; ", e.msg);
    if (str_eq(want, "error") && (rc == 0 || rc2 == 0)) str_puts(why, "was not refused; ");
    if (str_eq(want, "ok") && rc == 0) check_content(&p, y, dir, why);
    if (str_eq(want, "error") && rc < 0) check_refusal(&e, y, path, why);
    if (fs_exists(WITNESS)) str_puts(why, "CODE OF THE FILE WAS RUN: " WITNESS " exists; ");
    pth_close(&p);
    free(path);
    return why->len == 0;
}
