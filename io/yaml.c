/* io/yaml.c -- see yaml.h. libyaml's events to a tree whose nodes know their file, line and column.
 *
 * What a hostile or damaged file could do is bounded here: nesting (also through aliases and
 * includes), the number of nodes counted with every alias written out ("billion laughs"), the
 * number and size of files. Aliases share nodes; an alias to a node that is still open would make a
 * loop and is refused. */
#include "io/yaml.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "io/fs.h"

enum { MAX_DEPTH = 64, MAX_NODES = 400000, MAX_FILES = 256, MAX_BYTES = 16 << 20 };

/* What all files of one read share. */
typedef struct Reader {
    Arena *a;
    Err *e;
    long nodes; /* made so far */
    int files;
} Reader;

/* A subtree and its extent with all aliases written out. */
typedef struct Built {
    Yaml *y;
    long size;
    int depth;
} Built;

typedef struct Anchor {
    char *name;
    Built b; /* b.y NULL: still open */
} Anchor;

/* One file being read; `up` is the one that includes it. */
typedef struct Source {
    Reader *r;
    struct Source *up;
    const char *file;
    char *real; /* resolved path, to find cycles; NULL for text */
    bool places;
    const char *text;
    size_t len;
    yaml_parser_t p;
    Anchor *anchor;
    size_t nanchor, cap;
} Source;

/* Entries of a list or map while it is open. */
typedef struct Entries {
    Yaml **k, **v;
    size_t n, kcap, vcap;
} Entries;

static int read_file(Reader *r, Source *up, const char *path, const Yaml *at, int depth,
                     Built *out);
static int build(Source *s, yaml_event_t *ev, int depth, Built *out);

static int fail_at(const Source *s, int line, int col, const char *fmt, ...) PRINTF_LIKE(4, 5);
static int fail_at(const Source *s, int line, int col, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_at(s->r->e, ERR_CONFIG, s->file, s->places ? line : 0, s->places ? col : 0, "%s",
                  text);
}

#define MARK(m) (int)(m).line + 1, (int)(m).column + 1

/* The byte of the text at a line and column (from 0), or 0. */
static char byte_at(const Source *s, size_t line, size_t col)
{
    const char *p = s->text, *end = s->text + s->len;
    for (; line > 0; line--) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (!p++) return 0;
    }
    return (size_t)(end - p) > col ? p[col] : 0;
}

static int fail_syntax(const Source *s)
{
    const yaml_parser_t *p = &s->p;
    yaml_mark_t m = p->problem_mark;
    char context[160] = "";
    if (p->error == YAML_READER_ERROR) {
        int line = 1, col = 1;
        for (size_t i = 0; i < p->problem_offset && i < s->len; i++) {
            col = s->text[i] == '\n' ? 1 : col + 1;
            line += s->text[i] == '\n';
        }
        return fail_at(s, line, col, "not a text file: %s", p->problem ? p->problem : "unreadable");
    }
    if (byte_at(s, m.line, m.column) == '\t')
        return fail_at(s, MARK(m), "a tab character; expected spaces for indentation");
    if (p->context && s->places && p->context_mark.line != m.line)
        snprintf(context, sizeof context, ", %s that begins in line %d", p->context,
                 (int)p->context_mark.line + 1);
    return fail_at(s, MARK(m), "not valid YAML: %s%s", p->problem ? p->problem : "out of memory",
                   context);
}

static int next(Source *s, yaml_event_t *ev)
{
    memset(ev, 0, sizeof *ev);
    return yaml_parser_parse(&s->p, ev) ? 0 : fail_syntax(s);
}

static Yaml *node(Source *s, YamlKind kind, yaml_mark_t m)
{
    Yaml *y = arena_alloc(s->r->a, sizeof *y);
    y->kind = kind;
    y->file = s->file;
    y->line = s->places ? (int)m.line + 1 : 0;
    y->col = s->places ? (int)m.column + 1 : 0;
    s->r->nodes++;
    return y;
}

static int check_size(const Source *s, yaml_mark_t m, long size)
{
    if (size > MAX_NODES || s->r->nodes > MAX_NODES)
        return fail_at(s, MARK(m), "more than %d values (aliases and included files counted)",
                       (int)MAX_NODES);
    return 0;
}

/* ---- scalars and tags ---- */

/* Accepts the tags that say nothing new; *text is set by those that make a scalar a string. */
static int check_tag(const Source *s, const char *tag, yaml_mark_t m, bool *text)
{
    static const char std[] = "tag:yaml.org,2002:";
    static const char *const known[] = {"int", "float", "bool", "null", "seq", "map"};
    if (!tag) return 0;
    if (str_eq(tag, "!") || str_eq(tag, "tag:yaml.org,2002:str")) {
        *text = true;
        return 0;
    }
    if (str_starts(tag, std))
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (str_eq(tag + sizeof std - 1, known[i])) return 0;
    return fail_at(s, MARK(m), "unknown tag '%.80s'; expected !include FILE or no tag", tag);
}

static const char *relative_to(Arena *a, const char *from, const char *name)
{
    const char *slash = strrchr(from, '/');
    if (name[0] == '/' || !slash) return arena_strdup(a, name);
    return arena_printf(a, "%.*s/%s", (int)(slash - from), from, name);
}

static int build_scalar(Source *s, const yaml_event_t *ev, int depth, Built *out)
{
    const char *v = (const char *)ev->data.scalar.value, *tag = (const char *)ev->data.scalar.tag;
    Yaml *y = node(s, Y_SCALAR, ev->start_mark);
    char *copy = arena_alloc(s->r->a, ev->data.scalar.length + 1);
    memcpy(copy, v, ev->data.scalar.length);
    y->s = copy;
    y->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (strlen(y->s) != ev->data.scalar.length)
        return fail_at(s, MARK(ev->start_mark), "a NUL character inside a value");
    if (str_eq(tag, "!include")) {
        if (!y->s[0]) return fail_at(s, MARK(ev->start_mark), "!include without a file name");
        return read_file(s->r, s, relative_to(s->r->a, s->file, y->s), y, depth, out);
    }
    *out = (Built){y, 1, 1};
    return check_tag(s, tag, ev->start_mark, &y->quoted);
}

/* ---- lists and maps ---- */

static void put(Entries *en, Yaml *k, Yaml *v)
{
    mem_grow(&en->k, &en->kcap, en->n + 1, sizeof *en->k);
    mem_grow(&en->v, &en->vcap, en->n + 1, sizeof *en->v);
    en->k[en->n] = k;
    en->v[en->n++] = v;
}

static void entries_free(Entries *en)
{
    free(en->k);
    free(en->v);
}

/* Adds the entries of one base map, given as a tree or (files) as a file name. */
static int put_base(Source *s, const char *key, Yaml *b, bool files, int depth, Entries *base,
                    long *size)
{
    Built f = {b, 0, 0};
    if (files && b->kind == Y_SCALAR && !yaml_null(b)) {
        if (read_file(s->r, s, relative_to(s->r->a, b->file, b->s), b, depth + 1, &f)) return -1;
        *size += f.size;
    }
    if (f.y->kind != Y_MAP)
        return fail_at(s, b->line, b->col, "%s: expected %s", key,
                       files ? "a file that holds a map, or a list of such files"
                             : "a map (*alias or !include FILE), or a list of maps");
    for (int i = 0; i < f.y->n; i++) put(base, f.y->k[i], f.y->v[i]);
    return 0;
}

/* Replaces `_default` and `<<` among the entries by what they stand for, in front of all others. */
static int inherit(Source *s, Entries *en, int depth, long *size)
{
    static const struct {
        const char *key;
        bool files;
    } kinds[] = {{"_default", true}, {"<<", false}};
    Entries base = {0};
    int rc = 0;
    for (size_t kind = 0; kind < ARRAY_LEN(kinds) && !rc; kind++)
        for (size_t i = 0; i < en->n && !rc; i++) {
            Yaml *v = en->v[i];
            if (!str_eq(en->k[i]->s, kinds[kind].key) || en->k[i]->quoted) continue;
            if (v->kind != Y_LIST)
                rc = put_base(s, kinds[kind].key, v, kinds[kind].files, depth, &base, size);
            for (int j = 0; v->kind == Y_LIST && j < v->n && !rc; j++)
                rc = put_base(s, kinds[kind].key, v->v[kinds[kind].files ? j : v->n - 1 - j],
                              kinds[kind].files, depth, &base, size);
        }
    for (size_t i = 0; i < en->n; i++)
        if (en->k[i]->quoted || !(str_eq(en->k[i]->s, "_default") || str_eq(en->k[i]->s, "<<")))
            put(&base, en->k[i], en->v[i]);
    entries_free(en);
    *en = base;
    return rc;
}

static int build_entries(Source *s, yaml_event_type_t end, int depth, Entries *en, Built *out)
{
    for (;;) {
        yaml_event_t ev;
        yaml_mark_t m;
        Built k = {0}, v = {0};
        if (next(s, &ev)) return -1;
        m = ev.start_mark;
        if (ev.type == end) {
            yaml_event_delete(&ev);
            return end == YAML_MAPPING_END_EVENT ? inherit(s, en, depth, &out->size) : 0;
        }
        if (end == YAML_MAPPING_END_EVENT) {
            if (build(s, &ev, depth + 1, &k)) return -1;
            if (k.y->kind != Y_SCALAR)
                return fail_at(s, MARK(m), "a key is a word, not a list or a map");
            if (next(s, &ev)) return -1;
        }
        if (build(s, &ev, depth + 1, &v)) return -1;
        put(en, k.y, v.y);
        out->size += k.size + v.size;
        if (v.depth + 1 > out->depth) out->depth = v.depth + 1;
        if (check_size(s, m, out->size)) return -1;
        if (depth + out->depth > MAX_DEPTH)
            return fail_at(s, MARK(m), "nested more than %d deep", (int)MAX_DEPTH);
    }
}

static int build_collection(Source *s, const yaml_event_t *ev, int depth, Built *out)
{
    bool map = ev->type == YAML_MAPPING_START_EVENT, text = false;
    const char *tag =
        (const char *)(map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag);
    Entries en = {0};
    Yaml *y = node(s, map ? Y_MAP : Y_LIST, ev->start_mark);
    int rc;
    *out = (Built){y, 1, 1};
    if (check_tag(s, tag, ev->start_mark, &text)) return -1;
    if (text)
        return fail_at(s, MARK(ev->start_mark), "a string was announced, a list or map follows");
    rc = build_entries(s, map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT, depth, &en, out);
    if (!rc) rc = check_size(s, ev->start_mark, out->size);
    if (!rc && en.n > 0) {
        y->n = (int)en.n;
        y->v = arena_alloc(s->r->a, en.n * sizeof *y->v);
        memcpy(y->v, en.v, en.n * sizeof *y->v);
        if (map) {
            y->k = arena_alloc(s->r->a, en.n * sizeof *y->k);
            memcpy(y->k, en.k, en.n * sizeof *y->k);
        }
    }
    entries_free(&en);
    return rc;
}

/* ---- anchors ---- */

static int build_alias(Source *s, const yaml_event_t *ev, Built *out)
{
    const char *name = (const char *)ev->data.alias.anchor;
    for (size_t i = s->nanchor; i-- > 0;) {
        if (!str_eq(s->anchor[i].name, name)) continue;
        if (!s->anchor[i].b.y)
            return fail_at(s, MARK(ev->start_mark), "alias *%.80s lies inside what it stands for",
                           name);
        *out = s->anchor[i].b;
        return 0;
    }
    return fail_at(s, MARK(ev->start_mark), "alias *%.80s: no such anchor before it", name);
}

/* Builds the node that `ev` begins; takes and releases the event. */
static int build(Source *s, yaml_event_t *ev, int depth, Built *out)
{
    bool scalar = ev->type == YAML_SCALAR_EVENT, map = ev->type == YAML_MAPPING_START_EVENT;
    size_t mine = 0;
    int rc;
    if (depth > MAX_DEPTH) {
        rc = fail_at(s, MARK(ev->start_mark), "nested more than %d deep", (int)MAX_DEPTH);
    } else if (ev->type == YAML_ALIAS_EVENT) {
        rc = build_alias(s, ev, out);
    } else {
        const yaml_char_t *name = scalar ? ev->data.scalar.anchor
                                  : map  ? ev->data.mapping_start.anchor
                                         : ev->data.sequence_start.anchor;
        if (name) {
            mem_grow(&s->anchor, &s->cap, s->nanchor + 1, sizeof *s->anchor);
            s->anchor[mine = s->nanchor++] = (Anchor){xstrdup((const char *)name), {0}};
        }
        rc = scalar ? build_scalar(s, ev, depth, out) : build_collection(s, ev, depth, out);
        if (name && !rc) s->anchor[mine].b = *out;
    }
    yaml_event_delete(ev);
    return rc;
}

/* ---- documents and files ---- */

/* The first document; a second one is an error. Nothing, or only comments: `*out` is an empty map.
 */
static int build_document(Source *s, int depth, Built *out)
{
    bool have = false;
    for (;;) {
        yaml_event_t ev;
        if (next(s, &ev)) return -1;
        switch (ev.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (have) {
                yaml_mark_t m = ev.start_mark;
                yaml_event_delete(&ev);
                return fail_at(s, MARK(m), "a second document; expected one per file");
            }
            break;
        case YAML_STREAM_END_EVENT: {
            yaml_mark_t m = ev.start_mark;
            yaml_event_delete(&ev);
            if (!have) {
                *out = (Built){node(s, Y_MAP, m), 1, 1};
                out->y->line = s->places;
                out->y->col = s->places;
            }
            return 0;
        }
        default:
            if (build(s, &ev, depth, out)) return -1;
            have = true;
            continue;
        }
        yaml_event_delete(&ev);
    }
}

static int parse(Source *s, int depth, Built *out)
{
    int rc;
    if (!yaml_parser_initialize(&s->p)) return err_set(s->r->e, ERR_RUN, "out of memory");
    yaml_parser_set_input_string(&s->p, (const unsigned char *)s->text, s->len);
    rc = build_document(s, depth, out);
    yaml_parser_delete(&s->p);
    for (size_t i = 0; i < s->nanchor; i++) free(s->anchor[i].name);
    free(s->anchor);
    return rc;
}

/* Length of a file's name without .yml or .yaml, which would make all configurations look alike. */
static size_t stem(const char *name)
{
    return strlen(name) - (str_ends(name, ".yml") ? 4 : str_ends(name, ".yaml") ? 5 : 0);
}

/* "; did you mean 'F'?" with a file of the same folder that has a similar name, or "". */
static void similar_file(const char *path, char *out, size_t size)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *best;
    char *dir = slash ? xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : xstrdup(".");
    char *word = xstrndup(base, stem(base)), **stems = NULL, **names = NULL;
    size_t n = 0, cap_stems = 0, cap_names = 0;
    DIR *d = opendir(dir);
    const struct dirent *en;
    while (d && n < 4096 && (en = readdir(d))) {
        if (en->d_name[0] == '.') continue;
        mem_grow(&stems, &cap_stems, n + 1, sizeof *stems);
        mem_grow(&names, &cap_names, n + 1, sizeof *names);
        stems[n] = xstrndup(en->d_name, stem(en->d_name));
        names[n++] = xstrdup(en->d_name);
    }
    if (d) closedir(d);
    best = n > 0 && *word ? str_nearest(word, (const char *const *)stems, n) : NULL;
    out[0] = 0;
    for (size_t i = 0; i < n; i++) {
        if (stems[i] == best)
            snprintf(out, size, "; did you mean '%.*s%s'?", (int)(base - path), path, names[i]);
        free(names[i]);
    }
    for (size_t i = 0; i < n; i++) free(stems[i]);
    free(stems);
    free(names);
    free(word);
    free(dir);
}

/* Puts the message where the user can act: at the line that names the file, or at the file itself.
 */
static int fail_file(Reader *r, const Source *up, const Yaml *at, const char *path,
                     const char *what)
{
    if (!up) return err_at(r->e, ERR_CONFIG, path, 0, 0, "%s", what);
    return fail_at(up, at->line, at->col, "cannot include '%s': %s", path, what);
}

/* Reads one file, `up` and `at` being the place that names it (NULL for the first). */
static int read_file(Reader *r, Source *up, const char *path, const Yaml *at, int depth, Built *out)
{
    Source s = {.r = r, .up = up, .file = arena_strdup(r->a, path), .places = true};
    Err fe = {0};
    char what[1100];
    char *text;
    int rc;
    s.real = realpath(path, NULL);
    if (!s.real) {
        char like[512];
        int code = errno;
        similar_file(path, like, sizeof like);
        snprintf(what, sizeof what, "%s%s", code == ENOENT ? "no such file" : strerror(code), like);
        return fail_file(r, up, at, path, what);
    }
    for (const Source *p = up; p; p = p->up)
        if (str_eq(p->real, s.real)) {
            free(s.real);
            return fail_file(r, up, at, path, "it includes itself");
        }
    if (++r->files > MAX_FILES || fs_exists(path) != 1) {
        free(s.real);
        return fail_file(r, up, at, path,
                         r->files > MAX_FILES ? "too many files in one configuration"
                                              : "not a file");
    }
    text = fs_read(path, MAX_BYTES, &s.len, &fe);
    if (!text) {
        free(s.real);
        if (up) return fail_file(r, up, at, path, fe.msg);
        return err_set(r->e, ERR_CONFIG, "%s", fe.msg);
    }
    s.text = text;
    if (up && !str_ends(path, ".yml") && !str_ends(path, ".yaml")) {
        Yaml *y = node(&s, Y_SCALAR, (yaml_mark_t){0});
        y->s = arena_strdup(r->a, text);
        y->quoted = true;
        *out = (Built){y, 1, 1};
        rc = 0;
    } else {
        rc = parse(&s, depth, out);
    }
    free(text);
    free(s.real);
    return rc;
}

Yaml *yaml_read(Arena *a, const char *path, Err *e)
{
    Reader r = {.a = a, .e = e};
    Built b;
    return read_file(&r, NULL, path, NULL, 0, &b) ? NULL : b.y;
}

Yaml *yaml_parse(Arena *a, const char *name, const char *text, size_t len, Err *e)
{
    Reader r = {.a = a, .e = e};
    Source s = {.r = &r, .file = arena_strdup(a, name), .places = true, .text = text, .len = len};
    Built b;
    return parse(&s, 0, &b) ? NULL : b.y;
}

Yaml *yaml_value(Arena *a, const char *name, const char *text, Err *e)
{
    Reader r = {.a = a, .e = e};
    Source s = {.r = &r, .file = arena_strdup(a, name), .text = text, .len = strlen(text)};
    Built b;
    if (parse(&s, 0, &b)) return NULL;
    if (b.y->kind == Y_MAP && text[strspn(text, " \t\n")] == 0) {
        b.y->kind = Y_SCALAR;
        b.y->s = "";
    }
    return b.y;
}

/* ---- looking things up ---- */

static const Yaml *get(const Yaml *map, const char *key, size_t len)
{
    if (!map || map->kind != Y_MAP) return NULL;
    for (int i = map->n - 1; i >= 0; i--)
        if (strlen(map->k[i]->s) == len && memcmp(map->k[i]->s, key, len) == 0) return map->v[i];
    return NULL;
}

const Yaml *yaml_get(const Yaml *map, const char *key)
{
    return get(map, key, strlen(key));
}

const Yaml *yaml_path(const Yaml *map, const char *dotted)
{
    while (map) {
        size_t n = strcspn(dotted, ".");
        map = get(map, dotted, n);
        if (!dotted[n]) break;
        dotted += n + 1;
    }
    return map;
}

/* ---- scalars ---- */

static bool plain(const Yaml *y)
{
    return y->kind == Y_SCALAR && !y->quoted;
}

/* Index of the scalar in `words`, spelt all lower, all upper or with a capital first letter; or -1.
 */
static int find_word(const char *s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *w = words[i];
        size_t len = strlen(w), first = strspn(w, "."), lower = first, upper = first;
        if (strlen(s) != len || strncmp(s, w, first)) continue;
        for (size_t j = first; j < len; j++) {
            lower += s[j] == w[j];
            upper += s[j] == toupper((unsigned char)w[j]);
        }
        if (lower == len || upper == len) return (int)i;
        if (lower == len - 1 && s[first] == toupper((unsigned char)w[first])) return (int)i;
    }
    return -1;
}

bool yaml_null(const Yaml *y)
{
    static const char *const words[] = {"null"};
    return plain(y) && (!y->s[0] || str_eq(y->s, "~") || find_word(y->s, words, 1) >= 0);
}

int yaml_bool(const Yaml *y, bool *v)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on"};
    int i = plain(y) ? find_word(y->s, words, ARRAY_LEN(words)) : -1;
    if (i < 0) return 0;
    *v = i & 1;
    return 1;
}

/* Copies a number without its underscores (1_000); false when it is too long or holds anything but
 * the given characters. */
static bool clean_number(const char *s, const char *allowed, char *out, size_t size)
{
    size_t n = 0;
    if (*s == '_') return false;
    for (; *s; s++) {
        if (*s == '_') continue;
        if (n + 1 >= size || !strchr(allowed, tolower((unsigned char)*s))) return false;
        out[n++] = *s;
    }
    out[n] = 0;
    return n > 0;
}

int yaml_int(const Yaml *y, long long *v)
{
    char t[80], *end;
    const char *d;
    bool neg;
    unsigned long long u;
    int base = 10;
    if (!plain(y) || !clean_number(y->s, "+-0123456789abcdefxo", t, sizeof t)) return 0;
    neg = t[0] == '-';
    d = t + (t[0] == '-' || t[0] == '+');
    if (d[0] == '0' && d[1]) {
        int mark = tolower((unsigned char)d[1]);
        base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
        d += mark == 'x' || mark == 'b' || mark == 'o' ? 2 : 1;
    }
    if (!isxdigit((unsigned char)d[0]) ||
        (base == 16 && d[0] == '0' && tolower((unsigned char)d[1]) == 'x'))
        return 0;
    errno = 0;
    u = strtoull(d, &end, base);
    if (errno || *end || u > (unsigned long long)LLONG_MAX) return 0;
    *v = neg ? -(long long)u : (long long)u;
    return 1;
}

int yaml_double(const Yaml *y, double *v)
{
    static const char *const inf[] = {".inf"}, *const nan_word[] = {".nan"};
    char t[400], *end;
    const char *s;
    long long i;
    if (!plain(y)) return 0;
    if (yaml_int(y, &i)) {
        *v = (double)i;
        return 1;
    }
    s = y->s + (y->s[0] == '-' || y->s[0] == '+');
    if (find_word(s, inf, 1) >= 0) {
        *v = y->s[0] == '-' ? -(double)INFINITY : (double)INFINITY;
        return 1;
    }
    if (find_word(y->s, nan_word, 1) >= 0) {
        *v = (double)NAN;
        return 1;
    }
    if (!clean_number(y->s, "+-0123456789.e", t, sizeof t)) return 0;
    if (!strpbrk(t, "0123456789") ||
        !(isdigit((unsigned char)*(t + strspn(t, "+-"))) || t[strspn(t, "+-")] == '.'))
        return 0;
    *v = strtod(t, &end);
    return *end == 0 && isfinite(*v);
}

const char *yaml_version(void)
{
    return yaml_get_version_string();
}
