/* io/canvas_svg.c -- see canvas.h: a plot as SVG. Colours are CSS classes, so that a page follows
 * the reader's scheme. */
#include "io/canvas.h"

#include <string.h>

void canvas_svg_escape(Str *out, const char *s)
{
    for (; *s; s++) {
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
}

/* class="l c3 dash" */
static void put_class(Str *out, CanvasStyle style, int series, bool dashed)
{
    str_printf(out, " class=\"%c", canvas_look[style].letter);
    if (series >= 0) str_printf(out, " c%d", series % CANVAS_COLOURS);
    str_puts(out, dashed ? " dash\"" : "\"");
}

static void svg_path(void *self, const CanvasPath *p)
{
    Str *out = self;
    str_puts(out, "<path");
    put_class(out, p->style, p->series, p->dashed);
    str_puts(out, " d=\"");
    for (size_t i = 0; i < p->n; i++) {
        const CanvasStep *s = &p->step[i];
        if (strchr("ML", s->op))
            str_printf(out, "%c%.1f %.1f", s->op, s->x, s->y);
        else if (s->op == 'z')
            str_puts(out, "z");
        else if (strchr("hv", s->op))
            str_printf(out, "%c%g", s->op, s->op == 'h' ? s->x : s->y);
        else
            str_printf(out, "%c%.1f", s->op, s->op == 'H' ? s->x : s->y);
    }
    str_puts(out, "\"/>\n");
}

static void svg_dot(void *self, int series, double x, double y, double radius)
{
    Str *out = self;
    str_puts(out, "<circle");
    put_class(out, CANVAS_DOT, series, false);
    str_printf(out, " cx=\"%.1f\" cy=\"%.1f\" r=\"%g\"/>\n", x, y, radius);
}

static void svg_words(void *self, const CanvasWords *w)
{
    static const char *const anchor[] = {"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
    Str *out = self;
    str_puts(out, "<text");
    put_class(out, w->style, -1, false);
    str_puts(out, anchor[w->anchor]);
    if (w->upright)
        str_printf(out, " transform=\"translate(%g %.1f) rotate(-90)\">", w->x, w->y);
    else
        str_printf(out, " x=\"%.1f\" y=\"%.1f\">", w->x, w->y);
    canvas_svg_escape(out, w->text);
    str_puts(out, "</text>\n");
}

const CanvasFn canvas_svg = {svg_path, svg_dot, svg_words};

/* ---- the style sheet ---- */

/* The colours of one scheme: of the styles, then of the series. */
static void put_colours(Str *out, int scheme)
{
    for (int i = 0; i < CANVAS_NSTYLES; i++) {
        const CanvasLook *l = &canvas_look[i];
        if (l->colour[scheme])
            str_printf(out, ".qplot .%c{%s:%s}", l->letter, l->opacity > 0 ? "fill" : "stroke",
                       l->colour[scheme]);
    }
    str_puts(out, "\n");
    for (int i = 0; i < CANVAS_COLOURS; i++) {
        const char *c = canvas_colours[scheme][i];
        str_printf(
            out, ".qplot .c%d{stroke:%s}.qplot .m.c%d{fill:%s}.qplot .f.c%d{fill:%s;stroke:none}\n",
            i, c, i, c, i, c);
    }
}

void canvas_svg_style(Str *out)
{
    str_puts(out,
             "<style>\n"
             ".qplot text{font-family:system-ui,'DejaVu Sans',Arial,sans-serif}\n"
             ".qplot .l{stroke-linejoin:round;stroke-linecap:round}.qplot .dash{stroke-dasharray:"
             "5 4}\n");
    for (int i = 0; i < CANVAS_NSTYLES; i++) {
        const CanvasLook *l = &canvas_look[i];
        if (i >= CANVAS_TITLE)
            str_printf(out, ".qplot .%c{font-size:%gpx%s}\n", l->letter, l->size,
                       l->strong ? ";font-weight:600" : "");
        else if (l->opacity > 0)
            str_printf(out, ".qplot .%c{fill-opacity:%g}\n", l->letter, l->opacity);
        else
            str_printf(out, ".qplot .%c{fill:none;stroke-width:%g}\n", l->letter, l->size);
    }
    put_colours(out, CANVAS_LIGHT);
    str_puts(out, "@media (prefers-color-scheme:dark){\n");
    put_colours(out, CANVAS_DARK);
    str_puts(out, "}\n</style>\n");
}
