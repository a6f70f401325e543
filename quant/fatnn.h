/* quant/fatnn.h -- what the files of FATNN share; equations in fatnn.c. */
#ifndef QUANT_FATNN_H
#define QUANT_FATNN_H

#include <math.h>

#include "quant/keyword.h"

#define FATNN_STEPS 3

/* Of one group. */
typedef struct Steps {
    float off[FATNN_STEPS], a[FATNN_STEPS], low[FATNN_STEPS], f[FATNN_STEPS];
    float inv[FATNN_STEPS]; /* half range: 1 / a^2, what a step's width does to those behind it */
} Steps;

typedef struct Fatnn {
    Keyword k;
    int n; /* steps */
    bool half, ste_scale, closed;
    Param *alpha[FATNN_STEPS];
    Param *auxil;         /* closed form: the last e */
    float f[FATNN_STEPS]; /* STE-scale */
    float basis;          /* what the codes are multiplied with */
    Steps one;            /* activations with one group: read by `begin` */
} Fatnn;

#define KERNEL static inline __attribute__((always_inline))

KERNEL float code(float u, float low)
{
    u = u < low ? low : u; /* NaN stays NaN */
    return rintf(u > low + 1 ? low + 1 : u);
}

KERNEL float through(float u, float low, float g)
{
    return u >= low && u <= low + 1 ? g : 0;
}

/* Steps of a group, as the parameters are. */
Steps fatnn_steps(const Fatnn *p, int group);
bool fatnn_usable(QInst *q); /* all alphas can be divided by; else q->fault */
/* dA_i of a group into the gradient of alpha_i. */
void fatnn_add_grads(const Fatnn *p, int group, const double *dA);

/* Activations with groups of channels (fatnn_groups.c). */
void fatnn_groups_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch);
void fatnn_groups_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c);
void fatnn_groups_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c);

#endif
