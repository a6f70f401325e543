/* test/test_random_nets.c -- random nets, with quantizers at random units, lowered in every way there is.
 *
 * Of each net: storage shared by the plan or a place of its own for every block: the same bytes (logits, gradients, running
 * statistics); fused or one op at a time: the same bytes in evaluation, nearly the same numbers in training (smooth quantizers: a
 * level that flips is no small difference). The arena is full of NaN before each pass, and the quantizers of this file fill their
 * scratch with it, so that whatever reads a place it does not own is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"
#include "quant/lower.h"

enum { NETS = 120, BATCH = 4, CLASSES = 5, MAX_READERS = 6 };

/* ---- two smooth methods ---- */

/* y = a tanh(x / a), a learned: elementwise, with a sum. */
static int soft_init(QInst *q, ParamStore *ps, Err *e)
{
    (void)e;
    q->p[q->np++] = store_scalar(ps, PK_CLIP, 1.5f, "%ssoft%d", q->name, (int)q->role);
    return 0;
}

static void soft_begin(QInst *q, const QCtx *c)
{
    (void)c;
    *(float *)q->priv = param_scalar(q->p[0]);
}

static void soft_row(const QInst *q, const float *x, float *y, size_t n)
{
    const float a = *(const float *)q->priv;
    for (size_t i = 0; i < n; i++) y[i] = a * tanhf(x[i] / a);
}

static void soft_row_bwd(const QInst *q, const float *x, const float *dy, float *dx, size_t n, double *acc)
{
    const float a = *(const float *)q->priv;
    for (size_t i = 0; i < n; i++) {
        const float t = tanhf(x[i] / a), slope = 1 - t * t, d = dy[i];
        acc[0] += (double)(d * (t - x[i] / a * slope));
        if (dx) dx[i] = d * slope;
    }
}

static void soft_end(QInst *q, const double *acc)
{
    *(float *)q->p[0]->grad.data += (float)acc[0];
}

/* y = x (1 + s), s = m / (1 + m) / 5, m = mean of x^2: needs the whole tensor, saves m, uses scratch. */
#define SCRATCH 1000

static void whole_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    (void)q, (void)x, (void)ph;
    *save = sizeof(float);
    *scratch = SCRATCH;
}

static void whole_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const float *u = x->data;
    float *v = y->data, m;
    size_t n = tensor_len(x);
    double sum = 0;
    (void)q;
    memset(c->scratch, 0xFF, SCRATCH);
    for (size_t i = 0; i < n; i++) sum += (double)u[i] * (double)u[i];
    m = (float)(sum / (double)n);
    *(float *)c->save = m;
    for (size_t i = 0; i < n; i++) v[i] = u[i] * (1 + m / (1 + m) / 5);
}

static void whole_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const float *u = x->data, *d = dy->data, m = *(const float *)c->save;
    float *v = dx ? dx->data : NULL, k;
    size_t n = tensor_len(x);
    double dot = 0;
    (void)q;
    memset(c->scratch, 0xFF, SCRATCH);
    for (size_t i = 0; i < n; i++) dot += (double)d[i] * (double)u[i];
    k = (float)(dot * 2 / (double)n / 5) / ((1 + m) * (1 + m));
    assert_true(v != d); /* only row_bwd may be given dx = dy */
    for (size_t i = 0; v && i < n; i++) v[i] = d[i] * (1 + m / (1 + m) / 5) + u[i] * k;
}

static const QFn soft = {.priv_size = sizeof(float), .nacc = 1, .init = soft_init, .begin = soft_begin, .row = soft_row,
                         .row_bwd = soft_row_bwd, .end = soft_end};
static const QFn whole = {.need = whole_need, .forward = whole_forward, .backward = whole_backward};
static const QMethod m_soft = {.name = "soft", .doc = "", .role = {&soft, &soft, &soft}};
static const QMethod m_whole = {.name = "whole", .doc = "", .role = {&whole, &whole, &whole}};
static const QMethod *const methods[] = {&m_soft, &m_whole, NULL};

/* ---- random nets ---- */

static bool chance(Rng *r, double p)
{
    return rng_uniform(r) < p;
}

static int readers(const Spec *s, int u)
{
    int n = 0;
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->u[i].nin; k++) n += s->u[i].in[k] == u;
    return n;
}

/* Mostly the last unit, now and then any earlier one. */
static int source(const Spec *s, Rng *r)
{
    for (int t = 0; t < 20 && chance(r, 0.35); t++) {
        int u = (int)rng_below(r, (uint32_t)s->n);
        if (readers(s, u) < MAX_READERS) return u;
    }
    return s->n - 1;
}

/* Another unit of the shape of x, or -1. */
static int like(const Spec *s, Rng *r, int x)
{
    for (int t = 0; t < 40; t++) {
        int u = (int)rng_below(r, (uint32_t)s->n);
        if (s->u[u].c == s->u[x].c && s->u[u].h == s->u[x].h && s->u[u].w == s->u[x].w && readers(s, u) < MAX_READERS) return u;
    }
    return -1;
}

static int add_conv(Spec *s, Rng *r, int x)
{
    static const int channels[] = {4, 6, 8, 16};
    const Unit *u = &s->u[x];
    ConvAttr a = {.oc = chance(r, 0.6) ? u->c : channels[rng_below(r, 4)], .k = chance(r, 0.5) && u->h > 2 ? 3 : 1};
    a.pad = a.k / 2;
    a.stride = u->h > 3 && chance(r, 0.15) ? 2 : 1;
    a.bias = chance(r, 0.3);
    if (chance(r, 0.2) && u->c % 2 == 0 && a.oc % 2 == 0) a.groups = 2;
    a.init = (Init){INIT_NORMAL, 0.02f, (float)sqrt(1.5 / (u->c * a.k * a.k))};
    x = spec_conv(s, x, a, "u%d", s->n);
    if (chance(r, 0.25)) spec_mark(s, x, UM_NO_QUANT);
    return x;
}

static int add_norm(Spec *s, Rng *r, int x)
{
    static const NormKind kinds[] = {NK_FROZEN, NK_STATIC, NK_GROUP, NK_INSTANCE, NK_REVERSE};
    NormAttr a = {.kind = chance(r, 0.75) ? NK_BATCH : kinds[rng_below(r, ARRAY_LEN(kinds))], .eps = 1e-2f, .momentum = 0.1f,
                  .affine = chance(r, 0.8), .weight_init = 0.9f};
    a.groups = s->u[x].c % 2 ? 1 : 2;
    return spec_norm(s, x, a, "u%d", s->n);
}

static int add_act(Spec *s, Rng *r, int x)
{
    static const ActKind kinds[] = {AK_RELU, AK_RELU, AK_RELU, AK_RELU6, AK_LEAKY, AK_PRELU, AK_NONE};
    return spec_act(s, x, (ActAttr){.kind = kinds[rng_below(r, ARRAY_LEN(kinds))], .slope = 0.2f}, "u%d", s->n);
}

static int add_sum(Spec *s, Rng *r, int x)
{
    int y = like(s, r, x);
    if (y < 0) return x;
    return chance(r, 0.5) ? spec_add(s, x, y) : spec_add(s, y, x);
}

static void add_piece(Spec *s, Rng *r, bool dropout)
{
    int x = source(s, r), h = s->u[x].h;
    switch (rng_below(r, 22)) {
    case 0:
        if (h > 3) spec_pool(s, x, (PoolAttr){chance(r, 0.5) ? POOL_MAX : POOL_AVG, 3, 2, 1, chance(r, 0.5), chance(r, 0.5)});
        break;
    case 1:
        spec_scale(s, x, 1.2f, "u%d", s->n);
        break;
    case 2:
        spec_shift(s, x, 0.1f, "u%d", s->n);
        break;
    case 3:
        if (h < 6) spec_pad(s, x, 1, 0, 2, 1);
        break;
    case 4:
        if (h % 2 == 0 && s->u[x].w % 2 == 0 && s->u[x].c <= 8) spec_space_to_depth(s, x, 2);
        break;
    case 5:
        if (s->u[x].c % 4 == 0 && h <= 4) spec_depth_to_space(s, x, 2);
        break;
    case 6: {
        int both[2] = {x, like(s, r, x)};
        if (both[1] >= 0 && s->u[x].c <= 16) spec_concat(s, both, 2);
        break;
    }
    case 7:
        if (dropout) spec_dropout(s, x, 0.3f);
        break;
    case 8:
        add_act(s, r, x);
        break;
    case 9:
        add_norm(s, r, x);
        break;
    case 10:
    case 11:
    case 12:
        add_sum(s, r, x);
        break;
    case 13:
    case 14: { /* one activation, read by several quantizers */
        int a = add_act(s, r, x), b = add_conv(s, r, a), c = add_conv(s, r, a);
        if (s->u[b].c == s->u[c].c && s->u[b].h == s->u[c].h) spec_add(s, b, c);
        break;
    }
    default: /* the usual row: convolution, norm, sum, activation */
        x = add_conv(s, r, x);
        if (chance(r, 0.8)) x = add_norm(s, r, x);
        if (chance(r, 0.4)) x = add_sum(s, r, x);
        if (chance(r, 0.8)) add_act(s, r, x);
        break;
    }
}

/* Whatever nobody has read goes into the classifier. */
static void random_spec(Spec *s, Rng *r, bool dropout)
{
    int pieces = 3 + (int)rng_below(r, 14), x[64], n = 0, fc;
    spec_input(s, 4, 6, 6);
    spec_mark(s, add_conv(s, r, 0), UM_FIRST);
    for (int i = 0; i < pieces; i++) add_piece(s, r, dropout);
    for (int i = 0, last = s->n; i < last; i++)
        if (!readers(s, i) && n < 64) x[n++] = s->u[i].h > 1 || s->u[i].w > 1 ? spec_pool(s, i, (PoolAttr){.kind = POOL_GLOBAL_AVG}) : i;
    while (n > 1) {
        int k = n < UNIT_MAX_IN ? n : UNIT_MAX_IN, cat = spec_concat(s, x + n - k, k);
        n -= k;
        x[n++] = cat;
    }
    fc = spec_linear(s, spec_flatten(s, x[0]), (LinearAttr){CLASSES, true, {INIT_NORMAL, 0, 0.3f}, {INIT_CONST, 0.1f, 0}}, "fc");
    spec_mark(s, fc, UM_LAST);
}

static void random_opts(QOpts *q, Rng *r, bool smooth)
{
    static const char *const variant[] = {"cifar", "imagenet", "mnist"}, *const name[] = {"soft", "whole", "none"};
    qopts_default(q);
    q->extra_methods = methods;
    q->wt_bit = 2 + (int)rng_below(r, 4);
    q->fm_bit = 2 + (int)rng_below(r, 4);
    q->ot_bit = 4;
    if (smooth) {
        q->wt_quant = name[rng_below(r, 3)];
        q->fm_quant = name[rng_below(r, 3)];
        q->ot_quant = name[rng_below(r, 3)];
    } else {
        q->wt_quant = q->fm_quant = "apot";
        q->quant_variant = variant[rng_below(r, 3)];
        q->power = chance(r, 0.6);
        q->act_clip_init = q->wt_clip_init = 2;
    }
}

/* ---- one way of running it ---- */

typedef struct Result {
    double loss;
    float train[BATCH * CLASSES], eval[2][BATCH * CLASSES]; /* eval: before and after training */
    ParamStore ps; /* gradients, running statistics */
} Result;

typedef struct Program {
    Graph g;
    Lower lw;
    Plan plan;
    Exec x;
    char *arena;
} Program;

static void program_open(Program *p, QPlan *qp, Phase ph, bool share, Prim *prim)
{
    Err e = {0};
    graph_init(&p->g, ph == PH_TRAIN);
    if (lower_graph(&p->lw, &p->g, qp, ph, 0, BATCH, 0.1f, &e) < 0 || graph_finish(&p->g, prim, &e) < 0) fail_msg("%s", e.msg);
    plan_make(&p->plan, &p->g, share);
    p->arena = xaligned(p->plan.arena_bytes);
    memset(p->arena, 0xFF, p->plan.arena_bytes);
    exec_init(&p->x, &p->g, &p->plan, p->arena);
    p->x.phase = ph;
}

static void program_close(Program *p)
{
    exec_free(&p->x);
    plan_free(&p->plan);
    lower_free(&p->lw);
    graph_free(&p->g);
    free(p->arena);
}

static void evaluate(float *logits, const ParamStore *ps, QPlan *qp, bool share, Prim *prim, const float *x)
{
    Program p;
    const size_t bytes = BATCH * CLASSES * sizeof *logits;
    program_open(&p, qp, PH_EVAL, share, prim);
    exec_bind(&p.x, p.lw.input, x);
    for (int pass = 0; pass < 2; pass++) { /* the second takes hoisted weights as they are */
        exec_forward(&p.x, store_version(ps));
        if (p.x.fault) fail_msg("%s", p.x.fault);
        if (pass) assert_memory_equal(logits, p.x.data[p.lw.logits], bytes);
        memcpy(logits, p.x.data[p.lw.logits], bytes);
    }
    program_close(&p);
}

static void run(Result *res, const Spec *spec, const QOpts *opts, bool share)
{
    static const int32_t label[BATCH] = {3, 0, 4, 1};
    QPlan qp;
    Err e = {0};
    Prim *prim = prim_open(&e);
    Program p;
    Rng r = rng_stream(3, RNG_TEST, 7, 0);
    size_t image = (size_t)BATCH * (size_t)spec->u[0].c * (size_t)spec->u[0].h * (size_t)spec->u[0].w;
    float *x = xaligned(image * sizeof *x), *grads = NULL;
    *res = (Result){0};
    for (size_t i = 0; i < image; i++) x[i] = (float)rng_normal(&r);
    if (qplan_build(&qp, spec, opts, &res->ps, &e) < 0) fail_msg("%s", e.msg);
    store_init(&res->ps, 11);

    evaluate(res->eval[0], &res->ps, &qp, share, prim, x);
    program_open(&p, &qp, PH_TRAIN, share, prim);
    store_alloc_grads(&res->ps);
    exec_bind(&p.x, p.lw.input, x);
    exec_bind(&p.x, p.lw.labels, label);
    for (int pass = 0; pass < 2; pass++) { /* the second finds what the first left: nothing may change */
        store_zero_grads(&res->ps);
        exec_forward(&p.x, 0);
        if (p.x.fault) fail_msg("%s", p.x.fault);
        res->loss = (double)*(const float *)p.x.data[p.lw.loss];
        memcpy(res->train, p.x.data[p.lw.logits], sizeof res->train);
        exec_backward(&p.x);
        if (pass) assert_memory_equal(grads, res->ps.grads, res->ps.n_grads * sizeof(float));
        grads = xrealloc(grads, res->ps.n_grads * sizeof(float));
        memcpy(grads, res->ps.grads, res->ps.n_grads * sizeof(float));
    }
    program_close(&p);

    evaluate(res->eval[1], &res->ps, &qp, share, prim, x);
    qplan_free(&qp);
    prim_close(prim);
    free(x);
    free(grads);
}

/* ---- comparing ---- */

static const float *values(const Param *p)
{
    return p->grad.data ? p->grad.data : p->value.data;
}

static void same_bytes(int net, const Result *a, const Result *b)
{
    if (memcmp(a->train, b->train, sizeof a->train)) fail_msg("net %d: logits of training differ with shared storage", net);
    if (memcmp(a->eval, b->eval, sizeof a->eval)) fail_msg("net %d: logits of evaluation differ with shared storage", net);
    for (int i = 0; i < a->ps.n; i++)
        if (memcmp(values(a->ps.p[i]), values(b->ps.p[i]), tensor_bytes(&a->ps.p[i]->value)))
            fail_msg("net %d: %s differs with shared storage", net, a->ps.p[i]->name);
    assert_true(isfinite(a->loss));
    for (size_t i = 0; i < a->ps.n_grads; i++) assert_true(isfinite(a->ps.grads[i]));
}

static void near_enough(int net, const Result *a, const Result *b)
{
    if (fabs(a->loss - b->loss) > 1e-4 * (1 + fabs(a->loss))) fail_msg("net %d: loss %.9g fused, %.9g not", net, a->loss, b->loss);
    for (int i = 0; i < a->ps.n; i++) {
        const Param *p = a->ps.p[i];
        const float *u = values(p), *v = values(b->ps.p[i]);
        double diff = 0, big = 0;
        if (p->value.dtype != DT_F32) continue;
        for (size_t k = 0; k < tensor_len(&p->value); k++) {
            diff = fmax(diff, fabs((double)u[k] - (double)v[k]));
            big = fmax(big, fabs((double)u[k]));
        }
        if (diff > 1e-5 + 2e-3 * big) fail_msg("net %d: %s: fused and not differ by %g of %g", net, p->name, diff, big);
    }
}

static void every_way_agrees(int first, int step)
{
    int compared = 0;
    for (int net = first; net < NETS; net += step) {
        Rng r = rng_stream(17, RNG_TEST, (uint64_t)net, 1);
        const bool smooth = net % 3 != 0, dropout = net % 5 == 0;
        Spec spec = {0};
        QOpts q;
        Err e = {0};
        Result a[2][2]; /* fused, shared */
        random_spec(&spec, &r, dropout);
        if (spec_finish(&spec, spec.n - 1, &e) < 0) fail_msg("net %d: %s", net, e.msg);
        random_opts(&q, &r, smooth);
        for (int fuse = 0; fuse < 2; fuse++)
            for (int share = 0; share < 2; share++) {
                q.fuse = fuse;
                run(&a[fuse][share], &spec, &q, share);
            }
        same_bytes(net, &a[0][0], &a[0][1]);
        same_bytes(net, &a[1][0], &a[1][1]);
        if (memcmp(a[0][1].eval[0], a[1][1].eval[0], sizeof a[0][1].eval[0]))
            fail_msg("net %d: logits of evaluation differ where not fused", net);
        if (smooth && !dropout) {
            near_enough(net, &a[1][1], &a[0][1]);
            compared++;
        }
        for (int fuse = 0; fuse < 2; fuse++)
            for (int share = 0; share < 2; share++) store_free(&a[fuse][share].ps);
        spec_free(&spec);
    }
    assert_true(compared > 0);
}

static void even_nets(void **state)
{
    (void)state;
    every_way_agrees(0, 2);
}

static void odd_nets(void **state)
{
    (void)state;
    every_way_agrees(1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(even_nets), cmocka_unit_test(odd_nets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
