/* nets/keyword.c -- see keyword.h. */
#include "nets/keyword.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LEN 160

/* ---- options ---- */

int kn_begin(Kn *k, Spec *s, const NetOpts *o, KnInit init, Err *e)
{
    *k = (Kn){.s = s, .o = o, .init = init};
    k->order = net_word_first(o->words, NG_ORDER);
    if (net_word_first(o->words, NG_NORM) == NW_group_norm && o->norm_groups < 1)
        return err_set(e, ERR_CONFIG,
                       "keyword: group-norm needs fm_quant_group, its number of groups");
    if (!(o->width_alpha >= 0 && o->width_alpha <= 64))
        return err_set(e, ERR_CONFIG, "width_alpha: %g; expected more than 0, at most 64",
                       o->width_alpha);
    return 0;
}

int kn_need_order(const Kn *k, const char *net, const int *allowed, Err *e)
{
    Str list = {0};
    for (int i = 0; allowed[i] >= 0; i++) {
        if (k->order == allowed[i]) {
            str_free(&list);
            return 0;
        }
        str_printf(&list, "%s%s", i ? ", " : "", net_words[allowed[i]].name);
    }
    if (k->order < 0)
        err_set(e, ERR_CONFIG,
                "keyword: net '%s' needs the order of its layers; expected one of %s", net, list.s);
    else
        err_set(e, ERR_CONFIG, "keyword: net '%s' has no order %s; expected one of %s", net,
                net_words[k->order].name, list.s);
    str_free(&list);
    return -1;
}

int kn_need_one_branch(const Kn *k, const char *net, Err *e)
{
    if (k->o->base <= 1) return 0;
    return err_set(e, ERR_CONFIG, "base: net '%s' has no parallel branches; expected 1, not %d", net, k->o->base);
}

void kn_fault(const Kn *k, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    if (k->s->err.kind != ERR_NONE) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(&k->s->err, ERR_CONFIG, "keyword: %s", text);
}

int kn_width(const NetOpts *o, int channels)
{
    const double w = o->width_alpha > 0 ? channels * o->width_alpha : channels;
    return w < 1 ? 1 : (int)w;
}

/* ---- layers ---- */

static Init conv_init(const Kn *k, int ic, const KnConv *c)
{
    const int fan_in = ic / (c->groups ? c->groups : 1) * c->k * c->k;
    const int fan = k->init == KI_FAN_IN ? fan_in : c->oc * c->k * c->k;
    if (c->zero) return (Init){INIT_CONST, 0, 0};
    if (k->init == KI_TORCH) return init_uniform(fan_in);
    return (Init){INIT_NORMAL, 0, (float)(sqrt(2.0 / fan) * (c->gain > 0 ? c->gain : 1))};
}

/* Every 3x3 with stride s becomes one 1x1 over blocks of 2s x 2s, each making a block of 2 x 2. */
static int prone(const Kn *k, int x, const KnConv *c)
{
    const int block = 2 * (c->stride ? c->stride : 1), h = k->s->u[x].h, w = k->s->u[x].w;
    const int ph = h % block ? (block - h % block) / 2 : 0,
              pw = w % block ? (block - w % block) / 2 : 0;
    char name[NAME_LEN];
    KnConv one = {.oc = 4 * c->oc,
                  .k = 1,
                  .groups = c->groups,
                  .marks = c->marks,
                  .zero = c->zero,
                  .gain = c->gain,
                  .name = name};
    snprintf(name, sizeof name, "%s.conv", c->name);
    if (ph || pw) x = spec_pad(k->s, x, ph, ph, pw, pw);
    if (k->s->u[x].h % block || k->s->u[x].w % block) {
        kn_fault(k, "prone: %s: a map of %d x %d cannot be padded evenly to blocks of %d", c->name,
                 h, w, block);
        return x;
    }
    x = kn_conv(k, spec_space_to_depth(k->s, x, block), &one);
    if (kn_word(k, NW_bn_before_restore)) x = kn_norm(k, x, "%s.bn", c->name);
    return spec_depth_to_space(k->s, x, 2);
}

int kn_conv(const Kn *k, int x, const KnConv *c)
{
    ConvAttr a = {.oc = c->oc,
                  .k = c->k,
                  .stride = c->stride,
                  .pad = c->pad,
                  .groups = c->groups,
                  .bias = c->bias};
    if (c->prone) return prone(k, x, c);
    a.init = conv_init(k, k->s->u[x].c, c);
    x = spec_conv(k->s, x, a, "%s", c->name);
    spec_mark(k->s, x, c->marks);
    return x;
}

static NormAttr norm_attr(const Kn *k)
{
    static const struct {
        int word;
        NormKind kind;
    } kinds[] = {{NW_group_norm, NK_GROUP},
                 {NW_static_bn, NK_STATIC},
                 {NW_freeze_bn, NK_FROZEN},
                 {NW_reverse_bn, NK_REVERSE},
                 {NW_instance_norm, NK_INSTANCE}};
    NormAttr a = {
        .kind = NK_BATCH, .eps = 1e-5f, .momentum = 0.1f, .affine = true, .weight_init = 1};
    const int word = net_word_first(k->o->words, NG_NORM);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (kinds[i].word == word) a.kind = kinds[i].kind;
    a.affine = a.kind != NK_INSTANCE;
    a.groups = a.kind == NK_GROUP ? k->o->norm_groups : 0;
    return a;
}

int kn_norm(const Kn *k, int x, const char *fmt, ...)
{
    char name[NAME_LEN];
    FORMAT_NAME(name, fmt);
    return k->no_norms ? x : spec_norm(k->s, x, norm_attr(k), "%s", name);
}

void kn_unused_norm(const Kn *k, int x, const char *fmt, ...)
{
    char name[NAME_LEN];
    FORMAT_NAME(name, fmt);
    if (!k->no_norms) spec_mark(k->s, spec_norm(k->s, x, norm_attr(k), "%s", name), UM_UNUSED);
}

static ActAttr act_attr(const Kn *k)
{
    switch (net_word_first(k->o->words, NG_ACT)) {
    case NW_PReLU:
        return (ActAttr){.kind = AK_PRELU, .slope = 0.25f, .one_slope = true};
    case NW_NReLU:
        return (ActAttr){.kind = AK_NONE};
    case NW_ReLU6:
        return (ActAttr){.kind = AK_RELU6};
    case NW_LReLU:
        return (ActAttr){.kind = AK_LEAKY, .slope = 0.01f};
    default:
        return (ActAttr){.kind = AK_RELU};
    }
}

int kn_act(const Kn *k, int x, const char *fmt, ...)
{
    char name[NAME_LEN];
    const ActAttr a = act_attr(k);
    FORMAT_NAME(name, fmt);
    return a.kind == AK_NONE ? x : spec_act(k->s, x, a, "%s", name);
}

void kn_unused_act(const Kn *k, int x, const char *fmt, ...)
{
    char name[NAME_LEN];
    const ActAttr a = act_attr(k);
    FORMAT_NAME(name, fmt);
    if (a.kind == AK_PRELU) spec_mark(k->s, spec_act(k->s, x, a, "%s", name), UM_UNUSED);
}

int kn_repeat(const Kn *k, int x, int times)
{
    int all = x;
    for (int have = 1; have < times;) {
        const int n = times - have < UNIT_MAX_IN - 1 ? times - have : UNIT_MAX_IN - 1;
        int in[UNIT_MAX_IN] = {all};
        for (int i = 0; i < n; i++) in[i + 1] = x;
        all = spec_concat(k->s, in, n + 1);
        have += n;
    }
    return all;
}

int kn_linear(const Kn *k, int x, const char *name)
{
    LinearAttr a = {.out = k->o->num_classes, .bias = true};
    a.init = a.bias_init = init_uniform(k->s->u[x].c);
    x = spec_linear(k->s, x, a, "%s", name);
    spec_mark(k->s, x, UM_LAST);
    return x;
}

int kn_classifier(const Kn *k, int x, const char *name)
{
    x = spec_pool(k->s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
    return kn_linear(k, spec_flatten(k->s, x), name);
}

int kn_add(const Kn *k, int x, int skip)
{
    const Unit *a = &k->s->u[x], *b = &k->s->u[skip];
    int named = x;
    while (named > 0 && !*k->s->u[named].name) named--;
    if (a->h != b->h || a->w != b->w)
        kn_fault(k,
                 "behind %s a map of %d x %d is added to one of %d x %d: a shortcut's average pool rounds down, "
                 "and convolutions up; expected singleconv, or another image_size",
                 k->s->u[named].name, b->h, b->w, a->h, a->w);
    return spec_add(k->s, x, skip);
}

/* ---- units ---- */

int kn_unit_conv(const Kn *k, int x, const void *conv)
{
    return kn_conv(k, x, conv);
}

int kn_unit(const Kn *k, int x, const KnUnit *u)
{
    ASSERT(k->order >= 0, "a unit without an order of its letters");
    for (const char *letter = net_words[k->order].name; *letter; letter++) {
        if (*letter == 'c' && u->conv) x = u->conv(k, x, u->arg);
        if (*letter == 'b' && u->norm) x = kn_norm(k, x, "%s", u->norm);
        if (*letter == 'a' && u->act) x = kn_act(k, x, "%s", u->act);
        if (*letter == 's' && u->skip >= 0) x = kn_add(k, x, u->skip);
        if (*letter == 's' && u->shift) x = spec_shift(k->s, x, 0, "%s", u->shift);
    }
    return x;
}

/* ---- the shortcut ---- */

/* What stands behind the pool of a branch that widens; 'n' is a norm that only `fix` adds, 'A' an
 * activation that `fix` removes. */
static const char *skip_letters(int order)
{
    return order == NW_bacs ? "bacn" : order == NW_bcas ? "bcan" : "cbA";
}

static int widen(const Kn *k, int x, const KnSkip *b, int stride)
{
    const bool fix = kn_word(k, NW_fix);
    const char *letters = skip_letters(k->order);
    char name[NAME_LEN];
    const KnConv conv = {.name = name,
                         .oc = b->width,
                         .k = 1,
                         .stride = stride,
                         .pad = stride > 1 ? b->pad : 0,
                         .marks = UM_SKIP | (kn_word(k, NW_real_skip) ? UM_NO_QUANT : 0u)};
    for (int i = 0; letters[i]; i++) {
        snprintf(name, sizeof name, "%s.%d", b->name, i + 1);
        if (letters[i] == 'c') x = kn_conv(k, x, &conv);
        if (letters[i] == 'b' || (letters[i] == 'n' && fix)) x = kn_norm(k, x, "%s", name);
        if (letters[i] == 'a' || (letters[i] == 'A' && !fix)) x = kn_act(k, x, "%s", name);
    }
    return x;
}

int kn_skip(const Kn *k, int x, const KnSkip *b)
{
    const int from = k->s->u[x].c;
    const bool wider = from != b->width, one = kn_word(k, NW_singleconv);
    if (b->stride > 1 && one && !wider)
        kn_fault(k,
                 "singleconv: %s has a stride and keeps its %d channels, so there is no "
                 "convolution for the stride",
                 b->name, from);
    if (b->stride > 1 && !(one && wider))
        x = spec_pool(k->s, x, (PoolAttr){.kind = POOL_AVG, .k = b->stride, .stride = b->stride});
    if (wider) return widen(k, x, b, one ? b->stride : 1);
    return kn_word(k, NW_identify_norm) ? kn_norm(k, x, "%s.1", b->name) : x;
}

/* ---- signs ---- */

static bool reads_signed(const Unit *u, const bool *is_signed)
{
    bool any = false;
    for (int i = 0; i < u->nin; i++) any |= is_signed[u->in[i]];
    return any;
}

/* Whether a unit's values may be negative, of units before which all is known. */
static bool makes_signed(const Unit *u, const bool *is_signed)
{
    switch (u->kind) {
    case U_ACT:
        return u->u.act.kind != AK_RELU && u->u.act.kind != AK_RELU6 && reads_signed(u, is_signed);
    case U_POOL:
    case U_ADD:
    case U_CONCAT:
    case U_PAD:
    case U_FLATTEN:
    case U_DROPOUT:
    case U_SPACE_TO_DEPTH:
    case U_DEPTH_TO_SPACE:
        return reads_signed(u, is_signed);
    default:
        return true;
    }
}

int kn_finish(const Kn *k, int out, Err *e)
{
    Spec *s = k->s;
    bool *is_signed = xcalloc((size_t)s->n, sizeof *is_signed);
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        const bool layer = u->kind == U_CONV || u->kind == U_LINEAR;
        is_signed[i] = makes_signed(u, is_signed);
        if (layer && !(u->marks & UM_FIRST) && reads_signed(u, is_signed)) spec_mark(s, i, UM_SIGNED);
    }
    free(is_signed);
    return spec_finish(s, out, e);
}

/* ---- names ---- */

static int group_of(const Unit *u, const char *prefix, const char *const *group)
{
    const size_t n = strlen(prefix);
    int i = 0;
    while (group[i] &&
           (strncmp(u->name, prefix, n) || strncmp(u->name + n, group[i], strlen(group[i]))))
        i++;
    return i;
}

void kn_declare(Spec *s, int begin, const char *prefix, const char *const *group)
{
    const int n = s->n - begin;
    int *unit = xcalloc((size_t)s->n, sizeof *unit), at = 0;
    int *all = xcalloc((size_t)s->n, sizeof *all);
    float *order = xcalloc((size_t)s->n, sizeof *order);
    int groups = 0;
    while (group[groups]) groups++;
    spec_declaration_order(s, all);
    for (int g = 0; g <= groups; g++)
        for (int i = 0; i < s->n; i++)
            if (all[i] >= begin && group_of(&s->u[all[i]], prefix, group) == g) unit[at++] = all[i];
    ASSERT(at == n, "%d of %d units", at, n);
    at = 0;
    for (int i = 0; i < s->n; i++)
        if (all[i] >= begin) order[at++] = s->u[all[i]].order;
    for (int i = 0; i < n; i++) s->u[unit[i]].order = order[i];
    free(unit);
    free(all);
    free(order);
}
