/* io/canvas_png.c -- see canvas.h: a plot as pixels. Each shape is first drawn into a mask of
 * coverage, then its colour is laid over the picture through the mask. What plots need is little:
 * lines with round ends, upright rectangles, discs, and words. The coverage of a line is read off
 * the distance to it; the letters are those of a font that the build puts into the program
 * (PLOT_FONT in the Makefile), so a picture looks the same on every machine. */
#include "io/canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Deflated by zlib: smaller, and quicker, than by stb itself. The caller frees. */
static unsigned char *deflated(unsigned char *data, int n, int *out_n, int level)
{
    uLongf size = compressBound((uLong)n);
    unsigned char *out = malloc(size);
    if (out && compress2(out, &size, data, (uLong)n, level) != Z_OK) {
        free(out);
        out = NULL;
    }
    *out_n = (int)size;
    return out;
}

#define STB_TRUETYPE_IMPLEMENTATION
#define STBTT_STATIC
#include <stb/stb_truetype.h>

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STBIW_ZLIB_COMPRESS deflated
#include <stb/stb_image_write.h>

/* The file PLOT_FONT, byte by byte. */
extern const unsigned char plot_font[];
__asm__(".section .rodata\n"
        ".balign 16\n"
        ".globl plot_font\n"
        "plot_font: .incbin \"" PLOT_FONT "\"\n"
        ".byte 0\n"
        ".previous\n");

/* ---- the mask ---- */

static void widen_box(CanvasPixels *p, int left, int top, int right, int bottom)
{
    p->box[0] = left < p->box[0] ? left : p->box[0];
    p->box[1] = top < p->box[1] ? top : p->box[1];
    p->box[2] = right > p->box[2] ? right : p->box[2];
    p->box[3] = bottom > p->box[3] ? bottom : p->box[3];
}

static int clamped(double v, int most)
{
    return v < 0 ? 0 : v > most ? most : (int)v;
}

/* Everything within `radius` of the way from (x0, y0) to (x1, y1). A pixel whose centre lies at the
 * edge is covered by half. */
static void cover_line(CanvasPixels *p, double x0, double y0, double x1, double y1, double radius)
{
    const double dx = x1 - x0, dy = y1 - y0, length2 = dx * dx + dy * dy, reach = radius + 0.5;
    const int top = clamped(fmin(y0, y1) - reach, p->height),
              bottom = clamped(fmax(y0, y1) + reach + 1, p->height);
    for (int y = top; y < bottom; y++) {
        /* the part of the line that is near enough to this row */
        const double cy = y + 0.5;
        double from = 0, to = 1;
        int left, right;
        if (dy != 0) {
            const double a = (cy - reach - y0) / dy, b = (cy + reach - y0) / dy;
            from = fmax(0, fmin(a, b));
            to = fmin(1, fmax(a, b));
            if (from > to) continue;
        }
        left = clamped(fmin(x0 + from * dx, x0 + to * dx) - reach, p->width);
        right = clamped(fmax(x0 + from * dx, x0 + to * dx) + reach + 1, p->width);
        for (int x = left; x < right; x++) {
            const double cx = x + 0.5;
            double t = length2 > 0 ? ((cx - x0) * dx + (cy - y0) * dy) / length2 : 0, cover;
            unsigned char *m = &p->mask[(size_t)y * (size_t)p->width + (size_t)x];
            t = fmin(1, fmax(0, t));
            cover = fmin(1, reach - hypot(cx - x0 - t * dx, cy - y0 - t * dy));
            if (cover * 255 > *m) *m = (unsigned char)(cover * 255 + 0.5);
        }
        widen_box(p, left, y, right, y + 1);
    }
}

/* How much of the pixel [at, at + 1] lies within [lo, hi]. */
static double overlap(int at, double lo, double hi)
{
    return fmax(0, fmin(at + 1, hi) - fmax(at, lo));
}

static void cover_rectangle(CanvasPixels *p, double x0, double y0, double x1, double y1)
{
    const double l = fmin(x0, x1), r = fmax(x0, x1), t = fmin(y0, y1), b = fmax(y0, y1);
    const int left = clamped(l, p->width), right = clamped(r + 1, p->width),
              top = clamped(t, p->height), bottom = clamped(b + 1, p->height);
    for (int y = top; y < bottom; y++) {
        unsigned char *row = &p->mask[(size_t)y * (size_t)p->width];
        for (int x = left; x < right; x++) {
            const double cover = row[x] + 255 * overlap(x, l, r) * overlap(y, t, b);
            row[x] =
                (unsigned char)fmin(255, cover + 0.5); /* neighbours share the pixels between */
        }
    }
    widen_box(p, left, top, right, bottom);
}

static void read_colour(const char *hex, int rgb[3])
{
    const long v = strtol(hex + 1, NULL, 16);
    rgb[0] = (int)(v >> 16);
    rgb[1] = (int)(v >> 8 & 255);
    rgb[2] = (int)(v & 255);
}

/* The colour through the mask; clears it. */
static void lay(CanvasPixels *p, CanvasStyle style, int series, double opacity)
{
    const char *own = canvas_look[style].colour[CANVAS_LIGHT];
    int rgb[3];
    read_colour(own ? own : canvas_colours[CANVAS_LIGHT][series % CANVAS_COLOURS], rgb);
    for (int y = p->box[1]; y < p->box[3]; y++) {
        const size_t at = (size_t)y * (size_t)p->width;
        for (int x = p->box[0]; x < p->box[2]; x++) {
            unsigned char *to = &p->rgb[3 * (at + (size_t)x)];
            const double a = p->mask[at + (size_t)x] * opacity / 255;
            for (int c = 0; c < 3; c++) to[c] = (unsigned char)(to[c] + a * (rgb[c] - to[c]) + 0.5);
            p->mask[at + (size_t)x] = 0;
        }
    }
    p->box[0] = p->width;
    p->box[1] = p->height;
    p->box[2] = p->box[3] = 0;
}

/* ---- paths ---- */

/* Dashes of 5 with gaps of 4, as the style sheet has them; `gone`: how far along the line it is. */
static void cover_dashes(CanvasPixels *p, const double a[2], const double b[2], double radius,
                         double *gone)
{
    const double on = 5 * p->scale, period = 9 * p->scale, length = hypot(b[0] - a[0], b[1] - a[1]);
    double at = 0;
    while (at < length) {
        const double phase = fmod(*gone + at, period),
                     step = fmin(length - at, (phase < on ? on : period) - phase + 1e-9);
        if (phase < on)
            cover_line(p, a[0] + (b[0] - a[0]) * at / length, a[1] + (b[1] - a[1]) * at / length,
                       a[0] + (b[0] - a[0]) * (at + step) / length,
                       a[1] + (b[1] - a[1]) * (at + step) / length, radius);
        at += step;
    }
    *gone += length;
}

static void png_path(void *self, const CanvasPath *path)
{
    CanvasPixels *p = self;
    const CanvasLook *look = &canvas_look[path->style];
    const double k = p->scale, radius = look->size * k / 2;
    double at[2] = {0, 0}, low[2] = {0, 0}, high[2] = {0, 0}, gone = 0; /* low, high: of a bar */
    for (size_t i = 0; i < path->n; i++) {
        const CanvasStep *s = &path->step[i];
        double to[2] = {at[0], at[1]};
        if (strchr("MLH", s->op)) to[0] = s->x * k;
        if (strchr("MLV", s->op)) to[1] = s->y * k;
        if (s->op == 'h') to[0] += s->x * k;
        if (s->op == 'v') to[1] += s->y * k;
        if (s->op == 'M') gone = 0;
        for (int d = 0; d < 2; d++) {
            low[d] = s->op == 'M' ? to[d] : fmin(low[d], to[d]);
            high[d] = s->op == 'M' ? to[d] : fmax(high[d], to[d]);
        }
        if (path->style == CANVAS_BARS) {
            if (s->op == 'z') cover_rectangle(p, low[0], low[1], high[0], high[1]);
        } else if (s->op != 'M') {
            if (path->dashed)
                cover_dashes(p, at, to, radius, &gone);
            else
                cover_line(p, at[0], at[1], to[0], to[1], radius);
        }
        at[0] = to[0];
        at[1] = to[1];
    }
    lay(p, path->style, path->series, look->opacity > 0 ? look->opacity : 1);
}

static void png_dot(void *self, int series, double x, double y, double radius)
{
    CanvasPixels *p = self;
    const double k = p->scale;
    cover_line(p, x * k, y * k, x * k, y * k, (radius + canvas_look[CANVAS_DOT].size / 2) * k);
    lay(p, CANVAS_DOT, series, 1);
}

/* ---- words ---- */

/* The next code point of UTF-8 text; damaged bytes count as themselves. */
static int next_letter(const char **text)
{
    const unsigned char *s = (const unsigned char *)*text;
    const int more = s[0] >= 0xF0 ? 3 : s[0] >= 0xE0 ? 2 : s[0] >= 0xC0 ? 1 : 0;
    int code = more ? s[0] & (0x3F >> more) : s[0], n = 1;
    for (; n <= more && (s[n] & 0xC0) == 0x80; n++) code = code << 6 | (s[n] & 0x3F);
    *text += n;
    return n > more ? code : s[0];
}

typedef struct Letters {
    stbtt_fontinfo font;
    float scale;
    bool strong;
} Letters;

/* One letter with its origin at (x, y) of the picture; within its bitmap, u runs along the line and
 * v down. */
static void cover_letter(CanvasPixels *p, const Letters *l, int code, bool upright, double x,
                         double y)
{
    const double along = upright ? -y : x;
    const float part = (float)(along - floor(along));
    const int at_u = (int)floor(along), at_v = (int)rint(upright ? x : y);
    int u0, v0, u1, v1, width;
    unsigned char *bits;
    stbtt_GetCodepointBitmapBoxSubpixel(&l->font, code, l->scale, l->scale, part, 0, &u0, &v0, &u1,
                                        &v1);
    width = u1 - u0;
    bits = xcalloc((size_t)(width + 1) * (size_t)(v1 - v0 + 1), 1);
    stbtt_MakeCodepointBitmapSubpixel(&l->font, bits, width, v1 - v0, width, l->scale, l->scale,
                                      part, 0, code);
    for (int v = 0; v < v1 - v0; v++) {
        for (int u = 0; u < width + l->strong; u++) {
            const unsigned char *row = bits + (size_t)v * (size_t)width;
            const int here = u < width ? row[u] : 0, before = l->strong && u ? row[u - 1] : 0,
                      ink = here > before ? here : before,
                      px = upright ? at_v + v0 + v : at_u + u0 + u,
                      py = upright ? -at_u - 1 - u0 - u : at_v + v0 + v;
            unsigned char *m;
            if (px < 0 || py < 0 || px >= p->width || py >= p->height) continue;
            m = &p->mask[(size_t)py * (size_t)p->width + (size_t)px];
            if (ink > *m) *m = (unsigned char)ink;
            widen_box(p, px, py, px + 1, py + 1);
        }
    }
    free(bits);
}

/* Draws the words beginning at (x, y), or with p == NULL only measures them. Returns their width.
 */
static double set_words(CanvasPixels *p, const Letters *l, const char *text, bool upright, double x,
                        double y)
{
    const double scale = (double)l->scale;
    double pen = 0;
    for (int last = 0; *text;) {
        const int code = next_letter(&text);
        int advance, bearing;
        if (last) pen += scale * stbtt_GetCodepointKernAdvance(&l->font, last, code);
        last = code;
        if (p) cover_letter(p, l, code, upright, upright ? x : x + pen, upright ? y - pen : y);
        stbtt_GetCodepointHMetrics(&l->font, code, &advance, &bearing);
        pen += scale * advance;
    }
    return pen;
}

static void png_words(void *self, const CanvasWords *w)
{
    static const double before[] = {[ANCHOR_START] = 0, [ANCHOR_MIDDLE] = 0.5, [ANCHOR_END] = 1};
    CanvasPixels *p = self;
    const CanvasLook *look = &canvas_look[w->style];
    Letters l = {.strong = look->strong};
    double x = w->x * p->scale, y = w->y * p->scale, back;
    const int ok = stbtt_InitFont(&l.font, plot_font, stbtt_GetFontOffsetForIndex(plot_font, 0));
    ASSERT(ok, "%s is no TrueType font", PLOT_FONT);
    l.scale = stbtt_ScaleForMappingEmToPixels(&l.font, (float)(look->size * p->scale));
    back = before[w->anchor] * set_words(NULL, &l, w->text, false, 0, 0);
    set_words(p, &l, w->text, w->upright, w->upright ? x : x - back, w->upright ? y + back : y);
    lay(p, w->style, 0, 1);
}

const CanvasFn canvas_png = {png_path, png_dot, png_words};

/* ---- the picture ---- */

void canvas_png_init(CanvasPixels *p, int width, int height, double scale)
{
    int paper[3];
    size_t n;
    *p = (CanvasPixels){
        .scale = scale, .width = (int)ceil(width * scale), .height = (int)ceil(height * scale)};
    n = (size_t)p->width * (size_t)p->height;
    p->rgb = xmalloc(3 * n);
    p->mask = xcalloc(n, 1);
    read_colour(canvas_look[CANVAS_PAPER].colour[CANVAS_LIGHT], paper);
    for (size_t i = 0; i < 3 * n; i++) p->rgb[i] = (unsigned char)paper[i % 3];
    p->box[0] = p->width;
    p->box[1] = p->height;
}

static void append(void *file, void *data, int n)
{
    str_putn(file, data, (size_t)n);
}

void canvas_png_encode(const CanvasPixels *p, Str *file)
{
    int ok;
    stbi_write_force_png_filter = 0;      /* flat ground and thin lines are smallest as they are */
    stbi_write_png_compression_level = 6; /* 8 takes almost twice as long for 4 % */
    ok = stbi_write_png_to_func(append, file, p->width, p->height, 3, p->rgb, 3 * p->width);
    ASSERT(ok, "no memory for a picture of %d x %d", p->width, p->height);
}

void canvas_png_free(CanvasPixels *p)
{
    free(p->rgb);
    free(p->mask);
    *p = (CanvasPixels){0};
}
