/* test/golden_quant.c -- ops `weight`, `activation` and `layer`: one quantizer alone, and a
 * convolution or linear layer with its quantized operands and all gradients. */
#include "test/golden.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/spec.h"
#include "quant/chain.h"
#include "quant/stat.h"

/* ---- options ---- */

/* Parameters that are no options: how the case was made, or what other rows imply. */
static const char *const descriptive[] = {
    "alpha_grad", "levels_per_side", "step", "upper",
    "levels_B", "alpha",   "effective_power", "is_weight", "bit",       "kind",      "scale",
    "stride",   "padding", "kernel",          "groups",    "act_alpha", "wgt_alpha", "weight_alpha",
    "bits",     "layer",   "mode",            "shape",     "scheme",    "rows",      "backward",
    "bits_sequence",  "conv",        "fc",            "bitw_min", "bita_min",   "net",
    "net_args",       "model",       "block_setting", "depth",    "input",      "input_shape",
    "image_t",        "calibration", "fill_t_offset", "target",   "steps",      "bits_evaluated",
    "lr",             "momentum",    "nesterov",      "num_classes", "weight_decay",
    "adaptive_training", "layers",   "layers_columns", "residual",  "word_length",       "yml",
    "normalize",      "ptcv_pretrained", "loss",      "weight_decay_scheme", "int_infer", "integize",
    "int_op_only",    "quant_maxpool",
};

static bool is_descriptive(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(descriptive); i++)
        if (str_eq(descriptive[i], name)) return true;
    return false;
}

typedef enum OptKind { OPT_TEXT, OPT_BOOL, OPT_NUM } OptKind;

// clang-format off
static const struct { const char *name; OptKind kind; size_t at; } options[] = {
    { "variant",    OPT_TEXT, offsetof(QOpts, quant_variant) },
    { "power",      OPT_BOOL, offsetof(QOpts, power) },
    { "additive",   OPT_BOOL, offsetof(QOpts, additive) },
    { "grad_scale", OPT_NUM,  offsetof(QOpts, grad_scale) },
    { "activation_lr",   OPT_NUM, offsetof(QOpts, activation_lr) },
    { "activation_regu", OPT_NUM, offsetof(QOpts, activation_regu) },
    { "threshold_before", OPT_NUM, offsetof(QOpts, act_clip_init) },
    { "weight_quant_scheme", OPT_TEXT, offsetof(QOpts, weight_quant_scheme) },
    { "act_quant_scheme",    OPT_TEXT, offsetof(QOpts, act_quant_scheme) },
    { "rescale_type",        OPT_TEXT, offsetof(QOpts, rescale_type) },
    { "clamp",               OPT_BOOL, offsetof(QOpts, clamp) },
    { "rescale",             OPT_BOOL, offsetof(QOpts, rescale) },
    { "rescale_conv",        OPT_BOOL, offsetof(QOpts, rescale_conv) },
    { "weight_only",         OPT_BOOL, offsetof(QOpts, weight_only) },
    { "switch_alpha",        OPT_BOOL, offsetof(QOpts, switch_alpha) },
    { "switchbn",            OPT_BOOL, offsetof(QOpts, switch_norm) },
    { "stats_sharing",       OPT_BOOL, offsetof(QOpts, stats_sharing) },
    { "pact_fp",             OPT_BOOL, offsetof(QOpts, pact_fp) },
    { "double_side",         OPT_BOOL, offsetof(QOpts, double_side) },
    { "format_type",         OPT_TEXT, offsetof(QOpts, f8.format_type) },
    { "format_from_metric",  OPT_BOOL, offsetof(QOpts, f8.format_from_metric) },
    { "metric",              OPT_TEXT, offsetof(QOpts, f8.metric) },
    { "format_grid_search",  OPT_BOOL, offsetof(QOpts, f8.format_grid_search) },
    { "input_fraclen_sharing", OPT_BOOL, offsetof(QOpts, f8.input_fraclen_sharing) },
    { "floating_model",      OPT_BOOL, offsetof(QOpts, f8.floating_model) },
    { "floating_wo_clip",    OPT_BOOL, offsetof(QOpts, f8.floating_wo_clip) },
    { "no_clipping",         OPT_BOOL, offsetof(QOpts, f8.no_clipping) },
    { "quant_bias",          OPT_BOOL, offsetof(QOpts, f8.quant_bias) },
    { "quant_avgpool",       OPT_BOOL, offsetof(QOpts, f8.quant_avgpool) },
    { "pool_fusing",         OPT_BOOL, offsetof(QOpts, f8.pool_fusing) },
};
// clang-format on

static bool set_option(Case *c, QOpts *o, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "params.%s", name);
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        void *field = (char *)o + options[i].at;
        if (!str_eq(options[i].name, name)) continue;
        if (options[i].kind == OPT_TEXT) *(const char **)field = case_str(c, path, "");
        if (options[i].kind == OPT_BOOL) *(bool *)field = case_bool(c, path, false);
        if (options[i].kind == OPT_NUM) *(double *)field = case_num(c, path, 0);
        return true;
    }
    return false;
}

int case_ints(Case *c, const char *path, int *to, int max)
{
    const Yaml *v = yaml_path(c->y, path);
    if (!v || yaml_null(v)) return 0;
    for (int i = 0; v->kind == Y_LIST && i < v->n && i < max; i++) {
        long long n;
        if (!yaml_int(v->v[i], &n)) break;
        to[i] = (int)n;
        if (i + 1 == v->n) return v->n;
    }
    case_fail(c, "%s is not a list of up to %d whole numbers", path, max);
    return 0;
}

void case_quant_opts(Case *c, QOpts *o, int *bits)
{
    const Yaml *params = yaml_get(c->y, "params");
    const Yaml *v;
    const char *method = case_str(c, "method", "");
    qopts_default(o);
    o->wt_quant = o->fm_quant = method;
    *bits = 32;
    if (params && yaml_get(params, "keyword")) {
        case_keyword_opts(c, o, bits);
        return;
    }
    if (params && yaml_get(params, "bit")) *bits = (int)case_int(c, "params.bit", 32);
    v = params ? yaml_get(params, "bits") : NULL;
    if (v && v->kind == Y_SCALAR) *bits = (int)case_int(c, "params.bits", 32);
    o->nbits_list = case_ints(c, "params.bits_list", o->bits_list, ARRAY_LEN(o->bits_list));
    o->wt_bit = o->fm_bit = *bits;
    if (!params || params->kind != Y_MAP) return;
    /* Cores of the original's functions: a level set is named where one was used. */
    if (!yaml_get(params, "power"))
        o->power = yaml_get(params, "levels_B") || !yaml_get(params, "is_weight");
    for (int i = 0; i < params->n; i++) {
        const char *name = params->k[i]->s;
        if (str_eq(name, "normalise"))
            o->wt_normalize = !str_starts(case_str(c, "params.normalise", ""), "none");
        else if (!set_option(c, o, name) && !is_descriptive(name) && !str_eq(name, "bits_list"))
            case_skip(c, "parameter '%s' is not known to the runner", name);
    }
}

/* Functions of the originals that are methods of their own here. */
static const struct {
    const char *method, *source, *row;
} rows[] = {
    {"fat", "uniform_weight_quantize_fn", "fat_uniform"},
    {"fat", "UniQuantConv2d", "fat_uniform"},
};

const QMethod *case_method(Case *c)
{
    const char *name = case_str(c, "method", ""), *source = case_str(c, "source", "");
    const QMethod *m;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (str_eq(rows[i].method, name) && strstr(source, rows[i].source)) name = rows[i].row;
    m = quant_find(name);
    if (!m) case_skip(c, "method '%s' is not in this program", name);
    return m;
}

/* "transform" -> weight_quant.transform.weight */
static Param *matrix_param(const ParamStore *ps, const char *name)
{
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    return case_param(ps, full);
}

Param *case_param(const ParamStore *ps, const char *name)
{
    const size_t n = strlen(name);
    Param *p = store_find(ps, name);
    if (p) return p;
    for (int i = 0; i < ps->n; i++) {
        const char *full = ps->p[i]->name;
        const size_t len = strlen(full);
        if (len > n && str_ends(full, name) &&
            (full[len - n - 1] == '.' || full[len - n - 1] == '_'))
            return ps->p[i];
    }
    if (str_ends(name, "_init")) { /* "basis_init" -> basis, as it starts */
        char stem[128];
        snprintf(stem, sizeof stem, "%.*s", (int)(n - strlen("_init")), name);
        return case_param(ps, stem);
    }
    return str_ends(name, ".weight") ? NULL : matrix_param(ps, name);
}

void case_set_state(Case *c, ParamStore *ps, const Yaml *map, bool all, const char *except)
{
    for (int i = 0; map && map->kind == Y_MAP && i < map->n; i++) {
        const char *name = map->k[i]->s;
        Param *p = str_starts(name, except) ? NULL : case_param(ps, name);
        Tensor t;
        if (!p) {
            if (all && !str_starts(name, except))
                case_fail(c, "input '%s' is no parameter of the quantizer", name);
            continue;
        }
        if (!case_array(c, map->v[i], name, &t)) continue;
        if (tensor_len(&t) != tensor_len(&p->value) || p->value.dtype != DT_F32) {
            case_fail(c, "%s has %zu values, parameter %s takes %zu", name, tensor_len(&t), p->name,
                      tensor_len(&p->value));
            continue;
        }
        memcpy(p->value.data, t.data, tensor_bytes(&t));
        param_touch(p);
    }
}

/* ---- one quantizer ---- */

static float mean_of(const float *x, size_t n)
{
    double mean, std;
    stat_mean_std(x, n, &mean, &std);
    return (float)mean;
}

static float std_of(const float *x, size_t n)
{
    double mean, std;
    stat_mean_std(x, n, &mean, &std);
    return (float)std;
}

/* Intermediate results that a case may list among its outputs. */
static const struct {
    const char *name;
    float (*of)(const float *x, size_t n);
} intermediates[] = {{"mean", mean_of}, {"std", std_of}, {"max", stat_max}};

static bool check_intermediate(Case *c, const char *name, const Yaml *v, const Tensor *x)
{
    for (size_t i = 0; i < ARRAY_LEN(intermediates); i++) {
        float got;
        if (!str_eq(intermediates[i].name, name)) continue;
        got = intermediates[i].of(x->data, tensor_len(x));
        case_expect(c, name, v, &got, 1);
        return true;
    }
    return false;
}

/* Activations are N,C,H,W on disk. Returns the tensor as the program has it (same data unless it
 * has 4 dimensions). */
static Tensor to_nhwc(Case *c, const Tensor *x, bool activation)
{
    Tensor t = *x;
    if (!activation || x->ndim != 4) return t;
    t.layout = LY_NHWC;
    t.data = arena_alloc(&c->arena, tensor_bytes(x) + 1);
    nchw_to_nhwc(x->data, t.data, x->dim[0], x->dim[1], x->dim[2], x->dim[3]);
    return t;
}

static const float *from_nhwc(Case *c, const Tensor *t)
{
    float *f;
    if (t->layout != LY_NHWC) return t->data;
    f = arena_alloc(&c->arena, tensor_bytes(t) + 1);
    nhwc_to_nchw(t->data, f, t->dim[0], t->dim[1], t->dim[2], t->dim[3]);
    return f;
}

/* The entry of `map` for call k: NAMEk, or NAME when there is one call only. */
static const Yaml *of_call(Case *c, const char *map, const char *name, int k)
{
    const Yaml *m = yaml_get(c->y, map);
    const Yaml *v = m ? yaml_get(m, arena_printf(&c->arena, "%s%d", name, k)) : NULL;
    return v ? v : m && k == 1 ? yaml_get(m, name) : NULL;
}

/* outputs (grads) of call k whose name is neither the tensor's nor one that some parameter answers
 * to are faults. */
static void check_named(Case *c, const char *map, int k, const ParamStore *ps, bool grads,
                        const Tensor *x)
{
    const Yaml *m = yaml_get(c->y, map);
    for (int i = 0; m && m->kind == Y_MAP && i < m->n; i++) {
        char base[128];
        size_t len;
        const char *name = m->k[i]->s, tensor = grads ? 'x' : 'y';
        Param *p = case_param(ps, name);
        int call = 1;
        snprintf(base, sizeof base, "%s", name);
        len = strlen(base);
        if (!p && len && base[len - 1] >= '1' && base[len - 1] <= '9') {
            call = base[len - 1] - '0';
            base[len - 1] = 0;
            p = case_param(ps, base);
        }
        if (base[0] == tensor && !base[1]) continue;
        if (p && call == k)
            case_expect(c, arena_printf(&c->arena, "%s%s", grads ? "gradient of " : "", name),
                        m->v[i], grads ? p->grad.data : p->value.data, tensor_len(&p->value));
        else if (!p && str_eq(name, "used_bias"))
            continue; /* golden_used_bias */
        else if (!p && (grads || !check_intermediate(c, name, m->v[i], x)))
            case_fail(c, "nothing here computes %s.%s", map, name);
    }
}

static void one_call(Case *c, QInst *q, ParamStore *ps, const Tensor *x_disk, int k)
{
    const bool activation = q->role != Q_WEIGHT;
    const Yaml *v;
    Tensor x = to_nhwc(c, x_disk, activation), y = x, dy, dx = x;
    size_t save, scratch;
    double aux = 0;
    const bool eval = str_eq(case_str(c, "params.mode", "train"), "eval") ||
                      !case_bool(c, "params.training", true);
    QCtx ctx = {.phase = eval ? PH_EVAL : PH_TRAIN, .aux_loss = &aux, .want_dx = true};
    qinst_need(q, &x, PH_TRAIN, &save, &scratch);
    ctx.save = arena_alloc(&c->arena, save + 1);
    ctx.scratch = arena_alloc(&c->arena, scratch + 1);
    y.data = arena_alloc(&c->arena, tensor_bytes(&x) + 1);
    dx.data = arena_alloc(&c->arena, tensor_bytes(&x) + 1);
    if (q->owner && x.data != q->owner->value.data) {
        memcpy(q->owner->value.data, x.data, tensor_bytes(&x));
        param_touch(q->owner);
    }
    qinst_forward(q, &x, &y, &ctx);
    if (q->fault) case_fail(c, "%s", q->fault);
    v = of_call(c, "outputs", "y", k);
    if (v) case_expect(c, "y", v, from_nhwc(c, &y), tensor_len(&y));
    check_named(c, "outputs", k, ps, false, &x);
    v = of_call(c, "upstream", "y", k);
    if (!v || !case_array(c, v, "upstream", &dy)) return;
    if (tensor_len(&dy) != tensor_len(&x)) {
        case_fail(c, "upstream has %zu values, y %zu", tensor_len(&dy), tensor_len(&x));
        return;
    }
    dy = to_nhwc(c, &dy, activation);
    store_zero_grads(ps);
    qinst_backward(q, &x, &dy, &dx, &ctx);
    v = of_call(c, "grads", "x", k);
    if (v) case_expect(c, "gradient of x", v, from_nhwc(c, &dx), tensor_len(&dx));
    check_named(c, "grads", k, ps, true, &x);
}

/* Row k of x quantized with entry k of `bits`: an activation with its clip level at 1. */
static void quantize_rows(Case *c, const QMethod *m)
{
    int bits[16], n = case_ints(c, "params.bits", bits, ARRAY_LEN(bits));
    Tensor x, want;
    float *got;
    size_t row;
    if (n < 1 || !case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "outputs.y"), "y", &want))
        return;
    row = tensor_len(&want) / (size_t)n;
    if (tensor_len(&want) != row * (size_t)n ||
        (tensor_len(&x) != row && tensor_len(&x) != tensor_len(&want))) {
        case_fail(c, "y has %zu values, x %zu", tensor_len(&want), tensor_len(&x));
        return;
    }
    got = arena_alloc(&c->arena, tensor_bytes(&want) + 1);
    for (int k = 0; k < n; k++) {
        const int len = (int)row;
        const float *from = tensor_len(&x) == row ? x.data : (float *)x.data + (size_t)k * row;
        ParamStore ps = {0};
        Tensor in, out = tensor_make(DT_F32, 1, &len, got + (size_t)k * row);
        QOpts o;
        QInst q;
        QCtx ctx = {.phase = PH_TRAIN};
        Err e = {0};
        qopts_default(&o);
        o.act_quant_scheme = case_str(c, "params.scheme", "");
        in = out;
        in.data = arena_alloc(&c->arena, row * sizeof *from + 1);
        memcpy(in.data, from, row * sizeof *from);
        if (qinst_init(&q, m, Q_ACT, bits[k], 0, &o, &ps, NULL, 0, 1, &len, "", &e)) {
            case_fail(c, "%s", e.msg);
            store_free(&ps);
            return;
        }
        param_set_scalar(q.p[0], 1);
        qinst_forward(&q, &in, &out, &ctx);
        qinst_free(&q);
        store_free(&ps);
    }
    case_compare(c, "y", got, want.data, tensor_len(&want));
}

void golden_quantizer(Case *c)
{
    const QRole role = str_eq(case_str(c, "op", ""), "weight") ? Q_WEIGHT : Q_ACT;
    const QMethod *m;
    ParamStore ps = {0};
    QOpts o;
    QInst q;
    Tensor x;
    Param *owner = NULL;
    int bits;
    unsigned marks = 0;
    Err e = {0};
    const Yaml *v = of_call(c, "inputs", "x", 1);
    if (yaml_path(c->y, "outputs.mask")) {
        golden_spectral(c);
        return;
    }
    if (yaml_path(c->y, "params.word_length")) {
        golden_fixed(c);
        return;
    }
    if (!(m = case_method(c))) return;
    if (!v) {
        case_skip(c, "no input x");
        return;
    }
    if (yaml_path(c->y, "params.rows")) {
        quantize_rows(c, m);
        return;
    }
    case_quant_opts(c, &o, &bits);
    if (str_eq(m->name, "hysteresis")) golden_pact_opts(c, &o);
    if (case_done(c) || !case_array(c, v, "x", &x)) return;
    if (role == Q_WEIGHT)
        owner = store_add(&ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, x.ndim, x.dim, "weight");
    if (o.double_side) marks |= UM_SIGNED;
    if (m->unit_bits) bits = m->unit_bits(&o, role, marks, bits);
    if (qinst_init(&q, m, role, bits, 0, &o, &ps, owner, marks,
                   role == Q_ACT && x.ndim == 4 ? 3 : x.ndim,
                   role == Q_ACT && x.ndim == 4 ? x.dim + 1 : x.dim, "", &e)) {
        case_fail(c, "%s", e.msg);
        store_free(&ps);
        return;
    }
    store_init(&ps, 1);
    store_alloc_grads(&ps);
    if (yaml_path(c->y, "outputs.used_bias"))
        golden_used_bias(c, &o, bits);
    else
        case_set_state(c, &ps, yaml_get(c->y, "inputs"), true, "x");
    case_keyword_attributes(c, &q);
    for (int k = 1; !c->failed && (v = of_call(c, "inputs", "x", k)); k++)
        if (case_array(c, v, "x", &x)) one_call(c, &q, &ps, &x, k);
    if ((v = yaml_get(c->y, "threshold_after_backward")) && q.np)
        case_expect(c, "threshold", v, q.p[0]->value.data, 1);
    qinst_free(&q);
    store_free(&ps);
}

/* ---- a layer ---- */

static int tap_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)g, (void)n, (void)p, (void)e;
    return 0;
}

static void tap_forward(Node *n, Exec *x)
{
    const Tap *t = n->attr;
    memcpy(t->value, exec_in(x, n, 0), t->n * sizeof(float));
    if (t->upstream)
        *(float *)exec_out(x, n, 0) = 0;
    else
        memcpy(exec_out(x, n, 0), t->value, t->n * sizeof(float));
}

static void tap_backward(Node *n, Exec *x)
{
    const Tap *t = n->attr;
    const float *d = t->upstream ? t->upstream : exec_gout(x, n, 0);
    float *to = exec_gin(x, n, 0);
    if (!d) return;
    memcpy(t->grad, d, t->n * sizeof(float));
    if (to) memcpy(to, d, t->n * sizeof(float));
}

static const OpDef op_tap = {
    .name = "tap", .prepare = tap_prepare, .forward = tap_forward, .backward = tap_backward};
static const OpDef op_end = {.name = "end",
                             .flags = OP_LOSS,
                             .prepare = tap_prepare,
                             .forward = tap_forward,
                             .backward = tap_backward};

int graph_tap(Case *c, Graph *g, const char *name, int x, Tap *t, const float *upstream)
{
    Tensor shape = g->v[x].t;
    int node;
    t->n = tensor_len(&shape);
    t->value = arena_alloc(&c->arena, t->n * sizeof(float) + 1);
    t->grad = arena_alloc(&c->arena, t->n * sizeof(float) + 1);
    t->upstream = upstream;
    node = graph_node(g, upstream ? &op_end : &op_tap, name, 1, &x, t, sizeof *t);
    return graph_out(g, node, upstream ? tensor_make(DT_F32, 0, NULL, NULL) : shape);
}

typedef struct Layer {
    ParamStore ps;
    QInst wq, xq;
    bool has_xq;
    Param *x, *weight, *bias;
    Tap tap_x, tap_w, tap_y;
    Tensor x_shape, y_shape;
    const float *upstream;
} Layer;

static bool layer_tensors(Case *c, Layer *l)
{
    const Yaml *in = yaml_get(c->y, "inputs"), *v;
    Tensor x, w, b;
    const Init none = {INIT_NONE, 0, 0};
    if (!in || !yaml_get(in, "x") || !yaml_get(in, "weight")) {
        case_skip(c, "not a layer of x and weight");
        return false;
    }
    if (!case_array(c, yaml_get(in, "x"), "x", &x) ||
        !case_array(c, yaml_get(in, "weight"), "weight", &w))
        return false;
    l->x_shape = to_nhwc(c, &x, true);
    l->x = store_add(&l->ps, PK_WEIGHT, DT_F32, none, x.ndim, x.dim, "x");
    l->x->value.layout = l->x_shape.layout;
    memcpy(l->x->value.data, l->x_shape.data, tensor_bytes(&x));
    l->weight = store_add(&l->ps, PK_WEIGHT, DT_F32, none, w.ndim, w.dim, "weight");
    memcpy(l->weight->value.data, w.data, tensor_bytes(&w));
    v = yaml_get(in, "bias");
    if (!v) return true;
    if (!case_array(c, v, "bias", &b)) return false;
    l->bias = store_add(&l->ps, PK_BIAS, DT_F32, none, b.ndim, b.dim, "bias");
    memcpy(l->bias->value.data, b.data, tensor_bytes(&b));
    return true;
}

/* The quantizers of the layer: the method's, or 8-bit weights alone for first and last layers. */
static bool layer_quant(Case *c, Layer *l, const QOpts *o, int bits)
{
    const char *kind = case_str(c, "params.kind", "");
    const bool edge = str_eq(kind, "first_conv") || str_eq(kind, "last_fc");
    const QMethod *m = edge ? quant_find("fixed8") : case_method(c);
    const Tensor *x = &l->x->value, *w = &l->weight->value;
    Err e = {0};
    if (!m) return false;
    if (!edge) {
        if (qinst_init(&l->xq, m, Q_ACT, bits, 0, o, &l->ps, NULL, 0, x->ndim - 1, x->dim + 1, "",
                       &e))
            goto refused;
        l->has_xq = true;
    }
    if (qinst_init(&l->wq, m, Q_WEIGHT, edge ? 8 : bits, 0, o, &l->ps, l->weight, 0, w->ndim,
                   w->dim, "", &e))
        goto refused;
    return true;
refused:
    case_fail(c, "%s", e.msg);
    return false;
}

static bool layer_upstream(Case *c, Layer *l)
{
    const Yaml *up = yaml_path(c->y, "upstream.y");
    Tensor dy;
    if (!up || !case_array(c, up, "upstream", &dy)) {
        if (!up) case_skip(c, "no upstream gradient");
        return false;
    }
    l->y_shape = to_nhwc(c, &dy, true);
    l->upstream = l->y_shape.data;
    return true;
}

static void layer_graph(Case *c, Layer *l, Graph *g)
{
    int x = graph_param(g, l->x), w = graph_param(g, l->weight),
        b = l->bias ? graph_param(g, l->bias) : -1, y;
    if (l->has_xq) x = graph_quant(g, "x_q", x, &l->xq);
    x = graph_tap(c, g, "x_q", x, &l->tap_x, NULL);
    w = graph_quant(g, "weight_q", w, &l->wq);
    w = graph_tap(c, g, "weight_q", w, &l->tap_w, NULL);
    if (l->weight->value.ndim == 4) {
        const Tensor *wt = &l->weight->value;
        ConvShape s = {.oc = wt->dim[0],
                       .k = wt->dim[2],
                       .stride = (int)case_int(c, "params.stride", 1),
                       .pad = (int)case_int(c, "params.padding", wt->dim[2] / 2),
                       .dilation = 1,
                       .groups = l->x_shape.dim[1] / wt->dim[1]};
        s.bias = b >= 0;
        s.ic = l->x_shape.dim[1];
        y = graph_conv(g, "y", x, w, b, s);
    } else {
        y = graph_linear(g, "y", x, w, b);
    }
    if (!tensor_same_shape(&g->v[y].t, &l->y_shape)) {
        char have[80], want[80];
        case_fail(c, "y is %s, expected %s", tensor_shape_text(&g->v[y].t, have),
                  tensor_shape_text(&l->y_shape, want));
        return;
    }
    graph_tap(c, g, "end", y, &l->tap_y, l->upstream);
}

static void layer_run(Case *c, Layer *l, Graph *g, Prim *prim)
{
    Plan plan = {0};
    Exec x = {0};
    char *arena;
    Err e = {0};
    if (graph_finish(g, prim, &e)) {
        case_fail(c, "%s", e.msg);
        return;
    }
    plan_make(&plan, g, true);
    arena = xaligned(plan.arena_bytes + 1);
    exec_init(&x, g, &plan, arena);
    exec_forward(&x, store_version(&l->ps));
    if (x.fault)
        case_fail(c, "%s", x.fault);
    else
        exec_backward(&x);
    exec_free(&x);
    plan_free(&plan);
    free(arena);
}

static const float *tap_data(Case *c, const float *data, const Tensor *shape)
{
    Tensor t = *shape;
    t.data = (void *)(uintptr_t)data;
    return from_nhwc(c, &t);
}

/* All values of one map of the yml: among the taps, the parameters or the intermediates. */
static void layer_check(Case *c, Layer *l, const char *map, bool grads)
{
    const Yaml *m = yaml_get(c->y, map);
    const struct {
        const char *name;
        const Tap *tap;
        const Tensor *shape;
    } taps[] = {{"y", &l->tap_y, &l->y_shape},
                {"x_q", &l->tap_x, &l->x_shape},
                {"weight_q", &l->tap_w, &l->weight->value}};
    for (int i = 0; m && m->kind == Y_MAP && i < m->n; i++) {
        const char *name = m->k[i]->s,
                   *what = arena_printf(&c->arena, "%s%s", grads ? "gradient of " : "", name);
        Param *p = case_param(&l->ps, name);
        bool found = false;
        for (size_t k = 0; k < ARRAY_LEN(taps) && !found; k++) {
            if (!str_eq(taps[k].name, name)) continue;
            case_expect(c, what, m->v[i],
                        tap_data(c, grads ? taps[k].tap->grad : taps[k].tap->value, taps[k].shape),
                        taps[k].tap->n);
            found = true;
        }
        if (found) continue;
        if (p && grads)
            case_expect(c, what, m->v[i],
                        p == l->x ? tap_data(c, p->grad.data, &l->x_shape) : p->grad.data,
                        tensor_len(&p->value));
        else if (grads || !check_intermediate(c, name, m->v[i], &l->weight->value))
            case_fail(c, "nothing here computes %s.%s", map, name);
    }
}

void golden_layer(Case *c)
{
    Layer l = {0};
    Graph g;
    Prim *prim = NULL;
    QOpts o;
    int bits;
    Err e = {0};
    if (yaml_path(c->y, "inputs.logits")) {
        golden_loss(c);
        return;
    }
    if (yaml_get(c->y, "state_layout")) {
        golden_variants(c);
        return;
    }
    if (yaml_path(c->y, "params.keyword")) {
        golden_keyword_layer(c);
        return;
    }
    if (yaml_path(c->y, "params.input_format") || yaml_path(c->y, "params.int_infer") ||
        yaml_path(c->y, "params.input_fl") || yaml_path(c->y, "params.pad_value")) {
        golden_fixed_layer(c);
        return;
    }
    graph_init(&g, true);
    case_quant_opts(c, &o, &bits);
    if (case_done(c) || !layer_tensors(c, &l) || !layer_upstream(c, &l) ||
        !layer_quant(c, &l, &o, bits))
        goto out;
    store_init(&l.ps, 1);
    store_alloc_grads(&l.ps);
    case_set_state(c, &l.ps, yaml_get(c->y, "params"), false, "-");
    case_set_state(c, &l.ps, yaml_get(c->y, "inputs"), false, "x");
    prim = prim_open(&e);
    if (!prim) {
        case_fail(c, "%s", e.msg);
        goto out;
    }
    layer_graph(c, &l, &g);
    if (!case_done(c)) layer_run(c, &l, &g, prim);
    if (!case_done(c)) {
        layer_check(c, &l, "outputs", false);
        layer_check(c, &l, "grads", true);
        layer_check(c, &l, "intermediate_grads", true);
    }
out:
    graph_free(&g);
    prim_close(prim);
    if (l.wq.fn) qinst_free(&l.wq);
    if (l.has_xq) qinst_free(&l.xq);
    store_free(&l.ps);
}
