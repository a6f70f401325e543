/* test/test_words.c -- the words of `keyword`: what each sets, which goes before which, what is
 * refused and where; config.xxxx files read without a shell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/fs.h"
#include "io/shellvars.h"
#include "run/config.h"
#include "run/config_shell.h"
#include "run/keys.h"
#include "run/session.h"

static char *folder;

static int make_folder(void **state)
{
    char name[] = "/tmp/qrun-words-XXXXXX";
    (void)state;
    folder = mkdtemp(name) ? xstrdup(name) : NULL;
    return folder ? 0 : -1;
}

static int drop_folder(void **state)
{
    char *cmd = xasprintf("rm -rf '%s'", folder);
    const int rc = system(cmd);
    (void)state;
    free(cmd);
    free(folder);
    return rc;
}

/* `text` as a file of that name; faults with "F" for its path. "" = loaded, and the caller frees c.
 */
static void load(Config *c, const char *name, const char *text, Str *msg)
{
    char *path = fs_join(folder, name);
    FILE *f = fopen(path, "w");
    Err e = {0};
    const int bad =
        (assert_non_null(f), fputs(text, f), fclose(f), config_load(c, path, 0, NULL, &e));
    msg->len = 0;
    str_puts(msg, "");
    for (const char *p = bad ? e.msg : ""; *p;)
        if (str_starts(p, path)) {
            str_puts(msg, "F");
            p += strlen(path);
        } else {
            str_putn(msg, p++, 1);
        }
    if (bad) {
        assert_int_equal(e.kind, ERR_CONFIG);
        config_free(c);
    }
    free(path);
}

static void load_good(Config *c, const char *name, const char *text)
{
    Str msg = {0};
    load(c, name, text, &msg);
    if (msg.len) fail_msg("%s\nin\n%s", msg.s, text);
    str_free(&msg);
}

/* ---- the tables ---- */

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < nword_rows; i++) {
        const WordRow *r = &word_rows[i];
        const Key *k;
        if (r->effect == WE_SECTION) continue;
        if (word_find(r->name) != r) fail_msg("'%s' stands in two rows", r->name);
        if (!*r->doc) fail_msg("'%s' has no sentence", r->name);
        if (r->effect == WE_METHOD && !quant_find(r->method))
            fail_msg("'%s' names method '%s', which is none", r->name, r->method);
        if (r->effect != WE_SETS) continue;
        k = key_find(r->key);
        if (!k || !key_has_value(k)) fail_msg("'%s' sets '%s', which is no key", r->name, r->key);
    }
    assert_null(word_find(""));
    assert_null(word_find("Fix"));
    assert_ptr_equal(word_find("group-norm"), word_find("group_norm"));
}

static void test_options(void **state)
{
    const char *key, *value;
    Arena a = {0};
    (void)state;
    for (size_t i = 0; shell_config_option(&a, i, &key); i++)
        if (*key && !key_find(key)) fail_msg("an option stands for '%s', which is no key", key);
    for (size_t i = 0; shell_config_default(i, &key, &value); i++)
        if (!key_find(key)) fail_msg("a default is for '%s', which is no key", key);
    arena_free(&a);
}

/* ---- methods ---- */

#define NET "model: resnet20_cifar\ndataset: synthetic\n"

static void test_methods(void **state)
{
    static const struct {
        const char *words, *more, *wt, *fm, *ot;
    } row[] = {
        {"dorefa", "wt_bit: 2\nfm_bit: 2\n", "dorefa", "dorefa", "none"},
        {"dorefa", "wt_bit: 2\n", "dorefa", "none", "none"},
        {"dorefa", "ot_bit: 2\n", "none", "none", "dorefa"},
        {"dorefa", "", "none", "none", "none"},
        {"pact", "wt_bit: 2\nfm_bit: 2\n", "pact", "pact", "none"},
        {"dorefa, lsq", "wt_bit: 2\nfm_bit: 2\not_bit: 4\n", "lsq", "lsq", "lsq"},
        {"pact, wt_lsq", "wt_bit: 2\nfm_bit: 2\n", "lsq", "pact", "none"},
        {"dorefa, fm_lsq", "wt_bit: 2\nfm_bit: 2\n", "dorefa", "lsq", "none"},
        {"dorefa, pact, ot_lsq", "fm_bit: 2\not_bit: 2\n", "none", "pact", "lsq"},
        {"wt_lsq, fm_non-uniform, dorefa", "wt_bit: 2\nfm_bit: 2\n", "lsq", "fatnn", "none"},
        {"dorefa, non-uniform", "wt_level: 3\nfm_bit: 2\n", "fatnn", "fatnn", "none"},
        {"dorefa, non-uniform, lsq", "wt_bit: 2\nfm_bit: 2\n", "lsq", "lsq", "none"},
        {"lq", "wt_bit: 2\nfm_bit: 2\n", "lq", "lq", "none"},
        {"lq, xnor", "wt_bit: 1\nfm_bit: 1\n", "lq", "lq", "none"},
        {"lq, dorefa", "wt_bit: 2\nfm_bit: 2\n", "dorefa", "dorefa", "none"},
        {"lq, xnor, dorefa", "wt_bit: 1\nfm_bit: 1\n", "xnor", "xnor", "none"},
        {"xnor", "wt_bit: 1\nfm_bit: 1\n", "xnor", "xnor", "none"},
        {"dorefa", "wt_bit: 2\nfm_bit: 2\nwt_enable: false\n", "none", "dorefa", "none"},
        {"dorefa", "wt_bit: 2\nfm_bit: 2\nwt_quant: lsq\n", "lsq", "dorefa", "none"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(row); i++) {
        char *text = xasprintf(NET "keyword: [%s]\n%s", row[i].words, row[i].more);
        Config c;
        load_good(&c, "t.yml", text);
        if (!str_eq(c.quant.wt_quant, row[i].wt) || !str_eq(c.quant.fm_quant, row[i].fm) ||
            !str_eq(c.quant.ot_quant, row[i].ot))
            fail_msg("%s: %s, %s, %s; expected %s, %s, %s", text, c.quant.wt_quant,
                     c.quant.fm_quant, c.quant.ot_quant, row[i].wt, row[i].fm, row[i].ot);
        config_free(&c);
        free(text);
    }
}

/* A word that sets a key: the text of that key. */
static void test_keys(void **state)
{
    static const struct {
        const char *words, *more, *key, *value;
    } row[] = {
        {"lq, custom-update", "wt_bit: 2\n", "custom_update", "true"},
        {"dorefa, custom-update", "wt_bit: 2\n", "custom_update", "false"},
        {"dorefa, fm_non-uniform, closed_form, custom-update", "fm_bit: 2\n", "custom_update",
         "true"},
        {"dorefa, fm_non-uniform, fm_closed_form", "fm_bit: 2\n", "closed_form", "true"},
        {"dorefa, lsq, closed_form", "fm_bit: 2\n", "closed_form", "false"},
        {"dorefa, wt_bin", "wt_bit: 1\n", "wt_bin", "true"},
        {"dorefa, wt_bin", "wt_bit: 2\n", "wt_bin", "false"},
        {"pact, wt_bin", "wt_level: 2\n", "wt_bin", "true"},
        {"xnor, gamma", "wt_bit: 1\nfm_bit: 1\n", "wt_gamma", "true"},
        {"xnor, wt_gamma", "wt_bit: 1\n", "wt_gamma", "false"},
        {"dorefa, lsq, wt_gamma", "wt_bit: 2\n", "wt_gamma", "true"},
        {"dorefa, lsq, fm_gamma, ot_gamma", "wt_bit: 2\not_bit: 4\n", "ot_gamma", "true"},
        {"dorefa, ot_gamma", "wt_bit: 2\n", "ot_gamma", "false"},
        {"dorefa, independent_norm", "wt_bit: 2\nwt_adaptive: var-mean\n", "independent_norm",
         "true"},
        {"dorefa, independent_norm", "wt_bit: 2\n", "independent_norm", "false"},
        {"label-smooth", "", "label_smoothing", "0.1"},
        {"label-smooth", "label_smooth: 0.2\n", "label_smoothing", "0.2"},
        {"", "addition_augment: true\n", "data_transforms", "keyword_imagenet_augment"},
        {"lr-test", "", "lr_test", "true"},
        {"less_bn", "", "less_bn", "true"},
        {"cifar100, cifar10", "dataset: fake\n", "num_classes", "10"},
        {"cifar100", "dataset: fake\n", "image_size", "32"},
        {"cifar100", "dataset: fake\nnum_classes: 7\n", "num_classes", "7"},
        {"probe", "", "probe_list", "[before-quant, after-quant]"},
        {"probe", "probe_list: output, weight\n", "probe_list", "[output, weight]"},
        {"imagenet, mean, pretrain, debug, save, raw", "", "keyword", "[]"},
        {"dorefa", "wt_bit: 1.585\n", "wt_level", "3"},
        {"dorefa", "wt_bit: 1.585\n", "wt_bit", "1"},
        {"dorefa", "wt_bit: 2.585\nwt_level: 5\n", "wt_level", "5"},
        {"dorefa", "fm_bit: 2.2\n", "fm_level", "4"},
        {"dorefa", "bit: 2.0\n", "fm_level", "0"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(row); i++) {
        char *text = xasprintf(NET "keyword: '%s'\n%s", row[i].words, row[i].more);
        Str value = {0};
        Config c;
        load_good(&c, "t.yml", text);
        key_value_text(&c, key_of(row[i].key), &value);
        if (!str_eq(value.s, row[i].value))
            fail_msg("%s: %s: %s, expected %s", text, row[i].key, value.s, row[i].value);
        str_free(&value);
        config_free(&c);
        free(text);
    }
}

static void test_net_words(void **state)
{
    Config c;
    Str shown = {0};
    char *resolved = fs_join(folder, "resolved.yml");
    Err e = {0};
    (void)state;
    load_good(&c, "t.yml",
              "model: resnet18\ndataset: imagenet\nkeyword: [fix, dorefa, origin, bacs, cbsa, "
              "imagenet, singleconv, group-net, ReShapeResolution, TResNetStem]\n"
              "wt_bit: 2\nbase: 2\nwidth_alpha: 0.5\norder: cb\nstem_kernel: 3\n");
    assert_string_equal(c.net.names, "keyword");
    assert_true(net_word(c.net.words, NW_fix) && net_word(c.net.words, NW_group_net));
    assert_false(net_word(c.net.words, NW_preBN));
    assert_int_equal(net_word_first(c.net.words, NG_ORDER), NW_cbsa);
    assert_int_equal(c.net.base, 2);
    assert_true(c.net.width_alpha == 0.5);
    assert_string_equal(c.net.order, "cb");
    assert_int_equal(c.net.stem_kernel, 3);
    config_show(&c, &shown);
    assert_non_null(strstr(shown.s, "bacs                not used: cbsa goes before it"));
    assert_non_null(strstr(shown.s, "dorefa              wt_quant: dorefa: DoReFa"));
    assert_non_null(strstr(shown.s, "imagenet            no effect"));
    shown.len = 0;
    config_resolved(&c, &shown);
    assert_non_null(strstr(shown.s, "keyword: [TResNetStem, group_net, origin, cbsa, bacs, fix, singleconv, "
                                    "ReShapeResolution]"));
    if (fs_write(resolved, shown.s, shown.len, &e)) fail_msg("%s", e.msg);
    shown.len = 0;
    if (config_differs(&c, resolved, &shown, &e) != 0)
        fail_msg("resolved.yml is another configuration: %s %s", shown.s, e.msg);
    config_free(&c);
    str_free(&shown);
    free(resolved);
}

/* Words that change nothing of this net are told; in a file of the original keys of that kind too. */
static void test_idle_words(void **state)
{
    static const struct {
        const char *name, *text, *const words[6];
    } row[] = {
        {"t.yml", "model: resnet20\ndataset: synthetic\nkeyword: [cifar10, origin, cbsa, fix_pooling, bireal, prone]\n",
         {"fix_pooling", "bireal"}},
        {"t.yml", "model: nin\ndataset: synthetic\nkeyword: [cifar10, prone, PReLU, singleconv]\n", {"prone", "singleconv"}},
        {"t.yml", "model: resnet18\ndataset: imagenet\nkeyword: [origin, cbsa, fix_pooling, zir, fix]\n", {NULL}},
        {"t.yml", "model: resnet18\ndataset: fake\nkeyword: [cifar10]\n", {NULL}},
        {"config.x", "model=resnet20\nepochs=1\nkeyword=cifar10,origin,cbsa,f1x1\noptions='--order c'\n", {"f1x1"}},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(row); i++) {
        Config c;
        int told = 0, want = 0;
        load_good(&c, row[i].name, row[i].text);
        while (row[i].words[want]) want++;
        for (int k = 0; k < c.words.nuse; k++) {
            bool idle = false;
            for (int w = 0; w < want; w++) idle = idle || str_eq(c.words.use[k].row->name, row[i].words[w]);
            if (idle != (strstr(c.words.use[k].outcome, "no effect on") != NULL))
                fail_msg("%s%s: %s", row[i].text, c.words.use[k].row->name, c.words.use[k].outcome);
            told += idle;
        }
        assert_int_equal(told, want);
        if (c.words.nuse == 1) assert_non_null(strstr(c.words.use[0].outcome, "resnet18 keeps its stem"));
        assert_int_equal(key_state(&c, "order")->idle, strstr(row[i].text, "order") != NULL);
        config_free(&c);
    }
}

/* A key without effect beside words is a note, and no part of what the run records. */
static void test_idle_keys(void **state)
{
    static const char *const text[] = {
        NET "keyword: [dorefa]\nwt_bit: 2\nfm_half_range: false\nstable: 7\nwt_scale: 0.3\n",
        "model: resnet18\ndataset: imagenet\nkeyword: [origin, cbsa, group-norm]\nfm_quant_group: 4\n"};
    char *resolved = fs_join(folder, "resolved.yml");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        Config c;
        Str shown = {0};
        Err e = {0};
        load_good(&c, "t.yml", text[i]);
        assert_int_equal(c.quant.kw.tag[Q_ACT].quant_group, i ? 4 : 0); /* the net's */
        assert_int_equal(c.quant.kw.stable, i ? 0 : 7);
        config_resolved(&c, &shown);
        if (fs_write(resolved, shown.s, shown.len, &e)) fail_msg("%s", e.msg);
        shown.len = 0;
        if (config_differs(&c, resolved, &shown, &e) != 0)
            fail_msg("resolved.yml is another configuration: %s %s", shown.s, e.msg);
        config_free(&c);
        str_free(&shown);
    }
    free(resolved);
}

/* ---- what is refused ---- */

#define FLEX "model: resnet18\ndataset: imagenet\n"

static const struct {
    const char *text, *message; /* all of it, or its beginning */
} rejected[] = {
    /* words */
    {NET "keyword: [dorefa, orign]\n", "F:3:19: error: keyword: unknown value 'orign'; expected a "
                                       "name from `qrun list keywords`; did you mean 'origin'?"},
    {NET "keyword: 'dorefa, lsqq'\n", "F:3:19: error: keyword: unknown value 'lsqq'"},
    {NET "keyword:\n  - dorefa\n  - Fix\n",
     "F:5:5: error: keyword: unknown value 'Fix'; expected a name from `qrun list keywords`; did "
     "you mean 'fix'?"},
    {NET "keyword: {a: b}\n", "F:3:10: error: keyword: a map is not a list of words"},
    {NET "keyword: [alq]\n", "F:3:1: error: keyword: alq is the place of a method"},
    {NET "keyword: [dorefa, popcount]\nwt_bit: 2\n",
     "F:3:1: error: keyword: popcount is the place of a method"},
    {NET "keyword: [cbsa]\n", "F:3:1: error: keyword: cbsa shapes nets of the keyword language, "
                              "and model: resnet20_cifar is none"},
    /* methods */
    {NET "keyword: [dorefa, gamma]\nwt_bit: 1\n",
     "F:3:1: error: keyword: gamma belongs to xnor and contradicts dorefa"},
    {NET "keyword: [xnor, pact, gamma]\nwt_bit: 1\n",
     "F:3:1: error: keyword: gamma belongs to xnor and contradicts pact"},
    {NET "keyword: [lsq]\nwt_bit: 2\n",
     "F:3:1: error: keyword: lsq counts only beside dorefa or pact"},
    {NET "keyword: [fm_non-uniform]\nfm_bit: 2\n",
     "F:3:1: error: keyword: fm_non-uniform counts only beside dorefa or pact"},
    {NET "keyword: [imagenet]\nfm_bit: 2\n",
     "F:4:1: error: fm_bit is given, but no word of `keyword` names a method"},
    {NET "keyword: [imagenet]\nfm_level: 3\n",
     "F:4:1: error: fm_level is given, but no word of `keyword` names a method"},
    {NET "keyword: [dorefa]\nwt_enable: true\n", "F:4:1: error: wt_enable: true without wt_bit"},
    {NET "data_transforms: keyword_cifar\naddition_augment: true\n",
     "F:4:1: error: addition_augment: true contradicts"},
    {NET "keyword: [lq]\not_bit: 2\n", "F:3:1: error: ot_quant: lq quantizes no outputs of layers"},
    {NET "keyword: [pact]\not_bit: 2\n",
     "F:3:1: error: ot_quant: pact quantizes no outputs of layers"},
    {NET "keyword: [dorefa, non-uniform]\not_bit: 2\n",
     "F:3:1: error: ot_quant: fatnn quantizes no outputs of layers"},
    {NET "keyword: [lq]\nwt_bit: 9\n",
     "F:4:1: error: layer1.0.conv1: lq has 1 to 8 bits or 32, not 9"},
    {NET "keyword: [dorefa, wt_non-uniform]\nwt_bit: 2\n",
     "F:4:1: error: layer1.0.conv1: fatnn has 3 levels of weights, not 4"},
    {NET "keyword: [dorefa, fm_non-uniform]\nfm_bit: 3\n",
     "F:4:1: error: layer1.0.conv1: fatnn has 2 to 4 levels, not 8"},
    {NET "keyword: [dorefa, fm_non-uniform]\nfm_bit: 2\nfm_half_range: false\n",
     "F:4:1: error: layer1.0.conv1: fatnn on both sides of 0 has 3 levels, not 4"},
    {NET "keyword: [dorefa, fm_non-uniform, closed_form]\nfm_bit: 2\nfm_quant_group: 2\n",
     "F:5:1: error: layer1.0.conv1: closed_form has one group of channels, not 2"},
    /* nets */
    {"model: alexnet\ndataset: imagenet\nkeyword: [cbsa]\n",
     "F:1:8: error: model: unknown value 'alexnet'; expected a name from `qrun list nets`; "
     "model-quantization lists it, but was published without it"},
    {"model: se-resnet18\ndataset: imagenet\n", "F:1:8: error: model: unknown value 'se-resnet18'"},
    {FLEX "keyword: [origin]\n",
     "F:3:1: error: keyword: net 'resnet18' needs the order of its layers"},
    {"model: resnet50\ndataset: imagenet\nkeyword: [cbsa, fix]\n",
     "F:3:1: error: keyword: net 'resnet50' needs origin"},
    {"model: resnet50\ndataset: imagenet\nkeyword: [origin, bcas]\n",
     "F:3:1: error: keyword: net 'resnet50' has no order bcas"},
    {"model: resnet50\ndataset: imagenet\nkeyword: [origin, cbsa, DCHR]\n",
     "F:3:1: error: keyword: DCHR is for nets of basic blocks"},
    {FLEX "keyword: [origin, bacs, ReShapeResolution]\norder: c\n",
     "F:3:1: error: keyword: ReShapeResolution does not go with bacs"},
    {FLEX "keyword: [origin, bcas, ReShapeResolution]\norder: c\n",
     "F:3:1: error: keyword: ReShapeResolution does not go with bcas"},
    {FLEX "keyword: [origin, cbsa, ReShapeResolution, f1x1]\norder: c\n",
     "F:3:1: error: keyword: f1x1 pads its 1x1 convolution"},
    {FLEX "keyword: [origin, bacs, preBN, prone]\n",
     "F:3:1: error: keyword: prone and preBN exclude each other"},
    {FLEX "keyword: [origin, cbsa, group-norm]\n",
     "F:3:1: error: keyword: group-norm needs fm_quant_group"},
    {"model: mobilenetv2\ndataset: imagenet\nkeyword: [cbas, prone, bn_before_restore]\n",
     "F:3:1: error: keyword: net 'mobilenetv2' has no bn_before_restore together with prone"},
    {"model: mobilenetv2\ndataset: imagenet\nkeyword: [imagenet]\n",
     "F:3:1: error: keyword: net 'mobilenetv2' needs the order of its layers"},
    {"model: mobilenetv1\ndataset: imagenet\nkeyword: [cbas, bireal, block_skip]\n",
     "F:3:1: error: keyword: net 'mobilenetv1' has shortcuts of bireal or of block_skip, not both"},
    {"model: mobilenetv1\ndataset: imagenet\nkeyword: [cbas, bireal]\n",
     "F:3:1: error: keyword: bireal in net 'mobilenetv1', which has strides and widens, needs "
     "react"},
    {"model: resnet34_\ndataset: imagenet\nkeyword: [origin, cbsa, singleconv]\n",
     "F:3:1: error: net: conv layer9.0.conv2.0 (unit "},
    {"model: resnet101\ndataset: imagenet\nkeyword: [origin, cbsa, fix]\nbase: 64\nwidth_alpha: 16\n",
     "F:5:1: error: net: 6.5e+11 weights take 2420.8 GiB"},
    {"model: nin\ndataset: cifar10\nkeyword: [cifar10]\nwidth_alpha: 0.5\n",
     "F:4:1: error: width_alpha: 0.5 has no effect on model: nin; expected 1, or a net"},
    {"model: pytorch-resnet18\ndataset: cifar10\nkeyword: [cifar10]\nbase: 5\n",
     "F:4:1: error: base: 5 has no effect on model: pytorch-resnet18; expected 1, or a net"},
    {NET "width_alpha: 0.5\n", "F:3:1: error: width_alpha: 0.5 has no effect on model: resnet20_cifar"},
    {FLEX "keyword: [origin, cbsa]\norder: c\n",
     "F:4:1: error: order: c has no effect on model: resnet18; expected \"\", or ReShapeResolution"},
    {FLEX "keyword: [origin, cbsa]\nstem_kernel: 3\n",
     "F:4:1: error: stem_kernel: 3 has no effect on model: resnet18; expected 1, or TResNetStem"},
    {"model: vgg_small\ndataset: cifar10\nkeyword: [cifar10]\n",
     "F:3:1: error: keyword: net 'vgg_small' needs the order of its layers"},
};

static void test_rejected(void **state)
{
    Str msg = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rejected); i++) {
        char *path = fs_join(folder, "t.yml");
        Config c;
        Session s;
        Err e = {0};
        load(&c, "t.yml", rejected[i].text, &msg);
        if (!msg.len) { /* what only quantizers know */
            if (!session_open(&s, &c, &e)) fail_msg("taken:\n%s", rejected[i].text);
            session_free(&s);
            config_free(&c);
            str_printf(&msg, "%s%s", str_starts(e.msg, path) ? "F" : "",
                       e.msg + (str_starts(e.msg, path) ? strlen(path) : 0));
        }
        if (!str_starts(msg.s, rejected[i].message))
            fail_msg("%s'%s'\nexpected '%s'", rejected[i].text, msg.s, rejected[i].message);
        if (strchr(msg.s, '\n')) fail_msg("%ssaid twice:\n%s", rejected[i].text, msg.s);
        print_message("%s\n", msg.s);
        free(path);
    }
    str_free(&msg);
}

/* What stops in the original and does here what its authors meant. */
static void test_accepted(void **state)
{
    static const char *const text[] = {
        FLEX "keyword: [origin, cbsa, xnor]\nwt_bit: 1\nfm_bit: 1\n",
        FLEX "keyword: [origin, cbsa, dorefa, lsq]\nwt_bit: 2\nwt_quant_group: 2\nfm_bit: "
             "2\nfm_quant_group: 4\n",
        FLEX "keyword: [origin, cbsa, less_bn]\n",
        FLEX "keyword: [origin, cbsa]\nmixup_enable: true\n",
        FLEX "keyword: [origin, cbsa]\nlr_policy: sgdr_step\nlr_custom_step: 20,30\n",
        FLEX "keyword: [cbas, fix_pooling]\n",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        Config c;
        Session s;
        Err e = {0};
        load_good(&c, "t.yml", text[i]);
        if (session_open(&s, &c, &e)) fail_msg("%s%s", text[i], e.msg);
        session_free(&s);
        config_free(&c);
    }
}

/* A net of fewer classes than the data set has: known when that is opened, and told at the key. */
static void test_classes(void **state)
{
    static const char place[] = "t.yml:3:1: error: num_classes: 5, but (drawn) has 10 classes";
    Config c;
    Session s;
    Err e = {0};
    (void)state;
    load_good(&c, "t.yml", NET "num_classes: 5\n");
    if (session_open(&s, &c, &e)) fail_msg("%s", e.msg);
    assert_int_equal(session_data(&s, SPLIT_TRAIN, &e), -1);
    if (!strstr(e.msg, place)) fail_msg("'%s' does not say '%s'", e.msg, place);
    session_free(&s);
    config_free(&c);
}

/* ---- config.xxxx ---- */

static const char shell_text[] =
    "# two-bit fine-tuning\n"
    "dataset='dali'\n"
    "root=$NOBODY_SETS_THIS/imagenet\n"
    "export model=\"resnet18\"\n"
    "base=1; epochs=40 # in a line\n"
    "train_batch=128\n"
    "val_batch=50\n"
    "bits=2\n"
    "case='dorefa-a'\n"
    "keyword='imagenet,origin, preBN ,bacs,dorefa,someones_label'\n"
    "pretrained='fp.pth.tar'\n"
    "options=''\n"
    "options=\"$options --fm_bit ${bits} --fm_enable --wt_bit $bits\"\n"
    "#options=\"$options --wt_enable\"\n"
    "options=\"$options --fm_boundary 5.0 \\\n"
    "  --wt_quant_group=1\"\n"
    "options+=' --lr 5e-3 --lr_policy custom_step --lr_decay 0.1 --lr_custom_step 15,25,35 --wd "
    "1e-4'\n"
    "options=\"$options --nesterov --decay_small -j4 -g 0 1 2 --optimizer SGD --weights_dir /w -r "
    "--stable 20 --pretrained $pretrained\"\n";

static void test_shell(void **state)
{
    Config c;
    (void)state;
    load_good(&c, "config.dorefa.finetune.x", shell_text);
    assert_string_equal(c.run.config_name, "dorefa.finetune.x");
    assert_string_equal(c.net.names, "keyword");
    assert_string_equal(c.data.dataset, "imagenet");
    assert_string_equal(c.data.dataset_dir, "");
    assert_string_equal(c.data.data_transforms, "keyword_dali");
    assert_int_equal(c.run.num_epochs, 40);
    assert_int_equal(c.run.batch_size, 128);
    assert_true(c.net.words == ((NetWordSet)1 << NW_origin | (NetWordSet)1 << NW_preBN |
                                (NetWordSet)1 << NW_bacs));
    assert_string_equal(c.quant.fm_quant, "dorefa");
    assert_int_equal(c.quant.fm_bit, 2);
    assert_string_equal(c.quant.wt_quant, "none"); /* wt_enable is commented out */
    assert_int_equal(c.quant.wt_bit, 32);
    assert_true(c.quant.kw.tag[Q_ACT].boundary == 5);
    assert_int_equal(c.quant.kw.tag[Q_WEIGHT].quant_group, 1);
    assert_true(c.optim.lr == 5e-3 && c.optim.gamma == 0.1 && c.optim.nesterov);
    assert_int_equal(c.optim.nmilestones, 3);
    assert_string_equal(c.optim.weight_decay_scheme, "all");
    assert_string_equal(c.run.pretrained_file, "/w/resnet18/fp.pth.tar");
    assert_int_equal(c.run.random_seed, 2);
    assert_int_equal(key_state(&c, "lr")->line, 17);
    assert_int_equal(key_state(&c, "fm_boundary")->line, 15);
    assert_int_equal(key_state(&c, "wt_quant_group")->line, 16);
    config_free(&c);
}

static int warnings, notes;

static void count_lines(LogLevel level, const char *text)
{
    (void)text;
    warnings += level == LOG_WARN;
    notes += level == LOG_INFO;
}

/* Short options with their value in one word, as the shipped files have them; what has no effect is told:
 * an option of that kind, and a variable that no option hands on. */
static void test_shell_forms(void **state)
{
    Config c;
    (void)state;
    warnings = notes = 0;
    log_set(LOG_INFO, count_lines);
    load_good(&c, "config.c",
              "model=resnet20\nepochs=9\nkeyword=cifar10,origin,cbsa,dorefa\npretrained='a.pth'\n"
              "options='-j3 -b32 -v=7 -g0 --save_freq 5 -s2 --ps 12'\n");
    log_set(LOG_INFO, NULL);
    assert_int_equal(c.data.data_loader_workers, 3);
    assert_int_equal(c.run.batch_size, 32);
    assert_int_equal(c.run.val_batch_size, 7);
    assert_int_equal(c.quant.kw.proxquant_step, 12);
    assert_true(key_state(&c, "proxquant_step")->idle);
    assert_string_equal(c.run.pretrained_file, "");
    assert_int_equal(warnings, 1); /* pretrained */
    assert_int_equal(notes, 4);    /* -g0, --save_freq, -s2, proxquant_step */
    config_free(&c);
}

/* Where the file is silent the original's defaults count; words decide about label_smooth. */
static void test_shell_defaults(void **state)
{
    Config c;
    (void)state;
    load_good(
        &c, "config.a.eval.x",
        "model=resnet18\nkeyword=origin,cbsa\noptions='-e --label_smooth 0.3 --pretrained none'\n");
    assert_string_equal(c.data.dataset, "imagenet");
    assert_true(c.optim.lr == 0.01 && c.run.label_smoothing == 0 && c.run.test_only);
    assert_string_equal(c.optim.lr_scheduler, "decay");
    assert_true(c.optim.gamma == 0.98);
    assert_int_equal(c.run.batch_size, 20);
    assert_string_equal(c.optim.weight_decay_scheme, "no_small");
    assert_string_equal(c.run.pretrained_file, "");
    assert_false(c.run.strict_load);
    config_free(&c);
    load_good(&c, "config.b",
              "model=resnet18\nepochs=9\nkeyword=origin,cbsa,label-smooth\n"
              "options='--label_smooth 0.3 --lr_policy sgdr --fm_half_range --fm_level 3'\n");
    assert_true(c.run.label_smoothing == 0.3);
    assert_int_equal(c.optim.milestones[0], 20);
    assert_false(c.quant.kw.tag[Q_ACT].half_range);
    assert_int_equal(c.quant.kw.tag[Q_ACT].level, 0); /* not enabled */
    config_free(&c);
    for (int i = 0; i < 2; i++) { /* probe_list counts beside its word */
        char *text = xasprintf("model=resnet18\nkeyword=origin,cbsa%s\noptions='-e --probe_list after-quant,weight "
                               "--probe_index 3 5 --probe_iteration 2'\n",
                               i ? ",probe" : "");
        load_good(&c, "config.c", text);
        assert_int_equal(c.run.nprobe_list, i ? 2 : 0);
        if (i) assert_string_equal(c.run.probe_list[1], "weight");
        assert_int_equal(c.run.nprobe_index, 2);
        assert_int_equal(c.run.probe_index[1], 5);
        assert_int_equal(c.run.probe_iteration, 2);
        config_free(&c);
        free(text);
    }
}

static void test_shell_rejected(void **state)
{
    static const struct {
        const char *text, *message;
    } row[] = {
        {"model=a\necho hello\n", "F:2:1: error: neither a comment nor NAME=VALUE"},
        {"rm -rf /\n", "F:1:1: error: neither a comment nor NAME=VALUE"},
        {"if [ -e x ]; then\n", "F:1:1: error: neither a comment nor NAME=VALUE"},
        {"model=$(id)\n", "F:1:7: error: commands are not executed"},
        {"model=\"a`id`\"\n", "F:1:9: error: commands are not executed"},
        {"model=a | sh\n", "F:1:9: error: something behind a value"},
        {"model=a|sh\n", "F:1:8: error: commands are not executed"},
        {"model=a b\n", "F:1:9: error: something behind a value"},
        {"model='a\n\n", "F:1:7: error: quotes that do not end"},
        {"model=${a:-b}\n", "F:1:7: error: expected ${NAME}"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--lrr 1'\n",
         "F:4:10: error: unknown option '--lrr'; did you mean '--lr'?"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='5 --lr 1'\n",
         "F:4:10: error: '5' belongs to no option"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--lr'\n",
         "F:4:10: error: option '--lr' needs a value"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--lr --nesterov'\n",
         "F:4:10: error: option '--lr' needs a value"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--nesterov=1'\n",
         "F:4:10: error: option '--nesterov' takes no value"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='-r=1'\n",
         "F:4:10: error: option '-r' takes no value"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='-zoo'\n",
         "F:4:10: error: unknown option '-zoo'"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--j2'\n",
         "F:4:10: error: unknown option '--j2'"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--lr fast'\n",
         "F:4:15: error: lr: 'fast' is not a number"},
        {"model=resnet18\nkeyword=cbsa,origin\n", "F:1:1: error: epochs is missing"},
        {"model=resnet18\nepochs=0\nkeyword=cbsa,origin\n", "F:1:1: error: epochs is missing"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,alq\n", "F:3:9: error: keyword: alq is the place"},
        {"model=resnet18\nepochs=1\nkeyword=cbsa,origin\noptions='--wt_bit 2 --wt_enable'\n",
         "F:4:19: error: wt_bit is given, but no word"},
    };
    Str msg = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(row); i++) {
        Config c;
        load(&c, "config.t", row[i].text, &msg);
        if (!msg.len) {
            config_free(&c);
            fail_msg("taken:\n%s", row[i].text);
        }
        if (!str_starts(msg.s, row[i].message))
            fail_msg("%s'%s'\nexpected '%s'", row[i].text, msg.s, row[i].message);
        if (strchr(msg.s, '\n')) fail_msg("%ssaid twice:\n%s", row[i].text, msg.s);
    }
    str_free(&msg);
}

/* Doubling a value again and again must end in an error, not in the machine's memory. */
static void test_shell_growth(void **state)
{
    Str text = {0}, msg = {0};
    Config c;
    (void)state;
    str_puts(&text, "a=0123456789\n");
    for (int i = 0; i < 64; i++) str_puts(&text, "a=$a$a\n");
    load(&c, "config.t", text.s, &msg);
    assert_non_null(strstr(msg.s, "the value is too long"));
    str_free(&text);
    str_free(&msg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),          cmocka_unit_test(test_options),
        cmocka_unit_test(test_methods),        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_net_words), cmocka_unit_test(test_idle_keys),      cmocka_unit_test(test_rejected),
        cmocka_unit_test(test_accepted),       cmocka_unit_test(test_shell),
        cmocka_unit_test(test_shell_defaults), cmocka_unit_test(test_shell_rejected),
        cmocka_unit_test(test_shell_growth),   cmocka_unit_test(test_shell_forms), cmocka_unit_test(test_classes),
        cmocka_unit_test(test_idle_words),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
