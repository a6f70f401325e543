/* io/plot.c -- see plot.h. Layout from top to bottom: title, legend rows, plot area, tick labels, x
 * label; the y label stands upright at the left. Text widths are estimated (no font is at hand),
 * generously, so that nothing overlaps. */
#include "io/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/fs.h"

enum {
    WIDTH = 640,
    HEIGHT = 360,
    TITLE_SIZE = 15,
    TEXT_SIZE = 12,
    TICK_SIZE = 11,
    ROW = 18,    /* height of a legend row */
    SWATCH = 22, /* line in front of a legend entry */
    GAP = 16,    /* between legend entries, and at the edges */
    NCOLOURS = 8,
    MAX_TICKS = 24
};

static double text_width(const char *s, int size)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80; /* UTF-8 continuation bytes take no room */
    return 0.6 * size * (double)n;
}

/* Escapes for XML; cut with an ellipsis to `room` pixels (0: not cut). */
static void put_text(Str *out, const char *s, int size, double room)
{
    bool cut = room > 0 && text_width(s, size) > room;
    size_t keep = cut ? (size_t)fmax(1, room / (0.6 * size) - 1) : 0, n = 0;
    for (; *s; s++) {
        n += ((unsigned char)*s & 0xC0) != 0x80;
        if (cut && n > keep) break;
        switch (*s) {
        case '&':
            str_puts(out, "&amp;");
            break;
        case '<':
            str_puts(out, "&lt;");
            break;
        case '>':
            str_puts(out, "&gt;");
            break;
        case '"':
            str_puts(out, "&quot;");
            break;
        default:
            str_putn(out, (unsigned char)*s < ' ' ? " " : s, 1);
        }
    }
    if (cut) str_puts(out, "\xE2\x80\xA6");
}

/* ---- axes ---- */

typedef struct Axis {
    double lo, hi; /* of the axis; logarithms of the values when log */
    bool log;
    bool whole;             /* all values are whole numbers (epochs, updates): so are the ticks */
    double tick[MAX_TICKS]; /* positions, same unit as lo and hi */
    char label[MAX_TICKS][24];
    int n;
} Axis;

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

/* 1, 2 or 5 times a power of ten, at least `x`. */
static double round_step(double x)
{
    double power = pow(10, floor(log10(x))), m = x / power;
    return (m <= 1.0001 ? 1 : m <= 2.0001 ? 2 : m <= 5.0001 ? 5 : 10) * power;
}

static void label_tick(char *s, size_t n, double v, double step)
{
    double size = fmax(fabs(v), step);
    if (fabs(v) < step * 1e-6) v = 0;
    if (size >= 1e6 || step < 1e-4)
        snprintf(s, n, "%.4g", v);
    else
        snprintf(s, n, "%.*f", step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-6), v);
}

/* Ticks at multiples of a round step, at most `want` of them; `widen` moves the ends to ticks. */
static void linear_axis(Axis *a, int want, bool widen)
{
    double span, step;
    if (a->hi - a->lo <= 1e-12 * fmax(fabs(a->lo), fabs(a->hi))) { /* one value: room around it */
        double room = a->lo != 0 ? 0.5 * fabs(a->lo) : 0.5;
        a->lo -= room;
        a->hi += room;
    }
    span = a->hi - a->lo;
    step = round_step(span / want);
    /* Ends that stay where they are may leave one tick between them, which tells no scale. */
    if (!widen && floor(a->hi / step + 1e-9) - ceil(a->lo / step - 1e-9) < 2)
        step = round_step(span / (2 * want));
    if (a->whole && step < 1) step = 1;
    if (widen) {
        a->lo = floor(a->lo / step + 1e-9) * step;
        a->hi = ceil(a->hi / step - 1e-9) * step;
    }
    a->n = 0;
    for (double k = ceil(a->lo / step - 1e-9); k * step <= a->hi + 1e-9 * span && a->n < MAX_TICKS;
         k++) {
        label_tick(a->label[a->n], sizeof a->label[0], k * step, step);
        a->tick[a->n++] = k * step;
    }
}

/* Moves the ends of a logarithmic axis to ticks. */
static void widen_log(Axis *a, const double *part, int parts)
{
    double lo = floor(a->lo + 1e-9), hi = ceil(a->hi - 1e-9);
    for (int i = 1; i < parts; i++) {
        double above = floor(a->lo) + part[i], below = ceil(a->hi) - 1 + part[i];
        if (above <= a->lo + 1e-9) lo = fmax(lo, above);
        if (below >= a->hi - 1e-9) hi = fmin(hi, below);
    }
    a->lo = lo;
    a->hi = hi;
}

/* lo and hi are logarithms. Ticks at powers of ten, with 2 and 5 between them if there is room. */
static void log_axis(Axis *a, int want)
{
    static const double part[] = {0, 0.30102999566398120, 0.69897000433601880};
    int decades, every, parts;
    if (a->hi - a->lo < 0.3) {
        a->lo -= 0.15;
        a->hi += 0.15;
    }
    decades = (int)(ceil(a->hi) - floor(a->lo));
    parts = 3 * decades <= 2 * want ? 3 : 1;
    every = parts == 3 ? 1 : (decades + want - 1) / want;
    widen_log(a, part, parts);
    a->n = 0;
    for (int k = (int)floor(a->lo); k <= (int)ceil(a->hi); k += every) {
        for (int i = 0; i < parts; i++) {
            double t = k + part[i];
            if (t < a->lo - 1e-9 || t > a->hi + 1e-9 || a->n == MAX_TICKS) continue;
            snprintf(a->label[a->n], sizeof a->label[0], "%g", pow(10, t));
            a->tick[a->n++] = t;
        }
    }
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

static void flush_column(Str *out, Column *c, bool *pen)
{
    int order[4] = {0, c->top_first ? 1 : 2, c->top_first ? 2 : 1, 3};
    for (int i = 0; i < 4 && c->n; i++) {
        int k = order[i];
        if (i && c->x[k] == c->x[order[i - 1]] && c->y[k] == c->y[order[i - 1]]) continue;
        str_printf(out, "%s%.1f %.1f", *pen ? "L" : "M", c->x[k], c->y[k]);
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
static void draw_bars(Str *out, const Plot *p, const Area *a, int index)
{
    const PlotSeries *s = &p->series[index];
    const double half = half_width(s), base = py(a, 0);
    str_printf(out, "<path class=\"f c%d\" d=\"", index % NCOLOURS);
    for (size_t k = 0; k < s->n; k++) {
        double left, right;
        if (!usable(p, s->x[k], s->y[k]) || s->y[k] == 0) continue;
        left = px(a, s->x[k] - half);
        right = px(a, s->x[k] + half);
        str_printf(out, "M%.1f %.1fV%.1fH%.1fV%.1fz", left, base, py(a, s->y[k]),
                   right - (right - left > 4 ? 1 : 0), base);
    }
    str_puts(out, "\"/>\n");
}

static void draw_rules(Str *out, const Area *a, const PlotSeries *s, int index)
{
    str_printf(out, "<path class=\"r c%d\" d=\"", index % NCOLOURS);
    for (size_t k = 0; k < s->n; k++)
        if (isfinite(s->x[k]))
            str_printf(out, "M%.1f %.1fV%.1f", px(a, s->x[k]), a->top, a->bottom);
    str_puts(out, "\"/>\n");
}

static void draw_line(Str *out, const Plot *p, const Area *a, int index)
{
    const PlotSeries *s = &p->series[index];
    Column col = {0};
    bool pen = false;
    size_t run = 0;
    str_printf(out, "<path class=\"l c%d%s\" d=\"", index % NCOLOURS,
               index >= NCOLOURS ? " dash" : "");
    for (size_t k = 0; k <= s->n; k++) {
        bool ok = k < s->n && usable(p, s->x[k], s->y[k]);
        double x, y;
        if (!ok) {
            flush_column(out, &col, &pen);
            if (run == 1)
                str_puts(out, "h0"); /* a point alone: a dot, through the round line ends */
            pen = false;
            run = 0;
            continue;
        }
        x = px(a, s->x[k]);
        y = py(a, p->log_y ? log10(s->y[k]) : s->y[k]);
        if (col.n && (int)x != col.at) flush_column(out, &col, &pen);
        col.at = (int)x;
        add_to_column(&col, x, y);
        run++;
    }
    str_puts(out, "\"/>\n");
    for (size_t k = 0; s->points && k < s->n; k++) {
        if (!usable(p, s->x[k], s->y[k])) continue;
        str_printf(out, "<circle class=\"m c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>\n",
                   index % NCOLOURS, px(a, s->x[k]), py(a, p->log_y ? log10(s->y[k]) : s->y[k]));
    }
}

static void draw_series(Str *out, const Plot *p, const Area *a, int index)
{
    switch (p->series[index].mark) {
    case PLOT_LINE:
        draw_line(out, p, a, index);
        break;
    case PLOT_BARS:
        draw_bars(out, p, a, index);
        break;
    case PLOT_RULES:
        draw_rules(out, a, &p->series[index], index);
        break;
    }
}

/* Legend entries from left to right, in as many rows as they need. With out == NULL only counts.
 * Returns the rows. */
static int legend(Str *out, const Plot *p, double left, double right, double top)
{
    double x = left;
    int rows = 0;
    for (int i = 0; i < p->nseries; i++) {
        const char *name = p->series[i].name ? p->series[i].name : "";
        double room = right - left - SWATCH - 6, width = fmin(text_width(name, TEXT_SIZE), room);
        if (!*name) continue;
        if (!rows || x + SWATCH + 6 + width > right) {
            rows++;
            x = left;
        }
        if (out) {
            double y = top + (rows - 0.5) * ROW;
            str_printf(out, "<path class=\"l c%d%s\" d=\"M%.1f %.1fh%d\"/>", i % NCOLOURS,
                       i >= NCOLOURS ? " dash" : "", x, y, SWATCH);
            str_printf(out, "<text class=\"t\" x=\"%.1f\" y=\"%.1f\">", x + SWATCH + 6, y + 4);
            put_text(out, name, TEXT_SIZE, room);
            str_puts(out, "</text>\n");
        }
        x += SWATCH + 6 + width + GAP;
    }
    return rows;
}

static void draw_axes(Str *out, const Plot *p, const Area *a)
{
    double middle = (a->left + a->right) / 2, last = -1e9;
    for (int i = 0; i < a->y->n; i++) {
        double y = py(a, a->y->tick[i]);
        str_printf(out, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>", a->left, y, a->right);
        str_printf(out, "<text class=\"k\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                   a->left - 6, y + 4, a->y->label[i]);
    }
    for (int i = 0; i < a->x->n; i++) {
        double x = px(a, a->x->tick[i]), half = text_width(a->x->label[i], TICK_SIZE) / 2;
        str_printf(out, "<path class=\"a\" d=\"M%.1f %.1fv4\"/>", x, a->bottom);
        if (x - half < last + 4) continue; /* no room for its label */
        last = x + half;
        str_printf(out,
                   "<text class=\"k\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x,
                   a->bottom + 17, a->x->label[i]);
    }
    str_printf(out, "<path class=\"a\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", a->left, a->top, a->bottom,
               a->right);
    str_printf(out, "<text class=\"t\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">", middle,
               a->bottom + 35);
    put_text(out, p->xlabel ? p->xlabel : "", TEXT_SIZE, a->right - a->left);
    str_printf(out,
               "</text>\n<text class=\"t\" text-anchor=\"middle\" transform=\"translate(%d %.1f) "
               "rotate(-90)\">",
               GAP, (a->top + a->bottom) / 2);
    put_text(out, p->ylabel ? p->ylabel : "", TEXT_SIZE, a->bottom - a->top);
    str_puts(out, "</text>\n");
}

/* Colours of the series on light and on dark pages, in an order that colour-blind readers can tell
 * apart. */
static const char *const colours[2][NCOLOURS] = {
    {"#0067a5", "#d1490a", "#008a63", "#b3589a", "#b57900", "#3a9bd6", "#5b3fa0", "#6b6b6b"},
    {"#58b0ec", "#ff8a4f", "#35c79a", "#e69ad0", "#f2b640", "#9bd3f7", "#ae98ee", "#a9a9a9"},
};

static void put_colours(Str *out, const char *const *c)
{
    for (int i = 0; i < NCOLOURS; i++)
        str_printf(
            out, ".qplot .c%d{stroke:%s}.qplot .m.c%d{fill:%s}.qplot .f.c%d{fill:%s;stroke:none}\n",
            i, c[i], i, c[i], i, c[i]);
}

void plot_style(Str *out)
{
    str_puts(out,
             "<style>\n"
             ".qplot text{font-family:system-ui,'DejaVu Sans',Arial,sans-serif}\n"
             ".qplot .h{font-size:15px;font-weight:600;fill:#1a1a1a}\n"
             ".qplot .t{font-size:12px;fill:#333}.qplot .k{font-size:11px;fill:#555}\n"
             ".qplot .b{fill:#fff}.qplot .g{stroke:#e3e3e3;fill:none}\n"
             ".qplot .a{stroke:#777;fill:none}.qplot .dash{stroke-dasharray:5 4}\n"
             ".qplot .l{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}\n"
             ".qplot .r{fill:none;stroke-width:1}.qplot .f{fill-opacity:.75}\n");
    put_colours(out, colours[0]);
    str_puts(out, "@media (prefers-color-scheme:dark){\n"
                  ".qplot .h{fill:#f0f0f0}.qplot .t{fill:#d0d0d0}.qplot .k{fill:#b0b0b0}\n"
                  ".qplot .b{fill:#1b1c1f}.qplot .g{stroke:#35373c}.qplot .a{stroke:#8a8c92}\n");
    put_colours(out, colours[1]);
    str_puts(out, "}\n</style>\n");
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

void plot_svg(const Plot *p, Str *out)
{
    int w = plot_width(p), h = plot_height(p), rows;
    Axis x = {0}, y = {0};
    Area a = {.x = &x, .y = &y, .right = w - GAP - 4, .bottom = h - 46};
    bool data = find_ranges(p, &x, &y);
    double labels = 0;
    rows = legend(NULL, p, GAP, w - GAP, 0);
    a.top = 30 + rows * ROW + 6;
    if (a.bottom < a.top + 10) a.bottom = a.top + 10; /* a tiny plot */
    if (y.log)
        log_axis(&y, (int)fmax(2, (a.bottom - a.top) / 36));
    else
        linear_axis(&y, (int)fmax(2, (a.bottom - a.top) / 36), true);
    for (int i = 0; i < y.n; i++) labels = fmax(labels, text_width(y.label[i], TICK_SIZE));
    a.left = GAP + 10 + labels + 8;
    linear_axis(&x, (int)fmax(2, (a.right - a.left) / 70), false);

    str_printf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"qplot\" width=\"%d\" height=\"%d\" "
        "viewBox=\"0 0 %d %d\" role=\"img\">\n<title>",
        w, h, w, h);
    put_text(out, p->title ? p->title : "", TITLE_SIZE, 0);
    str_puts(out, "</title>\n");
    if (!p->bare) plot_style(out);
    str_printf(out, "<rect class=\"b\" width=\"%d\" height=\"%d\"/>\n", w, h);
    str_printf(out, "<text class=\"h\" x=\"%d\" y=\"21\">", GAP);
    put_text(out, p->title ? p->title : "", TITLE_SIZE, w - 2 * GAP);
    str_puts(out, "</text>\n");
    legend(out, p, GAP, w - GAP, 30);
    draw_axes(out, p, &a);
    for (int i = 0; i < p->nseries; i++) draw_series(out, p, &a, i);
    if (!data)
        str_printf(
            out, "<text class=\"t\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">no data</text>\n",
            (a.left + a.right) / 2, (a.top + a.bottom) / 2);
    str_puts(out, "</svg>\n");
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
