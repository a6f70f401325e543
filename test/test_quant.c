/* test/test_quant.c -- level sets, grids, statistics, instances, and what golden cases cannot show
 * of APoT and fixed8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "quant/grid.h"
#include "quant/quant.h"
#include "quant/stat.h"
#include "quant/tanh.h"

/* ---- level sets and grids ---- */

static void level_sets(void **state)
{
    LevelSet *s = xmalloc(sizeof *s);
    (void)state;
    for (int b = 2; b <= 6; b++) {
        assert_int_equal(levels_apot(s, b), 0);
        assert_int_equal(s->n, 1 << b);
        assert_true(s->level[0] == 0 && s->level[s->n - 1] == 1);
        for (int i = 0; i + 1 < s->n; i++)
            assert_true(s->level[i] < s->mid[i] && s->mid[i] < s->level[i + 1]);
    }
    assert_int_equal(levels_apot(s, 1), -1);
    assert_int_equal(levels_apot(s, 7), -1);
    for (int b = 1; b <= 8; b++) {
        assert_int_equal(levels_pot(s, b), 0);
        assert_int_equal(s->n, b < 8 ? 1 << b : 150);
        assert_true(s->level[0] == 0 && s->level[s->n - 1] == 1);
        if (b > 1) assert_true(s->level[s->n - 2] == 0.5f);
    }
    assert_int_equal(levels_pot(s, 0), -1);
    assert_int_equal(levels_pot(s, 9), -1);
    free(s);
}

/* Floats of every size against libm's tanh in double, and what has no neighbours. */
static void tanh_to_the_nearest_float(void **state)
{
    const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, FLT_MIN / 4, 10.0f, -200.0f};
    float x[1000], y[1000];
    int n = 0, all = 0, away = 0;
    (void)state;
    for (uint64_t bits = 0; bits < 0x7f800000u; bits += 4999) {
        const uint32_t b = (uint32_t)bits | (uint32_t)(bits & 1) << 31; /* odd ones are negative */
        memcpy(&x[n++], &b, sizeof b);
        if (n < 1000) continue;
        tanh_row(x, y, 1000);
        for (n--; n >= 0; n--, all++) {
            const double exact = tanh((double)x[n]);
            const double gap = (double)nextafterf(fabsf((float)exact), 2) - fabs((double)(float)exact);
            away += y[n] != (float)exact;
            if (!(fabs((double)y[n] - exact) <= 0.5001 * gap))
                fail_msg("tanh(%a) = %a, exactly %a", (double)x[n], (double)y[n], exact);
        }
        n = 0;
    }
    print_message("# tanh: %d of %d are not the nearest float\n", away, all);
    assert_true(all > 400000 && away <= 3);
    tanh_row(special, y, ARRAY_LEN(special));
    for (size_t i = 0; i < ARRAY_LEN(special); i++) {
        const float want = tanhf(special[i]);
        if (memcmp(&y[i], &want, sizeof want) != 0) fail_msg("tanh(%g) = %g", (double)special[i], (double)y[i]);
    }
    tanh_row((const float[]){NAN}, y, 1);
    assert_true(isnan(y[0]));
}

/* What the original computes, one value at a time, with its divisions. */
static float reference(const Grid *g, float alpha, float x)
{
    const bool both = g->range == GRID_BOTH;
    static const float lowest[] = {[GRID_UNIT] = 0, [GRID_BELOW] = -INFINITY, [GRID_BOTH] = -1};
    const float a = both ? fabsf(alpha) : alpha, lo = lowest[g->range];
    float u = x / a, q;
    if (isnan(u)) return u;
    u = u > 1 ? 1 : u < lo ? lo : u;
    if (!g->set.n)
        q = rintf(u * g->steps) / g->steps;
    else if (both)
        q = copysignf(g->set.level[levels_nearest(&g->set, fabsf(u))], u);
    else
        q = g->set.level[levels_nearest(&g->set, u)];
    return q * a;
}

#define GRID_N 6000

/* Random values on both sides of the clip, every decision point with its neighbours, and the odd
 * ones. */
static size_t awkward_inputs(const Grid *g, float alpha, float *x)
{
    static const float odd[] = {0.0f,     -0.0f,  INFINITY, NAN,    FLT_MAX,
                                -FLT_MAX, 1e-45f, -1e-45f,  FLT_MIN};
    Rng r = rng_stream(7, RNG_TEST, 0, 0);
    size_t n = 0;
    const int steps = g->set.n ? g->set.n - 1 : (int)g->steps;
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) x[n++] = odd[i];
    for (int i = 0; i < steps; i++) {
        float t = g->set.n ? g->set.mid[i] : ((float)i + 0.5f) / g->steps;
        for (int sign = -1; sign <= 1; sign += 2) {
            float v = t * alpha * (float)sign;
            for (int k = 0; k < 3; k++) v = nextafterf(v, -FLT_MAX);
            for (int k = 0; k < 7; k++, v = nextafterf(v, FLT_MAX)) x[n++] = v;
        }
    }
    while (n < GRID_N) x[n++] = (float)(rng_range(&r, -1.5, 1.5) * (double)alpha);
    return n;
}

static void check_grid(Grid *g, const char *name)
{
    static const float alphas[] = {1,     8,  0.9f,       2.7182817f, 1e-6f,  3e7f,
                                   -1.5f, -8, 1.9999999f, 0x1p-60f,   0x1p60f};
    float *x = xmalloc(GRID_N * sizeof *x), *y = xmalloc(GRID_N * sizeof *y);
    for (size_t a = 0; a < ARRAY_LEN(alphas); a++) {
        size_t bad = 0, n = awkward_inputs(g, alphas[a], x);
        assert_true(grid_scale(g, alphas[a]));
        grid_row(g, x, y, n);
        for (size_t i = 0; i < n; i++) {
            float want = reference(g, alphas[a], x[i]);
            if (y[i] == want || (isnan(y[i]) && !isfinite(want)))
                continue; /* an overflow may end as NaN */
            if (!bad++)
                print_error("%s, alpha %g: x = %.9g gives %.9g, expected %.9g\n", name,
                            (double)alphas[a], (double)x[i], (double)y[i], (double)want);
        }
        if (bad) fail_msg("%s, alpha %g: %zu of %zu differ", name, (double)alphas[a], bad, n);
    }
    free(x);
    free(y);
}

static void grids_are_exact(void **state)
{
    static const GridRange ranges[] = {GRID_UNIT, GRID_BELOW, GRID_BOTH};
    Grid *g = xmalloc(sizeof *g);
    LevelSet *s = xmalloc(sizeof *s);
    char name[64];
    (void)state;
    for (int r = 0; r < 3; r++)
        for (int b = 1; b <= 8; b++) {
            snprintf(name, sizeof name, "uniform %d bits, range %d", b, r);
            grid_init_uniform(g, (1 << b) - 1, ranges[r]);
            check_grid(g, name);
            snprintf(name, sizeof name, "pot %d bits, range %d", b, r);
            assert_int_equal(levels_pot(s, b), 0);
            grid_init_levels(g, s, ranges[r]);
            check_grid(g, name);
            if (levels_apot(s, b)) continue;
            snprintf(name, sizeof name, "apot %d bits, range %d", b, r);
            grid_init_levels(g, s, ranges[r]);
            check_grid(g, name);
        }
    free(s);
    free(g);
}

static void grid_refuses_alpha(void **state)
{
    static const float bad[] = {0, -0.0f, NAN, INFINITY, 1e-30f, -1e30f};
    Grid *g = xmalloc(sizeof *g);
    float x[3] = {1, -2, 0}, y[3], dy[3] = {1, 1, 1}, dx[3] = {9, 9, 9};
    (void)state;
    grid_init_uniform(g, 15, GRID_UNIT);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(grid_scale(g, bad[i]));
        grid_row(g, x, y, 3);
        assert_true(grid_row_bwd(g, x, dy, dx, 3, true) == 0);
        for (int k = 0; k < 3; k++) assert_true(y[k] == 0 && dx[k] == 0);
    }
    free(g);
}

/* ---- instances ---- */

typedef struct Fixture {
    QOpts o;
    ParamStore ps;
    QInst q;
    Param *owner;
    Err e;
} Fixture;

static int make(Fixture *f, const char *method, QRole role, int bits, int n)
{
    const int dim[1] = {n};
    if (role == Q_WEIGHT)
        f->owner =
            store_add(&f->ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, 1, dim, "l.weight");
    if (qinst_init(&f->q, quant_find(method), role, bits, 0, &f->o, &f->ps, f->owner, 0, 1, dim,
                   "l.", &f->e))
        return -1;
    store_init(&f->ps, 1);
    store_alloc_grads(&f->ps);
    return 0;
}

static Fixture *fixture(const char *variant)
{
    Fixture *f = xcalloc(1, sizeof *f);
    qopts_default(&f->o);
    f->o.quant_variant = variant;
    return f;
}

static void drop(Fixture *f)
{
    if (f->q.fn) qinst_free(&f->q);
    store_free(&f->ps);
    free(f);
}

/* Forward, then backward with gradient g; returns the gradient of the first parameter. dx may be g,
 * y may be x. */
static float run(Fixture *f, float *x, float *y, float *g, float *dx, int n)
{
    size_t save, scratch;
    double aux = 0;
    Tensor tx = tensor_make(DT_F32, 1, &n, x), ty = tensor_make(DT_F32, 1, &n, y),
           tg = tensor_make(DT_F32, 1, &n, g);
    Tensor tdx = tensor_make(DT_F32, 1, &n, dx);
    QCtx c = {.phase = PH_TRAIN, .aux_loss = &aux, .want_dx = dx != NULL};
    qinst_need(&f->q, &tx, PH_TRAIN, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    store_zero_grads(&f->ps);
    qinst_forward(&f->q, &tx, &ty, &c);
    if (g) qinst_backward(&f->q, &tx, &tg, dx ? &tdx : NULL, &c);
    free(c.save);
    free(c.scratch);
    return f->q.np ? *(float *)f->q.p[0]->grad.data : 0;
}

static void randoms(float *x, int n, double lo, double hi, uint64_t stream)
{
    Rng r = rng_stream(3, RNG_TEST, stream, 0);
    for (int i = 0; i < n; i++) x[i] = (float)rng_range(&r, lo, hi);
}

static void refusals(void **state)
{
    static const struct {
        const char *variant;
        bool power, additive;
        QRole role;
        int first, last; /* supported: from 2 */
        const char *text;
    } rows[] = {
        {"cifar", true, true, Q_WEIGHT, 2, 5, "2 to 5 bits"},
        {"cifar", true, true, Q_ACT, 2, 6, "2 to 6 bits"},
        {"imagenet", true, true, Q_WEIGHT, 2, 6, "2 to 6 bits"},
        {"mnist", true, true, Q_ACT, 2, 6, "2 to 6 bits"},
        {"cifar", false, true, Q_WEIGHT, 2, 5, "2 to 5 bits"},
        {"imagenet", false, true, Q_WEIGHT, 2, 8, "2 to 8 bits"},
        {"imagenet", true, false, Q_WEIGHT, 2, 8, "2 to 8 bits"},
        {"cifar", false, true, Q_ACT, 2, 8, "2 to 8 bits"},
        {"imagenet", true, false, Q_ACT, 2, 8, "2 to 8 bits"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int b = -1; b <= 33; b++) {
            Fixture *f = fixture(rows[i].variant);
            const bool fine = (b >= rows[i].first && b <= rows[i].last) || b == 32;
            char number[16];
            f->o.power = rows[i].power;
            f->o.additive = rows[i].additive;
            int got = make(f, "apot", rows[i].role, b, 4);
            if (got != (fine ? 0 : -1))
                fail_msg("row %zu, %d bits: %s", i, b, got ? f->e.msg : "accepted");
            snprintf(number, sizeof number, "not %d", b);
            if (!fine && (!strstr(f->e.msg, number) || !strstr(f->e.msg, rows[i].text) ||
                          !str_starts(f->e.msg, "l: ")))
                fail_msg("row %zu: message '%s'", i, f->e.msg);
            drop(f);
        }
}

static void refuses_roles_and_variants(void **state)
{
    Fixture *f = fixture("cifra");
    (void)state;
    assert_int_equal(make(f, "apot", Q_ACT, 4, 4), -1);
    assert_non_null(strstr(f->e.msg, "did you mean 'cifar'?"));
    drop(f);
    f = fixture("");
    assert_int_equal(make(f, "apot", Q_OUT, 4, 4), -1);
    assert_non_null(strstr(f->e.msg, "no output quantizer"));
    drop(f);
    f = fixture("");
    assert_int_equal(make(f, "fixed8", Q_WEIGHT, 4, 4), -1);
    assert_non_null(strstr(f->e.msg, "fixed8 has 8 bits, not 4"));
    drop(f);
    assert_null(quant_find("apotx"));
}

static void parameter_names(void **state)
{
    static const struct {
        const char *variant, *name;
        QRole role;
        int bits, np;
        float value;
    } rows[] = {
        {"cifar", "l.act_alpha", Q_ACT, 4, 1, 8},
        {"cifar", "l.weight_quant.wgt_alpha", Q_WEIGHT, 4, 1, 3},
        {"imagenet", "l.act_alpha", Q_ACT, 4, 1, 6},
        {"mnist", "l.weight_alpha", Q_WEIGHT, 2, 1, 3},
        {"imagenet", "l.weight_alpha", Q_WEIGHT, 32, 1, 3},
        {"cifar", "", Q_WEIGHT, 32, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Fixture *f = fixture(rows[i].variant);
        assert_int_equal(make(f, "apot", rows[i].role, rows[i].bits, 4), 0);
        assert_int_equal(f->q.np, rows[i].np);
        assert_int_equal(f->q.enabled, rows[i].bits != 32);
        if (f->q.np) {
            assert_string_equal(f->q.p[0]->name, rows[i].name);
            assert_true(param_scalar(f->q.p[0]) == rows[i].value);
        }
        drop(f);
    }
}

static void disabled_passes_unchanged(void **state)
{
    Fixture *f = fixture("cifar");
    float x[5] = {-1, 0.3f, 9, 2, 0}, y[5], g[5] = {1, 2, 3, 4, 5}, dx[5];
    (void)state;
    assert_int_equal(make(f, "apot", Q_ACT, 4, 5), 0);
    f->q.enabled = false;
    assert_true(run(f, x, y, g, dx, 5) == 0);
    assert_memory_equal(x, y, sizeof x);
    assert_memory_equal(g, dx, sizeof g);
    drop(f);
}

static void all_zero_and_all_beyond(void **state)
{
    enum { N = 300 };
    static const char *const variants[] = {"cifar", "imagenet"};
    (void)state;
    for (int v = 0; v < 2; v++)
        for (int power = 0; power < 2; power++) {
            Fixture *f = fixture(variants[v]);
            float x[N], y[N], g[N], dx[N], dalpha, sum = 0;
            f->o.power = power;
            randoms(g, N, -1, 1, 5);
            for (int i = 0; i < N; i++) x[i] = 0, sum += g[i];
            assert_int_equal(make(f, "apot", Q_ACT, 4, N), 0);
            assert_true(run(f, x, y, g, dx, N) == 0);
            for (int i = 0; i < N; i++) assert_true(y[i] == 0 && dx[i] == g[i]);
            for (int i = 0; i < N; i++) x[i] = 100;
            dalpha = run(f, x, y, g, dx, N);
            for (int i = 0; i < N; i++) assert_true(y[i] == param_scalar(f->q.p[0]) && dx[i] == 0);
            if (fabsf(dalpha - sum) > 1e-4f)
                fail_msg("beyond the clip: dalpha %g, sum of gradients %g", (double)dalpha,
                         (double)sum);
            drop(f);
        }
}

/* y[] of a weight quantizer in double with the rounding frozen: the function whose gradient
 * backward claims to be. */
static double soft_loss(const double *w, const double *frozen, const float *g, int n, double alpha,
                        const double *stats, bool masked)
{
    double mean = 0, var = 0, loss = 0;
    for (int i = 0; i < n; i++) mean += w[i] / n;
    for (int i = 0; i < n; i++) var += (w[i] - mean) * (w[i] - mean) / (n - 1);
    if (stats) mean = stats[0], var = stats[1] * stats[1];
    for (int i = 0; i < n; i++) {
        double v = (w[i] - mean) / sqrt(var) / alpha;
        if (masked) v = fmax(-1, fmin(1, v));
        loss += (double)g[i] * alpha * (v + frozen[i]);
    }
    return loss;
}

static void weight_gradients_by_differences(void **state)
{
    enum { N = 40 };
    static const struct {
        const char *variant;
        int bits;
        bool through, masked;
    } rows[] = {{"cifar", 4, false, false},
                {"imagenet", 4, true, true},
                {"imagenet", 2, true, false},
                {"mnist", 5, true, true}};
    (void)state;
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        Fixture *f = fixture(rows[r].variant);
        float w[N], y[N], g[N], dx[N], dalpha;
        double wd[N], frozen[N], mean, std, stats[2], alpha = 1.25, fd_alpha = 0;
        randoms(w, N, -0.3, 0.3, 11 + r);
        randoms(g, N, -1, 1, 21 + r);
        f->o.wt_clip_init = alpha;
        assert_int_equal(make(f, "apot", Q_WEIGHT, rows[r].bits, N), 0);
        dalpha = run(f, w, y, g, dx, N);
        stat_mean_std(w, N, &mean, &std);
        stats[0] = mean, stats[1] = std;
        for (int i = 0; i < N; i++) {
            double v = ((double)w[i] - mean) / std / alpha, vc = fmax(-1, fmin(1, v));
            wd[i] = (double)w[i];
            frozen[i] = (double)y[i] / alpha - (rows[r].masked ? vc : v);
            fd_alpha += (double)g[i] * (fabs(v) > 1 ? copysign(1, v) : (double)y[i] / alpha - v);
        }
        for (int i = 0; i < N; i++) {
            const double h = 1e-6, keep = wd[i];
            double up, down, fd;
            wd[i] = keep + h;
            up = soft_loss(wd, frozen, g, N, alpha, rows[r].through ? NULL : stats, rows[r].masked);
            wd[i] = keep - h;
            down =
                soft_loss(wd, frozen, g, N, alpha, rows[r].through ? NULL : stats, rows[r].masked);
            wd[i] = keep;
            fd = (up - down) / (2 * h);
            if (fabs(fd - (double)dx[i]) > 1e-4 * (1 + fabs(fd)))
                fail_msg("%s %d bits: dw[%d] = %g, by differences %g", rows[r].variant,
                         rows[r].bits, i, (double)dx[i], fd);
        }
        if (fabs(fd_alpha - (double)dalpha) > 1e-4 * (1 + fabs(fd_alpha)))
            fail_msg("%s: dalpha %g, expected %g", rows[r].variant, (double)dalpha, fd_alpha);
        drop(f);
    }
}

static void expect_fault(Fixture *f, float *w, int n, const char *text)
{
    float y[8], g[8] = {1, 2, 3, 4, 5, 6, 7, 8}, dx[8], dalpha;
    dalpha = run(f, w, y, g, dx, n);
    if (!f->q.fault) fail_msg("no fault; expected one with '%s'", text);
    if (!strstr(f->q.fault, text)) fail_msg("fault '%s', expected '%s'", f->q.fault, text);
    assert_true(dalpha == 0);
    for (int i = 0; i < n; i++) assert_true(y[i] == 0 && isfinite(dx[i]));
}

static void faults(void **state)
{
    float equal[4] = {0.25f, 0.25f, 0.25f, 0.25f}, one[1] = {3}, zero[4] = {0},
          fine[4] = {1, -1, 0.5f, 2}, y[4];
    Fixture *f = fixture("cifar");
    (void)state;
    assert_int_equal(make(f, "apot", Q_WEIGHT, 4, 4), 0);
    expect_fault(f, equal, 4, "l.weight: 4 weights with standard deviation 0");
    expect_fault(f, zero, 4, "standard deviation 0");
    run(f, fine, y, NULL, NULL, 4);
    assert_null(f->q.fault);
    param_set_scalar(f->q.p[0], 0);
    expect_fault(f, fine, 4, "l.weight_quant.wgt_alpha: the clip level is 0");
    param_set_scalar(f->q.p[0], NAN);
    expect_fault(f, fine, 4, "the clip level is nan");
    drop(f);
    f = fixture("imagenet");
    assert_int_equal(make(f, "apot", Q_WEIGHT, 4, 1), 0);
    expect_fault(f, one, 1, "1 weight with standard deviation 0");
    drop(f);
    f = fixture("imagenet");
    assert_int_equal(make(f, "apot", Q_ACT, 4, 4), 0);
    param_set_scalar(f->q.p[0], 0);
    expect_fault(f, fine, 4, "l.act_alpha: the clip level is 0");
    drop(f);
    f = fixture("");
    assert_int_equal(make(f, "fixed8", Q_WEIGHT, 8, 4), 0);
    run(f, zero, y, NULL, NULL, 4);
    assert_non_null(strstr(f->q.fault, "l.weight: the largest weight is 0"));
    drop(f);
}

static void nan_is_not_hidden(void **state)
{
    static const int bits[] = {2, 4, 5, 6};
    (void)state;
    for (int power = 0; power < 2; power++)
        for (size_t b = 0; b < ARRAY_LEN(bits); b++) {
            Fixture *f = fixture("imagenet");
            float x[3] = {1, NAN, 2}, y[3];
            f->o.power = power;
            assert_int_equal(make(f, "apot", Q_ACT, bits[b], 3), 0);
            run(f, x, y, NULL, NULL, 3);
            assert_true(isnan(y[1]) && isfinite(y[0]) && isfinite(y[2]));
            drop(f);
        }
}

static int warnings;
static void count_warnings(LogLevel level, const char *text)
{
    (void)text;
    warnings += level == LOG_WARN;
}

static void negative_alpha_warns_once(void **state)
{
    Fixture *f = fixture("cifar");
    float x[4] = {-3, -1, 0, 2}, y[4];
    (void)state;
    assert_int_equal(make(f, "apot", Q_ACT, 4, 4), 0);
    param_set_scalar(f->q.p[0], -2);
    warnings = 0;
    log_set(LOG_INFO, count_warnings);
    for (int i = 0; i < 3; i++) run(f, x, y, NULL, NULL, 4);
    log_set(LOG_INFO, NULL);
    assert_int_equal(warnings, 1);
    assert_true(y[0] == -2 && y[1] == -1 && y[2] == 0 && y[3] == 0); /* u = 1.5, 0.5, 0, -1 */
    drop(f);
}

/* Same bits for 1 and 2 threads, for rows cut anywhere, and with outputs written over inputs. */
static void rows_do_not_depend_on_cuts(void **state)
{
    enum { N = 3 * PAR_CHUNK + 77 };
    static const int bits[] = {2, 4, 5};
    float *x = xmalloc(N * sizeof *x), *g = xmalloc(N * sizeof *g), *y = xmalloc(N * sizeof *y),
          *dx = xmalloc(N * sizeof *dx);
    float *y1 = xmalloc(N * sizeof *y1), *dx1 = xmalloc(N * sizeof *dx1);
    const int threads = par_threads();
    (void)state;
    randoms(x, N, -3, 12, 31);
    randoms(g, N, -1, 1, 32);
    for (int role = Q_WEIGHT; role <= Q_ACT; role++)
        for (size_t b = 0; b < ARRAY_LEN(bits); b++)
            for (int power = 0; power < 2; power++) {
                Fixture *f = fixture("imagenet");
                float d1, d2;
                f->o.power = power;
                assert_int_equal(make(f, "apot", (QRole)role, bits[b], N), 0);
                par_set_threads(1);
                d1 = run(f, x, y1, g, dx1, N);
                par_set_threads(2);
                d2 = run(f, x, y, g, dx, N);
                assert_true(d1 == d2);
                assert_memory_equal(y, y1, N * sizeof *y);
                assert_memory_equal(dx, dx1, N * sizeof *dx);
                if (role == Q_ACT) {
                    double acc[1] = {0};
                    for (size_t at = 0, len = 1; at < N; at += len, len = len * 2 + 1) {
                        if (len > N - at) len = N - at;
                        f->q.fn->row(&f->q, x + at, y + at, len);
                        f->q.fn->row_bwd(&f->q, x + at, g + at, dx + at, len, acc);
                    }
                    assert_memory_equal(y, y1, N * sizeof *y);
                    assert_memory_equal(dx, dx1, N * sizeof *dx);
                    memcpy(y, x, N * sizeof *y);
                    f->q.fn->row(&f->q, y, y, N);
                    assert_memory_equal(y, y1, N * sizeof *y);
                }
                memcpy(dx, g, N * sizeof *dx);
                d2 = run(f, x, y, dx, dx, N);
                assert_true(d1 == d2);
                assert_memory_equal(dx, dx1, N * sizeof *dx);
                d2 = run(f, x, y, g, NULL, N);
                assert_true(d1 == d2);
                drop(f);
            }
    par_set_threads(threads);
    free(x), free(g), free(y), free(dx), free(y1), free(dx1);
}

static void fixed8_scales_by_the_signed_maximum(void **state)
{
    Fixture *f = fixture("");
    float w[4] = {0.5f, -1.5f, 0.25f, 0.1f}, y[4], g[4] = {1, 2, 3, 4}, dx[4],
          all_negative[4] = {-1, -2, -0.5f, -3};
    (void)state;
    assert_int_equal(make(f, "fixed8", Q_WEIGHT, 8, 4), 0);
    run(f, w, y, g, dx, 4);
    assert_null(f->q.fault);
    assert_true(y[0] == 0.5f &&
                y[1] == -381.0f / 127.0f * 0.5f); /* code -381: nothing is clipped */
    assert_memory_equal(g, dx, sizeof g);
    run(f, all_negative, y, NULL, NULL, 4);
    assert_null(f->q.fault);
    for (int i = 0; i < 4; i++)
        assert_true(y[i] == rintf(all_negative[i] / -0.5f * 127.0f) / 127.0f * -0.5f);
    drop(f);
}

static void statistics(void **state)
{
    enum { N = 100003 };
    float *x = xmalloc(N * sizeof *x), one = 4;
    double mean, std, mean2, std2, m = 0, v = 0;
    const int threads = par_threads();
    (void)state;
    randoms(x, N, 1000, 1001, 41);
    for (int i = 0; i < N; i++) m += (double)x[i] / N;
    for (int i = 0; i < N; i++) v += ((double)x[i] - m) * ((double)x[i] - m) / (N - 1);
    par_set_threads(1);
    stat_mean_std(x, N, &mean, &std);
    par_set_threads(2);
    stat_mean_std(x, N, &mean2, &std2);
    par_set_threads(threads);
    assert_true(mean == mean2 && std == std2);
    assert_true(fabs(mean - m) < 1e-9 && fabs(std - sqrt(v)) < 1e-9);
    stat_mean_std(&one, 1, &mean, &std);
    assert_true(mean == 4 && std == 0);
    x[77] = -5000;
    assert_true(stat_max(x, N) <= 1001 && stat_absmax(x, N) == 5000);
    free(x);
}

static void shows_the_original_line(void **state)
{
    Fixture *w = fixture("cifar"), *a = fixture("cifar");
    char line[200];
    (void)state;
    assert_int_equal(make(w, "apot", Q_WEIGHT, 4, 4), 0);
    assert_int_equal(make(a, "apot", Q_ACT, 4, 4), 0);
    param_set_scalar(w->q.p[0], 1.5694f);
    param_set_scalar(a->q.p[0], 1.4378f);
    w->q.fn->show(&w->q, &a->q, line, sizeof line);
    assert_string_equal(line,
                        "clipping threshold weight alpha: 1.569000, activation alpha: 1.438000");
    w->q.fn->show(&w->q, NULL, line, sizeof line);
    assert_string_equal(line, "clipping threshold weight alpha: 1.569000");
    drop(w);
    drop(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(level_sets),
        cmocka_unit_test(tanh_to_the_nearest_float),
        cmocka_unit_test(grids_are_exact),
        cmocka_unit_test(grid_refuses_alpha),
        cmocka_unit_test(refusals),
        cmocka_unit_test(refuses_roles_and_variants),
        cmocka_unit_test(parameter_names),
        cmocka_unit_test(disabled_passes_unchanged),
        cmocka_unit_test(all_zero_and_all_beyond),
        cmocka_unit_test(weight_gradients_by_differences),
        cmocka_unit_test(faults),
        cmocka_unit_test(nan_is_not_hidden),
        cmocka_unit_test(negative_alpha_warns_once),
        cmocka_unit_test(rows_do_not_depend_on_cuts),
        cmocka_unit_test(fixed8_scales_by_the_signed_maximum),
        cmocka_unit_test(statistics),
        cmocka_unit_test(shows_the_original_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
