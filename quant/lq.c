/* quant/lq.c -- LQ-Nets: levels are all sums of a few basis numbers, which follow the data.
 *
 * Per group: bits numbers b_j; code l has digits (l >> j) & 1, as 0 and 1 (half range) or -1 and 1
 * (full): level_l = sum_j digit_lj b_j, sorted S_0 <= S_1 ...; threshold T_i between S_(i-1) and
 * S_i, at the middle for scale 0.5;  y = S_k, k the last whose threshold is below x (0: none).
 * Training, with the codes B chosen (bits x values): e = (B B')^-1 B x, then b = 0.9 b + 0.1 e, or
 * with custom_update the mean of all steps' e. y has the basis from before.
 *   activations   a zero on the diagonal of B B' becomes 1e-5;  dx = dy where x < the top level, else 0
 *   weights       B x + 1e-4 b, and the diagonal (A_jj + 1e-4) 1.000001;  dw = dy
 *   adaptive      x is (x - m) / s meanwhile: activations s = mean or std of the image + 1e-5, weights
 *                 m = mean and/or s = std + 1e-5 of the group
 *
 * B B' are numbers of values that have two digits, B x sums of those that have one.
 *
 * Source: Zhang et al. 2018, "LQ-Nets"; aim-uofa/model-quantization, models/alqnet.py, with digits
 * as whole numbers (newer PyTorch divides them). Differs: solved in double; where the codes of a
 * step depend on each other the basis stays, instead of an error. See docs/methods/lq.md.
 */
#include <math.h>
#include <string.h>

#include "engine/par.h"
#include "quant/form.h"
#include "quant/keyword.h"
#include "quant/stat.h"

#define EPS        1e-5f
#define MAX_DIGITS 8
#define MAX_SUMS   16384 /* of all groups, up to which parts have sums of their own */
#define AT_ONCE    16    /* thresholds compared in registers */

typedef struct Lq {
    Keyword k;
    int bits;
    bool half, centers, scales_mean, scales_std;
    Param *basis, *auxil;
} Lq;

/* One group for one forward. */
typedef struct Levels {
    float s[KW_MAX_LEVELS + AT_ONCE], t[KW_MAX_LEVELS + AT_ONCE]; /* s ascending; t[i] before s[i] */
    int32_t code[KW_MAX_LEVELS + AT_ONCE]; /* of 8 bits */
} Levels;

static float digit(const Lq *p, int code, int j)
{
    const int d = code >> j & 1;
    return p->half ? (float)d : (float)(2 * d - 1);
}

/* ---- what a checkpoint holds ---- */

static Param *add_table(QInst *q, ParamStore *ps, DType type, int rows, int cols, const char *name)
{
    const int dim[2] = {rows, cols};
    return store_add(ps, PK_BUFFER, type, (Init){INIT_NONE, 0, 0}, cols ? 2 : 1, dim, "%s%s.%s",
                     q->name, kw_child(q->role), name);
}

/* Threshold i is share * S_(i-1) + (1 - share) * S_i. */
static float below_share(const Lq *p, int i)
{
    const float scale = (float)p->k.o->scale;
    const int middle = p->k.levels / 2;
    if (p->half || i > middle) return scale;
    return i < middle ? 1 - scale : 0.5f;
}

static void fill_tables(QInst *q, ParamStore *ps)
{
    const Lq *p = q->priv;
    const int L = p->k.levels;
    float *vector = add_table(q, ps, DT_F32, L, p->bits, "codec_vector")->value.data;
    int32_t *index = add_table(q, ps, DT_S32, L, 0, "codec_index")->value.data;
    float *mult = add_table(q, ps, DT_F32, L - 1, L, "thrs_multiplier")->value.data;
    for (int l = 0; l < L; l++) {
        index[l] = l;
        for (int j = 0; j < p->bits; j++) vector[l * p->bits + j] = digit(p, l, j);
    }
    for (int i = 1; i < L; i++) {
        mult[(i - 1) * L + i - 1] = below_share(p, i);
        mult[(i - 1) * L + i] = 1 - below_share(p, i);
    }
}

static int steps(QInst *q, QuantForm *f, Err *e);

static int configure(QInst *q, Err *e)
{
    Lq *p = q->priv;
    const char *norm = p->k.o->adaptive;
    if (p->half != p->k.o->half_range)
        return err_set(e, ERR_CONFIG, "%s: half_range: lq keeps the digits it was made with", q->unit);
    p->centers = q->role == Q_WEIGHT && (str_eq(norm, "mean") || str_eq(norm, "mean-var"));
    p->scales_mean = q->role == Q_ACT && str_eq(norm, "mean");
    p->scales_std = str_eq(norm, "var") || (q->role == Q_WEIGHT && str_eq(norm, "mean-var"));
    p->k.normalizes = false; /* by itself */
    kw_use(q, p->k.inner);
    return 0;
}

static int init(QInst *q, ParamStore *ps, Err *e)
{
    Lq *p = q->priv;
    double fan = 1, base;
    float *b;
    if (kw_init(q, ps, e)) return -1;
    if (!q->enabled) return 0;
    p->bits = q->bits;
    p->half = p->k.o->half_range;
    p->k.fixed_levels = true;
    p->k.configure = configure;
    p->k.steps = steps;
    p->basis = p->k.basis = add_table(q, ps, DT_F32, p->bits, p->k.groups, "basis");
    p->auxil = add_table(q, ps, DT_F32, p->bits, p->k.groups, "auxil");
    fill_tables(q, ps);
    fan = q->role == Q_WEIGHT ? q->conv_groups : 1; /* all input channels of the layer */
    for (int i = q->ndim == 4; i < q->ndim; i++) fan *= q->shape[i];
    base = 0.6745 * (q->role == Q_WEIGHT ? sqrt(2 / fan) : 2) / (double)(1 << (p->bits - 1));
    b = p->basis->value.data;
    for (int j = 0; j < p->bits; j++)
        for (int g = 0; g < p->k.groups; g++)
            b[j * p->k.groups + g] = (float)(base * (double)(1 << j));
    return configure(q, e);
}

/* ---- layout: values stand in runs of `len`, run r belongs to group r mod groups ---- */

typedef struct Runs {
    size_t n, len, groups, sample; /* sample: values with one mean and deviation */
} Runs;

static Runs runs_of(const QInst *q, const Tensor *x)
{
    const size_t G = (size_t)((const Lq *)q->priv)->k.groups, n = tensor_len(x);
    const size_t c = kw_rows(x).c;
    const size_t sample = n / (size_t)x->dim[0];
    if (q->role == Q_WEIGHT) return (Runs){n, n / G, G, n / G};
    return (Runs){n, G == 1 ? sample : c / G, G, sample};
}

/* save: the top level of each group, then m and s of each sample. */
static float *norms(const Runs *r, float *save)
{
    return save + r->groups;
}

/* How many values, their sum, the sum of those with digit i, how many have both digits i and j <= i. */
static size_t sums_of_group(const Lq *p)
{
    const size_t n = (size_t)p->bits;
    return 2 + n + n * (n + 1) / 2;
}

static size_t sums_of(const Lq *p, const Runs *r)
{
    return r->groups * sums_of_group(p);
}

static size_t parts_of(const Lq *p, const Runs *r)
{
    return sums_of(p, r) <= MAX_SUMS ? STAT_PARTS : 1;
}

static void need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    const Lq *p = q->priv;
    const Runs r = runs_of(q, x);
    const size_t sums = (parts_of(p, &r) * sums_of(p, &r) * sizeof(double) + 63) / 64 * 64;
    (void)ph;
    *save = (r.groups + 2 * (r.n / r.sample)) * sizeof(float);
    *scratch = sums + r.groups * sizeof(Levels);
}

static void find_norms(const Lq *p, const float *x, const Runs *r, float *ms)
{
    PARALLEL_FOR(i, r->n / r->sample)
    {
        double mean = 0, std = 0;
        if (p->centers || p->scales_mean || p->scales_std)
            stat_mean_std(x + (size_t)i * r->sample, r->sample, &mean, &std);
        ms[2 * i] = p->centers ? (float)mean : 0;
        ms[2 * i + 1] = p->scales_mean ? (float)mean + EPS : p->scales_std ? (float)std + EPS : 1;
    }
}

/* Level k is the last whose threshold is below: with thresholds in any order (scale above 1) those as
 * high as k begin at the least of what follows. */
static void find_levels(const Lq *p, int group, Levels *v)
{
    const float *b = p->basis->value.data;
    const int L = p->k.levels;
    for (int l = 0; l < L; l++) {
        float sum = 0;
        int at = l;
        for (int j = 0; j < p->bits; j++) sum += digit(p, l, j) * b[j * p->k.groups + group];
        for (; at > 0 && v->s[at - 1] > sum; at--)
            v->s[at] = v->s[at - 1], v->code[at] = v->code[at - 1];
        v->s[at] = sum, v->code[at] = l;
    }
    for (int i = 1; i < L; i++) {
        const float share = below_share(p, i);
        v->t[i] = share * v->s[i - 1] + (1 - share) * v->s[i];
    }
    for (int i = L - 2; i > 0; i--) v->t[i] = fminf(v->t[i], v->t[i + 1]);
    for (int i = L; i < L + AT_ONCE; i++) v->t[i] = INFINITY, v->s[i] = 0, v->code[i] = 0; /* never reached */
}

enum {
    BLOCK = 1024, /* values summed in float, then in double */
    LANES = 64    /* bytes of a vector, and codes of one byte in it */
};
typedef float V __attribute__((vector_size(LANES), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(LANES), aligned(4), may_alias));
typedef uint8_t VB __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint64_t VL __attribute__((vector_size(LANES)));

/* From level k - 1 to k, where a threshold of `count` from `from` on is below. A constant count is unrolled. */
static inline __attribute__((always_inline)) void climb(const Levels *v, int from, int count, const float *u,
                                                        float *level, int32_t *code, size_t n)
{
    float t[AT_ONCE], s[AT_ONCE];
    int32_t c[AT_ONCE];
    for (int k = 0; k < count; k++) t[k] = v->t[from + k], s[k] = v->s[from + k], c[k] = v->code[from + k];
    SIMD_FOR(i, n)
    {
        float value = level[i];
        int32_t digits = code[i];
#pragma GCC unroll 16
        for (int k = 0; k < count; k++) {
            value = u[i] > t[k] ? s[k] : value;
            digits = u[i] > t[k] ? c[k] : digits;
        }
        level[i] = value;
        code[i] = digits;
    }
}

static void find_codes(const Levels *v, int L, const float *u, float *level, int32_t *code, size_t n)
{
    SIMD_FOR(i, n) level[i] = v->s[0], code[i] = v->code[0];
    if (L <= 2)
        climb(v, 1, 1, u, level, code, n);
    else if (L <= 4)
        climb(v, 1, 3, u, level, code, n);
    else if (L <= 8)
        climb(v, 1, 7, u, level, code, n);
    else
        for (int k = 1; k < L; k += AT_ONCE) climb(v, k, AT_ONCE, u, level, code, n);
}

static double sum_lanes(V v)
{
    double sum = 0;
    for (size_t i = 0; i < LANES / sizeof(float); i++) sum += (double)v[i];
    return sum;
}

/* The sum of all n values, a multiple of 16, and for each digit of those that have it. Constant bits are unrolled. */
static inline __attribute__((always_inline)) void sum_digits(const float *u, const int32_t *code, size_t n, int bits,
                                                             double *all, double *has)
{
    V sum = {0}, of[MAX_DIGITS] = {{0}};
    for (size_t k = 0; k < n; k += LANES / sizeof *u) {
        const V x = *(const V *)(u + k);
        const VI c = *(const VI *)(code + k);
        sum += x;
#pragma GCC unroll 8
        for (int i = 0; i < bits; i++) of[i] += (V)((VI)x & ((c & 1 << i) != 0));
    }
    *all += sum_lanes(sum);
#pragma GCC unroll 8
    for (int i = 0; i < bits; i++) has[i] += sum_lanes(of[i]);
}

/* How many of n <= BLOCK codes, a multiple of 64, have all digits of a mask that is not 0. */
static unsigned count_codes(const uint8_t *code, size_t n, int mask)
{
    const VB m = (VB){0} + (uint8_t)mask;
    VB counts = {0}; /* BLOCK / LANES at most in each byte, so that eight of them fit into one */
    VL sum;
    unsigned all = 0;
    for (size_t k = 0; k < n; k += LANES) counts -= (VB)((*(const VB *)(code + k) & m) == m);
    sum = (VL)counts * 0x0101010101010101u >> 56;
    for (size_t i = 0; i < LANES / sizeof(uint64_t); i++) all += (unsigned)sum[i];
    return all;
}

/* Adds what n <= BLOCK values of a group, with these codes, give to its sums. Both are filled up with zeros. */
static void add_block(int bits, float *u, int32_t *code, size_t n, double *sum)
{
    const size_t whole = (n + LANES - 1) / LANES * LANES;
    uint8_t byte[BLOCK];
    double *all = sum + 1, *has = sum + 2, *both = has + bits;
    memset(u + n, 0, (whole - n) * sizeof *u);
    memset(code + n, 0, (whole - n) * sizeof *code);
    SIMD_FOR(k, whole) byte[k] = (uint8_t)code[k];
    sum[0] += (double)n;
    switch (bits) {
    case 1: sum_digits(u, code, whole, 1, all, has); break;
    case 2: sum_digits(u, code, whole, 2, all, has); break;
    case 3: sum_digits(u, code, whole, 3, all, has); break;
    case 4: sum_digits(u, code, whole, 4, all, has); break;
    default: sum_digits(u, code, whole, bits, all, has);
    }
    for (int i = 0; i < bits; i++)
        for (int j = 0; j <= i; j++) *both++ += count_codes(byte, whole, 1 << i | 1 << j);
}

/* n <= BLOCK values of one group and norm: y, and what they add to the sums, unless sum is NULL. */
static void quantize_block(const Lq *p, const Levels *v, const float *norm, const float *x, float *y,
                           size_t n, double *sum)
{
    const float m = norm[0], s = norm[1];
    float u[BLOCK], level[BLOCK];
    int32_t code[BLOCK];
    if (m != 0 || s != 1) {
        SIMD_FOR(i, n) u[i] = (x[i] - m) / s;
    } else {
        memcpy(u, x, n * sizeof *u);
    }
    find_codes(v, p->k.levels, u, level, code, n);
    if (sum) add_block(p->bits, u, code, n, sum);
    if (p->k.passes) {
        memmove(y, x, n * sizeof *y);
        return;
    }
    SIMD_FOR(i, n)
    {
        const float value = level[i] * s + m;
        y[i] = isnan(u[i]) ? u[i] : value;
    }
}

/* Values [from, to): y, and the sums of their groups, unless sums is NULL. */
static void quantize(const Lq *p, const Runs *r, const Levels *lv, const float *ms, StatSpan span,
                     const float *x, float *y, double *sums)
{
    for (size_t at = span.from, n; at < span.to; at += n) {
        const size_t group = at / r->len % r->groups, end = (at / r->len + 1) * r->len;
        n = (end < span.to ? end : span.to) - at;
        if (n > BLOCK) n = BLOCK;
        quantize_block(p, &lv[group], ms + 2 * (at / r->sample), x + at, y + at, n,
                       sums ? sums + group * sums_of_group(p) : NULL);
    }
}

/* ---- in float operations ---- */

/* What an image is divided by: a mean or deviation of another order, whose last bits may differ. */
static int image_scale(const Lq *p, QuantForm *f)
{
    const double n = (double)f->image;
    int mean = form_mean(f, FORM_IMAGE, 0), apart;
    if (p->scales_mean) return form_step(f, FORM_ADD, EPS);
    mean = form_step(f, FORM_MUL, -1);
    apart = form_of(f, FORM_ADD, 0, mean);
    form_of(f, FORM_MUL, apart, apart);
    form_mean(f, FORM_IMAGE, f->n);
    form_step(f, FORM_MUL, (float)(n / (n - 1)));
    form_step(f, FORM_SQRT, 0);
    return form_step(f, FORM_ADD, EPS);
}

static int steps(QInst *q, QuantForm *f, Err *e)
{
    const Lq *p = q->priv;
    const int L = p->k.levels, G = p->k.groups;
    float *t = arena_alloc(f->arena, (size_t)L * (size_t)G * sizeof *t),
          *s = arena_alloc(f->arena, (size_t)L * (size_t)G * sizeof *s);
    int by = 0;
    (void)e;
    for (int g = 0; g < G; g++) {
        Levels v;
        find_levels(p, g, &v);
        for (int k = 0; k < L; k++) {
            t[k * G + g] = v.t[k ? k : 1];
            s[k * G + g] = v.s[k];
        }
    }
    if (p->scales_mean || p->scales_std) {
        by = image_scale(p, f);
        form_of(f, FORM_DIV, 0, by);
    }
    form_levels(f, L, true, G, t, s);
    if (by) form_of(f, FORM_MUL, f->n, by);
    return 0;
}

/* ---- the fit ---- */

/* a x = r in place; false when singular. */
static bool solve(double a[MAX_DIGITS][MAX_DIGITS], double *r, int n)
{
    double tiny = 0;
    for (int i = 0; i < n; i++) tiny = a[i][i] > tiny ? a[i][i] : tiny;
    tiny *= 1e-12;
    for (int c = 0; c < n; c++) {
        int best = c;
        for (int i = c + 1; i < n; i++)
            if (fabs(a[i][c]) > fabs(a[best][c])) best = i;
        if (!(fabs(a[best][c]) > tiny)) return false;
        for (int k = 0; k < n; k++) {
            const double t = a[c][k];
            a[c][k] = a[best][k], a[best][k] = t;
        }
        const double t = r[c];
        r[c] = r[best], r[best] = t;
        for (int i = c + 1; i < n; i++) {
            const double f = a[i][c] / a[c][c];
            for (int k = c; k < n; k++) a[i][k] -= f * a[c][k];
            r[i] -= f * r[c];
        }
    }
    for (int c = n - 1; c >= 0; c--) {
        for (int k = c + 1; k < n; k++) r[c] -= a[c][k] * r[k];
        r[c] /= a[c][c];
    }
    return true;
}

/* From digits 0 and 1 to -1 and 1, which are 2 d - 1, of `count` values and their sum. */
static void minus_and_plus(double count, double sum, double a[MAX_DIGITS][MAX_DIGITS], double *r, int n)
{
    double one[MAX_DIGITS];
    for (int i = 0; i < n; i++) one[i] = a[i][i], r[i] = 2 * r[i] - sum;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) a[i][j] = 4 * a[i][j] - 2 * one[i] - 2 * one[j] + count;
}

static void fit(QInst *q, int group, const double *sums)
{
    const Lq *p = q->priv;
    const int n = p->bits, G = p->k.groups;
    const float step = *(const float *)p->k.iteration->value.data - 1; /* before this one */
    float *b = p->basis->value.data, *e = p->auxil->value.data;
    const double *has = sums + 2, *both = has + n;
    double a[MAX_DIGITS][MAX_DIGITS] = {{0}}, r[MAX_DIGITS] = {0};
    for (int i = 0; i < n; i++) {
        r[i] = has[i];
        for (int j = 0; j <= i; j++) a[i][j] = a[j][i] = *both++;
    }
    if (!p->half) minus_and_plus(sums[0], sums[1], a, r, n);
    for (int i = 0; i < n; i++) {
        if (q->role == Q_WEIGHT) {
            r[i] += 1e-4 * (double)b[i * G + group];
            a[i][i] = (a[i][i] + 1e-4) * 1.000001;
        } else if (a[i][i] == 0) {
            a[i][i] = 1e-5;
        }
    }
    for (int i = 0; i < n; i++)
        if (!isfinite(r[i])) {
            kw_fault(q, "values that are not finite; lq fits its basis to them");
            return;
        }
    if (!solve(a, r, n)) return; /* codes that depend on each other: the basis stays */
    for (int i = 0; i < n; i++) {
        float *to = &b[i * G + group];
        e[i * G + group] = (float)r[i];
        *to = q->opts->kw.custom_update ? (*to * step + (float)r[i]) / (step + 1)
                                        : 0.9f * *to + 0.1f * (float)r[i];
    }
}

/* ---- forward, backward ---- */

static void forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const Lq *p = q->priv;
    const Runs r = runs_of(q, x);
    const size_t parts = parts_of(p, &r), per = sums_of(p, &r);
    const bool train = c->phase == PH_TRAIN;
    float *top = c->save, *ms = norms(&r, top), *ys = y->data;
    const float *xs = x->data;
    double *sums = c->scratch;
    Levels *lv = (void *)((char *)c->scratch + (parts * per * sizeof(double) + 63) / 64 * 64);
    kw_begin(q, c);
    find_norms(p, xs, &r, ms);
    for (size_t g = 0; g < r.groups; g++) {
        find_levels(p, (int)g, &lv[g]);
        top[g] = lv[g].s[p->k.levels - 1];
    }
    if (train) memset(sums, 0, parts * per * sizeof *sums);
    PARALLEL_FOR(i, parts)
    {
        const StatSpan span = parts == 1 ? (StatSpan){0, r.n} : stat_span(r.n, (size_t)i);
        quantize(p, &r, lv, ms, span, xs, ys, train ? sums + (size_t)i * per : NULL);
    }
    if (!train) return;
    for (size_t i = 1; i < parts; i++)
        for (size_t k = 0; k < per; k++) sums[k] += sums[i * per + k];
    for (size_t g = 0; g < r.groups && !q->fault; g++)
        fit(q, (int)g, sums + g * sums_of_group(p));
    param_touch(p->basis);
    if (q->fault) memset(ys, 0, tensor_bytes(y));
}

static void act_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Lq *p = q->priv;
    const Runs r = runs_of(q, x);
    const float *top = c->save, *ms = norms(&r, c->save), *xs = x->data, *g = dy->data;
    float *d;
    if (!dx) return;
    d = dx->data;
    PARALLEL_FOR(run, r.n / r.len)
    {
        const size_t at = (size_t)run * r.len;
        const float m = ms[2 * (at / r.sample)], s = ms[2 * (at / r.sample) + 1];
        const float bound = top[(size_t)run % r.groups];
        if (p->k.passes) {
            memmove(d + at, g + at, r.len * sizeof *d);
        } else if (m != 0 || s != 1) {
            SIMD_FOR(i, r.len) d[at + i] = (xs[at + i] - m) / s >= bound ? 0 : g[at + i];
        } else {
            SIMD_FOR(i, r.len) d[at + i] = xs[at + i] >= bound ? 0 : g[at + i];
        }
    }
}

/* Zeros around a map stay 0 and have no digit where 0 is a level and its threshold is not above it: they count neither
 * in the fit nor elsewhere. Levels and thresholds of a full range, and means and deviations, follow from them. */
static bool pad_matters(const QInst *q)
{
    const Lq *p = q->priv;
    const bool zero_stays = p->half && p->k.o->scale > 0 && p->k.o->scale <= 1;
    return !zero_stays || p->scales_mean || p->scales_std || kw_pad_counts(q);
}

static const QFn act = {
    .priv_size = sizeof(Lq),
    .init = init,
    .need = need,
    .forward = forward,
    .backward = act_backward,
    .form = kw_form,
    .pad_matters = pad_matters,
    .set = kw_set,
    .set_text = kw_set_text,
    .release = kw_release,
};

static const QFn weight = {
    .priv_size = sizeof(Lq),
    .init = init,
    .need = need,
    .forward = forward,
    .set = kw_set,
    .set_text = kw_set_text,
    .release = kw_release,
};

#define TAG_KEYS(tag)                                                                              \
    {.key = tag "_level"}, {.key = tag "_quant_group"}, {.key = tag "_half_range"}, {.key = tag "_scale"},                     \
        {.key = tag "_adaptive", .value = "mean"}, {.key = tag "_adaptive", .value = "var"}, {.key = "custom_update"}, KW_STABLE, KW_KEYS

static const QKey weight_keys[] = {TAG_KEYS("wt"), {.key = "wt_adaptive", .value = "mean-var"}, {0}};
static const QKey act_keys[] = {TAG_KEYS("fm"), {0}};

const QMethod quant_lq = {
    .name = "lq",
    .doc =
        "levels that are sums of a few basis numbers, fitted to the data in every step (LQ-Nets)",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .keys = {[Q_WEIGHT] = weight_keys, [Q_ACT] = act_keys},
    .unit_bits = kw_unit_bits,
};
