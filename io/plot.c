/* io/plot.c -- see plot.h. Layout from top to bottom: title, legend rows, plot area, tick labels, x
 * label; the y label stands upright at the left. Text widths are estimated (no font is at hand),
 * generously, so that nothing overlaps. */
#include "io/plot.h"

#include <math.h>
#include <stdlib.h>

#include "io/axis.h"
#include "io/canvas.h"
#include "io/fs.h"

enum {
    WIDTH = 640,
    HEIGHT = 360,
    ROW = 18,    /* height of a legend row */
    SWATCH = 22, /* line in front of a legend entry */
    GAP = 16,    /* between legend entries, and at the edges */
    NCOLOURS = 8
};

static double text_width(const char *s, CanvasStyle style)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80; /* UTF-8 continuation bytes take no room */
    return 0.6 * canvas_look[style].size * (double)n;
}

/* Cut with an ellipsis to `room` pixels. */
static void put_words(Canvas *c, const CanvasWords *w, double room)
{
    static const char ellipsis[] = "\xE2\x80\xA6";
    const char *s = w->text ? w->text : "";
    CanvasWords shown = *w;
    Str cut = {0};
    shown.text = s;
    if (text_width(s, w->style) > room) {
        size_t keep = (size_t)fmax(1, room / (0.6 * canvas_look[w->style].size) - 1), n = 0, at;
        for (at = 0; s[at]; at++) {
            n += ((unsigned char)s[at] & 0xC0) != 0x80;
            if (n > keep) break;
        }
        str_putn(&cut, s, at);
        str_puts(&cut, ellipsis);
        shown.text = cut.s;
    }
    c->fn->words(c->self, &shown);
    str_free(&cut);
}

static bool usable(const Plot *p, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!p->log_y || y > 0);
}

/* Half of what a mark takes on both sides of its x. */
static double half_width(const PlotSeries *s)
{
    if (s->mark != PLOT_BARS) return 0;
    return s->n > 1 ? fabs(s->x[1] - s->x[0]) / 2 : 0.5;
}

/* The ranges of the usable points; false when there are none. */
static bool find_ranges(const Plot *p, Axis *x, Axis *y)
{
    x->lo = y->lo = INFINITY;
    x->hi = y->hi = -INFINITY;
    y->log = p->log_y;
    x->whole = true;
    for (int i = 0; i < p->nseries; i++) {
        const PlotSeries *s = &p->series[i];
        const double half = half_width(s);
        for (size_t k = 0; k < s->n; k++) {
            double v;
            if (s->mark != PLOT_RULES && !usable(p, s->x[k], s->y[k])) continue;
            if (!isfinite(s->x[k])) continue;
            x->whole &= s->x[k] == rint(s->x[k]);
            x->lo = fmin(x->lo, s->x[k] - half);
            x->hi = fmax(x->hi, s->x[k] + half);
            if (s->mark == PLOT_RULES) continue;
            v = p->log_y ? log10(s->y[k]) : s->y[k];
            y->lo = fmin(y->lo, s->mark == PLOT_BARS ? fmin(v, 0) : v);
            y->hi = fmax(y->hi, s->mark == PLOT_BARS ? fmax(v, 0) : v);
        }
    }
    if (x->lo <= x->hi && y->lo <= y->hi) return true;
    x->lo = y->lo = 0;
    x->hi = y->hi = 1;
    y->log = false;
    return false;
}

/* ---- drawing ---- */

typedef struct Area {
    double left, top, right, bottom;
    const Axis *x, *y;
} Area;

static double px(const Area *a, double v)
{
    return a->left + (v - a->x->lo) / (a->x->hi - a->x->lo) * (a->right - a->left);
}

/* v: the value, or its logarithm on a logarithmic axis. */
static double py(const Area *a, double v)
{
    return a->bottom - (v - a->y->lo) / (a->y->hi - a->y->lo) * (a->bottom - a->top);
}

/* What has been drawn in the current pixel column: the path goes through its first, lowest, highest
 * and last point. */
typedef struct Column {
    int at;
    size_t n;
    double x[4], y[4]; /* first, top, bottom, last */
    bool top_first;
} Column;

static void flush_column(Canvas *to, Column *c, bool *pen)
{
    int order[4] = {0, c->top_first ? 1 : 2, c->top_first ? 2 : 1, 3};
    for (int i = 0; i < 4 && c->n; i++) {
        int k = order[i];
        if (i && c->x[k] == c->x[order[i - 1]] && c->y[k] == c->y[order[i - 1]]) continue;
        canvas_to(to, *pen ? 'L' : 'M', c->x[k], c->y[k]);
        *pen = true;
    }
    c->n = 0;
}

static void add_to_column(Column *c, double x, double y)
{
    if (!c->n++) {
        for (int i = 0; i < 4; i++) {
            c->x[i] = x;
            c->y[i] = y;
        }
        c->top_first = true;
    }
    if (y < c->y[1]) {
        c->x[1] = x;
        c->y[1] = y;
        c->top_first = false; /* the lowest so far came before */
    }
    if (y > c->y[2]) {
        c->x[2] = x;
        c->y[2] = y;
        c->top_first = true;
    }
    c->x[3] = x;
    c->y[3] = y;
}

/* All bars of a series as one path. */
static void draw_bars(Canvas *to, const Plot *p, const Area *a, int index)
{
    const PlotSeries *s = &p->series[index];
    const double half = half_width(s), base = py(a, 0);
    canvas_begin(to, CANVAS_BARS, index, false);
    for (size_t k = 0; k < s->n; k++) {
        double left, right;
        if (!usable(p, s->x[k], s->y[k]) || s->y[k] == 0) continue;
        left = px(a, s->x[k] - half);
        right = px(a, s->x[k] + half);
        canvas_to(to, 'M', left, base);
        canvas_to(to, 'V', 0, py(a, s->y[k]));
        canvas_to(to, 'H', right - (right - left > 4 ? 1 : 0), 0);
        canvas_to(to, 'V', 0, base);
        canvas_to(to, 'z', 0, 0);
    }
    canvas_end(to);
}

static void draw_rules(Canvas *to, const Area *a, const PlotSeries *s, int index)
{
    canvas_begin(to, CANVAS_RULE, index, false);
    for (size_t k = 0; k < s->n; k++) {
        if (!isfinite(s->x[k])) continue;
        canvas_to(to, 'M', px(a, s->x[k]), a->top);
        canvas_to(to, 'V', 0, a->bottom);
    }
    canvas_end(to);
}

static bool dashed(int index)
{
    return index >= CANVAS_COLOURS;
}

static void draw_line(Canvas *to, const Plot *p, const Area *a, int index)
{
    const PlotSeries *s = &p->series[index];
    Column col = {0};
    bool pen = false;
    size_t run = 0;
    canvas_begin(to, CANVAS_LINE, index, dashed(index));
    for (size_t k = 0; k <= s->n; k++) {
        bool ok = k < s->n && usable(p, s->x[k], s->y[k]);
        double x, y;
        if (!ok) {
            flush_column(to, &col, &pen);
            if (run == 1)
                canvas_to(to, 'h', 0, 0); /* a point alone: a dot, the line's ends being round */
            pen = false;
            run = 0;
            continue;
        }
        x = px(a, s->x[k]);
        y = py(a, p->log_y ? log10(s->y[k]) : s->y[k]);
        if (col.n && (int)x != col.at) flush_column(to, &col, &pen);
        col.at = (int)x;
        add_to_column(&col, x, y);
        run++;
    }
    canvas_end(to);
    for (size_t k = 0; s->points && k < s->n; k++)
        if (usable(p, s->x[k], s->y[k]))
            to->fn->dot(to->self, index, px(a, s->x[k]), py(a, p->log_y ? log10(s->y[k]) : s->y[k]),
                        2.5);
}

static void draw_series(Canvas *to, const Plot *p, const Area *a, int index)
{
    switch (p->series[index].mark) {
    case PLOT_LINE:
        draw_line(to, p, a, index);
        break;
    case PLOT_BARS:
        draw_bars(to, p, a, index);
        break;
    case PLOT_RULES:
        draw_rules(to, a, &p->series[index], index);
        break;
    }
}

/* Legend entries from left to right, in as many rows as they need. With to == NULL only counts.
 * Returns the rows. */
static int legend(Canvas *to, const Plot *p, double left, double right, double top)
{
    double x = left;
    int rows = 0;
    for (int i = 0; i < p->nseries; i++) {
        const char *name = p->series[i].name ? p->series[i].name : "";
        double room = right - left - SWATCH - 6, width = fmin(text_width(name, CANVAS_TEXT), room);
        if (!*name) continue;
        if (!rows || x + SWATCH + 6 + width > right) {
            rows++;
            x = left;
        }
        if (to) {
            double y = top + (rows - 0.5) * ROW;
            canvas_begin(to, CANVAS_LINE, i, dashed(i));
            canvas_to(to, 'M', x, y);
            canvas_to(to, 'h', SWATCH, 0);
            canvas_end(to);
            put_words(
                to,
                &(CanvasWords){.style = CANVAS_TEXT, .x = x + SWATCH + 6, .y = y + 4, .text = name},
                room);
        }
        x += SWATCH + 6 + width + GAP;
    }
    return rows;
}

static void draw_ticks(Canvas *to, const Area *a)
{
    double last = -1e9;
    for (int i = 0; i < a->y->n; i++) {
        double y = py(a, a->y->tick[i]);
        canvas_begin(to, CANVAS_GRID, -1, false);
        canvas_to(to, 'M', a->left, y);
        canvas_to(to, 'H', a->right, 0);
        canvas_end(to);
        to->fn->words(to->self, &(CanvasWords){.style = CANVAS_TICK,
                                               .x = a->left - 6,
                                               .y = y + 4,
                                               .anchor = ANCHOR_END,
                                               .text = a->y->label[i]});
    }
    for (int i = 0; i < a->x->n; i++) {
        double x = px(a, a->x->tick[i]), half = text_width(a->x->label[i], CANVAS_TICK) / 2;
        canvas_begin(to, CANVAS_AXIS, -1, false);
        canvas_to(to, 'M', x, a->bottom);
        canvas_to(to, 'v', 0, 4);
        canvas_end(to);
        if (x - half < last + 4) continue; /* no room for its label */
        last = x + half;
        to->fn->words(to->self, &(CanvasWords){.style = CANVAS_TICK,
                                               .x = x,
                                               .y = a->bottom + 17,
                                               .anchor = ANCHOR_MIDDLE,
                                               .text = a->x->label[i]});
    }
}

static void draw_axes(Canvas *to, const Plot *p, const Area *a)
{
    draw_ticks(to, a);
    canvas_begin(to, CANVAS_AXIS, -1, false);
    canvas_to(to, 'M', a->left, a->top);
    canvas_to(to, 'V', 0, a->bottom);
    canvas_to(to, 'H', a->right, 0);
    canvas_end(to);
    put_words(to,
              &(CanvasWords){.style = CANVAS_TEXT,
                             .x = (a->left + a->right) / 2,
                             .y = a->bottom + 35,
                             .anchor = ANCHOR_MIDDLE,
                             .text = p->xlabel},
              a->right - a->left);
    put_words(to,
              &(CanvasWords){.style = CANVAS_TEXT,
                             .x = GAP,
                             .y = (a->top + a->bottom) / 2,
                             .anchor = ANCHOR_MIDDLE,
                             .upright = true,
                             .text = p->ylabel},
              a->bottom - a->top);
}

static int plot_width(const Plot *p)
{
    return p->width > 0 ? p->width : WIDTH;
}

/* The height asked for has room for two legend rows; more of them make the picture higher, not the
 * curves lower. */
static int plot_height(const Plot *p)
{
    int h = p->height > 0 ? p->height : HEIGHT;
    int rows = legend(NULL, p, GAP, plot_width(p) - GAP, 0);
    return rows > 2 ? h + (rows - 2) * ROW : h;
}

/* Everything but the paper. */
static void draw(Canvas *to, const Plot *p, int w, int h)
{
    Axis x = {0}, y = {0};
    Area a = {.x = &x, .y = &y, .right = w - GAP - 4, .bottom = h - 46};
    bool data = find_ranges(p, &x, &y);
    double labels = 0;
    int rows = legend(NULL, p, GAP, w - GAP, 0);
    a.top = 30 + rows * ROW + 6;
    if (a.bottom < a.top + 10) a.bottom = a.top + 10; /* a tiny plot */
    if (y.log)
        axis_logarithmic(&y, (int)fmax(2, (a.bottom - a.top) / 36));
    else
        axis_linear(&y, (int)fmax(2, (a.bottom - a.top) / 36), true);
    for (int i = 0; i < y.n; i++) labels = fmax(labels, text_width(y.label[i], CANVAS_TICK));
    a.left = GAP + 10 + labels + 8;
    axis_linear(&x, (int)fmax(2, (a.right - a.left) / 70), false);

    put_words(to, &(CanvasWords){.style = CANVAS_TITLE, .x = GAP, .y = 21, .text = p->title},
              w - 2 * GAP);
    legend(to, p, GAP, w - GAP, 30);
    draw_axes(to, p, &a);
    for (int i = 0; i < p->nseries; i++) draw_series(to, p, &a, i);
    if (!data)
        to->fn->words(to->self, &(CanvasWords){.style = CANVAS_TEXT,
                                               .x = (a.left + a.right) / 2,
                                               .y = (a.top + a.bottom) / 2,
                                               .anchor = ANCHOR_MIDDLE,
                                               .text = "no data"});
}

void plot_style(Str *out)
{
    canvas_svg_style(out);
}

void plot_svg(const Plot *p, Str *out)
{
    const int w = plot_width(p), h = plot_height(p);
    Canvas to = {.fn = &canvas_svg, .self = out};
    str_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"qplot\" width=\"%d\" height=\"%d\" "
        "viewBox=\"0 0 %d %d\" role=\"img\">\n<title>",
        w, h, w, h);
    canvas_svg_escape(out, p->title ? p->title : "");
    str_puts(out, "</title>\n");
    if (!p->bare) plot_style(out);
    str_printf(out, "<rect class=\"b\" width=\"%d\" height=\"%d\"/>\n", w, h);
    draw(&to, p, w, h);
    str_puts(out, "</svg>\n");
    canvas_free(&to);
}

int plot_write_png(const char *path, const Plot *p, double scale, Err *e)
{
    CanvasPixels pixels;
    Canvas to = {.fn = &canvas_png, .self = &pixels};
    Str file = {0};
    int rc;
    canvas_png_init(&pixels, plot_width(p), plot_height(p), scale);
    draw(&to, p, plot_width(p), plot_height(p));
    canvas_png_encode(&pixels, &file);
    rc = fs_write(path, file.s, file.len, e);
    canvas_free(&to);
    canvas_png_free(&pixels);
    str_free(&file);
    return rc;
}

int plot_write(const char *path, const Plot *p, int n, Err *e)
{
    Str out = {0};
    int w = 0, h = 0, rc;
    for (int i = 0; i < n; i++) {
        if (plot_width(&p[i]) > w) w = plot_width(&p[i]);
        h += plot_height(&p[i]);
    }
    str_printf(
        &out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
        "width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n",
        w, h, w, h);
    h = 0;
    for (int i = 0; i < n; i++) {
        str_printf(&out, "<g transform=\"translate(0 %d)\">\n", h);
        plot_svg(&p[i], &out);
        str_puts(&out, "</g>\n");
        h += plot_height(&p[i]);
    }
    str_puts(&out, "</svg>\n");
    rc = fs_write(path, out.s, out.len, e);
    str_free(&out);
    return rc;
}
