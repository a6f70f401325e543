/* io/zip.c -- see zip.h. Source: PKWARE's APPNOTE 6.3.9, sections 4.3 and 4.5.3.
 *
 * Sizes and checksums come from the central directory: PyTorch writes zeros into the local headers.
 * */
#include "io/zip.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define ZLIB_CONST /* next_in points to const */
#include <zlib.h>

enum {
    LOCAL = 0x04034b50,
    CENTRAL = 0x02014b50,
    END = 0x06054b50,
    END64 = 0x06064b50,
    LOCATOR64 = 0x07064b50
};
enum { LOCAL_LEN = 30, CENTRAL_LEN = 46, END_LEN = 22, END64_LEN = 56, LOCATOR64_LEN = 20 };

#define COMMENT_MAX   65535
#define IN_ZIP64      0xFFFFFFFFu
#define DEFLATE_RATIO 1032 /* no deflate stream grows by more */
#define INFLATED_MAX  ((uint64_t)4 << 30)

static uint64_t get(const unsigned char *p, int n)
{
    uint64_t v = 0;
    for (int i = n; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static int bad(Err *e, const char *what)
{
    return err_set(e, ERR_DATA, "damaged zip archive: %s", what);
}

typedef struct Directory {
    uint64_t count, size, offset, limit; /* limit: the records at the end start here */
} Directory;

static int find_directory(const Zip *z, Directory *d, Err *e)
{
    const unsigned char *b = z->b, *end = NULL, *r;
    size_t at = z->len;
    uint64_t at64;
    if (z->len < END_LEN) return bad(e, "too short");
    for (at = z->len - END_LEN;; at--) {
        if (get(b + at, 4) == END && get(b + at + 20, 2) == z->len - at - END_LEN) {
            end = b + at;
            break;
        }
        if (at == 0 || z->len - at >= END_LEN + COMMENT_MAX) break;
    }
    if (!end) return bad(e, "no end record (the file was cut?)");
    *d = (Directory){get(end + 10, 2), get(end + 12, 4), get(end + 16, 4), at};
    if (at >= LOCATOR64_LEN && get(end - LOCATOR64_LEN, 4) == LOCATOR64) {
        at64 = get(end - LOCATOR64_LEN + 8, 8);
        if (at < LOCATOR64_LEN + END64_LEN || at64 > at - LOCATOR64_LEN - END64_LEN)
            return bad(e, "the zip64 end record lies outside the file");
        r = b + at64;
        if (get(r, 4) != END64) return bad(e, "no zip64 end record where it should be");
        *d = (Directory){get(r + 32, 8), get(r + 40, 8), get(r + 48, 8), at64};
    }
    if (d->size > d->limit || d->offset > d->limit - d->size)
        return bad(e, "the directory lies outside the file");
    if (d->count > d->size / CENTRAL_LEN) return bad(e, "more members than the directory can hold");
    return 0;
}

/* The zip64 extra field holds, in this order, those of the three numbers that were too large. */
static int read_zip64(const unsigned char *x, size_t n, ZipMember *m, Err *e)
{
    uint64_t *const want[] = {&m->size, &m->packed, &m->start};
    while (n >= 4) {
        size_t id = get(x, 2), len = get(x + 2, 2), k = 0;
        if (len > n - 4) return bad(e, "an extra field that is too long");
        for (size_t i = 0; id == 1 && i < ARRAY_LEN(want); i++) {
            if (*want[i] != IN_ZIP64) continue;
            if (k + 8 > len) return bad(e, "a zip64 field that is too short");
            *want[i] = get(x + 4 + k, 8);
            k += 8;
        }
        if (id == 1) return 0;
        x += 4 + len;
        n -= 4 + len;
    }
    if (m->size == IN_ZIP64 || m->packed == IN_ZIP64 || m->start == IN_ZIP64)
        return bad(e, "a zip64 field is missing");
    return 0;
}

/* Finds the data behind the local header and checks that all of it lies before the directory. */
static int locate(const Zip *z, ZipMember *m, size_t nname, uint64_t limit, Err *e)
{
    const unsigned char *h;
    uint64_t head;
    if (limit < LOCAL_LEN || m->start > limit - LOCAL_LEN)
        return err_set(e, ERR_DATA, "damaged zip archive: '%s' lies outside the file", m->name);
    h = z->b + m->start;
    head = LOCAL_LEN + get(h + 26, 2) + get(h + 28, 2);
    if (get(h, 4) != LOCAL || get(h + 26, 2) != nname || head > limit - m->start ||
        memcmp(h + LOCAL_LEN, m->name, nname) != 0)
        return err_set(e, ERR_DATA, "damaged zip archive: no local header of '%s'", m->name);
    m->data = m->start + head;
    if (m->packed > limit - m->data)
        return err_set(e, ERR_DATA, "damaged zip archive: '%s' lies outside the file", m->name);
    return 0;
}

/* One entry of the directory at c (n bytes left); its length in *used. */
static int read_entry(Zip *z, ZipMember *m, const unsigned char *c, size_t n, uint64_t limit,
                      size_t *used, Err *e)
{
    size_t nname, nextra;
    char *name;
    if (n < CENTRAL_LEN || get(c, 4) != CENTRAL) return bad(e, "a malformed directory entry");
    nname = get(c + 28, 2);
    nextra = get(c + 30, 2);
    *used = CENTRAL_LEN + nname + nextra + get(c + 32, 2);
    if (*used > n) return bad(e, "a directory entry that is too long");
    name = arena_alloc(&z->arena, nname + 1);
    memcpy(name, c + CENTRAL_LEN, nname);
    for (size_t i = 0; i < nname; i++)
        if ((unsigned char)name[i] < ' ') return bad(e, "a control character in a name");
    *m = (ZipMember){.name = name,
                     .size = get(c + 24, 4),
                     .packed = get(c + 20, 4),
                     .start = get(c + 42, 4),
                     .crc = (uint32_t)get(c + 16, 4),
                     .method = (int)get(c + 10, 2)};
    if (get(c + 8, 2) & 1) return err_set(e, ERR_DATA, "'%s' is encrypted", name);
    if (m->method != 0 && m->method != 8)
        return err_set(e, ERR_DATA, "'%s' is packed by zip method %d; known are 0 and 8", name,
                       m->method);
    if (read_zip64(c + CENTRAL_LEN + nname, nextra, m, e) < 0) return -1;
    if (m->method == 0 ? m->size != m->packed
                       : m->size > INFLATED_MAX || m->size / DEFLATE_RATIO > m->packed)
        return err_set(e, ERR_DATA, "damaged zip archive: '%s' has impossible sizes", name);
    return locate(z, m, nname, limit, e);
}

static int by_start(const void *a, const void *b)
{
    const ZipMember *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ZipMember *)a)->name, ((const ZipMember *)b)->name);
}

int zip_open(Zip *z, const unsigned char *b, size_t len, Err *e)
{
    Directory d = {0};
    size_t at, used = 0;
    *z = (Zip){.b = b, .len = len};
    if (find_directory(z, &d, e) < 0) return -1;
    z->n = d.count;
    z->m = arena_alloc(&z->arena, z->n * sizeof *z->m);
    at = d.offset;
    for (size_t i = 0; i < z->n; i++, at += used)
        if (read_entry(z, &z->m[i], b + at, d.offset + d.size - at, d.offset, &used, e) < 0)
            return -1;
    qsort(z->m, z->n, sizeof *z->m, by_start);
    for (size_t i = 1; i < z->n; i++)
        if (z->m[i - 1].data + z->m[i - 1].packed > z->m[i].start)
            return err_set(e, ERR_DATA, "damaged zip archive: '%s' and '%s' overlap",
                           z->m[i - 1].name, z->m[i].name);
    qsort(z->m, z->n, sizeof *z->m, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (str_eq(z->m[i - 1].name, z->m[i].name))
            return err_set(e, ERR_DATA, "zip archive with two members '%s'", z->m[i].name);
    return 0;
}

void zip_close(Zip *z)
{
    arena_free(&z->arena);
    *z = (Zip){0};
}

ZipMember *zip_find(const Zip *z, const char *name)
{
    ZipMember key = {.name = name};
    return z->n ? bsearch(&key, z->m, z->n, sizeof *z->m, by_name) : NULL;
}

/* zlib counts in unsigned int, so both sides are handed over in pieces. */
static int inflate_member(const Zip *z, const ZipMember *m, unsigned char *out)
{
    z_stream s = {0};
    uint64_t in = m->packed, room = m->size;
    int rc = inflateInit2(&s, -MAX_WBITS);
    if (rc != Z_OK) return -1;
    s.next_in = z->b + m->data;
    s.next_out = out;
    do {
        uInt in_part = in < INT_MAX ? (uInt)in : INT_MAX;
        uInt out_part = room < INT_MAX ? (uInt)room : INT_MAX;
        s.avail_in = in_part;
        s.avail_out = out_part;
        rc = inflate(&s, Z_NO_FLUSH);
        in -= in_part - s.avail_in;
        room -= out_part - s.avail_out;
    } while (rc == Z_OK && (in || room));
    inflateEnd(&s);
    return rc == Z_STREAM_END && room == 0 ? 0 : -1;
}

const unsigned char *zip_bytes(Zip *z, ZipMember *m, Err *e)
{
    const unsigned char *bytes = z->b + m->data;
    if (m->bytes) return m->bytes;
    if (m->method == 8) {
        unsigned char *out = arena_alloc(&z->arena, m->size);
        if (inflate_member(z, m, out) < 0) {
            err_set(e, ERR_DATA, "'%s': damaged deflate stream", m->name);
            return NULL;
        }
        bytes = out;
    }
    if (crc32_z(0, bytes, m->size) != m->crc) {
        err_set(e, ERR_DATA, "'%s': the checksum (CRC-32) does not match: damaged", m->name);
        return NULL;
    }
    m->bytes = bytes;
    return bytes;
}
