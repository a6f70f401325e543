/* engine/rng.c -- see rng.h. Philox 4x32-10: multipliers and Weyl constants from the paper. */
#include "engine/rng.h"

#include <math.h>

static void philox(Rng *r)
{
    uint32_t k0 = r->key[0], k1 = r->key[1];
    uint32_t c0 = r->ctr[0], c1 = r->ctr[1], c2 = r->ctr[2], c3 = r->ctr[3];
    for (int i = 0; i < 10; i++) {
        uint64_t p = (uint64_t)0xD2511F53u * c0, q = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)q;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    r->out[0] = c0, r->out[1] = c1, r->out[2] = c2, r->out[3] = c3;
    r->left = 4;
    if (++r->ctr[0] == 0) r->ctr[1]++;
}

/* One round of splitmix64: spreads nearby ids over the key space. */
static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

Rng rng_stream(uint64_t seed, RngPurpose purpose, uint64_t a, uint64_t b)
{
    uint64_t key = mix(seed ^ mix((uint64_t)purpose)), hi = mix(a ^ mix(b + 0x5851F42D4C957F2Du));
    Rng r = {
        {(uint32_t)key, (uint32_t)(key >> 32)}, {0, 0, (uint32_t)hi, (uint32_t)(hi >> 32)}, {0}, 0};
    return r;
}

uint32_t rng_u32(Rng *r)
{
    if (!r->left) philox(r);
    return r->out[--r->left];
}

uint64_t rng_u64(Rng *r)
{
    uint64_t hi = rng_u32(r);
    return hi << 32 | rng_u32(r);
}

uint32_t rng_below(Rng *r, uint32_t n)
{
    uint32_t limit = (uint32_t)(0x100000000u % n), x; /* 2^32 mod n values would be favoured */
    do x = rng_u32(r);
    while (x < limit);
    return x % n;
}

double rng_uniform(Rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

double rng_range(Rng *r, double lo, double hi)
{
    return lo + (hi - lo) * rng_uniform(r);
}

double rng_normal(Rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void rng_shuffle(Rng *r, uint32_t *a, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = rng_below(r, (uint32_t)i);
        uint32_t t = a[i - 1];
        a[i - 1] = a[j];
        a[j] = t;
    }
}
