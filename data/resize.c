/* data/resize.c -- bilinear resizing as Pillow does it, to the bit.
 *
 * Pillow 8 (libImaging/Resample.c, 8 bits per channel): a triangle filter whose support grows with
 * the shrinking factor, so every source pixel counts; horizontal pass, 8-bit result, vertical pass;
 * coefficients with 22 fractional bits. A pass that changes nothing is left out. The golden cases
 * are met exactly.
 *
 * Only the part of the result that is asked for is computed, from the rows and columns it needs.
 * Sums are integers, so their order is free, and as many of them are kept in a vector as the
 * processor has lanes (GCC's vector types). A vector of 32-bit words holds the bytes of the image
 * as they lie in memory; byte j of each word is taken out by a shift, summed up, and put back by
 * the same shift. The vertical pass so makes 64 bytes of a row at once (with AVX-512), the
 * horizontal one the same pixel of 16 rows. */
#include "data/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

#define COEF_BITS 22
#define HALF      (1 << (COEF_BITS - 1))
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4 /* SSE2, NEON */
#endif

typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

static Words load_words(const unsigned char *p)
{
    Words w;
    memcpy(&w, p, sizeof(w));
    return w;
}

/* The sums of four bytes each, rounded, as bytes in their places. */
static Words round_words(Words s0, Words s1, Words s2, Words s3)
{
    Words s[4] = {s0, s1, s2, s3}, out = {0};
    for (int j = 0; j < 4; j++) {
        Words v = s[j] >> COEF_BITS, over = (Words)(v > 255);
        out |= ((v & ~over) | (over & 255)) << 8 * j;
    }
    return out;
}

static unsigned char clip8(int32_t v)
{
    v >>= COEF_BITS;
    return (unsigned char)(v > 255 ? 255 : v);
}

/* Room for `out` pixels and their coefficients. */
static int axis_room(ResizeAxis *a, int in, int out)
{
    double scale = (double)in / out;
    a->taps = (int)ceil(scale < 1 ? 1 : scale) * 2 + 1;
    mem_grow(&a->span, &a->span_cap, (size_t)out, sizeof(*a->span));
    mem_grow(&a->k, &a->k_cap, (size_t)out * (size_t)a->taps, sizeof(*a->k));
    mem_grow(&a->w, &a->w_cap, (size_t)a->taps, sizeof(*a->w));
    return a->taps;
}

/* For the pixels from `begin` to `end` of `out`: the source range in [0, in) and its coefficients.
 */
static void axis_coefs(ResizeAxis *a, int in, int out, int begin, int end)
{
    double scale = (double)in / out, fscale = scale < 1 ? 1 : scale, ss = 1 / fscale;
    int taps = axis_room(a, in, out);
    for (int o = begin; o < end; o++) {
        double center = (o + 0.5) * scale, sum = 0, *w = a->w;
        int lo = (int)(center - fscale + 0.5), hi = (int)(center + fscale + 0.5);
        int32_t *k = a->k + (size_t)(o - begin) * (size_t)taps;
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int i = lo; i < hi; i++) {
            double d = fabs((i - center + 0.5) * ss);
            w[i - lo] = d < 1 ? 1 - d : 0;
            sum += w[i - lo];
        }
        for (int i = 0; i < hi - lo; i++) {
            double v = sum != 0 ? w[i] / sum : w[i];
            k[i] = (int32_t)(v * (1 << COEF_BITS) + 0.5);
        }
        a->span[o - begin] = (ResizeSpan){lo, hi - lo};
    }
}

/* ---- horizontal ---- */

/* `n` RGB pixels of LANES rows side by side: a word each, whose fourth byte is of no meaning.
 * `last`: nothing can be read behind the last pixel. */
static void pack_rows(unsigned char *to, const unsigned char *const row[LANES], int n, bool last)
{
    for (int x = 0; x < n - last; x++, to += 4 * LANES)
        for (int r = 0; r < LANES; r++) memcpy(to + 4 * r, row[r] + 3 * (size_t)x, 4);
    if (last)
        for (int r = 0; r < LANES; r++) memcpy(to + 4 * r, row[r] + 3 * (size_t)(n - 1), 3);
}

static void rows_horizontal(unsigned char *const dst[LANES], const unsigned char *pack, int n,
                            const ResizeAxis *a, int origin)
{
    for (int x = 0; x < n; x++) {
        const int32_t *k = a->k + (size_t)x * (size_t)a->taps;
        const unsigned char *p = pack + (size_t)(a->span[x].first - origin) * 4 * LANES;
        unsigned char px[4 * LANES];
        Words s0 = (Words){0} + HALF, s1 = s0, s2 = s0, out;
        for (int i = 0; i < a->span[x].count; i++, p += 4 * LANES) {
            const Words v = load_words(p);
            const uint32_t c = (uint32_t)k[i];
            s0 += (v & 255) * c, s1 += (v >> 8 & 255) * c, s2 += (v >> 16 & 255) * c;
        }
        out = round_words(s0, s1, s2, (Words){0});
        memcpy(px, &out, sizeof(px));
        for (int r = 0; r < LANES; r++) memcpy(dst[r] + 3 * (size_t)x, px + 4 * r, 3);
    }
}

/* One row, any number of channels. */
static void row_horizontal(unsigned char *dst, const unsigned char *src, int n, int c,
                           const ResizeAxis *a)
{
    for (int x = 0; x < n; x++, dst += c) {
        const int32_t *k = a->k + (size_t)x * (size_t)a->taps;
        const unsigned char *p = src + (size_t)a->span[x].first * (size_t)c;
        for (int ch = 0; ch < c; ch++) {
            int32_t s = HALF;
            for (int i = 0; i < a->span[x].count; i++)
                s += p[(size_t)i * (size_t)c + (size_t)ch] * k[i];
            dst[ch] = clip8(s);
        }
    }
}

/* `rows` rows of the box that starts at `src` to `n` pixels each. `end`: behind the image. */
static void pass_horizontal(ResizeScratch *sc, unsigned char *dst, size_t dstride,
                            const unsigned char *src, size_t sstride, const unsigned char *end,
                            int rows, int n, int c)
{
    const ResizeAxis *a = &sc->x;
    int from = a->span[0].first, to = a->span[n - 1].first + a->span[n - 1].count;
    if (c != 3) {
        for (int y = 0; y < rows; y++)
            row_horizontal(dst + (size_t)y * dstride, src + (size_t)y * sstride, n, c, a);
        return;
    }
    mem_grow(&sc->pack, &sc->pack_cap, (size_t)(to - from) * 4 * LANES, 1);
    for (int y = 0; y < rows; y += LANES) {
        unsigned char *out[LANES];
        const unsigned char *in[LANES];
        for (int r = 0; r < LANES; r++) { /* the last rows may be made twice */
            int at = y + r < rows ? y + r : rows - 1;
            out[r] = dst + (size_t)at * dstride;
            in[r] = src + (size_t)at * sstride + 3 * (size_t)from;
        }
        pack_rows(sc->pack, in, to - from, in[LANES - 1] + 3 * (size_t)(to - from) == end);
        rows_horizontal(out, sc->pack, n, a, from);
    }
}

/* ---- vertical ---- */

static void words_vertical(unsigned char *dst, const unsigned char *src, size_t stride, int count,
                           const int32_t *k)
{
    Words s0 = (Words){0} + HALF, s1 = s0, s2 = s0, s3 = s0, out;
    for (int i = 0; i < count; i++, src += stride) {
        const Words v = load_words(src);
        const uint32_t c = (uint32_t)k[i];
        s0 += (v & 255) * c, s1 += (v >> 8 & 255) * c;
        s2 += (v >> 16 & 255) * c, s3 += (v >> 24) * c;
    }
    out = round_words(s0, s1, s2, s3);
    memcpy(dst, &out, sizeof(out));
}

static void row_vertical(unsigned char *dst, const unsigned char *src, size_t stride, size_t len,
                         int count, const int32_t *k)
{
    const size_t step = sizeof(Words);
    if (len < step) {
        for (size_t x = 0; x < len; x++) {
            int32_t s = HALF;
            for (int i = 0; i < count; i++) s += src[(size_t)i * stride + x] * k[i];
            dst[x] = clip8(s);
        }
        return;
    }
    for (size_t x = 0; x < len; x += step) {
        size_t at = x + step <= len ? x : len - step; /* the last ones may overlap */
        words_vertical(dst + at, src + at, stride, count, k);
    }
}

/* ---- both ---- */

void resize_part(ResizeScratch *sc, const Image *src, const int box[4], int full_h, int full_w,
                 const int part[4], Image *dst)
{
    int bw = box[2] - box[0], bh = box[3] - box[1], w = part[2] - part[0], h = part[3] - part[1],
        c = src->c, top = part[1], rows = h;
    size_t sstride = (size_t)src->w * (size_t)c, len = (size_t)w * (size_t)c, stride = sstride;
    const unsigned char *from = src->px + (size_t)box[1] * sstride + (size_t)box[0] * (size_t)c,
                        *end = src->px + (size_t)src->h * sstride;
    bool wide = full_w != bw, high = full_h != bh;
    ASSERT(bw > 0 && bh > 0 && box[0] >= 0 && box[1] >= 0 && box[2] <= src->w && box[3] <= src->h,
           "box %d,%d %dx%d of an image of %dx%d", box[0], box[1], bw, bh, src->w, src->h);
    ASSERT(w > 0 && h > 0 && part[0] >= 0 && part[1] >= 0 && part[2] <= full_w && part[3] <= full_h,
           "part %d,%d %dx%d of %dx%d", part[0], part[1], w, h, full_w, full_h);
    mem_grow(&dst->px, &dst->cap, len * (size_t)h, 1);
    dst->h = h, dst->w = w, dst->c = c;
    if (high) { /* the rows of the box that the part needs */
        axis_coefs(&sc->y, bh, full_h, part[1], part[3]);
        top = sc->y.span[0].first;
        rows = sc->y.span[h - 1].first + sc->y.span[h - 1].count - top;
    }
    from += (size_t)top * sstride;
    if (wide) {
        unsigned char *mid = dst->px;
        axis_coefs(&sc->x, bw, full_w, part[0], part[2]);
        if (high) {
            mem_grow(&sc->mid, &sc->mid_cap, len * (size_t)rows, 1);
            mid = sc->mid;
        }
        pass_horizontal(sc, mid, len, from, sstride, end, rows, w, c);
        from = mid, stride = len;
    } else {
        from += (size_t)part[0] * (size_t)c;
    }
    for (int y = 0; high && y < h; y++)
        row_vertical(dst->px + (size_t)y * len, from + (size_t)(sc->y.span[y].first - top) * stride,
                     stride, len, sc->y.span[y].count, sc->y.k + (size_t)y * (size_t)sc->y.taps);
    for (int y = 0; !high && !wide && y < h; y++)
        memcpy(dst->px + (size_t)y * len, from + (size_t)y * stride, len);
}

void resize_source(int in, int out, int begin, int end, int *first, int *last)
{
    double scale = (double)in / out, fscale = scale < 1 ? 1 : scale;
    int lo = (int)((begin + 0.5) * scale - fscale + 0.5),
        hi = (int)((end - 0.5) * scale + fscale + 0.5);
    *first = in == out ? begin : lo < 0 ? 0 : lo;
    *last = in == out ? end : hi > in ? in : hi;
}

void resize_scratch_free(ResizeScratch *sc)
{
    free(sc->x.span), free(sc->x.k), free(sc->x.w);
    free(sc->y.span), free(sc->y.k), free(sc->y.w);
    free(sc->mid), free(sc->pack);
    memset(sc, 0, sizeof(*sc));
}

void image_resize(const Image *src, const double box[4], Image *dst, int out_h, int out_w)
{
    ResizeScratch sc = {0};
    resize_part(&sc, src, (const int[4]){(int)box[0], (int)box[1], (int)box[2], (int)box[3]}, out_h,
                out_w, (const int[4]){0, 0, out_w, out_h}, dst);
    resize_scratch_free(&sc);
}
