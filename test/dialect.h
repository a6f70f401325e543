/* test/dialect.h -- whether every key of an original's experiment file is known, has the value
 * written down, and is told of by `qrun show`. Include cmocka.h first. */
#ifndef TEST_DIALECT_H
#define TEST_DIALECT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/keys.h"
#include "run/log.h"

/* "[5, 4]" and "[5,4]" are the same. */
static inline void dialect_squeeze(char *s)
{
    char *to = s;
    for (; *s; s++)
        if (*s != ' ') *to++ = *s;
    *to = 0;
}

/* Whether the option reads as it was written: True, '' and null are spellings of YAML. */
static inline bool dialect_same_value(const char *written, const char *held)
{
    char *end;
    const double a = strtod(written, &end);
    if (end != written && !*end) return a == strtod(held, NULL);
    if (str_eq(written, "True")) return str_eq(held, "true");
    if (str_eq(written, "False")) return str_eq(held, "false") || str_eq(held, "[]");
    if (str_eq(written, "''") || str_eq(written, "null"))
        return str_eq(held, "\"\"") || str_eq(held, "0");
    return str_eq(written, held);
}

/* The last value a key has in the text (which begins with a new line), without its comment. */
static inline void dialect_last_value(const char *text, const char *key, char *out, size_t size)
{
    char start[80];
    const char *found = NULL;
    size_t n;
    snprintf(start, sizeof start, "\n%.70s: ", key);
    for (const char *p = text; (p = strstr(p, start)); p++) found = p + strlen(start);
    assert_non_null(found);
    n = strcspn(found, "\n#");
    while (n && found[n - 1] == ' ') n--;
    snprintf(out, size, "%.*s", (int)n, found);
}

static inline void dialect_check_key(const Config *c, const char *name, const char *text,
                                     const char *show, const char *word)
{
    const Key *k = key_find(word);
    char want[200], line[80], have[400];
    Str held = {0};
    if (!k) fail_msg("%s: unknown key %s", name, word);
    if (k->kind == KK_LATER) fail_msg("%s: %s is not available yet", name, word);
    snprintf(line, sizeof line, "\n  %s ", k->name);
    if (!strstr(show, line)) fail_msg("%s: `qrun show` says nothing of %s", name, word);
    if (k->kind != KK_VALUE && k->kind != KK_LIST) return;
    dialect_last_value(text, word, want, sizeof want);
    key_value_text(c, k, &held);
    snprintf(have, sizeof have, "%s", held.s);
    dialect_squeeze(want);
    dialect_squeeze(have);
    if (!dialect_same_value(want, have))
        fail_msg("%s: %s is %s, the file says %s", name, word, held.s, want);
    str_free(&held);
}

/* All keys of the text (lines "key: value"); how many there were. */
static inline int dialect_check_keys(const Config *c, const char *name, const char *file_text)
{
    Str text = {0}, show = {0};
    int n = 0;
    str_printf(&text, "\n%s", file_text);
    str_puts(&show, "\n");
    config_show(c, &show);
    for (const char *p = text.s; *p; p += strcspn(p, "\n") + (strchr(p, '\n') != NULL)) {
        char word[80];
        const size_t len = strcspn(p, ":\n");
        if (*p == '#' || p[len] != ':' || !len) continue;
        snprintf(word, sizeof word, "%.*s", (int)len, p);
        dialect_check_key(c, name, text.s, show.s, word);
        n++;
    }
    str_free(&text);
    str_free(&show);
    return n;
}

static Str dialect_logged;
static inline void dialect_keep(LogLevel level, const char *text)
{
    if (level == LOG_DEBUG) str_printf(&dialect_logged, "%s\n", text);
}

/* What is said at -v of keys without effect: each of `wanted` begins one line, and just one. */
static inline void dialect_check_notes(const Config *c, const char *const *wanted, size_t n)
{
    log_set(LOG_DEBUG, dialect_keep);
    config_note_ignored(c);
    log_set(LOG_INFO, NULL);
    for (size_t i = 0; i < n; i++) {
        const char *at = strstr(dialect_logged.s, wanted[i]);
        if (!at) fail_msg("no line '%s' in\n%s", wanted[i], dialect_logged.s);
        if (strstr(at + 1, wanted[i]))
            fail_msg("two lines '%s' in\n%s", wanted[i], dialect_logged.s);
    }
    str_free(&dialect_logged);
}

#endif
