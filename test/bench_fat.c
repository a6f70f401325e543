/* test/bench_fat.c -- see bench.h. A step (forward, backward, update) and the transforms of all its
 * layers by turns, in one process; minima. */
#include "test/bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/exec.h"
#include "engine/par.h"
#include "optim/optim.h"
#include "quant/fat.h"
#include "quant/qplan.h"
#include "run/model.h"

typedef struct Net {
    const char *model, *variant;
    int classes, size, batch, rounds;
    double limit; /* share of the step in per cent that is asked for; 0: none */
} Net;

static const Net nets_timed[] = {
    {"resnet_20", "cifar", 10, 32, 128, 20, 5},
    {"vgg_7_bn", "cifar", 10, 32, 128, 5, 0},
    {"resnet_18", "imagenet", 1000, 224, 32, 4, 15},
};

/* The transform of one layer, with memory of its own. */
typedef struct Layer {
    Fat fat;
    Param *transform;
    float *x, *y, *dt, *save, *scratch;
} Layer;

static void die(const Err *e)
{
    fprintf(stderr, "bench: %s\n", e->msg);
    exit(1);
}

static Model *open_model(const Net *net)
{
    const NetOpts no = {.model = net->model,
                        .names = "",
                        .num_classes = net->classes,
                        .in_c = 3,
                        .in_h = net->size,
                        .in_w = net->size};
    QOpts q;
    Err e = {0};
    Model *m;
    qopts_default(&q);
    q.wt_quant = q.fm_quant = "fat";
    q.wt_bit = q.fm_bit = 4;
    q.quant_variant = net->variant;
    q.power = false;
    m = model_new(&no, &q, 0, 1, &e);
    if (!m) die(&e);
    return m;
}

static int open_layers(Model *m, Layer *l)
{
    const QPlan *qp = model_qplan(m);
    int n = 0;
    for (int i = 0; i < qp->spec->n; i++) {
        const QInst *q = qplan_get(qp, i, Q_WEIGHT, 0);
        size_t len;
        if (!q || q->np < 2 || q->p[1]->value.ndim != 2) continue;
        len = tensor_len(&q->owner->value);
        fat_init(&l[n].fat, q->shape[0], (int)(len / (size_t)q->shape[0]));
        l[n].transform = q->p[1];
        l[n].x = xaligned(len * sizeof(float));
        for (size_t k = 0; k < len; k++) l[n].x[k] = 10 * ((const float *)q->owner->value.data)[k];
        l[n].y = xaligned(len * sizeof(float));
        l[n].dt = xcalloc(tensor_len(&q->p[1]->value), sizeof(float));
        l[n].save = xaligned(fat_save_len(&l[n].fat) * sizeof(float));
        l[n].scratch = xaligned(fat_scratch_len(&l[n].fat) * sizeof(float));
        n++;
    }
    return n;
}

static void close_layers(Layer *l, int n)
{
    for (int i = 0; i < n; i++) {
        fat_free(&l[i].fat);
        free(l[i].x), free(l[i].y), free(l[i].dt), free(l[i].save), free(l[i].scratch);
    }
}

/* Seconds of all transforms, forward, and backward in *bwd. */
static double transforms(Layer *l, int n, double *bwd)
{
    double fwd = 0;
    *bwd = 0;
    for (int i = 0; i < n; i++) {
        const float *t = l[i].transform->value.data;
        const double t0 = exec_now();
        double t1;
        fat_forward(&l[i].fat, t, l[i].x, l[i].y, l[i].save, l[i].scratch);
        t1 = exec_now();
        fat_backward(&l[i].fat, t, l[i].save, l[i].y, l[i].y, l[i].dt, l[i].scratch);
        fwd += t1 - t0;
        *bwd += exec_now() - t1;
    }
    return fwd;
}

static double step(Model *m, Optim *op, const float *x, const int32_t *label, int batch)
{
    const double t0 = exec_now();
    double loss;
    Err e = {0};
    store_zero_grads(model_store(m));
    if (model_train(m, 0, x, label, batch, 0, &loss, NULL, &e)) die(&e);
    optim_step(op, model_store(m), 0);
    model_after_step(m);
    return exec_now() - t0;
}

static void least(double *best, double t)
{
    if (*best < 0 || t < *best) *best = t;
}

static void time_net(const Net *net, int rounds)
{
    const OptimOpts oo = {.optimizer = "sgd",
                          .lr = 1e-4,
                          .momentum = 0.9,
                          .lr_scheduler = "constant",
                          .weight_decay_scheme = "all",
                          .num_epochs = 1};
    const size_t n = (size_t)net->batch * 3 * (size_t)net->size * (size_t)net->size;
    float *x = xaligned(n * sizeof *x);
    int32_t *label = xcalloc((size_t)net->batch, sizeof *label);
    Model *m = open_model(net);
    Optim op;
    Layer layer[64];
    Rng r = rng_stream(1, RNG_TEST, 0, 0);
    double whole = -1, forward = -1, backward = -1, both = -1;
    Err e = {0};
    const int layers = open_layers(m, layer);
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_range(&r, 0, 1);
    for (int i = 0; i < net->batch; i++) label[i] = i % net->classes;
    if (model_prepare(m, PH_TRAIN, 0, net->batch, &e) || optim_init(&op, &oo, model_store(m), &e))
        die(&e);
    for (int k = 0; k <= rounds; k++) {
        const double took = step(m, &op, x, label, net->batch);
        double f, b;
        if (k) least(&whole, took); /* the first packs and warms */
        for (int again = 0; again < 3; again++) {
            f = transforms(layer, layers, &b);
            least(&forward, f);
            least(&backward, b);
            least(&both, f + b);
        }
    }
    printf("%-10s %5d %6d %10.2f %10.2f %9.2f %9.2f %7.2f %%", net->model, net->batch, layers,
           whole * 1e3, both * 1e3, forward * 1e3, backward * 1e3, 100 * both / whole);
    if (net->limit > 0) printf("  at most %g %%", net->limit);
    printf("\n");
    fflush(stdout); /* the next net takes a while */
    close_layers(layer, layers);
    optim_free(&op);
    model_free(m);
    free(x);
    free(label);
}

void bench_fat(int rounds)
{
    printf(
        "FAT's spectral mask of all layers beside a step of training (forward, backward, update), "
        "%d threads.\nLeast of several times, in ms; the share asks for an idle machine.\n\n",
        par_threads());
    printf("%-10s %5s %6s %10s %10s %9s %9s %9s  %s\n", "net", "batch", "layers", "step (ms)",
           "mask (ms)", "forward", "backward", "share", "asked for");
    for (size_t i = 0; i < ARRAY_LEN(nets_timed); i++)
        time_net(&nets_timed[i], rounds > 0 ? rounds : nets_timed[i].rounds);
}
