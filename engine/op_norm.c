/* engine/op_norm.c -- batch norm on its own (oneDNN with batch statistics), and with running statistics.
 *
 *   y = (x - mean) / sqrt(var + eps) * scale + shift
 *   running = (1 - momentum) running + momentum batch, the variance unbiased (as PyTorch). */
#include <math.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/par.h"

typedef struct NormNode {
    NormStats st;
    int n, c, h, w;
    bool scale, shift;
} NormNode;

void norm_update_running(const NormStats *st, const float *mean, const float *var, int c, double m)
{
    float *rm = st->mean->value.data, *rv = st->var->value.data;
    double unbias = m > 1 ? m / (m - 1) : 1;
    for (int i = 0; i < c; i++) {
        rm[i] = st->momentum * mean[i] + (1 - st->momentum) * rm[i];
        rv[i] = st->momentum * (float)((double)var[i] * unbias) + (1 - st->momentum) * rv[i];
    }
    if (st->count) ++*(int64_t *)st->count->value.data;
    param_touch(st->mean);
    param_touch(st->var);
    if (st->count) param_touch(st->count);
}

/* Save: mean, var, then scale and shift as used (ones and zeros when not affine): 4 c floats. */
static float *saved(const Exec *x, const Node *n, int row)
{
    const NormNode *a = n->attr;
    return (float *)exec_save(x, n) + (size_t)row * (size_t)a->c;
}

static int prepare_train(Graph *g, Node *n, Prim *p, Err *e)
{
    const NormNode *a = n->attr;
    PrimNorm *m = prim_norm_new(p, a->n, a->c, a->h, a->w, a->st.eps, n->run_bwd, e);
    if (!m) return -1;
    n->state = m;
    n->save_bytes = 4 * (size_t)a->c * sizeof(float);
    n->scratch_bytes = prim_norm_scratch(m) + 2 * (size_t)a->c * sizeof(float) + 2 * MEM_ALIGN;
    if (n->run_bwd && !n->gin_wanted[0]) n->scratch_bytes += MEM_ALIGN + tensor_bytes(&g->v[n->in[0]].t);
    n->bwd_in = 1;
    return 0;
}

static void forward_train(Node *n, Exec *x)
{
    const NormNode *a = n->attr;
    float *mean = saved(x, n, 0), *var = saved(x, n, 1), *scale = saved(x, n, 2), *shift = saved(x, n, 3);
    for (int i = 0; i < a->c; i++) {
        scale[i] = a->scale ? ((const float *)exec_in(x, n, 1))[i] : 1;
        shift[i] = a->shift ? ((const float *)exec_in(x, n, n->nin - 1))[i] : 0;
    }
    prim_norm_fwd(n->state, exec_in(x, n, 0), scale, shift, mean, var, exec_out(x, n, 0), exec_scratch(x, n));
    norm_update_running(&a->st, mean, var, a->c, (double)a->n * a->h * a->w);
}

static void backward_train(Node *n, Exec *x)
{
    const NormNode *a = n->attr;
    size_t c = (size_t)a->c, at = (prim_norm_scratch(n->state) + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
    float *ds = (float *)(void *)((char *)exec_scratch_bwd(x, n) + at), *db = ds + c;
    float *dx = exec_gin(x, n, 0), *gs = a->scale ? exec_gin(x, n, 1) : NULL, *gb = a->shift ? exec_gin(x, n, n->nin - 1) : NULL;
    if (!dx) dx = db + (c + 15) / 16 * 16; /* a norm of the image: the library writes it all the same */
    prim_norm_bwd(n->state, exec_in(x, n, 0), saved(x, n, 2), saved(x, n, 3), saved(x, n, 0), saved(x, n, 1),
                  exec_gout(x, n, 0), dx, ds, db, exec_scratch_bwd(x, n));
    if (gs) memcpy(gs, ds, c * sizeof *gs);
    if (gb) memcpy(gb, db, c * sizeof *gb);
}

static void release_train(Node *n)
{
    prim_norm_free(n->state);
}

static const OpDef op_norm_train = {"norm", 0, prepare_train, forward_train, backward_train, release_train};

/* y = x * s + b per channel, from the running statistics; also differentiable (frozen norms). */
static int prepare_eval(Graph *g, Node *n, Prim *p, Err *e)
{
    const NormNode *a = n->attr;
    (void)g, (void)p, (void)e;
    n->save_bytes = 2 * (size_t)a->c * sizeof(float);
    n->inplace = !n->run_bwd;
    n->bwd_in = n->run_bwd ? 1 : 0;
    return 0;
}

static void forward_eval(Node *n, Exec *x)
{
    const NormNode *a = n->attr;
    const float *mean = a->st.mean->value.data, *var = a->st.var->value.data, *src = exec_in(x, n, 0);
    float *s = saved(x, n, 0), *b = saved(x, n, 1), *dst = exec_out(x, n, 0);
    size_t c = (size_t)a->c;
    for (size_t i = 0; i < c; i++) {
        float inv = 1 / sqrtf(var[i] + a->st.eps); /* in this order, as the fused chain */
        s[i] = (a->scale ? ((const float *)exec_in(x, n, 1))[i] : 1) * inv;
        b[i] = (a->shift ? ((const float *)exec_in(x, n, n->nin - 1))[i] : 0) - mean[i] * s[i];
    }
    PARALLEL_FOR(r, (size_t)a->n * (size_t)a->h * (size_t)a->w) {
        const float *u = src + (size_t)r * c;
        float *v = dst + (size_t)r * c;
        SIMD_FOR(i, c) v[i] = u[i] * s[i] + b[i];
    }
}

static void backward_eval(Node *n, Exec *x)
{
    const NormNode *a = n->attr;
    const float *mean = a->st.mean->value.data, *var = a->st.var->value.data, *src = exec_in(x, n, 0);
    const float *dy = exec_gout(x, n, 0), *s = saved(x, n, 0);
    float *dx = exec_gin(x, n, 0), *gs = a->scale ? exec_gin(x, n, 1) : NULL, *gb = a->shift ? exec_gin(x, n, n->nin - 1) : NULL;
    size_t c = (size_t)a->c, rows = (size_t)a->n * (size_t)a->h * (size_t)a->w;
    PARALLEL_FOR(k, c) {
        double sum = 0, dot = 0;
        for (size_t r = 0; r < rows; r++) {
            double d = (double)dy[r * c + (size_t)k];
            sum += d;
            dot += d * (double)(src[r * c + (size_t)k] - mean[k]);
        }
        if (gb) gb[k] = (float)sum;
        if (gs) gs[k] = (float)(dot / sqrt((double)var[k] + (double)a->st.eps));
    }
    if (!dx) return;
    PARALLEL_FOR(r, rows) {
        SIMD_FOR(i, c) dx[(size_t)r * c + i] = dy[(size_t)r * c + i] * s[i];
    }
}

static const OpDef op_norm_eval = {"norm_eval", 0, prepare_eval, forward_eval, backward_eval, NULL};

static int make(Graph *g, const OpDef *op, const char *name, int x, int scale, int shift, const NormStats *st)
{
    const Tensor *t = &g->v[x].t;
    int in[3] = {x}, nin = 1;
    NormNode a = {*st, t->dim[0], t->dim[1], t->ndim > 2 ? t->dim[2] : 1, t->ndim > 3 ? t->dim[3] : 1, scale >= 0, shift >= 0};
    if (scale >= 0) in[nin++] = scale;
    if (shift >= 0) in[nin++] = shift;
    return graph_out(g, graph_node(g, op, name, nin, in, &a, sizeof a), *t);
}

int graph_norm_train(Graph *g, const char *name, int x, int scale, int shift, const NormStats *st)
{
    return make(g, &op_norm_train, name, x, scale, shift, st);
}

int graph_norm_eval(Graph *g, const char *name, int x, int scale, int shift, const NormStats *st)
{
    return make(g, &op_norm_eval, name, x, scale, shift, st);
}
