/* data/index.c -- see index.h: making the list. One pass over the folders; a file costs the bytes
 * of its name and no system call of its own. */
#include "data/index.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "data/decode.h"
#include "io/fs.h"

#define DEPTH_MAX 8 /* folders below the split's: the class and what is in it */

typedef struct Place {
    dev_t dev;
    ino_t inode;
} Place;

/* The folders being listed, from the split's own downwards: a link to one of them never ends. */
typedef struct Trail {
    Place at[DEPTH_MAX + 1];
    int depth;
} Trail;

typedef struct Names {
    char **v;
    size_t n, cap;
} Names;

static void names_add(Names *s, const char *name)
{
    mem_grow(&s->v, &s->cap, s->n + 1, sizeof(*s->v));
    s->v[s->n++] = xstrdup(name);
}

static void names_free(Names *s)
{
    for (size_t i = 0; i < s->n; i++) free(s->v[i]);
    free(s->v);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(Names *s)
{
    if (s->n) qsort(s->v, s->n, sizeof(*s->v), by_name);
}

/* "a/b", or "b" where a is "". The offset in x->text. */
static size_t put_name(TreeIndex *x, size_t parent, const char *name)
{
    size_t start = x->len, n = strlen(name), m = strlen(x->text + parent);
    mem_grow(&x->text, &x->cap, x->len + m + n + 2, 1);
    if (m) {
        memcpy(x->text + x->len, x->text + parent, m);
        x->len += m;
        x->text[x->len++] = '/';
    }
    memcpy(x->text + x->len, name, n + 1);
    x->len += n + 1;
    return start;
}

static void put_image(TreeIndex *x, size_t parent, const char *name)
{
    mem_grow(&x->image, &x->image_cap, x->nimages + 1, sizeof(*x->image));
    x->image[x->nimages++] = put_name(x, parent, name);
}

/* What an entry is: 2 a folder, 1 a file or a link to be opened as one, 0 of no interest. The disk
 * is asked only where the folder does not tell: sets have millions of names. */
static int kind_of(const struct dirent *d, const char *folder, bool images)
{
    bool known = images && decode_known_name(d->d_name);
    char *path;
    int kind;
    if (d->d_name[0] == '.') return 0;
    if (d->d_type == DT_DIR) return 2;
    if (d->d_type == DT_REG) return known;
    if (d->d_type != DT_LNK && d->d_type != DT_UNKNOWN) return 0;
    if (known && d->d_type == DT_LNK) return 1;
    path = fs_join(folder, d->d_name);
    kind = fs_exists(path);
    free(path);
    return kind == 2 ? 2 : known;
}

/* Opens a folder, notes how it is, and steps into it. */
static DIR *enter(TreeIndex *x, size_t name, bool class, const char *path, Trail *t, Err *e)
{
    DIR *dir = opendir(path);
    struct stat st;
    if (!dir || fstat(dirfd(dir), &st) < 0) {
        err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
        if (dir) closedir(dir);
        return NULL;
    }
    for (int i = 0; i < t->depth; i++) {
        if (t->at[i].dev != st.st_dev || t->at[i].inode != st.st_ino) continue;
        err_set(e, ERR_DATA, "%s: a link to a folder that it lies in", path);
        closedir(dir);
        return NULL;
    }
    if (t->depth > DEPTH_MAX) {
        err_set(e, ERR_DATA, "%s: folders nested deeper than %d", path, DEPTH_MAX);
        closedir(dir);
        return NULL;
    }
    t->at[t->depth++] = (Place){st.st_dev, st.st_ino};
    mem_grow(&x->folder, &x->folder_cap, x->nfolders + 1, sizeof(*x->folder));
    x->folder[x->nfolders++] =
        (IndexFolder){st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_ino, name, 0, class};
    return dir;
}

/* The entries of one folder: images at once, sub-folders after it is closed, so that no more than
 * one is open at a time. */
static int list_folder(TreeIndex *x, size_t name, int level, Trail *t, Err *e)
{
    char *path = level ? fs_join(x->path, x->text + name) : xstrdup(x->path);
    DIR *dir = enter(x, name, level == 1, path, t, e);
    Names sub = {0};
    struct dirent *d;
    int rc = dir ? 0 : -1;
    for (errno = 0; dir && (d = readdir(dir)); errno = 0) {
        int kind = kind_of(d, path, level > 0);
        if (kind == 2)
            names_add(&sub, d->d_name);
        else if (kind)
            put_image(x, name, d->d_name);
    }
    if (dir && errno) rc = err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
    if (dir) closedir(dir);
    names_sort(&sub);
    for (size_t i = 0; i < sub.n && !rc; i++) {
        size_t first = x->nimages, at = x->nfolders;
        rc = list_folder(x, put_name(x, name, sub.v[i]), level + 1, t, e);
        if (!rc && !level) x->folder[at].images = x->nimages - first;
    }
    if (dir) t->depth--;
    names_free(&sub);
    free(path);
    return rc;
}

static int by_text(const void *a, const void *b, void *text)
{
    const char *s = text;
    return strcmp(s + *(const size_t *)a, s + *(const size_t *)b);
}

static void sort_images(TreeIndex *x)
{
    size_t first = 0;
    for (size_t i = 0; i < x->nfolders; i++) {
        size_t n = (size_t)x->folder[i].images;
        if (n) qsort_r(x->image + first, n, sizeof(*x->image), by_text, x->text);
        first += n;
    }
}

int index_list(TreeIndex *x, const char *path, Err *e)
{
    Trail t = {0};
    struct timespec now;
    memset(x, 0, sizeof(*x));
    clock_gettime(CLOCK_REALTIME, &now);
    x->started = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    x->path = realpath(path, NULL);
    if (!x->path) return err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
    mem_grow(&x->text, &x->cap, 1, 1);
    x->text[x->len++] = 0; /* the split's own folder is "" */
    if (list_folder(x, 0, 0, &t, e)) return -1;
    sort_images(x);
    return 0;
}

void index_free(TreeIndex *x)
{
    free(x->path), free(x->text), free(x->image), free(x->folder);
    memset(x, 0, sizeof(*x));
}

int index_classes(const char *path, char ***names, size_t *n, Err *e)
{
    Names s = {0};
    DIR *dir = opendir(path);
    struct dirent *d;
    if (!dir) return err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
    while ((d = readdir(dir)))
        if (kind_of(d, path, false) == 2) names_add(&s, d->d_name);
    closedir(dir);
    names_sort(&s);
    *names = s.v;
    *n = s.n;
    return 0;
}
