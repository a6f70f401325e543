/* data/class_names.h -- names of classes: those that everybody's copy of a data set has, and a file
 * of names. */
#ifndef DATA_CLASS_NAMES_H
#define DATA_CLASS_NAMES_H

#include "engine/mem.h"

extern const char *const names_cifar10[10], *const names_cifar100[100], *const names_mnist[10];

/* One name a line, `classes` of them, in the order of the classes; they live in `a`. Lines of
 * batches.meta.txt, of LOC_synset_mapping.txt and the like. NULL with ERR_DATA. */
const char *const *class_names_read(const char *path, int classes, Arena *a, Err *e);

#endif
