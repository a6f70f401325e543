/* io/plot.h -- plots of lines, bars and marked places, as SVG and as PNG. */
#ifndef IO_PLOT_H
#define IO_PLOT_H

#include "engine/mem.h"

typedef enum PlotMark {
    PLOT_LINE,
    PLOT_BARS, /* from 0 to y, as wide as the first two x stand apart */
    PLOT_RULES /* upright lines at x over the whole height; y is not read and may be NULL */
} PlotMark;

typedef struct PlotSeries {
    const char *name;
    const double *x, *y; /* NaN breaks the line */
    size_t n;
    bool points; /* draw markers (few points) */
    PlotMark mark;
} PlotSeries;

typedef struct Plot {
    const char *title, *xlabel, *ylabel; /* labels with their unit: "epoch", "top-1 (%)" */
    const PlotSeries *series;
    int nseries;
    bool log_y;
    int width, height; /* 0: 640 x 360 */
    bool bare;         /* without its style sheet: the page has plot_style once */
} Plot;

/* A complete <svg> element, readable on light and dark pages (colours by CSS classes with a
 * prefers-color-scheme rule inside). Axis ticks at round numbers, legend outside the curves,
 * nothing overlaps. Values that are not finite, or not positive on a logarithmic axis, break the
 * line. Long series are thinned to what a pixel column can show. */
void plot_svg(const Plot *p, Str *out);
/* The <style> element that all plots share. */
void plot_style(Str *out);
/* Several plots below each other in one SVG file, written atomically. */
int plot_write(const char *path, const Plot *p, int n, Err *e);
/* One plot as a PNG file on light ground, `scale` pixels for one of the SVG's; written atomically.
 */
int plot_write_png(const char *path, const Plot *p, double scale, Err *e);

#endif
