/* io/pickle.h -- Python pickles as plain data. Nothing is ever called or imported.
 *
 * A pickle is a program for a small stack machine. This one runs it with a fixed list of opcodes
 * and the caller's list of names (PickleRules): a name outside the list is an error at once, and
 * "calling" one that is on the list only records a PY_CALL node with its arguments. What such a
 * node means is decided by the caller afterwards.
 *
 * Reading a batch of CIFAR ("data_batch_1", "train"; written by Python 2, protocol 2):
 *
 *     Pickle p;
 *     PyArray a;
 *     if (pickle_read(&p, bytes, len, &pickle_numpy, e) < 0) -> err_prefix(e, "%s", path)
 *     const PyObj *data = py_get(p.top, "data");     NULL: no such key, or no dict
 *     const PyObj *labels = py_get(p.top, "labels");   CIFAR-100: "fine_labels" ...
 *     if (py_ndarray(data, &a, e) < 0) ...          a: type 'u', size 1, ndim 2, dim {10000, 3072}
 *     if (labels && labels->kind == PY_LIST)           labels->n entries,
 *         py_int(labels->v[i], &value)                 false when entry i is not an integer
 *     ... read a.data ...
 *     pickle_free(&p);                                 also after an error; only then free `bytes`
 */
#ifndef IO_PICKLE_H
#define IO_PICKLE_H

#include <stdint.h>

#include "engine/mem.h"

typedef enum PyKind {
    PY_NONE,
    PY_BOOL,   /* i */
    PY_INT,    /* i */
    PY_BIGINT, /* s, n: little-endian two's complement of over 8 bytes; only with PICKLE_BIGINT */
    PY_FLOAT,  /* f */
    PY_STR,    /* s, n: UTF-8 */
    PY_BYTES,  /* s, n: bytes, and Python 2's str */
    PY_TUPLE,  /* v, n */
    PY_LIST,   /* v, n */
    PY_DICT,   /* v, n: v[2i] is the i-th key, v[2i + 1] its value, in the order written */
    PY_GLOBAL, /* g */
    PY_PERSID, /* v[0]: the persistent id */
    PY_CALL    /* g; v[0]: the argument tuple, v[1]: the state given by BUILD, or NULL */
} PyKind;

typedef struct PyObj {
    PyKind kind;
    union {
        int64_t i;
        double f;
        const char *s;          /* not terminated; usually points into the pickle itself */
        struct PyObj **v;
    };
    size_t n;                   /* bytes, items or pairs */
    const struct PyGlobal *g;
} PyObj;

enum { /* PyGlobal.flags: what REDUCE and BUILD may do with it; 0: the name may only be mentioned */
    PG_CALL = 1,   /* REDUCE gives a PY_CALL */
    PG_DICT = 2,   /* REDUCE with () or ([pairs]) gives a PY_DICT (OrderedDict) */
    PG_LATIN1 = 4, /* REDUCE with (str, 'latin1') gives PY_BYTES (_codecs.encode) */
    PG_BUILD = 8   /* BUILD on its PY_CALL is recorded, else an error (a dict drops the state) */
};

typedef struct PyGlobal {
    const char *module, *name;
    unsigned flags;
    int id; /* the caller's own meaning */
} PyGlobal;

enum {                 /* PickleRules.flags */
    PICKLE_TEXT = 1,   /* the text opcodes of protocol 0 (INT, STRING, ...) */
    PICKLE_PERSID = 2, /* BINPERSID */
    PICKLE_BIGINT = 4  /* integers of more than 8 bytes */
};

typedef struct PickleRules {
    const PyGlobal *globals;
    size_t nglobals;
    unsigned flags;
} PickleRules;

typedef struct Pickle {
    PyObj *top;     /* the object */
    size_t used;    /* bytes up to and including STOP */
    PyObj **obj;    /* every node in order of creation: to check calls that nothing refers to */
    size_t nobj, obj_cap;
    Arena arena;
} Pickle;

/* Runs one pickle of at most `len` bytes. `data` must live as long as `p`. Memory is bounded by a
 * constant times `len`; objects may refer to themselves, so walk them with a limit. -1 with `e`
 * ("pickle, byte N: ...", ERR_DATA; the caller puts the file's name in front). Call pickle_free in
 * either case. */
int pickle_read(Pickle *p, const void *data, size_t len, const PickleRules *r, Err *e);
void pickle_free(Pickle *p);

/* The last value under a string key (str or bytes); NULL when `o` is NULL, no dict, or has no such
 * key. */
const PyObj *py_get(const PyObj *o, const char *key);
bool py_is_text(const PyObj *o, const char *text); /* a str or bytes of that content */
bool py_int(const PyObj *o, int64_t *v);           /* false when o is NULL or no integer */
const char *py_kind_name(PyKind k);                /* "tuple" ... */

/* ---- numpy arrays: names that only data sets may use ---- */
extern const PickleRules pickle_numpy;

typedef struct PyArray {
    const unsigned char *data; /* borrowed from the pickle */
    char type;                 /* 'u', 'i', 'f', 'b' as numpy's kind; little-endian */
    int size;                  /* bytes of an element */
    int ndim;
    int64_t dim[8];            /* their product times size is what `data` holds: checked */
    bool fortran;              /* first index fastest; else C order */
} PyArray;
int py_ndarray(const PyObj *o, PyArray *a, Err *e);

#endif
