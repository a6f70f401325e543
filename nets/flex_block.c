/* nets/flex_block.c -- see flex.h: the blocks of the flexible ResNet.
 *
 * With `origin` a block is U1 U2 (U3) and one shortcut around them; without it each unit adds its
 * own input, the first one what the shortcut makes of it (Bi-Real). `base` copies of the units run
 * side by side, their results weighted by trained factors (Group-Net). */
#include "nets/flex.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAME_LEN 160

enum { EXPANSION = 4, MAX_CONVS = 3 };

/* A position of a block: its convolution, and which letters are left out. */
typedef struct Position {
    KnConv conv;
    bool no_conv, no_norm, no_act;
} Position;

typedef struct Block {
    const Kn *k;
    const FlexBlock *b;
    Position p[MAX_CONVS];
    int n, base, stride, width;    /* width: output channels */
    int extra;                     /* additional padding of strided convolutions */
    bool layer_skips;              /* Bi-Real */
    bool fix, fixup, biases, post; /* post: cbas or cbsa */
} Block;

/* ---- illegal words ---- */

int flex_check(const Kn *k, const char *net, bool bottleneck, Err *e)
{
    static const int basic_orders[] = {NW_cbas, NW_cbsa, NW_cabs, NW_bacs, NW_bcas, -1};
    static const int bottleneck_orders[] = {NW_cbas, NW_cbsa, NW_cabs, NW_bacs, -1};
    const NetWordSet w = k->o->words;
    const bool reshape = net_word(w, NW_ReShapeResolution) && !bottleneck;
    const bool pre = k->order == NW_bacs || k->order == NW_bcas;
    const char *order = k->o->order ? k->o->order : "";
    if (kn_need_order(k, net, bottleneck ? bottleneck_orders : basic_orders, e)) return -1;
    if (bottleneck && !net_word(w, NW_origin))
        return err_set(e, ERR_CONFIG,
                       "keyword: net '%s' needs origin: a bottleneck's layers differ in width, so "
                       "none can add its input",
                       net);
    if (bottleneck && net_word(w, NW_DCHR))
        return err_set(e, ERR_CONFIG,
                       "keyword: DCHR is for nets of basic blocks, not for the bottlenecks of '%s'",
                       net);
    if (net_word(w, NW_prone) && net_word(w, NW_preBN))
        return err_set(e, ERR_CONFIG, "keyword: prone and preBN exclude each other");
    if (net_word(w, NW_fixup) && k->o->base > 1)
        return err_set(e, ERR_CONFIG, "keyword: fixup has one branch a block; base: %d",
                       k->o->base);
    if (!reshape) return 0;
    if (pre)
        return err_set(
            e, ERR_CONFIG,
            "keyword: ReShapeResolution does not go with %s; expected cbas, cbsa or cabs",
            net_words[k->order].name);
    if (net_word(w, NW_f1x1))
        return err_set(
            e, ERR_CONFIG,
            "keyword: f1x1 pads its 1x1 convolution, so the sizes of a block's ends differ");
    if (net_word(w, NW_ldn3x3) && net_word(w, NW_f3x3))
        return err_set(e, ERR_CONFIG, "keyword: ldn3x3 and f3x3 exclude each other");
    if (net_word(w, NW_f3x3)) return 0;
    if (strspn(order, "cba") != strlen(order) || !strchr(order, 'c') ||
        strchr(order, 'c') != strrchr(order, 'c'))
        return err_set(e, ERR_CONFIG,
                       "keyword: ReShapeResolution with order: %s; expected letters c, b, a, one c "
                       "among them (c, cb, ca, cba)",
                       *order ? order : "none");
    return 0;
}

/* ---- the positions ---- */

static void set_conv(Position *p, int oc, int k, int stride, int pad)
{
    p->conv = (KnConv){.oc = oc, .k = k, .stride = stride, .pad = pad};
}

/* What ReShapeResolution leaves of a block with a stride. */
static void reshape_positions(Block *b)
{
    if (kn_word(b->k, NW_f0x0)) {
        b->p[0].no_conv = b->p[0].no_norm = b->p[0].no_act = true;
        b->layer_skips = false;
    }
    if (kn_word(b->k, NW_s1x1)) b->p[1].conv.k = 1, b->p[1].conv.pad = 0;
}

static void prone_positions(Block *b)
{
    const Kn *k = b->k;
    const bool plain_stride = kn_word(k, NW_no_prone_downsample) && b->stride != 1;
    bool prone[2] = {!plain_stride && !kn_word(k, NW_f3x3),
                     !kn_word(k, NW_s1x1) && !kn_word(k, NW_s3x3)};
    if (b->n == 3) { /* the 3x3 in the middle alone */
        prone[0] = false;
        prone[1] = !plain_stride;
    } else if (kn_word(k, NW_s3x3)) {
        b->p[1].conv.k = 3, b->p[1].conv.pad = 1;
    } else if (kn_word(k, NW_s1x1)) {
        b->p[1].conv.k = 1, b->p[1].conv.pad = 0;
    }
    for (int i = 0; i < 2; i++) {
        b->p[i].conv.prone = prone[i];
        if (prone[i] && kn_word(k, NW_bn_before_restore)) b->p[i].no_norm = true;
    }
}

/* Rows that strided convolutions pad in addition, so that their maps are as large as those of
 * prone. force_padding is for basic blocks. */
static int extra_padding(const Block *b)
{
    const Kn *k = b->k;
    const int side = k->o->in_h / b->b->feature_stride, rest = side % (2 * b->stride);
    if (b->stride == 1) return 0;
    if (kn_word(k, NW_force_padding) && side == 14 && b->n == 2) return 1;
    return kn_word(k, NW_prone) && rest ? (2 * b->stride - rest) / 2 : 0;
}

static void fixup_starts(Block *b)
{
    const double gain = pow(b->b->stages, b->n == 2 ? -0.5 : -0.25);
    for (int i = 0; i < b->n; i++) b->p[i].conv.gain = gain;
    b->p[b->n - 1].conv.zero = true;
}

static void set_positions(Block *b, int stride, bool reshaped)
{
    const int planes = b->b->planes;
    b->stride = stride;
    b->extra = extra_padding(b);
    if (b->n == 2) {
        set_conv(&b->p[0], planes, 3, stride, 1 + b->extra);
        set_conv(&b->p[1], planes, 3, 1, 1);
    } else {
        set_conv(&b->p[0], planes, 1, 1, 0);
        set_conv(&b->p[1], planes, 3, stride, 1 + b->extra);
        set_conv(&b->p[2], b->width, 1, 1, 0);
    }
    if (reshaped) reshape_positions(b);
    if (kn_word(b->k, NW_prone)) prone_positions(b);
    if (b->fixup) fixup_starts(b);
    for (int i = 0; i < b->n; i++) b->p[i].no_norm |= b->fixup;
    b->p[b->n - 1].no_act |= b->fix && b->post;
}

/* ---- the prefix of ReShapeResolution ---- */

static int shrink(const Block *b, int x)
{
    const Kn *k = b->k;
    const int side = kn_word(k, NW_ldn3x3) ? 3 : 1;
    for (int i = 0; k->o->order[i]; i++) {
        char name[NAME_LEN];
        const KnConv conv = {.name = name,
                             .oc = b->b->planes,
                             .k = side,
                             .stride = 1,
                             .pad = side / 2,
                             .marks = kn_word(k, NW_real_skip) ? UM_NO_QUANT : 0u};
        const bool c = k->o->order[i] == 'c';
        snprintf(name, sizeof name, "%sshrink.%d%s", b->b->prefix, i, c ? ".conv" : "");
        if (c) x = kn_conv(k, spec_space_to_depth(k->s, x, b->b->stride), &conv);
        if (k->o->order[i] == 'b') x = kn_norm(k, x, "%s", name);
        if (k->o->order[i] == 'a') x = kn_act(k, x, "%s", name);
    }
    return x;
}

/* ---- the shortcut ---- */

static int shortcut(const Block *b, int x)
{
    char name[NAME_LEN];
    const KnSkip skip = {.name = name, .width = b->width, .stride = b->stride, .pad = b->extra};
    const int from = b->k->s->u[x].c;
    Kn k = *b->k;
    k.no_norms = b->fixup;
    snprintf(name, sizeof name, "%sskip", b->b->prefix);
    if (!kn_word(&k, NW_DCHR) || from == b->width) return kn_skip(&k, x, &skip);
    if (b->width % from)
        kn_fault(&k, "DCHR: %s goes from %d channels to %d, no multiple", name, from, b->width);
    if (b->stride > 1)
        x = spec_pool(k.s, x, (PoolAttr){.kind = POOL_AVG, .k = b->stride, .stride = b->stride});
    return kn_repeat(&k, x, b->width / from);
}

/* ---- the units ---- */

typedef struct UnitNames {
    char conv[NAME_LEN], norm[NAME_LEN], act[NAME_LEN];
} UnitNames;

static int unit(const Block *b, int x, int branch, int i, int skip, const char *shift)
{
    UnitNames n;
    KnConv conv = b->p[i].conv;
    KnUnit u = {.conv = b->p[i].no_conv ? NULL : kn_unit_conv,
                .arg = &conv,
                .skip = skip,
                .shift = shift,
                .norm = b->p[i].no_norm ? NULL : n.norm,
                .act = b->p[i].no_act ? NULL : n.act};
    snprintf(n.conv, sizeof n.conv, "%sconv%d.%d", b->b->prefix, i + 1, branch);
    snprintf(n.norm, sizeof n.norm, "%sbn%d.%d", b->b->prefix, i + 1, branch);
    snprintf(n.act, sizeof n.act, "%srelu%d.%d", b->b->prefix, i + 1, branch);
    conv.name = n.conv;
    return kn_unit(b->k, x, &u);
}

/* All units of one branch. r: what the first one adds under Bi-Real. */
static int branch(const Block *b, int x, int j, int r)
{
    char name[NAME_LEN];
    for (int i = 0; i < b->n; i++) {
        const bool shifts = b->biases && i < b->n - 1;
        const int skip = b->layer_skips && !shifts ? (i ? x : r) : -1;
        snprintf(name, sizeof name, "%sfixup_bias%db", b->b->prefix, i + 1);
        x = unit(b, x, j, i, skip, shifts ? name : NULL);
        if (shifts) x = spec_shift(b->k->s, x, 0, "%sfixup_bias%da", b->b->prefix, i + 2);
    }
    return x;
}

static int branches(const Block *b, int x, int r)
{
    Spec *s = b->k->s;
    int sum = -1;
    for (int j = 0; j < b->base; j++) {
        int y = branch(b, x, j, r);
        if (b->base > 1)
            y = spec_scale(s, y, (float)(1.0 / b->base), "%sscales.%d", b->b->prefix, j);
        sum = sum < 0 ? y : spec_add(s, sum, y);
    }
    if (b->fixup) sum = spec_scale(s, sum, 1, "%sfixup_scale", b->b->prefix);
    if (b->biases) sum = spec_shift(s, sum, 0, "%sfixup_bias%db", b->b->prefix, b->n);
    return sum;
}

/* ---- blocks ---- */

/* Parameters that the original makes and never uses. Norms get their widths from x. */
static void unused_ends(const Block *b, int x)
{
    if (b->fix && b->post) kn_unused_act(b->k, x, "%sfix_relu", b->b->prefix);
    if (b->fix && (b->k->order == NW_bacs || b->k->order == NW_bcas))
        kn_unused_norm(b->k, x, "%sfix_bn", b->b->prefix);
}

/* Under ldn3x3 a block is its prefix; the rest of it has parameters only. */
static void unused_units(const Block *b, int x)
{
    Spec *s = b->k->s;
    for (int i = 0; i < b->n; i++)
        for (int j = 0; j < b->base; j++) {
            if (!b->p[i].no_norm) kn_unused_norm(b->k, x, "%sbn%d.%d", b->b->prefix, i + 1, j);
            if (!b->p[i].no_act) kn_unused_act(b->k, x, "%srelu%d.%d", b->b->prefix, i + 1, j);
        }
    if (kn_word(b->k, NW_identify_norm) && !b->fixup)
        kn_unused_norm(b->k, x, "%sskip.1", b->b->prefix);
    for (int j = 0; b->base > 1 && j < b->base; j++)
        spec_mark(s, spec_scale(s, x, (float)(1.0 / b->base), "%sscales.%d", b->b->prefix, j),
                  UM_UNUSED);
    if (b->fixup) spec_mark(s, spec_scale(s, x, 1, "%sfixup_scale", b->b->prefix), UM_UNUSED);
    for (int i = 0; b->biases && i < b->n; i++)
        for (const char *c = "ab"; *c; c++)
            spec_mark(s, spec_shift(s, x, 0, "%sfixup_bias%d%c", b->b->prefix, i + 1, *c),
                      UM_UNUSED);
    unused_ends(b, x);
}

/* The sum with the shortcut, and what `fix` puts around it. */
static int close_block(const Block *b, int y, int r)
{
    const Kn *k = b->k;
    if (b->fix && (k->order == NW_bacs || k->order == NW_bcas))
        y = kn_norm(k, y, "%sfix_bn", b->b->prefix);
    y = kn_add(k, y, r);
    return b->fix && b->post ? kn_act(k, y, "%sfix_relu", b->b->prefix) : y;
}

static int body(const Block *b, int x)
{
    const Kn *k = b->k;
    Spec *s = k->s;
    const bool bias_in_first = b->biases; /* the first unit's slot is taken */
    int in = x, r = -1, y, begin;
    if (b->biases) in = spec_shift(s, x, 0, "%sfixup_bias1a", b->b->prefix);
    begin = s->n;
    if (b->layer_skips) {
        r = shortcut(b, in);
        for (int u = begin; bias_in_first && u < s->n; u++) spec_mark(s, u, UM_UNUSED);
        y = branches(b, in, r == in && bias_in_first ? -1 : r);
        unused_ends(b, y);
        return y;
    }
    y = branches(b, in, -1);
    r = shortcut(b, in);
    /* Without a branch what is added is the input before its offset; an identity with a norm is one. */
    return close_block(b, y, r == in && !kn_word(k, NW_identify_norm) ? x : r);
}

/* zir: the last norm of the block starts with scale 0. */
static void zero_last_norm(const Block *b, int begin)
{
    Spec *s = b->k->s;
    char last[NAME_LEN], fix[NAME_LEN];
    bool has_fix = false;
    snprintf(last, sizeof last, "%sbn%d.", b->b->prefix, b->n);
    snprintf(fix, sizeof fix, "%sfix_bn", b->b->prefix);
    for (int i = begin; i < s->n; i++)
        has_fix |= s->u[i].kind == U_NORM && str_eq(s->u[i].name, fix);
    for (int i = begin; i < s->n; i++)
        if (s->u[i].kind == U_NORM &&
            (has_fix ? str_eq(s->u[i].name, fix) : str_starts(s->u[i].name, last)))
            s->u[i].u.norm.weight_init = 0;
}

int flex_block(const Kn *k, int x, const FlexBlock *spec)
{
    static const char *const order[] = {"fixup_scale", "fixup_bias", "relu1.", "relu2.", "relu3.",
                                        "fix_relu",    "bn1.",       "bn3.",   "fix_bn", "bn2.",
                                        "shrink.",     "skip.",      "conv1.", "conv2.", "conv3.",
                                        "scales.",     NULL};
    const int begin = k->s->n;
    const bool strided = kn_word(k, NW_ReShapeResolution) && spec->stride != 1 && !spec->bottleneck;
    const bool reshaped = strided && !kn_word(k, NW_f3x3);
    Block b = {.k = k,
               .b = spec,
               .n = spec->bottleneck ? 3 : 2,
               .base = k->o->base > 1 ? k->o->base : 1,
               .width = spec->planes * (spec->bottleneck ? EXPANSION : 1),
               .layer_skips = !kn_word(k, NW_origin),
               .fix = kn_word(k, NW_fix),
               .fixup = kn_word(k, NW_fixup),
               .biases = kn_word(k, NW_fixup) && kn_word(k, NW_bias),
               .post = k->order == NW_cbas || k->order == NW_cbsa};
    set_positions(&b, reshaped ? 1 : spec->stride, strided);
    if (reshaped) x = shrink(&b, x);
    if (reshaped && kn_word(k, NW_ldn3x3))
        unused_units(&b, x);
    else
        x = body(&b, x);
    if (kn_word(k, NW_zir)) zero_last_norm(&b, begin);
    kn_declare(k->s, begin, spec->prefix, order);
    return x;
}
