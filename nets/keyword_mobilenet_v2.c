/* nets/keyword_mobilenet_v2.c -- MobileNet V2 of the keyword language: a 3x3 stem, 17 inverted residual blocks, a 1x1
 * convolution, global average, classifier. Activations are ReLU unless a word asks for another (ReLU6).
 *
 * cbas: norm and activation behind each convolution, no activation behind the last of a block. bacs: both before
 * each convolution, and a norm on either side of a block's sum.
 *
 * Source: aim-uofa/model-quantization models/mobilenet.py, class MobileNetV2. Differs: images of any size. */
#include "nets/blocks.h"
#include "nets/keyword_mobilenet.h"

#include <stdio.h>

enum { NAME_LEN = 96, LAST = 1280 };

static const struct Stage {
    int expand, oc, n, stride;
} stages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
              {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};

/* Convolution number `i` of a block with its norm and activation: NAMEconvI, NAMEbnI, NAMEreluI. */
static int part(const Kn *k, int x, KnConv c, int i, bool active, const char *prefix)
{
    const bool before = k->order == NW_bacs;
    char name[NAME_LEN];
    snprintf(name, sizeof name, "%sconv%d", prefix, i);
    c.name = name;
    if (before) x = kn_act(k, kn_norm(k, x, "%sbn%d", prefix, i), "%srelu%d", prefix, i);
    x = kn_conv(k, x, &c);
    if (before) return x;
    x = kn_norm(k, x, "%sbn%d", prefix, i);
    return active ? kn_act(k, x, "%srelu%d", prefix, i) : x;
}

int kn_inverted(const Kn *k, int x, int expand, int oc, int stride, const char *prefix)
{
    static const char *const made[] = {"relu", "conv", "bn2", "bn1", "bn3", "skip_bn", "stem_bn", NULL};
    static const char *const flat[] = {"relu", "conv", "bn", NULL};
    const int ic = k->s->u[x].c, wide = ic * expand, begin = k->s->n, in = x;
    KnConv deep;
    int i = 1;
    if (expand > 1) x = part(k, x, (KnConv){.oc = wide, .k = 1, .marks = UM_WIDE}, i++, true, prefix);
    deep = kn_mobile_conv(k, x, wide, stride, "");
    deep.groups = wide;
    deep.marks = UM_WIDE;
    x = part(k, x, deep, i++, true, prefix);
    x = part(k, x, (KnConv){.oc = oc, .k = 1}, i, false, prefix);
    if (stride == 1 && ic == oc) {
        int skip = in;
        if (k->order == NW_bacs) {
            x = kn_norm(k, x, "%sstem_bn", prefix);
            skip = kn_norm(k, in, "%sskip_bn", prefix);
        }
        x = spec_add(k->s, x, skip);
    }
    kn_declare(k->s, begin, prefix, expand > 1 ? made : flat);
    return x;
}

static int check(const Kn *k, const char *net, Err *e)
{
    static const int orders[] = {NW_cbas, NW_bacs, -1};
    if (kn_mobile_check(k, net, e) || kn_need_order(k, net, orders, e)) return -1;
    if (kn_word(k, NW_prone) && kn_word(k, NW_bn_before_restore))
        return err_set(e, ERR_CONFIG, "keyword: net '%s' has no bn_before_restore together with prone", net);
    return 0;
}

static int classifier(const Kn *k, int x)
{
    const LinearAttr fc = {.out = k->o->num_classes, .bias = true, .init = {INIT_NORMAL, 0, 0.01f}};
    x = spec_flatten(k->s, spec_pool(k->s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG}));
    x = spec_linear(k->s, x, fc, "classifier.0");
    spec_mark(k->s, x, UM_LAST);
    return x;
}

int net_keyword_mobilenet_v2(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    KnConv tail = {.name = "features.18.0", .oc = LAST, .k = 1, .marks = UM_WIDE};
    int x, number = 1;
    Kn k;
    (void)names;
    if (kn_begin(&k, s, o, KI_FAN_OUT, e) || check(&k, net->name, e)) return -1;
    x = kn_mobile_stem(&k, spec_input(s, o->in_c, o->in_h, o->in_w), "features.0");
    for (size_t i = 0; i < ARRAY_LEN(stages); i++)
        for (int j = 0; j < stages[i].n; j++) {
            const int stride = i == 1 ? kn_mobile_stride(&k) : stages[i].stride;
            char prefix[32];
            snprintf(prefix, sizeof prefix, "features.%d.", number++);
            x = kn_inverted(&k, x, stages[i].expand, kn_width(o, stages[i].oc), j ? 1 : stride, prefix);
        }
    if (o->width_alpha > 1) tail.oc = kn_width(o, LAST);
    x = kn_conv(&k, x, &tail);
    x = kn_act(&k, kn_norm(&k, x, "features.18.1"), "features.18.2");
    return kn_finish(&k, classifier(&k, x), e);
}
