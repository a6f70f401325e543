/* data/resize.c -- bilinear resizing as Pillow does it, to the bit.
 *
 * Pillow 8 (libImaging/Resample.c, 8 bits per channel): a triangle filter whose support grows with
 * the shrinking factor, so every source pixel counts; horizontal pass, 8-bit result, vertical pass;
 * coefficients with 22 fractional bits. A pass that changes nothing is left out. The golden cases
 * are met exactly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

#define COEF_BITS 22

typedef struct Axis {
    int first, count; /* source pixels of one output pixel */
} Axis;

/* For each of `out` pixels: the source range in [0, in) and its coefficients, `k` apart by *ksize.
 */
static int32_t *axis_coefs(int in, int out, Axis *axis, int *ksize)
{
    double scale = (double)in / out, fscale = scale < 1 ? 1 : scale, ss = 1 / fscale;
    int taps = (int)ceil(fscale) * 2 + 1;
    double *w = xmalloc((size_t)taps * sizeof(*w));
    int32_t *k = xcalloc((size_t)out, (size_t)taps * sizeof(*k));
    for (int o = 0; o < out; o++) {
        double center = (o + 0.5) * scale, sum = 0;
        int lo = (int)(center - fscale + 0.5), hi = (int)(center + fscale + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int i = lo; i < hi; i++) {
            double d = fabs((i - center + 0.5) * ss);
            w[i - lo] = d < 1 ? 1 - d : 0;
            sum += w[i - lo];
        }
        for (int i = 0; i < hi - lo; i++) {
            double v = sum != 0 ? w[i] / sum : w[i];
            k[(size_t)o * (size_t)taps + (size_t)i] = (int32_t)(v * (1 << COEF_BITS) + 0.5);
        }
        axis[o].first = lo;
        axis[o].count = hi - lo;
    }
    free(w);
    *ksize = taps;
    return k;
}

static unsigned char clip8(int32_t v)
{
    v >>= COEF_BITS;
    return (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* One row of `w` pixels with `c` channels from `src` (the left edge of the box). */
static void row_horizontal(unsigned char *dst, const unsigned char *src, int w, int c,
                           const Axis *a, const int32_t *k, int taps)
{
    for (int x = 0; x < w; x++, k += taps) {
        const unsigned char *p = src + (size_t)a[x].first * (size_t)c;
        if (c == 3) {
            int32_t r = 1 << (COEF_BITS - 1), g = r, b = r;
            for (int i = 0; i < a[x].count; i++, p += 3)
                r += p[0] * k[i], g += p[1] * k[i], b += p[2] * k[i];
            dst[0] = clip8(r), dst[1] = clip8(g), dst[2] = clip8(b);
        } else {
            for (int ch = 0; ch < c; ch++) {
                int32_t s = 1 << (COEF_BITS - 1);
                for (int i = 0; i < a[x].count; i++)
                    s += p[(size_t)i * (size_t)c + (size_t)ch] * k[i];
                dst[ch] = clip8(s);
            }
        }
        dst += c;
    }
}

static void row_vertical(unsigned char *dst, const unsigned char *src, size_t stride, size_t len,
                         const Axis *a, const int32_t *k)
{
    const unsigned char *p = src + (size_t)a->first * stride;
    for (size_t x = 0; x < len; x++) {
        int32_t s = 1 << (COEF_BITS - 1);
        for (int i = 0; i < a->count; i++) s += p[(size_t)i * stride + x] * k[i];
        dst[x] = clip8(s);
    }
}

void image_resize(const Image *src, const double box[4], Image *dst, int out_h, int out_w)
{
    int x0 = (int)box[0], y0 = (int)box[1], bw = (int)box[2] - x0, bh = (int)box[3] - y0,
        c = src->c;
    size_t sstride = (size_t)src->w * (size_t)c, len = (size_t)out_w * (size_t)c, tstride = sstride;
    const unsigned char *from = src->px + (size_t)y0 * sstride + (size_t)x0 * (size_t)c;
    unsigned char *mid = NULL;
    Axis *axis = xmalloc((size_t)(out_w > out_h ? out_w : out_h) * sizeof(*axis));
    int32_t *k;
    int taps;
    ASSERT(bw > 0 && bh > 0 && x0 >= 0 && y0 >= 0 && x0 + bw <= src->w && y0 + bh <= src->h &&
               out_h > 0 && out_w > 0,
           "box %d,%d %dx%d of an image of %dx%d to %dx%d", x0, y0, bw, bh, src->w, src->h, out_w,
           out_h);
    mem_grow(&dst->px, &dst->cap, len * (size_t)out_h, 1);
    dst->h = out_h, dst->w = out_w, dst->c = c;
    if (out_w != bw) {
        mid = out_h != bh ? xmalloc(len * (size_t)bh) : dst->px;
        k = axis_coefs(bw, out_w, axis, &taps);
        for (int y = 0; y < bh; y++)
            row_horizontal(mid + (size_t)y * len, from + (size_t)y * sstride, out_w, c, axis, k,
                           taps);
        free(k);
        from = mid;
        tstride = len;
    }
    if (out_h != bh) {
        k = axis_coefs(bh, out_h, axis, &taps);
        for (int y = 0; y < out_h; y++)
            row_vertical(dst->px + (size_t)y * len, from, tstride, len, &axis[y],
                         k + (size_t)y * (size_t)taps);
        free(k);
        free(mid);
    } else if (!mid) {
        for (int y = 0; y < bh; y++)
            memcpy(dst->px + (size_t)y * len, from + (size_t)y * sstride, len);
    }
    free(axis);
}
