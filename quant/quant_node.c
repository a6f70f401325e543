/* quant/quant_node.c -- a quantizer as a node of its own: graph_quant of chain.h. */
#include "quant/chain.h"

static QCtx context(const Node *n, Exec *x, void *scratch)
{
    QCtx c = {.phase = (Phase)x->phase,
              .save = exec_save(x, n),
              .scratch = scratch,
              .aux_loss = &x->aux_loss};
    return c;
}

static int quant_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    QInst *q = *(QInst **)n->attr;
    (void)p, (void)e;
    qinst_need(q, &g->v[n->in[0]].t, g->train ? PH_TRAIN : PH_EVAL, &n->save_bytes,
               &n->scratch_bytes);
    n->bwd_in = n->run_bwd ? 1 : 0;
    n->inplace = !g->train && !q->fn->forward && !n->hoisted;
    n->grad_inplace = !q->fn->backward;
    for (int i = 0; n->run_bwd && i < q->np; i++)
        if (q->p[i]->kind != PK_BUFFER) q->p[i]->trained = true;
    return 0;
}

static void quant_forward(Node *n, Exec *x)
{
    Tensor src = exec_in_tensor(x, n, 0), dst = exec_out_tensor(x, n, 0);
    QCtx c = context(n, x, exec_scratch(x, n));
    QInst *q = *(QInst **)n->attr;
    qinst_forward(q, &src, &dst, &c);
    if (q->fault) x->fault = q->fault;
}

static void quant_backward(Node *n, Exec *x)
{
    Tensor src = exec_in_tensor(x, n, 0), dy = exec_out_tensor(x, n, 0), dx = src;
    QCtx c = context(n, x, exec_scratch_bwd(x, n));
    union {
        const float *c;
        void *p;
    } u = {exec_gout(x, n, 0)}; /* backward only reads it */
    dy.data = u.p;
    dx.data = exec_gin(x, n, 0);
    c.want_dx = dx.data != NULL;
    qinst_backward(*(QInst **)n->attr, &src, &dy, dx.data ? &dx : NULL, &c);
}

static const OpDef op_quant_w = {
    "quant_w", OP_OWN_PARAMS | OP_HOISTABLE, quant_prepare, quant_forward, quant_backward, NULL};
static const OpDef op_quant = {"quant",       OP_OWN_PARAMS,  quant_prepare,
                               quant_forward, quant_backward, NULL};

int graph_quant(Graph *g, const char *name, int x, QInst *q)
{
    return graph_out(
        g, graph_node(g, q->role == Q_WEIGHT ? &op_quant_w : &op_quant, name, 1, &x, &q, sizeof q),
        g->v[x].t);
}
