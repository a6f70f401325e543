/* run/inspect.c -- qrun inspect: what a file of tensors holds, with the range of each and how many
 * different values it takes (a quantized tensor takes few). values=clip_val,gamma: all values of
 * the tensors whose names end so. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/commands.h"
#include "run/listing.h"

enum { MAX_LEVELS = 65536 /* counted exactly up to here */ };

typedef struct Figures {
    double min, max, mean, deviation; /* of the finite values; NaN: there is none */
    size_t not_finite, levels;
    bool more; /* than MAX_LEVELS */
} Figures;

/* A set of doubles by their bits: open addressing, at most half full. */
typedef struct Set {
    uint64_t *slot;
    bool *used;
    size_t n;
} Set;

enum { SET_SIZE = 2 * MAX_LEVELS };

static void set_add(Set *s, double v)
{
    uint64_t bits;
    size_t at;
    if (v == 0) v = 0; /* without its sign */
    memcpy(&bits, &v, sizeof bits);
    at = (size_t)((bits * 0x9E3779B97F4A7C15u) >> 40) % SET_SIZE;
    while (s->used[at] && s->slot[at] != bits) at = (at + 1) % SET_SIZE;
    if (s->used[at]) return;
    s->used[at] = true;
    s->slot[at] = bits;
    s->n++;
}

static Figures look(const ListEntry *t, Set *set)
{
    Figures f = {.min = INFINITY, .max = -INFINITY};
    double sum = 0, squares = 0;
    memset(set->used, 0, SET_SIZE * sizeof *set->used);
    set->n = 0;
    for (size_t i = 0; i < t->len; i++) {
        const double v = listing_value(t, i);
        if (set->n <= MAX_LEVELS) set_add(set, v);
        if (!isfinite(v)) {
            f.not_finite++;
            continue;
        }
        f.min = v < f.min ? v : f.min;
        f.max = v > f.max ? v : f.max;
        sum += v;
    }
    f.more = set->n > MAX_LEVELS;
    f.levels = set->n;
    if (f.not_finite == t->len) f.min = f.max = (double)NAN;
    f.mean = sum / (double)(t->len - f.not_finite);
    for (size_t i = 0; i < t->len; i++) {
        const double v = listing_value(t, i) - f.mean;
        if (isfinite(v)) squares += v * v;
    }
    f.deviation = sqrt(squares / (double)(t->len - f.not_finite));
    return f;
}

/* ---- text ---- */

static int widest_name(const Listing *l)
{
    int w = 4;
    for (int i = 0; i < l->n; i++)
        if ((int)strlen(l->v[i].name) > w) w = (int)strlen(l->v[i].name);
    return w < 60 ? w : 60;
}

static void head_text(const Listing *l, Str *out)
{
    size_t values = 0;
    for (int i = 0; i < l->n; i++) values += l->v[i].len;
    str_printf(out, "%s: %s, %d tensors, %zu values\n", l->path, l->format, l->n, values);
}

static void onnx_text(const OnnxFile *f, Str *out)
{
    const char **op = xcalloc((size_t)f->nnode + 1, sizeof *op);
    int *count = xcalloc((size_t)f->nnode + 1, sizeof *count), nops = 0;
    for (int i = 0; i < f->nnode; i++) {
        int k = 0;
        while (k < nops && strcmp(op[k], f->node[i].op) != 0) k++;
        if (k == nops) op[nops++] = f->node[i].op;
        count[k]++;
    }
    str_printf(out, "IR version %" PRId64 ", opset %" PRId64 ", %d nodes:", f->ir_version, f->opset,
               f->nnode);
    for (int k = 0; k < nops; k++) str_printf(out, "%s %d %s", k ? "," : "", count[k], op[k]);
    str_puts(out, "\n");
    free(op);
    free(count);
}

static void row_text(const ListEntry *t, const Figures *f, int width, Str *out)
{
    char shape[128];
    str_printf(out, "%-*s  %-8s %-20s ", width, t->name, t->type, listing_shape(t, shape));
    if (!f) {
        str_puts(out, " (values of this type are not read)\n");
        return;
    }
    str_printf(out, "%12.6g %12.6g %12.6g %12.6g %s%zu", f->min, f->max, f->mean, f->deviation,
               f->more ? ">" : "", f->more ? (size_t)MAX_LEVELS : f->levels);
    if (f->not_finite) str_printf(out, "  %zu not finite", f->not_finite);
    str_puts(out, "\n");
}

/* ---- JSON ---- */

static json_t *real_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *row_json(const ListEntry *t, const Figures *f)
{
    json_t *shape = json_array(), *o = json_object();
    for (int i = 0; i < t->ndim; i++) json_array_append_new(shape, json_integer(t->dim[i]));
    json_object_set_new(o, "name", json_string(t->name));
    json_object_set_new(o, "type", json_string(t->type));
    json_object_set_new(o, "shape", shape);
    if (!f) return o;
    json_object_set_new(o, "min", real_or_null(f->min));
    json_object_set_new(o, "max", real_or_null(f->max));
    json_object_set_new(o, "mean", real_or_null(f->mean));
    json_object_set_new(o, "deviation", real_or_null(f->deviation));
    json_object_set_new(o, "not_finite", json_integer((json_int_t)f->not_finite));
    json_object_set_new(o, "levels", f->more ? json_null() : json_integer((json_int_t)f->levels));
    return o;
}

static json_t *meta_json(const Listing *l)
{
    json_t *o = json_object();
    const int n = l->is_onnx ? l->onnx.nmeta : l->tensors.nmeta;
    for (int i = 0; i < n; i++) {
        const char *key = l->is_onnx ? l->onnx.meta[i].key : l->tensors.meta[i].key,
                   *value = l->is_onnx ? l->onnx.meta[i].value : l->tensors.meta[i].value;
        json_t *s = json_string(value);
        json_object_set_new(o, key, s ? s : json_null()); /* not UTF-8 */
    }
    return o;
}

static void print_json(const Listing *l, json_t *rows)
{
    json_t *o = json_pack("{s:s, s:s, s:o, s:o}", "file", l->path, "format", l->format, "metadata",
                          meta_json(l), "tensors", rows);
    char *text =
        o ? json_dumps(o, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) : NULL;
    Str out = {0};
    str_printf(&out, "%s\n", text ? text : "{}");
    print_out(&out);
    free(text);
    json_decref(o);
}

/* Whether a name, or what follows one of its dots, stands in "a,b,c". */
static bool is_asked(const char *name, const char *asked)
{
    const size_t len = strlen(name);
    for (const char *p = asked; *p;) {
        const size_t n = strcspn(p, ",");
        const bool fits = n > 0 && n <= len && !memcmp(name + len - n, p, n);
        if (fits && (n == len || name[len - n - 1] == '.')) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

/* Each of "a,b,c" is to be there. */
static int all_there(const Listing *l, const char *asked, Err *e)
{
    if (!*asked) return usage_fault(e, "inspect: values= without a name; expected values=NAME,NAME");
    for (const char *p = asked; *p;) {
        const size_t n = strcspn(p, ",");
        char *one = xstrndup(p, n);
        bool found = false;
        for (int i = 0; i < l->n && !found; i++) found = is_asked(l->v[i].name, one);
        if (!found) err_set(e, ERR_CONFIG, "%s: no tensor's name ends in '%s'", l->path, one);
        free(one);
        if (!found) return -1;
        p += n + (p[n] == ',');
    }
    return 0;
}

/* Every value of the tensors whose names, or ends of names, are asked for. */
static int print_values(const Listing *l, const char *asked, Err *e)
{
    Str out = {0};
    if (all_there(l, asked, e)) return -1;
    for (int i = 0; i < l->n; i++) {
        const ListEntry *t = &l->v[i];
        if (!is_asked(t->name, asked) || (!t->data && t->len)) continue;
        str_printf(&out, "%s", t->name);
        for (size_t k = 0; k < t->len; k++)
            str_printf(&out, "%s%.9g", k ? ", " : ": ", listing_value(t, k));
        str_puts(&out, "\n");
    }
    print_out(&out);
    return 0;
}

int command_inspect(Cli *c, Err *e)
{
    Listing l = {0};
    Set set = {0};
    Str out = {0};
    json_t *rows;
    int width;
    const char *asked =
        c->nargs == 2 && str_starts(c->args[1], "values=") ? c->args[1] + strlen("values=") : NULL;
    if (c->nargs != 1 && (!asked || c->json))
        return usage_fault(e, "inspect: expected one FILE or run folder, or FILE values=NAME,NAME");
    if (listing_open(&l, c->args[0], e)) {
        listing_close(&l);
        return -1;
    }
    if (asked) {
        const int r = print_values(&l, asked, e);
        listing_close(&l);
        return r;
    }
    rows = json_array();
    set.slot = xcalloc(SET_SIZE, sizeof *set.slot);
    set.used = xcalloc(SET_SIZE, sizeof *set.used);
    width = widest_name(&l);
    head_text(&l, &out);
    if (l.is_onnx) onnx_text(&l.onnx, &out);
    str_printf(&out, "\n%-*s  %-8s %-20s %12s %12s %12s %12s %s\n", width, "name", "type", "shape",
               "min", "max", "mean", "deviation", "levels");
    for (int i = 0; i < l.n; i++) {
        const bool read = l.v[i].data || !l.v[i].len;
        const Figures f = read ? look(&l.v[i], &set) : (Figures){0};
        row_text(&l.v[i], read ? &f : NULL, width, &out);
        json_array_append_new(rows, row_json(&l.v[i], read ? &f : NULL));
    }
    if (c->json) {
        print_json(&l, rows);
        str_free(&out);
    } else {
        json_decref(rows);
        print_out(&out);
    }
    free(set.slot);
    free(set.used);
    listing_close(&l);
    return 0;
}
