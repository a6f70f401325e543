/* io/pth.h -- PyTorch checkpoint files, every object in them by path. For a state dict use
 * io/ckpt.h.
 *
 * Both containers (zip, and the legacy one of torch < 1.6) hold one pickle and raw storages.
 * Nothing is executed: the pickle may name nothing but the storage types, the tensor constructors
 * and OrderedDict. */
#ifndef IO_PTH_H
#define IO_PTH_H

#include "io/elem.h"
#include "io/fs.h"
#include "io/pickle.h"
#include "io/zip.h"

#define PTH_MAX_DIM 8

typedef struct PthStorage {
    const char *key;           /* not terminated */
    size_t nkey;
    const unsigned char *data;
    const ElemType *type;
    int64_t n;                 /* elements */
    bool listed;               /* legacy: in the list of keys */
} PthStorage;

typedef struct Pth {
    const char *format;        /* "pth-zip", "pth-legacy" */
    const PyObj *top;          /* the saved object */
    FileMap map;
    Pickle pickle;
    Zip zip;
    char *folder;              /* zip: the top folder, with its slash */
    PthStorage *storage;       /* legacy: sorted by key */
    size_t nstorage;
    Arena arena;
} Pth;

typedef struct PthTensor {
    const ElemType *type;
    const unsigned char *data; /* the first element of the storage, not aligned */
    int64_t offset;            /* in elements */
    int ndim;
    int64_t dim[PTH_MAX_DIM], stride[PTH_MAX_DIM];
    int64_t len;               /* product of dim: below 2^31 */
    int64_t storage_len;
} PthTensor;

/* Opens and checks everything: bounds of every tensor, checksums of every storage in use. Errors
 * name the file, ERR_DATA; call pth_close in either case. */
int pth_open(Pth *p, const char *path, Err *e);
void pth_close(Pth *p);

bool pth_is_tensor(const PyObj *o);
int pth_tensor(Pth *p, const PyObj *o, PthTensor *t, Err *e);

/* The elements in C order, converted to t->type->dtype; dst has t->len elements. */
void pth_copy(const PthTensor *t, void *dst);

/* Calls `tensor` or `scalar` for every leaf, in file order; path = dict keys and list positions
 * joined by '/'. Stops at the first that returns other than 0 and returns that. Objects that
 * contain themselves, or nest deeper than 200, are an error. */
typedef struct PthVisitor {
    void *arg;
    int (*tensor)(void *arg, const char *path, const PthTensor *t, Err *e);
    int (*scalar)(void *arg, const char *path, const PyObj *o, Err *e);
} PthVisitor;
int pth_walk(Pth *p, const PthVisitor *v, Err *e);

#endif
