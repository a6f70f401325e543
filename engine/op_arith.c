/* engine/op_arith.c -- sum of two maps, and a trained scalar times or plus a map. */
#include <string.h>

#include "engine/ops.h"
#include "engine/par.h"

/* The gradient of a sum is that of each addend: mostly nothing runs backward (OP_GRAD_ALIAS). */
static void add_forward(Node *n, Exec *x)
{
    const float *a = exec_in(x, n, 0), *b = exec_in(x, n, 1);
    float *y = exec_out(x, n, 0);
    size_t len = tensor_len(&x->g->v[n->in[0]].t);
    PARALLEL_FOR(c, par_chunks(len))
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        SIMD_FOR(i, m) y[at + i] = a[at + i] + b[at + i];
    }
}

static void add_backward(Node *n, Exec *x)
{
    const float *dy = exec_gout(x, n, 0);
    size_t len = tensor_len(&x->g->v[n->out[0]].t);
    for (int k = 0; k < 2; k++) {
        float *dx = exec_gin(x, n, k);
        if (!dx) continue;
        PARALLEL_FOR(c, par_chunks(len))
        {
            size_t at = (size_t)c * PAR_CHUNK;
            memcpy(dx + at, dy + at, par_chunk_len(len, (size_t)c) * sizeof *dx);
        }
    }
}

static int add_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)p, (void)e;
    n->inplace = !g->train;
    return 0;
}

static const OpDef op_add = {"add", OP_GRAD_ALIAS, add_prepare, add_forward, add_backward, NULL};

int graph_add(Graph *g, const char *name, int a, int b)
{
    int in[2] = {a, b};
    ASSERT(tensor_same_shape(&g->v[a].t, &g->v[b].t), "%s: shapes differ", name);
    return graph_out(g, graph_node(g, &op_add, name, 2, in, NULL, 0), g->v[a].t);
}

static int scalar_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)p, (void)e;
    n->bwd_in = n->run_bwd ? 3 : 0;
    if (n->run_bwd) n->scratch_bytes = par_chunks(tensor_len(&g->v[n->in[0]].t)) * sizeof(double);
    return 0;
}

static void scale_forward(Node *n, Exec *x)
{
    const float *u = exec_in(x, n, 0), s = *(const float *)exec_in(x, n, 1);
    float *y = exec_out(x, n, 0);
    PARALLEL_FOR(i, tensor_len(&x->g->v[n->in[0]].t)) y[i] = u[i] * s;
}

/* Sum over chunks in chunk order: independent of the threads. part: room for one sum per chunk. */
static double chunked_dot(const float *a, const float *b, size_t len, double *part)
{
    size_t chunks = par_chunks(len);
    double sum = 0;
    PARALLEL_FOR(c, chunks)
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        double s = 0;
        for (size_t i = 0; i < m; i++) s += (double)a[at + i] * (b ? (double)b[at + i] : 1);
        part[c] = s;
    }
    for (size_t c = 0; c < chunks; c++) sum += part[c];
    return sum;
}

static void scale_backward(Node *n, Exec *x)
{
    const float *u = exec_in(x, n, 0), s = *(const float *)exec_in(x, n, 1),
                *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0), *ds = exec_gin(x, n, 1);
    size_t len = tensor_len(&x->g->v[n->in[0]].t);
    if (ds) *ds = (float)chunked_dot(dy, u, len, exec_scratch_bwd(x, n));
    if (!dx) return;
    PARALLEL_FOR(i, len) dx[i] = dy[i] * s;
}

static void shift_forward(Node *n, Exec *x)
{
    const float *u = exec_in(x, n, 0), s = *(const float *)exec_in(x, n, 1);
    float *y = exec_out(x, n, 0);
    PARALLEL_FOR(i, tensor_len(&x->g->v[n->in[0]].t)) y[i] = u[i] + s;
}

static void shift_backward(Node *n, Exec *x)
{
    const float *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0), *ds = exec_gin(x, n, 1);
    size_t len = tensor_len(&x->g->v[n->in[0]].t);
    if (ds) *ds = (float)chunked_dot(dy, NULL, len, exec_scratch_bwd(x, n));
    if (!dx) return;
    PARALLEL_FOR(i, len) dx[i] = dy[i];
}

static const OpDef op_scale = {"scale", 0, scalar_prepare, scale_forward, scale_backward, NULL};
static const OpDef op_shift = {"shift", 0, scalar_prepare, shift_forward, shift_backward, NULL};

int graph_scale(Graph *g, const char *name, int x, int scalar)
{
    int in[2] = {x, scalar};
    return graph_out(g, graph_node(g, &op_scale, name, 2, in, NULL, 0), g->v[x].t);
}

int graph_shift(Graph *g, const char *name, int x, int scalar)
{
    int in[2] = {x, scalar};
    return graph_out(g, graph_node(g, &op_shift, name, 2, in, NULL, 0), g->v[x].t);
}
