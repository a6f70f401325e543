/* nets/flex.c -- see flex.h: the flexible ResNet. */
#include "nets/flex.h"

#include <stdio.h>

enum { MAX_STAGES = 9 };

/* Stages without blocks are skipped and still count in widths and names. */
static const struct Depth {
    const char *name;
    bool bottleneck;
    int stages, blocks[MAX_STAGES];
} depths[] = {
    {"resnet18", false, 4, {2, 2, 2, 2}},  {"resnet20", false, 3, {3, 3, 3}},
    {"resnet20_", false, 4, {2, 2, 3, 2}}, {"resnet32", false, 3, {5, 5, 5}},
    {"resnet34", false, 4, {3, 4, 6, 3}},  {"resnet34_", false, 9, {0, 2, 2, 2, 2, 2, 2, 2, 2}},
    {"resnet44", false, 3, {7, 7, 7}},     {"resnet50", true, 4, {3, 4, 6, 3}},
    {"resnet101", true, 4, {3, 4, 23, 3}},
};

static const struct Depth *depth_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(depths); i++)
        if (str_eq(depths[i].name, name)) return &depths[i];
    ASSERT(0, "flexible resnet '%s'", name);
    return NULL;
}

/* ---- stem ---- */

typedef struct Stem {
    KnConv conv;
    int block; /* space-to-depth before the convolution; 0: none */
    bool pool;
    int feature_stride;
} Stem;

static int find_stem(const Kn *k, Stem *st, Err *e)
{
    const int width = kn_width(k->o, 64), side = k->o->stem_kernel ? k->o->stem_kernel : 1;
    const bool pool = kn_word(k, NW_TResNetStemMaxPool);
    if (net_word_first(k->o->words, NG_DATA) >= 0) {
        *st = (Stem){.conv = {.name = "conv1", .oc = width, .k = 3, .pad = 1}, .feature_stride = 1};
    } else if (pool || kn_word(k, NW_TResNetStem)) {
        if (side != 1 && side != 3)
            return err_set(e, ERR_CONFIG, "stem_kernel: %d; expected 1 or 3", side);
        *st = (Stem){.conv = {.name = "conv1.conv", .oc = width, .k = side, .pad = side / 2},
                     .block = pool ? 2 : 4,
                     .pool = pool,
                     .feature_stride = 4};
    } else {
        *st = (Stem){.conv = {.name = "conv1", .oc = width, .k = 7, .stride = 2, .pad = 3},
                     .pool = true,
                     .feature_stride = 4};
    }
    st->conv.marks = UM_FIRST | (st->block ? UM_COUNTED : 0u);
    return 0;
}

static int stem_norm(const Kn *k, int x)
{
    const bool pre = kn_word(k, NW_preBN);
    if (kn_word(k, NW_fixup)) return x;
    if (pre && !(kn_word(k, NW_patch_preBN_stem) && kn_word(k, NW_fix_pooling))) return x;
    x = kn_norm(k, x, "bn1.0");
    return kn_word(k, NW_group_net) && !pre ? x : kn_act(k, x, "bn1.1");
}

static int stem(const Kn *k, int x, const Stem *st)
{
    const PoolAttr pool = {.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1};
    const bool early = kn_word(k, NW_fix_pooling);
    if (st->block) x = spec_space_to_depth(k->s, x, st->block);
    x = kn_conv(k, x, &st->conv);
    if (kn_word(k, NW_fixup)) {
        if (kn_word(k, NW_bias)) x = spec_shift(k->s, x, 0, "fixup_bias1");
        x = kn_act(k, x, "stem_relu");
    }
    if (early) x = stem_norm(k, x);
    if (st->pool) x = spec_pool(k->s, x, pool);
    return early ? x : stem_norm(k, x);
}

/* ---- tail ---- */

static int tail(const Kn *k, int x)
{
    const bool fixup = kn_word(k, NW_fixup);
    if (kn_word(k, NW_preBN) && !fixup) {
        x = kn_norm(k, x, "bn2.0");
        if (kn_word(k, NW_patch_preBN_stem)) x = kn_act(k, x, "bn2.1");
    }
    x = spec_flatten(k->s, spec_pool(k->s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG}));
    if (fixup && kn_word(k, NW_bias)) x = spec_shift(k->s, x, 0, "fixup_bias2");
    x = kn_linear(k, x, "fc");
    if (fixup) k->s->u[x].u.linear.init = k->s->u[x].u.linear.bias_init = (Init){INIT_CONST, 0, 0};
    return x;
}

int net_flex(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    static const char *const order[] = {"fixup_", "conv1", "layer",     "bn1.",
                                        "bn2.",   "fc",    "stem_relu", NULL};
    const struct Depth *d = depth_find(net->name);
    FlexBlock b = {.stages = d->stages, .bottleneck = d->bottleneck};
    Stem st;
    Kn k;
    int x;
    (void)names;
    if (kn_begin(&k, s, o, KI_FAN_OUT, e) || flex_check(&k, net->name, d->bottleneck, e) ||
        find_stem(&k, &st, e))
        return -1;
    x = stem(&k, spec_input(s, o->in_c, o->in_h, o->in_w), &st);
    b.feature_stride = st.feature_stride;
    for (int i = 0; i < d->stages; i++)
        for (int j = 0; j < d->blocks[i]; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "layer%d.%d.", i + 1, j);
            b.prefix = prefix;
            b.planes = kn_width(o, 64) << i;
            b.stride = i && !j ? 2 : 1;
            x = flex_block(&k, x, &b);
            b.feature_stride *= b.stride;
        }
    x = tail(&k, x);
    kn_declare(s, 0, "", order);
    return kn_finish(&k, x, e);
}
