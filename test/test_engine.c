/* test/test_engine.c -- random streams, tensors, the plan, and finite differences of every smooth
 * op. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/ops.h"
#include "engine/par.h"
#include "quant/chain.h"
#include "run/model.h"

/* ---- base ---- */

static void rng_is_a_pure_function(void **state)
{
    Rng a = rng_stream(7, RNG_CROP, 3, 11), b = rng_stream(7, RNG_CROP, 3, 11),
        c = rng_stream(7, RNG_FLIP, 3, 11);
    uint32_t p[100];
    int same = 0, seen[100] = {0};
    double mean = 0, var = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        uint32_t x = rng_u32(&a);
        assert_int_equal(x, rng_u32(&b));
        same += x == rng_u32(&c);
    }
    assert_int_equal(same, 0);
    for (int i = 0; i < 20000; i++) {
        double x = rng_normal(&a);
        mean += x / 20000;
        var += x * x / 20000;
    }
    assert_true(fabs(mean) < 0.03 && fabs(var - 1) < 0.05);
    for (uint32_t i = 0; i < 100; i++) p[i] = i;
    rng_shuffle(&a, p, 100);
    for (int i = 0; i < 100; i++) seen[p[i]]++;
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
}

static void nearest_name(void **state)
{
    static const char *const names[] = {"weight_decay", "momentum", "lr", NULL, "milestones"};
    (void)state;
    assert_string_equal(str_nearest("wieght_decay", names, 5), "weight_decay");
    assert_string_equal(str_nearest("rl", names, 5), "lr");
    assert_null(str_nearest("batch_size", names, 5));
    assert_null(str_nearest("dropout", (const char *const[]){"root"}, 1)); /* three letters of four are others */
}

static void half_and_bf16(void **state)
{
    (void)state;
    assert_true(half_to_float(0x3C00) == 1.0f && half_to_float(0xC000) == -2.0f &&
                half_to_float(0x0001) == 0x1p-24f);
    assert_true(isinf(half_to_float(0x7C00)) && half_to_float(0x8000) == 0);
    assert_int_equal(float_to_bf16(1.0f), 0x3F80);
    assert_int_equal(float_to_bf16(1.00390625f), 0x3F80); /* tie to even */
    assert_int_equal(float_to_bf16(1.01171875f), 0x3F82);
    assert_true(isnan(bf16_to_float(float_to_bf16(NAN))));
}

static void npy_round_trip(void **state)
{
    float v[6] = {1, 2.5f, -3, 4, 5, 6e-20f};
    int dim[2] = {2, 3};
    Tensor t = tensor_make(DT_F32, 2, dim, v), r;
    char path[] = "/tmp/qrun-test-XXXXXX";
    int fd = mkstemp(path);
    Arena a = {0};
    Err e = {0};
    FILE *f;
    (void)state;
    close(fd);
    assert_int_equal(npy_write(path, &t, &e), 0);
    assert_int_equal(npy_read(path, &a, &r, &e), 0);
    assert_true(tensor_same_shape(&t, &r));
    assert_memory_equal(r.data, v, sizeof v);
    f = fopen(path, "r+");
    assert_int_equal(ftruncate(fileno(f), 100), 0);
    fclose(f);
    assert_int_equal(npy_read(path, &a, &r, &e), -1);
    assert_non_null(strstr(e.msg, path));
    arena_free(&a);
    unlink(path);
}

/* ---- the plan ---- */

static void plan_never_overlaps(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        Rng r = rng_stream(seed, RNG_TEST, 0, 0);
        PlanBlock b[60];
        int n = 1 + (int)rng_below(&r, 60);
        size_t total, bound;
        for (int i = 0; i < n; i++) {
            b[i].bytes = 1 + rng_below(&r, 5000);
            b[i].first = (int)rng_below(&r, 40);
            b[i].last = b[i].first + (int)rng_below(&r, 12);
        }
        total = plan_place(b, n, &bound);
        assert_int_equal(plan_overlap(b, n), -1);
        assert_true(total >= bound);
        for (int i = 0; i < n; i++)
            assert_true(b[i].off % MEM_ALIGN == 0 && b[i].off + b[i].bytes <= total);
    }
}

/* ---- finite differences ---- */

typedef struct Bench {
    ParamStore ps;
    Graph g;
    Prim *prim;
    Plan plan;
    Exec x;
    char *arena;
    int32_t label[8];
    int labels, loss;
    Rng r;
} Bench;

static Param *param(Bench *b, const char *name, float scale, float mean, int ndim, int d0, int d1,
                    int d2, int d3)
{
    int dim[4] = {d0, d1, d2, d3};
    Param *p = store_add(&b->ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, ndim, dim, "%s", name);
    float *v = p->value.data;
    for (size_t i = 0; i < tensor_len(&p->value); i++)
        v[i] = mean + scale * (float)rng_normal(&b->r);
    if (ndim == 4)
        p->value.layout =
            LY_NHWC; /* only the image uses it as an activation; weights do not look */
    return p;
}

static int image(Bench *b, int n, int c, int h, int w)
{
    return graph_param(&b->g, param(b, "image", 1, 0, 4, n, c, h, w));
}

static NormStats stats(Bench *b, const char *name, int c)
{
    NormStats s = {.eps = 1e-5f, .momentum = 0.1f};
    s.mean = store_add(&b->ps, PK_BUFFER, DT_F32, (Init){INIT_NONE, 0, 0}, 1, &c, "%s.mean", name);
    s.var = store_add(&b->ps, PK_BUFFER, DT_F32, (Init){INIT_NONE, 0, 0}, 1, &c, "%s.var", name);
    for (int i = 0; i < c; i++)
        ((float *)s.mean->value.data)[i] = 0.1f * (float)i, ((float *)s.var->value.data)[i] = 1.5f;
    return s;
}

static double loss_of(Bench *b)
{
    exec_forward(&b->x, 0);
    return (double)*(const float *)b->x.data[b->loss];
}

/* Builds a net that ends in a classifier, and compares every parameter's gradient with central
 * differences. */
static void check(int (*build)(Bench *b), bool share)
{
    Bench b = {0};
    Err e = {0};
    int y, compared = 0;
    b.r = rng_stream(5, RNG_TEST, 1, 0);
    b.prim = prim_open(&e);
    graph_init(&b.g, true);
    y = build(&b);
    {
        const Tensor t = b.g.v[y].t;
        int n = t.dim[0], ic = (int)(tensor_len(&t) / (size_t)n),
            flat = t.ndim == 4 ? graph_flatten(&b.g, "flat", y) : y;
        int w = graph_param(&b.g, param(&b, "fc.weight", 0.3f, 0, 2, 5, ic, 0, 0));
        int bias = graph_param(&b.g, param(&b, "fc.bias", 0.3f, 0, 1, 5, 0, 0, 0));
        for (int i = 0; i < n; i++)
            b.label[i] = i == 1 ? -1 : (i * 3 + 1) % 5; /* one does not count */
        b.labels = graph_external(&b.g, tensor_make(DT_S32, 1, &n, NULL), "labels");
        b.loss = graph_cross_entropy(&b.g, "loss", graph_linear(&b.g, "fc", flat, w, bias),
                                     b.labels, 0.1f);
    }
    b.g.v[b.loss].keep = true;
    assert_int_equal(graph_finish(&b.g, b.prim, &e), 0);
    plan_make(&b.plan, &b.g, share);
    store_alloc_grads(&b.ps);
    b.arena = xaligned(b.plan.arena_bytes);
    exec_init(&b.x, &b.g, &b.plan, b.arena);
    exec_bind(&b.x, b.labels, b.label);
    loss_of(&b);
    exec_backward(&b.x);
    for (int i = 0; i < b.ps.n; i++) {
        Param *p = b.ps.p[i];
        float *v = p->value.data;
        const float *g = p->grad.data;
        size_t n = tensor_len(&p->value);
        double big = 0;
        if (p->kind == PK_BUFFER) continue;
        assert_true(p->trained);
        for (size_t k = 0; k < n; k++) big = fmax(big, fabs((double)g[k]));
        for (int t = 0; t < 12; t++) {
            size_t k = rng_below(&b.r, (uint32_t)n);
            float old = v[k];
            double num = 0;
            bool good = false;
            /* a kink of relu or max between the two points spoils one step size, not all of them */
            for (float h = 4e-3f; h > 1e-4f && !good; h /= 4) {
                double up, down;
                v[k] = old + h;
                up = loss_of(&b);
                v[k] = old - h;
                down = loss_of(&b);
                v[k] = old;
                num = (up - down) / (2 * (double)h);
                good = fabs(num - (double)g[k]) <= 3e-4 + 0.02 * big;
            }
            if (!good)
                fail_msg("%s[%zu]: gradient %g, finite difference %g (largest gradient %g)",
                         p->name, k, (double)g[k], num, big);
            compared++;
        }
    }
    assert_true(compared >= 24);
    exec_free(&b.x);
    plan_free(&b.plan);
    graph_free(&b.g);
    store_free(&b.ps);
    prim_close(b.prim);
    free(b.arena);
}

static int w4(Bench *b, const char *name, int oc, int ic, int k)
{
    return graph_param(&b->g, param(b, name, 0.4f, 0, 4, oc, ic, k, k));
}

static int b_conv(Bench *b)
{
    int x = image(b, 3, 4, 7, 6);
    int y = graph_conv(&b->g, "c1", x, w4(b, "c1", 6, 4, 3),
                       graph_param(&b->g, param(b, "c1.bias", 0.3f, 0, 1, 6, 0, 0, 0)),
                       (ConvShape){.k = 3, .stride = 2, .pad = 1, .dilation = 1, .groups = 1});
    y = graph_conv(&b->g, "c2", y, w4(b, "c2", 6, 2, 3), -1,
                   (ConvShape){.k = 3, .stride = 1, .pad = 2, .dilation = 2, .groups = 3});
    y = graph_conv(&b->g, "c3", y, w4(b, "c3", 6, 1, 3), -1,
                   (ConvShape){.k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 6});
    return graph_conv(&b->g, "c4", y, w4(b, "c4", 3, 6, 1), -1,
                      (ConvShape){.k = 1, .stride = 2, .pad = 0, .dilation = 1, .groups = 1});
}

static int scale_of(Bench *b, const char *name, int c)
{
    return graph_param(&b->g, param(b, name, 0.3f, 1, 1, c, 0, 0, 0));
}

/* A norm alone. */
static int norm(Graph *g, const char *name, int x, int scale, int shift, NormStats st,
                ChainNorm kind)
{
    ChainSpec c = {.norm = kind,
                   .st = st,
                   .scale = scale,
                   .shift = shift,
                   .residual = -1,
                   .act = AK_NONE,
                   .plain = true};
    int out[1 + CHAIN_MAX_Q];
    graph_chain(g, name, x, &c, out);
    return out[0];
}

static int b_norm(Bench *b)
{
    NormStats s = stats(b, "n", 5), s2 = stats(b, "m", 5);
    int x = image(b, 4, 5, 3, 3);
    int y = norm(&b->g, "n", x, scale_of(b, "n.w", 5), scale_of(b, "n.b", 5), s, CHAIN_BATCH);
    return norm(&b->g, "m", y, scale_of(b, "m.w", 5), scale_of(b, "m.b", 5), s2, CHAIN_RUNNING);
}

static int b_group_norm(Bench *b)
{
    int x = image(b, 3, 6, 3, 2);
    int y = graph_group_norm(&b->g, "group", x, 2, 1e-2f, scale_of(b, "g.w", 6),
                             scale_of(b, "g.b", 6));
    y = graph_channel_affine(&b->g, "affine", y, scale_of(b, "a.w", 6), scale_of(b, "a.b", 6));
    y = graph_add(&b->g, "sum", y, x);
    return graph_group_norm(&b->g, "instance", y, 6, 1e-2f, -1, -1);
}

static int b_act(Bench *b)
{
    int x = image(b, 3, 4, 3, 3);
    int y = graph_act(&b->g, "leaky", x, (ActAttr){.kind = AK_LEAKY, .slope = 0.2f}, -1);
    y = graph_act(&b->g, "prelu", y, (ActAttr){.kind = AK_PRELU, .slope = 0.25f},
                  graph_param(&b->g, param(b, "slope", 0.1f, 0.3f, 1, 4, 0, 0, 0)));
    y = graph_act(&b->g, "one slope", y, (ActAttr){.kind = AK_PRELU, .one_slope = true},
                  graph_param(&b->g, param(b, "slope1", 0.1f, 0.3f, 1, 1, 0, 0, 0)));
    y = graph_act(&b->g, "relu6", y, (ActAttr){.kind = AK_RELU6, .slope = 0}, -1);
    return graph_add(&b->g, "sum", graph_act(&b->g, "relu", x, (ActAttr){.kind = AK_RELU, .slope = 0}, -1), y);
}

static int b_pool(Bench *b)
{
    int x = image(b, 3, 4, 6, 6);
    int y = graph_pool(&b->g, "max", x, (PoolAttr){POOL_MAX, 3, 2, 1, false, false}, 3, 3);
    int z = graph_pool(&b->g, "avg", x, (PoolAttr){POOL_AVG, 2, 2, 0, false, true}, 3, 3);
    int both[2] = {y, z};
    return graph_pool(&b->g, "global", graph_concat(&b->g, "cat", both, 2),
                      (PoolAttr){.kind = POOL_GLOBAL_AVG}, 1, 1);
}

static int b_arith(Bench *b)
{
    int x = image(b, 3, 4, 4, 4);
    int y = graph_scale(&b->g, "s", x, graph_param(&b->g, param(b, "s", 0.2f, 1, 0, 0, 0, 0, 0)));
    int z = graph_shift(&b->g, "t", x, graph_param(&b->g, param(b, "t", 0.2f, 0, 0, 0, 0, 0, 0)));
    int pad[4] = {1, 0, 2, 1};
    y = graph_add(&b->g, "a", y,
                  z); /* x has three readers, one of them through an alias of an alias */
    y = graph_add(&b->g, "b", y, x);
    y = graph_space_to_depth(&b->g, "s2d", y, 2);
    y = graph_depth_to_space(&b->g, "d2s", y, 2);
    return graph_dropout(&b->g, "drop", graph_pad(&b->g, "pad", y, pad), 0.3f);
}

/* A residual block by chains: norm + relu; norm + sum + relu with the sum read twice. */
static int b_chain_c(Bench *b, int c)
{
    NormStats s1 = stats(b, "n1", c), s2 = stats(b, "n2", c);
    int x = image(b, 3, c, 5, 5), out[1 + CHAIN_MAX_Q], y;
    ConvShape k3 = {.k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1};
    ChainSpec a = {.norm = CHAIN_BATCH,
                   .st = s1,
                   .scale = scale_of(b, "n1.w", c),
                   .shift = scale_of(b, "n1.b", c),
                   .residual = -1,
                   .act = AK_RELU6,
                   .plain = true};
    ChainSpec d = {.norm = CHAIN_BATCH,
                   .st = s2,
                   .scale = scale_of(b, "n2.w", c),
                   .shift = scale_of(b, "n2.b", c),
                   .residual = x,
                   .act = AK_RELU,
                   .plain = true};
    ChainSpec f = {.norm = CHAIN_NO_NORM, .scale = -1, .shift = -1, .act = AK_NONE, .plain = true};
    y = graph_conv(&b->g, "c1", x, w4(b, "c1", c, c, 3), -1, k3);
    graph_chain(&b->g, "chain1", y, &a, out);
    y = graph_conv(&b->g, "c2", out[0], w4(b, "c2", c, c, 3), -1, k3);
    graph_chain(&b->g, "chain2", y, &d, out);
    y = graph_conv(&b->g, "c3", out[0], w4(b, "c3", c, c, 3), -1, k3);
    f.residual = out[0];
    graph_chain(&b->g, "chain3", y, &f, out);
    return graph_pool(&b->g, "global", out[0], (PoolAttr){.kind = POOL_GLOBAL_AVG}, 1, 1);
}

static int b_chain(Bench *b)
{
    return b_chain_c(b, 4);
}

static int b_chain_odd(Bench *b)
{
    return b_chain_c(b, 7);
}

static int b_chain_frozen(Bench *b)
{
    NormStats s = stats(b, "n", 6);
    int out[1 + CHAIN_MAX_Q];
    ChainSpec a = {.norm = CHAIN_RUNNING,
                   .st = s,
                   .scale = scale_of(b, "n.w", 6),
                   .shift = scale_of(b, "n.b", 6),
                   .residual = -1,
                   .act = AK_NONE,
                   .plain = true};
    graph_chain(&b->g, "chain", image(b, 3, 6, 4, 4), &a, out);
    return out[0];
}

static int (*const builders[])(Bench *) = {b_conv,  b_norm,  b_group_norm, b_act,       b_pool,
                                           b_arith, b_chain, b_chain_odd, b_chain_frozen};

static void finite_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(builders); i++) check(builders[i], true);
}

static void finite_differences_unshared(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(builders); i++) check(builders[i], false);
}

/* ---- what threads, inputs and faults may not change ---- */

typedef struct Small {
    Graph g;
    Plan plan;
    Exec x;
    char *arena;
} Small;

static void small_open(Small *s, Prim *prim)
{
    Err e = {0};
    if (graph_finish(&s->g, prim, &e) < 0) fail_msg("%s", e.msg);
    plan_make(&s->plan, &s->g, true);
    s->arena = xaligned(s->plan.arena_bytes);
    exec_init(&s->x, &s->g, &s->plan, s->arena);
}

static void small_close(Small *s)
{
    exec_free(&s->x);
    plan_free(&s->plan);
    graph_free(&s->g);
    free(s->arena);
}

/* Our own ops (not oneDNN's): a norm of the image, chains with quantizers, sums, scalars, pooling,
 * loss. */
static void threads_do_not_matter(void **state)
{
    enum { N = 6, C = 10, S = 24 };
    const int32_t label[N] = {1, 0, 9, 3, 4, 4};
    const int before = par_threads(), threads[] = {1, 2, 3, 8};
    QOpts q;
    float *image = xaligned(N * C * S * S * sizeof *image), *first = NULL;
    Rng r = rng_stream(8, RNG_TEST, 0, 0);
    (void)state;
    qopts_default(&q);
    q.quant_variant = "mnist";
    for (size_t i = 0; i < N * C * S * S; i++) image[i] = (float)rng_normal(&r);
    for (size_t t = 0; t < ARRAY_LEN(threads); t++) {
        Bench b = {.r = rng_stream(5, RNG_TEST, 1, 0)};
        Small s = {0};
        Err e = {0};
        QInst act = {0};
        int x, y, labels, n = N, out[1 + CHAIN_MAX_Q], shape[3] = {C, S, S};
        NormStats s1 = stats(&b, "n1", C), s2 = stats(&b, "n2", C);
        ChainSpec c = {.norm = CHAIN_BATCH,
                       .st = s2,
                       .scale = -1,
                       .shift = -1,
                       .residual = -1,
                       .act = AK_RELU,
                       .plain = true,
                       .nq = 1};
        par_set_threads(threads[t]);
        b.prim = prim_open(&e);
        graph_init(&s.g, true);
        assert_int_equal(qinst_init(&act, quant_find("apot"), Q_ACT, 3, 0, &q, &b.ps, NULL, 0, 3,
                                    shape, "a.", &e),
                         0);
        store_init(&b.ps, 1);
        c.q[0] = &act;
        x = graph_external(&s.g, tensor_nhwc(N, C, S, S), "image");
        y = norm(&s.g, "n1", x, graph_param(&s.g, param(&b, "w", 0.3f, 1, 1, C, 0, 0, 0)), -1, s1,
                 CHAIN_RUNNING);
        graph_chain(&s.g, "chain", y, &c, out);
        y = graph_scale(&s.g, "scale", out[1],
                        graph_param(&s.g, param(&b, "k", 0, 1.5f, 0, 0, 0, 0, 0)));
        y = graph_add(&s.g, "sum", y, out[0]);
        y = graph_pool(&s.g, "pool", y, (PoolAttr){.kind = POOL_GLOBAL_AVG}, 1, 1);
        labels = graph_external(&s.g, tensor_make(DT_S32, 1, &n, NULL), "labels");
        graph_cross_entropy(&s.g, "loss", y, labels, 0.1f);
        store_alloc_grads(&b.ps);
        small_open(&s, b.prim);
        exec_bind(&s.x, x, image);
        exec_bind(&s.x, labels, label);
        exec_forward(&s.x, 0);
        exec_backward(&s.x);
        if (!first)
            first = memcpy(xmalloc(b.ps.n_grads * sizeof *first), b.ps.grads,
                           b.ps.n_grads * sizeof *first);
        for (size_t i = 0; i < b.ps.n_grads; i++)
            if (memcmp(&first[i], &b.ps.grads[i], sizeof *first))
                fail_msg("%d threads: gradient %zu is %.9g, with one thread %.9g", threads[t], i,
                         (double)b.ps.grads[i], (double)first[i]);
        small_close(&s);
        qinst_free(&act);
        store_free(&b.ps);
        prim_close(b.prim);
    }
    par_set_threads(before);
    free(first);
    free(image);
}

/* No gradient of the norm's input is wanted there. */
static void norm_of_the_image(void **state)
{
    enum { N = 4, C = 5, S = 9 };
    static float image[N * C * S * S];
    const int32_t label[N] = {1, 0, 3, 4};
    Bench b = {.r = rng_stream(5, RNG_TEST, 1, 0)};
    Small s = {0};
    Err e = {0};
    NormStats st = stats(&b, "n", C);
    int x, y, labels, n = N;
    float sum = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(image); i++) image[i] = (float)rng_normal(&b.r);
    b.prim = prim_open(&e);
    graph_init(&s.g, true);
    x = graph_external(&s.g, tensor_nhwc(N, C, S, S), "image");
    y = norm(&s.g, "n", x, graph_param(&s.g, param(&b, "w", 0.3f, 1, 1, C, 0, 0, 0)),
             graph_param(&s.g, param(&b, "b", 0.3f, 0, 1, C, 0, 0, 0)), st, CHAIN_BATCH);
    y = graph_pool(&s.g, "pool", y, (PoolAttr){.kind = POOL_GLOBAL_AVG}, 1, 1);
    labels = graph_external(&s.g, tensor_make(DT_S32, 1, &n, NULL), "labels");
    graph_cross_entropy(&s.g, "loss", y, labels, 0);
    store_alloc_grads(&b.ps);
    small_open(&s, b.prim);
    exec_bind(&s.x, x, image);
    exec_bind(&s.x, labels, label);
    exec_forward(&s.x, 0);
    exec_backward(&s.x);
    for (int i = 0; i < C; i++) sum += ((const float *)store_find(&b.ps, "b")->grad.data)[i];
    assert_true(fabsf(sum) < 1e-6f); /* softmax: the shifts' gradients cancel */
    small_close(&s);
    store_free(&b.ps);
    prim_close(b.prim);
}

/* Weights that are no parameters: a packed copy of the last batch's would be wrong. */
static void computed_weights_are_packed_anew(void **state)
{
    enum { N = 2, C = 16, S = 8 };
    static float x[N * C * S * S], w[2][C * C * 9];
    Bench b = {.r = rng_stream(5, RNG_TEST, 1, 0)};
    Small s = {0};
    Err e = {0};
    int ix, iw, y, wd[4] = {C, C, 3, 3};
    float first, second;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(x); i++) x[i] = (float)rng_normal(&b.r);
    for (size_t i = 0; i < ARRAY_LEN(w[0]); i++)
        w[0][i] = (float)rng_normal(&b.r), w[1][i] = -2 * w[0][i];
    b.prim = prim_open(&e);
    graph_init(&s.g, false);
    ix = graph_external(&s.g, tensor_nhwc(N, C, S, S), "image");
    iw = graph_external(&s.g, tensor_make(DT_F32, 4, wd, NULL), "weights");
    y = graph_conv(&s.g, "conv", ix, iw, -1,
                   (ConvShape){.k = 3, .stride = 1, .pad = 1, .dilation = 1, .groups = 1});
    s.g.v[y].keep = true;
    small_open(&s, b.prim);
    exec_bind(&s.x, ix, x);
    exec_bind(&s.x, iw, w[0]);
    exec_forward(&s.x, 7);
    first = *(const float *)s.x.data[y];
    exec_bind(&s.x, iw, w[1]);
    exec_forward(&s.x, 7);
    second = *(const float *)s.x.data[y];
    if (fabsf(second + 2 * first) > 1e-4f * fabsf(first))
        fail_msg("%g, then %g", (double)first, (double)second);
    small_close(&s);
    store_free(&b.ps);
    prim_close(b.prim);
}

/* ---- whole nets ---- */

enum { BATCH = 8 };

static Model *resnet20(const char *method, bool fuse)
{
    NetOpts no = {
        .model = "resnet20", .names = "", .num_classes = 10, .in_c = 3, .in_h = 32, .in_w = 32};
    QOpts q;
    Err e = {0};
    Model *m;
    qopts_default(&q);
    q.wt_quant = q.fm_quant = method;
    q.wt_bit = q.fm_bit = 4;
    q.quant_variant = "cifar";
    q.fuse = fuse;
    m = model_new(&no, &q, 0, 3, &e);
    if (!m) fail_msg("%s", e.msg);
    return m;
}

static double one_step(Model *m, const float **logits)
{
    static float x[BATCH * 3 * 32 * 32];
    int32_t label[BATCH];
    double loss;
    Err e = {0};
    Rng r = rng_stream(9, RNG_TEST, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(x); i++) x[i] = (float)rng_normal(&r);
    for (int i = 0; i < BATCH; i++) label[i] = i;
    model_prepare(m, PH_TRAIN, 0, BATCH, &e);
    store_zero_grads(model_store(m));
    if (model_train(m, 0, x, label, BATCH, 0, &loss, logits, &e) < 0) fail_msg("%s", e.msg);
    return loss;
}

static void fused_equals_unfused(void **state)
{
    Model *a = resnet20("none", true), *b = resnet20("none", false);
    double la = one_step(a, NULL), lb = one_step(b, NULL);
    (void)state;
    assert_true(fabs(la - lb) < 1e-5);
    for (int i = 0; i < model_store(a)->n; i++) {
        const Param *p = model_store(a)->p[i], *q = model_store(b)->p[i];
        size_t n = tensor_len(&p->value);
        double diff = 0, big = 0;
        assert_string_equal(p->name, q->name);
        if (p->value.dtype != DT_F32) continue;
        for (size_t k = 0; k < n; k++) { /* buffers: running statistics after the step */
            const float *u = p->grad.data ? p->grad.data : p->value.data,
                        *v = q->grad.data ? q->grad.data : q->value.data;
            diff = fmax(diff, fabs((double)(u[k] - v[k])));
            big = fmax(big, fabs((double)u[k]));
        }
        if (diff > 1e-6 + 1e-3 * big) fail_msg("%s: difference %g of %g", p->name, diff, big);
    }
    model_free(a);
    model_free(b);
}

static void same_bytes_twice(void **state)
{
    Model *a = resnet20("apot", true), *b = resnet20("apot", true);
    (void)state;
    assert_true(one_step(a, NULL) == one_step(b, NULL));
    assert_memory_equal(model_store(a)->grads, model_store(b)->grads,
                        model_store(a)->n_grads * sizeof(float));
    model_free(a);
    model_free(b);
}

static void stem_has_no_input_gradient(void **state)
{
    Model *m = resnet20("apot", true);
    Str s = {0};
    char *line;
    (void)state;
    one_step(m, NULL);
    model_print(m, PH_TRAIN, BATCH, &s);
    line = strstr(s.s, "lower bound");
    assert_non_null(line);
    {
        double arena = 0, bound = 0;
        const char *at = strstr(s.s, "arena ");
        assert_int_equal(sscanf(at, "arena %lf MB (lower bound %lf", &arena, &bound), 2);
        assert_true(arena <= 1.05 * bound); /* liveness: what lives together, nothing more */
    }
    str_free(&s);
    model_free(m);
}

/* The images of a partial batch get the logits they have in a full one. */
static void partial_batches(void **state)
{
    static float x[BATCH * 3 * 32 * 32];
    const int32_t label[BATCH] = {0, 1, 2, 3, 4, 5, 6, 7};
    float full[BATCH * 10];
    const float *z;
    double loss;
    Err e = {0};
    Model *m = resnet20("apot", true);
    Rng r = rng_stream(9, RNG_TEST, 0, 0);
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(x); i++) x[i] = (float)rng_normal(&r);
    assert_int_equal(model_eval(m, 0, x, label, BATCH, BATCH, &loss, &z, &e), 0);
    memcpy(full, z, sizeof full);
    for (int n = BATCH - 1; n > 0; n--) {
        float *part = xaligned((size_t)n * 3 * 32 * 32 * sizeof *part); /* not one float beyond n */
        memcpy(part, x, (size_t)n * 3 * 32 * 32 * sizeof *part);
        assert_int_equal(model_eval(m, 0, part, label, n, BATCH, &loss, &z, &e), 0);
        assert_memory_equal(z, full, (size_t)n * 10 * sizeof *z);
        free(part);
    }
    model_free(m);
}

/* NaN and infinity in the image or in a weight: no crash, and never a finite loss; a fault is told
 * as often as it is met. */
static void divergence_is_seen(void **state)
{
    static const char *const methods[] = {"none", "apot"};
    static float x[BATCH * 3 * 32 * 32];
    const int32_t label[BATCH] = {0, 1, 2, 3, 4, 5, 6, 7};
    (void)state;
    for (int i = 0; i < 8; i++) {
        const float bad = i & 1 ? INFINITY : NAN;
        const bool weight = i & 2;
        Model *m = resnet20(methods[i >> 2], true);
        Param *w = store_find(model_store(m), "layer2.0.conv1.weight");
        const float *z;
        double loss = 0;
        Err e = {0};
        assert_non_null(w);
        memset(x, 0, sizeof x);
        x[ARRAY_LEN(x) / 2] = weight ? 1 : bad;
        if (weight) ((float *)w->value.data)[5] = bad, param_touch(w);
        for (int again = 0; again < 2; again++) {
            const bool clipped =
                i == 5; /* infinity in the image: a quantizer clips it, as it should */
            const int rc = model_eval(m, 0, x, label, BATCH, BATCH, &loss, &z, &e);
            if (rc == 0 && isfinite(loss) && !clipped) fail_msg("case %d: the loss is %g", i, loss);
            if (rc && !strstr(e.msg, "layer2.0.conv1")) fail_msg("case %d: '%s'", i, e.msg);
        }
        assert_int_equal(model_train(m, 0, x, label, BATCH, 0, &loss, &z, &e), -1);
        assert_int_equal(e.kind, ERR_DIVERGED);
        assert_true(strlen(e.msg) > 20);
        model_free(m);
    }
}

/* Nothing is left behind by a model that cannot be made (the sanitizers look), and the fault is
 * told. */
static void model_not_made(void **state)
{
    static const struct {
        const char *model, *method, *variant, *want;
        int bits;
    } cases[] = {
        {"resnet21", "apot", "cifar", "resnet2", 4},  {"resnet20", "apott", "cifar", "apot", 4},
        {"resnet20", "apot", "sifar", "cifar", 4},    {"resnet20", "apot", "cifar", "bits", 7},
        {"resnet20", "fixed8", "cifar", "fixed8", 8},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        NetOpts no = {.model = cases[i].model,
                      .names = "",
                      .num_classes = 10,
                      .in_c = 3,
                      .in_h = 32,
                      .in_w = 32};
        QOpts q;
        Err e = {0};
        qopts_default(&q);
        q.wt_quant = q.fm_quant = cases[i].method;
        q.wt_bit = q.fm_bit = cases[i].bits;
        q.quant_variant = cases[i].variant;
        assert_null(model_new(&no, &q, 0, 3, &e));
        if (e.kind != ERR_CONFIG || !strstr(e.msg, cases[i].want))
            fail_msg("case %zu: '%s'", i, e.msg);
    }
}

/* Steps allocate nothing that stays. */
static void steps_do_not_grow(void **state)
{
    Model *m = resnet20("apot", true);
    size_t before;
    (void)state;
    one_step(m, NULL);
    one_step(m, NULL);
    before = mallinfo2().uordblks;
    for (int i = 0; i < 5; i++) one_step(m, NULL);
    assert_int_equal(mallinfo2().uordblks, before);
    model_free(m);
}

/* Gradients of the weights of strided 1x1 convolutions of few channels, by definition. */
static void test_strided_weights(void **state)
{
    enum { N = 2, HW = 8, OC = 8, OHW = HW / 2 };
    Err e = {0};
    Prim *p = prim_open(&e);
    Rng r = rng_stream(1, RNG_TEST, 5, 0);
    (void)state;
    assert_non_null(p);
    for (int ic = 1; ic <= 9; ic++) {
        const ConvShape s = conv_shape_1x1(N, ic, HW, OC, 2);
        PrimConv *c = prim_conv_new(p, CONV_BWD_WEIGHTS, &s, &e);
        const size_t nx = (size_t)(N * HW * HW * ic), ny = N * OHW * OHW * OC;
        float *x = xaligned(nx * sizeof *x), *dy = xaligned(ny * sizeof *dy), *dw, *packed;
        void *scratch;
        assert_non_null(c);
        dw = xaligned((size_t)(OC * ic) * sizeof *dw + 64);
        packed = xaligned(prim_conv_packed_bytes(c) + 64);
        scratch = xaligned(prim_conv_scratch(c) + 64);
        for (size_t i = 0; i < nx; i++) x[i] = (float)rng_range(&r, -1, 1);
        for (size_t i = 0; i < ny; i++) dy[i] = (float)rng_range(&r, -1, 1);
        prim_conv_run(c, x, packed, dy, NULL, scratch);
        if (prim_conv_plain(c))
            memcpy(dw, packed, (size_t)(OC * ic) * sizeof *dw);
        else
            prim_conv_unpack(c, packed, dw);
        for (int o = 0; o < OC; o++)
            for (int i = 0; i < ic; i++) {
                double want = 0;
                for (int k = 0; k < N * OHW * OHW; k++) {
                    const int n = k / (OHW * OHW), row = k / OHW % OHW, col = k % OHW;
                    want += (double)x[((n * HW + 2 * row) * HW + 2 * col) * ic + i] *
                            (double)dy[k * OC + o];
                }
                if (fabs(want - (double)dw[o * ic + i]) > 1e-4)
                    fail_msg("%d channels (%s): weight %d, %d: %g, expected %g", ic,
                             prim_conv_impl(c), o, i, (double)dw[o * ic + i], want);
            }
        prim_conv_free(c);
        free(x);
        free(dy);
        free(dw);
        free(packed);
        free(scratch);
    }
    prim_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strided_weights),
        cmocka_unit_test(rng_is_a_pure_function),
        cmocka_unit_test(nearest_name),
        cmocka_unit_test(half_and_bf16),
        cmocka_unit_test(npy_round_trip),
        cmocka_unit_test(plan_never_overlaps),
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(finite_differences_unshared),
        cmocka_unit_test(fused_equals_unfused),
        cmocka_unit_test(same_bytes_twice),
        cmocka_unit_test(stem_has_no_input_gradient),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(norm_of_the_image),
        cmocka_unit_test(computed_weights_are_packed_anew),
        cmocka_unit_test(partial_batches),
        cmocka_unit_test(divergence_is_seen),
        cmocka_unit_test(model_not_made),
        cmocka_unit_test(steps_do_not_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
