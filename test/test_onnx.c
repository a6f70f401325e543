/* test/test_onnx.c -- float nets as ONNX files: every net of the registry, and one that has every
 * kind of unit, with random parameters and running statistics; what must be refused; damaged files.
 * By default one depth of each family, QRUN_FULL=1: all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "run/export.h"
#include "test/onnx_net.h"

enum { BATCH = 2 };

/* ---- nets ---- */

/* Every kind of unit, every attribute away from its default. */
static int every_unit(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const NormAttr bn = {
        .kind = NK_BATCH, .eps = 1e-3f, .momentum = 0.1f, .affine = true, .weight_init = 1};
    const NormAttr plain = {.kind = NK_FROZEN, .eps = 1e-5f, .momentum = 0.1f};
    const ConvAttr a = {.oc = 8, .k = 3, .pad = 2, .dilation = 2, .bias = true},
                   b = {.oc = 8, .k = 3, .stride = 2, .pad = 1, .groups = 4},
                   c = {.oc = 12, .k = 1, .bias = true};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w), y, z;
    (void)net, (void)names;
    x = spec_conv(s, x, a, "a.conv");
    x = spec_norm(s, x, bn, "a.norm");
    x = spec_act(s, x, (ActAttr){.kind = AK_LEAKY, .slope = 0.1f}, "a.act");
    y = spec_pool(s, x,
                  (PoolAttr){.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1, .ceil_mode = true});
    z = spec_pool(
        s, x,
        (PoolAttr){
            .kind = POOL_AVG, .k = 3, .stride = 2, .pad = 1, .count_pad = true, .ceil_mode = true});
    x = spec_conv(s, x, b, "b.conv");
    if (s->u[y].h != s->u[x].h) { /* odd maps: the windows of the pools reach beyond */
        x = spec_pad(s, x, 0, 1, 1, 0);
    }
    x = spec_act(s, x, (ActAttr){.kind = AK_PRELU, .slope = 0.25f}, "b.act");
    x = spec_concat(s, (const int[]){x, y, z}, 3);
    x = spec_norm(s, x, plain, "b.norm");
    x = spec_space_to_depth(s, x, 2);
    x = spec_conv(s, x, c, "c.conv");
    x = spec_depth_to_space(s, x, 2);
    y = spec_scale(s, x, 0.7f, "c.scale");
    x = spec_shift(s, x, -0.3f, "c.shift");
    x = spec_act(s, spec_add(s, x, y), (ActAttr){.kind = AK_RELU6, .slope = 0}, "c.act");
    x = spec_pad(s, x, 1, 0, 2, 1);
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_AVG, .k = 3, .stride = 2, .pad = 1});
    x = spec_dropout(s, x, 0.5f);
    x = spec_act(s, spec_flatten(s, x), (ActAttr){.kind = AK_NONE, .slope = 0}, "c.none");
    x = spec_linear(s, x, (LinearAttr){.out = 16, .bias = true, .init = {INIT_NORMAL, 0, 0.2f}},
                    "d.linear");
    x = spec_norm(s, x, bn, "d.norm");
    x = spec_act(s, x, (ActAttr){.kind = AK_PRELU, .slope = 0.5f}, "d.act");
    x = spec_add(s, x, spec_act(s, x, (ActAttr){.kind = AK_RELU, .slope = 0}, "d.act"));
    x = spec_linear(s, x, (LinearAttr){.out = o->num_classes, .init = {INIT_NORMAL, 0, 0.2f}},
                    "d.last");
    return spec_finish(s, x, e);
}

/* The logits are a 1x1 map, the input of the classifier is not flattened. */
static int maps_only(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    int x = spec_input(s, o->in_c, o->in_h, o->in_w);
    (void)net, (void)names;
    x = spec_conv(s, x, (ConvAttr){.oc = 6, .k = 3, .stride = 2, .init = {INIT_NORMAL, 0, 0.3f}},
                  "a");
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_GLOBAL_AVG});
    x = spec_linear(s, x, (LinearAttr){.out = 7, .init = {INIT_NORMAL, 0, 0.3f}}, "b");
    x = spec_linear(s, x, (LinearAttr){.out = o->num_classes, .init = {INIT_NORMAL, 0, 0.3f}}, "c");
    return spec_finish(s, x, e);
}

/* Norms of each image, over maps and over lists, and the one with scale and shift on both sides. */
static int every_norm(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    NormAttr a = {.kind = NK_GROUP, .groups = 4, .eps = 1e-3f, .affine = true, .weight_init = 1};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w);
    (void)net, (void)names;
    x = spec_conv(s, x, (ConvAttr){.oc = 8, .k = 3, .init = {INIT_NORMAL, 0, 0.3f}}, "a.conv");
    x = spec_norm(s, x, a, "a.norm");
    x = spec_conv(s, x, (ConvAttr){.oc = 8, .k = 3, .init = {INIT_NORMAL, 0, 0.3f}}, "b.conv");
    x = spec_norm(s, x, (NormAttr){.kind = NK_INSTANCE, .eps = 1e-3f}, "b.norm");
    x = spec_conv(s, x, (ConvAttr){.oc = 8, .k = 3, .init = {INIT_NORMAL, 0, 0.3f}}, "c.conv");
    a.kind = NK_REVERSE, a.momentum = 0.1f;
    x = spec_norm(s, x, a, "c.norm");
    x = spec_act(s, x, (ActAttr){.kind = AK_RELU, .slope = 0}, "c.act");
    x = spec_linear(s, spec_flatten(s, x), (LinearAttr){.out = 12, .init = {INIT_NORMAL, 0, 0.2f}},
                    "d.linear");
    a.kind = NK_GROUP, a.groups = 3;
    x = spec_norm(s, x, a, "d.norm");
    x = spec_linear(s, x, (LinearAttr){.out = o->num_classes, .init = {INIT_NORMAL, 0, 0.2f}},
                    "d.last");
    return spec_finish(s, x, e);
}

static const NetDef net_every = {
    .name = "every_unit", .doc = "", .build = every_unit, .in_c = 3, .in_h = 14, .in_w = 14};
static const NetDef net_maps = {
    .name = "maps_only", .doc = "", .build = maps_only, .in_c = 3, .in_h = 9, .in_w = 9};
static const NetDef net_norms = {
    .name = "every_norm", .doc = "", .build = every_norm, .in_c = 3, .in_h = 12, .in_w = 12};
static const NetDef *const extra[] = {&net_every, &net_maps, &net_norms, NULL};

/* Exports a net and notes what its own evaluation makes of a batch. */
static void add_case(Judge *j, const NetDef *net, const QOpts *q, int size, bool keep_norms,
                     const char *label)
{
    onnx_net_add(j, &(OnnxNetCase){.net = net,
                                   .extra = extra,
                                   .q = q,
                                   .label = label,
                                   .size = size,
                                   .batch = BATCH,
                                   .keep_norms = keep_norms});
}

/* One depth of a family: the first row of those that share a name but for digits. */
static bool same_family(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a >= '0' && *a <= '9') a++;
        while (*b >= '0' && *b <= '9') b++;
        if (*a != *b) return false;
        if (!*a) return true;
    }
}

static bool chosen(int i)
{
    if (getenv("QRUN_FULL") || str_starts(nets[i]->name, "mobilenet") ||
        str_eq(nets[i]->name, "mnist_resnet50"))
        return true;
    for (int k = 0; k < i; k++)
        if (same_family(nets[k]->name, nets[i]->name)) return false;
    return true;
}

/* ---- the tests ---- */

static void test_export(void **state)
{
    QOpts q;
    qopts_default(&q);
    for (int i = 0; nets[i]; i++)
        if (chosen(i))
            add_case(*state, nets[i], &q, nets[i]->in_h > 32 ? 56 : nets[i]->in_h, false, "");
    for (int keep = 0; keep < 2; keep++)
        for (int size = 14; size < 16; size++) {
            char label[32];
            snprintf(label, sizeof label, "_%d%s", size, keep ? "_norms" : "");
            add_case(*state, &net_every, &q, size, keep, label);
        }
    add_case(*state, &net_maps, &q, 9, false, "");
    add_case(*state, &net_norms, &q, 12, false, "");
    q.wt_quant = "apot";
    q.wt_bit = 4;
    add_case(*state, nets[0], &q, 32, false, "_apot4");
}

/* The names of the state dict are those of the initializers; nothing but shapes of them differs. */
static void test_names(void **state)
{
    const Judge *j = *state;
    char *path = xasprintf("%s/names.onnx", j->dir);
    QOpts q;
    Model *m;
    OnnxFile f;
    Err e = {0};
    int found = 0;
    const ExportOpts o = {.net = "names", .keep_norms = true};
    qopts_default(&q);
    m = onnx_net_open(&(OnnxNetCase){.net = nets[0], .q = &q, .size = 32});
    if (export_float(model_qplan(m), &o, path, &e) || onnx_read(&f, path, &e))
        fail_msg("%s", e.msg);
    for (int i = 0; i < model_store(m)->n; i++) {
        const Param *p = model_store(m)->p[i];
        int k = 0;
        if (p->value.dtype != DT_F32) continue;
        while (k < f.ninit && strcmp(f.init[k].name, p->name) != 0) k++;
        if (k == f.ninit) fail_msg("no initializer '%s'", p->name);
        if (f.init[k].bytes != tensor_bytes(&p->value) ||
            memcmp(f.init[k].data, p->value.data, f.init[k].bytes) != 0)
            fail_msg("'%s' differs", p->name);
        found++;
    }
    assert_int_equal(found, f.ninit);
    assert_int_equal(f.opset, ONNX_OPSET);
    assert_int_equal(f.ir_version, ONNX_IR_VERSION);
    assert_string_equal(f.producer, "qrun");
    assert_string_equal(f.input[0].name, "input");
    assert_int_equal(f.input[0].dim[0], -1);
    assert_int_equal(f.input[0].dim[2], 32);
    assert_string_equal(f.output[0].name, "output");
    for (int i = 0; i < f.nnode; i++)
        if (!strcmp(f.node[i].op, "Identity") || !strcmp(f.node[i].op, "Constant"))
            fail_msg("a node %s", f.node[i].op);
    onnx_file_free(&f);
    model_free(m);
    free(path);
}

/* One line each, naming what is in the way. */
static void test_refused(void **state)
{
    static const struct {
        const char *method, *variant, *path, *want;
        int bits;
        ErrKind kind;
    } cases[] = {
        {"hysteresis", "pact_exponential", NULL, "its input is quantized to powers of two", 1,
         ERR_CONFIG},
        {"f8net", "", NULL, "fixed-point numbers are not written as float", 8, ERR_CONFIG},
        {"none", "", "/nowhere/x.onnx", "/nowhere/x.onnx: cannot be written", 32, ERR_RUN},
    };
    const Judge *j = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *path = cases[i].path ? xstrdup(cases[i].path) : xasprintf("%s/refused.onnx", j->dir);
        const ExportOpts o = {.net = "refused"};
        QOpts q;
        Model *m;
        Err e = {0};
        qopts_default(&q);
        q.wt_quant = q.fm_quant = cases[i].method;
        q.quant_variant = cases[i].variant;
        q.wt_bit = q.fm_bit = cases[i].bits;
        m = onnx_net_open(&(OnnxNetCase){.net = nets[0], .q = &q, .size = 16});
        if (!export_float(model_qplan(m), &o, path, &e)) fail_msg("case %zu is written", i);
        if (e.kind != cases[i].kind || !strstr(e.msg, cases[i].want) || strchr(e.msg, '\n'))
            fail_msg("case %zu: kind %d: %s", i, e.kind, e.msg);
        if (fs_exists(path)) fail_msg("case %zu left %s", i, path);
        model_free(m);
        free(path);
    }
}

static void test_writable(void **state)
{
    const Judge *j = *state;
    char *path = xasprintf("%s/new.onnx", j->dir);
    Err e = {0};
    if (fs_check_writable(path, &e)) fail_msg("%s", e.msg);
    if (fs_exists(path)) fail_msg("the check left the file");
    assert_int_equal(fs_check_writable(j->dir, &e), -1);
    assert_non_null(strstr(e.msg, "it is a folder"));
    assert_int_equal(fs_check_writable("/nowhere/x.onnx", &e), -1);
    assert_non_null(strstr(e.msg, "/nowhere/x.onnx: cannot be written"));
    assert_int_equal(e.kind, ERR_RUN);
    free(path);
}

/* Every cut of a file, and bytes turned around in it: an error, or a file that still holds
 * together. */
static void test_damaged(void **state)
{
    const Judge *j = *state;
    char *path = xasprintf("%s/maps_only.onnx", j->dir), *bad = xasprintf("%s/bad.onnx", j->dir),
         *data;
    size_t len, refused = 0;
    Rng g = rng_stream(3, RNG_TEST, 0, 0);
    OnnxFile f;
    Err e = {0};
    if (!(data = fs_read(path, 0, &len, &e))) fail_msg("%s", e.msg);
    for (size_t cut = 0; cut < len; cut += 1 + len / 200) {
        FILE *out = fopen(bad, "wb");
        fwrite(data, 1, cut, out);
        fclose(out);
        if (!onnx_read(&f, bad, &e)) fail_msg("cut at byte %zu of %zu is read", cut, len);
        if (e.kind != ERR_DATA || !strstr(e.msg, bad)) fail_msg("%s", e.msg);
        onnx_file_free(&f);
    }
    for (int i = 0; i < 300; i++) {
        const size_t at = rng_below(&g, (uint32_t)len);
        const char was = data[at];
        FILE *out = fopen(bad, "wb");
        data[at] = (char)(was ^ (1 << rng_below(&g, 8)));
        fwrite(data, 1, len, out);
        fclose(out);
        data[at] = was;
        refused += onnx_read(&f, bad, &e) != 0;
        onnx_file_free(&f);
    }
    print_message("# of 300 files with one bit turned %zu are refused\n", refused);
    assert_true(refused > 0);
    free(data);
    free(bad);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_writable),
        cmocka_unit_test(test_damaged),   cmocka_unit_test(judge_test_check),
        cmocka_unit_test(judge_test_all),
    };
    return cmocka_run_group_tests(tests, judge_setup, judge_teardown);
}
