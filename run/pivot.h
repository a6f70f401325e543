/* run/pivot.h -- runs as a table: a row for each value of one key, a column for each value of another,
 * the last top-1 in the cells, speed and time of a row behind them. */
#ifndef RUN_PIVOT_H
#define RUN_PIVOT_H

#include <jansson.h>

#include "run/html.h"
#include "run/runrecord.h"

enum { PIVOT_MAX = 64 }; /* runs; so rows and columns too */

typedef struct Pivot {
    const char *rows, *by;         /* the keys */
    const char *row[PIVOT_MAX];    /* values, in the order they were met; borrowed from the runs */
    const char *column[PIVOT_MAX];
    int nrows, ncolumns;
    const RunRecord *cell[PIVOT_MAX][PIVOT_MAX]; /* NULL: no such run */
} Pivot;

/* ERR_CONFIG when a run has no such key, when two runs meet in one cell. The runs must outlive the pivot. */
int pivot_make(Pivot *p, const RunRecord *run, int n, const char *rows, const char *by, Err *e);
void pivot_text(const Pivot *p, Str *out);     /* Markdown */
json_t *pivot_json(const Pivot *p);            /* an array of rows */
void pivot_page(const Pivot *p, Str *out);     /* HTML */
/* "Accuracy by KEY", a line for each row; nothing when fewer than two columns are numbers. */
void pivot_picture(const Pivot *p, Pictures *to);

#endif
