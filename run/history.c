/* run/history.c -- see history.h. */
#include "run/history.h"

#include <stdlib.h>
#include <string.h>

#include "run/metrics.h"

const HistoryLine *history_find(const History *h, const char *split, const char *key)
{
    for (size_t i = 0; i < h->n; i++)
        if (!strcmp(h->v[i].split, split) && !strcmp(h->v[i].key, key)) return &h->v[i];
    return NULL;
}

static HistoryLine *line_of(History *h, const char *split, const char *key)
{
    for (size_t i = 0; i < h->n; i++)
        if (!strcmp(h->v[i].key, key) && !strcmp(h->v[i].split, split)) return &h->v[i];
    mem_grow(&h->v, &h->cap, h->n + 1, sizeof *h->v);
    h->v[h->n] = (HistoryLine){.split = xstrdup(split), .key = xstrdup(key)};
    return &h->v[h->n++];
}

static void collect(void *arg, int64_t row, int64_t step, const char *split, const char *key,
                    double value)
{
    HistoryLine *l = line_of(arg, split, key);
    (void)row;
    mem_grow(&l->x, &l->xcap, l->n + 1, sizeof *l->x);
    mem_grow(&l->y, &l->ycap, l->n + 1, sizeof *l->y);
    l->x[l->n] = (double)step;
    l->y[l->n++] = value;
}

int history_read(History *h, const char *metrics, Err *e)
{
    *h = (History){0};
    return metrics_read(metrics, collect, h, e);
}

void history_free(History *h)
{
    for (size_t i = 0; i < h->n; i++) {
        free(h->v[i].split);
        free(h->v[i].key);
        free(h->v[i].x);
        free(h->v[i].y);
    }
    free(h->v);
    *h = (History){0};
}
