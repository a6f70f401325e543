/* nets/blocks.c -- see blocks.h. Blocks as in He et al. 2015; a bottleneck has its stride at the
 * 3x3 convolution ("v1.5"), as torchvision and all the originals do. */
#include "nets/blocks.h"

#include <stdarg.h>
#include <stdio.h>

enum { EXPANSION = 4 }; /* output channels of a bottleneck per channel of its width */

#define NAME_LEN 128

int block_conv(Spec *s, int x, const NetStyle *st, int oc, int k, int stride, const char *fmt, ...)
{
    char name[NAME_LEN];
    ConvAttr a = {.oc = oc, .k = k, .stride = stride, .pad = k / 2};
    FORMAT_NAME(name, fmt);
    a.init = st->init == CI_FAN_OUT ? init_normal(k * k * oc) : init_uniform(s->u[x].c * k * k);
    return spec_conv(s, x, a, "%s", name);
}

int block_norm(Spec *s, int x, const char *fmt, ...)
{
    char name[NAME_LEN];
    NormAttr a = {
        .kind = NK_BATCH, .eps = 1e-5f, .momentum = 0.1f, .affine = true, .weight_init = 1};
    FORMAT_NAME(name, fmt);
    return spec_norm(s, x, a, "%s", name);
}

int block_relu(Spec *s, int x, const char *fmt, ...)
{
    char name[NAME_LEN];
    FORMAT_NAME(name, fmt);
    return spec_act(s, x, (ActAttr){.kind = AK_RELU}, "%s", name);
}

/* Adds the shortcut of the block whose input is `x` and whose body ends with `y`, and the last
 * ReLU. */
static int close_block(Spec *s, int x, int y, const NetStyle *st, int stride, const char *prefix)
{
    int oc = s->u[y].c;
    if (stride != 1 || s->u[x].c != oc) {
        x = block_conv(s, x, st, oc, 1, stride, "%s.downsample.0", prefix);
        spec_mark(s, x, UM_SKIP);
        x = block_norm(s, x, "%s.downsample.1", prefix);
    }
    return block_relu(s, spec_add(s, y, x), "%s.relu", prefix);
}

/* n convolutions, each with its norm, a ReLU between them. Returns the last norm. */
typedef struct BodyConv {
    int oc, k, stride;
} BodyConv;

static int body(Spec *s, int x, const NetStyle *st, const BodyConv *c, int n, const char *prefix)
{
    int first_norm = -1;
    for (int i = 0; i < n; i++) {
        if (i) {
            x = block_relu(s, x, "%s.relu%d", prefix, i);
            spec_mark(s, x, UM_INNER);
        }
        x = block_conv(s, x, st, c[i].oc, c[i].k, c[i].stride, "%s.conv%d", prefix, i + 1);
        if (i && st->convs_first) spec_declare_before(s, x, first_norm);
        x = block_norm(s, x, "%s.bn%d", prefix, i + 1);
        if (!i) first_norm = x;
    }
    return x;
}

int block_basic(Spec *s, int x, const NetStyle *st, int width, int stride, const char *prefix)
{
    const BodyConv c[] = {{width, 3, stride}, {width, 3, 1}};
    return close_block(s, x, body(s, x, st, c, 2, prefix), st, stride, prefix);
}

int block_bottleneck(Spec *s, int x, const NetStyle *st, int width, int stride, const char *prefix)
{
    const BodyConv c[] = {{width, 1, 1}, {width, 3, stride}, {EXPANSION * width, 1, 1}};
    return close_block(s, x, body(s, x, st, c, 3, prefix), st, stride, prefix);
}

int block_stage(Spec *s, int x, const NetStyle *st, BlockFn block, int stage, int width, int n,
                int stride)
{
    for (int i = 0; i < n; i++) {
        char prefix[NAME_LEN];
        snprintf(prefix, sizeof prefix, "layer%d.%d", stage, i);
        x = block(s, x, st, width, i ? 1 : stride, prefix);
    }
    return x;
}

int block_classifier(Spec *s, int x, const NetStyle *st, int classes)
{
    LinearAttr a = {.out = classes, .bias = true};
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
    x = spec_flatten(s, x);
    a.init = a.bias_init = init_uniform(s->u[x].c);
    x = spec_linear(s, x, a, "%s", st->fc);
    spec_mark(s, x, UM_LAST);
    return x;
}

const NetStyle *style_find(const NetStyle *styles, int n, const NetDef *net, NetNames names, Err *e)
{
    return net_style(styles, sizeof *styles, n, net, names, e);
}
