/* io/fs.h -- files: whole reads, atomic writes, folders, locks. */
#ifndef IO_FS_H
#define IO_FS_H

#include <stdint.h>
#include <stdio.h>

#include "engine/mem.h"

/* The whole file, with a NUL behind it; the caller frees. At most `limit` bytes (0: no limit).
 * Errors: ERR_DATA. */
char *fs_read(const char *path, size_t limit, size_t *len, Err *e);
/* A text that a configuration or the command line names: ERR_CONFIG, also where it holds a NUL. */
char *fs_read_text(const char *path, size_t limit, Err *e);

/* Read-only memory map; errors: ERR_DATA. An empty file gives data "" and len 0. */
typedef struct FileMap {
    const unsigned char *data;
    size_t len;
    int fd;
} FileMap;
int fs_map(FileMap *m, const char *path, Err *e);
void fs_unmap(FileMap *m);

/* Atomic replacement: write to PATH.tmp.PID in the same folder, flush, fsync, rename, fsync the
 * folder. Until fs_commit returns, PATH is what it was. */
typedef struct AtomicFile {
    FILE *f;
    char *path, *tmp;
} AtomicFile;
int fs_begin(AtomicFile *a, const char *path, Err *e);
/* Also reports earlier write errors (disk full); on error the temporary file is gone. */
int fs_commit(AtomicFile *a, Err *e);
void fs_abandon(AtomicFile *a);
int fs_write(const char *path, const void *data, size_t n, Err *e); /* begin, write, commit */
/* Whether fs_begin will be able to write PATH, for asking before long work; leaves nothing behind. */
int fs_check_writable(const char *path, Err *e);

int fs_mkdirs(const char *path, Err *e); /* with parents */
int fs_exists(const char *path);         /* 1 file, 2 folder, 0 neither */
/* The caller frees; an absolute name stands alone. */
char *fs_join(const char *dir, const char *name);
/* Hard link, atomically replacing `to`; a copy where links fail. */
int fs_link_or_copy(const char *from, const char *to, Err *e);
void fs_remove_temps(const char *dir); /* NAME.tmp.PID left by dead processes */

/* An advisory lock on DIR/.lock, held until released or the process ends. 1: taken; 0: another
 * process has it (its pid in *pid); -1: error. */
int fs_lock(const char *dir, int *fd, long *pid, Err *e);
void fs_unlock(int fd);

/* Hex SHA-256 of a file (out: 65 bytes). */
int fs_sha256(const char *path, char out[65], Err *e);

#endif
