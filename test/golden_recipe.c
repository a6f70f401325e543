/* test/golden_recipe.c -- model-quantization's training script: learning rates by policy, and the rate
 * and decay of each parameter. Options go through run/config.h under the original's own names. */
#include "test/golden.h"

#include <stdio.h>
#include <string.h>

#include "optim/optim.h"
#include "test/golden_options.h"

static bool load(CaseOptions *o, Config *cfg)
{
    option_add(o, "model", "resnet20");
    option_add(o, "dataset", "synthetic");
    return options_load(o, cfg);
}

void golden_lr_policy(Case *c)
{
    static const char *const names[] = {"lr",      "lr_policy",   "lr_decay",
                                        "eta_min", "lr_fix_step", "lr_custom_step"};
    const int epochs = (int)case_int(c, "params.epochs", 0),
              length = (int)case_int(c, "params.iterations_per_epoch", 1);
    const bool by_update = yaml_path(c->y, "outputs.lr_iter") != NULL;
    const int per = by_update ? length : 1, n = epochs * per;
    CaseOptions o = {.c = c};
    ParamStore none = {0};
    Optim op = {0};
    Config cfg;
    Err e = {0};
    float *lr = arena_alloc(&c->arena, (size_t)n * sizeof *lr);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) option_param(&o, names[i], names[i]);
    option_param(&o, "epochs", "epochs");
    if (case_done(c) || !load(&o, &cfg)) return;
    if (optim_init(&op, &cfg.optim, &none, &e)) {
        case_fail(c, "%s", e.msg);
    } else {
        for (int i = 0; i < n; i++) lr[i] = (float)optim_lr(&op, -1, (double)i / per);
        case_expect(c, by_update ? "lr_iter" : "lr_epoch",
                    yaml_path(c->y, by_update ? "outputs.lr_iter" : "outputs.lr_epoch"), lr,
                    (size_t)n);
    }
    optim_free(&op);
    config_free(&cfg);
}

/* ---- parameter groups ---- */

static const char *text_of(Case *c, const Yaml *row, const char *key)
{
    const Yaml *v = yaml_get(row, key);
    if (!v || v->kind != Y_SCALAR) case_fail(c, "a group without %s", key);
    return v && v->kind == Y_SCALAR ? v->s : "";
}

static double number_of(Case *c, const Yaml *row, const char *key)
{
    const Yaml *v = yaml_get(row, key);
    double x = 0;
    if (!v || !yaml_double(v, &x)) case_fail(c, "a group without %s", key);
    return x;
}

/* A weight with a quantizer: one whose quantizer has a parameter in the list. */
static void mark_quantized(ParamStore *ps)
{
    static const char end[] = ".quant_weight.clip_val";
    for (int i = 0; i < ps->n; i++) {
        const char *name = ps->p[i]->name;
        char weight[256];
        Param *p;
        if (!str_ends(name, end)) continue;
        snprintf(weight, sizeof weight, "%.*s.weight", (int)(strlen(name) - strlen(end)), name);
        p = store_find(ps, weight);
        if (p) p->quantized = true;
    }
}

static void declare(Case *c, const Yaml *groups, ParamStore *ps)
{
    for (int i = 0; i < groups->n && !case_done(c); i++) {
        const Yaml *g = groups->v[i], *shape = yaml_get(g, "shape");
        int dim[4] = {0}, nd = shape && shape->kind == Y_LIST ? shape->n : 0;
        for (int k = 0; k < nd && k < 4; k++) {
            long long d = 0;
            if (!yaml_int(shape->v[k], &d)) case_fail(c, "a shape is not made of whole numbers");
            dim[k] = (int)d;
        }
        if (nd > 4) case_fail(c, "a parameter of %d dimensions", nd);
        else
            store_add(ps, nd >= 2 ? PK_WEIGHT : PK_NORM, DT_F32, (Init){INIT_CONST, 0, 0}, nd, dim,
                      "%s", text_of(c, g, "name"));
    }
    mark_quantized(ps);
}

static void compare(Case *c, const Yaml *groups, const Optim *op, const ParamStore *ps)
{
    const size_t n = (size_t)groups->n;
    float *got = arena_alloc(&c->arena, 3 * n * sizeof *got),
          *want = arena_alloc(&c->arena, 3 * n * sizeof *want);
    for (size_t i = 0; i < n; i++) {
        const Yaml *g = groups->v[i], *pinned = yaml_get(g, "lr_constant");
        const Param *p = ps->p[i];
        got[i] = (float)optim_decay(op, p);
        want[i] = (float)number_of(c, g, "weight_decay");
        got[n + i] = (float)optim_param_lr(op, p, 0);
        want[n + i] = (float)number_of(c, g, "lr");
        got[2 * n + i] = optim_pinned(op, p) ? got[n + i] : 0; /* 0: not pinned */
        want[2 * n + i] = pinned && !yaml_null(pinned) ? (float)number_of(c, g, "lr_constant") : 0;
    }
    case_compare(c, "weight_decay", got, want, n);
    case_compare(c, "lr", got + n, want + n, n);
    case_compare(c, "lr_constant", got + 2 * n, want + 2 * n, n);
}

void golden_param_groups(Case *c)
{
    static const char *const names[] = {"lr",           "weight_decay",   "decay_small", "custom_decay_list",
                                        "custom_decay", "custom_lr_list", "custom_lr"};
    const Yaml *groups = yaml_get(c->y, "groups");
    CaseOptions o = {.c = c};
    ParamStore ps = {0};
    Optim op = {0};
    Config cfg;
    Err e = {0};
    if (!groups || groups->kind != Y_LIST) {
        case_fail(c, "the case has no groups");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) option_param(&o, names[i], names[i]);
    if (!load(&o, &cfg)) return;
    declare(c, groups, &ps);
    if (!case_done(c) && optim_init(&op, &cfg.optim, &ps, &e)) case_fail(c, "%s", e.msg);
    if (!case_done(c)) compare(c, groups, &op, &ps);
    optim_free(&op);
    store_free(&ps);
    config_free(&cfg);
}
