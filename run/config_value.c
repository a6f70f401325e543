/* run/config_value.c -- see config_value.h: types, ranges, lists, and what is said about a wrong
 * one. */
#include "run/config_value.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "io/fs.h"
#include "run/policy_text.h"

static void fault_value(const Setter *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fault_value(const Setter *s, const char *fmt, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fault_at(s->f, s->value->file, s->value->line, s->value->col, "%s: %s", s->typed, text);
}

/* The value as the user wrote it, shortened, for messages. */
static const char *shown(const Yaml *y, char *buf, size_t size)
{
    if (y->kind == Y_LIST) return "a list";
    if (y->kind == Y_MAP) return "a map";
    snprintf(buf, size, "'%.60s%s'", y->s, strlen(y->s) > 60 ? "..." : "");
    return buf;
}

static void fault_type(const Setter *s, const Key *k, const Yaml *v)
{
    char buf[80];
    Str range = {0};
    Setter at = *s;
    at.value = v;
    key_range_text(k, &range);
    if (v->kind == Y_SCALAR && !v->quoted && !v->s[0])
        fault_value(&at, "no value; expected %s", key_type_text(k));
    else
        fault_value(&at, "%s is not %s; expected %s%s%s", shown(v, buf, sizeof buf),
                    key_type_text(k),
                    k->type == KT_BOOL && k->kind == KK_VALUE ? "yes or no" : key_type_text(k),
                    !range.len      ? ""
                    : isinf(k->max) ? " of "
                                    : " in ",
                    range.len ? range.s : "");
    str_free(&range);
}

/* Limits of the key and of its type. */
static bool in_range(const Setter *s, const Key *k, const Yaml *v, double x)
{
    bool bounded = !(k->min == 0 && k->max == 0), ok;
    Str range = {0};
    Setter at = *s;
    ok = !bounded || (x >= k->min && x <= k->max);
    if (k->type == KT_INT) ok = ok && x >= INT_MIN && x <= INT_MAX;
    if (ok && isfinite(x)) return true;
    key_range_text(k, &range);
    if (k->type == KT_INT && isinf(k->max)) str_printf(&range, " and at most %d", INT_MAX);
    at.value = v;
    fault_value(&at, "%.60s is out of range; expected %s", v->s,
                range.len ? range.s : "a finite number");
    str_free(&range);
    return false;
}

/* "90", "55m", "2h" in seconds. */
static int read_seconds(Arena *a, const Yaml *v, double *x)
{
    Yaml number = *v;
    size_t n = v->kind == Y_SCALAR ? strlen(v->s) : 0;
    double unit = n < 2                ? 0
                  : v->s[n - 1] == 's' ? 1
                  : v->s[n - 1] == 'm' ? 60
                  : v->s[n - 1] == 'h' ? 3600
                                       : 0;
    if (unit == 0) return yaml_double(v, x);
    number.s = arena_printf(a, "%.*s", (int)n - 1, v->s);
    if (!yaml_double(&number, x)) return 0;
    *x *= unit;
    return 1;
}

static bool set_text(const Setter *s, const Key *k, const Yaml *v, const char **p)
{
    Str all = {0};
    const char *like, *why;
    char hint[200] = "";
    if (v->kind != Y_SCALAR) {
        fault_type(s, k, v);
        return false;
    }
    if (!k->choices || choices_have(k->choices, v->s) || (!v->s[0] && str_eq(k->def, "''"))) {
        *p = arena_strdup(&s->c->arena, v->s);
        return true;
    }
    choices_text(k->choices, &all);
    why = k->choices->lacks ? k->choices->lacks(v->s) : NULL;
    like = why ? NULL : choices_suggest(k->choices, v->s);
    if (why) snprintf(hint, sizeof hint, "; %s", why);
    if (like) snprintf(hint, sizeof hint, "; did you mean '%s'?", like);
    fault_at(s->f, v->file, v->line, v->col, "%s: unknown value '%.60s'; expected %s%s", s->typed,
             v->s, all.s, hint);
    str_free(&all);
    return false;
}

/* A number of bits with a fraction is a number of levels: 1.585 is 1 bit of 3 levels. */
static bool set_levels(const Setter *s, const Key *k, const Yaml *v, int *bits)
{
    const int role = k->name[0] == 'w' ? Q_WEIGHT : k->name[0] == 'f' ? Q_ACT : Q_OUT;
    int *level = &s->c->words.level[role];
    long long whole;
    double d;
    *level = 0;
    if (yaml_int(v, &whole) || !yaml_double(v, &d) || d < 1 || d > 32 || (d >= 8 && d != floor(d))) return false;
    *bits = (int)d;
    if (d != floor(d)) *level = (int)floor(exp2(d));
    return true;
}

/* Writes one scalar to p, which holds a k->type. */
static bool set_scalar(const Setter *s, const Key *k, const Yaml *v, void *p)
{
    long long i = 0;
    double d = 0;
    bool b = false;
    switch (k->type) {
    case KT_STR:
        return set_text(s, k, v, p);
    case KT_BOOL:
        if (!yaml_bool(v, &b)) {
            if (!yaml_int(v, &i) || i < 0 || i > 1) break;
            b = i == 1;
        }
        *(bool *)p = b;
        return true;
    case KT_DBL:
        if (!(k->flags & KF_SECONDS ? read_seconds(&s->c->arena, v, &d) : yaml_double(v, &d)))
            break;
        if (!in_range(s, k, v, d)) return false;
        *(double *)p = d;
        return true;
    default:
        if (k->flags & KF_LEVELS && set_levels(s, k, v, p)) return true;
        if (!yaml_int(v, &i)) break;
        if (!in_range(s, k, v, (double)i)) return false;
        if (k->type == KT_INT)
            *(int *)p = (int)i;
        else if (k->type == KT_I64)
            *(int64_t *)p = (int64_t)i;
        else
            *(uint64_t *)p = (uint64_t)i;
        return true;
    }
    fault_type(s, k, v);
    return false;
}

/* A list, a single value, or the original flags' "150,225" as a list. */
static const Yaml *as_list(Arena *a, const Yaml *v)
{
    Yaml *list;
    const char *p;
    if (v->kind != Y_SCALAR) return v;
    list = arena_alloc(a, sizeof *list);
    *list = *v;
    list->kind = Y_LIST;
    list->n = 0;
    if (!v->s[0]) return list;
    list->v = arena_alloc(a, (strlen(v->s) + 1) * sizeof *list->v);
    for (p = v->s;; p++) {
        size_t n = strcspn(p, ","), blank = strspn(p, " ");
        Yaml *one = arena_alloc(a, sizeof *one);
        *one = *v;
        one->quoted = false;
        if (v->line) one->col = v->col + v->quoted + (int)(p - v->s) + (int)blank;
        one->s = arena_printf(a, "%.*s", (int)(n - blank), p + blank);
        list->v[list->n++] = one;
        p += n;
        if (!*p) return list;
    }
}

static bool set_list(const Setter *s, const Key *k, char *base)
{
    const Yaml *list = as_list(&s->c->arena, s->value);
    size_t size = key_element_size(k);
    bool ok = true, no;
    if (k->type == KT_STR && yaml_bool(s->value, &no) && !no) { /* `false`: none of them */
        *(int *)(void *)(base + k->count_offset) = 0;
        return true;
    }
    if (list->kind != Y_LIST) {
        fault_type(s, k, s->value);
        return false;
    }
    if (list->n > k->cap) {
        fault_value(s, "%d entries; expected at most %d", list->n, k->cap);
        return false;
    }
    for (int i = 0; i < list->n; i++) {
        const Yaml *v = list->v[i];
        const bool pair = k->pair_offset && v->kind == Y_LIST && v->n == 2;
        Key element = *k;
        element.kind = KK_VALUE;
        if (k->pair_offset && v->kind == Y_LIST && !pair) {
            fault_value(s, "entry %d has %d numbers; expected one or two", i + 1, v->n);
            ok = false;
            continue;
        }
        ok = set_scalar(s, &element, pair ? v->v[0] : v, base + k->offset + (size_t)i * size) && ok;
        if (k->pair_offset) memset(base + k->pair_offset + (size_t)i * size, 0, size);
        if (pair)
            ok = set_scalar(s, &element, v->v[1], base + k->pair_offset + (size_t)i * size) && ok;
    }
    *(int *)(void *)(base + k->count_offset) = ok ? list->n : 0;
    return ok;
}

/* One entry of param_groups. */
static bool set_group(const Setter *s, const Yaml *m, int index, GroupRule *g)
{
    static const char *const names[] = {"match", "lr", "weight_decay"};
    size_t nfaults = s->f->n;
    *g = (GroupRule){.lr = -1, .weight_decay = -1};
    if (m->kind != Y_MAP) {
        char buf[80];
        fault_at(s->f, m->file, m->line, m->col,
                 "%s: entry %d is %s; expected a map such as {match: act_alpha, lr: 0.1}", s->typed,
                 index + 1, shown(m, buf, sizeof buf));
        return false;
    }
    for (int i = 0; i < m->n; i++) {
        const Yaml *k = m->k[i], *v = m->v[i];
        bool lr = str_eq(k->s, "lr");
        if (str_eq(k->s, "match")) {
            if (v->kind != Y_SCALAR || !v->s[0] || strlen(v->s) >= sizeof g->match)
                fault_at(s->f, v->file, v->line, v->col,
                         "%s: match; expected a part of a parameter's name, at most %zu characters",
                         s->typed, sizeof g->match - 1);
            else
                snprintf(g->match, sizeof g->match, "%s", v->s);
        } else if (lr || str_eq(k->s, "weight_decay")) {
            const Key *like = key_of(k->s);
            char name[128];
            Setter one = *s;
            snprintf(name, sizeof name, "%s: %s", s->typed, k->s);
            one.typed = name;
            one.value = v;
            set_scalar(&one, like, v, lr ? &g->lr : &g->weight_decay);
        } else {
            const char *like = str_nearest(k->s, names, ARRAY_LEN(names));
            fault_at(s->f, k->file, k->line, k->col,
                     "%s: unknown key '%.60s'; expected match, lr or weight_decay%s%s%s", s->typed,
                     k->s, like ? "; did you mean '" : "", like ? like : "", like ? "'?" : "");
        }
    }
    if (!g->match[0] && s->f->n == nfaults)
        fault_at(s->f, m->file, m->line, m->col,
                 "%s: entry %d has no match; expected a part of a parameter's name", s->typed,
                 index + 1);
    return s->f->n == nfaults;
}

static bool set_groups(const Setter *s, const Key *k, char *base)
{
    const Yaml *list = s->value;
    GroupRule *g = (void *)(base + k->offset);
    bool ok = true;
    if (list->kind != Y_LIST) {
        fault_type(s, k, list);
        return false;
    }
    if (list->n > k->cap) {
        fault_value(s, "%d entries; expected at most %d", list->n, k->cap);
        return false;
    }
    for (int i = 0; i < list->n; i++) ok = set_group(s, list->v[i], i, &g[i]) && ok;
    *(int *)(void *)(base + k->count_offset) = ok ? list->n : 0;
    return ok;
}

/* Lines that say their place themselves. */
static void add_lines(Faults *f, const char *text)
{
    while (*text) {
        const size_t n = strcspn(text, "\n");
        mem_grow(&f->line, &f->cap, f->n + 1, sizeof *f->line);
        f->line[f->n] = (Str){0};
        str_putn(&f->line[f->n++], text, n);
        text += n + (text[n] == '\n');
    }
}

/* A file's name, as typed or beside the configuration; or the rules themselves. */
static bool set_policy(const Setter *s, Policy *p)
{
    const Yaml *v = s->value;
    Arena *a = &s->c->arena;
    const char *slash = strrchr(v->file, '/');
    Err e = {0};
    int r = 0;
    *p = (Policy){0};
    if (v->kind == Y_LIST) {
        fault_value(s, "a list; expected the name of a file, or a map such as {on init: [{by_index: "
                       "all, stable: 10}]}");
        return false;
    }
    if (v->kind == Y_MAP) {
        r = policy_from_yaml(p, a, v, &e);
    } else if (v->s[0]) {
        const char *beside = slash ? arena_printf(a, "%.*s/%s", (int)(slash - v->file), v->file, v->s) : v->s;
        const char *file = !fs_exists(v->s) && fs_exists(beside) ? beside : v->s;
        if (fs_exists(file) != 1) {
            fault_value(s, "%s: %s; expected a policy file", file, fs_exists(file) ? "not a file" : "no such file");
            return false;
        }
        r = policy_read(p, a, file, &e);
    }
    if (r) add_lines(s->f, e.msg);
    return !r;
}

/* The same value, however it is spelt. */
static bool same_value(const Yaml *a, const Yaml *b)
{
    bool x, y;
    double p, q;
    if (a->kind != b->kind || (a->kind == Y_LIST && a->n != b->n)) return false;
    if (a->kind == Y_LIST) {
        for (int i = 0; i < a->n; i++)
            if (!same_value(a->v[i], b->v[i])) return false;
        return true;
    }
    if (a->kind == Y_MAP) return false;
    if (yaml_null(a) || yaml_null(b)) return yaml_null(a) && yaml_null(b);
    if (yaml_bool(a, &x) && yaml_bool(b, &y)) return x == y;
    if (yaml_double(a, &p) && yaml_double(b, &q)) return p == q;
    return str_eq(a->s, b->s);
}

static bool check_later(const Setter *s, const Key *k)
{
    const Yaml *same = yaml_value(&s->c->arena, "keys.def", k->def, NULL), *v = s->value;
    char buf[80];
    Str allowed = {0};
    ASSERT(same && same->kind == Y_LIST, "keys.def: %s: '%s' is not a list", k->name, k->def);
    for (int i = 0; i < same->n; i++)
        if (same_value(same->v[i], v)) return true;
    str_printf(&allowed, "%.*s", (int)strlen(k->def) - 2, k->def + 1);
    fault_value(s, "%s is not available in this version (%s)%s%s", shown(v, buf, sizeof buf),
                k->doc, allowed.len ? "; expected " : "; expected no such key",
                allowed.s ? allowed.s : "");
    str_free(&allowed);
    return false;
}

static bool set_kind(const Setter *s, const Key *k, char *base)
{
    switch (k->kind) {
    case KK_LIST:
        return set_list(s, k, base);
    case KK_GROUPS:
        return set_groups(s, k, base);
    case KK_POLICY:
        return set_policy(s, (void *)(base + k->offset));
    default:
        return set_scalar(s, k, s->value, base + k->offset);
    }
}

/* A value that is ours; a fault there is too. */
static void set_ours(Config *c, const Key *k, const char *value, const char *file)
{
    Faults none = {0};
    Err e = {0};
    Setter s = {c, &none, k->name, yaml_value(&c->arena, file, value, &e), ORIGIN_DEFAULT, NULL};
    char *base = (char *)c;
    bool ok;
    ASSERT(s.value, "%s: %s", file, e.msg);
    ok = set_kind(&s, k, base);
    ASSERT(ok, "%s", none.line[0].s);
}

void value_default(Config *c, const Key *k)
{
    set_ours(c, k, k->def, "keys.def");
}

void value_by_rule(Config *c, const Key *k, const char *value, const char *rule)
{
    set_ours(c, k, value, rule);
    key_by_rule(c, k->name, rule);
}

/* One row named by what was typed. */
void value_set(const Key *k, void *ctx)
{
    const Setter *s = ctx;
    KeyState *st = &s->c->state[k - keys], old = *st;
    const Yaml *v = s->value;
    char *base = (char *)s->c;
    bool null = yaml_null(v), ok = true;
    *st = (KeyState){
        .origin = s->origin, .file = v->file, .typed = arena_strdup(&s->c->arena, s->typed)};
    if (s->at) {
        st->file = s->at->file;
        st->line = s->at->line;
        st->col = s->at->col;
        if (old.origin == ORIGIN_FILE && str_eq(old.file, st->file)) st->repeated_line = old.line;
    }
    switch (k->kind) {
    case KK_IGNORED:
        break;
    case KK_LATER:
        ok = check_later(s, k);
        break;
    default:
        /* `~` asks for the default; nothing at all is a forgotten value, except where text may be
         * empty. */
        if (null && (v->s[0] || str_eq(k->def, "''")))
            value_default(s->c, k);
        else if (null)
            ok = (fault_type(s, k, v), false);
        else
            ok = set_kind(s, k, base);
    }
    st->bad = !ok;
}
