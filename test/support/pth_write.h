/* test/support/pth_write.h -- a PyTorch checkpoint as torch before 1.6 wrote it (legacy container),
 * made of a TensorFile: what the tests of imports read. */
#ifndef TEST_PTH_WRITE_H
#define TEST_PTH_WRITE_H

#include "io/ckpt.h"

/* Float and int64 tensors, contiguous. `key`: the dict entry that holds the state dict, NULL: it
 * stands at top level. `prefix`: in front of every name. 0, or -1 with errno. */
int pth_write(const char *path, const TensorFile *f, const char *key, const char *prefix);

#endif
