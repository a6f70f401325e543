/* nets/vgg_small.c -- VGG-small of the keyword language, for 32x32 images: three pairs of 3x3 convolutions of
 * 128, 256 and 512 channels, each pair followed by a max pool; norm, activation, one linear layer.
 *
 * A word says the order of a step: bac (norm, activation, convolution), cba or abc. With bac and abc the
 * first step is its convolution alone. The state dict has the norms before the convolutions, those of the
 * first convolution of each pair before the others.
 *
 * Source: aim-uofa/model-quantization models/vgg_small_.py. Differs: the words for norms and activations
 * count here too (the original always takes batch norm and ReLU); images may have any size. */
#include "nets/blocks.h"
#include "nets/keyword.h"

#include <stdio.h>

enum { STEPS = 6 };

static int step(const Kn *k, int x, const char *order, int number)
{
    char name[16];
    const KnConv conv = {.name = name,
                         .oc = 128 << (number - 1) / 2,
                         .k = 3,
                         .pad = 1,
                         .marks = number == 1 ? UM_FIRST : 0};
    snprintf(name, sizeof name, "conv%d", number);
    for (; *order; order++) {
        if (*order == 'c') x = kn_conv(k, x, &conv);
        if (*order == 'b') x = kn_norm(k, x, "bn%d", number);
        if (*order == 'a') x = kn_act(k, x, "relu%d", number);
    }
    return x;
}

int net_vgg_small(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    static const char *const made[] = {"relu", "bn1", "bn3", "bn5", "bn", "conv", NULL};
    const int word = net_word_first(o->words, NG_ORDER_VGG);
    LinearAttr fc = {.out = o->num_classes, .bias = true};
    int x, begin;
    Kn k;
    (void)names;
    if (kn_begin(&k, s, o, KI_FAN_IN, e) || kn_need_one_branch(&k, net->name, e)) return -1;
    if (word < 0)
        return err_set(e, ERR_CONFIG, "keyword: net '%s' needs the order of its layers; expected one of bac, cba, abc",
                       net->name);
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    begin = s->n;
    for (int i = 1; i <= STEPS; i++) {
        x = step(&k, x, i == 1 && word != NW_cba ? "c" : net_words[word].name, i);
        if (i % 2 == 0) x = spec_pool(s, x, (PoolAttr){.kind = POOL_MAX, .k = 2, .stride = 2});
    }
    x = spec_flatten(s, step(&k, x, "ba", STEPS + 1));
    kn_declare(s, begin, "", made);
    fc.init = init_normal(s->u[x].c);
    fc.bias_init = init_uniform(s->u[x].c);
    x = spec_linear(s, x, fc, "classifier");
    spec_mark(s, x, UM_LAST);
    return kn_finish(&k, x, e);
}
