/* nets/pytorch_resnet.c -- see flex.h: torchvision's layout with the words for norms and
 * activations. Layer orders, shortcuts and the like have no effect here; first-last, caffe-pooling
 * and real_skip have. */
#include <stdio.h>

#include "nets/flex.h"

enum { EXPANSION = 4 };

static const struct Depth {
    int depth, blocks[4];
    bool bottleneck;
} depths[] = {{18, {2, 2, 2, 2}, false},
              {34, {3, 4, 6, 3}, false},
              {50, {3, 4, 6, 3}, true},
              {101, {3, 4, 23, 3}, true}};

static int downsample(const Kn *k, int x, const char *prefix, int width, int stride)
{
    char name[128];
    const KnConv conv = {.name = name,
                         .oc = width,
                         .k = 1,
                         .stride = stride,
                         .marks = UM_SKIP | (kn_word(k, NW_real_skip) ? UM_NO_QUANT : 0u)};
    if (stride == 1 && k->s->u[x].c == width) return x;
    snprintf(name, sizeof name, "%sdownsample.0", prefix);
    x = kn_conv(k, x, &conv);
    return kn_norm(k, x, "%sdownsample.1", prefix);
}

int pytorch_block(const Kn *k, int x, const char *prefix, bool bottleneck, int planes, int stride)
{
    static const char *const order[] = {"relu1", "relu2", "relu3", "conv1", "bn1",
                                        "conv2", "bn2",   "conv3", "bn3",   NULL};
    const KnConv basic[] = {{.oc = planes, .k = 3, .stride = stride, .pad = 1},
                            {.oc = planes, .k = 3, .pad = 1}};
    const KnConv narrow[] = {{.oc = planes, .k = 1},
                             {.oc = planes, .k = 3, .stride = stride, .pad = 1},
                             {.oc = EXPANSION * planes, .k = 1}};
    const KnConv *convs = bottleneck ? narrow : basic;
    const int n = bottleneck ? 3 : 2, begin = k->s->n;
    int y = x;
    for (int i = 0; i < n; i++) {
        char name[128];
        KnConv c = convs[i];
        snprintf(name, sizeof name, "%sconv%d", prefix, i + 1);
        c.name = name;
        y = kn_conv(k, y, &c);
        y = kn_norm(k, y, "%sbn%d", prefix, i + 1);
        if (i < n - 1) y = kn_act(k, y, "%srelu%d", prefix, i + 1);
    }
    y = spec_add(k->s, y, downsample(k, x, prefix, k->s->u[y].c, stride));
    y = kn_act(k, y, "%srelu%d", prefix, n);
    kn_declare(k->s, begin, prefix, order);
    return y;
}

int net_pytorch_resnet(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const struct Depth *d = depths;
    PoolAttr pool = {.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1};
    KnConv first = {.name = "conv1", .oc = 64, .k = 7, .stride = 2, .pad = 3};
    Kn k;
    int x;
    (void)names;
    while (d->depth != net->arg) d++;
    if (kn_begin(&k, s, o, KI_FAN_OUT, e)) return -1;
    if (!kn_word(&k, NW_first_last)) first.marks = UM_FIRST;
    if (kn_word(&k, NW_caffe_pooling)) pool.pad = 0, pool.ceil_mode = true;
    x = kn_conv(&k, spec_input(s, o->in_c, o->in_h, o->in_w), &first);
    x = kn_act(&k, kn_norm(&k, x, "bn1"), "relu");
    x = spec_pool(s, x, pool);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < d->blocks[i]; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "layer%d.%d.", i + 1, j);
            x = pytorch_block(&k, x, prefix, d->bottleneck, 64 << i, i && !j ? 2 : 1);
        }
    x = kn_classifier(&k, x, "fc");
    if (kn_word(&k, NW_first_last)) s->u[x].marks &= ~(unsigned)UM_LAST;
    return kn_finish(&k, x, e);
}
