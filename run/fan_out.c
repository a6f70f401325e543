/* run/fan_out.c -- see fan_out.h. As deJQK/AdaBits loads fp_pretrained_file, and from nets without
 * a norm for each width as well. */
#include "run/fan_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Fan {
    TensorFile *f;
    bool *used; /* entries of the file that were copied */
    int made;
} Fan;

/* Among the first n entries. */
static int find(const TensorFile *f, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (str_eq(f->v[i].name, name)) return i;
    return -1;
}

/* Where the last ".bn.K." of a name is; *rest: behind it. NULL when there is none. */
static const char *norm_entry(const char *name, const char **rest)
{
    const char *found = NULL;
    for (const char *s = strstr(name, ".bn."); s; s = strstr(s + 1, ".bn.")) {
        const char *end = s + 4;
        while (*end >= '0' && *end <= '9') end++;
        if (end == s + 4 || *end != '.') continue;
        found = s;
        *rest = end + 1;
    }
    return found;
}

/* The one of the first n entries that can stand in for the parameter called `name`, or -1. */
static int source(const TensorFile *f, int n, const char *name)
{
    const char *rest, *at = norm_entry(name, &rest), *dot;
    char other[512];
    int i;
    if (at) {
        snprintf(other, sizeof other, "%.*s.bn.0.%s", (int)(at - name), name, rest);
        if ((i = find(f, n, other)) >= 0) return i;
        snprintf(other, sizeof other, "%.*s.%s", (int)(at - name), name, rest);
        return find(f, n, other);
    }
    dot = strrchr(name, '.'); /* affine parts that the widths share */
    if (!dot) return -1;
    snprintf(other, sizeof other, "%.*s.bn.0%s", (int)(dot - name), name, dot);
    return find(f, n, other);
}

static void add(Fan *fan, const ParamStore *ps)
{
    TensorFile *f = fan->f;
    const int had = f->n;
    void *more = arena_alloc(&f->arena, ((size_t)f->n + (size_t)ps->n) * sizeof *f->v);
    memcpy(more, f->v, (size_t)f->n * sizeof *f->v);
    f->v = more;
    for (int k = 0; k < ps->n; k++) {
        int from;
        if (find(f, had, ps->p[k]->name) >= 0) continue;
        from = source(f, had, ps->p[k]->name);
        if (from < 0) continue;
        f->v[f->n] = f->v[from];
        f->v[f->n++].name = ps->p[k]->name;
        fan->used[from] = true;
        fan->made++;
    }
}

static void repeat_clips(Fan *fan, const ParamStore *ps)
{
    TensorFile *f = fan->f;
    for (int k = 0; k < ps->n; k++) {
        const Param *p = ps->p[k];
        const size_t n = tensor_len(&p->value);
        const int i = p->kind == PK_CLIP && n > 1 ? find(f, f->n, p->name) : -1;
        float *v;
        if (i < 0 || tensor_len(&f->v[i].t) != 1 || f->v[i].t.dtype != DT_F32) continue;
        v = arena_alloc(&f->arena, n * sizeof *v);
        for (size_t j = 0; j < n; j++) v[j] = *(const float *)f->v[i].t.data;
        f->v[i].t = p->value;
        f->v[i].t.data = v;
        fan->made++;
    }
}

static void drop_sources(Fan *fan, int had, const ParamStore *ps)
{
    TensorFile *f = fan->f;
    int n = 0;
    for (int i = 0; i < f->n; i++)
        if (i >= had || !fan->used[i] || store_find(ps, f->v[i].name)) f->v[n++] = f->v[i];
    f->n = n;
}

int fan_out(TensorFile *f, const ParamStore *ps)
{
    Fan fan = {.f = f};
    const int had = f->n;
    fan.used = xcalloc((size_t)had + 1, sizeof *fan.used);
    add(&fan, ps);
    repeat_clips(&fan, ps);
    drop_sources(&fan, had, ps);
    free(fan.used);
    return fan.made;
}
