/* test/support/words.c -- see test/words.h. */
#include "test/words.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 64 };

typedef struct Overrides {
    char *v[MAX_WORDS];
    int n;
} Overrides;

static void add(Overrides *o, const char *key, const char *value)
{
    ASSERT(o->n < MAX_WORDS, "more than %d options", MAX_WORDS);
    o->v[o->n++] = xasprintf("%s=%s", key, value);
}

/* Flags have no value; the original's fm_half_range switches off, and -1 steps of warm-up are none. */
static void add_options(Overrides *o, char *text)
{
    char *word[MAX_WORDS], *rest = NULL;
    int n = 0;
    for (char *t = strtok_r(text, " ", &rest); t && n < MAX_WORDS; t = strtok_r(NULL, " ", &rest)) word[n++] = t;
    for (int i = 0; i < n; i++) {
        const char *key = word[i] + strspn(word[i], "-"), *value = i + 1 < n ? word[i + 1] : "--";
        const bool flag = str_starts(value, "--");
        if (flag) value = str_eq(key, "fm_half_range") ? "false" : "true";
        if (str_eq(key, "input_size")) key = "image_size";
        if (str_eq(key, "stable") && *value == '-') value = "0";
        add(o, key, value);
        i += !flag;
    }
}

int words_config(Config *cfg, const char *model, const char *words, const char *options, Err *e)
{
    Overrides o = {.n = 0};
    char *list = xasprintf("[%s]", words), *text = xasprintf("%s", options);
    int status;
    add(&o, "model", model);
    add(&o, "names", "keyword");
    add(&o, "dataset", "fake");
    if (*words) add(&o, "keyword", list);
    add_options(&o, text);
    status = config_load(cfg, "", o.n, o.v, e);
    for (int i = 0; i < o.n; i++) free(o.v[i]);
    free(list);
    free(text);
    return status;
}
