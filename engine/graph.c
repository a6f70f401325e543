/* engine/graph.c -- see graph.h. */
#include "engine/graph.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bf16.h"

void graph_init(Graph *g, bool train)
{
    *g = (Graph){.train = train};
}

void graph_free(Graph *g)
{
    for (int i = 0; i < g->nn; i++)
        if (g->n[i].op->release) g->n[i].op->release(&g->n[i]);
    free(g->v);
    free(g->n);
    arena_free(&g->arena);
    *g = (Graph){0};
}

Tensor tensor_nhwc(int n, int c, int h, int w)
{
    Tensor t = {.dtype = DT_F32, .layout = LY_NHWC, .ndim = 4, .dim = {n, c, h, w}};
    return t;
}

static int add_value(Graph *g, Tensor t, const char *name)
{
    mem_grow(&g->v, &g->cap_v, (size_t)g->nv + 1, sizeof *g->v);
    g->v[g->nv] = (Value){
        .name = arena_strdup(&g->arena, name), .t = t, .producer = -1, .gsum_off = SIZE_MAX};
    return g->nv++;
}

int graph_external(Graph *g, Tensor t, const char *name)
{
    int v = add_value(g, t, name);
    g->v[v].external = true;
    return v;
}

int graph_param(Graph *g, Param *p)
{
    int v;
    for (int i = 0; i < g->nv; i++)
        if (g->v[i].param == p) return i;
    v = add_value(g, p->value, p->name);
    g->v[v].param = p;
    return v;
}

int graph_node(Graph *g, const OpDef *op, const char *name, int nin, const int *in,
               const void *attr, size_t size)
{
    Node *n;
    ASSERT(nin <= NODE_MAX_IN, "%s: %d inputs", name, nin);
    mem_grow(&g->n, &g->cap_n, (size_t)g->nn + 1, sizeof *g->n);
    n = &g->n[g->nn];
    *n = (Node){.op = op,
                .name = arena_strdup(&g->arena, name),
                .nin = nin,
                .bf16 = (op->flags & OP_BF16) != 0};
    for (int i = 0; i < nin; i++) n->in[i] = in[i];
    if (size) n->attr = memcpy(arena_alloc(&g->arena, size), attr, size);
    return g->nn++;
}

int graph_out(Graph *g, int node, Tensor t)
{
    int v = add_value(g, t, g->n[node].name);
    Node *n = &g->n[node];
    ASSERT(n->nout < NODE_MAX_OUT, "%s: too many outputs", n->name);
    t.data = NULL;
    g->v[v].t = t;
    g->v[v].producer = node;
    n->out[n->nout++] = v;
    return v;
}

void graph_verify(const Graph *g)
{
    for (int i = 0; i < g->nn; i++) {
        const Node *n = &g->n[i];
        ASSERT(n->nout > 0, "%s has no output", n->name);
        for (int k = 0; k < n->nin; k++) {
            ASSERT(n->in[k] >= 0 && n->in[k] < g->nv, "%s: input %d", n->name, n->in[k]);
            ASSERT(g->v[n->in[k]].producer < i, "%s reads '%s' before it is made", n->name,
                   g->v[n->in[k]].name);
        }
        for (int k = 0; k < n->nout; k++)
            ASSERT(g->v[n->out[k]].producer == i, "%s: output %d", n->name, k);
    }
}

/* More contributions than this are summed before they are handed on: sums of sums would else
 * collect one from every block. */
#define ALIAS_MAX_PARTS 2

/* The contributions to the gradient of v: one per reading edge whose node runs backward; an alias
 * hands on its own list. */
static void collect_parts(Graph *g, int v)
{
    Value *val = &g->v[v];
    for (int i = 0; i < g->nn; i++) {
        Node *n = &g->n[i];
        for (int k = 0; k < n->nin; k++) {
            if (n->in[k] != v || !n->gin_wanted[k]) continue;
            if (n->alias) {
                const Value *o = &g->v[n->out[0]]; /* later in order: collected already */
                for (int j = 0; j < o->nparts; j++) {
                    ASSERT(val->nparts < GRAD_MAX_PARTS, "%s: too many readers", val->name);
                    val->part[val->nparts++] = o->part[j];
                }
            } else {
                ASSERT(val->nparts < GRAD_MAX_PARTS, "%s: too many readers", val->name);
                val->part[val->nparts].node = i;
                val->part[val->nparts++].in = k;
            }
        }
    }
}

static void gradients(Graph *g)
{
    bool *reached = xcalloc((size_t)g->nv, sizeof *reached); /* a loss depends on it */
    for (int i = 0; i < g->nv; i++) {
        const Param *p = g->v[i].param;
        g->v[i].needs_grad = p && p->kind != PK_BUFFER;
    }
    for (int i = 0; i < g->nn; i++) { /* forward: what depends on something trained */
        Node *n = &g->n[i];
        bool any = (n->op->flags & OP_OWN_PARAMS) != 0;
        for (int k = 0; k < n->nin; k++) any = any || g->v[n->in[k]].needs_grad;
        if (!n->op->backward) any = false;
        for (int k = 0; k < n->nout; k++) g->v[n->out[k]].needs_grad = any;
    }
    for (int i = g->nn - 1; i >= 0; i--) { /* backward: what a loss depends on */
        Node *n = &g->n[i];
        bool out = (n->op->flags & OP_LOSS) != 0;
        for (int k = 0; k < n->nout; k++)
            out = out || (reached[n->out[k]] && g->v[n->out[k]].needs_grad);
        n->run_bwd = out && n->op->backward;
        for (int k = 0; k < n->nin; k++) {
            n->gin_wanted[k] = n->run_bwd && g->v[n->in[k]].needs_grad;
            if (n->gin_wanted[k]) reached[n->in[k]] = true;
        }
    }
    for (int i = 0; i < g->nv; i++) g->v[i].needs_grad = g->v[i].needs_grad && reached[i];
    for (int i = g->nn - 1; i >= 0; i--) {
        Node *n = &g->n[i];
        for (int k = 0; k < n->nout; k++)
            if (g->v[n->out[k]].needs_grad) collect_parts(g, n->out[k]);
        n->alias = (n->op->flags & OP_GRAD_ALIAS) && g->v[n->out[0]].nparts <= ALIAS_MAX_PARTS;
    }
    for (int i = 0; i < g->nv; i++) {
        Value *v = &g->v[i];
        if (!v->param || !v->needs_grad) continue;
        collect_parts(g, i);
        v->param->trained = true;
    }
    free(reached);
}

static void hoist(Graph *g)
{
    for (int i = 0; i < g->nn; i++) {
        Node *n = &g->n[i];
        bool fixed = (n->op->flags & OP_HOISTABLE) && !g->train;
        for (int k = 0; k < n->nin; k++) {
            const Value *v = &g->v[n->in[k]];
            fixed = fixed && (v->param || v->hoisted);
        }
        n->hoisted = fixed;
        for (int k = 0; k < n->nout; k++) g->v[n->out[k]].hoisted = fixed;
    }
}

int graph_finish(Graph *g, Prim *p, Err *e)
{
    if (g->bf16) bf16_types(g);
    graph_verify(g);
    if (g->train) gradients(g);
    hoist(g);
    for (int i = 0; i < g->nn; i++)
        if (g->n[i].op->prepare && g->n[i].op->prepare(g, &g->n[i], p, e) < 0)
            return err_prefix(e, "%s", g->n[i].name);
    return 0;
}

void graph_print(const Graph *g, Str *out)
{
    char shape[80];
    for (int i = 0; i < g->nn; i++) {
        const Node *n = &g->n[i];
        const Value *o = &g->v[n->out[0]];
        str_printf(out, "%4d %-12s %-34s", i, n->op->name, n->name);
        for (int k = 0; k < n->nin; k++) {
            const Value *v = &g->v[n->in[k]];
            if (v->producer >= 0)
                str_printf(out, " %%%d", v->producer);
            else
                str_printf(out, " %s", v->name);
        }
        str_printf(out, " -> %s", tensor_shape_text(&o->t, shape));
        if (n->nout > 1) str_printf(out, " x%d", n->nout);
        if (n->hoisted)
            str_puts(out, " hoisted");
        else
            str_printf(out, " live %d..%d", o->first, o->last);
        if (n->save_bytes) str_printf(out, " save %zu", n->save_bytes);
        if (n->scratch_bytes) str_printf(out, " scratch %zu", n->scratch_bytes);
        if (n->impl) str_printf(out, " %s", n->impl);
        if (g->train && !n->run_bwd) str_puts(out, " no-backward");
        str_puts(out, "\n");
    }
}
