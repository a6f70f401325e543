/* test/bench_quant.c -- see bench.h. 16 M elements at 4 bits (1 or 8 where a method has no 4); 8
 * bytes an element forward, 12 backward, beside a copy and a sum of two maps by the same loops.
 * Least of several times, quantizers in turns with the memory, since the machine's speed drifts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/exec.h"
#include "engine/par.h"
#include "quant/quant.h"
#include "test/bench.h"

enum { LEN = 1 << 24, ROUNDS = 5 };

typedef struct Maps {
    float *x, *y, *dy, *dx;
} Maps;

typedef struct Trial {
    const QMethod *m;
    QRole role;
    int bits;
    QInst q;
    QOpts o;
    ParamStore ps;
    double fwd, bwd; /* seconds, least */
} Trial;

static void least(double *best, double t)
{
    if (*best < 0 || t < *best) *best = t;
}

static bool elementwise(const QFn *f)
{
    return f->row && !f->forward && !f->backward;
}

static void options(QOpts *o, const QMethod *m, int bits)
{
    qopts_default(o);
    o->wt_quant = o->fm_quant = m->name;
    o->wt_bit = o->fm_bit = bits;
    o->quant_variant = m->role[Q_ACT] && str_starts(m->name, "apot") ? "cifar" : "";
    if (str_starts(m->name, "fat")) o->power = false;
}

static bool open_trial(Trial *t, const QMethod *m, QRole role)
{
    static const int bits[] = {4, 1, 8};
    const int weight[4] = {1024, 1024, 4, 4}, map[3] = {256, 256, 256};
    if (!m->role[role]) return false;
    for (size_t i = 0; i < ARRAY_LEN(bits); i++) {
        Param *w = NULL;
        Err e = {0};
        memset(t, 0, sizeof *t);
        t->m = m, t->role = role, t->bits = bits[i], t->fwd = t->bwd = -1;
        options(&t->o, m, bits[i]);
        if (role == Q_WEIGHT)
            w = store_add(&t->ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, 4, weight, "weight");
        if (!qinst_init(&t->q, m, role, bits[i], 0, &t->o, &t->ps, w, 0, role == Q_WEIGHT ? 4 : 3,
                        role == Q_WEIGHT ? weight : map, "", &e) &&
            t->q.enabled) {
            store_init(&t->ps, 1);
            store_alloc_grads(&t->ps);
            return true;
        }
        store_free(&t->ps);
    }
    return false;
}

static Tensor tensor_of(const Trial *t, float *data)
{
    const int weight[4] = {1024, 1024, 4, 4}, map[4] = {1, 256, 256, 256};
    Tensor x = tensor_make(DT_F32, 4, t->role == Q_WEIGHT ? weight : map, data);
    if (t->role != Q_WEIGHT) x.layout = LY_NHWC;
    return x;
}

static void run_trial(Trial *t, const Maps *m)
{
    Tensor x = tensor_of(t, m->x), y = tensor_of(t, m->y), dy = tensor_of(t, m->dy),
           dx = tensor_of(t, m->dx);
    size_t save, scratch;
    double aux = 0;
    QCtx c = {.phase = PH_TRAIN, .aux_loss = &aux, .want_dx = true};
    qinst_need(&t->q, &x, PH_TRAIN, &save, &scratch);
    c.save = xaligned(save + 64);
    c.scratch = xaligned(scratch + 64);
    for (int r = 0; r <= ROUNDS; r++) {
        const double t0 = exec_now();
        double t1;
        qinst_forward(&t->q, &x, &y, &c);
        t1 = exec_now();
        qinst_backward(&t->q, &x, &dy, &dx, &c);
        if (!r) continue; /* the first touches the memory */
        least(&t->fwd, t1 - t0);
        least(&t->bwd, exec_now() - t1);
    }
    free(c.save);
    free(c.scratch);
}

/* GB/s of a copy, and of a sum of two maps. */
static void memory(const Maps *m, double *copy, double *sum)
{
    for (int r = 0; r < ROUNDS; r++) {
        double t0 = exec_now(), t1;
        PARALLEL_FOR(k, par_chunks(LEN))
        {
            const size_t at = (size_t)k * PAR_CHUNK;
            SIMD_FOR(i, PAR_CHUNK) m->y[at + i] = m->x[at + i];
        }
        t1 = exec_now();
        *copy = 8e-9 * LEN / (t1 - t0) > *copy ? 8e-9 * LEN / (t1 - t0) : *copy;
        PARALLEL_FOR(k, par_chunks(LEN))
        {
            const size_t at = (size_t)k * PAR_CHUNK;
            SIMD_FOR(i, PAR_CHUNK) m->dx[at + i] = m->x[at + i] + m->dy[at + i];
        }
        t0 = exec_now();
        *sum = 12e-9 * LEN / (t0 - t1) > *sum ? 12e-9 * LEN / (t0 - t1) : *sum;
    }
}

static void print_group(const char *title, const Trial *t, int n, bool rows, double band)
{
    static const char *const role[Q_NROLES] = {"weights", "activations", "outputs"};
    printf("%s\n%-14s %-12s %4s %14s %14s %10s\n", title, "method", "of", "bits", "forward GB/s",
           "backward GB/s", "of memory");
    for (int i = 0; i < n; i++) {
        double both;
        if (elementwise(t[i].q.fn) != rows) continue;
        both = 20e-9 * LEN / (t[i].fwd + t[i].bwd);
        printf("%-14s %-12s %4d %14.2f %14.2f %10.2f%s\n", t[i].m->name, role[t[i].role], t[i].bits,
               8e-9 * LEN / t[i].fwd, 12e-9 * LEN / t[i].bwd, both / band,
               rows && both < band / 2 ? "   below half" : "");
    }
}

void bench_quant(void)
{
    Maps m = {xaligned(LEN * sizeof(float)), xaligned(LEN * sizeof(float)),
              xaligned(LEN * sizeof(float)), xaligned(LEN * sizeof(float))};
    Trial *t = xcalloc(128, sizeof *t);
    double copy = 0, sum = 0, band;
    int n = 0;
    Rng r = rng_stream(1, RNG_TEST, 0, 0);
    for (size_t i = 0; i < LEN; i++) {
        m.x[i] = (float)rng_range(&r, -1, 1);
        m.dy[i] = 1e-3f * m.x[i];
    }
    memset(m.y, 0, LEN * sizeof(float));
    memset(m.dx, 0, LEN * sizeof(float));
    memory(&m, &copy, &sum);
    for (int i = 0; quant_methods[i]; i++)
        for (int role = Q_WEIGHT; role < Q_NROLES && n < 128; role++)
            if (open_trial(&t[n], quant_methods[i], (QRole)role)) {
                if (t[n].q.owner) /* some read the weight itself */
                    memcpy(t[n].q.owner->value.data, m.x, LEN * sizeof(float));
                run_trial(&t[n], &m);
                memory(&m, &copy, &sum);
                if (t[n].q.fault) printf("%s: %s\n", t[n].m->name, t[n].q.fault);
                n++;
            }
    band = 20 / (8 / copy + 12 / sum);
    printf("%d elements, %d threads; memory: copy %.1f GB/s, sum of two maps %.1f GB/s\n", LEN,
           par_threads(), copy, sum);
    print_group("elementwise (wanted: half of the memory's speed)", t, n, true, band);
    print_group("of whole tensors: statistics, tanh, fits, transforms", t, n, false, band);
    for (int i = 0; i < n; i++) {
        qinst_free(&t[i].q);
        store_free(&t[i].ps);
    }
    free(t);
    free(m.x), free(m.y), free(m.dy), free(m.dx);
}
