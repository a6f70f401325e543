/* io/remap.c -- the tensors of a file into a parameter store, by name, with a report of what did
 * not fit. */
#include <stdlib.h>
#include <string.h>

#include "io/ckpt.h"

#define LISTED_MAX 20 /* names in an error message; the report has all */

void load_report_free(LoadReport *r)
{
    str_free(&r->text);
    *r = (LoadReport){0};
}

/* As PyTorch loads them: 0-dimensional and [1] are the same. */
static bool shapes_agree(const Tensor *a, const Tensor *b)
{
    bool one = tensor_len(a) == 1 && tensor_len(b) == 1 && a->ndim <= 1 && b->ndim <= 1;
    return one || tensor_same_shape(a, b);
}

static bool is_integer(DType t)
{
    return t == DT_S64 || t == DT_S32 || t == DT_S8 || t == DT_U8;
}

static int64_t integer_at(const Tensor *t, size_t i)
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

/* Same type, or an integer into float or int64. Others would lose something. */
static bool types_agree(DType from, DType to)
{
    return from == to || (is_integer(from) && (to == DT_F32 || to == DT_S64));
}

static void copy_values(const Tensor *from, Tensor *to)
{
    if (from->dtype == to->dtype) {
        if (tensor_bytes(to)) memcpy(to->data, from->data, tensor_bytes(to));
        return;
    }
    for (size_t i = 0; i < tensor_len(to); i++) {
        if (to->dtype == DT_F32)
            ((float *)to->data)[i] = (float)integer_at(from, i);
        else
            ((int64_t *)to->data)[i] = integer_at(from, i);
    }
}

/* The entry of `f` for each name of the store, and which entries were taken. */
typedef struct Pairs {
    const Tensor **from; /* by index of the parameter; NULL: missing */
    bool *taken;         /* by index in the file */
} Pairs;

typedef struct Named {
    const char *name;
    int i;
} Named;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const Named *)a)->name, ((const Named *)b)->name);
}

static Pairs pair_up(const TensorFile *f, const ParamStore *ps)
{
    Pairs p = {xcalloc((size_t)ps->n, sizeof *p.from), xcalloc((size_t)f->n, sizeof *p.taken)};
    Named *names = xmalloc((size_t)f->n * sizeof *names);
    for (int i = 0; i < f->n; i++) names[i] = (Named){f->v[i].name, i};
    qsort(names, (size_t)f->n, sizeof *names, by_name);
    for (int i = 0; i < ps->n; i++) {
        Named key = {ps->p[i]->name, 0};
        const Named *hit = f->n ? bsearch(&key, names, (size_t)f->n, sizeof key, by_name) : NULL;
        if (!hit) continue;
        p.from[i] = &f->v[hit->i].t;
        p.taken[hit->i] = true;
    }
    free(names);
    return p;
}

static void report(LoadReport *r, int *count, const char *kind, const char *name, const Tensor *t)
{
    char shape[80];
    (*count)++;
    str_printf(&r->text, "%s: %s %s %s\n", kind, name, dtype_name(t->dtype),
               tensor_shape_text(t, shape));
}

static void report_reshaped(LoadReport *r, const Param *p, const Tensor *from)
{
    char here[80], there[80];
    r->reshaped++;
    str_printf(&r->text, "shape: %s is %s %s in the file, %s %s in the net\n", p->name,
               dtype_name(from->dtype), tensor_shape_text(from, there), dtype_name(p->value.dtype),
               tensor_shape_text(&p->value, here));
}

/* Fills the report; nothing is written to the store yet. */
static void compare(LoadReport *r, const TensorFile *f, const ParamStore *ps, const Pairs *p)
{
    for (int i = 0; i < ps->n; i++) {
        const Param *x = ps->p[i];
        if (!p->from[i])
            report(r, &r->missing, "missing", x->name, &x->value);
        else if (!shapes_agree(p->from[i], &x->value) ||
                 !types_agree(p->from[i]->dtype, x->value.dtype))
            report_reshaped(r, x, p->from[i]);
        else
            r->matched++;
    }
    for (int i = 0; i < f->n; i++)
        if (!p->taken[i]) report(r, &r->unexpected, "unexpected", f->v[i].name, &f->v[i].t);
}

/* The counts, then the first lines of the report. */
static int refuse(const LoadReport *r, Err *e)
{
    int lines = r->missing + r->unexpected + r->reshaped, k = 0;
    if (r->reshaped == 1 && lines == 1) /* "shape: NAME is ... in the file, ... in the net" */
        return err_set(e, ERR_DATA, "%.*s", (int)strcspn(r->text.s + 7, "\n"), r->text.s + 7);
    err_set(e, ERR_DATA,
            "%d of the net's tensors are missing in the file, %d of the file's are unexpected, "
            "%d differ in shape or type, %d match",
            r->missing, r->unexpected, r->reshaped, r->matched);
    for (const char *s = r->text.s; s && *s && k < LISTED_MAX; k++) {
        const char *end = strchr(s, '\n');
        err_add(e, ERR_DATA, "  %.*s", (int)(end - s < 180 ? end - s : 180), s);
        s = end + 1;
    }
    if (lines > k) err_add(e, ERR_DATA, "  ... and %d more", lines - k);
    return -1;
}

int tensors_into_store(const TensorFile *f, ParamStore *ps, bool strict, LoadReport *r, Err *e)
{
    LoadReport own = {0};
    Pairs p = pair_up(f, ps);
    int rc = 0;
    compare(&own, f, ps, &p);
    if (own.reshaped || (strict && (own.missing || own.unexpected))) {
        rc = refuse(&own, e);
    } else {
        for (int i = 0; i < ps->n; i++) {
            if (!p.from[i]) continue;
            ASSERT(ps->p[i]->value.layout == LY_ROW, "%s", ps->p[i]->name);
            copy_values(p.from[i], &ps->p[i]->value);
            param_touch(ps->p[i]);
            ps->p[i]->loaded = true;
        }
    }
    free(p.from);
    free(p.taken);
    if (r)
        *r = own;
    else
        load_report_free(&own);
    return rc;
}
