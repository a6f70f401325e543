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
#include "quant/lq_block.h"
#include "quant/stat.h"

#define EPS        1e-5f
#define MAX_SUMS   16384 /* of all groups, up to which parts have sums of their own */

typedef struct Lq {
    Keyword k;
    int bits;
    bool half, centers, scales_mean, scales_std;
    Param *basis, *auxil;
} Lq;

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

static size_t sums_of(const Lq *p, const Runs *r)
{
    return r->groups * lq_sums(p->bits);
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
    *scratch = sums + r.groups * sizeof(LqLevels);
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
static void find_levels(const Lq *p, int group, LqLevels *v)
{
    const float *b = p->basis->value.data;
    const int L = p->k.levels;
    v->n = L, v->bits = p->bits;
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
    for (int i = L; i < L + LQ_AT_ONCE; i++) v->t[i] = INFINITY, v->s[i] = 0, v->code[i] = 0; /* never reached */
}

/* Values [from, to): y, and the sums of their groups, unless sums is NULL. */
static void quantize(const Runs *r, const LqLevels *lv, const float *ms, StatSpan span, const float *x,
                     float *y, double *sums)
{
    for (size_t at = span.from, n; at < span.to; at += n) {
        const size_t group = at / r->len % r->groups, end = (at / r->len + 1) * r->len;
        n = (end < span.to ? end : span.to) - at;
        if (n > LQ_BLOCK) n = LQ_BLOCK;
        lq_block(&lv[group], ms + 2 * (at / r->sample), x + at, y + at, n,
                 sums ? sums + group * lq_sums(lv->bits) : NULL);
    }
}

/* m pieces of len values, those of each side so far apart. */
static void copy_pieces(float *to, size_t to_step, const float *from, size_t from_step, size_t m, size_t len)
{
    if (len == 1) {
        SIMD_FOR(i, m) to[i * to_step] = from[i * from_step];
        return;
    }
    for (size_t i = 0; i < m; i++)
        SIMD_FOR(k, len) to[i * to_step + k] = from[i * from_step + k];
}

/* The same of maps in groups of channels, for a span of pixels: a block has the runs of one group in many of them. */
static void quantize_pixels(const Runs *r, const LqLevels *lv, const float *ms, StatSpan span,
                            const float *x, float *y, double *sums)
{
    const size_t len = r->len, c = len * r->groups, image = r->sample / c;
    float in[LQ_BLOCK], out[LQ_BLOCK];
    for (size_t at = span.from, m; at < span.to; at += m) {
        const size_t ends = (at / image + 1) * image;
        m = (ends < span.to ? ends : span.to) - at;
        if (m > LQ_BLOCK / len) m = LQ_BLOCK / len;
        for (size_t g = 0; g < r->groups; g++) {
            copy_pieces(in, len, x + at * c + g * len, c, m, len);
            lq_block(&lv[g], ms + 2 * (at / image), in, out, m * len,
                     sums ? sums + g * lq_sums(lv->bits) : NULL);
            copy_pieces(y + at * c + g * len, c, out, len, m, len);
        }
    }
}

/* The whole tensor in parts, which have sums of their own; NULL: none. */
static void quantize_parts(const Lq *p, const Runs *r, const LqLevels *lv, const float *ms, const float *x,
                           float *y, double *sums)
{
    const size_t parts = parts_of(p, r), per = sums_of(p, r), pixel = r->len * r->groups;
    const bool by_pixels = r->groups > 1 && pixel <= r->sample && r->len <= LQ_BLOCK;
    const size_t n = by_pixels ? r->n / pixel : r->n;
    if (sums) memset(sums, 0, parts * per * sizeof *sums);
    PARALLEL_FOR(i, parts)
    {
        const StatSpan span = parts == 1 ? (StatSpan){0, n} : by_pixels ? stat_split(n, (size_t)i) : stat_span(n, (size_t)i);
        (by_pixels ? quantize_pixels : quantize)(r, lv, ms, span, x, y, sums ? sums + (size_t)i * per : NULL);
    }
    for (size_t i = 1; sums && i < parts; i++)
        for (size_t k = 0; k < per; k++) sums[k] += sums[i * per + k];
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
        LqLevels v;
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
static bool solve(double a[LQ_DIGITS][LQ_DIGITS], double *r, int n)
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
static void minus_and_plus(double count, double sum, double a[LQ_DIGITS][LQ_DIGITS], double *r, int n)
{
    double one[LQ_DIGITS];
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
    double a[LQ_DIGITS][LQ_DIGITS] = {{0}}, r[LQ_DIGITS] = {0};
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
    LqLevels *lv = (void *)((char *)c->scratch + (parts * per * sizeof(double) + 63) / 64 * 64);
    kw_begin(q, c);
    find_norms(p, xs, &r, ms);
    for (size_t g = 0; g < r.groups; g++) {
        find_levels(p, (int)g, &lv[g]);
        top[g] = lv[g].s[p->k.levels - 1];
    }
    quantize_parts(p, &r, lv, ms, xs, ys, train ? sums : NULL);
    if (p->k.passes) memcpy(ys, xs, tensor_bytes(y));
    if (!train) return;
    for (size_t g = 0; g < r.groups && !q->fault; g++)
        fit(q, (int)g, sums + g * lq_sums(p->bits));
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
