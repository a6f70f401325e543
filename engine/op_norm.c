/* engine/op_norm.c -- running statistics of batch norms; norms with statistics of each image; scale
 * and shift of channels alone. The batch norm itself is a chain, alone or with what follows
 * (quant/chain.c): oneDNN's was measured to be off by 8e-6 in the mean and 3e-6 in the variance of a
 * 16x16x32x32 map, which is enough to move quantization levels.
 *
 * Group norm (one channel a group: instance norm): Wu and He 2018. An image is the unit of parallel
 * work; sums of channels over images are added in image order. */
#include <math.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/par.h"

void norm_update_running(const NormStats *st, const float *mean, const float *var, int c, double m)
{
    float *rm = st->mean->value.data, *rv = st->var->value.data;
    double unbias = m > 1 ? m / (m - 1) : 1;
    for (int i = 0; i < c; i++) {
        rm[i] = st->momentum * mean[i] + (1 - st->momentum) * rm[i];
        rv[i] = st->momentum * (float)((double)var[i] * unbias) + (1 - st->momentum) * rv[i];
    }
    if (st->count) ++*(int64_t *)st->count->value.data;
    param_touch(st->mean);
    param_touch(st->var);
    if (st->count) param_touch(st->count);
}

/* ---- statistics of each image ---- */

typedef struct GroupNode {
    int groups;
    float eps;
} GroupNode;

typedef struct Map {
    size_t n, c, pixels, cg; /* cg: channels of a group */
} Map;

static Map map_of(const Exec *x, const Node *n, int groups)
{
    const Tensor *t = &x->g->v[n->in[0]].t;
    Map m = {(size_t)t->dim[0], (size_t)t->dim[1], 0, 0};
    m.pixels = tensor_len(t) / m.n / m.c;
    m.cg = m.c / (size_t)groups;
    return m;
}

/* Sums a term over one group of one image; `at` is the element's place in the image. */
#define GROUP_SUM(sum, m, g, term)                                                                 \
    do {                                                                                           \
        (sum) = 0;                                                                                 \
        for (size_t p_ = 0; p_ < (m).pixels; p_++)                                                 \
            for (size_t at = p_ * (m).c + (g) * (m).cg; at < p_ * (m).c + ((g) + 1) * (m).cg;      \
                 at++)                                                                             \
                (sum) += (term);                                                                   \
    } while (0)

static int group_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const GroupNode *a = n->attr;
    const Tensor *t = &g->v[n->in[0]].t;
    (void)p, (void)e;
    n->save_bytes = (size_t)t->dim[0] * (size_t)a->groups * 2 * sizeof(float);
    n->bwd_in = n->run_bwd ? 3 : 0;
    if (n->run_bwd && n->nin > 1)
        n->scratch_bytes = (size_t)t->dim[0] * (size_t)t->dim[1] * 2 * sizeof(double);
    return 0;
}

static void group_forward(Node *n, Exec *x)
{
    const GroupNode *a = n->attr;
    const Map m = map_of(x, n, a->groups);
    const float *src = exec_in(x, n, 0), *w = n->nin > 1 ? exec_in(x, n, 1) : NULL,
                *b = n->nin > 1 ? exec_in(x, n, 2) : NULL;
    float *dst = exec_out(x, n, 0), *stats = exec_save(x, n); /* mean, 1 / deviation */
    const double count = (double)(m.pixels * m.cg);
    PARALLEL_FOR(i, m.n)
    {
        const float *u = src + (size_t)i * m.pixels * m.c;
        float *y = dst + (size_t)i * m.pixels * m.c;
        for (size_t g = 0; g < m.c / m.cg; g++) {
            float *st = stats + 2 * ((size_t)i * (m.c / m.cg) + g);
            double mean, var;
            GROUP_SUM(mean, m, g, (double)u[at]);
            mean /= count;
            GROUP_SUM(var, m, g, ((double)u[at] - mean) * ((double)u[at] - mean));
            st[0] = (float)mean;
            st[1] = (float)(1 / sqrt(var / count + (double)a->eps));
        }
        for (size_t p = 0; p < m.pixels; p++)
            for (size_t c = 0; c < m.c; c++) {
                const float *st = stats + 2 * ((size_t)i * (m.c / m.cg) + c / m.cg);
                const float h = (u[p * m.c + c] - st[0]) * st[1];
                y[p * m.c + c] = w ? h * w[c] + b[c] : h;
            }
    }
}

/* part: per image the sums of dy h and of dy for each channel. */
static void group_affine_gradient(const Map *m, const double *part, float *dw, float *db)
{
    PARALLEL_FOR(c, m->c)
    {
        double w = 0, b = 0;
        for (size_t i = 0; i < m->n; i++) {
            w += part[(i * m->c + (size_t)c) * 2];
            b += part[(i * m->c + (size_t)c) * 2 + 1];
        }
        if (dw) dw[c] = (float)w;
        if (db) db[c] = (float)b;
    }
}

static void group_backward(Node *n, Exec *x)
{
    const GroupNode *a = n->attr;
    const Map m = map_of(x, n, a->groups);
    const float *src = exec_in(x, n, 0), *w = n->nin > 1 ? exec_in(x, n, 1) : NULL,
                *grad = exec_gout(x, n, 0), *stats = exec_save(x, n);
    float *dx = exec_gin(x, n, 0), *dw = w ? exec_gin(x, n, 1) : NULL,
          *db = w ? exec_gin(x, n, 2) : NULL;
    double *part = dw || db ? exec_scratch_bwd(x, n) : NULL;
    const double count = (double)(m.pixels * m.cg);
    PARALLEL_FOR(i, m.n)
    {
        const float *u = src + (size_t)i * m.pixels * m.c, *d = grad + (size_t)i * m.pixels * m.c;
        float *out = dx ? dx + (size_t)i * m.pixels * m.c : NULL;
        double *sums = part ? part + (size_t)i * m.c * 2 : NULL;
        if (sums) memset(sums, 0, m.c * 2 * sizeof *sums);
        for (size_t g = 0; g < m.c / m.cg; g++) {
            const float *st = stats + 2 * ((size_t)i * (m.c / m.cg) + g);
            double sd, sdh;
#define HAT ((double)(u[at] - st[0]) * (double)st[1])
#define DHAT ((double)d[at] * (w ? (double)w[at % m.c] : 1))
            if (sums)
                for (size_t c = g * m.cg; c < (g + 1) * m.cg; c++)
                    for (size_t at = c; at < m.pixels * m.c; at += m.c) {
                        sums[2 * c] += (double)d[at] * HAT;
                        sums[2 * c + 1] += (double)d[at];
                    }
            if (!out) continue;
            GROUP_SUM(sd, m, g, DHAT);
            GROUP_SUM(sdh, m, g, DHAT * HAT);
            for (size_t p = 0; p < m.pixels; p++)
                for (size_t at = p * m.c + g * m.cg; at < p * m.c + (g + 1) * m.cg; at++)
                    out[at] = (float)((DHAT - sd / count - HAT * (sdh / count)) * (double)st[1]);
#undef HAT
#undef DHAT
        }
    }
    if (part) group_affine_gradient(&m, part, dw, db);
}

static const OpDef op_group_norm = {"group norm",   0,    group_prepare, group_forward,
                                    group_backward, NULL};

int graph_group_norm(Graph *g, const char *name, int x, int groups, float eps, int scale,
                     int shift)
{
    const GroupNode a = {groups, eps};
    const int in[3] = {x, scale, shift}, c = g->v[x].t.dim[1];
    ASSERT(groups >= 1 && c % groups == 0, "%s: %d groups of %d channels", name, groups, c);
    ASSERT((scale < 0) == (shift < 0), "%s: scale without shift", name);
    return graph_out(g, graph_node(g, &op_group_norm, name, scale < 0 ? 1 : 3, in, &a, sizeof a),
                     g->v[x].t);
}

/* ---- scale and shift of channels ---- */

static int affine_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const Tensor *t = &g->v[n->in[0]].t;
    (void)p, (void)e;
    n->bwd_in = n->run_bwd ? 3 : 0;
    if (n->run_bwd) n->scratch_bytes = (size_t)t->dim[0] * (size_t)t->dim[1] * 2 * sizeof(double);
    return 0;
}

static void affine_forward(Node *n, Exec *x)
{
    const Map m = map_of(x, n, 1);
    const float *src = exec_in(x, n, 0), *w = exec_in(x, n, 1), *b = exec_in(x, n, 2);
    float *dst = exec_out(x, n, 0);
    PARALLEL_FOR(p, m.n * m.pixels)
    {
        const size_t at = (size_t)p * m.c;
        SIMD_FOR(c, m.c) dst[at + c] = src[at + c] * w[c] + b[c];
    }
}

static void affine_backward(Node *n, Exec *x)
{
    const Map m = map_of(x, n, 1);
    const float *src = exec_in(x, n, 0), *w = exec_in(x, n, 1), *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0), *dw = exec_gin(x, n, 1), *db = exec_gin(x, n, 2);
    double *part = exec_scratch_bwd(x, n);
    PARALLEL_FOR(i, m.n)
    {
        double *sums = part + (size_t)i * m.c * 2;
        memset(sums, 0, m.c * 2 * sizeof *sums);
        for (size_t p = 0; p < m.pixels; p++) {
            const size_t at = ((size_t)i * m.pixels + p) * m.c;
            for (size_t c = 0; c < m.c; c++) {
                sums[2 * c] += (double)dy[at + c] * (double)src[at + c];
                sums[2 * c + 1] += (double)dy[at + c];
            }
            if (!dx) continue;
            SIMD_FOR(c, m.c) dx[at + c] = dy[at + c] * w[c];
        }
    }
    if (dw || db) group_affine_gradient(&m, part, dw, db);
}

static const OpDef op_channel_affine = {"channel affine", 0,    affine_prepare, affine_forward,
                                        affine_backward,  NULL};

int graph_channel_affine(Graph *g, const char *name, int x, int scale, int shift)
{
    const int in[3] = {x, scale, shift};
    return graph_out(g, graph_node(g, &op_channel_affine, name, 3, in, NULL, 0), g->v[x].t);
}
