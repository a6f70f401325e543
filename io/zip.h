/* io/zip.h -- zip archives in memory, read only (stored and deflated members, zip64).
 *
 * Everything is checked when the archive is opened: all records inside the data, no two members of
 * one name, none that overlap. Member names are for comparing only; they are never used as paths.
 * */
#ifndef IO_ZIP_H
#define IO_ZIP_H

#include <stdint.h>

#include "engine/mem.h"

typedef struct ZipMember {
    const char *name;
    uint64_t size, packed;      /* bytes of the content, bytes in the archive */
    uint64_t start, data;       /* positions of the local header and of the data */
    uint32_t crc;
    int method;                 /* 0 stored, 8 deflated */
    const unsigned char *bytes; /* the content, once zip_bytes was called */
} ZipMember;

typedef struct Zip {
    const unsigned char *b;     /* borrowed */
    size_t len;
    ZipMember *m;               /* sorted by name */
    size_t n;
    Arena arena;
} Zip;

/* `b` must outlive `z`. -1 with ERR_DATA; call zip_close in either case. */
int zip_open(Zip *z, const unsigned char *b, size_t len, Err *e);
void zip_close(Zip *z);

ZipMember *zip_find(const Zip *z, const char *name); /* NULL when absent */

/* The content (m->size bytes), checked against its CRC-32; stored members are not copied. NULL with
 * `e` when damaged. */
const unsigned char *zip_bytes(Zip *z, ZipMember *m, Err *e);

#endif
