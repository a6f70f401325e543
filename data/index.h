/* data/index.h -- the list of the images of one split of a class-per-folder tree.
 *
 * A split of ImageNet has 1000 folders and 1.28 million names. Listing it takes seconds on a local
 * disk and minutes over a network, so the list is kept in the user's cache folder
 * ($XDG_CACHE_HOME/qrun/trees, else ~/.cache/qrun/trees; never beside the images) and is taken from
 * there as long as every folder has the inode and the time of change it had: adding, removing or
 * renaming a file changes that time. All names stand in one block of memory, so that a list costs
 * its names and 8 bytes for each. */
#ifndef DATA_INDEX_H
#define DATA_INDEX_H

#include <stdint.h>

#include "engine/mem.h"

#define INDEX_CACHE_MIN 10000 /* images from which on tree_open has the list cached */

/* A folder as it was listed. Number 0 is the split's own, then each class and its sub-folders. */
typedef struct IndexFolder {
    int64_t sec, nsec; /* time of change */
    uint64_t inode, name;
    uint64_t images; /* of a class (its sub-folders' included); 0 for the others */
    uint64_t class;  /* 1: a class */
} IndexFolder;

/* Zeroed is empty. Names are offsets into `text`, each ended by NUL: "" and paths relative to the
 * split's folder. Classes stand in byte order, and so do the images of a class (by their paths). */
typedef struct TreeIndex {
    char *path; /* of the split's folder, resolved */
    char *text;
    size_t len, cap;
    size_t *image;
    size_t nimages, image_cap;
    IndexFolder *folder;
    size_t nfolders, folder_cap;
    uint64_t started; /* when the listing began, ns; 0: read from the cache */
} TreeIndex;

/* Lists `path`. Files count by the ending of their names (see decode_known_name) unless the folder
 * says that they are devices, pipes or sockets; hidden names do not count; links are followed, one
 * to a folder that it lies in is an error, as is a folder that cannot be read. */
int index_list(TreeIndex *x, const char *path, Err *e);
void index_free(TreeIndex *x);

/* Appends the names of the sub-folders of `path`, in byte order; the caller frees each and *names.
 */
int index_classes(const char *path, char ***names, size_t *n, Err *e);

/* The file a list of `path` (resolved) is kept in; NULL where there is neither XDG_CACHE_HOME nor
 * HOME. The caller frees. */
char *index_cache_file(const char *path);

/* 1: read, and the folders are as they were. 0: `why` (for a log line) says what is not; nothing
 * there, damaged and out of date are told apart. */
int index_load(TreeIndex *x, const char *path, const char *file, Str *why);

/* Writes it whole or not at all. 0 and `why` when nothing was written: a folder changed so shortly
 * before it was listed that a later change might not be seen, or the disk is full. */
int index_save(const TreeIndex *x, const char *file, Str *why);

/* The list of `path`, from the cache where that is possible, else made, and kept when `cache` and
 * INDEX_CACHE_MIN say so. One line at -v says which. */
int index_open(TreeIndex *x, const char *path, bool cache, Err *e);

#endif
