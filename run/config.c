/* run/config.c -- from YAML and overrides to a Config. The keys are in keys.def; texts for people
 * in config_text.c; what follows from several keys, and contradictions, in config_check.c.
 *
 * Nothing stops at the first fault: each is added to a list, and config_load reports them together.
 */
#include "run/config.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/keys.h"
#include "smoke_yml.h" /* smoke_yml[]: the text of configs/smoke.yml, made by the Makefile */

#define COMMAND "command line"

/* One value on its way into the Config. */
typedef struct Setter {
    Config *c;
    Faults *f;
    const char *typed; /* name used; "" for defaults */
    const Yaml *value;
    OriginKind origin;
    const Yaml *at; /* the key's node; NULL for overrides and defaults */
} Setter;

/* ---- faults ---- */

void fault_at(Faults *f, const char *file, int line, int col, const char *fmt, ...)
{
    Str *s;
    va_list ap;
    char text[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mem_grow(&f->line, &f->cap, f->n + 1, sizeof *f->line);
    s = &f->line[f->n++];
    *s = (Str){0};
    if (line > 0)
        str_printf(s, "%s:%d:%d: error: %s", file, line, col, text);
    else
        str_printf(s, "%s: error: %s", file, text);
    /* An alias of two rows would say everything twice. */
    if (f->n > 1 && str_eq(s->s, s[-1].s)) {
        str_free(s);
        f->n--;
    }
}

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

/* Moves the faults into `e`; as many as fit, then how many more. 0 when there were none. */
static int faults_report(Faults *f, Err *e)
{
    size_t room = sizeof e->msg - 40, used = 0, n = f->n;
    for (size_t i = 0; i < n && e; i++) {
        if (i > 0 && used + f->line[i].len + 1 > room) {
            err_add(e, ERR_CONFIG, "and %zu more error%s", n - i, n - i > 1 ? "s" : "");
            break;
        }
        if (i == 0)
            err_set(e, ERR_CONFIG, "%s", f->line[i].s);
        else
            err_add(e, ERR_CONFIG, "%s", f->line[i].s);
        used += f->line[i].len + 1;
    }
    for (size_t i = 0; i < n; i++) str_free(&f->line[i]);
    free(f->line);
    *f = (Faults){0};
    return n > 0 ? -1 : 0;
}

/* ---- values ---- */

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
    const char *like;
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
    like = choices_suggest(k->choices, v->s);
    if (like) snprintf(hint, sizeof hint, "; did you mean '%s'?", like);
    fault_value(s, "unknown value '%.60s'; expected %s%s", v->s, all.s, hint);
    str_free(&all);
    return false;
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

/* Defaults come from the table's own text; a fault there is ours. */
static void set_default(Config *c, const Key *k)
{
    Faults none = {0};
    Err e = {0};
    Setter s = {c,   &none, k->name, yaml_value(&c->arena, "keys.def", k->def, &e), ORIGIN_DEFAULT,
                NULL};
    char *base = (char *)c;
    bool ok;
    ASSERT(s.value, "keys.def: %s", e.msg);
    ok = k->kind == KK_VALUE  ? set_scalar(&s, k, s.value, base + k->offset)
         : k->kind == KK_LIST ? set_list(&s, k, base)
                              : set_groups(&s, k, base);
    ASSERT(ok, "%s", none.line[0].s);
}

/* One row named by what was typed. */
static void set_key(const Key *k, void *ctx)
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
            set_default(s->c, k);
        else if (null)
            ok = (fault_type(s, k, v), false);
        else if (k->kind == KK_VALUE)
            ok = set_scalar(s, k, v, base + k->offset);
        else
            ok = k->kind == KK_LIST ? set_list(s, k, base) : set_groups(s, k, base);
    }
    st->bad = !ok;
}

/* Whether some key begins with `word` and a dot. */
static bool is_prefix(const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i < nkeys; i++)
        if (strncmp(keys[i].name, word, n) == 0 && keys[i].name[n] == '.') return true;
    return false;
}

static void unknown_key(Faults *f, const char *file, int line, int col, const char *word)
{
    const char *like = key_suggest(word);
    if (like)
        fault_at(f, file, line, col, "unknown key '%.80s'; did you mean '%s'?", word, like);
    else
        fault_at(f, file, line, col, "unknown key '%.80s'; expected one of `qrun help keys`", word);
}

/* A map of the file, its keys below `prefix` ("" or "expect."). */
static void apply_map(Config *c, Faults *f, const Yaml *map, const char *prefix)
{
    for (int i = 0; i < map->n; i++) {
        const Yaml *k = map->k[i], *v = map->v[i];
        const char *word = arena_printf(&c->arena, "%s%s", prefix, k->s);
        Setter s = {c, f, word, v, ORIGIN_FILE, k};
        if (keys_each(word, set_key, &s) > 0) continue;
        if (!*prefix && is_prefix(word)) {
            if (v->kind == Y_MAP)
                apply_map(c, f, v, arena_printf(&c->arena, "%s.", word));
            else
                fault_at(f, v->file, v->line, v->col, "%s: expected a map such as {top1_min: 30}",
                         word);
            continue;
        }
        unknown_key(f, k->file, k->line, k->col, word);
    }
}

static void apply_override(Config *c, Faults *f, const char *text)
{
    const char *eq = strchr(text, '=');
    char *word;
    Err e = {0};
    Setter s = {.c = c, .f = f, .origin = ORIGIN_COMMAND};
    if (!eq || eq == text) {
        fault_at(f, COMMAND, 0, 0, "'%.80s' is not an override; expected key=value", text);
        return;
    }
    s.typed = word = arena_printf(&c->arena, "%.*s", (int)(eq - text), text);
    s.value = yaml_value(&c->arena, COMMAND, eq + 1, &e);
    if (!s.value) {
        const char *why = strstr(e.msg, "error: ");
        fault_at(f, COMMAND, 0, 0, "%s: %s", word, why ? why + strlen("error: ") : e.msg);
        return;
    }
    if (keys_each(word, set_key, &s) > 0) return;
    if (is_prefix(word) && s.value->kind == Y_MAP) {
        for (int i = 0; i < s.value->n; i++) {
            const char *full = arena_printf(&c->arena, "%s.%s", word, s.value->k[i]->s);
            Setter one = {c, f, full, s.value->v[i], ORIGIN_COMMAND, NULL};
            if (keys_each(full, set_key, &one) == 0) unknown_key(f, COMMAND, 0, 0, full);
        }
        return;
    }
    unknown_key(f, COMMAND, 0, 0, word);
}

/* ---- the originals' way of starting ---- */

/* Their rule for `app:FILE bs:N`: above 256 images per batch the rate grows with the batch, after 5
 * epochs of warm-up from the file's rate (F8Net takes the file's warmup_epochs where there is one,
 * AdaBits never does); up to 256 there is no warm-up. */
static void large_batch_rule(Config *c)
{
    static const char *const changed[] = {"lr", "warmup_lr", "warmup_epochs"};
    bool adabits = c->quant.nbits_list > 0, large = c->run.batch_size > 256;
    bool given = key_state(c, "warmup_epochs")->origin != ORIGIN_DEFAULT;
    if (!large && c->optim.warmup_epochs == 0) return;
    if (large) {
        c->optim.warmup_lr = c->optim.lr;
        c->optim.lr = c->optim.lr * c->run.batch_size / 256;
        if (!given || adabits) c->optim.warmup_epochs = 5;
    } else {
        c->optim.warmup_epochs = 0;
    }
    for (size_t i = large ? 0 : 2; i < ARRAY_LEN(changed); i++) {
        KeyState *st = key_state(c, changed[i]);
        st->origin = ORIGIN_RULE;
        st->file = large ? "rule of app:/bs: for batches above 256"
                         : "rule of app:/bs: for batches up to 256";
    }
}

/* ---- loading ---- */

void config_default(Config *c)
{
    memset(c, 0, sizeof *c);
    c->state = arena_alloc(&c->arena, nkeys * sizeof *c->state);
    c->run.config_file = "";
    c->run.config_name = "qrun";
    for (size_t i = 0; i < nkeys; i++)
        if (keys[i].kind == KK_VALUE || keys[i].kind == KK_LIST || keys[i].kind == KK_GROUPS)
            set_default(c, &keys[i]);
    config_copy_fields(c);
}

void config_free(Config *c)
{
    arena_free(&c->arena);
    memset(c, 0, sizeof *c);
}

/* "configs/apot/res20.yml" -> "res20". */
static const char *base_name(Arena *a, const char *file)
{
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    size_t n = strlen(base);
    if (str_ends(base, ".yml"))
        n -= 4;
    else if (str_ends(base, ".yaml"))
        n -= 5;
    return n > 0 ? arena_printf(a, "%.*s", (int)n, base) : "qrun";
}

/* Reads the file into the Config; false when its text could not be understood at all. */
static bool apply_file(Config *c, Faults *f, const char *file)
{
    Err e = {0};
    Yaml *tree;
    c->run.config_file = arena_strdup(&c->arena, file);
    if (!*file) return true;
    c->run.config_name = base_name(&c->arena, file);
    if (str_eq(file, "smoke"))
        tree = yaml_parse(&c->arena, "smoke", smoke_yml, sizeof smoke_yml - 1, &e);
    else
        tree = yaml_read(&c->arena, file, &e);
    if (tree && tree->kind != Y_MAP) {
        fault_at(f, tree->file, tree->line, tree->col, "%s; expected `key: value` lines",
                 tree->kind == Y_LIST ? "a list" : "a single value");
        return false;
    }
    if (!tree) {
        mem_grow(&f->line, &f->cap, f->n + 1, sizeof *f->line);
        f->line[f->n] = (Str){0};
        str_puts(&f->line[f->n++], e.msg);
        return false;
    }
    apply_map(c, f, tree, "");
    return true;
}

/* "app:F" -> F, else NULL. */
static const char *after(const char *word, const char *prefix)
{
    return str_starts(word, prefix) ? word + strlen(prefix) : NULL;
}

int config_load(Config *c, const char *file, int noverrides, char **overrides, Err *e)
{
    Faults f = {0};
    const char *bs = after(file, "bs:"), *app = after(file, "app:");
    bool legacy = bs || app, whole;
    config_default(c);
    for (int i = 0; i < noverrides; i++) {
        const char *p;
        if ((p = after(overrides[i], "app:"))) app = p;
        if ((p = after(overrides[i], "bs:"))) bs = p;
        legacy = legacy || after(overrides[i], "app:") || after(overrides[i], "bs:");
    }
    whole = apply_file(c, &f, app ? app : bs && after(file, "bs:") ? "" : file);
    if (bs) apply_override(c, &f, arena_printf(&c->arena, "batch_size=%s", bs));
    for (int i = 0; i < noverrides; i++)
        if (!after(overrides[i], "app:") && !after(overrides[i], "bs:"))
            apply_override(c, &f, overrides[i]);
    if (legacy) large_batch_rule(c);
    config_derive(c, &f);
    if (whole && (*c->run.config_file || bs || noverrides > 0)) config_check(c, &f);
    return faults_report(&f, e);
}
