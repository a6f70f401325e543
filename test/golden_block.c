/* test/golden_block.c -- op `block` of the keyword language: one block of its nets with the words
 * and options of the case, filled parameters; output, every gradient, running statistics. */
#include "test/golden_words.h"

#include <string.h>

#include "nets/flex.h"
#include "nets/keyword_mobilenet.h"
#include "test/golden_state.h"

static int flexible(Case *c, const Kn *k, int x, bool bottleneck)
{
    const FlexBlock b = {.prefix = "",
                         .planes = (int)case_int(c, "params.planes", 0),
                         .stride = (int)case_int(c, "params.stride", 1),
                         .feature_stride = (int)case_int(c, "params.feature_stride", 1),
                         .stages = 4,
                         .bottleneck = bottleneck};
    Err e = {0};
    if (flex_check(k, "block", bottleneck, &e)) case_fail(c, "%s", e.msg);
    return c->failed ? x : flex_block(k, x, &b);
}

static int basic(Case *c, const Kn *k, int x)
{
    return flexible(c, k, x, false);
}

static int bottleneck(Case *c, const Kn *k, int x)
{
    return flexible(c, k, x, true);
}

static int plain(Case *c, const Kn *k, int x)
{
    return pytorch_block(k, x, "", false, (int)case_int(c, "params.planes", 0),
                         (int)case_int(c, "params.stride", 1));
}

static int separable(Case *c, const Kn *k, int x)
{
    return kn_separable(k, x, (int)case_int(c, "params.outp", 0),
                        (int)case_int(c, "params.stride", 1), "");
}

static int inverted(Case *c, const Kn *k, int x)
{
    return kn_inverted(k, x, (int)case_int(c, "params.expand", 1),
                       (int)case_int(c, "params.oup", 0), (int)case_int(c, "params.stride", 1), "");
}

static const struct {
    const char *name;
    int (*build)(Case *c, const Kn *k, int x);
} blocks[] = {
    {"BasicBlock", basic},  {"BottleNeck", bottleneck},     {"pytorch BasicBlock", plain},
    {"conv_dw", separable}, {"InvertedResidual", inverted},
};

/* The unit the block ends with; -1 fails the case. */
static int build(Case *c, SpecRun *r, const NetOpts *o)
{
    const char *name = case_str(c, "params.block", "");
    Err e = {0};
    Kn k;
    if (kn_begin(&k, &r->spec, o, KI_FAN_OUT, &e)) {
        case_fail(c, "%s", e.msg);
        return -1;
    }
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
        if (str_eq(blocks[i].name, name)) {
            const int out = blocks[i].build(c, &k, spec_input(&r->spec, o->in_c, o->in_h, o->in_w));
            return c->failed ? -1 : out;
        }
    case_skip(c, "block '%s' is not known to the runner", name);
    return -1;
}

/* Running means and variances one behind the other, in the order of bn_running_order. */
static void check_running(Case *c, const ParamStore *ps)
{
    const Yaml *order = yaml_get(c->y, "bn_running_order"),
               *v = yaml_path(c->y, "outputs.bn_running_after");
    Tensor all;
    size_t at = 0;
    if (!order || !v || !case_array(c, v, "bn_running_after", &all)) return;
    for (int i = 0; i < order->n && !c->failed; i++) {
        const char *name = yaml_get(order->v[i], "name")->s;
        const Param *p = store_find(ps, name);
        if (!p || at + tensor_len(&p->value) > tensor_len(&all)) {
            case_fail(c, "no statistics %s", name);
            return;
        }
        case_compare(c, name, p->value.data, (const float *)all.data + at, tensor_len(&p->value));
        at += tensor_len(&p->value);
    }
    if (!c->failed && at != tensor_len(&all))
        case_fail(c, "%zu statistics, expected %zu", at, tensor_len(&all));
}

/* Parameters that the original makes and never uses. */
static void check_unused(Case *c, const ParamStore *ps)
{
    const Yaml *list = yaml_get(c->y, "params_without_grad");
    for (int i = 0; list && i < list->n; i++) {
        const Param *p = store_find(ps, list->v[i]->s);
        const float *g = p ? p->grad.data : NULL;
        double sum = 0;
        if (!p) case_fail(c, "no parameter %s", list->v[i]->s);
        for (size_t k = 0; g && k < tensor_len(&p->value); k++) sum += (double)(g[k] * g[k]);
        if (p && (sum > 0 || p->trained)) case_fail(c, "%s has a gradient", list->v[i]->s);
    }
}

void golden_keyword_block(Case *c)
{
    const Yaml *upstream = yaml_path(c->y, "upstream.y");
    Config cfg = {0};
    Tensor x, y, up;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "outputs.y"), "y", &y))
        return;
    if (upstream && !case_array(c, upstream, "upstream", &up)) return;
    if (!upstream) {
        up = y; /* forward only */
        up.data = arena_alloc(&c->arena, tensor_bytes(&y));
        memset(up.data, 0, tensor_bytes(&y));
    }
    if (case_words(c, &cfg)) {
        SpecRun r = {.o = cfg.quant, .train = str_eq(case_str(c, "params.mode", ""), "train")};
        NetOpts o = cfg.net;
        int out;
        o.in_c = x.dim[1];
        o.in_h = x.dim[2];
        o.in_w = x.dim[3];
        out = build(c, &r, &o);
        if (out >= 0 && specrun_open(c, &r, out, &x)) {
            case_fill_rows(c, &r.ps, false);
            if (!c->failed) specrun_pass(c, &r, 0, "y", up.data, y.data, tensor_len(&y));
            if (upstream && !c->failed) {
                specrun_check_dx(c, &r);
                case_flat_grads(c, &r.ps);
                check_unused(c, &r.ps);
            }
            check_running(c, &r.ps);
        }
        specrun_close(&r);
    }
    config_free(&cfg);
}
