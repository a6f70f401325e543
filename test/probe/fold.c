/* test/probe/fold.c -- a norm folded into the weight before it, in training with gradient through
 * the batch statistics (as F8Net).
 *
 *   y0 = conv(x, W);  mu, v = mean and biased variance of y0 per channel (running ones are updated)
 *   k = gamma / sqrt(v + eps);  Wf = Q(W k);  bf = beta - mu k;  y = conv(x, Wf) + bf
 *   dk = sum dWf W - dbf mu;  dgamma = dk / sqrt(v + eps);  dbeta = dbf;  dW = dWf k
 *   dy0 = -dbf k / m - dk gamma / (v + eps)^(3/2) (y0 - mu) / m
 *
 * Q rounds to steps of 2^-(bits - 1); at 32 bits there is none and the result is that of the plain
 * net. Evaluation folds the running statistics. The unit swallows its norm: the lowering finds it
 * done. `method_opts: plain` takes the default lowering. */
#include "test/probe/probe.h"

#include <math.h>

#include "engine/par.h"
#include "quant/chain.h"
#include "quant/lower.h"

typedef struct FoldAttr {
    NormStats st;
    int c;
    size_t rows, per; /* values of a channel in y0; weights of a channel */
} FoldAttr;

enum { IN_Y0, IN_W, IN_GAMMA, IN_BETA, N_IN };

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const FoldAttr *a = n->attr;
    (void)g, (void)p, (void)e;
    n->save_bytes = 2 * (size_t)a->c * sizeof(float); /* mean, 1 / sqrt(var + eps) */
    n->scratch_bytes = (size_t)a->c * sizeof(float);
    n->bwd_in = 1u << IN_Y0 | 1u << IN_W;
    return 0;
}

static void forward(Node *n, Exec *x)
{
    const FoldAttr *a = n->attr;
    const size_t c = (size_t)a->c;
    const float *y0 = exec_in(x, n, IN_Y0), *w = exec_in(x, n, IN_W),
                *gamma = exec_in(x, n, IN_GAMMA);
    const float *beta = exec_in(x, n, IN_BETA);
    float *wf = exec_out(x, n, 0), *bf = exec_out(x, n, 1), *mean = exec_save(x, n),
          *inv = mean + c;
    float *var = exec_scratch(x, n);
    PARALLEL_FOR(k, c)
    {
        double s = 0, q = 0;
        for (size_t r = 0; r < a->rows; r++) s += (double)y0[r * c + (size_t)k];
        s /= (double)a->rows;
        for (size_t r = 0; r < a->rows; r++) q += pow((double)y0[r * c + (size_t)k] - s, 2);
        mean[k] = (float)s;
        var[k] = (float)(q / (double)a->rows);
        inv[k] = 1 / sqrtf(var[k] + a->st.eps);
    }
    norm_update_running(&a->st, mean, var, a->c, (double)a->rows);
    PARALLEL_FOR(k, c)
    {
        const float scale = gamma[k] * inv[k];
        for (size_t i = 0; i < a->per; i++)
            wf[(size_t)k * a->per + i] = w[(size_t)k * a->per + i] * scale;
        bf[k] = beta[k] - mean[k] * scale;
    }
}

static void backward(Node *n, Exec *x)
{
    const FoldAttr *a = n->attr;
    const size_t c = (size_t)a->c;
    const float *y0 = exec_in(x, n, IN_Y0), *w = exec_in(x, n, IN_W),
                *gamma = exec_in(x, n, IN_GAMMA);
    const float *mean = exec_save(x, n), *inv = mean + c, *dwf = exec_gout(x, n, 0),
                *dbf = exec_gout(x, n, 1);
    float *dy0 = exec_gin(x, n, IN_Y0), *dw = exec_gin(x, n, IN_W),
          *dgamma = exec_gin(x, n, IN_GAMMA);
    float *dbeta = exec_gin(x, n, IN_BETA);
    PARALLEL_FOR(k, c)
    {
        const size_t at = (size_t)k * a->per;
        const double scale = (double)gamma[k] * (double)inv[k], m = (double)a->rows;
        double dk = -(double)dbf[k] * (double)mean[k], dmean, dvar;
        for (size_t i = 0; i < a->per; i++) {
            dk += (double)dwf[at + i] * (double)w[at + i];
            dw[at + i] = (float)((double)dwf[at + i] * scale);
        }
        dgamma[k] = (float)(dk * (double)inv[k]);
        dbeta[k] = dbf[k];
        dmean = -(double)dbf[k] * scale / m;
        dvar = -dk * (double)gamma[k] * pow((double)inv[k], 3) / m;
        for (size_t r = 0; r < a->rows; r++)
            dy0[r * c + (size_t)k] =
                (float)(dmean + dvar * ((double)y0[r * c + (size_t)k] - (double)mean[k]));
    }
}

static const OpDef op_fold = {"probe_fold", 0, prepare, forward, backward, NULL};

/* Evaluation: the running statistics; the inputs are parameters, so this runs once per version of
 * them. */
static void forward_running(Node *n, Exec *x)
{
    const FoldAttr *a = n->attr;
    const float *w = exec_in(x, n, 0), *gamma = exec_in(x, n, 1), *beta = exec_in(x, n, 2);
    const float *mean = a->st.mean->value.data, *var = a->st.var->value.data;
    float *wf = exec_out(x, n, 0), *bf = exec_out(x, n, 1);
    for (int k = 0; k < a->c; k++) {
        const float scale = gamma[k] / sqrtf(var[k] + a->st.eps);
        for (size_t i = 0; i < a->per; i++)
            wf[(size_t)k * a->per + i] = w[(size_t)k * a->per + i] * scale;
        bf[k] = beta[k] - mean[k] * scale;
    }
}

static const OpDef op_fold_running = {"probe_fold_eval", OP_HOISTABLE, NULL,
                                      forward_running,   NULL,         NULL};

static int lower(Lower *lw, int unit, Err *e)
{
    const Unit *u = &lw->spec->u[unit];
    const NormParams *np = u->norm < 0 ? NULL : &lw->qp->u[u->norm].norm[lw->variant];
    QInst *q = qplan_get(lw->qp, unit, Q_WEIGHT, lw->variant);
    const bool train = lower_trains(lw);
    int x, w, gamma, beta, node, y, wf, bf;
    Tensor tw;
    FoldAttr a;
    if (!np || !np->scale || lw->qp->u[unit].bias || str_eq(lw->qp->opts->method_opts, "plain"))
        return lower_default(lw, unit, e);
    x = lower_act(lw, unit);
    w = graph_param(lw->g, lw->qp->u[unit].weight);
    gamma = graph_param(lw->g, np->scale);
    beta = graph_param(lw->g, np->shift);
    tw = lw->g->v[w].t;
    a = (FoldAttr){
        .st = lower_norm_stats(lw, u->norm), .c = u->c, .per = tensor_len(&tw) / (size_t)u->c};
    if (train) {
        y = lower_conv(lw, unit, x, w, -1);
        a.rows = tensor_len(&lw->g->v[y].t) / (size_t)u->c;
        node = graph_node(lw->g, &op_fold, u->name, N_IN, (const int[N_IN]){y, w, gamma, beta}, &a,
                          sizeof a);
    } else {
        node = graph_node(lw->g, &op_fold_running, u->name, 3, (const int[]){w, gamma, beta}, &a,
                          sizeof a);
    }
    wf = graph_out(lw->g, node, tw);
    bf = graph_out(lw->g, node, tensor_make(DT_F32, 1, &u->c, NULL));
    if (q) wf = graph_quant(lw->g, u->name, wf, q);
    lower_set(lw, unit, lower_conv(lw, unit, x, wf, bf));
    lower_set(lw, u->norm, lw->value[unit]);
    return 0;
}

/* ---- the weight role ---- */

static int init(QInst *q, ParamStore *ps, Err *e)
{
    (void)ps;
    if (q->bits >= 32) q->enabled = false;
    if (q->bits < 2)
        return err_set(e, ERR_CONFIG, "%s: probe_fold has 2 bits or more, not %d", q->name,
                       q->bits);
    return 0;
}

static void row(const QInst *q, const float *x, float *y, size_t n)
{
    const float steps = ldexpf(1, q->bits - 1);
    SIMD_FOR(i, n) y[i] = rintf(x[i] * steps) / steps;
}

static const QFn weight = {.init = init, .row = row};

const QMethod probe_fold = {
    .name = "probe_fold",
    .doc = "folds the norm into fixed-point weights",
    .role = {[Q_WEIGHT] = &weight},
    .traits = QT_ZERO_FIXED | QT_DECLARES_AT_32,
    .lower = lower,
};
