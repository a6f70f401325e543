/* quant/lower.c -- see lower.h. */
#include "quant/lower.h"

#include <stdlib.h>

#include "quant/chain.h"

bool lower_trains(const Lower *lw)
{
    return lw->phase == PH_TRAIN;
}

void lower_set(Lower *lw, int unit, int value)
{
    ASSERT(lw->value[unit] < 0, "unit %d (%s) is lowered twice", unit, lw->spec->u[unit].name);
    lw->value[unit] = value;
}

int lower_input(const Lower *lw, int unit, int i)
{
    int v = lw->value[lw->spec->u[unit].in[i]];
    ASSERT(v >= 0, "unit %d (%s) reads one that has no value", unit, lw->spec->u[unit].name);
    return v;
}

static int param_value(Lower *lw, Param *p)
{
    return p ? graph_param(lw->g, p) : -1;
}

int lower_act(Lower *lw, int unit)
{
    QInst *q = qplan_get(lw->qp, unit, Q_ACT, lw->variant);
    const Unit *u = &lw->spec->u[unit];
    int x;
    if (lw->quantized[unit] >= 0) return lw->quantized[unit];
    x = lower_input(lw, unit, 0);
    if (!q) return x;
    if (qplan_pads_first(lw->qp, unit, q)) {
        const int pad = u->u.conv.pad, around[4] = {pad, pad, pad, pad};
        x = graph_pad(lw->g, u->name, x, around);
        lw->padded[unit] = true;
    }
    return lw->quantized[unit] = graph_quant(lw->g, u->name, x, q);
}

int lower_weight(Lower *lw, int unit)
{
    QInst *q = qplan_get(lw->qp, unit, Q_WEIGHT, lw->variant);
    int w = param_value(lw, lw->qp->u[unit].weight);
    return q ? graph_quant(lw->g, lw->spec->u[unit].name, w, q) : w;
}

int lower_conv(Lower *lw, int unit, int x, int w, int bias)
{
    const Unit *u = &lw->spec->u[unit];
    const ConvAttr *a = &u->u.conv;
    ConvShape s = {.k = a->k,
                   .stride = a->stride ? a->stride : 1,
                   .pad = lw->padded[unit] ? 0 : a->pad,
                   .dilation = a->dilation ? a->dilation : 1,
                   .groups = a->groups ? a->groups : 1};
    lw->conv[unit] = u->kind == U_LINEAR ? graph_linear(lw->g, u->name, x, w, bias)
                                         : graph_conv(lw->g, u->name, x, w, bias, s);
    return lw->conv[unit];
}

static int value_of_param(const Graph *g, const Param *p)
{
    for (int v = 0; v < g->nv; v++)
        if (g->v[v].param == p) return v;
    return -1;
}

int lower_tensor(const Lower *lw, int unit, LayerTensor t, int *node)
{
    const Graph *g = lw->g;
    const int y = lw->conv[unit], conv = y < 0 ? -1 : g->v[y].producer;
    int v = -1;
    if (y < 0) return -1;
    switch (t) {
    case LT_INPUT: /* padded: the quantizer is a node of its own */
        v = lw->padded[unit] ? g->n[g->v[lw->quantized[unit]].producer].in[0] : lower_input(lw, unit, 0);
        break;
    case LT_QUANTIZED:
        v = g->n[conv].in[0];
        break;
    case LT_WEIGHT:
        v = value_of_param(g, lw->qp->u[unit].weight);
        break;
    case LT_QUANTIZED_WEIGHT:
        v = g->n[conv].in[1];
        break;
    case LT_OUTPUT:
        v = y;
        break;
    case LT_COUNT:
        break;
    }
    /* What no node of the pass makes is there all the time. */
    *node = v >= 0 && g->v[v].producer >= 0 && !g->v[v].hoisted ? g->v[v].producer : conv;
    return v;
}

NormStats lower_norm_stats(const Lower *lw, int norm_unit)
{
    const NormParams *p = &lw->qp->u[norm_unit].norm[lw->variant];
    const NormAttr *a = &lw->spec->u[norm_unit].u.norm;
    return (NormStats){p->mean, p->var, p->count, a->eps, a->momentum};
}

int lower_default(Lower *lw, int unit, Err *e)
{
    const Unit *u = &lw->spec->u[unit];
    QInst *out = qplan_get(lw->qp, unit, Q_OUT, lw->variant);
    int x = lower_act(lw, unit), w = lower_weight(lw, unit), b = param_value(lw, lw->qp->u[unit].bias), y;
    (void)e;
    y = lower_conv(lw, unit, x, w, b);
    if (out) y = graph_quant(lw->g, u->name, y, out);
    lower_set(lw, unit, y);
    return 0;
}

/* ---- chains ---- */

/* The only reader of a unit when it is of kind k and not lowered yet, else -1. */
static int sole_reader(const Lower *lw, int unit, UnitKind k)
{
    int r = lw->spec->u[unit].reader;
    return r >= 0 && lw->spec->u[r].kind == k && lw->value[r] < 0 ? r : -1;
}

/* An elementwise act quantizer of unit r that a chain behind its input can include. */
static QInst *chainable(const Lower *lw, int r)
{
    QInst *q;
    const Unit *u = &lw->spec->u[r];
    if (u->kind != U_CONV && u->kind != U_LINEAR) return NULL;
    if (lw->qp->u[r].method && !(lw->qp->u[r].method->traits & QT_CHAINED))
        return NULL; /* lowers itself: it wants the plain input */
    q = qplan_get(lw->qp, r, Q_ACT, lw->variant);
    if (q && qplan_pads_first(lw->qp, r, q)) return NULL;
    return q && q->fn->row && !q->fn->forward && !q->fn->backward ? q : NULL;
}

static void chain_norm(Lower *lw, int unit, ChainSpec *c)
{
    const NormParams *np = &lw->qp->u[unit].norm[lw->variant];
    const NormKind kind = lw->spec->u[unit].u.norm.kind;
    const bool batch = kind == NK_BATCH || kind == NK_REVERSE;
    c->norm = lower_trains(lw) && batch ? CHAIN_BATCH : CHAIN_RUNNING;
    c->st = lower_norm_stats(lw, unit);
    c->scale = param_value(lw, np->scale);
    c->shift = param_value(lw, np->shift);
}

/* Starting at `unit` (a norm, sum or activation whose input is lowered), takes as much of norm, sum, activation, quantizers as
 * follows, and emits one node. Outside training too the norm is applied to the convolution's output, as the originals do: that
 * pass is there anyway, and folding it into the weights would only move roundings, and with them quantization levels. */
static void lower_chain(Lower *lw, int unit)
{
    const Spec *s = lw->spec;
    ChainSpec c = {.scale = -1, .shift = -1, .residual = -1, .act = AK_NONE};
    int last = unit, x, out[1 + CHAIN_MAX_Q], reader[CHAIN_MAX_Q];
    int first = unit, next;
    bool plain = false;

    if (s->u[unit].kind == U_NORM) {
        chain_norm(lw, unit, &c);
        x = lower_input(lw, unit, 0);
        next = sole_reader(lw, last, U_ADD);
        if (next >= 0) {
            int other = s->u[next].in[0] == last ? s->u[next].in[1] : s->u[next].in[0];
            if (lw->value[other] >= 0) {
                c.residual = lw->value[other];
                last = next;
            }
        }
    } else if (s->u[unit].kind == U_ADD) {
        x = lower_input(lw, unit, 0);
        c.residual = lower_input(lw, unit, 1);
    } else {
        x = lower_input(lw, unit, 0);
    }
    next = s->u[unit].kind == U_ACT ? unit : sole_reader(lw, last, U_ACT);
    if (next >= 0 && (s->u[next].u.act.kind == AK_RELU || s->u[next].u.act.kind == AK_RELU6)) {
        c.act = s->u[next].u.act.kind;
        last = next;
    }
    for (int r = last + 1; r < s->n; r++) { /* the readers of what the chain computes */
        QInst *q = NULL;
        bool reads = false;
        for (int i = 0; i < s->u[r].nin; i++) reads = reads || s->u[r].in[i] == last;
        if (!reads) continue;
        q = chainable(lw, r);
        if (q && c.nq < CHAIN_MAX_Q) {
            reader[c.nq] = r;
            c.q[c.nq++] = q;
            plain = plain || (!lower_trains(lw) && lw->qp->u[r].plain_input);
        } else {
            plain = true;
        }
    }
    c.plain = plain || c.nq == 0 || s->out == last;
    graph_chain(lw->g, s->u[first].name[0] ? s->u[first].name : s->u[last].name, x, &c, out);
    if (c.plain) lower_set(lw, last, out[0]);
    for (int k = 0; k < c.nq; k++) lw->quantized[reader[k]] = out[1 + k];
    if (!c.plain) lower_set(lw, last, out[1]); /* never read as such: every reader takes its own quantized value */
    for (int i = first; i < last; i++) /* the units in between have no value of their own: mark them as done */
        if (lw->value[i] < 0 && (i == first || (s->u[i].kind == U_ADD && s->u[i].reader == last))) lower_set(lw, i, lw->value[last]);
}

static bool in_chain(const Lower *lw, int unit)
{
    const Unit *u = &lw->spec->u[unit];
    if (!lw->qp->opts->fuse || u->c > CHAIN_MAX_CHANNELS) return false;
    if (u->kind == U_NORM) return u->u.norm.kind == NK_BATCH || u->u.norm.kind == NK_FROZEN;
    if (u->kind == U_ADD) return true;
    return u->kind == U_ACT && (u->u.act.kind == AK_RELU || u->u.act.kind == AK_RELU6);
}

/* ---- one unit ---- */

/* A norm of its own is a chain of one: the same statistics to the last bit, fused or not. */
static int lower_norm(Lower *lw, int unit, Err *e)
{
    const Unit *u = &lw->spec->u[unit];
    int out[1 + CHAIN_MAX_Q];
    ChainSpec c = {.residual = -1, .act = AK_NONE, .plain = true};
    const NormAttr *a = &u->u.norm;
    const NormParams *np = &lw->qp->u[unit].norm[lw->variant];
    int x = lower_input(lw, unit, 0);
    if (!norm_has_stats(a->kind)) {
        lower_set(lw, unit, graph_group_norm(lw->g, u->name, x, a->kind == NK_GROUP ? a->groups : u->c, a->eps,
                                             param_value(lw, np->scale), param_value(lw, np->shift)));
        return 0;
    }
    if (u->c > CHAIN_MAX_CHANNELS)
        return err_set(e, ERR_CONFIG, "%s: a norm over %d channels; at most %d", u->name, u->c, CHAIN_MAX_CHANNELS);
    if (a->kind == NK_REVERSE && np->scale)
        x = graph_channel_affine(lw->g, u->name, x, param_value(lw, np->scale), param_value(lw, np->shift));
    chain_norm(lw, unit, &c);
    graph_chain(lw->g, u->name, x, &c, out);
    lower_set(lw, unit, out[0]);
    return 0;
}

static int lower_unit(Lower *lw, int unit, Err *e)
{
    const Unit *u = &lw->spec->u[unit];
    Graph *g = lw->g;
    int x = u->nin ? lower_input(lw, unit, 0) : -1, y = -1, ins[UNIT_MAX_IN];
    switch (u->kind) {
    case U_INPUT:
        y = lw->input;
        break;
    case U_CONV:
    case U_LINEAR:
        return lw->qp->u[unit].method ? lw->qp->u[unit].method->lower(lw, unit, e) : lower_default(lw, unit, e);
    case U_NORM:
        return lower_norm(lw, unit, e);
    case U_ACT:
        y = u->u.act.kind == AK_NONE ? x : graph_act(g, u->name, x, u->u.act, param_value(lw, lw->qp->u[unit].weight));
        break;
    case U_POOL:
        y = graph_pool(g, u->name, x, u->u.pool, u->h, u->w);
        break;
    case U_ADD:
        y = graph_add(g, u->name, x, lower_input(lw, unit, 1));
        break;
    case U_CONCAT:
        for (int i = 0; i < u->nin; i++) ins[i] = lower_input(lw, unit, i);
        y = graph_concat(g, u->name, ins, u->nin);
        break;
    case U_SCALE:
        y = graph_scale(g, u->name, x, param_value(lw, lw->qp->u[unit].weight));
        break;
    case U_SHIFT:
        y = graph_shift(g, u->name, x, param_value(lw, lw->qp->u[unit].weight));
        break;
    case U_PAD:
        y = graph_pad(g, u->name, x, u->u.pad);
        break;
    case U_FLATTEN:
        y = u->ih == 1 && u->iw == 1 ? x : graph_flatten(g, u->name, x);
        break;
    case U_DROPOUT:
        y = lower_trains(lw) ? graph_dropout(g, u->name, x, u->u.p) : x;
        break;
    case U_SPACE_TO_DEPTH:
        y = graph_space_to_depth(g, u->name, x, u->u.block);
        break;
    case U_DEPTH_TO_SPACE:
        y = graph_depth_to_space(g, u->name, x, u->u.block);
        break;
    case U_NKINDS:
        break;
    }
    ASSERT(y >= 0, "unit kind %d", (int)u->kind);
    lower_set(lw, unit, y);
    return 0;
}

void lower_begin(Lower *lw, Graph *g, QPlan *qp, Phase phase, int variant, int batch)
{
    const Spec *s = qp->spec;
    *lw = (Lower){.g = g, .spec = s, .qp = qp, .phase = phase, .variant = variant, .batch = batch, .input = -1,
                  .labels = -1, .loss = -1};
    g->bf16 = qp->opts->bf16 && (phase == PH_TRAIN || phase == PH_EVAL);
    lw->value = xcalloc((size_t)s->n, sizeof *lw->value);
    lw->quantized = xcalloc((size_t)s->n, sizeof *lw->quantized);
    lw->padded = xcalloc((size_t)s->n, sizeof *lw->padded);
    lw->conv = xcalloc((size_t)s->n, sizeof *lw->conv);
    for (int i = 0; i < s->n; i++) lw->value[i] = lw->quantized[i] = lw->conv[i] = -1;
    ASSERT(s->u[0].kind == U_INPUT, "the first unit of a Spec is its input");
}

int lower_units(Lower *lw, Err *e)
{
    for (int i = 0; i < lw->spec->n; i++) {
        const QMethod *m = lw->qp->act_method;
        if (lw->value[i] < 0 && m && m->lower_other) m->lower_other(lw, i);
        if (lw->value[i] >= 0 || lw->spec->u[i].marks & UM_UNUSED) continue;
        if (in_chain(lw, i)) {
            lower_chain(lw, i);
        } else if (lower_unit(lw, i, e) < 0) {
            return -1;
        }
    }
    lw->logits = lw->value[lw->spec->out];
    lw->g->v[lw->logits].keep = true;
    return 0;
}

int lower_graph(Lower *lw, Graph *g, QPlan *qp, Phase phase, int variant, int batch, float smoothing, Err *e)
{
    return lower_graph_to(lw, g, qp, phase, variant, batch, false, smoothing, e);
}

int lower_graph_to(Lower *lw, Graph *g, QPlan *qp, Phase phase, int variant, int batch, bool soft, float smoothing, Err *e)
{
    const Unit *in = &qp->spec->u[0];
    lower_begin(lw, g, qp, phase, variant, batch);
    lw->smoothing = smoothing;
    lw->input = graph_external(g, tensor_nhwc(batch, in->c, in->h, in->w), "image");
    if (lower_units(lw, e) < 0) return -1;
    if (lower_trains(lw) && soft) {
        const int dim[2] = {batch, (int)(tensor_len(&g->v[lw->logits].t) / (size_t)batch)};
        lw->labels = graph_external(g, tensor_make(DT_F32, 2, dim, NULL), "targets");
        lw->loss = graph_soft_cross_entropy(g, "loss", lw->logits, lw->labels, smoothing);
        g->v[lw->loss].keep = true;
    } else if (lower_trains(lw)) {
        lw->labels = graph_external(g, tensor_make(DT_S32, 1, &batch, NULL), "labels");
        lw->loss = graph_cross_entropy(g, "loss", lw->logits, lw->labels, smoothing);
        g->v[lw->loss].keep = true;
    }
    return 0;
}

void lower_free(Lower *lw)
{
    free(lw->value);
    free(lw->quantized);
    free(lw->padded);
    free(lw->conv);
}
