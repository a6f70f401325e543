/* io/pickle.c -- see pickle.h. Opcodes: Python's pickletools; only those that build plain data.
 *
 * Every opcode is a row of `ops`; an opcode without a function is refused by its name. The memory
 * taken is bounded by the bytes read: an opcode makes at most one node, lists double, memo indices
 * may not run ahead of the pickle, and there are at most MAX_NODES. */
#include "io/pickle.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES   ((size_t)4 << 20)
#define MAX_NAME    200   /* bytes of a module or name worth looking up */
#define CHUNK       16384 /* nodes and small arrays are cut from chunks of this size */
#define BIGINT_MAX  64    /* bytes of an integer */
#define FLOAT_CHARS 64    /* characters of a number in text form */

typedef struct Machine {
    Pickle *p;
    const PickleRules *r;
    const unsigned char *b;
    size_t len, pos, at; /* `at`: the opcode being run, for messages */
    PyObj **stack, **memo;
    size_t n, cap, nmemo, memo_cap;
    size_t *mark, nmark, mark_cap; /* heights of the stack */
    char *chunk;
    size_t left;
    bool stopped;
    Err *e;
} Machine;

typedef struct Op {
    const char *name;
    int (*run)(Machine *m, int arg);
    int arg;
    unsigned needs; /* PickleRules.flags */
} Op;

static int fault(Machine *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int fault(Machine *m, const char *fmt, ...)
{
    va_list ap;
    char text[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(m->e, ERR_DATA, "pickle, byte %zu: %s", m->at, text);
}

/* ---- memory ---- */

static void *take(Machine *m, size_t n)
{
    void *p;
    n = n ? (n + 7) / 8 * 8 : 8;
    if (n > CHUNK / 4) return arena_alloc(&m->p->arena, n);
    if (n > m->left) {
        m->chunk = arena_alloc(&m->p->arena, CHUNK);
        m->left = CHUNK;
    }
    p = m->chunk;
    m->chunk += n;
    m->left -= n;
    return p;
}

/* Pushes a new node; NULL with a fault when there are too many. */
static PyObj *push_new(Machine *m, PyKind kind)
{
    Pickle *p = m->p;
    PyObj *o;
    if (p->nobj == MAX_NODES) {
        fault(m, "more than %zu objects", MAX_NODES);
        return NULL;
    }
    o = take(m, sizeof *o);
    o->kind = kind;
    mem_grow(&p->obj, &p->obj_cap, p->nobj + 1, sizeof *p->obj);
    p->obj[p->nobj++] = o;
    mem_grow(&m->stack, &m->cap, m->n + 1, sizeof *m->stack);
    m->stack[m->n++] = o;
    return o;
}

static int push(Machine *m, PyObj *o)
{
    mem_grow(&m->stack, &m->cap, m->n + 1, sizeof *m->stack);
    m->stack[m->n++] = o;
    return 0;
}

/* Slots that a list (width 1) or dict (width 2) of n entries owns. */
static size_t room(size_t n)
{
    size_t cap = 4;
    if (!n) return 0;
    while (cap < n) cap *= 2;
    return cap;
}

static void append(Machine *m, PyObj *o, PyObj *const *item, size_t k, size_t width)
{
    if (room(o->n + k) > room(o->n)) {
        PyObj **v = take(m, room(o->n + k) * width * sizeof *v);
        if (o->n) memcpy(v, o->v, o->n * width * sizeof *v);
        o->v = v;
    }
    if (k) memcpy(o->v + o->n * width, item, k * width * sizeof *item);
    o->n += k;
}

/* ---- reading the input and the stack ---- */

static const unsigned char *bytes(Machine *m, uint64_t n)
{
    const unsigned char *s = m->b + m->pos;
    if (n > m->len - m->pos) {
        fault(m, "the data ends here, %llu more bytes are wanted", (unsigned long long)n);
        return NULL;
    }
    m->pos += (size_t)n;
    return s;
}

static uint64_t little(const unsigned char *s, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0;) v = v << 8 | s[i];
    return v;
}

/* A line without its newline; not terminated. */
static const char *line(Machine *m, size_t *n)
{
    const unsigned char *s = m->b + m->pos;
    const unsigned char *end = m->pos < m->len ? memchr(s, '\n', m->len - m->pos) : NULL;
    if (!end) {
        fault(m, "the data ends inside a line of text");
        return NULL;
    }
    *n = (size_t)(end - s);
    m->pos += *n + 1;
    return (const char *)s;
}

static size_t fence(const Machine *m)
{
    return m->nmark ? m->mark[m->nmark - 1] : 0;
}

/* The k entries on top of the stack (above the last mark), or NULL with a fault. They stay. */
static PyObj **top(Machine *m, size_t k)
{
    if (m->n - fence(m) < k) {
        fault(m, "an empty stack");
        return NULL;
    }
    return m->stack + m->n - k;
}

/* Removes the last mark; the k entries above it have been popped but can still be read. */
static PyObj **pop_mark(Machine *m, size_t *k)
{
    size_t height = fence(m);
    if (!m->nmark) {
        fault(m, "no MARK on the stack");
        return NULL;
    }
    m->nmark--;
    *k = m->n - height;
    m->n = height;
    return m->stack + height;
}

/* A name of the file, made fit for a message. */
static const char *shown(const char *s, size_t n, char buf[MAX_NAME + 4])
{
    size_t k = n < MAX_NAME ? n : MAX_NAME;
    for (size_t i = 0; i < k; i++) buf[i] = (char)(s[i] < ' ' || s[i] == 127 ? '?' : s[i]);
    strcpy(buf + k, n > k ? "..." : "");
    return buf;
}

/* ---- opcodes: framing, stack, memo ---- */

static int op_proto(Machine *m, int arg)
{
    const unsigned char *s = bytes(m, 1);
    (void)arg;
    if (!s) return -1;
    return *s <= 5 ? 0 : fault(m, "protocol %d; this reader knows 0 to 5", *s);
}

static int op_frame(Machine *m, int arg)
{
    const unsigned char *s = bytes(m, 8);
    (void)arg;
    if (!s) return -1;
    return little(s, 8) <= m->len - m->pos ? 0 : fault(m, "a frame that is longer than the data");
}

static int op_stop(Machine *m, int arg)
{
    PyObj **t = top(m, 1);
    (void)arg;
    if (!t) return -1;
    m->p->top = t[0];
    m->p->used = m->pos;
    m->stopped = true;
    return 0;
}

static int op_mark(Machine *m, int arg)
{
    (void)arg;
    mem_grow(&m->mark, &m->mark_cap, m->nmark + 1, sizeof *m->mark);
    m->mark[m->nmark++] = m->n;
    return 0;
}

static int op_pop(Machine *m, int arg)
{
    (void)arg;
    if (m->nmark && m->n == fence(m)) {
        m->nmark--; /* POP removes a mark, too */
        return 0;
    }
    if (!top(m, 1)) return -1;
    m->n--;
    return 0;
}

static int op_pop_mark(Machine *m, int arg)
{
    size_t k;
    (void)arg;
    return pop_mark(m, &k) ? 0 : -1;
}

static int op_dup(Machine *m, int arg)
{
    PyObj **t = top(m, 1);
    (void)arg;
    return t ? push(m, *t) : -1;
}

/* Writers number their memo from 0, so an index beyond the bytes read so far is no honest one. */
static int memo_put(Machine *m, uint64_t i)
{
    PyObj **t = top(m, 1);
    if (!t) return -1;
    if (i >= m->pos) return fault(m, "memo index %llu", (unsigned long long)i);
    if (i >= m->nmemo) {
        mem_grow(&m->memo, &m->memo_cap, (size_t)i + 1, sizeof *m->memo);
        memset(m->memo + m->nmemo, 0, ((size_t)i + 1 - m->nmemo) * sizeof *m->memo);
        m->nmemo = (size_t)i + 1;
    }
    m->memo[i] = *t;
    return 0;
}

static int memo_get(Machine *m, uint64_t i)
{
    if (i >= m->nmemo || !m->memo[i])
        return fault(m, "memo index %llu was never filled", (unsigned long long)i);
    return push(m, m->memo[i]);
}

static int op_put(Machine *m, int width)
{
    const unsigned char *s = bytes(m, (uint64_t)width);
    return s ? memo_put(m, little(s, width)) : -1;
}

static int op_get(Machine *m, int width)
{
    const unsigned char *s = bytes(m, (uint64_t)width);
    return s ? memo_get(m, little(s, width)) : -1;
}

static int op_memoize(Machine *m, int arg)
{
    (void)arg;
    return memo_put(m, m->nmemo);
}

/* ---- opcodes: scalars ---- */

static int push_int(Machine *m, PyKind kind, int64_t v)
{
    PyObj *o = push_new(m, kind);
    if (!o) return -1;
    o->i = v;
    return 0;
}

static int push_text(Machine *m, PyKind kind, const void *s, size_t n)
{
    PyObj *o = push_new(m, kind);
    if (!o) return -1;
    o->s = s;
    o->n = n;
    return 0;
}

static int op_none(Machine *m, int arg)
{
    return push_int(m, PY_NONE, arg);
}

static int op_bool(Machine *m, int arg)
{
    return push_int(m, PY_BOOL, arg);
}

/* arg: width in bytes; -4: four bytes with a sign. */
static int op_int(Machine *m, int arg)
{
    const unsigned char *s = bytes(m, (uint64_t)abs(arg));
    if (!s) return -1;
    return push_int(m, PY_INT, arg < 0 ? (int32_t)(uint32_t)little(s, 4) : (int64_t)little(s, arg));
}

/* Two's complement of any length after a length of `width` bytes. */
static int op_long(Machine *m, int width)
{
    const unsigned char *s = bytes(m, (uint64_t)width);
    uint64_t n, v;
    if (!s) return -1;
    n = little(s, width);
    s = bytes(m, n);
    if (!s) return -1;
    if (n > 8) {
        if (!(m->r->flags & PICKLE_BIGINT) || n > BIGINT_MAX)
            return fault(m, "an integer of %llu bytes", (unsigned long long)n);
        return push_text(m, PY_BIGINT, s, (size_t)n);
    }
    v = little(s, (int)n);
    if (n && n < 8 && s[n - 1] & 0x80) v |= ~(uint64_t)0 << 8 * n;
    return push_int(m, PY_INT, (int64_t)v);
}

static int push_float(Machine *m, double v)
{
    PyObj *o = push_new(m, PY_FLOAT);
    if (!o) return -1;
    o->f = v;
    return 0;
}

static int op_binfloat(Machine *m, int arg)
{
    const unsigned char *s = bytes(m, 8);
    uint64_t v = 0;
    double d;
    (void)arg;
    if (!s) return -1;
    for (int i = 0; i < 8; i++) v = v << 8 | s[i]; /* the one big-endian number of the format */
    memcpy(&d, &v, sizeof d);
    return push_float(m, d);
}

static int counted_text(Machine *m, PyKind kind, int width)
{
    const unsigned char *s = bytes(m, (uint64_t)width);
    uint64_t n;
    if (!s) return -1;
    n = little(s, width);
    s = bytes(m, n);
    return s ? push_text(m, kind, s, (size_t)n) : -1;
}

static int op_str(Machine *m, int width)
{
    return counted_text(m, PY_STR, width);
}

static int op_bytes(Machine *m, int width)
{
    return counted_text(m, PY_BYTES, width);
}

/* ---- opcodes: containers ---- */

static int op_empty(Machine *m, int kind)
{
    return push_new(m, (PyKind)kind) ? 0 : -1;
}

static int make_tuple(Machine *m, PyObj **item, size_t k)
{
    PyObj **v = take(m, k * sizeof *v), *o;
    if (k) memcpy(v, item, k * sizeof *v); /* before the stack moves */
    o = push_new(m, PY_TUPLE);
    if (!o) return -1;
    o->v = v;
    o->n = k;
    return 0;
}

static int op_tuple(Machine *m, int k)
{
    PyObj **t = top(m, (size_t)k);
    if (!t) return -1;
    m->n -= (size_t)k;
    return make_tuple(m, t, (size_t)k);
}

static int op_tuple_mark(Machine *m, int arg)
{
    size_t k;
    PyObj **t = pop_mark(m, &k);
    (void)arg;
    return t ? make_tuple(m, t, k) : -1;
}

static int append_to_top(Machine *m, PyObj **item, size_t k)
{
    PyObj **t = top(m, 1);
    if (!t) return -1;
    if (t[0]->kind != PY_LIST) return fault(m, "appends to a %s", py_kind_name(t[0]->kind));
    append(m, t[0], item, k, 1);
    return 0;
}

static int op_append(Machine *m, int arg)
{
    PyObj **t = top(m, 2);
    (void)arg;
    if (!t) return -1;
    m->n--;
    return append_to_top(m, t + 1, 1);
}

static int op_appends(Machine *m, int arg)
{
    size_t k;
    PyObj **t = pop_mark(m, &k);
    (void)arg;
    return t ? append_to_top(m, t, k) : -1;
}

static bool may_be_key(PyKind k)
{
    return k <= PY_TUPLE && k != PY_BIGINT;
}

static int put_pairs(Machine *m, PyObj *dict, PyObj **item, size_t k)
{
    if (dict->kind != PY_DICT) return fault(m, "sets items of a %s", py_kind_name(dict->kind));
    if (k % 2) return fault(m, "a key without a value");
    for (size_t i = 0; i < k; i += 2)
        if (!may_be_key(item[i]->kind))
            return fault(m, "a %s as key of a dict", py_kind_name(item[i]->kind));
    append(m, dict, item, k / 2, 2);
    return 0;
}

static int op_setitem(Machine *m, int arg)
{
    PyObj **t = top(m, 3);
    (void)arg;
    if (!t) return -1;
    m->n -= 2;
    return put_pairs(m, t[0], t + 1, 2);
}

static int op_setitems(Machine *m, int arg)
{
    size_t k;
    PyObj **t = pop_mark(m, &k), **dict;
    (void)arg;
    if (!t) return -1;
    dict = top(m, 1);
    return dict ? put_pairs(m, *dict, t, k) : -1;
}

/* ---- opcodes: names and calls ---- */

static int push_global(Machine *m, const char *mod, size_t nmod, const char *name, size_t nname)
{
    char a[MAX_NAME + 4], b[MAX_NAME + 4];
    PyObj *o;
    for (size_t i = 0; i < m->r->nglobals; i++) {
        const PyGlobal *g = &m->r->globals[i];
        if (strlen(g->module) != nmod || strlen(g->name) != nname) continue;
        if (memcmp(g->module, mod, nmod) != 0 || memcmp(g->name, name, nname) != 0) continue;
        o = push_new(m, PY_GLOBAL);
        if (!o) return -1;
        o->g = g;
        return 0;
    }
    return fault(m, "refers to '%s.%s', which is not among the harmless names (nothing was run)",
                 shown(mod, nmod, a), shown(name, nname, b));
}

static int op_global(Machine *m, int arg)
{
    const char *mod, *name;
    size_t nmod, nname;
    (void)arg;
    mod = line(m, &nmod);
    if (!mod) return -1;
    name = line(m, &nname);
    return name ? push_global(m, mod, nmod, name, nname) : -1;
}

static int op_stack_global(Machine *m, int arg)
{
    PyObj **t = top(m, 2);
    (void)arg;
    if (!t) return -1;
    if (t[0]->kind != PY_STR || t[1]->kind != PY_STR) return fault(m, "a name that is not a text");
    m->n -= 2;
    return push_global(m, t[0]->s, t[0]->n, t[1]->s, t[1]->n);
}

/* OrderedDict([(key, value), ...]) and OrderedDict(). */
static int reduce_dict(Machine *m, const PyObj *args)
{
    const PyObj *list = args->n == 1 ? args->v[0] : NULL;
    PyObj *dict = push_new(m, PY_DICT);
    if (!dict) return -1;
    if (args->n == 0) return 0;
    if (!list || list->kind != PY_LIST) return fault(m, "a dict made of something else than pairs");
    for (size_t i = 0; i < list->n; i++) {
        const PyObj *pair = list->v[i];
        if ((pair->kind != PY_LIST && pair->kind != PY_TUPLE) || pair->n != 2)
            return fault(m, "a dict made of something else than pairs");
        if (put_pairs(m, dict, pair->v, 2) < 0) return -1;
    }
    return 0;
}

/* _codecs.encode(text, 'latin1'): how Python 3 writes bytes in protocol 2. */
static int reduce_latin1(Machine *m, const PyObj *args)
{
    const PyObj *text = args->n == 2 ? args->v[0] : NULL;
    const unsigned char *s;
    char *out;
    size_t n = 0;
    if (!text || text->kind != PY_STR ||
        (!py_is_text(args->v[1], "latin1") && !py_is_text(args->v[1], "latin-1")))
        return fault(m, "encode() of anything but (str, 'latin1')");
    s = (const unsigned char *)text->s;
    out = take(m, text->n);
    for (size_t i = 0; i < text->n; i++) {
        unsigned c = s[i];
        if (c >= 0x80) {
            if ((c & 0xFE) != 0xC2 || i + 1 == text->n || (s[i + 1] & 0xC0) != 0x80)
                return fault(m, "a text that is not Latin-1");
            c = (c & 3) << 6 | (s[++i] & 0x3F);
        }
        out[n++] = (char)c;
    }
    return push_text(m, PY_BYTES, out, n);
}

static int op_reduce(Machine *m, int arg)
{
    PyObj **t = top(m, 2), *f, *args, *o;
    (void)arg;
    if (!t) return -1;
    f = t[0];
    args = t[1];
    m->n -= 2;
    if (f->kind != PY_GLOBAL) return fault(m, "calls a %s", py_kind_name(f->kind));
    if (args->kind != PY_TUPLE) return fault(m, "call arguments that are no tuple");
    if (f->g->flags & PG_DICT) return reduce_dict(m, args);
    if (f->g->flags & PG_LATIN1) return reduce_latin1(m, args);
    if (!(f->g->flags & PG_CALL))
        return fault(m, "calls '%s.%s', which may only be named", f->g->module, f->g->name);
    o = push_new(m, PY_CALL);
    if (!o) return -1;
    o->g = f->g;
    o->v = take(m, 2 * sizeof *o->v);
    o->v[0] = args;
    o->n = 1;
    return 0;
}

static int op_build(Machine *m, int arg)
{
    PyObj **t = top(m, 2);
    (void)arg;
    if (!t) return -1;
    m->n--;
    if (t[0]->kind == PY_DICT) return 0; /* attributes such as _metadata */
    if (t[0]->kind != PY_CALL || !(t[0]->g->flags & PG_BUILD))
        return fault(m, "sets the state of a %s", py_kind_name(t[0]->kind));
    t[0]->v[1] = t[1];
    t[0]->n = 2;
    return 0;
}

static int op_persid(Machine *m, int arg)
{
    PyObj **t = top(m, 1), *id, *o;
    (void)arg;
    if (!t) return -1;
    id = *t;
    m->n--;
    o = push_new(m, PY_PERSID);
    if (!o) return -1;
    o->v = take(m, sizeof *o->v);
    o->v[0] = id;
    o->n = 1;
    return 0;
}

/* ---- text opcodes of protocol 0 ---- */

/* A line as a terminated number text; false when it is too long or holds a NUL. */
static bool number_line(Machine *m, char buf[FLOAT_CHARS])
{
    size_t n;
    const char *s = line(m, &n);
    if (!s) return false;
    if (n == 0 || n >= FLOAT_CHARS || memchr(s, 0, n) || isspace((unsigned char)s[0])) {
        fault(m, "a malformed number");
        return false;
    }
    memcpy(buf, s, n);
    buf[n] = 0;
    return true;
}

/* INT and LONG; "00" and "01" are how booleans are written. */
static int op_text_int(Machine *m, int arg)
{
    char buf[FLOAT_CHARS], *end;
    long long v;
    (void)arg;
    if (!number_line(m, buf)) return -1;
    if (str_eq(buf, "00") || str_eq(buf, "01")) return push_int(m, PY_BOOL, buf[1] == '1');
    errno = 0;
    v = strtoll(buf, &end, 10);
    if (*end == 'L' && end != buf) end++;
    if (end == buf || *end || errno) return fault(m, "'%s' is not an integer of 8 bytes", buf);
    return push_int(m, PY_INT, v);
}

static int op_text_float(Machine *m, int arg)
{
    char buf[FLOAT_CHARS], *end;
    double v;
    (void)arg;
    if (!number_line(m, buf)) return -1;
    v = strtod(buf, &end);
    return end == buf || *end ? fault(m, "'%s' is not a number", buf) : push_float(m, v);
}

/* PUT and GET. */
static int op_text_memo(Machine *m, int put)
{
    char buf[FLOAT_CHARS], *end;
    unsigned long long i;
    if (!number_line(m, buf)) return -1;
    i = strtoull(buf, &end, 10);
    if (!isdigit((unsigned char)buf[0]) || *end) return fault(m, "memo index '%s'", buf);
    return put ? memo_put(m, i) : memo_get(m, i);
}

/* `digits` hexadecimal digits at s (n left), or -1. */
static long hex(const char *s, size_t n, size_t digits)
{
    long v = 0;
    if (n < digits) return -1;
    for (size_t i = 0; i < digits; i++) {
        int c = tolower((unsigned char)s[i]);
        if (!isxdigit(c)) return -1;
        v = v << 4 | (isdigit(c) ? c - '0' : c - 'a' + 10);
    }
    return v;
}

/* The escapes of repr(): 's' is behind the backslash; returns the characters used, 0 when it is
 * none. */
static size_t unescape(const char *s, size_t n, char *out)
{
    static const char from[] = "\\'\"nrtabfv", to[] = "\\'\"\n\r\t\a\b\f\v";
    const char *at;
    size_t k = 0;
    int v = 0;
    if (!n) return 0;
    if (s[0] == 'x') {
        long h = hex(s + 1, n - 1, 2);
        *out = (char)h;
        return h < 0 ? 0 : 3;
    }
    for (; k < 3 && k < n && s[k] >= '0' && s[k] <= '7'; k++) v = v * 8 + (s[k] - '0');
    if (k) {
        *out = (char)v;
        return k;
    }
    at = s[0] ? strchr(from, s[0]) : NULL;
    if (!at) return 0;
    *out = to[at - from];
    return 1;
}

/* STRING: repr() of a Python 2 str, with its quotes. */
static int op_text_string(Machine *m, int arg)
{
    size_t n, k = 0;
    const char *s = line(m, &n);
    char *out;
    (void)arg;
    if (!s) return -1;
    if (n < 2 || (s[0] != '\'' && s[0] != '"') || s[n - 1] != s[0])
        return fault(m, "a string without quotes");
    s++;
    n -= 2;
    out = take(m, n);
    for (size_t i = 0; i < n; i++) {
        size_t used = 0;
        if (s[i] != '\\') {
            out[k++] = s[i];
            continue;
        }
        used = unescape(s + i + 1, n - i - 1, out + k++);
        if (!used) return fault(m, "an unknown escape in a string");
        i += used;
    }
    return push_text(m, PY_BYTES, out, k);
}

static size_t put_utf8(char *out, unsigned long c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

/* UNICODE: Latin-1 with \uXXXX and \UXXXXXXXX. */
static int op_text_unicode(Machine *m, int arg)
{
    size_t n, k = 0;
    const char *s = line(m, &n);
    char *out;
    (void)arg;
    if (!s) return -1;
    out = take(m, 2 * n);
    for (size_t i = 0; i < n; i++) {
        long c = (unsigned char)s[i];
        size_t digits = c != '\\' || i + 1 == n ? 0 : s[i + 1] == 'u' ? 4 : s[i + 1] == 'U' ? 8 : 0;
        if (digits) {
            c = hex(s + i + 2, n - i - 2, digits);
            i += 1 + digits;
        }
        if (c < 0 || c > 0x10FFFF) return fault(m, "an unknown escape in a text");
        k += put_utf8(out + k, (unsigned long)c);
    }
    return push_text(m, PY_STR, out, k);
}

/* LIST and DICT: everything above the mark. */
static int op_text_container(Machine *m, int kind)
{
    size_t k;
    PyObj **t = pop_mark(m, &k), **item, *o;
    if (!t) return -1;
    item = take(m, k * sizeof *item);
    if (k) memcpy(item, t, k * sizeof *item);
    o = push_new(m, (PyKind)kind);
    if (!o) return -1;
    if (kind == PY_DICT) return put_pairs(m, o, item, k);
    append(m, o, item, k, 1);
    return 0;
}

/* ---- the machine ---- */

// clang-format off
static const Op ops[256] = {
    [0x80] = {"PROTO", op_proto, 0, 0},
    [0x95] = {"FRAME", op_frame, 0, 0},
    [0x2E] = {"STOP", op_stop, 0, 0},
    [0x28] = {"MARK", op_mark, 0, 0},
    [0x30] = {"POP", op_pop, 0, 0},
    [0x31] = {"POP_MARK", op_pop_mark, 0, 0},
    [0x32] = {"DUP", op_dup, 0, 0},
    [0x71] = {"BINPUT", op_put, 1, 0},
    [0x72] = {"LONG_BINPUT", op_put, 4, 0},
    [0x94] = {"MEMOIZE", op_memoize, 0, 0},
    [0x68] = {"BINGET", op_get, 1, 0},
    [0x6A] = {"LONG_BINGET", op_get, 4, 0},
    [0x4E] = {"NONE", op_none, 0, 0},
    [0x88] = {"NEWTRUE", op_bool, 1, 0},
    [0x89] = {"NEWFALSE", op_bool, 0, 0},
    [0x4B] = {"BININT1", op_int, 1, 0},
    [0x4D] = {"BININT2", op_int, 2, 0},
    [0x4A] = {"BININT", op_int, -4, 0},
    [0x8A] = {"LONG1", op_long, 1, 0},
    [0x8B] = {"LONG4", op_long, 4, 0},
    [0x47] = {"BINFLOAT", op_binfloat, 0, 0},
    [0x8C] = {"SHORT_BINUNICODE", op_str, 1, 0},
    [0x58] = {"BINUNICODE", op_str, 4, 0},
    [0x8D] = {"BINUNICODE8", op_str, 8, 0},
    [0x43] = {"SHORT_BINBYTES", op_bytes, 1, 0},
    [0x42] = {"BINBYTES", op_bytes, 4, 0},
    [0x8E] = {"BINBYTES8", op_bytes, 8, 0},
    [0x55] = {"SHORT_BINSTRING", op_bytes, 1, 0},
    [0x54] = {"BINSTRING", op_bytes, 4, 0},
    [0x5D] = {"EMPTY_LIST", op_empty, PY_LIST, 0},
    [0x7D] = {"EMPTY_DICT", op_empty, PY_DICT, 0},
    [0x29] = {"EMPTY_TUPLE", op_empty, PY_TUPLE, 0},
    [0x85] = {"TUPLE1", op_tuple, 1, 0},
    [0x86] = {"TUPLE2", op_tuple, 2, 0},
    [0x87] = {"TUPLE3", op_tuple, 3, 0},
    [0x74] = {"TUPLE", op_tuple_mark, 0, 0},
    [0x61] = {"APPEND", op_append, 0, 0},
    [0x65] = {"APPENDS", op_appends, 0, 0},
    [0x73] = {"SETITEM", op_setitem, 0, 0},
    [0x75] = {"SETITEMS", op_setitems, 0, 0},
    [0x63] = {"GLOBAL", op_global, 0, 0},
    [0x93] = {"STACK_GLOBAL", op_stack_global, 0, 0},
    [0x52] = {"REDUCE", op_reduce, 0, 0},
    [0x62] = {"BUILD", op_build, 0, 0},
    [0x51] = {"BINPERSID", op_persid, 0, PICKLE_PERSID},
    [0x49] = {"INT", op_text_int, 0, PICKLE_TEXT},
    [0x4C] = {"LONG", op_text_int, 0, PICKLE_TEXT},
    [0x46] = {"FLOAT", op_text_float, 0, PICKLE_TEXT},
    [0x53] = {"STRING", op_text_string, 0, PICKLE_TEXT},
    [0x56] = {"UNICODE", op_text_unicode, 0, PICKLE_TEXT},
    [0x70] = {"PUT", op_text_memo, 1, PICKLE_TEXT},
    [0x67] = {"GET", op_text_memo, 0, PICKLE_TEXT},
    [0x6C] = {"LIST", op_text_container, PY_LIST, PICKLE_TEXT},
    [0x64] = {"DICT", op_text_container, PY_DICT, PICKLE_TEXT},
    /* never: they make objects of classes, or take data from elsewhere */
    [0x69] = {"INST", NULL, 0, 0},
    [0x6F] = {"OBJ", NULL, 0, 0},
    [0x81] = {"NEWOBJ", NULL, 0, 0},
    [0x92] = {"NEWOBJ_EX", NULL, 0, 0},
    [0x82] = {"EXT1", NULL, 0, 0},
    [0x83] = {"EXT2", NULL, 0, 0},
    [0x84] = {"EXT4", NULL, 0, 0},
    [0x50] = {"PERSID", NULL, 0, 0},
    [0x8F] = {"EMPTY_SET", NULL, 0, 0},
    [0x90] = {"ADDITEMS", NULL, 0, 0},
    [0x91] = {"FROZENSET", NULL, 0, 0},
    [0x96] = {"BYTEARRAY8", NULL, 0, 0},
    [0x97] = {"NEXT_BUFFER", NULL, 0, 0},
    [0x98] = {"READONLY_BUFFER", NULL, 0, 0},
};
// clang-format on

static int step(Machine *m)
{
    const unsigned char *s;
    const Op *op;
    m->at = m->pos;
    s = bytes(m, 1);
    if (!s) return -1;
    op = &ops[*s];
    if (!op->name) return fault(m, "unknown opcode 0x%02x", *s);
    if (!op->run || (op->needs & ~m->r->flags))
        return fault(m, "opcode %s is not accepted here", op->name);
    return op->run(m, op->arg);
}

int pickle_read(Pickle *p, const void *data, size_t len, const PickleRules *r, Err *e)
{
    Machine m = {.p = p, .r = r, .b = data, .len = len, .e = e};
    int rc = 0;
    *p = (Pickle){0};
    mem_grow(&m.stack, &m.cap, 1, sizeof *m.stack); /* top() points into it: not NULL */
    while (rc == 0 && !m.stopped) rc = step(&m);
    free(m.stack);
    free(m.memo);
    free(m.mark);
    return rc;
}

void pickle_free(Pickle *p)
{
    free(p->obj);
    arena_free(&p->arena);
    *p = (Pickle){0};
}

/* ---- looking at objects ---- */

bool py_is_text(const PyObj *o, const char *text)
{
    return o && (o->kind == PY_STR || o->kind == PY_BYTES) && o->n == strlen(text) &&
           memcmp(o->s, text, o->n) == 0;
}

const PyObj *py_get(const PyObj *o, const char *key)
{
    if (!o || o->kind != PY_DICT) return NULL;
    for (size_t i = o->n; i-- > 0;)
        if (py_is_text(o->v[2 * i], key)) return o->v[2 * i + 1];
    return NULL;
}

bool py_int(const PyObj *o, int64_t *v)
{
    if (!o || o->kind != PY_INT) return false;
    *v = o->i;
    return true;
}

const char *py_kind_name(PyKind k)
{
    static const char *const names[] = {"None", "bool",          "int",   "long integer", "float",
                                        "str",  "bytes",         "tuple", "list",         "dict",
                                        "name", "persistent id", "call"};
    return names[k];
}
