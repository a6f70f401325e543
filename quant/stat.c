/* quant/stat.c -- see stat.h. Two passes for the deviation: the sum of squares around the mean. */
#include "quant/stat.h"

#include <math.h>

#include "engine/par.h"

StatSpan stat_span(size_t n, size_t part)
{
    /* Multiples of 16 elements: parts begin on whole vectors. */
    const size_t step = ((n + STAT_PARTS - 1) / STAT_PARTS + 15) / 16 * 16;
    StatSpan s = {part * step, part * step + step};
    if (s.from > n) s.from = n;
    if (s.to > n) s.to = n;
    return s;
}

StatSpan stat_split(size_t n, size_t part)
{
    const size_t step = (n + STAT_PARTS - 1) / STAT_PARTS, from = part * step, to = from + step;
    return (StatSpan){from < n ? from : n, to < n ? to : n};
}

static double add_parts(const double *part)
{
    double sum = 0;
    for (int i = 0; i < STAT_PARTS; i++) sum += part[i];
    return sum;
}

void stat_mean_std(const float *x, size_t n, double *mean, double *std)
{
    double part[STAT_PARTS], m;
    PARALLEL_FOR(p, STAT_PARTS)
    {
        const StatSpan s = stat_span(n, (size_t)p);
        double sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = s.from; i < s.to; i++) sum += (double)x[i];
        part[p] = sum;
    }
    m = n ? add_parts(part) / (double)n : 0;
    PARALLEL_FOR(p, STAT_PARTS)
    {
        const StatSpan s = stat_span(n, (size_t)p);
        double sum = 0;
        PAR_PRAGMA_(omp simd reduction(+ : sum))
        for (size_t i = s.from; i < s.to; i++) sum += ((double)x[i] - m) * ((double)x[i] - m);
        part[p] = sum;
    }
    *mean = m;
    *std = n > 1 ? sqrt(add_parts(part) / (double)(n - 1)) : 0;
}

float stat_max(const float *x, size_t n)
{
    float m = x[0];
    PAR_PRAGMA_(omp simd reduction(max : m))
    for (size_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

float stat_absmax(const float *x, size_t n)
{
    float m = 0;
    PAR_PRAGMA_(omp simd reduction(max : m))
    for (size_t i = 0; i < n; i++) m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}
