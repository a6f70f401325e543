/* run/config_text.c -- a configuration and the key table as text: show, resolved.yml, help,
 * docs/keys.md. */
#include "run/config.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "run/keys.h"

/* Rows that a configuration's own text names. */
static bool is_listed(const Key *k)
{
    return key_has_value(k) && !(k->flags & KF_FOLDED);
}

static void pad(Str *out, size_t from, size_t width)
{
    size_t used = out->len - from;
    do str_puts(out, " ");
    while (++used < width);
}

/* ---- one configuration ---- */

/* The keys that were written down but stand in no row above: what became of each. */
static void show_others(const Config *c, size_t width, Str *out)
{
    bool any = false;
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        const KeyState *st = &c->state[i];
        size_t from;
        if (k->kind == KK_SECTION || is_listed(k)) continue;
        if (st->origin != ORIGIN_FILE && st->origin != ORIGIN_COMMAND) continue;
        if (!any) str_puts(out, "\nWritten down, but no option of its own\n");
        any = true;
        from = out->len;
        str_printf(out, "  %s", k->name);
        pad(out, from, width);
        if (k->kind == KK_IGNORED)
            str_printf(out, "no effect: %s", k->doc);
        else if (k->kind == KK_LATER)
            str_printf(out, "asks for nothing here (else: %s)", k->doc);
        else {
            key_value_text(c, k, out);
            str_printf(out, ": %s", k->doc);
        }
        str_puts(out, "  ");
        key_origin_text(st, out);
        str_puts(out, "\n");
    }
}

/* What became of each word of `keyword`. */
static void show_words(const Config *c, Str *out)
{
    for (int i = 0; i < c->words.nuse; i++) {
        const WordUse *u = &c->words.use[i];
        str_printf(out, "%s  %-20s%s: %s\n", i ? "" : "\nWords of keyword\n", u->row->name, u->outcome, u->row->doc);
    }
}

void config_show(const Config *c, Str *out)
{
    Str t = {0};
    size_t wname = 0, wvalue = 0;
    for (size_t i = 0; i < nkeys; i++) {
        size_t n = strlen(keys[i].name);
        if (!is_listed(&keys[i])) continue;
        t.len = 0;
        key_value_text(c, &keys[i], &t);
        if (n > wname) wname = n;
        if (t.len > wvalue && t.len <= 40) wvalue = t.len;
    }
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        size_t from = out->len;
        if (k->kind == KK_SECTION && i + 1 < nkeys && key_has_value(&keys[i + 1]))
            str_printf(out, "%s%s\n", i ? "\n" : "", k->doc);
        if (!is_listed(k)) continue;
        str_printf(out, "  %s", k->name);
        pad(out, from, wname + 4);
        from = out->len;
        key_value_text(c, k, out);
        pad(out, from, wvalue + 2);
        key_origin_text(&c->state[i], out);
        str_puts(out, "\n");
    }
    show_words(c, out);
    show_others(c, wname + 4, out);
    str_free(&t);
}

/* A file name inside a comment must not end it. */
static void put_comment(const char *s, Str *out)
{
    for (; *s; s++) str_printf(out, "%c", iscntrl((unsigned char)*s) ? '?' : *s);
}

/* The value as a run records it. */
static void put_recorded(const Config *c, const Config *plain, const Key *k, Str *out)
{
    key_value_text(c->state[k - keys].idle ? plain : c, k, out);
}

void config_resolved(const Config *c, Str *out)
{
    Config plain;
    Str origin = {0};
    config_default(&plain);
    str_puts(out, "# Every option of the run");
    if (*c->run.config_file) {
        str_puts(out, ", from ");
        put_comment(c->run.config_file, out);
    }
    str_puts(out, "\n");
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        const char *dot = strchr(k->name, '.');
        size_t from = out->len;
        if (k->kind == KK_SECTION && i + 1 < nkeys && key_has_value(&keys[i + 1]))
            str_printf(out, "\n# %s\n", k->doc);
        if (!is_listed(k)) continue;
        /* A dotted key is a map; repeated maps of one name add up. */
        if (dot)
            str_printf(out, "%.*s: {%s: ", (int)(dot - k->name), k->name, dot + 1);
        else
            str_printf(out, "%s: ", k->name);
        put_recorded(c, &plain, k, out);
        if (dot) str_puts(out, "}");
        if (c->state[i].origin != ORIGIN_DEFAULT && !c->state[i].idle) {
            origin.len = 0;
            key_origin_text(&c->state[i], &origin);
            pad(out, from, 40);
            str_puts(out, "# ");
            put_comment(origin.s, out);
        }
        str_puts(out, "\n");
    }
    str_free(&origin);
    config_free(&plain);
}

int config_differs(const Config *c, const char *resolved_file, Str *out, Err *e)
{
    Config old, plain;
    Str a = {0}, b = {0};
    int differs = 0, rc = config_load(&old, resolved_file, 0, NULL, e);
    config_default(&plain);
    for (size_t i = 0; i < nkeys && rc == 0; i++) {
        const Key *k = &keys[i];
        if (!is_listed(k) || (k->flags & KF_NO_RESULT)) continue;
        a.len = b.len = 0;
        put_recorded(&old, &plain, k, &a);
        put_recorded(c, &plain, k, &b);
        if (str_eq(a.s, b.s)) continue;
        if ((k->flags & KF_MAY_LACK) && (str_eq(a.s, "0") || str_eq(b.s, "0"))) continue;
        if ((k->flags & KF_MAY_GROW) && strtod(b.s, NULL) > strtod(a.s, NULL)) continue;
        str_printf(out, "%s%s: %s -> %s", differs ? "\n" : "", k->name, a.s, b.s);
        differs = 1;
    }
    str_free(&a);
    str_free(&b);
    config_free(&old);
    config_free(&plain);
    return rc ? -1 : differs;
}

/* Rules of a policy for epochs that are never begun: counted from 1, or of a longer run. */
static void note_late_rules(const Config *c)
{
    const int64_t epochs = run_epochs(&c->run);
    for (int i = 0; i < c->run.policy.n; i++) {
        const PolicySection *s = &c->run.policy.s[i];
        const PolicyItem *at = s->nblocks ? s->block[0].item : NULL;
        if (!(s->when & 1u << PW_EPOCH) || !at) continue;
        for (int k = 0; k < s->ntrigger; k++)
            if (s->trigger[k] >= epochs)
                log_msg(LOG_INFO, "%s:%d: policy: epoch %d never begins: the last of %" PRId64 " is %" PRId64, at->file,
                        at->line, s->trigger[k], epochs, epochs - 1);
    }
}

void config_note_ignored(const Config *c)
{
    const char *rule = NULL;
    const Yaml resume = {.kind = Y_SCALAR, .s = c->run.resume};
    bool word;
    config_note_words(c);
    if (!c->run.test_only) note_late_rules(c);
    if (*c->run.resume && !yaml_bool(&resume, &word))
        log_msg(LOG_INFO, "resume: '%s' is not read, as in the original; a run goes on from its own log_dir",
                c->run.resume);
    for (size_t i = 0; i < nkeys; i++) {
        const KeyState *s = &c->state[i];
        if (keys[i].kind == KK_SECTION || s->origin == ORIGIN_DEFAULT) continue;
        if (s->origin == ORIGIN_RULE) {
            /* The originals' rule changes what the file says: always told, once. */
            if (str_starts(s->file, "rule of") && !rule) {
                rule = s->file;
                log_msg(LOG_INFO, "%s: batch_size %d, lr %g, warm-up over %g epochs from %g", rule,
                        c->run.batch_size, c->optim.lr, c->optim.warmup_epochs, c->optim.warmup_lr);
            }
            continue;
        }
        if (keys[i].kind == KK_IGNORED)
            log_msg(LOG_DEBUG, "%s: no effect: %s", s->typed, keys[i].doc);
        if (s->repeated_line)
            log_msg(LOG_DEBUG, "%s:%d: %s was set in line %d already; the last one counts", s->file,
                    s->line, s->typed, s->repeated_line);
    }
}

/* ---- the key table ---- */

static void put_kind(const Key *k, Str *out)
{
    Str range = {0};
    key_range_text(k, &range);
    if (k->choices)
        choices_text(k->choices, out);
    else
        str_puts(out, key_type_text(k));
    if (range.len) str_printf(out, ", %s", range.s);
    str_free(&range);
}

/* Methods that read it, where not all may. */
static void put_readers(const Key *k, Str *out)
{
    Str who = {0};
    config_readers(k->name, &who);
    if (who.len) str_printf(out, " (%s)", who.s);
    str_free(&who);
}

static void help_key(const Key *k, Str *out)
{
    str_printf(out, "%s\n", k->name);
    if (k->kind == KK_IGNORED) {
        str_printf(out, "  accepted without effect: %s\n", k->doc);
    } else if (k->kind == KK_LATER) {
        str_printf(out, "  not available in this version: %s\n", k->doc);
        if (strlen(k->def) > 2)
            str_printf(out, "  accepted    %.*s\n", (int)strlen(k->def) - 2, k->def + 1);
    } else {
        str_printf(out, "  %s", k->doc);
        put_readers(k, out);
        str_puts(out, "\n  value       ");
        put_kind(k, out);
        str_printf(out, "\n  default     %s\n", str_eq(k->def, "''") ? "empty" : k->def);
    }
    if (*k->aliases) str_printf(out, "  also        %s\n", k->aliases);
    if (*k->from) str_printf(out, "  known from  %s\n", k->from);
}

static bool contains(const char *hay, const char *needle)
{
    return hay && strcasestr(hay, needle);
}

size_t config_help(const char *pattern, Str *out)
{
    size_t n = 0;
    bool exact = pattern && key_find(pattern);
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        bool hit = !pattern;
        if (k->kind == KK_SECTION) {
            if (!pattern) str_printf(out, "%s== %s ==\n\n", n ? "\n" : "", k->doc);
            continue;
        }
        if (exact)
            hit = key_named(k, pattern); /* an alias may stand in several rows */
        else if (pattern)
            hit = contains(k->name, pattern) || contains(k->aliases, pattern) ||
                  contains(k->doc, pattern) || contains(k->from, pattern);
        if (!hit) continue;
        if (n++ && pattern) str_puts(out, "\n");
        help_key(k, out);
    }
    return n;
}

/* Markdown table cells must not hold bars. */
static void put_cell(const char *s, Str *out)
{
    for (; *s; s++) {
        if (*s == '|')
            str_puts(out, "\\|");
        else
            str_putn(out, s, 1);
    }
}

static void docs_row(const Key *k, Str *out)
{
    Str kind = {0};
    str_printf(out, "| `%s` | ", k->name);
    for (const char *a = k->aliases; *a;) {
        size_t n = strcspn(a, " ");
        str_printf(out, "`%.*s`%s", (int)n, a, a[n] ? ", " : "");
        a += n + (a[n] == ' ');
    }
    str_puts(out, " | ");
    if (key_has_value(k)) {
        put_kind(k, &kind);
        put_cell(kind.s, out);
        str_printf(out, " | `%s` | ", k->def);
    } else if (k->kind == KK_LATER) {
        str_printf(out, "`%.*s` | ", (int)strlen(k->def) - 2,
                   strlen(k->def) > 2 ? k->def + 1 : "-");
    }
    put_cell(k->doc, out);
    put_readers(k, out);
    str_printf(out, " | %s |\n", k->from);
    str_free(&kind);
}

void config_docs(Str *out)
{
    str_puts(out, "# Configuration keys\n\n"
                  "Generated by `make docs` from `run/keys.def`; do not edit. `qrun help NAME` "
                  "prints one entry.\n\n"
                  "A configuration is a flat YAML map; on the command line `key=value` follows the "
                  "file, in any order. The order of strength is: default, included "
                  "files (`_default: FILE`, `!include FILE`), the file, the command line. A "
                  "repeated key: the last one counts. `~` asks for the "
                  "default. `-` in a key counts as `_`. Names under \"known from\" are those of "
                  "the original systems' files and flags.\n");
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        if (k->kind != KK_SECTION) {
            docs_row(k, out);
            continue;
        }
        str_printf(out, "\n## %s\n\n", k->doc);
        if (key_has_value(k + 1))
            str_puts(out, "| key | also | value | default | meaning | known from "
                          "|\n|---|---|---|---|---|---|\n");
        else if (k[1].kind == KK_LATER)
            str_puts(out, "| key | also | accepted | what it would ask for | known from "
                          "|\n|---|---|---|---|---|\n");
        else
            str_puts(out, "| key | also | why | known from |\n|---|---|---|---|\n");
    }
}
