/* quant/links.c -- see links.h. Union-find over the units of a Spec; the root of a class is its
 * earliest unit. */
#include "quant/links.h"

#include <stdlib.h>

static int root(int *up, int i)
{
    while (up[i] != i) i = up[i] = up[up[i]];
    return i;
}

static void join(int *up, int a, int b)
{
    a = root(up, a);
    b = root(up, b);
    if (a < b)
        up[b] = a;
    else
        up[a] = b;
}

static bool is_layer(const Unit *u)
{
    return u->kind == U_CONV || u->kind == U_LINEAR;
}

static bool keeps_class(const Unit *u, bool through_average)
{
    switch (u->kind) {
    case U_ADD:
    case U_ACT:
    case U_NORM:
    case U_DROPOUT:
    case U_PAD:
    case U_FLATTEN:
        return true;
    case U_POOL:
        return u->u.pool.kind == POOL_MAX || through_average;
    default:
        return false;
    }
}

static int *classes(const Spec *s, bool through_average)
{
    int *up = xcalloc((size_t)s->n, sizeof *up);
    for (int i = 0; i < s->n; i++) up[i] = i;
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->u[i].nin && keeps_class(&s->u[i], through_average); k++)
            join(up, i, s->u[i].in[k]);
    return up;
}

/* The first layer from unit `from` on that reads class c. */
static int first_reader(const Spec *s, int *up, int c, int from)
{
    for (int i = from; i < s->n; i++)
        if (is_layer(&s->u[i]) && root(up, s->u[i].in[0]) == c) return i;
    return -1;
}

void links_find(Links *l, const Spec *s, bool strict)
{
    int *near = classes(s, strict), *far = classes(s, true);
    l->clip_owner = xcalloc((size_t)s->n, sizeof *l->clip_owner);
    l->feeds = xcalloc((size_t)s->n, sizeof *l->feeds);
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        l->clip_owner[i] = l->feeds[i] = -1;
        if (!is_layer(u)) continue;
        l->clip_owner[i] =
            u->marks & UM_OWN_CLIP && !strict ? i : first_reader(s, near, root(near, u->in[0]), 0);
        l->feeds[i] = first_reader(s, far, root(far, i), i + 1);
    }
    free(near);
    free(far);
}

void links_free(Links *l)
{
    free(l->clip_owner);
    free(l->feeds);
    *l = (Links){0};
}
