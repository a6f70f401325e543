/* quant/form.h -- what a net computes outside training, said in plain float numbers and operations,
 * for whoever writes it for other programs (run/export_float.c).
 *
 * A quantizer says it by QFn.form: a list of float operations that gives the bits of what it makes
 * of a map, for the parameters as they are now; where it needs a mean of the map, all but the last
 * bits. A method that lowers layers or other units itself says what comes of it by QMethod.form and
 * QMethod.form_other. Nothing here knows a file format. */
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
    FORM_ABS,
    FORM_SQRT,
    FORM_LEVELS, /* value[k], k: how many of threshold[1..], which ascend, are reached */
    FORM_MEAN,   /* over a part of each image; the result is as large as before */
    FORM_NOPS
} FormOp;

typedef enum FormPart {
    FORM_PIXEL, /* the channels of a pixel, or of a sample of a linear layer */
    FORM_MAP,   /* the pixels of a channel; of a linear layer: the value itself */
    FORM_IMAGE  /* all */
} FormPart;

#define FORM_MAX_STEPS  16
#define FORM_MAX_LEVELS 256

/* Results are numbered: 0 is x, i + 1 that of step i. */
typedef struct FormStep {
    FormOp op;
    int left, right;         /* operands; the second one up to FORM_DIV. right -1: a constant, */
    float v;                 /* this one, */
    const float *by_channel; /* or where it is there one for each channel */
    FormPart part;           /* FORM_MEAN */
} FormStep;

/* y = the result of the last step, each rounded to float. n 0: y = x. */
typedef struct QuantForm {
    Arena *arena; /* set by the caller: of what stands for each channel, of tables */
    int c;        /* likewise: channels of x */
    size_t image; /* likewise: values of an image, zeros around it included (pad_first) */
    int n;
    FormStep step[FORM_MAX_STEPS];
    int nlevels;                    /* of FORM_LEVELS, which stands at most once */
    bool above;                     /* threshold t is reached where x > t; else where x >= t */
    int tables;                     /* 1, or one for each channel */
    const float *threshold, *value; /* [nlevels][tables]; threshold[0] is not looked at */
} QuantForm;

/* All return the number of the new result. The first three work on the one before. */
int form_step(QuantForm *f, FormOp op, float v);
int form_by_group(QuantForm *f, FormOp op, int groups, const float *v); /* runs of channels */
/* Tables of n levels, [n][groups]; both are copied. */
int form_levels(QuantForm *f, int n, bool above, int groups, const float *threshold,
                const float *value);
int form_of(QuantForm *f, FormOp op, int left, int right); /* right -1: one operand */
int form_mean(QuantForm *f, FormPart part, int left);
/* The smallest finite x with reached(arg, x), which changes once from false to true; FLT_MAX where
 * there is none. */
float form_smallest(bool (*reached)(const void *arg, float x), const void *arg);

/* A convolution or linear unit: y = out(op(in(x), w) + b). */
typedef struct LayerForm {
    Arena *arena;     /* set by the caller: of all that is made */
    bool values_only; /* likewise: only `in` and `out` are asked for */
    QuantForm in, out;
    bool pad_first;     /* the zeros of a convolution's padding go around x, before `in` */
    const float *w, *b; /* shaped as the parameters; b NULL: none */
    bool quantized;     /* w lies on levels */
    bool norm;          /* the norm right behind is in w and b */
} LayerForm;

/* f->arena and values_only are set by the caller, all else is filled in. -1 with `e`, one line: the
 * layer has no such form (ERR_CONFIG, whatever the values of its parameters), or parameters that
 * cannot be used. */
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
