/* engine/op_shape.c -- ops that move values: flatten, pad, concat, space/depth, and dropout. */
#include <string.h>

#include "engine/ops.h"
#include "engine/par.h"

typedef struct Moved {
    int n, c, h, w; /* of in[0] */
    int pad[4], block;
    float p;
    int id;    /* dropout: its number among the nodes as lowered, before any cast */
    bool down; /* space to depth */
} Moved;

static Moved moved(const Graph *g, int x)
{
    const Tensor *t = &g->v[x].t;
    Moved m = {.n = t->dim[0],
               .c = t->dim[1],
               .h = t->ndim > 2 ? t->dim[2] : 1,
               .w = t->ndim > 3 ? t->dim[3] : 1};
    return m;
}

static size_t nhwc(int n, int c, int h, int w, int in, int ic, int ih, int iw)
{
    (void)n;
    return (((size_t)in * (size_t)h + (size_t)ih) * (size_t)w + (size_t)iw) * (size_t)c +
           (size_t)ic;
}

/* ---- flatten: C,H,W order, as PyTorch's view of an NCHW map; a 1x1 map is only renamed ---- */

static void flatten_forward(Node *n, Exec *x)
{
    const Moved *m = n->attr;
    nhwc_to_nchw(exec_in(x, n, 0), exec_out(x, n, 0), m->n, m->c, m->h, m->w);
}

static void flatten_backward(Node *n, Exec *x)
{
    const Moved *m = n->attr;
    nchw_to_nhwc(exec_gout(x, n, 0), exec_gin(x, n, 0), m->n, m->c, m->h, m->w);
}

static const OpDef op_flatten = {"flatten", 0, NULL, flatten_forward, flatten_backward, NULL};

int graph_flatten(Graph *g, const char *name, int x)
{
    Moved m = moved(g, x);
    int dim[2] = {m.n, m.c * m.h * m.w};
    return graph_out(g, graph_node(g, &op_flatten, name, 1, &x, &m, sizeof m),
                     tensor_make(DT_F32, 2, dim, NULL));
}

/* ---- zero padding ---- */

static void pad_copy(const Moved *m, const float *src, float *dst, bool back)
{
    int oh = m->h + m->pad[0] + m->pad[1], ow = m->w + m->pad[2] + m->pad[3];
    size_t row = (size_t)m->w * (size_t)m->c * sizeof(float);
    if (!back) memset(dst, 0, (size_t)m->n * (size_t)oh * (size_t)ow * (size_t)m->c * sizeof *dst);
    PARALLEL_FOR(i, m->n)
    {
        for (int h = 0; h < m->h; h++) {
            size_t in = nhwc(m->n, m->c, m->h, m->w, (int)i, 0, h, 0);
            size_t out = nhwc(m->n, m->c, oh, ow, (int)i, 0, h + m->pad[0], m->pad[2]);
            if (back)
                memcpy(dst + in, src + out, row);
            else
                memcpy(dst + out, src + in, row);
        }
    }
}

static void pad_forward(Node *n, Exec *x)
{
    pad_copy(n->attr, exec_in(x, n, 0), exec_out(x, n, 0), false);
}

static void pad_backward(Node *n, Exec *x)
{
    pad_copy(n->attr, exec_gout(x, n, 0), exec_gin(x, n, 0), true);
}

static const OpDef op_pad = {"pad", 0, NULL, pad_forward, pad_backward, NULL};

int graph_pad(Graph *g, const char *name, int x, const int pad[4])
{
    Moved m = moved(g, x);
    memcpy(m.pad, pad, sizeof m.pad);
    return graph_out(g, graph_node(g, &op_pad, name, 1, &x, &m, sizeof m),
                     tensor_nhwc(m.n, m.c, m.h + pad[0] + pad[1], m.w + pad[2] + pad[3]));
}

/* ---- concatenation of channels ---- */

static void concat_copy(Node *n, Exec *x, bool back)
{
    const Tensor *o = &x->g->v[n->out[0]].t;
    size_t rows = tensor_len(o) / (size_t)o->dim[1], oc = (size_t)o->dim[1], at = 0;
    const float *dy = back ? exec_gout(x, n, 0) : NULL;
    for (int k = 0; k < n->nin; k++) {
        size_t c = (size_t)x->g->v[n->in[k]].t.dim[1], off = at;
        float *dx = back ? exec_gin(x, n, k) : NULL;
        at += c;
        if (back && !dx) continue;
        if (back) {
            PARALLEL_FOR(r, rows)
            memcpy(dx + (size_t)r * c, dy + (size_t)r * oc + off, c * sizeof *dx);
        } else {
            const float *src = exec_in(x, n, k);
            float *y = exec_out(x, n, 0);
            PARALLEL_FOR(r, rows)
            memcpy(y + (size_t)r * oc + off, src + (size_t)r * c, c * sizeof *y);
        }
    }
}

static void concat_forward(Node *n, Exec *x)
{
    concat_copy(n, x, false);
}

static void concat_backward(Node *n, Exec *x)
{
    concat_copy(n, x, true);
}

static const OpDef op_concat = {"concat", 0, NULL, concat_forward, concat_backward, NULL};

int graph_concat(Graph *g, const char *name, const int *x, int n)
{
    Tensor t = g->v[x[0]].t;
    for (int i = 1; i < n; i++) t.dim[1] += g->v[x[i]].t.dim[1];
    return graph_out(g, graph_node(g, &op_concat, name, n, x, NULL, 0), t);
}

/* ---- space to depth and back: channel = (c * block + dy) * block + dx ---- */

static void shuffle(const Moved *m, const float *src, float *dst, bool down)
{
    /* m describes the map with the large sides: n, c, h, w; the other one has c*b*b channels */
    int b = m->block, sh = m->h / b, sw = m->w / b, sc = m->c * b * b;
    PARALLEL_FOR(i, m->n)
    {
        for (int h = 0; h < m->h; h++)
            for (int w = 0; w < m->w; w++)
                for (int c = 0; c < m->c; c++) {
                    size_t big = nhwc(m->n, m->c, m->h, m->w, (int)i, c, h, w);
                    size_t small =
                        nhwc(m->n, sc, sh, sw, (int)i, (c * b + h % b) * b + w % b, h / b, w / b);
                    if (down)
                        dst[small] = src[big];
                    else
                        dst[big] = src[small];
                }
    }
}

static void shuffle_forward(Node *n, Exec *x)
{
    const Moved *m = n->attr;
    shuffle(m, exec_in(x, n, 0), exec_out(x, n, 0), m->down);
}

static void shuffle_backward(Node *n, Exec *x)
{
    const Moved *m = n->attr;
    shuffle(m, exec_gout(x, n, 0), exec_gin(x, n, 0), !m->down);
}

static const OpDef op_s2d = {"space_to_depth", 0, NULL, shuffle_forward, shuffle_backward, NULL};
static const OpDef op_d2s = {"depth_to_space", 0, NULL, shuffle_forward, shuffle_backward, NULL};

int graph_space_to_depth(Graph *g, const char *name, int x, int block)
{
    Moved m = moved(g, x);
    m.block = block, m.down = true;
    return graph_out(g, graph_node(g, &op_s2d, name, 1, &x, &m, sizeof m),
                     tensor_nhwc(m.n, m.c * block * block, m.h / block, m.w / block));
}

int graph_depth_to_space(Graph *g, const char *name, int x, int block)
{
    Moved m = moved(g, x);
    m.c /= block * block, m.h *= block, m.w *= block;
    m.block = block;
    return graph_out(g, graph_node(g, &op_d2s, name, 1, &x, &m, sizeof m),
                     tensor_nhwc(m.n, m.c, m.h, m.w));
}

/* ---- dropout: the mask is a function of (seed, step, node, image), drawn again in backward ----
 */

static void drop(const Node *n, const Exec *x, const float *src, float *dst)
{
    const Moved *m = n->attr;
    size_t per = (size_t)m->c * (size_t)m->h * (size_t)m->w;
    uint64_t id = (uint64_t)m->id;
    float keep = 1 / (1 - m->p);
    PARALLEL_FOR(i, m->n)
    {
        Rng r = rng_stream(x->seed, RNG_DROPOUT, (uint64_t)x->step, id << 32 | (uint64_t)i);
        for (size_t k = 0; k < per; k++)
            dst[(size_t)i * per + k] =
                rng_uniform(&r) < (double)m->p ? 0 : src[(size_t)i * per + k] * keep;
    }
}

static void dropout_forward(Node *n, Exec *x)
{
    drop(n, x, exec_in(x, n, 0), exec_out(x, n, 0));
}

static void dropout_backward(Node *n, Exec *x)
{
    drop(n, x, exec_gout(x, n, 0), exec_gin(x, n, 0));
}

static const OpDef op_dropout = {"dropout", 0, NULL, dropout_forward, dropout_backward, NULL};

int graph_dropout(Graph *g, const char *name, int x, float p)
{
    Moved m = moved(g, x);
    m.p = p;
    m.id = g->nn;
    return graph_out(g, graph_node(g, &op_dropout, name, 1, &x, &m, sizeof m), g->v[x].t);
}
