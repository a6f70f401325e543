/* test/golden_trace.h -- statistics of what every convolution and linear layer of a net reads and
 * makes. */
#ifndef TEST_GOLDEN_TRACE_H
#define TEST_GOLDEN_TRACE_H

#include "test/golden.h"

#include "quant/qplan.h"

enum { SEEN_MEAN, SEEN_STD, SEEN_ABSMAX, SEEN_N };

typedef struct Seen {
    double stat[SEEN_N];
    size_t n;
} Seen;

/* Of one evaluation: two for each layer in the order of the units, input and output; seen: room for
 * twice the units. x: NHWC. False fails the case. Where a layer's input is made by a fused node there
 * is nothing to see: lower unfused. */
bool golden_watch(Case *c, QPlan *qp, int variant, int batch, const float *x, Seen *seen);

/* A convolution or linear unit of that name, with or without ".conv". */
bool layer_named(const Unit *u, const char *name);
/* How many layers stand before the one of that name; -1: there is none. */
int golden_watched(const Spec *spec, const char *name);

typedef struct SeenLimits {
    double mean, std; /* of the mean, in parts of the deviation (at least 1); of the deviation, relative */
} SeenLimits;

void golden_check_seen(Case *c, const char *layer, const char *side, const Seen *s,
                       const double want[SEEN_N], SeenLimits l);

#endif
