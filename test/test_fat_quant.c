/* test/test_fat_quant.c -- gradients of FAT's quantizers, from the upstream gradient to weight,
 * transform and clip level, against finite differences of the function that the method
 * differentiates: everything but rounding, of which only the error it makes here is kept, a
 * constant r = P(u) - u (a straight-through estimator). In double, by the definition of the mask.
 *
 * Of weights, Y being the mask of (w - mean0) / std0, whose gradient FAT does not mask:
 *     L(w, T, a) = sum g (Y(w, T) + a clip(Y0 / a) + a r)
 * Of activations, imagenet without r for a:
 *     L(x, a) = sum g a (min(x / a, 1) + r) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/par.h"
#include "test/support/fat_reference.h"
#include "test/support/one_quantizer.h"

typedef struct Case {
    const char *method, *variant;
    QRole role;
    int bits, rows, n;
    bool power;
    float alpha;
} Case;

typedef struct Run {
    const Case *c;
    OneQuantizer q;
    FatReference ref;
    size_t len, nt;
    double *x, *t, alpha;     /* what is varied */
    double *y, *y0, *residue; /* Y of the moment, of the start; r */
    double mean, std;
    float *g, *out, *dx;
} Run;

static void fail_case(const Case *c, const char *what, size_t i, double got, double want)
{
    fail_msg("%s %s, %d bits%s, %d rows of %d: %s[%zu] is %.8g, expected %.8g", c->method,
             c->variant, c->bits, c->power ? ", powers of two" : "", c->rows, c->n, what, i, got,
             want);
}

static void check(const Case *c, const char *what, size_t i, double got, double want)
{
    if (!(fabs(got - want) <= 1e-4 + 1e-3 * fabs(want))) fail_case(c, what, i, got, want);
}

/* The nearest level to u: in [0, 1]; of activations below 0 too, where powers of two end at 0. */
static double project(const Case *c, double u)
{
    const int bits = c->role == Q_WEIGHT ? c->bits - 1 : c->bits, levels = (1 << bits) - 1;
    double best = 0;
    if (!c->power) return rint(u * levels) / levels;
    for (int k = 0; k < levels; k++)
        if (fabs(ldexp(1, -k) - u) < fabs(best - u)) best = ldexp(1, -k);
    return best;
}

static double clipped(const Case *c, double v)
{
    return c->role == Q_ACT ? fmin(v, 1) : fmax(-1, fmin(v, 1));
}

static bool masked(const Run *r)
{
    return r->q.q.np > 1;
}

/* What is rounded, from x (and T) as they are. */
static void restore(Run *r)
{
    double *in = xcalloc(r->len, sizeof *in);
    for (size_t i = 0; i < r->len; i++) in[i] = (r->x[i] - r->mean) / r->std;
    if (masked(r))
        fat_reference_run(&r->ref, r->t, in, r->y);
    else
        for (size_t i = 0; i < r->len; i++) r->y[i] = in[i];
    free(in);
}

static double loss(Run *r)
{
    const bool pact = r->c->role == Q_ACT && str_eq(r->c->variant, "imagenet");
    double sum = 0;
    restore(r);
    for (size_t i = 0; i < r->len; i++) {
        const double r0 = pact ? 0 : r->residue[i], a = r->alpha,
                     y = r->c->role == Q_ACT ? a * (clipped(r->c, r->y[i] / a) + r0)
                                             : r->y[i] + a * (clipped(r->c, r->y0[i] / a) + r0);
        sum += (double)r->g[i] * y;
    }
    return sum;
}

static double slope(Run *r, double *v)
{
    const double h = 1e-5, at = *v;
    double up, down;
    *v = at + h, up = loss(r);
    *v = at - h, down = loss(r);
    *v = at;
    return (up - down) / (2 * h);
}

static void moments(Run *r)
{
    const bool weight = r->c->role == Q_WEIGHT;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < r->len; i++) sum += r->x[i];
    r->mean = weight ? sum / (double)r->len : 0;
    for (size_t i = 0; i < r->len; i++) squares += (r->x[i] - r->mean) * (r->x[i] - r->mean);
    r->std = weight && masked(r) ? sqrt(squares / (double)(r->len - 1)) : 1;
}

static void open_run(Run *r, const Case *c, int zero_row)
{
    Rng rng = rng_stream(5, RNG_TEST, (uint64_t)(c->rows * 10007 + c->n),
                         (uint64_t)(c->bits + 16 * c->power));
    float *w;
    *r = (Run){
        .c = c, .len = (size_t)c->rows * (size_t)c->n, .nt = (size_t)c->rows * (size_t)c->rows};
    if (one_quantizer_init(&r->q, c->method, c->role, c->bits, c->rows, c->n, c->variant, c->power))
        fail_msg("%s: %s", c->method, r->q.e.msg);
    w = r->q.x->value.data;
    r->ref = fat_reference_new(c->rows, c->n);
    double **all[] = {&r->x, &r->t, &r->y, &r->y0, &r->residue};
    for (size_t k = 0; k < ARRAY_LEN(all); k++) *all[k] = xcalloc(r->len + r->nt, sizeof(double));
    r->g = xaligned(r->len * sizeof *r->g);
    r->out = xaligned(r->len * sizeof *r->out);
    r->dx = xaligned(r->len * sizeof *r->dx);
    for (size_t i = 0; i < r->len; i++) {
        if ((int)(i / (size_t)c->n) == zero_row) w[i] = 0;
        r->x[i] = (double)w[i];
        r->g[i] = (float)rng_range(&rng, -1, 1);
    }
    *(float *)r->q.q.p[0]->value.data = c->alpha;
    r->alpha = (double)c->alpha;
    for (size_t i = 0; masked(r) && i < r->nt; i++)
        r->t[i] = (double)(((float *)r->q.q.p[1]->value.data)[i] =
                               (float)(rng_range(&rng, -0.5, 1) / c->rows));
    moments(r);
    restore(r);
    for (size_t i = 0; i < r->len; i++) {
        const double u = clipped(c, r->y[i] / r->alpha);
        r->y0[i] = r->y[i];
        r->residue[i] = (c->role == Q_ACT ? project(c, u) : copysign(project(c, fabs(u)), u)) - u;
    }
}

static void close_run(Run *r)
{
    one_quantizer_free(&r->q);
    fat_reference_free(&r->ref);
    free(r->x), free(r->t), free(r->y), free(r->y0), free(r->residue);
    free(r->g), free(r->out), free(r->dx);
}

static void check_case(const Case *c, int zero_row, size_t tries)
{
    Run run, *r = &run;
    size_t beyond = 0;
    open_run(r, c, zero_row);
    one_quantizer_forward(&r->q, PH_TRAIN, r->out);
    assert_null(r->q.q.fault);
    one_quantizer_backward(&r->q, r->g, r->dx);
    for (size_t i = 0; i < r->len; i++) {
        const double u = clipped(c, r->y0[i] / r->alpha);
        check(c, "y", i, (double)r->out[i], r->alpha * (u + r->residue[i]));
        beyond += fabs(r->y0[i] / r->alpha) > 1;
    }
    if (r->len > 30 && (!beyond || beyond == r->len))
        fail_msg("%zu of %zu beyond the clip", beyond, r->len);
    check(c, "da", 0, (double)*(float *)r->q.q.p[0]->grad.data, slope(r, &r->alpha));
    for (size_t i = 0; i < r->len; i += 1 + r->len / tries)
        check(c, "dx", i, (double)r->dx[i], slope(r, &r->x[i]));
    for (size_t i = 0; masked(r) && i < r->nt; i += 1 + r->nt / tries)
        check(c, "dT", i, (double)((float *)r->q.q.p[1]->grad.data)[i], slope(r, &r->t[i]));
    close_run(r);
}

/* Shapes: even and odd rows, rows of one and of two values, one row. */
static const int shapes[][2] = {{8, 36}, {6, 27}, {16, 9}, {5, 1}, {7, 2}, {1, 11}, {1, 2}};

static void weights(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(shapes); k++)
        for (int bits = 2; bits <= 8; bits += bits < 5 ? 1 : 3)
            for (int power = 0; power <= (bits < 6); power++) {
                const Case fat = {"fat",        "",           Q_WEIGHT, bits,
                                  shapes[k][0], shapes[k][1], power,    0.8f};
                const Case uniform = {"fat_uniform", "imagenet",   Q_WEIGHT, bits,
                                      shapes[k][0],  shapes[k][1], power,    0.8f};
                check_case(&fat, -1, 20);
                check_case(&uniform, -1, 20);
            }
}

/* A channel whose weights are all 0 beside others: the mean moves it off 0, so that its spectrum is
 * one bin. */
static void weights_of_zero(void **state)
{
    static const Case even = {"fat", "", Q_WEIGHT, 3, 4, 18, false, 0.8f},
                      odd = {"fat", "", Q_WEIGHT, 4, 3, 27, false, 0.8f};
    (void)state;
    check_case(&even, 1, 40);
    check_case(&odd, 2, 40);
}

static void weights_long(void **state)
{
    static const Case c = {"fat", "", Q_WEIGHT, 4, 2, 4608, false, 0.8f};
    (void)state;
    check_case(&c, -1, 3);
}

static void activations(void **state)
{
    static const char *const variant[] = {"cifar", "imagenet"};
    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(variant); v++)
        for (int bits = 1; bits <= 8; bits += bits < 4 ? 1 : 2)
            for (int power = 0; power <= (bits < 6); power++) {
                const Case c = {"fat", variant[v], Q_ACT, bits, 7, 33, power, 0.6f};
                check_case(&c, -1, 60);
            }
}

/* Weights that are all the same cannot be normalised: a fault that names them, no gradient, no NaN.
 */
static void weights_all_zero(void **state)
{
    static const int shape[][2] = {{4, 18}, {3, 9}, {5, 1}, {1, 1}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(shape); k++) {
        OneQuantizer q;
        float g[72], out[72], dx[72];
        const size_t n = (size_t)shape[k][0] * (size_t)shape[k][1];
        assert_int_equal(
            one_quantizer_init(&q, "fat", Q_WEIGHT, 4, shape[k][0], shape[k][1], "", false), 0);
        for (size_t i = 0; i < n; i++) {
            ((float *)q.x->value.data)[i] = 0;
            g[i] = 1;
            out[i] = dx[i] = 9;
        }
        one_quantizer_forward(&q, PH_TRAIN, out);
        assert_non_null(q.q.fault);
        one_quantizer_backward(&q, g, dx);
        for (size_t i = 0; i < n; i++) assert_true(out[i] == 0 && dx[i] == 0);
        for (int p = 0; p < q.q.np; p++)
            for (size_t i = 0; i < tensor_len(&q.q.p[p]->value); i++)
                assert_true(((float *)q.q.p[p]->grad.data)[i] == 0);
        one_quantizer_free(&q);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights),          cmocka_unit_test(weights_of_zero),
        cmocka_unit_test(weights_long),     cmocka_unit_test(activations),
        cmocka_unit_test(weights_all_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
