/* data/samples.c -- see samples.h. */
#include "data/samples.h"

#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "io/fs.h"

#define SMALL_SIDE  64           /* images up to this side are decoded once and kept */
#define DECODED_MAX (3ull << 30) /* bytes of decoded images kept */
#define FILE_MAX    (256u << 20) /* bytes of one image file */

static size_t pixel_bytes(const Samples *s)
{
    return (size_t)s->h * (size_t)s->w * (size_t)s->c;
}

static void add_label(Samples *s, int label)
{
    mem_grow(&s->label, &s->label_cap, (size_t)s->n + 1, sizeof(*s->label));
    s->label[s->n] = label;
}

unsigned char *samples_add_pixels(Samples *s, int label)
{
    size_t bytes = pixel_bytes(s);
    add_label(s, label);
    mem_grow(&s->px, &s->px_cap, ((size_t)s->n + 1) * bytes, 1);
    return s->px + bytes * s->n++;
}

static void add_name(Samples *s, const char *name, int label)
{
    size_t len = strlen(name) + 1;
    add_label(s, label);
    mem_grow(&s->name, &s->name_cap, (size_t)s->n + 1, sizeof(*s->name));
    mem_grow(&s->text, &s->text_cap, s->text_len + len, 1);
    s->name[s->n] = s->text_len;
    memcpy(s->text + s->text_len, name, len);
    s->text_len += len;
}

unsigned char *samples_add_bytes(Samples *s, const char *name, int label, uint32_t size)
{
    unsigned char *p;
    add_name(s, name, label);
    mem_grow(&s->start, &s->start_cap, (size_t)s->n + 1, sizeof(*s->start));
    mem_grow(&s->length, &s->length_cap, (size_t)s->n + 1, sizeof(*s->length));
    mem_grow(&s->blob, &s->blob_cap, s->blob_len + size + 1, 1);
    s->start[s->n] = s->blob_len;
    s->length[s->n] = size;
    p = s->blob + s->blob_len;
    s->blob_len += size;
    s->n++;
    return p;
}

void samples_select(Samples *s, const uint32_t *keep, uint32_t n)
{
    int32_t *label = xmalloc((size_t)n * sizeof(*label));
    size_t *name = xmalloc((size_t)n * sizeof(*name));
    size_t *start = s->blob ? xmalloc((size_t)n * sizeof(*start)) : NULL;
    uint32_t *length = s->blob ? xmalloc((size_t)n * sizeof(*length)) : NULL;
    for (uint32_t i = 0; i < n; i++) {
        label[i] = s->label[keep[i]];
        name[i] = s->name[keep[i]];
        if (s->blob) start[i] = s->start[keep[i]], length[i] = s->length[keep[i]];
    }
    free(s->label), free(s->name), free(s->start), free(s->length);
    s->label = label, s->name = name, s->start = start, s->length = length;
    s->label_cap = s->name_cap = s->n = n;
    s->start_cap = s->length_cap = s->blob ? n : 0;
}

typedef struct SortKey {
    const char *name;
    int32_t label;
    uint32_t at;
} SortKey;

static int by_label_and_name(const void *a, const void *b)
{
    const SortKey *x = a, *y = b;
    return x->label != y->label ? (x->label < y->label ? -1 : 1) : strcmp(x->name, y->name);
}

void samples_sort(Samples *s)
{
    SortKey *k = xmalloc((size_t)s->n * sizeof(*k));
    uint32_t *keep = xmalloc((size_t)s->n * sizeof(*keep));
    for (uint32_t i = 0; i < s->n; i++) k[i] = (SortKey){s->text + s->name[i], s->label[i], i};
    qsort(k, s->n, sizeof(*k), by_label_and_name);
    for (uint32_t i = 0; i < s->n; i++) keep[i] = k[i].at;
    samples_select(s, keep, s->n);
    free(k);
    free(keep);
}

void samples_one_line(char *message)
{
    for (unsigned char *p = (unsigned char *)message; *p; p++)
        if (*p < ' ' || *p == 127) *p = '?';
}

static int decode_file(const Samples *s, const char *path, const ImagePart *part, Image *im, Err *e)
{
    size_t len;
    char *bytes = fs_read(path, FILE_MAX, &len, e);
    int rc;
    if (!bytes) return -1;
    rc = decode_part(bytes, len, s->decoder, path, part, im, e);
    free(bytes);
    return rc;
}

static int decode_one(const Samples *s, uint32_t i, const ImagePart *part, Image *im, Err *e)
{
    const char *name = s->text + s->name[i];
    int rc;
    if (s->blob) {
        rc = decode_part(s->blob + s->start[i], s->length[i], s->decoder, name, part, im, e);
        if (rc) err_prefix(e, "%s", s->archive);
    } else {
        char *path = fs_join(s->root, name);
        rc = decode_file(s, path, part, im, e);
        free(path);
    }
    if (rc) samples_one_line(e->msg);
    return rc;
}

static void drop_encoded(Samples *s)
{
    free(s->text), free(s->name), free(s->blob), free(s->start), free(s->length);
    s->text = NULL, s->name = NULL, s->blob = NULL, s->start = NULL, s->length = NULL;
    s->name_cap = s->blob_cap = s->start_cap = s->length_cap = s->blob_len = 0;
    s->text_cap = s->text_len = 0;
}

static void drop_decoded(Samples *s)
{
    for (uint32_t i = 0; s->bad && i < s->n; i++) free(s->bad[i]);
    free(s->bad), free(s->px);
    s->bad = NULL, s->px = NULL;
    s->px_cap = 0;
}

int samples_decode(Samples *s, int h, int w, bool skip, Err *e)
{
    Image first = {0};
    bool fixed = h > 0, mixed = false;
    uint32_t nbad = 0, at = UINT32_MAX;
    size_t bytes;
    for (uint32_t i = 0; !fixed && i < s->n && !h; i++) {
        if (decode_one(s, i, NULL, &first, e)) {
            if (!skip) return free(first.px), -1;
            continue;
        }
        h = first.h, w = first.w;
    }
    free(first.px);
    bytes = (size_t)h * (size_t)w * 3;
    if (h < 1 || h > SMALL_SIDE || w > SMALL_SIDE || bytes * s->n > DECODED_MAX) return 0;
    s->h = h, s->w = w, s->c = 3;
    s->px_cap = bytes * s->n;
    s->px = xmalloc(s->px_cap);
    s->bad = xcalloc(s->n, sizeof(*s->bad));
    /* blocks, so that a thread keeps one buffer for many images */
    PARALLEL_FOR(b, (s->n + 255) / 256)
    {
        Image im = {0};
        uint32_t end = (uint32_t)b * 256 + 256 < s->n ? (uint32_t)b * 256 + 256 : s->n;
        for (uint32_t i = (uint32_t)b * 256; i < end; i++) {
            Err err;
            if (decode_one(s, i, NULL, &im, &err)) {
                s->bad[i] = xstrdup(err.msg);
            } else if (im.h != h || im.w != w) {
                s->bad[i] = xasprintf("%s%s%s: %d x %d pixels where the others have %d x %d",
                                      s->blob ? s->archive : s->root, s->blob ? ": " : "/",
                                      s->text + s->name[i], im.w, im.h, w, h);
                samples_one_line(s->bad[i]);
                if (!fixed) __atomic_store_n(&mixed, true, __ATOMIC_RELAXED);
            } else {
                memcpy(s->px + bytes * i, im.px, bytes);
            }
        }
        free(im.px);
    }
    if (mixed) return drop_decoded(s), 0;
    for (uint32_t i = s->n; i-- > 0;)
        if (s->bad[i]) nbad++, at = i;
    if (nbad && !skip) {
        err_set(e, ERR_DATA, "%s", s->bad[at]);
        return -1;
    }
    if (!nbad) free(s->bad), s->bad = NULL;
    drop_encoded(s);
    return 0;
}

int samples_get_part(const Dataset *d, uint32_t i, const ImagePart *part, Image *im, int *label,
                     Err *e)
{
    const Samples *s = d->priv;
    size_t bytes = pixel_bytes(s);
    ASSERT(i < s->n, "sample %u of %u", i, s->n);
    *label = s->label[i];
    if (!s->px) return decode_one(s, i, part, im, e);
    if (s->bad && s->bad[i]) return err_set(e, ERR_DATA, "%s", s->bad[i]);
    mem_grow(&im->px, &im->cap, bytes, 1);
    memcpy(im->px, s->px + bytes * i, bytes);
    im->h = s->h, im->w = s->w, im->c = s->c;
    return 0;
}

int samples_get(const Dataset *d, uint32_t i, Image *im, int *label, Err *e)
{
    return samples_get_part(d, i, NULL, im, label, e);
}

void samples_free(Samples *s)
{
    drop_encoded(s);
    drop_decoded(s);
    free(s->label), free(s->root);
    memset(s, 0, sizeof(*s));
}

void samples_close(Dataset *d)
{
    if (d->priv) samples_free(d->priv);
    free(d->priv);
    d->priv = NULL;
}
