/* engine/op_act.c -- activations on their own: relu, relu6, leaky relu, prelu. Fused ones are in
 * quant/chain.c. */
#include "engine/ops.h"
#include "engine/par.h"

typedef struct ActNode {
    ActAttr a;
    size_t c; /* PReLU: slopes, channels or 1 */
} ActNode;

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)p, (void)e;
    n->inplace = !n->run_bwd;
    n->grad_inplace = true;
    n->bwd_in = n->run_bwd ? 3 : 0;
    if (n->run_bwd && n->nin > 1)
        n->scratch_bytes = par_chunks(tensor_len(&g->v[n->in[0]].t)) * sizeof(double);
    return 0;
}

static void forward(Node *n, Exec *x)
{
    const ActNode *a = n->attr;
    const float *src = exec_in(x, n, 0), *slope = n->nin > 1 ? exec_in(x, n, 1) : NULL;
    float *dst = exec_out(x, n, 0), s = a->a.slope;
    size_t len = tensor_len(&x->g->v[n->in[0]].t);
    PARALLEL_FOR(c, par_chunks(len))
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        const float *u = src + at;
        float *v = dst + at;
        switch (a->a.kind) {
        case AK_RELU: {
            SIMD_FOR(i, m) v[i] = u[i] < 0 ? 0 : u[i]; /* NaN stays NaN */
            break;
        }
        case AK_RELU6: {
            SIMD_FOR(i, m) v[i] = u[i] > 6 ? 6 : u[i] < 0 ? 0 : u[i];
            break;
        }
        case AK_LEAKY: {
            SIMD_FOR(i, m) v[i] = u[i] > 0 ? u[i] : u[i] * s;
            break;
        }
        case AK_PRELU:
            for (size_t i = 0; i < m; i++) v[i] = u[i] > 0 ? u[i] : u[i] * slope[(at + i) % a->c];
            break;
        case AK_NONE: {
            SIMD_FOR(i, m) v[i] = u[i];
            break;
        }
        }
    }
}

/* The gradient of PReLU's slopes; part: room for one sum per chunk. */
static void slope_gradient(const float *u, const float *dy, size_t len, size_t slopes, float *ds,
                           double *part)
{
    if (slopes == 1) {
        double sum = 0;
        PARALLEL_FOR(c, par_chunks(len))
        {
            const size_t at = (size_t)c * PAR_CHUNK, end = at + par_chunk_len(len, (size_t)c);
            part[c] = 0;
            for (size_t i = at; i < end; i++) part[c] += u[i] > 0 ? 0 : (double)(dy[i] * u[i]);
        }
        for (size_t c = 0; c < par_chunks(len); c++) sum += part[c];
        ds[0] = (float)sum;
        return;
    }
    PARALLEL_FOR(k, slopes)
    {
        double sum = 0;
        for (size_t i = (size_t)k; i < len; i += slopes)
            sum += u[i] > 0 ? 0 : (double)(dy[i] * u[i]);
        ds[k] = (float)sum;
    }
}

static void backward(Node *n, Exec *x)
{
    const ActNode *a = n->attr;
    const float *src = exec_in(x, n, 0), *slope = n->nin > 1 ? exec_in(x, n, 1) : NULL,
                *dy = exec_gout(x, n, 0);
    float *dx = exec_gin(x, n, 0), *ds = n->nin > 1 ? exec_gin(x, n, 1) : NULL, s = a->a.slope;
    size_t len = tensor_len(&x->g->v[n->in[0]].t);
    if (ds) /* before dx, which may take the storage of dy */
        slope_gradient(src, dy, len, a->c, ds, exec_scratch_bwd(x, n));
    if (!dx) return;
    PARALLEL_FOR(c, par_chunks(len))
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        const float *u = src + at, *d = dy + at;
        float *v = dx + at;
        switch (a->a.kind) {
        case AK_RELU: {
            SIMD_FOR(i, m) v[i] = u[i] > 0 ? d[i] : 0;
            break;
        }
        case AK_RELU6: {
            SIMD_FOR(i, m) v[i] = u[i] > 0 && u[i] < 6 ? d[i] : 0;
            break;
        }
        case AK_LEAKY: {
            SIMD_FOR(i, m) v[i] = u[i] > 0 ? d[i] : d[i] * s;
            break;
        }
        case AK_PRELU:
            for (size_t i = 0; i < m; i++) v[i] = u[i] > 0 ? d[i] : d[i] * slope[(at + i) % a->c];
            break;
        case AK_NONE: {
            SIMD_FOR(i, m) v[i] = d[i];
            break;
        }
        }
    }
}

static const OpDef op_act = {"act", 0, prepare, forward, backward, NULL};

int graph_act(Graph *g, const char *name, int x, ActAttr a, int slope)
{
    ActNode n = {a, slope >= 0 ? (size_t)g->v[slope].t.dim[0] : 0};
    int in[2] = {x, slope};
    return graph_out(g, graph_node(g, &op_act, name, slope >= 0 ? 2 : 1, in, &n, sizeof n),
                     g->v[x].t);
}
