/* test/test_config.c -- the key table, faults with their exact words, the originals' keys,
 * resolved.yml. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/rng.h"
#include "io/fs.h"
#include "run/config.h"
#include "run/keys.h"
#include "test/support/temp.h"

#define HEAD "model: resnet20\ndataset: synthetic\n"

static char *folder, *file; /* of the files that the tests write */

static int make_folder(void **state)
{
    (void)state;
    folder = temp_folder("config");
    if (folder) file = fs_join(folder, "t.yml");
    return folder ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    free(file);
    return temp_remove(folder);
}

/* Plainly and as a new file each time: thousands of files that were each synced to disk would take
 * a minute. */
static void put_bytes(const char *path, const char *text, size_t n)
{
    FILE *f;
    remove(path);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void put_text(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

/* Loads `text` as a file with overrides (up to three, NULLs behind). The message with "F" for the
 * file's name; "" = loaded. */
static void load_text(Config *c, const char *text, const char *const ov[3], char *msg, size_t size)
{
    Err e = {0};
    Str s = {0};
    char *list[3];
    int n = 0;
    put_text(file, text);
    while (n < 3 && ov && ov[n]) {
        list[n] = xstrdup(ov[n]);
        n++;
    }
    str_puts(&s, "");
    if (config_load(c, file, n, list, &e)) {
        assert_int_equal(e.kind, ERR_CONFIG);
        for (const char *p = e.msg; *p;) {
            if (str_starts(p, file)) {
                str_puts(&s, "F");
                p += strlen(file);
            } else {
                str_putn(&s, p++, 1);
            }
        }
    }
    snprintf(msg, size, "%s", s.s ? s.s : "");
    str_free(&s);
    while (n > 0) free(list[--n]);
}

static void load_good(Config *c, const char *text, const char *const ov[3])
{
    char msg[sizeof((Err *)0)->msg];
    load_text(c, text, ov, msg, sizeof msg);
    if (*msg) fail_msg("%s", msg);
}

/* One override, or NULL. */
#define OV(...) ((const char *const[3]){__VA_ARGS__})

/* ---- the table ---- */

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        if (k->kind == KK_SECTION) continue;
        if (key_of(k->name) != k) fail_msg("'%s' stands in two rows", k->name);
        assert_non_null(k->aliases);
        if (!k->doc || !*k->doc) fail_msg("'%s' has no sentence", k->name);
        if (k->kind == KK_LATER) {
            Arena a = {0};
            Err e = {0};
            const Yaml *y = yaml_value(&a, "keys.def", k->def, &e);
            if (!y || y->kind != Y_LIST)
                fail_msg("'%s': '%s' is not a list: %s", k->name, k->def, e.msg);
            arena_free(&a);
        }
        /* Two values in one place would overwrite each other. */
        for (size_t j = 0; j < i; j++)
            if (k->kind <= KK_GROUPS && keys[j].kind != KK_SECTION && keys[j].kind <= KK_GROUPS &&
                keys[j].offset == k->offset)
                fail_msg("'%s' and '%s' have the same field", k->name, keys[j].name);
    }
}

static void test_defaults(void **state)
{
    Config c;
    QOpts q;
    (void)state;
    config_default(&c);
    qopts_default(&q);
    assert_string_equal(c.quant.wt_quant, q.wt_quant);
    assert_string_equal(c.quant.fm_quant, q.fm_quant);
    assert_string_equal(c.quant.ot_quant, q.ot_quant);
    assert_string_equal(c.quant.quant_variant, q.quant_variant);
    assert_string_equal(c.quant.method_opts, q.method_opts);
    assert_int_equal(c.quant.wt_bit, q.wt_bit);
    assert_int_equal(c.quant.fm_bit, q.fm_bit);
    assert_int_equal(c.quant.ot_bit, q.ot_bit);
    assert_int_equal(c.quant.first_bit, q.first_bit);
    assert_int_equal(c.quant.last_bit, q.last_bit);
    assert_int_equal(c.quant.power, q.power);
    assert_int_equal(c.quant.additive, q.additive);
    assert_int_equal(c.quant.wt_normalize, q.wt_normalize);
    assert_int_equal(c.quant.fuse, q.fuse);
    assert_int_equal(c.quant.nbits_list, q.nbits_list);
    assert_int_equal(c.quant.switch_norm, q.switch_norm);
    assert_true(c.quant.grad_scale == q.grad_scale && c.quant.act_clip_init == q.act_clip_init &&
                c.quant.wt_clip_init == q.wt_clip_init);
    assert_int_equal(c.run.ntopk, 2);
    assert_int_equal(c.run.topk[1], 5);
    assert_true(c.optim.weight_decay == 1e-4);
    config_free(&c);
}

/* ---- values ---- */

static void test_values(void **state)
{
    Config c;
    (void)state;
    load_good(
        &c,
        HEAD
        "bit: 4\nwt_quant: apot\nfm_quant: apot\nlr: 1e-2\ntopk: [1]\nnesterov: yes\npower: 0\n"
        "lr_scheduler: multistep\nmultistep_lr_milestones: '150,225'\nseed: 18446744073709\n"
        "param_groups:\n  - {match: act_alpha, lr: 0.1}\n  - match: wgt\n    weight_decay: 0\n"
        "expect: {top1_min: 30}\nmax_time: 2h\nmean: [0.5]\nstd: [0.25]\nlimit-val: 7\nwd: "
        "~\nlr_decay: 0.5\n",
        NULL);
    assert_int_equal(c.quant.wt_bit, 4); /* one alias, two rows */
    assert_int_equal(c.quant.fm_bit, 4);
    assert_true(c.optim.lr == 0.01);
    assert_int_equal(c.run.ntopk, 1);
    assert_true(c.optim.nesterov);
    assert_false(c.quant.power);
    assert_int_equal(c.optim.nmilestones, 2);
    assert_int_equal(c.optim.milestones[1], 225);
    assert_true(c.run.random_seed == 18446744073709ull && c.data.seed == c.run.random_seed);
    assert_int_equal(c.optim.ngroups, 2);
    assert_string_equal(c.optim.group[0].match, "act_alpha");
    assert_true(c.optim.group[0].lr == 0.1 && c.optim.group[0].weight_decay < 0);
    assert_true(c.optim.group[1].lr < 0 && c.optim.group[1].weight_decay == 0);
    assert_true(c.run.expect_top1_min == 30);
    assert_true(c.run.max_time == 7200);
    assert_int_equal(c.data.nmean, 1);
    assert_int_equal(c.data.limit_val, 7);
    assert_true(c.optim.weight_decay == 1e-4); /* ~ asks for the default */
    assert_true(c.optim.gamma == 0.5);
    assert_string_equal(c.data.input, "normalized");
    assert_string_equal(c.run.config_name, "t");
    assert_string_equal(c.run.log_dir, "results/t");
    assert_string_equal(c.run.experiment, "t");
    assert_int_equal(c.optim.num_epochs, c.run.num_epochs);
    config_free(&c);
}

static void test_schedule_keys(void **state)
{
    Config c;
    (void)state;
    load_good(&c,
              HEAD "lr_scheduler: exp_decaying\nexp_decaying_lr_gamma: 0.9\nmultistep_lr_gamma: "
                   "0.2\nexp_decaying_period: 3\n",
              NULL);
    assert_true(c.optim.gamma == 0.9 && c.optim.step_size == 3);
    config_free(&c);
    load_good(
        &c,
        HEAD
        "lr_scheduler: step\nexp_decaying_lr_gamma: 0.9\nmultistep_lr_gamma: 0.2\nlr_fix_step: 7\n",
        NULL);
    assert_true(c.optim.gamma == 0.2 && c.optim.step_size == 7);
    config_free(&c);
}

static void test_order_of_strength(void **state)
{
    Config c;
    char *base = fs_join(folder, "base.yml");
    (void)state;
    put_text(base, "lr: 0.5\nmomentum: 0.5\nbatch_size: 7\nexpect: {top1_min: 3}\n");
    load_good(&c, "_default: base.yml\n" HEAD "momentum: 0.6\nbatch_size: 8\n",
              OV("batch_size=9", "lr-scheduler=cosine", "batch-size=10"));
    assert_true(c.optim.lr == 0.5 && c.optim.momentum == 0.6 && c.run.expect_top1_min == 3);
    assert_int_equal(c.run.batch_size, 10);
    assert_string_equal(c.optim.lr_scheduler, "cosine");
    assert_string_equal(key_state(&c, "lr")->file, base);
    assert_int_equal(key_state(&c, "lr")->line, 1);
    assert_int_equal(key_state(&c, "momentum")->line, 4);
    assert_int_equal(key_state(&c, "momentum")->repeated_line,
                     0); /* another file's value is no repetition */
    assert_int_equal(key_state(&c, "batch_size")->origin, ORIGIN_COMMAND);
    assert_int_equal(key_state(&c, "nesterov")->origin, ORIGIN_DEFAULT);
    config_free(&c);
    free(base);
}

/* ---- faults ---- */

static void test_faults(void **state)
{
    static const struct {
        const char *text, *ov, *msg; /* text follows the two lines of HEAD */
    } rows[] = {
        {"wieght_decay: 1\n", NULL,
         "F:3:1: error: unknown key 'wieght_decay'; did you mean 'weight_decay'?"},
        {"zzzzzzzzzzzz: 1\n", NULL,
         "F:3:1: error: unknown key 'zzzzzzzzzzzz'; expected one of `qrun help keys`"},
        {"Lr: 1\n", NULL, "F:3:1: error: unknown key 'Lr'; did you mean 'lr'?"},
        {"lr: fast\n", NULL,
         "F:3:5: error: lr: 'fast' is not a number; expected a number in 0..1000"},
        {"lr:\n", NULL, "F:3:4: error: lr: no value; expected a number"},
        {"lr: [1]\n", NULL,
         "F:3:5: error: lr: a list is not a number; expected a number in 0..1000"},
        {"lr: '0.1'\n", NULL,
         "F:3:5: error: lr: '0.1' is not a number; expected a number in 0..1000"},
        {"lr: -1\n", NULL, "F:3:5: error: lr: -1 is out of range; expected 0..1000"},
        {"lr: .nan\n", NULL, "F:3:5: error: lr: .nan is out of range; expected 0..1000"},
        {"grad_scale: .inf\n", NULL,
         "F:3:13: error: grad_scale: .inf is out of range; expected at least 0"},
        {"momentum: 1.5\n", NULL,
         "F:3:11: error: momentum: 1.5 is out of range; expected 0..0.999999"},
        {"batch_size: 0\n", NULL,
         "F:3:13: error: batch_size: 0 is out of range; expected 1..65536"},
        {"batch_size: 12.5\n", NULL,
         "F:3:13: error: batch_size: '12.5' is not a whole number; expected a whole number in "
         "1..65536"},
        {"limit_val: 3000000000\n", NULL,
         "F:3:12: error: limit_val: 3000000000 is out of range; expected at least 0 and at most "
         "2147483647"},
        {"random_seed: -1\n", NULL,
         "F:3:14: error: random_seed: -1 is out of range; expected at least 0"},
        {"nesterov: maybe\n", NULL,
         "F:3:11: error: nesterov: 'maybe' is not true or false; expected yes or no"},
        {"nesterov: 2\n", NULL,
         "F:3:11: error: nesterov: '2' is not true or false; expected yes or no"},
        {"optimizer: sdg\n", NULL,
         "F:3:12: error: optimizer: unknown value 'sdg'; expected a name from `qrun list "
         "optimizers`; did you mean 'sgd'?"},
        {"model: resnet21\n", NULL,
         "F:3:8: error: model: unknown value 'resnet21'; expected a name from `qrun list nets`; "
         "did you mean 'resnet20'?"},
        {"decoder: jpeg\n", NULL,
         "F:3:10: error: decoder: unknown value 'jpeg'; expected auto, libjpeg, stb"},
        {"on_bad_image: {}\n", NULL,
         "F:3:15: error: on_bad_image: a map is not text; expected text"},
        {"quant_variant: cifra\n", NULL,
         "F:3:16: error: quant_variant: unknown value 'cifra'; expected cifar, imagenet, mnist, "
         "round, pact, pact_sigmoid, pact_exponential; did you mean 'cifar'?"},
        {"use_pretrain: true\nwt_quant: fat\nwt_bit: 4\nlog_dir: x\n", NULL,
         "F:3:1: error: use_pretrain: the run one bit wider is looked for beside log_dir: x; "
         "expected a log_dir with '4bit' in its name, or pretrained_file"},
        {"use_quantize_weight: true\nwt_quant: apot\nwt_bit: 4\n", NULL,
         "F:3:1: error: use_quantize_weight: true contradicts wt_quant: apot, wt_bit: 4; expected "
         "hysteresis and 1"},
        {"weight_thres: -1\n", NULL,
         "F:3:15: error: weight_thres: -1 is out of range; expected at least 0"},
        {"precision: bf61\n", NULL,
         "F:3:12: error: precision: unknown value 'bf61'; expected f32, bf16; did you mean 'bf16'?"},
        {"fp16: true\nopt_level: O2\nprecision: f32\n", NULL,
         "F:5:1: error: precision: f32 contradicts fp16: true with opt_level: O2; expected bf16"},
        {"topk: {a: 1}\n", NULL,
         "F:3:7: error: topk: a map is not a list of whole numbers; expected a list of whole "
         "numbers in 1..1000"},
        {"topk: [1, x]\n", NULL,
         "F:3:11: error: topk: 'x' is not a whole number; expected a whole number in 1..1000"},
        {"topk: [1, 2, 3, 4, 5]\n", NULL, "F:3:7: error: topk: 5 entries; expected at most 4"},
        {"topk: []\n", NULL, "F:3:1: error: topk: an empty list; expected at least one number"},
        {"topk: [5, 1]\n", NULL, "F:3:1: error: topk: 1 after 5; expected ascending numbers"},
        {"num_classes: 3\ntopk: [1, 5]\n", NULL,
         "F:4:1: error: topk: 5 is more than num_classes: 3"},
        {"bit: 33\n", NULL, "F:3:6: error: bit: 33 is out of range; expected 1..32"},
        {"wt_bit: 4\n", NULL,
         "F:3:1: error: wt_bit: 4 has no effect with wt_quant: none; expected 32, or a name from `qrun "
         "list quant` for wt_quant"},
        {"wt_quant: apot\n", NULL,
         "F:3:1: error: wt_quant: apot without wt_bit; expected the number of bits (32 = float)"},
        {"wt_quant: aptt\nwt_bit: 4\n", NULL,
         "F:3:11: error: wt_quant: unknown value 'aptt'; expected a name from `qrun list quant`; "
         "did you mean 'apot'?"},
        {"lr_scheduler: multistep\n", NULL,
         "F:3:1: error: lr_scheduler: multistep without multistep_lr_milestones; expected a list "
         "of epochs"},
        {"lr_scheduler: custom\n", NULL,
         "F:3:1: error: lr_scheduler: custom without lr_list; expected a list of rates"},
        {"multistep_lr_milestones: [20, 10]\n", NULL,
         "F:3:1: error: multistep_lr_milestones: 10 after 20; expected ascending epochs"},
        {"nesterov: true\nmomentum: 0\n", NULL,
         "F:3:1: error: nesterov: true with momentum: 0 and dampening: 0; expected momentum above "
         "0 and dampening 0"},
        {"warmup_epochs: 5\nnum_epochs: 2\n", NULL,
         "F:3:1: error: warmup_epochs: 5 is more than num_epochs: 2"},
        {"lr: 0.1\nlr_min: 0.2\n", NULL, "F:4:1: error: lr_min: 0.2 is more than lr: 0.1"},
        {"mean: [0.1, 0.2, 0.3]\n", NULL,
         "F:3:1: error: mean has 3 entries and std has 0; expected as many in both"},
        {"std: [1]\nmean: [0]\ninput: byte\n", NULL,
         "F:4:1: error: mean and std have no effect with input: byte"},
        {"std: [0]\nmean: [0]\n", NULL, "F:3:1: error: std: entry 1 is 0; expected more than 0"},
        {"normalize: false\n", NULL,
         "F:3:1: error: normalize: false is for F8Net's and AdaBits' networks; expected input: "
         "k256 or byte"},
        {"normalize: true\ninput: byte\n", NULL,
         "F:3:1: error: normalize: true contradicts input: byte"},
        {"wt_quant: adabits\nbits_list: [5, 4]\nswitch_alpha: true\nact_clip_inits: [4, 3, 2]\n", NULL,
         "F:6:1: error: act_clip_inits: 3 values for 2 entries of bits_list; expected as many"},
        {"wt_quant: adabits\nbits_list: [5, 4]\nact_clip_inits: [4, 3]\n", NULL,
         "F:5:1: error: act_clip_inits has no effect with switch_alpha: false; expected act_clip_init"},
        {"drop_last: true\nlimit_train: 10\nbatch_size: 20\n", NULL,
         "F:3:1: error: drop_last: true leaves no batch with limit_train: 10 and batch_size: 20"},
        {"batch_size: 100\nbatch_size_per_gpu: 30\nnum_gpus_per_job: 4\n", NULL,
         "F:4:1: error: batch_size_per_gpu: 30 times num_gpus_per_job: 4 contradicts batch_size: "
         "100"},
        {"param_groups: 3\n", NULL,
         "F:3:15: error: param_groups: '3' is not a list of maps; expected a list of maps"},
        {"param_groups: [3]\n", NULL,
         "F:3:16: error: param_groups: entry 1 is '3'; expected a map such as {match: act_alpha, "
         "lr: 0.1}"},
        {"param_groups: [{match: a, rl: 1}]\n", NULL,
         "F:3:27: error: param_groups: unknown key 'rl'; expected match, lr or weight_decay; did "
         "you mean 'lr'?"},
        {"param_groups: [{lr: 1}]\n", NULL,
         "F:3:16: error: param_groups: entry 1 has no match; expected a part of a parameter's "
         "name"},
        {"param_groups: [{match: a, lr: -3}]\n", NULL,
         "F:3:31: error: param_groups: lr: -3 is out of range; expected 0..1000"},
        {"expect: {top_min: 3}\n", NULL,
         "F:3:10: error: unknown key 'expect.top_min'; did you mean 'expect.top1_min'?"},
        {"expect: 30\n", NULL, "F:3:9: error: expect: expected a map such as {top1_min: 30}"},
        {"max_time: 5d\n", NULL,
         "F:3:11: error: max_time: '5d' is not a time; expected a time of at least 0 (90, 55m, 2h)"},
        {"floating_model: True\n", NULL,
         "F:3:1: error: floating_model has no effect with wt_quant: none and fm_quant: none; "
         "expected f8net for both"},
        {"wt_quant: f8net\nfm_quant: f8net\nweight_format: [8]\n", NULL,
         "F:5:1: error: weight_format has 1 entries; expected [word length, fractional length]"},
        {"wt_quant: f8net\nfm_quant: f8net\nweight_format: [8, 8]\n", NULL,
         "F:5:1: error: weight_format: a fractional length of 8 with 8 bits; expected 0 to 7"},
        {"wt_quant: f8net\nfm_quant: f8net\ninput_format: [0, 0]\n", NULL,
         "F:5:1: error: input_format: a word length of 0; expected 1 to 16"},
        {"wt_quant: f8net\nfm_quant: f8net\nlast_bit: 32\n", NULL,
         "F:5:1: error: last_bit has no effect with f8net, whose layers all have the word lengths of "
         "weight_format and input_format"},
        {"wt_quant: f8net\nfm_quant: f8net\nless_bn: true\n", NULL,
         "F:5:1: error: less_bn: true with f8net, whose layers round their weights behind the norm of "
         "each batch; expected less_bn: false"},
        {"wt_quant: f8net\nfm_quant: f8net\nkeyword: [less_bn]\n", NULL, "F:5:1: error: less_bn: true with f8net, whose layers round their weights behind the norm of "
         "each batch; expected less_bn: false"},
        {"int_op_only: True\n", NULL,
         "F:3:1: error: int_op_only: the network is not quantized; expected wt_quant and fm_quant: "
         "f8net without floating_model"},
        {"bits_list: [5, 4, 3]\nadaptive_training: false\n", NULL,
         "F:3:1: error: bits_list has no effect with wt_quant: none and fm_quant: none; expected a "
         "name from `qrun list quant` for them"},
        {"resume: other/latest.pt\n", NULL,
         "F:3:1: error: resume: a run continues from its own log_dir; weights of another file are "
         "given by pretrained_file; expected nothing, true or false"},
        {"\tlr: 1\n", NULL, "F:3:1: error: a tab character; expected spaces for indentation"},
        {"", "lr=fast",
         "command line: error: lr: 'fast' is not a number; expected a number in 0..1000"},
        {"", "rl=1", "command line: error: unknown key 'rl'; did you mean 'lr'?"},
        {"", "model.depth=18",
         "command line: error: unknown key 'model.depth'; did you mean 'depth'?"},
        {"", "test", "command line: error: 'test' is not an override; expected key=value"},
        {"", "topk=[1",
         "command line: error: topk: not valid YAML: did not find expected ',' or ']'"},
        {"", "bs:x",
         "command line: error: batch_size: 'x' is not a whole number; expected a whole number in "
         "1..65536"},
        {"",
         "model=", "command line: error: model is missing; expected a name from `qrun list nets`"},
        {"lr: x\nwd: y\n", "momentum=z",
         "F:3:5: error: lr: 'x' is not a number; expected a number in 0..1000\n"
         "F:4:5: error: wd: 'y' is not a number; expected a number in 0..10\n"
         "command line: error: momentum: 'z' is not a number; expected a number in 0..0.999999"},
    };
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Config c;
        char msg[sizeof((Err *)0)->msg], *text = xasprintf(HEAD "%s", rows[i].text);
        load_text(&c, text, OV(rows[i].ov), msg, sizeof msg);
        if (strcmp(msg, rows[i].msg)) {
            wrong++;
            print_message("row %zu: %s\n     got: %s\nexpected: %s\n", i, rows[i].text, msg,
                          rows[i].msg);
        }
        config_free(&c);
        free(text);
    }
    assert_int_equal(wrong, 0);
}

static void test_many_faults(void **state)
{
    Config c;
    Str s = {0};
    char msg[sizeof((Err *)0)->msg];
    const char *more;
    int lines = 1;
    (void)state;
    for (int i = 0; i < 300; i++) str_printf(&s, "unknown_key_number_%d: 1\n", i);
    load_text(&c, s.s, NULL, msg, sizeof msg);
    for (const char *p = msg; *p; p++) lines += *p == '\n';
    more = strrchr(msg, '\n');
    assert_non_null(more);
    assert_int_equal(atoi(more + strlen("\nand ")),
                     302 - (lines - 1)); /* the keys, model and dataset */
    config_free(&c);
    str_free(&s);
}

static void test_missing_files(void **state)
{
    Config c;
    Err e = {0};
    (void)state;
    assert_int_equal(config_load(&c, "configs/apot/res20_4bits.yml", 0, NULL, &e), -1);
    assert_int_equal(e.kind, ERR_CONFIG);
    assert_non_null(strstr(e.msg, "configs/apot/res20_4bits.yml: error: no such file; did you mean "
                                  "'configs/apot/res20_4bit.yml'?"));
    assert_null(strchr(e.msg, '\n')); /* not also "model is missing" */
    config_free(&c);
    assert_int_equal(config_load(&c, "", 0, NULL, &e), 0); /* the defaults alone */
    config_free(&c);
    assert_int_equal(config_load(&c, "bs:64", 0, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "command line: error: model is missing"));
    config_free(&c);
}

/* ---- the originals' files ---- */

/* Every key of F8Net's and AdaBits' files and programs, at a value that asks for nothing special;
 * weight_format and input_format always ask for fixed point and stand among the faults. */
static const char originals[] =
    "num_gpus_per_job: 8\nbatch_size: 256\nbatch_size_per_gpu: 32\ndataset: "
    "CIFAR10\ndata_transforms: cifar\ndata_loader: cifar\n"
    "dataset_dir: data\ndata_loader_workers: 5\ndrop_last: False\nnum_classes: 10\nimage_size: "
    "32\ntopk: [1, 5]\nnum_epochs: 150\n"
    "optimizer: sgd\nmomentum: 0.9\nnesterov: True\nweight_decay: 0.00004\nweight_decay_scheme: "
    "all\nlr: 0.05\n"
    "lr_scheduler: cos_annealing_iter\nmultistep_lr_milestones: [100, 150]\nmultistep_lr_gamma: "
    "0.1\nexp_decaying_lr_gamma: 0.98\n"
    "exp_decaying_period: 1\nwarmup_epochs: 5\nstart_epoch: null\ntest_only: "
    "False\npretrained_file: ''\nfp_pretrained_file: ''\n"
    "pretrained_model_remap_keys: False\npretrained_dir: ''\nresume: ''\nptcv_pretrained: "
    "False\nnvidia_pretrained: False\n"
    "nvidia_pretrained_file: ''\nhawq_pretrained: False\nhawq_pretrained_file: ''\nrandom_seed: "
    "1995\nuse_diff_seed: True\n"
    "stoch_valid: False\ndistributed: True\ndistributed_all_reduce: True\ndist_url: null\nmodel: "
    "resnet_cifar\ndepth: 20\n"
    "reset_parameters: True\nwidth_divisor: 8\nmin_width: 8\nfloating_model: False\n"
    "floating_wo_clip: False\nformat_type: null\nformat_from_metric: False\nmetric: "
    "std\nformat_grid_search: False\n"
    "momentum_for_metric: 0.1\ninput_fraclen_sharing: False\nno_clipping: False\nrescale_forward: "
    "True\nrescale_forward_conv: False\n"
    "rescale_type: constant\nnormalize: True\nquant_bias: False\nquant_avgpool: "
    "False\npool_fusing: False\nquant_maxpool: False\n"
    "int_infer: False\nintegize: False\nintegize_file_path: ''\nint_op_only: "
    "False\nint_op_only_file_path: ''\nfinetune_iters: ~\n"
    "bn_calib_before_test: False\nbn_calib_batch_num: -1\nprint_each_iter: False\nbn_momentum: "
    "0.1\nbn_eps: 1e-5\nlog_dir: results/x\n"
    "bits_list: []\nadaptive_training: False\nweight_only: False\nweight_quant_scheme: "
    "modified\nact_quant_scheme: original\n"
    "clamp: True\nrescale: True\nrescale_conv: False\nswitchbn: True\nstats_sharing: "
    "False\nswitch_alpha: False\npact_fp: False\n"
    "double_side: False\nprofiling: [gpu]\nprofiling_only: False\nmodel_profiling_verbose: "
    "False\noptim_decay: 0.9\noptim_eps: 0.001\n"
    "bn_calib: True\ngpu_type: v100\nnum_cpus_per_job: 8\nmemory_per_job: 64\n"
    /* the "override" part that ends F8Net's files */
    "model: 'resnet_cifar'\ntest_only: False\n";

static int nlogged;
static void count_log(LogLevel level, const char *text)
{
    (void)level;
    (void)text;
    nlogged++;
}

static void test_originals(void **state)
{
    Config c;
    (void)state;
    load_good(&c, originals, NULL);
    assert_string_equal(c.data.input, "normalized");
    assert_int_equal(c.data.num_classes, 10);
    assert_int_equal(c.net.num_classes, 10);
    assert_true(c.quant.switch_norm);
    assert_int_equal(key_state(&c, "model")->repeated_line > 0, 1);
    nlogged = 0;
    log_set(LOG_DEBUG, count_log);
    config_note_ignored(&c);
    log_set(LOG_INFO, NULL);
    assert_true(nlogged > 15); /* one line for each key without effect and each repeated one */
    config_free(&c);
}

static void test_flags_of_others(void **state)
{
    Config c;
    (void)state;
    load_good(&c,
              "arch: res20\nbit: 4\nwt_quant: apot\nfm_quant: apot\ninit: a.pth\nwd: 1e-3\nepochs: "
              "7\ndataset: cifar10\nbatch-size: 64\n"
              "lr_policy: custom_step\nlr_custom_step: 2,4\nlr_decay: 0.3\neta_min: 0\nworkers: "
              "1\nseed: 3\njob_dir: r\nprint_freq: 10\n"
              "label_smooth: 0.1\nevaluate: yes\ncifar-type: 10\n",
              NULL);
    assert_string_equal(c.net.model, "res20");
    assert_string_equal(c.run.pretrained_file, "a.pth");
    assert_string_equal(c.run.log_dir, "r");
    assert_int_equal(c.run.num_epochs, 7);
    assert_int_equal(c.run.batch_size, 64);
    assert_int_equal(c.optim.nmilestones, 2);
    assert_true(c.optim.gamma == 0.3 && c.run.label_smoothing == 0.1 && c.run.test_only);
    config_free(&c);
}

static void test_app_and_bs(void **state)
{
    static const struct {
        const char *text;
        const char *ov[3];
        int batch;
        double lr, warmup, from;
    } rows[] = {
        {HEAD "lr: 0.1\n", {"bs:512"}, 512, 0.2, 5, 0.1},
        {HEAD "lr: 0.1\nwarmup_epochs: 3\n", {"bs:512"}, 512, 0.2, 3, 0.1},
        {HEAD "lr: 0.1\nwarmup_epochs: 3\nbits_list: [4, 3]\nwt_quant: adabits\n",
         {"bs:512"},
         512,
         0.2,
         5,
         0.1}, /* AdaBits' form */
        {HEAD "lr: 0.1\nwarmup_epochs: 3\n", {"bs:256"}, 256, 0.1, 0, 0},
        {HEAD "lr: 0.1\nwarmup_epochs: 3\n", {"batch_size=512"}, 512, 0.1, 3, 0}, /* ours: nothing
                                                                                     hidden */
    };
    Config c;
    Err e = {0};
    char app[300], bs[] = "bs:1024", *ov[2] = {app, NULL};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        load_good(&c, rows[i].text, rows[i].ov);
        if (c.run.batch_size != rows[i].batch || c.optim.lr != rows[i].lr ||
            c.optim.warmup_epochs != rows[i].warmup || c.optim.warmup_lr != rows[i].from)
            fail_msg("row %zu: batch %d, lr %g, warm-up %g from %g", i, c.run.batch_size,
                     c.optim.lr, c.optim.warmup_epochs, c.optim.warmup_lr);
        config_free(&c);
    }
    put_text(file, HEAD "lr: 0.1\n");
    snprintf(app, sizeof app, "app:%s", file);
    if (config_load(&c, bs, 1, ov, &e)) fail_msg("%s", e.msg);
    assert_int_equal(c.run.batch_size, 1024);
    assert_string_equal(c.run.config_name, "t");
    assert_int_equal(key_state(&c, "lr")->origin, ORIGIN_RULE);
    nlogged = 0;
    log_set(LOG_INFO, count_log);
    config_note_ignored(&c);
    log_set(LOG_INFO, NULL);
    assert_int_equal(nlogged, 1); /* the rule is told without -v */
    config_free(&c);
}

/* ---- resolved.yml ---- */

static void values(const Config *c, Str *out)
{
    for (size_t i = 0; i < nkeys; i++) {
        if (keys[i].kind < KK_VALUE || keys[i].kind > KK_GROUPS || (keys[i].flags & KF_FOLDED))
            continue;
        str_printf(out, "%s ", keys[i].name);
        key_value_text(c, &keys[i], out);
        str_puts(out, "\n");
    }
}

/* Writes resolved.yml, reads it back, compares every value and the derived fields. */
static void check_round_trip(const Config *c)
{
    Config back;
    Err e = {0};
    Str text = {0}, a = {0}, b = {0};
    char *path = fs_join(folder, "resolved.yml");
    config_resolved(c, &text);
    put_text(path, text.s);
    if (config_load(&back, path, 0, NULL, &e)) fail_msg("%s\n%s", e.msg, text.s);
    values(c, &a);
    values(&back, &b);
    assert_string_equal(a.s, b.s);
    assert_true(c->optim.gamma == back.optim.gamma && c->optim.step_size == back.optim.step_size);
    assert_true(c->optim.num_epochs == back.optim.num_epochs && c->data.seed == back.data.seed);
    assert_int_equal(c->net.num_classes, back.net.num_classes);
    a.len = 0;
    str_puts(&a, "");
    if (config_differs(c, path, &a, &e)) fail_msg("differs from itself: %s %s", a.s, e.msg);
    str_free(&text);
    str_free(&a);
    str_free(&b);
    free(path);
    config_free(&back);
}

static void test_resolved(void **state)
{
    static const char odd[] =
        HEAD "method_opts: \"a: b # \\\"c\\\" \\\\ \\t \\u2028 \\x85 é\"\nexperiment: "
             "'yes'\nlog_dir: '12'\ntrain_dir: '~'\nval_dir: -x\n"
             "lr: 0.1000000000000000055511\nmomentum: 0.3333333333333333\nlr_list: [1e-7, "
             "3]\ngrad_scale: 123456789.123\n"
             "random_seed: 9223372036854775807\nparam_groups: [{match: 'a: b', lr: 1e-3}]\nexpect: "
             "{top1_min: 1.5}\n";
    static const char *const files[] = {"configs/smoke.yml", "configs/apot/res20_4bit.yml",
                                        "configs/apot/mnist_res10_2bit.yml"};
    Config c;
    Err e = {0};
    (void)state;
    load_good(&c, odd, NULL);
    check_round_trip(&c);
    config_free(&c);
    load_good(&c, originals, NULL);
    check_round_trip(&c);
    config_free(&c);
    load_good(&c, HEAD "lr: 0.1\n", OV("bs:512"));
    check_round_trip(&c);
    config_free(&c);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        if (config_load(&c, files[i], 0, NULL, &e)) fail_msg("%s", e.msg);
        check_round_trip(&c);
        config_free(&c);
    }
}

static void test_differs(void **state)
{
    static const struct {
        const char *ov[3], *text; /* "" = the same results */
    } rows[] = {
        {{"log_dir=elsewhere", "data_loader_workers=7", "save_every_steps=3"}, ""},
        {{"num_epochs=20"}, ""},
        {{"num_epochs=5"}, "num_epochs: 10 -> 5"},
        {{"threads=2"}, ""}, /* was left to the machine */
        {{"lr=0.2", "bit=3"}, "wt_bit: 4 -> 3\nfm_bit: 4 -> 3\nlr: 0.1 -> 0.2"},
        {{"param_groups=[{match: x, lr: 1}]"}, "param_groups: [] -> [{match: x, lr: 1}]"},
    };
    static const char text[] =
        HEAD "num_epochs: 10\nlr: 0.1\nwt_quant: apot\nfm_quant: apot\nbit: 4\n";
    char *path = fs_join(folder, "old.yml");
    Config c;
    Str s = {0};
    Err e = {0};
    (void)state;
    load_good(&c, text, NULL);
    config_resolved(&c, &s);
    put_text(path, s.s);
    config_free(&c);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int rc;
        s.len = 0;
        str_puts(&s, "");
        load_good(&c, text, rows[i].ov);
        rc = config_differs(&c, path, &s, &e);
        if (rc != (rows[i].text[0] != 0) || strcmp(s.len ? s.s : "", rows[i].text))
            fail_msg("row %zu: %d '%s', expected '%s' (%s)", i, rc, s.len ? s.s : "", rows[i].text,
                     e.msg);
        config_free(&c);
    }
    load_good(&c, text, NULL);
    assert_int_equal(config_differs(&c, "/nonexistent/resolved.yml", &s, &e), -1);
    config_free(&c);
    str_free(&s);
    free(path);
}

/* ---- texts ---- */

static void test_texts(void **state)
{
    Config c;
    Err e = {0};
    Str s = {0};
    size_t n;
    char *docs;
    (void)state;
    load_good(&c, HEAD "lr: 0.3\n", OV("momentum=0.5"));
    config_show(&c, &s);
    assert_non_null(strstr(s.s, "t.yml:3\n"));
    assert_non_null(strstr(s.s, "command line\n"));
    for (size_t i = 0; i < nkeys; i++) {
        char name[80];
        snprintf(name, sizeof name, "\n  %s ", keys[i].name);
        if (keys[i].kind >= KK_VALUE && keys[i].kind <= KK_GROUPS && !(keys[i].flags & KF_FOLDED))
            assert_non_null(strstr(s.s, name));
    }
    config_free(&c);
    s.len = 0;
    config_help("weight-decay", &s);
    assert_non_null(strstr(s.s, "L2 factor"));
    s.len = 0;
    config_help("bit", &s);
    assert_non_null(strstr(s.s, "wt_bit\n"));
    assert_non_null(strstr(s.s, "fm_bit\n"));
    s.len = 0;
    assert_int_equal(config_help("weight_decai", &s), 0);
    assert_int_equal(s.len, 0);
    config_help(NULL, &s);
    assert_non_null(strstr(s.s, "== Network =="));
    s.len = 0;
    config_docs(&s);
    docs = fs_read("docs/keys.md", 0, &n, &e);
    if (!docs) fail_msg("%s", e.msg);
    if (strcmp(docs, s.s)) fail_msg("docs/keys.md is not up to date; run `make docs`");
    free(docs);
    str_free(&s);
}

static void test_shipped(void **state)
{
    static const char *const files[] = {"smoke",
                                        "configs/apot/res20_32bit.yml",
                                        "configs/apot/res20_4bit.yml",
                                        "configs/apot/res20_3bit.yml",
                                        "configs/apot/res20_2bit.yml",
                                        "configs/apot/res56_32bit.yml",
                                        "configs/apot/res56_4bit.yml",
                                        "configs/apot/res56_3bit.yml",
                                        "configs/apot/res56_2bit.yml",
                                        "configs/apot/mnist_res10_5bit.yml",
                                        "configs/apot/mnist_res10_4bit.yml",
                                        "configs/apot/mnist_res10_3bit.yml",
                                        "configs/apot/mnist_res10_2bit.yml",
                                        "configs/adabits/resnet20_543.yml",
                                        "configs/adabits/mobilenet_v1_8654.yml",
                                        "configs/adabits/mobilenet_v2_8654.yml",
                                        "configs/tiny/adabits.yml"};
    Config c;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        Err e = {0};
        Spec spec = {0};
        InputShape in;
        int classes;
        if (config_load(&c, files[i], 0, NULL, &e)) fail_msg("%s", e.msg);
        if (data_input_shape(&c.data, &in, &classes, &e)) fail_msg("%s: %s", files[i], e.msg);
        c.net.num_classes = classes;
        c.net.in_c = in.c;
        c.net.in_h = in.h;
        c.net.in_w = in.w;
        if (net_build(&spec, &c.net, &e)) fail_msg("%s: %s", files[i], e.msg);
        spec_free(&spec);
        config_free(&c);
    }
}

/* Damaged files: loaded (then resolved.yml must come back) or refused with a message, never a
 * crash. */
static void test_mutations(void **state)
{
    char *rich = xasprintf("%s%s", originals,
                           "param_groups: [{match: a, lr: 1e-3}, {match: b, weight_decay: "
                           "0}]\nmax_time: 3h\nexpect: {top1_min: 1}\n");
    int good = 0;
    (void)state;
    for (int i = 0; i < 2000; i++) {
        Config c;
        Err e = {0};
        Rng r = rng_stream(11, RNG_TEST, 1, (uint64_t)i);
        size_t n = strlen(rich);
        char *text = xstrdup(rich);
        for (uint32_t k = rng_below(&r, 3); k > 0; k--)
            text[rng_below(&r, (uint32_t)n)] ^= (char)(1 << rng_below(&r, 8));
        if (rng_below(&r, 4) == 0) n = rng_below(&r, (uint32_t)n + 1);
        put_bytes(file, text, n);
        if (config_load(&c, file, 0, NULL, &e)) {
            assert_int_equal(e.kind, ERR_CONFIG);
            assert_non_null(strstr(e.msg, ": error: "));
        } else {
            if (good++ % 8 == 0) check_round_trip(&c);
        }
        config_free(&c);
        free(text);
    }
    free(rich);
    assert_true(good > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_schedule_keys),
        cmocka_unit_test(test_order_of_strength),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_many_faults),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_originals),
        cmocka_unit_test(test_flags_of_others),
        cmocka_unit_test(test_app_and_bs),
        cmocka_unit_test(test_resolved),
        cmocka_unit_test(test_differs),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
