/* quant/intconv.c -- see intconv.h. */
#include "quant/intconv.h"

#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "engine/prim_int.h"
#include "engine/rng.h"

#define HALF_WEIGHT 64        /* 2 * 255 * 64 fits 16 bits */
#define FLOAT_WHOLE (1 << 24) /* whole numbers below are exact in float */

struct I8Conv {
    I8Way way;
    bool fused;
    ConvShape s; /* of the operation */
    DType src;
    PrimIntConv *prim;
    void *packed[2]; /* the second one when split */
    int32_t *bias;
    int16_t *w; /* own loops: [k][k][ic / groups][oc] */
    size_t prim_scratch, shifted_bytes, sums;
};

static bool is_split(I8Way w)
{
    return w == I8_SPLIT || w == I8_SHIFT_SPLIT;
}

static bool is_shifted(I8Way w)
{
    return w == I8_SHIFT || w == I8_SHIFT_SPLIT;
}

static size_t weights_of(const ConvShape *s)
{
    return (size_t)s->oc * (size_t)(s->ic / s->groups) * (size_t)s->k * (size_t)s->k;
}

static size_t src_len(const ConvShape *s)
{
    return (size_t)s->n * (size_t)s->ih * (size_t)s->iw * (size_t)s->ic;
}

static size_t dst_len(const ConvShape *s)
{
    return (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->oc;
}

static size_t round_up(size_t n)
{
    return (n + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

/* ---- the trial ---- */

/* Sums of all output channels at one place, from the definition. y: [oc]. patch: room for one
 * group's taps. */
static void sums_at(const ConvShape *s, bool is_signed, const void *src, const int8_t *w, int n,
                    int oy, int ox, int16_t *patch, uint32_t *y)
{
    const int icg = s->ic / s->groups, ocg = s->oc / s->groups, taps = icg * s->k * s->k;
    for (int g = 0; g < s->groups; g++) {
        memset(patch, 0, (size_t)taps * sizeof *patch);
        for (int ky = 0; ky < s->k; ky++)
            for (int kx = 0; kx < s->k; kx++) {
                const int iy = oy * s->stride - s->pad + ky * s->dilation,
                          ix = ox * s->stride - s->pad + kx * s->dilation;
                const size_t at =
                    (((size_t)n * (size_t)s->ih + (size_t)iy) * (size_t)s->iw + (size_t)ix) *
                        (size_t)s->ic +
                    (size_t)(g * icg);
                if (iy < 0 || ix < 0 || iy >= s->ih || ix >= s->iw) continue;
                for (int i = 0; i < icg; i++)
                    patch[(i * s->k + ky) * s->k + kx] =
                        is_signed ? ((const int8_t *)src)[at + (size_t)i]
                                  : ((const uint8_t *)src)[at + (size_t)i];
            }
        for (int o = g * ocg; o < (g + 1) * ocg; o++) {
            const int8_t *wo = w + (size_t)o * (size_t)taps;
            uint32_t sum = 0;
            PAR_PRAGMA_(omp simd reduction(+ : sum))
            for (int t = 0; t < taps; t++) sum += (uint32_t)(patch[t] * wo[t]);
            y[o] = sum;
        }
    }
}

/* Corners, edges and the middle of the first and last image. */
#define PLACES 14
static int places(const ConvShape *s, int (*at)[3])
{
    const int y[] = {0, 0, s->oh - 1, s->oh - 1, s->oh / 2, s->oh / 2, s->oh / 3},
              x[] = {0, s->ow - 1, 0, s->ow - 1, s->ow / 2, s->ow - 1, s->ow / 3};
    int n = 0;
    for (int img = 0; img<s->n; img += s->n> 1 ? s->n - 1 : 1)
        for (size_t i = 0; i < ARRAY_LEN(y); i++) {
            at[n][0] = img;
            at[n][1] = y[i];
            at[n++][2] = x[i];
        }
    return n;
}

static uint8_t extreme(uint32_t r, int lo, int hi)
{
    const int spread = hi - lo + 1;
    switch (r & 7) {
    case 0:
        return (uint8_t)(lo + (int)((r >> 8) % (unsigned)spread));
    case 1:
        return (uint8_t)lo;
    case 2:
        return (uint8_t)(spread > 1 ? hi - 1 : hi);
    default:
        return (uint8_t)hi;
    }
}

/* Weights up to wmax in magnitude for that many adjacent input channels (0 for the others). */
typedef struct Breaker {
    int wmax, channels, round;
} Breaker;

static void break_weights(const ConvShape *s, Breaker h, Rng *r, int8_t *w)
{
    const int icg = s->ic / s->groups, kk = s->k * s->k;
    for (int o = 0; o < s->oc; o++)
        for (int i = 0; i < icg; i++)
            for (int k = 0; k < kk; k++) {
                const int kind = o + h.round, /* all high, all low, high, mixed */
                    t = (int8_t)extreme(rng_u32(r), kind % 4 == 3 ? -h.wmax : h.wmax / 2, h.wmax);
                const bool on = (i + icg - kind % icg) % icg < h.channels;
                *w++ = (int8_t)(!on ? 0 : kind % 2 ? -t : t);
            }
}

/* Whether the primitive of `s` gives the true numbers for weights w, or, where w is NULL, for
 * weights chosen to break it. */
static bool trial(PrimIntConv *c, const PrimIntShape *s, IntRange x, Breaker hard, const int8_t *w,
                  const int32_t *bias)
{
    const ConvShape *v = &s->conv;
    const size_t nw = weights_of(v), taps = nw / (size_t)v->oc, nx = src_len(v), ny = dst_len(v);
    Arena a = {0};
    uint8_t *src = arena_alloc(&a, nx);
    int8_t *bad = w ? NULL : arena_alloc(&a, nw);
    void *packed = arena_alloc(&a, prim_int_conv_packed_bytes(c)),
         *scratch = arena_alloc(&a, prim_int_conv_scratch(c) + 1),
         *dst = arena_alloc(&a, ny * dtype_size(s->dst));
    uint32_t *sum = arena_alloc(&a, (size_t)v->oc * sizeof *sum);
    int16_t *patch = arena_alloc(&a, taps * sizeof *patch);
    Rng r = rng_stream(1, RNG_TEST, taps, (uint64_t)hard.round);
    int at[PLACES][3], n;
    bool ok = true;

    for (size_t i = 0; i < nx; i++) src[i] = extreme(rng_u32(&r), (int)x.lo, (int)x.hi);
    if (bad) {
        break_weights(v, hard, &r, bad);
        w = bad;
    }
    prim_int_conv_pack(c, w, packed);
    prim_int_conv_run(c, src, packed, bias, dst, scratch);
    n = places(v, at);
    for (int k = 0; k < n && ok; k++) {
        const size_t out = (((size_t)at[k][0] * (size_t)v->oh + (size_t)at[k][1]) * (size_t)v->ow +
                            (size_t)at[k][2]) *
                           (size_t)v->oc;
        sums_at(v, s->src == DT_S8, src, w, at[k][0], at[k][1], at[k][2], patch, sum);
        for (int o = 0; o < v->oc && ok; o++) {
            const size_t j = out + (size_t)o;
            if (s->dst == DT_S32) {
                ok = ((const int32_t *)dst)[j] == (int32_t)sum[o];
            } else {
                const int32_t y =
                    int_requant((int32_t)(sum[o] + (uint32_t)bias[o]), s->shift, 1, s->lo, s->hi);
                ok = y == (s->dst == DT_U8 ? ((const uint8_t *)dst)[j] : ((const int8_t *)dst)[j]);
            }
        }
    }
    arena_free(&a);
    return ok;
}

/* All numbers on the way stay below 2^24, also when the library adds 128 to signed inputs. */
static bool fits_float(const I8Conv *c, IntRange x, const int8_t *w)
{
    const int64_t magnitude = x.hi > -x.lo ? x.hi : -x.lo, top = c->src == DT_S8 ? 255 : magnitude;
    const size_t taps = weights_of(&c->s) / (size_t)c->s.oc;
    for (int o = 0; o < c->s.oc; o++) {
        int64_t sum = 0;
        for (size_t t = 0; t < taps; t++, w++) sum += *w < 0 ? -*w : *w;
        if (sum * top + llabs(c->bias[o]) >= FLOAT_WHOLE) return false;
    }
    return true;
}

/* A few thousand breaking weights, in several runs when the operation is small. Where the layer's
 * own sums are exact in float, they stay so here: many kernels are right up to there only. */
static bool hard_trial(PrimIntConv *c, const PrimIntShape *s, IntRange x, int wmax, bool in_float)
{
    const ConvShape *v = &s->conv;
    const size_t n = weights_of(v);
    const int rounds = n >= 4096  ? 1
                       : n >= 512 ? 4
                                  : 32,
              all = v->ic / v->groups, some = (FLOAT_WHOLE - 1) / (255 * v->k * v->k * (wmax + 1));
    Breaker hard = {.wmax = wmax, .channels = !in_float || some > all ? all : some > 2 ? some : 2};
    for (; hard.round < rounds; hard.round++)
        if (!trial(c, s, x, hard, NULL, NULL)) return false;
    return true;
}

/* ---- the ways ---- */

static PrimIntConv *primitive(Prim *p, const PrimIntShape *s)
{
    PrimIntConv *c = prim_int_conv_new(p, s, NULL);
    if (c && str_starts(prim_int_conv_impl(c), "ref")) { /* slower than our own loops */
        prim_int_conv_free(c);
        return NULL;
    }
    return c;
}

static void *pack(const PrimIntConv *c, const int8_t *w)
{
    void *packed = xaligned(prim_int_conv_packed_bytes(c));
    prim_int_conv_pack(c, w, packed);
    return packed;
}

/* w = a + b, both within +-64 */
static bool pack_split(I8Conv *c, const PrimIntShape *s, IntRange x, const int8_t *w)
{
    const size_t n = weights_of(&c->s);
    bool ok;
    int8_t *a = xmalloc(n), *b = xmalloc(n);
    for (size_t i = 0; i < n; i++) {
        a[i] = w[i] > HALF_WEIGHT ? HALF_WEIGHT : w[i] < -HALF_WEIGHT ? -HALF_WEIGHT : w[i];
        b[i] = (int8_t)(w[i] - a[i]);
    }
    c->packed[0] = pack(c->prim, a);
    c->packed[1] = pack(c->prim, b);
    ok = trial(c->prim, s, x, (Breaker){0}, a, NULL) && trial(c->prim, s, x, (Breaker){0}, b, NULL);
    free(a);
    free(b);
    return ok;
}

static void drop_primitive(I8Conv *c)
{
    prim_int_conv_free(c->prim);
    c->prim = NULL;
    for (int k = 0; k < 2; k++) {
        free(c->packed[k]);
        c->packed[k] = NULL;
    }
}

static bool try_way(I8Conv *c, Prim *p, I8Way way, IntRange x, int wmax, const int8_t *w)
{
    PrimIntShape s = {.conv = c->s, .src = c->src, .dst = DT_S32};
    const bool split = is_split(way);
    const bool in_float = fits_float(c, x, w);
    bool ok;
    if (split && wmax <= HALF_WEIGHT) return false;
    if (is_shifted(way)) {
        if (c->src != DT_S8) return false;
        s.src = DT_U8;
        s.conv.ih += 2 * c->s.pad;
        s.conv.iw += 2 * c->s.pad;
        s.conv.pad = 0;
        x = (IntRange){x.lo + 128, x.hi + 128};
    }
    c->prim = primitive(p, &s);
    ok = c->prim && hard_trial(c->prim, &s, x, split ? HALF_WEIGHT : wmax, in_float);
    if (ok && split) {
        ok = pack_split(c, &s, x, w);
    } else if (ok) {
        c->packed[0] = pack(c->prim, w);
        ok = trial(c->prim, &s, x, (Breaker){0}, w, NULL);
    }
    if (!ok) {
        drop_primitive(c);
        return false;
    }
    c->way = way;
    c->shifted_bytes = is_shifted(way) ? round_up(src_len(&s.conv)) : 0;
    c->sums = split ? dst_len(&c->s) : 0;
    return true;
}

/* Replaces the direct convolution by one with bias, shift and clamp inside; the library must do it
 * with the same implementation that has passed the hard trial. */
static void try_fused(I8Conv *c, Prim *p, const I8Fuse *f, IntRange x, const int8_t *w)
{
    PrimIntShape s = {
        .conv = c->s, .src = c->src, .dst = f->type, .shift = f->shift, .lo = f->lo, .hi = f->hi};
    PrimIntConv *prim;
    if (c->way != I8_DIRECT || !fits_float(c, x, w)) return;
    prim = primitive(p, &s);
    if (!prim || !str_eq(prim_int_conv_impl(prim), prim_int_conv_impl(c->prim)) ||
        !trial(prim, &s, x, (Breaker){0}, w, c->bias)) {
        prim_int_conv_free(prim);
        return;
    }
    drop_primitive(c);
    c->prim = prim;
    c->packed[0] = pack(prim, w);
    c->fused = true;
}

static void own_weights(I8Conv *c, const int8_t *w)
{
    const int icg = c->s.ic / c->s.groups, kk = c->s.k * c->s.k;
    c->way = I8_OWN;
    c->w = xaligned(weights_of(&c->s) * sizeof *c->w);
    for (int o = 0; o < c->s.oc; o++)
        for (int i = 0; i < icg; i++)
            for (int k = 0; k < kk; k++)
                c->w[((size_t)k * (size_t)icg + (size_t)i) * (size_t)c->s.oc + (size_t)o] =
                    w[((size_t)o * (size_t)icg + (size_t)i) * (size_t)kk + (size_t)k];
}

I8Conv *i8conv_new(Prim *p, const IntNet *net, int i, IntRange x, int batch, const I8Fuse *fuse)
{
    I8Conv *c = xcalloc(1, sizeof *c);
    const IntOp *op = &net->op[i], *xo = &net->op[op->in[0]];
    const IntConv *a = &op->u.conv;
    const bool linear = op->kind == IK_LINEAR;
    int8_t *turned = NULL;
    const int8_t *w = a->w;
    size_t nw;
    int wmax = 0;
    bool found = false;

    /* A linear operation is a convolution whose window is the whole map. */
    c->s = (ConvShape){.n = batch,
                       .ic = xo->c,
                       .ih = xo->h,
                       .iw = xo->w,
                       .oc = op->c,
                       .oh = op->h,
                       .ow = op->w,
                       .k = linear ? 1 : a->k,
                       .stride = linear ? 1 : a->stride,
                       .pad = linear ? 0 : a->pad,
                       .dilation = linear ? 1 : a->dilation,
                       .groups = linear ? 1 : a->groups};
    if (linear && xo->h * xo->w > 1) { /* weights in C,H,W order, values in H,W,C order */
        const size_t map = (size_t)xo->h * (size_t)xo->w, taps = map * (size_t)xo->c;
        turned = xmalloc((size_t)op->c * taps);
        for (size_t o = 0; o < (size_t)op->c; o++)
            for (size_t t = 0; t < taps; t++)
                turned[o * taps + t % map * (size_t)xo->c + t / map] = a->w[o * taps + t];
        w = turned;
        c->s.ic = (int)taps;
        c->s.ih = c->s.iw = 1;
    }
    nw = weights_of(&c->s);
    c->src = xo->type;
    for (size_t k = 0; k < nw; k++) wmax = abs(w[k]) > wmax ? abs(w[k]) : wmax;
    c->bias = xcalloc((size_t)op->c, sizeof *c->bias);
    if (a->bias) memcpy(c->bias, a->bias, (size_t)op->c * sizeof *c->bias);
    x.lo = x.lo > 0 ? 0 : x.lo; /* padding */
    x.hi = x.hi < 0 ? 0 : x.hi;

    for (int way = I8_DIRECT; way < I8_OWN && !found; way++)
        found = try_way(c, p, (I8Way)way, x, wmax, w);
    if (!found) own_weights(c, w);
    if (fuse) try_fused(c, p, fuse, x, w);
    if (is_shifted(c->way)) {
        const size_t taps = nw / (size_t)c->s.oc;
        for (int o = 0; o < c->s.oc; o++) {
            int32_t sum = 0;
            for (size_t t = 0; t < taps; t++) sum += w[(size_t)o * taps + t];
            c->bias[o] = (int32_t)((uint32_t)c->bias[o] - 128 * (uint32_t)sum);
        }
    }
    if (c->prim) c->prim_scratch = round_up(prim_int_conv_scratch(c->prim));
    free(turned);
    return c;
}

void i8conv_free(I8Conv *c)
{
    if (!c) return;
    drop_primitive(c);
    free(c->bias);
    free(c->w);
    free(c);
}

I8Way i8conv_way(const I8Conv *c)
{
    return c->way;
}

bool i8conv_fused(const I8Conv *c)
{
    return c->fused;
}

const int32_t *i8conv_bias(const I8Conv *c)
{
    return c->bias;
}

size_t i8conv_scratch(const I8Conv *c)
{
    return c->prim_scratch + c->shifted_bytes + c->sums * sizeof(int32_t);
}

/* ---- running ---- */

/* The input as u8 with 128 added, inside a border of 128 (which is 0). */
static void shift_input(const ConvShape *s, const uint8_t *src, uint8_t *dst)
{
    const size_t pad = (size_t)s->pad * (size_t)s->ic, row = (size_t)s->iw * (size_t)s->ic,
                 wide = row + 2 * pad, high = (size_t)(s->ih + 2 * s->pad);
    PARALLEL_FOR(i, (size_t)s->n * high)
    {
        const size_t img = (size_t)i / high, y = (size_t)i % high;
        uint8_t *d = dst + (size_t)i * wide;
        if (y < (size_t)s->pad || y >= high - (size_t)s->pad) {
            memset(d, 128, wide);
        } else {
            const uint8_t *x = src + (img * (size_t)s->ih + y - (size_t)s->pad) * row;
            memset(d, 128, pad);
            SIMD_FOR(j, row) d[pad + j] = x[j] ^ 128;
            memset(d + pad + row, 128, pad);
        }
    }
}

/* Channel o reads the inputs of its group: they run on o for a depthwise convolution and are one
 * number for a whole group otherwise. */
static void own_place(const I8Conv *c, const void *src, size_t img, int oy, int ox,
                      uint32_t *restrict y)
{
    const ConvShape *s = &c->s;
    const int icg = s->ic / s->groups, ocg = s->oc / s->groups;
    const bool is_signed = c->src == DT_S8;
    memset(y, 0, (size_t)s->oc * sizeof *y);
    for (int ky = 0; ky < s->k; ky++)
        for (int kx = 0; kx < s->k; kx++) {
            const int iy = oy * s->stride - s->pad + ky * s->dilation,
                      ix = ox * s->stride - s->pad + kx * s->dilation;
            const size_t at =
                ((img * (size_t)s->ih + (size_t)iy) * (size_t)s->iw + (size_t)ix) * (size_t)s->ic;
            const int16_t *w = c->w + (size_t)(ky * s->k + kx) * (size_t)icg * (size_t)s->oc;
            if (iy < 0 || ix < 0 || iy >= s->ih || ix >= s->iw) continue;
            if (icg == 1 && ocg == 1) {
                const uint8_t *u = (const uint8_t *)src + at;
                const int8_t *v = (const int8_t *)src + at;
                if (is_signed)
                    SIMD_FOR(o, s->oc) y[o] += (uint32_t)(v[o] * w[o]);
                else
                    SIMD_FOR(o, s->oc) y[o] += (uint32_t)(u[o] * w[o]);
                continue;
            }
            for (int g = 0; g < s->groups; g++)
                for (int i = 0; i < icg; i++) {
                    const size_t j = at + (size_t)(g * icg + i);
                    const int x = is_signed ? ((const int8_t *)src)[j] : ((const uint8_t *)src)[j];
                    const int16_t *wi = w + (size_t)i * (size_t)s->oc + (size_t)(g * ocg);
                    uint32_t *yg = y + g * ocg;
                    if (x != 0) SIMD_FOR(o, ocg) yg[o] += (uint32_t)(x * wi[o]);
                }
        }
}

static void own_run(const I8Conv *c, const void *src, int32_t *dst)
{
    const ConvShape *s = &c->s;
    PARALLEL_FOR(i, (size_t)s->n * (size_t)s->oh)
    {
        const size_t row = (size_t)s->ow * (size_t)s->oc;
        for (int ox = 0; ox < s->ow; ox++)
            own_place(c, src, (size_t)i / (size_t)s->oh, (int)(i % s->oh), ox,
                      (uint32_t *)dst + (size_t)i * row + (size_t)ox * (size_t)s->oc);
    }
}

void i8conv_run(const I8Conv *c, const void *src, void *dst, void *scratch)
{
    char *s = scratch;
    if (c->way == I8_OWN) {
        own_run(c, src, dst);
        return;
    }
    if (is_shifted(c->way)) {
        uint8_t *shifted = (uint8_t *)s + c->prim_scratch;
        shift_input(&c->s, src, shifted);
        src = shifted;
    }
    prim_int_conv_run(c->prim, src, c->packed[0], c->bias, dst, s);
    if (is_split(c->way)) {
        uint32_t *a = dst, *b = (uint32_t *)(void *)(s + c->prim_scratch + c->shifted_bytes);
        prim_int_conv_run(c->prim, src, c->packed[1], c->bias, b, s);
        PARALLEL_FOR(k, par_chunks(c->sums))
        {
            const size_t at = (size_t)k * PAR_CHUNK, n = par_chunk_len(c->sums, (size_t)k);
            SIMD_FOR(j, n) a[at + j] += b[at + j];
        }
    }
}
