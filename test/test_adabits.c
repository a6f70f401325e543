/* test/test_adabits.c -- AdaBits: names, order, shapes and weight decay of the original nets' state
 * dicts, faults. Formulas and traces are golden cases (test/golden/adabits). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/fs.h"
#include "optim/optim.h"
#include "quant/qplan.h"
#include "run/config.h"
#include "run/fan_out.h"
#include "run/model.h"
#include "run/profiling.h"

static void options(QOpts *o, int nbits, const int *bits, bool switch_alpha)
{
    qopts_default(o);
    o->wt_quant = o->fm_quant = "adabits";
    o->nbits_list = nbits;
    memcpy(o->bits_list, bits, (size_t)nbits * sizeof *bits);
    o->switch_alpha = switch_alpha;
}

static Model *open_model(const char *model, int depth, int classes, int size, const QOpts *o)
{
    NetOpts no = {.model = model,
                  .names = "",
                  .depth = depth,
                  .num_classes = classes,
                  .in_c = 3,
                  .in_h = size,
                  .in_w = size};
    Err e = {0};
    Model *m = model_new(&no, o, 0, 1, &e);
    if (!m) fail_msg("%s: %s", model, e.msg);
    return m;
}

/* "16x3x3x3", "-" without dimensions. */
static void shape_text(const Tensor *t, char *s, size_t n)
{
    size_t at = 0;
    snprintf(s, n, "-");
    for (int i = 0; i < t->ndim; i++)
        at += (size_t)snprintf(s + at, n - at, "%s%d", i ? "x" : "", t->dim[i]);
}

/* Every row (row, t, name, shape, dtype, kind, role, fan_in, weight_decay) of a table. */
static void expect_state(const char *file, Model *m)
{
    ParamStore *ps = model_store(m);
    OptimOpts oo = {.optimizer = "sgd",
                    .lr_scheduler = "constant",
                    .num_epochs = 1,
                    .lr = 0.1,
                    .weight_decay = 1,
                    .weight_decay_scheme = "no_depthwise_no_bn"};
    Optim op = {0};
    char path[256], line[512];
    int n = 0;
    Err e = {0};
    FILE *f;
    snprintf(path, sizeof path, "test/state_dicts/%s", file);
    f = fopen(path, "r");
    if (!f) fail_msg("%s: cannot open", path);
    assert_int_equal(optim_init(&op, &oo, ps, &e), 0);
    assert_non_null(fgets(line, sizeof line, f));
    while (fgets(line, sizeof line, f)) {
        char name[128], shape[64], decay[16], have[64];
        const Param *p = n < ps->n ? ps->p[n] : NULL;
        if (sscanf(line, "%*s %*s %127s %63s %*s %*s %*s %*s %15s", name, shape, decay) != 3)
            fail_msg("%s: row %d cannot be read", path, n);
        if (!p) fail_msg("%s: the net ends before %s", path, name);
        shape_text(&p->value, have, sizeof have);
        /* A scalar is written as - too. */
        if (strcmp(p->name, name) != 0 || strcmp(have, shape) != 0)
            fail_msg("%s: row %d: expected %s %s, the net has %s %s", path, n, name, shape, p->name,
                     have);
        if (p->kind != PK_BUFFER && (optim_decay(&op, p) > 0) != !strcmp(decay, "yes"))
            fail_msg("%s: weight decay of %s: expected %s", path, name, decay);
        n++;
    }
    fclose(f);
    if (n != ps->n) fail_msg("%s: the net has %d tensors more", path, ps->n - n);
    optim_free(&op);
}

static void test_state_dicts(void **state)
{
    const int low[] = {5, 4, 3}, high[] = {8, 6, 5, 4};
    QOpts o;
    Model *m;
    (void)state;
    options(&o, 3, low, true);
    m = open_model("models.q_resnet_cifar", 20, 10, 32, &o);
    expect_state("adabits_resnet20_cifar.tsv", m);
    model_free(m);
    options(&o, 4, high, false);
    m = open_model("q_mobilenet_v1", 0, 1000, 64, &o);
    expect_state("adabits_mobilenetv1.tsv", m);
    model_free(m);
    options(&o, 4, high, true);
    m = open_model("q_mobilenet_v2", 0, 1000, 64, &o);
    expect_state("adabits_mobilenetv2.tsv", m);
    model_free(m);
}

/* Bits of first and last layer; activations of the image and with weight_only stay float. */
static void test_bits(void **state)
{
    const int bits[] = {5, 3};
    QOpts o;
    Model *m;
    QPlan *qp;
    int first = -1, last = -1, inner = -1;
    (void)state;
    options(&o, 2, bits, true);
    m = open_model("q_resnet_cifar", 20, 10, 32, &o);
    qp = model_qplan(m);
    for (int i = 0; i < qp->spec->n; i++) {
        if (qp->spec->u[i].marks & UM_FIRST) first = i;
        if (qp->spec->u[i].marks & UM_LAST) last = i;
        if (!strcmp(qp->spec->u[i].name, "stage_1_layer_0.shortcut.0")) inner = i;
    }
    assert_int_equal(qplan_bits(qp, first, Q_WEIGHT, 1), 5);
    assert_int_equal(qplan_bits(qp, first, Q_ACT, 1), 32);
    assert_int_equal(qplan_bits(qp, last, Q_WEIGHT, 1), 5);
    assert_int_equal(qplan_bits(qp, last, Q_ACT, 1), 3);
    assert_int_equal(qplan_bits(qp, inner, Q_WEIGHT, 1), 3);
    assert_int_equal(qplan_bits(qp, inner, Q_ACT, 1), 3);
    model_free(m);
    o.weight_only = true;
    o.edge_min_bits = 8;
    m = open_model("q_resnet_cifar", 20, 10, 32, &o);
    qp = model_qplan(m);
    assert_int_equal(qplan_bits(qp, first, Q_WEIGHT, 1), 8);
    assert_int_equal(qplan_bits(qp, inner, Q_ACT, 1), 32);
    model_free(m);
}

/* Weights and activations of bits of their own: norms by entry, and the clip level of the entry; with
 * the original's rule that of the activations' bits, else the first. */
static void test_pairs(void **state)
{
    QOpts o;
    (void)state;
    for (int original = 0; original < 2; original++) {
        Model *m;
        QPlan *qp;
        const float *alpha;
        float *grad;
        static float x[2 * 32 * 32 * 3];
        const int32_t label[2] = {0, 1};
        double loss;
        int at = -1;
        Err e = {0};
        options(&o, 2, (int[]){5, 4}, true);
        o.act_bits_list[1] = 8;
        o.f8.original = original;
        m = open_model("q_resnet_cifar", 20, 10, 32, &o);
        qp = model_qplan(m);
        for (int i = 0; i < qp->spec->n; i++)
            if (!strcmp(qp->spec->u[i].name, "stage_0_layer_1.body.0")) at = i;
        assert_true(at >= 0);
        assert_int_equal(qplan_bits(qp, at, Q_WEIGHT, 0), 5);
        assert_int_equal(qplan_bits(qp, at, Q_ACT, 0), 5);
        assert_int_equal(qplan_bits(qp, at, Q_WEIGHT, 1), 4);
        assert_int_equal(qplan_bits(qp, at, Q_ACT, 1), 8);
        assert_non_null(store_find(model_store(m), "stage_0_layer_1.body.1.bn.1.weight"));
        store_alloc_grads(model_store(m));
        for (size_t i = 0; i < ARRAY_LEN(x); i++) x[i] = (float)((i * 37) % 256);
        if (model_train(m, 1, x, label, 2, 0, &loss, NULL, &e)) fail_msg("%s", e.msg);
        alpha = store_find(model_store(m), "stage_0_layer_1.body.0.alpha")->value.data;
        grad = store_find(model_store(m), "stage_0_layer_1.body.0.alpha")->grad.data;
        assert_true(alpha[0] == 8 && alpha[1] == 8);
        assert_true(grad[original ? 0 : 1] != 0 && grad[original ? 1 : 0] == 0);
        model_free(m);
    }
}

/* The original's cost table: rows model, bits, input, params, macs, MB, G bit operations. */
static void test_profiling(void **state)
{
    static const struct {
        const char *name, *model;
        int depth, classes, edge;
        bool switch_alpha;
    } net[] = {{"resnet20", "q_resnet_cifar", 20, 10, 0, true},
               {"mbv1", "q_mobilenet_v1", 0, 1000, 8, false},
               {"mbv2", "q_mobilenet_v2", 0, 1000, 8, true}};
    FILE *f = fopen("test/state_dicts/adabits_profiling.tsv", "r");
    char line[256];
    int rows = 0;
    (void)state;
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    while (fgets(line, sizeof line, f)) {
        char name[32];
        int bits, size;
        long long params, macs;
        double mb, gops;
        assert_int_equal(sscanf(line, "%31s %d %d %lld %lld %lf %lf", name, &bits, &size, &params,
                                &macs, &mb, &gops),
                         7);
        for (size_t i = 0; i < ARRAY_LEN(net); i++) {
            QOpts o;
            Model *m;
            Profiled p;
            int at = 0;
            if (strcmp(net[i].name, name) != 0) continue;
            if (i == 0)
                options(&o, 3, (int[]){5, 4, 3}, net[i].switch_alpha);
            else
                options(&o, 4, (int[]){8, 6, 5, 4}, net[i].switch_alpha);
            o.edge_min_bits = net[i].edge;
            m = open_model(net[i].model, net[i].depth, net[i].classes, size, &o);
            while (o.bits_list[at] != bits) at++;
            p = profiling_total(model_qplan(m), at);
            if (p.params != params || p.macs != macs || fabs(p.mbytes - mb) > 6e-7 ||
                fabs(p.gbitops - gops) > 6e-7)
                fail_msg("%s at %d bits: %lld %lld %.6f %.6f; expected %s", name, bits,
                         (long long)p.params, (long long)p.macs, p.mbytes, p.gbitops, line);
            model_free(m);
            rows++;
        }
    }
    fclose(f);
    assert_int_equal(rows, 11);
}

/* reset_parameters: false leaves PyTorch's initial values. */
static void test_plain_init(void **state)
{
    QOpts o;
    (void)state;
    options(&o, 1, (int[]){32}, false);
    for (int plain = 0; plain < 2; plain++) {
        NetOpts no = {.model = "q_resnet_cifar", .names = "", .depth = 20, .num_classes = 10,
                      .in_c = 3, .in_h = 32, .in_w = 32, .plain_init = plain};
        Err e = {0};
        Model *m = model_new(&no, &o, 0, 1, &e);
        const Param *w = store_find(model_store(m), "stage_1_layer_1.body.0.weight"),
                    *b = store_find(model_store(m), "classifier.0.bias");
        const float *v = w->value.data;
        const double want = plain ? 1 / sqrt(3.0 * 32 * 9) : sqrt(2.0 / (32 * 9));
        double square = 0, most = 0;
        for (size_t i = 0; i < tensor_len(&w->value); i++) {
            square += (double)v[i] * (double)v[i];
            most = fmax(most, fabs((double)v[i]));
        }
        assert_true(fabs(sqrt(square / (double)tensor_len(&w->value)) / want - 1) < 0.03);
        assert_true(plain ? most <= 1 / sqrt(32.0 * 9) : most > 3 * want);
        assert_true(plain == (((const float *)b->value.data)[0] != 0));
        model_free(m);
    }
}

static void expect_fault(QOpts o, const char *text)
{
    NetOpts no = {.model = "q_resnet_cifar", .names = "", .depth = 20, .num_classes = 10,
                  .in_c = 3, .in_h = 32, .in_w = 32};
    Err e = {0};
    Model *m = model_new(&no, &o, 0, 1, &e);
    if (m) fail_msg("accepted; expected '%s'", text);
    if (!strstr(e.msg, text)) fail_msg("'%s'; expected '%s'", e.msg, text);
}

/* One step over three widths adds up the gradients of each width alone. */
static void test_joint_gradient(void **state)
{
    const int bits[] = {5, 4, 3};
    static float x[4 * 32 * 32 * 3];
    const int32_t label[4] = {0, 1, 2, 3};
    QOpts o;
    Model *m;
    ParamStore *ps;
    double *sum, loss, worst = 0;
    Err e = {0};
    (void)state;
    options(&o, 3, bits, true);
    m = open_model("q_resnet_cifar", 20, 10, 32, &o);
    ps = model_store(m);
    store_alloc_grads(ps);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i * 2654435761u % 256);
    sum = calloc(ps->n_grads, sizeof *sum);
    for (int v = 0; v < 3; v++) {
        store_zero_grads(ps);
        assert_int_equal(model_train(m, v, x, label, 4, 0, &loss, NULL, &e), 0);
        for (size_t i = 0; i < ps->n_grads; i++) sum[i] += (double)ps->grads[i];
    }
    store_zero_grads(ps);
    for (int v = 0; v < 3; v++)
        assert_int_equal(model_train(m, v, x, label, 4, 0, &loss, NULL, &e), 0);
    for (size_t i = 0; i < ps->n_grads; i++) {
        const double d = sum[i] - (double)ps->grads[i], off = (d < 0 ? -d : d) / (1e-3 + (sum[i] < 0 ? -sum[i] : sum[i]));
        if (off > worst) worst = off;
    }
    if (worst > 1e-4) fail_msg("gradients differ by %g", worst);
    free(sum);
    model_free(m);
}

/* A checkpoint of one float width, with and without bn.0, seeds all widths. */
static void fill_file(TensorFile *f, const ParamStore *ps)
{
    *f = (TensorFile){.format = "test"};
    f->v = arena_alloc(&f->arena, (size_t)ps->n * sizeof *f->v);
    for (int i = 0; i < ps->n; i++) {
        f->v[f->n].name = ps->p[i]->name;
        f->v[f->n++].t = ps->p[i]->value;
    }
}

static void expect_fan_out(const char *model, int depth, const QOpts *from, const char *norm)
{
    const int bits[] = {5, 4};
    QOpts o;
    Model *a = open_model(model, depth, 10, 32, from), *b;
    TensorFile f;
    const Param *source;
    Err e = {0};
    LoadReport report = {0};
    options(&o, 2, bits, true);
    b = open_model(model, depth, 10, 32, &o);
    source = store_find(model_store(a), norm);
    assert_non_null(source);
    ((float *)source->value.data)[3] = 0.25f;
    fill_file(&f, model_store(a));
    assert_true(fan_out(&f, model_store(b)) > 0);
    assert_int_equal(tensors_into_store(&f, model_store(b), from->nbits_list > 0, &report, &e), 0);
    for (int k = 0; k < 2; k++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s.bn.%d.running_var", (int)strcspn(norm, ".") + (norm[0] == 'h' ? 2 : 0), norm, k);
        source = store_find(model_store(b), name);
        if (!source) fail_msg("no %s", name);
        assert_true(((const float *)source->value.data)[3] == 0.25f);
    }
    load_report_free(&report);
    tensors_free(&f);
    model_free(a);
    model_free(b);
}

static void test_fan_out(void **state)
{
    const int bits[] = {32};
    QOpts o;
    (void)state;
    options(&o, 1, bits, false);
    expect_fan_out("q_resnet_cifar", 20, &o, "head.1.bn.0.running_var");
    qopts_default(&o);
    expect_fan_out("res20", 0, &o, "bn1.running_var");
}

static void expect_config(const char *text, const char *fault)
{
    Config c;
    Err e = {0};
    char *over[16];
    int n = 0;
    char *copy = strdup(text);
    for (char *w = strtok(copy, " "); w && n < 16; w = strtok(NULL, " ")) over[n++] = w;
    if (fault) {
        assert_int_equal(config_load(&c, "", n, over, &e), -1);
        if (!strstr(e.msg, fault)) fail_msg("'%s'; expected '%s'", e.msg, fault);
    } else {
        if (config_load(&c, "", n, over, &e)) fail_msg("%s", e.msg);
        assert_string_equal(c.quant.wt_quant, "adabits");
        assert_string_equal(c.quant.fm_quant, "adabits");
        assert_string_equal(c.data.input, "byte");
        assert_string_equal(c.optim.weight_decay_scheme, "no_depthwise_no_bn");
        assert_int_equal(c.quant.edge_min_bits, strstr(text, "mobilenet") ? 8 : 0);
    }
    config_free(&c);
    free(copy);
}

#define RESNET "model=models.q_resnet_cifar depth=20 dataset=cifar10 "

static void test_config(void **state)
{
    (void)state;
    expect_config(RESNET "bits_list=[5,4,3] adaptive_training=true", NULL);
    expect_config("model=q_mobilenet_v2 dataset=imagenet1k bits_list=[8,6] double_side=true", NULL);
    expect_config(RESNET "adaptive_training=true", "adaptive_training: true without bits_list");
    expect_config(RESNET "bits_list=[[4,8],[8,4],4,[3,3]] adaptive_training=true", NULL);
    expect_config(RESNET "bits_list=[[4,8],[4,8]]", "bits_list: 4 stands there twice");
    expect_config(RESNET "bits_list=[4,[4,4]]", "bits_list: 4 stands there twice");
    expect_config(RESNET "bits_list=[4,0]", "bits_list: 0 is out of range; expected 1..32");
    expect_config(RESNET "bits_list=[[4,0]]", "bits_list: 0 is out of range; expected 1..32");
    expect_config(RESNET "bits_list=[[4,3,2]]", "entry 1 has 3 numbers; expected one or two");
    expect_config(RESNET "bits_list=[]", "command line: error: bits_list: an empty list; model:");
    expect_config(RESNET "lr=1", "command line: error: bits_list: is missing; model: ");
    expect_config(RESNET "bits_list=[5,4,5]", "bits_list: 5 stands there twice");
    expect_config(RESNET "bits_list=[5] rescale_type=std", "rescale_type");
}

/* pretrained_file below pretrained_dir, in the folder of the settings where there is one; `resume` as
 * the original: not read. */
static void test_places(void **state)
{
    static const char setting[] =
        "bits_list_[5, 4, 3]/adaptive_True/weight_only_False/stats_sharing_False/"
        "fp_pretrained_False/clamp_True/rescale_True/rescale_conv_True/rescale_type_constant/"
        "switchbn_True/weight_modified_act_original/switch_alpha_True/pact_fp_False";
    char dir[] = "/tmp/qrun-places-XXXXXX", over[64], folder[512], want[600];
    char *ov[] = {"model=q_resnet_cifar", "depth=20", "dataset=cifar10", "bits_list=[5, 4, 3]",
                  "adaptive_training=True", "switch_alpha=True", "rescale_conv=True",
                  "resume=some/file.pt", "pretrained_file=best_model.pt", over};
    Config c;
    Err e = {0};
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(over, sizeof over, "pretrained_dir=%s", dir);
    if (config_load(&c, "", ARRAY_LEN(ov), ov, &e)) fail_msg("%s", e.msg);
    snprintf(want, sizeof want, "%s/best_model.pt", dir);
    assert_string_equal(c.run.pretrained_file, want);
    config_free(&c);
    snprintf(folder, sizeof folder, "%s/%s", dir, setting);
    assert_int_equal(fs_mkdirs(folder, &e), 0);
    snprintf(want, sizeof want, "%s/best_model.pt", folder);
    assert_int_equal(fs_write(want, "x", 1, &e), 0);
    if (config_load(&c, "", ARRAY_LEN(ov), ov, &e)) fail_msg("%s", e.msg);
    assert_string_equal(c.run.pretrained_file, want);
    config_free(&c);
    snprintf(folder, sizeof folder, "rm -rf %s", dir);
    assert_int_equal(system(folder), 0);
    ov[0] = "model=res20", ov[3] = "wt_quant=none", ov[4] = "lr=1"; /* elsewhere resume is a fault */
    assert_int_equal(config_load(&c, "", 9, ov, &e), -1);
    assert_non_null(strstr(e.msg, "resume: a run continues from its own log_dir"));
    config_free(&c);
}

/* Constant weights and a clip level of 0 stop the run with a line that names them. */
static void expect_stop(const char *param, float value, const char *text)
{
    const int bits[] = {4};
    static float x[2 * 32 * 32 * 3];
    const int32_t label[2] = {0, 1};
    QOpts o;
    Model *m;
    Param *p;
    double loss;
    Err e = {0};
    options(&o, 1, bits, false);
    o.rescale_conv = true;
    m = open_model("q_resnet_cifar", 20, 10, 32, &o);
    p = store_find(model_store(m), param);
    assert_non_null(p);
    for (size_t i = 0; i < tensor_len(&p->value); i++) ((float *)p->value.data)[i] = value;
    param_touch(p);
    assert_int_equal(model_train(m, 0, x, label, 2, 0, &loss, NULL, &e), -1);
    if (!strstr(e.msg, text)) fail_msg("'%s'; expected '%s'", e.msg, text);
    model_free(m);
}

static void test_faults(void **state)
{
    const int bits[] = {5, 17};
    QOpts o;
    (void)state;
    options(&o, 2, bits, true);
    expect_fault(o, "adabits has 1 to 16 bits or 32, not 17");
    o.nbits_list = 1;
    o.weight_quant_scheme = "centred";
    expect_fault(o, "weight_quant_scheme: adabits has original, modified and centered");
    o.weight_quant_scheme = "centered";
    o.rescale_type = "std";
    expect_fault(o, "rescale_type: adabits has constant and stddev, not 'std'");
    o.wt_quant = "apot";
    expect_fault(o, "bits_list: method 'apot' (wt_quant) has one width only");
    expect_stop("stage_0_layer_0.body.0.weight", 0, "stage_0_layer_0.body.0.weight: all weights are 0");
    expect_stop("stage_0_layer_0.body.0.weight", 0.5f, "all weights lie on one level");
    expect_stop("stage_0_layer_0.body.3.alpha", 0, "stage_0_layer_0.body.3.alpha[0]: the clip level is 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state_dicts),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_profiling),
        cmocka_unit_test(test_plain_init),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_joint_gradient),
        cmocka_unit_test(test_fan_out),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
