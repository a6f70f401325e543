/* data/cifar.c -- CIFAR-10 and CIFAR-100 (Krizhevsky 2009): binary version, Python version, or a
 * tree of image files; unpacked or in the .tar.gz as distributed.
 *
 * Binary record: label byte (CIFAR-100: coarse, then fine label), then 1024 red, 1024 green, 1024
 * blue bytes. Python batch: a pickled dict with "data" [n, 3072] of the same planes and "labels"
 * ("fine_labels"). A batch may hold any whole number of records. */
#include "data/cifar.h"

#include <stdlib.h>
#include <string.h>

#include "data/tree.h"
#include "data/where.h"
#include "io/fs.h"
#include "io/pickle.h"
#include "io/targz.h"

#define SIDE      32
#define PLANE     (SIDE * SIDE)
#define BATCH_MAX (512u << 20) /* bytes of one batch file */
#define MAX_FILES 5

/* The four sets of file names. */
typedef struct Layout {
    const char *train[MAX_FILES + 1], *val[2];
    bool pickle;
} Layout;

typedef struct CifarKind {
    const char *title;
    int classes, label_bytes; /* the last label byte counts */
    const char *label_key;
    Layout layout[2];
} CifarKind;

// clang-format off
static const CifarKind cifar10 = {
    "CIFAR-10", 10, 1, "labels",
    {{{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin", NULL},
      {"test_batch.bin", NULL}, false},
     {{"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", NULL},
      {"test_batch", NULL}, true}}};
static const CifarKind cifar100 = {
    "CIFAR-100", 100, 2, "fine_labels",
    {{{"train.bin", NULL}, {"test.bin", NULL}, false},
     {{"train", NULL}, {"test", NULL}, true}}};
// clang-format on

static const CifarKind *kind_of(const DatasetDef *def)
{
    return def->classes == 10 ? &cifar10 : &cifar100;
}

static const char *const *files_of(const Layout *l, Split split)
{
    return split == SPLIT_TRAIN ? l->train : l->val;
}

/* Planes to pixels. */
static void interleave(unsigned char *px, const unsigned char *planes)
{
    for (int i = 0; i < PLANE; i++, px += 3)
        for (int c = 0; c < 3; c++) px[c] = planes[c * PLANE + i];
}

static int add_record(Samples *s, const CifarKind *k, const char *file, size_t record,
                      int64_t label, const unsigned char *planes, Err *e)
{
    if (label < 0 || label >= k->classes)
        return err_set(e, ERR_DATA, "%s: record %zu has label %lld; %s has 0..%d", file, record,
                       (long long)label, k->title, k->classes - 1);
    interleave(samples_add_pixels(s, (int)label), planes);
    return 0;
}

static int add_binary(Samples *s, const CifarKind *k, const char *file, const unsigned char *p,
                      size_t n, Err *e)
{
    size_t size = (size_t)k->label_bytes + 3 * PLANE;
    if (!n || n % size)
        return err_set(
            e, ERR_DATA,
            "%s: %zu bytes are no whole number of %s records (%zu bytes each); cut or damaged",
            file, n, k->title, size);
    for (size_t i = 0; i < n / size; i++, p += size)
        if (add_record(s, k, file, i, p[k->label_bytes - 1], p + k->label_bytes, e)) return -1;
    return 0;
}

static int add_pickle(Samples *s, const CifarKind *k, const char *file, const unsigned char *p,
                      size_t n, Err *e)
{
    Pickle pk;
    PyArray a;
    const PyObj *labels;
    int rc = pickle_read(&pk, p, n, &pickle_numpy, e);
    if (rc) {
        pickle_free(&pk);
        return err_prefix(e, "%s", file);
    }
    labels = py_get(pk.top, k->label_key);
    if (!py_get(pk.top, "data") || !labels || labels->kind != PY_LIST)
        rc = err_set(e, ERR_DATA, "%s: no %s batch: a dict with 'data' and '%s' is expected", file,
                     k->title, k->label_key);
    else if (py_ndarray(py_get(pk.top, "data"), &a, e))
        rc = err_prefix(e, "%s", file);
    else if (a.type != 'u' || a.size != 1 || a.fortran || a.ndim != 2 || a.dim[1] != 3 * PLANE ||
             a.dim[0] < 1)
        rc = err_set(e, ERR_DATA, "%s: 'data' is no array of n x %d bytes", file, 3 * PLANE);
    else if ((size_t)a.dim[0] != labels->n)
        rc = err_set(e, ERR_DATA, "%s: %lld images but %zu labels", file, (long long)a.dim[0],
                     labels->n);
    for (size_t i = 0; !rc && i < labels->n; i++) {
        int64_t label;
        if (!py_int(labels->v[i], &label))
            rc = err_set(e, ERR_DATA, "%s: label %zu is no integer", file, i);
        else
            rc = add_record(s, k, file, i, label, a.data + i * 3 * PLANE, e);
    }
    pickle_free(&pk);
    return rc;
}

static int add_batch(Samples *s, const CifarKind *k, const Layout *l, const char *file,
                     const void *p, size_t n, Err *e)
{
    return (l->pickle ? add_pickle : add_binary)(s, k, file, p, n, e);
}

/* ---- a folder ---- */

static const Layout *folder_layout(const CifarKind *k, const char *path, Split split)
{
    for (size_t i = 0; i < ARRAY_LEN(k->layout); i++) {
        const char *const *f = files_of(&k->layout[i], split);
        for (; *f; f++) {
            char *file = fs_join(path, *f);
            int kind = fs_exists(file);
            free(file);
            if (kind == 1) return &k->layout[i];
        }
    }
    return NULL;
}

static int read_folder(Samples *s, const CifarKind *k, const Layout *l, const char *path,
                       Split split, Err *e)
{
    for (const char *const *f = files_of(l, split); *f; f++) {
        char *file = fs_join(path, *f), *bytes;
        size_t n;
        int rc = -1;
        bytes = fs_read(file, BATCH_MAX, &n, e);
        if (bytes) rc = add_batch(s, k, l, file, bytes, n, e);
        free(bytes);
        free(file);
        if (rc) return -1;
    }
    return 0;
}

/* ---- an archive ---- */

/* Which batch of which layout a member is: its number, or -1. */
static int match_member(const CifarKind *k, const char *name, Split split, const Layout **l)
{
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    for (size_t i = 0; i < ARRAY_LEN(k->layout); i++) {
        const char *const *f = files_of(&k->layout[i], split);
        for (int j = 0; f[j]; j++)
            if (!strcmp(base, f[j])) return *l = &k->layout[i], j;
    }
    return -1;
}

/* 1: batches; 2: image files; 0: neither; -1: damaged. The first telling member decides. */
static int archive_kind(const CifarKind *k, const char *path, Err *e)
{
    Targz *t = targz_open(path, e);
    TarMember m;
    int rc, kind = 0;
    if (!t) return -1;
    while (!kind && (rc = targz_next(t, &m, e)) == 1) {
        const Layout *l;
        if (!m.file) continue;
        if (match_member(k, m.name, SPLIT_TRAIN, &l) >= 0 ||
            match_member(k, m.name, SPLIT_VAL, &l) >= 0)
            kind = 1;
        else if (decode_known_name(m.name))
            kind = 2;
    }
    targz_close(t);
    return kind ? kind : rc;
}

/* A member in memory, read in pieces so that a false size costs no memory. */
static unsigned char *read_member(Targz *t, const TarMember *m, const char *path, size_t *n, Err *e)
{
    unsigned char *p = NULL;
    size_t cap = 0;
    *n = 0;
    if (m->size > BATCH_MAX) {
        err_set(e, ERR_DATA, "%s: member %s has %llu bytes, no batch is that large", path, m->name,
                (unsigned long long)m->size);
        return NULL;
    }
    do {
        size_t step = m->size - *n < (1u << 20) ? (size_t)m->size - *n : 1u << 20;
        mem_grow(&p, &cap, *n + step + 1, 1);
        if (targz_read(t, p + *n, step, e)) return free(p), NULL;
        *n += step;
    } while (*n < m->size);
    return p;
}

static int read_archive(Samples *s, const CifarKind *k, const char *path, Split split, Err *e)
{
    struct {
        unsigned char *p;
        size_t n;
    } got[MAX_FILES] = {{0}};
    const Layout *layout = NULL;
    Targz *t = targz_open(path, e);
    TarMember m;
    int rc;
    if (!t) return -1;
    while ((rc = targz_next(t, &m, e)) == 1) {
        const Layout *l;
        int i = m.file ? match_member(k, m.name, split, &l) : -1;
        if (i < 0 || (layout && l != layout) || got[i].p) continue;
        layout = l;
        got[i].p = read_member(t, &m, path, &got[i].n, e);
        if (!got[i].p) {
            rc = -1;
            break;
        }
    }
    targz_close(t);
    if (!rc && !layout)
        rc =
            err_set(e, ERR_DATA, "%s: holds no %s images of %s", path, split_name(split), k->title);
    for (int i = 0; !rc && files_of(layout, split)[i]; i++) {
        char *file = xasprintf("%s: %s", path, files_of(layout, split)[i]);
        if (!got[i].p)
            rc = err_set(e, ERR_DATA, "%s is missing", file);
        else
            rc = add_batch(s, k, layout, file, got[i].p, got[i].n, e);
        free(file);
        free(got[i].p);
        got[i].p = NULL;
    }
    for (int i = 0; i < MAX_FILES; i++) free(got[i].p);
    return rc;
}

static bool place_test(const DatasetDef *def, const DataOpts *o, const char *path, bool folder,
                       Split split)
{
    if (!folder) return is_archive(path);
    return folder_layout(kind_of(def), path, split) || tree_has(&tree_cifar, o, path, true, split);
}

int cifar_open(Dataset *d, const DataOpts *o, Err *e)
{
    const CifarKind *k = kind_of(d->def);
    char *path = data_locate(d->def, o, d->split, place_test, e);
    const Layout *layout;
    Samples *s;
    int rc, kind;
    if (!path) return -1;
    layout = fs_exists(path) == 2 ? folder_layout(k, path, d->split) : NULL;
    kind = layout ? 0 : fs_exists(path) == 2 ? 2 : archive_kind(k, path, e);
    if (kind == 2 || (!layout && kind < 0)) {
        rc = kind < 0 ? -1 : tree_open(d, o, &tree_cifar, path, e);
        free(path);
        return rc;
    }
    d->priv = s = xcalloc(1, sizeof(*s));
    d->where = path;
    s->h = s->w = SIDE;
    s->c = 3;
    if (layout)
        rc = read_folder(s, k, layout, path, d->split, e);
    else
        rc = read_archive(s, k, path, d->split, e);
    d->count = s->n;
    d->classes = k->classes;
    d->channels = 3;
    d->class_names = d->def->class_names;
    return rc;
}
