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
#include "quant/f8int.h"
#include "quant/intexec.h"
#include "run/model.h"
#include "test/bench.h"

#define MAX_BATCH 128

typedef struct Case {
    const char *name;
    void (*opts)(QOpts *o); /* NULL: float */
    int convs;              /* convolutions of a training step, in units of the bare ones */
    bool bf16;              /* beside the case of the same options before it */
    Model *m;
    Optim op;
    double train, eval;       /* seconds per batch, minimum */
    double resident, planned; /* MB: growth of the peak by this model's first step and evaluation;
                                 activations alone */
} Case;

static void uniform4(QOpts *o)
{
    o->wt_quant = o->fm_quant = "apot";
    o->wt_bit = o->fm_bit = 4;
    o->quant_variant = "cifar";
    o->power = false;
}

static void apot4(QOpts *o)
{
    uniform4(o);
    o->power = true;
}

static void apot4_unfused(QOpts *o)
{
    apot4(o);
    o->fuse = false;
}

static void f8_std(QOpts *o)
{
    o->wt_quant = o->fm_quant = "f8net";
    o->wt_bit = o->fm_bit = 8;
    o->f8.format_type = "per_layer";
    o->f8.format_from_metric = true;
    o->f8.image = true;
}

static void f8_grid(QOpts *o)
{
    f8_std(o);
    o->f8.format_from_metric = false;
    o->f8.format_grid_search = true;
}

/* Float with the norms folded into the convolutions outside training. */
static void folded(QOpts *o)
{
    f8_std(o);
    o->f8.floating_model = o->f8.floating_wo_clip = true;
    o->wt_bit = o->fm_bit = 32;
}

/* What `make bench NET=` offers. The integer net is that of the case `integers`, beside
 * `reference`. */
typedef struct Set {
    const char *name, *model;
    int depth, classes, size, batch, rounds;
    int integers, reference; /* cases, -1: none */
    int int_batch[3];        /* ended by 0 */
    Case cases[6];
    int ncases;
} Set;

static Set sets[] = {
    {"resnet20",
     "resnet20",
     0,
     10,
     32,
     128,
     20,
     -1,
     -1,
     {0},
     {{.name = "float", .convs = 1},
      {.name = "uniform 4-bit", .opts = uniform4, .convs = 1},
      {.name = "APoT 4-bit", .opts = apot4, .convs = 1},
      {.name = "APoT 4-bit, unfused", .opts = apot4_unfused, .convs = 1},
      {.name = "float, bf16", .convs = 1, .bf16 = true},
      {.name = "APoT 4-bit, bf16", .opts = apot4, .convs = 1, .bf16 = true}},
     6},
    {"resnet18",
     "models.fix_resnet",
     18,
     1000,
     224,
     32,
     5,
     1,
     3,
     {8, 32, 0},
     {{.name = "float", .convs = 1},
      {.name = "F8Net, deviation", .opts = f8_std, .convs = 2},
      {.name = "F8Net, grid search", .opts = f8_grid, .convs = 2},
      {.name = "float, norms folded", .opts = folded, .convs = 2},
      {.name = "float, bf16", .convs = 1, .bf16 = true}},
     5},
};

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

static void step(Case *c, const float *x, const int32_t *label, int batch, int64_t t)
{
    double loss;
    Err e = {0};
    store_zero_grads(model_store(c->m));
    if (model_train(c->m, 0, x, label, batch, t, &loss, NULL, &e) < 0) die(&e);
    optim_step(&c->op, model_store(c->m), 0);
    model_after_step(c->m);
}

static double evaluate(Case *c, const float *x, const int32_t *label, int batch)
{
    const double t0 = exec_now();
    double loss;
    Err e = {0};
    if (model_eval(c->m, 0, x, label, batch, batch, &loss, NULL, &e) < 0) die(&e);
    return exec_now() - t0;
}

static void open_case(const Set *set, Case *c, const float *x, const int32_t *label)
{
    const NetOpts no = {.model = set->model,
                        .names = "",
                        .depth = set->depth,
                        .num_classes = set->classes,
                        .in_c = 3,
                        .in_h = set->size,
                        .in_w = set->size};
    const OptimOpts oo = {.optimizer = "sgd",
                          .lr = 1e-20, /* fresh nets on noise: clip levels would run away */
                          .momentum = 0.9,
                          .weight_decay = 1e-4,
                          .lr_scheduler = "constant",
                          .weight_decay_scheme = "all",
                          .num_epochs = 1};
    const double before = peak_mb();
    QOpts q;
    Err e = {0};
    qopts_default(&q);
    if (c->opts) c->opts(&q);
    q.bf16 = c->bf16;
    c->m = model_new(&no, &q, 0, 1, &e);
    if (!c->m || model_prepare(c->m, PH_TRAIN, 0, set->batch, &e) < 0 ||
        optim_init(&c->op, &oo, model_store(c->m), &e) < 0)
        die(&e);
    c->train = c->eval = -1;
    step(c, x, label, set->batch, 0);
    evaluate(c, x, label, set->batch);
    c->resident = peak_mb() - before;
    c->planned = (double)model_arena_bytes(c->m) / (1 << 20);
}

static void least(double *best, double t)
{
    if (*best < 0 || t < *best) *best = t;
}

/* The net of whole numbers and the float net it stands against, in turns. */
static void bench_integers(const Set *set, Case *of, Case *beside, const float *x,
                           const int32_t *label, int batch)
{
    IntNet net;
    IntExec *exec;
    double unit, ints = -1, floats = -1;
    int32_t *logits = xcalloc((size_t)batch * (size_t)set->classes, sizeof *logits);
    const size_t image = 3 * (size_t)set->size * (size_t)set->size;
    unsigned char *bytes = xaligned((size_t)batch * image);
    Prim *p;
    Err e = {0};
    p = prim_open(&e);
    if (!p || f8int_build(model_qplan(of->m), true, &net, &unit, &e)) die(&e);
    exec = intexec_new(&net, batch, p, &e);
    if (!exec) die(&e);
    f8int_image(&net, x, (size_t)batch * image, bytes);
    for (int r = 0; r < 4 * set->rounds; r++) {
        const double t0 = exec_now();
        intexec_run(exec, bytes, batch, logits);
        least(&ints, exec_now() - t0);
        least(&floats, evaluate(beside, x, label, batch));
    }
    printf("batch %2d: whole numbers %6.0f img/s, %s %6.0f img/s: %.2f x   (%s)\n", batch,
           batch / ints, beside->name, batch / floats, floats / ints, intexec_how(exec));
    intexec_free(exec);
    intnet_free(&net);
    prim_close(p);
    free(logits);
    free(bytes);
}

static void adabits(QOpts *o)
{
    static const int bits[] = {5, 4, 3};
    o->wt_quant = o->fm_quant = "adabits";
    o->nbits_list = (int)ARRAY_LEN(bits);
    for (int i = 0; i < o->nbits_list; i++) o->bits_list[i] = bits[i];
    o->switch_alpha = o->rescale_conv = true;
    o->weight_quant_scheme = "centered";
}

/* Seconds of a training step at `n` widths from `first` on. */
static double widths_step(Case *c, const float *x, const int32_t *label, int batch, int first,
                          int n)
{
    const double t0 = exec_now();
    double loss;
    Err e = {0};
    store_zero_grads(model_store(c->m));
    for (int k = first; k < first + n; k++)
        if (model_train(c->m, k, x, label, batch, 0, &loss, NULL, &e) < 0) die(&e);
    optim_step(&c->op, model_store(c->m), 0);
    model_after_step(c->m);
    return exec_now() - t0;
}

/* One step at all widths against one step at each. */
static void bench_joint(const Set *set, const float *x, const int32_t *label)
{
    enum { WIDTHS = 3 };
    Case c = {.name = "AdaBits 5, 4, 3 bits", .opts = adabits, .convs = 1};
    double joint = -1, single[WIDTHS], sum = 0;
    open_case(set, &c, x, label);
    for (int k = 0; k < WIDTHS; k++) single[k] = -1;
    for (int r = 0; r < set->rounds; r++) {
        for (int k = 0; k < WIDTHS; k++)
            least(&single[k], widths_step(&c, x, label, set->batch, k, 1));
        least(&joint, widths_step(&c, x, label, set->batch, 0, WIDTHS));
    }
    for (int k = 0; k < WIDTHS; k++) sum += single[k];
    printf("%s: joint step %.1f ms, sum of the single ones %.1f ms: %.3f x\n", c.name, joint * 1e3,
           sum * 1e3, joint / sum);
    optim_free(&c.op);
    model_free(c.m);
}

/* Each bf16 case beside the float arithmetic of the same net. */
static void print_bf16(const Set *set)
{
    for (int i = 0; i < set->ncases; i++) {
        const Case *c = &set->cases[i], *f = set->cases;
        if (!c->bf16) continue;
        while (f->opts != c->opts) f++;
        printf("%s: training %.2f x float's speed, evaluation %.2f x\n", c->name,
               f->train / c->train, f->eval / c->eval);
    }
}

static Set *set_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        if (str_eq(sets[i].name, name)) return &sets[i];
    fprintf(stderr, "bench: no net '%s'; expected", name);
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) fprintf(stderr, " %s", sets[i].name);
    fprintf(stderr, " fat quant\n");
    exit(2);
}

static int bench_net(int argc, char **argv)
{
    Set *set = set_find(argc > 1 ? argv[1] : "resnet20");
    const int rounds = argc > 2 ? atoi(argv[2]) : set->rounds, batch = set->batch;
    const size_t image = 3 * (size_t)set->size * (size_t)set->size, n = (size_t)batch * image;
    float *x = xaligned(n * sizeof *x);
    int32_t label[MAX_BATCH];
    double fwd = -1, all = -1;
    char version[128];
    Rng r = rng_stream(1, RNG_TEST, 0, 0);

    for (size_t i = 0; i < n; i++) x[i] = (float)rng_range(&r, 0, 1);
    for (int i = 0; i < batch; i++) label[i] = i % set->classes;
    printf("oneDNN %s; %d threads; %s, batch %d, %dx%d\n", prim_version(version, sizeof version),
           par_threads(), set->name, batch, set->size, set->size);
    for (int i = 0; i < set->ncases; i++) open_case(set, &set->cases[i], x, label);
    for (int round = 0; round < rounds; round++) {
        double f, a;
        for (int i = 0; i < set->ncases; i++) {
            Case *c = &set->cases[i];
            const double t0 = exec_now();
            step(c, x, label, batch, round);
            least(&c->train, exec_now() - t0);
            /* weights changed: the first run packs them again, the second is timed */
            evaluate(c, x, label, batch);
            least(&c->eval, evaluate(c, x, label, batch));
        }
        if (round % 5 && set->size < 100) continue;
        bare(model_spec(set->cases[0].m), batch, set->size < 100 ? 5 : 2, &f, &a);
        least(&fwd, f);
        least(&all, a);
    }
    printf("%-22s %11s %9s %7s   %10s %9s %7s   %9s %9s\n", "", "train img/s", "ms/step", "x bare",
           "eval img/s", "ms/batch", "x bare", "peak MB", "arena MB");
    printf("%-22s %11.1f %9.2f %7.2f   %10.0f %9.2f %7.2f\n", "bare convolutions", batch / all,
           all * 1e3, 1.0, batch / fwd, fwd * 1e3, 1.0);
    for (int i = 0; i < set->ncases; i++) {
        const Case *c = &set->cases[i];
        printf("%-22s %11.1f %9.2f %7.2f   %10.0f %9.2f %7.2f   %9.0f %9.0f", c->name,
               batch / c->train, c->train * 1e3, c->train / all, batch / c->eval, c->eval * 1e3,
               c->eval / fwd, c->resident, c->planned);
        if (c->convs > 1)
            printf("   training convolves %d times: %.2f x", c->convs, c->train / all / c->convs);
        printf("\n");
    }
    print_bf16(set);
    if (set->integers < 0) bench_joint(set, x, label);
    for (int i = 0; set->integers >= 0 && set->int_batch[i]; i++)
        bench_integers(set, &set->cases[set->integers], &set->cases[set->reference], x, label,
                       set->int_batch[i]);
    for (int i = 0; i < set->ncases; i++) {
        optim_free(&set->cases[i].op);
        model_free(set->cases[i].m);
    }
    printf("peak MB: growth of the peak resident set by this model (the first one also loads "
           "oneDNN's code)\n");
    free(x);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && str_eq(argv[1], "fat"))
        bench_fat(argc > 2 ? atoi(argv[2]) : 0);
    else if (argc > 1 && str_eq(argv[1], "quant"))
        bench_quant();
    else
        return bench_net(argc, argv);
    return 0;
}
