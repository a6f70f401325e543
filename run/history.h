/* run/history.h -- metrics.jsonl as curves: one line for each number of each split, over updates.
 */
#ifndef RUN_HISTORY_H
#define RUN_HISTORY_H

#include "engine/mem.h"

typedef struct HistoryLine {
    char *split, *key; /* "val", "top1"; "params", "alpha_act/layer1.0.conv1" */
    double *x, *y;     /* updates, values */
    size_t n, xcap, ycap;
} HistoryLine;

typedef struct History {
    HistoryLine *v; /* in order of first appearance */
    size_t n, cap;
} History;

/* Call history_free in either case. */
int history_read(History *h, const char *metrics, Err *e);
void history_free(History *h);
const HistoryLine *history_find(const History *h, const char *split, const char *key);

#endif
