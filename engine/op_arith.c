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

/* Sums go to chunks, then over them in their order: the same for any number of threads. */
static int prepare_scalar(Graph *g, Node *n, unsigned bwd_in)
{
    n->inplace = n->grad_inplace = true;
    if (!n->run_bwd) return 0;
    n->bwd_in = bwd_in;
    n->scratch_bytes = par_chunks(tensor_len(&g->v[n->in[0]].t)) * sizeof(double);
    return 0;
}

static float sum_chunks(const double *part, size_t chunks)
{
    double sum = 0;
    for (size_t c = 0; c < chunks; c++) sum += part[c];
    return (float)sum;
}

static int scale_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)p, (void)e;
    return prepare_scalar(g, n, 3);
}

static int shift_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)p, (void)e;
    return prepare_scalar(g, n, 0);
}

static void scale_forward(Node *n, Exec *x)
{
    const float *u = exec_in(x, n, 0), s = *(const float *)exec_in(x, n, 1);
    float *y = exec_out(x, n, 0);
    PARALLEL_FOR(i, tensor_len(&x->g->v[n->in[0]].t)) y[i] = u[i] * s;
}

static void scale_backward(Node *n, Exec *x)
{
    const float *u = exec_in(x, n, 0), s = *(const float *)exec_in(x, n, 1), *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0), *ds = exec_gin(x, n, 1);
    const size_t len = tensor_len(&x->g->v[n->in[0]].t);
    double *part = exec_scratch_bwd(x, n);
    PARALLEL_FOR(c, par_chunks(len))
    {
        const size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        double sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = 0; i < m; i++) sum += (double)dy[at + i] * (double)u[at + i];
        part[c] = sum;
        if (!dx) continue;
        SIMD_FOR(i, m) dx[at + i] = dy[at + i] * s;
    }
    if (ds) *ds = sum_chunks(part, par_chunks(len));
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
    const size_t len = tensor_len(&x->g->v[n->in[0]].t);
    double *part = exec_scratch_bwd(x, n);
    PARALLEL_FOR(c, par_chunks(len))
    {
        const size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        double sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = 0; i < m; i++) sum += (double)dy[at + i];
        part[c] = sum;
        if (dx && dx != dy) memcpy(dx + at, dy + at, m * sizeof *dx);
    }
    if (ds) *ds = sum_chunks(part, par_chunks(len));
}

static const OpDef op_scale = {"scale", 0, scale_prepare, scale_forward, scale_backward, NULL};
static const OpDef op_shift = {"shift", 0, shift_prepare, shift_forward, shift_backward, NULL};

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
