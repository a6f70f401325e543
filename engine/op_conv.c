/* engine/op_conv.c -- convolution on oneDNN. Packed copies of the weights are kept and renewed when
 * the weights change. */
#include <stdlib.h>

#include "engine/ops.h"

typedef struct ConvState {
    PrimConv *dir[3];    /* by ConvDir */
    void *packed[2];     /* of forward and backward-data; own memory */
    uint64_t version[2]; /* x->weights_version they were made at */
    size_t diff_off;     /* scratch: packed gradient, then the library's */
} ConvState;

static size_t round_up(size_t n)
{
    return (n + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    const ConvShape *s = n->attr;
    ConvState *st = n->state = xcalloc(1, sizeof *st);
    bool want[3] = {true, n->run_bwd && n->gin_wanted[0],
                    n->run_bwd && (n->gin_wanted[1] || (n->nin > 2 && n->gin_wanted[2]))};
    size_t scratch = 0;
    (void)g;
    for (int d = 0; d < 3; d++) {
        if (!want[d]) continue;
        st->dir[d] = prim_conv_new(p, (ConvDir)d, s, e);
        if (!st->dir[d]) return -1;
        if (prim_conv_scratch(st->dir[d]) > scratch) scratch = prim_conv_scratch(st->dir[d]);
        if (d < 2 && !prim_conv_plain(st->dir[d]))
            st->packed[d] = xaligned(prim_conv_packed_bytes(st->dir[d]));
    }
    st->diff_off = round_up(scratch);
    n->scratch_bytes = st->diff_off + (want[2] ? prim_conv_packed_bytes(st->dir[2]) : 0);
    n->bwd_in = (want[2] ? 1u : 0) | (want[1] ? 2u : 0);
    n->impl = prim_conv_impl(st->dir[0]);
    n->flops = 2.0 * s->n * s->oc * s->oh * s->ow * (s->ic / s->groups) * s->k * s->k;
    return 0;
}

/* The weights in the format of direction d. Outside training the version counts writes to
 * parameters: weights that the graph computes from its input are packed each time. */
static void *packed(const Node *n, const Exec *x, ConvDir d)
{
    ConvState *st = n->state;
    const Value *w = &x->g->v[n->in[1]];
    if (!st->packed[d]) return exec_in(x, n, 1);
    if (st->version[d] != x->weights_version || !(x->g->train || w->param || w->hoisted)) {
        prim_conv_pack(st->dir[d], exec_in(x, n, 1), st->packed[d]);
        st->version[d] = x->weights_version;
    }
    return st->packed[d];
}

static void forward(Node *n, Exec *x)
{
    const ConvState *st = n->state;
    prim_conv_run(st->dir[CONV_FWD], exec_in(x, n, 0), packed(n, x, CONV_FWD),
                  n->nin > 2 ? exec_in(x, n, 2) : NULL, exec_out(x, n, 0), exec_scratch(x, n));
}

static void backward(Node *n, Exec *x)
{
    const ConvState *st = n->state;
    const float *dy = exec_gout(x, n, 0);
    char *scratch = exec_scratch_bwd(x, n);
    if (st->dir[CONV_BWD_WEIGHTS]) {
        float *dw = exec_gin(x, n, 1), *db = n->nin > 2 ? exec_gin(x, n, 2) : NULL;
        const PrimConv *c = st->dir[CONV_BWD_WEIGHTS];
        void *diff = dw && prim_conv_plain(c) ? (void *)dw : scratch + st->diff_off;
        prim_conv_run(c, exec_in(x, n, 0), diff, dy, db, scratch);
        if (dw && diff != dw) prim_conv_unpack(c, diff, dw);
    }
    if (st->dir[CONV_BWD_DATA])
        prim_conv_run(st->dir[CONV_BWD_DATA], dy, packed(n, x, CONV_BWD_DATA), NULL,
                      exec_gin(x, n, 0), scratch);
}

static void release(Node *n)
{
    ConvState *st = n->state;
    if (!st) return;
    for (int d = 0; d < 3; d++) prim_conv_free(st->dir[d]);
    for (int d = 0; d < 2; d++) free(st->packed[d]);
    free(st);
}

static const OpDef op_conv = {"conv", 0, prepare, forward, backward, release};

int graph_conv(Graph *g, const char *name, int x, int w, int bias, ConvShape s)
{
    const Tensor *tx = &g->v[x].t, *tw = &g->v[w].t;
    const int in[3] = {x, w, bias};
    int reach = (s.k - 1) * s.dilation + 1;
    s.n = tx->dim[0], s.ic = tx->dim[1], s.ih = tx->dim[2], s.iw = tx->dim[3];
    s.oc = tw->dim[0];
    s.oh = (s.ih + 2 * s.pad - reach) / s.stride + 1;
    s.ow = (s.iw + 2 * s.pad - reach) / s.stride + 1;
    s.bias = bias >= 0;
    ASSERT(tw->dim[1] * s.groups == s.ic && tw->dim[2] == s.k && tw->dim[3] == s.k,
           "%s: weights [%d, %d, %d, %d] for %d channels", name, tw->dim[0], tw->dim[1], tw->dim[2],
           tw->dim[3], s.ic);
    return graph_out(g, graph_node(g, &op_conv, name, bias >= 0 ? 3 : 2, in, &s, sizeof s),
                     tensor_nhwc(s.n, s.oc, s.oh, s.ow));
}
