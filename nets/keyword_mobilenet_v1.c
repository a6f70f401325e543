/* nets/keyword_mobilenet_v1.c -- MobileNet V1 of the keyword language: a 3x3 stem, 13 depthwise separable blocks, global
 * average, classifier.
 *
 * Without `origin` two kinds of shortcuts can be asked for. block_skip: one around a block, added in its 1x1
 * half. bireal: one around each half; a stride is an average pool on it, and where the block widens (react)
 * the channels are repeated and the 1x1 convolution becomes several of the block's input width, side by
 * side.
 *
 * Source: aim-uofa/model-quantization models/mobilenet.py, class MobileNetV1. Differs: with preBN the last norm
 * has the width of the net, not always 1024; words that contradict each other are refused. */
#include "nets/blocks.h"
#include "nets/keyword_mobilenet.h"

#include <stdio.h>

enum { NAME_LEN = 96 };

static const struct Stage {
    int oc, n, stride;
} stages[] = {{64, 1, 1}, {128, 2, 2}, {256, 2, 2}, {512, 6, 2}, {1024, 2, 2}};

static bool bireal(const Kn *k)
{
    return kn_word(k, NW_bireal) && !kn_word(k, NW_origin);
}

static bool block_skip(const Kn *k)
{
    return kn_word(k, NW_block_skip) && !kn_word(k, NW_origin);
}

/* As many convolutions of the input's width as make up c->oc channels: NAME.duplicates.0, ... */
static int duplicates(const Kn *k, int x, const void *arg)
{
    const KnConv *c = arg;
    const int ic = k->s->u[x].c;
    int all = -1;
    for (int i = 0; i < c->oc / ic; i++) {
        char name[NAME_LEN];
        KnConv one = *c;
        int y;
        snprintf(name, sizeof name, "%s.duplicates.%d", c->name, i);
        one.name = name;
        one.oc = ic;
        y = kn_conv(k, x, &one);
        all = all < 0 ? y : spec_concat(k->s, (const int[]){all, y}, 2);
    }
    return all;
}

/* What letter s adds in the depthwise half, -1: nothing. */
static int depth_skip(const Kn *k, int x, int stride)
{
    if (!bireal(k)) return -1;
    if (stride == 1) return x;
    return spec_pool(k->s, x, (PoolAttr){.kind = POOL_AVG, .k = stride, .stride = stride});
}

/* The same in the 1x1 half: `block` is the block's input, x its own. */
static int point_skip(const Kn *k, int block, int x, int oc, int stride, const char *prefix)
{
    char name[NAME_LEN];
    const KnConv plain = kn_mobile_conv(k, block, oc, stride, "");
    const KnSkip branch = {.name = name, .width = oc, .stride = stride, .pad = plain.pad - 1};
    snprintf(name, sizeof name, "%sskip", prefix);
    if (block_skip(k)) return kn_skip(k, block, &branch);
    return bireal(k) ? kn_repeat(k, x, oc / k->s->u[x].c) : -1;
}

int kn_separable(const Kn *k, int x, int oc, int stride, const char *prefix)
{
    static const char *const made[] = {"relu", "bn1", "bn2", "depth_conv", "point_conv", "skip", NULL};
    const int ic = k->s->u[x].c, begin = k->s->n, block = x;
    char name[6][NAME_LEN] = {{0}};
    KnConv depth = kn_mobile_conv(k, x, ic, stride, name[0]);
    KnConv point = {.name = name[3], .oc = oc, .k = 1};
    KnUnit u = {.conv = kn_unit_conv, .arg = &depth, .norm = name[1], .act = name[2]};
    static const char *const part[6] = {"depth_conv.0", "bn1.0", "relu1.0", "point_conv.0", "bn2.0", "relu2.0"};
    for (int i = 0; i < 6; i++) snprintf(name[i], sizeof name[i], "%s%s", prefix, part[i]);
    if (bireal(k) && oc % ic)
        kn_fault(k, "bireal: %d channels of %s are no multiple of the %d before them", oc, point.name, ic);
    depth.groups = kn_word(k, NW_normal3x3) ? 1 : ic;
    depth.marks = kn_word(k, NW_real_dp) ? UM_NO_QUANT : 0;
    point.marks = kn_word(k, NW_real_pt) ? UM_NO_QUANT : 0;
    if (kn_norm_inside(k, &depth)) u.norm = NULL;
    u.skip = depth_skip(k, x, stride);
    x = kn_unit(k, x, &u);
    u = (KnUnit){.conv = bireal(k) && oc > ic ? duplicates : kn_unit_conv, .arg = &point, .norm = name[4], .act = name[5]};
    u.skip = point_skip(k, block, x, oc, stride, prefix);
    x = kn_unit(k, x, &u);
    kn_declare(k->s, begin, prefix, made);
    return x;
}

static int check(const Kn *k, const char *net, Err *e)
{
    static const int orders[] = {NW_cbas, NW_cbsa, NW_bacs, -1};
    if (kn_mobile_check(k, net, e) || kn_need_order(k, net, orders, e)) return -1;
    if (bireal(k) && block_skip(k))
        return err_set(e, ERR_CONFIG, "keyword: net '%s' has shortcuts of bireal or of block_skip, not both", net);
    if (bireal(k) && !kn_word(k, NW_react))
        return err_set(e, ERR_CONFIG, "keyword: bireal in net '%s', which has strides and widens, needs react", net);
    if (block_skip(k) && k->order == NW_bacs)
        return err_set(e, ERR_CONFIG, "keyword: block_skip in net '%s', which widens, has no order bacs; "
                       "expected cbas or cbsa", net);
    return 0;
}

/* preBN: what the stem has not. */
static int tail(const Kn *k, int x)
{
    if (!kn_word(k, NW_preBN)) return x;
    return kn_act(k, kn_norm(k, x, "pooling.0"), "pooling.1");
}

int net_keyword_mobilenet_v1(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    static const char *const made[] = {"root", "pooling", "model", NULL};
    int x, number = 0;
    Kn k;
    (void)names;
    if (kn_begin(&k, s, o, KI_TORCH, e) || check(&k, net->name, e)) return -1;
    x = kn_mobile_stem(&k, spec_input(s, o->in_c, o->in_h, o->in_w), "root");
    for (size_t i = 0; i < ARRAY_LEN(stages); i++)
        for (int j = 0; j < stages[i].n; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "model.%d.", number++);
            x = kn_separable(&k, x, kn_width(o, stages[i].oc), j ? 1 : stages[i].stride, prefix);
        }
    x = tail(&k, x);
    kn_declare(s, 1, "", made);
    return kn_finish(&k, kn_classifier(&k, x, "classifier.0"), e);
}
