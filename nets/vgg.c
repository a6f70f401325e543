/* nets/vgg.c -- VGG-7 ("VGG-small") for 32x32 images: three pairs of 3x3 convolutions of 128, 256
 * and 512 channels, each pair followed by a max pool, then an average pool and one linear layer.
 *
 * Source: FAT_Quantization cifar10/models/vgg.py. Units of the feature part are numbered over
 * convolutions and pools, so that 2, 5 and 8 are pools without parameters.
 * Differs: at 32 bits the original's convolutions have biases, which its own chain drops when it
 * goes on at 5 bits, and which the norm behind them takes out again; here they never have. */
#include "nets/blocks.h"


static const NetStyle styles[] = {{.names = NAMES_FAT, .init = CI_TORCH}};

int net_vgg7(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const NetStyle *st = style_find(styles, ARRAY_LEN(styles), net, names, e);
    LinearAttr fc = {.out = o->num_classes, .bias = true};
    int x, number = 0;
    if (!st) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    for (int pair = 0; pair < 3; pair++) {
        for (int i = 0; i < 2; i++, number++) {
            x = block_conv(s, x, st, 128 << pair, 3, 1, "features.conv%d", number);
            if (!number) spec_mark(s, x, UM_FIRST);
            x = block_norm(s, x, "features.norm%d", number);
            x = block_relu(s, x, "features.relu%d", number);
        }
        x = spec_pool(s, x, (PoolAttr){.kind = POOL_MAX, .k = 2, .stride = 2});
        number++;
    }
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_AVG, .k = 2, .stride = 2});
    x = spec_dropout(s, spec_flatten(s, x), 0.5f);
    fc.init = fc.bias_init = init_uniform(s->u[x].c);
    x = spec_linear(s, x, fc, "classifier.linear2");
    spec_mark(s, x, UM_LAST);
    return spec_finish(s, x, e);
}
