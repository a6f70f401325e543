/* quant/f8net_ops.c -- see f8net_ops.h. */
#include "quant/f8net_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"

/* ---- the clip level of an input ---- */

static bool unscaled(const F8Layer *l)
{
    return l->pure || l->no_clip || l->image;
}

static size_t input_lengths(const F8Layer *l)
{
    return l->fraclen ? tensor_len(&l->fraclen->value) : 1;
}

/* The average length of channel k, rounded: what evaluation uses, and every scaling. */
static int settled_fl(const F8Layer *l, size_t k)
{
    if (l->image) return 8;
    if (l->source == F8_GIVEN || !l->fraclen) return l->input_fl;
    return fixed_round_fl(l->input,
                          ((const float *)l->fraclen->value.data)[input_lengths(l) == 1 ? 0 : k]);
}

static float scaling(const F8Layer *l, size_t k)
{
    return unscaled(l) ? 1 : fixed_scaling(l->input, settled_fl(l, k), param_scalar(l->alpha));
}

float f8_scaling(const F8Layer *l)
{
    return scaling(l, 0);
}

int f8_input_fl(const F8Layer *l)
{
    return settled_fl(l, 0);
}

/* Number of different scalings: 1 or one per channel. */
static size_t scalings(const F8Layer *l)
{
    return unscaled(l) || l->source == F8_GIVEN ? 1 : input_lengths(l);
}

/* sum = gradient to the scaling of channel k, times that scaling. */
static void add_alpha_grad(const F8Layer *l, double sum)
{
    const double alpha = unscaled(l) ? 0 : (double)param_scalar(l->alpha);
    if (alpha != 0) *(float *)l->alpha->grad.data += (float)(sum / alpha);
}

static const char *zero_alpha(const F8Layer *l)
{
    if (unscaled(l) || param_scalar(l->alpha) != 0) return NULL;
    return "an F8Net clip level has become 0: its layer has no output";
}

static void trains_alpha(const F8Layer *l)
{
    if (!unscaled(l)) l->alpha->trained = true;
}

/* ---- f8_act ---- */

typedef struct ActNode {
    F8Layer l;
    size_t rows, c;
    bool train;
} ActNode;

static size_t act_lengths(const ActNode *a)
{
    return a->l.source == F8_METRIC && a->l.per_channel ? input_lengths(&a->l) : 1;
}

static bool rectifies(const F8Layer *l)
{
    return l->pure || l->image;
}

void f8_input_ends(const F8Layer *l, float *low, float *high)
{
    const float top = rectifies(l) ? INFINITY : ldexpf(fixed_top(l->input), -settled_fl(l, 0));
    *high = top;
    *low = l->input.neg ? -top : 0;
}

/* Per-node floats kept from forward to backward, or only for the forward pass. */
static float *tables(const Node *n, const Exec *x)
{
    return n->save_bytes ? exec_save(x, n) : exec_scratch(x, n);
}

static void keep_tables(const Graph *g, Node *n, size_t floats)
{
    *(g->train ? &n->save_bytes : &n->scratch_bytes) = floats * sizeof(float);
}

static int act_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)p, (void)e;
    keep_tables(g, n, act_lengths(n->attr));
    n->bwd_in = n->run_bwd ? 1 : 0;
    n->grad_inplace = true;
    return 0;
}

/* Lengths of this batch; the average moves towards them. */
static void measure(const ActNode *a, const float *x, float *fl)
{
    const F8Layer *l = &a->l;
    const size_t nfl = act_lengths(a), len = a->rows * a->c;
    float *mean = l->fraclen->value.data;
    for (size_t k = 0; k < nfl; k++) {
        if (l->source == F8_SEARCH)
            fl[k] = (float)fixed_fl_search(l->input, x, len, NULL);
        else
            fl[k] = (float)fixed_fl_of(l->input, l->metric,
                                       nfl == 1 ? fixed_statistic(l->metric, x, len, 1)
                                                : fixed_statistic(l->metric, x + k, a->rows, a->c));
    }
    for (size_t k = 0; k < input_lengths(l); k++)
        mean[k] = l->momentum * fl[nfl == 1 ? 0 : k] + (1 - l->momentum) * mean[k];
    param_touch(l->fraclen);
    for (int i = 0; i < l->ntwins; i++) {
        memcpy(l->twin[i]->value.data, mean, input_lengths(l) * sizeof *mean);
        param_touch(l->twin[i]);
    }
}

static void act_forward(Node *n, Exec *x)
{
    const ActNode *a = n->attr;
    const float *src = exec_in(x, n, 0);
    float *dst = exec_out(x, n, 0), *fl = tables(n, x);
    if (rectifies(&a->l)) {
        const bool neg = a->l.input.neg;
        PARALLEL_FOR(k, par_chunks(a->rows * a->c))
        {
            const size_t at = (size_t)k * PAR_CHUNK;
            SIMD_FOR(i, par_chunk_len(a->rows * a->c, (size_t)k))
            dst[at + i] = neg || !(src[at + i] < 0) ? src[at + i] : 0;
        }
        return;
    }
    if (a->train && a->l.source != F8_GIVEN)
        measure(a, src, fl);
    else
        for (size_t k = 0; k < act_lengths(a); k++) fl[k] = (float)settled_fl(&a->l, k);
    fixed_tensor(a->l.input, (FixedView){.rows = a->rows, .c = a->c, .nfl = act_lengths(a)}, fl,
                 src, dst);
}

static void act_backward(Node *n, Exec *x)
{
    const ActNode *a = n->attr;
    const float *src = exec_in(x, n, 0), *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0);
    if (!dx) return;
    if (rectifies(&a->l)) {
        const bool neg = a->l.input.neg;
        PARALLEL_FOR(k, par_chunks(a->rows * a->c))
        {
            const size_t at = (size_t)k * PAR_CHUNK;
            SIMD_FOR(i, par_chunk_len(a->rows * a->c, (size_t)k))
            dx[at + i] = neg || src[at + i] > 0 ? dy[at + i] : 0;
        }
        return;
    }
    fixed_tensor_bwd(a->l.input, (FixedView){.rows = a->rows, .c = a->c, .nfl = act_lengths(a)},
                     tables(n, x), src, dy, dx);
}

static const OpDef op_act = {
    .name = "f8_act", .prepare = act_prepare, .forward = act_forward, .backward = act_backward};

int graph_f8_act(Graph *g, const char *name, int x, const F8Layer *l, bool train)
{
    const Tensor t = g->v[x].t;
    ActNode a = {
        .l = *l, .rows = tensor_len(&t) / (size_t)t.dim[1], .c = (size_t)t.dim[1], .train = train};
    return graph_out(g, graph_node(g, &op_act, name, 1, &x, &a, sizeof a), t);
}

/* ---- f8_scale ---- */

static float weight_factor(const F8Layer *l)
{
    return l->pool_factor > 0 ? l->pool_factor : 1;
}

/* Weights [oc, ic, per] in groups; ic: input channels of one output; per: weights of a pair. */
typedef struct WeightShape {
    size_t oc, ic, per, groups;
} WeightShape;

static WeightShape weight_shape(const Tensor *t, int groups)
{
    return (WeightShape){(size_t)t->dim[0], (size_t)t->dim[1],
                         (size_t)t->dim[2] * (size_t)t->dim[3], (size_t)groups};
}

/* Of the scalings `s` (ns of them) that of the input channel which weights at (o, i) read. */
static float scaling_at(const float *s, size_t ns, const WeightShape *w, size_t o, size_t i)
{
    return s[ns == 1 ? 0 : o / (w->oc / w->groups) * w->ic + i];
}

static void read_scalings(const F8Layer *l, float *s)
{
    for (size_t k = 0; k < scalings(l); k++) s[k] = scaling(l, k);
}

typedef struct ScaleNode {
    F8Layer l;
    WeightShape w;
} ScaleNode;

static int scale_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    ScaleNode *a = n->attr;
    (void)p, (void)e;
    keep_tables(g, n, scalings(&a->l));
    if (!n->run_bwd) return 0;
    n->bwd_in = 1;
    n->scratch_bytes = a->w.oc * sizeof(double);
    trains_alpha(&a->l);
    return 0;
}

static void scale_forward(Node *n, Exec *x)
{
    const ScaleNode *a = n->attr;
    const size_t ns = scalings(&a->l), ic = a->w.ic, per = a->w.per;
    const float *w = exec_in(x, n, 0), factor = weight_factor(&a->l);
    float *ws = exec_out(x, n, 0), *s = tables(n, x);
    if (zero_alpha(&a->l)) x->fault = zero_alpha(&a->l);
    read_scalings(&a->l, s);
    PARALLEL_FOR(o, a->w.oc)
    {
        for (size_t i = 0; i < ic; i++) {
            const size_t at = ((size_t)o * ic + i) * per;
            const float f = scaling_at(s, ns, &a->w, (size_t)o, i);
            for (size_t j = 0; j < per; j++) ws[at + j] = w[at + j] * factor * f;
        }
    }
}

static void scale_backward(Node *n, Exec *x)
{
    const ScaleNode *a = n->attr;
    const size_t ns = scalings(&a->l), ic = a->w.ic, per = a->w.per;
    const float *w = exec_in(x, n, 0), *d = exec_gout(x, n, 0), *s = tables(n, x);
    const float factor = weight_factor(&a->l);
    float *dw = exec_gin(x, n, 0);
    double *sum = exec_scratch_bwd(x, n), total = 0;
    PARALLEL_FOR(o, a->w.oc)
    {
        double t = 0;
        for (size_t i = 0; i < ic; i++) {
            const size_t at = ((size_t)o * ic + i) * per;
            const float f = scaling_at(s, ns, &a->w, (size_t)o, i) * factor;
            for (size_t j = 0; j < per; j++) {
                t += (double)d[at + j] * (double)w[at + j] * (double)f;
                if (dw) dw[at + j] = d[at + j] * f;
            }
        }
        sum[o] = t;
    }
    for (size_t o = 0; o < a->w.oc; o++) total += sum[o];
    add_alpha_grad(&a->l, total);
}

static const OpDef op_scale = {.name = "f8_scale",
                               .flags = OP_OWN_PARAMS | OP_HOISTABLE,
                               .prepare = scale_prepare,
                               .forward = scale_forward,
                               .backward = scale_backward};

int graph_f8_scale(Graph *g, const char *name, int w, const F8Layer *l, int groups)
{
    const Tensor t = g->v[w].t;
    const ScaleNode a = {.l = *l, .w = weight_shape(&t, groups)};
    return graph_out(g, graph_node(g, &op_scale, name, 1, &w, &a, sizeof a), t);
}

/* ---- lengths of weights ---- */

/* fl[rows]: of a tensor of rows x per weights. */
static void weight_lengths(const F8Layer *l, const float *w, size_t rows, size_t per, float *fl)
{
    const F8Source source = l->given_weight_fl ? F8_GIVEN : l->source;
    const bool each = source == F8_METRIC && l->per_channel;
    float one = (float)l->weight_fl;
    if (source == F8_SEARCH) one = (float)fixed_fl_search(l->weight, w, rows * per, NULL);
    if (source == F8_METRIC && !each)
        one =
            (float)fixed_fl_of(l->weight, l->metric, fixed_statistic(l->metric, w, rows * per, 1));
    for (size_t k = 0; k < rows; k++)
        fl[k] = each ? (float)fixed_fl_of(l->weight, l->metric,
                                          fixed_statistic(l->metric, w + k * per, per, 1))
                     : one;
}

/* Rounded biases pass no gradient on. */
static void round_bias(const F8Layer *l, size_t k, float weight_fl, float *b)
{
    const Fixed bias = {.bits = 32, .neg = true};
    if (l->quant_bias) fixed_row(bias, settled_fl(l, k) + (int)weight_fl, b, b, 1);
}

/* ---- f8_fold ---- */

typedef struct FoldNode {
    F8Layer l, next;
    bool has_next, batch;
    NormStats st;
    WeightShape w;
    size_t c, per, rows; /* c: outputs; per: weights of each */
} FoldNode;

enum { FOLD_W, FOLD_GAMMA, FOLD_BETA, FOLD_Y0 }; /* inputs */
enum {
    T_MEAN,
    T_STD,
    T_R,
    T_FL,
    T_K,
    T_DMEAN,
    T_DVAR,
    T_S
}; /* rows of the tables, c floats each; the last: scalings of the input */

#define FOLD_PARTS 32

static float *table(const Node *n, const Exec *x, int row)
{
    const FoldNode *a = n->attr;
    return tables(n, x) + (size_t)row * a->c;
}

static int fold_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const FoldNode *a = n->attr;
    (void)p, (void)e;
    keep_tables(g, n, T_S * a->c + scalings(&a->l));
    if (a->batch) n->scratch_bytes = FOLD_PARTS * 2 * a->c * sizeof(double);
    if (!n->run_bwd) return 0;
    if (n->scratch_bytes < 2 * a->c * sizeof(double)) n->scratch_bytes = 2 * a->c * sizeof(double);
    n->bwd_in = 1u << FOLD_W | 1u << FOLD_GAMMA | 1u << FOLD_BETA | (a->batch ? 1u << FOLD_Y0 : 0);
    trains_alpha(&a->l);
    if (a->has_next) trains_alpha(&a->next);
    return 0;
}

/* Sums around the first pixel: nothing cancels when the mean is large. */
static void batch_statistics(const FoldNode *a, const float *y, double *sums, float *mean,
                             float *var)
{
    const size_t c = a->c, step = (a->rows + FOLD_PARTS - 1) / FOLD_PARTS;
    PARALLEL_FOR(p, FOLD_PARTS)
    {
        double *s = sums + (size_t)p * 2 * c, *q = s + c;
        const size_t end = ((size_t)p + 1) * step < a->rows ? ((size_t)p + 1) * step : a->rows;
        memset(s, 0, 2 * c * sizeof *s);
        for (size_t r = (size_t)p * step; r < end; r++) {
            const float *row = y + r * c;
            SIMD_FOR(k, c)
            {
                const double d = (double)row[k] - (double)y[k];
                s[k] += d;
                q[k] += d * d;
            }
        }
    }
    for (size_t k = 0; k < c; k++) {
        double s = 0, q = 0;
        for (size_t p = 0; p < FOLD_PARTS; p++)
            s += sums[p * 2 * c + k], q += sums[(p * 2 + 1) * c + k];
        s /= (double)a->rows;
        q = q / (double)a->rows - s * s;
        mean[k] = (float)((double)y[k] + s);
        var[k] = q > 0 ? (float)q : 0;
    }
}

typedef struct FoldIn {
    WeightShape shape;
    const float *w, *gamma, *beta, *mean;
    float eps, before, after; /* factors of the weights, before and after folding */
} FoldIn;

typedef struct FoldOut {
    float *wf, *bf;
    float *std; /* in: variance; out: deviation */
    float *s, *r, *scale, *fl;
} FoldOut;

/* A weight with norm and scalings in it; the order is the original's, and with it each rounding. */
static float folded(float w, float before, float scale, float s, float r)
{
    return scale * (w * before) * s / r;
}

static void fold_channel_weights(const F8Layer *l, const FoldIn *in, const FoldOut *out, size_t k)
{
    const WeightShape *v = &in->shape;
    const size_t ns = scalings(l), parts = ns == 1 ? 1 : v->ic, len = v->ic * v->per / parts;
    const float scale = out->scale[k], r = out->r[k], before = in->before, after = in->after;
    for (size_t i = 0; i < parts; i++) {
        const size_t at = (k * parts + i) * len;
        const float s = scaling_at(out->s, ns, v, k, i);
        SIMD_FOR(j, len) out->wf[at + j] = folded(in->w[at + j], before, scale, s, r) * after;
    }
}

/* Weights and biases with the norm and the next layer's scaling in them; weights rounded. */
static void fold_weights(const F8Layer *l, const F8Layer *next, FoldIn in, FoldOut out)
{
    const size_t c = in.shape.oc, per = in.shape.ic * in.shape.per;
    read_scalings(l, out.s);
    for (size_t k = 0; k < c; k++) {
        out.std[k] = sqrtf(out.std[k] + in.eps);
        out.r[k] = next ? scaling(next, k) : 1;
        out.scale[k] = in.gamma[k] / out.std[k];
        out.bf[k] = (in.beta[k] - out.scale[k] * in.mean[k]) / out.r[k];
    }
    PARALLEL_FOR(k, c) fold_channel_weights(l, &in, &out, (size_t)k);
    if (l->pure) return;
    weight_lengths(l, out.wf, c, per, out.fl);
    fixed_tensor(l->weight, (FixedView){.rows = c, .c = per, .nfl = c, .by_row = true}, out.fl,
                 out.wf, out.wf);
}

static void fold_forward(Node *n, Exec *x)
{
    const FoldNode *a = n->attr;
    float *wf = exec_out(x, n, 0), *bf = exec_out(x, n, 1), *mean = table(n, x, T_MEAN),
          *std = table(n, x, T_STD), *fl = table(n, x, T_FL);
    if (a->batch) {
        batch_statistics(a, exec_in(x, n, FOLD_Y0), exec_scratch(x, n), mean, std);
        norm_update_running(&a->st, mean, std, (int)a->c, (double)a->rows);
    } else {
        memcpy(mean, a->st.mean->value.data, a->c * sizeof *mean);
        memcpy(std, a->st.var->value.data, a->c * sizeof *std);
    }
    if (zero_alpha(&a->l)) x->fault = zero_alpha(&a->l);
    if (a->has_next && zero_alpha(&a->next)) x->fault = zero_alpha(&a->next);
    fold_weights(&a->l, a->has_next ? &a->next : NULL,
                 (FoldIn){.shape = a->w,
                          .w = exec_in(x, n, FOLD_W),
                          .gamma = exec_in(x, n, FOLD_GAMMA),
                          .beta = exec_in(x, n, FOLD_BETA),
                          .mean = mean,
                          .eps = a->st.eps,
                          .before = weight_factor(&a->l),
                          .after = 1},
                 (FoldOut){wf, bf, std, table(n, x, T_S), table(n, x, T_R), table(n, x, T_K), fl});
    for (size_t k = 0; k < a->c && !a->batch && !a->l.pure; k++)
        round_bias(&a->l, k, fl[k], &bf[k]);
}

/* Gradients of the weights of output channel k; returns the sum of the gradients of the folded
 * weights times the weights before norm and r. */
static double fold_channel_dw(const FoldNode *a, const Node *n, const Exec *x, size_t k,
                              const float *dwf, float *dw)
{
    const WeightShape *v = &a->w;
    const size_t ns = scalings(&a->l), parts = ns == 1 ? 1 : v->ic, len = a->per / parts;
    const float *w = exec_in(x, n, FOLD_W), before = weight_factor(&a->l);
    const float scale = table(n, x, T_K)[k], r = table(n, x, T_R)[k], top = fixed_top(a->l.weight);
    const float up = a->l.pure ? 1 : ldexpf(1, (int)table(n, x, T_FL)[k]);
    double dot = 0;
    for (size_t i = 0; i < parts; i++) {
        const size_t at = (k * parts + i) * len;
        const float s = scaling_at(table(n, x, T_S), ns, v, k, i), f = scale * before * s / r;
        for (size_t j = at; j < at + len; j++) {
            const float e = folded(w[j], before, scale, s, r);
            const float t = a->l.weight.floating ? e * up : rintf(e * up);
            const float d = a->l.pure || fabsf(t) < top ? dwf[j] : 0;
            dot += (double)d * (double)(w[j] * before * s);
            if (dw) dw[j] = d * f;
        }
    }
    return dot;
}

/* The gradients of output channel k; sums: s times that to s, r times that to r. */
static void fold_channel(const FoldNode *a, const Node *n, const Exec *x, size_t k,
                         const float *dwf, double db, double sums[2])
{
    const double std = (double)table(n, x, T_STD)[k], r = (double)table(n, x, T_R)[k],
                 mean = (double)table(n, x, T_MEAN)[k], scale = (double)table(n, x, T_K)[k];
    const double gamma = (double)((const float *)exec_in(x, n, FOLD_GAMMA))[k];
    const double beta = (double)((const float *)exec_in(x, n, FOLD_BETA))[k];
    const double dot = fold_channel_dw(a, n, x, k, dwf, exec_gin(x, n, FOLD_W));
    float *dgamma = exec_gin(x, n, FOLD_GAMMA), *dbeta = exec_gin(x, n, FOLD_BETA);
    const double da = (dot - db * mean) / r;
    if (dgamma) dgamma[k] = (float)(da / std);
    if (dbeta) dbeta[k] = (float)(db / r);
    if (a->batch) {
        table(n, x, T_DMEAN)[k] = (float)(-db * scale / r / (double)a->rows);
        table(n, x, T_DVAR)[k] = (float)(-da * gamma / (std * std * std) / (double)a->rows);
    }
    sums[0] = dot * scale / r;
    sums[1] = -(dot * scale + db * (beta - scale * mean)) / r;
}

static void fold_backward(Node *n, Exec *x)
{
    const FoldNode *a = n->attr;
    const bool rounded = a->l.quant_bias && !a->batch;
    const float *dwf = exec_gout(x, n, 0), *dbf = exec_gout(x, n, 1);
    float *dy0 = a->batch ? exec_gin(x, n, FOLD_Y0) : NULL;
    double(*sums)[2] = exec_scratch_bwd(x, n), ds = 0, dr = 0;
    PARALLEL_FOR(k, a->c)
    fold_channel(a, n, x, (size_t)k, dwf, rounded ? 0 : (double)dbf[k], sums[k]);
    for (size_t k = 0; k < a->c; k++) ds += sums[k][0], dr += sums[k][1];
    add_alpha_grad(&a->l, ds);
    if (a->has_next) add_alpha_grad(&a->next, dr);
    if (!dy0) return;
    {
        const float *y0 = exec_in(x, n, FOLD_Y0), *mean = table(n, x, T_MEAN),
                    *dm = table(n, x, T_DMEAN), *dv = table(n, x, T_DVAR);
        PARALLEL_FOR(r, a->rows)
        {
            const float *y = y0 + (size_t)r * a->c;
            float *d = dy0 + (size_t)r * a->c;
            SIMD_FOR(k, a->c) d[k] = dm[k] + dv[k] * (y[k] - mean[k]);
        }
    }
}

static const OpDef op_fold = {.name = "f8_fold",
                              .flags = OP_OWN_PARAMS | OP_HOISTABLE,
                              .prepare = fold_prepare,
                              .forward = fold_forward,
                              .backward = fold_backward};

void graph_f8_fold(Graph *g, const char *name, int y0, int w, int groups, int gamma, int beta,
                   const F8Layer *l, const F8Layer *next, const NormStats *st, int out[2])
{
    const Tensor t = g->v[w].t;
    const int in[] = {w, gamma, beta, y0}, oc = t.dim[0];
    FoldNode a = {.l = *l, .has_next = next != NULL, .batch = y0 >= 0, .st = *st, .c = (size_t)oc};
    int node;
    ASSERT(!l->quant_bias || scalings(l) == 1 || scalings(l) == a.c,
           "%s: biases rounded by the lengths of %zu input channels", name, scalings(l));
    a.w = weight_shape(&t, groups);
    a.per = tensor_len(&t) / a.c;
    if (next) a.next = *next;
    if (y0 >= 0) a.rows = tensor_len(&g->v[y0].t) / a.c;
    node = graph_node(g, &op_fold, name, y0 >= 0 ? 4 : 3, in, &a, sizeof a);
    out[0] = graph_out(g, node, t);
    out[1] = graph_out(g, node, tensor_make(DT_F32, 1, &oc, NULL));
}

/* ---- f8_linear ---- */

typedef struct LinearNode {
    F8Layer l;
    size_t out, per;
    bool train, whole; /* whole: the weights carry the factor, not the biases */
} LinearNode;

enum { L_S, L_K, N_LINEAR }; /* kept: scaling, rescaling; then the length of each output */

static int linear_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    LinearNode *a = n->attr;
    (void)p, (void)e;
    keep_tables(g, n, N_LINEAR + a->out);
    if (!n->run_bwd) return 0;
    n->bwd_in = 1 | (n->nin > 1 ? 2 : 0);
    n->bwd_out = 1;
    n->scratch_bytes = a->out * sizeof(double);
    trains_alpha(&a->l);
    return 0;
}

/* By which the rounded weights of a linear layer are multiplied; 0: they are all equal. */
static float rescaling(const F8Layer *l, const float *before, const float *after, size_t out,
                       size_t per)
{
    double std, want;
    if (!l->rescale) return 1;
    std = fixed_statistic(FM_STD, after, out * per, 1);
    want =
        l->rescale_stddev ? fixed_statistic(FM_STD, before, out * per, 1) : 1 / sqrt((double)out);
    return std > 0 ? (float)(want / std) : 0;
}

/* Weights of a linear layer, rounded; fl: length of each output's. */
static void round_linear(const F8Layer *l, const float *w, size_t out, size_t per, float *wf,
                         float *fl)
{
    weight_lengths(l, w, out, per, fl);
    fixed_tensor(l->weight, (FixedView){.rows = out, .c = per, .nfl = out, .by_row = true}, fl, w,
                 wf);
}

static bool rounds_bias(const LinearNode *a)
{
    return a->l.quant_bias && !a->train && !a->l.pure;
}

/* t: as linear_prepare keeps it. NULL, or what is wrong. b NULL: no bias. */
static const char *linear_values(const LinearNode *a, const float *w, const float *b, float *wf,
                                 float *bf, float *t)
{
    const char *fault = zero_alpha(&a->l);
    float *fl = t + N_LINEAR, f;
    if (a->l.pure)
        memcpy(wf, w, a->out * a->per * sizeof *wf);
    else
        round_linear(&a->l, w, a->out, a->per, wf, fl);
    t[L_S] = scaling(&a->l, 0);
    t[L_K] = rescaling(&a->l, w, wf, a->out, a->per);
    if (t[L_K] == 0) {
        fault = "the rounded weights of the F8Net linear layer are all equal: rescale_forward "
                "divides by their deviation";
        t[L_K] = 1;
    }
    f = t[L_S] * t[L_K];
    if (a->whole) {
        PARALLEL_FOR(o, a->out)
        for (size_t i = (size_t)o * a->per; i < ((size_t)o + 1) * a->per; i++) wf[i] *= f;
    }
    for (size_t o = 0; b && o < a->out; o++) {
        bf[o] = a->whole && !rounds_bias(a) ? b[o] : b[o] / f;
        if (!rounds_bias(a)) continue;
        round_bias(&a->l, 0, fl[o], &bf[o]);
        if (a->whole) bf[o] *= f;
    }
    return fault;
}

static void linear_forward(Node *n, Exec *x)
{
    const float *b = n->nin > 1 ? exec_in(x, n, 1) : NULL;
    const char *fault = linear_values(n->attr, exec_in(x, n, 0), b, exec_out(x, n, 0),
                                      b ? exec_out(x, n, 1) : NULL, tables(n, x));
    if (fault) x->fault = fault;
}

static void linear_backward(Node *n, Exec *x)
{
    const LinearNode *a = n->attr;
    const bool whole = a->whole, stop = rounds_bias(a);
    const float *w = exec_in(x, n, 0), *b = n->nin > 1 ? exec_in(x, n, 1) : NULL,
                *wf = exec_out(x, n, 0), *t = tables(n, x);
    const float *g = exec_gout(x, n, 0), *gb = b ? exec_gout(x, n, 1) : NULL, f = t[L_S] * t[L_K];
    float *dw = exec_gin(x, n, 0), *db = b ? exec_gin(x, n, 1) : NULL;
    double *sum = exec_scratch_bwd(x, n), total = 0;
    PARALLEL_FOR(o, a->out)
    {
        const size_t at = (size_t)o * a->per;
        double s = 0;
        for (size_t i = at; i < at + a->per && whole; i++) s += (double)g[i] * (double)wf[i];
        if (!whole && gb && !stop) s = -(double)gb[o] * (double)b[o] / (double)f;
        if (db) db[o] = stop ? 0 : whole ? gb[o] : gb[o] / f;
        sum[o] = s;
        if (!dw) continue;
        for (size_t i = at; i < at + a->per; i++) dw[i] = whole ? g[i] * f : g[i];
        if (!a->l.pure)
            fixed_row_bwd(a->l.weight, (int)t[N_LINEAR + (size_t)o], w + at, dw + at, dw + at,
                          a->per);
    }
    for (size_t o = 0; o < a->out; o++) total += sum[o];
    add_alpha_grad(&a->l, total);
}

static const OpDef op_linear = {.name = "f8_linear",
                                .flags = OP_OWN_PARAMS | OP_HOISTABLE,
                                .prepare = linear_prepare,
                                .forward = linear_forward,
                                .backward = linear_backward};

static LinearNode linear_node(const F8Layer *l, F8Logits logits, size_t out, size_t per)
{
    return (LinearNode){.l = *l,
                        .out = out,
                        .per = per,
                        .train = logits == F8_TRAIN,
                        .whole = logits != F8_DIVIDED || l->pure};
}

void graph_f8_linear(Graph *g, const char *name, int w, int bias, const F8Layer *l,
                     F8Logits logits, int out[2])
{
    const Tensor t = g->v[w].t;
    const int in[] = {w, bias};
    const LinearNode a = linear_node(l, logits, (size_t)t.dim[0], (size_t)t.dim[1]);
    const int node = graph_node(g, &op_linear, name, bias >= 0 ? 2 : 1, in, &a, sizeof a);
    out[0] = graph_out(g, node, t);
    out[1] = bias >= 0 ? graph_out(g, node, g->v[bias].t) : -1;
}

/* ---- conversion to whole numbers ---- */

static void to_integers(const float *w, size_t n, int fl, int8_t *k)
{
    for (size_t i = 0; i < n; i++) k[i] = (int8_t)lrintf(ldexpf(w[i], fl));
}

static int32_t bias_integer(float b, int fl)
{
    const double v = nearbyint((double)ldexpf(b, fl));
    return v >= INT32_MAX ? INT32_MAX : v <= -INT32_MAX ? -INT32_MAX : (int32_t)v;
}

/* With the running statistics; fl: [oc], lengths of the weights. */
static void fold_conv(const F8Layer *l, const F8Layer *next, const F8Conv *c, float before,
                      float after, float *w, float *b, float *fl)
{
    const size_t oc = c->oc;
    float *row = xcalloc(3 * oc + scalings(l), sizeof *row);
    memcpy(row, c->st->var->value.data, oc * sizeof *row);
    fold_weights(l, next,
                 (FoldIn){.shape = {oc, c->ic, c->per, c->groups},
                          .w = c->w,
                          .gamma = c->gamma,
                          .beta = c->beta,
                          .mean = c->st->mean->value.data,
                          .eps = c->st->eps,
                          .before = before,
                          .after = after},
                 (FoldOut){w, b, row, row + 3 * oc, row + oc, row + 2 * oc, fl});
    free(row);
}

const char *f8_eval_conv(const F8Layer *l, const F8Layer *next, const F8Conv *c, float *wf,
                         float *bf)
{
    float *fl = xcalloc(c->oc, sizeof *fl);
    fold_conv(l, next, c, weight_factor(l), 1, wf, bf, fl);
    for (size_t k = 0; k < c->oc && !l->pure; k++) round_bias(l, k, fl[k], &bf[k]);
    free(fl);
    return zero_alpha(l) ? zero_alpha(l) : next ? zero_alpha(next) : NULL;
}

const char *f8_eval_linear(const F8Layer *l, F8Logits logits, const float *w, const float *b,
                           size_t oc, size_t per, float *wf, float *bf)
{
    const LinearNode a = linear_node(l, logits, oc, per);
    float *t = xcalloc(N_LINEAR + oc, sizeof *t);
    const char *fault = linear_values(&a, w, b, wf, bf, t);
    free(t);
    return fault;
}

/* As they are converted to whole numbers; bias and lengths, [oc], behind the weights. The caller
 * frees the weights, the others lie in the same block. */
static float *fold_settled(const F8Layer *l, const F8Layer *next, const F8Conv *c, float **b,
                           float **fl)
{
    const size_t n = c->oc * c->ic * c->per;
    float *w = xcalloc(n + 2 * c->oc, sizeof *w);
    *b = w + n;
    *fl = *b + c->oc;
    fold_conv(l, next, c, 1, weight_factor(l), w, *b, *fl);
    return w;
}

void f8_convert_conv(const F8Layer *l, const F8Layer *next, const F8Conv *c, int8_t *k,
                     int32_t *bias, int *weight_fl)
{
    const size_t n = c->oc * c->ic * c->per;
    float *b, *fl, *w = fold_settled(l, next, c, &b, &fl);
    *weight_fl = (int)fl[0];
    to_integers(w, n, *weight_fl, k);
    for (size_t o = 0; o < c->oc; o++)
        bias[o] = bias_integer(b[o] * weight_factor(l), settled_fl(l, 0) + *weight_fl);
    free(w);
}

bool f8_convert_linear(const F8Layer *l, const float *w, const float *b, size_t oc, size_t per,
                       int8_t *k, int32_t *bias, int *weight_fl, double *divisor)
{
    float *wf = xcalloc(oc * per, sizeof *wf), *fl = xcalloc(oc, sizeof *fl), f;
    round_linear(l, w, oc, per, wf, fl);
    f = scaling(l, 0) * rescaling(l, w, wf, oc, per);
    *weight_fl = (int)fl[0];
    *divisor = (double)f;
    to_integers(wf, oc * per, *weight_fl, k);
    for (size_t o = 0; o < oc; o++)
        bias[o] = b && f != 0 ? bias_integer(b[o] / f, settled_fl(l, 0) + *weight_fl) : 0;
    free(wf);
    free(fl);
    return f != 0;
}

/* ---- lengths, to be looked at ---- */

static double mean_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i];
    return sum / (double)n;
}

double f8_conv_fl(const F8Layer *l, const F8Layer *next, const F8Conv *c)
{
    float *b, *fl, *w = fold_settled(l, next, c, &b, &fl);
    const double mean = mean_of(fl, c->oc);
    free(w);
    return mean;
}

double f8_linear_fl(const F8Layer *l, const float *w, size_t oc, size_t per)
{
    float *wf = xcalloc(oc * per, sizeof *wf), *fl = xcalloc(oc, sizeof *fl);
    double mean;
    round_linear(l, w, oc, per, wf, fl);
    mean = mean_of(fl, oc);
    free(wf);
    free(fl);
    return mean;
}
