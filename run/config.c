/* run/config.c -- from YAML and overrides to a Config. The keys are in keys.def; one value in
 * config_value.c; texts for people in config_text.c; what follows from several keys, and
 * contradictions, in config_check.c.
 *
 * Nothing stops at the first fault: each is added to a list, and config_load reports them together.
 */
#include "run/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/config_shell.h"
#include "run/config_value.h"
#include "run/keys.h"
#include "smoke_yml.h" /* smoke_yml[]: the text of configs/smoke.yml, made by the Makefile */

#define COMMAND "command line"

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

void fault_text(Faults *f, const char *text)
{
    mem_grow(&f->line, &f->cap, f->n + 1, sizeof *f->line);
    f->line[f->n] = (Str){0};
    str_puts(&f->line[f->n++], text);
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
        if (keys_each(word, value_set, &s) > 0) continue;
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
    if (keys_each(word, value_set, &s) > 0) return;
    if (is_prefix(word) && s.value->kind == Y_MAP) {
        for (int i = 0; i < s.value->n; i++) {
            const char *full = arena_printf(&c->arena, "%s.%s", word, s.value->k[i]->s);
            Setter one = {c, f, full, s.value->v[i], ORIGIN_COMMAND, NULL};
            if (keys_each(full, value_set, &one) == 0) unknown_key(f, COMMAND, 0, 0, full);
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
        if (key_has_value(&keys[i])) value_default(c, &keys[i]);
    config_copy_fields(c);
}

void config_free(Config *c)
{
    arena_free(&c->arena);
    memset(c, 0, sizeof *c);
}

/* "configs/apot/res20.yml" -> "res20", "config.lsq.eval" -> "lsq.eval". */
static const char *base_name(Arena *a, const char *file)
{
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    size_t n;
    if (shell_config_named(file)) base += strlen("config.");
    n = strlen(base);
    if (str_ends(base, ".yml"))
        n -= 4;
    else if (str_ends(base, ".yaml"))
        n -= 5;
    return n > 0 ? arena_printf(a, "%.*s", (int)n, base) : "qrun";
}

/* A file of the original keyword language: its defaults where it is silent. */
static bool apply_shell(Config *c, Faults *f, const char *file)
{
    static const char rule[] = "default of config.xxxx files";
    const char *key, *value;
    Err e;
    Yaml *map = shell_config_read(&c->arena, file, f);
    c->words.original = true;
    for (size_t i = 0; shell_config_default(i, &key, &value); i++) {
        Setter s = {c, f, key, yaml_value(&c->arena, rule, value, &e), ORIGIN_RULE, NULL};
        keys_each(key, value_set, &s);
    }
    if (map) apply_map(c, f, map, "");
    return map != NULL;
}

/* Reads the file into the Config; false when its text could not be understood at all. */
static bool apply_file(Config *c, Faults *f, const char *file)
{
    Err e = {0};
    Yaml *tree;
    c->run.config_file = arena_strdup(&c->arena, file);
    if (!*file) return true;
    c->run.config_name = base_name(&c->arena, file);
    if (shell_config_named(file)) return apply_shell(c, f, file);
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
        fault_text(f, e.msg);
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
