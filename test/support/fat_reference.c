/* test/support/fat_reference.c -- see fat_reference.h. */
#include "test/support/fat_reference.h"

#include <math.h>
#include <stdlib.h>

#include "engine/mem.h"

FatReference fat_reference_new(int rows, int n)
{
    FatReference r = {rows, n, NULL, NULL, NULL, NULL, NULL};
    const size_t all = (size_t)rows * (size_t)n;
    r.re = xcalloc(all, sizeof(double));
    r.im = xcalloc(all, sizeof(double));
    r.mag = xcalloc(all, sizeof(double));
    r.cosine = xcalloc((size_t)n, sizeof(double));
    r.sine = xcalloc((size_t)n, sizeof(double));
    for (int j = 0; j < n; j++) {
        r.cosine[j] = cos(2 * acos(-1) * j / n);
        r.sine[j] = sin(2 * acos(-1) * j / n);
    }
    return r;
}

void fat_reference_free(FatReference *r)
{
    free(r->re);
    free(r->im);
    free(r->mag);
    free(r->cosine);
    free(r->sine);
}

void fat_reference_run(FatReference *r, const double *t, const double *x, double *y)
{
    const size_t n = (size_t)r->n, rows = (size_t)r->rows;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < n; k++) {
            double re = 0, im = 0;
            for (size_t j = 0; j < n; j++) {
                re += x[i * n + j] * r->cosine[j * k % n];
                im -= x[i * n + j] * r->sine[j * k % n];
            }
            r->re[i * n + k] = re, r->im[i * n + k] = im;
            r->mag[i * n + k] = sqrt(re * re + im * im);
        }
    for (size_t i = 0; i < rows * n; i++) y[i] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < n; k++) {
            double s = 0, m;
            for (size_t c = 0; c < rows; c++) s += t[i * rows + c] * r->mag[c * n + k];
            m = 1 / (1 + exp(-s)) / (double)n;
            for (size_t j = 0; j < n; j++)
                y[i * n + j] += m * (r->re[i * n + k] * r->cosine[j * k % n] -
                                     r->im[i * n + k] * r->sine[j * k % n]);
        }
}
