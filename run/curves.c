/* run/curves.c -- curves.svg from metrics.jsonl: loss, top-1, learning rate, and how the clip
 * levels moved. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/plot.h"
#include "run/record.h"

typedef struct Curve {
    char *split, *key;
    double *x, *y;
    size_t n, xcap, ycap;
} Curve;

typedef struct Curves {
    Curve *c;
    size_t n, cap;
} Curves;

static Curve *find(const Curves *cs, const char *split, const char *key)
{
    for (size_t i = 0; i < cs->n; i++)
        if (!strcmp(cs->c[i].split, split) && !strcmp(cs->c[i].key, key)) return &cs->c[i];
    return NULL;
}

static void collect(void *arg, int64_t line, int64_t step, const char *split, const char *key,
                    double value)
{
    Curves *cs = arg;
    Curve *c = find(cs, split, key);
    (void)line;
    if (!c) {
        mem_grow(&cs->c, &cs->cap, cs->n + 1, sizeof *cs->c);
        c = &cs->c[cs->n++];
        *c = (Curve){.split = xstrdup(split), .key = xstrdup(key)};
    }
    mem_grow(&c->x, &c->xcap, c->n + 1, sizeof *c->x);
    mem_grow(&c->y, &c->ycap, c->n + 1, sizeof *c->y);
    c->x[c->n] = (double)step;
    c->y[c->n++] = value;
}

static void release(Curves *cs)
{
    for (size_t i = 0; i < cs->n; i++) {
        free(cs->c[i].split);
        free(cs->c[i].key);
        free(cs->c[i].x);
        free(cs->c[i].y);
    }
    free(cs->c);
}

#define MAX_SERIES 64
#define MANY                                                                                       \
    12 /* from here on a legend would hide the curves: only the first and the last are named */

/* The splits of metrics.jsonl, and what the legend calls them. */
static const struct {
    const char *split, *shown;
} lines[] = {{"train", "training"}, {"epoch", "training, whole epoch"}, {"val", "evaluation"}};

/* A plot of one key; `nlines` of the lines above may appear in it. */
static void add(Plot *plots, int *n, PlotSeries *series, const Curves *cs, const char *title,
                const char *ylabel, const char *key, size_t nlines)
{
    int k = 0;
    for (size_t i = 0; i < nlines; i++) {
        const Curve *c = find(cs, lines[i].split, key);
        if (c)
            series[k++] = (PlotSeries){
                .name = lines[i].shown, .x = c->x, .y = c->y, .n = c->n, .points = c->n < 3};
    }
    if (k)
        plots[(*n)++] = (Plot){
            .title = title, .xlabel = "updates", .ylabel = ylabel, .series = series, .nseries = k};
}

/* Top-1 of every bit width of a net that has several. */
static void add_widths(Plot *plots, int *n, PlotSeries *series, const Curves *cs)
{
    int k = 0;
    for (size_t i = 0; i < cs->n && k < MAX_SERIES; i++) {
        const Curve *c = &cs->c[i];
        if (!str_starts(c->split, "val_") || !str_eq(c->key, "top1")) continue;
        series[k++] = (PlotSeries){
            .name = c->split + 4, .x = c->x, .y = c->y, .n = c->n, .points = c->n < 3};
    }
    if (k)
        plots[(*n)++] = (Plot){.title = "Accuracy by bit width",
                               .xlabel = "updates",
                               .ylabel = "top-1 (%)",
                               .series = series,
                               .nseries = k};
}

static void add_clips(Plot *plots, int *n, PlotSeries *series, const Curves *cs, const char *title,
                      const char *prefix)
{
    int k = 0;
    for (size_t i = 0; i < cs->n && k < MAX_SERIES; i++) {
        const Curve *c = &cs->c[i];
        if (strcmp(c->split, "params") != 0 || !str_starts(c->key, prefix)) continue;
        series[k++] = (PlotSeries){
            .name = c->key + strlen(prefix), .x = c->x, .y = c->y, .n = c->n, .points = c->n < 3};
    }
    for (int i = 1; k > MANY && i < k - 1; i++) series[i].name = "";
    if (k)
        plots[(*n)++] = (Plot){.title = title,
                               .xlabel = "updates",
                               .ylabel = "threshold",
                               .series = series,
                               .nseries = k};
}

int curves_write(const char *metrics, const char *svg, Err *e)
{
    Plot plots[6];
    PlotSeries series[3][ARRAY_LEN(lines)], clips[2][MAX_SERIES], widths[MAX_SERIES];
    Curves cs = {0};
    int n = 0, r = metrics_read(metrics, collect, &cs, e);
    add(plots, &n, series[0], &cs, "Loss", "loss", "loss", 3);
    add(plots, &n, series[1], &cs, "Accuracy", "top-1 (%)", "top1", 3);
    add_widths(plots, &n, widths, &cs);
    add(plots, &n, series[2], &cs, "Learning rate", "learning rate", "lr", 2);
    add_clips(plots, &n, clips[0], &cs, "Clipping thresholds of weights", "alpha_wgt/");
    add_clips(plots, &n, clips[1], &cs, "Clipping thresholds of activations", "alpha_act/");
    if (!r && n) r = plot_write(svg, plots, n, e);
    release(&cs);
    return r;
}
