/* test/support/tiny.h -- the smallest training there is, in this process and a folder of its own. */
#ifndef TEST_SUPPORT_TINY_H
#define TEST_SUPPORT_TINY_H

#include "run/config.h"

/* smoke with 24 synthetic images in batches of 8, 2 epochs, in ROOT/NAME, and further keys
 * ("key=value", ended by NULL). A fault fails the test. */
void tiny_load(Config *c, const char *root, const char *name, const char *const *more);
/* Trains to the end, or until max_time; the exit status. A fault fails the test. */
int tiny_run(Config *c);
/* Both; the same with the text of the fault instead: NULL when there was none, else the caller frees. */
void tiny_train(const char *root, const char *name, const char *const *more);
char *tiny_fault(const char *root, const char *name, const char *const *more);
/* Started again after each update, until it is done; how often. */
int tiny_train_in_pieces(const char *root, const char *name, const char *const *more);
/* The file of ROOT/NAME, whole; the caller frees. */
char *tiny_file(const char *root, const char *name, const char *file, size_t *len);

#endif
