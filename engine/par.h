/* engine/par.h -- the one way loops are spread over threads. Results never depend on the schedule:
 * an iteration writes only what is its own, and sums are kept per fixed-size chunk and added in
 * chunk order afterwards (PAR_CHUNK). */
#ifndef ENGINE_PAR_H
#define ENGINE_PAR_H

#include <stddef.h>
#include <stdint.h>

#define PAR_PRAGMA_(x) _Pragma(#x)

/* PARALLEL_FOR(i, n) body: i is int64_t. */
#define PARALLEL_FOR(i, n)                                                                         \
    PAR_PRAGMA_(omp parallel for schedule(static)) for (int64_t i = 0; i < (int64_t)(n); i++)

/* The innermost loop of a row kernel. */
#define SIMD_FOR(i, n) PAR_PRAGMA_(omp simd) for (size_t i = 0; i < (size_t)(n); i++)

/* Elements one row-kernel call works on: two rows of floats fit the first-level cache. */
#define PAR_CHUNK 4096

static inline size_t par_chunks(size_t n)
{
    return (n + PAR_CHUNK - 1) / PAR_CHUNK;
}

static inline size_t par_chunk_len(size_t n, size_t chunk)
{
    size_t rest = n - chunk * PAR_CHUNK;
    return rest < PAR_CHUNK ? rest : PAR_CHUNK;
}

int par_threads(void);       /* threads a parallel loop uses */
void par_set_threads(int n); /* 0: as they are; at first what OMP_NUM_THREADS or the machine says */

#endif
