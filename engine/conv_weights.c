/* engine/conv_weights.c -- see conv_weights.h. */
#include "engine/conv_weights.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/mem.h"
#include "engine/par.h"

/* One part: images [first, next), and where it works in the scratch memory. */
typedef struct Part {
    PrimConv *conv;
    size_t first;
    size_t library, packed, plain, bias;
} Part;

struct ConvWeights {
    ConvShape s;
    Part *part;
    int parts;
    size_t scratch, weights; /* bytes; values */
};

static size_t place(size_t *at, size_t bytes)
{
    const size_t here = *at;
    *at += mem_round_up(bytes);
    return here;
}

ConvWeights *conv_weights_new(Prim *p, const ConvShape *s, Err *e)
{
    ConvWeights *c = xcalloc(1, sizeof *c);
    const int threads = par_threads();
    c->s = *s;
    c->parts = threads < s->n ? threads : s->n;
    c->part = xcalloc((size_t)c->parts, sizeof *c->part);
    c->weights = (size_t)s->oc * (size_t)(s->ic / s->groups) * (size_t)s->k * (size_t)s->k;
    for (int i = 0; i < c->parts; i++) {
        Part *part = &c->part[i];
        ConvShape own = *s;
        const int first = (int)((int64_t)s->n * i / c->parts),
                  next = (int)((int64_t)s->n * (i + 1) / c->parts);
        own.n = next - first;
        own.one_thread = true;
        part->first = (size_t)first;
        part->conv = prim_conv_new(p, CONV_BWD_WEIGHTS, &own, e);
        if (!part->conv) {
            conv_weights_free(c);
            return NULL;
        }
        part->library = place(&c->scratch, prim_conv_scratch(part->conv));
        part->packed = place(&c->scratch, prim_conv_packed_bytes(part->conv));
        part->plain = place(&c->scratch, c->weights * sizeof(float));
        part->bias = place(&c->scratch, (size_t)s->oc * sizeof(float));
    }
    return c;
}

void conv_weights_free(ConvWeights *c)
{
    if (!c) return;
    for (int i = 0; i < c->parts; i++) prim_conv_free(c->part[i].conv);
    free(c->part);
    free(c);
}

size_t conv_weights_scratch(const ConvWeights *c)
{
    return c->scratch;
}

/* The gradient of the weights, or of the bias: the sum of the parts' in order. */
static void add_parts(const ConvWeights *c, const char *scratch, bool bias, size_t n, float *to)
{
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK, m = par_chunk_len(n, (size_t)k);
        for (int i = 0; i < c->parts; i++) {
            const Part *part = &c->part[i];
            const float *from =
                (const float *)(const void *)(scratch + (bias ? part->bias : part->plain)) + at;
            if (i == 0) {
                memcpy(to + at, from, m * sizeof *to);
            } else {
                SIMD_FOR(j, m) to[at + j] += from[j];
            }
        }
    }
}

void conv_weights_run(const ConvWeights *c, const void *x, const void *dy, float *dw, float *db,
                      void *scratch)
{
    const ConvShape *s = &c->s;
    const size_t nx = (size_t)s->ih * (size_t)s->iw * (size_t)s->ic,
                 ny = (size_t)s->oh * (size_t)s->ow * (size_t)s->oc;
    char *room = scratch;
    PARALLEL_FOR(i, c->parts)
    {
        const Part *part = &c->part[i];
        prim_conv_run(part->conv, (const uint16_t *)x + part->first * nx, room + part->packed,
                      (const uint16_t *)dy + part->first * ny, s->bias ? room + part->bias : NULL,
                      room + part->library);
        prim_conv_unpack(part->conv, room + part->packed, (float *)(void *)(room + part->plain));
    }
    if (dw) add_parts(c, room, false, c->weights, dw);
    if (db) add_parts(c, room, true, (size_t)s->oc, db);
}
