/* run/report_layers.c -- the part of a report on layers: pictures and table. See report.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/qplan.h"
#include "run/report.h"

void report_layers_make(ReportLayers *r, Session *s)
{
    const QPlan *qp = model_qplan(s->model);
    *r = (ReportLayers){.n = s->nwidths};
    r->width = xcalloc((size_t)r->n, sizeof *r->width);
    r->name = xcalloc((size_t)r->n, sizeof *r->name);
    for (int k = 0; k < r->n; k++) {
        const int v = s->width[k];
        layerviews_make(&r->width[k], s->model, v);
        if (r->n > 1) width_text(qp->bits[v], qp->act_bits[v], r->name[k]);
        if (qp->bits[v] < qp->bits[s->width[r->shown]]) r->shown = k;
    }
}

void report_layers_free(ReportLayers *r)
{
    for (int k = 0; k < r->n; k++) layerviews_free(&r->width[k]);
    free(r->width);
    free(r->name);
    *r = (ReportLayers){0};
}

/* ---- pictures ---- */

/* A name that may be that of a file. */
static const char *picture_name(Pictures *p, const char *what, const char *layer)
{
    char *name = arena_printf(&p->arena, "%s_%s", what, layer);
    for (char *s = name; *s; s++)
        if (*s == '/') *s = '_';
    return name;
}

static void add_sqnr(Pictures *p, const ReportLayers *r)
{
    PlotSeries *series = arena_alloc(&p->arena, (size_t)r->n * sizeof *series);
    bool any = false;
    for (int k = 0; k < r->n; k++) {
        const LayerViews *l = &r->width[k];
        double *x = arena_alloc(&p->arena, (size_t)l->n * sizeof *x),
               *y = arena_alloc(&p->arena, (size_t)l->n * sizeof *y);
        for (int i = 0; i < l->n; i++) {
            x[i] = i + 1;
            y[i] = l->v[i].sqnr;
            any |= isfinite(y[i]);
        }
        series[k] = (PlotSeries){.name = r->name[k],
                                 .x = x,
                                 .y = y,
                                 .n = (size_t)l->n,
                                 .points = r->n > 1,
                                 .mark = r->n > 1 ? PLOT_LINE : PLOT_BARS};
    }
    if (!any) return;
    pictures_add(p, "sqnr",
                 &(Plot){.title = "Signal to quantization noise",
                         .xlabel = "layer (number in the table)",
                         .ylabel = "SQNR (dB)",
                         .series = series,
                         .nseries = r->n});
}

static void add_weights(Pictures *p, const LayerView *v)
{
    PlotSeries s[2] = {
        {.name = "weights", .x = v->bin, .y = v->share, .n = VIEW_BINS, .mark = PLOT_BARS}};
    int n = 1;
    Picture *made;
    if (v->nlevels > 0 && v->nlevels <= VIEW_DRAWN_LEVELS)
        s[n++] = (PlotSeries){.name = arena_printf(&p->arena, "%d levels", v->nlevels),
                              .x = v->level,
                              .n = (size_t)v->nlevels,
                              .mark = PLOT_RULES};
    made = pictures_add(p, picture_name(p, "weights", v->name),
                        &(Plot){.title = v->name,
                                .xlabel = v->scale,
                                .ylabel = "share of weights (%)",
                                .series = s,
                                .nseries = n});
    if (v->nlevels < 0)
        made->note = arena_printf(&p->arena, "More than %d levels: not drawn.", VIEW_MAX_LEVELS);
    else if (v->nlevels > VIEW_DRAWN_LEVELS)
        made->note = arena_printf(&p->arena, "%d levels: too many to be drawn.", v->nlevels);
}

/* Masks stand near 1, within less than magnitudes move: each has a picture and an axis of its own.
 */
static void add_frequencies(Pictures *p, const LayerView *v, const char *kind, const char *ylabel,
                            const PlotSeries *s, int n)
{
    if (v->nspectrum)
        pictures_add(p, picture_name(p, kind, v->name),
                     &(Plot){.title = v->name,
                             .xlabel = "frequency (cycles per weight)",
                             .ylabel = ylabel,
                             .series = s,
                             .nseries = n});
}

static PlotSeries over_frequency(const LayerView *v, const char *name, const double *y)
{
    return (PlotSeries){.name = name,
                        .x = v->frequency,
                        .y = y,
                        .n = (size_t)v->nspectrum,
                        .points = v->nspectrum < 3};
}

static void add_spectrum(Pictures *p, const LayerView *v)
{
    const PlotSeries s = over_frequency(v, "magnitude", v->magnitude);
    add_frequencies(p, v, "spectrum", "magnitude (share)", &s, 1);
}

static void add_mask(Pictures *p, const LayerView *v)
{
    const PlotSeries s[] = {over_frequency(v, "least", v->mask_low),
                            over_frequency(v, "largest", v->mask_high),
                            over_frequency(v, "mask, mean", v->mask)};
    add_frequencies(p, v, "spectrum_mask", "mask (factor)", s, (int)ARRAY_LEN(s));
}

void report_layers_pictures(Pictures *p, const ReportLayers *r)
{
    const LayerViews *l = &r->width[r->shown];
    add_sqnr(p, r);
    for (int i = 0; i < l->n; i++) add_weights(p, &l->v[i]);
    for (int i = 0; i < l->n; i++) add_spectrum(p, &l->v[i]);
    for (int i = 0; i < l->n; i++) add_mask(p, &l->v[i]);
}

/* ---- the table ---- */

static const char *sqnr_text(double v, char buf[24])
{
    snprintf(buf, 24, isnan(v) ? "-" : isinf(v) ? "exact" : "%.2f", v);
    return buf;
}

enum { BEFORE = 4, BEHIND = 3, MAX_COLUMNS = BEFORE + METER_MAX_WIDTHS + BEHIND };

static void put_row(Str *out, const HtmlColumn *c, const ReportLayers *r, int i)
{
    const LayerView *v = &r->width[r->shown].v[i];
    const int n = BEFORE + r->n;
    char number[16], weights[24], bits[16], levels[16], error[METER_MAX_WIDTHS][24];
    const char *cell[MAX_COLUMNS] = {number, v->name, bits, levels};
    snprintf(number, sizeof number, "%d", i + 1);
    snprintf(weights, sizeof weights, "%zu", v->weights);
    snprintf(bits, sizeof bits, "%d", v->bits);
    if (v->nlevels > 0)
        snprintf(levels, sizeof levels, "%d", v->nlevels);
    else
        snprintf(levels, sizeof levels, v->nlevels ? "> %d" : "-", VIEW_MAX_LEVELS);
    for (int k = 0; k < r->n; k++) cell[BEFORE + k] = sqnr_text(r->width[k].v[i].sqnr, error[k]);
    cell[n] = v->method ? v->method : "float";
    cell[n + 1] = v->shape;
    cell[n + 2] = weights;
    html_row(out, c, n + BEHIND, cell);
}

void report_layers_table(Str *out, const ReportLayers *r)
{
    HtmlColumn c[MAX_COLUMNS] = {{"no.", true}, {"layer", false}, {"bits", true}, {"levels", true}};
    char title[METER_MAX_WIDTHS][32];
    const int n = BEFORE + r->n;
    for (int k = 0; k < r->n; k++) {
        snprintf(title[k], sizeof title[k], "SQNR %s (dB)", r->name[k]);
        c[BEFORE + k] = (HtmlColumn){*r->name[k] ? title[k] : "SQNR (dB)", true};
    }
    c[n] = (HtmlColumn){"method", false};
    c[n + 1] = (HtmlColumn){"shape", false};
    c[n + 2] = (HtmlColumn){"weights", true};
    html_table_begin(out, c, n + BEHIND);
    for (int i = 0; i < r->width[r->shown].n; i++) put_row(out, c, r, i);
    html_table_end(out);
}
