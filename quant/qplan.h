/* quant/qplan.h -- the side table of a Spec: which quantizers sit where, and the parameters of every unit. */
#ifndef QUANT_QPLAN_H
#define QUANT_QPLAN_H

#include "engine/spec.h"
#include "quant/links.h"
#include "quant/quant.h"

#define QPLAN_MAX_VARIANTS 8

typedef struct NormParams {
    Param *scale, *shift, *mean, *var, *count; /* scale, shift NULL when not affine */
} NormParams;

typedef struct QUnit {
    QInst *q[Q_NROLES];     /* nvariants of them each, or NULL: float */
    const QMethod *method;  /* whose `.lower` replaces the default chain; NULL: none */
    Param *weight, *bias;   /* conv, linear; weight is also the scalar of scale and shift, the slopes of PReLU */
    NormParams norm[QPLAN_MAX_VARIANTS];
    bool plain_input;       /* evaluations make its input as it is before its quantizer too, for LT_INPUT of lower.h */
} QUnit;

typedef struct QPlan {
    const Spec *spec;
    const QOpts *opts;
    ParamStore *store;
    int nvariants, bits[QPLAN_MAX_VARIANTS]; /* bits: of bits_list, then extra_bits; 0 = wt_bit and fm_bit */
    int act_bits[QPLAN_MAX_VARIANTS];        /* of activations; 0 = as bits */
    QUnit *u;                                /* spec->n */
    const QMethod *act_method;               /* of fm_quant; NULL: float */
    Links links;                             /* strict unless compat asks for the original's */
    Arena arena;
} QPlan;

/* Chooses a method and bits for every unit, makes the instances, and declares all parameters in the Spec's declaration order: per unit
 * weight, bias, activation quantizer, weight quantizer, output quantizer. Errors: unknown method (with suggestion), bits it does not
 * support, a role it does not offer. spec, opts and store are borrowed. */
int qplan_build(QPlan *qp, const Spec *spec, const QOpts *opts, ParamStore *store, Err *e);
void qplan_free(QPlan *qp);

/* The instance for a role of a unit in one variant, or NULL when that tensor stays float (none, or switched off). */
QInst *qplan_get(const QPlan *qp, int unit, QRole role, int variant);
/* The zeros of a convolution's padding go around its input before this quantizer of it. */
bool qplan_pads_first(const QPlan *qp, int unit, const QInst *q);
/* Bits the unit's tensor has in a variant: 32 when float. */
int qplan_bits(const QPlan *qp, int unit, QRole role, int variant);

/* Calls f for every instance, in declaration order of units. */
void qplan_each(QPlan *qp, void (*f)(QInst *q, void *arg), void *arg);

#endif
