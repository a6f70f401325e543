/* quant/chain.c -- see chain.h.
 *
 *   z = (x - mean) / sqrt(var + eps) * gamma + beta + r,  a = act(z),  y_k = Q_k(a)
 *   dz = act'(z) * (da + sum_k Q_k'(a) dy_k),  dr = dz
 *   dgamma = sum dz xhat,  dbeta = sum dz
 *   dx = gamma / s * (dz - mean(dz) - xhat * mean(dz * xhat)),  s = sqrt(var + eps)
 *
 * The map is cut into tiles that stay in the first-level cache, tiles into groups; a group is the
 * unit of parallel work and of summation (float within a tile, double across, groups added in
 * order), so sums do not depend on the threads. Channel tables are repeated to a multiple of 64
 * entries: the inner loops are then full whatever the channel count.
 *
 * Maps and their gradients may be bf16, each by itself: a tile is widened when it is read and
 * rounded when it is written, and everything between is float. */
#include "quant/chain.h"

#include <math.h>
#include <string.h>

#include "engine/bf16.h"

#define TILE       2048
#define MAX_TILE   CHAIN_MAX_CHANNELS
#define MAX_GROUPS 256

typedef struct ChainNode {
    ChainSpec s;
    size_t m, c;       /* values in the map, channels */
    size_t wide, tile; /* length of a channel table; values per tile (multiples of c) */
    size_t tiles, groups, per_group;
    size_t nsums; /* doubles per group: 2 c, then Q_MAX_ACC per quantizer */
    int in_res, in_scale, in_shift;
} ChainNode;

enum { SV_MEAN, SV_INV, SV_SCALE, SV_SHIFT, SV_ROWS }; /* saved, c floats each */

static float *saved(const Exec *x, const Node *n, int row)
{
    const ChainNode *a = n->attr;
    return (float *)exec_save(x, n) + (size_t)row * a->c;
}

/* scratch: 4 wide tables, then the groups' sums */
static float *table(const ChainNode *a, void *scratch, int i)
{
    return (float *)scratch + (size_t)i * a->wide;
}

static double *sums(const ChainNode *a, void *scratch, size_t group)
{
    size_t at = mem_round_up(4 * a->wide * sizeof(float));
    return (double *)(void *)((char *)scratch + at) + group * a->nsums;
}

static void widen(const ChainNode *a, const float *v, float *wide)
{
    for (size_t i = 0; i < a->wide; i++) wide[i] = v[i % a->c];
}

/* ---- kernels over one tile ----
 * A table has W entries, W a multiple of 64 where the channel count allows. Columns are taken 64 at
 * a time: their table entries and sums then stay in registers while the rows go by. Lanes are fixed
 * by the code, not by the machine, so sums do not depend on the vector length either. */

typedef float V __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(64), aligned(4), may_alias));
#define LOAD(p)     (*(const V *)(p))
#define STORE(p, v) (*(V *)(p) = (v))
#define COLUMNS     64
#define EACH_V(u)   PAR_PRAGMA_(GCC unroll 4) for (size_t u = 0; u < 4; u++)
#define KERNEL      static inline __attribute__((always_inline)) void
#define RELU(t)     ((V)((VI)(t) & ~(VI)((t) < 0))) /* NaN stays NaN, so that divergence is seen */

/* The leading values that go by blocks of 64; the rest, and tables of an awkward length, go one by
 * one. */
static size_t by_blocks(size_t n, size_t W)
{
    return W % COLUMNS ? 0 : n / COLUMNS * COLUMNS;
}

static void k_stats(const float *x, const float *first, size_t n, size_t W, float *s, float *q)
{
    const size_t full = by_blocks(n, W);
    for (size_t j = 0; j < W && j < full; j += COLUMNS) {
        V vs[4], vq[4], vf[4];
        EACH_V(u) vs[u] = vq[u] = (V){0}, vf[u] = LOAD(first + j + 16 * u);
        for (size_t i = j; i < full; i += W) {
            EACH_V(u)
            {
                V d = LOAD(x + i + 16 * u) - vf[u];
                vs[u] += d;
                vq[u] += d * d;
            }
        }
        EACH_V(u) STORE(s + j + 16 * u, vs[u]), STORE(q + j + 16 * u, vq[u]);
    }
    for (size_t i = full; i < n; i++) {
        float d = x[i] - first[i % W];
        s[i % W] += d;
        q[i % W] += d * d;
    }
}

/* z = x * sc + sh (norm), + r (add), relu. z may be x or r. */
KERNEL k_apply(const float *x, const float *r, const float *sc, const float *sh, size_t n, size_t W,
               float *z, const bool norm, const bool add, const bool relu)
{
    const size_t full = by_blocks(n, W);
    for (size_t j = 0; j < W && j < full; j += COLUMNS) {
        V a[4], b[4];
        EACH_V(u) a[u] = b[u] = (V){0};
        if (norm) {
            EACH_V(u) a[u] = LOAD(sc + j + 16 * u), b[u] = LOAD(sh + j + 16 * u);
        }
        for (size_t i = j; i < full; i += W) {
            EACH_V(u)
            {
                V t = LOAD(x + i + 16 * u);
                if (norm) t = t * a[u] + b[u];
                if (add) t += LOAD(r + i + 16 * u);
                if (relu) t = RELU(t);
                STORE(z + i + 16 * u, t);
            }
        }
    }
    for (size_t i = full; i < n; i++) {
        float t = x[i];
        if (norm) t = t * sc[i % W] + sh[i % W];
        if (add) t += r[i];
        if (relu) t = t < 0 ? 0 : t;
        z[i] = t;
    }
}

/* dz = g where the activation let it through (0 < a, and a < top with cap); with norm also the sums
 * of dz and dz (x - mean) per table entry. dz may be g. */
KERNEL k_dz(const float *g, const float *a, const float *x, const float *mean, size_t n, size_t W,
            float *dz, float *s, float *q, const bool masked, const bool cap, const bool norm)
{
    const size_t full = by_blocks(n, W);
    const float top = 6;
    for (size_t j = 0; j < W && j < full; j += COLUMNS) {
        V vs[4], vq[4], vm[4];
        EACH_V(u) vs[u] = vq[u] = vm[u] = (V){0};
        if (norm) {
            EACH_V(u) vm[u] = LOAD(mean + j + 16 * u);
        }
        for (size_t i = j; i < full; i += W) {
            EACH_V(u)
            {
                V d = LOAD(g + i + 16 * u);
                if (masked) {
                    V act = LOAD(a + i + 16 * u);
                    VI let = (VI)(act > 0);
                    if (cap) let &= (VI)(act < top);
                    d = (V)((VI)d & let);
                }
                STORE(dz + i + 16 * u, d);
                if (norm) {
                    vs[u] += d;
                    vq[u] += d * (LOAD(x + i + 16 * u) - vm[u]);
                }
            }
        }
        if (norm) {
            EACH_V(u) STORE(s + j + 16 * u, vs[u]), STORE(q + j + 16 * u, vq[u]);
        }
    }
    for (size_t i = full; i < n; i++) {
        float d = !masked || (a[i] > 0 && (!cap || a[i] < top)) ? g[i] : 0;
        dz[i] = d;
        if (!norm) continue;
        s[i % W] += d;
        q[i % W] += d * (x[i] - mean[i % W]);
    }
}

/* dx = (dz - m1 - (x - mean) k) sc; dx may be dz. */
static void k_dx(const float *dz, const float *x, const float *mean, const float *m1,
                 const float *k, const float *sc, size_t n, size_t W, float *dx)
{
    const size_t full = by_blocks(n, W);
    for (size_t j = 0; j < W && j < full; j += COLUMNS) {
        V vm[4], v1[4], vk[4], vs[4];
        EACH_V(u)
        {
            vm[u] = LOAD(mean + j + 16 * u), v1[u] = LOAD(m1 + j + 16 * u);
            vk[u] = LOAD(k + j + 16 * u), vs[u] = LOAD(sc + j + 16 * u);
        }
        for (size_t i = j; i < full; i += W) {
            EACH_V(u)
            STORE(dx + i + 16 * u,
                  (LOAD(dz + i + 16 * u) - v1[u] - (LOAD(x + i + 16 * u) - vm[u]) * vk[u]) * vs[u]);
        }
    }
    for (size_t i = full; i < n; i++)
        dx[i] = (dz[i] - m1[i % W] - (x[i] - mean[i % W]) * k[i % W]) * sc[i % W];
}

/* ---- maps, float or bf16 ---- */

typedef struct Map {
    void *data; /* NULL: there is none */
    DType type;
} Map;

static Map map_in(const Exec *x, const Node *n, int i)
{
    return (Map){exec_in(x, n, i), x->g->v[n->in[i]].t.dtype};
}

static Map map_out(const Exec *x, const Node *n, int i)
{
    return (Map){exec_out(x, n, i), x->g->v[n->out[i]].t.dtype};
}

static Map map_gin(const Exec *x, const Node *n, int i)
{
    return (Map){i < 0 ? NULL : exec_gin(x, n, i), i < 0 ? DT_F32 : x->g->v[n->in[i]].t.dtype};
}

static const float *piece(Map m, size_t at, size_t len, float *buf)
{
    return bf16_piece(m.data, m.type, at, len, buf);
}

static float *room(Map m, size_t at, float *buf)
{
    return bf16_room(m.data, m.type, at, buf);
}

static void put(const float *from, Map m, size_t at, size_t len)
{
    bf16_put(from, m.data, m.type, at, len);
}

/* a = act(x * sc + sh + r) for one tile. z is written unless there is nothing to compute; returns
 * where `a` stands. */
static const float *activate(const ChainNode *a, const float *x, const float *r, const float *sc,
                             const float *sh, size_t n, float *z)
{
    const bool norm = a->s.norm != CHAIN_NO_NORM;
    const size_t W = a->wide;
    switch ((norm ? 4 : 0) | (r ? 2 : 0) | (a->s.act != AK_NONE ? 1 : 0)) {
    case 0:
        return x;
    case 1:
        k_apply(x, r, sc, sh, n, W, z, false, false, true);
        break;
    case 2:
        k_apply(x, r, sc, sh, n, W, z, false, true, false);
        break;
    case 3:
        k_apply(x, r, sc, sh, n, W, z, false, true, true);
        break;
    case 4:
        k_apply(x, r, sc, sh, n, W, z, true, false, false);
        break;
    case 5:
        k_apply(x, r, sc, sh, n, W, z, true, false, true);
        break;
    case 6:
        k_apply(x, r, sc, sh, n, W, z, true, true, false);
        break;
    default:
        k_apply(x, r, sc, sh, n, W, z, true, true, true);
        break;
    }
    if (a->s.act == AK_RELU6) {
        SIMD_FOR(i, n) z[i] = z[i] > 6 ? 6 : z[i];
    }
    return z;
}

static void mask_and_sum(const ChainNode *a, const float *g, const float *act, const float *x,
                         const float *mean, size_t n, float *dz, float *s, float *q)
{
    const size_t W = a->wide;
    switch ((a->s.norm != CHAIN_NO_NORM ? 4 : 0) | (a->s.act == AK_RELU6 ? 2 : 0) |
            (a->s.act != AK_NONE ? 1 : 0)) {
    case 0:
        k_dz(g, act, x, mean, n, W, dz, s, q, false, false, false);
        break;
    case 1:
        k_dz(g, act, x, mean, n, W, dz, s, q, true, false, false);
        break;
    case 3:
        k_dz(g, act, x, mean, n, W, dz, s, q, true, true, false);
        break;
    case 4:
        k_dz(g, act, x, mean, n, W, dz, s, q, false, false, true);
        break;
    case 5:
        k_dz(g, act, x, mean, n, W, dz, s, q, true, false, true);
        break;
    default:
        k_dz(g, act, x, mean, n, W, dz, s, q, true, true, true);
        break;
    }
}

static size_t tile_len(const ChainNode *a, size_t t)
{
    size_t rest = a->m - t * a->tile;
    return rest < a->tile ? rest : a->tile;
}

/* Per channel sums of all groups, in order: total[i] over partial sums i, i < c. */
static double group_sum(const ChainNode *a, void *scratch, size_t i)
{
    double s = 0;
    for (size_t g = 0; g < a->groups; g++) s += sums(a, scratch, g)[i];
    return s;
}

/* A tile's float sums, folded from table entries to channels, into the group's doubles. */
static void flush(const ChainNode *a, const float *s, const float *q, double *to)
{
    for (size_t j = 0, k = 0; j < a->wide; j++) {
        to[k] += (double)s[j];
        to[a->c + k] += (double)q[j];
        if (++k == a->c) k = 0;
    }
}

static void batch_statistics(const ChainNode *a, const Tensor *x, void *scratch, float *mean,
                             float *var)
{
    float *first = table(a, scratch, 0), pixel[MAX_TILE];
    const float *x0 = bf16_piece(x->data, x->dtype, 0, a->c, pixel);
    widen(a, x0, first); /* shifted by the first pixel: no cancellation when |mean| is large */
    PARALLEL_FOR(g, a->groups)
    {
        double *to = sums(a, scratch, (size_t)g);
        size_t t0 = (size_t)g * a->per_group, t1 = t0 + a->per_group;
        float s[MAX_TILE], q[MAX_TILE], tx[MAX_TILE];
        memset(to, 0, 2 * a->c * sizeof *to);
        for (size_t t = t0; t < t1 && t < a->tiles; t++) {
            memset(s, 0, a->wide * sizeof *s);
            memset(q, 0, a->wide * sizeof *q);
            k_stats(bf16_piece(x->data, x->dtype, t * a->tile, tile_len(a, t), tx), first,
                    tile_len(a, t), a->wide, s, q);
            flush(a, s, q, to);
        }
    }
    for (size_t k = 0; k < a->c; k++) {
        double m = (double)(a->m / a->c), d = group_sum(a, scratch, k) / m,
               v = group_sum(a, scratch, a->c + k) / m - d * d;
        mean[k] = (float)((double)x0[k] + d);
        var[k] = v > 0 ? (float)v : 0;
    }
}

static void tables_forward(Node *n, Exec *x)
{
    const ChainNode *a = n->attr;
    float *mean = saved(x, n, SV_MEAN), *inv = saved(x, n, SV_INV), *sc = saved(x, n, SV_SCALE),
          *sh = saved(x, n, SV_SHIFT);
    const float *gamma = a->in_scale < 0 ? NULL : exec_in(x, n, a->in_scale);
    const float *beta = a->in_shift < 0 ? NULL : exec_in(x, n, a->in_shift);
    if (a->s.norm == CHAIN_BATCH) {
        const Tensor src = exec_in_tensor(x, n, 0);
        batch_statistics(a, &src, exec_scratch(x, n), mean, inv);
        norm_update_running(&a->s.st, mean, inv, (int)a->c, (double)(a->m / a->c));
    } else {
        memcpy(mean, a->s.st.mean->value.data, a->c * sizeof *mean);
        memcpy(inv, a->s.st.var->value.data, a->c * sizeof *inv);
    }
    for (size_t k = 0; k < a->c; k++) {
        inv[k] = 1 / sqrtf(inv[k] + a->s.st.eps);
        sc[k] = (gamma ? gamma[k] : 1) * inv[k];
        sh[k] = (beta ? beta[k] : 0) - mean[k] * sc[k];
    }
}

static void forward(Node *n, Exec *x)
{
    const ChainNode *a = n->attr;
    const Map src = map_in(x, n, 0), res = a->in_res < 0 ? (Map){0} : map_in(x, n, a->in_res);
    void *scratch = exec_scratch(x, n);
    float *sc = table(a, scratch, 0), *sh = table(a, scratch, 1);
    Map out[NODE_MAX_OUT];
    QCtx ctx = {.phase = (Phase)x->phase, .aux_loss = &x->aux_loss};

    if (a->s.norm != CHAIN_NO_NORM) {
        tables_forward(n, x);
        widen(a, saved(x, n, SV_SCALE), sc);
        widen(a, saved(x, n, SV_SHIFT), sh);
    }
    for (int k = 0; k < n->nout; k++) out[k] = map_out(x, n, k);
    for (int k = 0; k < a->s.nq; k++) {
        if (a->s.q[k]->fn->begin) a->s.q[k]->fn->begin(a->s.q[k], &ctx);
        if (a->s.q[k]->fault) x->fault = a->s.q[k]->fault;
    }
    PARALLEL_FOR(g, a->groups)
    {
        size_t t0 = (size_t)g * a->per_group, t1 = t0 + a->per_group;
        float tx[MAX_TILE], tr[MAX_TILE], tz[MAX_TILE], ty[MAX_TILE];
        for (size_t t = t0; t < t1 && t < a->tiles; t++) {
            size_t at = t * a->tile, len = tile_len(a, t);
            float *z = room(out[0], at, tz); /* quantizer 0 works in place where nothing is plain */
            const float *act = activate(a, piece(src, at, len, tx),
                                        res.data ? piece(res, at, len, tr) : NULL, sc, sh, len, z);
            if (a->s.plain) put(act, out[0], at, len);
            for (int k = a->s.nq - 1; k >= 0; k--) {
                const QInst *q = a->s.q[k];
                const Map to = out[(a->s.plain ? 1 : 0) + k];
                float *y = room(to, at, ty);
                q->fn->row(q, act, y, len);
                put(y, to, at, len);
            }
        }
    }
}

/* The gradient that reaches the activation, for one tile: contributions to the plain output and,
 * through each quantizer, to its output. Returns where it stands: in `g`, or a contribution itself
 * when that is all. */
typedef struct Grads {
    int n[1 + CHAIN_MAX_Q];
    DType type[1 + CHAIN_MAX_Q];
    const float *part[1 + CHAIN_MAX_Q][GRAD_MAX_PARTS]; /* [0] plain, [1 + k] quantizer k */
} Grads;

static const float *sum_tile_bf16(const float *const *part, int np, size_t at, size_t len,
                                  float *tmp)
{
    float more[MAX_TILE];
    bf16_piece(part[0], DT_BF16, at, len, tmp);
    for (int k = 1; k < np; k++) {
        bf16_piece(part[k], DT_BF16, at, len, more);
        SIMD_FOR(i, len) tmp[i] += more[i];
    }
    return tmp;
}

static const float *sum_tile(const Grads *gr, int out, size_t at, size_t len, float *tmp)
{
    const float *const *part = gr->part[out], *p0 = part[0] + at;
    const int np = gr->n[out];
    if (gr->type[out] == DT_BF16) return sum_tile_bf16(part, np, at, len, tmp);
    if (np == 1) return p0;
    for (int k = 1; k < np; k++) {
        const float *p = part[k] + at, *from = k == 1 ? p0 : tmp;
        SIMD_FOR(i, len) tmp[i] = from[i] + p[i];
    }
    return tmp;
}

static const float *collect(const ChainNode *a, const Grads *gr, const float *act, size_t at,
                            size_t len, double *acc, float *g, float *tmp, float *tmp2)
{
    const float *have = gr->n[0] ? sum_tile(gr, 0, at, len, g) : NULL;
    for (int k = 0; k < a->s.nq; k++) {
        const QInst *q = a->s.q[k];
        const float *dy;
        float *to = have ? tmp : g;
        if (!gr->n[1 + k]) continue;
        dy = sum_tile(gr, 1 + k, at, len, tmp2);
        if (q->fn->row_bwd)
            q->fn->row_bwd(q, act, dy, to, len, acc + (size_t)k * Q_MAX_ACC);
        else
            memcpy(to, dy, len * sizeof *to);
        if (have) {
            SIMD_FOR(i, len) g[i] = have[i] + tmp[i];
        }
        have = g;
    }
    return have;
}

static void backward(Node *n, Exec *x)
{
    const ChainNode *a = n->attr;
    const bool norm = a->s.norm != CHAIN_NO_NORM;
    const Map src = map_in(x, n, 0), res = a->in_res < 0 ? (Map){0} : map_in(x, n, a->in_res);
    const Map plain = a->s.plain ? map_out(x, n, 0) : (Map){0};
    const Map dx = map_gin(x, n, 0), dr = map_gin(x, n, a->in_res);
    const Map dz_all = dr.data ? dr : dx;
    float *dgamma = a->in_scale < 0 ? NULL : exec_gin(x, n, a->in_scale);
    float *dbeta = a->in_shift < 0 ? NULL : exec_gin(x, n, a->in_shift);
    void *scratch = exec_scratch_bwd(x, n);
    float *sc = table(a, scratch, 0), *sh = table(a, scratch, 1), *mean = table(a, scratch, 2);
    Grads gr = {{0}, {0}, {{0}}};

    for (int k = 0; k < n->nout; k++) {
        const int to = k + !a->s.plain;
        gr.n[to] = exec_gout_parts(x, n, k, gr.part[to]);
        gr.type[to] = x->g->v[n->out[k]].t.dtype;
    }
    if (norm) {
        widen(a, saved(x, n, SV_SCALE), sc);
        widen(a, saved(x, n, SV_SHIFT), sh);
        widen(a, saved(x, n, SV_MEAN), mean);
    }
    PARALLEL_FOR(g, a->groups)
    {
        size_t t0 = (size_t)g * a->per_group, t1 = t0 + a->per_group;
        double *to = sums(a, scratch, (size_t)g);
        _Alignas(64) float ta[MAX_TILE], tg[MAX_TILE], t1b[MAX_TILE], t2b[MAX_TILE], tz[MAX_TILE],
            tx[MAX_TILE], tr[MAX_TILE];
        memset(to, 0, a->nsums * sizeof *to);
        for (size_t t = t0; t < t1 && t < a->tiles; t++) {
            size_t at = t * a->tile, len = tile_len(a, t);
            const float *xs = piece(src, at, len, tx);
            const float *act =
                plain.data ? piece(plain, at, len, ta)
                           : activate(a, xs, res.data ? piece(res, at, len, tr) : NULL, sc, sh, len,
                                      ta);
            const float *da = collect(a, &gr, act, at, len, to + 2 * a->c, tg, t1b, t2b);
            float *dz = dz_all.data ? room(dz_all, at, tz) : tz;
            if (norm) {
                memset(t1b, 0, a->wide * sizeof *t1b);
                memset(t2b, 0, a->wide * sizeof *t2b);
            }
            mask_and_sum(a, da, act, xs, mean, len, dz, t1b, t2b);
            if (dz_all.data) put(dz, dz_all, at, len);
            if (!norm) {
                if (dr.data && dx.data) put(dz, dx, at, len);
                continue;
            }
            flush(a, t1b, t2b, to);
        }
    }
    for (int k = 0; k < a->s.nq; k++) {
        double acc[Q_MAX_ACC];
        for (size_t i = 0; i < Q_MAX_ACC; i++)
            acc[i] = group_sum(a, scratch, 2 * a->c + (size_t)k * Q_MAX_ACC + i);
        if (gr.n[1 + k] && a->s.q[k]->fn->end) a->s.q[k]->fn->end(a->s.q[k], acc);
    }
    if (!norm) return;
    {
        float *m1 = table(a, scratch, 1),
              *kk = table(a, scratch, 3); /* the shift is no longer needed */
        const float *inv = saved(x, n, SV_INV);
        double m = (double)(a->m / a->c);
        for (size_t k = 0; k < a->c; k++) {
            double s1 = group_sum(a, scratch, k), s2 = group_sum(a, scratch, a->c + k);
            if (dbeta) dbeta[k] = (float)s1;
            if (dgamma) dgamma[k] = (float)(s2 * (double)inv[k]);
            m1[k] = a->s.norm == CHAIN_BATCH ? (float)(s1 / m) : 0;
            kk[k] =
                a->s.norm == CHAIN_BATCH ? (float)(s2 / m * (double)inv[k] * (double)inv[k]) : 0;
        }
        for (size_t i = a->c; i < a->wide; i++) m1[i] = m1[i - a->c], kk[i] = kk[i - a->c];
        if (!dx.data) return;
        PARALLEL_FOR(g, a->groups)
        {
            size_t t0 = (size_t)g * a->per_group, t1 = t0 + a->per_group;
            float tz[MAX_TILE], tx[MAX_TILE];
            for (size_t t = t0; t < t1 && t < a->tiles; t++) {
                size_t at = t * a->tile, len = tile_len(a, t);
                const float *xs = piece(src, at, len, tx), *dz = piece(dz_all, at, len, tz);
                float *to = room(dx, at, tz);
                k_dx(dz, xs, mean, m1, kk, sc, len, a->wide, to);
                put(to, dx, at, len);
            }
        }
    }
}

/* The least multiple of c and of 64, if that is not too long for the cache; else c itself. */
static size_t table_length(size_t c)
{
    size_t w = c;
    while (w % COLUMNS && w <= TILE) w += c;
    return w <= TILE ? w : c;
}

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    ChainNode *a = n->attr;
    (void)g, (void)p, (void)e;
    a->wide = table_length(a->c);
    a->tile = a->wide >= TILE ? a->wide : TILE / a->wide * a->wide;
    a->tiles = (a->m + a->tile - 1) / a->tile;
    a->per_group = (a->tiles + MAX_GROUPS - 1) / MAX_GROUPS;
    a->groups = (a->tiles + a->per_group - 1) / a->per_group;
    a->nsums = 2 * a->c + (size_t)a->s.nq * Q_MAX_ACC;
    if (a->s.norm != CHAIN_NO_NORM) n->save_bytes = SV_ROWS * a->c * sizeof(float);
    n->scratch_bytes =
        4 * a->wide * sizeof(float) + MEM_ALIGN + a->groups * a->nsums * sizeof(double);
    n->inplace = !n->run_bwd;
    n->grad_inplace = true;
    if (n->run_bwd) {
        bool recompute = !a->s.plain;
        n->bwd_in = (a->s.norm != CHAIN_NO_NORM || recompute ? 1u : 0) |
                    (recompute && a->in_res >= 0 ? 1u << a->in_res : 0);
        n->bwd_out = a->s.plain ? 1u : 0;
        for (int k = 0; k < a->s.nq; k++)
            for (int i = 0; i < a->s.q[k]->np; i++)
                if (a->s.q[k]->p[i]->kind != PK_BUFFER) a->s.q[k]->p[i]->trained = true;
    }
    return 0;
}

/* With quantizers of its own parameters backward runs even where the image is the input. */
static const OpDef op_chain = {"chain", OP_GRAD_PARTS | OP_BF16, prepare, forward, backward, NULL};
static const OpDef op_chain_q = {
    "chain_q", OP_GRAD_PARTS | OP_OWN_PARAMS | OP_BF16, prepare, forward, backward, NULL};

void graph_chain(Graph *g, const char *name, int x, const ChainSpec *c, int out[1 + CHAIN_MAX_Q])
{
    const Tensor *t = &g->v[x].t;
    Tensor shape = *t;
    ChainNode a = {.s = *c,
                   .m = tensor_len(t),
                   .c = (size_t)t->dim[1],
                   .in_res = -1,
                   .in_scale = -1,
                   .in_shift = -1};
    int in[4] = {x}, nin = 1, node;
    ASSERT(a.c <= CHAIN_MAX_CHANNELS, "%s: %zu channels", name, a.c);
    if (c->residual >= 0) in[a.in_res = nin++] = c->residual;
    if (c->norm != CHAIN_NO_NORM && c->scale >= 0) in[a.in_scale = nin++] = c->scale;
    if (c->norm != CHAIN_NO_NORM && c->shift >= 0) in[a.in_shift = nin++] = c->shift;
    node = graph_node(g, c->nq ? &op_chain_q : &op_chain, name, nin, in, &a, sizeof a);
    out[0] = c->plain ? graph_out(g, node, shape) : -1;
    for (int k = 0; k < c->nq; k++) out[1 + k] = graph_out(g, node, shape);
}
