/* data/tree.h -- images in one folder per class, on disk or inside a .tar.gz. */
#ifndef DATA_TREE_H
#define DATA_TREE_H

#include "data/samples.h"

typedef struct TreeRule {
    const char *const *train, *const
                                  *val; /* sub-folders of a split, tried in order, ended by NULL */
    uint32_t drop_train;                /* so many shuffled training images are left out */
} TreeRule;

/* Does the folder (or the archive, by its name alone) hold the split? */
bool tree_has(const TreeRule *r, const DataOpts *o, const char *path, bool folder, Split split);

/* Fills d from `path`. Class numbers are the places of the class names in byte order, over the
 * folders of both splits; images of a class are ordered by path. Small images (see samples_decode)
 * are decoded at once. */
int tree_open(Dataset *d, const DataOpts *o, const TreeRule *r, const char *path, Err *e);

extern const TreeRule tree_any, tree_imagenet, tree_imagenet_val50k, tree_cinic, tree_cifar;

#endif
