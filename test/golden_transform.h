/* test/golden_transform.h -- golden cases of op `transform` (image resizing and crops). */
#ifndef TEST_GOLDEN_TRANSFORM_H
#define TEST_GOLDEN_TRANSFORM_H

#include "io/yaml.h"

/* Runs the case `y`, whose arrays lie in `dir`: 1 passed, 0 failed, -1 skipped; the reason goes to
 * `why`. */
int golden_transform_case(const Yaml *y, const char *dir, Str *why);

#endif
