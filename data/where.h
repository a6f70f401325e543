/* data/where.h -- finding a data set on disk, and saying where it was looked for. */
#ifndef DATA_WHERE_H
#define DATA_WHERE_H

#include "data/data.h"

/* Does this file (folder = false) or folder hold the wanted split? */
typedef bool (*PlaceTest)(const DatasetDef *def, const DataOpts *o, const char *path, bool folder,
                          Split split);

/* dataset_dir itself, or one of def->places below it; without dataset_dir the places below
 * $QRUN_DATA_DIR and below the XDG data folder. The caller frees the path. NULL with ERR_DATA: what
 * was looked for, where, and how to get it. */
char *data_locate(const DatasetDef *def, const DataOpts *o, Split split, PlaceTest test, Err *e);

/* "$XDG_DATA_HOME/qrun", else "$HOME/.local/share/qrun"; NULL without both. The caller frees. */
char *data_user_folder(void);

bool is_archive(const char *name); /* .tar.gz, .tgz, .tar */
bool has_entry(const char *folder, const char *name);
const char *split_name(Split split);

#endif
