/* engine/spec_equal.c -- whether two Specs are the same net: units, names, shapes, initial values. */
#include <string.h>

#include "engine/spec.h"

static bool same_init(Init a, Init b)
{
    return a.kind == b.kind && a.a == b.a && a.b == b.b;
}

static bool same_conv(const ConvAttr *a, const ConvAttr *b)
{
    return a->oc == b->oc && a->k == b->k && a->stride == b->stride && a->pad == b->pad &&
           a->dilation == b->dilation && a->groups == b->groups && a->bias == b->bias &&
           same_init(a->init, b->init) && same_init(a->bias_init, b->bias_init);
}

static bool same_linear(const LinearAttr *a, const LinearAttr *b)
{
    return a->out == b->out && a->bias == b->bias && same_init(a->init, b->init) &&
           same_init(a->bias_init, b->bias_init);
}

static bool same_norm(const NormAttr *a, const NormAttr *b)
{
    return a->kind == b->kind && a->eps == b->eps && a->momentum == b->momentum &&
           a->affine == b->affine && a->groups == b->groups && a->weight_init == b->weight_init;
}

static bool same_act(const ActAttr *a, const ActAttr *b)
{
    return a->kind == b->kind && a->slope == b->slope && a->one_slope == b->one_slope;
}

static bool same_pool(const PoolAttr *a, const PoolAttr *b)
{
    return a->kind == b->kind && a->k == b->k && a->stride == b->stride && a->pad == b->pad &&
           a->ceil_mode == b->ceil_mode && a->count_pad == b->count_pad;
}

static bool same_attr(const Unit *a, const Unit *b)
{
    switch (a->kind) {
    case U_CONV:
        return same_conv(&a->u.conv, &b->u.conv);
    case U_LINEAR:
        return same_linear(&a->u.linear, &b->u.linear);
    case U_NORM:
        return same_norm(&a->u.norm, &b->u.norm);
    case U_ACT:
        return same_act(&a->u.act, &b->u.act);
    case U_POOL:
        return same_pool(&a->u.pool, &b->u.pool);
    case U_SCALE:
    case U_SHIFT:
        return a->u.init == b->u.init;
    case U_PAD:
        return !memcmp(a->u.pad, b->u.pad, sizeof a->u.pad);
    case U_DROPOUT:
        return a->u.p == b->u.p;
    case U_SPACE_TO_DEPTH:
    case U_DEPTH_TO_SPACE:
        return a->u.block == b->u.block;
    case U_INPUT:
    case U_ADD:
    case U_CONCAT:
    case U_FLATTEN:
    case U_NKINDS:
        break;
    }
    return true;
}

static bool same_unit(const Unit *a, const Unit *b)
{
    if (a->kind != b->kind || strcmp(a->name, b->name) || a->nin != b->nin) return false;
    for (int i = 0; i < a->nin; i++)
        if (a->in[i] != b->in[i]) return false;
    return a->marks == b->marks && a->order == b->order && a->c == b->c && a->h == b->h && a->w == b->w &&
           same_attr(a, b);
}

bool spec_equal(const Spec *a, const Spec *b)
{
    if (a->n != b->n || a->out != b->out) return false;
    for (int i = 0; i < a->n; i++)
        if (!same_unit(&a->u[i], &b->u[i])) return false;
    return true;
}
