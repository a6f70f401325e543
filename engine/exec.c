/* engine/exec.c -- see exec.h. */
#include "engine/exec.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "engine/bf16.h"
#include "engine/par.h"

double exec_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void exec_init(Exec *x, Graph *g, const Plan *pl, char *arena)
{
    *x = (Exec){.g = g, .arena = arena, .weights_version = 1};
    x->data = xcalloc((size_t)g->nv + 1, sizeof *x->data);
    x->fixed = xaligned(pl->fixed_bytes);
    for (int i = 0; i < g->nv; i++) {
        const Value *v = &g->v[i];
        x->data[i] = v->param                       ? v->param->value.data
                     : pl->value_off[i] == SIZE_MAX ? NULL
                     : v->hoisted                   ? x->fixed + pl->value_off[i]
                                                    : arena + pl->value_off[i];
    }
}

void exec_free(Exec *x)
{
    free(x->data);
    free(x->fixed);
    *x = (Exec){0};
}

void exec_bind(Exec *x, int value, const void *data)
{
    union {
        const void *c;
        void *p;
    } u = {data}; /* externals are only read */
    ASSERT(x->g->v[value].external, "'%s' is not an input", x->g->v[value].name);
    x->data[value] = u.p;
}

void *exec_save(const Exec *x, const Node *n)
{
    if (!n->save_bytes) return NULL;
    return (n->hoisted ? x->fixed : x->arena) + n->save_off;
}

void *exec_scratch(const Exec *x, const Node *n)
{
    if (!n->scratch_bytes) return NULL;
    return (n->hoisted ? x->fixed : x->arena) + n->scratch_off;
}

void *exec_scratch_bwd(const Exec *x, const Node *n)
{
    return n->scratch_bytes ? x->arena + n->scratch_bwd_off : NULL;
}

float *exec_gin(const Exec *x, const Node *n, int i)
{
    return n->gin_wanted[i] ? (float *)(void *)(x->arena + n->gin_off[i]) : NULL;
}

int exec_gout_parts(const Exec *x, const Node *n, int i, const float *part[GRAD_MAX_PARTS])
{
    const Value *v = &x->g->v[n->out[i]];
    for (int k = 0; k < v->nparts; k++)
        part[k] = exec_gin(x, &x->g->n[v->part[k].node], v->part[k].in);
    return v->nparts;
}

/* Of bf16 parts: added as floats, rounded once. */
static void sum_parts_bf16(const float *const *part, int n, size_t len, float *out)
{
    PARALLEL_FOR(c, par_chunks(len))
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        float sum[PAR_CHUNK], more[PAR_CHUNK];
        bf16_piece(part[0], DT_BF16, at, m, sum);
        for (int k = 1; k < n; k++) {
            bf16_piece(part[k], DT_BF16, at, m, more);
            SIMD_FOR(j, m) sum[j] += more[j];
        }
        bf16_put(sum, out, DT_BF16, at, m);
    }
}

static void sum_parts(const float *const *part, int n, size_t len, float *out)
{
    PARALLEL_FOR(c, par_chunks(len))
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        float *o = out + at;
        for (size_t j = 0; j < m; j++) o[j] = part[0][at + j] + part[1][at + j];
        for (int k = 2; k < n; k++) {
            const float *p = part[k] + at;
            SIMD_FOR(j, m) o[j] += p[j];
        }
    }
}

const float *exec_gout(const Exec *x, const Node *n, int i)
{
    const Value *v = &x->g->v[n->out[i]];
    const float *part[GRAD_MAX_PARTS];
    int np = exec_gout_parts(x, n, i, part);
    if (np <= 1) return np ? part[0] : NULL;
    ASSERT(v->gsum_off != SIZE_MAX, "%s: no place for the sum of %d gradients", n->name, np);
    return (float *)(void *)(x->arena + v->gsum_off); /* summed by exec_backward */
}

static void run_forward(Exec *x, Node *n)
{
    if (x->timing) {
        double t = exec_now();
        n->op->forward(n, x);
        n->t_fwd = exec_now() - t;
    } else {
        n->op->forward(n, x);
    }
}

void exec_forward(Exec *x, uint64_t store_version)
{
    Graph *g = x->g;
    x->aux_loss = 0;
    x->fault = NULL;
    if (g->train || x->store_version != store_version) {
        x->weights_version++;
        for (int i = 0; i < g->nn; i++)
            if (g->n[i].hoisted) run_forward(x, &g->n[i]);
        x->store_version = store_version;
    }
    for (int i = 0; i < g->nn; i++) {
        if (g->n[i].hoisted) continue;
        run_forward(x, &g->n[i]);
        if (x->after) x->after(x, i, x->after_arg);
    }
    if (x->fault) x->store_version = 0; /* a hoisted node tells it again next time */
}

static void add_to_param(Param *p, const float *g)
{
    float *sum = p->grad.data;
    size_t len = tensor_len(&p->value);
    PARALLEL_FOR(c, par_chunks(len))
    {
        size_t at = (size_t)c * PAR_CHUNK, m = par_chunk_len(len, (size_t)c);
        SIMD_FOR(j, m) sum[at + j] += g[at + j];
    }
}

void exec_backward(Exec *x)
{
    Graph *g = x->g;
    for (int i = g->nn - 1; i >= 0; i--) {
        Node *n = &g->n[i];
        double t = x->timing ? exec_now() : 0;
        if (!n->run_bwd) continue;
        if (n->alias) { /* only a parameter has something to receive */
            const float *part[GRAD_MAX_PARTS];
            int np = exec_gout_parts(x, n, 0, part);
            for (int k = 0; k < n->nin; k++)
                for (int j = 0; j < np && n->gin_wanted[k] && g->v[n->in[k]].param; j++)
                    add_to_param(g->v[n->in[k]].param, part[j]);
            continue;
        }
        for (int k = 0; k < n->nout; k++) {
            const Value *v = &g->v[n->out[k]];
            const float *part[GRAD_MAX_PARTS];
            if (v->gsum_off == SIZE_MAX) continue;
            exec_gout_parts(x, n, k, part);
            (v->t.dtype == DT_BF16 ? sum_parts_bf16 : sum_parts)(
                part, v->nparts, tensor_len(&v->t), (float *)(void *)(x->arena + v->gsum_off));
        }
        n->op->backward(n, x);
        for (int k = 0; k < n->nin; k++)
            if (n->gin_wanted[k] && g->v[n->in[k]].param)
                add_to_param(g->v[n->in[k]].param, exec_gin(x, n, k));
        if (x->timing) n->t_bwd = exec_now() - t;
    }
}

const char *exec_find_nonfinite(Exec *x)
{
    Graph *g = x->g;
    for (int i = 0; i < g->nn; i++) {
        Node *n = &g->n[i];
        n->op->forward(n, x);
        for (int k = 0; k < n->nout; k++) {
            const Tensor *t = &g->v[n->out[k]].t;
            const bool real = t->dtype == DT_F32 || t->dtype == DT_BF16;
            for (size_t j = 0; real && j < tensor_len(t); j++) {
                float f;
                if (!isfinite(*bf16_piece(x->data[n->out[k]], t->dtype, j, 1, &f))) return n->name;
            }
        }
    }
    return NULL;
}
