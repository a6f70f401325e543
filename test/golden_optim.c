/* test/golden_optim.c -- op `schedule`: learning rates; op `optimizer`: parameters after updates
 * with given gradients. What the original's files state goes through run/config.h as a user's
 * would, so that its rules for batches and decay are compared too. */
#include "test/golden.h"

#include <stdio.h>
#include <string.h>

#include "optim/optim.h"
#include "test/golden_options.h"

#define MAX_PARAMS 16

/* ---- a configuration of the case ---- */

static void add_family(CaseOptions *o)
{
    const bool adabits = str_eq(case_str(o->c, "method", ""), "adabits");
    option_add(o, "model", adabits ? "q_resnet_cifar" : "fix_resnet");
    option_add(o, "depth", adabits ? "20" : "18");
    option_add(o, "dataset", "synthetic");
    if (adabits) option_add(o, "bits_list", "[5,4,3]");
}

/* ---- schedules ---- */

/* "act_alpha (lr 0.1)" or "act_alpha (0.1)": the rate; without one, the original's for that group.
 */
static double group_rate(const char *text, double base)
{
    const char *open = strchr(text, '(');
    double lr;
    if (open && (sscanf(open, "(lr %lf)", &lr) == 1 || sscanf(open, "(%lf)", &lr) == 1)) return lr;
    if (str_starts(text, "act_alpha")) return 0.1;
    if (str_starts(text, "wgt_alpha") || str_starts(text, "transform")) return 0.02;
    return base;
}

/* Learning rate per epoch (rows) and parameter group (columns) of a multi-step schedule. */
static void rates_by_group(Case *c)
{
    const Yaml *steps = yaml_path(c->y, "params.milestones"),
               *groups = yaml_path(c->y, "params.groups");
    const int epochs = (int)case_int(c, "params.epochs", 0),
              ng = groups && groups->kind == Y_LIST ? groups->n : 1;
    const int start = (int)case_int(c, "params.start_epoch", 0);
    OptimOpts o = {.optimizer = "sgd", .lr_scheduler = "multistep", .momentum = 0.9};
    ParamStore ps = {0};
    Optim op = {0};
    Err e = {0};
    float *lr;
    if (!steps || steps->kind != Y_LIST || steps->n > OPTIM_MAX_LIST ||
        !yaml_path(c->y, "outputs.lr") || epochs < 1 || ng > OPTIM_MAX_GROUPS) {
        case_skip(c, "no schedule known to the runner");
        return;
    }
    o.lr = case_num(c, "params.base_lr", 0);
    o.gamma = case_num(c, "params.gamma", 0.1);
    o.num_epochs = start + epochs;
    o.milestone_compat = start > 0;
    o.start_epoch = start;
    for (int i = 0; i < steps->n; i++) {
        long long at = 0;
        if (!yaml_int(steps->v[i], &at)) case_fail(c, "milestones[%d] is not a whole number", i);
        o.milestones[o.nmilestones++] = (int)at;
    }
    for (int g = 1; g < ng; g++) { /* the first is the run's */
        GroupRule *r = &o.group[o.ngroups++];
        snprintf(r->match, sizeof r->match, "group%d", g);
        r->lr = group_rate(groups->v[g]->s, o.lr);
        r->weight_decay = -1;
        store_scalar(&ps, PK_CLIP, 1, "group%d", g);
    }
    store_scalar(&ps, PK_CLIP, 1, "rest");
    if (optim_init(&op, &o, &ps, &e)) {
        case_fail(c, "%s", e.msg);
    } else {
        lr = arena_alloc(&c->arena, (size_t)(epochs * ng) * sizeof *lr);
        for (int i = 0; i < epochs; i++)
            for (int g = 0; g < ng; g++) lr[i * ng + g] = (float)optim_lr(&op, g - 1, start + i);
        case_expect(c, "lr", yaml_path(c->y, "outputs.lr"), lr, (size_t)(epochs * ng));
        optim_free(&op);
    }
    store_free(&ps);
}

/* Learning rate of every update of a run started as app:FILE bs:N. */
static void rates_by_update(Case *c)
{
    static const char *const same[] = {"lr_scheduler",          "num_epochs",
                                       "multistep_lr_gamma",    "multistep_lr_milestones",
                                       "exp_decaying_lr_gamma", "exp_decaying_period"};
    const int updates = (int)case_int(c, "params.iters_per_epoch", 0);
    const double warmup = case_num(c, "params.warmup_epochs", 0);
    CaseOptions o = {.c = c};
    ParamStore ps = {0};
    Optim op = {0};
    Config cfg;
    Err e = {0};
    int n;
    float *lr;
    add_family(&o);
    o.text[o.n++] = arena_printf(&c->arena, "bs:%lld", case_int(c, "params.batch_size", 0));
    option_param(&o, "lr", "lr_in_file");
    for (size_t i = 0; i < ARRAY_LEN(same); i++) option_param(&o, same[i], same[i]);
    if (warmup != 0 && warmup != 5) option_param(&o, "warmup_epochs", "warmup_epochs");
    if (case_done(c)) return;
    if (options_load(&o, &cfg)) {
        cfg.optim.step_epochs = 1.0 / updates;
        n = cfg.optim.num_epochs * updates;
        lr = arena_alloc(&c->arena, (size_t)n * sizeof *lr);
        store_scalar(&ps, PK_CLIP, 1, "alpha");
        if (optim_init(&op, &cfg.optim, &ps, &e)) {
            case_fail(c, "%s", e.msg);
        } else {
            const float base = (float)cfg.optim.lr, rise = (float)cfg.optim.warmup_epochs;
            for (int i = 0; i < n; i++) lr[i] = (float)optim_lr(&op, -1, (double)i / updates);
            case_expect(c, "lr", yaml_path(c->y, "outputs.lr"), lr, (size_t)n);
            case_expect(c, "effective_lr", yaml_path(c->y, "params.effective_lr"), &base, 1);
            case_expect(c, "warmup_epochs", yaml_path(c->y, "params.warmup_epochs"), &rise, 1);
        }
        optim_free(&op);
        store_free(&ps);
    }
    config_free(&cfg);
}

void golden_schedule(Case *c)
{
    if (yaml_path(c->y, "params.lr_scheduler"))
        rates_by_update(c);
    else if (yaml_path(c->y, "params.lr_policy"))
        golden_lr_policy(c);
    else
        rates_by_group(c);
}

/* ---- updates ---- */

typedef struct Params {
    ParamStore ps;
    Param *p[MAX_PARAMS];
    const char *name[MAX_PARAMS];
    Tensor start[MAX_PARAMS], grad[MAX_PARAMS]; /* grad: one row for each update */
    int n;
} Params;

/* Inputs that have a gradient. */
static void declare(Case *c, Params *s, int steps)
{
    const Yaml *in = yaml_get(c->y, "inputs");
    for (int i = 0; in && i < in->n && s->n < MAX_PARAMS; i++) {
        const char *name = in->k[i]->s;
        const Yaml *g = yaml_get(in, arena_printf(&c->arena, "grad_%s", name));
        Tensor *t = &s->start[s->n];
        if (!g) continue;
        if (!case_array(c, in->v[i], name, t) || !case_array(c, g, name, &s->grad[s->n])) return;
        if (tensor_len(&s->grad[s->n]) != tensor_len(t) * (size_t)steps) {
            case_fail(c, "grad_%s has %zu values, expected %d times %zu", name,
                      tensor_len(&s->grad[s->n]), steps, tensor_len(t));
            return;
        }
        s->p[s->n] = store_add(&s->ps, t->ndim >= 2 ? PK_WEIGHT : PK_NORM, DT_F32,
                               (Init){INIT_NONE, 0, 0}, t->ndim, t->dim, "%s", name);
        s->p[s->n]->trained = true;
        s->name[s->n++] = name;
    }
}

static void update(Params *s, Optim *op, int steps)
{
    for (int i = 0; i < s->n; i++)
        memcpy(s->p[i]->value.data, s->start[i].data, tensor_bytes(&s->start[i]));
    for (int t = 0; t < steps; t++) {
        for (int i = 0; i < s->n; i++) {
            const size_t n = tensor_len(&s->start[i]);
            memcpy(s->p[i]->grad.data, (const float *)s->grad[i].data + (size_t)t * n,
                   n * sizeof(float));
        }
        optim_step(op, &s->ps, 0);
    }
}

/* All decays, where the case lists them, then all values. */
static void compare(Case *c, const Params *s, const Optim *op)
{
    const Yaml *decays = yaml_path(c->y, "params.weight_decay_per_param"),
               *out = yaml_get(c->y, "outputs");
    for (int i = 0; i < s->n; i++) {
        const float wd = (float)optim_decay(op, s->p[i]);
        const char *after = arena_printf(&c->arena, "%s_after", s->name[i]);
        if (decays) case_expect(c, s->name[i], yaml_get(decays, s->name[i]), &wd, 1);
        case_expect(c, after, yaml_get(out, after), s->p[i]->value.data, tensor_len(&s->start[i]));
    }
}

static void named_updates(Case *c)
{
    static const char *const same[] = {"optimizer",   "lr",           "momentum",
                                       "nesterov",    "weight_decay", "weight_decay_scheme",
                                       "optim_decay", "optim_eps"};
    const int steps = (int)case_int(c, "params.steps", 0);
    CaseOptions o = {.c = c};
    Params s = {0};
    Optim op = {0};
    Config cfg;
    Err e = {0};
    add_family(&o);
    for (size_t i = 0; i < ARRAY_LEN(same); i++) option_param(&o, same[i], same[i]);
    declare(c, &s, steps);
    if (!s.n) case_skip(c, "no parameters with gradients");
    if (!case_done(c) && options_load(&o, &cfg)) {
        store_init(&s.ps, 1);
        store_alloc_grads(&s.ps);
        if (optim_init(&op, &cfg.optim, &s.ps, &e)) {
            case_fail(c, "%s", e.msg);
        } else {
            update(&s, &op, steps);
            compare(c, &s, &op);
        }
        optim_free(&op);
        config_free(&cfg);
    }
    store_free(&s.ps);
}

void golden_optimizer(Case *c)
{
    if (yaml_path(c->y, "params.custom_lr_list"))
        golden_param_groups(c);
    else if (yaml_path(c->y, "params.params"))
        golden_binarised_updates(c);
    else
        named_updates(c);
}
