/* engine/plan.h -- where everything of a program lies in one arena.
 *
 * Time axis: node i runs forward at i and backward at 2n-1-i. A value lives from its producer to
 * its last reader (backward counts where the op says so); gradient contributions, saved areas and
 * scratch have intervals too. Blocks are placed by size, each at the lowest offset that is free for
 * its interval: on ResNets this reaches the lower bound. */
#ifndef ENGINE_PLAN_H
#define ENGINE_PLAN_H

#include "engine/graph.h"

typedef struct Plan {
    size_t arena_bytes; /* shared by all programs: they never run at the same time */
    size_t fixed_bytes; /* hoisted values: the program's own block */
    size_t lower_bound; /* largest sum of blocks alive at one time */
    size_t *value_off;  /* per value; SIZE_MAX for parameters and externals */
    int blocks;
} Plan;

/* Fills offsets in the graph and the plan. */
void plan_make(Plan *pl, Graph *g, bool share); /* share false: every block its own place (tests) */
void plan_free(Plan *pl);

/* The placement alone, for tests: interval [first, last], bytes -> off. Returns the total. */
typedef struct PlanBlock {
    size_t bytes, off;
    int first, last;
} PlanBlock;
size_t plan_place(PlanBlock *b, int n, size_t *lower_bound);
/* Index of a block that overlaps another one in time and space, or -1. */
int plan_overlap(const PlanBlock *b, int n);

#endif
