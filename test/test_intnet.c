/* test/test_intnet.c -- integer networks: requantization against its definition, ranges that hold,
 * and the fast execution against the plain one, number for number: on random nets of all
 * operations, for every instruction set oneDNN can be limited to (the program starts itself again
 * for each). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/par.h"
#include "engine/prim_int.h"
#include "engine/rng.h"
#include "quant/intconv.h"
#include "quant/intexec.h"
#include "test/support/intnet_build.h"

/* ---- requantization ---- */

static void requant_ties(void **state)
{
    static const struct {
        int64_t x;
        int shift, divisor, lo, hi, y;
    } row[] = {
        {1, 1, 1, -127, 127, 0},
        {3, 1, 1, -127, 127, 2},
        {5, 1, 1, -127, 127, 2},
        {-1, 1, 1, -127, 127, 0},
        {-3, 1, 1, -127, 127, -2},
        {-5, 1, 1, -127, 127, -2},
        {-7, 2, 1, -127, 127, -2},
        {-6, 2, 1, -127, 127, -2},
        {-2, 2, 1, -127, 127, 0},
        {6, 2, 1, 0, 255, 2},
        {-6, 2, 1, 0, 255, 0},
        {7, 0, 1, 0, 255, 7},
        {7, -3, 1, 0, 255, 56},
        {7, -30, 1, 0, 255, 255},
        {-7, -30, 1, -127, 127, -127},
        {-7, -62, 1, -127, 127, -127},
        {49, 0, 49, 0, 255, 1},
        {24, 0, 49, 0, 255, 0},
        {25, 0, 49, 0, 255, 1},
        {49, 1, 49, 0, 255, 0},
        {147, 1, 49, 0, 255, 2},
        {-147, 1, 49, -127, 127, -2},
        {98, -1, 49, 0, 255, 4},
        {INT32_MIN, 31, 1, -127, 127, -1},
        {INT32_MIN, 32, 1, -127, 127, 0},
        {INT32_MAX, 31, 1, -127, 127, 1},
        {INT32_MAX, 8, 1, 0, 255, 255},
        {1 << 30, 31, 1, 0, 255, 0},
        {INT64_MAX, 62, 1, 0, 255, 2},
        {15, 0, 1, 0, 15, 15},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(row); i++) {
        const int y = int_requant(row[i].x, row[i].shift, row[i].divisor, row[i].lo, row[i].hi);
        if (y != row[i].y)
            print_error("%lld / (%d 2^%d) in %d..%d: %d, not %d\n", (long long)row[i].x,
                        row[i].divisor, row[i].shift, row[i].lo, row[i].hi, y, row[i].y);
        assert_int_equal(y, row[i].y);
    }
}

/* rint of a double is exact here: 32 bits and a power of two. */
static void requant_everywhere(void **state)
{
    Rng r = rng_stream(3, RNG_TEST, 0, 0);
    (void)state;
    for (int k = 0; k < 200000; k++) {
        const int shift = (int)rng_below(&r, 44) - 10;
        const int32_t x = (int32_t)rng_u32(&r) >> rng_below(&r, 32);
        const int32_t near =
            x & ~((1 << (shift > 0 && shift < 31 ? shift - 1 : 0)) - 1); /* often a tie */
        const double want = rint(ldexp(near, -shift));
        const int32_t y = int_requant(near, shift, 1, -127, 127);
        assert_int_equal(y, want < -127 ? -127 : want > 127 ? 127 : (int)want);
    }
}

/* ---- fast against plain ---- */

static size_t len_of(const IntOp *op)
{
    return (size_t)op->c * (size_t)op->h * (size_t)op->w;
}

static void fill_image(const IntNet *net, int n, Rng *r, uint8_t *image)
{
    const size_t len = (size_t)n * len_of(&net->op[0]);
    const bool loud = rng_below(r, 3) == 0; /* mostly extremes */
    for (size_t i = 0; i < len; i++) {
        image[i] = (uint8_t)rng_u32(r);
        if (loud && rng_below(r, 4))
            image[i] = net->op[0].type == DT_U8 ? (rng_below(r, 4) ? 255 : 0)
                                                : (rng_below(r, 2) ? 127 : 128);
    }
}

/* Everything the net computes lies within its ranges. */
static void check_bounds(const IntNet *net, int32_t *const *value, int n)
{
    int64_t *bound = xcalloc((size_t)net->n, sizeof *bound);
    intnet_bounds(net, bound);
    for (int i = 0; i < net->n; i++)
        for (size_t k = 0; k < (size_t)n * len_of(&net->op[i]) && bound[i] <= INT32_MAX; k++)
            if (llabs(value[i][k]) > bound[i])
                fail_msg("operation %d (%s): %d, bound %lld", i, int_kind_name(net->op[i].kind),
                         value[i][k], (long long)bound[i]);
    free(bound);
}

static void check_exec(const IntNet *net, int batch, int n, Prim *p, const uint8_t *image,
                       const int32_t *want, const char *what)
{
    const size_t len = (size_t)n * len_of(&net->op[net->out]);
    int32_t *got = xcalloc(len + 1, sizeof *got);
    size_t differ = 0, first = 0;
    Err e = {0};
    IntExec *x = intexec_new(net, batch, p, &e);
    if (!x) fail_msg("%s: %s", what, e.msg);
    got[len] = 77;
    for (int again = 0; again < 2; again++) {
        intexec_run(x, image, n, got);
        for (size_t k = 0; k < len; k++)
            if (got[k] != want[k] && differ++ == 0) first = k;
        if (differ) {
            for (int i = 0; i < net->n; i++) {
                const IntOp *op = &net->op[i];
                print_error("%2d %-7s <- %d %d  %dx%dx%d\n", i, int_kind_name(op->kind), op->in[0],
                            op->in[1], op->c, op->h, op->w);
            }
            fail_msg("%s: out %d, batch %d, %d images: %zu of %zu differ, at %zu %d, not %d; %s",
                     what, net->out, batch, n, differ, len, first, got[first], want[first],
                     intexec_how(x));
        }
    }
    assert_int_equal(got[len], 77);
    intexec_free(x);
    free(got);
}

/* The net whole, then cut off at some of its 32-bit values: other steps are formed each time. */
static void check_net(IntNet *net, int n, int batch, uint64_t seed, Prim *p, const char *what)
{
    Rng r = rng_stream(seed, RNG_TEST, 1, 0);
    uint8_t *image = xmalloc((size_t)n * len_of(&net->op[0]));
    int32_t **value = xcalloc((size_t)net->n, sizeof *value),
            *logits = xcalloc((size_t)n * len_of(&net->op[net->out]), sizeof *logits);
    for (int i = 0; i < net->n; i++)
        value[i] = xcalloc((size_t)n * len_of(&net->op[i]), sizeof **value);
    fill_image(net, n, &r, image);
    intnet_reference(net, image, n, value, logits);
    assert_memory_equal(logits, value[net->out],
                        (size_t)n * len_of(&net->op[net->out]) * sizeof *logits);
    check_bounds(net, value, n);
    check_exec(net, batch, n, p, image, logits, what);
    for (int cut = 0; cut < 2; cut++) {
        const int out = 1 + (int)rng_below(&r, (uint32_t)net->n - 1), whole = net->out;
        if (net->op[out].type != DT_S32) continue;
        net->out = out;
        check_exec(net, batch, n, p, image, value[out], what);
        net->out = whole;
    }
    for (int i = 0; i < net->n; i++) free(value[i]);
    free(value);
    free(image);
    free(logits);
}

static int nets(void)
{
    if (getenv("QRUN_FULL")) return 500;
    return getenv("DNNL_MAX_CPU_ISA") ? 25 : 60;
}

static void random_nets(void **state)
{
    Err e = {0};
    Prim *p = prim_open(&e);
    (void)state;
    assert_non_null(p);
    for (int k = 0; k < nets(); k++) {
        char what[64];
        IntNet net = {0};
        snprintf(what, sizeof what, "random net %d", k);
        intnet_random(&net, (uint64_t)k);
        check_net(&net, 1 + k % 4, 1 + k % 4 + k % 3, (uint64_t)k, p, what);
        intnet_free(&net);
    }
    prim_close(p);
}

static void residual_net(void **state)
{
    Err e = {0};
    Prim *p = prim_open(&e);
    IntNet net = {0};
    (void)state;
    intnet_resnet18(&net, 57, 10, 5);
    check_net(&net, 1, 2, 5, p, "resnet18 at 57");
    intnet_free(&net);
    intnet_resnet18(&net, 33, 10, 6); /* several groups of images, the last one not full */
    check_net(&net, 11, 12, 6, p, "resnet18 at 33");
    intnet_free(&net);
    prim_close(p);
}

/* ---- which way is taken ---- */

/* One full-range convolution of 600 x 9 taps: sums far beyond 2^24. */
static void extremes(void **state)
{
    Err e = {0};
    Prim *p = prim_open(&e);
    const char *limit = getenv("DNNL_MAX_CPU_ISA");
    (void)state;
    for (int s8 = 0; s8 < 2; s8++)
        for (int quiet = 0; quiet < 2; quiet++) {
            IntNet net = {0};
            const int ic = 600, oc = 48, k = 3;
            int8_t *w = arena_alloc(&net.arena, (size_t)(oc * ic * k * k));
            uint8_t *image = xmalloc((size_t)(2 * ic * 25));
            int32_t *want = xcalloc((size_t)(2 * oc * 25), sizeof *want);
            I8Conv *c;
            IntConv a = {.k = k, .stride = 1, .pad = 1, .dilation = 1, .groups = 1, .w = w};
            for (int i = 0; i < oc * ic * k * k; i++)
                w[i] = (int8_t)((i / (ic * k * k) % 2 ? -1 : 1) * (quiet ? 60 : 127 - i % 3 / 2));
            for (int i = 0; i < 2 * ic * 25; i++)
                image[i] = (uint8_t)(s8 ? (i % 7 ? 127 : 128) : 255 - i % 5 / 4);
            intnet_add(
                &net,
                &(IntOp){.kind = IK_INPUT, .c = ic, .h = 5, .w = 5, .type = s8 ? DT_S8 : DT_U8});
            net.out = intnet_add(&net, &(IntOp){.kind = IK_CONV,
                                                .nin = 1,
                                                .c = oc,
                                                .h = 5,
                                                .w = 5,
                                                .type = DT_S32,
                                                .u.conv = a});
            intnet_reference(&net, image, 2, NULL, want);
            if (!s8) assert_true(abs(want[(12) * oc]) > 1 << 24);
            check_exec(&net, 2, 2, p, image, want, s8 ? "signed extremes" : "extremes");
            c = i8conv_new(p, &net, 1, (IntRange){s8 ? -128 : 0, s8 ? 127 : 255}, 2, NULL);
            print_message("# %s %s, weights to %d: way %d\n", limit ? limit : "all",
                          s8 ? "s8" : "u8", quiet ? 60 : 127, (int)i8conv_way(c));
            i8conv_free(c);
            free(image);
            free(want);
            intnet_free(&net);
        }
    prim_close(p);
}

/* Strided 1x1 convolutions of few channels, their output channels shared out among threads: in a
 * kernel of oneDNN's for SSE4.1 and AVX2 one thread's copy of the input runs into another's. With
 * new numbers in each run that is seen in one of 40 to one of 2000; so it must not be chosen. */
static void strided_pixels(void **state)
{
    static const int channels[] = {3, 20};
    enum { N = 2, OC = 64, SIZE = 4, OUT = SIZE / 2, RUNS = 300 };
    static int32_t want[N * OUT * OUT * OC], got[N * OUT * OUT * OC];
    Err e = {0};
    Prim *p = prim_open(&e);
    const int threads = par_threads();
    (void)state;
    par_set_threads(2);
    for (size_t at = 0; at < ARRAY_LEN(channels); at++) {
        const int ic = channels[at], nx = N * SIZE * SIZE * ic;
        const IntConv a = {.k = 1, .stride = 2, .dilation = 1, .groups = 1};
        const PrimIntShape shape = {
            .conv = conv_shape_1x1(N, ic, SIZE, OC, 2), .src = DT_U8, .dst = DT_S32};
        PrimIntConv *c = prim_int_conv_new(p, &shape, &e);
        Rng r = rng_stream(1, RNG_TEST, 5, at);
        IntNet net = {0};
        int8_t *w = arena_alloc(&net.arena, (size_t)(OC * ic));
        uint8_t *image = xmalloc((size_t)nx);
        IntExec *x;
        if (c && str_starts(prim_int_conv_impl(c), "jit_uni_int8_1x1:"))
            fail_msg("%d channels: %s", ic, prim_int_conv_impl(c));
        prim_int_conv_free(c);
        for (int i = 0; i < OC * ic; i++) w[i] = (int8_t)(rng_below(&r, 255) - 127);
        intnet_add(&net, &(IntOp){.kind = IK_INPUT, .c = ic, .h = SIZE, .w = SIZE, .type = DT_U8});
        net.out = intnet_add(&net, &(IntOp){.kind = IK_CONV,
                                            .nin = 1,
                                            .c = OC,
                                            .h = OUT,
                                            .w = OUT,
                                            .type = DT_S32,
                                            .u.conv = a});
        net.op[net.out].u.conv.w = w;
        x = intexec_new(&net, N, p, &e);
        if (!x) fail_msg("%s", e.msg);
        for (int k = 0; k < RUNS; k++) {
            for (int i = 0; i < nx; i++) image[i] = (uint8_t)rng_u32(&r);
            intnet_reference(&net, image, N, NULL, want);
            intexec_run(x, image, N, got);
            for (size_t i = 0; i < ARRAY_LEN(got); i++)
                if (got[i] != want[i])
                    fail_msg("%d channels, run %d, at %zu: %d, not %d; %s", ic, k, i, got[i],
                             want[i], intexec_how(x));
        }
        intexec_free(x);
        free(image);
        intnet_free(&net);
    }
    par_set_threads(threads);
    prim_close(p);
}

/* ---- other instruction sets ---- */

static const char *const isas[] = {"SSE41", "AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"};

/* Runs this program for one limit; what it printed is shown when something failed. */
static void limited(void **state)
{
    const char *isa = *state;
    char line[1024], log[] = "/tmp/qrun-intnet.XXXXXX";
    int status, fd = mkstemp(log);
    FILE *f;
    pid_t child;
    assert_true(fd >= 0);
    child = fork();
    if (child == 0) {
        dup2(fd, 1);
        dup2(fd, 2);
        setenv("DNNL_MAX_CPU_ISA", isa, 1);
        execl("/proc/self/exe", "test_intnet", "limited", (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    f = fdopen(fd, "r");
    rewind(f);
    while (fgets(line, sizeof line, f))
        if (status || strstr(line, "way")) print_message("# %s: %s", isa, line);
    fclose(f);
    unlink(log);
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest own[] = {
        cmocka_unit_test(requant_ties),
        cmocka_unit_test(requant_everywhere),
    };
    const struct CMUnitTest exec[] = {
        cmocka_unit_test(extremes),
        cmocka_unit_test(strided_pixels),
        cmocka_unit_test(random_nets),
        cmocka_unit_test(residual_net),
    };
    struct CMUnitTest all[16];
    size_t n = 0;
    if (argc > 1 && str_eq(argv[1], "limited"))
        return cmocka_run_group_tests_name("limited", exec, NULL, NULL);
    for (size_t i = 0; i < ARRAY_LEN(own); i++) all[n++] = own[i];
    for (size_t i = 0; i < ARRAY_LEN(exec); i++) all[n++] = exec[i];
    for (size_t i = 0; i < ARRAY_LEN(isas); i++) {
        void *isa;
        memcpy(&isa, &isas[i], sizeof isa);
        all[n++] = (struct CMUnitTest){isas[i], limited, NULL, NULL, isa};
    }
    return _cmocka_run_group_tests("intnet", all, n, NULL, NULL);
}
