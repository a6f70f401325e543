/* test/golden_format.c -- op `format`: level tables, the fill rules themselves, printed lines,
 * checkpoint files. */
#include "test/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (yaml_get(c->y, "text")) {
        golden_policy(c);
    } else if (yaml_path(c->y, "outputs.levels_sorted")) {
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
        golden_int_requant(c);
    } else if (!golden_fixed_format(c)) {
        case_skip(c, "no runner for this kind of format");
    }
    str_free(&why);
}
