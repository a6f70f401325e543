/* run/pictures.c -- see pictures.h. */
#include "run/pictures.h"

#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

Picture *pictures_add(Pictures *p, const char *name, const Plot *plot)
{
    const size_t bytes = (size_t)plot->nseries * sizeof *plot->series;
    PlotSeries *series = arena_alloc(&p->arena, bytes);
    Picture *to;
    memcpy(series, plot->series, bytes);
    mem_grow(&p->v, &p->cap, (size_t)p->n + 1, sizeof *p->v);
    to = &p->v[p->n++];
    *to = (Picture){.name = arena_strdup(&p->arena, name), .plot = *plot};
    to->plot.series = series;
    return to;
}

void pictures_free(Pictures *p)
{
    free(p->v);
    arena_free(&p->arena);
    *p = (Pictures){0};
}

const PictureForm picture_forms[] = {
    {"svg", true, false}, {"png", false, true}, {"both", true, true}, {NULL, false, false}};

const PictureForm *picture_form_find(const char *name)
{
    for (const PictureForm *f = picture_forms; f->name; f++)
        if (str_eq(f->name, name)) return f;
    return NULL;
}

enum { PNG_SCALE = 2 /* pixels for one of the SVG's: sharp on dense screens and in print */ };

int picture_write(const char *path, const Plot *plot, Err *e)
{
    return str_ends(path, ".png") ? plot_write_png(path, plot, PNG_SCALE, e)
                                  : plot_write(path, plot, 1, e);
}

static int write_one(const Picture *p, const char *dir, const char *ending, Err *e)
{
    char *file = xasprintf("%s.%s", p->name, ending), *path = fs_join(dir, file);
    int r = picture_write(path, &p->plot, e);
    free(path);
    free(file);
    return r;
}

int pictures_write(const Pictures *p, const char *dir, const PictureForm *form, Err *e)
{
    int r = fs_mkdirs(dir, e);
    for (int i = 0; i < p->n && !r; i++) {
        if (form->svg) r = write_one(&p->v[i], dir, "svg", e);
        if (form->png && !r) r = write_one(&p->v[i], dir, "png", e);
    }
    return r;
}

/* ---- from metrics.jsonl ---- */

enum {
    MAX_SERIES = 64,
    MANY =
        12 /* from here on a legend would hide the curves: only the first and the last are named */
};

static const char x_label[] = "step (updates)";

/* One key of several splits. */
static const struct {
    const char *name, *title, *ylabel, *key;
    size_t nsplits; /* so many of the table below */
    bool one;       /* the first that is there: all say the same */
} curves[] = {
    {"loss", "Loss", "loss (nats)", "loss", 3, false},
    {"accuracy", "Accuracy", "top-1 (%)", "top1", 3, false},
    {"learning_rate", "Learning rate", "learning rate (factor)", "lr", 2, true},
    {"speed", "Speed of training", "speed (images/s)", "img_s", 2, false},
};

static const struct {
    const char *split, *shown;
} splits[] = {{"train", "training"}, {"epoch", "training, whole epoch"}, {"val", "evaluation"}};

/* The rows of split "params", by the beginning of their key. What is recorded per update is shown
 * per epoch: times the updates since the row before. */
static const struct {
    const char *name, *prefix, *title, *ylabel;
    bool per_epoch;
    const char *note;
} params[] = {
    {"clip_weights", "alpha_wgt/", "Clipping thresholds of weights", "level (weight units)", false,
     NULL},
    {"clip_activations", "alpha_act/", "Clipping thresholds of activations",
     "level (activation units)", false, NULL},
    {"fraclen_inputs", "fraclen_in/", "Fractional lengths of inputs", "length (bits)", false,
     "Of fixed-point numbers: bits behind the binary point, as the running average stands."},
    {"fraclen_weights", "fraclen_w/", "Fractional lengths of weights", "length (bits)", false,
     "Of the weights as they are rounded, the norm folded into them by its running statistics; "
     "where "
     "each output channel has its own length, the mean."},
    {"mask_mean", "mask_mean/", "Spectral masks, mean", "mask (factor)", false, NULL},
    {"flips", "flips/", "Weights that flipped", "flips (% per epoch)", true,
     "Changes of sign of a layer's weights in an epoch, each counted; beyond 100 % a weight flips "
     "more "
     "than once."},
};

static PlotSeries series_of(const HistoryLine *l, const char *name)
{
    return (PlotSeries){.name = name, .x = l->x, .y = l->y, .n = l->n, .points = l->n < 3};
}

static Picture *add(Pictures *p, const char *name, const char *title, const char *ylabel,
                    const PlotSeries *series, int n)
{
    return n ? pictures_add(p, name,
                            &(Plot){.title = title,
                                    .xlabel = x_label,
                                    .ylabel = ylabel,
                                    .series = series,
                                    .nseries = n})
             : NULL;
}

static void add_curve(Pictures *p, const History *h, size_t row)
{
    PlotSeries series[ARRAY_LEN(splits)];
    int n = 0;
    for (size_t i = 0; i < curves[row].nsplits && !(curves[row].one && n); i++) {
        const HistoryLine *l = history_find(h, splits[i].split, curves[row].key);
        if (l) series[n++] = series_of(l, splits[i].shown);
    }
    add(p, curves[row].name, curves[row].title, curves[row].ylabel, series, n);
}

/* Top-1 of every bit width of a net that has several. */
static void add_widths(Pictures *p, const History *h)
{
    PlotSeries series[MAX_SERIES];
    int n = 0;
    for (size_t i = 0; i < h->n && n < MAX_SERIES; i++)
        if (str_starts(h->v[i].split, "val_") && str_eq(h->v[i].key, "top1"))
            series[n++] = series_of(&h->v[i], h->v[i].split + 4);
    add(p, "accuracy_by_width", "Accuracy by bit width", "top-1 (%)", series, n);
}

static const double *per_epoch(Pictures *p, const HistoryLine *l)
{
    double *y = arena_alloc(&p->arena, l->n * sizeof *y);
    for (size_t k = 0; k < l->n; k++) y[k] = l->y[k] * (l->x[k] - (k ? l->x[k - 1] : 0));
    return y;
}

static void add_params(Pictures *p, const History *h, size_t row)
{
    const char *prefix = params[row].prefix;
    PlotSeries series[MAX_SERIES];
    Picture *made;
    int n = 0;
    for (size_t i = 0; i < h->n && n < MAX_SERIES; i++) {
        const HistoryLine *l = &h->v[i];
        if (strcmp(l->split, "params") != 0 || !str_starts(l->key, prefix)) continue;
        series[n] = series_of(l, l->key + strlen(prefix));
        if (params[row].per_epoch) series[n].y = per_epoch(p, l);
        n++;
    }
    for (int i = 1; n > MANY && i < n - 1; i++) series[i].name = "";
    made = add(p, params[row].name, params[row].title, params[row].ylabel, series, n);
    if (made) made->note = params[row].note;
}

void pictures_of_history(Pictures *p, const History *h)
{
    for (size_t i = 0; i < ARRAY_LEN(curves); i++) {
        add_curve(p, h, i);
        if (str_eq(curves[i].key, "top1")) add_widths(p, h);
    }
    for (size_t i = 0; i < ARRAY_LEN(params); i++) add_params(p, h, i);
}
