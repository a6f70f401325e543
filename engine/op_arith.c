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

/* b NULL: ones. */
static double sum_of_products(const float *a, const float *b, size_t n)
{
    double sum = 0;
    if (b) {
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    } else {
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = 0; i < n; i++) sum += (double)a[i];
    }
    return sum;
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

/* u: what the scalar multiplies; NULL: it is added. */
static void scalar_backward(Node *n, Exec *x, const float *u)
{
    const float *dy = exec_gout(x, n, 0), s = u ? *(const float *)exec_in(x, n, 1) : 1;
    float *dx = exec_gin(x, n, 0), *ds = exec_gin(x, n, 1);
    const size_t len = tensor_len(&x->g->v[n->in[0]].t), chunks = par_chunks(len);
    double *part = exec_scratch_bwd(x, n), sum = 0;
    PARALLEL_FOR(c, chunks)
    {
        const size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        part[c] = sum_of_products(dy + at, u ? u + at : NULL, m);
        if (!dx) continue;
        if (u) {
            SIMD_FOR(i, m) dx[at + i] = dy[at + i] * s;
        } else if (dx != dy) {
            memcpy(dx + at, dy + at, m * sizeof *dx);
        }
    }
    for (size_t c = 0; c < chunks; c++) sum += part[c];
    if (ds) *ds = (float)sum;
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
    scalar_backward(n, x, exec_in(x, n, 0));
}

static void shift_forward(Node *n, Exec *x)
{
    const float *u = exec_in(x, n, 0), s = *(const float *)exec_in(x, n, 1);
    float *y = exec_out(x, n, 0);
    PARALLEL_FOR(i, tensor_len(&x->g->v[n->in[0]].t)) y[i] = u[i] + s;
}

static void shift_backward(Node *n, Exec *x)
{
    scalar_backward(n, x, NULL);
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
