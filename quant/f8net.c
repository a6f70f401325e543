/* quant/f8net.c -- F8Net: convolutions and linear layers in fixed point, with the norm and the clip
 * level folded into weights that are powers of two apart from whole numbers.
 *
 * A layer clips its input at the level alpha; numbers reach it divided by its scaling
 * s = 2^fl |alpha| / B, which the layer before has in its weights. Layers that read the same
 * numbers have one level (quant/links.h). The nodes of a layer are in quant/f8net_ops.c.
 *
 * Source: snap-research/F8Net, models/fix_quant_ops.py, fix_resnet.py, fix_mobilenet_v1.py and
 * _v2.py. Differs, unless compat: original asks for it:
 *   - both terms of a residual sum are in the same units: the original leaves out a factor of two
 *     to the difference of their fractional lengths, and divides the last sum by two levels;
 *   - the average pool is a mean at every stage (the original loses a factor of 64/49 at some);
 *   - a shortcut quantizes its input as the body does, in one pass;
 *   - logits outside training are those of training, not divided by the scaling. */
#include "quant/f8net.h"

#include <stdio.h>
#include <string.h>

#include "quant/lower.h"

extern const QMethod quant_f8net;

/* ---- which layers, and how they are linked ---- */

bool f8net_is(const QPlan *qp, int unit)
{
    const QInst *q = unit >= 0 ? qp->u[unit].q[Q_ACT] : NULL;
    return q && q->method == &quant_f8net;
}

int f8net_units(const QPlan *qp, int value)
{
    const Unit *u = &qp->spec->u[value];
    int units = -1;
    switch (u->kind) {
    case U_CONV:
    case U_LINEAR:
        return f8net_is(qp, value) && f8net_is(qp, qp->links.feeds[value]) ? qp->links.feeds[value]
                                                                           : -1;
    case U_ADD: /* a skip path is in the units of the block's first layer: an earlier one */
        for (int i = 0; i < u->nin; i++) {
            const int k = f8net_units(qp, u->in[i]);
            if (k > units) units = k;
        }
        return units;
    case U_NORM:
    case U_ACT:
    case U_POOL:
    case U_FLATTEN:
    case U_PAD:
    case U_DROPOUT:
        return f8net_units(qp, u->in[0]);
    default:
        return -1;
    }
}

enum { POOL_AREA = 49, POOL_SHIFT = 6 };

int f8net_pool_shift(const F8Opts *o)
{
    return o->original && o->quant_avgpool ? POOL_SHIFT : -1;
}

/* 64/49 in the weights. In training only MobileNet V2's tail has it; at conversion the last layer
 * of the body, whatever stands beside it in a sum. */
static float pool_factor(const QPlan *qp, int unit, bool conversion)
{
    const F8Opts *o = &qp->opts->f8;
    const Unit *u = &qp->spec->u[unit];
    const int feeds = qp->links.feeds[unit];
    if (!o->original || !o->quant_avgpool || !o->pool_fusing || feeds < 0) return 1;
    if (!(qp->spec->u[feeds].marks & UM_LAST) || u->marks & UM_SKIP) return 1;
    return conversion || str_starts(u->name, "tail.") ? (float)(1 << POOL_SHIFT) / POOL_AREA : 1;
}

static const QInst *input_of(const QPlan *qp, int unit)
{
    return qp->u[unit].q[Q_ACT];
}

/* The first layer with an average of its own: that of all layers, per_model. */
static int model_layer(const QPlan *qp)
{
    for (int i = 0; i < qp->spec->n; i++)
        if (f8net_is(qp, i) && !(qp->spec->u[i].marks & UM_FIRST)) return i;
    return -1;
}

static Fixed format(const F8Opts *o, int bits, bool neg)
{
    return (Fixed){.bits = bits, .neg = neg, .floating = o->floating_model};
}

static FixedMetric metric_of(const char *name)
{
    return str_eq(name, "mae") ? FM_MAE : str_eq(name, "rms") ? FM_RMS : FM_STD;
}

static F8Source source_of(const F8Opts *o)
{
    if (o->floating_model || !o->format_type[0]) return F8_GIVEN;
    return o->format_grid_search ? F8_SEARCH : o->format_from_metric ? F8_METRIC : F8_GIVEN;
}

static int word(const int *format, int n, int bits)
{
    return n ? format[0] : bits < 32 ? bits : 8;
}

static int fraction(const int *format, int n, int otherwise)
{
    return n > 1 ? format[1] : otherwise;
}

void f8net_layer(const QPlan *qp, int unit, bool conversion, F8Layer *l)
{
    const QOpts *all = qp->opts;
    const F8Opts *o = &all->f8;
    const Unit *u = &qp->spec->u[unit];
    const bool first = u->marks & UM_FIRST, strict = !o->original;
    const int units = f8net_units(qp, u->in[0]), owner = qp->links.clip_owner[unit];
    const bool model = str_eq(o->format_type, "per_model");
    const int wl = word(o->weight_format, o->nweight_format, all->wt_bit);
    int al = word(o->input_format, o->ninput_format, all->fm_bit), average = unit;
    if (first && al < 8) al = 8;
    *l = (F8Layer){.source = source_of(o),
                   .metric = metric_of(o->metric),
                   .per_channel = str_eq(o->format_type, "per_channel"),
                   .given_weight_fl = model,
                   .momentum = (float)o->momentum_for_metric,
                   .image = first && o->image,
                   .pure = o->floating_model && o->floating_wo_clip,
                   .quant_bias = o->quant_bias,
                   .rescale = o->rescale_forward,
                   .rescale_stddev = str_eq(all->rescale_type, "stddev"),
                   .pool_factor = pool_factor(qp, unit, conversion)};
    l->input = format(o, al, u->marks & UM_SIGNED || (first && !o->image));
    l->weight = format(o, wl, true);
    l->input_fl = fraction(o->input_format, o->ninput_format, al - 2);
    l->weight_fl = fraction(o->weight_format, o->nweight_format, wl - 1);
    l->no_clip = o->no_clipping || (strict && units < 0);
    if (!l->image && !l->pure && !l->no_clip) l->alpha = input_of(qp, owner)->p[0];
    if (l->image || l->source == F8_GIVEN) return;
    if (strict && units >= 0) average = units;
    if (o->input_fraclen_sharing) average = owner;
    if (model && !first) average = model_layer(qp);
    l->fraclen = input_of(qp, average)->p[1];
    if (average != unit && strict) return; /* whoever owns the average moves it */
    for (int i = unit + 1; i < qp->spec->n && strict; i++)
        if (f8net_is(qp, i) && f8net_units(qp, qp->spec->u[i].in[0]) == unit) {
            if (l->ntwins < (int)ARRAY_LEN(l->twin)) l->twin[l->ntwins] = input_of(qp, i)->p[1];
            l->ntwins++; /* more than there is room for: `lower` refuses */
        }
}

float f8net_rescaling(const F8Layer *units, const F8Layer *to)
{
    return f8_scaling(units) / f8_scaling(to);
}

/* ---- the two roles: what a layer declares ---- */

static int check_format(const QInst *q, const char *key, const int *f, int n, bool neg, Err *e)
{
    if (q->bits < 32 && (q->bits < 1 + neg || q->bits > 16))
        return err_set(e, ERR_CONFIG, "%s: %s: fixed point of %d bits; expected %d to 16", q->unit,
                       key, q->bits, 1 + neg);
    if (n > 1 && (f[1] < 0 || f[1] > f[0] - neg))
        return err_set(e, ERR_CONFIG, "%s: %s: a fractional length of %d; expected 0 to %d",
                       q->unit, key, f[1], f[0] - neg);
    return 0;
}

static int weight_init(QInst *q, ParamStore *ps, Err *e)
{
    const F8Opts *o = &q->opts->f8;
    (void)ps;
    if (!str_eq(q->opts->fm_quant, "f8net"))
        return err_set(e, ERR_CONFIG,
                       "fm_quant: %s; F8Net quantizes weights and inputs together: expected f8net",
                       q->opts->fm_quant);
    q->enabled = q->bits < 32;
    return check_format(q, "weight_format", o->weight_format, o->nweight_format, true, e);
}

/* NAME.alpha and NAME.input_fraclen, NAME without the `.conv` of the convolution's weight. */
static int act_init(QInst *q, ParamStore *ps, Err *e)
{
    const F8Opts *o = &q->opts->f8;
    const size_t len = strlen(q->name), conv = str_ends(q->name, ".conv.") ? 5 : 0;
    const int prefix = (int)(len - conv);
    const bool neg = q->marks & UM_SIGNED || (q->marks & UM_FIRST && !o->image);
    const bool linear = q->marks & UM_LAST;
    const int n = str_eq(o->format_type, "per_channel") && !linear ? q->shape[0] : 1;
    const float alpha = q->opts->act_clip_init > 0 ? (float)q->opts->act_clip_init : 8;
    const float fl = (float)fraction(o->input_format, o->ninput_format, 6);
    if (!str_eq(q->opts->wt_quant, "f8net"))
        return err_set(e, ERR_CONFIG,
                       "wt_quant: %s; F8Net quantizes weights and inputs together: expected f8net",
                       q->opts->wt_quant);
    q->enabled = q->bits < 32;
    q->p[q->np++] = store_scalar(ps, PK_CLIP, alpha, "%.*salpha", prefix, q->name);
    if (source_of(o) != F8_GIVEN)
        q->p[q->np++] = store_add(ps, PK_BUFFER, DT_F32, (Init){INIT_CONST, fl, 0}, 1, &n,
                                  "%.*sinput_fraclen", prefix, q->name);
    return check_format(q, "input_format", o->input_format, o->ninput_format, neg, e);
}

/* The average of the input's fractional lengths; over the channels where each has one. */
static int act_figures(QInst *q, QFigure *f, int max)
{
    const Param *p = q->np > 1 ? q->p[1] : NULL;
    const size_t n = p ? tensor_len(&p->value) : 0;
    double sum = 0;
    if (max < 1 || !n) return 0;
    for (size_t i = 0; i < n; i++) sum += (double)((const float *)p->value.data)[i];
    f[0] = (QFigure){"fraclen_in", sum / (double)n};
    return 1;
}

static int unit_bits(const QOpts *o, QRole role, unsigned marks, int bits)
{
    const F8Opts *f = &o->f8;
    if (f->floating_model) return 32;
    bits = role == Q_WEIGHT ? word(f->weight_format, f->nweight_format, bits)
                            : word(f->input_format, f->ninput_format, bits);
    return role == Q_ACT && marks & UM_FIRST && bits < 8 ? 8 : bits;
}

/* The tensor alone, by the length its values ask for: the layers themselves work through `lower`.
 */
static void alone(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const F8Opts *o = &q->opts->f8;
    const Fixed f = format(o, q->bits, q->role == Q_WEIGHT);
    const size_t n = tensor_len(x);
    const F8Source s = source_of(o);
    const int given = q->role == Q_WEIGHT
                          ? fraction(o->weight_format, o->nweight_format, q->bits - 1)
                          : fraction(o->input_format, o->ninput_format, q->bits - 2);
    const float fl =
        (float)(s == F8_SEARCH   ? fixed_fl_search(f, x->data, n, NULL)
                : s == F8_METRIC ? fixed_fl_of(f, metric_of(o->metric),
                                               fixed_statistic(metric_of(o->metric), x->data, n, 1))
                                 : given);
    (void)c;
    fixed_tensor(f, (FixedView){.rows = 1, .c = n, .nfl = 1}, &fl, x->data, y->data);
}

/* ---- lowering ---- */

/* The quantized input; a layer that reads what another one has quantized for both takes that. */
static int lower_q(Lower *lw, int unit, const F8Layer *l)
{
    const Unit *u = &lw->spec->u[unit];
    const int x = lower_input(lw, unit, 0), units = f8net_units(lw->qp, u->in[0]);
    const bool strict = !lw->qp->opts->f8.original, own = units == unit || units < 0 || !strict;
    if (!own && lw->quantized[units] >= 0 && lower_input(lw, units, 0) == x)
        return lw->quantized[unit] = lw->quantized[units];
    return lw->quantized[unit] = graph_f8_act(lw->g, u->name, x, l, lower_trains(lw) && own);
}

static int lower_linear(Lower *lw, int unit, const F8Layer *l)
{
    const Unit *u = &lw->spec->u[unit];
    const QUnit *qu = &lw->qp->u[unit];
    const F8Logits logits = lower_trains(lw)            ? F8_TRAIN
                            : lw->qp->opts->f8.original ? F8_DIVIDED
                                                        : F8_EVAL;
    int x = lower_q(lw, unit, l), out[2];
    graph_f8_linear(lw->g, u->name, graph_param(lw->g, qu->weight),
                    qu->bias ? graph_param(lw->g, qu->bias) : -1, l, logits, out);
    lower_set(lw, unit, lower_conv(lw, unit, x, out[0], out[1]));
    return 0;
}

static int lower(Lower *lw, int unit, Err *e)
{
    const Unit *u = &lw->spec->u[unit];
    const QUnit *qu = &lw->qp->u[unit];
    const int groups = u->kind == U_CONV && u->u.conv.groups ? u->u.conv.groups : 1;
    const int to = f8net_units(lw->qp, unit);
    const NormParams *np;
    F8Layer l, next;
    NormStats st;
    int x, w, y0, y, out[2];
    f8net_layer(lw->qp, unit, false, &l);
    if (l.ntwins > (int)ARRAY_LEN(l.twin))
        return err_set(e, ERR_CONFIG, "%s: %d layers read the same numbers; F8Net takes up to %zu", u->name,
                       l.ntwins + 1, ARRAY_LEN(l.twin) + 1);
    if (u->kind == U_LINEAR) return lower_linear(lw, unit, &l);
    np = u->norm >= 0 ? &lw->qp->u[u->norm].norm[lw->variant] : NULL;
    if (!np || !np->scale || lw->spec->u[u->norm].u.norm.kind != NK_BATCH || qu->bias)
        return err_set(e, ERR_CONFIG,
                       "%s: F8Net needs a batch norm right behind each convolution, "
                       "and none of its own bias",
                       u->name);
    if (to >= 0) f8net_layer(lw->qp, to, false, &next);
    st = lower_norm_stats(lw, u->norm);
    x = lower_q(lw, unit, &l);
    w = graph_param(lw->g, qu->weight);
    y0 = lower_trains(lw)
             ? lower_conv(lw, unit, x, graph_f8_scale(lw->g, u->name, w, &l, groups), -1)
             : -1;
    graph_f8_fold(lw->g, u->name, y0, w, groups, graph_param(lw->g, np->scale),
                  graph_param(lw->g, np->shift), &l, to >= 0 ? &next : NULL, &st, out);
    y = lower_conv(lw, unit, x, out[0], out[1]);
    lower_set(lw, unit, y);
    lower_set(lw, u->norm, y);
    return 0;
}

/* A sum of numbers in different units: the terms of earlier units are brought to those of the sum.
 */
static void lower_sum(Lower *lw, int unit)
{
    const Unit *u = &lw->spec->u[unit];
    const F8Opts *o = &lw->qp->opts->f8;
    const int to = f8net_units(lw->qp, unit);
    const int skip = f8net_units(lw->qp, u->in[0]) == to, from = f8net_units(lw->qp, u->in[skip]);
    const int act = u->reader >= 0 && lw->spec->u[u->reader].kind == U_ACT &&
                            lw->spec->u[u->reader].u.act.kind == AK_RELU
                        ? u->reader
                        : -1;
    F8Layer a, b;
    int y;
    if (o->original || o->no_clipping || source_of(o) == F8_GIVEN || from < 0 || from == to) return;
    f8net_layer(lw->qp, from, false, &a);
    f8net_layer(lw->qp, to, false, &b);
    y = graph_f8_sum(lw->g, u->name, lower_input(lw, unit, !skip), lower_input(lw, unit, skip), &a,
                     &b, act >= 0);
    lower_set(lw, unit, y);
    if (act >= 0) lower_set(lw, act, y);
}

/* ReLUs inside a block are the clip of the layer behind them. */
static void lower_other(Lower *lw, int unit)
{
    const Unit *u = &lw->spec->u[unit];
    int shift;
    switch (u->kind) {
    case U_ACT:
        if (u->marks & UM_INNER && u->u.act.kind == AK_RELU && f8net_is(lw->qp, u->reader))
            lower_set(lw, unit, lower_input(lw, unit, 0));
        return;
    case U_ADD:
        lower_sum(lw, unit);
        return;
    case U_POOL:
        shift = f8net_pool_shift(&lw->qp->opts->f8);
        if (shift >= 0 && u->u.pool.kind == POOL_GLOBAL_AVG)
            lower_set(lw, unit, graph_f8_pool(lw->g, u->name, lower_input(lw, unit, 0), shift));
        return;
    default:
        return;
    }
}

static const QFn weight = {.init = weight_init, .forward = alone};
static const QFn act = {.init = act_init, .figures = act_figures, .forward = alone};

/* Fractional length of the weights as they are rounded: folded, by running statistics. */
static int unit_figures(const QPlan *qp, int unit, QFigure *f, int max)
{
    const Unit *u = &qp->spec->u[unit];
    const QUnit *qu = &qp->u[unit];
    const Tensor *w = &qu->weight->value;
    const size_t oc = (size_t)w->dim[0], all = tensor_len(w);
    const int to = f8net_units(qp, unit);
    F8Layer l, next;
    double fl;
    if (max < 1 || !f8net_is(qp, unit)) return 0;
    f8net_layer(qp, unit, false, &l);
    if (l.pure) return 0;
    if (u->kind == U_LINEAR) {
        fl = f8_linear_fl(&l, w->data, oc, all / oc);
    } else {
        const NormParams *np = u->norm >= 0 ? &qp->u[u->norm].norm[0] : NULL;
        const size_t groups = u->u.conv.groups ? (size_t)u->u.conv.groups : 1,
                     per = (size_t)w->dim[2] * (size_t)w->dim[3];
        if (!np || !np->scale || !np->mean) return 0;
        if (to >= 0) f8net_layer(qp, to, false, &next);
        fl = f8_conv_fl(&l, to >= 0 ? &next : NULL,
                        &(F8Conv){oc, (size_t)w->dim[1], per, groups, w->data, np->scale->value.data,
                                  np->shift->value.data,
                                  &(NormStats){np->mean, np->var, np->count,
                                               qp->spec->u[u->norm].u.norm.eps, 0}});
    }
    f[0] = (QFigure){"fraclen_w", fl};
    return 1;
}

const QMethod quant_f8net = {
    .name = "f8net",
    .doc = "fixed point: 8-bit numbers and shifts, norm and clip level folded into the weights "
           "(F8Net)",
    .role = {[Q_WEIGHT] = &weight, [Q_ACT] = &act},
    .traits = QT_DECLARES_AT_32 | QT_DECLARES_FIRST,
    .unit_bits = unit_bits,
    .figures = unit_figures,
    .lower = lower,
    .lower_other = lower_other,
    .form = f8net_form,
    .form_other = f8net_form_other,
};
