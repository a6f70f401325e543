/* test/test_methods.c -- what every method of the registry keeps, in every role, width and variant:
 * a NaN is seen behind it, and a fault leaves zeros. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#include "engine/par.h"
#include "test/one.h"

static void quiet(LogLevel level, const char *text)
{
    (void)level;
    (void)text;
}

static bool accepts(const QMethod *m, QRole role, int bits, const QOpts *o)
{
    const int *dim = role == Q_WEIGHT ? weight_dim : map_dim + 1, ndim = role == Q_WEIGHT ? 4 : 3;
    ParamStore ps = {0};
    QOpts own = *o;
    QInst q;
    Err e = {0};
    Param *owner = store_add(&ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, 4, weight_dim, "weight");
    int r;
    own.wt_bit = own.fm_bit = own.ot_bit = bits;
    r = qinst_init(&q, m, role, bits, 0, &own, &ps, role == Q_WEIGHT ? owner : NULL, 0, ndim, dim,
                   "layer.", &e);
    if (!r) r = q.enabled ? 0 : -1;
    qinst_free(&q);
    store_free(&ps);
    return !r;
}

static QOpts options(const QMethod *m, const char *variant, const char *scheme)
{
    QOpts o;
    qopts_default(&o);
    o.wt_quant = o.fm_quant = m->name;
    o.quant_variant = variant;
    o.act_quant_scheme = o.weight_quant_scheme = scheme;
    o.kw.tag[Q_WEIGHT].level = str_eq(m->name, "fatnn") ? 3 : 0;
    return o;
}

static void open_with(void (*f)(One *t, const char *what), const QMethod *m, QRole role, int bits, QOpts o)
{
    char what[128];
    One t;
    new_one(&t)->o = o;
    open_one(&t, m->name, role, bits, 4, role == Q_WEIGHT ? weight_dim : map_dim);
    fill_one(&t, -1, 2);
    snprintf(what, sizeof what, "%s (%s, %s), role %d, %d bits", m->name, o.quant_variant,
             o.act_quant_scheme, (int)role, bits);
    f(&t, what);
    close_one(&t);
}

/* Calls f with each quantizer there is, x and dy being filled; how many. */
static int each(void (*f)(One *t, const char *what))
{
    static const char *const variants[] = {"", "imagenet", "mnist", "round", "pact", "pact_sigmoid",
                                           "pact_exponential"};
    static const char *const schemes[] = {"modified", "original", "centered"};
    int n = 0;
    for (int i = 0; quant_methods[i]; i++)
        for (int k = 0; k < Q_NROLES * 8; k++) {
            const QMethod *m = quant_methods[i];
            const QRole role = (QRole)(k / 8);
            const int bits = k % 8 + 1;
            bool by_variant, by_scheme;
            QOpts o;
            if (!m->role[role]) continue;
            o = options(m, "no such", schemes[0]);
            by_variant = !accepts(m, role, bits, &o);
            o = options(m, "", "no such");
            by_scheme = !accepts(m, role, bits, &o);
            for (size_t v = 0; v < (by_variant ? ARRAY_LEN(variants) : 1); v++)
                for (size_t s = 0; s < (by_scheme ? ARRAY_LEN(schemes) : 1); s++) {
                    o = options(m, variants[v], schemes[s]);
                    if (!accepts(m, role, bits, &o)) continue;
                    open_with(f, m, role, bits, o);
                    n++;
                }
        }
    return n;
}

static int wrong;

static void see_nan(One *t, const char *what)
{
    float *x = t->x.data, *y = t->y.data;
    x[7] = NAN;
    qinst_forward(&t->q, &t->x, &t->y, &t->c);
    if (t->q.fault || isnan(y[7])) return;
    print_message("%s: NaN becomes %g\n", what, (double)y[7]);
    wrong++;
}

static void nan_is_seen(void **state)
{
    (void)state;
    wrong = 0;
    print_message("%d quantizers\n", each(see_nan));
    assert_int_equal(wrong, 0);
}

static void see_finite(One *t, const char *what)
{
    const float *y = t->y.data, *dx = t->dx.data;
    size_t bad = 0;
    run_one(t);
    for (size_t i = 0; i < tensor_len(&t->y); i++) bad += !isfinite(y[i]) || !isfinite(dx[i]);
    if (!bad && !t->q.fault) return;
    print_message("%s: %zu of %zu values are not finite%s%s\n", what, bad, tensor_len(&t->y),
                  t->q.fault ? ": " : "", t->q.fault ? t->q.fault : "");
    wrong++;
}

static void ordinary_numbers_stay_finite(void **state)
{
    (void)state;
    wrong = 0;
    each(see_finite);
    assert_int_equal(wrong, 0);
}

/* A slope so steep that its exponential is beyond the floats. */
static void steep_slopes_stay_finite(void **state)
{
    One t;
    (void)state;
    new_one(&t);
    t.o.quant_variant = "pact_sigmoid";
    t.o.sigmoid_alpha = 1000;
    open_one(&t, "hysteresis", Q_ACT, 2, 4, map_dim);
    fill_one(&t, -1, 4);
    wrong = 0;
    see_finite(&t, "sigmoid_alpha: 1000");
    assert_int_equal(wrong, 0);
    close_one(&t);
}

static void see_zeros(One *t, const char *what)
{
    static const float bad[] = {0, NAN, INFINITY};
    float *y = t->y.data;
    for (size_t b = 0; b < ARRAY_LEN(bad); b++) {
        size_t other = 0;
        for (int k = 0; k < t->q.np; k++)
            for (size_t i = 0; i < tensor_len(&t->q.p[k]->value) && t->q.p[k]->value.dtype == DT_F32; i++)
                ((float *)t->q.p[k]->value.data)[i] = bad[b];
        for (size_t i = 0; i < tensor_len(&t->y); i++) y[i] = 7;
        qinst_forward(&t->q, &t->x, &t->y, &t->c);
        for (size_t i = 0; i < tensor_len(&t->y); i++) other += y[i] != 0;
        if (!t->q.fault || !other) continue;
        print_message("%s with %g: %zu values, and a fault: %s\n", what, (double)bad[b], other, t->q.fault);
        wrong++;
    }
}

static void faults_leave_zeros(void **state)
{
    (void)state;
    wrong = 0;
    each(see_zeros);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nan_is_seen),
        cmocka_unit_test(ordinary_numbers_stay_finite),
        cmocka_unit_test(steep_slopes_stay_finite),
        cmocka_unit_test(faults_leave_zeros),
    };
    par_set_threads(1); /* many small tensors */
    log_set(LOG_ERROR, quiet);
    return cmocka_run_group_tests_name("methods", tests, NULL, NULL);
}
