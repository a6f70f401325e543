/* test/golden_net.c -- op `net`: logits of filled or published nets, predictions on a file of
 * images, and training traces; and the printed clip levels. All through run/model.h, as the program
 * itself works. */
#include "test/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/fs.h"
#include "optim/optim.h"
#include "quant/qplan.h"
#include "run/model.h"
#include "test/golden_exact.h"

/* What the cases leave to the folder the original net stands in. */
// clang-format off
static const struct { const char *method, *arch, *names, *variant; int classes, c, h; } arches[] = {
    { "apot", "res20",          "apot",        "cifar",    10,   3, 32 },
    { "apot", "res56",          "apot",        "cifar",    10,   3, 32 },
    { "apot", "mnist_resnet10", "apot",        "mnist",    10,   1, 28 },
    { "apot", "resnet18",       "torchvision", "imagenet", 1000, 3, 64 },
    { "apot", "resnet50",       "torchvision", "imagenet", 1000, 3, 64 },
    { "fat",  "resnet_20",      "fat",         "cifar",    10,   3, 32 },
    { "fat",  "resnet_56",      "fat",         "cifar",    10,   3, 32 },
    { "fat",  "vgg_7_bn",       "fat",         "cifar",    10,   3, 32 },
    { "hysteresis", "resnet20", "hysteresis",  "",         10,   3, 32 },
    { "fat",  "resnet_18",      "fat",         "imagenet", 1000, 3, 64 },
    { "fat",  "mobilenet_v2",   "fat",         "imagenet", 1000, 3, 64 },
};
// clang-format on

/* Activation bits by stage; weights are float unless the optimizer binarises them. */
static void hysteresis_opts(Case *c, QOpts *o)
{
    const Yaml *bits = yaml_path(c->y, "params.quantize_layers");
    if (!bits || bits->kind != Y_LIST) return;
    for (int i = 0; i < bits->n && i < (int)ARRAY_LEN(o->quantize_layer); i++) {
        long long v = 0;
        if (!yaml_int(bits->v[i], &v)) case_fail(c, "quantize_layers[%d] is no whole number", i);
        o->quantize_layer[i] = (int)v;
    }
    o->wt_bit = str_eq(case_str(c, "params.optimizer.kind", ""), "hysteresis_sgd") ? 1 : 32;
    o->weight_thres = case_num(c, "params.optimizer.weight_thres", 0);
}

/* A case of the topology alone: quantizers with parameters of their own let everything pass. */
static void bypass(QInst *q, void *arg)
{
    (void)arg;
    if (q->np) q->enabled = false;
}

/* The net of the case, with `r` (unless NULL) before its activation quantizers; NULL when it cannot be
 * built here. */
static Model *open_net(Case *c, const char *arch, int bits, Witness *r)
{
    NetOpts no = {.model = arch, .names = ""};
    QOpts qo;
    Err e = {0};
    Model *m;
    const char *method = case_str(c, "method", "");
    bool known = false;
    qopts_default(&qo);
    for (size_t i = 0; i < ARRAY_LEN(arches) && !known; i++) {
        if (!str_eq(arches[i].method, method) || !str_eq(arches[i].arch, arch)) continue;
        no.names = arches[i].names;
        no.num_classes = (int)case_int(c, "params.num_classes", arches[i].classes);
        no.in_c = arches[i].c;
        no.in_h = no.in_w = arches[i].h;
        qo.quant_variant = arches[i].variant;
        known = true;
    }
    if (!known || !quant_find(method)) {
        case_skip(c, "net '%s' of '%s' is not known to the runner", arch, method);
        return NULL;
    }
    qo.wt_quant = qo.fm_quant = method;
    qo.wt_bit = qo.fm_bit = bits;
    qo.power = case_bool(c, "params.power", !str_eq(method, "fat"));
    hysteresis_opts(c, &qo);
    if (r) {
        witness_init(r, quant_find(method));
        qo.extra_methods = r->list;
    }
    m = model_new(&no, &qo, 0, 1, &e);
    if (!m) case_fail(c, "%s", e.msg);
    if (m && str_ends(c->name, "_bypassed")) qplan_each(model_qplan(m), bypass, NULL);
    return m;
}

static bool load_checkpoint(Case *c, Model *m, const char *path)
{
    TensorFile f = {0};
    LoadReport r = {0};
    Err e = {0};
    bool ok = !tensors_read(&f, path, &e) && !tensors_into_store(&f, model_store(m), true, &r, &e);
    if (!ok) case_fail(c, "%s", e.msg);
    tensors_free(&f);
    load_report_free(&r);
    return ok;
}

/* ---- fills ---- */

static double fan_in(const Tensor *w)
{
    double n = 1;
    for (int i = 1; i < w->ndim; i++) n *= w->dim[i];
    return n;
}

/* The value of element i of parameter p, the t-th floating tensor of the state dict. Clip levels
 * are not filled. */
float fill_param(const Param *p, uint64_t i, uint64_t t)
{
    const double u = fill_unit(i, t), s = 2 * u - 1;
    if (str_ends(p->name, "transform.weight"))
        return (float)((0.1 + 0.2 * s) / p->value.dim[0]);
    if (p->kind == PK_WEIGHT) return (float)(s * sqrt(3.0 / fan_in(&p->value)));
    if (p->kind == PK_NORM && str_ends(p->name, ".weight")) return (float)(1 + 0.1 * s);
    if (p->kind == PK_BUFFER && str_ends(p->name, ".running_var")) return (float)(1 + 0.5 * u);
    return (float)(0.1 * s);
}

static int fill_store(ParamStore *ps, double act_alpha, double wgt_alpha)
{
    int t = 0;
    for (int k = 0; k < ps->n; k++) {
        Param *p = ps->p[k];
        float *v = p->value.data;
        if (p->value.dtype != DT_F32 || str_ends(p->name, ".latent")) continue;
        if (p->kind == PK_CLIP && p->value.ndim == 0) {
            const double a = str_ends(p->name, "act_alpha") ? act_alpha : wgt_alpha;
            if (a != 0) *v = (float)a;
        } else {
            for (size_t i = 0; i < tensor_len(&p->value); i++) v[i] = fill_param(p, i, (uint64_t)t);
        }
        param_touch(p);
        t++;
    }
    return t;
}

/* One array: running mean, then running variance of every norm, in the order of the modules. */
static void set_running(Case *c, ParamStore *ps, const Yaml *v)
{
    Tensor all;
    size_t at = 0;
    if (!case_array(c, v, "bn_running", &all)) return;
    for (int k = 0; k < ps->n; k++) {
        Param *p = ps->p[k];
        const size_t n = tensor_len(&p->value);
        if (!str_ends(p->name, ".running_mean") && !str_ends(p->name, ".running_var")) continue;
        if (at + n <= tensor_len(&all))
            memcpy(p->value.data, (float *)all.data + at, n * sizeof(float));
        param_touch(p);
        at += n;
    }
    if (at != tensor_len(&all))
        case_fail(c, "bn_running has %zu values, the net %zu", tensor_len(&all), at);
}

/* The example of the fill rule: number, first, last and sum of every tensor of one net. */
void golden_fill_example(Case *c)
{
    const Yaml *want = yaml_get(c->y, "tensors");
    Model *m;
    int t = 0;
    if (!want || want->kind != Y_MAP) return;
    m = open_net(c, "res20", 4, NULL);
    if (!m) return;
    fill_store(model_store(m), 0, 0);
    for (int k = 0; k < model_store(m)->n; k++) {
        const Param *p = model_store(m)->p[k];
        const size_t n = tensor_len(&p->value);
        const float *v = p->value.data;
        const Yaml *row = yaml_get(want, p->name);
        const char *names[4] = {"t", "first", "last", "sum"};
        double sum = 0;
        if (p->value.dtype != DT_F32) continue;
        for (size_t i = 0; i < n; i++) sum += (double)v[i];
        const float got[4] = {(float)t, v[0], v[n - 1], (float)sum};
        for (int i = 0; i < 4; i++) {
            const Yaml *item = row ? yaml_get(row, names[i]) : NULL;
            if (item)
                case_expect(c, arena_printf(&c->arena, "%s.%s", p->name, names[i]), item, &got[i],
                            1);
            else
                case_fail(c, "the case has no %s of %s", names[i], p->name);
        }
        t++;
    }
    if (t != want->n) case_fail(c, "the net has %d floating tensors, the case %d", t, want->n);
    model_free(m);
}

/* ---- images ---- */

typedef struct Images {
    int n, c, h, w;
    float *x; /* NHWC */
} Images;

static bool image_shape(Case *c, const char *path, Images *im)
{
    const Yaml *s = yaml_path(c->y, path);
    long long d[4] = {0};
    for (int i = 0; i < 4; i++)
        if (!s || s->kind != Y_LIST || s->n != 4 || !yaml_int(s->v[i], &d[i]) || d[i] < 1 ||
            d[i] > 4096) {
            case_fail(c, "%s is not a shape N, C, H, W", path);
            return false;
        }
    *im = (Images){(int)d[0], (int)d[1], (int)d[2], (int)d[3], NULL};
    im->x = arena_alloc(&c->arena, (size_t)im->n * (size_t)im->c * (size_t)im->h * (size_t)im->w *
                                       sizeof(float));
    return true;
}

static void make_images(Case *c, Images *im, uint64_t t, bool noise, double amplitude)
{
    const size_t n = (size_t)im->n * (size_t)im->c * (size_t)im->h * (size_t)im->w;
    float *nchw = arena_alloc(&c->arena, n * sizeof *nchw);
    for (size_t i = 0; i < n; i++)
        nchw[i] =
            noise ? fill_noise(i, t, amplitude) : (float)(amplitude * (2 * fill_unit(i, t) - 1));
    nchw_to_nhwc(nchw, im->x, im->n, im->c, im->h, im->w);
}

/* ---- logits ---- */

static void compare_logits(Case *c, Model *m, Witness *r, Phase ph, const Images *im,
                           const int32_t *label, const char *name, const Yaml *want)
{
    const float *logits;
    double loss;
    Err e = {0};
    if (settled_run(c, m, r, ph, im->x, label, im->n, 0, &loss, &logits, &e))
        case_fail(c, "%s", e.msg);
    else
        case_expect(c, name, want, logits,
                    (size_t)im->n * (size_t)model_spec(m)->u[model_spec(m)->out].c);
}

static void logits_case(Case *c, Model *m, Witness *r)
{
    Images im;
    const Yaml *want = yaml_path(c->y, "outputs.logits"),
               *train = yaml_path(c->y, "outputs.logits_train"),
               *running = yaml_path(c->y, "inputs.bn_running");
    int32_t *label;
    if (!want) want = yaml_path(c->y, "outputs.logits_eval");
    if (!want || !image_shape(c, "params.input_fill.shape", &im)) {
        if (!want) case_skip(c, "no logits");
        return;
    }
    make_images(c, &im, (uint64_t)case_int(c, "params.input_fill.t", 0), false, 1);
    label = arena_alloc(&c->arena, (size_t)im.n * sizeof *label);
    if (train) compare_logits(c, m, r, PH_TRAIN, &im, label, "logits in training", train);
    if (running) set_running(c, model_store(m), running);
    compare_logits(c, m, r, PH_EVAL, &im, label, "logits", want);
}

/* ---- predictions on a file of CIFAR-10 binary records ---- */

#define RECORD (1 + 3 * 32 * 32)

static void normalize(Case *c, const unsigned char *pixel, float *x)
{
    const Yaml *mean = yaml_path(c->y, "params.preprocess.mean"),
               *std = yaml_path(c->y, "params.preprocess.std");
    float planes[3 * 1024];
    for (int ch = 0; ch < 3; ch++) {
        double m = 0, s = 1;
        if (!mean || !std || ch >= mean->n || ch >= std->n || !yaml_double(mean->v[ch], &m) ||
            !yaml_double(std->v[ch], &s))
            case_fail(c, "preprocess: mean and std of %d channels expected", 3);
        for (int i = 0; i < 1024; i++)
            planes[ch * 1024 + i] = ((float)pixel[ch * 1024 + i] / 255.0f - (float)m) / (float)s;
    }
    nchw_to_nhwc(planes, x, 1, 3, 32, 32);
}

static int best_of(const float *z, int n)
{
    int k = 0;
    for (int i = 1; i < n; i++)
        if (z[i] > z[k]) k = i;
    return k;
}

static void judge_predictions(Case *c, const int *got, const unsigned char *file, int n,
                              double loss)
{
    const Yaml *v = yaml_path(c->y, "outputs.predictions");
    const long long allowed = case_int(c, "params.prediction_mismatches_allowed", 0),
                    want = case_int(c, "outputs.correct", -1);
    const float mean = (float)(loss / n);
    int correct = 0, differ = 0;
    Tensor p;
    if (!v || !case_array(c, v, "predictions", &p)) return;
    for (int i = 0; i < n; i++) {
        const int other = (int)((float *)p.data)[i];
        correct += got[i] == file[(size_t)i * RECORD];
        if (got[i] == other) continue;
        differ++;
        printf("     %s: image %d (class %d): class %d, the original's prediction %d\n", c->name, i,
               file[(size_t)i * RECORD], got[i], other);
    }
    printf("     %s: %d of %d right (original %lld), loss %.6f\n", c->name, correct, n, want,
           (double)mean);
    c->arrays += 2;
    if (differ > allowed) case_fail(c, "%d predictions differ, %lld allowed", differ, allowed);
    if (llabs(correct - want) > 1)
        case_fail(c, "%d right, expected %lld (one either way)", correct, want);
    case_expect(c, "loss", yaml_path(c->y, "outputs.loss"), &mean, 1);
}

static void predictions_case(Case *c, Model *m)
{
    const int n = (int)case_int(c, "params.samples", 0), batch = 64;
    const char *path = case_data(c, case_str(c, "params.data", ""));
    const unsigned char *file;
    char *bytes;
    size_t size;
    int *got;
    float *x;
    double loss = 0;
    Err e = {0};
    if (!path) return;
    bytes = fs_read(path, 0, &size, &e);
    if (!bytes) {
        case_fail(c, "%s", e.msg);
        return;
    }
    file = (const unsigned char *)bytes;
    if (n < 1 || size < (size_t)n * RECORD) {
        case_fail(c, "%s: %zu bytes, %d images expected", path, size, n);
        free(bytes);
        return;
    }
    got = arena_alloc(&c->arena, (size_t)n * sizeof *got);
    x = arena_alloc(&c->arena, (size_t)batch * 3072 * sizeof *x);
    for (int at = 0; at < n && !c->failed; at += batch) {
        int32_t label[64];
        const int len = n - at < batch ? n - at : batch;
        const float *logits;
        double sum;
        for (int i = 0; i < len; i++) {
            const unsigned char *r = file + (size_t)(at + i) * RECORD;
            label[i] = r[0];
            normalize(c, r + 1, x + (size_t)i * 3072);
        }
        if (model_eval(m, 0, x, label, len, batch, &sum, &logits, &e)) {
            case_fail(c, "%s", e.msg);
            break;
        }
        loss += sum;
        for (int i = 0; i < len; i++) got[at + i] = best_of(logits + i * 10, 10);
    }
    if (!c->failed) judge_predictions(c, got, file, n, loss);
    free(bytes);
}

/* ---- training traces ---- */

/* Element i of a list, or `other`. */
static double list_num(const Yaml *list, int i, double other)
{
    double v = other;
    return list && list->kind == Y_LIST && i < list->n && yaml_double(list->v[i], &v) ? v : other;
}

static bool trace_optim(Case *c, OptimOpts *o)
{
    const Yaml *groups = yaml_path(c->y, "params.optimizer.groups");
    *o = (OptimOpts){.optimizer = "sgd",
                     .lr_scheduler = "constant",
                     .num_epochs = 1};
    o->lr = case_num(c, "params.optimizer.lr", 0);
    o->momentum = case_num(c, "params.optimizer.momentum", 0);
    o->dampening = case_num(c, "params.optimizer.dampening", 0);
    o->nesterov = case_bool(c, "params.optimizer.nesterov", false);
    o->weight_decay = case_num(c, "params.optimizer.weight_decay", 0);
    for (int i = 0; groups && i < groups->n && i < OPTIM_MAX_GROUPS; i++) {
        GroupRule *r = &o->group[o->ngroups++];
        const Yaml *lr = yaml_get(groups->v[i], "lr"), *wd = yaml_get(groups->v[i], "weight_decay");
        snprintf(r->match, sizeof r->match, "%s", groups->k[i]->s);
        if (!lr || !wd || !yaml_double(lr, &r->lr) || !yaml_double(wd, &r->weight_decay)) {
            case_fail(c, "optimizer group %s needs lr and weight_decay", r->match);
            return false;
        }
    }
    return true;
}

/* bn1_weight -> the parameter bn1.weight. */
static Param *by_underscores(const ParamStore *ps, const char *name)
{
    for (int k = 0; k < ps->n; k++) {
        const char *p = ps->p[k]->name, *s = name;
        while (*p && (*p == *s || (*p == '.' && *s == '_'))) p++, s++;
        if (!*p && !*s) return ps->p[k];
    }
    /* The classifier, whatever its name is: fc_bias. */
    for (int k = ps->n - 1; str_starts(name, "fc_") && k >= 0; k--)
        if (str_ends(ps->p[k]->name, name + 3)) return ps->p[k];
    return NULL;
}

static float *gather_alphas(Case *c, const ParamStore *ps, size_t *n)
{
    const Yaml *order = yaml_get(c->y, "alpha_order");
    float *v = arena_alloc(&c->arena, (order ? (size_t)order->n : 0) * sizeof *v + 1);
    *n = 0;
    for (int i = 0; order && i < order->n; i++) {
        const Param *p = store_find(ps, order->v[i]->s);
        if (!p) case_fail(c, "the net has no parameter %s", order->v[i]->s);
        v[(*n)++] = p ? param_scalar(p) : NAN;
    }
    return v;
}

/* Outputs called PREFIX<parameter> and PREFIXalphas. */
static void check_params(Case *c, const ParamStore *ps, const char *prefix, double tol)
{
    const Yaml *out = yaml_get(c->y, "outputs");
    for (int i = 0; out && i < out->n; i++) {
        const char *name = out->k[i]->s;
        const float *got;
        size_t n;
        Tensor want;
        if (!str_starts(name, prefix) || !case_array(c, out->v[i], name, &want)) continue;
        if (str_eq(name + strlen(prefix), "alphas")) {
            got = gather_alphas(c, ps, &n);
        } else {
            const Param *p = by_underscores(ps, name + strlen(prefix));
            if (!p) {
                case_fail(c, "output '%s' is no parameter of the net", name);
                continue;
            }
            got = p->value.data;
            n = tensor_len(&p->value);
        }
        if (n == tensor_len(&want))
            case_compare_tol(c, name, got, want.data, n, tol, 0);
        else
            case_fail(c, "%s has %zu values, expected %zu", name, n, tensor_len(&want));
    }
}

static void check_grad_norms(Case *c, const ParamStore *ps)
{
    const Yaml *want = yaml_get(c->y, "grad_l2_step0");
    const double rel = case_num(c, "params.grad_norm_rel_tolerance", 0);
    int trained = 0;
    for (int k = 0; k < ps->n; k++) trained += ps->p[k]->trained;
    if (want && trained != want->n)
        case_fail(c, "%d parameters have gradients, expected %d", trained, want->n);
    for (int i = 0; want && i < want->n; i++) {
        const Param *p = store_find(ps, want->k[i]->s);
        double sum = 0, expected;
        if (!p || !p->grad.data || !yaml_double(want->v[i], &expected)) {
            case_fail(c, "no gradient of %s", want->k[i]->s);
            continue;
        }
        for (size_t j = 0; j < tensor_len(&p->value); j++) {
            const double g = (double)((const float *)p->grad.data)[j];
            sum += g * g;
        }
        const float got = (float)sqrt(sum), w = (float)expected;
        case_compare_tol(c, arena_printf(&c->arena, "gradient norm of %s", p->name), &got, &w, 1,
                         1e-7, rel);
    }
}

static void trace_steps(Case *c, Model *m, Witness *r, Optim *op, Images *im)
{
    const Yaml *reliable = yaml_path(c->y, "params.reliable_step"),
               *tol = yaml_path(c->y, "params.loss_tolerance_per_step");
    const int steps = (int)case_int(c, "params.steps", 0);
    const bool noise = str_eq(case_str(c, "params.images.kind", ""), "hash_noise");
    const double amplitude = case_num(c, "params.images.amplitude", 1);
    const uint64_t t0 = strtoull(case_str(c, "params.images.t", "0"), NULL, 10);
    const Yaml *v = yaml_path(c->y, "outputs.loss"),
               *logits0 = yaml_path(c->y, "outputs.logits_step0");
    int32_t *label = arena_alloc(&c->arena, (size_t)im->n * sizeof *label);
    int s;
    Tensor want;
    Err e = {0};
    if (!v || !case_array(c, v, "loss", &want) || (int)tensor_len(&want) < steps) return;
    for (s = 0; s < steps && list_num(reliable, s, 1) != 0; s++) {
        double loss;
        float l;
        const float *logits;
        make_images(c, im, t0 + (uint64_t)s, noise, amplitude);
        for (int i = 0; i < im->n; i++) label[i] = (i * 7 + s) % 10;
        if (settled_run(c, m, r, PH_TRAIN, im->x, label, im->n, s, &loss, &logits, &e)) {
            case_fail(c, "step %d: %s", s, e.msg);
            return;
        }
        l = (float)loss;
        case_compare_tol(c, arena_printf(&c->arena, "loss of step %d", s), &l,
                         (float *)want.data + s, 1, list_num(tol, s, c->abs), 0);
        if (s == 0) {
            if (logits0) case_expect(c, "logits of step 0", logits0, logits, (size_t)im->n * 10);
            check_grad_norms(c, model_store(m));
        }
        optim_step(op, model_store(m), 0);
        model_after_step(m);
        if (s == 0)
            check_params(c, model_store(m), "after1_",
                         case_num(c, "params.after_1_step_tolerance", 0));
    }
    if (s == steps)
        check_params(c, model_store(m), "final_", case_num(c, "params.final_tolerance", HUGE_VAL));
}

static void trace_case(Case *c, Model *m, Witness *r)
{
    Images im;
    OptimOpts o;
    Optim op = {0};
    Err e = {0};
    if (!image_shape(c, "params.images.shape", &im) || !trace_optim(c, &o)) return;
    if (model_prepare(m, PH_TRAIN, 0, im.n, &e) || optim_init(&op, &o, model_store(m), &e)) {
        case_fail(c, "%s", e.msg);
        return;
    }
    trace_steps(c, m, r, &op, &im);
    optim_free(&op);
}

#define UNCOUNTED -1 /* filled, the number of tensors not said */

/* Builds, fills and judges the net once. */
static void judge_net(Case *c, const char *arch, int fill, const char *path, Witness *r)
{
    const char *mode = case_str(c, "params.mode", "eval");
    Model *m = open_net(c, arch, (int)case_int(c, "params.bit", 32), r);
    if (!m) return;
    if (fill) {
        int have = fill_store(model_store(m), case_num(c, "params.act_alpha", 0),
                              case_num(c, "params.wgt_alpha", 0));
        if (fill != UNCOUNTED && have != fill)
            case_fail(c, "the net has %d floating tensors, expected %d", have, fill);
    }
    if (!c->failed && (fill || load_checkpoint(c, m, path))) {
        if (str_eq(mode, "train"))
            trace_case(c, m, r);
        else if (yaml_path(c->y, "params.data"))
            predictions_case(c, m);
        else
            logits_case(c, m, r);
    }
    model_free(m);
}

/* As the program computes it; where that misses the case, once more with its roundings settled. */
void golden_net(Case *c)
{
    const char *arch = case_str(c, "params.arch", NULL),
               *file = case_str(c, "params.checkpoint", NULL), *path = NULL;
    int fill = (int)case_int(c, "params.fill_tensors", 0);
    if (!fill && str_starts(case_str(c, "params.start", ""), "deterministic fill"))
        fill = UNCOUNTED;
    if (yaml_path(c->y, "params.bits_list")) {
        golden_variant_net(c);
        return;
    }
    if (yaml_path(c->y, "params.keyword")) {
        golden_keyword_net(c);
        return;
    }
    if (str_eq(case_str(c, "method", ""), "f8net")) {
        golden_f8net_net(c);
        return;
    }
    if (!arch || (!file && !fill)) {
        case_skip(c, "no arch with a checkpoint or a fill");
        return;
    }
    if (file && !(path = case_data(c, file))) return;
    for (int settled = 0; settled < 2; settled++) {
        Witness r = {0};
        if (settled) case_again(c);
        r.settle = settled;
        judge_net(c, arch, fill, path, &r);
        witness_free(&r);
        if (!c->failed || yaml_path(c->y, "params.data")) return;
    }
}

/* "A + i" or "A - B i" at i. */
static double linear_rule(const char *text, int i)
{
    double a = 0, b = 1;
    char sign = '+';
    if (sscanf(text, "%lf %c %lf i", &a, &sign, &b) < 3) b = 1;
    return sign == '-' ? a - b * i : a + b * i;
}

/* The lines of clip levels, one per quantized layer in module order. */
void golden_show_params(Case *c)
{
    const Yaml *lines = yaml_get(c->y, "lines"), *order = yaml_get(c->y, "module_order");
    Model *m = open_net(c, "res20", 4, NULL);
    const Spec *s;
    int *units, seen = 0;
    if (!m) return;
    s = model_spec(m);
    units = arena_alloc(&c->arena, (size_t)s->n * sizeof *units);
    spec_declaration_order(s, units);
    for (int k = 0; k < s->n; k++) {
        const QInst *wt = qplan_get(model_qplan(m), units[k], Q_WEIGHT, 0);
        const QInst *act = qplan_get(model_qplan(m), units[k], Q_ACT, 0);
        char line[512] = "";
        if (!wt || !act || !wt->fn->show) continue;
        if (seen >= lines->n || seen >= order->n) {
            case_fail(c, "more quantized layers than the %d of the case", lines->n);
            break;
        }
        param_set_scalar(act->p[0], (float)linear_rule(case_str(c, "params.act_alpha", ""), seen));
        param_set_scalar(wt->p[0], (float)linear_rule(case_str(c, "params.wgt_alpha", ""), seen));
        wt->fn->show(wt, act, line, sizeof line);
        if (!str_eq(s->u[units[k]].name, order->v[seen]->s))
            case_fail(c, "layer %d is %s, expected %s", seen, s->u[units[k]].name,
                      order->v[seen]->s);
        if (!str_eq(line, lines->v[seen]->s))
            case_fail(c, "'%s', expected '%s'", line, lines->v[seen]->s);
        c->arrays++;
        seen++;
    }
    if (seen != lines->n) case_fail(c, "%d lines, expected %d", seen, lines->n);
    model_free(m);
}
