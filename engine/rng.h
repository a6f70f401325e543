/* engine/rng.h -- counter-based random numbers.
 *
 * A stream is a pure function of (seed, purpose, a, b): no state is carried between steps, so a
 * resumed run draws what the uninterrupted one would have drawn, for any number of workers.
 * Generator: Philox 4x32-10 (Salmon et al. 2011). */
#ifndef ENGINE_RNG_H
#define ENGINE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef enum RngPurpose {
    RNG_INIT = 1, /* parameter initialisation: a = hash of the parameter's name */
    RNG_SHUFFLE,  /* order of an epoch: a = epoch */
    RNG_CROP,     /* transforms: a = epoch, b = sample index; one purpose each, so that */
    RNG_FLIP,     /* switching one on does not change what another draws */
    RNG_JITTER,
    RNG_LIGHTING,
    RNG_MIXUP,   /* a = epoch, b = batch of the epoch */
    RNG_DROPOUT, /* a = step, b = node and image */
    RNG_SYNTH,   /* the synthetic data set: a = split, b = sample */
    RNG_TEST
} RngPurpose;

typedef struct Rng {
    uint32_t key[2], ctr[4], out[4];
    int left; /* unused words in out */
} Rng;

Rng rng_stream(uint64_t seed, RngPurpose purpose, uint64_t a, uint64_t b);
uint32_t rng_u32(Rng *r);
uint64_t rng_u64(Rng *r);
uint32_t rng_below(Rng *r, uint32_t n);          /* 0 .. n-1, unbiased; n > 0 */
double rng_uniform(Rng *r);                      /* [0, 1), 53 bits */
double rng_range(Rng *r, double lo, double hi);  /* [lo, hi) */
double rng_normal(Rng *r);                       /* mean 0, deviation 1 (Box-Muller) */
void rng_shuffle(Rng *r, uint32_t *a, size_t n); /* Fisher-Yates */

#endif
