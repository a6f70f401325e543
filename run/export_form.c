/* run/export_form.c -- see export_form.h.
 *
 * Up to FEW levels are chosen among by as many comparisons; more by bisection, a bit of the level's
 * number at a time: k = Where(x reaches threshold[k + bit], k + bit, k), from a table by Gather. */
#include "run/export_form.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

#define FEW 16

typedef struct StepWriter {
    Onnx *m;
    const QuantForm *f;
    const char *name; /* of the nodes; onnx_node numbers them */
    int rank;         /* of x */
    const char *value[FORM_MAX_STEPS + 1];
} StepWriter;

static const char *constant(Onnx *m, float v)
{
    return onnx_scalar(m, DT_F32, (double)v);
}

/* v[c], one for each channel, or 1. `part`: what it is called. */
static const char *per_channel(const StepWriter *w, DType type, int c, const void *v,
                               const char *part, int number)
{
    const int dim[3] = {c, 1, 1};
    if (c == 1 && type == DT_F32) return constant(w->m, *(const float *)v);
    return onnx_init(w->m, type, w->rank == 4 ? 3 : 1, dim, v, "%s.%s%d", w->name, part, number);
}

static const char *node(const StepWriter *w, const char *op, const char *const *in)
{
    return onnx_node(w->m, op, w->name, in);
}

/* ---- levels ---- */

static const char *reached(const StepWriter *w, const char *x, const char *threshold)
{
    return node(w, w->f->above ? "Greater" : "GreaterOrEqual", ONNX_IN(x, threshold));
}

/* NaN ends at some level; an evaluation that has one fails before. */
static const char *few_levels(const StepWriter *w, const char *x)
{
    const QuantForm *f = w->f;
    const int c = f->tables;
    const char *y = per_channel(w, DT_F32, c, f->value, "level", 0);
    for (int k = 1; k < f->nlevels; k++) {
        const char *up =
            reached(w, x, per_channel(w, DT_F32, c, f->threshold + k * c, "threshold", k));
        y = node(w, "Where",
                 ONNX_IN(up, per_channel(w, DT_F32, c, f->value + k * c, "level", k), y));
    }
    return y;
}

/* [size][tables] as one list, the levels behind the last never reached. */
static const char *table(const StepWriter *w, int size, const float *v, bool fill, const char *part)
{
    const QuantForm *f = w->f;
    const int n = size * f->tables, given = f->nlevels * f->tables;
    float *to = onnx_alloc(w->m, (size_t)n * sizeof *to);
    memcpy(to, v, (size_t)given * sizeof *to);
    for (int i = given; i < n; i++) to[i] = fill ? FLT_MAX : 0;
    return onnx_init(w->m, DT_F32, 1, &n, to, "%s.%s", w->name, part);
}

/* Level k of channel c is entry k * tables + c. */
static const char *many_levels(const StepWriter *w, const char *x)
{
    const int c = w->f->tables;
    int32_t *first = onnx_alloc(w->m, (size_t)c * sizeof *first);
    int size = FEW;
    const char *thresholds, *k;
    while (size < w->f->nlevels) size *= 2;
    for (int i = 0; i < c; i++) first[i] = i;
    thresholds = table(w, size, w->f->threshold, true, "thresholds");
    k = per_channel(w, DT_S32, c, first, "first", 0);
    for (int bit = size / 2; bit; bit /= 2) {
        const char *next = node(w, "Add", ONNX_IN(k, onnx_scalar(w->m, DT_S32, (double)(bit * c))));
        const char *up = reached(w, x, node(w, "Gather", ONNX_IN(thresholds, next)));
        k = node(w, "Where", ONNX_IN(up, next, k));
    }
    return node(w, "Gather", ONNX_IN(table(w, size, w->f->value, false, "levels"), k));
}

/* ---- other steps ---- */

/* The step behind step i, where it is a MIN by a constant of a MAX by a constant that nothing else
 * reads: together a Clip. */
static const FormStep *rest_of_clip(const QuantForm *f, int i)
{
    const FormStep *s = &f->step[i], *next = s + 1;
    if (s->op != FORM_MAX || i + 1 == f->n || next->op != FORM_MIN || next->left != i + 1 ||
        next->right >= 0 || next->by_channel)
        return NULL;
    for (int k = i + 2; k < f->n; k++)
        if (f->step[k].left == i + 1 || f->step[k].right == i + 1) return NULL;
    return next;
}

/* Clip(x, low, high) is min(max(x, low), high); either end may be left out. */
static const char *write_clip(const StepWriter *w, const char *x, const FormStep *low,
                              const FormStep *high)
{
    const char *lo = low ? constant(w->m, low->v) : "", *hi = high ? constant(w->m, high->v) : NULL;
    return node(w, "Clip", ONNX_IN(x, lo, hi));
}

static const char *write_mean(const StepWriter *w, const char *x, FormPart part)
{
    static const struct {
        int n, axis[3];
    } map[] = {[FORM_PIXEL] = {1, {1}}, [FORM_MAP] = {2, {2, 3}}, [FORM_IMAGE] = {3, {1, 2, 3}}};
    const char *y;
    if (w->rank == 2 && part == FORM_MAP) return x;
    y = node(w, "ReduceMean", ONNX_IN(x));
    onnx_attr_ints(w->m, "axes", w->rank == 2 ? 1 : map[part].n, map[part].axis);
    onnx_attr_int(w->m, "keepdims", 1);
    return y;
}

static const char *write_step(const StepWriter *w, int i)
{
    static const char *const unary[FORM_NOPS] = {
        [FORM_ROUND] = "Round", [FORM_FLOOR] = "Floor", [FORM_ABS] = "Abs", [FORM_SQRT] = "Sqrt"};
    static const char *const binary[FORM_NOPS] = {[FORM_MAX] = "Max",
                                                  [FORM_MIN] = "Min",
                                                  [FORM_ADD] = "Add",
                                                  [FORM_MUL] = "Mul",
                                                  [FORM_DIV] = "Div"};
    const FormStep *s = &w->f->step[i];
    const char *x = w->value[s->left], *by;
    if (s->op == FORM_LEVELS) return w->f->nlevels > FEW ? many_levels(w, x) : few_levels(w, x);
    if (s->op == FORM_MEAN) return write_mean(w, x, s->part);
    if (unary[s->op]) return node(w, unary[s->op], ONNX_IN(x));
    if (s->right < 0 && !s->by_channel) {
        if (s->op == FORM_MAX) return write_clip(w, x, s, NULL);
        if (s->op == FORM_MIN) return write_clip(w, x, NULL, s);
    }
    by = s->right >= 0   ? w->value[s->right]
         : s->by_channel ? per_channel(w, DT_F32, w->f->c, s->by_channel, "by", i)
                         : constant(w->m, s->v);
    return node(w, binary[s->op], ONNX_IN(x, by));
}

const char *export_form(Onnx *m, const char *value, int rank, const QuantForm *f, const char *layer,
                        const char *part)
{
    char name[192];
    StepWriter w = {.m = m, .f = f, .name = name, .rank = rank, .value = {value}};
    snprintf(name, sizeof name, "%s/%s", layer, part);
    for (int i = 0; i < f->n; i++) {
        const FormStep *high = rest_of_clip(f, i);
        if (high) {
            i++;
            w.value[i + 1] = write_clip(&w, w.value[high[-1].left], high - 1, high);
        } else {
            w.value[i + 1] = write_step(&w, i);
        }
    }
    return w.value[f->n];
}
