/* test/test_dialect_f8net.c -- the 36 experiment files of F8Net, made here from the table of their
 * keys and values: a basic part, then a part that sets some of the keys again. Each loads with
 * `app:FILE bs:N`, every key is known, has the value written down, and `qrun show` says what became
 * of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/config.h"
#include "run/modes.h"
#include "test/dialect.h"

typedef enum Group { CONVENTIONAL, TINY } Group;
typedef enum Source { FLOAT, STD, GRID, GRID_AND_STD } Source; /* of fractional lengths */
typedef enum Start {
    SCRATCH,
    FROM_FLOAT, /* fp_pretrained_file */
    FROM_FILE,  /* pretrained_file; behind an import where the group has one */
    IMPORT
} Start;

typedef struct Net {
    const char *model;
    int depth; /* 0: the file has no such key */
} Net;

static const Net res18 = {"models.fix_resnet", 18}, res50 = {"models.fix_resnet", 50},
                 mbv1 = {"models.fix_mobilenet_v1", 0}, mbv2 = {"models.fix_mobilenet_v2", 0};

/* '.': the file lacks the key; T, F */
typedef struct Experiment {
    const char *name;
    const Net *net;
    Group group;
    bool train;
    const char *lr;
    bool all; /* weight_decay_scheme: all, else no_depthwise_no_bn */
    Source source;
    char no_clipping, sharing;
    Start start;
    const char *stage;  /* quant_bias quant_avgpool pool_fusing quant_maxpool int_infer integize
                           int_op_only */
    const char *import; /* ptcv, nvidia; NULL: neither */
} Experiment;

// clang-format off
#define NONE "......."
#define PLAIN_STAGES(name_, net_, lr_, all_, sharing_)                                              \
    {name_ "_floating_train", net_, CONVENTIONAL, true, lr_, all_, FLOAT, '.', sharing_ == 'F' ? 'T' : '.', SCRATCH, NONE, NULL}, \
    {name_ "_floating_test", net_, CONVENTIONAL, false, lr_, all_, FLOAT, '.', sharing_ == 'F' ? 'T' : '.', FROM_FILE, NONE, NULL}, \
    {name_ "_fix_quant_train", net_, CONVENTIONAL, true, lr_, all_, STD, '.', sharing_, FROM_FLOAT, NONE, NULL}, \
    {name_ "_fix_quant_test", net_, CONVENTIONAL, false, lr_, all_, STD, '.', sharing_, FROM_FILE, "FFF.FFF", NULL}, \
    {name_ "_fix_quant_test_int_model", net_, CONVENTIONAL, false, lr_, all_, STD, '.', sharing_, FROM_FILE, "TTT.TFF", NULL}, \
    {name_ "_fix_quant_test_integize_on_gpu", net_, CONVENTIONAL, false, lr_, all_, STD, '.', sharing_, FROM_FILE, "TTT.TTF", NULL}, \
    {name_ "_fix_quant_test_int_op_only_on_cpu", net_, CONVENTIONAL, false, lr_, all_, STD, '.', sharing_, FROM_FILE, "TTT.TFT", NULL}
#define TINY_STAGES(name_, net_, lr_, from_, test_, import_, train_, plain_)                        \
    {name_ "_train", net_, TINY, true, lr_, false, GRID, 'T', 'F', IMPORT, train_, import_},        \
    {name_ "_test", net_, TINY, false, from_, false, test_, 'T', 'F', FROM_FILE, plain_, import_},  \
    {name_ "_test_int_model", net_, TINY, false, from_, false, test_, 'T', 'F', FROM_FILE, "TTTTTFF", import_}, \
    {name_ "_test_integize_on_gpu", net_, TINY, false, from_, false, test_, 'T', 'F', FROM_FILE, "TTTFTTF", import_}, \
    {name_ "_test_int_op_only_on_cpu", net_, TINY, false, from_, false, test_, 'T', 'F', FROM_FILE, "TTTFTFT", import_}

static const Experiment experiments[] = {
    {"res18_floating_train", &res18, CONVENTIONAL, true, "0.05", true, FLOAT, '.', 'T', SCRATCH, NONE, NULL},
    {"res18_floating_test", &res18, CONVENTIONAL, false, "0.05", true, FLOAT, '.', 'T', FROM_FILE, NONE, NULL},
    {"res18_fix_quant_train", &res18, CONVENTIONAL, true, "0.1", true, STD, '.', 'F', FROM_FLOAT, NONE, NULL},
    {"res18_fix_quant_test", &res18, CONVENTIONAL, false, "0.05", true, STD, 'F', 'F', FROM_FILE, "FFF.FFF", NULL},
    {"res18_fix_quant_test_int_model", &res18, CONVENTIONAL, false, "0.05", true, STD, 'F', 'F', FROM_FILE, "TTTTTFF", NULL},
    {"res18_fix_quant_test_integize", &res18, CONVENTIONAL, false, "0.05", true, STD, 'F', 'F', FROM_FILE, "TTTFTTF", NULL},
    {"res18_fix_quant_test_int_op_only", &res18, CONVENTIONAL, false, "0.05", true, STD, 'F', 'F', FROM_FILE, "TTTFTFT", NULL},
    PLAIN_STAGES("mbv1", &mbv1, "0.05", true, '.'),
    PLAIN_STAGES("mbv2", &mbv2, "0.1", false, 'F'),
    TINY_STAGES("res18_fix_quant_ptcv_pretrained", &res18, "0.0", "0.0", GRID_AND_STD, "ptcv", ".FF....", "FFFFFFF"),
    TINY_STAGES("res50_fix_quant_ptcv_pretrained", &res50, "0.0001", "0.0", GRID_AND_STD, "ptcv", ".TT....", "FTTFFFF"),
    TINY_STAGES("res50_fix_quant_nvidia_pretrained", &res50, "0.0001", "0.0", GRID, "nvidia", ".TT....", "FTTFFFF"),
};
// clang-format on

static const char *const stage_keys[] = {"quant_bias",    "quant_avgpool", "pool_fusing",
                                         "quant_maxpool", "int_infer",     "integize",
                                         "int_op_only"};

static const char *yes_no(bool b)
{
    return b ? "True" : "False";
}

static void put_flag(Str *s, const char *key, char flag)
{
    if (flag != '.') str_printf(s, "%s: %s\n", key, yes_no(flag == 'T'));
}

static void put_basics(Str *s, const Experiment *x)
{
    const bool many = x->group == CONVENTIONAL && x->train;
    str_puts(s, "# =========================== Basic Settings ===========================\n"
                "num_gpus_per_job: 8  # number of GPUs each job need\n"
                "dataset: imagenet1k\ndata_transforms: imagenet1k\ndata_loader: imagenet1k\n"
                "dataset_dir: data\ndata_loader_workers: 5\nnum_classes: 1000\nimage_size: 224\n"
                "topk: [1, 5]\n");
    str_printf(s, "num_epochs: %d\n", x->group == TINY ? 1 : 150);
    str_puts(s, "optimizer: sgd\nmomentum: 0.9\nnesterov: True\n");
    str_printf(s, "weight_decay: %s\nweight_decay_scheme: %s\nlr: %s\nlr_scheduler: %s\n",
               x->group == TINY ? "0.0001" : "0.00004", x->all ? "all" : "no_depthwise_no_bn",
               x->lr, x->group == TINY ? "constant" : "cos_annealing_iter");
    str_printf(s, "distributed: %s\ndistributed_all_reduce: %s\nuse_diff_seed: %s\n", yes_no(many),
               yes_no(many), yes_no(many));
    str_puts(s, "pretrained_dir: ''\npretrained_file: ''\nresume: ''\n"
                "random_seed: 1995\nmodel: ''\nreset_parameters: True\ntest_only: False\n");
    if (!x->net->depth) str_puts(s, "width_divisor: 8\nmin_width: 8\n");
}

static void put_quantizer(Str *s, const Experiment *x)
{
    str_puts(s, "rescale_forward: True\nrescale_forward_conv: False\nrescale_type: constant\n"
                "weight_format: [8, 7]\ninput_format: [8, 6]\n");
    if (x->source == FLOAT)
        str_puts(s, "format_type: null\nfloating_model: True\n");
    else
        str_puts(s, "format_type: per_layer\nmetric: std\nmomentum_for_metric: 0.1\n");
    if (x->source == STD || x->source == GRID_AND_STD) str_puts(s, "format_from_metric: True\n");
    if (x->source == GRID || x->source == GRID_AND_STD) str_puts(s, "format_grid_search: True\n");
    put_flag(s, "no_clipping", x->no_clipping);
    put_flag(s, "input_fraclen_sharing", x->sharing);
    for (size_t i = 0; i < ARRAY_LEN(stage_keys); i++) put_flag(s, stage_keys[i], x->stage[i]);
    if (x->stage[5] != '.') str_puts(s, "integize_file_path: ''\nint_op_only_file_path: ''\n");
}

static void put_overrides(Str *s, const Experiment *x)
{
    str_puts(s, "# =========================== Override Settings ========================\n");
    if (x->group == TINY) {
        str_printf(s, "normalize: True\nfinetune_iters: %d\n", x->net->depth == 18 ? 100 : 500);
        if (!x->train) str_puts(s, "print_each_iter: True\n");
    }
    if (x->import) str_printf(s, "%s_pretrained: True\n", x->import);
    if (x->import && str_eq(x->import, "nvidia"))
        str_puts(s, "nvidia_pretrained_file: nvidia_resnet50.pth.tar\n");
    if (x->start == FROM_FLOAT) str_puts(s, "fp_pretrained_file: ckpt/float/best_model.pt\n");
    if (x->start == FROM_FILE)
        str_puts(s, "test_only: True\npretrained_file: ckpt/fix/best_model.pt\n");
    str_printf(s, "log_dir: results/%s\nmodel: %s\n", x->name, x->net->model);
    if (x->net->depth) str_printf(s, "depth: %d\n", x->net->depth);
}

static void make_text(Str *s, const Experiment *x)
{
    put_basics(s, x);
    put_quantizer(s, x);
    put_overrides(s, x);
}

/* ---- loading ---- */

static char path[] = "/tmp/qrun-dialect-XXXXXX";

static int make_file(void **state)
{
    int fd = mkstemp(path);
    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int drop_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void load(Config *c, const Experiment *x, const char *batch)
{
    Str s = {0};
    Err e = {0};
    char *app = xasprintf("app:%s", path), *bs = xstrdup(batch);
    FILE *f = fopen(path, "w");
    make_text(&s, x);
    assert_non_null(f);
    assert_int_equal(fputs(s.s, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
    if (config_load(c, app, 1, &bs, &e)) fail_msg("%s:\n%s", x->name, e.msg);
    free(app);
    free(bs);
    str_free(&s);
}

/* What follows from the file: method, bits, input, what the program does. */
static void check_meaning(const Config *c, const Experiment *x)
{
    assert_string_equal(c->quant.wt_quant, "f8net");
    assert_string_equal(c->quant.fm_quant, "f8net");
    assert_int_equal(c->quant.wt_bit, x->source == FLOAT ? 32 : 8);
    assert_string_equal(c->data.input, x->group == TINY ? "normalized" : "k256");
    assert_int_equal(c->run.batch_size, 256);
    assert_true(c->optim.warmup_epochs == 0.0);
    assert_string_equal(mode_select(c)->name, x->train ? "train" : "test");
}

static void every_file(void **state)
{
    int keys_seen = 0;
    (void)state;
    assert_int_equal(ARRAY_LEN(experiments), 36);
    for (size_t i = 0; i < ARRAY_LEN(experiments); i++) {
        const Experiment *x = &experiments[i];
        Config c;
        Str text = {0};
        load(&c, x, "bs:256");
        make_text(&text, x);
        keys_seen += dialect_check_keys(&c, x->name, text.s);
        check_meaning(&c, x);
        str_free(&text);
        config_free(&c);
    }
    print_message("36 files, %d keys explained\n", keys_seen);
}

/* Above 256 images the rate grows with the batch, behind five epochs of warm-up. */
static void large_batches(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(experiments); i++) {
        const Experiment *x = &experiments[i];
        Config c;
        load(&c, x, "bs:2048");
        assert_int_equal(c.run.batch_size, 2048);
        assert_true(fabs(c.optim.lr - 8 * atof(x->lr)) < 1e-12);
        assert_true(c.optim.warmup_lr == atof(x->lr));
        assert_true(c.optim.warmup_epochs == 5.0); /* of which one epoch sees a part */
        config_free(&c);
    }
}

/* Cluster keys and repeated keys: a line each at -v. */
static void notes(void **state)
{
    static const char *const wanted[] = {
        "distributed: no effect: ", "distributed_all_reduce: no effect: ",
        "use_diff_seed: no effect: ", "data_loader: no effect: ", "model was set in line "};
    Config c;
    (void)state;
    load(&c, &experiments[0], "bs:256");
    dialect_check_notes(&c, wanted, ARRAY_LEN(wanted));
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file),
        cmocka_unit_test(large_batches),
        cmocka_unit_test(notes),
    };
    return cmocka_run_group_tests(tests, make_file, drop_file);
}
