/* io/fs.c -- see fs.h. Plain POSIX; reading faults are ERR_DATA, writing faults ERR_RUN. */
#include "io/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME ".lock"
#define TEMP_MARK ".tmp."

/* ---- reading ---- */

static int open_for_reading(const char *path, struct stat *st, Err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
    if (fstat(fd, st) < 0) {
        err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
        close(fd);
        return -1;
    }
    if (S_ISDIR(st->st_mode)) {
        close(fd);
        return err_set(e, ERR_DATA, "%s: is a folder, not a file", path);
    }
    return fd;
}

static int too_large(const char *path, size_t limit, Err *e)
{
    return err_set(e, ERR_DATA, "%s: larger than the %zu bytes that are read of such a file", path,
                   limit);
}

/* The size of the file is only a first guess: pipes have none, and a file may grow meanwhile. */
char *fs_read(const char *path, size_t limit, size_t *len, Err *e)
{
    struct stat st;
    size_t n = 0, cap = 4096;
    char *buf;
    int fd = open_for_reading(path, &st, e);
    if (fd < 0) return NULL;
    if (S_ISREG(st.st_mode) && st.st_size > 0) cap = (size_t)st.st_size + 1;
    if (limit && cap > limit + 1) {
        if (S_ISREG(st.st_mode) && (size_t)st.st_size > limit) {
            too_large(path, limit, e);
            close(fd);
            return NULL;
        }
        cap = limit + 1;
    }
    buf = xmalloc(cap + 1);
    for (;;) {
        ssize_t got;
        if (n == cap) buf = xrealloc(buf, (cap *= 2) + 1);
        got = read(fd, buf + n, cap - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
            break;
        }
        n += (size_t)got;
        if (limit && n > limit) {
            too_large(path, limit, e);
            break;
        }
        if (got > 0) continue;
        close(fd);
        buf[n] = 0;
        if (len) *len = n;
        return buf;
    }
    close(fd);
    free(buf);
    return NULL;
}

char *fs_read_text(const char *path, size_t limit, Err *e)
{
    size_t len;
    char *text = fs_read(path, limit, &len, e);
    if (text && strlen(text) == len) return text;
    if (text)
        err_set(e, ERR_CONFIG, "%s: not a text file", path);
    else if (e)
        e->kind = ERR_CONFIG;
    free(text);
    return NULL;
}

int fs_map(FileMap *m, const char *path, Err *e)
{
    struct stat st;
    void *p;
    int fd = open_for_reading(path, &st, e);
    *m = (FileMap){(const unsigned char *)"", 0, -1};
    if (fd < 0) return -1;
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_DATA, "%s: not a regular file", path);
    }
    if (st.st_size > 0) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            err_set(e, ERR_DATA, "%s: cannot be mapped: %s", path, strerror(errno));
            close(fd);
            return -1;
        }
        m->data = p;
        m->len = (size_t)st.st_size;
    }
    m->fd = fd;
    return 0;
}

void fs_unmap(FileMap *m)
{
    if (m->len) munmap((void *)(uintptr_t)m->data, m->len);
    if (m->data && m->fd >= 0) close(m->fd);
    *m = (FileMap){(const unsigned char *)"", 0, -1};
}

/* ---- atomic writing ---- */

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

/* Makes a rename durable. File systems that cannot sync a folder say EINVAL: nothing to be done
 * there. */
static int sync_parent(const char *path, Err *e)
{
    char *dir = parent_of(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
        rc = err_set(e, ERR_RUN, "%s: %s", dir, strerror(errno));
    if (fd >= 0) close(fd);
    free(dir);
    return rc;
}

static char *temp_name(const char *path)
{
    return xasprintf("%s" TEMP_MARK "%ld", path, (long)getpid());
}

int fs_begin(AtomicFile *a, const char *path, Err *e)
{
    int fd;
    *a = (AtomicFile){NULL, xstrdup(path), temp_name(path)};
    fd = open(a->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd >= 0) a->f = fdopen(fd, "wb");
    if (a->f) return 0;
    err_set(e, ERR_RUN, "%s: cannot be written: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    fs_abandon(a);
    return -1;
}

void fs_abandon(AtomicFile *a)
{
    if (a->f) fclose(a->f);
    if (a->tmp) unlink(a->tmp);
    free(a->path);
    free(a->tmp);
    *a = (AtomicFile){0};
}

int fs_commit(AtomicFile *a, Err *e)
{
    int rc = 0;
    errno = 0;
    if (fflush(a->f) != 0 || ferror(a->f) || fsync(fileno(a->f)) < 0) rc = -1;
    if (rc < 0)
        err_set(e, ERR_RUN, "%s: cannot be written: %s", a->path,
                errno ? strerror(errno) : "an earlier write failed (disk full?)");
    if (fclose(a->f) != 0 && rc == 0)
        rc = err_set(e, ERR_RUN, "%s: cannot be written: %s", a->path, strerror(errno));
    a->f = NULL;
    if (rc == 0 && rename(a->tmp, a->path) < 0)
        rc = err_set(e, ERR_RUN, "%s: cannot be replaced: %s", a->path, strerror(errno));
    if (rc == 0) rc = sync_parent(a->path, e);
    fs_abandon(a); /* after a rename there is no temporary file any more */
    return rc;
}

int fs_write(const char *path, const void *data, size_t n, Err *e)
{
    AtomicFile a;
    if (fs_begin(&a, path, e) < 0) return -1;
    if (n) fwrite(data, 1, n, a.f); /* a fault stays in ferror and is reported by fs_commit */
    return fs_commit(&a, e);
}

int fs_check_writable(const char *path, Err *e)
{
    AtomicFile a;
    if (fs_exists(path) == 2)
        return err_set(e, ERR_RUN, "%s: cannot be written: it is a folder", path);
    if (fs_begin(&a, path, e) < 0) return -1;
    fs_abandon(&a);
    return 0;
}

/* ---- folders and names ---- */

int fs_mkdirs(const char *path, Err *e)
{
    char *p = xstrdup(path);
    int rc = 0;
    for (char *s = p + (*p == '/');; s++) {
        char c = *s;
        if (c && c != '/') continue;
        *s = 0;
        if (*p && mkdir(p, 0777) < 0 && errno != EEXIST) {
            rc = err_set(e, ERR_RUN, "%s: cannot be made: %s", p, strerror(errno));
            break;
        }
        *s = c;
        if (!c) break;
    }
    if (rc == 0 && fs_exists(path) != 2)
        rc = err_set(e, ERR_RUN, "%s: exists and is not a folder", path);
    free(p);
    return rc;
}

int fs_exists(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) return 0;
    return S_ISDIR(st.st_mode) ? 2 : 1;
}

char *fs_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    if (name[0] == '/' || n == 0) return xstrdup(name);
    return xasprintf("%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}

static int copy_file(const char *from, const char *to, Err *e)
{
    FileMap m;
    int rc;
    if (fs_map(&m, from, e) < 0) return -1;
    rc = fs_write(to, m.data, m.len, e);
    fs_unmap(&m);
    return rc;
}

int fs_link_or_copy(const char *from, const char *to, Err *e)
{
    char *tmp = temp_name(to);
    int rc = 0;
    unlink(tmp);
    if (link(from, tmp) < 0) {
        rc = errno == ENOENT ? err_set(e, ERR_RUN, "%s: %s", from, strerror(errno))
                             : copy_file(from, to, e);
    } else {
        if (rename(tmp, to) < 0)
            rc = err_set(e, ERR_RUN, "%s: cannot be replaced: %s", to, strerror(errno));
        unlink(tmp); /* rename does nothing when both names are the same file already */
        if (rc == 0) rc = sync_parent(to, e);
    }
    free(tmp);
    return rc;
}

/* The process id at the end of NAME.tmp.PID, or 0. */
static long temp_owner(const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t mark = strlen(TEMP_MARK);
    char *end;
    long pid;
    if (!dot || (size_t)(dot + 1 - name) <= mark) return 0;
    if (strncmp(dot + 1 - mark, TEMP_MARK, mark) != 0 || dot[1] < '1' || dot[1] > '9') return 0;
    errno = 0;
    pid = strtol(dot + 1, &end, 10);
    return *end || errno || pid > INT_MAX ? 0 : pid;
}

void fs_remove_temps(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *ent;
    if (!d) return;
    while ((ent = readdir(d))) {
        long pid = temp_owner(ent->d_name);
        if (pid && kill((pid_t)pid, 0) < 0 && errno == ESRCH) unlinkat(dirfd(d), ent->d_name, 0);
    }
    closedir(d);
}

/* ---- lock ---- */

/* flock, not fcntl: closing another descriptor of the file does not release it. The file stays
 * behind on purpose: removing it would let two processes hold locks on two files of one name. */
int fs_lock(const char *dir, int *fd, long *pid, Err *e)
{
    char *path = fs_join(dir, LOCK_NAME), text[32] = "";
    int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666), rc = 1;
    *fd = -1;
    *pid = 0;
    if (f < 0) {
        rc = err_set(e, ERR_RUN, "%s: %s", path, strerror(errno));
    } else if (flock(f, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(f, text, sizeof text - 1, 0);
            if (n > 0) *pid = strtol(text, NULL, 10);
            rc = 0;
        } else {
            rc = err_set(e, ERR_RUN, "%s: cannot be locked: %s", path, strerror(errno));
        }
    } else if (ftruncate(f, 0) < 0 || dprintf(f, "%ld\n", (long)getpid()) < 0) {
        rc = err_set(e, ERR_RUN, "%s: %s", path, strerror(errno));
    }
    if (rc == 1)
        *fd = f;
    else if (f >= 0)
        close(f);
    free(path);
    return rc;
}

void fs_unlock(int fd)
{
    if (fd >= 0) close(fd);
}
