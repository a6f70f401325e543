/* data/index_cache.c -- see index.h: lists kept in the user's cache folder.
 *
 * A file is a Head, the IndexFolders, then text: the split's folder, the folders' names and the
 * images' names, each ended by NUL. It is a copy of memory, written and read by one machine:
 * another byte order is "damaged". Everything behind the checksum is covered by it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "data/index.h"
#include "io/fs.h"

#define SETTLE_NS 2000000000ull /* file systems' clocks are this coarse at worst */

typedef struct Head {
    char magic[8];
    uint64_t sum, size, order, folders, images;
} Head;

static const char magic[8] = "qrunidx";
#define ORDER 0x0102030405060708u

/* FNV-1a over 8-byte words, then over the bytes left; h is the sum so far. All parts but the last
 * have whole words. */
static uint64_t add_up(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x100000001B3u;
        h ^= h >> 32;
    }
    for (; n; n--) h = (h ^ *p++) * 0x100000001B3u;
    return h;
}

#define SUM_SEED 0xCBF29CE484222325u

char *index_cache_file(const char *path)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *dir, *file;
    if (xdg && *xdg == '/')
        dir = fs_join(xdg, "qrun/trees");
    else if (home && *home)
        dir = fs_join(home, ".cache/qrun/trees");
    else
        return NULL;
    file =
        xasprintf("%s/%016llx.idx", dir, (unsigned long long)add_up(SUM_SEED, path, strlen(path)));
    free(dir);
    return file;
}

/* ---- writing ---- */

static void text_of(const TreeIndex *x, Str *out)
{
    size_t room = strlen(x->path) + 1 + x->len;
    mem_grow(&out->s, &out->cap, room + 1, 1);
    str_putn(out, x->path, strlen(x->path) + 1);
    for (size_t i = 0; i < x->nfolders; i++) {
        const char *name = x->text + x->folder[i].name;
        str_putn(out, name, strlen(name) + 1);
    }
    for (size_t i = 0; i < x->nimages; i++) {
        const char *name = x->text + x->image[i];
        str_putn(out, name, strlen(name) + 1);
    }
}

static int write_file(const TreeIndex *x, const char *file, Err *e)
{
    Head h = {.order = ORDER, .folders = x->nfolders, .images = x->nimages};
    size_t folders = x->nfolders * sizeof(*x->folder), covered = sizeof(h) - sizeof(h.magic) - 8;
    Str text = {0};
    AtomicFile a;
    int rc;
    memcpy(h.magic, magic, sizeof(magic));
    text_of(x, &text);
    h.size = sizeof(h) + folders + text.len;
    h.sum = add_up(SUM_SEED, &h.size, covered);
    h.sum = add_up(h.sum, x->folder, folders);
    h.sum = add_up(h.sum, text.s, text.len);
    if (!(rc = fs_begin(&a, file, e))) {
        fwrite(&h, sizeof(h), 1, a.f); /* faults are remembered for fs_commit */
        fwrite(x->folder, 1, folders, a.f);
        fwrite(text.s, 1, text.len, a.f);
        rc = fs_commit(&a, e);
    }
    str_free(&text);
    return rc;
}

static uint64_t changed_ns(const IndexFolder *f)
{
    return f->sec < 0 ? 0 : (uint64_t)f->sec * 1000000000u + (uint64_t)f->nsec;
}

int index_save(const TreeIndex *x, const char *file, Str *why)
{
    char *dir = xstrndup(file, (size_t)(strrchr(file, '/') - file));
    Err e = {0};
    int rc;
    for (size_t i = 0; i < x->nfolders; i++) {
        if (changed_ns(&x->folder[i]) + SETTLE_NS < x->started) continue;
        str_printf(why, "%s/%s was changed just now", x->path, x->text + x->folder[i].name);
        free(dir);
        return 0;
    }
    rc = fs_mkdirs(dir, &e) || write_file(x, file, &e);
    if (rc) str_puts(why, e.msg);
    free(dir);
    return !rc;
}

/* ---- reading ---- */

/* The next of the strings up to `end`, or NULL. */
static const char *next_string(const char **p, const char *end)
{
    const char *s = *p, *nul = memchr(s, 0, (size_t)(end - s));
    *p = nul ? nul + 1 : end;
    return nul ? s : NULL;
}

/* Takes the file's content over as x->text: names are offsets into it. False: damaged. */
static bool take(TreeIndex *x, char *content, size_t len)
{
    Head h;
    uint64_t images = 0;
    const char *p, *end = content + len, *s;
    x->text = content;
    x->len = x->cap = len;
    if (len < sizeof(h)) return false;
    memcpy(&h, content, sizeof(h));
    if (memcmp(h.magic, magic, sizeof(magic)) || h.order != ORDER || h.size != len || !h.folders ||
        h.folders > len / sizeof(IndexFolder) || h.images > len ||
        sizeof(h) + h.folders * sizeof(IndexFolder) > len ||
        h.sum != add_up(SUM_SEED, content + 16, len - 16))
        return false;
    x->nfolders = x->folder_cap = h.folders;
    x->nimages = x->image_cap = h.images;
    x->folder = xmalloc(h.folders * sizeof(*x->folder));
    x->image = xmalloc((h.images + 1) * sizeof(*x->image));
    memcpy(x->folder, content + sizeof(h), h.folders * sizeof(*x->folder));
    p = content + sizeof(h) + h.folders * sizeof(*x->folder);
    if (!(s = next_string(&p, end))) return false;
    x->path = xstrdup(s);
    for (size_t i = 0; i < h.folders; i++) {
        if (!(s = next_string(&p, end))) return false;
        x->folder[i].name = (uint64_t)(s - content);
        images += x->folder[i].class ? x->folder[i].images : 0;
    }
    for (size_t i = 0; i < h.images; i++) {
        if (!(s = next_string(&p, end))) return false;
        x->image[i] = (size_t)(s - content);
    }
    return p == end && images == h.images;
}

static bool unchanged(const TreeIndex *x, const IndexFolder *f)
{
    struct stat st;
    char *path = fs_join(x->path, x->text + f->name);
    bool same = !stat(path, &st) && S_ISDIR(st.st_mode) && st.st_ino == f->inode &&
                st.st_mtim.tv_sec == f->sec && st.st_mtim.tv_nsec == f->nsec;
    free(path);
    return same;
}

int index_load(TreeIndex *x, const char *path, const char *file, Str *why)
{
    size_t len;
    char *content;
    Err e = {0};
    memset(x, 0, sizeof(*x));
    if (!fs_exists(file)) return str_printf(why, "not listed before"), 0;
    content = fs_read(file, 0, &len, &e);
    if (!content) return str_puts(why, e.msg), 0;
    if (!take(x, content, len)) {
        str_printf(why, "%s is damaged", file);
    } else if (strcmp(x->path, path)) {
        str_printf(why, "%s is that of %s", file, x->path);
    } else {
        size_t i = 0;
        while (i < x->nfolders && unchanged(x, &x->folder[i])) i++;
        if (i == x->nfolders) return 1;
        str_printf(why, "%s/%s has changed", x->path, x->text + x->folder[i].name);
    }
    index_free(x);
    return 0;
}

/* ---- both ---- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int list_and_keep(TreeIndex *x, const char *path, const char *file, const char *because,
                         Err *e)
{
    double start = seconds();
    Str why = {0};
    if (index_list(x, path, e)) return -1;
    if (x->nimages >= INDEX_CACHE_MIN) {
        double took = seconds() - start;
        bool kept = file && index_save(x, file, &why);
        log_msg(LOG_DEBUG, "%s: %zu images listed in %.2f s (%s); %s%s%s", path, x->nimages, took,
                because, kept ? "kept in " : "not kept",
                kept      ? file
                : why.len ? ": "
                          : "",
                kept      ? ""
                : why.len ? why.s
                          : "");
    }
    str_free(&why);
    return 0;
}

int index_open(TreeIndex *x, const char *path, bool cache, Err *e)
{
    double start = seconds();
    char *real = realpath(path, NULL), *file = cache && real ? index_cache_file(real) : NULL;
    Str why = {0};
    int rc = 0;
    memset(x, 0, sizeof(*x));
    if (file && index_load(x, real, file, &why))
        log_msg(LOG_DEBUG, "%s: %zu images, listed in %s, read in %.3f s", path, x->nimages, file,
                seconds() - start);
    else
        rc = list_and_keep(x, path, file, why.len ? why.s : "index_cache: false", e);
    str_free(&why);
    free(real);
    free(file);
    return rc;
}
