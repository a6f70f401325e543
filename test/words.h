/* test/words.h -- a configuration said as the originals' command lines say it: words and "--name value". */
#ifndef TEST_WORDS_H
#define TEST_WORDS_H

#include "run/config.h"

/* The net `model` of the keyword language; words: separated by commas; options: by blanks. -1 with `e` set.
 * Release with config_free, in any case. */
int words_config(Config *cfg, const char *model, const char *words, const char *options, Err *e);

/* The net itself, for so many classes and images of 3 x size x size. -1 with `e` set. Release with spec_free, in any case. */
int words_spec(Spec *s, const char *model, const char *words, const char *options, int classes, int size, Err *e);

#endif
