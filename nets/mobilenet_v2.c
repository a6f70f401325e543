/* nets/mobilenet_v2.c -- MobileNet V2 (Sandler et al. 2018): a 3x3 stem with stride 2, 17 inverted
 * residual blocks with linear ends, a 1x1 convolution to 1280 channels, global average, classifier.
 *
 * Sources: torchvision's models/mobilenetv2.py and FAT_Quantization imagenet/models/mobilenetv2.py,
 * which names the same (ReLU6, dropout 0.2); deJQK/AdaBits models/q_mobilenet_v2.py and F8Net's, with
 * ReLU and without dropout. All but the convolutions that end a block are marked UM_WIDE. */
#include <stdio.h>

#include "nets/blocks.h"
#include "nets/staged.h"

static const struct Stage {
    int expand, oc, n, stride;
} stages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
              {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};

enum { HEAD = 32, TAIL = 1280 };

/* ---- torchvision's names ---- */

/* A convolution `prefix`CONV with its norm `prefix`NORM, and ReLU6 when it is UM_WIDE or the stem. */
typedef struct Step {
    int oc, k, stride, groups;
    unsigned marks;
    const char *conv, *norm;
} Step;

static int step(Spec *s, int x, NetNames names, const Step *t, const char *prefix)
{
    ConvAttr a = {.oc = t->oc, .k = t->k, .stride = t->stride, .pad = t->k / 2, .groups = t->groups};
    a.init = names == NAMES_FAT ? init_uniform(s->u[x].c / t->groups * t->k * t->k)
                                : init_normal(t->k * t->k * t->oc);
    x = spec_conv(s, x, a, "%s%s", prefix, t->conv);
    spec_mark(s, x, t->marks);
    x = block_norm(s, x, "%s%s", prefix, t->norm);
    if (!(t->marks & (UM_WIDE | UM_FIRST))) return x;
    return spec_act(s, x, (ActAttr){.kind = AK_RELU6}, "%s", "");
}

static int inverted(Spec *s, int x, NetNames names, const struct Stage *g, int stride, int number)
{
    const int ic = s->u[x].c, wide = ic * g->expand, skip = g->expand == 1;
    const Step deep[] = {{wide, 1, 1, 1, UM_WIDE | UM_SIGNED, "conv.0.0", "conv.0.1"},
                         {wide, 3, stride, wide, UM_WIDE, "conv.1.0", "conv.1.1"},
                         {g->oc, 1, 1, 1, 0, "conv.2", "conv.3"}},
               flat[] = {{wide, 3, stride, wide, UM_WIDE, "conv.0.0", "conv.0.1"},
                         {g->oc, 1, 1, 1, 0, "conv.1", "conv.2"}};
    const Step *t = skip ? flat : deep;
    char prefix[32];
    int y = x;
    snprintf(prefix, sizeof prefix, "features.%d.", number);
    for (int i = 0; i < 3 - skip; i++) y = step(s, y, names, &t[i], prefix);
    return stride == 1 && ic == g->oc ? spec_add(s, y, x) : y;
}

static int torchvision(Spec *s, NetNames names, const NetOpts *o, Err *e)
{
    const Step head = {HEAD, 3, 2, 1, UM_FIRST, "0", "1"},
               tail = {TAIL, 1, 1, 1, UM_WIDE | UM_SIGNED, "0", "1"};
    LinearAttr fc = {.out = o->num_classes, .bias = true, .init = {INIT_NORMAL, 0, 0.01f}};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w), number = 1;
    char prefix[32];
    x = step(s, x, names, &head, "features.0.");
    for (size_t i = 0; i < ARRAY_LEN(stages); i++)
        for (int j = 0; j < stages[i].n; j++)
            x = inverted(s, x, names, &stages[i], j ? 1 : stages[i].stride, number++);
    snprintf(prefix, sizeof prefix, "features.%d.", number);
    x = step(s, x, names, &tail, prefix);
    x = spec_flatten(s, spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG}));
    x = spec_linear(s, spec_dropout(s, x, 0.2f), fc, "classifier.1");
    spec_mark(s, x, UM_LAST);
    return spec_finish(s, x, e);
}

/* ---- those of AdaBits and F8Net ---- */

static const StagedStyle styles[] = {{.names = NAMES_ADABITS},
                                     {.names = NAMES_F8NET, .joined = true}};

int net_mobilenet_v2(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const StagedConv head = {HEAD, 3, 2, 1, true}, tail = {TAIL, 1, 1, 1, true};
    const StagedStyle *st;
    int x;
    if (names == NAMES_FAT || names == NAMES_TORCHVISION || names == NAMES_APOT)
        return torchvision(s, names, o, e);
    st = staged_find(styles, ARRAY_LEN(styles), net, names, e);
    if (!st) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = staged_sequence(s, x, st, &head, 1, UM_FIRST, "head");
    for (int i = 0; i < (int)ARRAY_LEN(stages); i++)
        for (int j = 0; j < stages[i].n; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "stage_%d_layer_%d.", i, j);
            x = staged_inverted(s, x, st, stages[i].expand, stages[i].oc, j ? 1 : stages[i].stride,
                                prefix);
        }
    x = staged_sequence(s, x, st, &tail, 1, UM_SIGNED, "tail");
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}
