/* test/test_keyword.c -- quantizers of the keyword language: what golden cases do not reach. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/spec.h"
#include "quant/keyword.h"
#include "run/keys.h"
#include "test/one.h"

/* A clip level for each channel, all the same, is one clip level: another code, the same numbers.
 */
static void groups_alike_are_one(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        One a, b;
        new_one(&a)->o.kw.tag[Q_ACT].half_range = half;
        new_one(&b)->o.kw.tag[Q_ACT].half_range = half;
        b.o.kw.tag[Q_ACT].quant_group = -1;
        open_one(&a, "lsq", Q_ACT, 3, 4, map_dim);
        open_one(&b, "lsq", Q_ACT, 3, 4, map_dim);
        assert_int_equal(tensor_len(&a.q.p[0]->value), 1);
        assert_int_equal(tensor_len(&b.q.p[0]->value), 5);
        fill_one(&a, -1.5, 1.5), fill_one(&b, -1.5, 1.5);
        run_one(&a), run_one(&b);
        assert_memory_equal(a.y.data, b.y.data, tensor_bytes(&a.y));
        assert_memory_equal(a.dx.data, b.dx.data, tensor_bytes(&a.dx));
        if (fabs(grad_sum(a.q.p[0]) - grad_sum(b.q.p[0])) > 1e-4)
            fail_msg("gradient %g in one group, %g in five", grad_sum(a.q.p[0]),
                     grad_sum(b.q.p[0]));
        close_one(&a), close_one(&b);
    }
}

/* Backward of dorefa's weights is that of t / max |t|, the rounding left out. */
static double surrogate(const float *w, const float *g, size_t n)
{
    double max = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fabs(tanh((double)w[i])) > max ? fabs(tanh((double)w[i])) : max;
    for (size_t i = 0; i < n; i++) sum += (double)g[i] * tanh((double)w[i]) / max;
    return sum;
}

static const Param *by_end(const ParamStore *ps, const char *end)
{
    for (int i = 0; i < ps->n; i++)
        if (str_ends(ps->p[i]->name, end)) return ps->p[i];
    fail_msg("no parameter *%s", end);
    return NULL;
}

/* B B' e = B x with the digits B of the levels that came out, over several blocks and parts and a rest. */
static void lq_fits_by_least_squares(void **state)
{
    static const int dim[] = {2, 3, 29, 31};
    (void)state;
    for (int k = 0; k < 32; k++) {
        const int bits = k / 4 + 1, groups = k & 1 ? 3 : 1, codes = 1 << bits;
        const bool half = k & 2;
        float before[8 * 3];
        One t;
        new_one(&t);
        t.o.kw.tag[Q_ACT].half_range = half;
        if (groups > 1) t.o.kw.tag[Q_ACT].quant_group = -1; /* one for each channel */
        open_one(&t, "lq", Q_ACT, bits, 4, dim);
        fill_one(&t, half ? -0.1 : -3, 3);
        const Param *basis = by_end(&t.ps, ".basis"), *fitted = by_end(&t.ps, ".auxil");
        if (tensor_len(&basis->value) != (size_t)(bits * groups)) fail_msg("no basis of %d by %d", bits, groups);
        memcpy(before, basis->value.data, tensor_bytes(&basis->value));
        run_one(&t);
        for (int g = 0; g < groups; g++) {
            const float *x = t.x.data, *y = t.y.data, *e = fitted->value.data;
            double left[8] = {0}, right[8] = {0}, size = 0;
            for (size_t i = 0; i < tensor_len(&t.x); i++) {
                int digit[8], code = -1;
                double sum = 0;
                if ((int)(i % 3) % groups != g) continue;
                for (int c = 0; c < codes && code < 0; c++) {
                    float level = 0;
                    for (int j = 0; j < bits; j++) level += (half ? (float)(c >> j & 1) : (float)(2 * (c >> j & 1) - 1)) * before[j * groups + g];
                    if (level == y[i]) code = c;
                }
                if (code < 0) fail_msg("%d bits: %g is no level", bits, (double)y[i]);
                for (int j = 0; j < bits; j++) {
                    digit[j] = half ? code >> j & 1 : 2 * (code >> j & 1) - 1;
                    sum += digit[j] * (double)e[j * groups + g];
                }
                for (int j = 0; j < bits; j++) left[j] += digit[j] * sum, right[j] += digit[j] * (double)x[i];
                size += fabs((double)x[i]);
            }
            for (int j = 0; j < bits; j++)
                if (!(fabs(left[j] - right[j]) <= 1e-6 * size))
                    fail_msg("%d bits, %s range, group %d of %d: digit %d: %.9g, %.9g", bits, half ? "half" : "full", g, groups, j, left[j], right[j]);
        }
        close_one(&t);
    }
}

/* Where value i of a 22 x 22 map lies in the 20 x 20 one inside; -1: around it. */
static int inside(int i)
{
    const int h = i / 22 - 1, w = i % 22 - 1;
    return h >= 0 && h < 20 && w >= 0 && w < 20 ? h * 20 + w : -1;
}

/* On the half range a map fits its basis as it does with zeros around it, and those become 0: what lets the
 * convolution add them. Also with levels below 0, and with two codes of level 0. */
static void lq_does_not_count_zeros_around_a_map(void **state)
{
    static const float bases[][3] = {{0.4f, 0.8f, 1.6f}, {-0.5f, 0.7f, 1.1f}, {0.6f, -0.6f, 0.9f}, {0, 0.5f, 1}};
    static const float scales[] = {0.5f, 1, 0.25f};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(bases) * ARRAY_LEN(scales); k++) {
        static const int inner_dim[] = {1, 1, 20, 20}, outer_dim[] = {1, 1, 22, 22};
        One in, out;
        new_one(&in)->o.kw.tag[Q_ACT].half_range = true;
        in.o.kw.tag[Q_ACT].scale = (double)scales[k % ARRAY_LEN(scales)];
        new_one(&out)->o = in.o;
        open_one(&in, "lq", Q_ACT, 3, 4, inner_dim);
        open_one(&out, "lq", Q_ACT, 3, 4, outer_dim);
        fill_one(&in, -1, 3), fill_one(&out, 0, 0);
        for (int i = 0; i < 22 * 22; i++)
            ((float *)out.x.data)[i] = inside(i) < 0 ? 0 : ((float *)in.x.data)[inside(i)];
        memcpy(by_end(&in.ps, ".basis")->value.data, bases[k / ARRAY_LEN(scales)], sizeof bases[0]);
        memcpy(by_end(&out.ps, ".basis")->value.data, bases[k / ARRAY_LEN(scales)], sizeof bases[0]);
        run_one(&in), run_one(&out);
        for (int i = 0; i < 22 * 22; i++) {
            const float want = inside(i) < 0 ? 0 : ((float *)in.y.data)[inside(i)], got = ((float *)out.y.data)[i];
            if (got != want) fail_msg("case %zu, value %d: %g, with zeros around %g", k, i, (double)want, (double)got);
        }
        for (int j = 0; j < 3; j++) {
            const float a = ((float *)by_end(&in.ps, ".auxil")->value.data)[j], b = ((float *)by_end(&out.ps, ".auxil")->value.data)[j];
            if (!(fabsf(a - b) <= 1e-6f)) fail_msg("case %zu: fit %g, with zeros around %g", k, (double)a, (double)b);
        }
        close_one(&in), close_one(&out);
    }
}

static void dorefa_finite_differences(void **state)
{
    One t;
    const size_t n = 4 * 3 * 3 * 3;
    float *w;
    (void)state;
    open_one(new_one(&t), "dorefa", Q_WEIGHT, 2, 4, weight_dim);
    fill_one(&t, -1, 1);
    run_one(&t);
    w = t.x.data;
    for (size_t i = 0; i < n; i++) {
        const float at = w[i], step = 1e-3f, got = ((const float *)t.dx.data)[i];
        double up, down, want;
        w[i] = at + step, up = surrogate(w, t.dy.data, n);
        w[i] = at - step, down = surrogate(w, t.dy.data, n);
        w[i] = at;
        want = (up - down) / (double)((at + step) - (at - step));
        if (fabs(want - (double)got) > 2e-3 * (1 + fabs(want)))
            fail_msg("weight %zu: gradient %g, finite difference %g", i, (double)got, want);
    }
    close_one(&t);
}

/* y is linear in gamma. */
static void gamma_gradient(void **state)
{
    static const struct {
        const char *method;
        QRole role;
    } at[] = {{"dorefa", Q_WEIGHT},
              {"pact", Q_WEIGHT},
              {"lsq", Q_WEIGHT},
              {"dorefa", Q_OUT},
              {"lsq", Q_OUT}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(at); k++) {
        One t;
        Param *p;
        double want = 0;
        new_one(&t)->o.kw.tag[at[k].role].gamma = true;
        t.o.kw.tag[Q_WEIGHT].adaptive = "var-mean";
        open_one(&t, at[k].method, at[k].role, 2, 4, at[k].role == Q_WEIGHT ? weight_dim : map_dim);
        fill_one(&t, -1, 1.5);
        p = t.q.p[t.q.np - 1];
        assert_true(str_ends(p->name, ".gamma"));
        for (size_t i = 0; i < tensor_len(&p->value); i++) ((float *)p->value.data)[i] = 2;
        run_one(&t);
        for (size_t i = 0; i < tensor_len(&t.y); i++)
            want += (double)((float *)t.y.data)[i] / 2 * (double)((float *)t.dy.data)[i];
        if (fabs(want - grad_sum(p)) > 1e-4 * (1 + fabs(want)))
            fail_msg("%s role %d: gradient of gamma %g, expected %g", at[k].method, (int)at[k].role,
                     grad_sum(p), want);
        close_one(&t);
    }
}

/* What cannot be divided by stops the run with a line; outputs and gradients are zeros meanwhile.
 */
static void faults(void **state)
{
    static const struct {
        const char *method, *adaptive;
        QRole role;
        float value, clip;
        const char *says;
    } at[] = {
        {"dorefa", "none", Q_WEIGHT, 0, 1, "layer.quant_weight: all weights are 0"},
        {"dorefa", "var-mean", Q_WEIGHT, 0.5f, 1,
         "standard deviation 0; wt_adaptive: var-mean divides by it"},
        {"lsq", "var-mean", Q_WEIGHT, -2, 1, "standard deviation 0"},
        {"lsq", "none", Q_WEIGHT, 1, 0, "layer.quant_weight: clip_val[0] is 0; lsq divides by it"},
        {"lsq", "none", Q_ACT, 1, 0, "layer.quant_activation: clip_val[0] is 0"},
        {"pact", "none", Q_ACT, 1, 0, "pact divides by it"},
        {"pact", "none", Q_ACT, 1, NAN, "clip_val[0] is nan"},
    };
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(at); k++) {
        One t;
        new_one(&t)->o.kw.tag[Q_WEIGHT].adaptive = at[k].adaptive;
        open_one(&t, at[k].method, at[k].role, 2, 4, at[k].role == Q_WEIGHT ? weight_dim : map_dim);
        fill_one(&t, 0, 1);
        for (size_t i = 0; i < tensor_len(&t.x); i++) ((float *)t.x.data)[i] = at[k].value;
        if (t.q.np) *(float *)t.q.p[0]->value.data = at[k].clip;
        run_one(&t);
        if (!t.q.fault || !strstr(t.q.fault, at[k].says))
            fail_msg("%s: '%s' does not say '%s'", at[k].method, t.q.fault ? t.q.fault : "no fault",
                     at[k].says);
        for (size_t i = 0; i < tensor_len(&t.y); i++)
            assert_true(((float *)t.y.data)[i] == 0 && ((float *)t.dx.data)[i] == 0);
        if (t.q.np) assert_true(grad_sum(t.q.p[0]) == 0);
        close_one(&t);
    }
}

static void nan_is_seen(void **state)
{
    static const char *const methods[] = {"dorefa", "pact", "lsq"};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(methods); k++)
        for (int half = 0; half < 2; half++) {
            One t;
            new_one(&t)->o.kw.tag[Q_ACT].half_range = half;
            open_one(&t, methods[k], Q_ACT, 4, 4, map_dim);
            fill_one(&t, -1, 2);
            ((float *)t.x.data)[17] = NAN;
            run_one(&t);
            if (!isnan(((float *)t.y.data)[17]))
                fail_msg("%s: a NaN has become a level", methods[k]);
            assert_false(isnan(((float *)t.y.data)[16]));
            close_one(&t);
        }
}

/* Evaluating changes nothing; the warm-up ends after its steps, and sets the clip level. */
static void counting(void **state)
{
    One t;
    float *clip;
    const float *iteration;
    (void)state;
    new_one(&t)->o.kw.stable = 2;
    open_one(&t, "pact", Q_ACT, 2, 4, map_dim);
    fill_one(&t, -3, 4);
    ((float *)t.x.data)[0] = 4;
    clip = t.q.p[0]->value.data;
    iteration = store_find(&t.ps, "layer.quant_activation.iteration")->value.data;
    for (int step = 1; step <= 3; step++) {
        t.c.phase = PH_EVAL;
        qinst_forward(&t.q, &t.x, &t.y, &t.c);
        assert_true(*iteration == (float)(step - 1));
        assert_true(*clip == (step == 1 ? 1.0f : 4.0f));
        t.c.phase = PH_TRAIN;
        run_one(&t);
        assert_true(*iteration == (float)step && *clip == 4);
        assert_int_equal(!memcmp(t.x.data, t.y.data, tensor_bytes(&t.x)), step <= 2);
        assert_int_equal(!memcmp(t.dy.data, t.dx.data, tensor_bytes(&t.x)), step <= 2);
    }
    close_one(&t);
}

/* A policy: level counts, and with `progressive` the clip level keeps its step. */
static void attributes(void **state)
{
    One t;
    Err e = {0};
    float *clip;
    (void)state;
    open_one(new_one(&t), "lsq", Q_WEIGHT, 3, 4, weight_dim);
    clip = t.q.p[0]->value.data;
    assert_int_equal(t.q.fn->set(&t.q, "progressive", 1, &e), 0);
    assert_int_equal(t.q.fn->set(&t.q, "level_num", -3, &e), 0);
    assert_true(fabsf(*clip - 4.0f / 7) < 1e-6f);
    fill_one(&t, -1, 1);
    run_one(&t);
    assert_true(*(float *)store_find(&t.ps, "layer.quant_weight.level_num")->value.data == 5);
    assert_int_equal(t.q.fn->set(&t.q, "level_num", 1, &e), -1);
    assert_non_null(strstr(e.msg, "expected 2 to 256"));
    assert_int_equal(t.q.fn->set(&t.q, "colour", 1, &e), QSET_UNKNOWN);
    assert_non_null(strstr(e.msg, "lsq has no attribute 'colour'"));
    close_one(&t);
}

/* A depthwise weight counts all channels of the layer, as the original declares it. */
static void fan_of_grouped_convolutions(void **state)
{
    static const int dim[] = {4, 1, 3, 3};
    static const struct {
        const char *grad_scale;
        double factor;
    } rows[] = {{"scale-fan", 0.25 / 6}, {"scale-element", 0.25 / 6}, {"fan-scale", 1}};
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        double sum[2];
        for (int scaled = 0; scaled < 2; scaled++) {
            One t;
            KwTag *tag = &new_one(&t)->o.kw.tag[Q_WEIGHT];
            tag->scale = 0.25;
            if (scaled) tag->grad_scale = rows[k].grad_scale;
            open_one(&t, "lsq", Q_WEIGHT, 2, 4, dim);
            t.q.conv_groups = 4;
            fill_one(&t, -1, 1);
            run_one(&t);
            sum[scaled] = grad_sum(t.q.p[0]);
            close_one(&t);
        }
        if (fabs(sum[1] / sum[0] - rows[k].factor) > 1e-5)
            fail_msg("%s: factor %g, expected %g", rows[k].grad_scale, sum[1] / sum[0], rows[k].factor);
    }
}

static void edges_stay_float(void **state)
{
    QOpts o;
    (void)state;
    qopts_default(&o);
    assert_int_equal(kw_unit_bits(&o, Q_WEIGHT, 0, 3), 3);
    assert_int_equal(kw_unit_bits(&o, Q_WEIGHT, UM_FIRST, 3), 32);
    assert_int_equal(kw_unit_bits(&o, Q_ACT, UM_LAST, 3), 32);
    o.first_bit = 8, o.last_bit = 4;
    assert_int_equal(kw_unit_bits(&o, Q_WEIGHT, UM_FIRST, 3), 8);
    assert_int_equal(kw_unit_bits(&o, Q_ACT, UM_FIRST, 3), 32);
    assert_int_equal(kw_unit_bits(&o, Q_ACT, UM_LAST, 3), 4);
    assert_int_equal(kw_unit_bits(&o, Q_OUT, UM_LAST, 3), 32);
}

/* The rows of a method's keys name keys, and values that these can have. */
static void keys_of_methods(void **state)
{
    int rows = 0;
    (void)state;
    for (int i = 0; quant_methods[i]; i++)
        for (int r = 0; r < Q_NROLES; r++)
            for (const QKey *k = quant_methods[i]->keys[r]; k && k->key; k++, rows++) {
                const Key *key = key_find(k->key), *with = k->with ? key_find(k->with) : NULL;
                if (!quant_methods[i]->role[r] || !key || !key_has_value(key) || !str_eq(key->name, k->key) ||
                    (k->value && !choices_have(key->choices, k->value)) || (k->with && !with) ||
                    (k->with_value && !choices_have(with->choices, k->with_value)))
                    fail_msg("%s: %s: %s", quant_methods[i]->name, k->key, k->value ? k->value : "");
            }
    assert_true(rows > 50);
}

/* Keys without effect are refused, each with what was expected. */
static void keys_without_effect(void **state)
{
    static const struct {
        const char *key, *says;
    } at[] = {
        {"wt_gamma=true", NULL},
        {"fm_level=3", NULL},
        {"wt_grad_scale=fan-scale",
         "wt_grad_scale: fan-scale has no effect with wt_quant: dorefa; expected lsq"},
        {"fm_half_range=false", NULL},
        {"fm_correlate=0.5", "fm_correlate: 0.5 has no effect with stable: 0; expected more than 0"},
        {"fm_scale=0.7", "fm_scale: 0.7 has no effect with fm_grad_scale: none; "
         "expected fan-scale, scale-fan, element-scale, scale-element"},
        {"wt_adaptive=mean", "wt_adaptive: mean has no effect with wt_quant: dorefa; expected lq"},
        {"custom_update=true",
         "custom_update: true has no effect with wt_quant: dorefa and fm_quant: lsq; expected lq, "
         "fatnn with closed_form"},
        {"fm_grad_type=Triangle",
         "fm_grad_type: Triangle has no effect with fm_quant: lsq; expected xnor"},
        {"ot_gamma=true", "ot_gamma: true has no effect with ot_quant: none"},
        {"wt_bin=true", "wt_bin: true with 4 levels; expected wt_bit: 1"},
        {"independent_norm=true", "no effect with wt_adaptive: none; expected var-mean"},
        {"fm_correlate=0.5 stable_epoch=1", NULL},
        {"fm_correlate=0.5 policy={init: [{by_index: all, stable: 7}]}", NULL},
        {"independent_norm=true policy={epoch 1: [{by_index: all, by_tag: wt, adaptive: var-mean}]}", NULL},
        {"wt_quant=fatnn wt_level=3 fm_quant=fatnn custom_update=true",
         "custom_update: true has no effect with closed_form: false; expected true"},
        {"wt_quant=lq fm_quant=lq fm_adaptive=var-mean",
         "fm_adaptive: var-mean is for no method; expected none, mean, var"},
        {"wt_quant=apot fm_quant=apot stable_epoch=1",
         "stable_epoch: 1 has no effect with wt_quant: apot and fm_quant: apot; expected dorefa, "
         "fatnn, lq, lsq, pact"},
        {"wt_level=1", "wt_level: 1 level; expected 2 to 256, or 0"},
        {"fm_level=300", "300"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        Config c;
        Err e = {0};
        char *ov[12], *more = xasprintf("%s", at[i].key), *next = more;
        int bad, n = 6;
        ov[0] = xasprintf("%s", "model=resnet20"), ov[1] = xasprintf("%s", "dataset=synthetic");
        ov[2] = xasprintf("%s", "wt_quant=dorefa"), ov[3] = xasprintf("%s", "fm_quant=lsq");
        ov[4] = xasprintf("%s", "wt_bit=2"), ov[5] = xasprintf("%s", "fm_bit=2");
        while (next) { /* keys between blanks; a policy is the last */
            char *end = str_starts(next, "policy=") ? NULL : strchr(next, ' ');
            if (end) *end = 0;
            ov[n++] = next;
            next = end ? end + 1 : NULL;
        }
        bad = config_load(&c, "", n, ov, &e);
        if (!at[i].says && bad) fail_msg("%s: %s", at[i].key, e.msg);
        if (at[i].says && (!bad || !strstr(e.msg, at[i].says)))
            fail_msg("%s: '%s' does not say '%s'", at[i].key, e.msg, at[i].says);
        config_free(&c);
        for (int k = 0; k < 6; k++) free(ov[k]);
        free(more);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lq_fits_by_least_squares),
        cmocka_unit_test(lq_does_not_count_zeros_around_a_map),
        cmocka_unit_test(groups_alike_are_one), cmocka_unit_test(dorefa_finite_differences),
        cmocka_unit_test(gamma_gradient),       cmocka_unit_test(faults),
        cmocka_unit_test(nan_is_seen),          cmocka_unit_test(counting),
        cmocka_unit_test(fan_of_grouped_convolutions), cmocka_unit_test(attributes),           cmocka_unit_test(edges_stay_float),
        cmocka_unit_test(keys_of_methods), cmocka_unit_test(keys_without_effect),
    };
    return cmocka_run_group_tests_name("keyword", tests, NULL, NULL);
}
