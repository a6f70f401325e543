/* nets/resnet_cifar.c -- ResNet-20/32/44/56/110 for 32x32 images.
 *
 * Stem 3x3 -> 16, then three stages of n basic blocks with 16, 32, 64 channels (depth 6n + 2), the
 * second and third beginning with stride 2. Shortcuts that change the shape are convolutions
 * ("option B"). The average pool of the originals covers the whole 8x8 map; it is a global one
 * here, so that other image sizes work too.
 *
 * Sources: APoT_Quantization CIFAR10/models/resnet.py (apot); FAT_Quantization
 * cifar10/models/resnet.py (fat: the classifier is called `linear`, convolutions keep PyTorch's
 * initialisation); AdaBits models/q_resnet_cifar.py (adabits). In the first two, a block declares its
 * convolutions before its norms. */
#include "nets/blocks.h"

#include <stdio.h>

#include "nets/staged.h"

static const NetStyle styles[] = {
    {.names = NAMES_APOT, .init = CI_FAN_OUT, .convs_first = true, .fc = "fc"},
    {.names = NAMES_FAT, .init = CI_TORCH, .convs_first = true, .fc = "linear"},
    {.names = NAMES_HYSTERESIS, .init = CI_FAN_OUT, .fc = "fc"},
};

/* Names and initialisation of AdaBits' q_resnet_cifar.py; the same topology. */
static int staged(Spec *s, const NetOpts *o, int n, Err *e)
{
    const StagedStyle st = {.names = NAMES_ADABITS};
    const StagedConv head = {16, 3, 1, 1, true};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = staged_sequence(s, x, &st, &head, 1, UM_FIRST, "head");
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < n; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "stage_%d_layer_%d.", i, j);
            x = staged_residual(s, x, &st, 16 << i, i && !j ? 2 : 1, prefix);
        }
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}

int net_resnet_cifar(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const NetStyle *st;
    int x, n = (net->arg - 2) / 6;
    if (names == NAMES_ADABITS) return staged(s, o, n, e);
    st = style_find(styles, ARRAY_LEN(styles), net, names, e);
    if (!st) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = block_conv(s, x, st, 16, 3, 1, "conv1");
    spec_mark(s, x, UM_FIRST);
    x = block_relu(s, block_norm(s, x, "bn1"), "relu");
    for (int stage = 1; stage <= 3; stage++)
        x = block_stage(s, x, st, block_basic, stage, 8 << stage, n, stage > 1 ? 2 : 1);
    return spec_finish(s, block_classifier(s, x, st, o->num_classes), e);
}
