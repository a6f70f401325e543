/* quant/keyword_attr.c -- what a policy may change of a quantizer of the keyword language while the
 * net is there. See keyword.h. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "quant/keyword.h"

static void fill(Param *p, float v)
{
    float *to = p->value.data;
    for (size_t i = 0; i < tensor_len(&p->value); i++) to[i] = v;
    param_touch(p);
}

static void clear(Tensor *t)
{
    memset(t->data, 0, tensor_bytes(t));
}

/* Below 0: change by so much. With `progressive` the clip level keeps its steps, and loses its
 * momentum. */
static int set_levels(QInst *q, double v, Err *e)
{
    Keyword *k = q->priv;
    const double levels = v < 0 ? k->levels + v : v;
    if (k->fixed_levels && levels != k->levels)
        return err_set(e, ERR_CONFIG, "%s: level_num: %g levels; %s keeps the %d it was made with",
                       q->unit, levels, q->method->name, k->levels);
    if (levels < 2 || levels > KW_MAX_LEVELS || levels != floor(levels))
        return err_set(e, ERR_CONFIG, "%s: level_num: %g levels; expected 2 to %d", q->unit, levels,
                       KW_MAX_LEVELS);
    if (k->progressive && k->clip) {
        float *c = k->clip->value.data;
        const float by = (float)((levels - 1) / (k->levels - 1));
        for (size_t i = 0; i < tensor_len(&k->clip->value); i++) c[i] *= by;
        param_touch(k->clip);
        if (k->clip->nslots) clear(&k->clip->slot[k->clip->momentum]);
    }
    k->levels = (int)levels;
    if (!k->by_level_num) k->num_levels = k->levels;
    k->n = (float)(levels - 1);
    fill(k->level_num, (float)levels);
    return 0;
}

/* Means and deviations are kept for one run or for each group. */
static int set_norm_groups(QInst *q, double v, Err *e)
{
    Keyword *k = q->priv;
    if (v != 1 && v != k->groups)
        return err_set(e, ERR_CONFIG, "%s: norm_group: %g; expected 1%s", q->unit, v,
                       k->groups > 1 ? " or the number of groups" : "");
    k->norm_groups = (int)v;
    return 0;
}

/* A parameter or buffer of the quantizer by the last part of its name; NULL: none. */
static Param *own(const QInst *q, const char *attr)
{
    const Keyword *k = q->priv;
    Param *const more[] = {k->clip, k->basis};
    for (int i = 0; i < q->np; i++)
        if (str_eq(strrchr(q->p[i]->name, '.') + 1, attr)) return q->p[i];
    for (size_t i = 0; i < ARRAY_LEN(more); i++)
        if (more[i] && str_eq(strrchr(more[i]->name, '.') + 1, attr)) return more[i];
    return NULL;
}

/* The tag, or what stands behind the quantizer, is another one. */
static int configure(QInst *q, Err *e)
{
    Keyword *k = q->priv;
    q->relower = true;
    k->normalizes = q->role == Q_WEIGHT && str_eq(k->tag.adaptive, "var-mean");
    if (k->configure) return k->configure(q, e);
    kw_use(q, k->inner);
    return 0;
}

/* As in the original, lsq is told its levels by level_num alone. */
static int keep_num_levels(QInst *q, double v, Err *e)
{
    Keyword *k = q->priv;
    if (v < 2 || v > KW_MAX_LEVELS || v != floor(v))
        return err_set(e, ERR_CONFIG, "%s: num_levels: %g; expected 2 to %d", q->unit, v, KW_MAX_LEVELS);
    k->num_levels = (int)v;
    return 0;
}

bool kw_attr_idle(const QInst *q, const char *attr)
{
    static const char *const idle[] = {"bit",         "boundary",  "grad_scale", "level",
                                       "quant_group", "separator", "ratio",      "index"};
    for (size_t i = 0; i < ARRAY_LEN(idle); i++)
        if (str_eq(idle[i], attr)) return true;
    return ((const Keyword *)q->priv)->by_level_num && str_eq(attr, "num_levels");
}

// clang-format off
static const struct Attr {
    const char *name;
    enum { FLAG, COUNT, NUMBER } kind;
    size_t at;
    bool configures; /* the tag, or what follows from it, is another one */
} attrs[] = {
    { "stable",            COUNT,  offsetof(Keyword, stable),         true },
    { "half_range",        FLAG,   offsetof(Keyword, tag.half_range), true },
    { "scale",             NUMBER, offsetof(Keyword, tag.scale),      false },
    { "correlate",         NUMBER, offsetof(Keyword, tag.correlate),  false },
    { "progressive",       FLAG,   offsetof(Keyword, progressive),    false },
    { "adaptive_restore",  FLAG,   offsetof(Keyword, restores),       false },
    { "quant_loss_enable", FLAG,   offsetof(Keyword, loss.on),        true },
    { "quant_loss_alpha",  NUMBER, offsetof(Keyword, loss.alpha),     false },
};
// clang-format on

static const struct Attr *attr_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(attrs); i++)
        if (str_eq(attrs[i].name, name)) return &attrs[i];
    return NULL;
}

#define COUNT_MAX (1 << 24) /* iteration, a float, gets no further: for ever */

static int set_attr(QInst *q, const struct Attr *a, double v, Err *e)
{
    void *field = (char *)q->priv + a->at;
    if (a->kind == FLAG) *(bool *)field = v != 0;
    if (a->kind == COUNT) *(int *)field = v >= COUNT_MAX ? COUNT_MAX : v > 0 ? (int)v : 0;
    if (a->kind == NUMBER) *(double *)field = v;
    return a->configures ? configure(q, e) : 0;
}

static int no_attr(const QInst *q, const char *attr, Err *e)
{
    err_set(e, ERR_CONFIG, "%s: %s has no attribute '%s'", q->unit, q->method->name, attr);
    return QSET_UNKNOWN;
}

static bool is_levels(const char *attr)
{
    return str_eq(attr, "num_levels") || str_eq(attr, "level_num");
}

int kw_set(QInst *q, const char *attr, double v, Err *e)
{
    Keyword *k = q->priv;
    const struct Attr *a = attr_of(attr);
    Param *p;
    if (!k->iteration)
        return err_set(e, ERR_CONFIG, "%s: not quantized, so it has no '%s'", q->unit, attr);
    if (k->by_level_num && str_eq(attr, "num_levels")) return keep_num_levels(q, v, e);
    if (is_levels(attr)) return set_levels(q, v, e);
    if (str_eq(attr, "norm_group")) return set_norm_groups(q, v, e);
    if (a) return set_attr(q, a, v, e);
    if ((p = own(q, attr))) {
        fill(p, (float)v);
    } else if (str_eq(attr, "prox")) {
        k->prox = (float)v;
        param_touch(k->iteration); /* what was made of parameters alone is made again */
    } else if (!kw_attr_idle(q, attr)) {
        return no_attr(q, attr, e);
    }
    return 0;
}

/* ---- values as they are written ---- */

/* The words of an attribute. */
static const struct {
    const char *attr, *words[6];
} texts[] = {
    {"adaptive", {"none", "var", "mean", "mean-var", "var-mean"}},
    {"grad_type", {"none", "STE", "STE-scale", "Triangle"}},
    {"quant_loss_function", {"L1", "L2", "QDL"}},
};

static int set_word(QInst *q, size_t row, const char *v, Err *e)
{
    Keyword *k = q->priv;
    Str list = {0};
    for (int i = 0; texts[row].words[i]; i++) {
        const char *word = texts[row].words[i];
        str_printf(&list, "%s%s", i ? ", " : "", word);
        if (!str_eq(word, v)) continue;
        str_free(&list);
        if (row == 0) k->tag.adaptive = word;
        if (row == 1) k->tag.grad_type = word;
        if (row == 2) k->loss.kind = (KwLossKind)i;
        return configure(q, e);
    }
    err_set(e, ERR_CONFIG, "%s: %s: %s; expected one of %s", q->unit, texts[row].attr, v, list.s);
    str_free(&list);
    return -1;
}

static bool takes_number(const QInst *q, const char *attr)
{
    return attr_of(attr) || is_levels(attr) || str_eq(attr, "norm_group") || own(q, attr);
}

int kw_set_text(QInst *q, const char *attr, const char *text, Err *e)
{
    const struct Attr *a = attr_of(attr);
    const size_t len = strlen(text);
    const bool quoted = len > 1 && (text[0] == '\'' || text[0] == '"') && text[len - 1] == text[0];
    char *word = quoted ? xstrndup(text + 1, len - 2) : xstrdup(text), *end;
    const double v = strtod(word, &end);
    const bool number = end != word && !*end && isfinite((float)v);
    int r = 1; /* not set yet */
    for (size_t i = 0; r == 1 && i < ARRAY_LEN(texts); i++)
        if (str_eq(texts[i].attr, attr) && ((Keyword *)q->priv)->iteration)
            r = set_word(q, i, word, e);
    if (r == 1 && a && a->kind == FLAG && !number) /* anything but False is true */
        r = kw_set(q, attr, !str_eq(word, "False") && !str_eq(word, "false"), e);
    if (r == 1 && !number && takes_number(q, attr))
        r = err_set(e, ERR_CONFIG, "%s: %s: %s; expected a number", q->unit, attr, text);
    if (r == 1) r = kw_set(q, attr, number ? v : 0, e);
    free(word);
    return r;
}
