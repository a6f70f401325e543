/* quant/intpass.c -- see intpass.h. A tile is a row of about TILE numbers, whole pixels; it stays
 * in the first-level cache while everything is done to it. */
#include "quant/intpass.h"

#include <string.h>

#include "engine/par.h"

#define TILE 1024

size_t pass_wide(int c)
{
    return c >= TILE ? (size_t)c : (size_t)c * (size_t)(TILE / c);
}

void pass_widen(const int32_t *v, int c, int32_t *wide)
{
    for (size_t i = 0; i < pass_wide(c); i++) wide[i] = v ? v[i % (size_t)c] : 0;
}

/* ---- rows ---- */

static inline int32_t at_least(int32_t v, int32_t floor)
{
    return v > floor ? v : floor;
}

static void row_one(const int32_t *x, const int32_t *bias, int shift, int32_t floor, size_t n,
                    int32_t *y)
{
    SIMD_FOR(i, n) y[i] = at_least((int32_t)(((uint32_t)x[i] + (uint32_t)bias[i]) << shift), floor);
}

static void row_two(const PassTerm *t, size_t at, int32_t floor, size_t n, int32_t *y)
{
    const int32_t *a = t[0].src + at, *b = t[1].src + at, *ba = t[0].bias, *bb = t[1].bias;
    const int sa = t[0].shift, sb = t[1].shift;
    SIMD_FOR(i, n)
    y[i] = at_least((int32_t)((((uint32_t)a[i] + (uint32_t)ba[i]) << sa) +
                              (((uint32_t)b[i] + (uint32_t)bb[i]) << sb)),
                    floor);
}

/* x = f 2^n + r: up by one where r is above one half, or one half and f odd */
static void row_shift_right(const PassQuant *q, const int32_t *x, size_t n, uint8_t *y)
{
    const int s = q->shift;
    const int32_t mask = (int32_t)((1u << s) - 1), half = s ? 1 << (s - 1) : INT32_MAX, lo = q->lo,
                  hi = q->hi;
    SIMD_FOR(i, n)
    {
        int32_t f = x[i] >> s, r = x[i] & mask;
        f += r + (f & 1) > half;
        f = f < lo ? lo : f;
        f = f > hi ? hi : f;
        y[i] = (uint8_t)f;
    }
}

/* Beyond +-2^9 every left shift is outside of 8 bits, and so it is when the shift is cut at 20. */
static void row_shift_left(const PassQuant *q, const int32_t *x, size_t n, uint8_t *y)
{
    const int s = -q->shift < 20 ? -q->shift : 20;
    const int32_t lo = q->lo, hi = q->hi;
    SIMD_FOR(i, n)
    {
        int32_t f = x[i];
        f = f < -512 ? -512 : f;
        f = f > 512 ? 512 : f;
        f = (int32_t)((uint32_t)f << s);
        f = f < lo ? lo : f;
        f = f > hi ? hi : f;
        y[i] = (uint8_t)f;
    }
}

static void row_quant(const PassQuant *q, const int32_t *x, size_t n, uint8_t *y)
{
    if (q->divisor == 1 && q->shift >= 0 && q->shift <= 30)
        row_shift_right(q, x, n, y);
    else if (q->divisor == 1 && q->shift < 0)
        row_shift_left(q, x, n, y);
    else /* after sums over a map: few numbers */
        for (size_t i = 0; i < n; i++)
            y[i] = (uint8_t)int_requant(x[i], q->shift, q->divisor, q->lo, q->hi);
}

/* Maxima of the windows of the pixels first .. first + n / c - 1, whose number is their place in
 * the output maps. */
static void row_window(const Pass *p, size_t first, size_t n, int32_t *restrict y)
{
    const size_t c = (size_t)p->c;
    const int k = p->window.k, ih = p->window.ih, iw = p->window.iw;
    for (size_t at = 0; at < n; at += c, first++) {
        const size_t img = first / ((size_t)p->h * (size_t)p->w);
        const int oy = (int)(first / (size_t)p->w % (size_t)p->h), ox = (int)(first % (size_t)p->w);
        const int y0 = oy * p->window.stride - p->window.pad,
                  x0 = ox * p->window.stride - p->window.pad;
        const int32_t *base = p->term[0].src + img * (size_t)ih * (size_t)iw * c;
        int32_t *restrict d = y + at;
        bool begun = false;
        for (int iy = y0 < 0 ? 0 : y0; iy < y0 + k && iy < ih; iy++) {
            const int xa = x0 < 0 ? 0 : x0, xb = x0 + k < iw ? x0 + k : iw;
            const int32_t *s = base + ((size_t)iy * (size_t)iw + (size_t)xa) * c;
            if (xb - xa == 3 && begun) { /* the usual window */
                SIMD_FOR(i, c)
                d[i] = at_least(at_least(s[i], s[i + c]), at_least(s[i + 2 * c], d[i]));
            } else if (xb - xa == 3) {
                SIMD_FOR(i, c) d[i] = at_least(at_least(s[i], s[i + c]), s[i + 2 * c]);
            } else {
                for (int ix = xa; ix < xb; ix++, s += c)
                    if (ix > xa || begun)
                        SIMD_FOR(i, c) d[i] = at_least(d[i], s[i]);
                    else
                        memcpy(d, s, c * sizeof *d);
            }
            begun = true;
        }
    }
}

void pass_run(const Pass *p)
{
    const size_t total = (size_t)p->n * (size_t)p->h * (size_t)p->w * (size_t)p->c,
                 wide = pass_wide(p->c);
    const int32_t floor = p->relu ? 0 : INT32_MIN;
    ASSERT(p->c <= PASS_MAX_C, "%d channels", p->c);
    PARALLEL_FOR(tile, (total + wide - 1) / wide)
    {
        _Alignas(MEM_ALIGN) int32_t room[PASS_MAX_C];
        const size_t at = (size_t)tile * wide, n = total - at < wide ? total - at : wide;
        int32_t *y = p->dst ? p->dst + at : room;
        if (p->window.k) {
            row_window(p, at / (size_t)p->c, n, y);
            row_one(y, p->term[0].bias, 0, floor, n, y);
        } else if (p->nterms == 1) {
            row_one(p->term[0].src + at, p->term[0].bias, p->term[0].shift, floor, n, y);
        } else {
            row_two(p->term, at, floor, n, y);
        }
        for (int k = 0; k < p->nq; k++) row_quant(&p->q[k], y, n, (uint8_t *)p->q[k].dst + at);
    }
}

/* ---- 8-bit maximum ---- */

#define MAX_ROW(T, name)                                                                           \
    static void name(const void *src, size_t n, bool begun, void *dst)                             \
    {                                                                                              \
        const T *s = src;                                                                          \
        T *d = dst;                                                                                \
        if (begun)                                                                                 \
            SIMD_FOR(i, n) d[i] = d[i] > s[i] ? d[i] : s[i];                                       \
        else                                                                                       \
            memcpy(d, s, n);                                                                       \
    }
MAX_ROW(uint8_t, max_row_u8)
MAX_ROW(int8_t, max_row_s8)

void pass_maxpool(const PassPool *p, const void *src, void *dst)
{
    const size_t c = (size_t)p->c;
    PARALLEL_FOR(row, (size_t)p->n * (size_t)p->h)
    {
        const size_t img = (size_t)row / (size_t)p->h;
        const int y0 = (int)((size_t)row % (size_t)p->h) * p->stride - p->pad;
        for (int ox = 0; ox < p->w; ox++) {
            const int x0 = ox * p->stride - p->pad;
            uint8_t *d = (uint8_t *)dst + ((size_t)row * (size_t)p->w + (size_t)ox) * c;
            bool begun = false;
            for (int iy = y0 < 0 ? 0 : y0; iy < y0 + p->k && iy < p->ih; iy++)
                for (int ix = x0 < 0 ? 0 : x0; ix < x0 + p->k && ix < p->iw; ix++) {
                    const uint8_t *s =
                        (const uint8_t *)src +
                        ((img * (size_t)p->ih + (size_t)iy) * (size_t)p->iw + (size_t)ix) * c;
                    (p->type == DT_U8 ? max_row_u8 : max_row_s8)(s, c, begun, d);
                    begun = true;
                }
        }
    }
}

void pass_sum(const int32_t *src, int n, size_t map, int c, int32_t *dst)
{
    PARALLEL_FOR(k, n)
    {
        uint32_t *d = (uint32_t *)dst + (size_t)k * (size_t)c;
        const int32_t *s = src + (size_t)k * map * (size_t)c;
        memset(d, 0, (size_t)c * sizeof *d);
        for (size_t j = 0; j < map; j++, s += c) SIMD_FOR(i, c) d[i] += (uint32_t)s[i];
    }
}
