/* test/test_dialect_adabits.c -- AdaBits' three experiment files, made here from the table of their
 * keys and values, and every further key its programs know. Each loads as it is and with `app:FILE
 * bs:N`; every key has the value written down, and `qrun show` says what became of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/config.h"
#include "run/modes.h"
#include "test/dialect.h"

typedef struct Experiment {
    const char *name, *model, *data, *schedule, *rest, *lr;
    int epochs, batch, edge_bits, nbits, bits[4];
    bool rescale_conv, switch_alpha;
} Experiment;

#define IMAGENET                                                                                   \
    "dataset: imagenet1k\ndata_transforms: imagenet1k_basic\ndata_loader: imagenet1k_basic\n"      \
    "dataset_dir: data\nnum_classes: 1000\nimage_size: 224\n"
#define SCHEMES "weight_quant_scheme: modified\nact_quant_scheme: original\n"
#define SPREAD  "distributed: True\ndistributed_all_reduce: True\nuse_diff_seed: True\n"
#define ALONE   "distributed: False\ndistributed_all_reduce: False\nuse_diff_seed: False\n"
#define AGAIN   "data_transforms: imagenet1k_mobile\n" /* behind the basic part: the last counts */

static const Experiment experiments[] = {
    {.name = "q_resnet_uint8_train_val",
     .model = "models.q_resnet_cifar",
     .data = "dataset: CIFAR10\ndata_transforms: cifar\ndata_loader: cifar\ndataset_dir: data\n"
             "num_classes: 10\nimage_size: 32\ndepth: 20\nbits_list: [5, 4, 3]\n",
     .schedule = "lr_scheduler: multistep\nmultistep_lr_milestones: [100, 150]\n"
                 "multistep_lr_gamma: 0.1\n",
     .rest = SCHEMES ALONE "rescale_conv: True\nswitch_alpha: True\n",
     .lr = "0.1",
     .epochs = 200,
     .batch = 128,
     .nbits = 3,
     .bits = {5, 4, 3},
     .rescale_conv = true,
     .switch_alpha = true},
    {.name = "q_mobilenetv1_uint8_train_val",
     .model = "models.q_mobilenet_v1",
     .data = IMAGENET "bits_list: [8, 6, 5, 4]\n",
     .schedule = "lr_scheduler: cos_annealing_iter\n",
     .rest = SPREAD AGAIN,
     .lr = "0.05",
     .epochs = 150,
     .batch = 256,
     .edge_bits = 8,
     .nbits = 4,
     .bits = {8, 6, 5, 4}},
    {.name = "q_mobilenetv2_uint8_train_val",
     .model = "models.q_mobilenet_v2",
     .data = IMAGENET "bits_list: [8, 6, 5, 4]\n",
     .schedule = "lr_scheduler: cos_annealing_iter\n",
     .rest = SPREAD AGAIN "rescale_conv: False\nswitch_alpha: True\nnormalize: False\n",
     .lr = "0.1",
     .epochs = 150,
     .batch = 256,
     .edge_bits = 8,
     .nbits = 4,
     .bits = {8, 6, 5, 4},
     .switch_alpha = true},
};

static void make_text(Str *s, const Experiment *x)
{
    str_puts(s, "# ============ basic ============\n"
                "num_gpus_per_job: 4\nnum_cpus_per_job: 20\nmemory_per_job: 180\ngpu_type: some\n"
                "data_loader_workers: 5\ntopk: [1, 5]\noptimizer: sgd\nmomentum: 0.9\n"
                "nesterov: True\nweight_decay: 0.00004\nprofiling: [gpu]\npretrained_dir: ''\n"
                "pretrained_file: ''\nfp_pretrained_file: ''\nresume: ''\nbn_calib: False\n"
                "test_only: False\nrandom_seed: 1995\nmodel: ''\nreset_parameters: True\n"
                "adaptive_training: True\nweight_only: False\nclamp: True\nrescale: True\n"
                "rescale_type: constant\nswitchbn: True\nstats_sharing: False\n");
    str_printf(s, "%snum_epochs: %d\nbatch_size: %d\nlr: %s\n%s", x->data, x->epochs, x->batch,
               x->lr, x->schedule);
    str_printf(s, "# ============ override ============\n%smodel: %s\nlog_dir: results/%s\n",
               x->rest, x->model, x->name);
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

/* `batch` NULL: the file by its name alone. */
static void load(Config *c, const char *name, const char *text, const char *batch)
{
    Err e = {0};
    char *app = xasprintf("%s%s", batch ? "app:" : "", path), *bs = batch ? xstrdup(batch) : NULL;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
    if (config_load(c, app, batch != NULL, &bs, &e)) fail_msg("%s:\n%s", name, e.msg);
    free(app);
    free(bs);
}

static void load_experiment(Config *c, const Experiment *x, const char *batch)
{
    Str s = {0};
    make_text(&s, x);
    load(c, x->name, s.s, batch);
    str_free(&s);
}

/* What follows from the file. */
static void check_meaning(const Config *c, const Experiment *x)
{
    const QOpts *q = &c->quant;
    assert_string_equal(q->wt_quant, "adabits");
    assert_string_equal(q->fm_quant, "adabits");
    assert_int_equal(q->nbits_list, x->nbits);
    for (int i = 0; i < x->nbits; i++) {
        assert_int_equal(q->bits_list[i], x->bits[i]);
        assert_int_equal(q->act_bits_list[i], 0);
    }
    assert_string_equal(q->weight_quant_scheme, "modified");
    assert_string_equal(q->act_quant_scheme, "original");
    assert_true(q->rescale && q->clamp && q->switch_norm && !q->stats_sharing && !q->weight_only);
    assert_int_equal(q->rescale_conv, x->rescale_conv);
    assert_int_equal(q->switch_alpha, x->switch_alpha);
    assert_int_equal(q->edge_min_bits, x->edge_bits);
    assert_string_equal(c->data.input, "byte");
    assert_string_equal(c->data.data_transforms, x->edge_bits ? "imagenet1k_mobile" : "cifar");
    assert_string_equal(c->optim.weight_decay_scheme, "no_depthwise_no_bn");
    assert_string_equal(mode_select(c)->name, "train");
    assert_true(c->run.adaptive_training);
    assert_int_equal(c->run.nprofiling, 1);
    assert_int_equal(c->run.batch_size, x->batch);
    assert_true(c->optim.warmup_epochs == 0.0 && c->optim.lr == atof(x->lr));
}

static void every_file(void **state)
{
    int keys_seen = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(experiments); i++) {
        const Experiment *x = &experiments[i];
        Str text = {0};
        Config c;
        make_text(&text, x);
        load(&c, x->name, text.s, NULL);
        keys_seen += dialect_check_keys(&c, x->name, text.s);
        check_meaning(&c, x);
        config_free(&c);
        str_free(&text);
    }
    print_message("%zu files, %d keys explained\n", ARRAY_LEN(experiments), keys_seen);
}

/* Above 256 images the rate grows with the batch, behind five epochs of warm-up whatever the file
 * says; up to 256 there is none. */
static void large_batches(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(experiments); i++) {
        const Experiment *x = &experiments[i];
        Str text = {0};
        Config c;
        make_text(&text, x);
        str_puts(&text, "warmup_epochs: 2\n");
        load(&c, x->name, text.s, "bs:1024");
        assert_int_equal(c.run.batch_size, 1024);
        assert_true(fabs(c.optim.lr - 4 * atof(x->lr)) < 1e-12);
        assert_true(c.optim.warmup_lr == atof(x->lr) && c.optim.warmup_epochs == 5.0);
        config_free(&c);
        load(&c, x->name, text.s, "bs:256");
        assert_true(c.optim.lr == atof(x->lr) && c.optim.warmup_epochs == 0.0);
        config_free(&c);
        str_free(&text);
    }
}

/* Keys and values the three files do not use, and the other words of their choices. */
static void further_keys(void **state)
{
    static const char *const more[] = {
        "pact_fp: True\ndouble_side: True\nnormalize: True\nclamp: False\nweight_only: True\n",
        "weight_quant_scheme: centered\nact_quant_scheme: centered\nrescale_type: stddev\n",
        "weight_quant_scheme: original\nact_quant_scheme: modified\nstats_sharing: True\n",
        "profiling: False\nprofiling_only: True\nmodel_profiling_verbose: True\n",
        "profiling: [gpu, cpu]\nswitchbn: False\nrescale: False\nadaptive_training: False\n",
        "optimizer: rmsprop\noptim_decay: 0.9\noptim_eps: 0.001\nnesterov: False\n",
        "width_divisor: 8\nmin_width: 8\nstoch_valid: True\ndrop_last: True\n",
        "pretrained_model_remap_keys: True\nreset_parameters: False\nstart_epoch: 3\n",
        "start_epoch: null\nbn_calib: True\nresume: some/latest_checkpoint.pt\n",
        "lr_scheduler: exp_decaying\nexp_decaying_lr_gamma: 0.97\nexp_decaying_period: 2\n",
        "lr_scheduler: exp_decaying_iter\n",
        "lr_scheduler: multistep_iter\nmultistep_lr_milestones: [10, 20]\n",
        "dataset: CIFAR100\nnum_classes: 100\nbits_list: [32]\n",
        "dataset: CINIC10\ndata_transforms: cinic\ndata_loader: cinic\nbits_list: [[4, 8], 3]\n",
        "dataset: imagenet1k_val50k\ndata_transforms: imagenet1k_inception\n"
        "num_classes: 1000\nimage_size: 224\n",
        "test_only: True\nbatch_size_per_gpu: 32\nfp_pretrained_file: some/best_model.pt\n",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        Str text = {0};
        Config c;
        make_text(&text, &experiments[0]);
        str_puts(&text, more[i]);
        load(&c, more[i], text.s, NULL);
        dialect_check_keys(&c, more[i], text.s);
        config_free(&c);
        str_free(&text);
    }
}

/* Obsolete keys and repeated keys: one line each at -v. */
static void notes(void **state)
{
    static const char *const wanted[] = {
        "num_cpus_per_job: no effect: ", "memory_per_job: no effect: ",
        "gpu_type: no effect: ",         "bn_calib: no effect: ",
        "distributed: no effect: ",      "use_diff_seed: no effect: ",
        "data_loader: no effect: ",      "model was set in line ",
        "data_transforms was set in "};
    Config c;
    (void)state;
    load_experiment(&c, &experiments[1], NULL);
    dialect_check_notes(&c, wanted, ARRAY_LEN(wanted));
    config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file),
        cmocka_unit_test(large_batches),
        cmocka_unit_test(further_keys),
        cmocka_unit_test(notes),
    };
    return cmocka_run_group_tests(tests, make_file, drop_file);
}
