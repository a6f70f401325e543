/* quant/adabits.c -- one set of weights at several bit widths, with weights rescaled to a fixed
 * deviation ("scale-adjusted training").
 *
 * Q on [0, 1] at b bits, backward the identity:
 *   original   round(a p) / a,                     a = 2^b - 1
 *   modified   min(floor(a p), a - 1) / a,         a = 2^b
 *   centered   (min(floor(a p), a - 1) + 1/2) / a, a = 2^b
 *
 * Weights       t = tanh(w), m = max |t|, u = t / m;  y = c (2 Q((u + 1) / 2) - 1)
 *               32 bits: y = c u, with `clamp: false` y = c w
 *               c = target / std(y / c): target 1 / sqrt(out kh kw) (constant) or std(w) (stddev);
 *               1 without rescale. No gradient through c; the maximum has one.
 *               A linear layer outside training keeps c = 1 and divides its bias by c instead, so
 *               that its logits are those of training divided by c.
 * Activations   A = |alpha|;  y = A Q(clip(x, 0, A) / A), for inputs that may be negative (UM_SIGNED,
 *               with `double_side`) A (2 Q((clip(x, -A, A) / A + 1) / 2) - 1)
 *               d alpha = sign(alpha) * sum of dy (y / A - clip(x) / A + [x >= A] - [x <= -A])
 *
 * Source: Jin, Yang, Liao 2020, "AdaBits: Neural Network Quantization with Adaptive Bit-Widths" and
 * "Neural Network Quantization with Scale-Adjusted Training"; deJQK/AdaBits, models/quant_ops.py:
 * float operations in its order. Differs: weights that are all zero or all on one level, and a clip
 * level of 0, are faults instead of NaN. See docs/methods/adabits.md. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/par.h"
#include "quant/form.h"
#include "quant/lower.h"
#include "quant/stat.h"
#include "quant/tanh.h"

#define MAX_BITS 16 /* codes stay exact in float with much room */

typedef enum Scheme { ORIGINAL, MODIFIED, CENTERED } Scheme;

typedef struct Grid {
    Scheme scheme;
    float a; /* number of steps */
} Grid;

static int grid_init(Grid *g, const char *key, const char *scheme, int bits, Err *e)
{
    static const char *const name[] = {"original", "modified", "centered"};
    for (size_t i = 0; i < ARRAY_LEN(name); i++) {
        if (!str_eq(scheme, name[i])) continue;
        g->scheme = (Scheme)i;
        g->a = (float)((1L << bits) - (i == ORIGINAL));
        return 0;
    }
    return err_set(e, ERR_CONFIG, "%s: adabits has original, modified and centered, not '%s'", key,
                   scheme);
}

/* p in [0, 1]. Written so that a loop over it vectorises once the scheme is a constant. */
static inline __attribute__((always_inline)) float level(Scheme s, float a, float p)
{
    float k;
    if (s == ORIGINAL) return rintf(p * a) / a;
    k = floorf(p * a);
    k = k > a - 1 ? a - 1 : k; /* NaN stays NaN */
    return s == CENTERED ? (k + 0.5f) / a : k / a;
}

static int check_bits(const QInst *q, Err *e)
{
    if (q->bits == 32 || (q->bits >= 1 && q->bits <= MAX_BITS)) return 0;
    return err_set(e, ERR_CONFIG, "%s: adabits has 1 to %d bits or 32, not %d", q->unit, MAX_BITS,
                   q->bits);
}

/* ---- weights ---- */

typedef struct Weight {
    Grid grid;
    bool plain;    /* 32 bits without clamp: the weight itself */
    bool rescales; /* this kind of layer is rescaled */
    bool linear;
    float max;     /* of |tanh| */
    float scale;   /* c of the last forward */
    float applied; /* c, or 1 where only the bias takes it */
    char fault[320];
} Weight;

static int weight_init(QInst *q, ParamStore *ps, Err *e)
{
    Weight *p = q->priv;
    const QOpts *o = q->opts;
    (void)ps;
    p->linear = q->ndim == 2;
    p->rescales = p->linear ? o->rescale : o->rescale_conv;
    p->plain = q->bits == 32 && !o->clamp;
    p->scale = p->applied = 1;
    if (p->rescales && !str_eq(o->rescale_type, "constant") && !str_eq(o->rescale_type, "stddev"))
        return err_set(e, ERR_CONFIG, "rescale_type: adabits has constant and stddev, not '%s'",
                       o->rescale_type);
    q->enabled = !p->plain || p->rescales;
    if (check_bits(q, e)) return -1;
    return grid_init(&p->grid, "weight_quant_scheme", o->weight_quant_scheme,
                     q->bits == 32 ? 1 : q->bits, e);
}

static void weight_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    (void)q, (void)ph;
    *save = tensor_bytes(x); /* tanh(w) */
    *scratch = 0;
}

static void fail(QInst *q, const char *why)
{
    Weight *p = q->priv;
    snprintf(p->fault, sizeof p->fault, "%sweight: %s", q->name, why);
    q->fault = p->fault;
}

static void tanh_all(const float *w, float *t, size_t n)
{
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        tanh_row(w + at, t + at, par_chunk_len(n, (size_t)k));
    }
}

/* y = 2 Q((t / m + 1) / 2) - 1, or t / m at 32 bits. */
static void quantize_row(const Weight *p, bool full, const float *t, float *y, size_t n)
{
    const float m = p->max, a = p->grid.a;
    if (full)
        SIMD_FOR(i, n) y[i] = t[i] / m;
    else if (p->grid.scheme == ORIGINAL)
        SIMD_FOR(i, n) y[i] = 2 * level(ORIGINAL, a, (t[i] / m + 1) / 2) - 1;
    else if (p->grid.scheme == MODIFIED)
        SIMD_FOR(i, n) y[i] = 2 * level(MODIFIED, a, (t[i] / m + 1) / 2) - 1;
    else
        SIMD_FOR(i, n) y[i] = 2 * level(CENTERED, a, (t[i] / m + 1) / 2) - 1;
}

static bool find_scale(QInst *q, const float *w, const float *y, size_t n)
{
    Weight *p = q->priv;
    double mean, std, target;
    const int *d = q->shape;
    stat_mean_std(y, n, &mean, &std);
    if (!((float)std > 0) || !isfinite(std)) {
        fail(q, std == 0 ? "all weights lie on one level; AdaBits' rescaling divides by their deviation"
                         : "weights that are not finite; AdaBits' rescaling divides by their deviation");
        return false;
    }
    if (str_eq(q->opts->rescale_type, "stddev"))
        stat_mean_std(w, n, &mean, &target);
    else
        target = 1 / sqrt(p->linear ? (double)d[0] : (double)d[0] * d[2] * d[3]);
    p->scale = (float)target / (float)std;
    return true;
}

static void multiply(float *y, size_t n, float c)
{
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        SIMD_FOR(i, par_chunk_len(n, (size_t)k)) y[at + i] *= c;
    }
}

static void weight_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Weight *p = q->priv;
    const size_t n = tensor_len(x);
    const float *w = x->data;
    float *t = c->save, *out = y->data;
    q->fault = NULL;
    p->scale = p->applied = 1;
    if (p->plain) {
        if (out != w) memcpy(out, w, tensor_bytes(x));
    } else {
        tanh_all(w, t, n);
        p->max = stat_absmax(t, n);
        if (!(p->max > 0)) {
            fail(q, "all weights are 0; AdaBits divides by the largest");
        } else {
            PARALLEL_FOR(k, par_chunks(n))
            {
                const size_t at = (size_t)k * PAR_CHUNK;
                quantize_row(p, q->bits == 32, t + at, out + at, par_chunk_len(n, (size_t)k));
            }
        }
    }
    if (!q->fault && p->rescales && find_scale(q, w, out, n)) {
        p->applied = p->linear && c->phase != PH_TRAIN ? 1 : p->scale;
        if (p->applied != 1) multiply(out, n, p->applied);
    }
    if (q->fault) memset(out, 0, tensor_bytes(y));
}

/* Sum of dy * t and the number of elements at the maximum, over one part. */
static void weight_part(const Weight *p, const float *t, const float *dy, StatSpan s, double sum[2])
{
    double dot = 0, peaks = 0;
    const float m = p->max;
    PAR_PRAGMA_(omp simd reduction(+ : dot, peaks))
    for (size_t i = s.from; i < s.to; i++) {
        dot += (double)dy[i] * (double)t[i];
        peaks += fabsf(t[i]) == m ? 1 : 0;
    }
    sum[0] = dot;
    sum[1] = peaks;
}

static void weight_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Weight *p = q->priv;
    const size_t n = tensor_len(x);
    const float *t = c->save, *g = dy->data, k = p->applied, m = p->max;
    float *d, peak;
    double part[STAT_PARTS][2], sum[2] = {0};
    if (!dx) return;
    d = dx->data;
    if (q->fault) { /* the output was zeros whatever the weights */
        memset(d, 0, tensor_bytes(x));
        return;
    }
    if (p->plain) {
        SIMD_FOR(i, n) d[i] = g[i] * k;
        return;
    }
    PARALLEL_FOR(s, STAT_PARTS) weight_part(p, t, g, stat_span(n, (size_t)s), part[s]);
    for (int s = 0; s < STAT_PARTS; s++)
        for (int i = 0; i < 2; i++) sum[i] += part[s][i];
    peak = (float)(sum[0] * (double)k / ((double)m * (double)m) / sum[1]);
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        const float *tb = t + at, *gb = g + at;
        float *db = d + at;
        SIMD_FOR(i, len)
        {
            const float through_max = fabsf(tb[i]) == m ? (tb[i] < 0 ? -peak : peak) : 0;
            const float dt = gb[i] * k / m - through_max;
            db[i] = dt * (1 - tb[i] * tb[i]);
        }
    }
}

/* The bias of a linear layer outside training: divided by the c of its weight, which the first
 * input's node has just found. */
typedef struct BiasAttr {
    const QInst *q;
    size_t n;
} BiasAttr;

static int bias_prepare(Graph *g, Node *n, Prim *prim, Err *e)
{
    (void)g, (void)n, (void)prim, (void)e;
    return 0;
}

static void bias_forward(Node *n, Exec *x)
{
    const BiasAttr *a = n->attr;
    const Weight *p = a->q->priv;
    const float *b = exec_in(x, n, 1);
    float *y = exec_out(x, n, 0);
    for (size_t i = 0; i < a->n; i++) y[i] = b[i] / p->scale;
}

static void bias_backward(Node *n, Exec *x)
{
    const BiasAttr *a = n->attr;
    const Weight *p = a->q->priv;
    const float *dy = exec_gout(x, n, 0);
    float *dw = exec_gin(x, n, 0), *db = exec_gin(x, n, 1);
    if (dw) memset(dw, 0, tensor_bytes(&x->g->v[n->in[0]].t)); /* no gradient through c */
    if (!db) return;
    for (size_t i = 0; i < a->n; i++) db[i] = dy[i] / p->scale;
}

static const OpDef op_bias = {.name = "bias_rescale",
                              .flags = OP_HOISTABLE,
                              .prepare = bias_prepare,
                              .forward = bias_forward,
                              .backward = bias_backward};

static int lower(Lower *lw, int unit, Err *e)
{
    const Unit *u = &lw->spec->u[unit];
    const QUnit *qu = &lw->qp->u[unit];
    const QInst *q = qplan_get(lw->qp, unit, Q_WEIGHT, lw->variant);
    const Weight *p = q ? q->priv : NULL;
    int x, w, b, in[2];
    BiasAttr a = {.q = q};
    if (lower_trains(lw) || !p || !p->linear || !p->rescales || !qu->bias)
        return lower_default(lw, unit, e);
    x = lower_act(lw, unit);
    w = lower_weight(lw, unit);
    b = graph_param(lw->g, qu->bias);
    in[0] = w, in[1] = b;
    a.n = tensor_len(&qu->bias->value);
    b = graph_out(lw->g, graph_node(lw->g, &op_bias, u->name, 2, in, &a, sizeof a), lw->g->v[b].t);
    lower_set(lw, unit, lower_conv(lw, unit, x, w, b));
    return 0;
}

/* The default layer, but for that bias. */
static int form(const QPlan *qp, int unit, int variant, LayerForm *f, Err *e)
{
    const QInst *q = qplan_get(qp, unit, Q_WEIGHT, variant);
    const Weight *p = q ? q->priv : NULL;
    const size_t n = (size_t)qp->spec->u[unit].c;
    float *b;
    if (layer_form_default(qp, unit, variant, f, e)) return -1;
    if (!p || !p->linear || !p->rescales || !f->b) return 0;
    b = arena_alloc(f->arena, n * sizeof *b);
    for (size_t i = 0; i < n; i++) b[i] = f->b[i] / p->scale;
    f->b = b;
    return 0;
}

/* ---- activations ---- */

typedef struct Act {
    Grid grid;
    bool rounds, two_sided; /* quantized at all, or only clipped; from -A */
    int at;                 /* of alpha */
    float alpha, sign;      /* magnitude */
    char fault[320];
} Act;

/* Which clip level a variant takes: its own. The original looks the bits of activations up in
 * bits_list, where it does not find those of a pair, and then takes the first; a width outside the
 * list always does. */
static int alpha_index(const QOpts *o, int variant, int bits)
{
    if (!o->switch_alpha) return 0;
    if (variant < o->nbits_list && o->act_bits_list[variant] && !o->f8.original) return variant;
    for (int i = 0; i < o->nbits_list; i++)
        if (!o->act_bits_list[i] && o->bits_list[i] == bits) return i;
    return 0;
}

static int act_init(QInst *q, ParamStore *ps, Err *e)
{
    Act *p = q->priv;
    const QOpts *o = q->opts;
    const float start = o->act_clip_init > 0 ? (float)o->act_clip_init
                        : q->marks & UM_LAST ? 10
                                             : 8;
    const int n = o->nbits_list;
    char name[256];
    p->rounds = q->bits < 32;
    p->two_sided = o->double_side && (q->marks & UM_SIGNED);
    p->at = alpha_index(o, q->variant, q->bits);
    q->enabled = p->rounds || (o->pact_fp && !(q->marks & UM_FIRST));
    if (check_bits(q, e) ||
        grid_init(&p->grid, "act_quant_scheme", o->act_quant_scheme, p->rounds ? q->bits : 1, e))
        return -1;
    snprintf(name, sizeof name, "%salpha", q->name);
    q->p[0] = store_find(ps, name); /* of another variant of the same layer */
    if (!q->p[0]) {
        const bool own = o->switch_alpha && n > 0, given = own && o->nact_clip_inits == n;
        q->p[0] = store_add(ps, PK_CLIP, DT_F32, (Init){given ? INIT_NONE : INIT_CONST, start, 0}, own,
                            &n, "%s", name);
        for (int i = 0; given && i < n; i++)
            ((float *)q->p[0]->value.data)[i] = (float)o->act_clip_inits[i];
    }
    q->np = 1;
    return 0;
}

static void act_begin(QInst *q, const QCtx *c)
{
    Act *p = q->priv;
    const float alpha = ((const float *)q->p[0]->value.data)[p->at];
    (void)c;
    q->fault = NULL;
    p->alpha = fabsf(alpha);
    p->sign = alpha < 0 ? -1 : 1;
    if (p->alpha > 0 && isfinite(p->alpha)) return;
    snprintf(p->fault, sizeof p->fault, "%s[%d]: the clip level is %g; AdaBits divides by it",
             q->p[0]->name, p->at, (double)alpha);
    q->fault = p->fault;
}

/* y / A, and z = clip(x) / A. */
static inline __attribute__((always_inline)) float act_level(Scheme s, bool rounds, bool two,
                                                             float a, float z)
{
    if (!rounds) return z;
    return two ? 2 * level(s, a, (z + 1) / 2) - 1 : level(s, a, z);
}

static inline float clip(float x, float low, float high)
{
    x = x <= low ? low : x; /* NaN passes both */
    return x >= high ? high : x;
}

/* Always inlined: each call below has constants for `s`, `rounds` and `two`, and a loop of its own.
 */
#define KERNEL static inline __attribute__((always_inline)) void

KERNEL act_map(const Act *p, Scheme s, bool rounds, bool two, const float *x, float *y, size_t n)
{
    const float A = p->alpha, low = two ? -A : 0, a = p->grid.a;
    if (rounds)
        SIMD_FOR(i, n) y[i] = A * act_level(s, true, two, a, clip(x[i], low, A) / A);
    else
        SIMD_FOR(i, n) y[i] = clip(x[i], low, A);
}

/* Summed in float over BLOCK elements, then in double. */
#define BLOCK 256

KERNEL act_map_bwd(const Act *p, Scheme s, bool rounds, bool two, const float *x, const float *dy,
                   float *dx, size_t n, double *acc)
{
    const float A = p->alpha, low = two ? -A : 0, a = p->grid.a;
    double total = 0;
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t end = n - at < BLOCK ? n : at + BLOCK;
        float sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = at; i < end; i++) {
            const float z = clip(x[i], low, A) / A;
            const float top = x[i] >= A ? 1 : 0, bottom = two && x[i] <= low ? 1 : 0;
            sum += dy[i] * (act_level(s, rounds, two, a, z) - z + top - bottom);
        }
        total += (double)sum;
        if (!dx) continue;
        PAR_PRAGMA_(omp simd)
        for (size_t i = at; i < end; i++) dx[i] = x[i] > low && x[i] < A ? dy[i] : 0;
    }
    acc[0] += total;
}

/* One loop for each scheme, number of sides, and clipping alone. */
#define FOR_EACH_KIND(p, CALL)                                                                     \
    do {                                                                                           \
        if (!(p)->rounds)                                                                          \
            (p)->two_sided ? CALL(ORIGINAL, false, true) : CALL(ORIGINAL, false, false);           \
        else if ((p)->grid.scheme == ORIGINAL)                                                     \
            (p)->two_sided ? CALL(ORIGINAL, true, true) : CALL(ORIGINAL, true, false);             \
        else if ((p)->grid.scheme == MODIFIED)                                                     \
            (p)->two_sided ? CALL(MODIFIED, true, true) : CALL(MODIFIED, true, false);             \
        else                                                                                       \
            (p)->two_sided ? CALL(CENTERED, true, true) : CALL(CENTERED, true, false);             \
    } while (0)

static void act_row(const QInst *q, const float *x, float *y, size_t n)
{
    const Act *p = q->priv;
    if (q->fault) {
        memset(y, 0, n * sizeof *y);
        return;
    }
#define CALL(scheme, rounds, two) act_map(p, scheme, rounds, two, x, y, n)
    FOR_EACH_KIND(p, CALL);
#undef CALL
}

static void act_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n,
                        double *acc)
{
    const Act *p = q->priv;
#define CALL(scheme, rounds, two) act_map_bwd(p, scheme, rounds, two, x, dy, dx, n, acc)
    FOR_EACH_KIND(p, CALL);
#undef CALL
}

static void act_end(QInst *q, const double *acc)
{
    const Act *p = q->priv;
    if (!q->fault) ((float *)q->p[0]->grad.data)[p->at] += (float)((double)p->sign * acc[0]);
}

/* The operations of act_map, one by one. */
static int act_form(QInst *q, QuantForm *f, Err *e)
{
    const Act *p = q->priv;
    const Scheme s = p->grid.scheme;
    const float a = p->grid.a;
    act_begin(q, NULL);
    if (q->fault) return err_set(e, ERR_RUN, "%s", q->fault);
    form_step(f, FORM_MAX, p->two_sided ? -p->alpha : 0);
    form_step(f, FORM_MIN, p->alpha);
    if (!p->rounds) return 0;
    form_step(f, FORM_DIV, p->alpha);
    if (p->two_sided) {
        form_step(f, FORM_ADD, 1);
        form_step(f, FORM_DIV, 2);
    }
    form_step(f, FORM_MUL, a);
    form_step(f, s == ORIGINAL ? FORM_ROUND : FORM_FLOOR, 0);
    if (s != ORIGINAL) form_step(f, FORM_MIN, a - 1);
    if (s == CENTERED) form_step(f, FORM_ADD, 0.5f);
    form_step(f, FORM_DIV, a);
    if (p->two_sided) {
        form_step(f, FORM_MUL, 2);
        form_step(f, FORM_ADD, -1);
    }
    form_step(f, FORM_MUL, p->alpha);
    return 0;
}

/* ---- the method ---- */

/* First and last layer: weights not below edge_min_bits (0: the largest of bits_list); the image
 * itself is never quantized. */
static int unit_bits(const QOpts *o, QRole role, unsigned marks, int bits)
{
    int least = o->edge_min_bits;
    if (role == Q_ACT) return marks & UM_FIRST || o->weight_only ? 32 : bits;
    if (!(marks & (UM_FIRST | UM_LAST))) return bits;
    for (int i = 0; !o->edge_min_bits && i < o->nbits_list; i++)
        if (o->bits_list[i] > least) least = o->bits_list[i];
    return bits > least ? bits : least;
}

static const QFn act = {
    .priv_size = sizeof(Act),
    .nacc = 1,
    .init = act_init,
    .begin = act_begin,
    .row = act_row,
    .row_bwd = act_row_bwd,
    .end = act_end,
    .form = act_form,
};

static const QFn weight = {
    .priv_size = sizeof(Weight),
    .init = weight_init,
    .need = weight_need,
    .forward = weight_forward,
    .backward = weight_backward,
};

const QMethod quant_adabits = {
    .name = "adabits",
    .doc = "weights shared by several bit widths (bits_list), rescaled to a fixed deviation",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .traits = QT_DECLARES_AT_32 | QT_CHAINED | QT_VARIANTS,
    .unit_bits = unit_bits,
    .lower = lower,
    .form = form,
};
