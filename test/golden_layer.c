/* test/golden_layer.c -- op `layer` of the keyword language: one convolution or linear layer with
 * the quantizers its words and options give it, in training: output and every gradient. */
#include "test/golden_state.h"
#include "test/golden_words.h"

static int build(Case *c, SpecRun *r, const Tensor *x)
{
    const bool flat = x->ndim == 2;
    const int in = spec_input(&r->spec, x->dim[1], flat ? 1 : x->dim[2], flat ? 1 : x->dim[3]);
    const int out = (int)case_int(c, "params.out", 0);
    if (flat) return spec_linear(&r->spec, in, (LinearAttr){.out = out, .bias = true}, "layer");
    return spec_conv(&r->spec, in,
                     (ConvAttr){.oc = out,
                                .k = (int)case_int(c, "params.kernel", 3),
                                .stride = (int)case_int(c, "params.stride", 1),
                                .pad = (int)case_int(c, "params.padding", 0),
                                .groups = (int)case_int(c, "params.groups", 1)},
                     "layer");
}

/* Gradients of the parameters one behind the other, in the order of param_grads_order. */
void case_flat_grads(Case *c, const ParamStore *ps)
{
    const Yaml *order = yaml_get(c->y, "param_grads_order");
    Tensor all;
    size_t at = 0;
    if (!order || !case_array(c, yaml_path(c->y, "grads.params_flat"), "params_flat", &all)) return;
    for (int i = 0; i < order->n && !c->failed; i++) {
        const char *name = yaml_get(order->v[i], "name")->s;
        const Param *p = store_find(ps, name);
        if (!p) p = store_find(ps, arena_printf(&c->arena, LAYER "%s", name));
        if (!p || !p->grad.data || at + tensor_len(&p->value) > tensor_len(&all)) {
            case_fail(c, "no gradient of %s", name);
            return;
        }
        case_compare(c, arena_printf(&c->arena, "gradient of %s", name), p->grad.data,
                     (const float *)all.data + at, tensor_len(&p->value));
        at += tensor_len(&p->value);
    }
    if (!c->failed && at != tensor_len(&all))
        case_fail(c, "%zu gradients, expected %zu", at, tensor_len(&all));
}

void golden_keyword_layer(Case *c)
{
    Config cfg = {0};
    Tensor x, y, up;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "outputs.y"), "y", &y) ||
        !case_array(c, yaml_path(c->y, "upstream.y"), "upstream", &up))
        return;
    if (case_words(c, &cfg)) {
        SpecRun r = {.o = cfg.quant, .train = str_eq(case_str(c, "params.mode", ""), "train")};
        const int out = build(c, &r, &x);
        if (specrun_open(c, &r, out, &x)) {
            case_fill_rows(c, &r.ps, false);
            if (!c->failed) specrun_pass(c, &r, 0, "y", up.data, y.data, tensor_len(&y));
            specrun_check_dx(c, &r);
            case_flat_grads(c, &r.ps);
        }
        specrun_close(&r);
    }
    config_free(&cfg);
}
