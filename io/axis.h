/* io/axis.h -- an axis of a plot: where it ends, and its ticks at round numbers. */
#ifndef IO_AXIS_H
#define IO_AXIS_H

#include <stdbool.h>

enum { AXIS_TICKS = 24 };

typedef struct Axis {
    double lo, hi; /* of the axis; logarithms of the values when log */
    bool log;
    bool whole;              /* all values are whole numbers (epochs, updates): so are the ticks */
    double tick[AXIS_TICKS]; /* positions, same unit as lo and hi */
    char label[AXIS_TICKS][24];
    int n;
} Axis;

/* Both choose ticks, at most about `want` of them, for lo and hi as they stand. */

/* At multiples of a round step; `widen` moves the ends to ticks. */
void axis_linear(Axis *a, int want, bool widen);
/* At powers of ten, with 2 and 5 between them if there is room; the ends move to ticks. */
void axis_logarithmic(Axis *a, int want);

#endif
