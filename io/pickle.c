/* io/pickle.c -- see pickle.h. Opcodes: Python's pickletools; only those that build plain data. The
 * machine they work on is in pickle_machine.c, the opcodes of protocol 0, which are text, in
 * pickle_text.c.
 *
 * Every opcode is a row of `ops`; an opcode without a function is refused by its name. */
#include "io/pickle_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME   200 /* bytes of a module or name worth looking up */
#define BIGINT_MAX 64  /* bytes of an integer */

typedef struct Op {
    const char *name;
    int (*run)(Machine *m, int arg);
    int arg;
    unsigned needs; /* PickleRules.flags */
} Op;

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
    const unsigned char *s = pm_bytes(m, 1);
    (void)arg;
    if (!s) return -1;
    return *s <= 5 ? 0 : pm_fault(m, "protocol %d; this reader knows 0 to 5", *s);
}

static int op_frame(Machine *m, int arg)
{
    const unsigned char *s = pm_bytes(m, 8);
    (void)arg;
    if (!s) return -1;
    return pm_little(s, 8) <= m->len - m->pos ? 0
                                              : pm_fault(m, "a frame that is longer than the data");
}

static int op_stop(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 1);
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
    if (m->nmark && m->n == pm_fence(m)) {
        m->nmark--; /* POP removes a mark, too */
        return 0;
    }
    if (!pm_top(m, 1)) return -1;
    m->n--;
    return 0;
}

static int op_pop_mark(Machine *m, int arg)
{
    size_t k;
    (void)arg;
    return pm_pop_mark(m, &k) ? 0 : -1;
}

static int op_dup(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 1);
    (void)arg;
    return t ? pm_push(m, *t) : -1;
}

static int op_put(Machine *m, int width)
{
    const unsigned char *s = pm_bytes(m, (uint64_t)width);
    return s ? pm_memo_put(m, pm_little(s, width)) : -1;
}

static int op_get(Machine *m, int width)
{
    const unsigned char *s = pm_bytes(m, (uint64_t)width);
    return s ? pm_memo_get(m, pm_little(s, width)) : -1;
}

static int op_memoize(Machine *m, int arg)
{
    (void)arg;
    return pm_memo_put(m, m->nmemo);
}

/* ---- opcodes: scalars ---- */

static int op_none(Machine *m, int arg)
{
    return pm_push_int(m, PY_NONE, arg);
}

static int op_bool(Machine *m, int arg)
{
    return pm_push_int(m, PY_BOOL, arg);
}

/* arg: width in bytes; -4: four bytes with a sign. */
static int op_int(Machine *m, int arg)
{
    const unsigned char *s = pm_bytes(m, (uint64_t)abs(arg));
    if (!s) return -1;
    return pm_push_int(m, PY_INT,
                       arg < 0 ? (int32_t)(uint32_t)pm_little(s, 4) : (int64_t)pm_little(s, arg));
}

/* Two's complement of any length after a length of `width` bytes. */
static int op_long(Machine *m, int width)
{
    const unsigned char *s = pm_bytes(m, (uint64_t)width);
    uint64_t n, v;
    if (!s) return -1;
    n = pm_little(s, width);
    s = pm_bytes(m, n);
    if (!s) return -1;
    if (n > 8) {
        if (!(m->r->flags & PICKLE_BIGINT) || n > BIGINT_MAX)
            return pm_fault(m, "an integer of %llu bytes", (unsigned long long)n);
        return pm_push_text(m, PY_BIGINT, s, (size_t)n);
    }
    v = pm_little(s, (int)n);
    if (n && n < 8 && s[n - 1] & 0x80) v |= ~(uint64_t)0 << 8 * n;
    return pm_push_int(m, PY_INT, (int64_t)v);
}

static int op_binfloat(Machine *m, int arg)
{
    const unsigned char *s = pm_bytes(m, 8);
    uint64_t v = 0;
    double d;
    (void)arg;
    if (!s) return -1;
    for (int i = 0; i < 8; i++) v = v << 8 | s[i]; /* the one big-endian number of the format */
    memcpy(&d, &v, sizeof d);
    return pm_push_float(m, d);
}

static int counted_text(Machine *m, PyKind kind, int width)
{
    const unsigned char *s = pm_bytes(m, (uint64_t)width);
    uint64_t n;
    if (!s) return -1;
    n = pm_little(s, width);
    s = pm_bytes(m, n);
    return s ? pm_push_text(m, kind, s, (size_t)n) : -1;
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
    return pm_push_new(m, (PyKind)kind) ? 0 : -1;
}

static int make_tuple(Machine *m, PyObj **item, size_t k)
{
    PyObj **v = pm_take(m, k * sizeof *v), *o;
    if (k) memcpy(v, item, k * sizeof *v); /* before the stack moves */
    o = pm_push_new(m, PY_TUPLE);
    if (!o) return -1;
    o->v = v;
    o->n = k;
    return 0;
}

static int op_tuple(Machine *m, int k)
{
    PyObj **t = pm_top(m, (size_t)k);
    if (!t) return -1;
    m->n -= (size_t)k;
    return make_tuple(m, t, (size_t)k);
}

static int op_tuple_mark(Machine *m, int arg)
{
    size_t k;
    PyObj **t = pm_pop_mark(m, &k);
    (void)arg;
    return t ? make_tuple(m, t, k) : -1;
}

static int append_to_top(Machine *m, PyObj **item, size_t k)
{
    PyObj **t = pm_top(m, 1);
    if (!t) return -1;
    if (t[0]->kind != PY_LIST) return pm_fault(m, "appends to a %s", py_kind_name(t[0]->kind));
    pm_append(m, t[0], item, k, 1);
    return 0;
}

static int op_append(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 2);
    (void)arg;
    if (!t) return -1;
    m->n--;
    return append_to_top(m, t + 1, 1);
}

static int op_appends(Machine *m, int arg)
{
    size_t k;
    PyObj **t = pm_pop_mark(m, &k);
    (void)arg;
    return t ? append_to_top(m, t, k) : -1;
}

static int op_setitem(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 3);
    (void)arg;
    if (!t) return -1;
    m->n -= 2;
    return pm_put_pairs(m, t[0], t + 1, 2);
}

static int op_setitems(Machine *m, int arg)
{
    size_t k;
    PyObj **t = pm_pop_mark(m, &k), **dict;
    (void)arg;
    if (!t) return -1;
    dict = pm_top(m, 1);
    return dict ? pm_put_pairs(m, *dict, t, k) : -1;
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
        o = pm_push_new(m, PY_GLOBAL);
        if (!o) return -1;
        o->g = g;
        return 0;
    }
    return pm_fault(m, "refers to '%s.%s', which is not among the harmless names (nothing was run)",
                    shown(mod, nmod, a), shown(name, nname, b));
}

static int op_global(Machine *m, int arg)
{
    const char *mod, *name;
    size_t nmod, nname;
    (void)arg;
    mod = pm_line(m, &nmod);
    if (!mod) return -1;
    name = pm_line(m, &nname);
    return name ? push_global(m, mod, nmod, name, nname) : -1;
}

static int op_stack_global(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 2);
    (void)arg;
    if (!t) return -1;
    if (t[0]->kind != PY_STR || t[1]->kind != PY_STR)
        return pm_fault(m, "a name that is not a text");
    m->n -= 2;
    return push_global(m, t[0]->s, t[0]->n, t[1]->s, t[1]->n);
}

/* OrderedDict([(key, value), ...]) and OrderedDict(). */
static int reduce_dict(Machine *m, const PyObj *args)
{
    const PyObj *list = args->n == 1 ? args->v[0] : NULL;
    PyObj *dict = pm_push_new(m, PY_DICT);
    if (!dict) return -1;
    if (args->n == 0) return 0;
    if (!list || list->kind != PY_LIST)
        return pm_fault(m, "a dict made of something else than pairs");
    for (size_t i = 0; i < list->n; i++) {
        const PyObj *pair = list->v[i];
        if ((pair->kind != PY_LIST && pair->kind != PY_TUPLE) || pair->n != 2)
            return pm_fault(m, "a dict made of something else than pairs");
        if (pm_put_pairs(m, dict, pair->v, 2) < 0) return -1;
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
        return pm_fault(m, "encode() of anything but (str, 'latin1')");
    s = (const unsigned char *)text->s;
    out = pm_take(m, text->n);
    for (size_t i = 0; i < text->n; i++) {
        unsigned c = s[i];
        if (c >= 0x80) {
            if ((c & 0xFE) != 0xC2 || i + 1 == text->n || (s[i + 1] & 0xC0) != 0x80)
                return pm_fault(m, "a text that is not Latin-1");
            c = (c & 3) << 6 | (s[++i] & 0x3F);
        }
        out[n++] = (char)c;
    }
    return pm_push_text(m, PY_BYTES, out, n);
}

static int op_reduce(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 2), *f, *args, *o;
    (void)arg;
    if (!t) return -1;
    f = t[0];
    args = t[1];
    m->n -= 2;
    if (f->kind != PY_GLOBAL) return pm_fault(m, "calls a %s", py_kind_name(f->kind));
    if (args->kind != PY_TUPLE) return pm_fault(m, "call arguments that are no tuple");
    if (f->g->flags & PG_DICT) return reduce_dict(m, args);
    if (f->g->flags & PG_LATIN1) return reduce_latin1(m, args);
    if (!(f->g->flags & PG_CALL))
        return pm_fault(m, "calls '%s.%s', which may only be named", f->g->module, f->g->name);
    o = pm_push_new(m, PY_CALL);
    if (!o) return -1;
    o->g = f->g;
    o->v = pm_take(m, 2 * sizeof *o->v);
    o->v[0] = args;
    o->n = 1;
    return 0;
}

static int op_build(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 2);
    (void)arg;
    if (!t) return -1;
    m->n--;
    if (t[0]->kind == PY_DICT) return 0; /* attributes such as _metadata */
    if (t[0]->kind != PY_CALL || !(t[0]->g->flags & PG_BUILD))
        return pm_fault(m, "sets the state of a %s", py_kind_name(t[0]->kind));
    t[0]->v[1] = t[1];
    t[0]->n = 2;
    return 0;
}

static int op_persid(Machine *m, int arg)
{
    PyObj **t = pm_top(m, 1), *id, *o;
    (void)arg;
    if (!t) return -1;
    id = *t;
    m->n--;
    o = pm_push_new(m, PY_PERSID);
    if (!o) return -1;
    o->v = pm_take(m, sizeof *o->v);
    o->v[0] = id;
    o->n = 1;
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
    [0x49] = {"INT", pm_text_int, 0, PICKLE_TEXT},
    [0x4C] = {"LONG", pm_text_int, 0, PICKLE_TEXT},
    [0x46] = {"FLOAT", pm_text_float, 0, PICKLE_TEXT},
    [0x53] = {"STRING", pm_text_string, 0, PICKLE_TEXT},
    [0x56] = {"UNICODE", pm_text_unicode, 0, PICKLE_TEXT},
    [0x70] = {"PUT", pm_text_memo, 1, PICKLE_TEXT},
    [0x67] = {"GET", pm_text_memo, 0, PICKLE_TEXT},
    [0x6C] = {"LIST", pm_text_container, PY_LIST, PICKLE_TEXT},
    [0x64] = {"DICT", pm_text_container, PY_DICT, PICKLE_TEXT},
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
    s = pm_bytes(m, 1);
    if (!s) return -1;
    op = &ops[*s];
    if (!op->name) return pm_fault(m, "unknown opcode 0x%02x", *s);
    if (!op->run || (op->needs & ~m->r->flags))
        return pm_fault(m, "opcode %s is not accepted here", op->name);
    return op->run(m, op->arg);
}

int pickle_read(Pickle *p, const void *data, size_t len, const PickleRules *r, Err *e)
{
    Machine m = {.p = p, .r = r, .b = data, .len = len, .e = e};
    int rc = 0;
    *p = (Pickle){0};
    mem_grow(&m.stack, &m.cap, 1, sizeof *m.stack); /* pm_top() points into it: not NULL */
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
