/* test/test_fat.c -- FAT's spectral mask against its definition and against finite differences, in
 * double; its quantizer at awkward shapes; and the latent copy of the hysteresis method. */
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
#include "quant/quant.h"

/* ---- the definition: complex DFT of all n bins, in double ---- */

typedef struct Ref {
    int rows, n;
    double *re, *im, *mag, *cosine, *sine;
} Ref;

static Ref ref_new(int rows, int n)
{
    Ref r = {rows, n, NULL, NULL, NULL, NULL, NULL};
    const size_t all = (size_t)rows * (size_t)n;
    r.re = xcalloc(all, sizeof(double));
    r.im = xcalloc(all, sizeof(double));
    r.mag = xcalloc(all, sizeof(double));
    r.cosine = xcalloc((size_t)n, sizeof(double));
    r.sine = xcalloc((size_t)n, sizeof(double));
    for (int j = 0; j < n; j++) {
        r.cosine[j] = cos(2 * acos(-1) * j / n);
        r.sine[j] = sin(2 * acos(-1) * j / n);
    }
    return r;
}

static void ref_free(Ref *r)
{
    free(r->re);
    free(r->im);
    free(r->mag);
    free(r->cosine);
    free(r->sine);
}

static void reference(Ref *r, const double *t, const double *x, double *y)
{
    const size_t n = (size_t)r->n, rows = (size_t)r->rows;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < n; k++) {
            double re = 0, im = 0;
            for (size_t j = 0; j < n; j++) {
                re += x[i * n + j] * r->cosine[j * k % n];
                im -= x[i * n + j] * r->sine[j * k % n];
            }
            r->re[i * n + k] = re, r->im[i * n + k] = im;
            r->mag[i * n + k] = sqrt(re * re + im * im);
        }
    for (size_t i = 0; i < rows * n; i++) y[i] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < n; k++) {
            double s = 0, m;
            for (size_t c = 0; c < rows; c++) s += t[i * rows + c] * r->mag[c * n + k];
            m = 1 / (1 + exp(-s)) / (double)n;
            for (size_t j = 0; j < n; j++)
                y[i * n + j] += m * (r->re[i * n + k] * r->cosine[j * k % n] -
                                     r->im[i * n + k] * r->sine[j * k % n]);
        }
}

typedef struct Sample {
    int rows, n;
    size_t nx, nt;
    double *x, *t;
    float *xf, *tf, *g, *y, *dx, *dt;
    Ref ref;
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
    s.ref = ref_new(rows, n);
    return s;
}

static void sample_free(Sample *s)
{
    free(s->x), free(s->t), free(s->xf), free(s->tf), free(s->g);
    free(s->y), free(s->dx), free(s->dt), free(s->ry);
    ref_free(&s->ref);
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
    reference(&s->ref, s->t, s->x, s->ry);
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
        reference(&s.ref, s.t, s.x, s.ry);
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
    Sample s = sample_new(2, 4608);
    (void)state;
    run(&s);
    reference(&s.ref, s.t, s.x, s.ry);
    for (size_t i = 0; i < s.nx; i++) check("y", s.rows, s.n, i, (double)s.y[i], s.ry[i]);
    check("dx", s.rows, s.n, 1234, (double)s.dx[1234], slope(&s, s.x, 1234));
    check("dt", s.rows, s.n, 1, (double)s.dt[1], slope(&s, s.t, 1));
    sample_free(&s);
}

/* Rows of zeros have no direction: their gradient goes the linear path only, half of dy. */
static void zero_rows(void **state)
{
    Sample s = sample_new(4, 18);
    (void)state;
    memset(s.xf, 0, s.nx * sizeof *s.xf);
    run(&s);
    for (size_t i = 0; i < s.nx; i++) {
        assert_true(s.y[i] == 0);
        check("dx", s.rows, s.n, i, (double)s.dx[i], 0.5 * (double)s.g[i]);
    }
    for (size_t i = 0; i < s.nt; i++) assert_true(s.dt[i] == 0);
    sample_free(&s);
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

typedef struct One {
    ParamStore ps;
    QOpts o;
    QInst q;
    Param *w;
    Err e;
} One;

static int one_init(One *t, const char *method, int bits, int rows, int n)
{
    const int dim[2] = {rows, n};
    memset(t, 0, sizeof *t);
    qopts_default(&t->o);
    t->o.power = false;
    t->w = store_add(&t->ps, PK_WEIGHT, DT_F32, (Init){INIT_NORMAL, 0, 1}, 2, dim, "l.weight");
    if (qinst_init(&t->q, quant_find(method), Q_WEIGHT, bits, 0, &t->o, &t->ps, t->w, 0, 2, dim,
                   "l.", &t->e))
        return -1;
    store_init(&t->ps, 1);
    store_alloc_grads(&t->ps);
    return 0;
}

static void one_free(One *t)
{
    if (t->q.fn) qinst_free(&t->q);
    store_free(&t->ps);
}

static void one_forward(One *t, Phase ph, float *out)
{
    Tensor y = t->w->value;
    size_t save, scratch;
    QCtx c = {.phase = ph};
    qinst_need(&t->q, &y, ph, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    y.data = out;
    qinst_forward(&t->q, &t->w->value, &y, &c);
    free(c.save);
    free(c.scratch);
}

static void faults(void **state)
{
    float out[12];
    One t;
    (void)state;
    assert_int_equal(one_init(&t, "fat", 4, 3, 4), 0);
    memset(t.w->value.data, 0, tensor_bytes(&t.w->value)); /* all zero: no deviation to divide by */
    one_forward(&t, PH_TRAIN, out);
    assert_non_null(t.q.fault);
    assert_non_null(strstr(t.q.fault, "standard deviation 0"));
    for (size_t i = 0; i < ARRAY_LEN(out); i++) assert_true(out[i] == 0);
    one_free(&t);
    for (int bits = 1; bits <= 9; bits += 8) {
        assert_int_equal(one_init(&t, "fat", bits, 3, 4), -1);
        assert_non_null(strstr(t.e.msg, "2 to 8 bits"));
        one_free(&t);
    }
}

static void evaluation_equals_training(void **state)
{
    float a[8 * 27], b[8 * 27];
    One t;
    (void)state;
    assert_int_equal(one_init(&t, "fat", 3, 8, 27), 0);
    one_forward(&t, PH_TRAIN, a);
    one_forward(&t, PH_EVAL, b);
    assert_memory_equal(a, b, sizeof a);
    one_free(&t);
}

/* ---- hysteresis ---- */

static void latent_copy(void **state)
{
    static const float w0[6] = {1, -1, 0.5f, -0.5f, 0, 0.25f};
    static const float moved[6] = {0.5f, 0.05f, -0.3f, -0.4f, 0.2f, -0.02f};
    const float s = (0.5f + 0.05f + 0.3f + 0.4f + 0.2f + 0.02f) / 6;
    const float want[6] = {s, 0.05f * s, -s, -s, 0.2f * s, -0.02f * s};
    float out[6], *l, *w;
    One t;
    (void)state;
    assert_int_equal(one_init(&t, "hysteresis", 1, 2, 3), 0);
    w = t.w->value.data;
    l = t.q.p[0]->value.data;
    memcpy(w, w0, sizeof w0);
    one_forward(&t, PH_EVAL, out); /* evaluation starts nothing */
    for (int i = 0; i < 6; i++) assert_true(l[i] == 0 && out[i] == w0[i]);
    one_forward(&t, PH_TRAIN, out);
    assert_memory_equal(l, w0, sizeof w0);
    assert_ptr_equal(t.w->step_on, &t.q.p[0]->value);
    memcpy(l, moved, sizeof moved);
    t.q.fn->after_step(&t.q);
    for (int i = 0; i < 6; i++) check("weight", 1, 6, (size_t)i, (double)w[i], (double)want[i]);
    t.q.fn->after_step(&t.q); /* nothing has moved: all stand at their full size now */
    for (int i = 0; i < 6; i++)
        check("weight", 1, 6, (size_t)i, (double)w[i], (double)copysignf(s, moved[i]));
    one_forward(&t, PH_TRAIN, out);
    assert_memory_equal(l, moved, sizeof moved);
    one_free(&t);
    assert_int_equal(one_init(&t, "hysteresis", 2, 2, 3), -1);
    assert_non_null(strstr(t.e.msg, "1 bit or 32"));
    one_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients),   cmocka_unit_test(long_rows),
        cmocka_unit_test(zero_rows),   cmocka_unit_test(gradient_is_added),
        cmocka_unit_test(faults),      cmocka_unit_test(evaluation_equals_training),
        cmocka_unit_test(latent_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
