/* io/pickle_machine.h -- the stack machine behind pickle_read: its input, stack, memo and nodes.
 * Private to io/pickle*.c. Functions that fail leave a fault in m->e and give -1 or NULL.
 *
 * The memory taken is bounded by the bytes read: an opcode makes at most one node, lists double,
 * memo indices may not run ahead of the pickle, and there is a largest number of nodes. */
#ifndef IO_PICKLE_MACHINE_H
#define IO_PICKLE_MACHINE_H

#include "io/pickle.h"

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

/* "pickle, byte N: ..."; always -1. */
int pm_fault(Machine *m, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Input. */
const unsigned char *pm_bytes(Machine *m, uint64_t n);
uint64_t pm_little(const unsigned char *s, int n);
const char *pm_line(Machine *m, size_t *n); /* without its newline; not terminated */

/* Stack. */
size_t pm_fence(const Machine *m);          /* height of the last mark */
PyObj **pm_top(Machine *m, size_t k);       /* the k entries above it; they stay */
PyObj **pm_pop_mark(Machine *m, size_t *k); /* popped, but can still be read */
int pm_push(Machine *m, PyObj *o);
int pm_push_int(Machine *m, PyKind kind, int64_t v);
int pm_push_text(Machine *m, PyKind kind, const void *s, size_t n);
int pm_push_float(Machine *m, double v);
int pm_memo_put(Machine *m, uint64_t i);
int pm_memo_get(Machine *m, uint64_t i);

/* Nodes. */
void *pm_take(Machine *m, size_t n); /* memory that lives as long as the pickle */
PyObj *pm_push_new(Machine *m, PyKind kind);
void pm_append(Machine *m, PyObj *o, PyObj *const *item, size_t k, size_t width);
int pm_put_pairs(Machine *m, PyObj *dict, PyObj **item, size_t k);

/* The opcodes of protocol 0 (pickle_text.c). */
int pm_text_int(Machine *m, int arg);
int pm_text_float(Machine *m, int arg);
int pm_text_memo(Machine *m, int put);
int pm_text_string(Machine *m, int arg);
int pm_text_unicode(Machine *m, int arg);
int pm_text_container(Machine *m, int kind);

#endif
