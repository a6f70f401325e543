/* quant/binhyst_act.c -- activations of the hysteresis method, R = 2^bits - 1.
 *
 *   round             y = min(max(round(x), 0), R);  dx = dy where 0 < x < R. Nothing is learned.
 *   pact              y = min(max(round(x R / (t + 1e-6)), 0), R) t / R;  dx = dy where 0 < x < t
 *   pact_sigmoid      the same forward; dx also times h: with k = alpha R / t, u = x R / t - 1/2 and
 *                     r = (u - round(u)) t / R,  h = C e^(-k r) / (1 + e^(-k r))^2,
 *                     C = 1 / (2 / (1 + e^(-k/2)) - 1)
 *   pact_exponential  a = (|t| + 1e-6) / 2^R;  y = a 2^min(round(log2(|x| / a)), R);  dx as pact
 *
 * The threshold t of a layer starts at act_clip_init (R when that is 0). It is not the optimizer's: each
 * backward pass moves it by a step of its own,
 *
 *   t <- t - activation_lr (sum of dy where x > t + 2 (activation_regu + loss_regu) t)
 *
 * alpha goes from start_alpha to end_alpha over the run (use_alpha_decay), or stays at sigmoid_alpha.
 * quantize_layer1..3 give the bits by stage, 0 = fm_bit.
 *
 * Source: wxwang0104/Quantized_ResNet, models/resnet_cifar_pact.py: BinActive, which its net uses;
 * BinActive_pact, BinActive_pact_sigmoid and BinActive_pact_exponential, which it does not. Differs:
 * t is saved; loss_regu acts (the original hands it around without using it). */
#include "quant/binhyst.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/par.h"
#include "engine/spec.h"
#include "quant/form.h"

#define MAX_ACT_BITS 16
#define MAX_EXP_BITS 7 /* pact_exponential: 2^R is a float */
#define EPS          1e-6f

typedef enum Kind { ROUND, PACT, SIGMOID, EXPONENTIAL } Kind;

typedef struct Variant {
    const char *name;
    Kind kind;
} Variant;

static const Variant variants[] = {{"round", ROUND},
                                   {"pact", PACT},
                                   {"pact_sigmoid", SIGMOID},
                                   {"pact_exponential", EXPONENTIAL}};

typedef struct Act {
    Kind kind;
    float top; /* R */
    float alpha;
    float t; /* as the last forward found it */
    char fault[320];
} Act;

/* Bits of the stage a layer named "layerN...." stands in, or `other`. */
static int stage_bits(const QOpts *o, const char *name, int other)
{
    int stage;
    if (sscanf(name, "layer%d.", &stage) != 1 || stage < 1 ||
        stage > (int)ARRAY_LEN(o->quantize_layer) || !o->quantize_layer[stage - 1])
        return other;
    return o->quantize_layer[stage - 1];
}

static int init(QInst *q, ParamStore *ps, Err *e)
{
    Act *a = q->priv;
    const Variant *v = quant_variant(q, variants, ARRAY_LEN(variants), sizeof *variants, e);
    const double start = q->opts->act_clip_init;
    int most;
    if (!v) return -1;
    if (!(q->marks & (UM_FIRST | UM_LAST))) q->bits = stage_bits(q->opts, q->name, q->bits);
    if (q->bits == 32) {
        q->enabled = false;
        return 0;
    }
    a->kind = v->kind;
    most = a->kind == EXPONENTIAL ? MAX_EXP_BITS : MAX_ACT_BITS;
    if (q->bits < 1 || q->bits > most)
        return err_set(e, ERR_CONFIG,
                       "%s: hysteresis%s has 1 to %d bits or 32 for activations, not %d", q->unit,
                       a->kind == EXPONENTIAL ? " (pact_exponential)" : "", most, q->bits);
    a->top = (float)((1 << q->bits) - 1);
    a->alpha = (float)(q->opts->use_alpha_decay ? q->opts->start_alpha : q->opts->sigmoid_alpha);
    a->t = a->top;
    if (a->kind != ROUND)
        q->p[q->np++] = store_add(ps, PK_BUFFER, DT_F32,
                                  (Init){INIT_CONST, start > 0 ? (float)start : a->top, 0}, 0, NULL,
                                  "%sact_threshold", q->name);
    return 0;
}

static void begin(QInst *q, const QCtx *c)
{
    Act *a = q->priv;
    q->fault = NULL;
    if (!q->np) return;
    a->t = param_scalar(q->p[0]);
    if (c->aux_loss && c->phase == PH_TRAIN)
        *c->aux_loss += q->opts->loss_regu * (double)a->t * (double)a->t;
    if (a->t > 0 && isfinite(a->t)) return;
    snprintf(a->fault, sizeof a->fault,
             "%s: the threshold is %g; expected a number above 0 (a smaller activation_lr may help)",
             q->p[0]->name, (double)a->t);
    q->fault = a->fault;
}

static void row(const QInst *q, const float *x, float *y, size_t n)
{
    const Act *a = q->priv;
    const float top = a->top, t = a->t;
    if (q->fault) {
        memset(y, 0, n * sizeof *y);
    } else if (a->kind == EXPONENTIAL) {
        const float unit = (EPS + fabsf(t)) / exp2f(top);
        for (size_t i = 0; i < n; i++) {
            const float e = rintf(logf(fabsf(x[i]) / unit) / logf(2));
            y[i] = unit * exp2f(e > top ? top : e); /* NaN stays NaN */
        }
    } else {
        const float in = a->kind == ROUND ? 1 : top / (EPS + t), out = a->kind == ROUND ? 1 : t / top;
        SIMD_FOR(i, n)
        {
            const float v = rintf(x[i] * in);
            y[i] = (v >= top ? top : v <= 0 ? 0 : v) * out;
        }
    }
}

/* The operations of row, one by one. */
static int form(QInst *q, QuantForm *f, Err *e)
{
    const Act *a = q->priv;
    if (a->kind == EXPONENTIAL)
        return err_set(e, ERR_CONFIG,
                       "%s: its input is quantized to powers of two (hysteresis), which has no form "
                       "in float operations",
                       q->unit);
    begin(q, &(QCtx){.phase = PH_EVAL});
    if (q->fault) return err_set(e, ERR_RUN, "%s", q->fault);
    if (a->kind != ROUND) form_step(f, FORM_MUL, a->top / (EPS + a->t));
    form_step(f, FORM_ROUND, 0);
    form_step(f, FORM_MAX, 0);
    form_step(f, FORM_MIN, a->top);
    if (a->kind != ROUND) form_step(f, FORM_MUL, a->t / a->top);
    return 0;
}

/* The slope that stands for the step's at x. */
static float slope(const Act *a, float x)
{
    const float k = a->alpha * (a->top / a->t), u = x * a->top / a->t - 0.5f;
    const float e = expf(-k * ((u - rintf(u)) * (a->t / a->top)));
    const float scale = (float)(1 / (2 / (1 + exp(-(double)k / 2)) - 1));
    if (isinf(e)) return 0; /* a steep slope far from its step */
    return scale * e / ((1 + e) * (1 + e));
}

static void row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n, double *acc)
{
    const Act *a = q->priv;
    const float end = a->kind == ROUND ? a->top : a->t;
    double beyond = 0;
    if (a->kind != ROUND) {
        PAR_PRAGMA_(omp simd reduction(+ : beyond))
        for (size_t i = 0; i < n; i++) beyond += x[i] > end ? (double)dy[i] : 0.0;
    }
    acc[0] += beyond;
    if (!dx) return;
    if (a->kind == SIGMOID) {
        for (size_t i = 0; i < n; i++)
            dx[i] = x[i] >= end || x[i] <= 0 ? 0 : dy[i] * slope(a, x[i]);
    } else {
        SIMD_FOR(i, n) dx[i] = x[i] >= end || x[i] <= 0 ? 0 : dy[i];
    }
}

static void end(QInst *q, const double *acc)
{
    const QOpts *o = q->opts;
    Act *a = q->priv;
    if (!q->np || q->fault) return;
    param_set_scalar(q->p[0], (float)((double)a->t - o->activation_lr *
                                                         (acc[0] + 2 * (o->activation_regu + o->loss_regu) *
                                                                       (double)a->t)));
}

/* A policy's alpha. */
static int set(QInst *q, const char *attr, double v, Err *e)
{
    if (!str_eq(attr, "alpha")) return err_set(e, ERR_CONFIG, "%s: no attribute '%s'", q->name, attr), QSET_UNKNOWN;
    if (!(v > 0) || !isfinite(v))
        return err_set(e, ERR_CONFIG, "%s: alpha: %g; expected a number above 0", q->unit, v);
    ((Act *)q->priv)->alpha = (float)v;
    return 0;
}

static int figures(QInst *q, QFigure *f, int max)
{
    if (max < 1 || !q->np) return 0;
    f[0] = (QFigure){"threshold", (double)param_scalar(q->p[0])};
    return 1;
}

const QFn binhyst_act = {.priv_size = sizeof(Act),
                         .nacc = 1,
                         .init = init,
                         .begin = begin,
                         .row = row,
                         .row_bwd = row_bwd,
                         .end = end,
                         .form = form,
                         .set = set,
                         .figures = figures};
