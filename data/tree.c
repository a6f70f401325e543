/* data/tree.c -- see tree.h. A folder's list comes from data/index.c; the images of an archive's
 * split are kept in memory in their compressed form, since a gzip stream cannot be read at random.
 */
#include "data/tree.h"

#include <stdlib.h>
#include <string.h>

#include "data/index.h"
#include "data/where.h"
#include "io/fs.h"
#include "io/targz.h"

#define BLOB_MAX   (4ull << 30) /* compressed images kept of an archive */
#define MEMBER_MAX (256u << 20)

static const char *const train_names[] = {"train", NULL}, *const val_names[] = {"val", NULL};
static const char *const any_val[] = {"val", "valid", "test", NULL}, *const cinic_val[] = {
                                                                         "valid", "val", NULL};
static const char *const cifar_val[] = {"test", "val", NULL};

const TreeRule tree_any = {train_names, any_val, 0};
const TreeRule tree_imagenet = {train_names, val_names, 0};
const TreeRule tree_imagenet_val50k = {train_names, val_names, 50000};
const TreeRule tree_cinic = {train_names, cinic_val, 0};
const TreeRule tree_cifar = {train_names, cifar_val, 0};

/* A growing list of class names; `last` speeds up runs of the same one. */
typedef struct Names {
    char **v;
    int n, last;
    size_t cap;
} Names;

static void names_append(Names *s, const char *name, size_t len)
{
    mem_grow(&s->v, &s->cap, (size_t)s->n + 1, sizeof(*s->v));
    s->v[s->n++] = xstrndup(name, len);
}

/* Its place; appended when it is new. */
static int names_add(Names *s, const char *name, size_t len)
{
    if (s->n && strlen(s->v[s->last]) == len && !memcmp(s->v[s->last], name, len)) return s->last;
    for (int i = 0; i < s->n; i++)
        if (strlen(s->v[i]) == len && !memcmp(s->v[i], name, len)) return s->last = i;
    names_append(s, name, len);
    return s->last = s->n - 1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(Names *s)
{
    if (s->n) qsort(s->v, (size_t)s->n, sizeof(*s->v), by_name);
    s->last = 0;
}

static void names_sort_unique(Names *s)
{
    int n = 0;
    names_sort(s);
    for (int i = 0; i < s->n; i++) {
        if (n && !strcmp(s->v[n - 1], s->v[i]))
            free(s->v[i]);
        else
            s->v[n++] = s->v[i];
    }
    s->n = n;
}

static void names_free(Names *s)
{
    for (int i = 0; i < s->n; i++) free(s->v[i]);
    free(s->v);
}

/* The i-th sub-folder to try for a split: the user's own name alone when he gave one that is not
 * the default. */
static const char *candidate(const TreeRule *r, const DataOpts *o, Split split, int i)
{
    const char *given = split == SPLIT_TRAIN ? o->train_dir : o->val_dir;
    const char *usual = split == SPLIT_TRAIN ? "train" : "val";
    const char *const *list = split == SPLIT_TRAIN ? r->train : r->val;
    if (given && *given && strcmp(given, usual)) return i ? NULL : given;
    for (int k = 0; k < i; k++)
        if (!list[k]) return NULL;
    return list[i];
}

static char *split_folder(const TreeRule *r, const DataOpts *o, const char *path, Split split)
{
    const char *name;
    for (int i = 0; (name = candidate(r, o, split, i)); i++) {
        char *sub = fs_join(path, name);
        if (fs_exists(sub) == 2) return sub;
        free(sub);
    }
    return NULL;
}

bool tree_has(const TreeRule *r, const DataOpts *o, const char *path, bool folder, Split split)
{
    char *sub;
    if (!folder) return is_archive(path);
    sub = split_folder(r, o, path, split);
    free(sub);
    return sub != NULL;
}

/* ---- on disk ---- */

static int add_classes(const char *folder, Names *classes, Err *e)
{
    char **name;
    size_t n;
    if (index_classes(folder, &name, &n, e)) return -1;
    for (size_t i = 0; i < n; i++) {
        names_append(classes, name[i], strlen(name[i]));
        free(name[i]);
    }
    free(name);
    return 0;
}

static int place_of(const Names *classes, const char *name)
{
    char **at = bsearch(&name, classes->v, (size_t)classes->n, sizeof(*classes->v), by_name);
    ASSERT(at, "class %s is not among the %d", name, classes->n);
    return (int)(at - classes->v);
}

/* The list's names become the samples', without a copy. */
static void take_index(Samples *s, TreeIndex *x, const Names *classes)
{
    uint32_t n = 0, end = 0, classless = 0;
    const char *first = NULL;
    s->label_cap = x->nimages;
    s->label = xmalloc((x->nimages + 1) * sizeof(*s->label));
    for (size_t i = 0; i < x->nfolders; i++) {
        const IndexFolder *f = &x->folder[i];
        int label;
        if (!f->class) continue;
        label = place_of(classes, x->text + f->name);
        for (end = n + (uint32_t)f->images; n < end; n++) s->label[n] = label;
        if (f->images) continue;
        if (!classless++) first = x->text + f->name;
    }
    if (classless && n) {
        char *text = xasprintf("%s: %u of %d class folders hold no image, the first: %s", s->root,
                               classless, classes->n, first);
        samples_one_line(text);
        log_msg(LOG_WARN, "%s", text);
        free(text);
    }
    s->n = n;
    s->text = x->text, s->text_len = x->len, s->text_cap = x->cap;
    s->name = x->image, s->name_cap = x->image_cap;
    x->text = NULL, x->image = NULL;
}

static int read_folder(Samples *s, Names *classes, const DataOpts *o, const TreeRule *r,
                       const char *path, Split split, Err *e)
{
    Split other = split == SPLIT_TRAIN ? SPLIT_VAL : SPLIT_TRAIN;
    char *own = split_folder(r, o, path, split), *also = split_folder(r, o, path, other);
    TreeIndex x = {0};
    int rc = 0;
    if (!own) rc = err_set(e, ERR_DATA, "%s: no sub-folder '%s'", path, candidate(r, o, split, 0));
    if (!rc) rc = index_open(&x, own, o->index_cache, e);
    if (!rc && x.nimages >= UINT32_MAX)
        rc = err_set(e, ERR_DATA, "%s: %zu images; fewer than 2^32 are handled", own, x.nimages);
    for (size_t i = 0; i < x.nfolders && !rc; i++) {
        const char *name = x.text + x.folder[i].name;
        if (x.folder[i].class) names_append(classes, name, strlen(name));
    }
    if (!rc && also) rc = add_classes(also, classes, e);
    if (!rc) {
        names_sort_unique(classes);
        s->root = own;
        own = NULL;
        take_index(s, &x, classes);
    } else {
        samples_one_line(e->msg);
    }
    index_free(&x);
    free(own);
    free(also);
    return rc;
}

/* ---- in an archive ---- */

/* Splits [dirs/]SPLIT/CLASS/.../FILE. Returns the number of the split's candidate, or -1. */
static int match_member(const TreeRule *r, const DataOpts *o, Split split, const char *name,
                        const char **class, size_t *class_len)
{
    for (const char *p = name, *slash; (slash = strchr(p, '/')); p = slash + 1) {
        const char *want, *c = slash + 1, *end = strchr(c, '/');
        if (!end || end == c) return -1;
        for (int i = 0; (want = candidate(r, o, split, i)); i++) {
            if (strlen(want) != (size_t)(slash - p) || memcmp(want, p, (size_t)(slash - p)))
                continue;
            *class = c;
            *class_len = (size_t)(end - c);
            return i;
        }
    }
    return -1;
}

static int read_member(Targz *t, const TarMember *m, Samples *s, int label, Err *e)
{
    unsigned char *to;
    if (m->size > MEMBER_MAX || s->blob_len + m->size > BLOB_MAX)
        return err_set(e, ERR_DATA,
                       "%s: member %s has %llu bytes; archives with more than 256 MiB an image or "
                       "4 GiB a split must be "
                       "unpacked (dataset_dir then names the folder)",
                       s->archive, m->name, (unsigned long long)m->size);
    /* read in pieces: a false size must not cost more memory than the file has bytes */
    to = samples_add_bytes(s, m->name, label, 0);
    for (uint64_t left = m->size, n; left; left -= n) {
        n = left < 65536 ? left : 65536;
        mem_grow(&s->blob, &s->blob_cap, s->blob_len + n + 1, 1);
        to = s->blob + s->blob_len;
        if (targz_read(t, to, (size_t)n, e)) return -1;
        s->blob_len += n;
        s->length[s->n - 1] += (uint32_t)n;
    }
    return 0;
}

static int read_archive(Samples *s, Names *classes, const DataOpts *o, const TreeRule *r,
                        const char *path, Split split, Err *e)
{
    Split other = split == SPLIT_TRAIN ? SPLIT_VAL : SPLIT_TRAIN;
    Targz *t = targz_open(path, e);
    TarMember m;
    int best = -1, rc, *place;
    Names order = {0};
    if (!t) return -1;
    while ((rc = targz_next(t, &m, e)) == 1) {
        const char *class = NULL, *base = strrchr(m.name, '/');
        size_t len = 0;
        int which, label;
        if (!m.file || !base || strstr(m.name, "/.") || !decode_known_name(base))
            continue; /* hidden ones too */
        which = match_member(r, o, split, m.name, &class, &len);
        if (which < 0) {
            if (match_member(r, o, other, m.name, &class, &len) >= 0)
                names_add(classes, class, len);
            continue;
        }
        label = names_add(classes, class, len);
        if (best >= 0 && which > best) continue;
        if (best >= 0 && which < best) {
            const char *archive = s->archive;
            Decoder decoder = s->decoder;
            samples_free(s);
            s->archive = archive;
            s->decoder = decoder;
        }
        best = which;
        if (read_member(t, &m, s, label, e)) {
            rc = -1;
            break;
        }
    }
    targz_close(t);
    if (rc < 0) return -1;
    /* labels were given in the order of appearance */
    place = xmalloc(((size_t)classes->n + 1) * sizeof(*place));
    for (int i = 0; i < classes->n; i++) {
        mem_grow(&order.v, &order.cap, (size_t)order.n + 1, sizeof(*order.v));
        order.v[order.n++] = classes->v[i];
    }
    names_sort(classes);
    for (int i = 0; i < order.n; i++) {
        char **at =
            bsearch(&order.v[i], classes->v, (size_t)classes->n, sizeof(*classes->v), by_name);
        place[i] = (int)(at - classes->v);
    }
    for (uint32_t i = 0; i < s->n; i++) s->label[i] = place[s->label[i]];
    free(place);
    free(order.v);
    return 0;
}

/* ---- both ---- */

static void drop_shuffled(Samples *s, uint32_t drop, uint64_t seed)
{
    uint32_t *order = xmalloc((size_t)s->n * sizeof(*order)), n = 0;
    bool *out = xcalloc(s->n, sizeof(*out));
    Rng g = rng_stream(seed, RNG_SHUFFLE, UINT64_MAX, 0);
    for (uint32_t i = 0; i < s->n; i++) order[i] = i;
    rng_shuffle(&g, order, s->n);
    for (uint32_t i = 0; i < drop; i++) out[order[i]] = true;
    for (uint32_t i = 0; i < s->n; i++)
        if (!out[i]) order[n++] = i;
    samples_select(s, order, n);
    free(out);
    free(order);
}

/* N samples spread evenly: the first N of a sorted tree would all be of one class. */
static void thin(Samples *s, uint32_t n)
{
    uint32_t *keep = xmalloc((size_t)n * sizeof(*keep));
    for (uint32_t i = 0; i < n; i++) keep[i] = (uint32_t)((uint64_t)i * s->n / n);
    samples_select(s, keep, n);
    free(keep);
}

int tree_open(Dataset *d, const DataOpts *o, const TreeRule *r, const char *path, Err *e)
{
    Samples *s = xcalloc(1, sizeof(*s));
    Names classes = {0};
    bool archive = fs_exists(path) == 1;
    int limit = d->split == SPLIT_TRAIN ? o->limit_train : o->limit_val, rc;
    const char **names;
    d->priv = s;
    d->where = xstrdup(path);
    s->archive = d->where;
    s->c = 3;
    rc = decoder_find(o->decoder, &s->decoder, e);
    if (!rc) rc = (archive ? read_archive : read_folder)(s, &classes, o, r, d->where, d->split, e);
    if (!rc && !s->n)
        rc = err_set(e, ERR_DATA, "%s: no .jpg, .jpeg or .png below %s/<class>/", path,
                     candidate(r, o, d->split, 0));
    if (!rc && d->split == SPLIT_TRAIN && r->drop_train && s->n <= r->drop_train)
        rc = err_set(e, ERR_DATA, "%s: %u training images, of which data set %s leaves out %u",
                     path, s->n, d->def->name, r->drop_train);
    if (!rc) {
        if (archive) samples_sort(s); /* a folder's list is in order */
        if (d->split == SPLIT_TRAIN && r->drop_train) drop_shuffled(s, r->drop_train, o->seed);
        if (limit > 0 && (uint32_t)limit < s->n) thin(s, (uint32_t)limit);
        rc = samples_decode(s, d->def->size, d->def->size, str_eq(o->on_bad_image, "skip"), e);
    }
    if (!rc) {
        names = arena_alloc(&d->arena, (size_t)classes.n * sizeof(*names));
        for (int i = 0; i < classes.n; i++) names[i] = arena_strdup(&d->arena, classes.v[i]);
        d->class_names = names;
        d->classes = classes.n;
        d->channels = 3;
        d->count = s->n;
    }
    names_free(&classes);
    return rc;
}
