/* io/targz.c -- see targz.h. A member is a 512-byte header and its data padded to 512 bytes; two
 * zero blocks end the archive (POSIX.1-2017, pax "ustar Interchange Format"). GNU 'L' members and
 * pax 'x' members carry the name (and size) of the member that follows. */
#include "io/targz.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define BLOCK      512u
#define NAME_LIMIT 4096u       /* longest name of a member */
#define PAX_LIMIT  (1u << 20)  /* longest pax header */
#define TAIL_LIMIT (64u << 20) /* bytes allowed behind the end-of-archive blocks */

struct Targz {
    gzFile f;
    char *path;
    uint64_t pos;       /* bytes of the tar read so far, for messages */
    uint64_t left, pad; /* unread bytes of the current member, and of its padding */
    bool ended;
    Str name, long_name; /* current; announced for the next member */
    bool has_size;
    uint64_t next_size; /* announced by pax */
};

Targz *targz_open(const char *path, Err *e)
{
    gzFile f = gzopen(path, "rb");
    Targz *t;
    if (!f) {
        err_set(e, ERR_DATA, "%s: %s", path, strerror(errno ? errno : ENOMEM));
        return NULL;
    }
    gzbuffer(f, 256 * 1024);
    t = xcalloc(1, sizeof(*t));
    t->f = f;
    t->path = xstrdup(path);
    return t;
}

void targz_close(Targz *t)
{
    if (!t) return;
    gzclose(t->f);
    free(t->path);
    str_free(&t->name);
    str_free(&t->long_name);
    free(t);
}

/* Reads up to n bytes; *got < n at the end of the stream. -1 when zlib finds the stream cut or
 * damaged. */
static int read_some(Targz *t, void *buf, size_t n, size_t *got, Err *e)
{
    unsigned char *p = buf;
    *got = 0;
    while (*got < n) {
        size_t want = n - *got < INT_MAX / 2 ? n - *got : INT_MAX / 2;
        int r = gzread(t->f, p + *got, (unsigned)want);
        if (r > 0) {
            *got += (size_t)r;
            t->pos += (uint64_t)r;
        }
        if (r < (int)want) break;
    }
    if (*got < n) {
        int code = Z_OK;
        gzerror(t->f, &code);
        if (code == Z_ERRNO) return err_set(e, ERR_DATA, "%s: %s", t->path, strerror(errno));
        if (code != Z_OK && code != Z_STREAM_END)
            return err_set(e, ERR_DATA, "%s: damaged archive: gzip data %s after %llu bytes%s%s",
                           t->path,
                           code == Z_BUF_ERROR ? "cut short" : "with a wrong checksum or code",
                           (unsigned long long)t->pos, t->name.len ? ", at or after member " : "",
                           t->name.len ? t->name.s : "");
    }
    return 0;
}

static int read_all(Targz *t, void *buf, size_t n, Err *e)
{
    size_t got;
    if (read_some(t, buf, n, &got, e)) return -1;
    if (got == n) return 0;
    return err_set(e, ERR_DATA, "%s: damaged archive: ends after %llu bytes, inside %s%s", t->path,
                   (unsigned long long)t->pos,
                   t->name.len ? "or right after member " : "the first header",
                   t->name.len ? t->name.s : "");
}

static int skip(Targz *t, uint64_t n, Err *e)
{
    char waste[16384];
    while (n) {
        size_t step = n < sizeof(waste) ? (size_t)n : sizeof(waste);
        if (read_all(t, waste, step, e)) return -1;
        n -= step;
    }
    return 0;
}

/* Octal digits with leading and trailing blanks or NULs, or GNU's base 256 (first bit set). */
static int parse_number(const unsigned char *p, size_t n, uint64_t *v)
{
    size_t i = 0;
    uint64_t x = 0;
    if (p[0] & 0x80) {
        if (p[0] != 0x80) return -1; /* negative, or beyond 2^88 */
        for (i = 1; i < n; i++) {
            if (x >> 55) return -1;
            x = x << 8 | p[i];
        }
        *v = x;
        return 0;
    }
    while (i < n && (p[i] == ' ' || p[i] == 0)) i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        if (x >> 59) return -1;
        x = x << 3 | (uint64_t)(p[i] - '0');
    }
    for (; i < n; i++)
        if (p[i] != ' ' && p[i] != 0) return -1;
    *v = x;
    return 0;
}

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static bool checksum_ok(const unsigned char *h)
{
    uint64_t stored;
    unsigned sum = 0;
    if (parse_number(h + 148, 8, &stored)) return false;
    for (size_t i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : h[i];
    return stored == sum;
}

static int bad_header(const Targz *t, const char *what, Err *e)
{
    return err_set(e, ERR_DATA, "%s: damaged archive: %s in the header at byte %llu%s%s", t->path,
                   what, (unsigned long long)(t->pos - BLOCK), t->name.len ? ", after member " : "",
                   t->name.len ? t->name.s : "");
}

/* "LENGTH key=value\n" records of a pax header: only path and size matter here. */
static int parse_pax(Targz *t, const char *s, size_t n, Err *e)
{
    size_t i = 0;
    while (i < n) {
        size_t len = 0, j = i, end;
        const char *eq, *val;
        while (j < n && s[j] >= '0' && s[j] <= '9' && len < PAX_LIMIT)
            len = len * 10 + (size_t)(s[j++] - '0');
        if (j == i || j >= n || s[j] != ' ' || len < j - i + 3 || len > n - i ||
            s[i + len - 1] != '\n')
            return bad_header(t, "a malformed pax record", e);
        end = i + len - 1;
        j++;
        eq = memchr(s + j, '=', end - j);
        if (!eq) return bad_header(t, "a malformed pax record", e);
        val = eq + 1;
        if (eq - (s + j) == 4 && !memcmp(s + j, "path", 4)) {
            size_t vn = (size_t)(s + end - val);
            if (vn > NAME_LIMIT || memchr(val, 0, vn))
                return bad_header(t, "an impossible name", e);
            t->long_name.len = 0;
            str_putn(&t->long_name, val, vn);
        } else if (eq - (s + j) == 4 && !memcmp(s + j, "size", 4)) {
            uint64_t v = 0;
            for (const char *p = val; p < s + end; p++) {
                if (*p < '0' || *p > '9' || v > (INT64_MAX - 9) / 10)
                    return bad_header(t, "an impossible size", e);
                v = v * 10 + (uint64_t)(*p - '0');
            }
            t->next_size = v;
            t->has_size = true;
        }
        i += len;
    }
    return 0;
}

/* A member that describes the next one: its data goes to long_name or next_size. */
static int read_extension(Targz *t, char type, uint64_t size, Err *e)
{
    char *buf;
    int rc = 0;
    if (size > (type == 'L' || type == 'K' ? NAME_LIMIT : PAX_LIMIT))
        return bad_header(t, "an absurdly long name or extension", e);
    buf = xmalloc((size_t)size + 1);
    buf[size] = 0;
    if (read_all(t, buf, (size_t)size, e) || skip(t, (BLOCK - size % BLOCK) % BLOCK, e)) {
        rc = -1;
    } else if (type == 'L') {
        t->long_name.len = 0;
        str_puts(&t->long_name, buf);
    } else if (type == 'x') {
        rc = parse_pax(t, buf, (size_t)size, e);
    }
    free(buf); /* 'K' (long link) and 'g' (defaults: never a path of one member) say nothing we need
                */
    return rc;
}

static void set_name(Targz *t, const unsigned char *h)
{
    const char *name = (const char *)h, *prefix = (const char *)h + 345;
    Str *s = &t->name;
    s->len = 0;
    if (t->long_name.len) {
        str_putn(s, t->long_name.s, t->long_name.len);
    } else {
        if (!memcmp(h + 257, "ustar", 6) && *prefix) { /* GNU's "ustar " has other fields there */
            str_putn(s, prefix, strnlen(prefix, 155));
            str_puts(s, "/");
        }
        str_putn(s, name, strnlen(name, 100));
    }
    while (s->len >= 2 && s->s[0] == '.' && s->s[1] == '/') {
        memmove(s->s, s->s + 2, s->len - 1);
        s->len -= 2;
    }
    t->long_name.len = 0;
}

/* After the zero blocks: the gzip CRC stands at the very end, so read on to it. */
static int drain(Targz *t, Err *e)
{
    char waste[16384];
    size_t got = 0, total = 0;
    do {
        if (read_some(t, waste, sizeof(waste), &got, e)) return -1;
        total += got;
    } while (got == sizeof(waste) && total < TAIL_LIMIT);
    if (total >= TAIL_LIMIT)
        return err_set(e, ERR_DATA, "%s: damaged archive: more than %u MiB behind its end", t->path,
                       TAIL_LIMIT >> 20);
    return 0;
}

int targz_next(Targz *t, TarMember *m, Err *e)
{
    unsigned char h[BLOCK];
    if (t->ended) return 0;
    if (skip(t, t->left, e) || skip(t, t->pad, e)) return -1;
    t->left = t->pad = 0;
    t->has_size = false;
    for (;;) {
        uint64_t size;
        char type;
        if (read_all(t, h, BLOCK, e)) return -1;
        if (all_zero(h, BLOCK)) {
            if (drain(t, e)) return -1;
            t->ended = true;
            return 0;
        }
        if (!checksum_ok(h))
            return t->pos == BLOCK ? err_set(e, ERR_DATA, "%s: not a tar archive", t->path)
                                   : bad_header(t, "a wrong checksum", e);
        if (parse_number(h + 124, 12, &size)) return bad_header(t, "an impossible size", e);
        type = (char)h[156];
        if (type == 'L' || type == 'K' || type == 'x' || type == 'g') {
            if (read_extension(t, type, size, e)) return -1;
            continue;
        }
        if (t->has_size) size = t->next_size;
        if (size > INT64_MAX / 2) return bad_header(t, "an impossible size", e);
        set_name(t, h);
        for (size_t i = 0; i < t->name.len; i++)
            if ((unsigned char)t->name.s[i] < 32 || t->name.s[i] == 127) {
                t->name.len = 0;
                return bad_header(t, "a name with control characters", e);
            }
        m->file = type == '0' || type == 0 || type == '7';
        /* links, devices and folders have no data whatever their size field says */
        if (type >= '1' && type <= '6') size = 0;
        if (m->file && str_ends(t->name.s, "/")) m->file = false; /* pre-POSIX folders */
        m->name = t->name.s;
        m->size = t->left = size;
        t->pad = (BLOCK - size % BLOCK) % BLOCK;
        return 1;
    }
}

int targz_read(Targz *t, void *buf, size_t n, Err *e)
{
    ASSERT(n <= t->left, "%s: %zu bytes of %llu", t->name.s, n, (unsigned long long)t->left);
    if (read_all(t, buf, n, e)) return -1;
    t->left -= n;
    return 0;
}
