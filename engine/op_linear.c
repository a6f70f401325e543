/* engine/op_linear.c -- inner product: y = x w^T + b, by oneDNN's sgemm; in bf16 graphs a
 * convolution of maps of one pixel (op_conv.c). */
#include "engine/ops.h"
#include "engine/par.h"

typedef struct LinearShape {
    int n, ic, oc;
} LinearShape;

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const LinearShape *s = n->attr;
    (void)g, (void)p, (void)e;
    n->bwd_in = (n->gin_wanted[1] ? 1u : 0) | (n->gin_wanted[0] ? 2u : 0);
    n->flops = 2.0 * s->n * s->ic * s->oc;
    n->impl = "sgemm";
    return 0;
}

static void forward(Node *n, Exec *x)
{
    const LinearShape *s = n->attr;
    float *y = exec_out(x, n, 0);
    prim_sgemm(false, true, s->n, s->oc, s->ic, 1, exec_in(x, n, 0), s->ic, exec_in(x, n, 1), s->ic,
               0, y, s->oc);
    if (n->nin > 2) {
        const float *b = exec_in(x, n, 2);
        for (int i = 0; i < s->n; i++)
            for (int o = 0; o < s->oc; o++) y[(size_t)i * (size_t)s->oc + (size_t)o] += b[o];
    }
}

static void backward(Node *n, Exec *x)
{
    const LinearShape *s = n->attr;
    const float *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0), *dw = exec_gin(x, n, 1),
          *db = n->nin > 2 ? exec_gin(x, n, 2) : NULL;
    if (dw)
        prim_sgemm(true, false, s->oc, s->ic, s->n, 1, dy, s->oc, exec_in(x, n, 0), s->ic, 0, dw,
                   s->ic);
    if (dx)
        prim_sgemm(false, false, s->n, s->ic, s->oc, 1, dy, s->oc, exec_in(x, n, 1), s->ic, 0, dx,
                   s->ic);
    for (int o = 0; db && o < s->oc; o++) {
        double sum = 0;
        for (int i = 0; i < s->n; i++) sum += (double)dy[(size_t)i * (size_t)s->oc + (size_t)o];
        db[o] = (float)sum;
    }
}

static const OpDef op_linear = {"linear", 0, prepare, forward, backward, NULL};

int graph_linear(Graph *g, const char *name, int x, int w, int bias)
{
    const Tensor *tx = &g->v[x].t, *tw = &g->v[w].t;
    const int in[3] = {x, w, bias};
    LinearShape s = {tx->dim[0], (int)(tensor_len(tx) / (size_t)tx->dim[0]), tw->dim[0]};
    int dim[2] = {s.n, s.oc};
    ASSERT(tensor_len(tw) == (size_t)s.ic * (size_t)s.oc, "%s: %zu weights for %d x %d", name,
           tensor_len(tw), s.oc, s.ic);
    if (g->bf16) return graph_linear_as_conv(g, name, x, w, bias, s.n, s.ic, s.oc);
    return graph_out(g, graph_node(g, &op_linear, name, bias >= 0 ? 3 : 2, in, &s, sizeof s),
                     tensor_make(DT_F32, 2, dim, NULL));
}
