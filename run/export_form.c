/* run/export_form.c -- see export_form.h. */
#include "run/export_form.h"

#include <stdio.h>

typedef struct StepWriter {
    Onnx *m;
    const char *name; /* of the nodes; onnx_node numbers them */
} StepWriter;

static const char *constant(Onnx *m, float v)
{
    return onnx_scalar(m, DT_F32, (double)v);
}

/* NaN ends at some level; an evaluation that has one fails before. */
static const char *write_levels(const StepWriter *w, const char *x, const QuantForm *f)
{
    const char *y = constant(w->m, f->value[0]);
    for (int k = 1; k < f->nlevels; k++) {
        const char *above =
            onnx_node(w->m, "GreaterOrEqual", w->name, ONNX_IN(x, constant(w->m, f->threshold[k])));
        y = onnx_node(w->m, "Where", w->name, ONNX_IN(above, constant(w->m, f->value[k]), y));
    }
    return y;
}

/* Clip(x, low, high) is min(max(x, low), high); either end may be left out. */
static const char *write_clip(const StepWriter *w, const char *x, const FormStep *low,
                              const FormStep *high)
{
    const char *lo = low ? constant(w->m, low->v) : "", *hi = high ? constant(w->m, high->v) : NULL;
    return onnx_node(w->m, "Clip", w->name, ONNX_IN(x, lo, hi));
}

const char *export_form(Onnx *m, const char *value, const QuantForm *f, const char *layer,
                        const char *part)
{
    static const char *const op[FORM_NOPS] = {[FORM_ADD] = "Add",
                                              [FORM_MUL] = "Mul",
                                              [FORM_DIV] = "Div",
                                              [FORM_ROUND] = "Round",
                                              [FORM_FLOOR] = "Floor"};
    char name[192];
    const StepWriter w = {m, name};
    snprintf(name, sizeof name, "%s/%s", layer, part);
    for (int i = 0; i < f->n; i++) {
        const FormStep *s = &f->step[i], *next = i + 1 < f->n ? s + 1 : NULL;
        switch (s->op) {
        case FORM_MAX:
            if (next && next->op == FORM_MIN)
                i++;
            else
                next = NULL;
            value = write_clip(&w, value, s, next);
            break;
        case FORM_MIN:
            value = write_clip(&w, value, NULL, s);
            break;
        case FORM_LEVELS:
            value = write_levels(&w, value, f);
            break;
        case FORM_ROUND:
        case FORM_FLOOR:
            value = onnx_node(m, op[s->op], name, ONNX_IN(value));
            break;
        default:
            value = onnx_node(m, op[s->op], name, ONNX_IN(value, constant(m, s->v)));
            break;
        }
    }
    return value;
}
