/* test/golden_fixed.c -- fixed-point cases of the ops `weight`, `activation` and `format`: the
 * quantizer with a given fractional length, and how a fractional length is chosen. */
#include "test/golden.h"

#include <string.h>

#include "quant/fixed.h"

static Fixed format_of(Case *c)
{
    return (Fixed){.bits = (int)case_int(c, "params.word_length", 8),
                   .neg = case_bool(c, "params.signed", false),
                   .floating = case_bool(c, "params.floating", false)};
}

/* One fractional length, or one per channel (axis params.align_dim), in disk order: rows of equal
 * length, as weights have them. Activations of several lengths are turned to NHWC. */
void golden_fixed(Case *c)
{
    const Fixed f = format_of(c);
    const bool columns = case_int(c, "params.align_dim", 0) == 1;
    const Yaml *given = yaml_path(c->y, "inputs.fl");
    Tensor x, dy, fl;
    FixedView v;
    float *y, *a, *b;
    size_t n;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "upstream.y"), "upstream", &dy) ||
        !case_array(c, given ? given : yaml_path(c->y, "params.frac_length"), "fl", &fl))
        return;
    n = tensor_len(&x);
    if (tensor_len(&dy) != n) {
        case_fail(c, "upstream has %zu values, x %zu", tensor_len(&dy), n);
        return;
    }
    v = (FixedView){.rows = (size_t)x.dim[0], .nfl = tensor_len(&fl), .by_row = !columns};
    y = arena_alloc(&c->arena, n * sizeof *y + 1);
    a = arena_alloc(&c->arena, n * sizeof *a + 1);
    b = arena_alloc(&c->arena, n * sizeof *b + 1);
    if (columns && v.nfl > 1) {
        if (x.ndim != 4) {
            case_fail(c, "lengths per channel of %d dimensions", x.ndim);
            return;
        }
        v.rows *= (size_t)x.dim[2] * (size_t)x.dim[3];
        v.c = (size_t)x.dim[1];
        nchw_to_nhwc(x.data, a, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
        nchw_to_nhwc(dy.data, b, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
        fixed_tensor(f, v, fl.data, a, y);
        fixed_tensor_bwd(f, v, fl.data, a, b, b);
        nhwc_to_nchw(y, a, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
        nhwc_to_nchw(b, y, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
        case_expect(c, "y", yaml_path(c->y, "outputs.y"), a, n);
        case_expect(c, "gradient of x", yaml_path(c->y, "grads.x"), y, n);
        return;
    }
    v.c = n / v.rows;
    fixed_tensor(f, v, fl.data, x.data, y);
    case_expect(c, "y", yaml_path(c->y, "outputs.y"), y, n);
    fixed_tensor_bwd(f, v, fl.data, x.data, dy.data, y);
    case_expect(c, "gradient of x", yaml_path(c->y, "grads.x"), y, n);
}

static FixedMetric metric_of(Case *c, const char *name)
{
    static const char *const names[] = {[FM_STD] = "std", [FM_MAE] = "mae", [FM_RMS] = "rms"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(names[i], name)) return (FixedMetric)i;
    case_fail(c, "no metric '%s'", name);
    return FM_STD;
}

static void from_values(Case *c)
{
    const Fixed f = format_of(c);
    const FixedMetric m = metric_of(c, case_str(c, "params.metric", ""));
    Tensor t;
    float *fl;
    if (!case_array(c, yaml_path(c->y, "inputs.metric"), "metric", &t)) return;
    fl = arena_alloc(&c->arena, tensor_bytes(&t) + 1);
    for (size_t i = 0; i < tensor_len(&t); i++)
        fl[i] = (float)fixed_fl_of(f, m, (double)((const float *)t.data)[i]);
    case_expect(c, "fl", yaml_path(c->y, "outputs.fl"), fl, tensor_len(&t));
}

/* Of every tensor x0, x1, ...: the three metrics, each signed and unsigned. */
static void from_tensors(Case *c)
{
    const Yaml *in = yaml_get(c->y, "inputs");
    float *fl = arena_alloc(&c->arena, (size_t)in->n * 6 * sizeof *fl + 1);
    size_t n = 0;
    for (int i = 0; i < in->n; i++) {
        Tensor x;
        if (!case_array(c, in->v[i], in->k[i]->s, &x)) return;
        for (int k = 0; k < 6; k++) {
            const FixedMetric m = (FixedMetric)(k / 2);
            fl[n++] = (float)fixed_fl_of((Fixed){.bits = 8, .neg = k % 2 == 0}, m,
                                         fixed_statistic(m, x.data, tensor_len(&x), 1));
        }
    }
    case_expect(c, "fl", yaml_path(c->y, "outputs.fl"), fl, n);
}

/* One search per entry of outputs.fl; x holds that many tensors. */
static void grid_search(Case *c)
{
    const Fixed f = format_of(c);
    const Yaml *errors = yaml_path(c->y, "outputs.rms_error");
    Tensor x, want;
    size_t sets, len, at = 0, ncand = (size_t)fixed_max_fl(f) + 1;
    float *fl, *err;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "outputs.fl"), "fl", &want))
        return;
    sets = tensor_len(&want);
    len = tensor_len(&x) / sets;
    fl = arena_alloc(&c->arena, sets * sizeof *fl);
    err = arena_alloc(&c->arena, sets * ncand * sizeof *err);
    for (size_t i = 0; i < sets; i++) {
        double e[FIXED_MAX_FL + 1];
        fl[i] = (float)fixed_fl_search(f, (const float *)x.data + i * len, len, e);
        for (size_t k = 0; k < ncand; k++) err[at++] = (float)e[k];
    }
    case_compare_tol(c, "fl", fl, want.data, sets, 0, 0);
    if (errors) case_expect(c, "rms_error", errors, err, at);
}

/* Rows of bits, signed, fl, and the scaling at each alpha. */
static void scaling_table(Case *c)
{
    Tensor alpha, table;
    size_t n, cols;
    float *got;
    if (!case_array(c, yaml_path(c->y, "inputs.alpha"), "alpha", &alpha) ||
        !case_array(c, yaml_path(c->y, "outputs.table"), "table", &table))
        return;
    n = tensor_len(&alpha);
    cols = n + 3;
    got = arena_alloc(&c->arena, tensor_bytes(&table) + 1);
    memcpy(got, table.data, tensor_bytes(&table));
    for (size_t r = 0; r < tensor_len(&table) / cols; r++) {
        float *row = got + r * cols;
        for (size_t k = 0; k < n; k++)
            row[3 + k] = fixed_scaling((Fixed){.bits = (int)row[0], .neg = row[1] != 0},
                                       (int)row[2], ((const float *)alpha.data)[k]);
    }
    case_expect(c, "table", yaml_path(c->y, "outputs.table"), got, tensor_len(&table));
}

bool golden_fixed_format(Case *c)
{
    if (yaml_path(c->y, "params.metric") && yaml_path(c->y, "inputs.metric"))
        from_values(c);
    else if (yaml_path(c->y, "inputs.x0") && yaml_path(c->y, "outputs.fl"))
        from_tensors(c);
    else if (yaml_path(c->y, "params.word_length") && yaml_path(c->y, "outputs.fl"))
        grid_search(c);
    else if (yaml_path(c->y, "outputs.table") && yaml_path(c->y, "inputs.alpha"))
        scaling_table(c);
    else
        return false;
    return true;
}
