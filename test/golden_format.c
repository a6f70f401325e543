/* test/golden_format.c -- ops `format` (level tables, the fill rules themselves, printed lines,
 * checkpoint files) and `schedule`. */
#include "test/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "optim/optim.h"
#include "quant/grid.h"
#include "test/golden_pth.h"

/* Level set: values, middles, and which way a tie goes; at every middle and its float neighbours,
 * the nearest level by distance in the original's order against the thresholds. */
static void check_ties(Case *c, const LevelSet *s, const float *order)
{
    for (int i = 0; i + 1 < s->n; i++) {
        for (int side = -1; side <= 1; side++) {
            const float u = side ? nextafterf(s->mid[i], side < 0 ? 0.0f : 2.0f) : s->mid[i];
            float best = order[0], got = s->level[levels_nearest(s, u)];
            for (int k = 1; k < s->n; k++)
                if (fabsf(u - order[k]) < fabsf(u - best)) best = order[k];
            case_compare_tol(c, "projection", &got, &best, 1, 0, 0);
        }
    }
}

static void level_table(Case *c)
{
    const int bits = (int)case_int(c, "params.B", 0);
    LevelSet *s = arena_alloc(&c->arena, sizeof *s);
    float up[GRID_MAX_LEVELS];
    Tensor order;
    const Yaml *v = yaml_path(c->y, "outputs.levels_original_order");
    if (!quant_find(case_str(c, "method", ""))) {
        case_skip(c, "method '%s' is not in this program", case_str(c, "method", ""));
        return;
    }
    if (case_bool(c, "params.additive", !str_starts(c->name, "levels_power")) ? levels_apot(s, bits) : levels_pot(s, bits)) {
        case_fail(c, "no level set of %d bits", bits);
        return;
    }
    for (int i = 0; i + 1 < s->n; i++) up[i] = s->up[i];
    case_expect(c, "levels", yaml_path(c->y, "outputs.levels_sorted"), s->level, (size_t)s->n);
    if (yaml_path(c->y, "outputs.threshold")) {
        case_expect(c, "thresholds", yaml_path(c->y, "outputs.threshold"), s->mid,
                    (size_t)s->n - 1);
        case_expect(c, "tie directions", yaml_path(c->y, "outputs.threshold_maps_up"), up,
                    (size_t)s->n - 1);
    }
    if (v && case_array(c, v, "levels in the original's order", &order) &&
        (int)tensor_len(&order) == s->n)
        check_ties(c, s, order.data);
}

/* Outputs are named RULE_tT_firstN or RULE_tT_fromI. */
static void fill_rules(Case *c)
{
    const Yaml *out = yaml_get(c->y, "outputs");
    for (int i = 0; out && i < out->n; i++) {
        const char *name = out->k[i]->s;
        unsigned long t, first = 0;
        char rule[16], where[16];
        Tensor want;
        float *got;
        size_t n;
        if (sscanf(name, "%15[a-z]_t%lu_%15[a-z]%lu", rule, &t, where, &first) != 4) {
            case_fail(c, "output '%s' is not understood", name);
            continue;
        }
        if (!case_array(c, out->v[i], name, &want)) continue;
        n = tensor_len(&want);
        got = arena_alloc(&c->arena, n * sizeof *got + 1);
        if (str_eq(where, "first")) first = 0;
        for (size_t k = 0; k < n; k++)
            got[k] = str_eq(rule, "noise")
                         ? fill_noise(first + k, t, case_num(c, "params.amplitude", 1))
                         : fill_value(first + k, t);
        case_compare(c, name, got, want.data, n);
    }
    golden_fill_example(c);
}

void golden_format(Case *c)
{
    Str why = {0};
    int verdict;
    if (yaml_path(c->y, "outputs.levels_sorted")) {
        level_table(c);
    } else if (yaml_get(c->y, "parameters")) {
        golden_param_selection(c);
    } else if (yaml_path(c->y, "params.rule_fill")) {
        fill_rules(c);
    } else if (yaml_get(c->y, "module_order") && yaml_get(c->y, "lines")) {
        golden_show_params(c);
    } else if (yaml_get(c->y, "expect") && yaml_path(c->y, "params.file")) {
        verdict = golden_pth_case(c->y, c->dir, &why);
        if (verdict == 0) case_fail(c, "%s", why.s ? why.s : "");
        if (verdict < 0) case_skip(c, "%s", why.s ? why.s : "");
        c->arrays++;
    } else if (yaml_path(c->y, "params.input_fl")) {
        case_skip(c, "integer inference is not in this program");
    } else if (!golden_fixed_format(c)) {
        case_skip(c, "no runner for this kind of format");
    }
    str_free(&why);
}

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
void golden_schedule(Case *c)
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
        case_skip(c, "not a multi-step schedule per epoch");
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
