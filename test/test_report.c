/* test/test_report.c -- what reports are made of: pictures of layers, figures of methods, marks of
 * plots. How a report looks is for test/report.sh. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/plot.h"
#include "quant/qplan.h"
#include "run/clips.h"
#include "run/layerview.h"

static Model *net(const char *model, const char *method, int bits, bool power)
{
    NetOpts no = {
        .model = model, .names = "", .num_classes = 10, .in_c = 3, .in_h = 32, .in_w = 32};
    QOpts qo;
    Err e = {0};
    Model *m;
    qopts_default(&qo);
    qo.wt_quant = qo.fm_quant = method;
    qo.wt_bit = bits;
    qo.fm_bit = 4;
    qo.power = power;
    m = model_new(&no, &qo, 0, 1, &e);
    if (!m) print_message("%s\n", e.msg);
    assert_non_null(m);
    return m;
}

static const LayerView *view_of(const LayerViews *l, const char *name)
{
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->v[i].name, name)) return &l->v[i];
    fail_msg("no layer %s", name);
    return NULL;
}

/* Shares add up to all weights; levels ascend and are as many as the bits allow. */
static void check_view(const LayerView *v)
{
    double sum = 0;
    for (int k = 0; k < VIEW_BINS; k++) sum += v->share[k];
    if (fabs(sum - 100) > 1e-6) fail_msg("%s: the histogram adds up to %g", v->name, sum);
    if (!v->method) {
        assert_int_equal(v->nlevels, 0);
        assert_true(isnan(v->sqnr));
        return;
    }
    if (v->nlevels < 2 || v->nlevels > 1 << v->bits)
        fail_msg("%s: %d levels of %d bits", v->name, v->nlevels, v->bits);
    for (int k = 1; k < v->nlevels; k++)
        if (!(v->level[k] > v->level[k - 1]))
            fail_msg("%s: level %d is not above the one before", v->name, k);
}

/* APoT normalises its weights: the levels must nevertheless stand where the weights that take them
 * are. Those of a normal distribution of 3 deviations have known errors. */
static void test_apot(void **state)
{
    double before = 0;
    (void)state;
    for (int bits = 2; bits <= 5; bits++) {
        Model *m = net("resnet20", "apot", bits, true);
        const LayerView *v;
        const Param *w;
        LayerViews l;
        double mean = 0, square = 0, outer;
        size_t n;
        layerviews_make(&l, m, 0);
        assert_int_equal(l.n, 22); /* convolutions, two shortcuts among them, and the classifier */
        for (int i = 0; i < l.n; i++) check_view(&l.v[i]);
        v = view_of(&l, "layer3.1.conv2");
        if (!(v->sqnr > before + 2)) fail_msg("%d bits: %g dB after %g", bits, v->sqnr, before);
        before = v->sqnr;
        if (view_of(&l, "conv1")->sqnr < 35) fail_msg("8 bits: %g dB", view_of(&l, "conv1")->sqnr);
        w = store_find(model_store(m), "layer3.1.conv2.weight");
        assert_non_null(w);
        n = tensor_len(&w->value);
        for (size_t i = 0; i < n; i++)
            mean += (double)((const float *)w->value.data)[i] / (double)n;
        for (size_t i = 0; i < n; i++)
            square += pow((double)((const float *)w->value.data)[i] - mean, 2) / (double)n;
        outer = v->level[v->nlevels - 1];
        /* The initial clip level is 3 deviations. */
        if (bits >= 3 && fabs(outer - (mean + 3 * sqrt(square))) > 0.05 * outer)
            fail_msg("%d bits: the largest level at %g instead of %g", bits, outer,
                     mean + 3 * sqrt(square));
        layerviews_free(&l);
        model_free(m);
    }
}

static void test_fat(void **state)
{
    Model *m = net("resnet20", "fat", 4, false);
    LayerViews l;
    ClipList c = {0};
    int masks = 0;
    (void)state;
    layerviews_make(&l, m, 0);
    for (int i = 0; i < l.n; i++) {
        const LayerView *v = &l.v[i];
        check_view(v);
        if (!str_eq(v->method, "fat")) continue;
        if (v->nspectrum < 2) fail_msg("%s: a spectrum of %d", v->name, v->nspectrum);
        assert_true(v->frequency[0] == 0);
        assert_true(v->frequency[v->nspectrum - 1] <= 0.5);
        for (int k = 0; k < v->nspectrum; k++) {
            if (!(v->mask[k] > 0.5 && v->mask[k] <= 1)) /* the transform begins positive */
                fail_msg("%s: mask %g at %g", v->name, v->mask[k], v->frequency[k]);
            assert_true(v->mask_low[k] <= v->mask[k] + 1e-6 &&
                        v->mask_high[k] >= v->mask[k] - 1e-6);
            assert_true(v->magnitude[k] >= 0 && v->magnitude[k] <= 1);
        }
    }
    assert_int_equal(view_of(&l, "layer1.0.conv1")->nspectrum, 16 * 9 / 2 + 1);
    assert_true(view_of(&l, "layer1.0.conv1")->frequency[16] == 16.0 / 144);
    clips_collect(m, &c);
    for (int i = 0; i < c.n; i++) {
        if (!str_starts(c.tag[i], "mask_mean/")) continue;
        masks++;
        assert_true(c.value[i] > 0.5 && c.value[i] <= 1);
    }
    assert_int_equal(masks, 20);
    clips_free(&c);
    layerviews_free(&l);
    model_free(m);
}

/* The figure of one layer, or NaN. */
static double flips(Model *m, const char *tag)
{
    ClipList c = {0};
    double v = (double)NAN;
    clips_collect(m, &c);
    for (int i = 0; i < c.n; i++)
        if (str_eq(c.tag[i], tag)) v = c.value[i];
    clips_free(&c);
    return v;
}

static void test_flips(void **state)
{
    static const char tag[] = "flips/layer1.0.conv1";
    Model *m = net("resnet20", "hysteresis", 1, true);
    Param *w = store_find(model_store(m), "layer1.0.conv1.weight"),
          *latent = store_find(model_store(m), "layer1.0.conv1.latent");
    const size_t n = tensor_len(&w->value);
    float *l = latent->value.data;
    LayerViews views;
    double got;
    (void)state;
    assert_true(isnan(flips(m, tag))); /* nothing has been updated */
    for (size_t i = 0; i < n; i++) l[i] = ((float *)w->value.data)[i] = i % 2 ? 1.0f : -1.0f;
    model_after_step(m);
    assert_true(flips(m, tag) == 0);
    for (size_t i = 0; i < n / 4; i++) l[i] = -l[i]; /* beyond the threshold: they flip */
    l[n - 1] *= -0.01f; /* below it: scaled, its sign follows all the same */
    model_after_step(m);
    model_after_step(m); /* no further change: half as many per update */
    got = flips(m, tag);
    if (fabs(got - 100.0 * (double)(n / 4 + 1) / (double)(2 * n)) > 1e-9)
        fail_msg("flips: %g %%", got);
    assert_true(isnan(flips(m, tag))); /* counts begin anew */
    layerviews_make(&views, m, 0);
    check_view(view_of(&views, "layer1.0.conv1"));
    assert_int_equal(view_of(&views, "conv1")->nlevels, 0);
    layerviews_free(&views);
    model_free(m);
}

static int count(const char *s, const char *what)
{
    int n = 0;
    for (; (s = strstr(s, what)); s += strlen(what)) n++;
    return n;
}

static void test_marks(void **state)
{
    const double x[] = {0, 1, 2, 3}, y[] = {1, 4, 0, 2}, at[] = {-1, 1.5, 7};
    const PlotSeries s[] = {{.name = "bars", .x = x, .y = y, .n = 4, .mark = PLOT_BARS},
                            {.name = "rules", .x = at, .n = 3, .mark = PLOT_RULES}};
    Plot p = {.title = "t", .xlabel = "x (m)", .ylabel = "y (s)", .series = s, .nseries = 2};
    Str out = {0};
    const char *bars, *rules;
    (void)state;
    plot_svg(&p, &out);
    assert_int_equal(count(out.s, "<style>"), 1);
    bars = strstr(out.s, "class=\"f c0\"");
    rules = strstr(out.s, "class=\"r c1\"");
    assert_non_null(bars);
    assert_non_null(rules);
    *strchr(strchr(bars, '\n'), '\n') = 0;
    assert_int_equal(count(bars, "z"), 3); /* a bar of nothing is not drawn */
    *strchr(rules, '\n') = 0;
    assert_int_equal(count(rules, "M"), 3);
    str_free(&out);
    p.bare = true;
    plot_svg(&p, &out);
    assert_int_equal(count(out.s, "<style>"), 0);
    assert_non_null(strstr(out.s, ">-1<")); /* rules widen the axis */
    str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apot),
        cmocka_unit_test(test_fat),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
