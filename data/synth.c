/* data/synth.c -- `synthetic`: ten shapes drawn in colour, 32 x 32; `fake`: model-quantization's
 * all-zero images.
 *
 * The class of a synthetic image is its shape and nothing else: place, size, turn (35 degrees
 * either way), both colours (which side is the lighter too), a background gradient, contrast and
 * noise are drawn anew for each image, so single pixels say next to nothing (a linear classifier
 * stays far below 60 %) while a small convolutional net learns it in seconds. Image i of a split is
 * a pure function of (split, i, noise), the same for every seed of a run. Shapes are signed
 * distances in units of the shape's radius; coverage of a pixel follows from the distance (one
 * pixel of anti-aliasing). */
#include "data/synth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/samples.h"
#include "engine/par.h"

#define SIDE          32
#define SEED          20260101u
#define TRAIN_DEFAULT 10000
#define VAL_DEFAULT   2000
#define COUNT_MAX     1000000
#define NOISE_DEFAULT 0.05

/* (u, v): position in units of the radius, turned; negative inside. */
typedef double (*Shape)(double u, double v);

static double box(double u, double v, double a, double b)
{
    return fmax(fabs(u) - a, fabs(v) - b);
}

static double disc(double u, double v)
{
    return hypot(u, v) - 0.85;
}

static double square(double u, double v)
{
    return box(u, v, 0.75, 0.75);
}

static double triangle(double u, double v)
{
    double a = 0.8660254 * fabs(u) + 0.5 * v;
    return fmax(a, -v) - 0.5;
}

static double ring(double u, double v)
{
    return fabs(hypot(u, v) - 0.7) - 0.22;
}

static double cross(double u, double v)
{
    return fmin(box(u, v, 0.95, 0.26), box(u, v, 0.26, 0.95));
}

static double bar(double u, double v)
{
    return box(u, v, 1.0, 0.24);
}

/* Three parallel bars. */
static double stripes(double u, double v)
{
    return fmax(fabs(u) - 0.95, fabs(fabs(v) - 0.36 * (fabs(v) > 0.36 ? 2 : 0)) - 0.19);
}

/* Two squares meeting at a corner, of four. */
static double checker(double u, double v)
{
    return fmin(box(u - 0.45, v - 0.45, 0.45, 0.45), box(u + 0.45, v + 0.45, 0.45, 0.45));
}

/* A disc less one beside it. */
static double crescent(double u, double v)
{
    return fmax(hypot(u, v) - 0.95, 0.75 - hypot(u - 0.45, v));
}

static double dots(double u, double v)
{
    return hypot(fabs(u) - 0.62, v) - 0.36;
}

// clang-format off
static const struct {
    const char *name;
    Shape distance;
} shapes[] = {
    {"disc", disc}, {"square", square},   {"triangle", triangle}, {"ring", ring},         {"cross", cross},
    {"bar", bar},   {"stripes", stripes}, {"checker", checker},   {"crescent", crescent}, {"dots", dots},
};
#define CLASSES ((int)ARRAY_LEN(shapes))

const char *const synth_names[] = {"disc", "square",  "triangle", "ring",     "cross",
                                          "bar",  "stripes", "checker",  "crescent", "dots"};
// clang-format on
_Static_assert(ARRAY_LEN(synth_names) == ARRAY_LEN(shapes), "one name for each shape");

/* Two colours whose brightness differs enough to be told apart; either may be the lighter. */
static void draw_colours(Rng *g, double back[3], double front[3])
{
    double diff;
    do {
        diff = 0;
        for (int c = 0; c < 3; c++) {
            back[c] = rng_range(g, 0.1, 0.9);
            front[c] = rng_range(g, 0.1, 0.9);
            diff += fabs(front[c] - back[c]);
        }
    } while (diff < 1.0);
}

/* Deviation 1: four uniform bytes added up are near enough to a normal draw, and far cheaper. */
static double grain(Rng *g)
{
    uint32_t r = rng_u32(g);
    int sum = (int)((r & 255) + (r >> 8 & 255) + (r >> 16 & 255) + (r >> 24)) - 510;
    return sum / 147.8;
}

static void draw(unsigned char *px, Split split, uint32_t index, Shape shape, double noise)
{
    Rng g = rng_stream(SEED, RNG_SYNTH, (uint64_t)split, index);
    double radius = rng_range(&g, 9, 13), turn = rng_range(&g, -0.6, 0.6), co = cos(turn),
           si = sin(turn);
    double reach = 16 - 0.85 * radius, cx = 15.5 + rng_range(&g, -reach, reach),
           cy = 15.5 + rng_range(&g, -reach, reach);
    double back[3], front[3], gx[3], gy[3];
    draw_colours(&g, back, front);
    for (int c = 0; c < 3; c++) {
        gx[c] = rng_range(&g, -0.1, 0.1) / 16;
        gy[c] = rng_range(&g, -0.1, 0.1) / 16;
    }
    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++, px += 3) {
            double dx = (x - cx) / radius, dy = (y - cy) / radius;
            double cover = 0.5 - shape(co * dx + si * dy, co * dy - si * dx) * radius;
            cover = cover < 0 ? 0 : cover > 1 ? 1 : cover;
            for (int c = 0; c < 3; c++) {
                double ground = back[c] + gx[c] * (x - 15.5) + gy[c] * (y - 15.5);
                double v = ground + cover * (front[c] - ground);
                if (noise > 0) v += noise * grain(&g);
                px[c] = (unsigned char)(v <= 0 ? 0 : v >= 1 ? 255 : lrint(v * 255));
            }
        }
    }
}

int synth_open(Dataset *d, const DataOpts *o, Err *e)
{
    int want = d->split == SPLIT_TRAIN ? o->synth_train : o->synth_val;
    int limit = d->split == SPLIT_TRAIN ? o->limit_train : o->limit_val;
    double noise = o->synth_noise < 0 ? NOISE_DEFAULT : o->synth_noise;
    Samples *s;
    if (!want) want = d->split == SPLIT_TRAIN ? TRAIN_DEFAULT : VAL_DEFAULT;
    if (want < 0 || want > COUNT_MAX)
        return err_set(e, ERR_CONFIG, "%s: %d is outside 1..%d",
                       d->split == SPLIT_TRAIN ? "synth_train" : "synth_val", want, COUNT_MAX);
    if (!(noise <= 1)) return err_set(e, ERR_CONFIG, "synth_noise: %g is outside 0..1", noise);
    if (limit > 0 && limit < want) want = limit;
    d->priv = s = xcalloc(1, sizeof(*s));
    d->where = xstrdup("(drawn)");
    s->h = s->w = SIDE;
    s->c = 3;
    s->n = (uint32_t)want;
    s->px = xmalloc((size_t)want * SIDE * SIDE * 3);
    s->label = xmalloc((size_t)want * sizeof(*s->label));
    s->px_cap = (size_t)want * SIDE * SIDE * 3;
    s->label_cap = (size_t)want;
    PARALLEL_FOR(i, want)
    {
        s->label[i] = (int32_t)(i % CLASSES);
        draw(s->px + (size_t)i * SIDE * SIDE * 3, d->split, (uint32_t)i,
             shapes[i % CLASSES].distance, noise);
    }
    d->count = s->n;
    d->channels = 3;
    d->classes = CLASSES;
    d->class_names = d->def->class_names;
    return 0;
}

/* ---- fake ---- */

#define FAKE_SIDE  300
#define FAKE_COUNT 100000

int fake_open(Dataset *d, const DataOpts *o, Err *e)
{
    (void)o, (void)e;
    d->where = xstrdup("(zeros)");
    d->count = FAKE_COUNT;
    d->channels = 3;
    d->classes = 1000;
    return 0;
}

int fake_get(const Dataset *d, uint32_t i, Image *im, int *label, Err *e)
{
    size_t n = (size_t)FAKE_SIDE * FAKE_SIDE * 3;
    (void)d, (void)e;
    mem_grow(&im->px, &im->cap, n, 1);
    memset(im->px, 0, n);
    im->h = im->w = FAKE_SIDE;
    im->c = 3;
    *label = (int)(i % 1000);
    return 0;
}

void fake_close(Dataset *d)
{
    (void)d;
}
