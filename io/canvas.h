/* io/canvas.h -- what a plot is drawn on: SVG text (canvas_svg.c) or pixels (canvas_png.c).
 * Coordinates are pixels of the SVG, from the upper left corner. */
#ifndef IO_CANVAS_H
#define IO_CANVAS_H

#include "engine/mem.h"

typedef enum CanvasStyle {
    CANVAS_PAPER,
    CANVAS_GRID,
    CANVAS_AXIS,
    CANVAS_LINE, /* this and the next three in the colour of a series */
    CANVAS_RULE,
    CANVAS_BARS, /* filled: upright rectangles */
    CANVAS_DOT,
    CANVAS_TITLE, /* text, like the two behind */
    CANVAS_TEXT,
    CANVAS_TICK,
    CANVAS_NSTYLES
} CanvasStyle;

typedef enum CanvasAnchor { ANCHOR_START, ANCHOR_MIDDLE, ANCHOR_END } CanvasAnchor;

enum { CANVAS_COLOURS = 8, CANVAS_LIGHT = 0, CANVAS_DARK = 1 };

/* How a style looks; both kinds of canvas read this. */
typedef struct CanvasLook {
    char letter;           /* CSS class */
    double size;           /* of a line: its width; of text: of the font */
    double opacity;        /* of what is filled */
    bool strong;           /* heavy text */
    const char *colour[2]; /* light, dark; NULL: the series' */
} CanvasLook;

extern const CanvasLook canvas_look[CANVAS_NSTYLES];
/* Of series, on light and on dark ground, in an order that colour-blind readers can tell apart. */
extern const char *const canvas_colours[2][CANVAS_COLOURS];

/* One step of a path, as in SVG: M L (x, y), H (x), V (y), h (by x), v (by y), z. */
typedef struct CanvasStep {
    char op;
    double x, y;
} CanvasStep;

typedef struct CanvasPath {
    CanvasStyle style;
    int series; /* whose colour; -1: the style's own */
    bool dashed;
    CanvasStep *step;
    size_t n, cap;
} CanvasPath;

typedef struct CanvasWords {
    CanvasStyle style;
    double x, y; /* of the anchor, on the base line */
    CanvasAnchor anchor;
    bool upright; /* read from below */
    const char *text;
} CanvasWords;

typedef struct CanvasFn {
    void (*path)(void *self, const CanvasPath *p);
    void (*dot)(void *self, int series, double x, double y, double radius);
    void (*words)(void *self, const CanvasWords *w);
} CanvasFn;

/* What a plot holds in its hand; the path is the one being made. */
typedef struct Canvas {
    const CanvasFn *fn;
    void *self;
    CanvasPath path;
} Canvas;

void canvas_begin(Canvas *c, CanvasStyle style, int series, bool dashed);
void canvas_to(Canvas *c, char op, double x, double y);
void canvas_end(Canvas *c); /* draws it */
void canvas_free(Canvas *c);

/* ---- canvas_svg.c: self is a Str ---- */

extern const CanvasFn canvas_svg;
void canvas_svg_style(Str *out); /* the <style> element */
void canvas_svg_escape(Str *out, const char *text);

/* ---- canvas_png.c: self is a CanvasPixels ---- */

typedef struct CanvasPixels {
    int width, height; /* of the picture, in pixels of its own */
    double scale;      /* of those for one of the SVG's */
    unsigned char *rgb;
    unsigned char *mask; /* how much of each pixel the shape being drawn covers, 0..255 */
    int box[4];          /* what of the mask is not zero: left, top, right, bottom (excluded) */
} CanvasPixels;

extern const CanvasFn canvas_png;
void canvas_png_init(CanvasPixels *p, int width, int height, double scale); /* of the SVG; paper */
void canvas_png_encode(const CanvasPixels *p, Str *file);
void canvas_png_free(CanvasPixels *p);

#endif
