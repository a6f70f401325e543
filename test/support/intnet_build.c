/* test/support/intnet_build.c -- see intnet_build.h. */
#include "test/support/intnet_build.h"

#include <math.h>

#include "engine/rng.h"

typedef struct Build {
    IntNet *net;
    Rng r;
} Build;

static int below(Build *b, int n)
{
    return (int)rng_below(&b->r, (uint32_t)n);
}

static bool one_in(Build *b, int n)
{
    return below(b, n) == 0;
}

static const IntOp *op_at(const Build *b, int i)
{
    return &b->net->op[i];
}

/* Weights of a bell of the given width, or mostly +-127. */
static const int8_t *weights(Build *b, size_t n, double width)
{
    int8_t *w = arena_alloc(&b->net->arena, n);
    for (size_t i = 0; i < n; i++) {
        double v = width > 0      ? rint(width * rng_normal(&b->r))
                   : one_in(b, 8) ? below(b, 255) - 127
                   : one_in(b, 2) ? 127
                                  : -127;
        w[i] = (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    return w;
}

static const int32_t *biases(Build *b, int n, int magnitude)
{
    int32_t *v = arena_alloc(&b->net->arena, (size_t)n * sizeof *v);
    for (int i = 0; i < n; i++) v[i] = below(b, 2 * magnitude + 1) - magnitude;
    return v;
}

static int conv(Build *b, int x, int oc, IntConv a, double width, bool bias)
{
    const IntOp *in = op_at(b, x);
    const int reach = (a.k - 1) * a.dilation + 1;
    IntOp op = {.kind = IK_CONV, .nin = 1, .in = {x}, .c = oc, .type = DT_S32, .u.conv = a};
    op.h = (in->h + 2 * a.pad - reach) / a.stride + 1;
    op.w = (in->w + 2 * a.pad - reach) / a.stride + 1;
    op.u.conv.w =
        weights(b, (size_t)oc * (size_t)(in->c / a.groups) * (size_t)a.k * (size_t)a.k, width);
    op.u.conv.bias = bias ? biases(b, oc, 1 << (8 + below(b, 8))) : NULL;
    return intnet_add(b->net, &op);
}

static int linear(Build *b, int x, int oc, double width)
{
    const IntOp *in = op_at(b, x);
    IntOp op = {.kind = IK_LINEAR,
                .nin = 1,
                .in = {x},
                .c = oc,
                .h = 1,
                .w = 1,
                .type = DT_S32,
                .u.conv = {.k = 1, .stride = 1, .dilation = 1, .groups = 1}};
    op.u.conv.w = weights(b, (size_t)oc * (size_t)in->c * (size_t)in->h * (size_t)in->w, width);
    op.u.conv.bias = biases(b, oc, 1000);
    return intnet_add(b->net, &op);
}

/* Same shape, s32 out. */
static int same(Build *b, IntKind kind, int x)
{
    IntOp op = *op_at(b, x);
    op.kind = kind;
    op.nin = 1;
    op.in[0] = x;
    return intnet_add(b->net, &op);
}

static int maxpool(Build *b, int x, int k, int stride, int pad)
{
    IntOp op = *op_at(b, x);
    op.kind = IK_MAXPOOL;
    op.nin = 1;
    op.in[0] = x;
    op.h = (op.h + 2 * pad - k) / stride + 1;
    op.w = (op.w + 2 * pad - k) / stride + 1;
    op.u.pool.k = k;
    op.u.pool.stride = stride;
    op.u.pool.pad = pad;
    return intnet_add(b->net, &op);
}

static int requant(Build *b, int x, int shift, int divisor, DType type, int lo, int hi)
{
    IntOp op = *op_at(b, x);
    op.kind = IK_REQUANT;
    op.nin = 1;
    op.in[0] = x;
    op.type = type;
    op.u.requant.shift = shift;
    op.u.requant.divisor = divisor;
    op.u.requant.lo = lo;
    op.u.requant.hi = hi;
    return intnet_add(b->net, &op);
}

static int add(Build *b, int x, int y, int sx, int sy)
{
    IntOp op = *op_at(b, x);
    op.kind = IK_ADD;
    op.nin = 2;
    op.in[0] = x;
    op.in[1] = y;
    op.u.shift[0] = sx;
    op.u.shift[1] = sy;
    return intnet_add(b->net, &op);
}

static int sum(Build *b, int x)
{
    IntOp op = *op_at(b, x);
    op.kind = IK_SUM;
    op.nin = 1;
    op.in[0] = x;
    op.h = op.w = 1;
    return intnet_add(b->net, &op);
}

static int input(Build *b, DType type, int c, int h, int w)
{
    return intnet_add(b->net, &(IntOp){.kind = IK_INPUT, .c = c, .h = h, .w = w, .type = type});
}

/* ---- random nets ---- */

/* A shift that leaves something of sums over that many taps, most of the time. */
static int random_shift(Build *b, int taps)
{
    if (one_in(b, 12)) return below(b, 36) - 4;
    return (int)lrint(log2(sqrt((double)taps) * 60)) + below(b, 4);
}

static int random_requant(Build *b, int x, int shift)
{
    const bool s8 = one_in(b, 3);
    const int bits = one_in(b, 3) ? 4 : 8, divisor = one_in(b, 10) ? 49 : 1,
              top = (1 << (bits - s8)) - 1;
    if (divisor > 1) shift -= 5;
    return requant(b, x, shift, divisor, s8 ? DT_S8 : DT_U8, s8 ? -top : 0, top);
}

static int random_conv(Build *b, int x)
{
    static const int kernels[] = {1, 1, 3, 3, 3, 5, 7},
                     channels[] = {1, 3, 8, 10, 16, 24, 32, 48, 64, 96};
    const IntOp in = *op_at(b, x);
    IntConv a = {.k = kernels[below(b, 7)],
                 .stride = 1 + one_in(b, 3),
                 .dilation = 1 + one_in(b, 6),
                 .groups = 1};
    int oc = channels[below(b, 10)];
    if (one_in(b, 3)) { /* depthwise, or groups */
        a.groups = one_in(b, 2) || in.c % 2 ? in.c : 2;
        oc = in.c * (1 + one_in(b, 5));
    }
    a.pad = below(b, (a.k - 1) * a.dilation + 1);
    if ((a.k - 1) * a.dilation / 2 > a.pad || one_in(b, 2)) a.pad = (a.k - 1) * a.dilation / 2;
    return conv(b, x, oc, a, one_in(b, 3) ? 0 : one_in(b, 3) ? 15 : 40, !one_in(b, 4));
}

void intnet_random(IntNet *net, uint64_t seed)
{
    Build b = {net, rng_stream(seed, RNG_TEST, 2, 0)};
    int x = input(&b, one_in(&b, 2) ? DT_S8 : DT_U8, one_in(&b, 2) ? 3 : 1 + below(&b, 40),
                  5 + below(&b, 13), 5 + below(&b, 13));
    int skip = -1, y = -1;
    const int blocks = 1 + below(&b, 5);
    for (int k = 0; k < blocks; k++) {
        const int before = x, taps = op_at(&b, x)->c * 9;
        y = random_conv(&b, x);
        if (one_in(&b, 2)) y = same(&b, IK_RELU, y);
        if (op_at(&b, y)->h > 3 && op_at(&b, y)->w > 3 && one_in(&b, 4)) {
            const int pad = below(&b, 2);
            y = maxpool(&b, y, 2 + pad, 1 + below(&b, 2), pad);
        }
        if (one_in(&b, 4)) { /* a second branch of the same shape */
            const IntOp m = *op_at(&b, y), in = *op_at(&b, before);
            if (m.h == in.h && m.w == in.w) {
                const IntConv one = {.k = 1, .stride = 1, .dilation = 1, .groups = 1};
                const int other = conv(&b, before, m.c, one, 40, true);
                y = one_in(&b, 2) ? add(&b, y, other, 0, below(&b, 4))
                                  : add(&b, other, y, below(&b, 4), 0);
                if (one_in(&b, 2)) y = same(&b, IK_RELU, y);
            }
        }
        if (skip >= 0 && op_at(&b, skip)->c == op_at(&b, y)->c &&
            op_at(&b, skip)->h == op_at(&b, y)->h && op_at(&b, skip)->w == op_at(&b, y)->w) {
            y = add(&b, y, one_in(&b, 8) ? y : skip, below(&b, 3), below(&b, 3));
            if (one_in(&b, 2)) y = same(&b, IK_RELU, y);
        }
        skip = y;
        if (op_at(&b, y)->h < 2 || op_at(&b, y)->w < 2) break;
        x = random_requant(&b, y, random_shift(&b, taps));
        if (one_in(&b, 4) && op_at(&b, x)->h > 2 && op_at(&b, x)->w > 2)
            x = maxpool(&b, x, 2, 2, 0);
        if (one_in(&b, 3)) { /* several readers, some the same */
            const IntOp m = *op_at(&b, y);
            const IntConv three = {.k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1};
            const int shift = random_shift(&b, taps),
                      c1 = conv(&b, requant(&b, y, shift, 1, DT_U8, 0, 255), m.c, three, 40, true),
                      c2 = conv(&b,
                                requant(&b, y, one_in(&b, 2) ? shift : shift - 2, 1, DT_U8, 0, 255),
                                m.c, three, 25, true);
            for (int extra = below(&b, 6); extra > 0; extra--) /* more than a pass writes at once */
                skip = add(&b, c1,
                           conv(&b, random_requant(&b, y, shift - extra), m.c, three, 20, false), 0,
                           1);
            y = add(&b, c1, c2, 0, one_in(&b, 2));
            x = random_requant(&b, y, shift + 2);
        }
    }
    if (one_in(&b, 3)) { /* the classifier reads the map itself */
        x = random_requant(&b, y, 10);
    } else {
        x = sum(&b, y);
        x = requant(&b, x, 8, one_in(&b, 2) ? 49 : 1, DT_U8, 0, 255);
    }
    net->out = linear(&b, x, 1 + below(&b, 20), 40);
}

/* ---- ResNet-18 ---- */

/* Shifts are of the size the published nets have; weights are scaled so that numbers fill 8 bits.
 */
static int block(Build *b, int x32, int oc, int stride)
{
    const int ic = op_at(b, x32)->c;
    const IntConv c1 = {.k = 3, .stride = stride, .pad = 1, .dilation = 1, .groups = 1},
                  c2 = {.k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1},
                  c0 = {.k = 1, .stride = stride, .pad = 0, .dilation = 1, .groups = 1};
    const int x8 = requant(b, x32, 8, 1, DT_U8, 0, 255);
    int y = conv(b, x8, oc, c1, 700 / sqrt(9.0 * ic), true);
    y = requant(b, same(b, IK_RELU, y), 9, 1, DT_U8, 0, 255);
    y = conv(b, y, oc, c2, 700 / sqrt(9.0 * oc), true);
    if (stride > 1 || ic != oc)
        x32 = conv(b, requant(b, x32, 9, 1, DT_U8, 0, 255), oc, c0, 350 / sqrt(ic), true);
    return same(b, IK_RELU, add(b, y, x32, 0, 0));
}

void intnet_resnet18(IntNet *net, int size, int classes, uint64_t seed)
{
    Build b = {net, rng_stream(seed, RNG_TEST, 3, 0)};
    const IntConv head = {.k = 7, .stride = 2, .pad = 3, .dilation = 1, .groups = 1};
    int x = conv(&b, input(&b, DT_U8, 3, size, size), 64, head, 40, true);
    x = maxpool(&b, same(&b, IK_RELU, x), 3, 2, 1);
    for (int stage = 0; stage < 4; stage++)
        for (int k = 0; k < 2; k++) x = block(&b, x, 64 << stage, stage > 0 && k == 0 ? 2 : 1);
    x = requant(&b, sum(&b, x), 13, 1, DT_U8, 0, 255);
    net->out = linear(&b, x, classes, 40);
}
