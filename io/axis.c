/* io/axis.c -- see axis.h. */
#include "io/axis.h"

#include <math.h>
#include <stdio.h>

/* 1, 2 or 5 times a power of ten, at least `x`. */
static double round_step(double x)
{
    double power = pow(10, floor(log10(x))), m = x / power;
    return (m <= 1.0001 ? 1 : m <= 2.0001 ? 2 : m <= 5.0001 ? 5 : 10) * power;
}

static void label_tick(char *s, size_t n, double v, double step)
{
    double size = fmax(fabs(v), step);
    if (fabs(v) < step * 1e-6) v = 0;
    if (size >= 1e6 || (step < 1e-4 && size < 1000 * step))
        snprintf(s, n, "%.4g", v);
    else
        snprintf(s, n, "%.*f", step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-6), v);
}

void axis_linear(Axis *a, int want, bool widen)
{
    double span, step;
    if (a->hi - a->lo <= 1e-12 * fmax(fabs(a->lo), fabs(a->hi))) { /* one value: room around it */
        double room = a->lo != 0 ? 0.5 * fabs(a->lo) : 0.5;
        a->lo -= room;
        a->hi += room;
    }
    span = a->hi - a->lo;
    step = round_step(span / want);
    /* Ends that stay where they are may leave one tick between them, which tells no scale. */
    if (!widen && floor(a->hi / step + 1e-9) - ceil(a->lo / step - 1e-9) < 2)
        step = round_step(span / (2 * want));
    if (a->whole && step < 1) step = 1;
    if (widen) {
        a->lo = floor(a->lo / step + 1e-9) * step;
        a->hi = ceil(a->hi / step - 1e-9) * step;
    }
    a->n = 0;
    for (double k = ceil(a->lo / step - 1e-9); k * step <= a->hi + 1e-9 * span && a->n < AXIS_TICKS;
         k++) {
        label_tick(a->label[a->n], sizeof a->label[0], k * step, step);
        a->tick[a->n++] = k * step;
    }
}

/* Moves the ends of a logarithmic axis to ticks. */
static void widen_log(Axis *a, const double *part, int parts)
{
    double lo = floor(a->lo + 1e-9), hi = ceil(a->hi - 1e-9);
    for (int i = 1; i < parts; i++) {
        double above = floor(a->lo) + part[i], below = ceil(a->hi) - 1 + part[i];
        if (above <= a->lo + 1e-9) lo = fmax(lo, above);
        if (below >= a->hi - 1e-9) hi = fmin(hi, below);
    }
    a->lo = lo;
    a->hi = hi;
}

void axis_logarithmic(Axis *a, int want)
{
    static const double part[] = {0, 0.30102999566398120, 0.69897000433601880};
    int decades, every, parts;
    if (a->hi - a->lo < 0.3) {
        a->lo -= 0.15;
        a->hi += 0.15;
    }
    decades = (int)(ceil(a->hi) - floor(a->lo));
    parts = 3 * decades <= 2 * want ? 3 : 1;
    every = parts == 3 ? 1 : (decades + want - 1) / want;
    widen_log(a, part, parts);
    a->n = 0;
    for (int k = (int)floor(a->lo); k <= (int)ceil(a->hi); k += every) {
        for (int i = 0; i < parts; i++) {
            double t = k + part[i];
            if (t < a->lo - 1e-9 || t > a->hi + 1e-9 || a->n == AXIS_TICKS) continue;
            snprintf(a->label[a->n], sizeof a->label[0], "%g", pow(10, t));
            a->tick[a->n++] = t;
        }
    }
}
