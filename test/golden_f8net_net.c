/* test/golden_f8net_net.c -- op `net` in fixed point: small nets that are trained, evaluation of them
 * and of full nets with the deterministic fill, statistics of their layers. What is done in whole
 * numbers is in golden_f8int.c. */
#include "test/golden_f8net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "nets/staged.h"
#include "optim/optim.h"
#include "quant/f8int.h"
#include "test/golden_trace.h"

/* ---- small nets ---- */

static const StagedStyle style = {.names = NAMES_F8NET, .joined = true};

static const char *block_name(Arena *a, int stage, int layer)
{
    return arena_printf(a, "stage_%d_layer_%d.", stage, layer);
}

static int head(Spec *s, const NetDef *net, const NetOpts *o)
{
    const StagedConv c = {net->arg, 3, 2, 1, true};
    return staged_sequence(s, spec_input(s, o->in_c, o->in_h, o->in_w), &style, &c, 1, UM_FIRST,
                           "head");
}

static int residual_net(Spec *s, const NetDef *net, const NetOpts *o, bool bottleneck, Err *e)
{
    int x = head(s, net, o);
    x = spec_pool(s, x, (PoolAttr){.kind = POOL_MAX, .k = 3, .stride = 2, .pad = 1});
    for (int i = 0; i < 4; i++) {
        const char *prefix = block_name(&s->arena, i / 2, i % 2);
        const int width = net->arg << i / 2, stride = i == 2 ? 2 : 1, begin = s->n;
        x = bottleneck ? staged_bottleneck(s, x, &style, 4 * width, stride, prefix)
                       : staged_residual(s, x, &style, width, stride, prefix);
        for (int u = begin; i == 0 && u < s->n; u++)
            if (s->u[u].marks & UM_SKIP) spec_mark(s, u, UM_OWN_CLIP);
    }
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}

static int mini_res(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    (void)names;
    return residual_net(s, net, o, false, e);
}

static int mini_bottleneck(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    (void)names;
    return residual_net(s, net, o, true, e);
}

static int mini_mb1(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const int c = net->arg;
    int x = head(s, net, o);
    (void)names;
    x = staged_separable(s, x, &style, 2 * c, 1, block_name(&s->arena, 0, 0));
    x = staged_separable(s, x, &style, 3 * c, 2, block_name(&s->arena, 1, 0));
    x = staged_separable(s, x, &style, 3 * c, 1, block_name(&s->arena, 1, 1));
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}

static int mini_mb2(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const int c = net->arg;
    const StagedConv tail = {2 * (c + 4), 1, 1, 1, true};
    int x = head(s, net, o);
    (void)names;
    x = staged_inverted(s, x, &style, 1, c, 1, block_name(&s->arena, 0, 0));
    x = staged_inverted(s, x, &style, 2, c + 2, 2, block_name(&s->arena, 1, 0));
    x = staged_inverted(s, x, &style, 2, c + 2, 1, block_name(&s->arena, 1, 1));
    x = staged_inverted(s, x, &style, 2, c + 4, 1, block_name(&s->arena, 2, 0));
    x = staged_sequence(s, x, &style, &tail, 1, UM_SIGNED, "tail");
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}

static const struct {
    const char *net, *kind;
    int (*build)(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
} minis[] = {
    {"MiniRes", "bottleneck", mini_bottleneck},
    {"MiniRes", "", mini_res},
    {"MiniMB1", "", mini_mb1},
    {"MiniMB2", "", mini_mb2},
};

Model *golden_f8net_mini(Case *c, const QOpts *o, const Tensor *x)
{
    const char *name = case_str(c, "params.net", ""), *kind = case_str(c, "params.net_args.kind", "");
    NetDef def = {.name = "mini", .doc = "", .arg = (int)case_int(c, "params.net_args.c", 0)};
    const NetDef *extra[] = {&def, NULL};
    const NetOpts no = {.model = "mini", .names = "", .extra = extra,
                        .num_classes = (int)case_int(c, "params.num_classes", 0),
                        .in_c = x->dim[1], .in_h = x->dim[2], .in_w = x->dim[3]};
    Err e = {0};
    Model *m = NULL;
    for (size_t i = 0; i < ARRAY_LEN(minis) && !def.build; i++)
        if (str_eq(minis[i].net, name) && (!*minis[i].kind || str_eq(minis[i].kind, kind)))
            def.build = minis[i].build;
    if (!def.build || x->ndim != 4)
        case_skip(c, "net '%s' is not known to the runner", name);
    else if (!(m = model_new(&no, o, 0, 1, &e)))
        case_fail(c, "%s", e.msg);
    if (!m) return NULL;
    store_alloc_grads(model_store(m));
    golden_f8net_links(c, model_qplan(m));
    if (!c->failed && state_set(c, model_store(m))) return m;
    model_free(m);
    return NULL;
}

static float *nhwc(Case *c, const Tensor *x)
{
    float *to = arena_alloc(&c->arena, tensor_bytes(x));
    nchw_to_nhwc(x->data, to, x->dim[0], x->dim[1], x->dim[2], x->dim[3]);
    return to;
}

void golden_f8net_logits(Case *c, Model *m, const float *x, int n, const char *key)
{
    int32_t *label = arena_alloc(&c->arena, (size_t)n * sizeof *label);
    const float *logits;
    double loss;
    Err e = {0};
    if (model_eval(m, 0, x, label, n, n, &loss, &logits, &e))
        case_fail(c, "%s", e.msg);
    else
        case_expect(c, key, yaml_path(c->y, arena_printf(&c->arena, "outputs.%s", key)), logits,
                    (size_t)n * (size_t)model_spec(m)->u[model_spec(m)->out].c);
}

/* The same batch at every step. */
static void train(Case *c, Model *m, const Tensor *x)
{
    const int steps = (int)case_int(c, "params.steps", 0), n = x->dim[0];
    const size_t len = (size_t)n * (size_t)case_int(c, "params.num_classes", 0);
    OptimOpts o = {.optimizer = "sgd", .lr_scheduler = "constant", .num_epochs = 1};
    ParamStore *ps = model_store(m);
    float *image = nhwc(c, x), *loss = arena_alloc(&c->arena, (size_t)steps * sizeof *loss + 1),
          *logits = arena_alloc(&c->arena, (size_t)steps * len * sizeof *logits + 1);
    int32_t *label = arena_alloc(&c->arena, (size_t)n * sizeof *label);
    Optim op = {0};
    Err e = {0};
    Tensor target;
    o.weight_decay_scheme = case_str(c, "params.weight_decay_scheme", "all");
    o.lr = case_num(c, "params.lr", 0);
    o.momentum = case_num(c, "params.momentum", 0);
    o.nesterov = case_bool(c, "params.nesterov", false);
    o.weight_decay = case_num(c, "params.weight_decay", 0);
    if (!case_array(c, yaml_path(c->y, "inputs.target"), "target", &target) ||
        (int)tensor_len(&target) != n || optim_init(&op, &o, ps, &e)) {
        case_fail(c, "no target of %d labels %s", n, e.msg);
        return;
    }
    for (int i = 0; i < n; i++) label[i] = (int32_t)((float *)target.data)[i];
    for (int s = 0; s < steps && !c->failed; s++) {
        const float *got;
        double l = 0;
        store_zero_grads(ps);
        if (model_train(m, 0, image, label, n, s, &l, &got, &e)) {
            case_fail(c, "step %d: %s", s, e.msg);
            break;
        }
        loss[s] = (float)l;
        memcpy(logits + (size_t)s * len, got, len * sizeof *got);
        if (s == 0) state_check_grads(c, ps, "param_layout", yaml_path(c->y, "grads.params_step0"));
        optim_step(&op, ps, 0);
        model_after_step(m);
    }
    optim_free(&op);
    if (c->failed) return;
    case_expect(c, "loss", yaml_path(c->y, "outputs.loss"), loss, (size_t)steps);
    case_expect(c, "logits in training", yaml_path(c->y, "outputs.logits_train"), logits,
                (size_t)steps * len);
    state_check(c, ps, "state_layout", yaml_path(c->y, "outputs.state_after"));
    golden_f8net_logits(c, m, image, n, "logits_eval_after");
}

/* ---- full nets ---- */

/* base + slope s of the t-th floating tensor of the state dict, s in [-1, 1). */
static void fill(Param *p, uint64_t t)
{
    const double w = (double)t * 0.6180339887498949, part = w - floor(w);
    const size_t n = tensor_len(&p->value);
    double base = 0, slope = 0.1;
    float *v = p->value.data;
    if (p->kind == PK_CLIP)
        base = 1 + 2 * part, slope = 0;
    else if (str_ends(p->name, ".input_fraclen"))
        base = 3.6 + 4.3 * part, slope = 0;
    else if (str_ends(p->name, ".running_var"))
        base = 0.25 * 1.25, slope = 0.25 * 0.25;
    else if (p->kind == PK_NORM && str_ends(p->name, ".weight"))
        base = 1;
    else if (p->kind == PK_WEIGHT)
        slope = sqrt(3.0 / (double)(n / (size_t)p->value.dim[0]));
    for (size_t i = 0; i < n; i++) v[i] = (float)(base + slope * (2 * fill_unit(i, t) - 1));
    param_touch(p);
}

static float *image(Case *c, const int d[4], bool normalize)
{
    const size_t n = (size_t)d[0] * (size_t)d[1] * (size_t)d[2] * (size_t)d[3];
    const uint64_t t = (uint64_t)case_int(c, "params.image_t", 0);
    float *x = arena_alloc(&c->arena, n * sizeof *x);
    const Tensor whole = tensor_make(DT_F32, 4, d, x);
    for (size_t i = 0; i < n; i++)
        x[i] = normalize ? fill_value(i, t) : rintf(255 * (float)fill_unit(i, t)) / 256;
    return nhwc(c, &whole);
}

static Model *open_full(Case *c, const QOpts *o, const int d[4])
{
    const NetOpts no = {.model = case_str(c, "params.model", ""), .names = "",
                        .depth = (int)case_int(c, "params.depth", 0),
                        .num_classes = (int)case_int(c, "params.num_classes", 0),
                        .in_c = d[1], .in_h = d[2], .in_w = d[3]};
    uint64_t t = (uint64_t)case_int(c, "params.fill_t_offset", 0);
    Err e = {0};
    Model *m = model_new(&no, o, 0, 1, &e);
    if (!m) {
        case_fail(c, "%s", e.msg);
        return NULL;
    }
    for (int k = 0; k < model_store(m)->n; k++)
        if (model_store(m)->p[k]->value.dtype == DT_F32) fill(model_store(m)->p[k], t++);
    return m;
}

/* Lengths of inputs and weights by layer, in the order of the units; -1: not rounded. */
static bool lengths(Case *c, const QPlan *qp, int (*fl)[2])
{
    IntNet net;
    double unit;
    Err e = {0};
    int k = 0;
    if (qp->opts->f8.floating_model) {
        for (int i = 0; i < qp->spec->n; i++) fl[i][0] = fl[i][1] = -1;
        return true;
    }
    if (f8int_build(qp, false, &net, &unit, &e)) case_fail(c, "%s", e.msg);
    for (int i = 0; i < net.n && !c->failed; i++) {
        if (net.op[i].kind != IK_CONV && net.op[i].kind != IK_LINEAR) continue;
        fl[k][0] = net.op[net.op[i].in[0]].fl;
        fl[k++][1] = net.op[i].u.conv.weight_fl;
    }
    intnet_free(&net);
    return !c->failed;
}

/* Rows: layer, length of weights and of inputs, three figures of its input and of its output. */
static void check_trace(Case *c, Model *m, const float *x, int n)
{
    const QPlan *qp = model_qplan(m);
    const size_t units = (size_t)qp->spec->n;
    const double moved = case_num(c, "float64_recompute.mean_abs_diff", 0) /
                         fmax(case_num(c, "logits_std", 1), 1e-3);
    const SeenLimits limits = {1e-5 + 4 * moved, 1e-5 + 4 * moved};
    Seen *seen = arena_alloc(&c->arena, 2 * units * sizeof *seen);
    int(*fl)[2] = arena_alloc(&c->arena, units * sizeof *fl), rows = 0;
    char *text, *rest;
    size_t size;
    Err e = {0};
    if (!lengths(c, qp, fl) || !golden_watch(c, model_qplan(m), 0, n, x, seen)) return;
    text = fs_read(arena_printf(&c->arena, "%s/%s", c->dir, case_str(c, "trace", "")), 0, &size, &e);
    if (!text) {
        case_fail(c, "%s", e.msg);
        return;
    }
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        double in[SEEN_N], out[SEEN_N];
        int weight_fl, input_fl, at;
        char layer[128];
        if (sscanf(line, "%127s %d %d %lf %lf %lf %lf %lf %lf", layer, &weight_fl, &input_fl, &in[0],
                   &in[1], &in[2], &out[0], &out[1], &out[2]) != 9)
            continue; /* the heading */
        at = golden_watched(qp->spec, layer);
        if (at < 0) {
            case_fail(c, "there is no layer %s", layer);
            break;
        }
        if (fl[at][0] != input_fl || fl[at][1] != weight_fl)
            case_fail(c, "%s has lengths %d and %d, expected %d and %d", layer, fl[at][0], fl[at][1],
                      input_fl, weight_fl);
        golden_check_seen(c, layer, "input", &seen[2 * at], in, limits);
        golden_check_seen(c, layer, "output", &seen[2 * at + 1], out, limits);
        rows++;
    }
    if (!rows) case_fail(c, "the trace has no row");
    free(text);
}

static void full_net(Case *c, const QOpts *o)
{
    int d[4];
    float *x;
    Model *m;
    if (case_ints(c, "params.input_shape", d, 4) != 4 || !(m = open_full(c, o, d))) return;
    x = image(c, d, !o->f8.image);
    if (case_bool(c, "params.int_infer", false)) {
        golden_f8int_net(c, model_qplan(m), x, d[0]);
    } else {
        golden_f8net_logits(c, m, x, d[0], "logits");
        check_trace(c, m, x, d[0]);
    }
    model_free(m);
}

/* ---- */

static void mini_int(Case *c, QOpts *o, const Tensor *x)
{
    const float *image = nhwc(c, x);
    for (int pooled = 0; pooled < 2 && !c->failed; pooled++) {
        Model *m;
        o->f8.quant_avgpool = o->f8.pool_fusing = pooled;
        m = golden_f8net_mini(c, o, x);
        if (!m) return;
        golden_f8net_logits(c, m, image, x->dim[0],
                            pooled ? "logits_test_quant_avgpool" : "logits_test");
        if (pooled) golden_f8int_stages(c, model_qplan(m), image, x->dim[0]);
        model_free(m);
    }
}

static void mini(Case *c, QOpts *o)
{
    Tensor x;
    Model *m;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x)) return;
    if (yaml_path(c->y, "outputs.int_state")) {
        mini_int(c, o, &x);
    } else if ((m = golden_f8net_mini(c, o, &x))) {
        train(c, m, &x);
        model_free(m);
    }
}

void golden_f8net_net(Case *c)
{
    QOpts o;
    if (!golden_f8net_opts(c, &o)) return;
    if (yaml_path(c->y, "params.net"))
        mini(c, &o);
    else
        full_net(c, &o);
}
