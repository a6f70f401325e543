/* io/shellvars.c -- see shellvars.h. */
#include "io/shellvars.h"

#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

#define MAX_FILE ((size_t)1 << 20)
#define MAX_TEXT ((size_t)1 << 20) /* of one value: `a=$a$a` doubles */

typedef struct Reader {
    ShellFile *f;
    const char *p;
    int line, col;
    Err *e;
} Reader;

static int fault(Reader *r, int line, int col, const char *what)
{
    return err_at(r->e, ERR_CONFIG, r->f->file, line, col, "%s", what);
}

static void step(Reader *r)
{
    if (*r->p++ == '\n') {
        r->line++;
        r->col = 1;
    } else {
        r->col++;
    }
}

static void put(ShellText *t, char c, int line, int col)
{
    if (t->len + 1 >= t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->s = xrealloc(t->s, t->cap);
        t->line = xrealloc(t->line, t->cap * sizeof *t->line);
        t->col = xrealloc(t->col, t->cap * sizeof *t->col);
    }
    t->line[t->len] = line;
    t->col[t->len] = col;
    t->s[t->len++] = c;
    t->s[t->len] = 0;
}

static void take(Reader *r, ShellText *t)
{
    put(t, *r->p, r->line, r->col);
    step(r);
}

static void free_text(ShellText *t)
{
    free(t->s);
    free(t->line);
    free(t->col);
    *t = (ShellText){0};
}

static bool name_start(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Length of the name at s; 0: none. */
static size_t name_length(const char *s)
{
    size_t n = 0;
    if (!name_start(*s)) return 0;
    while (name_start(s[n]) || (s[n] >= '0' && s[n] <= '9')) n++;
    return n;
}

static ShellVar *find(const ShellFile *f, const char *name, size_t n)
{
    for (size_t i = 0; i < f->nvar; i++)
        if (strlen(f->var[i].name) == n && !memcmp(f->var[i].name, name, n)) return &f->var[i];
    return NULL;
}

const ShellVar *shell_get(const ShellFile *f, const char *name)
{
    return find(f, name, strlen(name));
}

static void put_variable(Reader *r, ShellText *t, const char *name, size_t n, bool *undefined)
{
    ShellVar *v = find(r->f, name, n);
    char *copy = xstrndup(name, n);
    const char *env = strpbrk(copy, "abcdefghijklmnopqrstuvwxyz") ? NULL : getenv(copy);
    for (size_t i = 0; v && i < v->value.len; i++)
        put(t, v->value.s[i], v->value.line[i], v->value.col[i]);
    for (size_t i = 0; !v && env && env[i]; i++) put(t, env[i], r->line, r->col);
    if (v) v->used = true;
    *undefined = *undefined || (v ? v->undefined : !env);
    free(copy);
}

/* At a `$`. */
static int dollar(Reader *r, ShellText *t, bool *undefined)
{
    const bool brace = r->p[1] == '{';
    const char *name = r->p + 1 + brace;
    const size_t n = name_length(name);
    if (r->p[1] == '(')
        return fault(r, r->line, r->col, "commands are not executed; expected a plain value");
    if (!n && !brace) {
        take(r, t);
        return 0;
    }
    if (!n || (brace && name[n] != '}'))
        return fault(r, r->line, r->col, "expected ${NAME}; other forms are not understood");
    put_variable(r, t, name, n, undefined);
    for (size_t i = 0; i < 1 + n + 2 * (size_t)brace; i++) step(r);
    return t->len > MAX_TEXT ? fault(r, r->line, r->col, "the value is too long") : 0;
}

/* At a backslash. */
static int backslash(Reader *r, ShellText *t, bool quoted)
{
    step(r);
    if (!*r->p) return fault(r, r->line, r->col, "a backslash at the end of the file");
    if (*r->p == '\n') {
        step(r);
        return 0;
    }
    if (quoted && !strchr("\"\\$`", *r->p)) put(t, '\\', r->line, r->col);
    take(r, t);
    return 0;
}

static int quotes(Reader *r, ShellText *t, bool *undefined)
{
    const char mark = *r->p;
    const int line = r->line, col = r->col;
    step(r);
    while (*r->p && *r->p != mark) {
        if (mark == '"' && *r->p == '`')
            return fault(r, r->line, r->col, "commands are not executed; expected a plain value");
        if (mark == '"' && *r->p == '$') {
            if (dollar(r, t, undefined)) return -1;
        } else if (mark == '"' && *r->p == '\\') {
            if (backslash(r, t, true)) return -1;
        } else {
            take(r, t);
        }
    }
    if (!*r->p) return fault(r, line, col, "quotes that do not end");
    step(r);
    return 0;
}

static int value(Reader *r, ShellText *t, bool *undefined)
{
    while (*r->p && !strchr(" \t\r\n;", *r->p)) {
        int bad;
        if (strchr("|&<>()`", *r->p))
            return fault(r, r->line, r->col, "commands are not executed; expected a plain value");
        bad = *r->p == '\'' || *r->p == '"' ? quotes(r, t, undefined)
              : *r->p == '$'                ? dollar(r, t, undefined)
              : *r->p == '\\'               ? backslash(r, t, false)
                                            : (take(r, t), 0);
        if (bad) return -1;
    }
    return 0;
}

static void skip_blanks(Reader *r)
{
    while (*r->p == ' ' || *r->p == '\t' || *r->p == '\r') step(r);
}

static int assignment(Reader *r)
{
    static const char export[] = "export";
    const int line = r->line, col = r->col;
    const size_t word = name_length(r->p);
    const char *name;
    ShellVar *v;
    ShellText text = {0};
    size_t n;
    bool append, undefined = false;
    if (word == strlen(export) && !memcmp(r->p, export, word) &&
        (r->p[word] == ' ' || r->p[word] == '\t')) {
        for (size_t i = 0; i < word; i++) step(r);
        skip_blanks(r);
    }
    name = r->p;
    n = name_length(name);
    append = name[n] == '+' && name[n + 1] == '=';
    if (!n || (name[n] != '=' && !append))
        return fault(r, line, col,
                     "neither a comment nor NAME=VALUE; a configuration is read, not executed");
    for (size_t i = 0; i < n + 1 + append; i++) step(r);
    v = find(r->f, name, n);
    if (append && v) {
        for (size_t i = 0; i < v->value.len; i++)
            put(&text, v->value.s[i], v->value.line[i], v->value.col[i]);
        undefined = v->undefined;
    }
    if (value(r, &text, &undefined)) {
        free_text(&text);
        return -1;
    }
    if (!v) {
        mem_grow(&r->f->var, &r->f->cap, r->f->nvar + 1, sizeof *r->f->var);
        v = &r->f->var[r->f->nvar++];
        *v = (ShellVar){.name = xstrndup(name, n)};
    }
    free_text(&v->value);
    v->value = text;
    v->undefined = undefined;
    v->line = line;
    v->col = col;
    skip_blanks(r);
    if (*r->p && !strchr("\n;#", *r->p))
        return fault(
            r, r->line, r->col,
            "something behind a value; expected the end of the line, or quotes around it all");
    return 0;
}

int shell_read(ShellFile *f, const char *path, Err *e)
{
    char *text;
    Reader r = {f, NULL, 1, 1, e};
    int bad = 0;
    *f = (ShellFile){.file = path};
    if (!fs_exists(path)) return err_set(e, ERR_CONFIG, "%s: no such file", path);
    if (!(text = fs_read_text(path, MAX_FILE, e))) return -1;
    for (r.p = text; !bad && *r.p;) {
        if (strchr(" \t\r\n;", *r.p))
            step(&r);
        else if (*r.p == '#')
            while (*r.p && *r.p != '\n') step(&r);
        else
            bad = assignment(&r);
    }
    free(text);
    return bad;
}

void shell_free(ShellFile *f)
{
    for (size_t i = 0; i < f->nvar; i++) {
        free(f->var[i].name);
        free_text(&f->var[i].value);
    }
    free(f->var);
    *f = (ShellFile){0};
}

size_t shell_words(const ShellVar *v, Arena *a, ShellWord **out)
{
    const ShellText *t = &v->value;
    size_t n = 0, cap = 0;
    ShellWord *list = NULL;
    for (size_t i = 0; i < t->len;) {
        const size_t gap = strspn(t->s + i, " \t\r\n"), word = strcspn(t->s + i + gap, " \t\r\n");
        i += gap;
        if (!word) break;
        mem_grow(&list, &cap, n + 1, sizeof *list);
        list[n++] =
            (ShellWord){arena_printf(a, "%.*s", (int)word, t->s + i), t->line[i], t->col[i]};
        i += word;
    }
    *out = n ? memcpy(arena_alloc(a, n * sizeof *list), list, n * sizeof *list) : NULL;
    free(list);
    return n;
}
