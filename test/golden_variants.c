/* test/golden_variants.c -- ops `layer` and `block` with a state and several bit widths, and op `net`
 * for nets whose weights serve several widths: gradients summed over the widths, statistics after,
 * logits of every width. A bit width outside bits_list is a variant of its own (QOpts.extra_bits). */
#include "test/golden_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nets/blocks.h"
#include "nets/staged.h"
#include "optim/optim.h"
#include "run/model.h"

/* ---- a layer or a block ---- */

typedef struct Rig {
    SpecRun run;
    int n, variant[QPLAN_MAX_VARIANTS]; /* the sequence of widths */
} Rig;

/* One width of a sequence: a number, or a pair of weights and activations. Makes a variant of it
 * where it is not in the list. */
static bool add_width(Case *c, Rig *r, const Yaml *v)
{
    QOpts *o = &r->run.o;
    long long w = 0, a = 0;
    bool good = v->kind == Y_LIST ? v->n == 2 && yaml_int(v->v[0], &w) && yaml_int(v->v[1], &a)
                                  : yaml_int(v, &w);
    if (!good || r->n >= QPLAN_MAX_VARIANTS || o->nextra >= (int)ARRAY_LEN(o->extra_bits)) {
        case_fail(c, "a sequence of widths that is none");
        return false;
    }
    for (int i = 0; !a && i < o->nbits_list; i++) {
        if (o->bits_list[i] != w) continue;
        r->variant[r->n++] = i;
        return true;
    }
    r->variant[r->n++] = o->nbits_list + o->nextra;
    o->extra_bits[o->nextra] = (int)w;
    o->extra_act_bits[o->nextra++] = (int)a;
    return true;
}

static bool add_widths(Case *c, Rig *r, const char *path)
{
    const Yaml *list = yaml_path(c->y, path);
    if (!list || list->kind != Y_LIST) case_fail(c, "no %s", path);
    for (int i = 0; !c->failed && i < list->n; i++) add_width(c, r, list->v[i]);
    return !c->failed;
}

static int build_conv(Case *c, Rig *r, int x, bool edge)
{
    int v[6];
    NormAttr norm = {
        .kind = NK_BATCH, .eps = 1e-5f, .momentum = 0.1f, .affine = true, .weight_init = 1};
    if (case_ints(c, "params.conv", v, 6) != 6) return x;
    x = spec_conv(&r->run.spec, x,
                  (ConvAttr){.oc = v[1], .k = v[2], .stride = v[3], .pad = v[4], .groups = v[5]},
                  "conv");
    spec_mark(&r->run.spec, x, (edge ? UM_FIRST : 0) | UM_SIGNED);
    return spec_norm(&r->run.spec, x, norm, "bn");
}

/* Shapes as in the arrays; the first weight tells how much a block expands. */
static int build_block(Case *c, Rig *r, int x, const Tensor *xs, const Tensor *ys)
{
    const StagedStyle st = {.names = NAMES_ADABITS};
    const int oc = ys->dim[2], stride = ys->dim[3] < xs->dim[2] ? 2 : 1;
    const Yaml *layout = yaml_get(c->y, "state_layout");
    const Yaml *shape = layout && layout->n && layout->v[0]->n > 1 ? layout->v[0]->v[1] : NULL;
    long long wide = 0;
    if (!shape || shape->n != 4 || !yaml_int(shape->v[0], &wide)) {
        case_fail(c, "no shape of the first weight");
        return x;
    }
    r->run.o.double_side = strstr(c->name, "double_side") != NULL;
    if (str_starts(c->name, "block_dwsep"))
        return staged_separable(&r->run.spec, x, &st, oc, stride, "");
    if (str_starts(c->name, "block_invres"))
        return staged_inverted(&r->run.spec, x, &st, (int)wide / xs->dim[1], oc, stride, "");
    return staged_residual(&r->run.spec, x, &st, oc, stride, "");
}

static bool rig_open(Case *c, Rig *r, Tensor *xs, const Tensor *ys)
{
    int bits, x, out, fc[2];
    case_quant_opts(c, &r->run.o, &bits);
    if (case_done(c) || !add_widths(c, r, "params.bits_sequence")) return false;
    r->run.o.edge_min_bits = (int)case_int(c, "params.bitw_min", 0);
    r->run.train = str_eq(case_str(c, "params.mode", ""), "train");
    while (xs->ndim < 4) xs->dim[xs->ndim++] = 1;
    x = spec_input(&r->run.spec, xs->dim[1], xs->dim[2], xs->dim[3]);
    if (str_eq(case_str(c, "op", ""), "block")) {
        out = build_block(c, r, x, xs, ys);
    } else if (yaml_path(c->y, "params.fc")) {
        if (case_ints(c, "params.fc", fc, 2) != 2) return false;
        out = spec_linear(&r->run.spec, x, (LinearAttr){.out = fc[1], .bias = true}, "fc");
        spec_mark(&r->run.spec, out, UM_LAST);
    } else {
        out = build_conv(c, r, x, r->run.o.edge_min_bits != 0);
    }
    return !c->failed && specrun_open(c, &r->run, out, xs) && state_set(c, &r->run.ps);
}

/* Forward and backward of width k; up, want: its part of the arrays. */
static void rig_run(Case *c, Rig *r, int k, const float *up, const float *want, size_t n)
{
    specrun_pass(c, &r->run, r->variant[k], arena_printf(&c->arena, "y of width %d", k), up, want, n);
}

void golden_variants(Case *c)
{
    Rig r = {.n = 0};
    Tensor x, y, up;
    if (yaml_path(c->y, "params.layers")) {
        golden_f8net_block(c);
        return;
    }
    if (yaml_path(c->y, "params.block")) {
        golden_keyword_block(c);
        return;
    }
    if (!quant_find(case_str(c, "method", ""))) {
        case_skip(c, "method '%s' is not in this program", case_str(c, "method", ""));
        return;
    }
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "outputs.y"), "y", &y) ||
        !case_array(c, yaml_path(c->y, "upstream.y"), "upstream", &up))
        return;
    if (rig_open(c, &r, &x, &y)) {
        const size_t n = tensor_len(&y) / (size_t)r.n;
        for (int k = 0; k < r.n && !c->failed; k++)
            rig_run(c, &r, k, (float *)up.data + (size_t)k * n, (float *)y.data + (size_t)k * n, n);
        specrun_check_dx(c, &r.run);
        state_check_grads(c, &r.run.ps, "param_layout", yaml_path(c->y, "grads.params"));
        state_check(c, &r.run.ps, "state_layout", yaml_path(c->y, "outputs.state_after"));
    }
    specrun_close(&r.run);
}

void golden_used_bias(Case *c, const QOpts *o, int bits)
{
    const Yaml *v = yaml_path(c->y, "inputs.bias"), *want = yaml_path(c->y, "outputs.used_bias");
    SpecRun r = {.o = *o, .train = str_eq(case_str(c, "params.mode", ""), "train")};
    Tensor w, b, expected, x; /* x is 0: what comes out is the bias */
    float *zeros;
    int out;
    if (!want || !v || !case_array(c, v, "bias", &b) ||
        !case_array(c, yaml_path(c->y, "inputs.x"), "x", &w) ||
        !case_array(c, want, "used_bias", &expected))
        return;
    r.o.wt_bit = bits;
    zeros = arena_alloc(&c->arena, tensor_bytes(&w) + tensor_bytes(&b));
    memset(zeros, 0, tensor_bytes(&w) + tensor_bytes(&b));
    x = tensor_make(DT_F32, 2, (int[]){1, w.dim[1]}, zeros);
    out = spec_linear(&r.spec, spec_input(&r.spec, w.dim[1], 1, 1),
                      (LinearAttr){.out = w.dim[0], .bias = true}, "fc");
    if (specrun_open(c, &r, out, &x)) {
        memcpy(store_find(&r.ps, "fc.weight")->value.data, w.data, tensor_bytes(&w));
        memcpy(store_find(&r.ps, "fc.bias")->value.data, b.data, tensor_bytes(&b));
        specrun_pass(c, &r, 0, "bias", zeros, expected.data, tensor_len(&expected));
    }
    specrun_close(&r);
}

/* ---- nets ---- */

static double golden_ratio_fill(uint64_t t, size_t i)
{
    const double v = ((double)t + 1000.0 * (double)i) * 0.6180339887498949;
    return 1 + 2 * (v - floor(v));
}

static void fill_net(ParamStore *ps, uint64_t t)
{
    for (int k = 0; k < ps->n; k++) {
        Param *p = ps->p[k];
        float *v = p->value.data;
        if (p->value.dtype != DT_F32) continue;
        for (size_t i = 0; i < tensor_len(&p->value); i++)
            v[i] = p->kind == PK_CLIP ? (float)golden_ratio_fill(t, i) : fill_param(p, i, t);
        param_touch(p);
        t++;
    }
}

/* The MobileNets' rule: statistics scaled by what the convolution before gains. */
static void scale_statistics(Model *m)
{
    const Spec *s = model_spec(m);
    const QPlan *qp = model_qplan(m);
    for (int u = 0; u < s->n; u++) {
        const Unit *conv = &s->u[u];
        double g, fan;
        if (conv->kind != U_CONV || conv->norm < 0) continue;
        fan = (double)conv->ic / conv->u.conv.groups * conv->u.conv.k * conv->u.conv.k;
        g = sqrt(fan / 6) * (conv->marks & UM_FIRST ? 200 : 1);
        for (int v = 0; v < qp->opts->nbits_list; v++) {
            const NormParams *np = &qp->u[conv->norm].norm[v];
            float *mean = np->mean->value.data, *var = np->var->value.data;
            for (int i = 0; i < conv->c; i++) {
                mean[i] = (float)((double)mean[i] * g);
                var[i] = (float)((double)var[i] * g * g);
            }
            param_touch(np->mean);
            param_touch(np->var);
        }
    }
}

static void set_momentum(Model *m, float momentum)
{
    Spec *s = (Spec *)(uintptr_t)model_spec(m); /* what the graphs to come are lowered from */
    for (int u = 0; u < s->n; u++)
        if (s->u[u].kind == U_NORM) s->u[u].u.norm.momentum = momentum;
    model_drop_programs(m);
}

static Model *open_variants(Case *c, Rig *r, int size)
{
    const char *model = case_str(c, "params.model", "models.q_resnet_cifar");
    NetOpts no = {.model = model, .names = "", .in_c = 3, .in_h = size, .in_w = size};
    int bits;
    Err e = {0};
    Model *m;
    case_quant_opts(c, &r->run.o, &bits);
    if (case_done(c)) return NULL;
    if (!add_widths(c, r,
                    yaml_path(c->y, "params.bits_evaluated") ? "params.bits_evaluated"
                                                             : "params.bits_list"))
        return NULL;
    no.num_classes = (int)case_int(c, "params.num_classes", 10);
    if (strstr(model, "resnet")) no.depth = (int)case_int(c, "params.depth", 20);
    if (strstr(model, "mobilenet")) r->run.o.edge_min_bits = 8;
    m = model_new(&no, &r->run.o, 0, 1, &e);
    if (!m) case_fail(c, "%s", e.msg);
    return m;
}

/* Loss of every width in training, and the gradients' norms. */
static void check_losses(Case *c, Model *m, const Rig *r, const float *x, int n)
{
    const Yaml *order = yaml_get(c->y, "param_order");
    ParamStore *ps = model_store(m);
    float loss[QPLAN_MAX_VARIANTS], *norms;
    Tensor want;
    int target[16];
    int32_t label[16];
    Err e = {0};
    if (case_ints(c, "params.target", target, 16) != n || !order) {
        case_fail(c, "no target of %d labels, or no param_order", n);
        return;
    }
    for (int i = 0; i < n; i++) label[i] = target[i];
    for (int k = 0; k < r->n; k++) {
        double l;
        if (model_prepare(m, PH_TRAIN, r->variant[k], n, &e)) break;
        if (k == 0) store_zero_grads(ps);
        if (model_train(m, r->variant[k], x, label, n, 0, &l, NULL, &e)) break;
        loss[k] = (float)l;
    }
    if (e.msg[0]) {
        case_fail(c, "%s", e.msg);
        return;
    }
    case_expect(c, "loss", yaml_path(c->y, "outputs.loss"), loss, (size_t)r->n);
    norms = arena_alloc(&c->arena, (size_t)order->n * sizeof *norms);
    for (int i = 0; i < order->n; i++) {
        const Param *p = store_find(ps, order->v[i]->s);
        double sum = 0;
        if (!p || !p->grad.data) {
            case_fail(c, "no gradient of %s", order->v[i]->s);
            return;
        }
        for (size_t j = 0; j < tensor_len(&p->value); j++)
            sum += pow((double)((const float *)p->grad.data)[j], 2);
        norms[i] = (float)sqrt(sum);
    }
    /* Gradient norms of few bits are noise, told by a wide tolerance; at 32 bits an input of a ReLU
     * that is 0 but for rounding may move those of one layer by a percent. */
    if (c->rel > 0.1 || !case_array(c, yaml_path(c->y, "outputs.grad_norms"), "grad_norms", &want))
        return;
    if (tensor_len(&want) == (size_t)order->n)
        case_compare_tol(c, "gradient norms", norms, want.data, tensor_len(&want), c->abs, 0.02);
    else
        case_fail(c, "%d parameters, %zu gradient norms", order->n, tensor_len(&want));
}

/* Whether the logits of one image are off by more than the tolerance but by less than a tenth of
 * their deviation: one activation on the border of two levels has gone the other way. */
static bool one_flip(const float *got, const float *want, size_t n, double abs, double deviation)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    return worst > abs && worst < 0.1 * deviation;
}

static void check_logits(Case *c, Model *m, const Rig *r, const float *x, int n)
{
    const Yaml *tol = yaml_get(c->y, "abs_tolerance_per_bits"), *stats = yaml_get(c->y, "stats");
    int flips = 0;
    int32_t *label = arena_alloc(&c->arena, (size_t)n * sizeof *label);
    Tensor want;
    size_t each, one;
    Err e = {0};
    if (!case_array(c, yaml_path(c->y, "outputs.logits"), "logits", &want)) return;
    each = tensor_len(&want) / (size_t)r->n;
    one = each / (size_t)n;
    memset(label, 0, (size_t)n * sizeof *label);
    for (int k = 0; k < r->n; k++) {
        const float *logits;
        double loss, abs = c->abs, deviation = 0;
        if (model_eval(m, r->variant[k], x, label, n, n, &loss, &logits, &e)) {
            case_fail(c, "%s", e.msg);
            return;
        }
        if (tol && tol->kind == Y_LIST && k < tol->n) yaml_double(tol->v[k], &abs);
        if (stats && k < stats->n && stats->v[k]->n > 1) yaml_double(stats->v[k]->v[1], &deviation);
        for (int i = 0; i < n; i++) {
            const float *w = (float *)want.data + (size_t)k * each + (size_t)i * one;
            const char *what = arena_printf(&c->arena, "logits of width %d, image %d", k, i);
            if (!flips && one_flip(logits + (size_t)i * one, w, one, abs, deviation)) {
                printf("     %s: %s: a rounding went the other way\n", c->name, what);
                flips++; /* one is allowed, and the others are compared */
            } else {
                case_compare_tol(c, what, logits + (size_t)i * one, w, one, abs, c->rel);
            }
        }
    }
}

static void filled_net(Case *c)
{
    const char *calibration = case_str(c, "params.calibration", "");
    Rig r = {.n = 0};
    int d[4];
    size_t len;
    float *nchw, *x;
    int32_t label[64] = {0};
    Model *m;
    Err e = {0};
    if (case_ints(c, "params.input_shape", d, 4) != 4 || d[0] > 64) {
        case_fail(c, "no input_shape");
        return;
    }
    m = open_variants(c, &r, d[2]);
    if (!m) return;
    len = (size_t)d[0] * (size_t)d[1] * (size_t)d[2] * (size_t)d[3];
    nchw = arena_alloc(&c->arena, len * sizeof *nchw);
    x = arena_alloc(&c->arena, len * sizeof *x);
    for (size_t i = 0; i < len; i++)
        nchw[i] =
            (float)rint(255 * fill_unit(i, (uint64_t)case_int(c, "params.image_t", 0)));
    nchw_to_nhwc(nchw, x, d[0], d[1], d[2], d[3]);
    fill_net(model_store(m), (uint64_t)case_int(c, "params.fill_t_offset", 0));
    if (str_starts(calibration, "none")) {
        scale_statistics(m);
    } else if (*calibration) {
        double loss;
        set_momentum(m, 1);
        for (int v = 0; v < r.run.o.nbits_list; v++)
            if (model_train(m, v, x, label, d[0], 0, &loss, NULL, &e)) case_fail(c, "%s", e.msg);
        set_momentum(m, 0.1f);
    }
    if (!c->failed && str_eq(case_str(c, "params.mode", ""), "train"))
        check_losses(c, m, &r, x, d[0]);
    else if (!c->failed)
        check_logits(c, m, &r, x, d[0]);
    if (!c->failed) golden_trace(c, model_qplan(m), r.variant, r.n, x, d[0]);
    model_free(m);
}

/* ---- the small net that is trained ---- */

static int net_mini(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    const StagedStyle st = {.names = NAMES_ADABITS};
    const StagedConv head = {4, 3, 1, 1, true};
    int x = spec_input(s, o->in_c, o->in_h, o->in_w);
    (void)net, (void)names;
    x = staged_sequence(s, x, &st, &head, 1, UM_FIRST, "head");
    x = staged_residual(s, x, &st, 4, 1, "stage_0_layer_0.");
    x = staged_residual(s, x, &st, 8, 2, "stage_1_layer_0.");
    x = staged_residual(s, x, &st, 8, 1, "stage_1_layer_1.");
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}

static void train_mini(Case *c, Model *m, const Rig *r, const Tensor *x, const Tensor *target)
{
    const int steps = (int)case_int(c, "params.steps", 0), n = x->dim[1];
    const size_t len = tensor_len(x) / (size_t)x->dim[0];
    OptimOpts o = {.optimizer = "sgd", .lr_scheduler = "constant", .num_epochs = 1,
                   .weight_decay_scheme = "no_depthwise_no_bn"};
    ParamStore *ps = model_store(m);
    float *image = arena_alloc(&c->arena, len * (size_t)steps * sizeof *image), *losses;
    int32_t label[64];
    Optim op = {0};
    Err e = {0};
    Tensor want;
    o.lr = case_num(c, "params.lr", 0);
    o.momentum = case_num(c, "params.momentum", 0);
    o.nesterov = case_bool(c, "params.nesterov", false);
    o.weight_decay = case_num(c, "params.weight_decay", 0);
    if (n > 64 || (int)tensor_len(target) != steps * n || x->dim[0] != steps) {
        case_fail(c, "x is not [steps, n, ...] or target not [steps, n]");
        return;
    }
    losses = arena_alloc(&c->arena, (size_t)(steps * r->n) * sizeof *losses);
    if (optim_init(&op, &o, ps, &e)) case_fail(c, "%s", e.msg);
    for (int s = 0; s < steps && !c->failed; s++) {
        const float *from = (float *)x->data + (size_t)s * len;
        float *at = image + (size_t)s * len, *nchw = arena_alloc(&c->arena, len * sizeof *nchw);
        for (size_t i = 0; i < len; i++) nchw[i] = rintf(255 * from[i]);
        nchw_to_nhwc(nchw, at, n, x->dim[2], x->dim[3], x->dim[4]);
        for (int i = 0; i < n; i++) label[i] = (int32_t)((float *)target->data)[s * n + i];
        store_zero_grads(ps);
        for (int k = 0; k < r->n && !c->failed; k++) {
            double loss = 0;
            if (model_train(m, r->variant[k], at, label, n, s, &loss, NULL, &e))
                case_fail(c, "step %d: %s", s, e.msg);
            losses[s * r->n + k] = (float)loss;
        }
        if (s == steps - 1)
            state_check_grads(c, ps, "param_layout", yaml_path(c->y, "grads.params_last_step"));
        optim_step(&op, ps, 0);
        model_after_step(m);
    }
    optim_free(&op);
    if (c->failed) return;
    case_expect(c, "loss", yaml_path(c->y, "outputs.loss"), losses, (size_t)(steps * r->n));
    state_check(c, ps, "state_layout", yaml_path(c->y, "outputs.state_after"));
    if (!case_array(c, yaml_path(c->y, "outputs.logits_eval_after"), "logits", &want)) return;
    for (int k = 0; k < r->n; k++) {
        const size_t each = tensor_len(&want) / (size_t)r->n;
        const float *logits;
        double loss;
        for (int i = 0; i < n; i++) label[i] = 0;
        if (model_eval(m, r->variant[k], image, label, n, n, &loss, &logits, &e))
            case_fail(c, "%s", e.msg);
        else
            case_compare(c, arena_printf(&c->arena, "logits of width %d", k), logits,
                         (float *)want.data + (size_t)k * each, each);
    }
}

static void mini_net(Case *c)
{
    static const NetDef mini = {.name = "mini", .doc = "", .build = net_mini};
    const NetDef *extra[] = {&mini, NULL};
    NetOpts no = {.model = "mini", .names = "", .extra = extra};
    Rig r = {.n = 0};
    Tensor x, target;
    int bits;
    Model *m;
    Err e = {0};
    case_quant_opts(c, &r.run.o, &bits);
    if (case_done(c) || !add_widths(c, &r, "params.bits_list") ||
        !case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "inputs.target"), "target", &target))
        return;
    if (x.ndim != 5) {
        case_fail(c, "x has %d dimensions", x.ndim);
        return;
    }
    no.num_classes = (int)case_int(c, "params.num_classes", 0);
    no.in_c = x.dim[2], no.in_h = x.dim[3], no.in_w = x.dim[4];
    m = model_new(&no, &r.run.o, 0, 1, &e);
    if (!m) {
        case_fail(c, "%s", e.msg);
        return;
    }
    store_alloc_grads(model_store(m));
    if (state_set(c, model_store(m))) train_mini(c, m, &r, &x, &target);
    model_free(m);
}

void golden_variant_net(Case *c)
{
    if (!quant_find(case_str(c, "method", "")))
        case_skip(c, "method '%s' is not in this program", case_str(c, "method", ""));
    else if (str_eq(case_str(c, "params.net", ""), "MiniR"))
        mini_net(c);
    else
        filled_net(c);
}
