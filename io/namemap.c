/* io/namemap.c -- see namemap.h. */
#include "io/namemap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

enum { MAX_FILE = 1 << 24, MAX_ALTERNATIVES = 64 };

typedef struct Line {
    char *text;
    int number;
} Line;

typedef struct Lines {
    const char *file;
    Line *v;
    size_t n, cap;
} Lines;

static char *trimmed(char *s, const char *around)
{
    size_t n;
    s += strspn(s, around);
    for (n = strlen(s); n && strchr(around, s[n - 1]); n--) continue;
    s[n] = 0;
    return s;
}

static int read_lines(Lines *l, Arena *a, const char *file, Err *e)
{
    char *text = fs_read_text(file, MAX_FILE, e), *rest = text, *line;
    *l = (Lines){.file = file};
    if (!text) return -1;
    for (int number = 1; (line = strsep(&rest, "\n")); number++) {
        line = trimmed(line, " \t\r");
        if (!*line || *line == '#') continue;
        line = trimmed(line, " \t'\",");
        mem_grow(&l->v, &l->cap, l->n + 1, sizeof *l->v);
        l->v[l->n++] = (Line){arena_strdup(a, line), number};
    }
    free(text);
    return 0;
}

/* "a{b,c}d": abd, acd. How many; 0 with `e`. */
static int expand(Arena *a, const Lines *l, const Line *line, const char *out[MAX_ALTERNATIVES],
                  Err *e)
{
    const char *open = strchr(line->text, '{'), *close = strchr(line->text, '}');
    int n = 0;
    if (!open && !close) {
        out[0] = line->text;
        return 1;
    }
    if (!open || !close || close < open || strpbrk(close + 1, "{}") ||
        memchr(open + 1, '{', (size_t)(close - open - 1))) {
        err_at(e, ERR_CONFIG, l->file, line->number, 0,
               "'%.80s'; expected one pair of braces, as in bn{1,2}", line->text);
        return 0;
    }
    for (const char *p = open + 1; n < MAX_ALTERNATIVES;) {
        const size_t len = strcspn(p, ",}");
        out[n++] = arena_printf(a, "%.*s%.*s%s", (int)(open - line->text), line->text, (int)len, p,
                                close + 1);
        if (p[len] == '}') return n;
        p += len + 1;
    }
    err_at(e, ERR_CONFIG, l->file, line->number, 0, "more than %d alternatives", MAX_ALTERNATIVES);
    return 0;
}

static int add_pair(NameMap *m, const Lines *from, const Lines *to, size_t k, Err *e)
{
    const char *a[MAX_ALTERNATIVES], *b[MAX_ALTERNATIVES];
    int na, nb;
    na = expand(&m->arena, from, &from->v[k], a, e),
    nb = na ? expand(&m->arena, to, &to->v[k], b, e) : 0;
    if (!nb) return -1;
    if (na != nb)
        return err_at(e, ERR_CONFIG, to->file, to->v[k].number, 0,
                      "%d alternatives; line %d of %s has %d", nb, from->v[k].number, from->file,
                      na);
    for (int i = 0; i < na; i++) {
        if (!*a[i])
            return err_at(e, ERR_CONFIG, from->file, from->v[k].number, 0,
                          "an empty name; expected a part of names");
        mem_grow(&m->pair, &m->cap, m->n + 1, sizeof *m->pair);
        m->pair[m->n++] = (NamePair){a[i], b[i], from->v[k].number, 0};
    }
    return 0;
}

int namemap_read(NameMap *m, const char *from, const char *to, Err *e)
{
    Lines a, b = {0};
    int r;
    *m = (NameMap){0};
    r = read_lines(&a, &m->arena, from, e) || read_lines(&b, &m->arena, to, e) ? -1 : 0;
    if (!r && a.n != b.n)
        r = err_set(e, ERR_CONFIG, "%s has %zu names and %s has %zu; expected as many in both",
                    from, a.n, to, b.n);
    for (size_t k = 0; k < a.n && !r; k++) r = add_pair(m, &a, &b, k, e);
    free(a.v);
    free(b.v);
    return r;
}

void namemap_free(NameMap *m)
{
    free(m->pair);
    arena_free(&m->arena);
    *m = (NameMap){0};
}

/* Every occurrence of p->from in `name`; NULL: there is none. */
static char *replaced(const NamePair *p, const char *name)
{
    const size_t n = strlen(p->from);
    const char *at = strstr(name, p->from);
    Str out = {0};
    if (!at) return NULL;
    for (; at; at = strstr(name, p->from)) {
        str_putn(&out, name, (size_t)(at - name));
        str_puts(&out, p->to);
        name = at + n;
    }
    str_puts(&out, name);
    return out.s;
}

char *namemap_apply(NameMap *m, const char *name)
{
    char *now = xstrdup(name);
    for (size_t i = 0; i < m->n; i++) {
        char *next = replaced(&m->pair[i], now);
        if (!next) continue;
        free(now);
        now = next;
        m->pair[i].used++;
    }
    return now;
}
