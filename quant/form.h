/* quant/form.h -- what a net computes outside training, said in plain float numbers and operations,
 * for whoever writes it for other programs (run/export_float.c).
 *
 * An elementwise quantizer says it by QFn.form: a list of float operations that gives the bits of
 * its rows, for the parameters as they are now. A method that lowers layers or other units itself
 * says what comes of it by QMethod.form and QMethod.form_other. Nothing here knows a file format.
 */
#ifndef QUANT_FORM_H
#define QUANT_FORM_H

#include "engine/mem.h"
#include "quant/quant.h"

struct QPlan;

typedef enum FormOp {
    FORM_MAX,
    FORM_MIN,
    FORM_ADD,
    FORM_MUL,
    FORM_DIV,
    FORM_ROUND, /* to nearest, ties to even */
    FORM_FLOOR,
    FORM_LEVELS, /* value[k], k: how many of threshold[1..] are reached (x >= threshold) */
    FORM_NOPS
} FormOp;

#define FORM_MAX_STEPS  16
#define FORM_MAX_LEVELS 16

typedef struct FormStep {
    FormOp op;
    float v; /* the second operand, up to FORM_DIV */
} FormStep;

/* y = the steps applied to x one after the other, each rounded to float. n 0: y = x. */
typedef struct QuantForm {
    int n;
    FormStep step[FORM_MAX_STEPS];
    int nlevels; /* of FORM_LEVELS, which stands at most once */
    float threshold[FORM_MAX_LEVELS], value[FORM_MAX_LEVELS];
} QuantForm;

void form_step(QuantForm *f, FormOp op, float v);

/* A convolution or linear unit: y = out(op(in(x), w) + b). */
typedef struct LayerForm {
    Arena *arena; /* of w and b where they are made; NULL: only `in` and `out` are asked for */
    QuantForm in, out;
    const float *w, *b; /* shaped as the parameters; b NULL: none */
    bool quantized;     /* w lies on levels */
    bool norm;          /* the norm right behind is in w and b */
} LayerForm;

/* f->arena is set by the caller, all else is filled in. -1 with `e`, one line: the layer has no
 * such form (ERR_CONFIG, whatever the values of its parameters), or parameters that cannot be used.
 */
int layer_form(const struct QPlan *qp, int unit, int variant, LayerForm *f, Err *e);
/* That of the default lowering: for methods that differ a little from it. */
int layer_form_default(const struct QPlan *qp, int unit, int variant, LayerForm *f, Err *e);

/* Any other unit. */
typedef struct UnitForm {
    bool same;    /* its first input, unchanged */
    float factor; /* on its result; 1: none */
} UnitForm;

int unit_form(const struct QPlan *qp, int unit, UnitForm *f, Err *e);

#endif
