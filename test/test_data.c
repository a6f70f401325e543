/* test/test_data.c -- transforms, loader, drawn and real data sets. What needs real images reads
 * $QRUN_DATA_DIR and is skipped without it. Data set files, whole and damaged: test_data_files.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "data/decode.h"
#include "data/resize.h"
#include "data/transform.h"
#include "io/fs.h"
#include "io/targz.h"
#include "test/data_support.h"
#include "test/golden_transform.h"

/* ---- transforms ---- */

static void test_golden(void **state)
{
    static const char *const cases[] = {"crop_down",     "crop_up",          "resize_big_factor",
                                        "resize_down",   "resize_grey",      "resize_mixed",
                                        "resize_same",   "resize_one_pixel", "resize_up",
                                        "val_landscape", "val_odd",          "val_portrait"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Arena a = {0};
        Str why = {0};
        Err e;
        char *path = xasprintf("test/golden/transforms/%s.yml", cases[i]);
        Yaml *y = yaml_read(&a, path, &e);
        if (!y) fail_msg("%s", e.msg);
        if (golden_transform_case(y, "test/golden/transforms", &why) != 1)
            fail_msg("%s: %s", cases[i], why.s);
        free(path);
        str_free(&why);
        arena_free(&a);
    }
}

/* Any part of any size is that part of the whole, and the whole is what the definition says: sums
 * over a triangle of 22-bit coefficients, one axis after the other. */
static unsigned char *resize_axis(const unsigned char *p, int lines, int in, int out, size_t line,
                                  size_t step, size_t to_line, size_t to_step, int c)
{
    unsigned char *q = xcalloc((size_t)lines * (size_t)out, (size_t)c);
    double scale = (double)in / out, f = scale < 1 ? 1 : scale;
    for (int l = 0; l < lines; l++)
        for (int o = 0; o < out; o++)
            for (int ch = 0; ch < c; ch++) {
                double center = (o + 0.5) * scale, sum = 0;
                int lo = (int)fmax(center - f + 0.5, 0), hi = (int)fmin(center + f + 0.5, in);
                int64_t s = 1 << 21;
                for (int i = lo; i < hi; i++)
                    sum += fmax(1 - fabs((i - center + 0.5) * (1 / f)), 0);
                for (int i = lo; i < hi; i++) {
                    double w = fmax(1 - fabs((i - center + 0.5) * (1 / f)), 0);
                    s += (int)(w / sum * (1 << 22) + 0.5) *
                         (int64_t)p[(size_t)l * line + (size_t)i * step + (size_t)ch];
                }
                s >>= 22;
                q[(size_t)l * to_line + (size_t)o * to_step + (size_t)ch] =
                    (unsigned char)(s > 255 ? 255 : s);
            }
    return q;
}

static void test_resize(void **state)
{
    static const int size[][4] = {{40, 60, 24, 24}, {33, 17, 50, 70}, {100, 23, 23, 23},
                                  {5, 300, 5, 31},  {64, 64, 64, 20}, {7, 9, 1, 1},
                                  {90, 77, 18, 78}, {1, 1, 30, 40},   {16, 40, 8, 20}};
    Rng g = rng_stream(5, RNG_CROP, 0, 0);
    ResizeScratch sc = {0};
    Image out = {0}, cut = {0};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(size) * 2; k++) {
        const int *z = size[k / 2], h = z[0], w = z[1], oh = z[2], ow = z[3], c = k % 2 ? 1 : 3;
        size_t n = (size_t)h * (size_t)w * (size_t)c, sc_ = (size_t)c;
        unsigned char *px = xmalloc(n), *wide, *both;
        const Image im = {.px = px, .h = h, .w = w, .c = c};
        for (size_t i = 0; i < n; i++) px[i] = (unsigned char)rng_below(&g, 256);
        wide = resize_axis(px, h, w, ow, (size_t)w * sc_, sc_, (size_t)ow * sc_, sc_, c);
        if (ow == w) memcpy(wide, px, n);
        both = resize_axis(wide, ow, h, oh, sc_, (size_t)ow * sc_, sc_, (size_t)ow * sc_, c);
        if (oh == h) memcpy(both, wide, (size_t)h * (size_t)ow * sc_);
        image_resize(&im, (const double[4]){0, 0, w, h}, &out, oh, ow);
        for (size_t i = 0; i < (size_t)oh * (size_t)ow * sc_; i++)
            if (out.px[i] != both[i])
                fail_msg("%dx%d to %dx%d, %d channels, byte %zu: %d, by definition %d", w, h, ow,
                         oh, c, i, out.px[i], both[i]);
        for (int j = 0; j < 20; j++) {
            int x = (int)rng_below(&g, (uint32_t)ow), y = (int)rng_below(&g, (uint32_t)oh);
            int part[4] = {x, y, x + 1 + (int)rng_below(&g, (uint32_t)(ow - x)),
                           y + 1 + (int)rng_below(&g, (uint32_t)(oh - y))};
            resize_part(&sc, &im, (const int[4]){0, 0, w, h}, oh, ow, part, &cut);
            for (int v = 0; v < cut.h; v++)
                assert_memory_equal(cut.px + (size_t)v * (size_t)cut.w * sc_,
                                    out.px + ((size_t)(y + v) * (size_t)ow + (size_t)x) * sc_,
                                    (size_t)cut.w * sc_);
        }
        free(px), free(wide), free(both);
    }
    resize_scratch_free(&sc);
    free(out.px), free(cut.px);
}

static void test_recipes(void **state)
{
    (void)state;
    for (size_t i = 0; recipe_names[i]; i++) {
        const TransformRecipe *r = recipe_find(recipe_names[i]);
        if (!r) fail_msg("recipe '%s' is not in the table", recipe_names[i]);
        assert_string_equal(r->name, recipe_names[i]);
        assert_true(strlen(recipe_doc(r)) > 0);
    }
    for (size_t i = 0; datasets[i]; i++)
        if (!recipe_find(datasets[i]->recipe))
            fail_msg("data set '%s' has no recipe", datasets[i]->name);
    assert_null(recipe_find("cifar1"));
    assert_ptr_equal(dataset_find("CIFAR10"), dataset_find("cifar10"));
    assert_ptr_equal(dataset_find("imagefolder"), dataset_find("folder"));
    assert_null(dataset_find("cifar11"));
}

/* Each value is torch's: x / 255 in float, less the mean, by the deviation. */
static void test_normalise(void **state)
{
    unsigned char px[32 * 32 * 3];
    float out[32 * 32 * 3];
    Image im = {px, sizeof(px), 32, 32, 3};
    InputShape s;
    int classes;
    Err e;
    DataOpts o = opts("cifar10", "");
    (void)state;
    for (size_t i = 0; i < sizeof(px); i++) px[i] = (unsigned char)(i * 7);
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    assert_int_equal(s.c, 3), assert_int_equal(s.h, 32), assert_int_equal(s.w, 32),
        assert_int_equal(classes, 10);
    assert_int_equal(
        transform_apply(recipe_find("apot_cifar"), &o, SPLIT_VAL, &s, 0, 0, &im, out, &e), 0);
    for (size_t i = 0; i < sizeof(px); i++) {
        static const float mean[3] = {0.491f, 0.482f, 0.447f}, std[3] = {0.247f, 0.243f, 0.262f};
        float want = ((float)px[i] / 255.0f - mean[i % 3]) / std[i % 3];
        if (memcmp(&out[i], &want, sizeof(want)))
            fail_msg("[%zu] %.9g, expected %.9g", i, (double)out[i], (double)want);
    }
    o.input = "k256";
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    assert_int_equal(transform_apply(recipe_find("cifar"), &o, SPLIT_VAL, &s, 0, 0, &im, out, &e),
                     0);
    for (size_t i = 0; i < sizeof(px); i++) assert_true(out[i] == (float)px[i] / 256.0f);
    o.input = "byte";
    assert_int_equal(transform_apply(recipe_find("cifar"), &o, SPLIT_VAL, &s, 0, 0, &im, out, &e),
                     0);
    for (size_t i = 0; i < sizeof(px); i++) assert_true(out[i] == (float)px[i]);
    o.input = "bytes";
    expect_error(data_input_shape(&o, &s, &classes, &e), &e, ERR_CONFIG, "input", "bytes");
    o.input = "";
    o.data_transforms = "apot_cifer";
    expect_error(data_input_shape(&o, &s, &classes, &e), &e, ERR_CONFIG, "data_transforms",
                 "did you mean 'apot_cifar'");
    o.data_transforms = "";
    o.nmean = 2;
    expect_error(data_input_shape(&o, &s, &classes, &e), &e, ERR_CONFIG, "mean", "2 values");
    o.nmean = 0;
    o.image_size = 28;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    expect_error(transform_apply(recipe_find("cifar"), &o, SPLIT_VAL, &s, 0, 0, &im, out, &e), &e,
                 ERR_DATA, "32 x 32", "28 x 28");
}

/* Over many samples: every crop corner and both mirrorings come up, and each output is that crop
 * exactly. */
static void crops_of(const char *recipe, bool reflect)
{
    unsigned char px[32 * 32];
    float out[32 * 32 * 3];
    unsigned char rgb[32 * 32 * 3];
    Image im = {rgb, sizeof(rgb), 32, 32, 3};
    DataOpts o = opts("cifar10", "");
    InputShape s;
    int classes, seen[9][9][2] = {{{0}}}, kinds = 0, flips = 0;
    Err e;
    o.input = "byte";
    o.data_transforms = recipe;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    for (int i = 0; i < 1024; i++) {
        px[i] = (unsigned char)((i * 167 + 13) % 255 + 1);
        for (int c = 0; c < 3; c++) rgb[3 * i + c] = px[i];
    }
    for (uint32_t k = 0; k < 3000; k++) {
        int hits = 0;
        assert_int_equal(
            transform_apply(recipe_find(recipe), &o, SPLIT_TRAIN, &s, 3, k, &im, out, &e), 0);
        for (int v = 0; v < 162 && !hits; v++) {
            int dy = v / 18 - 4, dx = v / 2 % 9 - 4, flip = v & 1, ok = 1;
            for (int i = 0; i < 1024 && ok; i++) {
                int y = i / 32 + dy, x = (flip ? 31 - i % 32 : i % 32) + dx;
                bool in = y >= 0 && y < 32 && x >= 0 && x < 32;
                if (reflect) {
                    y = y < 0 ? -y : y > 31 ? 62 - y : y;
                    x = x < 0 ? -x : x > 31 ? 62 - x : x;
                    in = true;
                }
                ok = out[3 * i] == (in ? (float)px[32 * y + x] : 0.0f) &&
                     out[3 * i + 2] == out[3 * i];
            }
            if (!ok) continue;
            hits = 1;
            if (!seen[dy + 4][dx + 4][flip]++) kinds++;
            flips += flip;
        }
        if (!hits) fail_msg("%s: sample %u is no crop of the image", recipe, k);
    }
    if (kinds != 162) fail_msg("%s: %d of 162 different crops in 3000", recipe, kinds);
    if (flips < 1350 || flips > 1650) fail_msg("%s: %d of 3000 are mirrored", recipe, flips);
}

static void test_crops(void **state)
{
    (void)state;
    crops_of("apot_cifar", false);
    crops_of("keyword_cifar", true);
}

/* A strip a pixel wide would be 1 G pixels once its shorter side is 256: refused, not attempted. */
static void test_strip(void **state)
{
    DataOpts o = opts("fake", "");
    InputShape s;
    int classes;
    Err e;
    Image im = {0};
    float *out;
    (void)state;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    out = xmalloc((size_t)s.h * (size_t)s.w * 3 * sizeof(*out));
    im.px = xcalloc(16384, 3);
    im.c = 3;
    im.h = 1, im.w = 16384;
    expect_error(
        transform_apply(recipe_find("imagenet1k_basic"), &o, SPLIT_VAL, &s, 0, 0, &im, out, &e), &e,
        ERR_DATA, "16384 x 1", "narrow");
    im.h = 40, im.w = 400; /* ten to one is only an odd picture */
    assert_int_equal(
        transform_apply(recipe_find("imagenet1k_basic"), &o, SPLIT_VAL, &s, 0, 0, &im, out, &e), 0);
    free(im.px);
    free(out);
}

/* Switching jitter and lighting on must not move the crop; both change colours only a little, and
 * repeatably. */
static void test_streams(void **state)
{
    DataOpts o = opts("fake", "");
    InputShape s;
    int classes;
    Err e;
    Image im = {0};
    float *a, *b, *c;
    double corr = 0, va = 0, vb = 0, ma = 0, mb = 0;
    size_t n = 64 * 64 * 3;
    (void)state;
    im.h = 90, im.w = 120, im.c = 3;
    im.px = xmalloc(90 * 120 * 3);
    for (int i = 0; i < 90 * 120 * 3; i++)
        im.px[i] = (unsigned char)(128 + 90 * sin(i / 3 % 120 * 0.11) * cos(i / 360 * 0.2));
    o.image_size = 64;
    o.input = "byte";
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    a = xmalloc(n * sizeof(*a)), b = xmalloc(n * sizeof(*b)), c = xmalloc(n * sizeof(*c));
    for (uint32_t k = 0; k < 20; k++) {
        assert_int_equal(
            transform_apply(recipe_find("keyword_imagenet"), &o, SPLIT_TRAIN, &s, 1, k, &im, a, &e),
            0);
        assert_int_equal(transform_apply(recipe_find("keyword_imagenet_augment"), &o, SPLIT_TRAIN,
                                         &s, 1, k, &im, b, &e),
                         0);
        assert_int_equal(transform_apply(recipe_find("keyword_imagenet_augment"), &o, SPLIT_TRAIN,
                                         &s, 1, k, &im, c, &e),
                         0);
        assert_memory_equal(b, c, n * sizeof(*b));
        assert_memory_not_equal(a, b, n * sizeof(*a));
        corr = va = vb = ma = mb = 0;
        for (size_t i = 0; i < n; i += 3) ma += (double)a[i], mb += (double)b[i];
        ma /= (double)n / 3, mb /= (double)n / 3;
        for (size_t i = 0; i < n; i += 3) {
            corr += ((double)a[i] - ma) * ((double)b[i] - mb);
            va += ((double)a[i] - ma) * ((double)a[i] - ma);
            vb += ((double)b[i] - mb) * ((double)b[i] - mb);
        }
        if (corr / sqrt(va * vb) < 0.9)
            fail_msg("sample %u: correlation %.3f: another crop", k, corr / sqrt(va * vb));
    }
    assert_int_equal(
        transform_apply(recipe_find("keyword_dali"), &o, SPLIT_TRAIN, &s, 1, 1, &im, a, &e), 0);
    assert_int_equal(
        transform_apply(recipe_find("apot_imagenet"), &o, SPLIT_TRAIN, &s, 1, 1, &im, a, &e), 0);
    free(a), free(b), free(c), free(im.px);
}

/* ---- loader ---- */

typedef struct Trace {
    uint64_t hash;
    int64_t batches, samples;
} Trace;

static void run_epoch(Loader *l, const InputShape *s, Trace *t)
{
    const Batch *b;
    Err e = {0};
    int rc;
    while ((rc = loader_next(l, &b, &e)) == 1) {
        size_t len = (size_t)s->c * (size_t)s->h * (size_t)s->w;
        hash_bytes(&t->hash, b->x, len * (size_t)b->size * sizeof(float));
        hash_bytes(&t->hash, b->label, (size_t)b->size * sizeof(*b->label));
        hash_bytes(&t->hash, b->index, (size_t)b->n * sizeof(*b->index));
        assert_int_equal(b->number, t->batches % loader_batches(l));
        for (int i = b->n; i < b->size; i++) assert_int_equal(b->label[i], -1);
        for (size_t i = len * (size_t)b->n; i < len * (size_t)b->size; i++)
            assert_true(b->x[i] == 0);
        t->batches++;
        t->samples += b->n;
    }
    if (rc < 0) fail_msg("%s", e.msg);
}

static void test_determinism(void **state)
{
    static const int workers[] = {0, 1, 2, 5};
    DataOpts o = opts("synthetic", "");
    InputShape s;
    Dataset d;
    int classes;
    uint64_t first = 0, later = 0;
    Err e;
    (void)state;
    o.synth_train = 1000;
    o.synth_val = 100;
    o.data_transforms = "cifar";
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    open_ok(&d, &o, SPLIT_TRAIN);
    for (size_t i = 0; i < ARRAY_LEN(workers); i++) {
        Trace t = {14695981039346656037u, 0, 0}, u = t, v = t;
        Loader *l;
        o.data_loader_workers = workers[i];
        l = loader_open(&d, &o, &s, SPLIT_TRAIN, 48, &e);
        assert_non_null(l);
        assert_int_equal(loader_batches(l), 21);
        run_epoch(l, &s, &t);
        assert_int_equal(t.samples, 1000);
        assert_int_equal(loader_seek(l, 5, 0, &e), 0);
        run_epoch(l, &s, &u);
        /* resume: the rest of epoch 5 from batch 13 on, from wherever the loader was */
        assert_int_equal(loader_seek(l, 5, 13, &e), 0);
        v.batches = 13;
        run_epoch(l, &s, &v);
        assert_int_equal(v.samples, 1000 - 13 * 48);
        if (!i) first = t.hash, later = v.hash;
        assert_true(t.hash != u.hash);
        if (t.hash != first || v.hash != later)
            fail_msg("%d workers give other batches than %d", workers[i], workers[0]);
        expect_error(loader_seek(l, 5, 22, &e), &e, ERR_DATA, "batch 22", "21");
        loader_close(l);
    }
    o.drop_last = true;
    Loader *l = loader_open(&d, &o, &s, SPLIT_TRAIN, 48, &e);
    assert_int_equal(loader_batches(l), 20);
    loader_close(l);
    l = loader_open(&d, &o, &s, SPLIT_TRAIN, 1001, &e);
    assert_null(l);
    assert_non_null(strstr(e.msg, "drop_last"));
    dataset_close(&d);
}

/* Closing or seeking at any moment, with batches half made, must neither hang nor leak. */
static void test_interrupt(void **state)
{
    DataOpts o = opts("synthetic", "");
    InputShape s;
    Dataset d;
    int classes;
    Err e;
    (void)state;
    o.synth_train = 600;
    o.data_loader_workers = 3;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    open_ok(&d, &o, SPLIT_TRAIN);
    for (int i = 0; i < 30; i++) {
        Loader *l = loader_open(&d, &o, &s, SPLIT_TRAIN, 32, &e);
        const Batch *b;
        for (int k = 0; k < i % 5; k++) assert_int_equal(loader_next(l, &b, &e), 1);
        assert_int_equal(loader_seek(l, (uint64_t)i, i % 19, &e), 0);
        assert_int_equal(loader_next(l, &b, &e), 1);
        assert_int_equal(b->number, i % 19);
        loader_close(l);
    }
    dataset_close(&d);
}

/* ---- synthetic set ---- */

/* Softmax regression on pixels; the best test accuracy it reaches over the epochs. */
static double linear_accuracy(const Dataset *train, const Dataset *val, const DataOpts *o,
                              const InputShape *s, double *fit)
{
    enum { IN = 3072, OUT = 10 };
    float *w = xcalloc((IN + 1) * OUT, sizeof(*w)), lr = 0.002f;
    double best = 0;
    Err e;
    for (uint64_t epoch = 0; epoch < 12; epoch++, lr *= 0.75f) {
        for (int phase = 0; phase < 2; phase++) {
            Loader *l =
                loader_open(phase ? val : train, o, s, phase ? SPLIT_VAL : SPLIT_TRAIN, 20, &e);
            const Batch *b;
            int64_t right = 0, n = 0;
            assert_int_equal(loader_seek(l, phase ? 0 : epoch, 0, &e), 0);
            while (loader_next(l, &b, &e) == 1) {
                for (int i = 0; i < b->n; i++) {
                    const float *x = b->x + (size_t)i * IN;
                    float z[OUT], sum = 0, top = -1e30f;
                    int arg = 0;
                    for (int k = 0; k < OUT; k++) {
                        const float *wk = w + (size_t)k * (IN + 1);
                        float acc[16] = {0};
                        z[k] = wk[IN];
                        for (int j = 0; j < IN; j += 16)
                            for (int q = 0; q < 16; q++) acc[q] += wk[j + q] * x[j + q];
                        for (int q = 0; q < 16; q++) z[k] += acc[q];
                        if (z[k] > top) top = z[k], arg = k;
                    }
                    right += arg == b->label[i];
                    n++;
                    if (phase) continue;
                    for (int k = 0; k < OUT; k++) sum += z[k] = expf(z[k] - top);
                    for (int k = 0; k < OUT; k++) {
                        float g = lr * (z[k] / sum - (k == b->label[i] ? 1.0f : 0.0f)),
                              *wk = w + (size_t)k * (IN + 1);
                        for (int j = 0; j < IN; j++) wk[j] -= g * x[j];
                        wk[IN] -= g;
                    }
                }
            }
            loader_close(l);
            if (!phase)
                *fit = (double)right / (double)n;
            else if ((double)right / (double)n > best)
                best = (double)right / (double)n;
        }
    }
    free(w);
    return best;
}

static void test_synthetic(void **state)
{
    DataOpts o = opts("synthetic", "");
    InputShape s;
    Dataset train, val, again;
    Image a = {0}, b = {0};
    int classes, label, per_class[10] = {0};
    double sum = 0, sq = 0, acc, fit = 0;
    Err e;
    (void)state;
    o.synth_train = 4000;
    o.synth_val = 1000;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    assert_int_equal(classes, 10);
    open_ok(&train, &o, SPLIT_TRAIN);
    open_ok(&val, &o, SPLIT_VAL);
    o.seed = 99;
    open_ok(&again, &o, SPLIT_VAL);
    for (uint32_t i = 0; i < val.count; i++) {
        assert_int_equal(val.def->get(&val, i, &a, &label, &e), 0);
        assert_int_equal(again.def->get(&again, i, &b, &label, &e), 0);
        assert_memory_equal(a.px, b.px, 3072);
        per_class[label]++;
        for (int k = 0; k < 3072; k++) sum += a.px[k], sq += (double)a.px[k] * a.px[k];
    }
    sum /= 3072.0 * val.count;
    for (int k = 0; k < 10; k++) assert_int_equal(per_class[k], 100);
    printf("synthetic: mean %.1f, deviation %.1f\n", sum,
           sqrt(sq / (3072.0 * val.count) - sum * sum));
    assert_true(sum > 115 && sum < 140);
    acc = linear_accuracy(&train, &val, &o, &s, &fit);
    printf(
        "synthetic: a linear classifier reaches %.1f %% (%.1f %% of the images it is trained on)\n",
        100 * acc, 100 * fit);
    assert_true(fit > 0.3); /* it does learn what there is to learn */
    if (acc >= 0.6) fail_msg("a linear classifier reaches %.1f %%: the set is trivial", 100 * acc);
    free(a.px), free(b.px);
    dataset_close(&train), dataset_close(&val), dataset_close(&again);
    o.synth_noise = 2;
    open_fails(&o, SPLIT_VAL, ERR_CONFIG, "synth_noise", "outside 0..1");
}

static void test_fake(void **state)
{
    DataOpts o = opts("fake", "");
    Dataset d;
    Image im = {0};
    int label;
    Err e;
    (void)state;
    o.limit_val = 5000;
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 5000);
    assert_int_equal(d.def->get(&d, 2345, &im, &label, &e), 0);
    assert_int_equal(label, 345);
    assert_int_equal(im.h, 300);
    for (int i = 0; i < 300 * 300 * 3; i++) assert_int_equal(im.px[i], 0);
    free(im.px);
    dataset_close(&d);
}

/* ---- real data ---- */

static const char *real(const char *name)
{
    static char path[1200];
    const char *base = getenv("QRUN_DATA_DIR");
    if (!base) skip();
    snprintf(path, sizeof(path), "%s/%s", base, name);
    if (!fs_exists(path)) skip();
    return path;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void test_real_cifar(void **state)
{
    DataOpts o = opts("cifar10", real("cifar-10-subset"));
    Dataset d;
    (void)state;
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 256);
    dataset_close(&d);
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(d.count, 5 * 932);
    dataset_close(&d);
}

static void test_real_mnist(void **state)
{
    DataOpts o = opts("mnist", real("mnist"));
    static const int want[10] = {980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009};
    int got[10] = {0}, label;
    Image im = {0};
    Dataset d;
    Err e;
    (void)state;
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 10000);
    for (uint32_t i = 0; i < d.count; i++) {
        assert_int_equal(d.def->get(&d, i, &im, &label, &e), 0);
        got[label]++;
    }
    for (int i = 0; i < 10; i++) assert_int_equal(got[i], want[i]);
    free(im.px);
    dataset_close(&d);
}

static void test_real_jpeg(void **state)
{
    DataOpts o = opts("cifar10", real("cifar10-jpeg.tar.gz"));
    InputShape s;
    Dataset d;
    Loader *l;
    Image im = {0};
    int classes, label;
    double start = seconds();
    Trace t = {1, 0, 0};
    Err e;
    (void)state;
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(d.count, 50000);
    assert_string_equal(d.class_names[2], "bird");
    assert_int_equal(d.def->get(&d, 12345, &im, &label, &e), 0);
    assert_int_equal(label, 2);
    printf("cifar10-jpeg: 50,000 images opened and decoded in %.2f s\n", seconds() - start);
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    o.data_loader_workers = 1;
    l = loader_open(&d, &o, &s, SPLIT_TRAIN, 128, &e);
    start = seconds();
    const Batch *b;
    while (loader_next(l, &b, &e) == 1) t.samples += b->n;
    printf("cifar10-jpeg: %.3f ms for a training batch of 128 by one worker\n",
           1e3 * (seconds() - start) / 391);
    assert_int_equal(t.samples, 50000);
    loader_close(l);
    dataset_close(&d);
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 10000);
    dataset_close(&d);
    o.limit_val = 20; /* two of each class, not twenty airplanes */
    open_ok(&d, &o, SPLIT_VAL);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(d.def->get(&d, i, &im, &label, &e), 0);
        assert_int_equal(label, (int)i / 2);
    }
    dataset_close(&d);
    free(im.px);
}

static void test_real_imagenet(void **state)
{
    DataOpts o = opts("imagenet1k", real("imagenet-sample.tar.gz"));
    InputShape s;
    Dataset d;
    Loader *l;
    const Batch *b;
    int classes, n = 0;
    double mean = 0;
    Err e;
    (void)state;
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 100);
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    assert_int_equal(s.h, 224);
    l = loader_open(&d, &o, &s, SPLIT_VAL, 32, &e);
    while (loader_next(l, &b, &e) == 1) {
        for (int i = 0; i < b->n; i++) assert_int_equal(b->label[i], n + i);
        for (size_t i = 0; i < (size_t)b->n * 224 * 224 * 3; i++) mean += (double)b->x[i];
        n += b->n;
    }
    assert_int_equal(n, 100);
    mean /= 100.0 * 224 * 224 * 3;
    printf("imagenet-sample: mean of the normalised pixels %.3f\n", mean);
    assert_true(fabs(mean) < 0.3);
    loader_close(l);
    dataset_close(&d);
}

static void fixed_box(const void *arg, int h, int w, int box[4])
{
    (void)h, (void)w;
    memcpy(box, arg, 4 * sizeof(*box));
}

/* Decoding a box gives that box's pixels of the whole image, and finds the same files damaged. */
static void check_part(unsigned char *bytes, size_t n, const char *name, Image *whole, Image *im,
                       Rng *g)
{
    Err e, f;
    assert_int_equal(decode_image(bytes, n, DECODER_AUTO, name, whole, &e), 0);
    for (int k = 0; k < 12; k++) {
        int h = whole->h, w = whole->w, x = (int)rng_below(g, (uint32_t)w),
            y = k < 6 ? k + 1 : (int)rng_below(g, (uint32_t)h);
        int box[4] = {x, y, x + 1 + (int)rng_below(g, (uint32_t)(w - x)),
                      y + 1 + (int)rng_below(g, (uint32_t)(h - y))};
        const ImagePart part = {fixed_box, box};
        memset(im->px, k, im->cap);
        assert_int_equal(decode_part(bytes, n, DECODER_AUTO, name, &part, im, &e), 0);
        assert_true(im->h == h && im->w == w);
        for (y = box[1]; y < box[3]; y++)
            if (memcmp(im->px + ((size_t)y * (size_t)w + (size_t)x) * 3,
                       whole->px + ((size_t)y * (size_t)w + (size_t)x) * 3,
                       (size_t)(box[2] - x) * 3))
                fail_msg("%s, %d x %d: row %d of the box %d,%d-%d,%d differs", name, w, h, y, x,
                         box[1], box[2], box[3]);
    }
    for (int k = 0; k < 6; k++) {
        const int box[4] = {whole->w / 4, whole->h / 8, whole->w / 2, whole->h / 4};
        const ImagePart part = {fixed_box, box};
        size_t at = n - 2 - rng_below(g, (uint32_t)n / 2), cut = k < 4 ? at : n;
        unsigned char was = bytes[at];
        int full, some;
        bytes[at] ^= (unsigned char)(k < 4 ? 0 : 1 << k);
        full = decode_image(bytes, cut, DECODER_AUTO, name, im, &e);
        some = decode_part(bytes, cut, DECODER_AUTO, name, &part, im, &f);
        if (full != some)
            fail_msg("%s %s %zu: %s, of a part: %s", name, k < 4 ? "cut at" : "changed at", at,
                     full ? e.msg : "sound", some ? f.msg : "sound");
        if (k < 4 && !full) fail_msg("%s cut at %zu is read", name, at);
        bytes[at] = was;
    }
}

static void test_real_parts(void **state)
{
    Err e;
    Targz *t = targz_open(real("imagenet-sample.tar.gz"), &e);
    TarMember m;
    Image whole = {0}, im = {0};
    Rng g = rng_stream(1, RNG_CROP, 2, 3);
    int images = 0;
    (void)state;
    assert_non_null(t);
    mem_grow(&im.px, &im.cap, 1, 1);
    while (targz_next(t, &m, &e) == 1) {
        unsigned char *bytes;
        if (!m.file || !decode_known_name(m.name)) continue;
        if (images++ % 4) continue;
        bytes = xmalloc(m.size);
        assert_int_equal(targz_read(t, bytes, m.size, &e), 0);
        check_part(bytes, m.size, m.name, &whole, &im, &g);
        free(bytes);
    }
    assert_int_equal(images, 100);
    targz_close(t);
    free(whole.px), free(im.px);
}

/* Every recipe gives the same from the part it asks for as from the whole image. */
static void test_real_source(void **state)
{
    DataOpts o = opts("imagenet1k", real("imagenet-sample.tar.gz"));
    TransformScratch sc = {0};
    Image whole = {0}, im = {0};
    Dataset d;
    Err e;
    (void)state;
    open_ok(&d, &o, SPLIT_VAL);
    mem_grow(&im.px, &im.cap, 1, 1);
    for (size_t r = 0; recipe_names[r]; r++) {
        const TransformRecipe *recipe = recipe_find(recipe_names[r]);
        InputShape s;
        size_t n;
        float *a, *b;
        int classes;
        if (recipe->size != 224) continue;
        o.data_transforms = recipe_names[r];
        assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
        n = (size_t)s.h * (size_t)s.w * (size_t)s.c;
        a = xmalloc(n * sizeof(*a)), b = xmalloc(n * sizeof(*b));
        for (uint32_t i = 0; i < 24; i++) {
            Split split = i % 2 ? SPLIT_VAL : SPLIT_TRAIN;
            Transform t;
            int label, box[4];
            const ImagePart part = {fixed_box, box};
            assert_int_equal(transform_prepare(&t, recipe, &o, split, &s, &e), 0);
            assert_int_equal(d.def->get(&d, 4 * i, &whole, &label, &e), 0);
            transform_source(&t, 3, i, whole.h, whole.w, box);
            memset(im.px, 99, im.cap);
            assert_int_equal(d.def->get_part(&d, 4 * i, &part, &im, &label, &e), 0);
            assert_int_equal(transform_run(&t, &sc, 3, i, &whole, a, &e), 0);
            assert_int_equal(transform_run(&t, &sc, 3, i, &im, b, &e), 0);
            if (memcmp(a, b, n * sizeof(*a)))
                fail_msg("%s, split %d, image %u: the box %d,%d-%d,%d of %d x %d is not all",
                         recipe_names[r], split, 4 * i, box[0], box[1], box[2], box[3], whole.w,
                         whole.h);
        }
        free(a), free(b);
    }
    transform_scratch_free(&sc);
    free(whole.px), free(im.px);
    dataset_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_normalise),  cmocka_unit_test(test_crops),
        cmocka_unit_test(test_streams),    cmocka_unit_test(test_determinism),
        cmocka_unit_test(test_strip),      cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_synthetic),  cmocka_unit_test(test_fake),
        cmocka_unit_test(test_real_cifar), cmocka_unit_test(test_real_mnist),
        cmocka_unit_test(test_real_jpeg),  cmocka_unit_test(test_real_imagenet),
        cmocka_unit_test(test_real_parts), cmocka_unit_test(test_real_source),
        cmocka_unit_test(test_resize),
    };
    log_set(LOG_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
