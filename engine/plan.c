/* engine/plan.c -- see plan.h. */
#include "engine/plan.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static size_t round_up(size_t n)
{
    return (n + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

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
        for (int j = 0; j < m && busy[j]->off < at + round_up(order[i]->bytes); j++)
            if (busy[j]->off + round_up(busy[j]->bytes) > at)
                at = busy[j]->off + round_up(busy[j]->bytes);
        order[i]->off = at;
        if (at + round_up(order[i]->bytes) > total) total = at + round_up(order[i]->bytes);
    }
    if (lower_bound) {
        *lower_bound = 0;
        for (int t = 0; t <= last; t++) {
            size_t sum = 0;
            for (int i = 0; i < n; i++)
                if (b[i].first <= t && t <= b[i].last) sum += round_up(b[i].bytes);
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

void plan_make(Plan *pl, Graph *g, bool share)
{
    const int end = 2 * g->nn - 1;
    Items s = {0};
    int *val_item = xcalloc((size_t)g->nv + 1, sizeof *val_item);
    int(*gin_item)[NODE_MAX_IN] = xcalloc((size_t)g->nn + 1, sizeof *gin_item);
    PlanBlock *b;
    int nb = 0, *where;

    *pl = (Plan){0};
    pl->value_off = xcalloc((size_t)g->nv + 1, sizeof *pl->value_off);
    lifetimes(g);
    for (int i = 0; i < g->nv; i++) {
        Value *v = &g->v[i];
        val_item[i] = -1;
        pl->value_off[i] = SIZE_MAX;
        if (v->param || v->external) continue;
        if (v->hoisted) {
            pl->value_off[i] = pl->fixed_bytes;
            pl->fixed_bytes += round_up(tensor_bytes(&v->t));
            continue;
        }
        if (v->keep) v->last = end;
        val_item[i] = add(&s, tensor_bytes(&v->t), v->first, v->last, &pl->value_off[i]);
    }
    for (int i = 0; i < g->nn; i++) {
        Node *n = &g->n[i];
        bool bwd = g->train && n->run_bwd;
        for (int k = 0; k < NODE_MAX_IN; k++) gin_item[i][k] = -1;
        if (n->hoisted) {
            n->save_off = pl->fixed_bytes; /* runs rarely: what it works with is kept */
            pl->fixed_bytes += round_up(n->save_bytes);
            n->scratch_off = pl->fixed_bytes;
            pl->fixed_bytes += round_up(n->scratch_bytes);
            continue;
        }
        add(&s, n->save_bytes, i, bwd ? end - i : i, &n->save_off);
        add(&s, n->scratch_bytes, i, i, &n->scratch_off);
        if (bwd) add(&s, n->scratch_bytes, end - i, end - i, &n->scratch_bwd_off);
        if (!bwd || n->alias) continue;
        for (int k = 0; k < n->nin; k++)
            if (n->gin_wanted[k])
                gin_item[i][k] =
                    add(&s, tensor_bytes(&g->v[n->in[k]].t), end - i, end - i, &n->gin_off[k]);
    }
    /* contributions live until the producer's backward has read them */
    for (int i = 0; g->train && i < g->nv; i++) {
        Value *v = &g->v[i];
        int use = v->producer >= 0 ? end - v->producer : -1;
        bool as_they_are = v->producer >= 0 && (g->n[v->producer].alias ||
                                                (g->n[v->producer].op->flags & OP_GRAD_PARTS));
        if (!v->needs_grad || v->producer < 0) continue;
        for (int k = 0; k < v->nparts; k++) {
            Item *it = &s.it[gin_item[v->part[k].node][v->part[k].in]];
            if (it->last < use) it->last = use;
        }
        if (v->nparts > 1 && !as_they_are) add(&s, tensor_bytes(&v->t), use, use, &v->gsum_off);
    }
    for (int i = 0; share && i < g->nn; i++) {
        Node *n = &g->n[i];
        if (n->inplace && !n->hoisted) share_storage(&s, val_item[n->in[0]], val_item[n->out[0]]);
    }
    for (int i = g->nn - 1; share && g->train && i >= 0; i--) {
        Node *n = &g->n[i];
        bool done = false;
        if (!n->grad_inplace || !n->run_bwd) continue;
        for (int k = 0; k < n->nout && !done; k++) {
            const Value *o = &g->v[n->out[k]];
            for (int j = 0; j < o->nparts && !done; j++)
                done = share_storage(&s, gin_item[o->part[j].node][o->part[j].in], gin_item[i][0]);
        }
    }

    b = xcalloc((size_t)s.n + 1, sizeof *b);
    where = xcalloc((size_t)s.n + 1, sizeof *where);
    for (int i = 0; i < s.n; i++) {
        if (root(&s, i) != i) continue;
        where[i] = nb;
        b[nb++] = share ? (PlanBlock){s.it[i].bytes, 0, s.it[i].first, s.it[i].last}
                        : (PlanBlock){s.it[i].bytes, 0, 0, end};
    }
    pl->arena_bytes = plan_place(b, nb, &pl->lower_bound);
    pl->blocks = nb;
    ASSERT(plan_overlap(b, nb) < 0, "block %d overlaps another", plan_overlap(b, nb));
    for (int i = 0; i < s.n; i++) *s.it[i].slot = b[where[root(&s, i)]].off;
    free(b);
    free(where);
    free(s.it);
    free(val_item);
    free(gin_item);
}

void plan_free(Plan *pl)
{
    free(pl->value_off);
    *pl = (Plan){0};
}
