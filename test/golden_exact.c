/* test/golden_exact.c -- see golden_exact.h. */
#include "test/golden_exact.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "quant/chain.h"

/* A sum of a few thousand products in single precision, through a norm: in parts of the largest
 * value of the layer. */
#define ROUNDING 1e-6

/* Single values that are replaced. */
typedef struct Puts {
    struct {
        size_t at;
        float value;
    } *v;
    size_t n, cap;
} Puts;

typedef struct RecordUnit {
    float *seen; /* what came to the activation quantizer, before anything was replaced */
    size_t len;
    Puts act, weight; /* in front of the one, behind the other quantizer */
} RecordUnit;

static void make_room(Witness *r, const Spec *s)
{
    if (r->u) return;
    r->n = s->n;
    r->u = xcalloc((size_t)r->n, sizeof *r->u);
}

static void put(Puts *p, size_t at, float value)
{
    mem_grow(&p->v, &p->cap, p->n + 1, sizeof *p->v);
    p->v[p->n].at = at;
    p->v[p->n++].value = value;
}

static void put_all(const Puts *p, float *x)
{
    for (size_t i = 0; i < p->n; i++) x[p->v[i].at] = p->v[i].value;
}

/* ---- forward in double ---- */

typedef struct Exact {
    double **out; /* by unit */
    int n;
} Exact;

typedef struct Pass {
    const QPlan *qp;
    const Spec *s;
    Witness *r;
    double **out; /* by unit, [batch, h, w, c] */
    int batch;
    bool train;
} Pass;

static size_t unit_len(const Pass *p, int i)
{
    const Unit *u = &p->s->u[i];
    return (size_t)p->batch * (size_t)u->c * (size_t)u->h * (size_t)u->w;
}

/* Values as the program's quantizer leaves them. */
static void program_levels(QInst *q, const float *x, float *y, size_t n)
{
    const QCtx c = {.phase = PH_EVAL};
    if (q->fn->begin) q->fn->begin(q, &c);
    q->fn->row(q, x, y, n);
}

static bool has_exact(const QInst *q)
{
    return str_eq(q->method->name, "fat") && !q->opts->power;
}

/* The same, decided in double where the method is known here. */
static void exact_levels(QInst *q, const double *x, double *y, size_t n)
{
    float *f;
    if (has_exact(q)) {
        exact_fat_levels(q, x, y, n);
        return;
    }
    f = xaligned(n * sizeof *f);
    for (size_t i = 0; i < n; i++) f[i] = (float)x[i];
    program_levels(q, f, f, n);
    for (size_t i = 0; i < n; i++) y[i] = (double)f[i];
    free(f);
}

/* The input of a layer as its activation quantizer leaves it; n values. */
static double *quantized_input(const Pass *p, int unit, size_t n)
{
    QInst *q = qplan_get(p->qp, unit, Q_ACT, 0);
    const double *from = p->out[p->s->u[unit].in[0]];
    double *x = xaligned(n * sizeof *x);
    if (q)
        exact_levels(q, from, x, n);
    else
        memcpy(x, from, n * sizeof *x);
    return x;
}

/* The weight as the program's quantizer leaves it. */
static void program_weight(QInst *q, const Tensor *w, float *to)
{
    Tensor y = *w;
    size_t save, scratch;
    QCtx c = {.phase = PH_EVAL};
    qinst_need(q, w, PH_EVAL, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    y.data = to;
    qinst_forward(q, w, &y, &c);
    free(c.save);
    free(c.scratch);
}

/* The weight as its quantizer leaves it; where the exact one has another level, that is noted. */
static double *quantized_weight(const Pass *p, int unit, Err *e)
{
    QInst *q = qplan_get(p->qp, unit, Q_WEIGHT, 0);
    const Tensor *w = &p->qp->u[unit].weight->value;
    const size_t n = tensor_len(w);
    float *own = xaligned(tensor_bytes(w));
    double *exact = xaligned(n * sizeof *exact);
    memcpy(own, w->data, tensor_bytes(w));
    if (q) program_weight(q, w, own);
    for (size_t i = 0; i < n; i++) exact[i] = (double)own[i];
    if (q && ((str_eq(q->method->name, "fixed8_fat") && !exact_fixed8(q, exact, ROUNDING, e)) ||
              (has_exact(q) && !exact_fat_weight(q, exact, ROUNDING, e)))) {
        free(exact);
        exact = NULL;
    }
    for (size_t i = 0; exact && i < n; i++)
        if (fabs(exact[i] - (double)own[i]) > 1e-5 * fabs(exact[i]) + 1e-9)
            put(&p->r->u[unit].weight, i, (float)exact[i]);
    free(own);
    return exact;
}

/* w [oc, icg, k, k] to [k, k, icg, oc]. */
static double *turned(const double *w, int oc, int icg, int kk)
{
    double *to = xaligned((size_t)oc * (size_t)icg * (size_t)kk * sizeof *to);
    for (int o = 0; o < oc; o++)
        for (int i = 0; i < icg; i++)
            for (int k = 0; k < kk; k++)
                to[((size_t)k * (size_t)icg + (size_t)i) * (size_t)oc + (size_t)o] =
                    w[((size_t)o * (size_t)icg + (size_t)i) * (size_t)kk + (size_t)k];
    return to;
}

static void add_products(double *y, const double *w, double x, int n)
{
    SIMD_FOR(o, n) y[o] += w[o] * x;
}

static void conv(const Pass *p, int unit, const double *x, const double *weight)
{
    const Unit *u = &p->s->u[unit];
    const ConvAttr *a = &u->u.conv;
    const int groups = a->groups ? a->groups : 1, stride = a->stride ? a->stride : 1;
    const int icg = u->ic / groups, ocg = u->c / groups, step = a->dilation ? a->dilation : 1;
    double *w = turned(weight, u->c, icg, a->k * a->k);
    PARALLEL_FOR(row, (int64_t)p->batch * u->h)
    {
        const int b = (int)row / u->h, oy = (int)row % u->h;
        for (int ox = 0; ox < u->w; ox++) {
            double *y = p->out[unit] + ((size_t)row * (size_t)u->w + (size_t)ox) * (size_t)u->c;
            for (int t = 0; t < a->k * a->k; t++) {
                const int iy = oy * stride - a->pad + t / a->k * step,
                          ix = ox * stride - a->pad + t % a->k * step;
                const double *from;
                if (iy < 0 || iy >= u->ih || ix < 0 || ix >= u->iw) continue;
                from = x + (((size_t)b * (size_t)u->ih + (size_t)iy) * (size_t)u->iw + (size_t)ix) *
                               (size_t)u->ic;
                for (int i = 0; i < u->ic; i++) {
                    const int g = i / icg;
                    if (from[i] == 0) continue;
                    add_products(y + g * ocg,
                                 w + ((size_t)t * (size_t)icg + (size_t)(i % icg)) * (size_t)u->c +
                                     (size_t)(g * ocg),
                                 from[i], ocg);
                }
            }
        }
    }
    free(w);
}

static void linear(const Pass *p, int unit, const double *x, const double *w)
{
    const Unit *u = &p->s->u[unit];
    const size_t n = (size_t)u->ic * (size_t)u->ih * (size_t)u->iw;
    for (size_t b = 0; b < (size_t)p->batch; b++)
        for (size_t o = 0; o < (size_t)u->c; o++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) sum += w[o * n + i] * x[b * n + i];
            p->out[unit][b * (size_t)u->c + o] = sum;
        }
}

static bool weighted(const Pass *p, int unit, Err *e)
{
    const Unit *u = &p->s->u[unit];
    const Param *bias = p->qp->u[unit].bias;
    double *x, *w = quantized_weight(p, unit, e);
    if (!w) return false;
    x = quantized_input(p, unit, unit_len(p, u->in[0]));
    if (u->kind == U_CONV)
        conv(p, unit, x, w);
    else
        linear(p, unit, x, w);
    for (size_t i = 0; bias && i < unit_len(p, unit); i++)
        p->out[unit][i] += (double)((const float *)bias->value.data)[i % (size_t)u->c];
    free(x);
    free(w);
    return true;
}

static void norm(const Pass *p, int unit)
{
    const Unit *u = &p->s->u[unit];
    const NormParams *np = &p->qp->u[unit].norm[0];
    const double *x = p->out[u->in[0]];
    const size_t n = unit_len(p, unit), c = (size_t)u->c;
    for (size_t k = 0; k < c; k++) {
        double mean = (double)((const float *)np->mean->value.data)[k],
               var = (double)((const float *)np->var->value.data)[k], scale, shift;
        if (p->train) {
            mean = var = 0;
            for (size_t i = k; i < n; i += c) mean += x[i];
            mean /= (double)(n / c);
            for (size_t i = k; i < n; i += c) var += (x[i] - mean) * (x[i] - mean);
            var /= (double)(n / c);
        }
        scale = 1 / sqrt(var + (double)u->u.norm.eps), shift = 0;
        if (np->scale) scale *= (double)((const float *)np->scale->value.data)[k];
        if (np->shift) shift = (double)((const float *)np->shift->value.data)[k];
        for (size_t i = k; i < n; i += c) p->out[unit][i] = (x[i] - mean) * scale + shift;
    }
}

static void pool(const Pass *p, int unit)
{
    const Unit *u = &p->s->u[unit];
    const bool global = u->u.pool.kind == POOL_GLOBAL_AVG, max = u->u.pool.kind == POOL_MAX;
    const int kh = global ? u->ih : u->u.pool.k, kw = global ? u->iw : u->u.pool.k;
    const int stride = global || !u->u.pool.stride ? kh : u->u.pool.stride;
    const int pad = global ? 0 : u->u.pool.pad;
    const double *x = p->out[u->in[0]];
    for (size_t i = 0; i < unit_len(p, unit); i++) {
        const int ch = (int)(i % (size_t)u->c), ox = (int)(i / (size_t)u->c % (size_t)u->w),
                  oy = (int)(i / (size_t)u->c / (size_t)u->w % (size_t)u->h),
                  b = (int)(i / (size_t)u->c / (size_t)u->w / (size_t)u->h);
        double best = -HUGE_VAL, sum = 0;
        int seen = 0;
        for (int t = 0; t < kh * kw; t++) {
            const int iy = oy * stride - pad + t / kw, ix = ox * stride - pad + t % kw;
            double v;
            if (iy < 0 || iy >= u->ih || ix < 0 || ix >= u->iw) continue;
            v = x[(((size_t)b * (size_t)u->ih + (size_t)iy) * (size_t)u->iw + (size_t)ix) *
                      (size_t)u->ic +
                  (size_t)ch];
            best = fmax(best, v);
            sum += v;
            seen++;
        }
        p->out[unit][i] = max ? best : sum / (u->u.pool.count_pad ? kh * kw : seen);
    }
}

/* [h, w, c] to the c, h, w of a linear layer's input. */
static void flatten(const Pass *p, int unit)
{
    const Unit *u = &p->s->u[unit];
    const size_t plane = (size_t)u->ih * (size_t)u->iw, c = (size_t)u->ic;
    for (size_t i = 0; i < unit_len(p, unit); i++) {
        const size_t b = i / (plane * c), at = i % (plane * c);
        p->out[unit][b * plane * c + at % c * plane + at / c] = p->out[u->in[0]][i];
    }
}

static bool one_unit(const Pass *p, int unit, const float *image, Err *e)
{
    const Unit *u = &p->s->u[unit];
    const size_t n = unit_len(p, unit);
    double *y = p->out[unit];
    const double *a = u->nin ? p->out[u->in[0]] : NULL;
    switch (u->kind) {
    case U_INPUT:
        for (size_t i = 0; i < n; i++) y[i] = (double)image[i];
        return true;
    case U_CONV:
    case U_LINEAR:
        return weighted(p, unit, e);
    case U_NORM:
        norm(p, unit);
        return true;
    case U_ACT:
        for (size_t i = 0; i < n; i++)
            y[i] = fmin(fmax(a[i], 0), u->u.act.kind == AK_RELU6 ? 6 : HUGE_VAL);
        return true;
    case U_POOL:
        pool(p, unit);
        return true;
    case U_ADD:
        for (size_t i = 0; i < n; i++) y[i] = a[i] + p->out[u->in[1]][i];
        return true;
    case U_FLATTEN:
        flatten(p, unit);
        return true;
    case U_DROPOUT:
        memcpy(y, a, n * sizeof *y);
        return true;
    default:
        err_set(e, ERR_CONFIG, "no exact evaluation of a %s", unit_kind_name(u->kind));
        return false;
    }
}

static void exact_free(Exact *x)
{
    for (int i = 0; i < x->n; i++) free(x->out[i]);
    free(x->out);
    *x = (Exact){0};
}

static bool exact_forward(Exact *x, const QPlan *qp, Witness *r, const float *image, int batch,
                          bool train, Err *e)
{
    const int n = qp->spec->n;
    Pass p = {qp, qp->spec, r, xcalloc((size_t)n, sizeof(double *)), batch, train};
    *x = (Exact){p.out, n};
    for (int i = 0; i < n; i++) {
        p.out[i] = xcalloc(unit_len(&p, i), sizeof **p.out);
        if (one_unit(&p, i, image, e)) continue;
        exact_free(x);
        return false;
    }
    return true;
}

/* ---- the recorder ---- */

typedef struct RecordAttr {
    RecordUnit *to;
} RecordAttr;

static int record_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)g, (void)n, (void)p, (void)e;
    return 0;
}

static void record_forward(Node *n, Exec *x)
{
    RecordUnit *u = ((const RecordAttr *)n->attr)->to;
    const Tensor in = exec_in_tensor(x, n, 0);
    float *y = exec_out(x, n, 0);
    const size_t len = tensor_len(&in);
    if (u->len != len) {
        free(u->seen);
        u->seen = xaligned(len * sizeof *u->seen);
        u->len = len;
    }
    memcpy(u->seen, in.data, tensor_bytes(&in));
    memcpy(y, in.data, tensor_bytes(&in));
    put_all(&u->act, y);
}

static void replace_forward(Node *n, Exec *x)
{
    const Tensor in = exec_in_tensor(x, n, 0);
    memcpy(exec_out(x, n, 0), in.data, tensor_bytes(&in));
    put_all(&((const RecordAttr *)n->attr)->to->weight, exec_out(x, n, 0));
}

static void record_backward(Node *n, Exec *x)
{
    const float *g = exec_gout(x, n, 0);
    float *to = exec_gin(x, n, 0);
    const Tensor in = exec_in_tensor(x, n, 0);
    if (to && g) memcpy(to, g, tensor_bytes(&in));
}

static const OpDef op_record = {.name = "record",
                                .prepare = record_prepare,
                                .forward = record_forward,
                                .backward = record_backward};
static const OpDef op_replace = {.name = "replace",
                                 .prepare = record_prepare,
                                 .forward = replace_forward,
                                 .backward = record_backward};

static int with(Lower *lw, int unit, const OpDef *op, int x, RecordUnit *u)
{
    const RecordAttr a = {u};
    const Tensor t = lw->g->v[x].t;
    return graph_out(lw->g, graph_node(lw->g, op, lw->spec->u[unit].name, 1, &x, &a, sizeof a), t);
}

/* The default lowering of a layer, with a recorder before its activation quantizer. */
static int record_lower(Lower *lw, int unit, Err *e)
{
    Witness *r = (Witness *)(uintptr_t)lw->qp->u[unit].method;
    QInst *q = qplan_get(lw->qp, unit, Q_ACT, lw->variant);
    Param *bias = lw->qp->u[unit].bias;
    int x = lower_input(lw, unit, 0), w = lower_weight(lw, unit);
    (void)e;
    make_room(r, lw->spec);
    if (q) {
        x = with(lw, unit, &op_record, x, &r->u[unit]);
        x = graph_quant(lw->g, lw->spec->u[unit].name, x, q);
    }
    w = with(lw, unit, &op_replace, w, &r->u[unit]);
    lower_set(lw, unit, lower_conv(lw, unit, x, w, bias ? graph_param(lw->g, bias) : -1));
    return 0;
}

void witness_init(Witness *r, const QMethod *m)
{
    *r = (Witness){.method = *m, .list = {&r->method, NULL}, .settle = r->settle};
    r->method.lower = record_lower;
    r->method.traits &= ~(unsigned)QT_CHAINED;
}

void witness_free(Witness *r)
{
    for (int i = 0; r->u && i < r->n; i++) {
        free(r->u[i].seen);
        free(r->u[i].act.v);
        free(r->u[i].weight.v);
    }
    free(r->u);
    *r = (Witness){0};
}

/* ---- comparing ---- */

/* Slopes: 1 through the quantizer. */
static void slopes(const QInst *q, const float *x, float *slope, size_t n)
{
    double acc[Q_MAX_ACC] = {0};
    for (size_t i = 0; i < n; i++) slope[i] = 1;
    if (q->fn->row_bwd) q->fn->row_bwd(q, x, slope, slope, n, acc);
}

/* The float next to `exact` that the program takes to `level`. */
static float beside(QInst *q, double exact, double level)
{
    float x = (float)exact, y;
    for (int ulp = 0; ulp < 8; ulp++) {
        const float near[2] = {x, (float)(2 * exact - (double)x)};
        for (int k = 0; k < 2; k++) {
            program_levels(q, &near[k], &y, 1);
            if (fabs((double)y - level) <= 1e-5 * fabs(level)) return near[k];
        }
        x = nextafterf(x, HUGE_VALF);
    }
    return (float)exact;
}

static int settle_unit(Witness *r, int unit, QInst *q, const double *exact, double *largest, Err *e)
{
    RecordUnit *u = &r->u[unit];
    const size_t n = u->len;
    float *x = xaligned(5 * n * sizeof *x), *slope = x + n, *seen = slope + n, *own = seen + n,
          *own_slope = own + n;
    double *level = xaligned(n * sizeof *level);
    double top = 0;
    int found = 0;
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)exact[i];
        top = fmax(top, fabs(exact[i]));
    }
    memcpy(seen, u->seen, n * sizeof *seen);
    put_all(&u->act, seen);
    exact_levels(q, exact, level, n);
    slopes(q, x, slope, n);
    program_levels(q, seen, own, n);
    slopes(q, seen, own_slope, n);
    for (size_t i = 0; i < n && found >= 0; i++) {
        const double off = fabs((double)seen[i] - exact[i]) / top;
        if (fabs(level[i] - (double)own[i]) <= 1e-6 * top && slope[i] == own_slope[i]) continue;
        if (!(off <= ROUNDING)) {
            err_set(e, ERR_CONFIG,
                    "%s: value %zu is %.9g, exactly %.9g: more than a rounding away (%.2g of %g)",
                    q->name, i, (double)seen[i], exact[i], off, top);
            found = -1;
            break;
        }
        put(&u->act, i, beside(q, exact[i], level[i]));
        *largest = fmax(*largest, off);
        found++;
    }
    free(x);
    free(level);
    return found;
}

/* Compares the recorded pass with the exact one at the first layer where quantized values differ, and
 * notes the exact values there. 0: no layer differs; > 0: so many values, run again; -1 with `e`: a
 * value differs by more than a rounding. */
static int settle(Witness *r, const QPlan *qp, const Exact *x, double *largest, Err *e)
{
    for (int i = 0; r->u && i < r->n; i++) {
        QInst *q = qplan_get(qp, i, Q_ACT, 0);
        int found;
        if (!r->u[i].len || !q) continue;
        found = settle_unit(r, i, q, x->out[qp->spec->u[i].in[0]], largest, e);
        if (found) return found;
    }
    return 0;
}

/* Buffers, which a pass in training moves: kept, or put back. */
static void buffers(const ParamStore *ps, char **kept, bool back)
{
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        const size_t bytes = tensor_bytes(&p->value);
        if (p->kind != PK_BUFFER) continue;
        if (!back) kept[i] = xaligned(bytes);
        memcpy(back ? p->value.data : kept[i], back ? kept[i] : p->value.data, bytes);
        param_touch(p);
    }
}

int settled_run(Case *c, Model *m, Witness *r, Phase ph, const float *x, const int32_t *label,
                int batch, int64_t step, double *loss, const float **logits, Err *e)
{
    ParamStore *ps = model_store(m);
    char **kept = xcalloc((size_t)ps->n, sizeof *kept);
    Exact exact = {0};
    double largest = 0;
    int found = 1, moved = 0, weights = 0, status = -1;
    make_room(r, model_spec(m));
    for (int i = 0; i < r->n; i++) r->u[i].act.n = r->u[i].weight.n = 0;
    buffers(ps, kept, false);
    if (r->settle && !exact_forward(&exact, model_qplan(m), r, x, batch, ph == PH_TRAIN, e)) goto out;
    for (int pass = 0; found > 0; pass++) {
        if (pass) buffers(ps, kept, true);
        if (ph == PH_TRAIN) store_zero_grads(ps);
        status = ph == PH_TRAIN
                     ? model_train(m, 0, x, label, batch, step, loss, logits, e)
                     : model_eval(m, 0, x, label, batch, batch, loss, logits, e);
        if (status) goto out;
        found = r->settle ? settle(r, model_qplan(m), &exact, &largest, e) : 0;
        if (found < 0) case_fail(c, "step %d: %s", (int)step, e->msg);
        moved += found > 0 ? found : 0;
    }
    for (int i = 0; i < r->n; i++) weights += (int)r->u[i].weight.n;
    if (moved || weights)
        str_printf(&c->note,
                   "; step %d%s: beyond a threshold by a rounding: %d activations (at most %.1g of their "
                   "layer's largest), %d weights",
                   (int)step, ph == PH_TRAIN ? "" : " (evaluation)", moved, largest, weights);
out:
    for (int i = 0; i < ps->n; i++) free(kept[i]);
    free(kept);
    exact_free(&exact);
    return status;
}
