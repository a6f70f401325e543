/* test/data_support.h -- what the two data tests share: options, and errors that must be ours.
 * Include cmocka.h first. */
#ifndef TEST_DATA_SUPPORT_H
#define TEST_DATA_SUPPORT_H

#include <string.h>

#include "data/data.h"

static inline DataOpts opts(const char *dataset, const char *where)
{
    return (DataOpts){.dataset = dataset,
                      .dataset_dir = where,
                      .train_dir = "train",
                      .val_dir = "val",
                      .seed = 7,
                      .on_bad_image = "fail",
                      .shuffle = true,
                      .data_loader_workers = 2,
                      .synth_noise = -1};
}

/* The message must be one of ours: the kind, naming the file, saying `what`. */
static inline void expect_error(int rc, const Err *e, ErrKind kind, const char *file,
                                const char *what)
{
    if (rc >= 0) fail_msg("no error where '%s' was expected of %s", what, file);
    if (e->kind != kind) fail_msg("kind %d, expected %d: %s", e->kind, kind, e->msg);
    if (!strstr(e->msg, file) || !strstr(e->msg, what))
        fail_msg("'%s' does not name '%s' and '%s'", e->msg, file, what);
}

static inline void open_fails(const DataOpts *o, Split split, ErrKind kind, const char *file,
                              const char *what)
{
    Dataset d;
    Err e = {0};
    expect_error(dataset_open(&d, o, split, &e), &e, kind, file, what);
}

static inline void open_ok(Dataset *d, const DataOpts *o, Split split)
{
    Err e = {0};
    if (dataset_open(d, o, split, &e)) fail_msg("%s", e.msg);
}

/* Every record of a set made by put_cifar_*: labels in turn, pixels where they belong. */
static inline void hash_bytes(uint64_t *h, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) *h = (*h ^ b[i]) * 0x100000001B3u;
}

#endif
