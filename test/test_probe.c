/* test/test_probe.c -- the engine carries methods it does not know: gradients by finite
 * differences, what each probe promises, and kill-and-resume in mid-epoch to the same bytes. See
 * test/probe/probe.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/par.h"
#include "io/fs.h"
#include "quant/qplan.h"
#include "test/probe/probe.h"
#include "test/support/temp.h"

/* ---- set-ups ---- */

static RigOpts defaults(void)
{
    RigOpts o;
    rig_defaults(&o);
    return o;
}

static RigOpts fold(int bits)
{
    RigOpts o = defaults();
    o.quant.wt_quant = "probe_fold";
    o.quant.wt_bit = bits;
    return o;
}

static RigOpts variants(void)
{
    RigOpts o = defaults();
    o.quant.wt_quant = o.quant.fm_quant = "probe_variants";
    o.quant.bits_list[0] = 2, o.quant.bits_list[1] = 4, o.quant.nbits_list = 2;
    o.quant.switch_norm = true;
    return o;
}

static RigOpts counting(void)
{
    RigOpts o = defaults();
    o.quant.fm_quant = "probe_counting";
    o.quant.fm_bit = 4;
    return o;
}

static RigOpts latent(void)
{
    RigOpts o = defaults();
    o.quant.wt_quant = "probe_latent";
    o.quant.wt_bit = 1;
    return o;
}

static RigOpts policy(void)
{
    RigOpts o = defaults();
    o.quant.wt_quant = o.quant.fm_quant = "probe_variants";
    o.quant.wt_bit = o.quant.fm_bit = 4;
    o.policy = probe_policy;
    return o;
}

static RigOpts smooth(RigOpts o)
{
    o.quant.method_opts = "smooth";
    return o;
}

static Rig open_rig(const RigOpts *o)
{
    Rig r;
    Err e = {0};
    if (rig_open(&r, o, &e)) fail_msg("%s", e.msg);
    return r;
}

static double gradients(Rig *r)
{
    Err e = {0};
    double loss = rig_gradients(r, &e);
    if (!isfinite(loss)) fail_msg("%s", e.msg);
    return loss;
}

static double step(Rig *r)
{
    Err e = {0};
    double loss = rig_step(r, &e);
    if (!isfinite(loss)) fail_msg("step %d: %s", (int)r->step, e.msg);
    return loss;
}

static double eval(Rig *r, int variant)
{
    Err e = {0};
    double loss = rig_eval(r, variant, &e);
    if (!isfinite(loss)) fail_msg("%s", e.msg);
    return loss;
}

static Param *find(const Rig *r, const char *name)
{
    Param *p = store_find(model_store(r->m), name);
    if (!p) fail_msg("no parameter '%s'", name);
    return p;
}

static double largest(const float *v, size_t n)
{
    double big = 0;
    for (size_t i = 0; i < n; i++) big = fmax(big, fabs((double)v[i]));
    return big;
}

/* Gradients of parameters and values of float buffers: the largest difference, relative to the
 * tensor's largest value. */
static void assert_close_stores(const Rig *a, const Rig *b, double tolerance)
{
    for (int i = 0; i < model_store(a->m)->n; i++) {
        const Param *p = model_store(a->m)->p[i], *q = find(b, p->name);
        const float *u = p->kind == PK_BUFFER ? p->value.data : p->grad.data,
                    *v = p->kind == PK_BUFFER ? q->value.data : q->grad.data;
        const size_t n = tensor_len(&p->value);
        double diff = 0, big;
        if (p->value.dtype != DT_F32) continue;
        big = largest(u, n);
        for (size_t k = 0; k < n; k++) diff = fmax(diff, fabs((double)u[k] - (double)v[k]));
        if (!(diff <= 1e-6 + tolerance * big))
            fail_msg("%s %s: differs by %g, largest value %g",
                     p->kind == PK_BUFFER ? "buffer" : "gradient of", p->name, diff, big);
    }
}

static void assert_differences(RigOpts o, int per_param, int at_least)
{
    char buf[256];
    const char *wrong;
    int compared;
    Rig r;
    o.net.model = "mnist_resnet10"; /* fewer layers and more values for each batch statistic: less
                                       curvature */
    o.net.in_c = 1, o.net.in_h = o.net.in_w = 12;
    o.batch = 8;
    r = open_rig(&o);
    wrong = rig_finite_differences(&r, per_param, &compared, buf, sizeof buf);
    if (wrong) fail_msg("%s", wrong);
    if (compared < at_least) fail_msg("only %d entries compared", compared);
    rig_close(&r);
}

/* ---- fold ---- */

static void fold_equals_plain(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++) {
        RigOpts of = fold(32), op = defaults();
        Rig f, p;
        double lf, lp;
        of.quant.fuse = op.quant.fuse = fuse != 0;
        f = open_rig(&of), p = open_rig(&op);
        for (int s = 0; s < 2; s++) { /* the second with statistics and momentum of the first */
            lf = gradients(&f), lp = gradients(&p);
            if (fabs(lf - lp) > 1e-4)
                fail_msg("fuse %d, step %d: training loss %.7f, plain net %.7f", fuse, s, lf, lp);
            assert_close_stores(&p, &f, 2e-3);
            lf = eval(&f, 0), lp = eval(&p, 0);
            if (fabs(lf - lp) > 1e-4)
                fail_msg("fuse %d, step %d: evaluation %.7f, plain net %.7f", fuse, s, lf, lp);
        }
        rig_close(&f);
        rig_close(&p);
    }
}

static void fold_swallows_the_norm(void **state)
{
    RigOpts o = fold(8);
    Rig r = open_rig(&o);
    Str s = {0};
    (void)state;
    model_print(r.m, PH_TRAIN, o.batch, &s);
    assert_non_null(strstr(s.s, "probe_fold"));
    assert_non_null(strstr(s.s, "quant_w")); /* rounds the folded weight */
    assert_true(find(&r, "bn1.weight")->trained);
    str_free(&s);
    rig_close(&r);
}

/* A `.lower` that hands over to the default: its norm is applied once, in every phase, fused or
 * not. */
static void lower_may_take_the_default(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++) {
        RigOpts of = fold(32), op = defaults();
        Rig f, p;
        of.quant.method_opts = "plain";
        of.quant.fuse = op.quant.fuse = fuse != 0;
        f = open_rig(&of), p = open_rig(&op);
        for (int s = 0; s < 2; s++) {
            double a = step(&f), b = step(&p);
            if (a != b) fail_msg("fuse %d, step %d: loss %.9g and %.9g", fuse, s, a, b);
            a = eval(&f, 0), b = eval(&p, 0);
            if (a != b) fail_msg("fuse %d, step %d: evaluation %.9g and %.9g", fuse, s, a, b);
        }
        rig_close(&f);
        rig_close(&p);
    }
}

static void fold_differences(void **state)
{
    (void)state;
    assert_differences(fold(32), 3, 100);
}

/* ---- variants ---- */

static void variants_differences(void **state)
{
    (void)state;
    assert_differences(smooth(variants()), 3, 200);
}

static float *copy(const ParamStore *ps)
{
    float *v = xcalloc(ps->n_grads, sizeof *v);
    return memcpy(v, ps->grads, ps->n_grads * sizeof *v);
}

static void variants_share_weights(void **state)
{
    RigOpts o = variants();
    Rig r = open_rig(&o);
    ParamStore *ps = model_store(r.m);
    float *one[2], *both;
    Param *shared = find(&r, "layer1.0.conv1.weight");
    (void)state;
    gradients(&r); /* makes the programs: none of the following may clear what another has added */
    both = copy(ps);
    r.variants = 1;
    gradients(&r);
    one[0] = copy(ps);
    r.variants = 2;
    for (size_t i = 0; i < ps->n_grads; i++) one[0][i] = -one[0][i];
    gradients(&r);
    one[1] = copy(ps);
    for (size_t i = 0; i < ps->n_grads; i++) one[1][i] += one[0][i]; /* what variant 1 adds */
    for (int i = 0; i < ps->n; i++) {
        const Param *p = ps->p[i];
        const bool v0 = strstr(p->name, ".0.weight") && p->kind == PK_NORM;
        size_t at;
        if (p->kind == PK_BUFFER) continue;
        at = (size_t)((float *)p->grad.data - ps->grads);
        if (str_ends(p->name, "clip.1") && largest(one[0] + at, tensor_len(&p->value)) != 0)
            fail_msg("%s has a gradient from variant 0", p->name);
        if ((str_ends(p->name, "clip.0") || v0) &&
            largest(one[1] + at, tensor_len(&p->value)) > 1e-9)
            if (!strstr(p->name, "downsample"))
                fail_msg("%s has a gradient from variant 1", p->name);
    }
    {
        const size_t at = (size_t)((float *)shared->grad.data - ps->grads),
                     n = tensor_len(&shared->value);
        assert_true(largest(one[0] + at, n) > 0 && largest(one[1] + at, n) > 0);
        assert_memory_equal(both, ps->grads, ps->n_grads * sizeof *both);
    }
    free(one[0]);
    free(one[1]);
    free(both);
    rig_close(&r);
}

/* Each variant keeps norms of its own: statistics move with it only. */
static void variants_have_norms(void **state)
{
    RigOpts o = variants();
    Rig r = open_rig(&o);
    const Param *n0 = find(&r, "bn1.bn.0.running_mean"), *n1 = find(&r, "bn1.bn.1.running_mean");
    (void)state;
    r.variants = 1;
    step(&r);
    assert_true(largest(n0->value.data, tensor_len(&n0->value)) > 0);
    assert_true(largest(n1->value.data, tensor_len(&n1->value)) == 0);
    r.variants = 2;
    for (int i = 0; i < 4; i++) step(&r);
    assert_true(largest(n1->value.data, tensor_len(&n1->value)) > 0);
    assert_true(eval(&r, 0) != eval(&r, 1));
    rig_close(&r);
}

/* ---- counting ---- */

static void counting_differences(void **state)
{
    (void)state;
    assert_differences(smooth(counting()), 3, 100);
}

static void counting_in_training_only(void **state)
{
    RigOpts o = counting();
    Rig r = open_rig(&o);
    const Param *max = find(&r, "layer2.0.conv1.running_max"),
                *n = find(&r, "layer2.0.conv1.batches");
    float before;
    double a, b;
    (void)state;
    eval(&r, 0); /* its program comes first: those that follow move the arena */
    assert_int_equal(*(int64_t *)n->value.data, 0);
    step(&r);
    step(&r);
    assert_int_equal(*(int64_t *)n->value.data, 2);
    before = param_scalar(max);
    assert_true(before > 0);
    a = eval(&r, 0), b = eval(&r, 0);
    if (a != b || param_scalar(max) != before || *(int64_t *)n->value.data != 2)
        fail_msg("evaluation moved a buffer: loss %.9g, then %.9g; maximum %g, then %g", a, b,
                 (double)before, (double)param_scalar(max));
    rig_close(&r);
}

/* Backward sees what forward saw, though the buffer has moved on. */
static void counting_backward_uses_saved(void **state)
{
    enum { N = 64 };
    RigOpts o = counting();
    ParamStore ps = {0};
    QInst q;
    float x[N], y[N], dy[N], dx[2][N];
    int dim[3] = {1, 8, 8};
    Tensor tx = tensor_make(DT_F32, 3, dim, x), ty = tx, tdy = tx, tdx = tx;
    QCtx c = {.phase = PH_TRAIN, .want_dx = true};
    size_t save, scratch;
    Err e = {0};
    Rng g = rng_stream(3, RNG_TEST, 0, 0);
    (void)state;
    if (qinst_init(&q, &probe_counting, Q_ACT, 4, 0, &o.quant, &ps, NULL, 0, 3, dim, "a.", &e))
        fail_msg("%s", e.msg);
    store_init(&ps, 1);
    for (int i = 0; i < N; i++) x[i] = (float)rng_normal(&g), dy[i] = (float)rng_normal(&g);
    qinst_need(&q, &tx, PH_TRAIN, &save, &scratch);
    c.save = xaligned(save);
    ty.data = y, tdy.data = dy;
    qinst_forward(&q, &tx, &ty, &c);
    for (int k = 0; k < 2; k++) {
        tdx.data = dx[k];
        qinst_backward(&q, &tx, &tdy, &tdx, &c);
        param_set_scalar(q.p[0], 1000); /* another program's batch */
    }
    assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
    free(c.save);
    qinst_free(&q);
    store_free(&ps);
}

/* ---- latent ---- */

static void latent_differences(void **state)
{
    (void)state;
    assert_differences(latent(), 3, 100);
}

/* The whole rule, written out for one tensor: plain SGD on the latent copy, decay from the weight
 * in use. */
static void latent_follows_its_rule(void **state)
{
    RigOpts o = latent();
    Rig r = open_rig(&o);
    Param *w = find(&r, "layer1.0.conv1.weight"), *l = find(&r, "layer1.0.conv1.latent");
    const size_t n = tensor_len(&w->value);
    float *used = xcalloc(n, sizeof *used), *hidden = xcalloc(n, sizeof *used),
          *v = xcalloc(n, sizeof *used);
    const float lr = (float)o.optim.lr, mu = (float)o.optim.momentum,
                wd = (float)o.optim.weight_decay;
    size_t kept = 0;
    (void)state;
    memcpy(used, w->value.data, n * sizeof *used);
    memcpy(hidden, used, n * sizeof *used);
    for (int s = 0; s < 6; s++) {
        double sum = 0;
        float scale;
        step(&r);
        for (size_t i = 0; i < n; i++) {
            float d = ((const float *)w->grad.data)[i] + wd * used[i];
            v[i] = s ? mu * v[i] + d : d;
            hidden[i] -= lr * v[i];
            sum += fabs((double)hidden[i]);
        }
        scale = (float)(sum / (double)n);
        for (size_t i = 0; i < n; i++) {
            const bool far = fabs((double)hidden[i]) >= 0.1 * (double)scale;
            const bool minus = (far ? hidden[i] : used[i]) < 0;
            kept += s > 0 && minus != (hidden[i] < 0);
            used[i] = minus ? -scale : scale;
            if (used[i] != ((const float *)w->value.data)[i] ||
                hidden[i] != ((const float *)l->value.data)[i])
                fail_msg("step %d, weight %zu: %.9g (latent %.9g), expected %.9g (%.9g)", s, i,
                         (double)((const float *)w->value.data)[i],
                         (double)((const float *)l->value.data)[i], (double)used[i],
                         (double)hidden[i]);
        }
    }
    assert_true(kept > 0); /* the band was met */
    free(used);
    free(hidden);
    free(v);
    rig_close(&r);
}

/* ---- policy ---- */

static void policy_switches_off(void **state)
{
    RigOpts o = policy();
    Rig r = open_rig(&o);
    QPlan *qp = model_qplan(r.m);
    const Param *clip = find(&r, "layer2.0.conv1.act_clip.0");
    float at_end_of_epoch = 0;
    int conv = -1;
    (void)state;
    for (int i = 0; i < qp->spec->n; i++)
        if (str_eq(qp->spec->u[i].name, "layer2.0.conv1")) conv = i;
    assert_true(conv >= 0);
    for (int s = 0; s < 5; s++) {
        step(&r);
        assert_int_equal(qplan_bits(qp, conv, Q_WEIGHT, 0), s < 3 ? 4 : 32);
        if (s == 2) at_end_of_epoch = param_scalar(clip);
        if (s > 2)
            assert_true(param_scalar(clip) == at_end_of_epoch); /* no decay, no momentum either */
    }
    rig_close(&r);
}

/* What a rule changes in a quantizer's private data reaches weights that evaluation has computed
 * before. */
static void policy_reaches_hoisted_weights(void **state)
{
    RigOpts o = policy();
    Rig a, b;
    double before, after, fresh;
    Err e = {0};
    (void)state;
    o.policy = NULL;
    a = open_rig(&o), b = open_rig(&o);
    before = eval(&a, 0);
    assert_true(model_set(a.m, "layer1.", "levels", 1, &e) == 12);
    assert_true(model_set(b.m, "layer1.", "levels", 1, &e) == 12);
    after = eval(&a, 0), fresh = eval(&b, 0);
    if (after != fresh || after == before)
        fail_msg("loss %.9g, then %.9g; in a new net %.9g", before, after, fresh);
    assert_int_equal(model_set(a.m, "layer1.", "levles", 1, &e), -1);
    assert_non_null(strstr(e.msg, "levles"));
    rig_close(&a);
    rig_close(&b);
}

/* ---- killed and resumed ---- */

typedef struct Case {
    const char *name;
    RigOpts (*make)(void);
} Case;

static RigOpts fold8(void)
{
    return fold(8);
}

static const Case cases[] = {
    {"fold", fold8},    {"variants", variants}, {"counting", counting},
    {"latent", latent}, {"policy", policy},
};

static void resume_one(const Case *c, const char *root)
{
    enum { STEPS = 11 };
    static const int kills[] = {1, 4, 5, 6, 8, 10}; /* in epochs 0 to 3, within and between */
    RigOpts o = c->make();
    Rig whole = open_rig(&o);
    char buf[300];
    Err e = {0};
    for (int s = 0; s < STEPS; s++) step(&whole);
    for (size_t k = 0; k < ARRAY_LEN(kills); k++) {
        char *name = xasprintf("%s/%s-%d", root, c->name, kills[k]),
             *folder = fs_join(name, "checkpoints");
        const char *d;
        Rig r = open_rig(&o);
        if (fs_mkdirs(folder, &e)) fail_msg("%s", e.msg);
        while (r.step < kills[k]) step(&r);
        if (rig_save(&r, name, &e)) fail_msg("%s", e.msg);
        rig_close(&r);
        r = open_rig(&o);
        if (rig_resume(&r, name, &e)) fail_msg("%s", e.msg);
        assert_int_equal(r.step, kills[k]);
        while (r.step < STEPS) step(&r);
        d = rig_difference(&whole, &r, buf, sizeof buf);
        if (d) fail_msg("%s, resumed after step %d: %s", c->name, kills[k], d);
        rig_close(&r);
        free(name);
        free(folder);
    }
    rig_close(&whole);
}

static void resumed_is_the_same(void **state)
{
    char *root = temp_folder("probe");
    (void)state;
    assert_non_null(root);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) resume_one(&cases[i], root);
    assert_int_equal(temp_remove(root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fold_equals_plain),
        cmocka_unit_test(fold_swallows_the_norm),
        cmocka_unit_test(lower_may_take_the_default),
        cmocka_unit_test(fold_differences),
        cmocka_unit_test(variants_differences),
        cmocka_unit_test(variants_share_weights),
        cmocka_unit_test(variants_have_norms),
        cmocka_unit_test(counting_differences),
        cmocka_unit_test(counting_in_training_only),
        cmocka_unit_test(counting_backward_uses_saved),
        cmocka_unit_test(latent_differences),
        cmocka_unit_test(latent_follows_its_rule),
        cmocka_unit_test(policy_switches_off),
        cmocka_unit_test(policy_reaches_hoisted_weights),
        cmocka_unit_test(resumed_is_the_same),
    };
    par_set_threads(1); /* small maps: threads would only wait for each other */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
