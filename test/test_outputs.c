/* test/test_outputs.c -- TensorBoard event files and plots. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/decode.h"
#include "io/fs.h"
#include "io/plot.h"
#include "io/tfevents.h"
#include "io/tfevents.pb-c.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/qrun-outputs-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

/* The files of the folder: their number, one path in `path` (the caller frees; NULL when there is
 * none). */
static int files(char **path)
{
    DIR *d = opendir(dir);
    struct dirent *ent;
    int n = 0;
    *path = NULL;
    assert_non_null(d);
    while ((ent = readdir(d))) {
        if (ent->d_name[0] == '.') continue;
        free(*path);
        *path = fs_join(dir, ent->d_name);
        n++;
    }
    closedir(d);
    return n;
}

static int remove_dir(void **state)
{
    char *path;
    (void)state;
    while (files(&path)) {
        unlink(path);
        free(path);
    }
    return rmdir(dir);
}

static TfEvents *open_events(int64_t keep)
{
    Err e = {0};
    TfEvents *t = tfevents_open(dir, keep, &e);
    if (!t) fail_msg("%s", e.msg);
    return t;
}

static void put(TfEvents *t, const char *tag, int64_t step, double v)
{
    Err e = {0};
    if (tfevents_scalar(t, tag, step, v, &e)) fail_msg("%s", e.msg);
}

/* Collects "tag@step=value " of every scalar. */
static void collect(void *arg, const char *tag, int64_t step, double value, double wall)
{
    assert_true(wall > 1.6e9);
    str_printf(arg, "%s@%lld=%g ", tag, (long long)step, value);
}

static void expect_events(const char *want)
{
    char *path;
    Str got = {0};
    Err e = {0};
    assert_int_equal(files(&path), 1);
    if (tfevents_read(path, collect, &got, &e)) fail_msg("%s", e.msg);
    assert_string_equal(got.s ? got.s : "", want);
    str_free(&got);
    free(path);
}

static void test_events(void **state)
{
    TfEvents *t = open_events(-1);
    Err e = {0};
    (void)state;
    put(t, "loss/train", 1, 2.5);
    put(t, "top1/val", 10, 61.25);
    assert_int_equal(tfevents_flush(t, &e), 0);
    expect_events("loss/train@1=2.5 top1/val@10=61.25 "); /* readable while open */
    put(t, "loss/train", 11, 0.5);
    tfevents_close(t);
    t = open_events(10); /* resumed at step 10: what came later is gone */
    put(t, "loss/train", 11, 0.75);
    tfevents_close(t);
    expect_events("loss/train@1=2.5 top1/val@10=61.25 loss/train@11=0.75 ");
    t = open_events(-1); /* a fresh run */
    tfevents_close(t);
    expect_events("");
}

/* The bytes of a record as TensorBoard's own writer makes them: checksums computed with an
 * independent tool. */
static void test_record_bytes(void **state)
{
    static const unsigned char head[12] = {24, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22};
    char *path, *data;
    size_t len;
    Err e = {0};
    (void)state;
    tfevents_close(open_events(-1));
    assert_int_equal(files(&path), 1);
    assert_non_null(strstr(path, "/events.out.tfevents."));
    data = fs_read(path, 0, &len, &e);
    assert_non_null(data);
    assert_int_equal(len, 12 + 24 + 4);
    assert_memory_equal(data, head, 12);          /* 24 bytes follow */
    assert_int_equal((unsigned char)data[12], 9); /* field 1, a double */
    assert_memory_equal(data + 21,
                        "\x1a\x0d"
                        "brain.Event:2",
                        15);
    free(data);
    free(path);
}

static void test_damage(void **state)
{
    char *path, *data;
    size_t len;
    Str got = {0};
    Err e = {0};
    TfEvents *t = open_events(-1);
    (void)state;
    put(t, "a", 1, 1);
    put(t, "b", 2, 2);
    tfevents_close(t);
    assert_int_equal(files(&path), 1);
    data = fs_read(path, 0, &len, &e);
    for (size_t cut = 1; cut < len;
         cut++) { /* cut anywhere: an error or fewer records, never nonsense */
        int rc;
        assert_int_equal(fs_write(path, data, cut, &e), 0);
        str_free(&got);
        rc = tfevents_read(path, collect, &got, &e);
        if (rc) assert_int_equal(e.kind, ERR_DATA);
        if (got.s) assert_true(str_eq(got.s, "a@1=1 "));
    }
    for (size_t i = 0; i < len; i++) { /* a flipped bit anywhere is noticed */
        data[i] ^= 4;
        assert_int_equal(fs_write(path, data, len, &e), 0);
        str_free(&got);
        assert_int_equal(tfevents_read(path, collect, &got, &e), -1);
        assert_non_null(strstr(e.msg, path));
        data[i] ^= 4;
    }
    assert_int_equal(fs_write(path, data, len - 3, &e),
                     0); /* a killed process: the run goes on behind step 1 */
    t = open_events(5);
    put(t, "c", 6, 3);
    tfevents_close(t);
    expect_events("a@1=1 c@6=3 ");
    assert_int_equal(tfevents_read("/nonexistent/file", collect, &got, &e), -1);
    assert_int_equal(e.kind, ERR_DATA);
    str_free(&got);
    free(data);
    free(path);
}

static void test_histogram(void **state)
{
    float v[1000], same[3] = {2, 2, 2};
    TfEvents *t = open_events(-1);
    char *path, *data;
    size_t len, at;
    double sum = 0;
    Err e = {0};
    Tfev__Event *ev;
    const Tfev__Histogram *h;
    (void)state;
    for (int i = 0; i < 1000; i++) v[i] = (float)(i - 300) / 100;
    assert_int_equal(tfevents_histogram(t, "weight/conv1", 7, v, 1000, &e), 0);
    assert_int_equal(tfevents_histogram(t, "weight/same", 7, same, 3, &e), 0);
    tfevents_close(t);
    assert_int_equal(files(&path), 1);
    data = fs_read(path, 0, &len, &e);
    at = 40; /* behind the version record */
    ev = tfev__event__unpack(
        NULL, (size_t)(unsigned char)data[at] | (size_t)(unsigned char)data[at + 1] << 8,
        (unsigned char *)data + at + 12);
    assert_non_null(ev);
    assert_int_equal(ev->step, 7);
    assert_string_equal(ev->summary->value[0]->tag, "weight/conv1");
    h = ev->summary->value[0]->histo;
    assert_true(h->num > 999.5 && h->num < 1000.5);
    assert_true(fabs(h->min + 3) < 1e-6 && fabs(h->max - 6.99) < 1e-5);
    assert_int_equal(h->n_bucket, h->n_bucket_limit);
    for (size_t i = 0; i < h->n_bucket; i++) {
        sum += h->bucket[i];
        if (i) assert_true(h->bucket_limit[i] > h->bucket_limit[i - 1]);
    }
    assert_true(fabs(sum - 1000) < 0.5);
    tfev__event__free_unpacked(ev, NULL);
    free(data);
    free(path);
    expect_events("");
}

/* ---- plots ---- */

/* Tags balance, attributes are quoted, no number is nan or inf. Enough of XML to notice a slip. */
static void expect_well_formed(const char *s)
{
    char stack[32][16];
    int depth = 0;
    if (strstr(s, "nan") || strstr(s, "inf\"")) fail_msg("a number is not finite");
    for (const char *p = strchr(s, '<'); p; p = strchr(p, '<')) {
        size_t n = strcspn(p, ">"), name = strcspn(p + 1, " />");
        int quotes = 0;
        assert_true(p[n] == '>');
        if (p[1] != '?') {
            for (size_t i = 0; i < n; i++) quotes += p[i] == '"';
            assert_int_equal(quotes % 2, 0);
            if (p[1] == '/') {
                assert_true(depth > 0);
                depth--;
                if (strncmp(stack[depth], p + 2, strlen(stack[depth])) ||
                    p[2 + strlen(stack[depth])] != '>')
                    fail_msg("<%s> closed by %.*s", stack[depth], (int)n + 1, p);
            } else if (p[n - 1] != '/') {
                assert_true(depth < 32 && name < 16);
                snprintf(stack[depth++], 16, "%.*s", (int)name, p + 1);
            }
        }
        p += n;
    }
    assert_int_equal(depth, 0);
}

static int count(const char *s, const char *what)
{
    int n = 0;
    for (; (s = strstr(s, what)); s += strlen(what)) n++;
    return n;
}

static void test_plot(void **state)
{
    double x[50], y[50], z[50];
    PlotSeries s[] = {{"train & \"val\" <a>", x, y, 50, false, PLOT_LINE},
                      {"other", x, z, 50, true, PLOT_LINE}};
    Plot p = {
        .title = "a < b", .xlabel = "epoch", .ylabel = "top-1 (%)", .series = s, .nseries = 2};
    Str out = {0};
    (void)state;
    for (int i = 0; i < 50; i++) {
        x[i] = i;
        y[i] = 100 - 90 * exp(-i / 10.0);
        z[i] = i == 20 ? NAN : i;
    }
    plot_svg(&p, &out);
    expect_well_formed(out.s);
    assert_int_equal(count(out.s, "<circle"), 49);
    assert_non_null(strstr(out.s, "train &amp; &quot;val&quot; &lt;a&gt;"));
    assert_non_null(strstr(out.s, ">80</text>")); /* round ticks */
    assert_non_null(strstr(out.s, "prefers-color-scheme:dark"));
    str_free(&out);
    s[0].n = 3; /* epochs 0, 1, 2: no tick between them */
    p.nseries = 1;
    plot_svg(&p, &out);
    assert_non_null(strstr(out.s, ">1</text>"));
    assert_null(strstr(out.s, ">0.5</text>"));
    str_free(&out);
}

static void test_plot_edges(void **state)
{
    double x[3] = {0, 1, 2}, y[3] = {NAN, NAN, NAN}, flat[3] = {5, 5, 5},
           tiny[3] = {1e-7, 2e-7, 3e-7}, mixed[3] = {0, 1e-3, 1e3}, hole[3] = {NAN, 1, NAN};
    const double *rows[] = {y, flat, tiny, mixed, hole};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (int k = 0; k < 4; k++) {
            PlotSeries s = {"s", x, rows[i], k & 1 ? 3 : i ? 2 : 0, false, PLOT_LINE};
            Plot p = {.title = "t", .series = &s, .nseries = 1, .log_y = k > 1};
            Str out = {0};
            plot_svg(&p, &out);
            expect_well_formed(out.s);
            if (rows[i] == y) assert_non_null(strstr(out.s, "no data"));
            if (rows[i] == hole) assert_non_null(strstr(out.s, "h0"));
            str_free(&out);
        }
    }
}

/* Values that differ little, far from 0 (masks near 1): each tick has a text of its own. */
static void test_plot_near_one(void **state)
{
    const double x[] = {0, 1}, y[] = {0.999981, 0.999999};
    const PlotSeries s = {"mask", x, y, 2, false, PLOT_LINE};
    const Plot p = {.title = "t", .series = &s, .nseries = 1};
    Str out = {0};
    (void)state;
    plot_svg(&p, &out);
    assert_int_equal(count(out.s, ">0.999980</text>"), 1);
    assert_int_equal(count(out.s, ">0.999990</text>") + count(out.s, ">0.99999</text>"), 1);
    assert_int_equal(count(out.s, ">1</text>"), 1); /* of x */
    str_free(&out);
}

/* A hundred thousand points draw like a few thousand: per pixel column the extremes stay. */
static void test_plot_long(void **state)
{
    enum { N = 100000 };
    double *x = xcalloc(N, sizeof *x), *y = xcalloc(N, sizeof *y);
    PlotSeries s = {"loss", x, y, N, false, PLOT_LINE};
    Plot p = {.title = "loss", .series = &s, .nseries = 1};
    Str out = {0};
    (void)state;
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i == 31415 ? 10 : (i % 7) * 0.1;
    }
    plot_svg(&p, &out);
    expect_well_formed(out.s);
    assert_true(out.len < 60000);
    assert_non_null(strstr(out.s, ">10</text>")); /* the outlier is on the axis ... */
    {
        char top[32]; /* ... and in the curve: the plot area begins below the title and one legend
                         row */
        snprintf(top, sizeof top, " %.1f", 54.0);
        assert_non_null(strstr(strstr(out.s, "class=\"l c0\" d=\"M") + 40, top));
    }
    str_free(&out);
    free(x);
    free(y);
}

/* A file with several plots; QRUN_KEEP_PLOT=FILE keeps it to be looked at. */
static void test_plot_file(void **state)
{
    enum { N = 400 };
    static double x[N], a[N], b[N], c[N];
    PlotSeries loss[] = {{"loss/train", x, a, N, false, PLOT_LINE},
                         {"loss/val", x, b, N, false, PLOT_LINE}};
    PlotSeries many[12];
    PlotSeries one[] = {{"lr", x, c, N, false, PLOT_LINE}};
    Plot p[] = {{.title = "Loss",
                 .xlabel = "epoch",
                 .ylabel = "cross entropy",
                 .series = loss,
                 .nseries = 2},
                {.title = "Clipping thresholds of the activations, ResNet-20, 4 bit",
                 .xlabel = "epoch",
                 .ylabel = "alpha",
                 .series = many,
                 .nseries = 12},
                {.title = "Learning rate",
                 .xlabel = "epoch",
                 .ylabel = "lr",
                 .series = one,
                 .nseries = 1,
                 .log_y = true}};
    const char *keep = getenv("QRUN_KEEP_PLOT");
    char path[128], names[12][48], *data;
    double ys[12][N / 20], xs[N / 20];
    size_t len;
    Err e = {0};
    (void)state;
    for (int i = 0; i < N; i++) {
        x[i] = i * 0.75;
        a[i] = 2.3 * exp(-i / 80.0) + 0.1 + 0.05 * sin(i * 12.9898);
        b[i] = 2.3 * exp(-i / 90.0) + 0.25;
        c[i] = i < 200 ? 0.04 : i < 300 ? 0.004 : 0.0004;
    }
    for (int k = 0; k < 12; k++) {
        snprintf(names[k], sizeof names[k], "layer%d.%d.conv1.act_alpha", k / 3 + 1, k % 3);
        many[k] = (PlotSeries){names[k], xs, ys[k], N / 20, true, PLOT_LINE};
        for (int i = 0; i < N / 20; i++) {
            xs[i] = i * 15;
            ys[k][i] = 8 * exp(-i / 8.0) + 0.4 * k;
        }
    }
    snprintf(path, sizeof path, "%s/plot.svg", dir);
    assert_int_equal(plot_write(keep ? keep : path, p, 3, &e), 0);
    data = fs_read(keep ? keep : path, 0, &len, &e);
    assert_non_null(data);
    expect_well_formed(data);
    assert_int_equal(count(data, "<svg "), 4);
    free(data);
    assert_int_equal(plot_write("/nonexistent/folder/plot.svg", p, 3, &e), -1);
    assert_int_equal(e.kind, ERR_RUN);
}

/* ---- the same as pixels ---- */

static Image png_of(const Plot *p, double scale)
{
    Image im = {0};
    char path[128], *data;
    size_t len;
    Err e = {0};
    snprintf(path, sizeof path, "%s/plot.png", dir);
    if (plot_write_png(path, p, scale, &e)) fail_msg("%s", e.msg);
    data = fs_read(path, 0, &len, &e);
    assert_non_null(data);
    if (decode_image(data, len, DECODER_AUTO, path, &im, &e)) fail_msg("%s", e.msg);
    free(data);
    assert_int_equal(unlink(path), 0);
    return im;
}

/* Pixels of just that colour within a rectangle given as shares of the picture. */
static int pixels(const Image *im, int colour, double left, double top, double right, double bottom)
{
    int n = 0;
    for (int y = (int)(top * im->h); y < bottom * im->h; y++)
        for (int x = (int)(left * im->w); x < right * im->w; x++) {
            const unsigned char *c = &im->px[3 * (y * im->w + x)];
            n += (c[0] << 16 | c[1] << 8 | c[2]) == colour;
        }
    return n;
}

enum { PAPER = 0xffffff, FIRST = 0x0067a5, SECOND = 0xd1490a, GRID = 0xe3e3e3, WORDS = 0x1a1a1a };

static void test_png(void **state)
{
    const double x[] = {0, 10}, y[] = {5, 5}, z[] = {0, 10};
    PlotSeries s[] = {{"level", x, y, 2, false, PLOT_LINE}, {"rising", x, z, 2, true, PLOT_LINE}};
    Plot p = {.title = "Title", .xlabel = "x (m)", .ylabel = "y (s)", .series = s, .nseries = 2};
    Image one = png_of(&p, 1), two = png_of(&p, 2);
    int level, words;
    (void)state;
    assert_int_equal(one.w, 640);
    assert_int_equal(one.h, 360);
    assert_int_equal(two.w, 1280);
    assert_int_equal(two.h, 720);
    /* The level line: 3.4 pixels wide, three of them whole, from the axis to 20 from the edge; and
     * its place in the legend. */
    level = pixels(&two, FIRST, 0, 0, 1, 1);
    if (level < 2 * 1100 || level > 4 * 1300) fail_msg("%d pixels of the level line", level);
    if (pixels(&two, FIRST, 0.1, 0.3, 0.97, 0.45) || pixels(&two, FIRST, 0.1, 0.6, 0.97, 0.8))
        fail_msg("the level line is not level");
    /* The rising one: from below on the left to above on the right, and not the other way. */
    assert_true(pixels(&two, SECOND, 0.1, 0.7, 0.4, 0.9) > 100);
    assert_true(pixels(&two, SECOND, 0.7, 0.15, 0.98, 0.4) > 100);
    assert_int_equal(pixels(&two, SECOND, 0.7, 0.7, 1, 1), 0);
    assert_true(pixels(&two, GRID, 0.1, 0.1, 1, 0.9) > 1000);
    words = pixels(&two, WORDS, 0, 0, 0.2, 0.08); /* the title; nothing of it further right */
    if (words < 100 || pixels(&two, WORDS, 0.2, 0, 1, 0.08)) fail_msg("title: %d pixels", words);
    /* The y label stands upright at the left, in the middle. */
    assert_true(pixels(&two, 0x333333, 0, 0.4, 0.04, 0.65) > 20);
    assert_int_equal(pixels(&two, PAPER, 0, 0.8, 0.03, 1), (int)ceil(0.03 * 1280) * (720 - 576));
    free(one.px);
    free(two.px);
}

/* Dashes, bars, rules; a title too long and with letters of several bytes; no data. */
static void test_png_marks(void **state)
{
    double x[] = {0, 1, 2, 3}, y[] = {1, 2, 4, 0}, at[] = {0.5, 2.5}, none[] = {NAN, NAN};
    PlotSeries s[10] = {{"bars", x, y, 4, false, PLOT_BARS},
                        {"rules", at, NULL, 2, false, PLOT_RULES}};
    Plot p = {
        .title = "\xC3\xA4\xE2\x80\xA6 a title that is much too long for the width of the picture, "
                 "and so is cut at its right edge",
        .series = s,
        .nseries = 2};
    Image im = png_of(&p, 2);
    int bars, dashes, whole;
    (void)state;
    /* Bars are laid on with 75 %: the highest takes a quarter of the width, up to the top. */
    bars = pixels(&im, 0x408dbc, 0, 0, 1, 1);
    if (bars < 100000) fail_msg("bars: %d pixels", bars);
    assert_int_equal(pixels(&im, 0x408dbc, 0.77, 0.2, 1, 0.8), 0); /* the bar of nothing */
    assert_true(pixels(&im, SECOND, 0, 0.2, 1, 1) >= 2 * 400);
    free(im.px);
    for (int i = 0; i < 10; i++)
        s[i] = (PlotSeries){
            i == 0 || i == 8 ? "s" : "", at, i == 8 ? x : i ? none : y, 2, false, PLOT_LINE};
    s[8].y = x + 1; /* the ninth has the first one's colour, dashed: y from 1 to 2 as well */
    p.nseries = 10;
    im = png_of(&p, 2);
    whole = pixels(&im, FIRST, 0, 0.2, 1, 1); /* drawn twice: once is enough */
    free(im.px);
    s[0].y = none;
    im = png_of(&p, 2);
    dashes = pixels(&im, FIRST, 0, 0.2, 1, 1);
    if (dashes < 0.4 * whole || dashes > 0.85 * whole)
        fail_msg("%d pixels of a dashed line, %d of a whole one", dashes, whole);
    free(im.px);
    s[8].y = none;
    im = png_of(&p, 2);
    assert_int_equal(pixels(&im, FIRST, 0, 0.2, 1, 1), 0);
    free(im.px);
    {
        Err e = {0};
        assert_int_equal(plot_write_png("/nonexistent/folder/plot.png", &p, 2, &e), -1);
        assert_int_equal(e.kind, ERR_RUN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_record_bytes, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_damage, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_histogram, make_dir, remove_dir),
        cmocka_unit_test(test_plot),
        cmocka_unit_test(test_plot_edges),
        cmocka_unit_test(test_plot_long),
        cmocka_unit_test(test_plot_near_one),
        cmocka_unit_test_setup_teardown(test_plot_file, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_png, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_png_marks, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
