/* run/diff.c -- qrun diff: whether two files hold the same tensors, and where they differ.
 *
 * Compared are names, shapes and values, whatever the format and the type in the file. Two values
 * are the same where |a - b| <= tol + rtol max(|a|, |b|), or both are NaN. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/commands.h"
#include "run/listing.h"

typedef struct Tolerance {
    double tol, rtol;
} Tolerance;

typedef struct Difference {
    size_t n, at;      /* values that differ; the one that differs most */
    double most, a, b; /* by how much; the two values */
} Difference;

typedef struct Diff {
    Listing a, b;
    Tolerance t;
    int same, differ, other_shape, only_a, only_b;
    double most;
    Str text;
    json_t *rows;
} Diff;

static bool same_shape(const ListEntry *a, const ListEntry *b)
{
    if (a->len != b->len) return false;
    if (a->len == 1 && a->ndim <= 1 && b->ndim <= 1) return true; /* a number: [] or [1] */
    return a->ndim == b->ndim && !memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof *a->dim);
}

static Difference compare(const ListEntry *a, const ListEntry *b, Tolerance t)
{
    Difference d = {.most = -1};
    for (size_t i = 0; i < a->len; i++) {
        const double x = listing_value(a, i), y = listing_value(b, i);
        double by = fabs(x - y);
        if (x == y || (isnan(x) && isnan(y))) continue;
        if (by <= t.tol + t.rtol * fmax(fabs(x), fabs(y)) && isfinite(by)) continue;
        if (isnan(by)) by = INFINITY;
        d.n++;
        if (by > d.most) d = (Difference){.n = d.n, .at = i, .most = by, .a = x, .b = y};
    }
    return d;
}

static json_t *row(Diff *d, const char *name, const char *what)
{
    json_t *o = json_pack("{s:s, s:s}", "name", name, "what", what);
    json_array_append_new(d->rows, o);
    return o;
}

static void one_side(Diff *d, const ListEntry *t, const char *what, int *count)
{
    char shape[128];
    str_printf(&d->text, "%s: %s %s\n", t->name, what, listing_shape(t, shape));
    row(d, t->name, what);
    ++*count;
}

static void both_sides(Diff *d, const ListEntry *a, const ListEntry *b)
{
    char sa[128], sb[128];
    Difference by;
    json_t *o;
    if (!same_shape(a, b)) {
        str_printf(&d->text, "%s: shape %s, %s\n", a->name, listing_shape(a, sa),
                   listing_shape(b, sb));
        row(d, a->name, "shape");
        d->other_shape++;
        return;
    }
    if ((!a->data || !b->data) && a->len) {
        str_printf(&d->text, "%s: values of type %s are not read\n", a->name,
                   a->data ? b->type : a->type);
        row(d, a->name, "type");
        d->differ++;
        return;
    }
    by = compare(a, b, d->t);
    if (!by.n) {
        d->same++;
        return;
    }
    d->differ++;
    d->most = fmax(d->most, by.most);
    str_printf(&d->text, "%s: %zu of %zu values differ, at most by %g (value %zu: %.9g, %.9g)\n",
               a->name, by.n, a->len, by.most, by.at, by.a, by.b);
    o = row(d, a->name, "values");
    json_object_set_new(o, "differ", json_integer((json_int_t)by.n));
    json_object_set_new(o, "of", json_integer((json_int_t)a->len));
    json_object_set_new(o, "most", isfinite(by.most) ? json_real(by.most) : json_null());
    json_object_set_new(o, "at", json_integer((json_int_t)by.at));
}

static void diff_all(Diff *d)
{
    for (int i = 0; i < d->a.n; i++) {
        const ListEntry *b = listing_find(&d->b, d->a.v[i].name);
        if (b)
            both_sides(d, &d->a.v[i], b);
        else
            one_side(d, &d->a.v[i], "only in the first", &d->only_a);
    }
    for (int i = 0; i < d->b.n; i++)
        if (!listing_find(&d->a, d->b.v[i].name))
            one_side(d, &d->b.v[i], "only in the second", &d->only_b);
}

static void print(Diff *d, bool json)
{
    Str out = {0};
    if (json) {
        json_t *o = json_pack("{s:s, s:s, s:f, s:f, s:i, s:i, s:i, s:i, s:i, s:O}", "a", d->a.path,
                              "b", d->b.path, "tol", d->t.tol, "rtol", d->t.rtol, "same", d->same,
                              "differ", d->differ, "other_shape", d->other_shape, "only_a",
                              d->only_a, "only_b", d->only_b, "differences", d->rows);
        char *text = json_dumps(o, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        str_printf(&out, "%s\n", text ? text : "{}");
        free(text);
        json_decref(o);
    } else {
        str_putn(&out, d->text.s ? d->text.s : "", d->text.len);
        str_printf(&out, "%d tensors the same, %d with other values", d->same, d->differ);
        if (d->differ) str_printf(&out, " (by at most %g)", d->most);
        str_printf(&out, ", %d of another shape, %d only in the first, %d only in the second\n",
                   d->other_shape, d->only_a, d->only_b);
    }
    print_out(&out);
}

/* "tol=1e-6" or "rtol=1e-3" into t: 1; another word: 0. */
static int take_tolerance(const char *word, Tolerance *t, Err *e)
{
    const char *eq = strchr(word, '=');
    double *to = str_starts(word, "tol=") ? &t->tol : str_starts(word, "rtol=") ? &t->rtol : NULL;
    char *end;
    if (!to) return 0;
    *to = strtod(eq + 1, &end);
    if (!eq[1] || *end || !(*to >= 0) || isinf(*to))
        return usage_fault(e, "diff: %s; expected a number, 0 or more", word);
    return 1;
}

int command_diff(Cli *c, Err *e)
{
    Diff d = {0};
    const char *file[2] = {NULL, NULL};
    int n = 0, r;
    for (int i = 0; i < c->nargs; i++) {
        const int taken = take_tolerance(c->args[i], &d.t, e);
        if (taken < 0) return -1;
        if (!taken && n < 2) file[n] = c->args[i];
        n += !taken;
    }
    if (n != 2) return usage_fault(e, "diff: expected two files, then tol=X or rtol=X");
    r = listing_open(&d.a, file[0], e) || listing_open(&d.b, file[1], e) ? -1 : 0;
    if (!r) {
        d.rows = json_array();
        diff_all(&d);
        print(&d, c->json);
        json_decref(d.rows);
        if (d.differ + d.other_shape + d.only_a + d.only_b)
            c->run.status = (int)ERR_EXPECT; /* said on stdout; no fault of the program's */
    }
    str_free(&d.text);
    listing_close(&d.a);
    listing_close(&d.b);
    return r;
}
