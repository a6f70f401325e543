/* quant/quant.c -- instances of quantizers, and rows mapped over whole tensors. See quant.h. */
#include "quant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"

static const char *const role_name[Q_NROLES] = {"weight", "activation", "output"};

const QMethod *quant_find(const char *name)
{
    for (int i = 0; quant_methods[i]; i++)
        if (str_eq(quant_methods[i]->name, name) ||
            (quant_methods[i]->alias && str_eq(quant_methods[i]->alias, name)))
            return quant_methods[i];
    return NULL;
}

const char *width_text(int bits, int act, char text[16])
{
    if (!act || act == bits)
        snprintf(text, 16, "%dbit", bits);
    else
        snprintf(text, 16, "w%da%d", bits, act);
    return text;
}

/* half: QOpts.kw.tag[].half_range */
#define KW_TAG(half)                                                                               \
    {.half_range = half, .scale = 0.5, .adaptive = "none", .grad_type = "none", .grad_scale = "none"}

void qopts_default(QOpts *o)
{
    *o = (QOpts){.wt_quant = "none",
                 .fm_quant = "none",
                 .ot_quant = "none",
                 .wt_bit = 32,
                 .fm_bit = 32,
                 .ot_bit = 32,
                 .quant_variant = "",
                 .power = true,
                 .additive = true,
                 .wt_normalize = true,
                 .weight_thres = 0.1,
                 .activation_lr = 0.01,
                 .activation_regu = 1e-4,
                 .sigmoid_alpha = 1,
                 .start_alpha = 1,
                 .end_alpha = 1,
                 .fuse = true,
                 .switch_norm = true,
                 .weight_quant_scheme = "modified",
                 .act_quant_scheme = "original",
                 .clamp = true,
                 .rescale = true,
                 .rescale_type = "constant",
                 .f8 = {.format_type = "",
                        .metric = "std",
                        .momentum_for_metric = 0.1,
                        .rescale_forward = true},
                 .kw = {.tag = {[Q_WEIGHT] = KW_TAG(false), [Q_ACT] = KW_TAG(true), [Q_OUT] = KW_TAG(false)},
                        .fm_custom = "none",
                        .proxquant_step = 5},
                 .method_opts = ""};
}

const void *quant_variant(const QInst *q, const void *rows, size_t n, size_t size, Err *e)
{
    const char *want = q->opts->quant_variant, *names[16], *near;
    Str list = {0};
    ASSERT(n > 0 && n <= ARRAY_LEN(names), "%zu variants", n);
    if (!want || !*want) return rows;
    for (size_t i = 0; i < n; i++) {
        const void *row = (const char *)rows + i * size;
        memcpy(&names[i], row, sizeof names[i]); /* the name comes first */
        if (str_eq(names[i], want)) {
            str_free(&list);
            return row;
        }
        str_printf(&list, "%s%s", i == 0 ? "" : i + 1 < n ? ", " : " and ", names[i]);
    }
    near = str_nearest(want, names, n);
    err_set(e, ERR_CONFIG, "quant_variant: %s has %s, not '%s'%s%s%s", q->method->name, list.s, want,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    str_free(&list);
    return NULL;
}

int qinst_init(QInst *q, const QMethod *m, QRole role, int bits, int variant, const QOpts *o,
               ParamStore *ps, Param *owner, unsigned marks, int ndim, const int *shape,
               const char *name, Err *e)
{
    return qinst_init_grouped(q, m, role, bits, variant, o, ps, owner, marks, 1, ndim, shape, name, e);
}

int qinst_init_grouped(QInst *q, const QMethod *m, QRole role, int bits, int variant,
                       const QOpts *o, ParamStore *ps, Param *owner, unsigned marks,
                       int conv_groups, int ndim, const int *shape, const char *name, Err *e)
{
    const QFn *fn = m->role[role];
    memset(q, 0, sizeof *q);
    ASSERT(ndim >= 0 && ndim <= TENSOR_MAX_DIM, "%s: %d dimensions", name, ndim);
    if (!fn)
        return err_set(e, ERR_CONFIG, "%s: method '%s' has no %s quantizer", name, m->name,
                       role_name[role]);
    q->fn = fn;
    q->method = m;
    q->opts = o;
    q->name = xstrdup(name);
    q->unit = xstrndup(name, strlen(name) - str_ends(name, "."));
    q->role = role;
    q->bits = bits;
    q->variant = variant;
    q->marks = marks;
    q->conv_groups = conv_groups;
    q->ndim = ndim;
    if (ndim) memcpy(q->shape, shape, (size_t)ndim * sizeof *shape);
    q->enabled = true;
    q->owner = owner;
    q->priv = fn->priv_size ? xaligned(fn->priv_size) : NULL;
    q->first_own = ps ? ps->n : 0;
    if (fn->init && fn->init(q, ps, e)) {
        qinst_free(q);
        return -1;
    }
    q->nown = ps ? ps->n - q->first_own : 0;
    ASSERT(fn->nacc <= Q_MAX_ACC, "%s: %d sums", m->name, fn->nacc);
    return 0;
}

void qinst_free(QInst *q)
{
    if (q->fn && q->fn->release) q->fn->release(q);
    free(q->priv);
    free((void *)(uintptr_t)q->name);
    free((void *)(uintptr_t)q->unit);
    memset(q, 0, sizeof *q);
}

static bool maps_rows_bwd(const QFn *fn)
{
    return !fn->backward && fn->row_bwd;
}

void qfn_need(const QFn *fn, const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    *save = *scratch = 0;
    if (fn->need) fn->need(q, x, ph, save, scratch);
    if (maps_rows_bwd(fn) && fn->nacc) {
        size_t sums = par_chunks(tensor_len(x)) * (size_t)fn->nacc * sizeof(double);
        if (sums > *scratch) *scratch = sums;
    }
}

void qinst_need(const QInst *q, const Tensor *x, Phase ph, size_t *save, size_t *scratch)
{
    qfn_need(q->fn, q, x, ph, save, scratch);
}

void qfn_forward(const QFn *fn, QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    const size_t n = tensor_len(x);
    const float *xs = x->data;
    float *ys = y->data;
    if (fn->forward) {
        fn->forward(q, x, y, c);
        return;
    }
    if (fn->begin) fn->begin(q, c);
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        fn->row(q, xs + at, ys + at, par_chunk_len(n, (size_t)k));
    }
}

void qinst_forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    if (q->enabled)
        qfn_forward(q->fn, q, x, y, c);
    else if (y->data != x->data)
        memcpy(y->data, x->data, tensor_bytes(x));
}

static void straight_through(const Tensor *x, const Tensor *dy, Tensor *dx)
{
    if (dx && dx->data && dx->data != dy->data) memcpy(dx->data, dy->data, tensor_bytes(x));
}

void qfn_backward(const QFn *fn, QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx,
                  const QCtx *c)
{
    const size_t n = tensor_len(x), nchunks = par_chunks(n), nacc = (size_t)fn->nacc;
    const float *xs = x->data, *dys = dy->data;
    float *dxs = dx ? dx->data : NULL;
    double *sums = c->scratch, acc[Q_MAX_ACC] = {0};
    if (fn->backward) {
        fn->backward(q, x, dy, dx, c);
        return;
    }
    if (!fn->row_bwd) {
        straight_through(x, dy, dx);
        return;
    }
    ASSERT(sums || !nacc || !n, "%s: no scratch memory for the sums", q->name);
    PARALLEL_FOR(k, nchunks)
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        double part[Q_MAX_ACC] = {0};
        fn->row_bwd(q, xs + at, dys + at, dxs ? dxs + at : NULL, par_chunk_len(n, (size_t)k), part);
        for (size_t i = 0; i < nacc; i++) sums[(size_t)k * nacc + i] = part[i];
    }
    for (size_t k = 0; k < nchunks; k++)
        for (size_t i = 0; i < nacc; i++) acc[i] += sums[k * nacc + i];
    if (fn->end) fn->end(q, acc);
}

void qinst_backward(QInst *q, const Tensor *x, const Tensor *dy, Tensor *dx, const QCtx *c)
{
    if (q->enabled)
        qfn_backward(q->fn, q, x, dy, dx, c);
    else
        straight_through(x, dy, dx);
}
