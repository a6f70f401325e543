/* test/test_fat.c -- FAT's spectral mask against its definition and against finite differences, in
 * double; its quantizer's faults; and the latent copy of the hysteresis method. test_fat_quant.c
 * goes on with the gradients of the quantizers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "quant/fat.h"
#include "test/support/fat_reference.h"
#include "test/support/one_quantizer.h"

typedef struct Sample {
    int rows, n;
    size_t nx, nt;
    double *x, *t;
    float *xf, *tf, *g, *y, *dx, *dt;
    FatReference ref;
    double *ry;
} Sample;

static Sample sample_new(int rows, int n)
{
    Sample s = {.rows = rows, .n = n};
    Rng r = rng_stream(11, RNG_TEST, (uint64_t)rows, (uint64_t)n);
    s.nx = (size_t)rows * (size_t)n;
    s.nt = (size_t)rows * (size_t)rows;
    s.x = xcalloc(s.nx, sizeof(double));
    s.ry = xcalloc(s.nx, sizeof(double));
    s.t = xcalloc(s.nt, sizeof(double));
    s.xf = xaligned(s.nx * sizeof(float));
    s.g = xaligned(s.nx * sizeof(float));
    s.y = xaligned(s.nx * sizeof(float));
    s.dx = xaligned(s.nx * sizeof(float));
    s.tf = xaligned(s.nt * sizeof(float));
    s.dt = xaligned(s.nt * sizeof(float));
    for (size_t i = 0; i < s.nx; i++) {
        s.x[i] = (double)(s.xf[i] = (float)rng_range(&r, -1.5, 1.5));
        s.g[i] = (float)rng_range(&r, -1, 1);
    }
    for (size_t i = 0; i < s.nt; i++)
        s.t[i] = (double)(s.tf[i] = (float)(rng_range(&r, -0.5, 1) / rows));
    s.ref = fat_reference_new(rows, n);
    return s;
}

static void sample_free(Sample *s)
{
    free(s->x), free(s->t), free(s->xf), free(s->tf), free(s->g);
    free(s->y), free(s->dx), free(s->dt), free(s->ry);
    fat_reference_free(&s->ref);
}

static void run(Sample *s)
{
    Fat f;
    float *save, *scratch;
    fat_init(&f, s->rows, s->n);
    save = xaligned(fat_save_len(&f) * sizeof *save);
    scratch = xaligned(fat_scratch_len(&f) * sizeof *scratch);
    fat_forward(&f, s->tf, s->xf, s->y, save, scratch);
    fat_backward(&f, s->tf, save, s->g, s->dx, s->dt, scratch);
    free(save);
    free(scratch);
    fat_free(&f);
}

static double loss(Sample *s)
{
    double sum = 0;
    fat_reference_run(&s->ref, s->t, s->x, s->ry);
    for (size_t i = 0; i < s->nx; i++) sum += s->ry[i] * (double)s->g[i];
    return sum;
}

/* Central difference of the loss along v[i]. */
static double slope(Sample *s, double *v, size_t i)
{
    const double h = 1e-5, at = v[i];
    double up, down;
    v[i] = at + h, up = loss(s);
    v[i] = at - h, down = loss(s);
    v[i] = at;
    return (up - down) / (2 * h);
}

static void check(const char *what, int rows, int n, size_t i, double got, double want)
{
    const double tol = 1e-4 + 1e-3 * fabs(want);
    if (fabs(got - want) <= tol) return;
    fail_msg("%s[%zu] of %d rows of %d: %.8g, expected %.8g (off by %.3g)", what, i, rows, n, got,
             want, fabs(got - want));
}

static void gradients(void **state)
{
    static const int shape[][2] = {{1, 1},  {3, 1},  {1, 2},  {4, 2},  {5, 3},  {4, 8},
                                   {3, 27}, {6, 36}, {1, 36}, {7, 11}, {8, 54}, {16, 9}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(shape); k++) {
        Sample s = sample_new(shape[k][0], shape[k][1]);
        run(&s);
        fat_reference_run(&s.ref, s.t, s.x, s.ry);
        for (size_t i = 0; i < s.nx; i++) check("y", s.rows, s.n, i, (double)s.y[i], s.ry[i]);
        for (size_t i = 0; i < s.nx; i += 1 + s.nx / 40)
            check("dx", s.rows, s.n, i, (double)s.dx[i], slope(&s, s.x, i));
        for (size_t i = 0; i < s.nt; i += 1 + s.nt / 20)
            check("dt", s.rows, s.n, i, (double)s.dt[i], slope(&s, s.t, i));
        sample_free(&s);
    }
}

/* The longest rows of the nets: 3x3 over 512 channels. */
static void long_rows(void **state)
{
    static const size_t at[] = {0, 1234, 4608, 9215};
    Sample s = sample_new(2, 4608);
    (void)state;
    run(&s);
    fat_reference_run(&s.ref, s.t, s.x, s.ry);
    for (size_t i = 0; i < s.nx; i++) check("y", s.rows, s.n, i, (double)s.y[i], s.ry[i]);
    for (size_t k = 0; k < ARRAY_LEN(at); k++)
        check("dx", s.rows, s.n, at[k], (double)s.dx[at[k]], slope(&s, s.x, at[k]));
    for (size_t i = 0; i < s.nt; i++)
        check("dt", s.rows, s.n, i, (double)s.dt[i], slope(&s, s.t, i));
    sample_free(&s);
}

static void clear_row(Sample *s, size_t row)
{
    for (size_t i = row * (size_t)s->n; i < (row + 1) * (size_t)s->n; i++)
        s->x[i] = (double)(s->xf[i] = 0);
}

/* Weights that are all zero have magnitudes without a direction: their gradient goes the linear
 * path only, half of dy. */
static void zero_rows(void **state)
{
    static const int shape[][2] = {{4, 18}, {3, 9}, {5, 1}, {1, 1}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(shape); k++) {
        Sample s = sample_new(shape[k][0], shape[k][1]);
        for (int r = 0; r < s.rows; r++) clear_row(&s, (size_t)r);
        run(&s);
        for (size_t i = 0; i < s.nx; i++) {
            assert_true(s.y[i] == 0);
            check("dx", s.rows, s.n, i, (double)s.dx[i], 0.5 * (double)s.g[i]);
            check("dx", s.rows, s.n, i, (double)s.dx[i], slope(&s, s.x, i));
        }
        for (size_t i = 0; i < s.nt; i++) assert_true(s.dt[i] == 0 && slope(&s, s.t, i) == 0);
        sample_free(&s);
    }
}

/* One row of zeros among others, of which it takes its mask. */
static void zero_row(void **state)
{
    static const int shape[][2] = {{4, 18}, {3, 9}, {5, 1}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(shape); k++) {
        Sample s = sample_new(shape[k][0], shape[k][1]);
        clear_row(&s, 1);
        run(&s);
        for (size_t i = 0; i < s.nx; i++)
            check("dx", s.rows, s.n, i, (double)s.dx[i], slope(&s, s.x, i));
        for (size_t i = 0; i < s.nt; i++)
            check("dt", s.rows, s.n, i, (double)s.dt[i], slope(&s, s.t, i));
        sample_free(&s);
    }
}

static void gradient_is_added(void **state)
{
    Sample a = sample_new(16, 144), b = sample_new(16, 144);
    (void)state;
    run(&a);
    run(&a); /* dt is added to */
    run(&b);
    for (size_t i = 0; i < a.nt; i++)
        check("twice dt", a.rows, a.n, i, (double)a.dt[i], 2 * (double)b.dt[i]);
    assert_memory_equal(a.dx, b.dx, a.nx * sizeof *a.dx);
    sample_free(&a);
    sample_free(&b);
}

/* ---- quantizers ---- */

static void faults(void **state)
{
    float out[12];
    OneQuantizer t;
    (void)state;
    assert_int_equal(one_quantizer_init(&t, "fat", Q_WEIGHT, 4, 3, 4, "", false), 0);
    memset(t.x->value.data, 0, tensor_bytes(&t.x->value)); /* all zero: no deviation to divide by */
    one_quantizer_forward(&t, PH_TRAIN, out);
    assert_non_null(t.q.fault);
    assert_non_null(strstr(t.q.fault, "standard deviation 0"));
    for (size_t i = 0; i < ARRAY_LEN(out); i++) assert_true(out[i] == 0);
    one_quantizer_free(&t);
    for (int bits = 1; bits <= 9; bits += 8) {
        assert_int_equal(one_quantizer_init(&t, "fat", Q_WEIGHT, bits, 3, 4, "", false), -1);
        assert_non_null(strstr(t.e.msg, "2 to 8 bits"));
        one_quantizer_free(&t);
    }
}

static void evaluation_equals_training(void **state)
{
    float a[8 * 27], b[8 * 27];
    OneQuantizer t;
    (void)state;
    assert_int_equal(one_quantizer_init(&t, "fat", Q_WEIGHT, 3, 8, 27, "", false), 0);
    one_quantizer_forward(&t, PH_TRAIN, a);
    one_quantizer_forward(&t, PH_EVAL, b);
    assert_memory_equal(a, b, sizeof a);
    one_quantizer_free(&t);
}

/* ---- hysteresis ---- */

static void latent_copy(void **state)
{
    static const float w0[6] = {1, -1, 0.5f, -0.5f, 0, 0.25f};
    static const float moved[6] = {0.5f, 0.05f, -0.3f, -0.4f, 0.2f, -0.02f};
    const float s = (0.5f + 0.05f + 0.3f + 0.4f + 0.2f + 0.02f) / 6;
    const float want[6] = {s, 0.05f * s, -s, -s, 0.2f * s, -0.02f * s};
    float out[6], *l, *w;
    OneQuantizer t;
    (void)state;
    assert_int_equal(one_quantizer_init(&t, "hysteresis", Q_WEIGHT, 1, 2, 3, "", false), 0);
    w = t.x->value.data;
    l = t.q.p[0]->value.data;
    memcpy(w, w0, sizeof w0);
    one_quantizer_forward(&t, PH_EVAL, out); /* evaluation starts nothing */
    for (int i = 0; i < 6; i++) assert_true(l[i] == 0 && out[i] == w0[i]);
    one_quantizer_forward(&t, PH_TRAIN, out);
    assert_memory_equal(l, w0, sizeof w0);
    assert_ptr_equal(t.x->step_on, &t.q.p[0]->value);
    memcpy(l, moved, sizeof moved);
    t.q.fn->after_step(&t.q);
    for (int i = 0; i < 6; i++) check("weight", 1, 6, (size_t)i, (double)w[i], (double)want[i]);
    t.q.fn->after_step(&t.q); /* nothing has moved: all stand at their full size now */
    for (int i = 0; i < 6; i++)
        check("weight", 1, 6, (size_t)i, (double)w[i], (double)copysignf(s, moved[i]));
    one_quantizer_forward(&t, PH_TRAIN, out);
    assert_memory_equal(l, moved, sizeof moved);
    one_quantizer_free(&t);
    assert_int_equal(one_quantizer_init(&t, "hysteresis", Q_WEIGHT, 2, 2, 3, "", false), -1);
    assert_non_null(strstr(t.e.msg, "1 bit or 32"));
    one_quantizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients),
        cmocka_unit_test(long_rows),
        cmocka_unit_test(zero_rows),
        cmocka_unit_test(zero_row),
        cmocka_unit_test(gradient_is_added),
        cmocka_unit_test(faults),
        cmocka_unit_test(evaluation_equals_training),
        cmocka_unit_test(latent_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
