/* run/imagefiles.h -- the image files that words of the command line name. */
#ifndef RUN_IMAGEFILES_H
#define RUN_IMAGEFILES_H

#include "engine/mem.h"

typedef struct ImageFiles {
    char **path;
    int n;
    size_t cap;
} ImageFiles;

/* A file as it is, whatever its name; a folder: the images below it, sorted by name. -1 with `e`
 * (ERR_DATA) when there is none in it or it cannot be read. */
int image_files_add(ImageFiles *f, const char *word, Err *e);
void image_files_free(ImageFiles *f);

#endif
