/* data/mnist.c -- MNIST idx files, plain or gzip'ed (LeCun et al. 1998).
 *
 * idx: two zero bytes, a type byte (8: unsigned byte), the number of dimensions, then each
 * dimension as a big-endian 32-bit number, then the data. The two files of a split must agree;
 * either split may be there without the other. */
#include "data/mnist.h"

#include <stdlib.h>
#include <string.h>

#include "data/samples.h"
#include "data/where.h"
#include "io/fs.h"
#include "io/gz.h"

#define CLASSES   10
#define COUNT_MAX 10000000u
#define SIDE_MAX  512u
#define FILE_MAX  (2048ull << 20)

static const char *const stems[2][2] = {{"train-images", "train-labels"},
                                        {"t10k-images", "t10k-labels"}};
static const char *const endings[2][4] = {
    {"-idx3-ubyte.gz", "-idx3-ubyte", ".idx3-ubyte.gz", ".idx3-ubyte"},
    {"-idx1-ubyte.gz", "-idx1-ubyte", ".idx1-ubyte.gz", ".idx1-ubyte"}};

/* The path of the images (what = 0) or labels (1) of a split; NULL when it has neither name. */
static char *find_file(const char *folder, Split split, int what)
{
    for (size_t i = 0; i < ARRAY_LEN(endings[0]); i++) {
        char *name = xasprintf("%s%s", stems[split == SPLIT_VAL][what], endings[what][i]),
             *path = fs_join(folder, name);
        free(name);
        if (fs_exists(path) == 1) return path;
        free(path);
    }
    return NULL;
}

static bool place_test(const DatasetDef *def, const DataOpts *o, const char *path, bool folder,
                       Split split)
{
    char *file = folder ? find_file(path, split, 0) : NULL;
    (void)def, (void)o;
    free(file);
    return file != NULL;
}

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Checks the header of an idx file of `ndim` dimensions against the length; dims go to `dim`. */
static int check_idx(const char *path, const unsigned char *p, size_t n, int ndim, uint32_t *dim,
                     Err *e)
{
    size_t head = 4 + 4 * (size_t)ndim;
    uint64_t want = 1;
    if (n < head) return err_set(e, ERR_DATA, "%s: %zu bytes, shorter than its header", path, n);
    if (p[0] || p[1] || p[2] != 8 || p[3] != ndim)
        return err_set(e, ERR_DATA,
                       "%s: starts with %02x%02x%02x%02x, an idx file of bytes in %d dimensions "
                       "with 000008%02x",
                       path, p[0], p[1], p[2], p[3], ndim, (unsigned)ndim);
    for (int i = 0; i < ndim; i++) {
        dim[i] = big_endian(p + 4 + 4 * i);
        if (!dim[i] || dim[i] > (i ? SIDE_MAX : COUNT_MAX))
            return err_set(e, ERR_DATA, "%s: dimension %d is %u, outside 1..%u", path, i, dim[i],
                           i ? SIDE_MAX : COUNT_MAX);
        want *= dim[i];
    }
    if (n - head != want)
        return err_set(
            e, ERR_DATA,
            "%s: %zu bytes behind the header where its dimensions say %llu; cut or damaged", path,
            n - head, (unsigned long long)want);
    return 0;
}

static int fill(Samples *s, const char *ipath, const unsigned char *images, size_t ni,
                const char *lpath, const unsigned char *labels, size_t nl, Err *e)
{
    uint32_t idim[3], ldim[1];
    if (check_idx(ipath, images, ni, 3, idim, e) || check_idx(lpath, labels, nl, 1, ldim, e))
        return -1;
    if (idim[0] != ldim[0])
        return err_set(e, ERR_DATA, "%s: %u labels for the %u images of %s", lpath, ldim[0],
                       idim[0], ipath);
    s->h = (int)idim[1], s->w = (int)idim[2], s->c = 1;
    s->px_cap = ni - 16;
    s->px = xmalloc(s->px_cap);
    memcpy(s->px, images + 16, s->px_cap);
    s->label_cap = s->n = idim[0];
    s->label = xmalloc((size_t)s->n * sizeof(*s->label));
    for (uint32_t i = 0; i < s->n; i++) {
        s->label[i] = labels[8 + i];
        if (s->label[i] >= CLASSES)
            return err_set(e, ERR_DATA, "%s: label %u is %d; MNIST has 0..%d", lpath, i,
                           s->label[i], CLASSES - 1);
    }
    return 0;
}

int mnist_open(Dataset *d, const DataOpts *o, Err *e)
{
    Samples *s;
    char *ipath, *lpath, *images = NULL, *labels = NULL;
    size_t ni, nl;
    int rc = -1;
    d->where = data_locate(d->def, o, d->split, place_test, e);
    if (!d->where) return -1;
    d->priv = s = xcalloc(1, sizeof(*s));
    ipath = find_file(d->where, d->split, 0);
    lpath = find_file(d->where, d->split, 1);
    if (!lpath)
        err_set(e, ERR_DATA, "%s: has %s but no %s%s", d->where, ipath,
                stems[d->split == SPLIT_VAL][1], endings[1][0]);
    else if ((images = gz_read(ipath, FILE_MAX, &ni, e)) &&
             (labels = gz_read(lpath, FILE_MAX, &nl, e)))
        rc = fill(s, ipath, (unsigned char *)images, ni, lpath, (unsigned char *)labels, nl, e);
    free(images), free(labels), free(ipath), free(lpath);
    d->count = s->n;
    d->channels = 1;
    d->classes = CLASSES;
    d->class_names = d->def->class_names;
    return rc;
}
