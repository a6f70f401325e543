/* test/bench.c -- `make bench`: images/s of training and evaluation beside the bare convolutions of
 * the same net, in one process.
 *
 * Bare convolutions: per convolution and direction the faster of the library's favourite format and
 * NHWC, same threads, reorders and the stem's backward-data excluded, minimum of 20 runs, summed.
 * Rounds of all candidates are interleaved, since the machine's speed drifts; minima are compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/exec.h"
#include "engine/par.h"
#include "optim/optim.h"
#include "run/model.h"

#define BATCH 128

typedef struct Case {
    const char *name;
    bool quant, power, fuse;
    Model *m;
    Optim op;
    double train, eval;       /* seconds per batch, minimum */
    double resident, planned; /* MB: growth of the peak by this model's first step and evaluation;
                                 activations alone */
} Case;

static void die(const Err *e)
{
    fprintf(stderr, "bench: %s\n", e->msg);
    exit(1);
}

static double peak_mb(void)
{
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    return (double)ru.ru_maxrss / 1024;
}

static ConvShape shape_of(const Unit *u, int batch)
{
    const ConvAttr *a = &u->u.conv;
    ConvShape s = {.n = batch,
                   .ic = u->ic,
                   .ih = u->ih,
                   .iw = u->iw,
                   .oc = u->c,
                   .oh = u->h,
                   .ow = u->w,
                   .k = a->k,
                   .stride = a->stride ? a->stride : 1,
                   .pad = a->pad,
                   .dilation = a->dilation ? a->dilation : 1,
                   .groups = a->groups ? a->groups : 1};
    return s;
}

/* Seconds of all convolutions of the net; fwd only, or all three directions. */
static void bare(const Spec *s, int batch, int reps, double *fwd, double *all)
{
    Err e = {0};
    Prim *p = prim_open(&e);
    if (!p) die(&e);
    *fwd = *all = 0;
    for (int i = 0; i < s->n; i++) {
        ConvShape c;
        if (s->u[i].kind != U_CONV) continue;
        c = shape_of(&s->u[i], batch);
        for (int d = CONV_FWD; d <= CONV_BWD_WEIGHTS; d++) {
            double t[2], best;
            if (d == CONV_BWD_DATA && (s->u[i].marks & UM_FIRST)) continue;
            for (int any = 0; any < 2; any++) {
                c.any = any;
                t[any] = prim_conv_time(p, (ConvDir)d, &c, reps);
            }
            best = t[0] < 0 || (t[1] >= 0 && t[1] < t[0]) ? t[1] : t[0];
            if (d == CONV_FWD) *fwd += best;
            *all += best;
        }
    }
    prim_close(p);
}

static void step(Case *c, const float *x, const int32_t *label, int64_t t)
{
    double loss;
    Err e = {0};
    store_zero_grads(model_store(c->m));
    if (model_train(c->m, 0, x, label, BATCH, t, &loss, NULL, &e) < 0) die(&e);
    optim_step(&c->op, model_store(c->m), 0);
    model_after_step(c->m);
}

int main(int argc, char **argv)
{
    static Case cases[] = {
        {.name = "float", .fuse = true},
        {.name = "uniform 4-bit", .quant = true, .fuse = true},
        {.name = "APoT 4-bit", .quant = true, .power = true, .fuse = true},
        {.name = "APoT 4-bit, unfused", .quant = true, .power = true},
    };
    const char *net = argc > 1 ? argv[1] : "resnet20";
    const int rounds = argc > 2 ? atoi(argv[2]) : 20;
    NetOpts no = {.model = net, .names = "", .num_classes = 10, .in_c = 3, .in_h = 32, .in_w = 32};
    OptimOpts oo = {.optimizer = "sgd",
                    .lr = 1e-4,
                    .momentum = 0.9,
                    .weight_decay = 1e-4,
                    .lr_scheduler = "constant",
                    .weight_decay_scheme = "all",
                    .num_epochs = 1};
    size_t image = (size_t)no.in_c * (size_t)no.in_h * (size_t)no.in_w;
    float *x = xaligned(BATCH * image * sizeof *x);
    int32_t label[BATCH];
    double fwd = -1, all = -1;
    char version[128];
    Err e = {0};
    Rng r = rng_stream(1, RNG_TEST, 0, 0);

    for (size_t i = 0; i < BATCH * image; i++) x[i] = (float)rng_normal(&r);
    for (int i = 0; i < BATCH; i++) label[i] = i % no.num_classes;
    printf("oneDNN %s; %d threads; %s, batch %d, %dx%d\n", prim_version(version, sizeof version),
           par_threads(), net, BATCH, no.in_h, no.in_w);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Case *c = &cases[i];
        const double before = peak_mb();
        double loss;
        QOpts q;
        qopts_default(&q);
        q.wt_quant = q.fm_quant = c->quant ? "apot" : "none";
        q.wt_bit = q.fm_bit = 4;
        q.quant_variant = "cifar";
        q.power = c->power;
        q.fuse = c->fuse;
        c->m = model_new(&no, &q, 0, 1, &e);
        if (!c->m || model_prepare(c->m, PH_TRAIN, 0, BATCH, &e) < 0 ||
            optim_init(&c->op, &oo, model_store(c->m), &e) < 0)
            die(&e);
        c->train = c->eval = -1;
        step(c, x, label, 0);
        if (model_eval(c->m, 0, x, label, BATCH, BATCH, &loss, NULL, &e) < 0) die(&e);
        c->resident = peak_mb() - before;
        c->planned = (double)model_arena_bytes(c->m) / (1 << 20);
    }
    for (int round = 0; round < rounds; round++) {
        double f, a;
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            double t0 = exec_now(), t1, t2, loss;
            step(&cases[i], x, label, round);
            t1 = exec_now();
            if (model_eval(cases[i].m, 0, x, label, BATCH, BATCH, &loss, NULL, &e) < 0) die(&e);
            /* weights changed: the first run packs them again, the second is timed */
            t2 = exec_now();
            if (model_eval(cases[i].m, 0, x, label, BATCH, BATCH, &loss, NULL, &e) < 0) die(&e);
            t2 = exec_now() - t2;
            if (round == 0) continue;
            if (cases[i].train < 0 || t1 - t0 < cases[i].train) cases[i].train = t1 - t0;
            if (cases[i].eval < 0 || t2 < cases[i].eval) cases[i].eval = t2;
        }
        if (round % 5) continue;
        bare(model_spec(cases[0].m), BATCH, 5, &f, &a);
        if (fwd < 0 || f < fwd) fwd = f;
        if (all < 0 || a < all) all = a;
    }
    printf("%-22s %11s %9s %7s   %10s %9s %7s   %9s %9s\n", "", "train img/s", "ms/step", "x bare",
           "eval img/s", "ms/batch", "x bare", "peak MB", "arena MB");
    printf("%-22s %11.0f %9.2f %7.2f   %10.0f %9.2f %7.2f\n", "bare convolutions", BATCH / all,
           all * 1e3, 1.0, BATCH / fwd, fwd * 1e3, 1.0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const Case *c = &cases[i];
        printf("%-22s %11.0f %9.2f %7.2f   %10.0f %9.2f %7.2f   %9.0f %9.0f\n", c->name,
               BATCH / c->train, c->train * 1e3, c->train / all, BATCH / c->eval, c->eval * 1e3,
               c->eval / fwd, c->resident, c->planned);
        optim_free(&cases[i].op);
        model_free(cases[i].m);
    }
    printf("peak MB: growth of the peak resident set by this model (the first one also loads "
           "oneDNN's code)\n");
    free(x);
    return 0;
}
