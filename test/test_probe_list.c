/* test/test_probe_list.c -- tensors of layers as probe_list writes them: each one computed again
 * from the others, logits without and with them, the graph where nobody asks, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/prim.h"
#include "run/dump.h"
#include "run/evaluate.h"
#include "run/log.h"
#include "run/probe.h"
#include "test/support/naive_conv.h"
#include "test/support/temp.h"

enum { MAX_KEYS = 24, IMAGES = 5 };

static char *root;

typedef struct Case {
    const char *label, *keys[12];
    bool own;    /* lowers itself: weights and inputs are not those of the kernel alone */
    bool scaled; /* each channel of weights has levels of its own */
    bool latent; /* weights come to their levels by training */
    bool bf16;
    bool unfused; /* every op by itself */
    bool all;     /* layers; else some of each kind */
} Case;

/* ---- a session ---- */

static int open_session(Session *s, Config *c, const Case *t, const char *const *more, Err *e)
{
    static const char *const fixed[] = {"dataset=synthetic", "synth_train=8", "synth_val=5",
                                        "num_epochs=1",      "batch_size=2",  "threads=1",
                                        "log_dir=/nowhere"};
    char *o[MAX_KEYS];
    int n = 0, r;
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) o[n++] = xstrdup(fixed[i]);
    if (!t->keys[0] || !str_starts(t->keys[0], "model=")) o[n++] = xstrdup("model=resnet20");
    for (int i = 0; t->keys[i]; i++) o[n++] = xstrdup(t->keys[i]);
    for (; more && *more; more++) o[n++] = xstrdup(*more);
    r = config_load(c, "", n, o, e);
    while (n) free(o[--n]);
    *s = (Session){0};
    c->quant.fuse = !t->unfused;
    return r || session_open(s, c, e) ? -1 : 0;
}

static void close_session(Session *s, Config *c)
{
    session_free(s);
    config_free(c);
}

/* Evaluates into DIR/output.npy, with DIR/probe.json and its files where `probed`. */
static void run(Session *s, const char *dir, bool probed)
{
    Dump d;
    Meter m;
    WidthMeters w;
    Err e = {0};
    s->cfg->run.dump_dir = dir;
    if (dump_open(&d, s, dir, &e) || (probed && probe_begin(s, "/nowhere", &e)))
        fail_msg("%s", e.msg);
    s->dump = &d;
    if (evaluate(s, NULL, &m, &w, &e) || dump_close(&d, &e) || probe_end(s, &e))
        fail_msg("%s", e.msg);
    assert_null(s->probe);
    s->dump = NULL;
}

static Tensor read_file(Arena *a, const char *dir, const char *name)
{
    char *path = fs_join(dir, name);
    Tensor t;
    Err e = {0};
    if (npy_read(path, a, &t, &e)) fail_msg("%s", e.msg);
    free(path);
    return t;
}

static void same_bytes(const char *label, const char *name, const Tensor *a, const Tensor *b)
{
    const float *x = a->data, *y = b->data;
    assert_true(tensor_same_shape(a, b));
    for (size_t i = 0; i < tensor_len(a); i++)
        if (memcmp(&x[i], &y[i], sizeof *x))
            fail_msg("%s: %s: [%zu] is %.9g, expected %.9g", label, name, i, (double)x[i],
                     (double)y[i]);
}

/* ---- what probe.json lists ---- */

typedef struct Listed {
    json_t *all;
    Arena a;
    const char *dir;
} Listed;

static void open_list(Listed *l, const char *dir)
{
    char *path = fs_join(dir, "probe.json");
    json_error_t why;
    *l = (Listed){.all = json_load_file(path, JSON_REJECT_DUPLICATES, &why), .dir = dir};
    if (!l->all) fail_msg("%s: %s", path, why.text);
    free(path);
}

static void close_list(Listed *l)
{
    json_decref(l->all);
    arena_free(&l->a);
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The file of an entry; its shape is the one listed. */
static Tensor read_entry(Listed *l, const json_t *o)
{
    const Tensor t = read_file(&l->a, l->dir, text_of(o, "file"));
    const json_t *shape = json_object_get(o, "shape");
    assert_int_equal(t.dtype, DT_F32);
    assert_int_equal(json_array_size(shape), t.ndim);
    for (int i = 0; i < t.ndim; i++)
        assert_int_equal(json_integer_value(json_array_get(shape, (size_t)i)), t.dim[i]);
    return t;
}

/* The entry of another item of the same layer and width. */
static const json_t *beside(const Listed *l, const json_t *o, const char *item)
{
    for (size_t i = 0; i < json_array_size(l->all); i++) {
        const json_t *p = json_array_get(l->all, i);
        if (json_equal(json_object_get(p, "index"), json_object_get(o, "index")) &&
            str_eq(text_of(p, "width"), text_of(o, "width")) && str_eq(text_of(p, "item"), item))
            return p;
    }
    fail_msg("no %s of %s", item, text_of(o, "layer"));
    return NULL;
}

/* ---- computed again ---- */

static int unit_of(const Session *s, const json_t *o)
{
    const Spec *spec = model_spec(s->model);
    for (int i = 0; i < spec->n; i++)
        if (str_eq(spec->u[i].name, text_of(o, "layer")) &&
            (spec->u[i].kind == U_CONV || spec->u[i].kind == U_LINEAR))
            return i;
    fail_msg("no layer %s", text_of(o, "layer"));
    return -1;
}

static int variant_of(const Session *s, const json_t *o)
{
    char text[16];
    for (int k = 0; k < s->nwidths; k++)
        if (s->nwidths == 1 || str_eq(session_width_text(s, k, text), text_of(o, "width")))
            return s->width[k];
    fail_msg("no width %s", text_of(o, "width"));
    return -1;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The most values that one of `parts` equal parts takes. */
static size_t distinct(const Tensor *t, int parts, Arena *a)
{
    const size_t len = tensor_len(t) / (size_t)parts;
    float *v = arena_alloc(a, len * sizeof *v);
    size_t most = 0;
    for (size_t p = 0; p < (size_t)parts; p++) {
        size_t n = 1;
        memcpy(v, (const float *)t->data + p * len, len * sizeof *v);
        qsort(v, len, sizeof *v, by_value);
        for (size_t i = 1; i < len; i++) n += v[i] != v[i - 1];
        if (n > most) most = n;
    }
    return most;
}

static float as_bf16(float f)
{
    return bf16_to_float(float_to_bf16(f));
}

/* What the quantizer's own kernel makes of `from` times `factor`: as long as `a`. */
static Tensor by_kernel(QInst *q, const Tensor *from, float factor, Arena *a)
{
    Tensor x = *from, y = *from;
    QCtx c = {.phase = PH_EVAL};
    size_t save, scratch;
    const bool map = from->ndim == 4 && q->role == Q_ACT;
    x.data = arena_alloc(a, tensor_bytes(&x));
    y.data = arena_alloc(a, tensor_bytes(&y));
    memcpy(x.data, from->data, tensor_bytes(&x));
    if (map) { /* in the layout of the engine */
        nchw_to_nhwc(from->data, x.data, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
        x.layout = y.layout = LY_NHWC;
    }
    for (size_t i = 0; i < tensor_len(&x); i++) ((float *)x.data)[i] *= factor;
    qinst_need(q, &x, PH_EVAL, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    qinst_forward(q, &x, &y, &c);
    if (map) {
        nhwc_to_nchw(y.data, x.data, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
        y.data = x.data;
        y.layout = LY_ROW;
    }
    free(c.save);
    free(c.scratch);
    return y;
}

/* The kernel on the tensor before it gives the tensor behind it, bit by bit. A bf16 map was rounded
 * to be stored, while the quantizer may have read it before: between the kernel's results for the
 * numbers around it then. */
static void check_kernel(const Case *t, Listed *l, const json_t *o, QInst *q, const char *before)
{
    const Tensor from = read_entry(l, beside(l, o, before)), to = read_entry(l, o);
    const bool rounded = t->bf16 && q->role == Q_ACT;
    const Tensor low = by_kernel(q, &from, rounded ? 1 - 0x1p-8f : 1, &l->a),
                 high = rounded ? by_kernel(q, &from, 1 + 0x1p-8f, &l->a) : low;
    const float *y = to.data, *lo = low.data, *hi = high.data;
    if (!rounded) same_bytes(t->label, text_of(o, "file"), &to, &low);
    for (size_t i = 0; rounded && i < tensor_len(&to); i++)
        if (y[i] < as_bf16(lo[i]) || y[i] > as_bf16(hi[i]))
            fail_msg("%s: %s: [%zu] is %.9g, expected %.9g to %.9g", t->label, text_of(o, "file"),
                     i, (double)y[i], (double)as_bf16(lo[i]), (double)as_bf16(hi[i]));
}

/* The geometry of a layer whose tensors are these. */
static NaiveConv geometry(const Unit *u, const Tensor *x, const Tensor *y)
{
    const ConvAttr *a = &u->u.conv;
    NaiveConv g = {.ic = x->dim[1],
                   .ih = 1,
                   .iw = 1,
                   .oc = y->dim[1],
                   .oh = 1,
                   .ow = 1,
                   .k = 1,
                   .stride = 1,
                   .groups = 1,
                   .dilation = 1};
    if (u->kind == U_LINEAR) {
        g.ic = (int)(tensor_len(x) / (size_t)x->dim[0]);
        return g;
    }
    g.ih = x->dim[2], g.iw = x->dim[3], g.oh = y->dim[2], g.ow = y->dim[3];
    g.k = a->k, g.stride = a->stride ? a->stride : 1, g.groups = a->groups ? a->groups : 1;
    g.dilation = a->dilation ? a->dilation : 1;
    g.pad = g.ih == u->ih ? a->pad : 0; /* else the zeros are there */
    assert_int_equal(g.ih, u->ih + 2 * (a->pad - g.pad));
    return g;
}

/* The convolution of what is said to be its operands, plus a bias where the layer may have one:
 * every seventh pixel, others in each channel, of the first image and the last, which stands alone
 * in its batch. Largest error over the bound. */
static double check_conv(const Case *t, const Session *s, Listed *l, const json_t *o)
{
    const int unit = unit_of(s, o);
    const bool biased = model_qplan(s->model)->u[unit].bias || t->own;
    const Tensor y = read_entry(l, o), x = read_entry(l, beside(l, o, "after-quant")),
                 w = read_entry(l, beside(l, o, "weight-quant"));
    const NaiveConv g = geometry(&model_spec(s->model)->u[unit], &x, &y);
    const int map = g.oh * g.ow, step = map > 7 ? 7 : 1;
    const float *from = x.data, *is = y.data;
    float *weight = w.data;
    double worst = 0;
    assert_int_equal(y.dim[0], IMAGES);
    for (size_t i = 0; t->bf16 && i < tensor_len(&w); i++) weight[i] = as_bf16(weight[i]);
    for (int oc = 0; oc < g.oc; oc++) {
        double bias = 0;
        for (int p = oc % step; p < 2 * map; p += step) {
            const int image = p < map ? 0 : IMAGES - 1, at = p % map;
            const double got = (double)is[(image * g.oc + oc) * map + at];
            double mag, may;
            const double v = naive_conv(&g, from + (size_t)(image * g.ic * g.ih * g.iw), weight, oc,
                                        at / g.ow, at % g.ow, &mag);
            if (p == oc % step && biased) bias = got - v;
            may = (mag + fabs(bias)) * 0x1p-20 + (t->bf16 ? fabs(got) * 0x1p-7 : 0);
            if (fabs(got - v - bias) > may)
                fail_msg("%s: %s: channel %d, %d: %.9g, expected %.9g", t->label,
                         text_of(o, "file"), oc, at, got, v + bias);
            if (may > 0) worst = fmax(worst, fabs(got - v - bias) / may);
        }
    }
    return worst;
}

/* Every tensor that is listed, from the others. */
static void check_tensors(const Case *t, const Session *s, const char *dir)
{
    const QPlan *qp = model_qplan(s->model);
    Listed l;
    size_t kernels = 0, convs = 0, levels = 0, narrower = 0;
    double worst = 0;
    open_list(&l, dir);
    for (size_t i = 0; i < json_array_size(l.all); i++) {
        const json_t *o = json_array_get(l.all, i);
        const char *item = text_of(o, "item");
        const int unit = unit_of(s, o), bits = (int)json_integer_value(json_object_get(o, "bits"));
        const bool act = str_eq(item, "after-quant");
        const QRole role = act ? Q_ACT : Q_WEIGHT;
        const Tensor now = read_entry(&l, o);
        Tensor before;
        if (str_eq(item, "output")) {
            worst = fmax(worst, check_conv(t, s, &l, o));
            convs++;
        } else if (str_eq(item, "weight")) {
            same_bytes(t->label, text_of(o, "file"), &now, &qp->u[unit].weight->value);
        } else if (act || str_eq(item, "weight-quant")) {
            QInst *q = qplan_get(qp, unit, role, variant_of(s, o));
            assert_string_equal(text_of(o, "method"), q ? q->method->name : "none");
            assert_int_equal(bits, q ? q->bits : 32);
            if (q && !t->own) check_kernel(t, &l, o, q, act ? "before-quant" : "weight");
            if (q && bits <= 8 && (act || !t->latent)) {
                const size_t n = distinct(&now, !act && t->scaled ? now.dim[0] : 1, &l.a);
                if (n > (size_t)1 << bits)
                    fail_msg("%s: %s: %zu values of %d bits", t->label, text_of(o, "file"), n,
                             bits);
                if (act) before = read_entry(&l, beside(&l, o, "before-quant"));
                narrower += act && distinct(&before, 1, &l.a) > n;
                levels++;
            }
            kernels += q && !t->own;
        }
    }
    print_message("%-18s %3zu files: %zu by the kernel to the bit, %zu with 2^bits values at most, "
                  "%zu convolutions, off by %.2f of the bound at most\n",
                  t->label, json_array_size(l.all), kernels, levels, convs, worst);
    assert_true(convs > 0 && narrower > 0);
    close_list(&l);
}

static void same_file(const char *label, const char *a, const char *b, const char *name)
{
    Arena mem = {0};
    const Tensor x = read_file(&mem, a, name), y = read_file(&mem, b, name);
    same_bytes(label, name, &x, &y);
    arena_free(&mem);
}

#define ALL "probe_list=before-quant,after-quant,weight,weight-quant,output"

static void one_case(const Case *t, const char *dir)
{
    const char *const more[] = {ALL, "probe_iteration=3",
                                t->all ? NULL : "probe_index=[0,1,7,8,9,18]", NULL};
    Config c;
    Session s;
    Err e = {0};
    char *off = fs_join(dir, "off"), *on = fs_join(dir, "on"), width[16];
    if (open_session(&s, &c, t, more, &e) || session_data(&s, SPLIT_VAL, &e) || probe_check(&s, &e))
        fail_msg("%s: %s", t->label, e.msg);
    run(&s, off, false);
    run(&s, on, true);
    for (int k = 0; k < s.nwidths; k++) {
        char *name =
            path_of_width("output.npy", s.nwidths > 1 ? session_width_text(&s, k, width) : "");
        same_file(t->label, off, on, name);
        free(name);
    }
    check_tensors(t, &s, on);
    close_session(&s, &c);
    free(off);
    free(on);
}

#define APOT "wt_quant=apot", "fm_quant=apot", "bit=4"

// clang-format off
static const Case cases[] = {
    {.label = "apot", .keys = {APOT}, .all = true},
    {.label = "apot float edges", .keys = {APOT, "first_bit=32", "last_bit=32"}},
    {.label = "apot bf16", .keys = {APOT, "precision=bf16"}, .bf16 = true},
    {.label = "fat", .keys = {"wt_quant=fat", "fm_quant=fat", "bit=4"}},
    {.label = "hysteresis", .keys = {"wt_quant=hysteresis", "fm_quant=hysteresis", "bit=1", "fm_bit=2"}, .latent = true},
    {.label = "dorefa", .keys = {"wt_quant=dorefa", "fm_quant=dorefa", "bit=3"}},
    {.label = "dorefa outputs", .keys = {"wt_quant=dorefa", "fm_quant=dorefa", "ot_quant=dorefa", "bit=3", "ot_bit=4"}},
    {.label = "lsq both sides", .keys = {"wt_quant=lsq", "fm_quant=lsq", "bit=2", "fm_half_range=false"}},
    {.label = "lsq keyword net", .keys = {"keyword=origin,cbsa,fix,cifar10,dorefa,lsq", "bit=2"}},
    {.label = "lq", .keys = {"wt_quant=lq", "fm_quant=lq", "bit=2"}},
    {.label = "xnor", .keys = {"wt_quant=xnor", "fm_quant=xnor", "bit=1"}, .scaled = true},
    {.label = "fatnn", .keys = {"wt_quant=fatnn", "fm_quant=fatnn", "wt_bit=1.585", "fm_bit=2"}},
    {.label = "adabits, widths", .keys = {"wt_quant=adabits", "fm_quant=adabits", "bits_list=[4,[3,5]]", "adaptive_training=true"}},
    {.label = "depthwise", .keys = {"model=mobilenet_v2", "image_size=32", "wt_quant=adabits", "fm_quant=adabits", "bit=4", "double_side=true"}},
    {.label = "branches", .keys = {"keyword=group_net,origin,bacs,fix,cifar10,xnor", "base=2", "bit=1"}, .scaled = true},
    {.label = "f8net", .keys = {"wt_quant=f8net", "fm_quant=f8net", "bit=8"}, .own = true},
};
// clang-format on

static char *dir_of(size_t i, const char *what)
{
    char *name = xasprintf("%s%zu", what, i), *dir = fs_join(root, name);
    free(name);
    return dir;
}

static void tensors_fit_together(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *dir = dir_of(i, "case");
        if (cases[i].bf16 && !prim_has_bf16())
            printf("%s: skipped, this processor has no AVX-512\n", cases[i].label);
        else
            one_case(&cases[i], dir);
        free(dir);
    }
}

/* Fused or one op at a time, the same tensors. */
static void fused_or_not(void **state)
{
    static const Case unfused = {.label = "unfused", .keys = {APOT}, .unfused = true, .all = true};
    char *a = fs_join(root, "case0/on"), *dir = fs_join(root, "unfused"), *b = fs_join(dir, "on");
    Listed l;
    (void)state;
    one_case(&unfused, dir);
    open_list(&l, a);
    assert_int_equal(json_array_size(l.all), 110);
    for (size_t i = 0; i < json_array_size(l.all); i++)
        same_file("unfused", a, b, text_of(json_array_get(l.all, i), "file"));
    close_list(&l);
    free(a);
    free(b);
    free(dir);
}

static const Case plain_net = {.label = "net", .keys = {"wt_quant=lsq", "fm_quant=lsq", "bit=2"}};

static char *graph_text(Session *s)
{
    Str text = {0};
    model_print(s->model, PH_EVAL, session_eval_batch(s), &text);
    return text.s;
}

/* The graph and its memory are what they are without: always where only those tensors are asked for
 * that are there anyway, and else up to maps before quantizers. Afterwards nobody looks any more.
 */
static void graph_stays(void **state)
{
    static const char *const more[][2] = {{"probe_list=after-quant,weight,weight-quant,output"},
                                          {"probe_list=before-quant"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        char *dir = dir_of(i, "graph"), *file, *before, *after;
        Config c;
        Session s;
        Err e = {0};
        if (open_session(&s, &c, &plain_net, more[i], &e) || session_data(&s, SPLIT_VAL, &e))
            fail_msg("%s", e.msg);
        before = graph_text(&s);
        run(&s, dir, true);
        after = graph_text(&s);
        assert_int_equal(strcmp(before, after) == 0, i == 0);
        free(after);
        model_drop_programs(s.model);
        after = graph_text(&s);
        assert_string_equal(before, after);
        file = fs_join(dir, "probe.json");
        remove(file);
        run(&s, dir, false);
        assert_int_equal(fs_exists(file), 0);
        free(file);
        free(before);
        free(after);
        free(dir);
        close_session(&s, &c);
    }
}

/* One batch unless more are asked for, without what fills up the last one; only what is asked for;
 * what the quantizer holds. */
static void only_what_is_asked(void **state)
{
    static const char *const more[] = {"probe_list=clip_val,after-quant,clip_val",
                                       "probe_index=3,3", "probe_iteration=2", NULL};
    char *dir = fs_join(root, "asked");
    Config c;
    Session s;
    Listed l;
    Tensor t;
    const Param *p;
    Err e = {0};
    (void)state;
    for (int i = 0; i < 2; i++) {
        if (open_session(&s, &c, &plain_net, more + 0, &e) || session_data(&s, SPLIT_VAL, &e))
            fail_msg("%s", e.msg);
        c.run.probe_iteration -= i;
        run(&s, dir, true);
        open_list(&l, dir);
        assert_int_equal(json_array_size(l.all), 2);
        assert_string_equal(text_of(json_array_get(l.all, 0), "file"),
                            "3-layer1.1.conv2-clip_val.npy");
        assert_string_equal(text_of(json_array_get(l.all, 1), "file"),
                            "3-layer1.1.conv2-after-quant.npy");
        t = read_entry(&l, json_array_get(l.all, 1));
        assert_int_equal(t.dim[0], i ? 2 : 4);
        t = read_entry(&l, json_array_get(l.all, 0));
        p = store_find(model_store(s.model), "layer1.1.conv2.quant_activation.clip_val");
        assert_non_null(p);
        same_bytes("lsq", "clip_val", &t, &p->value);
        close_list(&l);
        close_session(&s, &c);
    }
    free(dir);
}

static void refused(void **state)
{
    static const struct {
        const char *more[8], *says;
    } rows[] = {
        {{"probe_list=after_quant"},
         "command line: error: probe_list: no tensor 'after_quant'; expected before-quant, "
         "after-quant, weight, weight-quant, output, iteration, level_num, clip_val; did you "
         "mean 'after-quant'?"},
        {{"probe_list=output,basis"},
         "command line: error: probe_list: no tensor 'basis'; expected before-quant, after-"
         "quant, weight, weight-quant, output, iteration, level_num, clip_val"},
        {{"probe_list=output", "probe_index=[0,20]"},
         "command line: error: probe_index: there is no layer 20; expected 0 (layer1.0.conv1) "
         "to 19 (layer3.2.conv2)"},
        {{"probe_list=output", "probe_index=[-1]"},
         "command line: error: probe_index: -1 is out of range; expected 0..100000"},
        {{"probe_list=output", "probe_iteration=0"},
         "command line: error: probe_iteration: 0 is out of range; expected 1..1000000000"},
        {{"probe_list=output", "bit=32"},
         "command line: error: probe_list: no layer is quantized; expected probe_index too, "
         "numbers of layers from 0 (layer1.0.conv1) to 19 (layer3.2.conv2)"},
        {{"probe_list=weight", "wt_quant=f8net", "fm_quant=f8net", "bit=8", "int_infer=true"},
         "command line: error: probe_list: with int_infer another net is evaluated, of whole "
         "numbers; expected it without int_infer"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Config c;
        Session s;
        Err e = {0};
        int r = open_session(&s, &c, &plain_net, rows[i].more, &e);
        if (!r) r = probe_check(&s, &e);
        assert_int_equal(r, -1);
        assert_int_equal(e.kind, ERR_CONFIG);
        assert_string_equal(e.msg, rows[i].says);
        close_session(&s, &c);
    }
}

static int set_up(void **state)
{
    (void)state;
    return temp_begin(&root, "probe-list");
}

static int tear_down(void **state)
{
    (void)state;
    return temp_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_fit_together),
        cmocka_unit_test(fused_or_not),
        cmocka_unit_test(graph_stays),
        cmocka_unit_test(only_what_is_asked),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
