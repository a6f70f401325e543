/* engine/plan.c -- see plan.h. */
#include "engine/plan.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static bool alive_together(const PlanBlock *a, const PlanBlock *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static int by_size(const void *a, const void *b)
{
    const PlanBlock *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes) return (*x)->bytes < (*y)->bytes ? 1 : -1;
    return *x < *y ? -1 : 1; /* stable */
}

static int by_offset(const void *a, const void *b)
{
    const PlanBlock *const *x = a, *const *y = b;
    return (*x)->off < (*y)->off ? -1 : (*x)->off > (*y)->off;
}

size_t plan_place(PlanBlock *b, int n, size_t *lower_bound)
{
    PlanBlock **order = xcalloc((size_t)n + 1, sizeof *order),
              **busy = xcalloc((size_t)n + 1, sizeof *busy);
    size_t total = 0;
    int last = 0;
    for (int i = 0; i < n; i++) {
        order[i] = &b[i];
        if (b[i].last > last) last = b[i].last;
    }
    qsort(order, (size_t)n, sizeof *order, by_size);
    for (int i = 0; i < n; i++) {
        size_t at = 0;
        int m = 0;
        for (int j = 0; j < i; j++)
            if (order[j]->bytes && alive_together(order[i], order[j])) busy[m++] = order[j];
        qsort(busy, (size_t)m, sizeof *busy, by_offset);
        for (int j = 0; j < m && busy[j]->off < at + mem_round_up(order[i]->bytes); j++)
            if (busy[j]->off + mem_round_up(busy[j]->bytes) > at)
                at = busy[j]->off + mem_round_up(busy[j]->bytes);
        order[i]->off = at;
        if (at + mem_round_up(order[i]->bytes) > total) total = at + mem_round_up(order[i]->bytes);
    }
    if (lower_bound) {
        *lower_bound = 0;
        for (int t = 0; t <= last; t++) {
            size_t sum = 0;
            for (int i = 0; i < n; i++)
                if (b[i].first <= t && t <= b[i].last) sum += mem_round_up(b[i].bytes);
            if (sum > *lower_bound) *lower_bound = sum;
        }
    }
    free(order);
    free(busy);
    return total;
}

int plan_overlap(const PlanBlock *b, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (b[i].bytes && b[j].bytes && alive_together(&b[i], &b[j]) &&
                b[i].off < b[j].off + b[j].bytes && b[j].off < b[i].off + b[i].bytes)
                return i;
    return -1;
}

/* Blocks under construction; `slot` receives the offset. Blocks that share storage point to a
 * common root. */
typedef struct Item {
    size_t bytes, *slot;
    int first, last, root;
} Item;

typedef struct Items {
    Item *it;
    int n;
    size_t cap;
} Items;

static int add(Items *s, size_t bytes, int first, int last, size_t *slot)
{
    if (!bytes) return -1;
    mem_grow(&s->it, &s->cap, (size_t)s->n + 1, sizeof *s->it);
    s->it[s->n] = (Item){bytes, slot, first, last, s->n};
    return s->n++;
}

static int root(const Items *s, int i)
{
    while (s->it[i].root != i) i = s->it[i].root;
    return i;
}

/* b takes a's storage; legal when b starts where a ends. */
static bool share_storage(Items *s, int a, int b)
{
    Item *x, *y;
    if (a < 0 || b < 0) return false;
    x = &s->it[root(s, a)];
    y = &s->it[root(s, b)];
    if (x == y || x->bytes != y->bytes || x->last != y->first) return false;
    x->last = y->last;
    y->root = (int)(x - s->it);
    return true;
}

static void lifetimes(Graph *g)
{
    const int end = 2 * g->nn - 1;
    for (int i = 0; i < g->nv; i++) {
        Value *v = &g->v[i];
        v->first = v->last = v->producer;
    }
    for (int i = 0; i < g->nn; i++) {
        const Node *n = &g->n[i];
        for (int k = 0; k < n->nin; k++) {
            Value *v = &g->v[n->in[k]];
            if (v->last < i) v->last = i;
        }
    }
    for (int i = 0; i < g->nn; i++) {
        const Node *n = &g->n[i];
        if (!g->train || !n->run_bwd) continue;
        for (int k = 0; k < n->nin; k++)
            if ((n->bwd_in >> k & 1) && g->v[n->in[k]].last < end - i)
                g->v[n->in[k]].last = end - i;
        for (int k = 0; k < n->nout; k++)
            if ((n->bwd_out >> k & 1) && g->v[n->out[k]].last < end - i)
                g->v[n->out[k]].last = end - i;
    }
}

/* What plan_make works with. Items are -1 for what has no block. */
typedef struct Planner {
    Plan *pl;
    Graph *g;
    int end; /* the last time */
    Items s;
    int *value;              /* the item of a value */
    int (*gin)[NODE_MAX_IN]; /* of a node's gradients of its inputs */
} Planner;

static void plan_values(Planner *p)
{
    for (int i = 0; i < p->g->nv; i++) {
        Value *v = &p->g->v[i];
        p->value[i] = -1;
        p->pl->value_off[i] = SIZE_MAX;
        if (v->param || v->external) continue;
        if (v->hoisted) {
            p->pl->value_off[i] = p->pl->fixed_bytes;
            p->pl->fixed_bytes += mem_round_up(tensor_bytes(&v->t));
            continue;
        }
        if (v->keep) v->last = p->end;
        p->value[i] = add(&p->s, tensor_bytes(&v->t), v->first, v->last, &p->pl->value_off[i]);
    }
}

/* Saved areas, scratch, and the gradients that backward writes. */
static void plan_nodes(Planner *p)
{
    for (int i = 0; i < p->g->nn; i++) {
        Node *n = &p->g->n[i];
        const bool bwd = p->g->train && n->run_bwd;
        const int back = p->end - i;
        for (int k = 0; k < NODE_MAX_IN; k++) p->gin[i][k] = -1;
        if (n->hoisted) {
            n->save_off = p->pl->fixed_bytes; /* runs rarely: what it works with is kept */
            p->pl->fixed_bytes += mem_round_up(n->save_bytes);
            n->scratch_off = p->pl->fixed_bytes;
            p->pl->fixed_bytes += mem_round_up(n->scratch_bytes);
            continue;
        }
        add(&p->s, n->save_bytes, i, bwd ? back : i, &n->save_off);
        add(&p->s, n->scratch_bytes, i, i, &n->scratch_off);
        if (!bwd) continue;
        add(&p->s, n->scratch_bytes, back, back, &n->scratch_bwd_off);
        for (int k = 0; k < n->nin && !n->alias; k++)
            if (n->gin_wanted[k])
                p->gin[i][k] =
                    add(&p->s, tensor_bytes(&p->g->v[n->in[k]].t), back, back, &n->gin_off[k]);
    }
}

/* Contributions live until the producer's backward has read them. */
static void plan_contributions(Planner *p)
{
    for (int i = 0; i < p->g->nv; i++) {
        Value *v = &p->g->v[i];
        const Node *from = v->producer >= 0 ? &p->g->n[v->producer] : NULL;
        const int use = p->end - v->producer;
        if (!v->needs_grad || !from) continue;
        for (int k = 0; k < v->nparts; k++) {
            Item *it = &p->s.it[p->gin[v->part[k].node][v->part[k].in]];
            if (it->last < use) it->last = use;
        }
        if (v->nparts > 1 && !from->alias && !(from->op->flags & OP_GRAD_PARTS))
            add(&p->s, tensor_bytes(&v->t), use, use, &v->gsum_off);
    }
}

/* The gradient of node i's first input into the storage of a contribution that it reads. */
static void share_gradient(Planner *p, int i)
{
    const Node *n = &p->g->n[i];
    for (int k = 0; k < n->nout; k++) {
        const Value *o = &p->g->v[n->out[k]];
        for (int j = 0; j < o->nparts; j++)
            if (share_storage(&p->s, p->gin[o->part[j].node][o->part[j].in], p->gin[i][0])) return;
    }
}

static void share(Planner *p)
{
    for (int i = 0; i < p->g->nn; i++) {
        const Node *n = &p->g->n[i];
        if (n->inplace && !n->hoisted)
            share_storage(&p->s, p->value[n->in[0]], p->value[n->out[0]]);
    }
    for (int i = p->g->nn - 1; p->g->train && i >= 0; i--)
        if (p->g->n[i].grad_inplace && p->g->n[i].run_bwd) share_gradient(p, i);
}

/* Places the blocks, each for the items that share it. */
static void place(Planner *p, bool shared)
{
    const Items *s = &p->s;
    PlanBlock *b = xcalloc((size_t)s->n + 1, sizeof *b);
    int *where = xcalloc((size_t)s->n + 1, sizeof *where), nb = 0;
    for (int i = 0; i < s->n; i++) {
        if (root(s, i) != i) continue;
        where[i] = nb;
        b[nb++] = shared ? (PlanBlock){s->it[i].bytes, 0, s->it[i].first, s->it[i].last}
                         : (PlanBlock){s->it[i].bytes, 0, 0, p->end};
    }
    p->pl->arena_bytes = plan_place(b, nb, &p->pl->lower_bound);
    p->pl->blocks = nb;
    ASSERT(plan_overlap(b, nb) < 0, "block %d overlaps another", plan_overlap(b, nb));
    for (int i = 0; i < s->n; i++) *s->it[i].slot = b[where[root(s, i)]].off;
    free(b);
    free(where);
}

void plan_make(Plan *pl, Graph *g, bool shared)
{
    Planner p = {.pl = pl, .g = g, .end = 2 * g->nn - 1};
    *pl = (Plan){0};
    pl->value_off = xcalloc((size_t)g->nv + 1, sizeof *pl->value_off);
    p.value = xcalloc((size_t)g->nv + 1, sizeof *p.value);
    p.gin = xcalloc((size_t)g->nn + 1, sizeof *p.gin);
    lifetimes(g);
    plan_values(&p);
    plan_nodes(&p);
    if (g->train) plan_contributions(&p);
    if (shared) share(&p);
    place(&p, shared);
    free(p.s.it);
    free(p.value);
    free(p.gin);
}

void plan_free(Plan *pl)
{
    free(pl->value_off);
    *pl = (Plan){0};
}
