/* test/golden_words.h -- cases that say their net and quantizers in the words and options of the keyword
 * language (params.keyword, params.options), and their state by fill indices. */
#ifndef TEST_GOLDEN_WORDS_H
#define TEST_GOLDEN_WORDS_H

#include "run/config.h"
#include "test/golden.h"

/* The configuration of the case, as the program makes it from these words and options. False fails the case.
 * Release with config_free. */
bool case_words(Case *c, Config *cfg);

#define LAYER "layer." /* names of a layer alone; the cases have none */

/* All floating tensors of `ps` but "x" by the rows of `state`, in whose order they must stand; with
 * `mixed` as the README of keyword-nets says. A row of a tensor that is not there, another shape or
 * order fail the case. */
void case_fill_rows(Case *c, ParamStore *ps, bool mixed);

/* The image of a fill index, N,C,H,W. */
void case_fill_image(float *x, size_t n, uint64_t t, bool mixed);

#endif
