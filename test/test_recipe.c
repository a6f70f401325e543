/* test/test_recipe.c -- training recipes: mixup, summed batches, clipped gradients, frozen parameters,
 * rates of their own, and a run that is stopped after every update. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/ckpt.h"
#include "io/tensorfile.h"
#include "optim/optim.h"
#include "run/mixup.h"
#include "run/model.h"
#include "test/support/temp.h"
#include "test/support/tiny.h"

static char *root;

/* ---- mixup ---- */

static void beta_has_its_moments(void **state)
{
    static const double alphas[] = {0.01, 0.2, 0.7, 1, 4};
    enum { N = 20000 };
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(alphas); k++) {
        const double a = alphas[k], want = 1 / (4 * (2 * a + 1));
        Rng r = rng_stream(3, RNG_TEST, k, 0);
        double sum = 0, squares = 0, mean, var;
        for (int i = 0; i < N; i++) {
            const double x = draw_beta(&r, a);
            assert_true(x >= 0 && x <= 1);
            sum += x, squares += x * x;
        }
        mean = sum / N, var = squares / N - mean * mean;
        printf("Beta(%g, %g): mean %.4f (0.5), variance %.4f (%.4f)\n", a, a, mean, var, want);
        assert_true(fabs(mean - 0.5) < 4 * sqrt(want / N));
        assert_true(fabs(var - want) < 0.03 * want);
    }
}

enum { IMAGES = 8, PIXELS = 5, CLASSES = 4 };

static Batch numbered_batch(float *x, int32_t *label)
{
    for (int i = 0; i < IMAGES * PIXELS; i++) x[i] = (float)(i / PIXELS) + 0.1f * (float)(i % PIXELS);
    for (int i = 0; i < IMAGES; i++) label[i] = i % CLASSES;
    return (Batch){.x = x, .label = label, .n = IMAGES, .size = IMAGES, .epoch = 2, .number = 7};
}

static void mixup_blends_pairs(void **state)
{
    float x[IMAGES * PIXELS], seen[IMAGES * PIXELS];
    int32_t label[IMAGES];
    Batch b = numbered_batch(x, label);
    const Batch *m;
    Mixup mix, again;
    (void)state;
    mixup_init(&mix, 0.7, 5, CLASSES, PIXELS, IMAGES);
    mixup_init(&again, 0.7, 5, CLASSES, PIXELS, IMAGES);
    m = mixup_batch(&mix, &b);
    for (int i = 0; i < IMAGES; i++) {
        const uint32_t j = mix.order[i];
        const float *t = m->target + i * CLASSES;
        const float share = label[i] == label[j] ? -1 : t[label[i]];
        float sum = 0;
        for (int k = 0; k < CLASSES; k++) sum += t[k];
        assert_true(fabsf(sum - 1) < 1e-6f);
        if (share < 0) continue;
        assert_int_equal(m->label[i], share >= 0.5f ? label[i] : label[j]);
        for (int k = 0; k < PIXELS; k++)
            assert_true(fabsf(m->x[i * PIXELS + k] - share * x[i * PIXELS + k] -
                              (1 - share) * x[j * PIXELS + (uint32_t)k]) < 1e-5f);
    }
    memcpy(seen, m->x, sizeof seen);
    b.epoch = 3; /* another state in between */
    assert_memory_not_equal(mixup_batch(&again, &b)->x, seen, sizeof seen);
    b.epoch = 2;
    assert_memory_equal(mixup_batch(&again, &b)->x, seen, sizeof seen);
    mixup_free(&mix);
    mixup_free(&again);
}

/* The loss is linear in its targets, and so are the gradients. */
static void soft_targets_are_between_hard_ones(void **state)
{
    enum { N = 4, K = 10, PIX = 3 * 32 * 32 };
    static float x[N * PIX], target[N * K];
    const float share = 0.3f;
    int32_t label[2][N];
    double loss[3], worst = 0;
    float *grad[2];
    Config c;
    Model *m;
    Err e = {0};
    Rng r = rng_stream(1, RNG_TEST, 9, 0);
    Batch b = {.x = x, .n = N, .size = N, .target = target};
    ParamStore *ps;
    (void)state;
    tiny_load(&c, root, "none", NULL);
    c.net.num_classes = K, c.net.in_c = 3, c.net.in_h = c.net.in_w = 32;
    if (!(m = model_new(&c.net, &c.quant, 0.1, 1, &e))) fail_msg("%s", e.msg);
    ps = model_store(m);
    store_alloc_grads(ps);
    for (size_t i = 0; i < ARRAY_LEN(x); i++) x[i] = (float)rng_normal(&r);
    for (int i = 0; i < N; i++) {
        label[0][i] = i, label[1][i] = (3 * i + 1) % K;
        target[i * K + label[0][i]] += share;
        target[i * K + label[1][i]] += 1 - share;
    }
    for (int k = 0; k < 2; k++) {
        store_zero_grads(ps);
        assert_int_equal(model_train(m, 0, x, label[k], N, 0, &loss[k], NULL, &e), 0);
        grad[k] = memcpy(xmalloc(ps->n_grads * sizeof(float)), ps->grads, ps->n_grads * sizeof(float));
    }
    store_zero_grads(ps);
    assert_int_equal(model_train_batch(m, 0, &b, 0, &loss[2], NULL, &e), 0);
    for (size_t i = 0; i < ps->n_grads; i++)
        worst = fmax(worst, fabs((double)(share * grad[0][i] + (1 - share) * grad[1][i] - ps->grads[i])));
    printf("losses %.6f %.6f, of the blend %.6f; gradients off by %.2g at most\n", loss[0], loss[1], loss[2],
           worst);
    assert_true(fabs((double)share * loss[0] + (1 - (double)share) * loss[1] - loss[2]) < 1e-5);
    assert_true(worst < 1e-4);
    free(grad[0]);
    free(grad[1]);
    model_free(m);
    config_free(&c);
}

/* ---- the optimizer ---- */

static void gradients_are_clipped(void **state)
{
    ParamStore ps = {0};
    const int n = 50000;
    Param *a = store_add(&ps, PK_WEIGHT, DT_F32, (Init){INIT_CONST, 0, 0}, 1, &n, "a"),
          *b = store_scalar(&ps, PK_CLIP, 1, "b");
    (void)state;
    store_scalar(&ps, PK_BUFFER, 7, "c");
    store_alloc_grads(&ps);
    for (int i = 0; i < n; i++) ((float *)a->grad.data)[i] = 0.01f;
    *(float *)b->grad.data = 2;
    assert_true(fabs(gradient_norm(&ps) - 3) < 1e-6);
    gradient_clip(&ps, 3, 5); /* short enough */
    assert_true(*(float *)b->grad.data == 2);
    gradient_clip(&ps, 3, 1.5);
    assert_true(fabs(gradient_norm(&ps) - 1.5) < 1e-5);
    assert_true(fabsf(*(float *)b->grad.data - 1) < 1e-5f);
    store_free(&ps);
}

static void assert_near(double got, double want)
{
    if (fabs(got - want) > 1e-9 * fabs(want)) fail_msg("%.12g, expected %.12g", got, want);
}

static void rates_of_their_own(void **state)
{
    OptimOpts o = {.optimizer = "sgd", .lr_scheduler = "multistep", .lr = 0.1, .gamma = 0.1, .milestones = {2},
                   .nmilestones = 1, .num_epochs = 4, .custom_lr_list = {"clip", "quant_weight"}, .ncustom_lr = 2,
                   .custom_lr = 1e-3, .wakeup = 4, .weight_decay = 1e-4, .custom_decay_list = {"clip"},
                   .ncustom_decay = 1, .custom_decay = 0.02};
    ParamStore ps = {0};
    Optim op;
    Err e = {0};
    Param *w = store_scalar(&ps, PK_WEIGHT, 0, "conv.weight"), *f = store_scalar(&ps, PK_WEIGHT, 0, "fc.weight"),
          *clip = store_scalar(&ps, PK_CLIP, 0, "conv.quant.clip_val");
    (void)state;
    w->quantized = true;
    if (optim_init(&op, &o, &ps, &e)) fail_msg("%s", e.msg);
    for (int epoch = 0; epoch < 4; epoch += 2) {
        const double by = epoch < 2 ? 1 : 0.1;
        assert_near(optim_param_lr(&op, f, epoch), 0.1 * by);
        assert_near(optim_param_lr(&op, clip, epoch), 1e-3 * by);
        assert_near(optim_param_lr(&op, w, epoch), 1e-3); /* pinned */
    }
    assert_near(optim_decay(&op, clip), 0.02);
    assert_near(optim_decay(&op, f), 1e-4);
    o.custom_lr_compat = true; /* the schedule overwrites what is not pinned */
    assert_near(optim_param_lr(&op, clip, 2), 0.01);
    assert_near(optim_param_lr(&op, w, 2), 1e-3);
    o.custom_lr_compat = false;
    o.lr_min = 5e-4; /* a floor is a rate, not a share of one */
    op.schedule = schedule_find("cos");
    o.milestones[0] = 3;
    assert_near(optim_param_lr(&op, clip, 2), 5e-4 + 5e-4 * (1 + cos(M_PI * 2 / 3)) / 2);
    optim_wake(&op, 1);
    assert_near(optim_param_lr(&op, f, 0), 0.025);
    assert_near(optim_param_lr(&op, w, 0), 1e-3);
    optim_wake(&op, 4);
    assert_near(optim_param_lr(&op, f, 0), 0.1);
    optim_free(&op);
    store_free(&ps);
}

/* ---- whole runs ---- */

static TensorFile weights_of(const char *name)
{
    TensorFile f;
    Err e = {0};
    char *path = xasprintf("%s/%s/checkpoints/last.safetensors", root, name);
    if (safetensors_read(&f, path, &e)) fail_msg("%s", e.msg);
    free(path);
    return f;
}

/* The largest difference between two runs, over names that end so. */
static double difference(const char *a, const char *b, const char *end)
{
    TensorFile fa = weights_of(a), fb = weights_of(b);
    double worst = 0;
    int n = 0;
    for (int i = 0; i < fa.n; i++) {
        const Tensor *ta = &fa.v[i].t, *tb = tensors_find(&fb, fa.v[i].name);
        if (!str_ends(fa.v[i].name, end) || str_starts(fa.v[i].name, "optim.")) continue;
        assert_non_null(tb);
        n++;
        for (size_t k = 0; k < tensor_len(ta); k++)
            worst = fmax(worst, fabs((double)(((const float *)ta->data)[k] - ((const float *)tb->data)[k])));
    }
    assert_true(n > 0);
    tensors_free(&fa);
    tensors_free(&fb);
    return worst;
}

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Without batch statistics two halves of a batch are the batch: their gradients are summed, not averaged. */
static void summed_batches_are_one(void **state)
{
    double d, moved;
    (void)state;
    tiny_train(root, "one", KEYS("less_bn=true", "lr_scheduler=constant", "momentum=0", "nesterov=false", "weight_decay=0", "lr=2e-8", "synth_train=8", "num_epochs=1"));
    tiny_train(root, "two", KEYS("less_bn=true", "lr_scheduler=constant", "momentum=0", "nesterov=false", "weight_decay=0", "lr=1e-8", "synth_train=8", "num_epochs=1",
                                 "batch_size=4", "iter_size=2"));
    tiny_train(root, "frozen", KEYS("less_bn=true", "synth_train=8", "num_epochs=1", "freeze_steps=3"));
    d = difference("one", "two", ".weight");
    moved = difference("one", "frozen", ".weight");
    printf("weights moved by %.2g; those of whole batches and of halves differ by %.2g\n", moved, d);
    assert_true(moved > 0 && d < 1e-3 * moved);
    assert_true(difference("one", "frozen", "bn1.weight") == 0); /* less_bn: no norm moves at all */
    assert_true(difference("one", "frozen", "running_mean") == 0);
}

/* An epoch that is too short for one update would train nothing, without a word. */
static void too_few_batches_for_an_update(void **state)
{
    char *why = tiny_fault(root, "never", KEYS("synth_train=24", "batch_size=8", "iter_size=4"));
    (void)state;
    assert_non_null(why);
    assert_non_null(strstr(why, "command line: error: iter_size: an update sums 4 batches, and an epoch has 3"));
    free(why);
    why = tiny_fault(root, "once", KEYS("synth_train=24", "batch_size=8", "iter_size=3", "num_epochs=1"));
    assert_null(why);
}

static void frozen_parameters_see_statistics(void **state)
{
    (void)state;
    tiny_train(root, "still", KEYS("num_epochs=1", "freeze_epochs=1"));
    tiny_train(root, "still2", KEYS("num_epochs=1", "extra_epoch=1", "freeze_steps=6"));
    assert_true(difference("still", "still2", ".weight") == 0);
    assert_true(difference("still", "still2", "running_mean") > 0);
}

/* What every one of these keeps between two updates is in the checkpoint, or follows from the position:
 * trained to the end, and started again after each update, a net has the same bytes. */
static void stopped_after_every_update(void **state)
{
#define LSQ "wt_quant=lsq", "fm_quant=lsq", "wt_bit=3", "fm_bit=3"
    const struct {
        const char *what, *const *keys;
        int starts; /* at least */
    } rows[] = {
        {"everything at once",
         KEYS("iter_size=2", "grad_clip=1", "mixup_enable=true", "wakeup=3", "freeze_steps=2",
              "extra_epoch=1", "num_epochs=1", "label_smoothing=0.1", "optimizer=adam", "lr=0.01", LSQ, "stable=1",
              "policy={on init: [{by_index: all, progressive: true}], on epoch 1: [{by_index: all, by_tag: wt, "
              "level_num: -1}, {by_index: 3, enable: false}]}"),
         6},
        {"stable_epoch, less_bn", KEYS(LSQ, "stable_epoch=1", "fm_correlate=0.5", "less_bn=true", "lr=1e-3"), 6},
        {"a quantizer that is trained from the second epoch on",
         KEYS(LSQ, "optimizer=adam", "lr=0.01",
              "policy={on init: [{by_index: 3, enable: false}], on epoch 1: [{by_index: 3, enable: true}]}"),
         6},
        {"restarts behind a warm-up, blends, rates by name",
         KEYS(LSQ, "lr_scheduler=sgdr_step", "multistep_lr_milestones=1", "warmup_epochs=0.5", "lr_min=1e-3", "lr=0.05",
              "num_epochs=3", "proxquant=true", "proxquant_step=10", "custom_lr_list=[clip_val,quant_weight]",
              "custom_lr=1e-3", "custom_decay_list=[bn]", "param_groups=[{match: fc, lr: 0.02}]"),
         6},
        {"restarts by epoch, two decays", KEYS("lr_scheduler=poly", "multistep_lr_milestones=1", "poly_power=2", "num_epochs=3", "lr=0.05",
              "decay_small=false", "optimizer=rmsprop", "momentum=0.5", "mixup_enable=true"),
         6},
        {"a warm-up that ends while nothing else changes",
         KEYS("wt_quant=dorefa", "fm_quant=dorefa", "wt_bit=3", "fm_bit=3", "stable=4", "less_bn=true", "freeze_epochs=2"),
         6},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char whole[16], pieces[16], *a, *b;
        size_t na, nb;
        int starts;
        snprintf(whole, sizeof whole, "whole%zu", i), snprintf(pieces, sizeof pieces, "pieces%zu", i);
        tiny_train(root, whole, rows[i].keys);
        starts = tiny_train_in_pieces(root, pieces, rows[i].keys);
        a = tiny_file(root, whole, "checkpoints/last.safetensors", &na);
        b = tiny_file(root, pieces, "checkpoints/last.safetensors", &nb);
        printf("%s: %d starts, %zu bytes\n", rows[i].what, starts, na);
        if (starts < rows[i].starts || na != nb || memcmp(a, b, na))
            fail_msg("%s: %d starts, %zu and %zu bytes differ", rows[i].what, starts, na, nb);
        free(a);
        free(b);
    }
#undef LSQ
}

static int set_up(void **state)
{
    (void)state;
    return temp_begin(&root, "recipe");
}

static int tear_down(void **state)
{
    (void)state;
    return temp_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beta_has_its_moments),
        cmocka_unit_test(mixup_blends_pairs),
        cmocka_unit_test(soft_targets_are_between_hard_ones),
        cmocka_unit_test(gradients_are_clipped),
        cmocka_unit_test(rates_of_their_own),
        cmocka_unit_test(summed_batches_are_one),
        cmocka_unit_test(too_few_batches_for_an_update),
        cmocka_unit_test(frozen_parameters_see_statistics),
        cmocka_unit_test(stopped_after_every_update),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
