/* quant/keyword.c -- see keyword.h. */
#include "quant/keyword.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "engine/spec.h"
#include "quant/stat.h"

#define MAX_BITS 8

static const char *const tag[Q_NROLES] = {"wt", "fm", "ot"};

const char *kw_child(QRole role)
{
    static const char *const child[Q_NROLES] = {"quant_weight", "quant_activation", "quant_output"};
    return child[role];
}

/* ---- making one ---- */

static int role_bits(const QOpts *o, QRole role)
{
    return role == Q_WEIGHT ? o->wt_bit : role == Q_ACT ? o->fm_bit : o->ot_bit;
}

/* The declared shape is O, I, k, k or 1, C, 1, 1; a linear weight is 1, 1, O, I. */
static int group_count(const QInst *q, int option)
{
    const bool weight = q->role == Q_WEIGHT, conv = weight && q->ndim == 4;
    const int width = conv ? q->shape[0] * q->shape[1] : weight ? 1 : q->shape[0];
    const int default_groups = conv ? q->shape[0] : 1, by = option < 0 ? -option : option;
    if (!option || width % by) return default_groups;
    return option > 0 ? by : width / by;
}

int kw_unit_bits(const QOpts *o, QRole role, unsigned marks, int bits)
{
    const int asked = marks & UM_FIRST ? o->first_bit : o->last_bit;
    if (!(marks & (UM_FIRST | UM_LAST))) return bits;
    if ((role == Q_ACT && marks & UM_FIRST) || (role == Q_OUT && marks & UM_LAST)) return 32;
    return asked ? asked : 32;
}

int kw_init(QInst *q, ParamStore *ps, Err *e)
{
    Keyword *k = q->priv;
    const KwOpts *o = &q->opts->kw;
    k->tag = o->tag[q->role];
    k->o = &k->tag;
    k->inner = q->fn;
    if (q->bits == 32) {
        q->enabled = false;
        return 0;
    }
    if (q->bits < 1 || q->bits > MAX_BITS)
        return err_set(e, ERR_CONFIG, "%s: %s has 1 to %d bits or 32, not %d (%s_bit)", q->unit,
                       q->method->name, MAX_BITS, q->bits, tag[q->role]);
    k->levels = k->o->level && q->bits == role_bits(q->opts, q->role) ? k->o->level : 1 << q->bits;
    k->n = (float)(k->levels - 1);
    k->num_levels = k->levels;
    k->groups = group_count(q, k->o->quant_group);
    k->stable = o->stable;
    k->counts = 1;
    k->loss.alpha = 1;
    if (q->role == Q_WEIGHT) {
        k->normalizes = str_eq(k->o->adaptive, "var-mean");
        k->norm_groups = o->independent_norm ? 1 : k->groups;
        k->mean = xcalloc((size_t)k->groups, sizeof *k->mean);
        k->std = xcalloc((size_t)k->groups, sizeof *k->std);
        k->measure = xcalloc((size_t)k->groups, sizeof *k->measure);
    }
    k->iteration = kw_add_state(q, ps, 0, "iteration");
    k->level_num = kw_add_state(q, ps, (float)k->levels, "level_num");
    return 0;
}

static Param *add_param(QInst *q, ParamStore *ps, ParamKind kind, float start, const char *name,
                        bool plain_one)
{
    const Keyword *k = q->priv;
    const int axis = q->role != Q_WEIGHT;
    int dim[4] = {1, 1, 1, 1}, nd = plain_one && axis && k->groups == 1 ? 1 : 4;
    if (nd == 4) dim[axis] = k->groups;
    return store_add(ps, kind, DT_F32, (Init){INIT_CONST, start, 0}, nd, dim, "%s%s.%s", q->name,
                     kw_child(q->role), name);
}

Param *kw_add_param(QInst *q, ParamStore *ps, float start, const char *name, bool plain_one)
{
    return q->p[q->np++] = add_param(q, ps, PK_CLIP, start, name, plain_one);
}

Param *kw_add_state(QInst *q, ParamStore *ps, float start, const char *name)
{
    const int one = 1;
    return store_add(ps, PK_BUFFER, DT_F32, (Init){INIT_CONST, start, 0}, 1, &one, "%s%s.%s",
                     q->name, kw_child(q->role), name);
}

static float clip_start(const QInst *q)
{
    const Keyword *k = q->priv;
    const double init = q->role == Q_WEIGHT ? q->opts->wt_clip_init
                        : q->role == Q_ACT  ? q->opts->act_clip_init
                                            : 0;
    return (float)(init > 0 ? init : k->o->boundary > 0 ? k->o->boundary : 1);
}

void kw_add_clip(QInst *q, ParamStore *ps)
{
    ((Keyword *)q->priv)->clip = kw_add_param(q, ps, clip_start(q), "clip_val", true);
}

void kw_add_idle_clip(QInst *q, ParamStore *ps)
{
    ((Keyword *)q->priv)->clip = add_param(q, ps, PK_BUFFER, clip_start(q), "clip_val", true);
}

void kw_add_gamma(QInst *q, ParamStore *ps)
{
    Keyword *k = q->priv;
    if (k->o->gamma && q->role != Q_ACT) k->gamma = kw_add_param(q, ps, 1, "gamma", false);
}

void kw_use(QInst *q, const QFn *fn)
{
    Keyword *k = q->priv;
    k->inner = fn;
    q->fn = q->opts->kw.proxquant || k->loss.on ? &kw_blended : fn;
}

void kw_release(QInst *q)
{
    Keyword *k = q->priv;
    free(k->mean);
    free(k->std);
    free(k->measure);
}

/* ---- the beginning of a forward ---- */

void kw_begin(QInst *q, const QCtx *c)
{
    Keyword *k = q->priv;
    const float step = ((const float *)k->iteration->value.data)[0] + (float)k->counts;
    q->fault = NULL;
    k->passes = step <= (float)k->stable;
    if (c->phase != PH_TRAIN) return;
    *(float *)k->iteration->value.data = step;
    *(float *)k->level_num->value.data = (float)k->levels;
    param_touch(k->iteration); /* the end of the warm-up changes what was made of weights alone */
}

void kw_fault(QInst *q, const char *fmt, ...)
{
    Keyword *k = q->priv;
    const int n = snprintf(k->fault, sizeof k->fault, "%s.%s: ", q->unit, kw_child(q->role));
    va_list ap;
    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < sizeof k->fault)
        vsnprintf(k->fault + n, sizeof k->fault - (size_t)n, fmt, ap);
    va_end(ap);
    q->fault = k->fault;
}

bool kw_idle(const QInst *q, const float *x, float *y, size_t n)
{
    const Keyword *k = q->priv;
    if (q->fault)
        memset(y, 0, n * sizeof *y);
    else if (k->passes && y != x)
        memcpy(y, x, n * sizeof *y);
    return q->fault || k->passes;
}

bool kw_idle_bwd(const QInst *q, const float *dy, float *dx, size_t n)
{
    if (!dx) return q->fault || ((const Keyword *)q->priv)->passes;
    return kw_idle(q, dy, dx, n);
}

void kw_warm_clip(QInst *q, float largest)
{
    Keyword *k = q->priv;
    const float t = ((const float *)k->iteration->value.data)[0];
    const float m = k->o->correlate > 0 ? largest * (float)k->o->correlate : largest;
    float *c = k->clip->value.data;
    for (size_t i = 0; i < tensor_len(&k->clip->value); i++) c[i] = (m + (t - 1) * c[i]) / t;
    param_touch(k->clip);
}

bool kw_divisor(QInst *q, const Param *p)
{
    const float *v = p->value.data;
    for (size_t i = 0; i < tensor_len(&p->value); i++) {
        if (v[i] != 0 && isfinite(v[i])) continue;
        kw_fault(q, "%s[%zu] is %g; %s divides by it", strrchr(p->name, '.') + 1, i, (double)v[i],
                 q->method->name);
        return false;
    }
    return true;
}

float kw_steps_before(const Keyword *k)
{
    return ((const float *)k->iteration->value.data)[0] - (float)k->counts;
}

bool kw_pad_counts(const QInst *q)
{
    const Keyword *k = q->priv;
    return k->loss.on && k->loss.kind != KW_QDL;
}

/* ---- activations whose rows are not all alike ---- */

bool kw_act_is_whole(const Keyword *k)
{
    return k->stable > 0 || k->gamma;
}

void kw_act_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    (void)ph;
    *save = 0;
    *scratch = par_chunks(tensor_len(x)) * ((size_t)((const Keyword *)q->priv)->inner->nacc + 1) * sizeof(double);
}

void kw_act_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const Keyword *k = q->priv;
    const float *xs = x->data;
    const size_t n = tensor_len(x);
    const float gamma = k->gamma ? ((const float *)k->gamma->value.data)[0] : 1;
    float *ys = y->data;
    k->inner->begin(q, c);
    if (k->passes && k->clip && c->phase == PH_TRAIN) kw_warm_clip(q, stat_absmax(xs, n));
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        float *out = ys + at;
        k->inner->row(q, xs + at, out, len);
        if (k->gamma && !k->passes) SIMD_FOR(i, len) out[i] *= gamma;
    }
}

void kw_act_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    const Keyword *k = q->priv;
    const QFn *fn = k->inner;
    const size_t n = tensor_len(x), nacc = (size_t)fn->nacc, per = nacc + 1;
    const float *xs = x->data, *g = dy->data;
    const bool scaled = k->gamma && !k->passes;
    const float gamma = scaled ? ((const float *)k->gamma->value.data)[0] : 1;
    float *d = dx ? dx->data : NULL;
    double *sums = c->scratch, acc[Q_MAX_ACC + 1] = {0};
    PARALLEL_FOR(b, par_chunks(n))
    {
        const size_t at = (size_t)b * PAR_CHUNK, len = par_chunk_len(n, (size_t)b);
        double part[Q_MAX_ACC + 1] = {0}, dot = 0;
        float buf[PAR_CHUNK];
        const float *gb = g + at;
        if (scaled) {
            fn->row(q, xs + at, buf, len);
            PAR_PRAGMA_(omp simd reduction(+ : dot))
            for (size_t i = 0; i < len; i++) dot += (double)gb[i] * (double)buf[i];
            SIMD_FOR(i, len) buf[i] = gb[i] * gamma;
            gb = buf;
        }
        fn->row_bwd(q, xs + at, gb, d ? d + at : NULL, len, part);
        memcpy(sums + (size_t)b * per, part, nacc * sizeof *sums);
        sums[(size_t)b * per + nacc] = dot;
    }
    for (size_t b = 0; b < par_chunks(n); b++)
        for (size_t i = 0; i < per; i++) acc[i] += sums[b * per + i];
    if (scaled && !q->fault) *(float *)k->gamma->grad.data += (float)acc[nacc];
    if (fn->end) fn->end(q, acc);
}

KwRows kw_rows(const Tensor *x)
{
    const size_t c = (size_t)(x->ndim == 4 ? x->dim[1] : x->dim[x->ndim - 1]);
    return (KwRows){c, tensor_len(x) / c};
}

double kw_weights(const QInst *q)
{
    double n = 1;
    for (int i = 0; i < q->ndim; i++) n *= q->shape[i];
    return n;
}

float kw_inside_factor(double n, double inside)
{
    const double f = inside > 0 ? sqrt(n / inside) : 1;
    return f >= 2 ? (float)f : 1;
}
