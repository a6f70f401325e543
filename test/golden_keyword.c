/* test/golden_keyword.c -- parameters of the keyword language's cases, as options of the program.
 */
#include "test/golden.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* Follow from others, or describe how the case was made. */
static const char *const descriptive[] = {
    "keyword",
    "tag",
    "shape",
    "bit",
    "ratio",
    "quant_group",
    "norm_group",
    "training",
    "batch_size",
    "input_size",
    "feature_stride",
    "grad_factor",
    "nElements",
    "fan",
    "num_levels",
    "stable",
    "custom",
    "attributes_set_by_policy",
    "quant_group_option",
};

// clang-format off
static const struct { const char *name; enum { TEXT, FLAG, NUMBER } kind; size_t at; } params[] = {
    { "half_range", FLAG,   offsetof(KwTag, half_range) },
    { "scale",      NUMBER, offsetof(KwTag, scale) },
    { "correlate",  NUMBER, offsetof(KwTag, correlate) },
    { "boundary",   NUMBER, offsetof(KwTag, boundary) },
    { "adaptive",   TEXT,   offsetof(KwTag, adaptive) },
    { "grad_type",  TEXT,   offsetof(KwTag, grad_type) },
    { "grad_scale", TEXT,   offsetof(KwTag, grad_scale) },
};

/* Words that set an option; words that only choose the method have none. */
static const struct { const char *word; size_t at; } words[] = {
    { "wt_bin",           offsetof(KwOpts, wt_bin) },
    { "independent_norm", offsetof(KwOpts, independent_norm) },
    { "custom-update",    offsetof(KwOpts, custom_update) },
    { "wt_gamma",         offsetof(KwOpts, tag[Q_WEIGHT].gamma) },
    { "gamma",            offsetof(KwOpts, tag[Q_WEIGHT].gamma) },
    { "ot_gamma",         offsetof(KwOpts, tag[Q_OUT].gamma) },
    { "closed_form",      offsetof(KwOpts, closed_form) },
    { "fm_closed_form",   offsetof(KwOpts, closed_form) },
    { "non-uniform", 0 }, { "fm_non-uniform", 0 }, { "wt_non-uniform", 0 },
    { "dorefa", 0 }, { "pact", 0 }, { "lsq", 0 }, { "fm_lsq", 0 }, { "lq", 0 }, { "xnor", 0 },
};
// clang-format on

static void set_words(Case *c, KwOpts *o)
{
    const Yaml *list = yaml_path(c->y, "params.keyword");
    for (int i = 0; i < list->n; i++) {
        size_t k = 0;
        while (k < ARRAY_LEN(words) && !str_eq(words[k].word, list->v[i]->s)) k++;
        if (k == ARRAY_LEN(words))
            case_skip(c, "keyword '%s' is not known to the runner", list->v[i]->s);
        else if (words[k].at)
            *(bool *)(void *)((char *)o + words[k].at) = true;
    }
}

static void set_param(Case *c, KwTag *t, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "params.%s", name);
    for (size_t i = 0; i < ARRAY_LEN(params); i++) {
        void *field = (char *)t + params[i].at;
        if (!str_eq(params[i].name, name)) continue;
        if (params[i].kind == TEXT) *(const char **)field = case_str(c, path, "none");
        if (params[i].kind == FLAG) *(bool *)field = case_bool(c, path, false);
        if (params[i].kind == NUMBER) *(double *)field = case_num(c, path, 0);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(descriptive); i++)
        if (str_eq(descriptive[i], name)) return;
    case_skip(c, "parameter '%s' is not known to the runner", name);
}

void case_keyword_opts(Case *c, QOpts *o, int *bits)
{
    const Yaml *p = yaml_get(c->y, "params");
    const QRole role = str_eq(case_str(c, "params.tag", ""), "wt") ? Q_WEIGHT : Q_ACT;
    KwTag *t = &o->kw.tag[role];
    const int levels = (int)case_int(c, "params.num_levels", 2),
              stable = (int)case_int(c, "params.stable", 0);
    *bits = (int)lround(floor(log2((double)levels)));
    o->wt_bit = o->fm_bit = *bits;
    t->level = levels == 1 << *bits ? 0 : levels;
    if (case_int(c, "params.input_size", 0)) {
        const int side =
            (int)(case_int(c, "params.input_size", 0) / case_int(c, "params.feature_stride", 1));
        o->kw.fm_map_values = (double)case_int(c, "params.batch_size", 1) * side * side;
    }
    o->kw.stable = stable > 0 ? stable : 0;
    o->kw.fm_custom = case_str(c, "params.custom", "none");
    t->quant_group = (int)case_int(c, "params.quant_group_option", 0);
    for (int i = 0; i < p->n; i++) set_param(c, t, p->k[i]->s);
    set_words(c, &o->kw);
}

void case_keyword_attributes(Case *c, QInst *q)
{
    const Yaml *map = yaml_path(c->y, "params.attributes_set_by_policy");
    for (int i = 0; map && map->kind == Y_MAP && i < map->n; i++) {
        double v;
        bool b;
        Err e = {0};
        if (!yaml_double(map->v[i], &v)) v = yaml_bool(map->v[i], &b) && b;
        if (!q->fn->set || q->fn->set(q, map->k[i]->s, v, &e))
            case_fail(c, "%s: %s", map->k[i]->s, e.msg);
    }
}
