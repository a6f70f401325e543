/* data/where.c -- see where.h. */
#include "data/where.h"

#include <stdlib.h>

#include "io/fs.h"

bool is_archive(const char *name)
{
    return str_ends(name, ".tar.gz") || str_ends(name, ".tgz") || str_ends(name, ".tar");
}

bool has_entry(const char *folder, const char *name)
{
    char *path = fs_join(folder, name);
    bool found = fs_exists(path) != 0;
    free(path);
    return found;
}

const char *split_name(Split split)
{
    return split == SPLIT_TRAIN ? "training" : "validation";
}

static bool accepts(const DatasetDef *def, const DataOpts *o, const char *path, Split split,
                    PlaceTest test)
{
    int kind = fs_exists(path);
    return kind && test(def, o, path, kind == 2, split);
}

/* The first of def->places below `base` that holds the split. */
static char *below(const DatasetDef *def, const DataOpts *o, const char *base, Split split,
                   PlaceTest test)
{
    for (const char *const *p = def->places; p && *p; p++) {
        char *path = fs_join(base, *p);
        if (accepts(def, o, path, split, test)) return path;
        free(path);
    }
    return NULL;
}

char *data_user_folder(void)
{
    const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (xdg && *xdg) return fs_join(xdg, "qrun");
    return home && *home ? fs_join(home, ".local/share/qrun") : NULL;
}

char *data_locate(const DatasetDef *def, const DataOpts *o, Split split, PlaceTest test, Err *e)
{
    const char *dir = o->dataset_dir ? o->dataset_dir : "", *env = getenv("QRUN_DATA_DIR");
    char *user = data_user_folder();
    const char *bases[2] = {env && *env ? env : NULL, user};
    char *path = NULL;
    Str names = {0};
    for (const char *const *p = def->places; p && *p; p++)
        str_printf(&names, "%s%s", p == def->places ? "" : ", ", *p);
    if (*dir) {
        int kind = fs_exists(dir);
        if (accepts(def, o, dir, split, test))
            path = xstrdup(dir);
        else if (kind == 2)
            path = below(def, o, dir, split, test);
        if (!path && !kind)
            err_set(e, ERR_DATA, "dataset_dir: '%s' does not exist (data set %s)", dir, def->name);
        else if (!path)
            err_set(
                e, ERR_DATA,
                "dataset_dir: '%s' does not hold the %s images of data set %s%s%s",
                dir, split_name(split), def->name, names.len ? ", nor does it have one of: " : "", names.len ? names.s : "");
    } else if (!names.len) { /* a data set without usual names is looked for nowhere else */
        err_set(e, ERR_DATA, "dataset_dir is not set; data set %s has no usual place", def->name);
    } else {
        for (size_t i = 0; i < 2 && !path; i++)
            if (bases[i]) path = below(def, o, bases[i], split, test);
        if (!path)
            err_set(e, ERR_DATA,
                    "no %s images of data set %s: dataset_dir is not set; looked below "
                    "$QRUN_DATA_DIR (%s) and %s for: %s",
                    split_name(split), def->name, bases[0] ? bases[0] : "not set",
                    user ? user : "the user's data folder", names.s);
    }
    if (!path && def->how_to_get) err_add(e, ERR_DATA, "%s", def->how_to_get);
    free(user);
    str_free(&names);
    return path;
}
