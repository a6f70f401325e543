/* test/golden_transform.c -- see golden_transform.h. Kinds: resize, resized_crop,
 * resize_short_center_crop. */
#include "test/golden_transform.h"

#include <stdlib.h>
#include <string.h>

#include "data/transform.h"
#include "engine/tensor.h"
#include "io/fs.h"

static int param(const Yaml *y, const char *name, int *v, Str *why)
{
    const Yaml *p = yaml_get(yaml_get(y, "params"), name);
    long long x;
    if (!p || !yaml_int(p, &x) || x < 0 || x > 100000) {
        str_printf(why, "params.%s is missing or no size", name);
        return -1;
    }
    *v = (int)x;
    return 0;
}

static int load(const Yaml *y, const char *where, const char *dir, Arena *a, Image *im, Str *why)
{
    const Yaml *f = yaml_path(y, where);
    Tensor t;
    Err e;
    char *path;
    int rc;
    if (!f || f->kind != Y_SCALAR) {
        str_printf(why, "no %s", where);
        return -1;
    }
    path = fs_join(dir, f->s);
    rc = npy_read(path, a, &t, &e);
    free(path);
    if (rc)
        str_puts(why, e.msg);
    else if (t.dtype != DT_U8 || t.ndim < 2 || t.ndim > 3)
        rc = -1, str_printf(why, "%s is no 8-bit image", f->s);
    if (rc) return -1;
    *im = (Image){t.data, 0, t.dim[0], t.dim[1], t.ndim == 3 ? t.dim[2] : 1};
    return 0;
}

/* The cut h x w at (x, y) of `im` as an image of its own. */
static void crop(const Image *im, int x, int y, int h, int w, Image *out)
{
    mem_grow(&out->px, &out->cap, (size_t)h * (size_t)w * (size_t)im->c, 1);
    out->h = h, out->w = w, out->c = im->c;
    for (int i = 0; i < h; i++)
        memcpy(out->px + (size_t)i * (size_t)w * (size_t)im->c,
               im->px + ((size_t)(y + i) * (size_t)im->w + (size_t)x) * (size_t)im->c,
               (size_t)w * (size_t)im->c);
}

static int run_resize(const Yaml *y, const Image *x, Image *out, Str *why)
{
    int h, w;
    if (param(y, "out_h", &h, why) || param(y, "out_w", &w, why)) return -1;
    image_resize(x, (const double[4]){0, 0, x->w, x->h}, out, h, w);
    return 0;
}

static int run_resized_crop(const Yaml *y, const Image *x, Image *out, Str *why)
{
    int top, left, h, w, size;
    if (param(y, "top", &top, why) || param(y, "left", &left, why) || param(y, "height", &h, why) ||
        param(y, "width", &w, why) || param(y, "size", &size, why))
        return -1;
    if (top + h > x->h || left + w > x->w)
        return str_puts(why, "the box is not inside the image"), -1;
    image_resize(x, (const double[4]){left, top, left + w, top + h}, out, size, size);
    return 0;
}

static int run_short_center(const Yaml *y, const Image *x, Image *out, Str *why)
{
    Image mid = {0};
    int side, size, oh, ow, rc = 0;
    if (param(y, "short", &side, why) || param(y, "crop", &size, why)) return -1;
    resize_short_size(x->h, x->w, side, &oh, &ow);
    if (oh < size || ow < size) return str_puts(why, "the crop is larger than the image"), -1;
    image_resize(x, (const double[4]){0, 0, x->w, x->h}, &mid, oh, ow);
    crop(&mid, center_crop_corner(ow, size), center_crop_corner(oh, size), size, size, out);
    free(mid.px);
    return rc;
}

static const struct {
    const char *name;
    int (*run)(const Yaml *y, const Image *x, Image *out, Str *why);
} kinds[] = {{"resize", run_resize},
             {"resized_crop", run_resized_crop},
             {"resize_short_center_crop", run_short_center}};

static int compare(const Image *got, const Image *want, Str *why)
{
    size_t n = (size_t)want->h * (size_t)want->w * (size_t)want->c, wrong = 0, first = 0;
    int worst = 0;
    if (got->h != want->h || got->w != want->w || got->c != want->c) {
        str_printf(why, "shape %dx%dx%d, expected %dx%dx%d", got->h, got->w, got->c, want->h,
                   want->w, want->c);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        int d = abs(got->px[i] - want->px[i]);
        if (d && !wrong++) first = i;
        if (d > worst) worst = d;
    }
    if (!wrong) return 1;
    str_printf(why, "y[%zu] is %d, expected %d; %zu of %zu differ, by up to %d", first,
               got->px[first], want->px[first], wrong, n, worst);
    return 0;
}

int golden_transform_case(const Yaml *y, const char *dir, Str *why)
{
    const Yaml *kind = yaml_path(y, "params.kind");
    Arena a = {0};
    Image x, want, got = {0};
    int rc = 0;
    size_t i = 0;
    while (i < ARRAY_LEN(kinds) && !(kind && str_eq(kind->s, kinds[i].name))) i++;
    if (i == ARRAY_LEN(kinds)) {
        str_printf(why, "transform kind '%s' is not known", kind && kind->s ? kind->s : "");
        return -1;
    }
    if (!load(y, "inputs.x", dir, &a, &x, why) && !load(y, "outputs.y", dir, &a, &want, why) &&
        !kinds[i].run(y, &x, &got, why))
        rc = compare(&got, &want, why);
    free(got.px);
    arena_free(&a);
    return rc;
}
