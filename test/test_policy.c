/* test/test_policy.c -- policies: what is refused and where, text and YAML as one, what the rules do to a
 * net and its optimizer, and that a checkpoint is evaluated under the rules it was trained with. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/fs.h"
#include "quant/keyword.h"
#include "run/keys.h"
#include "run/policy_text.h"
#include "run/session.h"
#include "test/support/temp.h"
#include "test/support/tiny.h"

static char *root;

static void put_plain(const char *s, Str *out)
{
    str_puts(out, s);
}

/* ---- texts ---- */

static void faults_name_their_line(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"on init:\n by_index: all\n enable\n", "p:3:1: error: policy: 'enable' has no ':'"},
        {"stable: 3\n", "p:1:1: error: policy: 'stable' stands in no section"},
        {"on init:\n stable: 3\n", "p:2:1: error: policy: 'stable' has no by_index before it"},
        {"on init:\n by_tag: fm\n stable: 3\n", "p:2:1: error: policy: a block without by_index sets nothing"},
        {"on init:\n by_index: 3\n", "p:2:1: error: policy: a block that sets nothing"},
        {"on init:\n by_index: 3\non epoch: 1\n by_index: all\n stable: 1\n",
         "p:2:1: error: policy: a block that sets nothing"},
        {"on init:\n by_index: -1\n stable: 3\n", "p:2:1: error: policy: by_index: '-1'; expected all"},
        {"on init:\n by_index: 1 2 x\n stable: 3\n", "by_index: 'x'"},
        {"on init:\n by_index: 1\n by_tag: act\n stable: 3\n", "p:3:1: error: policy: by_tag: 'act'; expected fm, wt, ot"},
        {"on init:\n by_name: conv\n stable: 3\n", "unknown 'by_name'; expected by_index or by_tag"},
        {"on init:\n by_index: all\n stable:\n", "p:3:1: error: policy: stable without a value"},
        {"on epoch:\n by_index: all\n stable: 1\n", "p:1:1: error: policy: on epoch without epochs"},
        {"on epoch: one\n by_index: all\n stable: 1\n", "'one' is not an epoch"},
        {"on start:\n by_index: all\n stable: 1\n", "unknown section 'start'"},
        {"", "p:1:1: error: policy: no section in this file; expected on init:"},
        {"# on init:\n\n", "p:1:1: error: policy: no section in this file"},
        {"on init: 3\n by_index: all\n stable: 1\n", "p:1:1: error: policy: '3' behind a section that is not on epoch"},
        {"on init:\n by_index: all\n by_index: 1\n stable: 1\n", "p:2:1: error: policy: a block that sets nothing"},
        {"on init: \n by_index: all\n stable: 1: 2\n", "p:3:1: error: policy: a second ':'"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Arena a = {0};
        Policy p;
        Err e = {0};
        if (!policy_parse(&p, &a, "p", rows[i].text, &e)) fail_msg("accepted:\n%s", rows[i].text);
        if (!strstr(e.msg, rows[i].want)) fail_msg("%s\ngave: %s\nexpected: %s", rows[i].text, e.msg, rows[i].want);
        arena_free(&a);
    }
}

/* A run's configuration in place of a policy: one line, whatever is in it. */
static void another_file_is_one_fault(void **state)
{
    static const char *const text[] = {"model: resnet20\nwt_bit: 2\nlr: 0.1\n",
                                       "keyword:\n  - dorefa\n  - fix\nwt_bit: 2\n",
                                       "_default: a:b\npretrained_file: c:d\n"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        Arena a = {0};
        Policy p;
        Err e = {0};
        if (!policy_parse(&p, &a, "p", text[i], &e)) fail_msg("accepted:\n%s", text[i]);
        if (!strstr(e.msg, "stands in no section; expected on init:") || strchr(e.msg, '\n'))
            fail_msg("%s\ngave: %s", text[i], e.msg);
        arena_free(&a);
    }
}

static void yaml_faults_name_their_place(void **state)
{
    static const struct {
        const char *value, *want;
    } rows[] = {
        {"policy=[1, 2]", "policy: a list; expected the name of a file, or a map"},
        {"policy={on start: [{by_index: all, stable: 1}]}", "'on start' is no section"},
        {"policy={init: 3}", "expected a map such as {by_index: all"},
        {"policy={init: [{stable: 3}]}", "a block without by_index"},
        {"policy={init: [{by_index: all}]}", "a block that sets nothing"},
        {"policy={init: [{by_index: {a: 1}, stable: 1}]}", "by_index is a map"},
        {"policy={epoch: [{by_index: all, stable: 1}]}", "on epoch without epochs"},
        {"policy=no/such.file", "no/such.file: no such file"},
        {"policy=/", "policy: /: not a file; expected a policy file"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *why = tiny_fault(root, "none", (const char *const[]){rows[i].value, NULL});
        if (!why || !strstr(why, rows[i].want))
            fail_msg("%s\ngave: %s\nexpected: %s", rows[i].value, why ? why : "nothing", rows[i].want);
        free(why);
    }
}

/* A file, the map it is shown as, and that map read again say the same. */
static void file_and_map_agree(void **state)
{
    static const char text[] = "# comment\n\non init:\n\tby_index: 0 1  2 # three\n  by_tag: fm, wt\n  stable: 3\n"
                               "on epoch: 1 3\n by_index: all\n level_num: -1\n by_index: 4\n enable: False\r\n"
                               "on init epoch: 7\n by_index: 5\n clip_val: 0.5\n";
    static const char two[] = "on epoch: 1 3\n by_index: all\n level_num: -1\n by_index: 4\n enable: False\n";
    static const char map[] =
        "{\"on epoch 1 3\": [{by_index: all, level_num: -1}, {by_index: 4, enable: False}]}";
    Arena a = {0};
    Policy p, q;
    Err e = {0};
    Str first = {0}, second = {0};
    const Yaml *y;
    (void)state;
    if (policy_parse(&p, &a, "p", text, &e)) fail_msg("%s", e.msg);
    policy_print(&p, put_plain, &first); /* the last section stands for both of its names */
    assert_string_equal(first.s, "{\"on init epoch 7\": [{by_index: 5, clip_val: 0.5}]}");
    first.len = 0;
    if (policy_parse(&p, &a, "p", two, &e)) fail_msg("%s", e.msg);
    policy_print(&p, put_plain, &first);
    assert_string_equal(first.s, map);
    y = yaml_value(&a, "map", first.s, &e);
    if (!y || policy_from_yaml(&q, &a, y, &e)) fail_msg("%s", e.msg);
    policy_print(&q, put_plain, &second);
    assert_string_equal(second.s, first.s);
    assert_true(policy_acts(&q, 3) && !policy_acts(&q, 2));
    str_free(&first);
    str_free(&second);
    arena_free(&a);
}

/* ---- a net ---- */

#define LSQ "fm_quant=lsq", "wt_quant=lsq", "fm_bit=3", "wt_bit=3"
#define KEYS(...) ((const char *const[]){LSQ, __VA_ARGS__, NULL})

static Session opened(Config *c, const char *policy)
{
    Session s;
    Err e = {0};
    tiny_load(c, root, "none", KEYS(policy));
    if (session_open(&s, c, &e)) fail_msg("%s", e.msg);
    return s;
}

static QInst *quantizer(Session *s, int layer, QRole role)
{
    QPlan *qp = model_qplan(s->model);
    int *unit = xcalloc((size_t)qp->spec->n, sizeof *unit);
    const int n = policy_layers(qp, unit);
    QInst *q;
    assert_true(layer < n);
    q = qp->u[unit[layer]].q[role];
    free(unit);
    return q;
}

static void rules_reach_what_they_name(void **state)
{
    Config c;
    Session s = opened(&c, "policy={init: [{by_index: [0, 2], by_tag: fm, enable: False}, {by_index: 1, clip_val: 0.5}, "
                           "{by_index: all, by_tag: wt, stable: 4}, {by_index: 3, by_tag: wt, adaptive: var-mean}]}");
    (void)state;
    for (int i = 0; i < 4; i++) {
        const QInst *fm = quantizer(&s, i, Q_ACT), *wt = quantizer(&s, i, Q_WEIGHT);
        const Keyword *k = wt->priv;
        assert_int_equal(fm->enabled, i != 0 && i != 2);
        assert_true(wt->enabled);
        assert_int_equal(k->stable, 4);
        assert_int_equal(k->normalizes, i == 3);
        assert_true(((const float *)k->clip->value.data)[0] == (i == 1 ? 0.5f : 1));
        assert_int_equal(((const Keyword *)fm->priv)->stable, 0);
    }
    assert_string_equal(quantizer(&s, 0, Q_WEIGHT)->unit, "layer1.0.conv1"); /* the stem is float: it does not count */
    session_free(&s);
    config_free(&c);
}

/* A stem behind a space-to-depth is built like the other layers there, and counted like them. */
static void reshaping_stems_count(void **state)
{
    static const struct {
        const char *words, *first;
    } rows[] = {{"keyword=origin,cbsa,fix", "layer1.0.conv1.0"},
                {"keyword=origin,cbsa,fix,TResNetStem", "conv1.conv"},
                {"keyword=origin,cbsa,fix,TResNetStemMaxPool", "conv1.conv"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *const given[] = {"model=resnet18", rows[i].words, "width_alpha=0.1", "wt_quant=lsq", "fm_quant=lsq", "wt_bit=2", "fm_bit=2", NULL};
        Config c;
        Session s = {0};
        Err e = {0};
        int *unit;
        if (config_load(&c, "smoke", 7, (char **)(uintptr_t)given, &e) || session_open(&s, &c, &e)) fail_msg("%s", e.msg);
        unit = xcalloc((size_t)model_qplan(s.model)->spec->n, sizeof *unit);
        policy_layers(model_qplan(s.model), unit);
        assert_string_equal(model_qplan(s.model)->spec->u[unit[0]].name, rows[i].first);
        free(unit);
        session_free(&s);
        config_free(&c);
    }
}

static void impossible_rules_are_refused(void **state)
{
    static const struct {
        const char *policy, *want;
    } rows[] = {
        {"policy={init: [{by_index: 99, stable: 1}]}", "by_index: 99; the net has 20 layers that may be quantized, 0 to 19"},
        {"policy={init: [{by_index: all, colour: 1}]}", "no quantizer chosen here (lsq) has an attribute 'colour'"},
        {"policy={init: [{by_index: all, enable: 7}]}", "enable: 7; expected True or False"},
        {"policy={init: [{by_index: all, clip_val: blue}]}", "clip_val: blue; expected a number"},
        {"policy={init: [{by_index: all, clip_val: nan}]}", "clip_val: nan; expected a number"},
        {"policy={init: [{by_index: all, clip_val: 1e39}]}", "clip_val: 1e39; expected a number"},
        {"policy={init: [{by_index: all, adaptive: blue}]}", "adaptive: blue; expected one of none, var"},
        {"policy={epoch 1: [{by_index: all, level_num: -7}]}", "level_num: 1 levels; expected 2 to 256"}, /* before it trains */
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *why = tiny_fault(root, "refused", KEYS(rows[i].policy));
        if (!why || !strstr(why, rows[i].want))
            fail_msg("%s\ngave: %s\nexpected: %s", rows[i].policy, why ? why : "nothing", rows[i].want);
        free(why);
    }
}

/* Methods that only know numbers. */
static void numbers_are_asked_for(void **state)
{
    static const struct {
        const char *policy, *want; /* NULL: accepted */
    } rows[] = {
        {"policy={init: [{by_index: all, by_tag: fm, alpha: fast}]}", "alpha: fast; expected a number"},
        {"policy={init: [{by_index: all, by_tag: fm, alpha: 0}]}", "alpha: 0; expected a number above 0"},
        {"policy={init: [{by_index: all, by_tag: fm, alpha: inf}]}", "alpha: inf; expected a number"},
        {"policy={init: [{by_index: all, by_tag: fm, colour: red}]}", "no quantizer chosen here (hysteresis) has an attribute 'colour'"},
        {"policy={init: [{by_index: all, by_tag: fm, alpha: 2}]}", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *why = tiny_fault(root, "numbers", (const char *const[]){"fm_quant=hysteresis", "wt_quant=hysteresis", "wt_bit=1",
                               "fm_bit=2", "quant_variant=pact_sigmoid", "num_epochs=1", "max_steps=1", rows[i].policy, NULL});
        if (!rows[i].want ? why != NULL : !why || !strstr(why, rows[i].want))
            fail_msg("%s\ngave: %s\nexpected: %s", rows[i].policy, why ? why : "nothing", rows[i].want ? rows[i].want : "nothing");
        free(why);
    }
}

/* Of two sections of one name the last counts, for what is asked of a policy too. */
static void replaced_sections_set_nothing(void **state)
{
    Arena a = {0};
    Policy p;
    Err e = {0};
    (void)state;
    if (policy_parse(&p, &a, "p", "on init:\n by_index: all\n stable: 3\non init:\n by_index: all\n ratio: 1\n"
                     "on norm:\n by_index: all\n level_num: 4\n", &e))
        fail_msg("%s", e.msg);
    assert_null(policy_sets(&p, "stable"));
    assert_null(policy_sets(&p, "level_num"));
    assert_non_null(policy_sets(&p, "ratio"));
    arena_free(&a);
}

static void stable_has_one_master(void **state)
{
    char *why = tiny_fault(root, "refused", KEYS("policy={init: [{by_index: all, stable: 7}]}", "stable_epoch=1"));
    (void)state;
    assert_non_null(why);
    assert_non_null(strstr(why, "stable_epoch: 1 contradicts stable: 7 of the policy"));
    free(why);
}

/* A change of levels takes the clip level along and clears its momentum, whatever the optimizer. */
static void momentum_is_cleared(void **state)
{
    static const char *const rules[] = {"sgd", "adam", "rmsprop"};
    (void)state;
    for (size_t r = 0; r < ARRAY_LEN(rules); r++) {
        Config c;
        Session s = opened(&c, "policy={init: [{by_index: all, progressive: True}], epoch 0 2: [{by_index: 1, by_tag: wt, "
                               "level_num: -2}]}");
        OptimOpts o = c.optim;
        Optim op;
        Err e = {0};
        Param *clip = ((Keyword *)quantizer(&s, 1, Q_WEIGHT)->priv)->clip,
              *other = ((Keyword *)quantizer(&s, 2, Q_WEIGHT)->priv)->clip;
        o.optimizer = rules[r];
        if (optim_init(&op, &o, model_store(s.model), &e)) fail_msg("%s", e.msg);
        for (int k = 0; k < clip->nslots; k++)
            *(float *)clip->slot[k].data = *(float *)other->slot[k].data = 3;
        *(float *)clip->value.data = 1;
        if (session_rules(&s, 1, &e)) fail_msg("%s", e.msg); /* the rule of epoch 0 */
        assert_true(fabsf(*(float *)clip->value.data - 5.0f / 7) < 1e-6f);
        for (int k = 0; k < clip->nslots; k++) {
            assert_true(*(float *)clip->slot[k].data == (k == clip->momentum ? 0 : 3));
            assert_true(*(float *)other->slot[k].data == 3);
        }
        if (session_rules(&s, 3, &e)) fail_msg("%s", e.msg);
        assert_true(fabsf(*(float *)clip->value.data - 3.0f / 7) < 1e-6f);
        assert_int_equal(((Keyword *)quantizer(&s, 1, Q_WEIGHT)->priv)->levels, 4);
        optim_free(&op);
        session_free(&s);
        config_free(&c);
    }
}

/* The best checkpoint of two epochs, one with 8 levels and one with 7, is evaluated with those it had. */
static void checkpoints_bring_their_rules(void **state)
{
    const char *rule = "policy={epoch 1: [{by_index: all, by_tag: wt, level_num: 7}]}";
    Config c;
    Session s;
    Err e = {0};
    char *last = fs_join(root, "levels/checkpoints/last.safetensors");
    (void)state;
    tiny_train(root, "levels", KEYS(rule, "num_epochs=1"));
    for (int epochs = 1; epochs <= 2; epochs++) {
        if (epochs == 2) tiny_train(root, "levels", KEYS(rule, "num_epochs=2"));
        s = opened(&c, rule);
        if (session_load(&s, last, &e)) fail_msg("%s", e.msg);
        assert_int_equal(((Keyword *)quantizer(&s, 5, Q_WEIGHT)->priv)->levels, epochs == 1 ? 8 : 7);
        session_free(&s);
        config_free(&c);
    }
    free(last);
}

static int set_up(void **state)
{
    (void)state;
    return temp_begin(&root, "policy");
}

static int tear_down(void **state)
{
    (void)state;
    return temp_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_name_their_line),     cmocka_unit_test(another_file_is_one_fault), cmocka_unit_test(yaml_faults_name_their_place),
        cmocka_unit_test(file_and_map_agree),         cmocka_unit_test(rules_reach_what_they_name),
        cmocka_unit_test(impossible_rules_are_refused), cmocka_unit_test(numbers_are_asked_for), cmocka_unit_test(stable_has_one_master),
        cmocka_unit_test(reshaping_stems_count),      cmocka_unit_test(replaced_sections_set_nothing),
        cmocka_unit_test(momentum_is_cleared),        cmocka_unit_test(checkpoints_bring_their_rules),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
