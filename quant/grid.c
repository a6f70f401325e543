/* quant/grid.c -- see grid.h.
 *
 * Level sets: Li et al. 2020 (APoT), yhhhli/APoT_Quantization, build_power_value. The original
 * looks for the first nearest level in the order of a Python set, so a tie goes to one or the other
 * neighbour by the order of hashing; the strings of `ties` below record it (lowest threshold first,
 * 1 = up).
 *
 * How a row stays exact without dividing: x / alpha >= threshold is monotone in x, so grid_scale
 * finds for each threshold the smallest x whose float quotient reaches it, and rows compare x
 * itself. Up to 16 levels are searched by comparison (with AVX-512 by permutation), more by a table
 * of cells that hold at most one threshold each, powers of two by bisection. Uniform grids do
 * divide, as the original does; the quotient is made by two corrected multiplications, which give
 * the correctly rounded quotient (Markstein 1990) in the time of five additions. */
#include "quant/grid.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "engine/err.h"
#include "engine/par.h"

/* ---- level sets ---- */

/* Addends as exponents e of 2^-e; 0 ends a list. Each list also holds the value 0. */
typedef struct ApotRow {
    int bits;
    unsigned char a[4], b[4], c[4];
    const char *ties;
} ApotRow;

// clang-format off
static const ApotRow apot_rows[] = {
    { 2, {1, 2, 3}, {0},       {0},       "011" },
    { 3, {1, 2, 4}, {3},       {0},       "0101010" },
    { 4, {1, 3, 5}, {2, 4, 6}, {0},       "001111111111111" },
    { 5, {1, 3, 6}, {2, 4, 7}, {5},       "0001010101010101010111110001111" },
    { 6, {1, 4, 7}, {2, 5, 8}, {3, 6, 9}, "010010001000001000101110000101110000000111110000101011110100010" },
};

/* By bits, from 1. 8 bits has levels below the smallest float: 150 are left. */
static const char *const pot_ties[] = {
    "0", "011", "0111011", "011111111111011", "0010110111111100111111111111011",
    "011110100101011100011000110001010010110111111100111111111111011",
    "01111111010100101001000010000100001000100001000011110111111111111111"
    "00101001000010000100001001010010110111111100111111111111011",
    "00001000000000101111111111111101010010100100001000010000100010000100"
    "00111101111111111111110010100100001000010000100101001011011111110011"
    "1111111111011",
};
// clang-format on

/* From s->n ascending levels: middles and decision thresholds. */
static void set_thresholds(LevelSet *s, const char *ties)
{
    ASSERT((int)strlen(ties) == s->n - 1, "%d levels, %d ties", s->n, (int)strlen(ties));
    for (int i = 0; i + 1 < s->n; i++) {
        s->mid[i] = (float)(((double)s->level[i] + (double)s->level[i + 1]) / 2);
        s->up[i] = ties[i] == '1';
        s->threshold[i] = s->up[i] ? s->mid[i] : nextafterf(s->mid[i], FLT_MAX);
    }
}

static void insert_sorted(LevelSet *s, float v)
{
    int i = s->n;
    for (int k = 0; k < s->n; k++)
        if (s->level[k] == v) return;
    for (; i > 0 && s->level[i - 1] > v; i--) s->level[i] = s->level[i - 1];
    s->level[i] = v;
    s->n++;
}

static int count_addends(const unsigned char *e)
{
    int n = 0;
    while (n < 4 && e[n]) n++;
    return n;
}

static float addend(const unsigned char *e, int i) /* i == 0: the value 0 */
{
    return i ? ldexpf(1.0f, -e[i - 1]) : 0.0f;
}

int levels_apot(LevelSet *s, int bits)
{
    const ApotRow *r = NULL;
    float inv;
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < sizeof apot_rows / sizeof *apot_rows; i++)
        if (apot_rows[i].bits == bits) r = &apot_rows[i];
    if (!r) return -1;
    for (int a = 0; a <= count_addends(r->a); a++)
        for (int b = 0; b <= count_addends(r->b); b++)
            for (int c = 0; c <= count_addends(r->c); c++)
                insert_sorted(s, addend(r->a, a) + addend(r->b, b) + addend(r->c, c));
    /* The original multiplies by the float reciprocal of the largest. */
    inv = 1.0f / s->level[s->n - 1];
    for (int i = 0; i < s->n; i++) s->level[i] *= inv;
    set_thresholds(s, r->ties);
    return 0;
}

int levels_pot(LevelSet *s, int bits)
{
    memset(s, 0, sizeof *s);
    if (bits < 1 || bits > (int)(sizeof pot_ties / sizeof *pot_ties)) return -1;
    insert_sorted(s, 0.0f);
    /* Twice the float power, as the original scales it: the smallest float is no level. */
    for (int k = 1; k < 1 << bits; k++) insert_sorted(s, 2.0f * ldexpf(1.0f, -k));
    set_thresholds(s, pot_ties[bits - 1]);
    return 0;
}

int levels_nearest(const LevelSet *s, float u)
{
    int k = 0;
    while (k + 1 < s->n && u >= s->threshold[k]) k++;
    return k;
}

/* ---- rows ---- */

/* x / b with r = 1 / b, correctly rounded, for finite x and b away from the limits of the float
 * range. */
static inline float divide(float x, float b, float r)
{
#ifdef __FMA__
    float q = x * r;
    q = fmaf(fmaf(-b, q, x), r, q);
    return fmaf(fmaf(-b, q, x), r, q);
#else
    (void)r;
    return x / b;
#endif
}

/* NaN passes both comparisons. */
static inline float clamp(float x, float lo, float hi)
{
    x = x > hi ? hi : x;
    return x < lo ? lo : x;
}

static void row_zero(const Grid *g, const float *x, float *y, size_t n)
{
    (void)g, (void)x;
    memset(y, 0, n * sizeof *y);
}

static void row_uniform(const Grid *g, const float *x, float *y, size_t n)
{
    const float lo = g->lo, hi = g->hi, a = g->alpha, ai = g->alpha_inv;
    const float m = g->steps, mi = g->steps_inv;
    SIMD_FOR(i, n)
    {
        float code = rintf(divide(clamp(x[i], lo, hi), a, ai) * m);
        y[i] = divide(code, m, mi) * a;
    }
}

#ifdef __AVX512F__

/* One vector of the search: 4 comparisons, the table looked up by permutation. */
static inline __m512 search16(__m512 x, __m512 t, __m512 value, __m512 sign)
{
    const __m512 v = _mm512_mul_ps(x, sign), t8 = _mm512_permutexvar_ps(_mm512_set1_epi32(8), t);
    const __m512 t4 = _mm512_permutexvar_ps(_mm512_set1_epi32(4), t);
    const __m512 t12 = _mm512_permutexvar_ps(_mm512_set1_epi32(12), t);
    const __m512i one = _mm512_set1_epi32(1), two = _mm512_set1_epi32(2);
    __mmask16 m = _mm512_cmp_ps_mask(v, t8, _CMP_GE_OQ);
    __m512i k = _mm512_mask_blend_epi32(m, two, _mm512_set1_epi32(10));
    m = _mm512_cmp_ps_mask(v, _mm512_mask_blend_ps(m, t4, t12), _CMP_GE_OQ);
    k = _mm512_mask_add_epi32(k, m, k, _mm512_set1_epi32(4));
    m = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(k, t), _CMP_GE_OQ);
    k = _mm512_mask_add_epi32(_mm512_sub_epi32(k, one), m, _mm512_add_epi32(k, one),
                              _mm512_setzero_si512());
    m = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(k, t), _CMP_LT_OQ);
    k = _mm512_mask_sub_epi32(k, m, k, one);
    m = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_mov_ps(_mm512_permutexvar_ps(k, value), m, v);
}

static void row_small(const Grid *g, const float *x, float *y, size_t n)
{
    const __m512 t = _mm512_loadu_ps(g->t), value = _mm512_loadu_ps(g->value);
    const __m512 sign = _mm512_set1_ps(g->sign);
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, search16(_mm512_loadu_ps(x + i), t, value, sign));
    if (i < n) {
        __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
        __m512 v = _mm512_maskz_loadu_ps(rest, x + i);
        _mm512_mask_storeu_ps(y + i, rest, search16(v, t, value, sign));
    }
}

#else

/* `levels` is a constant where this is called: the comparisons are then unrolled. */
static inline __attribute__((always_inline)) void compare_all(const Grid *g, const float *x,
                                                              float *y, size_t n, int levels)
{
    float t[GRID_SMALL], value[GRID_SMALL];
    const float sign = g->sign;
    memcpy(t, g->t, sizeof t);
    memcpy(value, g->value, sizeof value);
    SIMD_FOR(i, n)
    {
        float v = x[i] * sign, r = value[0];
#pragma GCC unroll 16
        for (int k = 1; k < levels; k++) r = v >= t[k] ? value[k] : r;
        y[i] = v == v ? r : v;
    }
}

static void row_small(const Grid *g, const float *x, float *y, size_t n)
{
    if (g->set.n <= 4)
        compare_all(g, x, y, n, 4);
    else if (g->set.n <= 8)
        compare_all(g, x, y, n, 8);
    else
        compare_all(g, x, y, n, GRID_SMALL);
}

#endif

/* More than 16 levels, evenly enough spaced: the cell of x says between which two levels it lies.
 * The cell number is monotone in x, whatever its rounding, and grid_scale numbers the thresholds by
 * the same arithmetic. */
static inline int cell_of(float v, float scale, float max)
{
    v = v < max ? v : max;
    v = v > 0 ? v : 0;
    return (int)(v * scale);
}

static void row_cells(const Grid *g, const float *x, float *y, size_t n)
{
    const float sign = g->sign, scale = g->cell_scale, max = g->cell_max;
    const float *tab = g->cell;
    SIMD_FOR(i, n)
    {
        float v = x[i] * sign;
        int c = 4 * cell_of(v, scale, max);
        float r = tab[c + 1 + (v >= tab[c])];
        y[i] = v == v ? r : v;
    }
}

/* More than 16 powers of two: bisection. t has entries up to GRID_MAX_LEVELS, so that no end needs
 * a check. */
static inline __attribute__((always_inline)) void bisect(const Grid *g, const float *x, float *y,
                                                         size_t n, int depth)
{
    const float sign = g->sign, *t = g->t, *value = g->value;
    SIMD_FOR(i, n)
    {
        float v = x[i] * sign;
        int k = 0;
#pragma GCC unroll 8
        for (int bit = depth - 1; bit >= 0; bit--) k += v >= t[k + (1 << bit)] ? 1 << bit : 0;
        y[i] = v == v ? value[k] : v;
    }
}

static void row_bisect(const Grid *g, const float *x, float *y, size_t n)
{
    if (g->set.n <= 32)
        bisect(g, x, y, n, 5);
    else if (g->set.n <= 64)
        bisect(g, x, y, n, 6);
    else
        bisect(g, x, y, n, 8);
}

void grid_init_uniform(Grid *g, int steps, GridRange range)
{
    memset(g, 0, sizeof *g);
    g->steps = (float)steps;
    g->steps_inv = 1.0f / g->steps;
    g->range = range;
}

void grid_init_levels(Grid *g, const LevelSet *s, GridRange range)
{
    memset(g, 0, sizeof *g);
    g->set = *s;
    g->range = range;
}

/* Smallest float x with x / a >= u, a > 0. */
static float smallest_reaching(float u, float a)
{
    float x = u * a;
    while (x / a >= u) x = nextafterf(x, -FLT_MAX);
    while (x / a < u) x = nextafterf(x, FLT_MAX);
    return x;
}

/* Cells of half the smallest difference of levels, each with its threshold. False: two thresholds
 * in a cell, or too many cells. */
static bool make_cells(Grid *g, float a)
{
    const LevelSet *s = &g->set;
    double gap = 1;
    int ncells, k = 0;
    for (int i = 1; i < s->n; i++) gap = fmin(gap, (double)s->level[i] - (double)s->level[i - 1]);
    if (2.0 / gap + 2 > GRID_MAX_CELLS) return false;
    g->cell_scale = (float)(2.0 / gap) / a;
    g->cell_max = a;
    ncells = cell_of(a, g->cell_scale, a) + 1;
    for (int c = 0; c < ncells; c++) {
        float *cell = g->cell + 4 * c;
        cell[0] = FLT_MAX;
        cell[1] = cell[2] = g->value[k];
        if (k + 1 < s->n && cell_of(g->t[k + 1], g->cell_scale, a) == c) {
            k++;
            cell[0] = g->t[k];
            cell[2] = g->value[k];
        }
        if (k + 1 < s->n && cell_of(g->t[k + 1], g->cell_scale, a) == c) return false;
    }
    return true;
}

bool grid_scale(Grid *g, float alpha)
{
    const LevelSet *s = &g->set;
    const float a = fabsf(alpha);
    bool flip;
    if (!(a >= GRID_MIN_ALPHA && a <= GRID_MAX_ALPHA)) {
        g->alpha = g->alpha_inv = 0;
        g->lo = INFINITY; /* nothing is inside */
        g->hi = -INFINITY;
        g->row = row_zero;
        return false;
    }
    /* With levels on both sides alpha * P(x / alpha) does not depend on the sign of alpha. */
    flip = alpha < 0 && g->range != GRID_BOTH;
    g->sign = flip ? -1.0f : 1.0f;
    g->alpha = flip ? -a : a;
    g->alpha_inv = 1.0f / g->alpha;
    g->lo = g->range == GRID_BOTH ? -a : g->range == GRID_BELOW ? -INFINITY : 0;
    g->hi = a;
    if (flip) {
        g->hi = -g->lo;
        g->lo = -a;
    }
    if (!s->n) {
        g->row = row_uniform;
        return true;
    }
    for (int i = 0; i < GRID_MAX_LEVELS; i++) {
        g->value[i] = g->alpha * s->level[i < s->n ? i : s->n - 1];
        g->t[i] = i == 0 ? 0 : i < s->n ? smallest_reaching(s->threshold[i - 1], a) : FLT_MAX;
    }
    g->row = s->n <= GRID_SMALL ? row_small : make_cells(g, a) ? row_cells : row_bisect;
    return true;
}

bool grid_read_clip(QInst *q, Grid *g, const Param *clip, const char *who, bool *warned, char *fault,
                    size_t room)
{
    const float alpha = param_scalar(clip);
    q->fault = NULL;
    if (!grid_scale(g, alpha)) {
        snprintf(fault, room, "%s: the clip level is %g; %s divides by it", clip->name, (double)alpha, who);
        q->fault = fault;
        return false;
    }
    if (alpha < 0 && !*warned) {
        log_msg(LOG_WARN, "%s: the clip level has become negative (%g)", clip->name, (double)alpha);
        *warned = true;
    }
    return true;
}

/* Elements of the blocks that need a buffer. */
#define BLOCK 256

/* Levels on both sides: the row of |x| with the sign of x. */
static void row_both(const Grid *g, const float *x, float *y, size_t n)
{
    float buf[BLOCK];
    for (size_t o = 0; o < n; o += BLOCK) {
        const size_t len = n - o < BLOCK ? n - o : BLOCK;
        SIMD_FOR(i, len) buf[i] = fabsf(x[o + i]);
        g->row(g, buf, buf, len);
        SIMD_FOR(i, len) y[o + i] = copysignf(buf[i], x[o + i]);
    }
}

void grid_row(const Grid *g, const float *x, float *y, size_t n)
{
    if (g->range == GRID_BOTH && g->set.n)
        row_both(g, x, y, n);
    else
        g->row(g, x, y, n);
}

bool grid_form(const Grid *g, QuantForm *f)
{
    if (g->set.n && g->range == GRID_BOTH) return false;
    if (g->set.n) {
        if (g->sign < 0) form_step(f, FORM_MUL, g->sign);
        form_levels(f, g->set.n, false, 1, g->t, g->value);
        return true;
    }
    if (g->hi < INFINITY) form_step(f, FORM_MIN, g->hi);
    if (g->lo > -INFINITY) form_step(f, FORM_MAX, g->lo);
    form_step(f, FORM_DIV, g->alpha);
    form_step(f, FORM_MUL, g->steps);
    form_step(f, FORM_ROUND, 0);
    form_step(f, FORM_DIV, g->steps);
    form_step(f, FORM_MUL, g->alpha);
    return true;
}

int grid_act_form(const QInst *q, const Grid *g, QuantForm *f, Err *e)
{
    if (q->fault) return err_set(e, ERR_RUN, "%s", q->fault);
    if (grid_form(g, f)) return 0;
    return err_set(e, ERR_CONFIG,
                   "%s: its input is quantized (%s, %d bits); levels that are not uniform and on "
                   "both sides of 0 have no form in float operations",
                   q->unit, q->method->name, q->bits);
}

/* Sums are made in float over a block, in double over the blocks. */
double grid_row_bwd(const Grid *g, const float *x, const float *dy, float *dx, size_t n,
                    bool masked)
{
    const float lo = g->lo, hi = g->hi;
    const float mlo = masked || lo > hi ? lo : -INFINITY, mhi = masked || lo > hi ? hi : INFINITY;
    double acc = 0;
    float y[BLOCK];
    for (size_t o = 0; o < n; o += BLOCK) {
        const size_t len = n - o < BLOCK ? n - o : BLOCK;
        const float *xo = x + o, *d = dy + o;
        float sum = 0;
        grid_row(g, xo, y, len);
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = 0; i < len; i++)
            sum += d[i] * (y[i] - ((xo[i] >= lo) & (xo[i] <= hi) ? xo[i] : 0.0f));
        acc += (double)sum;
        if (dx) {
            float *out = dx + o;
            SIMD_FOR(i, len) out[i] = (xo[i] >= mlo) & (xo[i] <= mhi) ? d[i] : 0.0f;
        }
    }
    return acc;
}
