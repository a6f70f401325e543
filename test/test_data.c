/* test/test_data.c -- data sets, transforms, loader. Files are made by hand in a temporary folder;
 * what needs real images reads $QRUN_DATA_DIR and is skipped without it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/decode.h"
#include "data/transform.h"
#include "io/fs.h"
#include "io/gz.h"
#include "io/targz.h"
#include "test/data_files.h"
#include "test/golden_transform.h"

static char dir[] = "/tmp/qrun-test-data-XXXXXX";
static int last_warnings;

static void quiet(LogLevel level, const char *text)
{
    (void)text;
    if (level == LOG_WARN) last_warnings++;
}

static char *at(const char *name) /* path of a test file, good for eight more calls */
{
    static char ring[8][1200];
    static int i;
    i = (i + 1) % 8;
    snprintf(ring[i], sizeof(ring[i]), "%s/%s", dir, name);
    return ring[i];
}

static DataOpts opts(const char *dataset, const char *where)
{
    return (DataOpts){.dataset = dataset,
                      .dataset_dir = where,
                      .train_dir = "train",
                      .val_dir = "val",
                      .seed = 7,
                      .on_bad_image = "fail",
                      .shuffle = true,
                      .data_loader_workers = 2,
                      .synth_noise = -1};
}

/* The message must be one of ours: the kind, naming the file, saying `what`. */
static void expect_error(int rc, const Err *e, ErrKind kind, const char *file, const char *what)
{
    if (rc >= 0) fail_msg("no error where '%s' was expected of %s", what, file);
    if (e->kind != kind) fail_msg("kind %d, expected %d: %s", e->kind, kind, e->msg);
    if (!strstr(e->msg, file) || !strstr(e->msg, what))
        fail_msg("'%s' does not name '%s' and '%s'", e->msg, file, what);
}

static void open_fails(const DataOpts *o, Split split, ErrKind kind, const char *file,
                       const char *what)
{
    Dataset d;
    Err e = {0};
    expect_error(dataset_open(&d, o, split, &e), &e, kind, file, what);
}

static void open_ok(Dataset *d, const DataOpts *o, Split split)
{
    Err e = {0};
    if (dataset_open(d, o, split, &e)) fail_msg("%s", e.msg);
}

/* Every record of a set made by put_cifar_*: labels in turn, pixels where they belong. */
static void check_cifar(const DataOpts *o, Split split, uint32_t count, int first, int classes)
{
    Dataset d;
    Image im = {0};
    Err e;
    int label;
    open_ok(&d, o, split);
    assert_int_equal(d.count, count);
    assert_int_equal(d.classes, classes);
    for (uint32_t r = 0; r < count; r++) {
        assert_int_equal(d.def->get(&d, r, &im, &label, &e), 0);
        if (label != (first + (int)r) % classes)
            fail_msg("record %u: label %d, expected %d", r, label, (first + (int)r) % classes);
        for (int i = 0; i < 1024; i++)
            for (int c = 0; c < 3; c++)
                if (im.px[3 * i + c] != cifar_pixel(first + (int)r, c, i))
                    fail_msg("record %u pixel %d channel %d is %d, expected %d", r, i, c,
                             im.px[3 * i + c], cifar_pixel(first + (int)r, c, i));
    }
    free(im.px);
    dataset_close(&d);
}

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

static void hash_bytes(uint64_t *h, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) *h = (*h ^ b[i]) * 0x100000001B3u;
}

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

/* ---- CIFAR ---- */

static void save_cifar(const char *folder, bool pickle, int per_batch)
{
    for (int i = 0; i < 6; i++) {
        Str b = {0};
        char name[80];
        (pickle ? put_cifar_pickle : put_cifar_binary)(&b, per_batch, i * per_batch, 10);
        if (i < 5)
            snprintf(name, sizeof(name), "%s/data_batch_%d%s", folder, i + 1, pickle ? "" : ".bin");
        else
            snprintf(name, sizeof(name), "%s/test_batch%s", folder, pickle ? "" : ".bin");
        save(dir, name, &b);
    }
}

static void cifar_tar(Str *tar, bool pickle)
{
    /* as distributed: a folder, the batches in no useful order */
    static const int order[] = {4, 1, 5, 0, 2, 3};
    tar_member(tar, "cifar/", '5', "", 0);
    for (int k = 0; k < 6; k++) {
        int i = order[k];
        Str b = {0};
        char name[80];
        (pickle ? put_cifar_pickle : put_cifar_binary)(&b, 3, i * 3, 10);
        if (i < 5)
            snprintf(name, sizeof(name), "./cifar/data_batch_%d%s", i + 1, pickle ? "" : ".bin");
        else
            snprintf(name, sizeof(name), "cifar/test_batch%s", pickle ? "" : ".bin");
        tar_member(tar, name, '0', b.s, b.len);
        str_free(&b);
    }
    tar_end(tar);
}

static void test_cifar(void **state)
{
    DataOpts o;
    Str b = {0}, z = {0};
    (void)state;
    save_cifar("c10bin", false, 7);
    o = opts("cifar10", at("c10bin"));
    check_cifar(&o, SPLIT_TRAIN, 35, 0, 10);
    check_cifar(&o, SPLIT_VAL, 7, 35, 10);
    o.limit_val = 3;
    check_cifar(&o, SPLIT_VAL, 3, 35, 10);
    save_cifar("usual/cifar-10-batches-py", true, 4);
    o = opts("CIFAR10", at("usual"));
    check_cifar(&o, SPLIT_TRAIN, 20, 0, 10);
    check_cifar(&o, SPLIT_VAL, 4, 20, 10);
    for (int pickle = 0; pickle < 2; pickle++) {
        cifar_tar(&b, pickle);
        gzip(&z, b.s, b.len);
        save(dir, "c.tar.gz", &z);
        save(dir, "c.tar", &b);
        o = opts("cifar10", at("c.tar.gz"));
        check_cifar(&o, SPLIT_TRAIN, 15, 0, 10);
        check_cifar(&o, SPLIT_VAL, 3, 15, 10);
        o = opts("cifar10", at("c.tar"));
        check_cifar(&o, SPLIT_TRAIN, 15, 0, 10);
    }
    put_cifar_binary(&b, 130, 0, 100);
    save(dir, "c100/train.bin", &b);
    put_cifar_pickle(&b, 5, 50, 100);
    save(dir, "c100py/test", &b);
    o = opts("cifar100", at("c100"));
    check_cifar(&o, SPLIT_TRAIN, 130, 0, 100);
    o = opts("CIFAR100", at("c100py"));
    check_cifar(&o, SPLIT_VAL, 5, 50, 100);
    o.num_classes = 10;
    open_fails(&o, SPLIT_VAL, ERR_CONFIG, "num_classes: 10", "100 classes");
}

static void test_cifar_damage(void **state)
{
    DataOpts o = opts("cifar10", at("bad"));
    Str b = {0}, good = {0};
    (void)state;
    open_fails(&o, SPLIT_VAL, ERR_DATA, "dataset_dir", "does not exist");
    put_cifar_binary(&b, 3, 0, 10);
    b.len -= 100;
    save(dir, "bad/test_batch.bin", &b);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "bad/test_batch.bin", "no whole number");
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "dataset_dir", "training images");
    save(dir, "bad/test_batch.bin", &b);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "bad/test_batch.bin", "0 bytes");
    put_cifar_binary(&b, 3, 0, 10);
    b.s[3073] = 10;
    save(dir, "bad/test_batch.bin", &b);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "bad/test_batch.bin",
               "record 1 has label 10; CIFAR-10 has 0..9");
    put_cifar_binary(&b, 3, 0, 10);
    save(dir, "bad/data_batch_1.bin", &b);
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "bad/data_batch_2.bin", "No such file");
    /* every cut and every flipped bit of a pickle's frame: refused, or read as it says; never a
     * crash */
    o.dataset_dir = at("badpy");
    put_cifar_pickle(&good, 2, 0, 10);
    for (size_t cut = 0; cut < good.len; cut += cut < 200 || cut + 40 > good.len ? 1 : 397) {
        str_putn(&b, good.s, cut);
        save(dir, "badpy/test_batch", &b);
        open_fails(&o, SPLIT_VAL, ERR_DATA, "badpy/test_batch", ":");
    }
    for (size_t bit = 0; bit < 8 * 230; bit++) {
        Dataset d;
        Err e = {0};
        size_t i = bit / 8 < 190 ? bit / 8 : good.len - 230 + bit / 8;
        str_putn(&b, good.s, good.len);
        b.s[i] ^= (char)(1 << bit % 8);
        save(dir, "badpy/test_batch", &b);
        if (dataset_open(&d, &o, SPLIT_VAL, &e))
            expect_error(-1, &e, ERR_DATA, "badpy/test_batch", ":");
        else
            dataset_close(&d);
    }
    str_free(&good);
}

/* ---- archives ---- */

static void test_targz(void **state)
{
    Str b = {0}, pax = {0}, lname = {0};
    Targz *t;
    TarMember m;
    Err e;
    char buf[16];
    (void)state;
    for (int i = 0; i < 60; i++) str_puts(&lname, "long");
    tar_header(&b, "file", "some/prefix", '0', 3);
    str_putn(&b, "abc", 3);
    put_fill(&b, 0, 509);
    str_puts(&lname, "/x");
    tar_member(&b, "././@LongLink", 'L', lname.s, lname.len + 1);
    tar_member(&b, "cut-off", '0', "0123456789", 10);
    str_puts(&pax, "16 path=pax/abc\n20 size=00000000005\n");
    tar_member(&b, "pax", 'x', pax.s, pax.len);
    tar_header(&b, "ignored", "", '0', 0);
    str_putn(&b, "hello", 5);
    put_fill(&b, 0, 507);
    tar_member(&b, "./last", '0', "z", 1);
    tar_end(&b);
    save(dir, "t.tar", &b);
    t = targz_open(at("t.tar"), &e);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, "some/prefix/file");
    assert_int_equal(targz_read(t, buf, 3, &e), 0);
    assert_memory_equal(buf, "abc", 3);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, lname.s);
    assert_int_equal(targz_read(t, buf, 4, &e), 0);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, "pax/abc");
    assert_int_equal(m.size, 5);
    assert_int_equal(targz_read(t, buf, 5, &e), 0);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, "last");
    assert_int_equal(targz_next(t, &m, &e), 0);
    assert_int_equal(targz_next(t, &m, &e), 0);
    targz_close(t);
    str_free(&pax);
    str_free(&lname);
}

/* Reads all of an archive; 0, or -1 with `e`. */
static int walk(const char *path, Err *e)
{
    Targz *t = targz_open(path, e);
    TarMember m;
    int rc = -1;
    if (!t) return -1;
    while ((rc = targz_next(t, &m, e)) == 1)
        ;
    targz_close(t);
    return rc;
}

static void test_targz_damage(void **state)
{
    Str tar = {0}, z = {0}, b = {0};
    Err e;
    int undetected = 0;
    (void)state;
    tar_member(&tar, "a/b.txt", '0', "some text", 9);
    tar_member(&tar, "a/c.txt", '0', "more", 4);
    tar_end(&tar);
    gzip(&z, tar.s, tar.len);
    for (size_t cut = 0; cut < z.len; cut += 13) { /* any cut of the compressed file */
        str_putn(&b, z.s, cut);
        save(dir, "cut.tar.gz", &b);
        expect_error(walk(at("cut.tar.gz"), &e), &e, ERR_DATA, "cut.tar.gz",
                     cut < 10 ? "archive" : "damaged");
    }
    for (size_t cut = 0; cut < tar.len - 512;
         cut += 37) { /* and of the plain one, up to the end mark */
        str_putn(&b, tar.s, cut);
        save(dir, "cut.tar", &b);
        expect_error(walk(at("cut.tar"), &e), &e, ERR_DATA, "cut.tar", "damaged");
    }
    for (size_t bit = 0; bit < 8 * z.len;
         bit += 5) { /* any flipped bit but those of the gzip header's time stamp ... */
        str_putn(&b, z.s, z.len);
        b.s[bit / 8] ^= (char)(1 << bit % 8);
        save(dir, "flip.tar.gz", &b);
        if (!walk(at("flip.tar.gz"), &e))
            undetected++;
        else
            expect_error(-1, &e, ERR_DATA, "flip.tar.gz", "");
    }
    if (undetected > 12) fail_msg("%d flipped bits went unnoticed", undetected);
    b.len = 0;
    tar_header(&b, "huge", "", '0', 077777777777u);
    save(dir, "huge.tar", &b);
    expect_error(walk(at("huge.tar"), &e), &e, ERR_DATA, "huge.tar", "ends after 512 bytes");
    tar_header(&b, "huge", "", 'L', 077777777777u);
    save(dir, "huge.tar", &b);
    expect_error(walk(at("huge.tar"), &e), &e, ERR_DATA, "huge.tar", "absurdly long");
    tar_member(&b, "p", 'x', "99999999999999999999 path=a\n", 28);
    save(dir, "pax.tar", &b);
    expect_error(walk(at("pax.tar"), &e), &e, ERR_DATA, "pax.tar", "malformed pax");
    tar_member(&b, "p", 'x', "30 size=99999999999999999999\n\n", 30);
    save(dir, "pax.tar", &b);
    expect_error(walk(at("pax.tar"), &e), &e, ERR_DATA, "pax.tar", "impossible size");
    tar_member(&b, "two\nlines", '0', "", 0);
    save(dir, "ctl.tar", &b);
    expect_error(walk(at("ctl.tar"), &e), &e, ERR_DATA, "ctl.tar", "control characters");
    put_fill(&b, 'x', 5000);
    save(dir, "junk.tar.gz", &b);
    expect_error(walk(at("junk.tar.gz"), &e), &e, ERR_DATA, "junk.tar.gz", "not a tar");
    str_free(&tar), str_free(&z);
    /* a data set in a damaged archive is an error of opening */
    cifar_tar(&tar, false);
    gzip(&z, tar.s, tar.len);
    z.len -= 2000;
    save(dir, "cifar-cut.tar.gz", &z);
    DataOpts o = opts("cifar10", at("cifar-cut.tar.gz"));
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "cifar-cut.tar.gz", "cut short");
    str_free(&tar);
    /* as is a member that claims 8 GB */
    tar_header(&tar, "x/train/a/1.jpg", "", '0', 077777777777u);
    save(dir, "claims.tar", &tar);
    o = opts("folder", at("claims.tar"));
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "claims.tar", "1.jpg");
}

/* ---- MNIST ---- */

static void test_mnist(void **state)
{
    static const uint32_t idim[] = {20, 28, 28}, ldim[] = {20}, other[] = {19},
                          big[] = {20, 28, 0x10000000};
    DataOpts o = opts("mnist", at("mnist"));
    Dataset d;
    Image im = {0};
    Str b = {0}, z = {0};
    int label;
    Err e;
    (void)state;
    put_idx(&b, 3, idim, 3);
    gzip(&z, b.s, b.len);
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "mnist", "no t10k-labels-idx1-ubyte");
    put_idx(&z, 1, ldim, 7);
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 20);
    assert_int_equal(d.def->get(&d, 13, &im, &label, &e), 0);
    assert_int_equal(label, 13 * 7 % 10);
    assert_int_equal(im.c, 1);
    for (int i = 0; i < 784; i++) assert_int_equal(im.px[i], (13 * 784 + i) * 3 % 256);
    free(im.px);
    dataset_close(&d);
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "dataset_dir", "training images");
    put_idx(&z, 1, other, 7);
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", "19 labels for the 20 images");
    put_idx(&z, 1, ldim, 7);
    z.s[12] = 10;
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", "label 4 is 10");
    put_idx(&z, 1, ldim, 7);
    z.s[3] = 3;
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", "starts with 00000803");
    for (size_t cut = 0; cut < 24; cut++) {
        put_idx(&z, 1, ldim, 7);
        z.len = cut;
        save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
        open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", ":");
    }
    gzip(&z, b.s, b.len);
    z.len -= 9;
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-images-idx3-ubyte.gz", "cut short");
    gzip(&z, b.s, b.len);
    z.s[500] ^= 4;
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-images-idx3-ubyte.gz", "wrong checksum");
    b.len = 0;
    put_int(&b, 0x803, 4, true);
    for (int i = 0; i < 3; i++) put_int(&b, big[i], 4, true);
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &b);
    put_idx(&z, 1, ldim, 7);
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-images-idx3-ubyte.gz", "dimension 2");
}

/* ---- image files ---- */

static void test_decode(void **state)
{
    Image im = {0};
    Str b = {0}, half = {0};
    Err e;
    (void)state;
    put_hex(&b, jpeg_rgb);
    for (int dec = DECODER_AUTO; dec <= DECODER_STB; dec++) {
        int worst = 0;
        if (decode_image(b.s, b.len, (Decoder)dec, "a.jpg", &im, &e)) fail_msg("%s", e.msg);
        assert_true(im.h == 16 && im.w == 16 && im.c == 3);
        for (int i = 0; i < 256; i++) {
            int want[3] = {i % 16 * 16, i / 16 * 16, 128};
            for (int c = 0; c < 3; c++) {
                int err = abs(im.px[3 * i + c] - want[c]);
                if (err > worst) worst = err;
            }
        }
        if (worst > 16) fail_msg("decoder %d: %d away from what was encoded", dec, worst);
        for (size_t cut = 0; cut + 1 < b.len; cut++)
            expect_error(decode_image(b.s, cut, (Decoder)dec, "a.jpg", &im, &e), &e, ERR_DATA,
                         "a.jpg", "");
        for (size_t bit = 0; bit < 8 * b.len; bit++) { /* never a crash; a message names the file */
            str_putn(&half, b.s, b.len);
            half.s[bit / 8] ^= (char)(1 << bit % 8);
            if (decode_image(half.s, half.len, (Decoder)dec, "a.jpg", &im, &e))
                expect_error(-1, &e, ERR_DATA, "a.jpg", "");
            half.len = 0;
        }
    }
#ifdef HAVE_LIBJPEG
    b.len = 0;
    put_hex(&b, jpeg_cmyk);
    if (decode_image(b.s, b.len, DECODER_AUTO, "cmyk.jpg", &im, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < 256; i++) {
        int ink[3] = {i % 16 * 16, i / 16 * 16, 100};
        for (int c = 0; c < 3; c++) {
            int want = 215 - ink[c] * 215 / 255;
            if (abs(im.px[3 * i + c] - want) > 12)
                fail_msg("cmyk pixel %d channel %d: %d, about %d", i, c, im.px[3 * i + c], want);
        }
    }
#endif
    for (int c = 1; c <= 4; c += c == 1 ? 2 : 1) {
        b.len = 0;
        put_png(&b, 9, 5, c);
        if (decode_image(b.s, b.len, DECODER_AUTO, "a.png", &im, &e)) fail_msg("%s", e.msg);
        assert_true(im.h == 5 && im.w == 9 && im.c == 3);
        for (int i = 0; i < 45; i++)
            for (int k = 0; k < 3; k++)
                assert_int_equal(im.px[3 * i + k],
                                 (i % 9 + 10 * (i / 9) + (c == 1 ? 0 : 50 * k)) & 255);
        for (size_t cut = 0; cut + 16 < b.len; cut++)
            expect_error(decode_image(b.s, cut, DECODER_AUTO, "a.png", &im, &e), &e, ERR_DATA,
                         "a.png", "");
    }
    expect_error(decode_image("GIF89a..", 8, DECODER_AUTO, "a.gif", &im, &e), &e, ERR_DATA, "a.gif",
                 "neither JPEG nor PNG");
    free(im.px), str_free(&b), str_free(&half);
}

static void put_image(Str *b, const char *name, int side)
{
    if (str_ends(name, ".jpg"))
        put_hex(b, jpeg_rgb);
    else
        put_png(b, side, side, 3);
}

/* train/{ant,bee,cat}, val/{bee,cat}: classes are numbered over both. */
static const char *const tree_files[] = {
    "train/bee/2.jpg",     "train/bee/10.jpg", "train/ant/x.png", "train/cat/deep/a.png",
    "train/cat/b.PNG",     "val/bee/v.jpg",    "val/cat/w.png",   "train/ant/notes.txt",
    "train/.hidden/h.jpg", "train/bee/.2.jpg"};

static void check_tree(const char *where)
{
    static const int train_label[] = {0, 1, 1, 2, 2}, val_label[] = {1, 2};
    DataOpts o = opts("folder", where);
    Dataset d;
    Image im = {0};
    int label;
    Err e;
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(d.count, 5);
    assert_int_equal(d.classes, 3);
    assert_string_equal(d.class_names[0], "ant");
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(d.def->get(&d, i, &im, &label, &e), 0);
        assert_int_equal(label, train_label[i]);
    }
    assert_int_equal(im.h, 16);
    dataset_close(&d);
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(d.def->get(&d, i, &im, &label, &e), 0);
        assert_int_equal(label, val_label[i]);
    }
    dataset_close(&d);
    o.num_classes = 2;
    open_fails(&o, SPLIT_TRAIN, ERR_CONFIG, "num_classes: 2", "3 classes");
    o.num_classes = 0;
    o.val_dir = "nowhere";
    open_fails(&o, SPLIT_VAL, ERR_DATA, where,
               str_ends(where, ".gz") ? "nowhere/<class>" : "validation images");
    o.val_dir = "train";
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 5);
    dataset_close(&d);
    free(im.px);
}

static void test_tree(void **state)
{
    Str tar = {0}, z = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tree_files); i++) {
        Str b = {0};
        char name[200];
        put_image(&b, tree_files[i], 16);
        snprintf(name, sizeof(name), "wrap/%s", tree_files[i]);
        tar_member(&tar, name, '0', b.s, b.len);
        snprintf(name, sizeof(name), "tree/%s", tree_files[i]);
        save(dir, name, &b);
    }
    tar_end(&tar);
    gzip(&z, tar.s, tar.len);
    save(dir, "tree.tar.gz", &z);
    str_free(&tar);
    check_tree(at("tree"));
    check_tree(at("tree.tar.gz"));
}

/* A bad image among good ones: fail names it, at its batch and not before; skip counts it and goes
 * on. */
static void test_bad_images(void **state)
{
    DataOpts o;
    InputShape s;
    int classes;
    Err e;
    (void)state;
    for (int i = 0; i < 40; i++) {
        Str b = {0};
        char name[100];
        snprintf(name, sizeof(name), "mixed/%s/%c/%02d.png", i < 30 ? "train" : "val", 'a' + i % 2,
                 i);
        put_png(&b, i == 3 ? 90 : 80, 80, 3); /* large enough not to be decoded at opening */
        if (i == 7 || i == 12 || i == 33) b.len = 300;
        save(dir, name, &b);
    }
    o = opts("folder", at("mixed"));
    o.image_size = 32;
    o.num_classes = 2;
    o.shuffle = false;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    for (int split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) {
        uint64_t hash = 0;
        for (int workers = 0; workers < 4; workers++) {
            Dataset d;
            Loader *l;
            const Batch *b;
            Trace t = {1, 0, 0};
            o.data_loader_workers = workers;
            o.on_bad_image = "fail";
            open_ok(&d, &o, (Split)split);
            l = loader_open(&d, &o, &s, (Split)split, 5, &e);
            if (split == SPLIT_TRAIN) { /* order: a/00 02 .. 28, b/01 03 ..: 12 is sample 6, in the
                                           second batch */
                assert_int_equal(loader_next(l, &b, &e), 1);
                expect_error(loader_next(l, &b, &e), &e, ERR_DATA, "mixed/train/a/12.png",
                             "damaged PNG");
                expect_error(loader_next(l, &b, &e), &e, ERR_DATA, "mixed/train/a/12.png",
                             "damaged PNG");
                assert_int_equal(loader_seek(l, 1, 2, &e), 0);
                assert_int_equal(loader_next(l, &b, &e), 1);
            }
            loader_close(l);
            o.on_bad_image = "skip";
            last_warnings = 0;
            l = loader_open(&d, &o, &s, (Split)split, 5, &e);
            while (loader_next(l, &b, &e) == 1) {
                hash_bytes(&t.hash, b->x, (size_t)b->size * 32 * 32 * 3 * sizeof(float));
                hash_bytes(&t.hash, b->index, (size_t)b->n * sizeof(*b->index));
                t.samples += b->n;
                if (split == SPLIT_TRAIN && b->number == 1)
                    assert_int_equal(b->index[1], 7); /* 6 is bad, 7 is next */
            }
            assert_int_equal(t.samples, split == SPLIT_TRAIN ? 30 : 9);
            assert_int_equal(loader_bad_images(l), split == SPLIT_TRAIN ? 2 : 1);
            assert_int_equal(last_warnings, split == SPLIT_TRAIN ? 2 : 1);
            if (!workers) hash = t.hash;
            if (t.hash != hash) fail_msg("%d workers skip otherwise than none", workers);
            loader_close(l);
            dataset_close(&d);
        }
    }
    /* small images are decoded at opening: fail ends it there, skip remembers */
    Str small = {0};
    put_png(&small, 16, 16, 3);
    save(dir, "small/train/a/1.png", &small);
    put_png(&small, 16, 16, 3);
    small.len = 60;
    save(dir, "small/train/a/2.png", &small);
    o = opts("folder", at("small"));
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "small/train/a/2.png", "damaged PNG");
    o.on_bad_image = "skip";
    Dataset d;
    Image im = {0};
    int label;
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(d.def->get(&d, 0, &im, &label, &e), 0);
    expect_error(d.def->get(&d, 1, &im, &label, &e), &e, ERR_DATA, "small/train/a/2.png",
                 "damaged PNG");
    dataset_close(&d);
    free(im.px);
}

static void test_missing(void **state)
{
    char *before = getenv("QRUN_DATA_DIR") ? xstrdup(getenv("QRUN_DATA_DIR")) : NULL;
    DataOpts o = opts("cifar10", "");
    (void)state;
    setenv("QRUN_DATA_DIR", dir, 1);
    setenv("XDG_DATA_HOME", at("xdg"), 1);
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, dir, "cifar-10-binary.tar.gz");
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "xdg/qrun", "curl -LO");
    save_cifar("xdg/qrun/cifar-10-batches-bin", false, 2);
    check_cifar(&o, SPLIT_VAL, 2, 10, 10);
    o.dataset = "cifar1o";
    open_fails(&o, SPLIT_TRAIN, ERR_CONFIG, "dataset", "did you mean 'cifar10'");
    if (before)
        setenv("QRUN_DATA_DIR", before, 1);
    else
        unsetenv("QRUN_DATA_DIR");
    free(before);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_normalise),    cmocka_unit_test(test_crops),
        cmocka_unit_test(test_streams),      cmocka_unit_test(test_determinism),
        cmocka_unit_test(test_interrupt),    cmocka_unit_test(test_synthetic),
        cmocka_unit_test(test_fake),         cmocka_unit_test(test_cifar),
        cmocka_unit_test(test_cifar_damage), cmocka_unit_test(test_targz),
        cmocka_unit_test(test_targz_damage), cmocka_unit_test(test_mnist),
        cmocka_unit_test(test_decode),       cmocka_unit_test(test_tree),
        cmocka_unit_test(test_bad_images),   cmocka_unit_test(test_missing),
        cmocka_unit_test(test_real_cifar),   cmocka_unit_test(test_real_mnist),
        cmocka_unit_test(test_real_jpeg),    cmocka_unit_test(test_real_imagenet),
    };
    char *rm;
    int rc;
    log_set(LOG_WARN, quiet);
    if (!mkdtemp(dir)) return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    rm = xasprintf("rm -rf '%s'", dir);
    if (system(rm)) rc = rc ? rc : 1;
    free(rm);
    return rc;
}
