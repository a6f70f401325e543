/* run/imagefiles.c -- see imagefiles.h. */
#include "run/imagefiles.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "data/decode.h"
#include "io/fs.h"

static void add_file(ImageFiles *f, const char *path)
{
    mem_grow(&f->path, &f->cap, (size_t)f->n + 1, sizeof *f->path);
    f->path[f->n++] = xstrdup(path);
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int add_folder(ImageFiles *f, const char *dir, int depth, Err *e)
{
    enum { DEPTH = 16 };
    struct dirent **entry;
    const int n = depth < DEPTH ? scandir(dir, &entry, visible, alphasort) : 0;
    int r = 0;
    if (n < 0) return err_set(e, ERR_DATA, "%s: cannot be read: %s", dir, strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = fs_join(dir, entry[i]->d_name);
        if (!r && fs_exists(path) == 2)
            r = add_folder(f, path, depth + 1, e);
        else if (!r && decode_known_name(path))
            add_file(f, path);
        free(path);
        free(entry[i]);
    }
    if (n) free(entry);
    return r;
}

int image_files_add(ImageFiles *f, const char *word, Err *e)
{
    const int before = f->n;
    if (fs_exists(word) != 2) {
        add_file(f, word);
        return 0;
    }
    if (add_folder(f, word, 0, e)) return -1;
    return f->n > before
               ? 0
               : err_set(e, ERR_DATA, "%s: no image in this folder; expected .jpg, .jpeg or .png",
                         word);
}

void image_files_free(ImageFiles *f)
{
    for (int i = 0; i < f->n; i++) free(f->path[i]);
    free(f->path);
    *f = (ImageFiles){0};
}
