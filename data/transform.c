/* data/transform.c -- runs the steps of a recipe on one image.
 *
 * Crops, padding and flips move no pixels: they change a View, and the last pass copies from it
 * through a table of the 256 normalised values. Only resizing and colour jitter write an
 * intermediate image. Sizes, corners and random draws follow torchvision 0.8; a step that draws has
 * a stream of its own (seed, purpose, epoch, sample), so switching one on leaves the others alone.
 * Normalising is float32 arithmetic in torch's order: (x/255 - mean) / std. */
#include "data/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CROP_TRIES   10        /* of torchvision at a random area */
#define AREA_TRIES   100       /* of DALI */
#define SCALED_LIMIT (1 << 26) /* pixels of an image scaled by its shorter side */

/* A rectangle h x w at (x, y) of `im`, mirrored or not; it may reach over the border. */
typedef struct View {
    const Image *im;
    int x, y, h, w;
    bool flip, reflect;
} View;

typedef struct Run {
    const Transform *t;
    TransformScratch *sc;
    uint64_t epoch;
    uint32_t index;
    View v;
    float shift[3]; /* lighting, in units of the [0, 1] image */
    bool shifted;
} Run;

static void view_all(View *v, const Image *im)
{
    *v = (View){im, 0, 0, im->h, im->w, false, false};
}

/* The scratch image that the view does not read from. */
static Image *other(Run *r)
{
    return r->v.im == &r->sc->tmp[0] ? &r->sc->tmp[1] : &r->sc->tmp[0];
}

static void view_crop(View *v, int x, int y, int h, int w)
{
    v->x += v->flip ? v->w - x - w : x;
    v->y += y;
    v->h = h;
    v->w = w;
}

static int border(int i, int n, bool reflect)
{
    if (i >= 0 && i < n) return i;
    if (!reflect) return -1;
    i = i < 0 ? -i : 2 * n - 2 - i;
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* The view as an image of its own. */
static Image *materialise(Run *r)
{
    View v = r->v;
    Image *to = other(r);
    int c = v.im->c;
    mem_grow(&to->px, &to->cap, (size_t)v.h * (size_t)v.w * (size_t)c, 1);
    to->h = v.h, to->w = v.w, to->c = c;
    for (int y = 0; y < v.h; y++) {
        int sy = border(v.y + y, v.im->h, v.reflect);
        for (int x = 0; x < v.w; x++) {
            int sx = border(v.x + (v.flip ? v.w - 1 - x : x), v.im->w, v.reflect);
            unsigned char *d = to->px + ((size_t)y * (size_t)v.w + (size_t)x) * (size_t)c;
            if (sx < 0 || sy < 0)
                memset(d, 0, (size_t)c);
            else
                memcpy(d, v.im->px + ((size_t)sy * (size_t)v.im->w + (size_t)sx) * (size_t)c,
                       (size_t)c);
        }
    }
    view_all(&r->v, to);
    return to;
}

/* The view becomes `part` (x0, y0, x1, y1) of itself scaled to oh x ow. */
static void view_resize(Run *r, int oh, int ow, const int part[4])
{
    View *v = &r->v;
    Image *to;
    if (v->h == oh && v->w == ow) {
        view_crop(v, part[0], part[1], part[3] - part[1], part[2] - part[0]);
        return;
    }
    if (v->x < 0 || v->y < 0 || v->x + v->w > v->im->w || v->y + v->h > v->im->h || v->flip)
        materialise(r);
    to = other(r);
    resize_part(&r->sc->resize, v->im, (const int[4]){v->x, v->y, v->x + v->w, v->y + v->h}, oh, ow,
                part, to);
    view_all(v, to);
}

void resize_short_size(int h, int w, int side, int *oh, int *ow)
{
    if (w < h)
        *ow = side, *oh = (int)((int64_t)side * h / w);
    else
        *oh = side, *ow = (int)((int64_t)side * w / h);
}

int center_crop_corner(int n, int crop)
{
    return (int)rint((n - crop) / 2.0); /* Python's round: ties to even */
}

static Rng stream(const Run *r, RngPurpose p)
{
    return rng_stream(r->t->seed, p, r->epoch, r->index);
}

/* What of an image scaled to oh x ow is used after step `s`: where a centre crop follows that fits,
 * only its place. The crop then finds the image as large as it wants it. */
static void scaled_part(const Transform *t, const Step *s, int oh, int ow, int part[4])
{
    int h = t->shape.h, w = t->shape.w;
    bool crop = s[1].kind == STEP_CENTER_CROP && oh >= h && ow >= w;
    part[0] = crop ? center_crop_corner(ow, w) : 0;
    part[1] = crop ? center_crop_corner(oh, h) : 0;
    part[2] = crop ? part[0] + w : ow;
    part[3] = crop ? part[1] + h : oh;
}

static int short_size(const Run *r, const Step *s, int *oh, int *ow, Err *e)
{
    resize_short_size(r->v.h, r->v.w, (int)rint(r->t->shape.h * s->a), oh, ow);
    if ((int64_t)*oh * *ow > SCALED_LIMIT)
        return err_set(e, ERR_DATA, "%d x %d pixels, too narrow to be scaled to %d x %d", r->v.w,
                       r->v.h, *ow, *oh);
    *oh = *oh > 0 ? *oh : 1, *ow = *ow > 0 ? *ow : 1;
    return 0;
}

static int step_resize_short(Run *r, const Step *s, Err *e)
{
    int oh, ow, part[4];
    if (short_size(r, s, &oh, &ow, e)) return -1;
    scaled_part(r->t, s, oh, ow, part);
    view_resize(r, oh, ow, part);
    return 0;
}

static int step_center_crop(Run *r, const Step *s, Err *e)
{
    int h = r->t->shape.h, w = r->t->shape.w;
    (void)s, (void)e;
    view_crop(&r->v, center_crop_corner(r->v.w, w), center_crop_corner(r->v.h, h), h, w);
    return 0;
}

static int step_random_crop(Run *r, const Step *s, Err *e)
{
    int h = r->t->shape.h, w = r->t->shape.w, room_h = r->v.h + 2 * s->pad - h,
        room_w = r->v.w + 2 * s->pad - w, x, y;
    Rng g = stream(r, RNG_CROP);
    if (room_h < 0 || room_w < 0)
        return err_set(e, ERR_DATA, "%d x %d pixels, too small for a crop of %d x %d", r->v.w,
                       r->v.h, w, h);
    y = (int)rng_below(&g, (uint32_t)room_h + 1) - s->pad;
    x = (int)rng_below(&g, (uint32_t)room_w + 1) - s->pad;
    view_crop(&r->v, x, y, h, w);
    r->v.reflect = s->kind == STEP_REFLECT_CROP;
    return 0;
}

/* torchvision's RandomResizedCrop.get_params: area 0.08 to 1, aspect 3/4 to 4/3 (log-uniform),
 * `tries` attempts, then the largest centred box of an allowed aspect. */
static void random_area(Run *r, int tries)
{
    const double lo = 3.0 / 4, hi = 4.0 / 3;
    View *v = &r->v;
    double area = (double)v->h * v->w, aspect = (double)v->w / v->h;
    Rng g = stream(r, RNG_CROP);
    int h, w;
    while (tries-- > 0) {
        double target = area * rng_range(&g, 0.08, 1), ratio = exp(rng_range(&g, log(lo), log(hi)));
        w = (int)rint(sqrt(target * ratio));
        h = (int)rint(sqrt(target / ratio));
        if (w < 1 || h < 1 || w > v->w || h > v->h) continue;
        int y = (int)rng_below(&g, (uint32_t)(v->h - h) + 1),
            x = (int)rng_below(&g, (uint32_t)(v->w - w) + 1);
        view_crop(v, x, y, h, w);
        return;
    }
    w = v->w, h = v->h;
    if (aspect < lo)
        h = (int)rint(w / lo);
    else if (aspect > hi)
        w = (int)rint(h * hi);
    view_crop(v, (v->w - w) / 2, (v->h - h) / 2, h, w);
}

static int step_resized_crop(Run *r, const Step *s, Err *e)
{
    (void)s, (void)e;
    random_area(r, CROP_TRIES);
    view_resize(r, r->t->shape.h, r->t->shape.w,
                (const int[4]){0, 0, r->t->shape.w, r->t->shape.h});
    return 0;
}

static int step_area_crop(Run *r, const Step *s, Err *e)
{
    (void)s, (void)e;
    random_area(r, AREA_TRIES);
    return 0;
}

static int step_flip(Run *r, const Step *s, Err *e)
{
    Rng g = stream(r, RNG_FLIP);
    (void)s, (void)e;
    if (rng_uniform(&g) < 0.5) r->v.flip = !r->v.flip;
    return 0;
}

static int step_jitter(Run *r, const Step *s, Err *e)
{
    static void (*const change[])(Image *, float) = {image_brightness, image_contrast,
                                                     image_saturation};
    uint32_t order[] = {0, 1, 2};
    float f[3];
    Rng g = stream(r, RNG_JITTER);
    Image *im = materialise(r);
    (void)e;
    for (int i = 0; i < 3; i++) f[i] = (float)rng_range(&g, s->a < 1 ? 1 - s->a : 0, 1 + s->a);
    rng_shuffle(&g, order, 3);
    for (int i = 0; i < 3; i++) change[order[i]](im, f[order[i]]);
    return 0;
}

static int step_lighting(Run *r, const Step *s, Err *e)
{
    static const double value[3] = {0.2175, 0.0188, 0.0045};
    static const double vec[3][3] = {
        {-0.5675, 0.7192, 0.4009}, {-0.5808, -0.0045, -0.8140}, {-0.5836, -0.6948, 0.4203}};
    double alpha[3];
    Rng g = stream(r, RNG_LIGHTING);
    (void)e;
    for (int i = 0; i < 3; i++) alpha[i] = s->a * rng_normal(&g);
    for (int c = 0; c < 3; c++) {
        double d = 0;
        for (int i = 0; i < 3; i++) d += vec[c][i] * alpha[i] * value[i];
        r->shift[c] = (float)d;
    }
    r->shifted = true;
    return 0;
}

static int (*const step_run[])(Run *, const Step *, Err *) = {
    [STEP_RESIZE_SHORT] = step_resize_short,
    [STEP_CENTER_CROP] = step_center_crop,
    [STEP_RANDOM_CROP] = step_random_crop,
    [STEP_REFLECT_CROP] = step_random_crop,
    [STEP_RESIZED_CROP] = step_resized_crop,
    [STEP_AREA_CROP] = step_area_crop,
    [STEP_FLIP] = step_flip,
    [STEP_JITTER] = step_jitter,
    [STEP_LIGHTING] = step_lighting,
};

static float input_value(InputKind kind, float x, float mean, float std)
{
    float k;
    if (kind == INPUT_NORMALIZED) return (x - mean) / std;
    k = rintf(255.0f * x);
    k = k < 0 ? 0 : k > 255 ? 255 : k;
    return kind == INPUT_K256 ? k / 256.0f : k;
}

/* n pixels of c channels, forwards or mirrored; `c` is a constant in each caller, so that the loops
 * unroll. */
static inline void emit_row(float *out, const unsigned char *px, int n, int c, int step,
                            const float table[3][256])
{
    for (int i = 0; i < n; i++, out += c, px += step)
        for (int ch = 0; ch < c; ch++) out[ch] = table[ch][px[ch]];
}

static void emit(const View *v, const float table[3][256], float *out)
{
    int c = v->im->c;
    for (int y = 0; y < v->h; y++, out += (size_t)v->w * (size_t)c) {
        int sy = border(v->y + y, v->im->h, v->reflect), left = 0, right = 0, n;
        const unsigned char *row;
        /* columns of the output that lie left and right of the image */
        if (v->x < 0) left = -v->x < v->w ? -v->x : v->w;
        if (v->x + v->w > v->im->w)
            right = v->x + v->w - v->im->w < v->w ? v->x + v->w - v->im->w : v->w;
        n = v->w - left - right;
        if (sy < 0 || n < 0) left = v->w, right = n = 0;
        row = v->im->px + (size_t)(sy < 0 ? 0 : sy) * (size_t)v->im->w * (size_t)c;
        for (int side = 0; side < 2; side++) {
            for (int i = 0; i < (side ? right : left); i++) {
                int at = side ? left + n + i : i, to = v->flip ? v->w - 1 - at : at;
                int sx = sy < 0 ? -1 : border(v->x + at, v->im->w, v->reflect);
                for (int ch = 0; ch < c; ch++)
                    out[to * c + ch] = table[ch][sx < 0 ? 0 : row[sx * c + ch]];
            }
        }
        if (n > 0) {
            const unsigned char *from = row + (size_t)(v->x + left) * (size_t)c;
            float *to = out + (size_t)(v->flip ? right : left) * (size_t)c;
            if (v->flip) from += (size_t)(n - 1) * (size_t)c;
            if (c == 3)
                emit_row(to, from, n, 3, v->flip ? -3 : 3, table);
            else
                emit_row(to, from, n, c, v->flip ? -c : c, table);
        }
    }
}

/* Only the first step matters: the others look at no more than it leaves. */
void transform_source(const Transform *t, uint64_t epoch, uint32_t index, int h, int w, int box[4])
{
    const Step *s = t->steps;
    Run r = {.t = t, .epoch = epoch, .index = index, .v = {.h = h, .w = w}};
    int oh, ow, part[4];
    switch (s->kind) {
    case STEP_RESIZED_CROP:
    case STEP_AREA_CROP:
        random_area(&r, s->kind == STEP_AREA_CROP ? AREA_TRIES : CROP_TRIES);
        break;
    case STEP_RESIZE_SHORT:
        if (short_size(&r, s, &oh, &ow, NULL)) break;
        scaled_part(t, s, oh, ow, part);
        resize_source(w, ow, part[0], part[2], &box[0], &box[2]);
        resize_source(h, oh, part[1], part[3], &box[1], &box[3]);
        return;
    default:
        break;
    }
    box[0] = r.v.x, box[1] = r.v.y, box[2] = r.v.x + r.v.w, box[3] = r.v.y + r.v.h;
}

int transform_run(const Transform *t, TransformScratch *sc, uint64_t epoch, uint32_t index,
                  const Image *im, float *out, Err *e)
{
    Run r = {.t = t, .sc = sc, .epoch = epoch, .index = index};
    view_all(&r.v, im);
    if (im->c != t->shape.c)
        return err_set(e, ERR_DATA, "%d channels where the net takes %d", im->c, t->shape.c);
    for (const Step *s = t->steps; s->kind != STEP_END; s++)
        if (step_run[s->kind](&r, s, e)) return -1;
    if (r.v.h != t->shape.h || r.v.w != t->shape.w)
        return err_set(e, ERR_DATA,
                       "%d x %d pixels where %d x %d are wanted (data_transforms: %s, image_size)",
                       r.v.w, r.v.h, t->shape.w, t->shape.h, t->recipe->name);
    if (r.shifted) {
        float table[3][256];
        for (int c = 0; c < t->shape.c; c++)
            for (int v = 0; v < 256; v++)
                table[c][v] = input_value(t->input, (float)v / 255.0f + r.shift[c],
                                          t->shape.mean[c], t->shape.std[c]);
        emit(&r.v, (const float(*)[256])table, out);
    } else {
        emit(&r.v, t->table, out);
    }
    return 0;
}

int input_kind_find(const char *name, InputKind *k, Err *e)
{
    static const char *const names[] = {"normalized", "k256", "byte"};
    if (!name || !*name) name = names[0];
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(name, names[i])) return *k = (InputKind)i, 0;
    return err_set(e, ERR_CONFIG, "input: '%s' is none of normalized, k256, byte", name);
}

int transform_prepare(Transform *t, const TransformRecipe *r, const DataOpts *o, Split split,
                      const InputShape *s, Err *e)
{
    memset(t, 0, sizeof(*t));
    if (input_kind_find(o->input, &t->input, e)) return -1;
    t->recipe = r;
    t->steps = split == SPLIT_TRAIN ? r->train : r->val;
    t->shape = *s;
    t->seed = o->seed;
    ASSERT(s->c >= 1 && s->c <= 3, "%d channels", s->c);
    for (int c = 0; c < s->c; c++)
        for (int v = 0; v < 256; v++)
            t->table[c][v] = input_value(t->input, (float)v / 255.0f, s->mean[c], s->std[c]);
    return 0;
}

void transform_scratch_free(TransformScratch *sc)
{
    free(sc->in.px);
    for (int i = 0; i < 2; i++) free(sc->tmp[i].px);
    resize_scratch_free(&sc->resize);
    memset(sc, 0, sizeof(*sc));
}

int transform_apply(const TransformRecipe *r, const DataOpts *o, Split split, const InputShape *s,
                    uint64_t epoch, uint32_t index, const Image *im, float *out, Err *e)
{
    Transform t;
    TransformScratch sc = {0};
    int rc = transform_prepare(&t, r, o, split, s, e);
    if (!rc) rc = transform_run(&t, &sc, epoch, index, im, out, e);
    transform_scratch_free(&sc);
    return rc;
}
