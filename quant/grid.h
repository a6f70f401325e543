/* quant/grid.h -- level sets and the rounding of a scaled tensor to them, shared by methods.
 *
 * A grid holds the levels of [0, 1] and maps x to alpha * P(clamp(x / alpha)), P being the
 * projection to the nearest level. Two kinds: uniform (k / steps, half to even) and a table of
 * levels (APoT, PoT). */
#ifndef QUANT_GRID_H
#define QUANT_GRID_H

#include <stdbool.h>
#include <stddef.h>

#include "quant/form.h"

#define GRID_MAX_LEVELS 256
#define GRID_SMALL      16 /* up to here all levels are compared at once */
#define GRID_MAX_CELLS  1024

/* Ascending levels of [0, 1]. A value equal to mid[i], the float nearest to the middle of level[i]
 * and level[i + 1], goes up where up[i], else down; threshold[i] is the smallest float that goes
 * up, so `u >= threshold[i]` decides. */
typedef struct LevelSet {
    int n;
    float level[GRID_MAX_LEVELS], mid[GRID_MAX_LEVELS], threshold[GRID_MAX_LEVELS];
    bool up[GRID_MAX_LEVELS];
} LevelSet;

/* APoT levels for 2..6 bits (sums of powers of two) and plain powers of two for 1..8 bits. -1: no
 * such set. */
int levels_apot(LevelSet *s, int bits);
int levels_pot(LevelSet *s, int bits);
/* Index of the level that u is projected to; the reference for the kernels below. NaN: 0. */
int levels_nearest(const LevelSet *s, float u);

/* Beyond these a clip level is taken for diverged. */
#define GRID_MIN_ALPHA 0x1p-60f
#define GRID_MAX_ALPHA 0x1p+60f

/* Which x / alpha lie inside the clip; what lies outside goes to the nearest end. */
typedef enum GridRange {
    GRID_UNIT,  /* 0 .. 1 */
    GRID_BELOW, /* up to 1, no lower end: uniform levels go on below 0, a level set sends all that
                   to level 0 */
    GRID_BOTH   /* -1 .. 1: levels on both sides of 0 (weights) */
} GridRange;

typedef struct Grid {
    /* grid_init_...: fixed for an instance */
    LevelSet set;           /* n == 0: uniform */
    float steps, steps_inv; /* uniform */
    GridRange range;
    /* grid_scale: for one alpha, so that a row neither divides nor branches */
    float alpha, alpha_inv, sign;
    float lo, hi;             /* inside the clip: lo <= x <= hi */
    float t[GRID_MAX_LEVELS]; /* level i is reached where sign * x >= t[i]; t[0] is not looked at */
    float value[GRID_MAX_LEVELS];
    float cell_scale, cell_max;
    float cell[4 * GRID_MAX_CELLS]; /* each: its threshold, value below, value above, unused */
    void (*row)(const struct Grid *g, const float *x, float *y, size_t n);
} Grid;

/* steps: between 0 and 1. */
void grid_init_uniform(Grid *g, int steps, GridRange range);
void grid_init_levels(Grid *g, const LevelSet *s, GridRange range);

/* Prepares the rows for this alpha, which may be negative. False: it is 0, not finite or outside
 * GRID_MIN_ALPHA..GRID_MAX_ALPHA; rows then give zeros, and so do their gradients. */
bool grid_scale(Grid *g, float alpha);
/* The same with the level a quantizer has now. False: q->fault is set, to text in `fault` that says `who`
 * divides by it. A negative level is warned about once. */
bool grid_read_clip(QInst *q, Grid *g, const Param *clip, const char *who, bool *warned, char *fault,
                    size_t room);

/* y[i] = alpha * P(x[i] / alpha), exactly the product of two floats; a NaN stays one, and a
 * quotient beyond the float range becomes one. y may be x. */
void grid_row(const Grid *g, const float *x, float *y, size_t n);

/* The row as a list of operations, bit by bit (but for the sign of a zero, and NaN), after a
 * grid_scale that returned true. False: levels on both sides. */
bool grid_form(const Grid *g, QuantForm *f);
/* As the QFn.form of activations whose clip level has just been read: with what is in the way. */
int grid_act_form(const QInst *q, const Grid *g, QuantForm *f, Err *e);

/* Backward of a row: dx[i] = dy[i] where x is inside the clip, else 0 (without `masked`: dy[i]
 * everywhere). Returns alpha times the gradient to alpha: the sum of dy * (y - x) inside the clip
 * and of dy * y outside. dx may be dy, or NULL. */
double grid_row_bwd(const Grid *g, const float *x, const float *dy, float *dx, size_t n,
                    bool masked);

#endif
