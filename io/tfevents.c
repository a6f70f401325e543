/* io/tfevents.c -- see tfevents.h.
 *
 * A file is a row of records: u64 length, masked CRC-32C of the length, data, masked CRC-32C of the
 * data, all little endian; data is an Event (tfevents.proto). mask(c) = rotate right by 15, plus
 * 0xA282EAD8. The format is that of TensorFlow's record_writer.h. */
#include "io/tfevents.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/fs.h"
#include "io/tfevents.pb-c.h"

#define FILE_PREFIX  "events.out.tfevents."
#define FILE_VERSION "brain.Event:2"
enum { HEAD = 12, TAIL = 4, BUCKETS = 64 };

typedef struct Crc {
    uint32_t table[256];
} Crc;

struct TfEvents {
    FILE *f;
    char *path;
    Crc crc;
    unsigned char *buf; /* one record */
    size_t cap;
};

/* ---- records ---- */

static void crc_init(Crc *c)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int k = 0; k < 8; k++)
            v = (v >> 1) ^ (v & 1 ? 0x82F63B78u : 0); /* Castagnoli, reflected */
        c->table[i] = v;
    }
}

static uint32_t crc_masked(const Crc *c, const unsigned char *p, size_t n)
{
    uint32_t v = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) v = c->table[(v ^ p[i]) & 255] ^ (v >> 8);
    v = ~v;
    return ((v >> 15) | (v << 17)) + 0xA282EAD8u;
}

static void put_le(unsigned char *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static uint64_t get_le(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* The next record of `m` at *at: 1 with data and length set and *at moved behind it, 0 at the end
 * of the file, -1 with `e` when the record is cut off or damaged. */
static int next_record(const Crc *crc, const FileMap *m, size_t *at, const unsigned char **data,
                       size_t *len, const char *path, Err *e)
{
    const unsigned char *p = m->data + *at;
    size_t left = m->len - *at;
    uint64_t n;
    if (!left) return 0;
    if (left < HEAD) return err_set(e, ERR_DATA, "%s: ends inside a record at byte %zu", path, *at);
    n = get_le(p, 8);
    if (crc_masked(crc, p, 8) != get_le(p + 8, 4))
        return err_set(e, ERR_DATA, "%s: damaged record at byte %zu (length checksum)", path, *at);
    if (left < HEAD + TAIL || n > left - HEAD - TAIL)
        return err_set(e, ERR_DATA, "%s: ends inside a record at byte %zu", path, *at);
    if (crc_masked(crc, p + HEAD, n) != get_le(p + HEAD + n, 4))
        return err_set(e, ERR_DATA, "%s: damaged record at byte %zu (data checksum)", path, *at);
    *data = p + HEAD;
    *len = n;
    *at += HEAD + n + TAIL;
    return 1;
}

/* ---- continuing old files ---- */

/* Rewrites a file without the records of a step beyond keep_step. What a killed process left
 * unfinished at the end goes too. */
static int trim(const char *path, int64_t keep_step, const Crc *crc, Err *e)
{
    FileMap m;
    AtomicFile out;
    Err damage = {0};
    const unsigned char *data;
    size_t len, at = 0, start = 0, dropped = 0;
    int more;
    if (fs_map(&m, path, e)) return -1;
    if (fs_begin(&out, path, e)) {
        fs_unmap(&m);
        return -1;
    }
    while ((more = next_record(crc, &m, &at, &data, &len, path, &damage)) == 1) {
        Tfev__Event *ev = tfev__event__unpack(NULL, len, data);
        if (ev && ev->step <= keep_step)
            fwrite(m.data + start, 1, at - start, out.f); /* fs_commit reports errors */
        else
            dropped++;
        if (ev) tfev__event__free_unpacked(ev, NULL);
        start = at;
    }
    fs_unmap(&m);
    if (!dropped && !more) { /* nothing to change */
        fs_abandon(&out);
        return 0;
    }
    if (more < 0) log_msg(LOG_INFO, "%s; the rest is dropped", damage.msg);
    return fs_commit(&out, e);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Event files of a folder, oldest first (names begin with the time). The caller frees the names and
 * the list. */
static int list_files(const char *dir, char ***list, size_t *n, Err *e)
{
    DIR *d = opendir(dir);
    struct dirent *ent;
    size_t cap = 0;
    *list = NULL;
    *n = 0;
    if (!d) return err_set(e, ERR_RUN, "%s: %s", dir, strerror(errno));
    while ((ent = readdir(d))) {
        if (!str_starts(ent->d_name, FILE_PREFIX) || strstr(ent->d_name, ".tmp.")) continue;
        mem_grow(list, &cap, *n + 1, sizeof **list);
        (*list)[(*n)++] = fs_join(dir, ent->d_name);
    }
    closedir(d);
    if (*n) qsort(*list, *n, sizeof **list, by_name);
    return 0;
}

/* Trims or removes the old files. *path: the newest that is left, or NULL. */
static int take_over(const char *dir, int64_t keep_step, const Crc *crc, char **path, Err *e)
{
    char **list;
    size_t n;
    int rc = 0;
    *path = NULL;
    if (list_files(dir, &list, &n, e)) return -1;
    for (size_t i = 0; i < n; i++) {
        if (!rc && keep_step >= 0)
            rc = trim(list[i], keep_step, crc, e);
        else if (!rc && unlink(list[i]))
            rc = err_set(e, ERR_RUN, "%s: %s", list[i], strerror(errno));
    }
    if (!rc && n && keep_step >= 0) *path = xstrdup(list[n - 1]);
    for (size_t i = 0; i < n; i++) free(list[i]);
    free(list);
    return rc;
}

/* ---- writing ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int put_event(TfEvents *t, Tfev__Event *ev, Err *e)
{
    size_t n;
    ev->has_wall_time = 1;
    ev->wall_time = now();
    n = tfev__event__get_packed_size(ev);
    mem_grow(&t->buf, &t->cap, n + HEAD + TAIL, 1);
    put_le(t->buf, n, 8);
    put_le(t->buf + 8, crc_masked(&t->crc, t->buf, 8), 4);
    tfev__event__pack(ev, t->buf + HEAD);
    put_le(t->buf + HEAD + n, crc_masked(&t->crc, t->buf + HEAD, n), 4);
    n += HEAD + TAIL;
    if (fwrite(t->buf, 1, n, t->f) != n)
        return err_set(e, ERR_RUN, "%s: %s", t->path, strerror(errno));
    return 0;
}

static int put_version(TfEvents *t, Err *e)
{
    Tfev__Event ev = TFEV__EVENT__INIT;
    char version[] = FILE_VERSION;
    ev.file_version = version;
    return put_event(t, &ev, e);
}

static char *new_path(const char *dir)
{
    char host[256] = "", *name, *path;
    if (gethostname(host, sizeof host - 1)) host[0] = 0;
    for (char *c = host; *c; c++)
        if (*c == '/' || *c <= ' ') *c = '_';
    name = xasprintf(FILE_PREFIX "%010lld.%s", (long long)time(NULL), *host ? host : "localhost");
    path = fs_join(dir, name);
    free(name);
    return path;
}

TfEvents *tfevents_open(const char *dir, int64_t keep_step, Err *e)
{
    TfEvents *t = xcalloc(1, sizeof *t);
    crc_init(&t->crc);
    if (fs_mkdirs(dir, e) || take_over(dir, keep_step, &t->crc, &t->path, e)) goto fail;
    if (!t->path) t->path = new_path(dir);
    t->f = fopen(t->path, "abe");
    if (!t->f) {
        err_set(e, ERR_RUN, "%s: %s", t->path, strerror(errno));
        goto fail;
    }
    if (fseek(t->f, 0, SEEK_END) == 0 && ftell(t->f) == 0 && put_version(t, e)) goto fail;
    return t;
fail:
    tfevents_close(t);
    return NULL;
}

/* An event of one value. */
static int put_value(TfEvents *t, const char *tag, int64_t step, Tfev__Value *value, Err *e)
{
    Tfev__Event ev = TFEV__EVENT__INIT;
    Tfev__Summary sum = TFEV__SUMMARY__INIT;
    char *copy = xstrdup(tag); /* the generated struct wants it writable */
    int rc;
    value->tag = copy;
    sum.n_value = 1;
    sum.value = &value;
    ev.has_step = 1;
    ev.step = step;
    ev.summary = &sum;
    rc = put_event(t, &ev, e);
    free(copy);
    return rc;
}

int tfevents_scalar(TfEvents *t, const char *tag, int64_t step, double value, Err *e)
{
    Tfev__Value v = TFEV__VALUE__INIT;
    v.has_simple_value = 1;
    v.simple_value = (float)value;
    return put_value(t, tag, step, &v, e);
}

/* BUCKETS buckets of equal width from the least to the largest value; values that are not finite
 * are left out. */
int tfevents_histogram(TfEvents *t, const char *tag, int64_t step, const float *v, size_t n, Err *e)
{
    Tfev__Value value = TFEV__VALUE__INIT;
    Tfev__Histogram h = TFEV__HISTOGRAM__INIT;
    double limit[BUCKETS], count[BUCKETS] = {0}, width;
    h.min = INFINITY;
    h.max = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        double x = (double)v[i];
        if (!isfinite(x)) continue;
        h.num++;
        h.sum += x;
        h.sum_squares += x * x;
        h.min = fmin(h.min, x);
        h.max = fmax(h.max, x);
    }
    if (h.num < (double)n)
        log_msg(LOG_WARN, "%s: %zu of %zu values are not finite", tag, n - (size_t)h.num, n);
    if (h.num <= 0) return 0;
    width = (h.max - h.min) / BUCKETS;
    for (int k = 0; k < BUCKETS; k++) limit[k] = h.min + (k + 1) * width;
    limit[BUCKETS - 1] = h.max;
    for (size_t i = 0; i < n; i++) {
        double x = (double)v[i], at = width > 0 ? (x - h.min) / width : 0;
        if (isfinite(x)) count[at < BUCKETS ? (int)at : BUCKETS - 1]++;
    }
    h.n_bucket = h.n_bucket_limit = width > 0 ? BUCKETS : 1;
    if (width <= 0)
        limit[0] = h.max + fmax(1e-12, 1e-6 * fabs(h.max)); /* one value: a narrow bucket */
    h.bucket = count;
    h.bucket_limit = limit;
    h.has_min = h.has_max = h.has_num = h.has_sum = h.has_sum_squares = 1;
    value.histo = &h;
    return put_value(t, tag, step, &value, e);
}

int tfevents_flush(TfEvents *t, Err *e)
{
    return fflush(t->f) ? err_set(e, ERR_RUN, "%s: %s", t->path, strerror(errno)) : 0;
}

void tfevents_close(TfEvents *t)
{
    if (!t) return;
    if (t->f) fclose(t->f);
    free(t->path);
    free(t->buf);
    free(t);
}

/* ---- reading ---- */

int tfevents_read(const char *path, TfScalar f, void *arg, Err *e)
{
    FileMap m;
    Crc crc;
    const unsigned char *data;
    size_t len, at = 0;
    int more;
    if (fs_map(&m, path, e)) return -1;
    crc_init(&crc);
    while ((more = next_record(&crc, &m, &at, &data, &len, path, e)) == 1) {
        Tfev__Event *ev = tfev__event__unpack(NULL, len, data);
        if (!ev) {
            more = err_set(e, ERR_DATA, "%s: the record before byte %zu is no event", path, at);
            break;
        }
        for (size_t i = 0; ev->summary && i < ev->summary->n_value; i++) {
            const Tfev__Value *v = ev->summary->value[i];
            if (v->tag && v->has_simple_value)
                f(arg, v->tag, ev->step, (double)v->simple_value, ev->wall_time);
        }
        tfev__event__free_unpacked(ev, NULL);
    }
    fs_unmap(&m);
    return more;
}
