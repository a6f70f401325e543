/* data/resize.h -- Pillow's bilinear filter on a part of an image; see image_resize in data.h. */
#ifndef DATA_RESIZE_H
#define DATA_RESIZE_H

#include "data/data.h"

typedef struct ResizeSpan {
    int first, count; /* source pixels of one output pixel */
} ResizeSpan;

typedef struct ResizeAxis {
    ResizeSpan *span;
    int32_t *k; /* `taps` coefficients of each output pixel */
    double *w;
    size_t span_cap, k_cap, w_cap;
    int taps;
} ResizeAxis;

/* Buffers kept from image to image; zeroed is ready. */
typedef struct ResizeScratch {
    ResizeAxis x, y;
    unsigned char *mid, *pack;
    size_t mid_cap, pack_cap;
} ResizeScratch;

/* The part (x0, y0, x1, y1) of what the box (x0, y0, x1, y1) of `src` scaled to full_w x full_h
 * looks like. */
void resize_part(ResizeScratch *sc, const Image *src, const int box[4], int full_h, int full_w,
                 const int part[4], Image *dst);

/* The pixels *first .. *last - 1 of `in` that the pixels begin .. end - 1 of `out` are made of. */
void resize_source(int in, int out, int begin, int end, int *first, int *last);

void resize_scratch_free(ResizeScratch *sc);

#endif
