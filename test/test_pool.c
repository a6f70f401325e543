/* test/test_pool.c -- pools against their definition in plain loops, forward and backward: all kinds, kernels,
 * strides and paddings that spec_pool allows, rounding up and down, maps that do not come out even.
 *
 * A window begins at o * stride - pad; a maximum looks at the map alone (the first of equals wins); an average is
 * divided by the whole window (count_pad) or by what of it lies in the map. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/ops.h"
#include "engine/par.h"
#include "engine/prim.h"
#include "engine/rng.h"
#include "engine/spec.h"

enum { N = 2 };

typedef struct Window {
    int y0, y1, x0, x1; /* within the map */
    float divisor;
} Window;

static int at_least(int a, int b)
{
    return a > b ? a : b;
}

static int at_most(int a, int b)
{
    return a < b ? a : b;
}

static Window window(const PoolShape *s, int oy, int ox)
{
    Window w = {.y0 = oy * s->stride - s->pad, .x0 = ox * s->stride - s->pad};
    w.y1 = at_most(w.y0 + s->kh, s->ih), w.x1 = at_most(w.x0 + s->kw, s->iw);
    w.y0 = at_least(w.y0, 0), w.x0 = at_least(w.x0, 0);
    w.divisor = (float)(s->count_pad ? s->kh * s->kw : (w.y1 - w.y0) * (w.x1 - w.x0));
    return w;
}

static size_t in_at(const PoolShape *s, int n, int y, int x, int c)
{
    return (((size_t)n * (size_t)s->ih + (size_t)y) * (size_t)s->iw + (size_t)x) * (size_t)s->c + (size_t)c;
}

/* One value of the output, and what its gradient adds to dx. */
static float one(const PoolShape *s, const float *src, float *dx, float g, int n, int oy, int ox, int c)
{
    const Window w = window(s, oy, ox);
    size_t best = in_at(s, n, w.y0, w.x0, c);
    float sum = 0;
    for (int y = w.y0; y < w.y1; y++)
        for (int x = w.x0; x < w.x1; x++) {
            const size_t i = in_at(s, n, y, x, c);
            sum += src[i];
            if (src[i] > src[best]) best = i;
            if (!s->max) dx[i] += g / w.divisor;
        }
    if (s->max) dx[best] += g;
    return s->max ? src[best] : sum / w.divisor;
}

static void random_values(float *v, size_t n, uint64_t which)
{
    Rng r = rng_stream(3, RNG_TEST, which, n);
    for (size_t i = 0; i < n; i++) v[i] = (float)rng_range(&r, -1, 1);
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double d = 0;
    for (size_t i = 0; i < n; i++) d = fmax(d, isfinite(a[i]) ? fabs((double)(a[i] - b[i])) : HUGE_VAL);
    return d;
}

static void check(Prim *prim, const PoolShape *s, const char *what)
{
    const size_t in = (size_t)(s->n * s->c * s->ih * s->iw), out = (size_t)(s->n * s->c * s->oh * s->ow);
    float *x = xaligned(in * 4), *y = xaligned(out * 4), *g = xaligned(out * 4), *dx = xaligned(in * 4);
    float *want = xcalloc(out, 4), *dwant = xcalloc(in, 4);
    double dy, ddx;
    Err e = {0};
    PrimPool *p = prim_pool_new(prim, s, true, &e);
    void *workspace, *scratch;
    size_t at = 0;
    if (!p) fail_msg("%s: %s", what, e.msg);
    workspace = xaligned(prim_pool_workspace(p) + 64);
    scratch = xaligned(prim_pool_scratch(p) + 64);
    random_values(x, in, 1);
    random_values(g, out, 2);
    for (int n = 0; n < s->n; n++)
        for (int oy = 0; oy < s->oh; oy++)
            for (int ox = 0; ox < s->ow; ox++)
                for (int c = 0; c < s->c; c++, at++) want[at] = one(s, x, dwant, g[at], n, oy, ox, c);
    prim_pool_fwd(p, x, y, workspace, scratch);
    prim_pool_bwd(p, g, dx, workspace, scratch);
    dy = largest_difference(y, want, out);
    ddx = largest_difference(dx, dwant, in);
    if (dy > 1e-6 || ddx > 2e-6) fail_msg("%s: off by %.3g, gradient by %.3g", what, dy, ddx);
    prim_pool_free(p);
    free(x), free(y), free(g), free(dx), free(want), free(dwant), free(workspace), free(scratch);
}

static void pools(void **state)
{
    static const int sizes[][2] = {{4, 4}, {7, 7}, {9, 5}, {8, 11}}, channels[] = {1, 16, 19};
    Err e = {0};
    Prim *prim = prim_open(&e);
    int done = 0;
    (void)state;
    if (!prim) fail_msg("%s", e.msg);
    for (size_t z = 0; z < ARRAY_LEN(sizes) * ARRAY_LEN(channels); z++)
        for (int k = 2; k <= 5; k += 1 + (k == 3))
            for (int stride = 1; stride <= 3; stride++)
                for (int pad = 0; pad <= k / 2; pad++)
                    for (int kind = 0; kind < 6; kind++) { /* max, padding counted, not counted; up and down */
                        const int *hw = sizes[z % ARRAY_LEN(sizes)];
                        const PoolAttr a = {.kind = kind % 3 ? POOL_AVG : POOL_MAX, .k = k, .stride = stride, .pad = pad,
                                            .count_pad = kind % 3 == 1, .ceil_mode = kind > 2};
                        PoolShape s = {.n = N, .c = channels[z / ARRAY_LEN(sizes)], .ih = hw[0], .iw = hw[1], .kh = k,
                                       .kw = k, .stride = stride, .pad = pad, .max = !(kind % 3), .count_pad = a.count_pad};
                        char what[160];
                        Spec spec = {0};
                        const int u = spec_pool(&spec, spec_input(&spec, s.c, s.ih, s.iw), a);
                        s.oh = spec.u[u].h, s.ow = spec.u[u].w;
                        if (spec.err.kind == ERR_NONE) {
                            snprintf(what, sizeof what, "%s%s%s of %d x %d, kernel %d, stride %d, padding %d, %d channels",
                                     s.max ? "max" : "average", s.count_pad ? " with padding" : "",
                                     a.ceil_mode ? ", rounded up," : "", s.ih, s.iw, k, stride, pad, s.c);
                            check(prim, &s, what);
                            done++;
                        }
                        spec_free(&spec);
                    }
    printf("# %d pools\n", done);
    prim_close(prim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pools)};
    par_set_threads(1); /* small maps: threads would only wait for each other */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
