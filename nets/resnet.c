/* nets/resnet.c -- ResNet-18/34/50/101/152 for ImageNet, and its narrow copy for MNIST.
 *
 * Stem 7x7 stride 2, max pool 3x3 stride 2, four stages of widths w, 2w, 4w, 8w; w = 64 (ImageNet)
 * or 16 (MNIST, with the additional depths 10 and 14). Names and order are torchvision's,
 * or F8Net's (`head`, `stage_S_layer_J.body`, ...).
 *
 * Sources: APoT_Quantization ImageNet/models/resnet.py and MNIST/models/resnet.py; torchvision's
 * models/resnet.py; FAT_Quantization imagenet/models/resnet.py names the same. */
#include <stdio.h>

#include "nets/blocks.h"
#include "nets/staged.h"

static const NetStyle styles[] = {
    {.names = NAMES_TORCHVISION, .init = CI_FAN_OUT, .fc = "fc"},
    {.names = NAMES_APOT, .init = CI_FAN_OUT, .fc = "fc"},
    {.names = NAMES_FAT, .init = CI_FAN_OUT, .fc = "fc"},
};

static const struct Depth {
    int depth, blocks[4];
    BlockFn block;
} depths[] = {
    {10, {1, 1, 1, 1}, block_basic},        {14, {2, 1, 1, 2}, block_basic},
    {18, {2, 2, 2, 2}, block_basic},        {34, {3, 4, 6, 3}, block_basic},
    {50, {3, 4, 6, 3}, block_bottleneck},   {101, {3, 4, 23, 3}, block_bottleneck},
    {152, {3, 8, 36, 3}, block_bottleneck},
};

static const struct Depth *depth_find(int depth)
{
    for (size_t i = 0; i < ARRAY_LEN(depths); i++)
        if (depths[i].depth == depth) return &depths[i];
    ASSERT(0, "resnet of depth %d", depth);
    return NULL;
}

static int build(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, int width, Err *e)
{
    const NetStyle *st = style_find(styles, ARRAY_LEN(styles), net, names, e);
    const struct Depth *d = depth_find(net->arg);
    int x;
    if (!st) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = block_conv(s, x, st, width, 7, 2, "conv1");
    spec_mark(s, x, UM_FIRST);
    x = block_relu(s, block_norm(s, x, "bn1"), "relu");
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1});
    for (int i = 0; i < 4; i++)
        x = block_stage(s, x, st, d->block, i + 1, width << i, d->blocks[i], i ? 2 : 1);
    return spec_finish(s, block_classifier(s, x, st, o->num_classes), e);
}

/* Names and initialisation of F8Net's fix_resnet.py; the same topology. Its first bottleneck block
 * has clip levels of its own in body and shortcut, although they read the same tensor. */
static int staged(Spec *s, const NetDef *net, const NetOpts *o, Err *e)
{
    const StagedStyle st = {.names = NAMES_F8NET, .joined = true};
    const struct Depth *d = depth_find(net->arg);
    const StagedConv head = {64, 7, 2, 1, true};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = staged_sequence(s, x, &st, &head, 1, UM_FIRST, "head");
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1});
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < d->blocks[i]; j++) {
            const int stride = i && !j ? 2 : 1, begin = s->n;
            char prefix[32];
            snprintf(prefix, sizeof prefix, "stage_%d_layer_%d.", i, j);
            if (d->block == block_basic) {
                x = staged_residual(s, x, &st, 64 << i, stride, prefix);
                continue;
            }
            x = staged_bottleneck(s, x, &st, 256 << i, stride, prefix);
            for (int u = begin; i == 0 && j == 0 && u < s->n; u++)
                if (s->u[u].marks & UM_SKIP) spec_mark(s, u, UM_OWN_CLIP);
        }
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}

int net_resnet(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    if (names == NAMES_F8NET) return staged(s, net, o, e);
    return build(s, net, names, o, 64, e);
}

int net_resnet_mnist(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    return build(s, net, names, o, 16, e);
}
