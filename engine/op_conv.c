/* engine/op_conv.c -- convolution on oneDNN. Packed copies of the weights are kept and renewed when
 * the weights change.
 *
 * With bf16 operands (in[0] is bf16) weights are rounded while they are packed; sums, bias and
 * gradients of weights and bias are float. A result that nobody reads as bf16 is float. */
#include <stdlib.h>

#include "engine/bf16.h"
#include "engine/conv_weights.h"
#include "engine/ops.h"

typedef struct ConvState {
    PrimConv *dir[3];    /* by ConvDir */
    ConvWeights *parts;  /* bf16: in place of dir[CONV_BWD_WEIGHTS] */
    void *packed[2];     /* of forward and backward-data; own memory */
    uint64_t version[2]; /* x->weights_version they were made at */
    size_t diff_off;     /* scratch: the library's, then the packed gradient */
    size_t dy_off;       /* scratch: the gradient of a float result as bf16, if needed */
} ConvState;

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    ConvShape *s = n->attr;
    ConvState *st = n->state = xcalloc(1, sizeof *st);
    const Tensor *y = &g->v[n->out[0]].t;
    bool want[3] = {true, n->run_bwd && n->gin_wanted[0],
                    n->run_bwd && (n->gin_wanted[1] || (n->nin > 2 && n->gin_wanted[2]))};
    size_t scratch = 0;
    s->bf16 = g->v[n->in[0]].t.dtype == DT_BF16;
    s->dst_f32 = y->dtype == DT_F32;
    if (s->bf16 && want[2]) {
        st->parts = conv_weights_new(p, s, e);
        if (!st->parts) return -1;
        scratch = conv_weights_scratch(st->parts);
    }
    for (int d = 0; d < 3; d++) {
        if (!want[d] || (d == CONV_BWD_WEIGHTS && st->parts)) continue;
        st->dir[d] = prim_conv_new(p, (ConvDir)d, s, e);
        if (!st->dir[d]) return -1;
        if (prim_conv_scratch(st->dir[d]) > scratch) scratch = prim_conv_scratch(st->dir[d]);
        if (d < 2 && !prim_conv_plain(st->dir[d]))
            st->packed[d] = xaligned(prim_conv_packed_bytes(st->dir[d]));
    }
    st->diff_off = mem_round_up(scratch);
    st->dy_off = st->diff_off;
    if (st->dir[2]) st->dy_off += mem_round_up(prim_conv_packed_bytes(st->dir[2]));
    n->scratch_bytes = st->dy_off;
    if (s->bf16 && s->dst_f32 && n->run_bwd)
        n->scratch_bytes += tensor_len(y) * dtype_size(DT_BF16);
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
    const ConvShape *s = n->attr;
    const void *dy = exec_gout(x, n, 0);
    float *dw = exec_gin(x, n, 1), *db = n->nin > 2 ? exec_gin(x, n, 2) : NULL;
    char *scratch = exec_scratch_bwd(x, n);
    if (s->bf16 && s->dst_f32) {
        bf16_copy(dy, DT_F32, scratch + st->dy_off, DT_BF16, tensor_len(&x->g->v[n->out[0]].t));
        dy = scratch + st->dy_off;
    }
    if (st->parts) {
        conv_weights_run(st->parts, exec_in(x, n, 0), dy, dw, db, scratch);
    } else if (st->dir[CONV_BWD_WEIGHTS]) {
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
    conv_weights_free(st->parts);
    for (int d = 0; d < 2; d++) free(st->packed[d]);
    free(st);
}

static const OpDef op_conv = {"conv", OP_BF16 | OP_BF16_FIRST, prepare, forward, backward, release};

/* Those of groups stay float: the library's bf16 kernels for them are no faster. */
static int conv_node(Graph *g, const char *name, int x, int w, int bias, const ConvShape *s)
{
    const int in[3] = {x, w, bias};
    const int node = graph_node(g, &op_conv, name, bias >= 0 ? 3 : 2, in, s, sizeof *s);
    g->n[node].bf16 = s->groups == 1;
    return node;
}

int graph_conv(Graph *g, const char *name, int x, int w, int bias, ConvShape s)
{
    const Tensor *tx = &g->v[x].t, *tw = &g->v[w].t;
    int reach = (s.k - 1) * s.dilation + 1;
    s.n = tx->dim[0], s.ic = tx->dim[1], s.ih = tx->dim[2], s.iw = tx->dim[3];
    s.oc = tw->dim[0];
    s.oh = (s.ih + 2 * s.pad - reach) / s.stride + 1;
    s.ow = (s.iw + 2 * s.pad - reach) / s.stride + 1;
    s.bias = bias >= 0;
    ASSERT(tw->dim[1] * s.groups == s.ic && tw->dim[2] == s.k && tw->dim[3] == s.k,
           "%s: weights [%d, %d, %d, %d] for %d channels", name, tw->dim[0], tw->dim[1], tw->dim[2],
           tw->dim[3], s.ic);
    return graph_out(g, conv_node(g, name, x, w, bias, &s), tensor_nhwc(s.n, s.oc, s.oh, s.ow));
}

int graph_linear_as_conv(Graph *g, const char *name, int x, int w, int bias, int n, int ic, int oc)
{
    const int dim[2] = {n, oc};
    ConvShape s = conv_shape_1x1(n, ic, 1, oc, 1);
    s.bias = bias >= 0;
    return graph_out(g, conv_node(g, name, x, w, bias, &s), tensor_make(DT_F32, 2, dim, NULL));
}
