/* nets/keyword_mobilenet.c -- see keyword_mobilenet.h. */
#include "nets/keyword_mobilenet.h"

#include <stdio.h>

int kn_mobile_check(const Kn *k, const char *net, Err *e)
{
    if (kn_word(k, NW_prone) && kn_word(k, NW_preBN))
        return err_set(e, ERR_CONFIG, "keyword: net '%s' has no preBN together with prone", net);
    return kn_need_one_branch(k, net, e);
}

int kn_mobile_stride(const Kn *k)
{
    return net_word_first(k->o->words, NG_DATA) >= 0 ? 1 : 2;
}

int kn_mobile_stem(const Kn *k, int x, const char *name)
{
    const bool bare = kn_word(k, NW_preBN);
    char conv[32];
    const KnConv c = {.name = conv, .oc = kn_width(k->o, MOBILE_STEM), .k = 3, .stride = kn_mobile_stride(k),
                      .pad = 1, .marks = UM_FIRST};
    snprintf(conv, sizeof conv, "%s%s", name, bare ? "" : ".0");
    x = kn_conv(k, x, &c);
    if (bare) return x;
    return kn_act(k, kn_norm(k, x, "%s.1", name), "%s.2", name);
}

KnConv kn_mobile_conv(const Kn *k, int x, int oc, int stride, const char *name)
{
    const int rest = k->s->u[x].h % (2 * stride);
    KnConv c = {.name = name, .oc = oc, .k = 3, .stride = stride, .pad = 1};
    if (!kn_word(k, NW_prone)) return c;
    c.prone = stride == 1 || !kn_word(k, NW_no_prone_downsample);
    if (rest) c.pad += (2 * stride - rest) / 2; /* as large a map as prone would make */
    return c;
}

bool kn_norm_inside(const Kn *k, const KnConv *c)
{
    return c->prone && kn_word(k, NW_bn_before_restore);
}
