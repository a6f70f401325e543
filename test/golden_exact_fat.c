/* test/golden_exact_fat.c -- FAT's two quantizers (uniform levels) in double, transforms included, by
 * other code than quant/fat.c: plain recursive complex transforms of whole rows. */
#include "test/golden_exact.h"

#include <complex.h>
#include <math.h>
#include <stdlib.h>

#include "engine/par.h"

void exact_fat_levels(const QInst *q, const double *x, double *y, size_t n)
{
    const double alpha = (double)param_scalar(q->p[0]), m = (1 << q->bits) - 1;
    for (size_t i = 0; i < n; i++) y[i] = alpha * (rint(fmin(x[i] / alpha, 1) * m) / m);
}

bool exact_fixed8(const QInst *q, double *y, double rounding, Err *e)
{
    const float *w = q->owner->value.data;
    const size_t n = tensor_len(&q->owner->value);
    double s = (double)w[0];
    for (size_t i = 0; i < n; i++) s = fmax(s, (double)w[i]);
    for (size_t i = 0; i < n; i++) {
        const double v = (double)w[i] / s * 127, level = rint(v), have = rint(y[i] / s * 127);
        const double off = fabs(v - (level + have) / 2) / 127; /* from the threshold */
        if (level != have && !(fabs(level - have) == 1 && off <= rounding)) {
            err_set(e, ERR_CONFIG, "%sweight: value %zu is exactly %.9g steps, not %g", q->name, i, v,
                    have);
            return false;
        }
        y[i] = level / 127 * s;
    }
    return true;
}

/* to[k] = sum of from[j * step] e^(-+ 2 pi i jk / n) */
static void transform(const double complex *from, double complex *to, size_t n, size_t step,
                      double sign)
{
    size_t r = 2, m;
    double complex *part;
    while (r * r <= n && n % r) r++;
    if (r * r > n || n < 4) r = n;
    m = n / r;
    if (n == 1) {
        to[0] = from[0];
        return;
    }
    part = xaligned(n * sizeof *part);
    for (size_t i = 0; i < r && m > 1; i++) transform(from + i * step, part + i * m, m, step * r, sign);
    for (size_t i = 0; i < r && m == 1; i++) part[i] = from[i * step];
    for (size_t k = 0; k < n; k++) {
        double complex sum = 0;
        for (size_t i = 0; i < r; i++)
            sum += part[i * m + k % m] *
                   cexp(sign * 2 * M_PI * (double)(i * k % n) / (double)n * (double complex)I);
        to[k] = sum;
    }
    free(part);
}

/* Rows of x through the spectral mask. */
static void masked(const Param *t, double *x, size_t rows, size_t n)
{
    const float *mix = t->value.data;
    double complex *f = xaligned(rows * n * sizeof *f);
    double *a = xaligned(rows * n * sizeof *a);
    PARALLEL_FOR(r, rows)
    {
        double complex *row = xaligned(n * sizeof *row), *z = f + (size_t)r * n;
        for (size_t j = 0; j < n; j++) row[j] = x[(size_t)r * n + j];
        transform(row, z, n, 1, -1);
        for (size_t k = 0; k < n; k++) a[(size_t)r * n + k] = cabs(z[k]);
        free(row);
    }
    PARALLEL_FOR(r, rows)
    {
        double *s = xcalloc(n, sizeof *s);
        double complex *row = xaligned(n * sizeof *row), *z = f + (size_t)r * n;
        for (size_t c = 0; c < rows; c++) {
            const double w = (double)mix[(size_t)r * rows + c], *from = a + c * n;
            SIMD_FOR(k, n) s[k] += w * from[k];
        }
        for (size_t k = 0; k < n; k++) z[k] /= 1 + exp(-s[k]);
        transform(z, row, n, 1, 1);
        for (size_t j = 0; j < n; j++) x[(size_t)r * n + j] = creal(row[j]) / (double)n;
        free(row);
        free(s);
    }
    free(f);
    free(a);
}

bool exact_fat_weight(const QInst *q, double *y, double rounding, Err *e)
{
    const Tensor *w = &q->owner->value;
    const size_t n = tensor_len(w);
    const double alpha = (double)param_scalar(q->p[0]), top = (1 << (q->bits - 1)) - 1;
    double *x = xaligned(n * sizeof *x), mean = 0, var = 0, most = 0;
    bool ok = true;
    for (size_t i = 0; i < n; i++) mean += (double)((const float *)w->data)[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)((const float *)w->data)[i] - mean;
        var += x[i] * x[i] / (double)(n - 1);
    }
    for (size_t i = 0; i < n; i++) x[i] /= sqrt(var);
    masked(q->p[1], x, (size_t)w->dim[0], n / (size_t)w->dim[0]);
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
    for (size_t i = 0; i < n && ok; i++) {
        const double v = fmin(fabs(x[i] / alpha), 1) * top, level = rint(v),
                     have = fabs(rint(y[i] / alpha * top));
        const double off = fabs(v - (level + have) / 2) * alpha / top / most; /* from the threshold */
        ok = level == have || (fabs(level - have) == 1 && off <= rounding);
        if (!ok)
            err_set(e, ERR_CONFIG, "%sweight: value %zu is exactly %.9g, level %g of %g, not %g", q->name,
                    i, x[i], level, top, have);
        y[i] = copysign(alpha * (level / top), x[i]);
    }
    free(x);
    return ok;
}
