/* test/test_nets.c -- names, order, shapes and sizes of the nets' parameters; looking nets up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nets/nets.h"

static NetOpts opts(const char *model, const char *names, int depth, int classes, int c, int size)
{
    return (NetOpts){.model = model,
                     .names = names,
                     .depth = depth,
                     .num_classes = classes,
                     .in_c = c,
                     .in_h = size,
                     .in_w = size};
}

static void build(Spec *s, const NetOpts *o)
{
    Err e = {0};
    if (net_build(s, o, &e)) fail_msg("%s: %s", o->model, e.msg);
}

/* "name<TAB>shape<NL>" of every tensor a conv, linear or batch norm unit has in a state dict, in
 * order of declaration. */
static void list_tensors(const Spec *s, Str *out, bool counters)
{
    int *order = xcalloc((size_t)s->n, sizeof *order);
    spec_declaration_order(s, order);
    for (int i = 0; i < s->n; i++) {
        static const char *const norm[] = {"weight", "bias", "running_mean", "running_var"};
        const Unit *u = &s->u[order[i]];
        const ConvAttr *a = &u->u.conv;
        if (u->kind == U_CONV) {
            str_printf(out, "%s.weight\t%dx%dx%dx%d\n", u->name, u->c, u->ic / a->groups, a->k,
                       a->k);
            if (a->bias) str_printf(out, "%s.bias\t%d\n", u->name, u->c);
        } else if (u->kind == U_LINEAR) {
            str_printf(out, "%s.weight\t%dx%d\n", u->name, u->c, u->ic);
            if (u->u.linear.bias) str_printf(out, "%s.bias\t%d\n", u->name, u->c);
        } else if (u->kind == U_NORM) {
            for (int k = 0; k < 4; k++) str_printf(out, "%s.%s\t%d\n", u->name, norm[k], u->c);
            if (counters) str_printf(out, "%s.num_batches_tracked\t-\n", u->name);
        }
    }
    free(order);
}

/* Entries of a state dict that belong to quantizers, not to the net. */
static bool of_quantizer(const char *line)
{
    return strstr(line, "_alpha") || strstr(line, ".alpha\t") || strstr(line, ".input_fraclen\t");
}

/* Compares with test/state_dicts/FILE. */
static void expect_list(const char *file, const NetOpts *o)
{
    Spec s = {0};
    Str got = {0};
    char path[256], line[256];
    const char *p;
    FILE *f;
    int n = 0;
    bool counters = false;
    snprintf(path, sizeof path, "test/state_dicts/%s", file);
    f = fopen(path, "r");
    if (!f) fail_msg("%s: cannot open", path);
    while (fgets(line, sizeof line, f)) counters |= strstr(line, "num_batches_tracked") != NULL;
    rewind(f);
    build(&s, o);
    list_tensors(&s, &got, counters);
    p = got.s;
    while (fgets(line, sizeof line, f)) {
        size_t len = strlen(line);
        n++;
        if (line[0] == '#' || of_quantizer(line)) continue;
        if (strncmp(p, line, len))
            fail_msg("%s:%d: expected %.*s, the net has %.*s", path, n, (int)len - 1, line,
                     (int)strcspn(p, "\n"), p);
        p += len;
    }
    if (*p) fail_msg("%s: the net has more: %.*s", path, (int)strcspn(p, "\n"), p);
    fclose(f);
    str_free(&got);
    spec_free(&s);
}

static void test_lists(void **state)
{
    NetOpts o;
    (void)state;
    o = opts("res20", "", 0, 10, 3, 32);
    expect_list("apot_res20_32bit.tsv", &o);
    expect_list("apot_res20_4bit.tsv", &o);
    o = opts("mnist_resnet10", "", 0, 10, 1, 28);
    expect_list("apot_mnist_resnet10_4bit.tsv", &o);
    o = opts("resnet50", "", 0, 1000, 3, 224);
    expect_list("torchvision_resnet50.tsv", &o);
    o = opts("models.fix_resnet", "", 18, 1000, 3, 224);
    expect_list("f8net_resnet18.tsv", &o);
    o = opts("resnet50", "f8net", 0, 1000, 3, 224);
    expect_list("f8net_resnet50.tsv", &o);
    o = opts("models.fix_mobilenet_v1", "", 0, 1000, 3, 224);
    expect_list("f8net_mobilenetv1.tsv", &o);
    o = opts("mobilenet_v2", "f8net", 0, 1000, 3, 224);
    expect_list("f8net_mobilenetv2.tsv", &o);
}

static int64_t count_params(const Spec *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        if (u->kind == U_CONV)
            n += (int64_t)u->c * (u->ic / u->u.conv.groups) * u->u.conv.k * u->u.conv.k;
        else if (u->kind == U_LINEAR)
            n += (int64_t)u->c * u->ic + (u->u.linear.bias ? u->c : 0);
        else if (u->kind == U_NORM)
            n += 2 * u->c;
    }
    return n;
}

/* Published or measured sizes without the quantizers' own parameters; multiplications of one image
 * in convolutions and the classifier. */
static void test_sizes(void **state)
{
    static const struct {
        const char *model;
        int classes;
        int64_t params, macs; /* macs 0: not compared */
    } cases[] = {
        {"resnet20_cifar", 10, 272474, 40813184}, {"res56", 10, 855770, 0},
        {"resnet_20", 10, 272474, 40813184},      {"resnet18", 1000, 11689512, 1814073344},
        {"resnet34", 1000, 21797672, 3663761408}, {"resnet50", 1000, 25557032, 4089184256},
        {"resnet101", 1000, 44549160, 0},         {"resnet152", 1000, 60192808, 11513626624},
        {"mnist_resnet10", 10, 309178, 0},        {"mnist_resnet14", 10, 609274, 0},
        {"mnist_resnet18", 10, 701818, 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        NetNames names;
        const NetDef *net = net_find(cases[i].model, &names);
        NetOpts o;
        Spec s = {0};
        int64_t macs = 0;
        if (!net) fail_msg("no net '%s'", cases[i].model);
        o = opts(cases[i].model, "", 0, cases[i].classes, net->in_c, net->in_h);
        build(&s, &o);
        if (count_params(&s) != cases[i].params)
            fail_msg("%s: %lld parameters, expected %lld", o.model, (long long)count_params(&s),
                     (long long)cases[i].params);
        for (int k = 0; k < s.n; k++) macs += unit_macs(&s.u[k]);
        if (cases[i].macs && macs != cases[i].macs)
            fail_msg("%s: %lld multiplications, expected %lld", o.model, (long long)macs,
                     (long long)cases[i].macs);
        spec_free(&s);
    }
}

/* Every row builds and has one first and one last layer; those that are not of the keyword language a
 * norm behind each convolution, and a shortcut convolution wherever a stage changes the shape. */
static void test_all_rows(void **state)
{
    (void)state;
    for (int i = 0; nets[i]; i++) {
        const NetOpts o = net_usual(nets[i]);
        Spec s = {0};
        const bool free_order = nets[i]->names == NAMES_KEYWORD;
        int first = 0, last = 0, skip = 0, adds = 0;
        build(&s, &o);
        for (int k = 0; k < s.n; k++) {
            const Unit *u = &s.u[k];
            first += (u->marks & UM_FIRST) != 0;
            last += (u->marks & UM_LAST) != 0;
            skip += (u->marks & UM_SKIP) != 0;
            adds += u->kind == U_ADD;
            if (free_order) continue;
            if (u->kind == U_ADD && u->in[0] < u->in[1] && s.u[u->in[1]].kind == U_NORM)
                assert_true(strstr(nets[i]->name, "mobilenet") || /* its blocks end with a norm */
                            s.u[s.u[u->in[1]].in[0]].marks & UM_SKIP); /* body, then shortcut */
            if (u->kind == U_CONV) assert_true(u->norm >= 0);
        }
        assert_int_equal(first, 1);
        assert_int_equal(last, 1);
        assert_int_equal(s.u[s.out].c, 10);
        if (free_order) {
            /* shortcuts as its words say */
        } else if (strstr(nets[i]->name, "mobilenet")) {
            assert_true(skip == 0 && (adds == 0 || adds == 10));
        } else if (strstr(nets[i]->name, "vgg")) {
            assert_true(skip == 0 && adds == 0);
        } else {
            assert_true(skip == 2 || skip == 3 || skip == 4);
            assert_true(adds >= 4);
        }
        spec_free(&s);
    }
}

static const Unit *unit(const Spec *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->u[i].name, name)) return &s->u[i];
    fail_msg("no unit '%s'", name);
    return NULL;
}

static void test_init(void **state)
{
    Spec a = {0}, f = {0};
    NetOpts o = opts("res20", "", 0, 10, 3, 32);
    const Unit *u;
    (void)state;
    build(&a, &o);
    u = unit(&a, "layer2.0.conv1");
    assert_int_equal(u->u.conv.init.kind, INIT_NORMAL);
    assert_float_equal(u->u.conv.init.b, 0.0833333, 1e-6); /* sqrt(2 / (3 3 32)) */
    u = unit(&a, "fc");
    assert_int_equal(u->u.linear.init.kind, INIT_UNIFORM);
    assert_float_equal(u->u.linear.init.b, 0.125, 0);
    assert_float_equal(u->u.linear.bias_init.a, -0.125, 0);
    u = unit(&a, "bn1");
    assert_float_equal(u->u.norm.eps, 1e-5, 1e-12);
    assert_float_equal(u->u.norm.momentum, 0.1, 1e-8);
    o.names = "fat";
    build(&f, &o);
    u = unit(&f, "layer2.0.conv1");
    assert_int_equal(u->u.conv.init.kind, INIT_UNIFORM);
    assert_float_equal(u->u.conv.init.b, 0.0833333, 1e-6); /* 1 / sqrt(3 3 16) */
    unit(&f, "linear");
    spec_free(&a);
    spec_free(&f);
}

static void expect_fault(NetOpts o, const char *text)
{
    Spec s = {0};
    Err e = {0};
    assert_int_equal(net_build(&s, &o, &e), -1);
    assert_int_equal(e.kind, ERR_CONFIG);
    if (!strstr(e.msg, text)) fail_msg("'%s' lacks '%s'", e.msg, text);
    spec_free(&s);
}

static void test_lookup(void **state)
{
    NetNames names;
    Spec s = {0};
    NetOpts o;
    (void)state;
    assert_string_equal(net_find("res20", &names)->name, "resnet20_cifar");
    assert_int_equal(names, NAMES_APOT);
    assert_string_equal(net_find("resnet_20", &names)->name, "resnet20_cifar");
    assert_int_equal(names, NAMES_FAT);
    assert_string_equal(net_find("res18", &names)->name, "resnet18");
    assert_null(net_find("resnet19", &names));
    o = opts("resnet_cifar", "", 56, 10, 3, 32);
    build(&s, &o);
    unit(&s, "layer3.8.conv2");
    spec_free(&s);

    assert_int_equal(net_names_parse("fat"), NAMES_FAT);
    assert_int_equal(net_names_parse(""), NAMES_DEFAULT);
    assert_int_equal(net_names_parse("nonsense"), -1);
    assert_string_equal(net_names_text(NAMES_TORCHVISION), "torchvision");

    expect_fault(opts("rensnet20_cifar", "", 0, 10, 3, 32), "did you mean 'resnet20_cifar'?");
    expect_fault(opts("alexnet-of-2012", "", 0, 10, 3, 32), "unknown net 'alexnet-of-2012'");
    expect_fault(opts("resnet_cifar", "", 0, 10, 3, 32), "expected one of 20, 32, 44, 56, 110");
    expect_fault(opts("resnet_cifar", "", 21, 10, 3, 32), "has no depth 21");
    expect_fault(opts("res20", "", 56, 10, 3, 32), "has no depth 56; expected 20");
    expect_fault(opts("res20", "aopt", 0, 10, 3, 32), "did you mean 'apot'?");
    expect_fault(opts("res20", "f8net", 0, 10, 3, 32), "it has those of: apot, fat");
    expect_fault(opts("res20", "", 0, 0, 3, 32), "num_classes: 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),    cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_all_rows), cmocka_unit_test(test_init),
        cmocka_unit_test(test_lookup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
