/* quant/fat.c -- see fat.h. The only file that uses FFTW.
 *
 * Rows are real, so that half the spectrum is enough: K = n / 2 + 1 bins, of which bin 0 and, for
 * even n, bin n / 2 stand for themselves (weight 1), all others for two (weight 2). Backward, with
 * G = DFT of dy, U = F / A (0 where A is 0), w the weights of the bins:
 *
 *   dM = Re(F conj G) / n      dS = dM M (1 - M)
 *   dT = (w dS) A'             dA = T' dS
 *   dx = inverse DFT, unscaled, of  M G / n + dA U
 *
 * M G / n is the linear path (a real mask makes the map self-adjoint), dA U the one through the
 * magnitudes. Both matrix products take w dS; dA is divided by w afterwards, which is exact.
 *
 * Plans are estimated, not measured: measured ones may differ from start to start, and with them
 * the roundings. One thread per plan; rows are spread over threads.
 *
 * Source: Tao et al. 2022, "FAT: Frequency-Aware Transformation for Bridging Full-Precision and
 * Low-Precision Deep Representations"; ChaofanTao/FAT_Quantization, fat_quantization.py,
 * weight_deactivate_freq (complex transforms of all n bins there: the same values). */
#include "quant/fat.h"

#include <complex.h>
#include <fftw3.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/mem.h"
#include "engine/par.h"
#include "engine/prim.h"

enum { LINE = MEM_ALIGN / (int)sizeof(float) };

static size_t whole_lines(size_t n)
{
    return (n + LINE - 1) / LINE * LINE;
}

void fat_init(Fat *f, int rows, int n)
{
    float *x;
    fftwf_complex *z;
    ASSERT(rows > 0 && n > 0, "a transform of %d rows of %d values", rows, n);
    *f = (Fat){.rows = rows, .n = n, .bins = n / 2 + 1};
    f->ld = whole_lines((size_t)f->bins);
    f->ldn = whole_lines((size_t)n);
    x = xaligned(f->ldn * sizeof *x);
    z = xaligned(f->ld * sizeof *z);
    f->plan[0] = fftwf_plan_dft_r2c_1d(n, x, z, FFTW_ESTIMATE | FFTW_DESTROY_INPUT);
    f->plan[1] = fftwf_plan_dft_c2r_1d(n, z, x, FFTW_ESTIMATE | FFTW_DESTROY_INPUT);
    ASSERT(f->plan[0] && f->plan[1], "no plan for rows of %d values", n);
    free(x);
    free(z);
}

void fat_free(Fat *f)
{
    for (int i = 0; i < 2; i++)
        if (f->plan[i]) fftwf_destroy_plan(f->plan[i]);
    *f = (Fat){0};
}

/* Saved: F (complex), A, M, each [rows, ld]. */
static size_t plane(const Fat *f)
{
    return (size_t)f->rows * f->ld;
}

size_t fat_save_len(const Fat *f)
{
    return 4 * plane(f);
}

size_t fat_scratch_len(const Fat *f)
{
    return 4 * plane(f) + (size_t)f->rows * f->ldn;
}

const float *fat_magnitude(const Fat *f, const float *save, int r)
{
    return save + 2 * plane(f) + (size_t)r * f->ld;
}

const float *fat_mask(const Fat *f, const float *save, int r)
{
    return save + 3 * plane(f) + (size_t)r * f->ld;
}

/* A row into an aligned one (plans are made for those), and its transform. */
static void row_forward(const Fat *f, const float *x, float *row, float *z)
{
    for (int j = 0; j < f->n; j++) row[j] = x[j];
    fftwf_execute_dft_r2c(f->plan[0], row, (fftwf_complex *)z);
}

/* The unscaled inverse of z, which is destroyed, times `scale`. */
static void row_inverse(const Fat *f, float *z, float *row, float *y, float scale)
{
    fftwf_execute_dft_c2r(f->plan[1], (fftwf_complex *)z, row);
    SIMD_FOR(j, f->n) y[j] = row[j] * scale;
}

/* e^x, to within one unit in the last place where it is a normal number; beyond, the nearest end of
 * those. Written so that loops over it become vectors, the same bits for any length of those:
 * x = k ln 2 + r, e^r by its series, 2^k by its exponent. */
static inline float exp_of(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const float in = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float t = in * 1.44269504088896341f + shift, k = t - shift;
    const float r = (in - k * 0.693359375f) + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f, power;
    uint32_t bits;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 127u) << 23; /* the low bits of t are k */
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

void fat_forward(const Fat *f, const float *t, const float *x, float *y, float *save,
                 float *scratch)
{
    const size_t p = plane(f), ld = f->ld, n = (size_t)f->n;
    float *spectrum = save, *mag = save + 2 * p, *mask = save + 3 * p;
    float *masked = scratch, *rows = scratch + 4 * p;
    const int k = f->bins;
    PARALLEL_FOR(r, f->rows)
    {
        const size_t i = (size_t)r;
        const float *z = spectrum + 2 * i * ld;
        float *a = mag + i * ld;
        row_forward(f, x + i * n, rows + i * f->ldn, spectrum + 2 * i * ld);
        SIMD_FOR(j, k) a[j] = sqrtf(z[2 * j] * z[2 * j] + z[2 * j + 1] * z[2 * j + 1]);
    }
    prim_sgemm(false, false, f->rows, k, f->rows, 1, t, f->rows, mag, (int)ld, 0, mask, (int)ld);
    PARALLEL_FOR(r, f->rows)
    {
        const size_t i = (size_t)r;
        const float *z = spectrum + 2 * i * ld;
        float *m = mask + i * ld, *to = masked + 2 * i * ld;
        SIMD_FOR(j, k) m[j] = 1.0f / (1.0f + exp_of(-m[j]));
        SIMD_FOR(j, k)
        {
            to[2 * j] = m[j] * z[2 * j];
            to[2 * j + 1] = m[j] * z[2 * j + 1];
        }
        row_inverse(f, to, rows + i * f->ldn, y + i * n, 1.0f / (float)f->n);
    }
}

/* Whether bin j has no conjugate beside itself. */
static bool lone(const Fat *f, int j)
{
    return j == 0 || 2 * j == f->n;
}

/* g: in: transform of dy; out: spectrum of dx. da: times the weights of the bins; changed. */
static void join_paths(const Fat *f, const float *z, const float *mag, const float *mask, float *da,
                       float *g)
{
    const float inv = 1.0f / (float)f->n;
    da[0] *= 2;
    if (f->bins > 1 && lone(f, f->bins - 1)) da[f->bins - 1] *= 2;
    SIMD_FOR(j, f->bins)
    {
        const float u = mag[j] > 0 ? 0.5f * da[j] / mag[j] : 0;
        g[2 * j] = mask[j] * g[2 * j] * inv + u * z[2 * j];
        g[2 * j + 1] = mask[j] * g[2 * j + 1] * inv + u * z[2 * j + 1];
    }
}

void fat_backward(const Fat *f, const float *t, const float *save, const float *dy, float *dx,
                  float *dt, float *scratch)
{
    const size_t p = plane(f), ld = f->ld, n = (size_t)f->n;
    const float *spectrum = save, *mag = save + 2 * p, *mask = save + 3 * p;
    float *g = scratch, *ds = scratch + 2 * p, *da = scratch + 3 * p, *rows = scratch + 4 * p;
    const int k = f->bins;
    const float inv = 1.0f / (float)f->n;
    PARALLEL_FOR(r, f->rows)
    {
        const size_t i = (size_t)r;
        const float *z = spectrum + 2 * i * ld, *m = mask + i * ld, *h = g + 2 * i * ld;
        float *s = ds + i * ld;
        row_forward(f, dy + i * n, rows + i * f->ldn, g + 2 * i * ld);
        SIMD_FOR(j, k)
        {
            const float dm = (z[2 * j] * h[2 * j] + z[2 * j + 1] * h[2 * j + 1]) * inv;
            s[j] = 2 * dm * m[j] * (1 - m[j]);
        }
        s[0] *= 0.5f;
        if (k > 1 && lone(f, k - 1)) s[k - 1] *= 0.5f;
    }
    if (dt)
        prim_sgemm(false, true, f->rows, f->rows, k, 1, ds, (int)ld, mag, (int)ld, 1, dt, f->rows);
    if (!dx) return;
    prim_sgemm(true, false, f->rows, k, f->rows, 1, t, f->rows, ds, (int)ld, 0, da, (int)ld);
    PARALLEL_FOR(r, f->rows)
    {
        const size_t i = (size_t)r;
        join_paths(f, spectrum + 2 * i * ld, mag + i * ld, mask + i * ld, da + i * ld,
                   g + 2 * i * ld);
        row_inverse(f, g + 2 * i * ld, rows + i * f->ldn, dx + i * n, 1);
    }
}
