/* test/test_links.c -- which layer owns the clip level of a layer's input, and which one consumes
 * its output; fixed-point formats at their edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "nets/nets.h"
#include "quant/fixed.h"
#include "quant/links.h"

static int layer(const Spec *s, const char *name, bool conv_suffix)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", name, conv_suffix ? ".conv" : "");
    for (int i = 0; i < s->n; i++)
        if (str_eq(s->u[i].name, full) && (s->u[i].kind == U_CONV || s->u[i].kind == U_LINEAR))
            return i;
    return -1;
}

/* A layer of the list by its name; the classifier has no ".conv". */
static int find(const Spec *s, const char *name)
{
    const int i = layer(s, name, true);
    return i >= 0 ? i : layer(s, name, false);
}

/* Columns: layer, owner ("none(1.0)": the image has no clip level), follower ("-": none), sign. */
static void expect_links(const char *file, const char *model)
{
    NetOpts o = {.model = model, .names = "f8net", .num_classes = 1000, .in_c = 3};
    Spec s = {0};
    Links l;
    Err e = {0};
    char path[256], line[512];
    FILE *f;
    int layers = 0, expected = 0;
    o.in_h = o.in_w = 224;
    if (net_build(&s, &o, &e)) fail_msg("%s: %s", model, e.msg);
    links_find(&l, &s, false);
    snprintf(path, sizeof path, "test/state_dicts/%s", file);
    f = fopen(path, "r");
    if (!f) fail_msg("%s: cannot open", path);
    while (fgets(line, sizeof line, f)) {
        char name[128], owner[128], next[128], sign[32];
        int u, want;
        if (line[0] == '#') continue;
        assert_int_equal(sscanf(line, "%127s %127s %127s %31s", name, owner, next, sign), 4);
        layers++;
        u = find(&s, name);
        if (u < 0) fail_msg("%s: no layer %s", model, name);
        want = find(&s, owner);
        if (!str_starts(owner, "none") && l.clip_owner[u] != want)
            fail_msg("%s: the owner of %s is %s, expected %s", model, name,
                     s.u[l.clip_owner[u]].name, owner);
        want = str_eq(next, "-") ? -1 : find(&s, next);
        if (l.feeds[u] != want)
            fail_msg("%s: %s feeds %s, expected %s", model, name,
                     l.feeds[u] < 0 ? "nothing" : s.u[l.feeds[u]].name, next);
        if (((s.u[u].marks & UM_SIGNED) != 0) != str_eq(sign, "signed"))
            fail_msg("%s: the input of %s is %s", model, name, sign);
    }
    fclose(f);
    for (int i = 0; i < s.n; i++) {
        expected += s.u[i].kind == U_CONV || s.u[i].kind == U_LINEAR;
        if (s.u[i].kind == U_CONV || s.u[i].kind == U_LINEAR) continue;
        assert_int_equal(l.clip_owner[i], -1);
        assert_int_equal(l.feeds[i], -1);
    }
    assert_int_equal(layers, expected);
    links_free(&l);
    spec_free(&s);
}

static void test_f8net(void **state)
{
    (void)state;
    expect_links("f8net_resnet18.links.tsv", "resnet18");
    expect_links("f8net_resnet50.links.tsv", "resnet50");
    expect_links("f8net_mobilenetv1.links.tsv", "mobilenet_v1");
    expect_links("f8net_mobilenetv2.links.tsv", "mobilenet_v2");
}

/* In every net each layer has an owner that reads the same class, and only the last feeds nothing.
 */
static void test_all_nets(void **state)
{
    (void)state;
    for (int k = 0; nets[k]; k++) {
        const NetOpts o = net_usual(nets[k]);
        Spec s = {0};
        Links l;
        Err e = {0};
        if (net_build(&s, &o, &e)) fail_msg("%s: %s", o.model, e.msg);
        links_find(&l, &s, false);
        for (int i = 0; i < s.n; i++) {
            if (s.u[i].kind != U_CONV && s.u[i].kind != U_LINEAR) continue;
            if (l.clip_owner[i] < 0 || l.clip_owner[i] > i)
                fail_msg("%s: %s has owner %d", o.model, s.u[i].name, l.clip_owner[i]);
            assert_int_equal(l.clip_owner[l.clip_owner[i]], l.clip_owner[i]);
            if ((l.feeds[i] < 0) != ((s.u[i].marks & UM_LAST) != 0))
                fail_msg("%s: %s feeds %d", o.model, s.u[i].name, l.feeds[i]);
            if (l.feeds[i] >= 0) assert_true(l.feeds[i] > i);
        }
        links_free(&l);
        spec_free(&s);
    }
}

static void test_formats(void **state)
{
    const Fixed s8 = {.bits = 8, .neg = true}, u8 = {.bits = 8}, s32 = {.bits = 32, .neg = true};
    float x[] = {NAN, HUGE_VALF, -HUGE_VALF, 0.75f}, y[4];
    (void)state;
    assert_int_equal(fixed_max_fl(s8), 7);
    assert_int_equal(fixed_max_fl(u8), 8);
    assert_true(fixed_top(s8) == 127 && fixed_top(u8) == 255 && fixed_top(s32) == 2147483648.0f);
    assert_int_equal(fixed_round_fl(u8, 2.5f), 2);
    assert_int_equal(fixed_round_fl(u8, 3.5f), 4);
    assert_int_equal(fixed_round_fl(s8, 7.6f), 7);
    assert_int_equal(fixed_round_fl(s8, -3), 0);
    assert_int_equal(fixed_round_fl(s8, NAN), 0);
    assert_int_equal(fixed_fl_of(u8, FM_STD, 0), 8);
    assert_int_equal(fixed_fl_of(u8, FM_STD, 1e30), 0);
    assert_int_equal(fixed_fl_of(u8, FM_STD, (double)NAN), 0);
    fixed_row(u8, 2, x, y, 4);
    assert_true(isnan(y[0])); /* seen by the check of the loss, not hidden */
    assert_true(y[1] == 63.75f && y[2] == 0 && y[3] == 0.75f);
    assert_int_equal(fixed_fl_search(u8, x, 0, NULL), 0);
}

/* The same statistic whatever the stride, and a tensor larger than one chunk. */
static void test_statistics(void **state)
{
    enum { N = 20000, C = 3 };
    float *x = xcalloc(N * C, sizeof *x), *one = xcalloc(N, sizeof *one);
    (void)state;
    for (int i = 0; i < N * C; i++) x[i] = sinf((float)i) * (float)(1 + i % C);
    for (int m = FM_STD; m <= FM_RMS; m++)
        for (int k = 0; k < C; k++) {
            double a, b;
            for (int i = 0; i < N; i++) one[i] = x[i * C + k];
            a = fixed_statistic((FixedMetric)m, x + k, N, C);
            b = fixed_statistic((FixedMetric)m, one, N, 1);
            if (fabs(a - b) > 1e-12 * b) fail_msg("metric %d: %.17g by stride, %.17g", m, a, b);
        }
    free(x);
    free(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f8net),
        cmocka_unit_test(test_all_nets),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_statistics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
