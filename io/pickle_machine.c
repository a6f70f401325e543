/* io/pickle_machine.c -- see pickle_machine.h. */
#include "io/pickle_machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES ((size_t)4 << 20)
#define CHUNK     16384 /* nodes and small arrays are cut from chunks of this size */

int pm_fault(Machine *m, const char *fmt, ...)
{
    va_list ap;
    char text[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(m->e, ERR_DATA, "pickle, byte %zu: %s", m->at, text);
}

/* ---- memory ---- */

void *pm_take(Machine *m, size_t n)
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
PyObj *pm_push_new(Machine *m, PyKind kind)
{
    Pickle *p = m->p;
    PyObj *o;
    if (p->nobj == MAX_NODES) {
        pm_fault(m, "more than %zu objects", MAX_NODES);
        return NULL;
    }
    o = pm_take(m, sizeof *o);
    o->kind = kind;
    mem_grow(&p->obj, &p->obj_cap, p->nobj + 1, sizeof *p->obj);
    p->obj[p->nobj++] = o;
    mem_grow(&m->stack, &m->cap, m->n + 1, sizeof *m->stack);
    m->stack[m->n++] = o;
    return o;
}

int pm_push(Machine *m, PyObj *o)
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

void pm_append(Machine *m, PyObj *o, PyObj *const *item, size_t k, size_t width)
{
    if (room(o->n + k) > room(o->n)) {
        PyObj **v = pm_take(m, room(o->n + k) * width * sizeof *v);
        if (o->n) memcpy(v, o->v, o->n * width * sizeof *v);
        o->v = v;
    }
    if (k) memcpy(o->v + o->n * width, item, k * width * sizeof *item);
    o->n += k;
}

/* ---- reading the input and the stack ---- */

const unsigned char *pm_bytes(Machine *m, uint64_t n)
{
    const unsigned char *s = m->b + m->pos;
    if (n > m->len - m->pos) {
        pm_fault(m, "the data ends here, %llu more bytes are wanted", (unsigned long long)n);
        return NULL;
    }
    m->pos += (size_t)n;
    return s;
}

uint64_t pm_little(const unsigned char *s, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0;) v = v << 8 | s[i];
    return v;
}

/* A line without its newline; not terminated. */
const char *pm_line(Machine *m, size_t *n)
{
    const unsigned char *s = m->b + m->pos;
    const unsigned char *end = m->pos < m->len ? memchr(s, '\n', m->len - m->pos) : NULL;
    if (!end) {
        pm_fault(m, "the data ends inside a line of text");
        return NULL;
    }
    *n = (size_t)(end - s);
    m->pos += *n + 1;
    return (const char *)s;
}

size_t pm_fence(const Machine *m)
{
    return m->nmark ? m->mark[m->nmark - 1] : 0;
}

/* The k entries on top of the stack (above the last mark), or NULL with a fault. They stay. */
PyObj **pm_top(Machine *m, size_t k)
{
    if (m->n - pm_fence(m) < k) {
        pm_fault(m, "an empty stack");
        return NULL;
    }
    return m->stack + m->n - k;
}

/* Removes the last mark; the k entries above it have been popped but can still be read. */
PyObj **pm_pop_mark(Machine *m, size_t *k)
{
    size_t height = pm_fence(m);
    if (!m->nmark) {
        pm_fault(m, "no MARK on the stack");
        return NULL;
    }
    m->nmark--;
    *k = m->n - height;
    m->n = height;
    return m->stack + height;
}

/* Writers number their memo from 0, so an index beyond the bytes read so far is no honest one. */
int pm_memo_put(Machine *m, uint64_t i)
{
    PyObj **t = pm_top(m, 1);
    if (!t) return -1;
    if (i >= m->pos) return pm_fault(m, "memo index %llu", (unsigned long long)i);
    if (i >= m->nmemo) {
        mem_grow(&m->memo, &m->memo_cap, (size_t)i + 1, sizeof *m->memo);
        memset(m->memo + m->nmemo, 0, ((size_t)i + 1 - m->nmemo) * sizeof *m->memo);
        m->nmemo = (size_t)i + 1;
    }
    m->memo[i] = *t;
    return 0;
}

int pm_memo_get(Machine *m, uint64_t i)
{
    if (i >= m->nmemo || !m->memo[i])
        return pm_fault(m, "memo index %llu was never filled", (unsigned long long)i);
    return pm_push(m, m->memo[i]);
}

int pm_push_int(Machine *m, PyKind kind, int64_t v)
{
    PyObj *o = pm_push_new(m, kind);
    if (!o) return -1;
    o->i = v;
    return 0;
}

int pm_push_text(Machine *m, PyKind kind, const void *s, size_t n)
{
    PyObj *o = pm_push_new(m, kind);
    if (!o) return -1;
    o->s = s;
    o->n = n;
    return 0;
}

int pm_push_float(Machine *m, double v)
{
    PyObj *o = pm_push_new(m, PY_FLOAT);
    if (!o) return -1;
    o->f = v;
    return 0;
}

static bool may_be_key(PyKind k)
{
    return k <= PY_TUPLE && k != PY_BIGINT;
}

int pm_put_pairs(Machine *m, PyObj *dict, PyObj **item, size_t k)
{
    if (dict->kind != PY_DICT) return pm_fault(m, "sets items of a %s", py_kind_name(dict->kind));
    if (k % 2) return pm_fault(m, "a key without a value");
    for (size_t i = 0; i < k; i += 2)
        if (!may_be_key(item[i]->kind))
            return pm_fault(m, "a %s as key of a dict", py_kind_name(item[i]->kind));
    pm_append(m, dict, item, k / 2, 2);
    return 0;
}
