/* quant/f8net_path.c -- what happens to F8Net's numbers between layers: sums of numbers that are in
 * units of different layers, and the average pool that is a shift. */
#include <string.h>

#include "engine/par.h"
#include "quant/f8net.h"

/* ---- sum ---- */

typedef struct SumNode {
    F8Layer from, to;
    size_t len;
    bool relu;
} SumNode;

static int sum_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const SumNode *a = n->attr;
    (void)p, (void)e;
    *(g->train ? &n->save_bytes : &n->scratch_bytes) = sizeof(float);
    n->bwd_out = a->relu;
    return 0;
}

/* The factor is that of the forward pass: averages move in between. */
static float *factor(const Node *n, const Exec *x)
{
    return n->save_bytes ? exec_save(x, n) : exec_scratch(x, n);
}

static void sum_forward(Node *n, Exec *x)
{
    const SumNode *a = n->attr;
    const float *u = exec_in(x, n, 0), *v = exec_in(x, n, 1), f = f8net_rescaling(&a->from, &a->to);
    float *y = exec_out(x, n, 0);
    *factor(n, x) = f;
    PARALLEL_FOR(k, par_chunks(a->len))
    {
        const size_t at = (size_t)k * PAR_CHUNK, m = par_chunk_len(a->len, (size_t)k);
        if (a->relu) SIMD_FOR(i, m)
            {
                const float t = u[at + i] + v[at + i] * f;
                y[at + i] = t <= 0 ? 0 : t; /* NaN stays NaN */
            }
        else
            SIMD_FOR(i, m) y[at + i] = u[at + i] + v[at + i] * f;
    }
}

static void sum_backward(Node *n, Exec *x)
{
    const SumNode *a = n->attr;
    const float *dy = exec_gout(x, n, 0), *y = a->relu ? exec_out(x, n, 0) : NULL,
                f = *factor(n, x);
    float *du = exec_gin(x, n, 0), *dv = exec_gin(x, n, 1);
    PARALLEL_FOR(k, par_chunks(a->len))
    {
        const size_t at = (size_t)k * PAR_CHUNK, end = at + par_chunk_len(a->len, (size_t)k);
        for (size_t i = at; i < end; i++) {
            const float d = !y || y[i] > 0 ? dy[i] : 0;
            if (du) du[i] = d;
            if (dv) dv[i] = d * f;
        }
    }
}

static const OpDef op_sum = {
    .name = "f8_sum", .prepare = sum_prepare, .forward = sum_forward, .backward = sum_backward};

int graph_f8_sum(Graph *g, const char *name, int a, int b, const F8Layer *from, const F8Layer *to,
                 bool relu)
{
    const Tensor t = g->v[a].t;
    const int in[] = {a, b};
    SumNode s = {.from = *from, .to = *to, .len = tensor_len(&t), .relu = relu};
    return graph_out(g, graph_node(g, &op_sum, name, 2, in, &s, sizeof s), t);
}

/* ---- average pool by a shift ---- */

typedef struct PoolNode {
    size_t n, map, c;
    float scale;
} PoolNode;

static void pool_forward(Node *n, Exec *x)
{
    const PoolNode *a = n->attr;
    const float *src = exec_in(x, n, 0);
    float *dst = exec_out(x, n, 0);
    PARALLEL_FOR(i, a->n)
    {
        const float *u = src + (size_t)i * a->map * a->c;
        float *v = dst + (size_t)i * a->c;
        memset(v, 0, a->c * sizeof *v);
        for (size_t p = 0; p < a->map; p++) SIMD_FOR(k, a->c) v[k] += u[p * a->c + k];
        SIMD_FOR(k, a->c) v[k] *= a->scale;
    }
}

static void pool_backward(Node *n, Exec *x)
{
    const PoolNode *a = n->attr;
    const float *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0);
    PARALLEL_FOR(i, a->n * a->map)
    {
        const float *d = dy + (size_t)i / a->map * a->c;
        SIMD_FOR(k, a->c) dx[(size_t)i * a->c + k] = d[k] * a->scale;
    }
}

static const OpDef op_pool = {
    .name = "f8_pool", .forward = pool_forward, .backward = pool_backward};

int graph_f8_pool(Graph *g, const char *name, int x, int shift)
{
    const Tensor t = g->v[x].t;
    PoolNode a = {.n = (size_t)t.dim[0],
                  .map = (size_t)t.dim[2] * (size_t)t.dim[3],
                  .c = (size_t)t.dim[1],
                  .scale = 1.0f / (float)(1 << shift)};
    return graph_out(g, graph_node(g, &op_pool, name, 1, &x, &a, sizeof a),
                     tensor_nhwc(t.dim[0], t.dim[1], 1, 1));
}
