/* test/test_spec.c -- shapes, faults, analyses and order of declaration of a Spec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/spec.h"

static const NormAttr bn = {.eps = 1e-5f, .momentum = 0.1f, .affine = true, .weight_init = 1};

static void expect_shape(const Spec *s, int unit, int c, int h, int w)
{
    const Unit *u = &s->u[unit];
    if (u->c != c || u->h != h || u->w != w)
        fail_msg("%s %s: %d x %d x %d, expected %d x %d x %d", unit_kind_name(u->kind), u->name,
                 u->c, u->h, u->w, c, h, w);
}

static void test_shapes(void **state)
{
    Spec s = {0};
    Err e = {0};
    int x = spec_input(&s, 3, 32, 20), a, b, parts[2];
    (void)state;
    a = spec_conv(&s, x, (ConvAttr){.oc = 16, .k = 7, .stride = 2, .pad = 3}, "a");
    expect_shape(&s, a, 16, 16, 10);
    assert_int_equal(unit_macs(&s.u[a]), 16 * 16 * 10 * 3 * 49);
    b = spec_conv(&s, a, (ConvAttr){.oc = 16, .k = 3, .pad = 2, .dilation = 2, .groups = 16}, "b");
    expect_shape(&s, b, 16, 16, 10);
    assert_int_equal(unit_macs(&s.u[b]), 16 * 16 * 10 * 9);
    parts[0] = a;
    parts[1] = b;
    x = spec_concat(&s, parts, 2);
    expect_shape(&s, x, 32, 16, 10);
    x = spec_pad(&s, x, 1, 0, 2, 1);
    expect_shape(&s, x, 32, 17, 13);
    a = spec_pool(&s, x, (PoolAttr){.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1});
    expect_shape(&s, a, 32, 9, 7);
    b = spec_pool(&s, x, (PoolAttr){.kind = POOL_AVG, .k = 2, .ceil_mode = true});
    expect_shape(&s, b, 32, 9, 7);
    x = spec_add(&s, a, b);
    x = spec_pad(&s, x, 0, 1, 0, 1);
    x = spec_space_to_depth(&s, x, 2);
    expect_shape(&s, x, 128, 5, 4);
    x = spec_depth_to_space(&s, x, 2);
    expect_shape(&s, x, 32, 10, 8);
    x = spec_scale(&s, x, 1, "scale");
    x = spec_shift(&s, x, 0, "shift");
    x = spec_dropout(&s, x, 0.5f);
    x = spec_flatten(&s, x);
    expect_shape(&s, x, 2560, 1, 1);
    x = spec_linear(&s, x, (LinearAttr){.out = 10, .bias = true}, "fc");
    expect_shape(&s, x, 10, 1, 1);
    assert_int_equal(unit_macs(&s.u[x]), 25600);
    if (spec_finish(&s, x, &e)) fail_msg("%s", e.msg);
    assert_int_equal(s.out, x);
    spec_free(&s);
}

/* In ceil mode a window that would start in the right padding is dropped: PyTorch gives 2 here,
 * not 3. */
static void test_ceil_mode(void **state)
{
    Spec s = {0};
    int x = spec_input(&s, 1, 3, 3);
    (void)state;
    x = spec_pool(&s, x,
                  (PoolAttr){.kind = POOL_MAX, .k = 2, .stride = 2, .pad = 1, .ceil_mode = true});
    expect_shape(&s, x, 1, 2, 2);
    spec_free(&s);
}

static void test_analyses(void **state)
{
    Spec s = {0};
    Err e = {0};
    int in = spec_input(&s, 3, 8, 8), c1, n1, r1, c2, n2, add, fc;
    (void)state;
    c1 = spec_conv(&s, in, (ConvAttr){.oc = 4, .k = 3, .pad = 1}, "c1");
    n1 = spec_norm(&s, c1, bn, "n1");
    r1 = spec_act(&s, n1, (ActAttr){.kind = AK_RELU}, "r1");
    c2 = spec_conv(&s, r1, (ConvAttr){.oc = 4, .k = 1}, "c2");
    n2 = spec_norm(&s, c2, bn, "n2");
    add = spec_add(&s, n2, c2); /* c2 has two readers: no norm of its own */
    add = spec_add(&s, add, r1);
    add = spec_add(&s, add, add); /* one reader, twice */
    fc = spec_pool(&s, add, (PoolAttr){.kind = POOL_GLOBAL_AVG});
    fc = spec_linear(&s, fc, (LinearAttr){.out = 2}, "fc");
    spec_mark(&s, c1, UM_FIRST);
    spec_mark(&s, fc, UM_LAST);
    if (spec_finish(&s, fc, &e)) fail_msg("%s", e.msg);
    assert_int_equal(s.u[c1].norm, n1);
    assert_int_equal(s.u[c2].norm, -1);
    assert_int_equal(s.u[c2].nreaders, 2);
    assert_int_equal(s.u[c2].reader, -1);
    assert_int_equal(s.u[n1].reader, r1);
    assert_int_equal(s.u[add - 1].nreaders, 1);
    assert_int_equal(s.u[add - 1].reader, add);
    assert_int_equal(s.u[fc].nreaders, 0);
    assert_int_equal(s.u[c1].marks, UM_FIRST);
    spec_free(&s);
}

static void test_order(void **state)
{
    Spec s = {0};
    Err e = {0};
    static const char *const expect[] = {"", "c1", "c2", "c3", "n1", "n2"};
    int x = spec_input(&s, 1, 1, 1), n1, c2, c3, order[6];
    (void)state;
    x = spec_conv(&s, x, (ConvAttr){.oc = 1, .k = 1}, "c1");
    n1 = spec_norm(&s, x, bn, "n1");
    c2 = spec_conv(&s, n1, (ConvAttr){.oc = 1, .k = 1}, "c2");
    x = spec_norm(&s, c2, bn, "n2");
    c3 = spec_conv(&s, x, (ConvAttr){.oc = 1, .k = 1}, "c3");
    spec_declare_before(&s, c2, n1);
    spec_declare_before(&s, c3, n1); /* just before: after c2 */
    if (spec_finish(&s, c3, &e)) fail_msg("%s", e.msg);
    spec_declaration_order(&s, order);
    for (int i = 0; i < 6; i++) assert_string_equal(s.u[order[i]].name, expect[i]);
    spec_free(&s);
}

typedef int (*Build)(Spec *s, int x); /* returns the output unit */

static int bad_shape(Spec *s, int x)
{
    x = spec_conv(s, x, (ConvAttr){.oc = 4, .k = 33}, "big");
    x = spec_flatten(s, x);
    return spec_linear(s, x, (LinearAttr){.out = 10}, "fc");
}

static int bad_add(Spec *s, int x)
{
    int y = spec_conv(s, x, (ConvAttr){.oc = 4, .k = 1}, "c");
    return spec_pool(s, spec_add(s, x, y), (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

static int bad_groups(Spec *s, int x)
{
    x = spec_conv(s, x, (ConvAttr){.oc = 4, .k = 1, .groups = 2}, "c");
    return spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

static int bad_name(Spec *s, int x)
{
    x = spec_conv(s, x, (ConvAttr){.oc = 4, .k = 1}, "same");
    x = spec_norm(s, x, bn, "same");
    return spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

static int bad_dead(Spec *s, int x)
{
    spec_act(s, x, (ActAttr){.kind = AK_RELU}, "unused");
    return spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

static int bad_linear(Spec *s, int x)
{
    return spec_linear(s, x, (LinearAttr){.out = 10}, "fc");
}

static int bad_size(Spec *s, int x)
{
    for (int i = 0; i < 12; i++) x = spec_pad(s, x, 1 << 28, 1 << 28, 1 << 28, 1 << 28);
    return spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

static int bad_output(Spec *s, int x)
{
    return spec_conv(s, x, (ConvAttr){.oc = 4, .k = 1}, "c");
}

static int bad_pool(Spec *s, int x)
{
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_MAX, .k = 2, .pad = 2});
    return spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

static int bad_unused(Spec *s, int x)
{
    const int a = spec_act(s, x, (ActAttr){.kind = AK_PRELU}, "a");
    spec_mark(s, a, UM_UNUSED);
    return spec_pool(s, spec_add(s, a, x), (PoolAttr){.kind = POOL_GLOBAL_AVG});
}

/* Units that only declare parameters are nobody's readers. */
static void test_unused(void **state)
{
    Spec s = {0};
    Err e = {0};
    int x = spec_input(&s, 3, 32, 32), c, extra;
    (void)state;
    c = spec_conv(&s, x, (ConvAttr){.oc = 4, .k = 1}, "c");
    extra = spec_norm(&s, c, (NormAttr){.eps = 1e-5f, .affine = true}, "extra");
    spec_mark(&s, extra, UM_UNUSED);
    x = spec_norm(&s, c, (NormAttr){.eps = 1e-5f, .affine = true}, "n");
    if (spec_finish(&s, spec_pool(&s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG}), &e)) fail_msg("%s", e.msg);
    assert_int_equal(s.u[c].nreaders, 1);
    assert_int_equal(s.u[c].reader, x);
    assert_int_equal(s.u[c].norm, x);
    spec_free(&s);
}

/* Builders go on after a fault; spec_finish names the first one. */
static void test_faults(void **state)
{
    static const struct {
        Build build;
        const char *text;
    } cases[] = {
        {bad_shape, "conv big (unit 1): output of 4 x 0 x 0 from an input of 3 x 32 x 32"},
        {bad_add, "add (unit 2): unit 0 is 3 x 32 x 32, unit 1 is 4 x 32 x 32"},
        {bad_groups, "2 groups do not divide 3 input and 4 output channels"},
        {bad_name, "norm same (unit 2): unit 1 has the same name"},
        {bad_dead, "act unused (unit 1): nothing reads it"},
        {bad_unused, "act a (unit 1): is marked as unused and is read"},
        {bad_linear, "reads 3 x 32 x 32; flatten it first"},
        {bad_size, "is too large"},
        {bad_output, "not logits"},
        {bad_pool, "padding is at most half the kernel"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Spec s = {0};
        Err e = {0};
        int x = spec_input(&s, 3, 32, 32), out = cases[i].build(&s, x);
        assert_int_equal(spec_finish(&s, out, &e), -1);
        assert_int_equal(e.kind, ERR_CONFIG);
        if (!strstr(e.msg, cases[i].text)) fail_msg("'%s' lacks '%s'", e.msg, cases[i].text);
        spec_free(&s);
    }
}

static void test_print(void **state)
{
    Spec s = {0};
    Str out = {0};
    Err e = {0};
    int x = spec_input(&s, 3, 32, 32);
    (void)state;
    x = spec_conv(&s, x, (ConvAttr){.oc = 16, .k = 3, .stride = 2, .pad = 1}, "conv1");
    spec_mark(&s, x, UM_FIRST | UM_SKIP | UM_SIGNED | UM_WIDE);
    x = spec_act(&s, x, (ActAttr){.kind = AK_RELU}, "%s", "");
    spec_mark(&s, x, UM_INNER);
    x = spec_pool(&s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
    assert_int_equal(spec_finish(&s, x, &e), 0);
    spec_print(&s, &out);
    assert_string_equal(out.s, "  0 input : 3 x 32 x 32\n"
                               "  1 conv conv1 3x3 stride 2 pad 1 <- 0 : 16 x 16 x 16 first skip "
                               "signed wide\n"
                               "  2 act relu <- 1 : 16 x 16 x 16 inner\n"
                               "  3 pool global avg <- 2 : 16 x 1 x 1 out\n");
    str_free(&out);
    spec_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),   cmocka_unit_test(test_ceil_mode),
        cmocka_unit_test(test_analyses), cmocka_unit_test(test_order),
        cmocka_unit_test(test_faults),   cmocka_unit_test(test_print),
        cmocka_unit_test(test_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
