/* nets/staged.c -- see staged.h. Sources: deJQK/AdaBits models/q_resnet_cifar.py, q_mobilenet_v1.py,
 * q_mobilenet_v2.py, whose blocks these are: all convolutions without bias, shortcuts quantized
 * convolutions, ReLU (not ReLU6) in both MobileNets, classifier weights normal with deviation 0.01. */
#include "nets/staged.h"

#include <stdarg.h>
#include <stdio.h>

#include "nets/blocks.h"

#define NAME_LEN 128

static int one(Spec *s, int x, const StagedStyle *st, const StagedConv *c, unsigned marks,
               bool last, const char *group, int *at)
{
    ConvAttr a = {.oc = c->oc, .k = c->k, .stride = c->stride, .pad = c->k / 2, .groups = c->groups};
    a.init = init_normal(c->k * c->k * c->oc);
    x = spec_conv(s, x, a, "%s.%d%s", group, *at, st->joined ? ".conv" : "");
    if (marks) spec_mark(s, x, marks);
    x = block_norm(s, x, "%s.%d%s", group, st->joined ? *at : *at + 1, st->joined ? ".bn" : "");
    *at += st->joined ? 1 : 3;
    if (!c->relu) return x;
    x = block_relu(s, x, "%s", "");
    if (!last) spec_mark(s, x, UM_INNER);
    return x;
}

int staged_sequence(Spec *s, int x, const StagedStyle *st, const StagedConv *c, int n,
                    unsigned marks, const char *fmt, ...)
{
    char group[NAME_LEN];
    int at = 0;
    FORMAT_NAME(group, fmt);
    for (int i = 0; i < n; i++) x = one(s, x, st, &c[i], i ? 0 : marks, i + 1 == n, group, &at);
    return x;
}

static int residual(Spec *s, int x, const StagedStyle *st, const StagedConv *c, int n, int stride,
                    const char *prefix)
{
    const int oc = c[n - 1].oc, y = staged_sequence(s, x, st, c, n, 0, "%sbody", prefix);
    const StagedConv skip = {oc, 1, stride, 1, false};
    if (stride != 1 || s->u[x].c != oc)
        x = staged_sequence(s, x, st, &skip, 1, UM_SKIP, "%sshortcut", prefix);
    return block_relu(s, spec_add(s, y, x), "%s", "");
}

int staged_residual(Spec *s, int x, const StagedStyle *st, int oc, int stride, const char *prefix)
{
    const StagedConv c[] = {{oc, 3, stride, 1, true}, {oc, 3, 1, 1, false}};
    return residual(s, x, st, c, 2, stride, prefix);
}

int staged_bottleneck(Spec *s, int x, const StagedStyle *st, int oc, int stride, const char *prefix)
{
    const StagedConv c[] = {
        {oc / 4, 1, 1, 1, true}, {oc / 4, 3, stride, 1, true}, {oc, 1, 1, 1, false}};
    return residual(s, x, st, c, 3, stride, prefix);
}

int staged_separable(Spec *s, int x, const StagedStyle *st, int oc, int stride, const char *prefix)
{
    const int ic = s->u[x].c;
    const StagedConv c[] = {{ic, 3, stride, ic, true}, {oc, 1, 1, 1, true}};
    return staged_sequence(s, x, st, c, 2, 0, "%sbody", prefix);
}

int staged_inverted(Spec *s, int x, const StagedStyle *st, int expand, int oc, int stride,
                    const char *prefix)
{
    const int ic = s->u[x].c, wide = ic * expand;
    const StagedConv c[] = {
        {wide, 1, 1, 1, true}, {wide, 3, stride, wide, true}, {oc, 1, 1, 1, false}};
    const int skip = expand == 1;
    /* F8Net knows that a ReLU stands before the block without expansion; AdaBits does not. */
    const unsigned sign = skip && st->joined ? 0 : UM_SIGNED;
    const int y = staged_sequence(s, x, st, c + skip, 3 - skip, sign, "%sbody", prefix);
    return stride == 1 && ic == oc ? spec_add(s, y, x) : y;
}

int staged_classifier(Spec *s, int x, int classes)
{
    LinearAttr a = {.out = classes, .bias = true, .init = {INIT_NORMAL, 0, 0.01f}};
    x = spec_flatten(s, spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG}));
    x = spec_linear(s, x, a, "classifier.0");
    spec_mark(s, x, UM_LAST);
    return x;
}

const StagedStyle *staged_find(const StagedStyle *styles, int n, const NetDef *net, NetNames names,
                               Err *e)
{
    return net_style(styles, sizeof *styles, n, net, names, e);
}
