/* test/golden_f8int.c -- F8Net in whole numbers: requantization, small nets number by number, full nets by what
 * their traces tell. Everything here is exact: folding a layer takes the original's single-precision
 * operations in its order. Every net is run by the plain execution and by the fast one. */
#include "test/golden_f8net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "quant/f8int.h"
#include "quant/intexec.h"
#include "test/data_files.h"

/* ---- exact comparisons ---- */

/* An array of whole numbers as it is in its file: no float on the way. */
bool golden_integers(Case *c, const Yaml *v, const char *what, int64_t **to, size_t *n)
{
    Tensor t;
    Err e = {0};
    if (!v || v->kind != Y_SCALAR) {
        case_fail(c, "the case has no %s", what);
        return false;
    }
    if (npy_read(arena_printf(&c->arena, "%s/%s", c->dir, v->s), &c->arena, &t, &e)) {
        case_fail(c, "%s", e.msg);
        return false;
    }
    *n = tensor_len(&t);
    *to = arena_alloc(&c->arena, (*n + 1) * sizeof **to);
    for (size_t i = 0; i < *n; i++)
        (*to)[i] = t.dtype == DT_S64   ? ((const int64_t *)t.data)[i]
                   : t.dtype == DT_S32 ? ((const int32_t *)t.data)[i]
                   : t.dtype == DT_S8  ? ((const int8_t *)t.data)[i]
                   : t.dtype == DT_U8  ? ((const uint8_t *)t.data)[i]
                                       : (int64_t)((const float *)t.data)[i];
    return true;
}

void golden_same_integers(Case *c, const char *what, const int32_t *got, const int64_t *want,
                          size_t n)
{
    size_t bad = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i] && !bad++) at = i;
    c->arrays++;
    c->values += n;
    if (bad)
        case_fail(c, "%s[%zu] is %d, expected %lld; %zu of %zu differ", what, at, got[at],
                  (long long)want[at], bad, n);
}

/* ---- requantization ---- */

void golden_int_requant(Case *c)
{
    const int bits = (int)case_int(c, "params.word_length", 8),
              shift = (int)(case_int(c, "params.input_fl", 0) - case_int(c, "params.output_fl", 0));
    const bool neg = case_bool(c, "params.signed", false);
    const int32_t hi = neg ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
    int64_t *x, *y;
    size_t n, ny;
    int32_t *got;
    if (!golden_integers(c, yaml_path(c->y, "inputs.x"), "x", &x, &n) ||
        !golden_integers(c, yaml_path(c->y, "outputs.y"), "y", &y, &ny))
        return;
    got = arena_alloc(&c->arena, (n + 1) * sizeof *got);
    for (size_t i = 0; i < n; i++) got[i] = int_requant(x[i], shift, 1, neg ? -hi : 0, hi);
    if (n == ny)
        golden_same_integers(c, "y", got, y, n);
    else
        case_fail(c, "%zu numbers, %zu results", n, ny);
}

/* ---- one run ---- */

typedef struct IntRun {
    IntNet net;
    int32_t **value;  /* of every operation but the input */
    int32_t *logits;
    void *image;
    int n;
    size_t classes;
} IntRun;

static void close_run(IntRun *r)
{
    for (int i = 0; r->value && i < r->net.n; i++) free(r->value[i]);
    free(r->value);
    free(r->logits);
    free(r->image);
    intnet_free(&r->net);
}

static size_t op_len(const IntOp *op)
{
    return (size_t)op->c * (size_t)op->h * (size_t)op->w;
}

/* Number i of operation `op`, of all images, NHWC. */
static int32_t number(const IntRun *r, int op, size_t i)
{
    if (op > 0) return r->value[op][i];
    return r->net.op[0].type == DT_S8 ? ((const int8_t *)r->image)[i] : ((const uint8_t *)r->image)[i];
}

/* The fast execution must give the same logits. */
static void check_fast(Case *c, const IntRun *r)
{
    Err e = {0};
    Prim *p = prim_open(&e);
    IntExec *x = p ? intexec_new(&r->net, r->n, p, &e) : NULL;
    int32_t *logits = xcalloc((size_t)r->n * r->classes, sizeof *logits);
    if (!x) {
        case_fail(c, "%s", e.msg);
    } else {
        intexec_run(x, r->image, r->n, logits);
        if (memcmp(logits, r->logits, (size_t)r->n * r->classes * sizeof *logits))
            case_fail(c, "the fast execution (%s) has other logits than the plain one", intexec_how(x));
    }
    free(logits);
    intexec_free(x);
    prim_close(p);
}

static bool open_run(Case *c, IntRun *r, const QPlan *qp, bool converted, const float *x, int n)
{
    double unit;
    Err e = {0};
    size_t pixels;
    *r = (IntRun){.n = n};
    if (f8int_build(qp, converted, &r->net, &unit, &e)) {
        case_fail(c, "%s", e.msg);
        return false;
    }
    pixels = (size_t)n * op_len(&r->net.op[0]);
    r->classes = op_len(&r->net.op[r->net.out]);
    r->image = xcalloc(pixels, 1);
    r->logits = xcalloc((size_t)n * r->classes, sizeof *r->logits);
    r->value = xcalloc((size_t)r->net.n, sizeof *r->value);
    for (int i = 1; i < r->net.n; i++)
        r->value[i] = xcalloc((size_t)n * op_len(&r->net.op[i]), sizeof **r->value);
    f8int_image(&r->net, x, pixels, r->image);
    intnet_reference(&r->net, r->image, n, r->value, r->logits);
    check_fast(c, r);
    return true;
}

/* The convolution or linear operation that begins a name: "head.0" of "head.0.weight". -1: none. */
static int op_of(const IntNet *net, const char *name)
{
    for (int i = 0; i < net->n; i++) {
        const IntOp *op = &net->op[i];
        const size_t len = strlen(op->name);
        if ((op->kind == IK_CONV || op->kind == IK_LINEAR) && !strncmp(op->name, name, len) &&
            (!name[len] || name[len] == '.'))
            return i;
    }
    return -1;
}

/* ---- small nets: exactly ---- */

/* Rows: layer.weight, .bias, .weight_fraclen, .input_fraclen; shape; offset. */
static void check_state(Case *c, const IntNet *net)
{
    const Yaml *layout = yaml_get(c->y, "int_state_layout");
    int64_t *want;
    size_t n, seen = 0;
    if (!golden_integers(c, yaml_path(c->y, "outputs.int_state"), "int_state", &want, &n)) return;
    for (int i = 0; layout && i < layout->n; i++) {
        const Yaml *row = layout->v[i];
        const int at = op_of(net, row->v[0]->s);
        const IntOp *op = &net->op[at < 0 ? 0 : at];
        const IntConv *v = &op->u.conv;
        int32_t *got, one;
        long long offset;
        size_t len = 1;
        if (at < 0 || !yaml_int(row->v[2], &offset)) {
            case_fail(c, "there is no layer of %s", row->v[0]->s);
            return;
        }
        if (str_ends(row->v[0]->s, ".weight"))
            len = (size_t)op->c * (size_t)(net->op[op->in[0]].c / v->groups * v->k * v->k);
        if (str_ends(row->v[0]->s, ".bias")) len = (size_t)op->c;
        got = arena_alloc(&c->arena, len * sizeof *got);
        one = str_ends(row->v[0]->s, ".weight_fraclen") ? v->weight_fl : net->op[op->in[0]].fl;
        for (size_t k = 0; k < len; k++)
            got[k] = str_ends(row->v[0]->s, ".weight") ? v->w[k]
                     : str_ends(row->v[0]->s, ".bias") ? v->bias[k]
                                                       : one;
        if ((size_t)offset + len > n)
            case_fail(c, "int_state ends before %s", row->v[0]->s);
        else
            golden_same_integers(c, row->v[0]->s, got, want + offset, len);
        seen += len;
    }
    if (seen != n) case_fail(c, "%zu numbers of the integer state here, %zu in the case", seen, n);
}

/* Operation `op` in N,C,H,W order. */
static int32_t *disk_order(Case *c, const IntRun *r, int op)
{
    const IntOp *o = &r->net.op[op];
    const size_t map = (size_t)o->h * (size_t)o->w, ch = (size_t)o->c;
    int32_t *to = arena_alloc(&c->arena, (size_t)r->n * op_len(o) * sizeof *to);
    for (size_t i = 0; i < (size_t)r->n; i++)
        for (size_t p = 0; p < map; p++)
            for (size_t k = 0; k < ch; k++)
                to[(i * ch + k) * map + p] = number(r, op, (i * map + p) * ch + k);
    return to;
}

/* Rows: layer, input shape, input offset, accumulator shape, accumulator offset. */
static void check_trace(Case *c, const IntRun *r)
{
    const Yaml *layout = yaml_get(c->y, "int_trace_layout");
    int64_t *want;
    size_t n, seen = 0;
    if (!golden_integers(c, yaml_path(c->y, "outputs.int_trace"), "int_trace", &want, &n)) return;
    for (int i = 0; layout && i < layout->n; i++) {
        const char *name = layout->v[i]->v[0]->s;
        const int at = op_of(&r->net, name);
        if (at < 0) {
            case_fail(c, "there is no layer %s", name);
            return;
        }
        for (int side = 0; side < 2; side++) {
            const int op = side ? at : r->net.op[at].in[0];
            const size_t len = (size_t)r->n * op_len(&r->net.op[op]);
            long long offset;
            if (!yaml_int(layout->v[i]->v[2 + 2 * side], &offset) || (size_t)offset + len > n) {
                case_fail(c, "int_trace ends before %s", name);
                return;
            }
            golden_same_integers(c, arena_printf(&c->arena, "%s of %s", side ? "sums" : "input", name),
                          disk_order(c, r, op), want + offset, len);
            seen += len;
        }
    }
    if (seen != n) case_fail(c, "%zu numbers of the trace here, %zu in the case", seen, n);
}

static void expect_logits(Case *c, const IntRun *r, const char *key, bool divided)
{
    const size_t n = (size_t)r->n * r->classes;
    const int fl = divided ? r->net.op[r->net.out].fl : 0;
    float *got = arena_alloc(&c->arena, n * sizeof *got);
    for (size_t i = 0; i < n; i++) got[i] = ldexpf((float)r->logits[i], -fl);
    case_expect(c, key, yaml_path(c->y, arena_printf(&c->arena, "outputs.%s", key)), got, n);
}

static void exact_logits(Case *c, const IntRun *r, const char *key)
{
    int64_t *want;
    size_t n;
    if (!golden_integers(c, yaml_path(c->y, arena_printf(&c->arena, "outputs.%s", key)), key, &want, &n)) return;
    if (n == (size_t)r->n * r->classes)
        golden_same_integers(c, key, r->logits, want, n);
    else
        case_fail(c, "%s: %zu numbers, expected %zu", key, (size_t)r->n * r->classes, n);
}

void golden_f8int_stages(Case *c, const QPlan *qp, const float *x, int n)
{
    IntRun r;
    int64_t *want;
    size_t len;
    if (open_run(c, &r, qp, false, x, n)) expect_logits(c, &r, "logits_int_model", true);
    close_run(&r);
    if (open_run(c, &r, qp, true, x, n)) {
        if (golden_integers(c, yaml_path(c->y, "inputs.int_x"), "int_x", &want, &len) &&
            len == (size_t)n * op_len(&r.net.op[0]))
            golden_same_integers(c, "the image", disk_order(c, &r, 0), want, len);
        check_state(c, &r.net);
        check_trace(c, &r);
        exact_logits(c, &r, "logits_integize");
        exact_logits(c, &r, "logits_int_op_only");
    }
    close_run(&r);
}

/* ---- full nets ---- */

/* Columns of a trace behind the layer's name. */
enum {
    WEIGHT_FL,
    INPUT_FL,
    WEIGHT_CRC,
    WEIGHT_SUM,
    BIAS_CRC,
    BIAS_SUM,
    INPUT_SUM,
    INPUT_MOST,
    SUMS_SUM,
    SUMS_MOST,
    N_COLUMNS
};

static void add(int64_t k, long long *sum, long long *most)
{
    *sum += k;
    if (llabs(k) > *most) *most = llabs(k);
}

static void layer_columns(const IntRun *r, int at, long long v[N_COLUMNS])
{
    const IntOp *op = &r->net.op[at];
    const IntConv *cv = &op->u.conv;
    const int from = op->in[0];
    const size_t nw = (size_t)op->c * (size_t)(r->net.op[from].c / cv->groups * cv->k * cv->k);
    memset(v, 0, N_COLUMNS * sizeof *v);
    v[WEIGHT_FL] = cv->weight_fl;
    v[INPUT_FL] = r->net.op[from].fl;
    v[WEIGHT_CRC] = crc32_of((const char *)cv->w, nw);
    v[BIAS_CRC] = crc32_of((const char *)cv->bias, (size_t)op->c * sizeof *cv->bias);
    for (size_t i = 0; i < nw; i++) v[WEIGHT_SUM] += cv->w[i];
    for (int i = 0; i < op->c; i++) v[BIAS_SUM] += cv->bias[i];
    for (size_t i = 0; i < (size_t)r->n * op_len(&r->net.op[from]); i++)
        add(number(r, from, i), &v[INPUT_SUM], &v[INPUT_MOST]);
    for (size_t i = 0; i < (size_t)r->n * op_len(op); i++)
        add(r->value[at][i], &v[SUMS_SUM], &v[SUMS_MOST]);
}

static bool read_row(const char *line, char layer[128], long long v[N_COLUMNS])
{
    int used;
    if (sscanf(line, "%127s%n", layer, &used) != 1) return false;
    for (int i = 0; i < N_COLUMNS; i++) {
        char *end;
        v[i] = strtoll(line + used, &end, 10);
        if (end == line + used) return false;
        used = (int)(end - line);
    }
    return true;
}

static void check_net_trace(Case *c, const IntRun *r)
{
    static const char *const name[] = {"length of weights", "length of inputs", "weights (CRC-32)",
                                       "sum of weights", "biases (CRC-32)", "sum of biases",
                                       "sum of inputs", "largest input", "sum of the sums",
                                       "largest sum"};
    size_t size;
    Err e = {0};
    char *text, *rest;
    int rows = 0;
    text = fs_read(arena_printf(&c->arena, "%s/%s", c->dir, case_str(c, "trace", "")), 0, &size, &e);
    if (!text) {
        case_fail(c, "%s", e.msg);
        return;
    }
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char layer[128];
        long long want[N_COLUMNS], got[N_COLUMNS];
        int at;
        if (!read_row(line, layer, want)) continue; /* the heading */
        at = op_of(&r->net, layer);
        if (at < 0) {
            case_fail(c, "there is no layer %s", layer);
            break;
        }
        layer_columns(r, at, got);
        for (int i = 0; i < N_COLUMNS; i++)
            if (got[i] != want[i])
                case_fail(c, "%s: %s: %lld, expected %lld", layer, name[i], got[i], want[i]);
        c->arrays++;
        c->values += N_COLUMNS;
        rows++;
    }
    if (!rows) case_fail(c, "the trace has no row of whole numbers");
    free(text);
}

void golden_f8int_net(Case *c, const QPlan *qp, const float *x, int n)
{
    const bool converted = case_bool(c, "params.integize", false) || case_bool(c, "params.int_op_only", false);
    IntRun r;
    if (open_run(c, &r, qp, converted, x, n)) {
        expect_logits(c, &r, "logits", !converted);
        if (converted) check_net_trace(c, &r);
    }
    close_run(&r);
}
