/* io/canvas.c -- see canvas.h: looks, and paths in the making. */
#include "io/canvas.h"

#include <stdlib.h>

// clang-format off
const CanvasLook canvas_look[CANVAS_NSTYLES] = {
    [CANVAS_PAPER] = {'b', 0,   1,    false, {"#ffffff", "#1b1c1f"}},
    [CANVAS_GRID]  = {'g', 1,   0,    false, {"#e3e3e3", "#35373c"}},
    [CANVAS_AXIS]  = {'a', 1,   0,    false, {"#777777", "#8a8c92"}},
    [CANVAS_LINE]  = {'l', 1.7, 0,    false, {NULL, NULL}},
    [CANVAS_RULE]  = {'r', 1,   0,    false, {NULL, NULL}},
    [CANVAS_BARS]  = {'f', 0,   0.75, false, {NULL, NULL}},
    [CANVAS_DOT]   = {'m', 1,   1,    false, {NULL, NULL}},
    [CANVAS_TITLE] = {'h', 15,  1,    true,  {"#1a1a1a", "#f0f0f0"}},
    [CANVAS_TEXT]  = {'t', 12,  1,    false, {"#333333", "#d0d0d0"}},
    [CANVAS_TICK]  = {'k', 11,  1,    false, {"#555555", "#b0b0b0"}},
};
// clang-format on

const char *const canvas_colours[2][CANVAS_COLOURS] = {
    {"#0067a5", "#d1490a", "#008a63", "#b3589a", "#b57900", "#3a9bd6", "#5b3fa0", "#6b6b6b"},
    {"#58b0ec", "#ff8a4f", "#35c79a", "#e69ad0", "#f2b640", "#9bd3f7", "#ae98ee", "#a9a9a9"},
};

void canvas_begin(Canvas *c, CanvasStyle style, int series, bool dashed)
{
    c->path.style = style;
    c->path.series = series;
    c->path.dashed = dashed;
    c->path.n = 0;
}

void canvas_to(Canvas *c, char op, double x, double y)
{
    mem_grow(&c->path.step, &c->path.cap, c->path.n + 1, sizeof *c->path.step);
    c->path.step[c->path.n++] = (CanvasStep){op, x, y};
}

void canvas_end(Canvas *c)
{
    c->fn->path(c->self, &c->path);
}

void canvas_free(Canvas *c)
{
    free(c->path.step);
    *c = (Canvas){0};
}
