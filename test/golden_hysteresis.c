/* test/golden_hysteresis.c -- steps with given gradients, some weights binarised after each; and
 * which parameters of a net are binarised. */
#include "test/golden.h"

#include <stdio.h>
#include <string.h>

#include "optim/optim.h"
#include "quant/qplan.h"
#include "run/model.h"

#define MAX_PARAMS 16

typedef struct Steps {
    ParamStore ps;
    QOpts qo;
    QInst q[MAX_PARAMS]; /* fn NULL: not binarised */
    Param *p[MAX_PARAMS];
    int n;
    size_t total;
} Steps;

static bool declare(Case *c, Steps *s)
{
    const Yaml *list = yaml_path(c->y, "params.params");
    const QMethod *m = quant_find("hysteresis");
    Err e = {0};
    qopts_default(&s->qo);
    s->qo.weight_thres = case_num(c, "params.weight_thres", 0);
    for (int i = 0; list && m && i < list->n && i < MAX_PARAMS; i++) {
        const Yaml *shape = yaml_get(list->v[i], "shape"), *b = yaml_get(list->v[i], "binarised");
        bool binarised = false;
        int dim[4] = {0};
        char name[32];
        for (int d = 0; shape && d < shape->n && d < 4; d++) {
            long long v = 0;
            yaml_int(shape->v[d], &v);
            dim[d] = (int)v;
        }
        snprintf(name, sizeof name, "p%d.", i);
        s->p[i] = store_add(&s->ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, shape->n, dim,
                            "%sweight", name);
        s->p[i]->trained = true;
        s->total += tensor_len(&s->p[i]->value);
        if (b) yaml_bool(b, &binarised);
        if (binarised && qinst_init(&s->q[i], m, Q_WEIGHT, 1, 0, &s->qo, &s->ps, s->p[i], 0,
                                    shape->n, dim, name, &e)) {
            case_fail(c, "%s", e.msg);
            return false;
        }
        s->n++;
    }
    if (!s->n) case_skip(c, "no list of parameters");
    return s->n > 0;
}

typedef enum What { WEIGHTS, LATENT, MOMENTUM, GRADS } What;

static float *tensor_of(Steps *s, int i, What what)
{
    Param *p = s->p[i];
    switch (what) {
    case LATENT:
        return s->q[i].fn ? s->q[i].p[0]->value.data : p->value.data;
    case MOMENTUM:
        return p->slot[0].data;
    case GRADS:
        return p->grad.data;
    default:
        return p->value.data;
    }
}

/* All parameters one behind the other, to or from `row`. */
static void copy(Steps *s, What what, float *row, bool in)
{
    for (int i = 0; i < s->n; i++) {
        const size_t bytes = tensor_bytes(&s->p[i]->value);
        float *t = tensor_of(s, i, what);
        if (in)
            memcpy(t, row, bytes);
        else
            memcpy(row, t, bytes);
        row += bytes / sizeof *row;
    }
}

static void run(Case *c, Steps *s, Optim *op, float *grads, int steps)
{
    static const struct {
        const char *name;
        What what;
    } outputs[] = {{"weights", WEIGHTS}, {"latent", LATENT}, {"momentum_buffer", MOMENTUM}};
    float *got[ARRAY_LEN(outputs)];
    const Yaml *out = yaml_get(c->y, "outputs");
    const QCtx ctx = {.phase = PH_TRAIN};
    for (size_t k = 0; k < ARRAY_LEN(outputs); k++)
        got[k] = arena_alloc(&c->arena, (size_t)steps * s->total * sizeof *grads);
    for (int t = 0; t < steps; t++) {
        for (int i = 0; i < s->n; i++) {
            Tensor y = s->p[i]->value;
            y.data = arena_alloc(&c->arena, tensor_bytes(&y));
            if (s->q[i].fn) qinst_forward(&s->q[i], &s->p[i]->value, &y, &ctx);
        }
        copy(s, GRADS, grads + (size_t)t * s->total, true);
        optim_step(op, &s->ps, 0);
        for (int i = 0; i < s->n; i++)
            if (s->q[i].fn) s->q[i].fn->after_step(&s->q[i]);
        for (size_t k = 0; k < ARRAY_LEN(outputs); k++)
            copy(s, outputs[k].what, got[k] + (size_t)t * s->total, false);
    }
    for (size_t k = 0; k < ARRAY_LEN(outputs); k++)
        if (yaml_get(out, outputs[k].name))
            case_expect(c, outputs[k].name, yaml_get(out, outputs[k].name), got[k],
                        (size_t)steps * s->total);
}

void golden_binarised_updates(Case *c)
{
    Steps s = {0};
    Optim op = {0};
    OptimOpts o = {.optimizer = "sgd", .lr_scheduler = "constant", .num_epochs = 1};
    const int steps = (int)case_int(c, "params.steps", 0);
    Tensor w0, grads;
    Err e = {0};
    o.lr = case_num(c, "params.lr", 0);
    o.momentum = case_num(c, "params.momentum", 0);
    o.dampening = case_num(c, "params.dampening", 0);
    o.nesterov = case_bool(c, "params.nesterov", false);
    o.weight_decay = case_num(c, "params.weight_decay", 0);
    if (declare(c, &s) && case_array(c, yaml_path(c->y, "inputs.w0"), "w0", &w0) &&
        case_array(c, yaml_path(c->y, "inputs.grads_per_step"), "grads_per_step", &grads)) {
        store_init(&s.ps, 1);
        store_alloc_grads(&s.ps);
        if (tensor_len(&w0) != s.total || tensor_len(&grads) != s.total * (size_t)steps)
            case_fail(c, "%zu weights, expected %zu", tensor_len(&w0), s.total);
        else if (optim_init(&op, &o, &s.ps, &e))
            case_fail(c, "%s", e.msg);
        else {
            copy(&s, WEIGHTS, w0.data, true);
            run(c, &s, &op, grads.data, steps);
        }
        optim_free(&op);
    }
    for (int i = 0; i < s.n; i++)
        if (s.q[i].fn) qinst_free(&s.q[i]);
    store_free(&s.ps);
}

/* Which parameters of ResNet-20 have a latent copy. */
void golden_param_selection(Case *c)
{
    const Yaml *list = yaml_get(c->y, "parameters");
    const NetOpts no = {.model = "resnet20_cifar",
                        .names = "hysteresis",
                        .num_classes = 10,
                        .in_c = 3,
                        .in_h = 32,
                        .in_w = 32};
    QOpts qo;
    Err e = {0};
    Model *m;
    int at = 0;
    qopts_default(&qo);
    qo.wt_quant = "hysteresis";
    qo.wt_bit = 1;
    m = model_new(&no, &qo, 0, 1, &e);
    if (!m) {
        case_fail(c, "%s", e.msg);
        return;
    }
    for (int k = 0; k < model_store(m)->n; k++) {
        const Param *p = model_store(m)->p[k];
        const Yaml *row = at < list->n ? list->v[at] : NULL;
        bool want = false;
        if (p->kind == PK_BUFFER) continue;
        if (!row || !yaml_get(row, "name") || !str_eq(yaml_get(row, "name")->s, p->name)) {
            case_fail(c, "parameter %d is %s, another one expected", at + 1, p->name);
            break;
        }
        if (yaml_get(row, "binarised")) yaml_bool(yaml_get(row, "binarised"), &want);
        if (want != (p->step_on != NULL))
            case_fail(c, "%s is %sbinarised", p->name, p->step_on ? "" : "not ");
        c->arrays++;
        at++;
    }
    if (at != list->n) case_fail(c, "%d parameters, expected %d", at, list->n);
    model_free(m);
}

void golden_pact_opts(Case *c, QOpts *o)
{
    static const struct {
        const char *kind, *variant;
    } kinds[] = {{"BinActive", "round"},
                 {"BinActive_pact", "pact"},
                 {"BinActive_pact_sigmoid", "pact_sigmoid"},
                 {"BinActive_pact_exponential", "pact_exponential"}};
    const char *kind = case_str(c, "params.kind", "BinActive");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (str_eq(kinds[i].kind, kind)) o->quant_variant = kinds[i].variant;
    o->sigmoid_alpha = case_num(c, "params.alpha", 1);
}
