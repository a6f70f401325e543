/* run/layerview.c -- see layerview.h. */
#include "run/layerview.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/qplan.h"

/* What rounding makes of one tensor. */
typedef struct Rounded {
    const float *w; /* what is rounded */
    float *q;       /* what comes out */
    size_t n;
    float *value; /* the distinct values of q, ascending */
    size_t *count;
    size_t nvalues;
} Rounded;

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void find_values(Rounded *r)
{
    float *sorted = xmalloc((r->n + 1) * sizeof *sorted);
    memcpy(sorted, r->q, r->n * sizeof *sorted);
    qsort(sorted, r->n, sizeof *sorted, by_value);
    r->value = xmalloc((r->n + 1) * sizeof *r->value);
    r->count = xcalloc(r->n + 1, sizeof *r->count);
    for (size_t i = 0; i < r->n; i++) {
        if (!r->nvalues || sorted[i] != r->value[r->nvalues - 1])
            r->value[r->nvalues++] = sorted[i] == 0 ? 0 : sorted[i];
        r->count[r->nvalues - 1]++;
    }
    free(sorted);
}

/* A method that leaves some weights between its levels for a step (hysteresis) makes many values
 * that occur once: these are no levels. */
static void drop_singles(Rounded *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->nvalues; i++) {
        if (r->count[i] < 2) continue;
        r->value[kept] = r->value[i];
        r->count[kept++] = r->count[i];
    }
    r->nvalues = kept;
}

/* Sums for the line through (x, y). */
typedef struct Fit {
    double n, x, y, xx, xy, yy;
} Fit;

static void fit_add(Fit *f, double x, double y)
{
    f->n++;
    f->x += x;
    f->y += y;
    f->xx += x * x;
    f->xy += x * y;
    f->yy += y * y;
}

static double sqnr(const Rounded *r)
{
    Fit f = {0};
    double sxx, syy, sxy, noise;
    const double base = r->n ? (double)r->w[0] : 0; /* sums of differences lose less */
    for (size_t i = 0; i < r->n; i++) fit_add(&f, (double)r->q[i] - base, (double)r->w[i] - base);
    sxx = f.xx - f.x * f.x / f.n;
    syy = f.yy - f.y * f.y / f.n;
    sxy = f.xy - f.x * f.y / f.n;
    if (!(syy > 0) || !(sxx > 0) || !isfinite(sxy)) return (double)NAN;
    noise = syy - sxy * sxy / sxx;
    return noise <= 1e-13 * syy ? (double)INFINITY : 10 * log10(syy / noise);
}

/* Where the levels stand on the scale of the weights: the border between two neighbouring levels,
 * as the weights on both sides show it, lies in the middle of the two. Through these pairs goes a
 * line; with one border only its offset is known, and the scale is that of the least error. */
static void place_levels(const Rounded *r, LayerView *v)
{
    float low[VIEW_MAX_LEVELS], high[VIEW_MAX_LEVELS];
    double a = 1, b = 0;
    Fit f = {0}, all = {0};
    for (size_t k = 0; k < r->nvalues; k++) {
        low[k] = INFINITY;
        high[k] = -INFINITY;
    }
    for (size_t i = 0; i < r->n; i++) {
        const float *at = bsearch(&r->q[i], r->value, r->nvalues, sizeof *r->value, by_value);
        const size_t k = at ? (size_t)(at - r->value) : 0;
        fit_add(&all, (double)r->q[i], (double)r->w[i]);
        if (!at) continue;
        low[k] = fminf(low[k], r->w[i]);
        high[k] = fmaxf(high[k], r->w[i]);
    }
    for (size_t k = 0; k + 1 < r->nvalues; k++)
        fit_add(&f, ((double)r->value[k] + (double)r->value[k + 1]) / 2,
                ((double)high[k] + (double)low[k + 1]) / 2);
    if (f.n < 2) f = all;
    if (f.n * f.xx - f.x * f.x > 0) {
        a = (f.n * f.xy - f.x * f.y) / (f.n * f.xx - f.x * f.x);
        b = (f.y - a * f.x) / f.n;
    }
    for (size_t k = 0; k < r->nvalues; k++) v->level[k] = a * (double)r->value[k] + b;
}

static void find_levels(Rounded *r, LayerView *v, bool own_scale)
{
    find_values(r);
    if (r->nvalues > VIEW_MAX_LEVELS) drop_singles(r);
    v->nlevels = r->nvalues > VIEW_MAX_LEVELS ? -1 : (int)r->nvalues;
    if (v->nlevels > 0 && !own_scale) place_levels(r, v);
    for (int k = 0; k < v->nlevels && own_scale; k++) v->level[k] = (double)r->value[k];
    free(r->value);
    free(r->count);
}

static void histogram(const float *w, size_t n, LayerView *v)
{
    double lo = INFINITY, hi = -INFINITY, width;
    size_t count[VIEW_BINS] = {0};
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(w[i])) continue;
        lo = fmin(lo, (double)w[i]);
        hi = fmax(hi, (double)w[i]);
    }
    if (!(lo < hi)) {
        lo = isfinite(lo) ? lo - 0.5 : 0;
        hi = lo + 1;
    }
    width = (hi - lo) / VIEW_BINS;
    for (size_t i = 0; i < n; i++) {
        const double at = ((double)w[i] - lo) / width;
        if (isfinite(at)) count[at >= VIEW_BINS ? VIEW_BINS - 1 : (int)at]++;
    }
    for (int k = 0; k < VIEW_BINS; k++) {
        v->bin[k] = lo + (k + 0.5) * width;
        v->share[k] = 100.0 * (double)count[k] / (double)n;
    }
}

static double *doubles(Arena *a, const float *x, int n)
{
    double *d = arena_alloc(a, (size_t)n * sizeof *d);
    for (int i = 0; i < n; i++) d[i] = (double)x[i];
    return d;
}

static void take_spectrum(LayerView *v, const QView *q, Arena *a)
{
    float most = 0;
    if (!(v->nspectrum = q->bins)) return;
    v->frequency = arena_alloc(a, (size_t)q->bins * sizeof *v->frequency);
    for (int k = 0; k < q->bins; k++) {
        v->frequency[k] = (double)k / q->length;
        most = fmaxf(most, q->magnitude[k]);
    }
    v->magnitude = doubles(a, q->magnitude, q->bins);
    for (int k = 0; k < q->bins; k++) v->magnitude[k] /= most > 0 ? (double)most : 1;
    v->mask = doubles(a, q->mask, q->bins);
    v->mask_low = doubles(a, q->mask_low, q->bins);
    v->mask_high = doubles(a, q->mask_high, q->bins);
}

static void look(LayerView *v, QInst *q, const Tensor *w, Arena *a)
{
    QView view = {.before = xaligned(tensor_bytes(w))};
    Tensor y = *w;
    QCtx c = {.phase = PH_EVAL};
    Rounded r = {.w = w->data, .n = tensor_len(w)};
    size_t save, scratch;
    qinst_need(q, w, PH_EVAL, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    y.data = r.q = xaligned(tensor_bytes(w));
    qinst_forward(q, w, &y, &c);
    if (q->fn->view) q->fn->view(q, w, &view);
    if (view.has_before) r.w = view.before;
    v->scale = view.has_before ? "weight before rounding (level units)" : "weight (value)";
    histogram(r.w, r.n, v);
    v->sqnr = sqnr(&r);
    find_levels(&r, v, view.has_before);
    take_spectrum(v, &view, a);
    free(r.q);
    free(c.save);
    free(c.scratch);
    free(view.before);
    free(view.magnitude);
    free(view.mask);
    free(view.mask_low);
    free(view.mask_high);
}

void layerviews_make(LayerViews *l, Model *m, int variant)
{
    const Spec *spec = model_spec(m);
    const QPlan *qp = model_qplan(m);
    int *order = xcalloc((size_t)spec->n, sizeof *order);
    *l = (LayerViews){.variant = variant};
    l->v = xcalloc((size_t)spec->n, sizeof *l->v);
    spec_declaration_order(spec, order);
    for (int i = 0; i < spec->n; i++) {
        const Unit *u = &spec->u[order[i]];
        const Param *w = qp->u[order[i]].weight;
        QInst *q = qplan_get(qp, order[i], Q_WEIGHT, variant);
        LayerView *v = &l->v[l->n];
        if ((u->kind != U_CONV && u->kind != U_LINEAR) || !w || !tensor_len(&w->value)) continue;
        *v = (LayerView){.name = u->name,
                         .method = q ? q->method->name : NULL,
                         .bits = q ? q->bits : 32,
                         .weights = tensor_len(&w->value),
                         .sqnr = (double)NAN,
                         .scale = "weight (value)"};
        tensor_shape_text(&w->value, v->shape);
        if (q)
            look(v, q, &w->value, &l->arena);
        else
            histogram(w->value.data, v->weights, v);
        l->n++;
    }
    free(order);
}

void layerviews_free(LayerViews *l)
{
    free(l->v);
    arena_free(&l->arena);
    *l = (LayerViews){0};
}
