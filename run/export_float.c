/* run/export_float.c -- a Spec with its parameters as an ONNX graph of float operators. What a
 * layer computes is asked of quant/form.h; nothing here knows a method.
 *
 * Values have 4 dimensions (maps) or 2 (behind a flatten or a linear unit); `rank` says which. A
 * norm behind a convolution or linear unit that nothing else reads goes into its weights, computed
 * in double: w' = w g / sqrt(var + eps), b' = (b - mean) g / sqrt(var + eps) + beta. */
#include "run/export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/form.h"
#include "run/export_form.h"

typedef struct FloatExport {
    Onnx *m;
    const QPlan *qp;
    const Spec *spec;
    const ExportOpts *o;
    const char **value; /* by unit: its value; of a folded norm: that of the layer */
    int *rank;
    bool *folded; /* by unit: a norm that is in the layer before it */
    Arena arena;  /* weights made on the way */
    Err *e;
} FloatExport;

/* ---- what cannot be written ---- */

static int unit_check(const QPlan *qp, int unit, int variant, Arena *arena, Err *e)
{
    const Unit *u = &qp->spec->u[unit];
    LayerForm f = {.arena = arena, .values_only = true};
    UnitForm other;
    return u->kind == U_CONV || u->kind == U_LINEAR ? layer_form(qp, unit, variant, &f, e)
                                                    : unit_form(qp, unit, &other, e);
}

int export_float_check(const QPlan *qp, int variant, Err *e)
{
    Arena arena = {0};
    int r = 0;
    for (int i = 0; !r && i < qp->spec->n; i++) r = unit_check(qp, i, variant, &arena, e);
    arena_free(&arena);
    return r;
}

/* ---- helpers ---- */

/* Name of a unit's node: its own, else its kind and number. */
static const char *node_name(FloatExport *x, int unit, char *buf, size_t n)
{
    const Unit *u = &x->spec->u[unit];
    if (*u->name) return u->name;
    snprintf(buf, n, "%s_%d", unit_kind_name(u->kind), unit);
    return buf;
}
#define NODE_NAME(x, unit) node_name(x, unit, (char[64]){0}, 64)

/* The value of in[k] with the wanted number of dimensions. */
static const char *input_of(FloatExport *x, int unit, int k, int rank)
{
    const Unit *u = &x->spec->u[unit];
    const int src = u->in[k];
    char name[96];
    if (x->rank[src] == rank) return x->value[src];
    snprintf(name, sizeof name, "%s/flat", NODE_NAME(x, unit));
    if (rank == 2) {
        const char *flat = onnx_node(x->m, "Flatten", name, ONNX_IN(x->value[src]));
        onnx_attr_int(x->m, "axis", 1);
        return flat;
    }
    return onnx_node(
        x->m, "Reshape", name,
        ONNX_IN(x->value[src], onnx_list(x->m, 4, (const int[]){0, x->spec->u[src].c, 1, 1})));
}

/* Zeros around a map: {top, bottom, left, right}. */
static const char *padded(FloatExport *x, const char *value, const char *name, const int p[4])
{
    const int all[8] = {0, 0, p[0], p[2], 0, 0, p[1], p[3]};
    return onnx_node(x->m, "Pad", name, ONNX_IN(value, onnx_list(x->m, 8, all)));
}

static const char *param(FloatExport *x, const Param *p)
{
    return onnx_init(x->m, DT_F32, p->value.ndim, p->value.dim, p->value.data, "%s", p->name);
}

static const char *vector(FloatExport *x, int n, const float *v, const char *prefix,
                          const char *last)
{
    return onnx_init(x->m, DT_F32, 1, &n, v, "%s.%s", prefix, last);
}

static float *filled(FloatExport *x, int n, float v)
{
    float *p = onnx_alloc(x->m, (size_t)n * sizeof *p);
    for (int i = 0; i < n; i++) p[i] = v;
    return p;
}

/* ---- weights ---- */

/* The norm that goes into this layer, or -1. */
static int foldable_norm(const FloatExport *x, int unit, const LayerForm *f)
{
    const int norm = x->spec->u[unit].norm;
    const NormKind kind = norm >= 0 ? x->spec->u[norm].u.norm.kind : NK_GROUP;
    const bool folds = norm_has_stats(kind) && kind != NK_REVERSE;
    return !folds || x->o->keep_norms || f->quantized || f->norm ? -1 : norm;
}

/* Factor of a channel of the norm; -1 for a variance that no statistic has. */
static int norm_factor(const FloatExport *x, int norm, int channel, double *factor)
{
    const NormParams *p = &x->qp->u[norm].norm[x->o->variant];
    const double var =
        (double)((const float *)p->var->value.data)[channel] + (double)x->spec->u[norm].u.norm.eps;
    if (!(var > 0))
        return err_set(x->e, ERR_DATA, "%s[%d] is %g; a variance is not negative", p->var->name,
                       channel, (double)((const float *)p->var->value.data)[channel]);
    *factor = 1 / sqrt(var);
    if (p->scale) *factor *= (double)((const float *)p->scale->value.data)[channel];
    return 0;
}

/* The layer's weights and biases with the norm in them. */
static int fold(FloatExport *x, int unit, int norm, LayerForm *f)
{
    const NormParams *p = &x->qp->u[norm].norm[x->o->variant];
    const Tensor *t = &x->qp->u[unit].weight->value;
    const int oc = t->dim[0];
    const size_t row = tensor_len(t) / (size_t)oc;
    const float *mean = p->mean->value.data, *shift = p->shift ? p->shift->value.data : NULL;
    float *w = arena_alloc(&x->arena, tensor_bytes(t)),
          *b = arena_alloc(&x->arena, (size_t)oc * sizeof *b);
    for (int c = 0; c < oc; c++) {
        const float *from = f->w + (size_t)c * row;
        float *to = w + (size_t)c * row;
        double k, s = shift ? (double)shift[c] : 0;
        if (norm_factor(x, norm, c, &k)) return -1;
        for (size_t i = 0; i < row; i++) to[i] = (float)((double)from[i] * k);
        b[c] = (float)(((f->b ? (double)f->b[c] : 0) - (double)mean[c]) * k + s);
    }
    f->w = w;
    f->b = b;
    f->norm = true;
    return 0;
}

/* A convolution's own zeros. */
static const char *around(FloatExport *x, int unit, const char *value)
{
    const Unit *u = &x->spec->u[unit];
    const int pad = u->u.conv.pad;
    char name[96];
    snprintf(name, sizeof name, "%s/pad", u->name);
    return padded(x, value, name, (const int[]){pad, pad, pad, pad});
}

/* A convolution or linear unit by operator `op`: its input and weights; whatever is done to its
 * output comes by layer_end. */
static int layer_begin(FloatExport *x, int unit, const char *op, int rank, LayerForm *f)
{
    const QUnit *qu = &x->qp->u[unit];
    const Tensor *t = &qu->weight->value;
    const char *prefix = x->spec->u[unit].name, *in, *w, *b = NULL;
    int norm;
    *f = (LayerForm){.arena = &x->arena};
    if (layer_form(x->qp, unit, x->o->variant, f, x->e)) return -1;
    norm = foldable_norm(x, unit, f);
    if (norm >= 0 && fold(x, unit, norm, f)) return -1;
    if (f->norm) x->folded[x->spec->u[unit].norm] = true;
    in = input_of(x, unit, 0, rank);
    if (f->pad_first) in = around(x, unit, in);
    in = export_form(x->m, in, rank, &f->in, prefix, "in");
    w = onnx_init(x->m, DT_F32, t->ndim, t->dim, f->w, "%s", qu->weight->name);
    if (f->b) b = vector(x, t->dim[0], f->b, prefix, "bias");
    x->rank[unit] = rank;
    x->value[unit] = onnx_node(x->m, op, prefix, ONNX_IN(in, w, b));
    return 0;
}

static void layer_end(FloatExport *x, int unit, const LayerForm *f)
{
    x->value[unit] = export_form(x->m, x->value[unit], x->rank[unit], &f->out,
                                 x->spec->u[unit].name, "q");
}

/* ---- units ---- */

static int conv_unit(FloatExport *x, int unit)
{
    const ConvAttr *a = &x->spec->u[unit].u.conv;
    LayerForm f;
    int pad;
    if (layer_begin(x, unit, "Conv", 4, &f)) return -1;
    pad = f.pad_first ? 0 : a->pad;
    onnx_attr_ints(x->m, "kernel_shape", 2, (const int[]){a->k, a->k});
    onnx_attr_ints(x->m, "strides", 2, (const int[]){a->stride, a->stride});
    onnx_attr_ints(x->m, "pads", 4, (const int[]){pad, pad, pad, pad});
    onnx_attr_ints(x->m, "dilations", 2, (const int[]){a->dilation, a->dilation});
    onnx_attr_int(x->m, "group", a->groups);
    layer_end(x, unit, &f);
    return 0;
}

static int linear_unit(FloatExport *x, int unit)
{
    LayerForm f;
    if (layer_begin(x, unit, "Gemm", 2, &f)) return -1;
    onnx_attr_int(x->m, "transB", 1);
    layer_end(x, unit, &f);
    return 0;
}

/* v times a norm's scale plus its shift, as constants of their own: PARAMETER + suffix. */
static const char *affine(FloatExport *x, int unit, const char *v, const char *suffix)
{
    const Unit *u = &x->spec->u[unit];
    const NormParams *p = &x->qp->u[unit].norm[x->o->variant];
    const int dim[3] = {u->c, 1, 1}, nd = x->rank[unit] == 4 ? 3 : 1;
    char name[96];
    if (!p->scale) return v;
    snprintf(name, sizeof name, "%s/affine", NODE_NAME(x, unit));
    v = onnx_node(x->m, "Mul", name,
                  ONNX_IN(v, onnx_init(x->m, DT_F32, nd, dim, p->scale->value.data, "%s%s",
                                       p->scale->name, suffix)));
    return onnx_node(x->m, "Add", name,
                     ONNX_IN(v, onnx_init(x->m, DT_F32, nd, dim, p->shift->value.data, "%s%s",
                                          p->shift->name, suffix)));
}

/* Statistics of each image over runs of channels, which become the channels meanwhile. */
static void own_norm_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    const int groups = u->u.norm.kind == NK_GROUP ? u->u.norm.groups : u->c,
              runs[3] = {0, groups, -1}, back[4] = {0, u->c, u->h, u->w};
    const char *name = NODE_NAME(x, unit), *v = x->value[u->in[0]];
    char part[96];
    snprintf(part, sizeof part, "%s/groups", name);
    v = onnx_node(x->m, "Reshape", part, ONNX_IN(v, onnx_list(x->m, 3, runs)));
    v = onnx_node(x->m, "InstanceNormalization", name,
                  ONNX_IN(v, vector(x, groups, filled(x, groups, 1), name, "ones"),
                          vector(x, groups, filled(x, groups, 0), name, "zeros")));
    onnx_attr_float(x->m, "epsilon", u->u.norm.eps);
    v = onnx_node(x->m, "Reshape", part, ONNX_IN(v, onnx_list(x->m, x->rank[unit], back)));
    x->value[unit] = affine(x, unit, v, "");
}

static int norm_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    const NormParams *p = &x->qp->u[unit].norm[x->o->variant];
    const char *scale, *shift, *mean, *var, *in = x->value[u->in[0]];
    double f;
    if (x->folded[unit]) {
        x->value[unit] = in;
        return 0;
    }
    if (!norm_has_stats(u->u.norm.kind)) {
        own_norm_unit(x, unit);
        return 0;
    }
    if (u->u.norm.kind == NK_REVERSE) in = affine(x, unit, in, ".first");
    for (int c = 0; c < u->c; c++)
        if (norm_factor(x, unit, c, &f)) return -1;
    /* Widths that share scale and shift, or have one norm after the other, never share a node. */
    scale = p->scale ? param(x, p->scale) : vector(x, u->c, filled(x, u->c, 1), u->name, "weight");
    shift = p->shift ? param(x, p->shift) : vector(x, u->c, filled(x, u->c, 0), u->name, "bias");
    mean = param(x, p->mean);
    var = param(x, p->var);
    x->value[unit] = onnx_node(x->m, "BatchNormalization", u->name,
                               ONNX_IN(in, scale, shift, mean, var));
    onnx_attr_float(x->m, "epsilon", u->u.norm.eps);
    return 0;
}

static int act_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    const char *name = NODE_NAME(x, unit), *in = x->value[u->in[0]];
    const Param *slope = x->qp->u[unit].weight;
    switch (u->u.act.kind) {
    case AK_RELU:
        x->value[unit] = onnx_node(x->m, "Relu", name, ONNX_IN(in));
        return 0;
    case AK_RELU6:
        x->value[unit] =
            onnx_node(x->m, "Clip", name,
                      ONNX_IN(in, onnx_scalar(x->m, DT_F32, 0), onnx_scalar(x->m, DT_F32, 6)));
        return 0;
    case AK_LEAKY:
        x->value[unit] = onnx_node(x->m, "LeakyRelu", name, ONNX_IN(in));
        onnx_attr_float(x->m, "alpha", u->u.act.slope);
        return 0;
    case AK_PRELU: {
        const int dim[3] = {slope->value.dim[0], 1, 1}; /* whatever the map */
        x->value[unit] =
            onnx_node(x->m, "PRelu", name,
                      ONNX_IN(in, onnx_init(x->m, DT_F32, x->rank[unit] == 4 ? 3 : 1, dim,
                                            slope->value.data, "%s", slope->name)));
        return 0;
    }
    case AK_NONE:
        break;
    }
    x->value[unit] = in;
    return 0;
}

/* Rows or columns behind the map that the last window of a pool reaches; below 0: that it leaves.
 */
static int overhang(const PoolAttr *a, int in, int out)
{
    return (out - 1) * a->stride + a->k - in - a->pad;
}

/* The pool is written without ceil_mode, whose meaning differs between runtimes: the padding at the
 * end says how far the last window reaches. */
static int pool_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    const PoolAttr *a = &u->u.pool;
    const char *in = input_of(x, unit, 0, 4), *name = NODE_NAME(x, unit);
    int pads[4] = {a->pad, a->pad, overhang(a, u->ih, u->h), overhang(a, u->iw, u->w)};
    x->rank[unit] = 4;
    if (a->kind == POOL_GLOBAL_AVG) {
        x->value[unit] = onnx_node(x->m, "GlobalAveragePool", name, ONNX_IN(in));
        return 0;
    }
    for (int i = 2; i < 4; i++) pads[i] = pads[i] > 0 ? pads[i] : 0;
    x->value[unit] =
        onnx_node(x->m, a->kind == POOL_MAX ? "MaxPool" : "AveragePool", name, ONNX_IN(in));
    onnx_attr_ints(x->m, "kernel_shape", 2, (const int[]){a->k, a->k});
    onnx_attr_ints(x->m, "strides", 2, (const int[]){a->stride, a->stride});
    onnx_attr_ints(x->m, "pads", 4, pads);
    if (a->kind == POOL_AVG) onnx_attr_int(x->m, "count_include_pad", a->count_pad);
    return 0;
}

static int add_unit(FloatExport *x, int unit)
{
    const int rank = x->rank[unit];
    x->value[unit] = onnx_node(x->m, "Add", NODE_NAME(x, unit),
                               ONNX_IN(input_of(x, unit, 0, rank), input_of(x, unit, 1, rank)));
    return 0;
}

static int concat_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    const char *in[UNIT_MAX_IN + 1] = {NULL};
    for (int i = 0; i < u->nin; i++) in[i] = input_of(x, unit, i, x->rank[unit]);
    x->value[unit] = onnx_node(x->m, "Concat", NODE_NAME(x, unit), in);
    onnx_attr_int(x->m, "axis", 1);
    return 0;
}

/* Scale and shift: one number for the whole tensor. */
static int scalar_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    x->value[unit] = onnx_node(x->m, u->kind == U_SCALE ? "Mul" : "Add", u->name,
                               ONNX_IN(x->value[u->in[0]], param(x, x->qp->u[unit].weight)));
    return 0;
}

static int pad_unit(FloatExport *x, int unit)
{
    x->rank[unit] = 4;
    x->value[unit] =
        padded(x, input_of(x, unit, 0, 4), NODE_NAME(x, unit), x->spec->u[unit].u.pad);
    return 0;
}

static int flatten_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    x->rank[unit] = 2;
    x->value[unit] = x->value[u->in[0]];
    if (x->rank[u->in[0]] == 2) return 0;
    x->value[unit] = onnx_node(x->m, "Flatten", NODE_NAME(x, unit), ONNX_IN(x->value[u->in[0]]));
    onnx_attr_int(x->m, "axis", 1);
    return 0;
}

static int same_unit(FloatExport *x, int unit)
{
    x->value[unit] = x->value[x->spec->u[unit].in[0]];
    return 0;
}

/* Channel (c b + dy) b + dx, as PyTorch's PixelUnshuffle; ONNX's SpaceToDepth orders otherwise. */
static int s2d_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    const int b = u->u.block, split[6] = {0, u->ic, u->h, b, u->w, b},
              to[4] = {0, u->c, u->h, u->w}, perm[6] = {0, 1, 3, 5, 2, 4};
    const char *v = input_of(x, unit, 0, 4), *name = NODE_NAME(x, unit);
    char part[96];
    x->rank[unit] = 4;
    snprintf(part, sizeof part, "%s/split", name);
    v = onnx_node(x->m, "Reshape", part, ONNX_IN(v, onnx_list(x->m, 6, split)));
    snprintf(part, sizeof part, "%s/order", name);
    v = onnx_node(x->m, "Transpose", part, ONNX_IN(v));
    onnx_attr_ints(x->m, "perm", 6, perm);
    x->value[unit] = onnx_node(x->m, "Reshape", name, ONNX_IN(v, onnx_list(x->m, 4, to)));
    return 0;
}

static int d2s_unit(FloatExport *x, int unit)
{
    x->rank[unit] = 4;
    x->value[unit] =
        onnx_node(x->m, "DepthToSpace", NODE_NAME(x, unit), ONNX_IN(input_of(x, unit, 0, 4)));
    onnx_attr_int(x->m, "blocksize", x->spec->u[unit].u.block);
    onnx_attr_text(x->m, "mode", "CRD");
    return 0;
}

static int input_unit(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    x->rank[unit] = 4;
    x->value[unit] = onnx_input(x->m, "input", DT_F32, 4, (const int[]){0, u->c, u->h, u->w});
    return 0;
}

static int (*const write_unit[U_NKINDS])(FloatExport *x, int unit) = {
    [U_INPUT] = input_unit,
    [U_CONV] = conv_unit,
    [U_LINEAR] = linear_unit,
    [U_NORM] = norm_unit,
    [U_ACT] = act_unit,
    [U_POOL] = pool_unit,
    [U_ADD] = add_unit,
    [U_CONCAT] = concat_unit,
    [U_SCALE] = scalar_unit,
    [U_SHIFT] = scalar_unit,
    [U_PAD] = pad_unit,
    [U_FLATTEN] = flatten_unit,
    [U_DROPOUT] = same_unit,
    [U_SPACE_TO_DEPTH] = s2d_unit,
    [U_DEPTH_TO_SPACE] = d2s_unit,
};

/* ---- the whole ---- */

void export_meta(Onnx *m, const ExportOpts *o)
{
    if (o->weights && *o->weights) {
        const char *slash = strrchr(o->weights, '/'); /* the same bytes wherever the file stands */
        onnx_meta(m, "weights", "%s", slash ? slash + 1 : o->weights);
    }
    if (!o->input) return;
    for (int k = 0; k < 2; k++) {
        const float *v = k ? o->input->std : o->input->mean;
        Str s = {0};
        for (int i = 0; i < o->input->c && i < 3; i++)
            str_printf(&s, "%s%.9g", i ? "," : "", (double)v[i]);
        onnx_meta(m, k ? "input_std" : "input_mean", "%s", s.s ? s.s : "");
        str_free(&s);
    }
}

static int write_one(FloatExport *x, int unit)
{
    const Unit *u = &x->spec->u[unit];
    UnitForm f = {.factor = 1};
    char name[96];
    if (u->kind != U_CONV && u->kind != U_LINEAR && unit_form(x->qp, unit, &f, x->e)) return -1;
    if ((f.same ? same_unit : write_unit[u->kind])(x, unit)) return -1;
    if (f.factor == 1) return 0;
    snprintf(name, sizeof name, "%s/factor", NODE_NAME(x, unit));
    x->value[unit] = onnx_node(
        x->m, "Mul", name, ONNX_IN(x->value[unit], onnx_scalar(x->m, DT_F32, (double)f.factor)));
    return 0;
}

static int build(FloatExport *x)
{
    const Spec *s = x->spec;
    const int dim[2] = {0, s->u[s->out].c};
    const char *out;
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        x->rank[i] = u->nin ? x->rank[u->in[0]] : 4;
        if (!(u->marks & UM_UNUSED) && write_one(x, i)) return -1;
    }
    out = x->value[s->out];
    if (x->rank[s->out] == 4) {
        out = onnx_node(x->m, "Flatten", "logits", ONNX_IN(out));
        onnx_attr_int(x->m, "axis", 1);
    }
    onnx_output(x->m, out, "output", DT_F32, 2, dim);
    export_meta(x->m, x->o);
    onnx_meta(x->m, "form", "float");
    if (x->o->width) onnx_meta(x->m, "width", "%s", x->o->width);
    onnx_meta(x->m, "norms", x->o->keep_norms ? "kept" : "folded");
    return 0;
}

int export_float(const QPlan *qp, const ExportOpts *o, const char *path, Err *e)
{
    FloatExport x = {.qp = qp, .spec = qp->spec, .o = o, .e = e};
    int r;
    if (export_float_check(qp, o->variant, e)) return -1;
    x.m = onnx_new(o->net, NULL);
    x.value = xcalloc((size_t)qp->spec->n, sizeof *x.value);
    x.rank = xcalloc((size_t)qp->spec->n, sizeof *x.rank);
    x.folded = xcalloc((size_t)qp->spec->n, sizeof *x.folded);
    r = build(&x) ? -1 : onnx_write(x.m, path, e);
    free(x.value);
    free(x.rank);
    free(x.folded);
    onnx_free(x.m);
    arena_free(&x.arena);
    return r;
}
