/* data/samples.h -- where the images of one split are: every data set fills one of these and shares
 * its get().
 *
 * An image is either decoded (all of one size, in one block) or encoded (a file, or bytes kept from
 * an archive). */
#ifndef DATA_SAMPLES_H
#define DATA_SAMPLES_H

#include "data/data.h"
#include "data/decode.h"

typedef struct Samples {
    uint32_t n;
    int32_t *label; /* n */
    size_t label_cap;
    unsigned char *px; /* decoded: n * h*w*c, H,W,C each; NULL when encoded */
    size_t px_cap;
    int h, w, c;
    char *text; /* encoded: names in one block; files below `root`, or members of the archive */
    size_t text_len, text_cap;
    size_t *name; /* n offsets into text */
    size_t name_cap;
    char *root;          /* folder of the files */
    unsigned char *blob; /* bytes of the members, one after another; NULL: names are files */
    size_t blob_len, blob_cap;
    size_t *start; /* blob: n offsets */
    size_t start_cap;
    uint32_t *length; /* blob: n sizes */
    size_t length_cap;
    const char *archive; /* for messages; borrowed */
    Decoder decoder;
    char **bad; /* decoded: NULL, or n messages for those that could not be (NULL: sound) */
} Samples;

/* Appends a decoded image of h*w*c bytes (set before) and returns where its pixels go. */
unsigned char *samples_add_pixels(Samples *s, int label);
/* Appends an encoded image; `name` is copied. Takes room in the blob and returns it. */
unsigned char *samples_add_bytes(Samples *s, const char *name, int label, uint32_t size);

/* Sorts encoded samples by (label, name), and keeps the samples keep[0..n), in that order. */
void samples_sort(Samples *s);
void samples_select(Samples *s, const uint32_t *keep, uint32_t n);

/* Decodes everything once, in parallel, when all images have h x w pixels (0: those of the first)
 * and are small; drops names and bytes then. One that differs in size leaves the set encoded,
 * unless h is given: then it is bad. Bad images: with `skip` remembered, else the first one is the
 * error. */
int samples_decode(Samples *s, int h, int w, bool skip, Err *e);

/* Names may hold anything but NUL and '/': control characters become '?', as ls shows them. */
void samples_one_line(char *message);

/* DatasetDef's get and close for data sets whose priv is a Samples. */
int samples_get(const Dataset *d, uint32_t i, Image *im, int *label, Err *e);
int samples_get_part(const Dataset *d, uint32_t i, const ImagePart *part, Image *im, int *label,
                     Err *e);
void samples_close(Dataset *d);
void samples_free(Samples *s);

#endif
