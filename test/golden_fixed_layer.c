/* test/golden_fixed_layer.c -- op `layer` in fixed point: a convolution with the norm folded into
 * it, or a linear layer; one or more forward and backward passes without an update in between. */
#include "test/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/f8net_ops.h"
#include "quant/quant.h"
#include "test/golden_f8net.h"

typedef struct FixedCase {
    ParamStore ps;
    Param *x;
    F8Layer l, next;
    bool train, conv, has_bias;
    Graph g;
    Tap tap_w, tap_b, tap_y;
    Tensor y_shape;
} FixedCase;

static Fixed pair(Case *c, const char *path, bool neg, bool floating, int *fl)
{
    int v[2] = {8, fl == NULL ? 0 : *fl};
    if (yaml_path(c->y, path) && case_ints(c, path, v, 2) != 2)
        case_fail(c, "%s is not [word length, fractional length]", path);
    *fl = v[1];
    return (Fixed){.bits = v[0], .neg = neg, .floating = floating};
}

static void read_layer(Case *c, FixedCase *f)
{
    const bool floating = case_bool(c, "params.floating_model", false);
    const char *metric = case_str(c, "params.metric", "std");
    F8Layer *l = &f->l;
    *l = (F8Layer){.momentum = 0.1f, .input_fl = 6, .weight_fl = 7};
    l->pool_factor = (float)case_num(c, "params.avgpool_scale", 1);
    l->input = pair(c, "params.input_format", case_bool(c, "params.input_signed", false), floating,
                    &l->input_fl);
    l->weight = pair(c, "params.weight_format", true, floating, &l->weight_fl);
    l->source = floating                                           ? F8_GIVEN
                : case_bool(c, "params.format_grid_search", false) ? F8_SEARCH
                                                                   : F8_METRIC;
    l->metric = str_eq(metric, "mae") ? FM_MAE : str_eq(metric, "rms") ? FM_RMS : FM_STD;
    l->per_channel = str_eq(case_str(c, "params.format_type", ""), "per_channel");
    l->image = case_bool(c, "params.weight_only", false);
    l->pure = case_bool(c, "params.floating_wo_clip", false);
    l->no_clip = case_bool(c, "params.no_clipping", false);
    l->quant_bias = case_bool(c, "params.quant_bias", false);
    l->rescale = case_bool(c, "params.rescale_forward", false);
    l->rescale_stddev = str_eq(case_str(c, "params.rescale_type", ""), "stddev");
    l->alpha = store_find(&f->ps, "alpha");
    l->fraclen = store_find(&f->ps, "input_fraclen");
    f->next = *l;
    f->next.image = false;
    f->next.input = (Fixed){.bits = l->input.bits,
                            .neg = case_bool(c, "params.follower_signed", false),
                            .floating = floating};
    f->next.alpha = store_find(&f->ps, "follower_alpha");
    f->next.fraclen = store_find(&f->ps, "follower_input_fraclen");
}

static ParamKind kind_of(const char *name)
{
    if (strstr(name, "fraclen") || strstr(name, "running_")) return PK_BUFFER;
    return strstr(name, "alpha") ? PK_CLIP : PK_WEIGHT;
}

/* Every input but x is a parameter of that name; x is one too, so that it gets a gradient. */
static bool declare_inputs(Case *c, FixedCase *f)
{
    const Yaml *in = yaml_get(c->y, "inputs");
    const Init none = {INIT_NONE, 0, 0};
    for (int i = 0; in && i < in->n; i++) {
        const char *name = in->k[i]->s;
        Tensor t;
        Param *p;
        if (str_starts(name, "x_step") && !str_eq(name, "x_step0")) continue;
        if (!case_array(c, in->v[i], name, &t)) return false;
        if (str_starts(name, "x_step")) name = "x";
        p = store_add(&f->ps, kind_of(name), DT_F32, none, t.ndim, t.dim, "%s", name);
        memcpy(p->value.data, t.data, tensor_bytes(&t));
    }
    f->x = store_find(&f->ps, "x");
    if (f->x && f->x->value.ndim == 4) f->x->value.layout = LY_NHWC;
    return f->x != NULL;
}

static int param(FixedCase *f, const char *name)
{
    Param *p = store_find(&f->ps, name);
    return p ? graph_param(&f->g, p) : -1;
}

static NormStats norm_stats(Case *c, const FixedCase *f)
{
    return (NormStats){store_find(&f->ps, "bn.running_mean"), store_find(&f->ps, "bn.running_var"),
                       NULL, (float)case_num(c, "params.bn_eps", 1e-5),
                       (float)case_num(c, "params.bn_momentum", 0.1)};
}

static bool make_graph(Case *c, FixedCase *f, const float *upstream)
{
    Graph *g = &f->g;
    int x, out[2], y;
    const NormStats st = norm_stats(c, f);
    graph_init(g, true);
    x = graph_f8_act(g, "x_q", param(f, "x"), &f->l, f->train);
    if (f->conv) {
        const int groups = (int)case_int(c, "params.groups", 1);
        const ConvShape s = {.k = (int)case_int(c, "params.kernel", 1),
                             .stride = (int)case_int(c, "params.stride", 1),
                             .pad = (int)case_int(c, "params.pad", 0),
                             .dilation = 1,
                             .groups = groups};
        const int w = param(f, "conv.weight");
        y = f->train ? graph_conv(g, "y0", x, graph_f8_scale(g, "scale", w, &f->l, groups), -1, s)
                     : -1;
        graph_f8_fold(g, "fold", y, w, groups, param(f, "bn.weight"), param(f, "bn.bias"), &f->l,
                      &f->next, &st, out);
        out[0] = graph_tap(c, g, "effective_weight", out[0], &f->tap_w, NULL);
        out[1] = graph_tap(c, g, "effective_bias", out[1], &f->tap_b, NULL);
        y = graph_conv(g, "y", x, out[0], out[1], s);
    } else {
        graph_f8_linear(g, "fold", param(f, "weight"), param(f, "bias"), &f->l,
                        f->train ? F8_TRAIN : F8_DIVIDED, out);
        y = graph_linear(g, "y", x, out[0], out[1]);
    }
    f->y_shape = g->v[y].t;
    graph_tap(c, g, "end", y, &f->tap_y, upstream);
    return true;
}

/* The buffer `from` (N,C,H,W order when it is a map) to the order of the program, or back. */
static void reorder(const Tensor *t, const float *from, float *to, bool to_program)
{
    if (t->ndim != 4)
        memcpy(to, from, tensor_bytes(t));
    else if (to_program)
        nchw_to_nhwc(from, to, t->dim[0], t->dim[1], t->dim[2], t->dim[3]);
    else
        nhwc_to_nchw(from, to, t->dim[0], t->dim[1], t->dim[2], t->dim[3]);
}

static const float *on_disk(Case *c, const Tensor *t, const float *data)
{
    float *to = arena_alloc(&c->arena, tensor_bytes(t) + 1);
    reorder(t, data, to, false);
    return to;
}

/* NAME of the case from NAME_stepK; false when it belongs to another step. */
static bool of_step(const char *name, int step, char *base, size_t size)
{
    const char *at = strstr(name, "_step");
    snprintf(base, size, "%.*s", at ? (int)(at - name) : (int)strlen(name), name);
    return at ? atoi(at + 5) == step : step == 0;
}

static void check(Case *c, FixedCase *f, const char *map, int step, bool grads)
{
    const Yaml *m = yaml_get(c->y, map);
    for (int i = 0; m && i < m->n; i++) {
        char base[128];
        const char *name = m->k[i]->s;
        Param *p;
        size_t len;
        if (!of_step(name, step, base, sizeof base)) continue;
        len = strlen(base);
        if (!grads && str_eq(base, "y")) {
            case_expect(c, name, m->v[i], on_disk(c, &f->y_shape, f->tap_y.value), f->tap_y.n);
        } else if (!grads && str_eq(base, "effective_weight")) {
            case_expect(c, name, m->v[i], f->tap_w.value, f->tap_w.n);
        } else if (!grads && str_eq(base, "effective_bias")) {
            case_expect(c, name, m->v[i], f->tap_b.value, f->tap_b.n);
        } else if (!grads && (str_starts(base, "int_") || str_ends(base, "_fraclen"))) {
            continue; /* golden_fixed_int.c */
        } else {
            if (!grads && str_ends(base, "_after")) base[len - 6] = 0;
            p = store_find(&f->ps, base);
            if (!p || (grads && !p->grad.data))
                case_fail(c, "nothing here computes %s.%s", map, name);
            else if (grads)
                case_expect(c, arena_printf(&c->arena, "gradient of %s", name), m->v[i],
                            p == f->x ? on_disk(c, &p->value, p->grad.data) : p->grad.data,
                            tensor_len(&p->value));
            else
                case_expect(c, name, m->v[i], p->value.data, tensor_len(&p->value));
        }
    }
}

/* The array of a map for one step; NULL when there is no such step. */
static const Yaml *step_entry(Case *c, const char *map, const char *name, int step)
{
    const Yaml *v = yaml_path(c->y, arena_printf(&c->arena, "%s.%s_step%d", map, name, step));
    return v ? v : step == 0 ? yaml_path(c->y, arena_printf(&c->arena, "%s.%s", map, name)) : NULL;
}

static void run_steps(Case *c, FixedCase *f, float *upstream)
{
    Plan plan = {0};
    Exec x = {0};
    Err e = {0};
    Prim *prim = prim_open(&e);
    char *arena = NULL;
    const Yaml *v;
    if (!prim || graph_finish(&f->g, prim, &e)) {
        case_fail(c, "%s", e.msg);
        goto out;
    }
    plan_make(&plan, &f->g, true);
    arena = xaligned(plan.arena_bytes + 1);
    exec_init(&x, &f->g, &plan, arena);
    for (int k = 0; !c->failed && (v = step_entry(c, "inputs", "x", k)); k++) {
        Tensor in, dy;
        if (!case_array(c, v, "x", &in)) break;
        reorder(&f->x->value, in.data, f->x->value.data, true);
        v = step_entry(c, "upstream", "y", k);
        if (v && case_array(c, v, "upstream", &dy)) reorder(&f->y_shape, dy.data, upstream, true);
        store_zero_grads(&f->ps);
        exec_forward(&x, store_version(&f->ps));
        if (x.fault) case_fail(c, "%s", x.fault);
        exec_backward(&x);
        check(c, f, "outputs", k, false);
        check(c, f, "grads", k, true);
    }
out:
    exec_free(&x);
    plan_free(&plan);
    prim_close(prim);
    free(arena);
}

static void integers(Case *c, FixedCase *f)
{
    const NormStats st = norm_stats(c, f);
    Tensor x;
    if (case_array(c, step_entry(c, "inputs", "x", 0), "x", &x))
        golden_fixed_integers(c, &f->l, f->conv ? &f->next : NULL, &f->ps, &st, &x);
}

void golden_fixed_layer(Case *c)
{
    FixedCase f = {.train = str_eq(case_str(c, "params.mode", "train"), "train")};
    float *upstream;
    Tensor y;
    if (yaml_path(c->y, "params.shift") || yaml_path(c->y, "params.pad_value")) {
        golden_fixed_pool(c);
        return;
    }
    if (declare_inputs(c, &f) && case_array(c, step_entry(c, "outputs", "y", 0), "y", &y)) {
        store_init(&f.ps, 1);
        store_alloc_grads(&f.ps);
        f.conv = store_find(&f.ps, "conv.weight") != NULL;
        read_layer(c, &f);
        upstream = arena_alloc(&c->arena, tensor_bytes(&y) + 1);
        memset(upstream, 0, tensor_bytes(&y));
        if (!c->failed && !f.train) integers(c, &f);
        if (!c->failed && !case_bool(c, "params.int_infer", false) && make_graph(c, &f, upstream)) {
            if (tensor_len(&f.y_shape) == tensor_len(&y))
                run_steps(c, &f, upstream);
            else
                case_fail(c, "y has %zu values, expected %zu", tensor_len(&f.y_shape),
                          tensor_len(&y));
        }
        graph_free(&f.g);
    }
    store_free(&f.ps);
}
