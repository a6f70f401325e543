/* quant/fixed.c -- see fixed.h. */
#include "quant/fixed.h"

#include <math.h>

#include "engine/err.h"
#include "engine/par.h"
#include "quant/stat.h"

#define MAX_SEARCH 16 /* candidates beyond 0 */

float fixed_top(Fixed f)
{
    return ldexpf(1, f.bits - f.neg) - 1; /* 31 bits and more: 2^31, as in float */
}

int fixed_max_fl(Fixed f)
{
    return f.bits - f.neg;
}

int fixed_round_fl(Fixed f, float fl)
{
    const float r = rintf(fl), top = (float)fixed_max_fl(f);
    return r > top ? (int)top : r > 0 ? (int)r : 0;
}

static inline float code(float x, float up, bool floating)
{
    return floating ? x * up : rintf(x * up);
}

/* Written once; inlined with constants in place of `floating`. */
static inline void row(float lo, float top, float up, bool floating, const float *x, float *y,
                       size_t n)
{
    const float down = 1 / up; /* a power of two: exact */
    SIMD_FOR(i, n)
    {
        const float t = code(x[i], up, floating);
        y[i] = (t < lo ? lo : t > top ? top : t) * down;
    }
}

static inline void row_bwd(float lo, float top, float up, bool floating, const float *x,
                           const float *dy, float *dx, size_t n)
{
    SIMD_FOR(i, n)
    {
        const float t = code(x[i], up, floating);
        dx[i] = t > lo && t < top ? dy[i] : 0;
    }
}

static float low(Fixed f)
{
    return f.neg ? -fixed_top(f) : 0;
}

void fixed_row(Fixed f, int fl, const float *x, float *y, size_t n)
{
    const float up = ldexpf(1, fl);
    if (f.floating)
        row(low(f), fixed_top(f), up, true, x, y, n);
    else
        row(low(f), fixed_top(f), up, false, x, y, n);
}

void fixed_row_bwd(Fixed f, int fl, const float *x, const float *dy, float *dx, size_t n)
{
    const float up = ldexpf(1, fl);
    if (f.floating)
        row_bwd(low(f), fixed_top(f), up, true, x, dy, dx, n);
    else
        row_bwd(low(f), fixed_top(f), up, false, x, dy, dx, n);
}

static void columns(Fixed f, const float *fl, const float *x, const float *dy, float *out, size_t c)
{
    const float lo = low(f), top = fixed_top(f);
    for (size_t i = 0; i < c; i++) {
        const float up = ldexpf(1, (int)fl[i]), t = code(x[i], up, f.floating);
        if (dy)
            out[i] = t > lo && t < top ? dy[i] : 0;
        else
            out[i] = (t < lo ? lo : t > top ? top : t) / up;
    }
}

/* dy NULL: forward. */
static void tensor(Fixed f, FixedView v, const float *fl, const float *x, const float *dy,
                   float *out)
{
    const size_t n = v.rows * v.c;
    if (v.nfl == 1) {
        PARALLEL_FOR(k, par_chunks(n))
        {
            const size_t at = (size_t)k * PAR_CHUNK, len = par_chunk_len(n, (size_t)k);
            if (dy)
                fixed_row_bwd(f, (int)fl[0], x + at, dy + at, out + at, len);
            else
                fixed_row(f, (int)fl[0], x + at, out + at, len);
        }
        return;
    }
    ASSERT(v.nfl == (v.by_row ? v.rows : v.c), "%zu fractional lengths for %zu rows of %zu", v.nfl,
           v.rows, v.c);
    PARALLEL_FOR(r, v.rows)
    {
        const size_t at = (size_t)r * v.c;
        if (!v.by_row)
            columns(f, fl, x + at, dy ? dy + at : NULL, out + at, v.c);
        else if (dy)
            fixed_row_bwd(f, (int)fl[r], x + at, dy + at, out + at, v.c);
        else
            fixed_row(f, (int)fl[r], x + at, out + at, v.c);
    }
}

void fixed_tensor(Fixed f, FixedView v, const float *fl, const float *x, float *y)
{
    tensor(f, v, fl, x, NULL, y);
}

void fixed_tensor_bwd(Fixed f, FixedView v, const float *fl, const float *x, const float *dy,
                      float *dx)
{
    tensor(f, v, fl, x, dy, dx);
}

/* Sums over n values that stand `stride` apart: of |x - at|, x - at, (x - at)^2. */
typedef struct Sums {
    double magnitude, value, square;
} Sums;

#define SUM_LOOP(step)                                                                             \
    PAR_PRAGMA_(omp simd reduction(+ : magnitude, value, square))                                  \
    for (size_t i = s.from; i < s.to; i++) {                                                       \
        const double v = (double)x[i * (step)] - at;                                               \
        magnitude += fabs(v);                                                                      \
        value += v;                                                                                \
        square += v * v;                                                                           \
    }

static Sums sums_of(const float *x, size_t n, size_t stride, double at)
{
    Sums part[STAT_PARTS], all = {0};
    PARALLEL_FOR(k, STAT_PARTS)
    {
        const StatSpan s = stat_span(n, (size_t)k);
        double magnitude = 0, value = 0, square = 0;
        if (stride == 1)
            SUM_LOOP(1)
        else
            SUM_LOOP(stride)
        part[k] = (Sums){magnitude, value, square};
    }
    for (int k = 0; k < STAT_PARTS; k++) {
        all.magnitude += part[k].magnitude;
        all.value += part[k].value;
        all.square += part[k].square;
    }
    return all;
}

/* The deviation in one pass, around the first value: little cancels where the mean is large. */
double fixed_statistic(FixedMetric m, const float *x, size_t n, size_t stride)
{
    const double len = (double)n;
    Sums s;
    double left;
    if (!n) return 0;
    s = sums_of(x, n, stride, m == FM_STD ? (double)x[0] : 0);
    if (m == FM_MAE) return s.magnitude / len;
    if (m == FM_RMS) return sqrt(s.square / len);
    if (n < 2) return 0;
    left = s.square - s.value * s.value / len;
    return left > 0 ? sqrt(left / (len - 1)) : 0;
}

int fixed_fl_of(Fixed f, FixedMetric m, double metric)
{
    static const double constant[][2] = {
        [FM_STD] = {70, 40}, [FM_MAE] = {30, 30}, [FM_RMS] = {50, 40}}; /* unsigned, signed */
    const double fl = metric == 0 ? HUGE_VAL : floor(log2(constant[m][f.neg] / metric));
    const int top = fixed_max_fl(f);
    return fl >= top ? top : fl > 0 ? (int)fl : 0;
}

/* Small enough to be read from the nearest cache by every candidate. */
#define SEARCH_BLOCK 2048

/* Sum of the squared differences to n values. */
static double block_error(Fixed f, int fl, const float *x, size_t n)
{
    const float up = ldexpf(1, fl), down = 1 / up, lo = low(f), hi = fixed_top(f);
    double a = 0;
    PAR_PRAGMA_(omp simd reduction(+ : a))
    for (size_t i = 0; i < n; i++) {
        const float t = rintf(x[i] * up);
        const double d = (double)(x[i] - (t < lo ? lo : t > hi ? hi : t) * down);
        a += d * d;
    }
    return a;
}

int fixed_fl_search(Fixed f, const float *x, size_t n, double *error)
{
    double part[STAT_PARTS][MAX_SEARCH + 1], best = HUGE_VAL;
    const int top = fixed_max_fl(f);
    int found = 0;
    ASSERT(top <= MAX_SEARCH, "%d candidates", top + 1);
    PARALLEL_FOR(k, STAT_PARTS)
    {
        const StatSpan s = stat_span(n, (size_t)k);
        for (int fl = 0; fl <= top; fl++) part[k][fl] = 0;
        for (size_t at = s.from; at < s.to; at += SEARCH_BLOCK)
            for (int fl = 0; fl <= top; fl++)
                part[k][fl] +=
                    block_error(f, fl, x + at, s.to - at < SEARCH_BLOCK ? s.to - at : SEARCH_BLOCK);
    }
    for (int fl = 0; fl <= top; fl++) {
        double a = 0;
        for (int k = 0; k < STAT_PARTS; k++) a += part[k][fl];
        a = sqrt(a / (n ? (double)n : 1));
        if (error) error[fl] = a;
        if (a < best) best = a, found = fl;
    }
    return found;
}

float fixed_scaling(Fixed f, int fl, float alpha)
{
    return ldexpf(1, fl) * fabsf(alpha) / fixed_top(f);
}
