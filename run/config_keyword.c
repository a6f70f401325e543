/* run/config_keyword.c -- what follows from the keys of the keyword language's quantizers, and what
 * contradicts itself among them. */
#include "run/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/keyword.h"
#include "run/keys.h"

typedef struct Tag {
    const char *quant, *bit, *level, *method;
    const KwTag *o;
} Tag;

static Tag tag_of(const Config *c, QRole role)
{
    const QOpts *q = &c->quant;
    const Tag tag[Q_NROLES] = {
        [Q_WEIGHT] = {"wt_quant", "wt_bit", "wt_level", q->wt_quant, &q->kw.tag[Q_WEIGHT]},
        [Q_ACT] = {"fm_quant", "fm_bit", "fm_level", q->fm_quant, &q->kw.tag[Q_ACT]},
        [Q_OUT] = {"ot_quant", "ot_bit", "ot_level", q->ot_quant, &q->kw.tag[Q_OUT]}};
    return tag[role];
}

/* Methods under their own names; bits from a number of levels, where they are not given. */
void config_derive_keyword(Config *c)
{
    int *const bits[Q_NROLES] = {
        [Q_WEIGHT] = &c->quant.wt_bit, [Q_ACT] = &c->quant.fm_bit, [Q_OUT] = &c->quant.ot_bit};
    const char **const method[Q_NROLES] = {
        [Q_WEIGHT] = &c->quant.wt_quant, [Q_ACT] = &c->quant.fm_quant, [Q_OUT] = &c->quant.ot_quant};
    for (int r = 0; r < Q_NROLES; r++) {
        const QMethod *m = quant_find(*method[r]);
        if (m) *method[r] = m->name; /* in place of an alias */
    }
    for (int r = 0; r < Q_NROLES; r++) {
        const Tag t = tag_of(c, (QRole)r);
        if (c->words.level[r] && !key_typed(c, t.level)) {
            c->quant.kw.tag[r].level = c->words.level[r];
            key_by_rule(c, t.level, arena_printf(&c->arena, "from %s", t.bit));
        }
        if (t.o->level < 2 || key_typed(c, t.bit)) continue;
        *bits[r] = (int)floor(log2((double)t.o->level));
        key_by_rule(c, t.bit, "from the number of levels");
    }
}

/* Which methods a key is for; other than its default it has no effect with another one. */
static const struct {
    const char *key;
    QRole role;
    const char *value; /* NULL: any */
    const char *methods;
} uses[] = {
    {"wt_level", Q_WEIGHT, NULL, "dorefa, pact, lsq, lq, fatnn"},
    {"wt_boundary", Q_WEIGHT, NULL, "dorefa, pact, lsq"},
    {"wt_quant_group", Q_WEIGHT, NULL, "dorefa, pact, lsq, lq, fatnn, xnor"},
    {"wt_adaptive", Q_WEIGHT, "var-mean", "dorefa, pact, lsq, fatnn, xnor"},
    {"wt_adaptive", Q_WEIGHT, "mean", "lq"},
    {"wt_adaptive", Q_WEIGHT, "var", "lq"},
    {"wt_adaptive", Q_WEIGHT, "mean-var", "lq"},
    {"wt_half_range", Q_WEIGHT, NULL, "lq"},
    {"wt_grad_type", Q_WEIGHT, "STE-scale", "lsq, fatnn"},
    {"wt_grad_type", Q_WEIGHT, "STE", "xnor"},
    {"wt_grad_scale", Q_WEIGHT, NULL, "lsq"},
    {"wt_scale", Q_WEIGHT, NULL, "lsq, lq, fatnn"},
    {"wt_correlate", Q_WEIGHT, NULL, "lsq"},
    {"wt_gamma", Q_WEIGHT, NULL, "dorefa, pact, lsq, fatnn, xnor"},
    {"wt_bin", Q_WEIGHT, NULL, "dorefa, pact"},
    {"independent_norm", Q_WEIGHT, NULL, "dorefa, pact, lsq, fatnn, xnor"},
    {"fm_level", Q_ACT, NULL, "dorefa, pact, lsq, lq, fatnn"},
    {"fm_boundary", Q_ACT, NULL, "dorefa, pact, lsq, fatnn"},
    {"fm_half_range", Q_ACT, NULL, "lsq, lq, fatnn"},
    {"fm_quant_group", Q_ACT, NULL, "lsq, lq, fatnn"},
    {"fm_adaptive", Q_ACT, "mean", "lq"},
    {"fm_adaptive", Q_ACT, "var", "lq"},
    {"fm_grad_type", Q_ACT, "STE-scale", "lsq, fatnn"},
    {"fm_grad_type", Q_ACT, "STE", "xnor"},
    {"fm_grad_type", Q_ACT, "Triangle", "xnor"},
    {"fm_custom", Q_ACT, NULL, "xnor"},
    {"fm_grad_scale", Q_ACT, NULL, "lsq"},
    {"fm_scale", Q_ACT, NULL, "lsq, lq, fatnn"},
    {"fm_correlate", Q_ACT, NULL, "pact, lsq"},
    {"closed_form", Q_ACT, NULL, "fatnn"},
    {"fm_map_values", Q_ACT, NULL, "lsq"},
    {"ot_level", Q_OUT, NULL, "dorefa, lsq"},
    {"ot_boundary", Q_OUT, NULL, "dorefa, lsq"},
    {"ot_half_range", Q_OUT, NULL, "lsq"},
    {"ot_quant_group", Q_OUT, NULL, "lsq"},
    {"ot_grad_type", Q_OUT, "STE-scale", "lsq"},
    {"ot_grad_scale", Q_OUT, NULL, "lsq"},
    {"ot_scale", Q_OUT, NULL, "lsq"},
    {"ot_correlate", Q_OUT, NULL, "lsq"},
    {"ot_gamma", Q_OUT, NULL, "dorefa, lsq"},
};

/* A key without effect: a fault, but only a note in files of the original, which never minded. */
static void idle(Faults *f, const Config *c, const char *key, const char *fmt, ...) PRINTF_LIKE(4, 5);
static void idle(Faults *f, const Config *c, const char *key, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (c->words.original || c->words.nuse > 0) /* words come with the original's options */
        log_msg(LOG_INFO, "%s", text);
    else
        fault_key(f, c, key, "%s", text);
}

static bool among(const char *methods, const char *method)
{
    for (const char *at = methods; *at;) {
        const size_t n = strcspn(at, ",");
        if (n == strlen(method) && !strncmp(at, method, n)) return true;
        at += n;
        at += strspn(at, ", ");
    }
    return false;
}

static bool differs(const Config *c, const Config *plain, const char *key, Str *value)
{
    Str usual = {0};
    bool yes;
    value->len = 0;
    key_value_text(c, key_of(key), value);
    key_value_text(plain, key_of(key), &usual);
    yes = !str_eq(value->s, usual.s);
    str_free(&usual);
    return yes;
}

/* Rows of one key stand together: its value has to suit one of them. */
static void check_uses(const Config *c, const Config *plain, Faults *f)
{
    Str value = {0};
    for (size_t i = 0, end; i < ARRAY_LEN(uses); i = end) {
        const char *key = uses[i].key, *expected = NULL;
        const Tag t = tag_of(c, uses[i].role);
        bool good = false;
        for (end = i; end < ARRAY_LEN(uses) && str_eq(uses[end].key, key); end++) continue;
        if (!keys_good(c, key, t.quant) || !differs(c, plain, key, &value)) continue;
        for (size_t k = i; k < end; k++) {
            if (uses[k].value && !str_eq(uses[k].value, value.s)) continue;
            expected = uses[k].methods;
            good = good || among(expected, t.method);
        }
        if (good) continue;
        if (expected)
            idle(f, c, key, "%s: %s has no effect with %s: %s; expected %s for %s", key,
                      value.s, t.quant, t.method, expected, t.quant);
        else
            idle(f, c, key, "%s: %s is for no method; expected none or %s", key, value.s,
                      uses[i].value);
    }
    str_free(&value);
}

/* Levels that a tag is quantized with. */
static int levels(const Tag *t, int bits)
{
    return t->o->level ? t->o->level : bits < 32 ? 1 << bits : 0;
}

static void check_weights(const Config *c, Faults *f)
{
    const KwOpts *o = &c->quant.kw;
    const Tag t = tag_of(c, Q_WEIGHT);
    if (o->wt_bin && levels(&t, c->quant.wt_bit) != 2 && keys_good(c, "wt_bin", "wt_bit"))
        fault_key(f, c, "wt_bin", "wt_bin: true with %d levels; expected wt_bit: 1",
                  levels(&t, c->quant.wt_bit));
    if (o->independent_norm && !str_eq(t.o->adaptive, "var-mean") &&
        keys_good(c, "independent_norm", "wt_adaptive"))
        idle(f, c, "independent_norm",
                  "independent_norm: true has no effect with wt_adaptive: %s; expected var-mean",
                  t.o->adaptive);
}

/* Start of a clip level under two names; factors of what is off. */
static void check_tag(const Config *c, const Config *plain, QRole role, const char *name, Faults *f)
{
    const KwTag *o = tag_of(c, role).o;
    const char *method = tag_of(c, role).method;
    const double start = role == Q_WEIGHT ? c->quant.wt_clip_init : c->quant.act_clip_init;
    char key[32], other[32];
    Str value = {0};
    snprintf(key, sizeof key, "%s_boundary", name);
    if (role != Q_OUT && o->boundary > 0 && start > 0 && keys_good(c, key, NULL))
        fault_key(f, c, key, "%s: %g contradicts %s: %g; expected one of them", key, o->boundary,
                  role == Q_WEIGHT ? "wt_clip_init" : "act_clip_init", start);
    if (o->level == 1) {
        snprintf(key, sizeof key, "%s_level", name);
        fault_key(f, c, key, "%s: 1 level; expected 2 to 256, or 0", key);
    }
    snprintf(key, sizeof key, "%s_scale", name);
    snprintf(other, sizeof other, "%s_grad_scale", name);
    if (str_eq(method, "lsq") && str_eq(o->grad_scale, "none") && keys_good(c, key, other) &&
        differs(c, plain, key, &value))
        idle(f, c, key, "%s: %s has no effect with %s: none", key, value.s, other);
    snprintf(key, sizeof key, "%s_correlate", name);
    if (!c->quant.kw.stable && keys_good(c, key, "stable") && differs(c, plain, key, &value))
        idle(f, c, key, "%s: %s has no effect with stable: 0; expected a number of steps", key,
                  value.s);
    str_free(&value);
}

#define ALL "dorefa, pact, lsq, lq, fatnn, xnor"

/* Keys for all tags: some tag's method has to know them. */
static void check_common(const Config *c, Faults *f)
{
    const KwOpts *o = &c->quant.kw;
    const struct {
        const char *key, *methods;
        bool on;
    } use[] = {{"stable", "dorefa, pact, lsq, lq, fatnn", o->stable > 0},
               {"custom_update", o->closed_form ? "lq, fatnn" : "lq", o->custom_update},
               {"proxquant", ALL, o->proxquant},
               {"padding_after_quant", ALL, o->padding_after_quant}};
    for (size_t i = 0; i < ARRAY_LEN(use); i++) {
        bool good = !use[i].on || !keys_good(c, use[i].key, "wt_quant") ||
                    !keys_good(c, "fm_quant", "ot_quant");
        for (int r = 0; r < Q_NROLES; r++)
            good = good || among(use[i].methods, tag_of(c, (QRole)r).method);
        if (!good)
            idle(f, c, use[i].key,
                      "%s has no effect with wt_quant: %s and fm_quant: %s; expected %s",
                      use[i].key, c->quant.wt_quant, c->quant.fm_quant, use[i].methods);
    }
}

/* Epochs of lr_custom_step, where the schedule has such; -1: it has none. */
static int custom_steps(const OptimOpts *o)
{
    static const char *const with[] = {"sgdr", "sgdr_step", "multistep", "custom_step"};
    for (size_t i = 0; i < ARRAY_LEN(with); i++)
        if (str_eq(o->lr_scheduler, with[i])) return o->nmilestones;
    return -1;
}

double config_proxquant_share(const Config *c, int epoch)
{
    return kw_proxquant_share(c->quant.kw.proxquant_step, epoch, c->optim.milestones,
                              custom_steps(&c->optim));
}

static void check_proxquant(const Config *c, const Config *plain, Faults *f)
{
    const KwOpts *o = &c->quant.kw;
    if (o->proxquant && o->proxquant_step < 10 && custom_steps(&c->optim) < 0 &&
        keys_good(c, "proxquant_step", "lr_scheduler"))
        fault_key(f, c, "proxquant",
                  "proxquant_step: %d counts the steps of lr_scheduler: multistep, sgdr or "
                  "sgdr_step, not of %s; expected one of them, or 10 and more for epochs",
                  o->proxquant_step, c->optim.lr_scheduler);
    if (!o->proxquant && o->proxquant_step != plain->quant.kw.proxquant_step &&
        keys_good(c, "proxquant", "proxquant_step"))
        fault_key(f, c, "proxquant_step",
                  "proxquant_step: %d has no effect with proxquant: false", o->proxquant_step);
}

void config_check_keyword(const Config *c, Faults *f)
{
    static const char *const name[Q_NROLES] = {[Q_WEIGHT] = "wt", [Q_ACT] = "fm", [Q_OUT] = "ot"};
    Config plain;
    config_default(&plain);
    check_uses(c, &plain, f);
    check_weights(c, f);
    for (int r = 0; r < Q_NROLES; r++) check_tag(c, &plain, (QRole)r, name[r], f);
    check_common(c, f);
    check_proxquant(c, &plain, f);
    config_free(&plain);
}
