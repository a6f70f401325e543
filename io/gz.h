/* io/gz.h -- a gzip'ed (or plain) file as one block of memory. */
#ifndef IO_GZ_H
#define IO_GZ_H

#include "engine/mem.h"

/* The whole file, inflated when it is gzip and as it stands when it is not; the caller frees. More
 * than `limit` bytes (after inflating), a cut stream or a wrong checksum is ERR_DATA, naming the
 * file. */
char *gz_read(const char *path, size_t limit, size_t *len, Err *e);

/* Of the zlib in use: "1.2.13". */
const char *gz_version(void);

#endif
