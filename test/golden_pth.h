/* test/golden_pth.h -- the golden cases of PyTorch checkpoint files
 * (test/golden/torch-checkpoints). */
#ifndef TEST_GOLDEN_PTH_H
#define TEST_GOLDEN_PTH_H

#include "io/yaml.h"

/* One case: `y` is its yml, `dir` the folder of its files. 1: passed; 0: failed, `why` says what
 * differed; -1: skipped. */
int golden_pth_case(const Yaml *y, const char *dir, Str *why);

#endif
