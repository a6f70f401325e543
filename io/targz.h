/* io/targz.h -- the members of a .tar or .tar.gz in file order, one pass, nothing unpacked to disk.
 *
 * Formats: ustar (with prefix), pax (path and size of x and g headers), GNU long names and base-256
 * sizes. Every header checksum, every size and the gzip CRC are checked; an archive that was cut is
 * an error, never a shorter archive. Names are for looking up only: callers must not use them as
 * paths to write to. */
#ifndef IO_TARGZ_H
#define IO_TARGZ_H

#include <stdint.h>

#include "engine/mem.h"

typedef struct Targz Targz;

typedef struct TarMember {
    const char *name; /* without a leading "./"; valid until the next call of targz_next */
    uint64_t size;
    bool file; /* a regular file; else a folder, link, device ... */
} TarMember;

Targz *targz_open(const char *path, Err *e); /* NULL with ERR_DATA */

/* 1: the next member; 0: the end (and the rest of the stream was sound); -1: damaged. What was not
 * read of the member before is skipped. */
int targz_next(Targz *t, TarMember *m, Err *e);

/* The next `n` bytes of the current member; asking for more than it has left is a fault of the
 * caller. */
int targz_read(Targz *t, void *buf, size_t n, Err *e);

void targz_close(Targz *t); /* takes NULL */

#endif
