/* nets/nin.c -- NiN for 32x32 images: three groups of a wide convolution and two of 1x1, pooled in between, the
 * last with a channel for each class. Behind each convolution stand norm and activation.
 *
 * Source: aim-uofa/model-quantization models/nin_.py, whose units are numbered through, activations and
 * pools included. Differs: any number of classes, not 10 alone; the last average, over 8x8 there, is one
 * over the whole map. */
#include "nets/blocks.h"
#include "nets/keyword.h"


static const struct Step {
    int oc, k; /* oc 0: the classes */
    enum { NO_POOL, MAX_POOL, AVG_POOL } pool;
} steps[] = {
    {192, 5, NO_POOL}, {160, 1, NO_POOL}, {96, 1, MAX_POOL},  {192, 5, NO_POOL}, {192, 1, NO_POOL},
    {192, 1, AVG_POOL}, {192, 3, NO_POOL}, {192, 1, NO_POOL}, {0, 1, NO_POOL},
};

int net_nin(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    enum { LAST = ARRAY_LEN(steps) - 1 };
    PoolAttr pool = {.k = 3, .stride = 2, .pad = 1, .count_pad = true};
    int x, number = 0;
    Kn k;
    (void)names;
    if (kn_begin(&k, s, o, KI_TORCH, e) || kn_need_one_branch(&k, net->name, e)) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    for (int i = 0; i <= LAST; i++) {
        const struct Step *t = &steps[i];
        const Init init = init_uniform(s->u[x].c * t->k * t->k);
        const ConvAttr conv = {.oc = t->oc ? t->oc : o->num_classes, .k = t->k, .pad = t->k / 2,
                               .bias = i == 0 || i == LAST, .init = init, .bias_init = init};
        x = spec_conv(s, x, conv, "body.%d", number);
        spec_mark(s, x, i == 0 ? UM_FIRST : i == LAST ? UM_LAST : 0u);
        x = kn_norm(&k, x, "body.%d", number + 1);
        x = kn_act(&k, x, "body.%d", number + 2);
        number += 3;
        if (t->pool == NO_POOL) continue;
        pool.kind = t->pool == MAX_POOL ? POOL_MAX : POOL_AVG;
        x = spec_pool(s, x, pool);
        number++;
    }
    x = spec_flatten(s, spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG}));
    return kn_finish(&k, x, e);
}
