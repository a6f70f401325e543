/* engine/op_pool.c -- max and average pooling on oneDNN; global average pooling by our own loop. */
#include <string.h>

#include "engine/ops.h"
#include "engine/par.h"

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    PrimPool *m = prim_pool_new(p, n->attr, g->train, e);
    if (!m) return -1;
    n->state = m;
    n->save_bytes = prim_pool_workspace(m);
    n->scratch_bytes = prim_pool_scratch(m);
    return 0;
}

static void forward(Node *n, Exec *x)
{
    prim_pool_fwd(n->state, exec_in(x, n, 0), exec_out(x, n, 0), exec_save(x, n),
                  exec_scratch(x, n));
}

static void backward(Node *n, Exec *x)
{
    prim_pool_bwd(n->state, exec_gout(x, n, 0), exec_gin(x, n, 0), exec_save(x, n),
                  exec_scratch_bwd(x, n));
}

static void release(Node *n)
{
    prim_pool_free(n->state);
}

static const OpDef op_pool = {"pool", 0, prepare, forward, backward, release};

static void global_forward(Node *n, Exec *x)
{
    const PoolShape *s = n->attr;
    const float *src = exec_in(x, n, 0);
    float *dst = exec_out(x, n, 0);
    size_t map = (size_t)s->ih * (size_t)s->iw, c = (size_t)s->c;
    const float count = (float)map;
    PARALLEL_FOR(i, s->n)
    {
        const float *u = src + (size_t)i * map * c;
        float *v = dst + (size_t)i * c;
        memset(v, 0, c * sizeof *v);
        for (size_t p = 0; p < map; p++) {
            SIMD_FOR(k, c) v[k] += u[p * c + k];
        }
        SIMD_FOR(k, c) v[k] /= count;
    }
}

static void global_backward(Node *n, Exec *x)
{
    const PoolShape *s = n->attr;
    const float *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0);
    size_t map = (size_t)s->ih * (size_t)s->iw, c = (size_t)s->c;
    const float count = (float)map;
    PARALLEL_FOR(i, s->n)
    {
        for (size_t p = 0; p < map; p++) {
            SIMD_FOR(k, c) dx[((size_t)i * map + p) * c + k] = dy[(size_t)i * c + k] / count;
        }
    }
}

static const OpDef op_global = {"global_avg", 0, NULL, global_forward, global_backward, NULL};

int graph_pool(Graph *g, const char *name, int x, PoolAttr a, int oh, int ow)
{
    const Tensor *t = &g->v[x].t;
    PoolShape s = {t->dim[0], t->dim[1], t->dim[2], t->dim[3],          oh,         ow, a.k,
                   a.k,       a.stride,  a.pad,     a.kind == POOL_MAX, a.count_pad};
    const OpDef *op = a.kind == POOL_GLOBAL_AVG ? &op_global : &op_pool;
    return graph_out(g, graph_node(g, op, name, 1, &x, &s, sizeof s),
                     tensor_nhwc(s.n, s.c, oh, ow));
}
