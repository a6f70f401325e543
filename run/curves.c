/* run/curves.c -- curves.svg from metrics.jsonl: what pictures.c draws of it, below each other. */
#include <stdlib.h>

#include "run/pictures.h"
#include "run/record.h"

int curves_write(const char *metrics, const char *svg, Err *e)
{
    History h;
    Pictures p = {0};
    Plot *plots;
    int r = history_read(&h, metrics, e);
    pictures_of_history(&p, &h);
    plots = xcalloc((size_t)p.n + 1, sizeof *plots);
    for (int i = 0; i < p.n; i++) plots[i] = p.v[i].plot;
    if (!r && p.n) r = plot_write(svg, plots, p.n, e);
    free(plots);
    pictures_free(&p);
    history_free(&h);
    return r;
}
