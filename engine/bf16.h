/* engine/bf16.h -- bfloat16: rows to and from float, and the types of a bf16 graph.
 *
 * A bf16 number is the upper half of a float: 8 significant bits, the range of float. Only maps
 * between nodes are ever stored so; parameters, statistics, sums and losses stay float. */
#ifndef ENGINE_BF16_H
#define ENGINE_BF16_H

#include <string.h>

#include "engine/graph.h"
#include "engine/par.h"

typedef uint32_t __attribute__((may_alias)) FloatBits;

static inline void bf16_widen(const uint16_t *h, float *f, size_t n)
{
    FloatBits *u = (FloatBits *)f;
    SIMD_FOR(i, n) u[i] = (uint32_t)h[i] << 16;
}

/* To nearest, ties to even; by integers, so that every machine gives the same bits (the
 * processor's own instruction drops denormals). NaN stays NaN. */
static inline void bf16_round(const float *f, uint16_t *h, size_t n)
{
    const FloatBits *u = (const FloatBits *)f;
    SIMD_FOR(i, n)
    {
        const uint32_t near = u[i] + 0x7FFFu + (u[i] >> 16 & 1), quiet = u[i] | 0x400000u;
        h[i] = (uint16_t)(((u[i] & 0x7FFFFFFFu) > 0x7F800000u ? quiet : near) >> 16);
    }
}

/* A piece of a map as floats: where it stands, or widened into buf. */
static inline const float *bf16_piece(const void *map, DType t, size_t at, size_t n, float *buf)
{
    if (t == DT_F32) return (const float *)map + at;
    bf16_widen((const uint16_t *)map + at, buf, n);
    return buf;
}

/* Where a piece of a map is computed: in place, or in buf. */
static inline float *bf16_room(void *map, DType t, size_t at, float *buf)
{
    return t == DT_F32 ? (float *)map + at : buf;
}

/* A computed piece to its place, if it is not there. */
static inline void bf16_put(const float *from, void *map, DType t, size_t at, size_t n)
{
    if (t == DT_BF16)
        bf16_round(from, (uint16_t *)map + at, n);
    else if (from != (float *)map + at)
        memmove((float *)map + at, from, n * sizeof *from);
}

/* A whole map from one type to another, in parallel. */
void bf16_copy(const void *from, DType tf, void *to, DType tt, size_t n);

/* Decides which maps of a graph with g->bf16 are stored as bf16 (those that a node which takes
 * bf16 writes and another reads) and puts casts where types differ. Called by graph_finish. */
void bf16_types(Graph *g);

#endif
