/* test/support/fat_reference.h -- FAT's mask by its definition, in double: complex DFT of all n
 * bins of each row. */
#ifndef TEST_FAT_REFERENCE_H
#define TEST_FAT_REFERENCE_H

typedef struct FatReference {
    int rows, n;
    double *re, *im, *mag, *cosine, *sine;
} FatReference;

FatReference fat_reference_new(int rows, int n);
void fat_reference_free(FatReference *r);
/* t [rows, rows], x and y [rows, n] */
void fat_reference_run(FatReference *r, const double *t, const double *x, double *y);

#endif
