/* quant/fat.h -- FAT's spectral mask: every row of a matrix goes to the frequency domain, each
 * frequency is multiplied by a mask in (0, 1) made from the magnitudes of all rows, and back.
 *
 * With F = DFT of the rows of x [rows, n], A = |F|, S = T A (T [rows, rows]), M = 1 / (1 + e^-S):
 *   y = real part of the inverse DFT of M F */
#ifndef QUANT_FAT_H
#define QUANT_FAT_H

#include <stddef.h>

/* The transform of one shape: FFT plans and sizes. Not changed by use; any number of threads may
 * share it. */
typedef struct Fat {
    int rows, n;
    int bins;       /* n / 2 + 1: the others are their conjugates */
    size_t ld, ldn; /* floats from row to row: of bins, of values (rows begin on cache lines) */
    void *plan[2];  /* forward, inverse */
} Fat;

/* Makes the plans. One thread at a time. */
void fat_init(Fat *f, int rows, int n);
void fat_free(Fat *f); /* takes a zeroed Fat */

/* Floats that fat_forward leaves for fat_backward, and that both work in. Both blocks are 64-byte
 * aligned. */
size_t fat_save_len(const Fat *f);
size_t fat_scratch_len(const Fat *f);

/* t [rows, rows], x and y [rows, n]; y may be x. */
void fat_forward(const Fat *f, const float *t, const float *x, float *y, float *save,
                 float *scratch);
/* dy [rows, n]; dx [rows, n], written, may be dy or NULL; dt [rows, rows], ADDED to, or NULL. */
void fat_backward(const Fat *f, const float *t, const float *save, const float *dy, float *dx,
                  float *dt, float *scratch);

/* What fat_forward has left, row r: magnitudes and mask of the bins 0 .. bins - 1. */
const float *fat_magnitude(const Fat *f, const float *save, int r);
const float *fat_mask(const Fat *f, const float *save, int r);

#endif
