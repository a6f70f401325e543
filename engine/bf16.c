/* engine/bf16.c -- see bf16.h. */
#include "engine/bf16.h"

#include <stdlib.h>

#include "engine/exec.h"

void bf16_copy(const void *from, DType tf, void *to, DType tt, size_t n)
{
    PARALLEL_FOR(c, par_chunks(n))
    {
        const size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(n, (size_t)c);
        float buf[PAR_CHUNK];
        bf16_put(bf16_piece(from, tf, at, m, buf), to, tt, at, m);
    }
}

/* ---- cast: from one type to the other ---- */

static void cast_forward(Node *n, Exec *x)
{
    const Tensor a = exec_in_tensor(x, n, 0), b = exec_out_tensor(x, n, 0);
    bf16_copy(a.data, a.dtype, b.data, b.dtype, tensor_len(&a));
}

static void cast_backward(Node *n, Exec *x)
{
    const Tensor *a = &x->g->v[n->in[0]].t, *b = &x->g->v[n->out[0]].t;
    bf16_copy(exec_gout(x, n, 0), b->dtype, exec_gin(x, n, 0), a->dtype, tensor_len(a));
}

static const OpDef op_cast = {
    .name = "cast", .flags = OP_BF16, .forward = cast_forward, .backward = cast_backward};

/* ---- the types of a graph ---- */

/* The type in which node n reads its input k. */
static DType type_read(const Graph *g, const Node *n, int k)
{
    const Value *v = &g->v[n->in[k]];
    if (v->param || (v->t.dtype != DT_F32 && v->t.dtype != DT_BF16)) return v->t.dtype;
    if (!n->bf16) return DT_F32;
    if (!(n->op->flags & OP_BF16_FIRST)) return v->t.dtype;
    return k == 0 ? DT_BF16 : DT_F32;
}

/* Outputs that another node can read as bf16. */
static void narrow(Graph *g)
{
    for (int i = 0; i < g->nn; i++) {
        const Node *n = &g->n[i];
        for (int k = 0; k < n->nin; k++) {
            Value *v = &g->v[n->in[k]];
            if (!n->bf16 || (k && (n->op->flags & OP_BF16_FIRST))) continue;
            if (v->producer < 0 || v->keep || v->t.dtype != DT_F32) continue;
            if (g->n[v->producer].bf16) v->t.dtype = DT_BF16;
        }
    }
}

void bf16_types(Graph *g)
{
    const int nodes = g->nn, values = g->nv;
    Node *old = g->n;
    int *twin = xcalloc((size_t)values + 1, sizeof *twin); /* the value in its other type */

    narrow(g);
    for (int i = 0; i < values; i++) twin[i] = -1;
    g->n = NULL;
    g->nn = 0;
    g->cap_n = 0;
    for (int i = 0; i < nodes; i++) {
        for (int k = 0; k < old[i].nin; k++) {
            const int v = old[i].in[k];
            const DType want = type_read(g, &old[i], k);
            if (want == g->v[v].t.dtype) continue;
            if (twin[v] < 0) {
                Tensor t = g->v[v].t;
                t.dtype = want;
                twin[v] = graph_out(g, graph_node(g, &op_cast, g->v[v].name, 1, &v, NULL, 0), t);
            }
            old[i].in[k] = twin[v];
        }
        mem_grow(&g->n, &g->cap_n, (size_t)g->nn + 1, sizeof *g->n);
        for (int k = 0; k < old[i].nout; k++) g->v[old[i].out[k]].producer = g->nn;
        g->n[g->nn++] = old[i];
    }
    free(old);
    free(twin);
}
