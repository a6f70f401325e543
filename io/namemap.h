/* io/namemap.h -- new names of tensors by two files: where a name contains line k of the first,
 * that part becomes line k of the second.
 *
 * Blank lines and lines that begin with '#' count in neither; quotes and commas around a line do
 * not belong to it: '' in the second file takes the part out. `bn{1,2}` stands for two lines, bn1 and bn2; both sides have as many. Lines
 * are applied in order, each to what the ones before have left.
 *
 * Source: aim-uofa/model-quantization, tools.py, action `update`. */
#ifndef IO_NAMEMAP_H
#define IO_NAMEMAP_H

#include <stdint.h>

#include "engine/mem.h"

typedef struct NamePair {
    const char *from, *to;
    int line;     /* of the first file */
    int64_t used; /* names it has changed */
} NamePair;

typedef struct NameMap {
    NamePair *pair;
    size_t n, cap;
    Arena arena;
} NameMap;

/* -1 with `e` (ERR_CONFIG): a file is missing, sizes differ, a line is empty or its braces are
 * wrong. Free it in either case. */
int namemap_read(NameMap *m, const char *from, const char *to, Err *e);
void namemap_free(NameMap *m);
char *namemap_apply(NameMap *m, const char *name); /* the caller frees */

#endif
