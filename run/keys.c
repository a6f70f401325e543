/* run/keys.c -- the key table (keys.def with types and places filled in by the compiler), its
 * lookups and its texts. */
#include "run/keys.h"
#include "run/policy_text.h"
#include "run/pictures.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- choices: names of the registries, and short fixed lists ---- */

/* Entry i of a list of names, each followed by its aliases. `at(n, j)`: name j of entry n, NULL
 * behind its last. */
static const char *flat(size_t i, size_t n, const char *(*at)(size_t n, size_t j))
{
    for (size_t e = 0; e < n; e++)
        for (size_t j = 0;; j++) {
            const char *s = at(e, j);
            if (!s) break;
            if (i-- == 0) return s;
        }
    return NULL;
}

static const char *net_name(size_t n, size_t j)
{
    if (j == 0) return nets[n]->name;
    for (size_t k = 0; nets[n]->alias && nets[n]->alias[k].name; k++)
        if (k + 1 == j) return nets[n]->alias[k].name;
    return NULL;
}

static const char *at_nets(size_t i)
{
    size_t n = 0;
    while (nets[n]) n++;
    return flat(i, n, net_name);
}

/* Names that model-quantization accepts for nets it was published without. */
static const char *absent_net(const char *word)
{
    static const char *const names[] = {"alexnet",     "qmobilenetv1", "pytorch-vgg16bn", "se-resnet18",
                                        "se-resnet50", "densenet121",  "nasnet",          "squeezenet"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(names[i], word)) return "model-quantization lists it, but was published without it";
    return NULL;
}

static const char *dataset_name(size_t n, size_t j)
{
    if (j == 0) return datasets[n]->name;
    for (size_t k = 0; datasets[n]->alias && datasets[n]->alias[k]; k++)
        if (k + 1 == j) return datasets[n]->alias[k];
    return NULL;
}

static const char *at_datasets(size_t i)
{
    size_t n = 0;
    while (datasets[n]) n++;
    return flat(i, n, dataset_name);
}

static const char *at_quant(size_t i)
{
    size_t n = 0;
    if (i == 0) return "none";
    while (quant_methods[n]) n++;
    if (i - 1 < n) return quant_methods[i - 1]->name;
    for (size_t k = 0, alias = n; k < n; k++)
        if (quant_methods[k]->alias && alias++ == i - 1) return quant_methods[k]->alias;
    return NULL;
}

static const char *at_optim(size_t i)
{
    return optim_rules[i].name;
}

static const char *at_schedules(size_t i)
{
    return schedules[i].name;
}

static const char *at_decay(size_t i)
{
    return decay_schemes[i].name;
}

static const char *at_recipes(size_t i)
{
    return recipe_names[i];
}

static const char *at_names(size_t i)
{
    return i < NAMES_TORCHVISION ? net_names_text((NetNames)(NAMES_DEFAULT + 1 + i)) : NULL;
}

#define WORDS(id, ...)                                                                             \
    static const char *at_##id(size_t i)                                                           \
    {                                                                                              \
        static const char *const words[] = {__VA_ARGS__};                                          \
        return i < ARRAY_LEN(words) ? words[i] : NULL;                                             \
    }                                                                                              \
    static const Choices choice_##id = {.at = at_##id};

WORDS(variant, "cifar", "imagenet", "mnist", "round", "pact", "pact_sigmoid", "pact_exponential")
WORDS(input, "normalized", "k256", "byte")
WORDS(decoder, "auto", "libjpeg", "stb")
WORDS(bad_image, "fail", "skip")
WORDS(precision, "f32", "bf16")
WORDS(opt_level, "O0", "O1", "O2", "O3")
WORDS(compat, "corrected", "original")
WORDS(scheme, "original", "modified", "centered")
WORDS(rescale, "constant", "stddev")
WORDS(profiling, "gpu", "cpu")
WORDS(format, "per_layer", "per_channel", "per_model")
WORDS(metric, "std", "mae", "rms")
WORDS(adaptive, "none", "mean", "var", "mean-var", "var-mean")
WORDS(grad_type, "none", "STE", "STE-scale", "Triangle")
WORDS(custom, "none", "channel", "resolution")
static const char *at_pictures(size_t i)
{
    return picture_forms[i].name;
}

static const Choices choice_pictures = {.at = at_pictures};

WORDS(grad_scale, "none", "fan-scale", "scale-fan", "element-scale", "scale-element")

static const Choices choice_nets = {.list = "nets", .at = at_nets, .lacks = absent_net};
static const Choices choice_datasets = {.list = "datasets", .at = at_datasets};
static const Choices choice_quant = {.list = "quant", .at = at_quant};
static const Choices choice_optim = {.list = "optimizers", .at = at_optim};
static const Choices choice_schedules = {.list = "schedules", .at = at_schedules};
static const Choices choice_decay = {.at = at_decay};
static const Choices choice_recipes = {.at = at_recipes};
static const Choices choice_words = {.list = "keywords", .at = word_at, .dashes = true};
static const Choices choice_names = {.at = at_names};

static bool same_but_dashes(const char *a, const char *b)
{
    for (; *a && (*a == '-' ? '_' : *a) == (*b == '-' ? '_' : *b); a++, b++) continue;
    return *a == *b;
}

bool choices_have(const Choices *ch, const char *word)
{
    const char *s;
    for (size_t i = 0; (s = ch->at(i)); i++)
        if (str_eq(s, word) || (ch->dashes && same_but_dashes(s, word))) return true;
    return false;
}

const char *choices_suggest(const Choices *ch, const char *word)
{
    const char *s, *best = NULL, **all = NULL;
    size_t n = 0, cap = 0;
    for (; (s = ch->at(n)); n++) {
        mem_grow(&all, &cap, n + 1, sizeof *all);
        all[n] = s;
    }
    if (n > 0) best = str_nearest(word, all, n);
    free(all);
    return best;
}

void choices_text(const Choices *ch, Str *out)
{
    const char *s;
    if (ch->list) {
        str_printf(out, "a name from `qrun list %s`", ch->list);
        return;
    }
    for (size_t i = 0; (s = ch->at(i)); i++) str_printf(out, "%s%s", i ? ", " : "", s);
}

/* ---- the table ---- */

/* The type of a field decides how its key is read and written. */
#define TYPE_OF(f)                                                                                 \
    _Generic((f), const char *: KT_STR, bool: KT_BOOL, int: KT_INT, int64_t: KT_I64,               \
             uint64_t: KT_U64, double: KT_DBL)
#define FIELD(f) (((Config *)0)->f)

// clang-format off
#define SECTION(n, d) {.kind = KK_SECTION, .name = n, .doc = d},
#define VALUE(n, f, al, d, lo, hi, ch, fl, fr, t)                                                  \
    {KK_VALUE, #n, al, TYPE_OF(FIELD(f)), offsetof(Config, f), 0, 0, 0, d, lo, hi, ch, fl, fr, t},
#define LIST(n, f, nf, al, d, lo, hi, fl, fr, t)                                                   \
    {KK_LIST, #n, al, TYPE_OF(FIELD(f)[0]), offsetof(Config, f), offsetof(Config, nf),             \
     0, ARRAY_LEN(FIELD(f)), d, lo, hi, NULL, fl, fr, t},
#define PAIRS(n, f, f2, nf, al, d, lo, hi, fl, fr, t)                                              \
    {KK_LIST, #n, al, TYPE_OF(FIELD(f)[0]), offsetof(Config, f), offsetof(Config, nf),             \
     offsetof(Config, f2), ARRAY_LEN(FIELD(f)), d, lo, hi, NULL, fl, fr, t},
#define WORDLIST(n, f, nf, al, d, ch, fl, fr, t)                                                   \
    {KK_LIST, #n, al, KT_STR, offsetof(Config, f), offsetof(Config, nf), 0, ARRAY_LEN(FIELD(f)),   \
     d, 0, 0, ch, fl, fr, t},
#define GROUPS(n, f, nf, al, fr, t)                                                                \
    {KK_GROUPS, #n, al, KT_STR, offsetof(Config, f), offsetof(Config, nf), 0, ARRAY_LEN(FIELD(f)), \
     "[]", 0, 0, NULL, 0, fr, t},
#define POLICY(n, f, al, fr, t)                                                                    \
    {KK_POLICY, #n, al, KT_STR, offsetof(Config, f), 0, 0, 0, "''", 0, 0, NULL, 0, fr, t},
#define IGNORED(n, al, fr, why)                                                                    \
    {.kind = KK_IGNORED, .name = #n, .aliases = al, .def = "", .from = fr, .doc = why},
#define LATER(n, al, same, fr, what)                                                               \
    {.kind = KK_LATER, .name = #n, .aliases = al, .def = same, .from = fr, .doc = what},
// clang-format on

const Key keys[] = {
#include "run/keys.def"
};
const size_t nkeys = ARRAY_LEN(keys);

/* ---- lookups ---- */

static bool same_word(const char *typed, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!typed[i] || (typed[i] == '-' ? '_' : typed[i]) != name[i]) return false;
    return typed[len] == 0;
}

/* Calls fn with each name of a row: the canonical one, then the aliases. */
static void each_name(const Key *k, void (*fn)(const char *s, size_t len, void *ctx), void *ctx)
{
    const char *a = k->aliases;
    fn(k->name, strlen(k->name), ctx);
    while (a && *a) {
        size_t n = strcspn(a, " ");
        fn(a, n, ctx);
        a += n + (a[n] == ' ');
    }
}

typedef struct Match {
    const char *word;
    bool hit;
} Match;

static void match_name(const char *s, size_t len, void *ctx)
{
    Match *m = ctx;
    m->hit = m->hit || same_word(m->word, s, len);
}

bool key_named(const Key *k, const char *word)
{
    Match m = {word, false};
    if (k->kind != KK_SECTION) each_name(k, match_name, &m);
    return m.hit;
}

int keys_each(const char *word, void (*fn)(const Key *k, void *ctx), void *ctx)
{
    int n = 0;
    for (size_t i = 0; i < nkeys; i++) {
        if (!key_named(&keys[i], word)) continue;
        n++;
        if (fn) fn(&keys[i], ctx);
    }
    return n;
}

static void take_first(const Key *k, void *ctx)
{
    const Key **first = ctx;
    if (!*first) *first = k;
}

const Key *key_find(const char *word)
{
    const Key *k = NULL;
    keys_each(word, take_first, &k);
    return k;
}

const Key *key_of(const char *canonical)
{
    for (size_t i = 0; i < nkeys; i++)
        if (keys[i].kind != KK_SECTION && str_eq(keys[i].name, canonical)) return &keys[i];
    ASSERT(false, "no key '%s'", canonical);
}

typedef struct NameList {
    char **name;
    size_t n, cap;
} NameList;

static void collect_name(const char *s, size_t len, void *ctx)
{
    NameList *l = ctx;
    mem_grow(&l->name, &l->cap, l->n + 1, sizeof *l->name);
    l->name[l->n++] = xstrndup(s, len);
}

const char *key_suggest(const char *word)
{
    NameList l = {0};
    const char *best, *dot = strrchr(word, '.');
    const Key *k = dot ? key_find(dot + 1) : NULL;
    if (k) return k->name;
    for (size_t i = 0; i < nkeys; i++)
        if (keys[i].kind != KK_SECTION) each_name(&keys[i], collect_name, &l);
    best = str_nearest(word, (const char *const *)l.name, l.n);
    /* The copy dies below: hand out the table's own text where the name is canonical, the row's
     * name otherwise. */
    if (best) {
        k = key_find(best);
        best = k ? k->name : NULL;
    }
    for (size_t i = 0; i < l.n; i++) free(l.name[i]);
    free(l.name);
    return best;
}

/* ---- texts ---- */

const char *key_type_text(const Key *k)
{
    static const char *const one[] = {"text",           "true or false",  "a whole number",
                                      "a whole number", "a whole number", "a number"};
    static const char *const many[] = {"a list of words",         "a list",
                                       "a list of whole numbers", "a list of whole numbers",
                                       "a list of whole numbers", "a list of numbers"};
    switch (k->kind) {
    case KK_LIST:
        return k->pair_offset ? "a list of whole numbers or pairs of them" : many[k->type];
    case KK_GROUPS:
        return "a list of maps";
    case KK_POLICY:
        return "the name of a file, or a map of sections";
    case KK_VALUE:
        return k->flags & KF_SECONDS ? "a time" : one[k->type];
    default:
        return "anything";
    }
}

void key_range_text(const Key *k, Str *out)
{
    if (k->min == 0 && k->max == 0) return;
    if (isinf(k->max))
        str_printf(out, "at least %g%s", k->min, k->flags & KF_SECONDS ? " (90, 55m, 2h)" : "");
    else
        str_printf(out, "%.10g..%.10g", k->min, k->max);
}

static void put_double(double v, Str *out)
{
    char t[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, v);
        if (strtod(t, NULL) == v) break;
    }
    str_puts(out, t);
}

/* Length and value of the UTF-8 character at s (YAML guarantees that it is one). */
static int utf8(const char *s, unsigned *code)
{
    static const unsigned char mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    unsigned char first = (unsigned char)s[0];
    int n = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    *code = first & mask[n];
    for (int i = 1; i < n; i++) {
        if (((unsigned char)s[i] & 0xc0) != 0x80) return 1;
        *code = *code << 6 | ((unsigned char)s[i] & 0x3f);
    }
    return n;
}

/* Text as YAML: plain where no reader could take it for something else, else in double quotes. */
static void put_text(const char *s, Str *out)
{
    static const char safe[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    Yaml y = {.kind = Y_SCALAR, .s = s};
    bool b;
    double d;
    if (s[0] && s[0] != '-' && s[strspn(s, safe)] == 0 && !yaml_bool(&y, &b) &&
        !yaml_double(&y, &d) && !yaml_null(&y)) {
        str_puts(out, s);
        return;
    }
    str_puts(out, "\"");
    while (*s) {
        unsigned u;
        int n = utf8(s, &u);
        if (u == '"' || u == '\\')
            str_printf(out, "\\%c", (int)u);
        else if (u < 32 || (u >= 127 && u < 160) || u == 0x2028 || u == 0x2029 || u == 0xfeff ||
                 u == 0xfffe || u == 0xffff)
            str_printf(out, "\\u%04x", u);
        else
            str_putn(out, s, (size_t)n);
        s += n;
    }
    str_puts(out, "\"");
}

static void put_scalar(KeyType type, const void *p, Str *out)
{
    switch (type) {
    case KT_STR:
        put_text(*(const char *const *)p, out);
        break;
    case KT_BOOL:
        str_puts(out, *(const bool *)p ? "true" : "false");
        break;
    case KT_INT:
        str_printf(out, "%d", *(const int *)p);
        break;
    case KT_I64:
        str_printf(out, "%lld", (long long)*(const int64_t *)p);
        break;
    case KT_U64:
        str_printf(out, "%llu", (unsigned long long)*(const uint64_t *)p);
        break;
    case KT_DBL:
        put_double(*(const double *)p, out);
        break;
    }
}

size_t key_element_size(const Key *k)
{
    return k->type == KT_DBL   ? sizeof(double)
           : k->type == KT_STR ? sizeof(const char *)
                               : sizeof(int);
}

/* Entry i of a list. */
static void put_element(const Config *c, const Key *k, int i, Str *out)
{
    const size_t at = (size_t)i * key_element_size(k);
    const char *base = (const char *)c;
    const int second =
        k->pair_offset ? *(const int *)(const void *)(base + k->pair_offset + at) : 0;
    str_puts(out, second ? "[" : "");
    put_scalar(k->type, base + k->offset + at, out);
    if (second) str_printf(out, ", %d]", second);
}

void key_value_text(const Config *c, const Key *k, Str *out)
{
    const char *p = (const char *)c + k->offset;
    int n = k->kind == KK_LIST || k->kind == KK_GROUPS
                ? *(const int *)(const void *)((const char *)c + k->count_offset)
                : 0;
    if (k->kind == KK_VALUE) {
        put_scalar(k->type, p, out);
        return;
    }
    if (k->kind == KK_POLICY) {
        policy_print((const Policy *)(const void *)p, put_text, out);
        return;
    }
    str_puts(out, "[");
    for (int i = 0; i < n; i++) {
        str_puts(out, i ? ", " : "");
        if (k->kind == KK_LIST) {
            put_element(c, k, i, out);
        } else {
            const GroupRule *g = (const GroupRule *)(const void *)p + i;
            str_puts(out, "{match: ");
            put_text(g->match, out);
            if (g->lr >= 0) {
                str_puts(out, ", lr: ");
                put_double(g->lr, out);
            }
            if (g->weight_decay >= 0) {
                str_puts(out, ", weight_decay: ");
                put_double(g->weight_decay, out);
            }
            str_puts(out, "}");
        }
    }
    str_puts(out, "]");
}

void key_origin_text(const KeyState *s, Str *out)
{
    switch (s->origin) {
    case ORIGIN_DEFAULT:
        str_puts(out, "default");
        break;
    case ORIGIN_FILE:
        str_printf(out, "%s:%d", s->file, s->line);
        break;
    case ORIGIN_COMMAND:
        str_puts(out, "command line");
        break;
    case ORIGIN_RULE:
        str_puts(out, s->file);
        break;
    }
}
