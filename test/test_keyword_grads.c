/* test/test_keyword_grads.c -- every gradient of the keyword language's quantizers against finite
 * differences, of tensors and of trained parameters.
 *
 * A quantizer is flat almost everywhere; its gradient is that of the same formula with every
 * rounding replaced by "plus what the rounding added at this point". That formula is written here
 * once more, in double, from the equations of docs/methods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/keyword.h"
#include "test/one.h"

enum { MAX_PARAMS = 4, MAX_GROUPS = 8 };

typedef struct Trial {
    const char *label, *method;
    QRole role;
    int bits;
    KwTag tag; /* words left NULL are none */
    bool restore, blend;
    const char *loss; /* NULL: none */
} Trial;

/* The point, and what is constant in backward there. */
typedef struct Point {
    const Trial *t;
    size_t n;
    int groups, channels, levels;
    double x[ONE_MAX], dy[ONE_MAX], param[MAX_PARAMS][MAX_GROUPS];
    double start[MAX_PARAMS][MAX_GROUPS];                            /* parameters as they are */
    double mean[MAX_GROUPS], std[MAX_GROUPS], magnitude[MAX_GROUPS]; /* of the runs of a weight */
    double added[ONE_MAX * 3];                                       /* by the roundings */
    size_t at;
    bool records;
} Point;

static double rounded(Point *p, double v)
{
    if (p->records) p->added[p->at] = rint(v) - v;
    return v + p->added[p->at++];
}

static double clip(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

/* ---- the formulas; g: group ---- */

static double lsq(Point *p, double x, int g)
{
    const double C = fabs(p->param[0][g]), n = p->levels - 1;
    if (p->t->role != Q_WEIGHT && p->t->tag.half_range)
        return rounded(p, clip(x / C, 0, 1) * n) / n * C;
    return (2 * rounded(p, (clip(x / C, -1, 1) + 1) / 2 * n) / n - 1) * C;
}

static double pact(Point *p, double x, int g)
{
    const double a = p->param[0][g], step = p->start[0][g] / (p->levels - 1);
    const double v = x > 0 ? x : 0;
    return rounded(p, (v < a ? v : a) / step) * step;
}

static double dorefa(Point *p, double x, int g)
{
    const double n = p->levels - 1, B = p->t->tag.boundary > 0 ? p->t->tag.boundary : 1;
    double max = 0;
    (void)g;
    if (p->t->role != Q_WEIGHT) return rounded(p, clip(x, 0, B) * n / B) * B / n;
    for (size_t i = 0; i < p->n; i++) {
        const double w = p->t->tag.adaptive ? (p->x[i] - p->mean[0]) / p->std[0] : p->x[i];
        if (fabs(tanh(w)) > max) max = fabs(tanh(w));
    }
    return 2 * rounded(p, (tanh(x) / (2 * max) + 0.5) * n / B) * B / n - 1;
}

static double fatnn(Point *p, double x, int g)
{
    const bool half = p->t->role == Q_ACT && p->t->tag.half_range;
    double off = 0, y = 0;
    for (int i = 0; i + 1 < p->levels; i++) {
        const double A = fabs(p->param[i][g]), low = half || i ? 0 : -1;
        y += rounded(p, clip((x - off) * A, low, low + 1));
        if (half) off += 1 / A;
    }
    return y;
}

/* No factor of the gradient: y - x is a constant where it passes. */
static double xnor(Point *p, double x, int g)
{
    const char *type = p->t->tag.grad_type;
    double v = x;
    const size_t at = p->at++;
    if (type && str_eq(type, "STE")) v = clip(x, -1, 1);
    if (type && str_eq(type, "Triangle"))
        v = fabs(x) >= 1 ? (x < 0 ? -1 : 1) : 2 * x - (x < 0 ? -x * x : x * x);
    if (p->records)
        p->added[at] = (x < 0 ? -1 : 1) * (p->t->role == Q_WEIGHT ? p->magnitude[g] : 1) - v;
    return v + p->added[at];
}

static const struct {
    const char *method;
    double (*of)(Point *p, double x, int group);
} formulas[] = {{"lsq", lsq}, {"pact", pact}, {"dorefa", dorefa}, {"fatnn", fatnn}, {"xnor", xnor}};

static int group_of(const Point *p, size_t i)
{
    if (p->t->role == Q_WEIGHT) return (int)(i / (p->n / (size_t)p->groups));
    return (int)(i % (size_t)p->channels) * p->groups / p->channels;
}

static double distance(const char *kind, const double *x, const double *y, size_t n)
{
    double l1 = 0, l2 = 0, xy = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        l1 += fabs(x[i] - y[i]), l2 += (x[i] - y[i]) * (x[i] - y[i]);
        xy += x[i] * y[i], yy += y[i] * y[i];
    }
    return str_eq(kind, "L1")   ? l1 / (double)n
           : str_eq(kind, "L2") ? l2 / (double)n
                                : fabs(xy / yy - 1);
}

#define PROX  0.3
#define ALPHA 7.0

/* sum dy y, and the loss; y as the program should have it. */
static double objective(Point *p, double *y)
{
    static double seen[ONE_MAX];
    const Trial *t = p->t;
    const int last = MAX_PARAMS - 1; /* gamma */
    double sum = 0;
    double (*of)(Point *, double, int) = NULL;
    for (size_t i = 0; i < ARRAY_LEN(formulas); i++)
        if (str_eq(formulas[i].method, t->method)) of = formulas[i].of;
    p->at = 0;
    for (size_t i = 0; i < p->n; i++) {
        const int g = group_of(p, i);
        double v = p->x[i];
        if (t->tag.adaptive) v = (v - p->mean[g]) / p->std[g];
        seen[i] = v;
        y[i] = of(p, v, g);
        if (t->tag.gamma) y[i] *= p->param[last][g];
        if (t->restore) y[i] = y[i] * p->std[g] + p->mean[g];
        if (t->blend) y[i] = PROX * v + (1 - PROX) * y[i];
        sum += p->dy[i] * y[i];
    }
    return sum + (t->loss ? ALPHA * distance(t->loss, seen, y, p->n) : 0);
}

/* ---- the program ---- */

static void set(One *o, const char *attr, const char *value)
{
    Err e = {0};
    if (o->q.fn->set_text(&o->q, attr, value, &e)) fail_msg("%s: %s", attr, e.msg);
}

static void open_trial(One *o, const Trial *t)
{
    KwTag *tag = &new_one(o)->o.kw.tag[t->role];
    const int *dim = t->role == Q_WEIGHT ? weight_dim : map_dim;
    *tag = t->tag;
    if (!tag->adaptive) tag->adaptive = "none";
    if (!tag->grad_type) tag->grad_type = "none";
    tag->grad_scale = "none";
    o->o.kw.proxquant = t->blend;
    open_one(o, t->method, t->role, t->bits, 4, dim);
    if (t->restore) set(o, "adaptive_restore", "True");
    if (t->blend) set(o, "prox", "0.3");
    if (t->loss) {
        set(o, "quant_loss_enable", "True");
        set(o, "quant_loss_function", t->loss);
        set(o, "quant_loss_alpha", "7");
    }
    room_one(o);
    fill_one(o, -1.6, 1.7);
}

/* Parameters by the place a formula reads them at. */
static int place_of(const Param *p)
{
    const char *name = strrchr(p->name, '.') + 1;
    return str_eq(name, "gamma") ? MAX_PARAMS - 1 : str_starts(name, "alpha") ? name[5] - '0' : 0;
}

static void take_point(Point *p, const Trial *t, One *o)
{
    const Keyword *k = o->q.priv;
    *p = (Point){.t = t, .n = tensor_len(&o->x), .groups = k->groups, .levels = k->levels};
    p->channels = o->x.dim[1];
    for (size_t i = 0; i < p->n; i++) {
        p->x[i] = (double)((float *)o->x.data)[i];
        p->dy[i] = (double)((float *)o->dy.data)[i];
    }
    for (int i = 0; i < o->q.np; i++) {
        const int at = place_of(o->q.p[i]), n = (int)tensor_len(&o->q.p[i]->value);
        float *v = o->q.p[i]->value.data;
        for (int g = 0; g < n; g++) {
            v[g] = (0.8f + 0.17f * (float)(at + g)) * (g % 2 ? -1 : 1); /* magnitudes count */
            if (str_eq(t->method, "pact") || at == MAX_PARAMS - 1) v[g] = fabsf(v[g]);
            p->param[at][g] = p->start[at][g] = (double)v[g];
        }
    }
    for (int g = 0; t->role == Q_WEIGHT && g < p->groups; g++) {
        const size_t len = p->n / (size_t)p->groups;
        const double *x = p->x + (size_t)g * len;
        double mean = 0, var = 0;
        for (size_t i = 0; i < len; i++) mean += x[i] / (double)len;
        for (size_t i = 0; i < len; i++) var += (x[i] - mean) * (x[i] - mean) / (double)(len - 1);
        p->mean[g] = mean, p->std[g] = sqrt(var);
        for (size_t i = 0; i < len; i++)
            p->magnitude[g] +=
                fabs(t->tag.adaptive ? (x[i] - mean) / p->std[g] : x[i]) / (double)len;
    }
}

static void compare(const Trial *t, const char *what, size_t i, double got, double want,
                    double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
        fail_msg("%s: %s[%zu] is %.7g, expected %.7g", t->label, what, i, got, want);
}

static double slope(Point *p, double *at, double *y)
{
    const double from = *at, step = 1e-6;
    double up, down;
    *at = from + step, up = objective(p, y);
    *at = from - step, down = objective(p, y);
    *at = from;
    return (up - down) / (2 * step);
}

// clang-format off
static const Trial trials[] = {
    {"lsq half range",       "lsq",    Q_ACT,    2, {.half_range = true}, 0, 0, NULL},
    {"lsq full range",       "lsq",    Q_ACT,    3, {0}, 0, 0, NULL},
    {"lsq channels",         "lsq",    Q_ACT,    2, {.half_range = true, .quant_group = -1}, 0, 0, NULL},
    {"lsq output",           "lsq",    Q_OUT,    3, {.gamma = true}, 0, 0, NULL},
    {"lsq weights",          "lsq",    Q_WEIGHT, 2, {0}, 0, 0, NULL},
    {"lsq one group",        "lsq",    Q_WEIGHT, 4, {.quant_group = 1}, 0, 0, NULL},
    {"lsq everything",       "lsq",    Q_WEIGHT, 2, {.adaptive = "var-mean", .gamma = true}, 1, 0, NULL},
    {"pact",                 "pact",   Q_ACT,    3, {.half_range = true}, 0, 0, NULL},
    {"dorefa",               "dorefa", Q_ACT,    2, {.boundary = 1.2}, 0, 0, NULL},
    {"dorefa output",        "dorefa", Q_OUT,    2, {.gamma = true}, 0, 0, NULL},
    {"dorefa weights",       "dorefa", Q_WEIGHT, 2, {.gamma = true, .boundary = 2}, 0, 0, NULL},
    {"dorefa normalized",    "dorefa", Q_WEIGHT, 2, {.adaptive = "var-mean", .quant_group = 1}, 1, 0, NULL},
    {"fatnn 2 levels",       "fatnn",  Q_ACT,    1, {.half_range = true}, 0, 0, NULL},
    {"fatnn 4 levels",       "fatnn",  Q_ACT,    2, {.half_range = true}, 0, 0, NULL},
    {"fatnn channels",       "fatnn",  Q_ACT,    2, {.half_range = true, .quant_group = -1}, 0, 0, NULL},
    {"fatnn full range",     "fatnn",  Q_ACT,    1, {.level = 3}, 0, 0, NULL},
    {"fatnn weights",        "fatnn",  Q_WEIGHT, 1, {.level = 3, .quant_group = 2}, 0, 0, NULL},
    {"fatnn normalized",     "fatnn",  Q_WEIGHT, 1, {.level = 3, .adaptive = "var-mean", .gamma = true}, 1, 0, NULL},
    {"xnor",                 "xnor",   Q_ACT,    1, {0}, 0, 0, NULL},
    {"xnor STE",             "xnor",   Q_ACT,    1, {.grad_type = "STE"}, 0, 0, NULL},
    {"xnor Triangle",        "xnor",   Q_ACT,    1, {.grad_type = "Triangle"}, 0, 0, NULL},
    {"xnor weights",         "xnor",   Q_WEIGHT, 1, {.grad_type = "STE"}, 0, 0, NULL},
    {"xnor++ weights",       "xnor",   Q_WEIGHT, 1, {.adaptive = "var-mean", .gamma = true}, 0, 0, NULL},
    {"proxquant, rows",      "lsq",    Q_ACT,    2, {.half_range = true}, 0, 1, NULL},
    {"proxquant, channels",  "fatnn",  Q_ACT,    2, {.half_range = true, .quant_group = -1}, 0, 1, NULL},
    {"proxquant, weights",   "lsq",    Q_WEIGHT, 2, {.adaptive = "var-mean", .gamma = true}, 1, 1, NULL},
    {"proxquant, dorefa",    "dorefa", Q_WEIGHT, 2, {0}, 0, 1, NULL},
    {"proxquant, xnor",      "xnor",   Q_ACT,    1, {.grad_type = "STE"}, 0, 1, NULL},
    {"L1, rows",             "pact",   Q_ACT,    2, {.half_range = true}, 0, 0, "L1"},
    {"L2, rows",             "lsq",    Q_ACT,    2, {.half_range = true}, 0, 0, "L2"},
    {"QDL, rows",            "dorefa", Q_ACT,    2, {0}, 0, 0, "QDL"},
    {"L1, weights",          "lsq",    Q_WEIGHT, 2, {.adaptive = "var-mean"}, 0, 0, "L1"},
    {"L2, weights",          "fatnn",  Q_WEIGHT, 1, {.level = 3, .quant_group = 1}, 0, 0, "L2"},
    {"QDL, weights",         "lsq",    Q_WEIGHT, 2, {.adaptive = "var-mean", .gamma = true}, 0, 0, "QDL"},
    {"QDL, output",          "lsq",    Q_OUT,    3, {.gamma = true}, 0, 0, "QDL"},
};
// clang-format on

static void every_gradient(void **state)
{
    static Point p;
    static double y[ONE_MAX], scratch[ONE_MAX];
    size_t values = 0;
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(trials); k++) {
        const Trial *t = &trials[k];
        double want;
        One o;
        open_trial(&o, t);
        take_point(&p, t, &o);
        run_one(&o);
        if (o.q.fault) fail_msg("%s: %s", t->label, o.q.fault);
        p.records = true;
        want = objective(&p, y);
        p.records = false;
        for (size_t i = 0; i < p.n; i++) {
            compare(t, "y", i, (double)((float *)o.y.data)[i], y[i], 2e-6);
            want -= p.dy[i] * y[i];
        }
        compare(t, "loss", 0, o.aux, want, 1e-5);
        for (size_t i = 0; i < p.n; i++)
            compare(t, "gradient of x", i, (double)((float *)o.dx.data)[i],
                    slope(&p, &p.x[i], scratch), 2e-5);
        for (int i = 0; i < o.q.np; i++) {
            const Param *q = o.q.p[i];
            for (size_t g = 0; g < tensor_len(&q->value); g++)
                compare(t, q->name, g, (double)((float *)q->grad.data)[g],
                        slope(&p, &p.param[place_of(q)][g], scratch), 1e-4);
            values += tensor_len(&q->value);
        }
        values += p.n;
        close_one(&o);
    }
    printf("# %zu gradients in %zu set-ups\n", values, ARRAY_LEN(trials));
}

/* The closed form: the basis is the least-squares factor, and a constant in backward. */
static void closed_form(void **state)
{
    One a, b;
    double xy = 0, yy = 0;
    float basis;
    (void)state;
    new_one(&a)->o.kw.closed_form = true;
    open_one(&a, "fatnn", Q_ACT, 2, 4, map_dim);
    open_one(new_one(&b), "fatnn", Q_ACT, 2, 4, map_dim);
    fill_one(&a, -1, 9), fill_one(&b, -1, 9);
    run_one(&a), run_one(&b);
    for (size_t i = 0; i < tensor_len(&b.x); i++) {
        const double x = (double)((float *)b.x.data)[i], y = (double)((float *)b.y.data)[i];
        xy += x * y, yy += y * y;
    }
    basis = *(const float *)store_find(&a.ps, "layer.quant_activation.basis")->value.data;
    assert_true(fabs((double)basis - xy / yy) < 1e-6);
    for (size_t i = 0; i < tensor_len(&b.x); i++) {
        assert_true(((float *)a.y.data)[i] == ((float *)b.y.data)[i] * basis);
        assert_true(fabsf(((float *)a.dx.data)[i] - ((float *)b.dx.data)[i] * basis) < 1e-5f);
    }
    for (int i = 0; i < 3; i++)
        assert_true(fabs(grad_sum(a.q.p[i]) - (double)basis * grad_sum(b.q.p[i])) < 1e-3);
    assert_true(*(const float *)store_find(&a.ps, "layer.quant_activation.iteration")->value.data ==
                2);
    close_one(&a), close_one(&b);
}

/* The share of float tensors is a function of the epoch alone. */
static void proxquant_share(void **state)
{
    static const int at[] = {3, 6, 9, 12, 15};
    static const struct {
        int step, epoch, n;
        double share;
    } rows[] = {{5, 0, 4, 0.8},        {5, 2, 4, 0.8}, {5, 3, 4, 0.6}, {5, 12, 4, 0},
                {5, 15, 5, 0},         {5, 99, 4, 0},  {5, 0, -1, 0},  {10, 0, -1, 1},
                {10, 5, -1, 0.5},      {10, 10, 3, 0}, {20, 25, 0, 0}, {1, 0, 0, 0},
                {9, 7, 3, 1 - 3.0 / 9}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const double got = kw_proxquant_share(rows[i].step, rows[i].epoch, at, rows[i].n);
        if (fabs(got - rows[i].share) > 1e-12)
            fail_msg("row %zu: %g, expected %g", i, got, rows[i].share);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient),
        cmocka_unit_test(closed_form),
        cmocka_unit_test(proxquant_share),
    };
    return cmocka_run_group_tests_name("keyword gradients", tests, NULL, NULL);
}
