/* engine/store.c -- see store.h. */
#include "engine/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Param *add(ParamStore *ps, ParamKind kind, DType dtype, Init init, int ndim, const int *dim,
                  const char *name)
{
    Param *p;
    ASSERT(!store_find(ps, name), "parameter '%s' declared twice", name);
    p = arena_alloc(&ps->arena, sizeof *p);
    p->name = arena_strdup(&ps->arena, name);
    p->index = ps->n;
    p->kind = kind;
    p->init = init;
    p->value = tensor_make(dtype, ndim, dim, NULL);
    p->value.data = arena_alloc(&ps->arena, tensor_bytes(&p->value));
    p->version = 1;
    mem_grow(&ps->p, &ps->cap, (size_t)ps->n + 1, sizeof *ps->p);
    ps->p[ps->n++] = p;
    return p;
}

Param *store_add(ParamStore *ps, ParamKind kind, DType dtype, Init init, int ndim, const int *dim,
                 const char *fmt, ...)
{
    char name[256];
    FORMAT_NAME(name, fmt);
    return add(ps, kind, dtype, init, ndim, dim, name);
}

Param *store_scalar(ParamStore *ps, ParamKind kind, float value, const char *fmt, ...)
{
    char name[256];
    FORMAT_NAME(name, fmt);
    return add(ps, kind, DT_F32, (Init){INIT_CONST, value, 0}, 0, NULL, name);
}

Param *store_find(const ParamStore *ps, const char *name)
{
    for (int i = 0; i < ps->n; i++)
        if (!strcmp(ps->p[i]->name, name)) return ps->p[i];
    return NULL;
}

static uint64_t hash_name(const char *s) /* FNV-1a */
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001B3u;
    return h;
}

void store_init(ParamStore *ps, uint64_t seed)
{
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        float *v = p->value.data;
        size_t n = tensor_len(&p->value);
        Rng r = rng_stream(seed, RNG_INIT, hash_name(p->name), 0);
        if (p->init.kind == INIT_NONE) continue;
        if (p->value.dtype != DT_F32) {
            memset(p->value.data, 0, tensor_bytes(&p->value));
        } else {
            for (size_t k = 0; k < n; k++)
                v[k] = p->init.kind == INIT_CONST ? p->init.a
                       : p->init.kind == INIT_NORMAL
                           ? (float)((double)p->init.a + (double)p->init.b * rng_normal(&r))
                           : (float)rng_range(&r, (double)p->init.a, (double)p->init.b);
        }
        param_touch(p);
    }
}

void store_alloc_grads(ParamStore *ps)
{
    size_t n = 0;
    if (ps->grads) return;
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i]->kind != PK_BUFFER) n += (tensor_len(&ps->p[i]->value) + 15) / 16 * 16;
    ps->n_grads = n;
    ps->grads = arena_alloc(&ps->arena, n * sizeof(float));
    n = 0;
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        if (p->kind == PK_BUFFER) continue;
        p->grad = p->value;
        p->grad.data = ps->grads + n;
        n += (tensor_len(&p->value) + 15) / 16 * 16;
    }
}

void store_zero_grads(ParamStore *ps)
{
    if (ps->n_grads) memset(ps->grads, 0, ps->n_grads * sizeof(float));
}

void param_touch(Param *p)
{
    p->version++;
}

float param_scalar(const Param *p)
{
    return *(const float *)p->value.data;
}

void param_set_scalar(Param *p, float v)
{
    *(float *)p->value.data = v;
    param_touch(p);
}

uint64_t store_version(const ParamStore *ps)
{
    uint64_t v = 0;
    for (int i = 0; i < ps->n; i++) v += ps->p[i]->version;
    return v;
}

void store_free(ParamStore *ps)
{
    arena_free(&ps->arena);
    free(ps->p);
    *ps = (ParamStore){0};
}
