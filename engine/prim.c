/* engine/prim.c -- oneDNN 2.6 behind prim.h. Only the files engine/prim*.c see
 * dnnl.h, through prim_dnnl.h.
 *
 * What a port to oneDNN 3 changes stays in here: memory descriptors become opaque, operation
 * descriptors vanish, and scales become per-argument attributes. */
#include "engine/prim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/par.h"
#include "engine/prim_dnnl.h"

Prim *prim_open(Err *e)
{
    Prim *p = xcalloc(1, sizeof *p);
    dnnl_set_primitive_cache_capacity(4096);
    if (failed(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "engine", e) ||
        failed(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags), "stream", e)) {
        if (p->engine) dnnl_engine_destroy(p->engine);
        free(p);
        return NULL;
    }
    return p;
}

void prim_close(Prim *p)
{
    if (!p) return;
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
    free(p);
}

const char *prim_version(char *buf, size_t n)
{
    const dnnl_version_t *v = dnnl_version();
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } isas[] = {
        {dnnl_cpu_isa_sse41, "SSE4.1"},
        {dnnl_cpu_isa_avx, "AVX"},
        {dnnl_cpu_isa_avx2, "AVX2"},
        {dnnl_cpu_isa_avx2_vnni, "AVX2_VNNI"},
        {dnnl_cpu_isa_avx512_core, "AVX512_CORE"},
        {dnnl_cpu_isa_avx512_core_vnni, "AVX512_CORE_VNNI"},
        {dnnl_cpu_isa_avx512_core_bf16, "AVX512_CORE_BF16"},
        {dnnl_cpu_isa_avx512_core_amx, "AVX512_CORE_AMX"},
    };
    const char *isa = "best of this CPU";
    for (size_t i = 0; i < ARRAY_LEN(isas); i++)
        if (dnnl_get_effective_cpu_isa() == isas[i].isa) isa = isas[i].name;
    snprintf(buf, n, "%d.%d.%d, ISA %s", v->major, v->minor, v->patch, isa);
    return buf;
}

bool prim_has_bf16(void)
{
    const unsigned least = dnnl_cpu_isa_avx512_core;
    return ((unsigned)dnnl_get_effective_cpu_isa() & least) == least;
}

static dnnl_memory_desc_t desc4(int n, int c, int h, int w, dnnl_data_type_t type,
                                dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t d;
    dnnl_dims_t dims = {n, c, h, w};
    must(dnnl_memory_desc_init_by_tag(&d, 4, dims, type, tag), "descriptor");
    return d;
}

/* ---- convolution ---- */

struct PrimConv {
    Bound b;
    ConvDir dir;
    bool bias, plain;
    size_t packed_bytes;
    dnnl_primitive_t pack, unpack; /* plain -> packed, packed -> plain; NULL when plain */
    dnnl_memory_t m_plain, m_packed;
};

/* oneDNN 2.6.3 computes wrong gradients of weights in its AVX2 kernel for strided 1x1 convolutions
 * of fewer than 8 input channels (test/test_engine.c, test_strided_weights). */
static bool wrong_weights(const char *impl, const ConvShape *s)
{
    return s->k == 1 && s->stride > 1 && s->ic < 8 && str_eq(impl, "jit_1x1:avx2");
}

/* The maps, weights and windows of a convolution as the library wants them told. */
typedef struct ConvDesc {
    dnnl_memory_desc_t src, dst, wei, diff_wei, bias; /* wei: in any format */
    dnnl_memory_desc_t plain;                         /* weights as they are outside */
    dnnl_dims_t stride, dil, pad, pad_r;
} ConvDesc;

static ConvDesc conv_describe(ConvDir dir, const ConvShape *s)
{
    const dnnl_format_tag_t tag = s->any ? dnnl_format_tag_any : dnnl_nhwc;
    const dnnl_data_type_t type = s->bf16 ? dnnl_bf16 : dnnl_f32;
    const bool wide = s->bf16 && s->dst_f32 && dir == CONV_FWD, grouped = s->groups > 1;
    const int reach = (s->k - 1) * s->dilation + 1, nd = grouped ? 5 : 4;
    const dnnl_dims_t w4 = {s->oc, s->ic, s->k, s->k}, b1 = {s->oc},
                      w5 = {s->groups, s->oc / s->groups, s->ic / s->groups, s->k, s->k};
    ConvDesc d = {.src = desc4(s->n, s->ic, s->ih, s->iw, type, tag),
                  .dst = desc4(s->n, s->oc, s->oh, s->ow, wide ? dnnl_f32 : type, tag),
                  .stride = {s->stride, s->stride},
                  .dil = {s->dilation - 1, s->dilation - 1},
                  .pad = {s->pad, s->pad},
                  .pad_r = {(s->oh - 1) * s->stride + reach - s->ih - s->pad,
                            (s->ow - 1) * s->stride + reach - s->iw - s->pad}};
    must(dnnl_memory_desc_init_by_tag(&d.wei, nd, grouped ? w5 : w4, type, dnnl_format_tag_any),
         "weights");
    must(dnnl_memory_desc_init_by_tag(&d.plain, nd, grouped ? w5 : w4, dnnl_f32,
                                      grouped ? dnnl_goihw : dnnl_oihw),
         "weights");
    must(dnnl_memory_desc_init_by_tag(&d.bias, 1, b1, dnnl_f32, dnnl_a), "bias");
    d.diff_wei = d.wei;
    d.diff_wei.data_type = dnnl_f32;
    return d;
}

/* Chooses the implementation: fills c->b.pd. A backward descriptor wants the forward one as a hint;
 * it describes the same convolution without extras. */
static int conv_choose(PrimConv *c, const ConvShape *s, const ConvDesc *t, Err *e)
{
    const Prim *p = c->b.prim;
    const dnnl_memory_desc_t *bias = c->bias ? &t->bias : NULL;
    const dnnl_primitive_attr_t attr = user_scratch();
    dnnl_convolution_desc_t d;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t st = dnnl_dilated_convolution_forward_desc_init(
        &d, c->dir == CONV_FWD ? dnnl_forward_inference : dnnl_forward_training,
        dnnl_convolution_direct, &t->src, &t->wei, bias, &t->dst, t->stride, t->dil, t->pad,
        t->pad_r);
    int r = -1;
    if (failed(st, "convolution", e) ||
        failed(dnnl_primitive_desc_create(&hint, &d, attr, p->engine, NULL), "convolution", e))
        goto out;
    if (c->dir == CONV_FWD) {
        c->b.pd = hint;
        hint = NULL;
        r = 0;
        goto out;
    }
    st = c->dir == CONV_BWD_DATA
             ? dnnl_dilated_convolution_backward_data_desc_init(&d, dnnl_convolution_direct,
                                                                &t->src, &t->wei, &t->dst,
                                                                t->stride, t->dil, t->pad, t->pad_r)
             : dnnl_dilated_convolution_backward_weights_desc_init(
                   &d, dnnl_convolution_direct, &t->src, &t->diff_wei, bias, &t->dst, t->stride,
                   t->dil, t->pad, t->pad_r);
    if (failed(st, "convolution backward", e)) goto out;
    st = c->dir == CONV_BWD_WEIGHTS
             ? sound_desc(&c->b.pd, &d, attr, p, hint, wrong_weights, s)
             : dnnl_primitive_desc_create(&c->b.pd, &d, attr, p->engine, hint);
    r = failed(st, "convolution backward", e);
out:
    if (hint) dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

/* The arguments, by direction; returns the descriptor of the weights (or of their gradient). */
static const dnnl_memory_desc_t *conv_bind(PrimConv *c, const ConvDesc *t)
{
    static const struct {
        int a, w, out; /* arguments */
        dnnl_query_t qa, qw, qout;
    } rows[] = {
        [CONV_FWD] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, dnnl_query_src_md,
                      dnnl_query_weights_md, dnnl_query_dst_md},
        [CONV_BWD_DATA] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC,
                           dnnl_query_diff_dst_md, dnnl_query_weights_md, dnnl_query_diff_src_md},
        [CONV_BWD_WEIGHTS] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST,
                              dnnl_query_src_md, dnnl_query_diff_weights_md,
                              dnnl_query_diff_dst_md},
    };
    const dnnl_memory_desc_t *w = query(c->b.pd, rows[c->dir].qw);
    bound_arg(&c->b, rows[c->dir].a, query(c->b.pd, rows[c->dir].qa));
    bound_arg(&c->b, rows[c->dir].w, w);
    bound_arg(&c->b, rows[c->dir].out, query(c->b.pd, rows[c->dir].qout));
    if (c->bias)
        bound_arg(&c->b, c->dir == CONV_FWD ? DNNL_ARG_BIAS : DNNL_ARG_DIFF_BIAS, &t->bias);
    return w;
}

static int conv_make(PrimConv *c, const ConvShape *s, Err *e)
{
    const ConvDesc t = conv_describe(c->dir, s);
    const Prim *p = c->b.prim;
    const dnnl_memory_desc_t *w;
    if (conv_choose(c, s, &t, e)) return -1;
    w = conv_bind(c, &t);
    c->packed_bytes = dnnl_memory_desc_get_size(w);
    c->plain = dnnl_memory_desc_equal(w, &t.plain);
    if (!c->plain) {
        c->m_plain = memory(p, &t.plain);
        c->m_packed = memory(p, w);
        if (c->dir == CONV_BWD_WEIGHTS ? reorder_make(p, w, &t.plain, &c->unpack, e)
                                       : reorder_make(p, &t.plain, w, &c->pack, e))
            return -1;
    }
    return bound_make(&c->b, e);
}

static PrimConv *conv_new(Prim *p, ConvDir dir, const ConvShape *s, Err *e)
{
    PrimConv *c = xcalloc(1, sizeof *c);
    c->b.prim = p;
    c->dir = dir;
    c->bias = s->bias && dir != CONV_BWD_DATA;
    if (!conv_make(c, s, e)) return c;
    err_prefix(e, "convolution %d -> %d channels, %dx%d, kernel %d, stride %d, groups %d", s->ic,
               s->oc, s->ih, s->iw, s->k, s->stride, s->groups);
    prim_conv_free(c);
    return NULL;
}

PrimConv *prim_conv_new(Prim *p, ConvDir dir, const ConvShape *s, Err *e)
{
    const int threads = par_threads();
    PrimConv *c;
    if (s->one_thread) par_set_threads(1); /* the library plans for the threads of this moment */
    c = conv_new(p, dir, s, e);
    if (s->one_thread) par_set_threads(threads);
    return c;
}

void prim_conv_free(PrimConv *c)
{
    if (!c) return;
    if (c->pack) dnnl_primitive_destroy(c->pack);
    if (c->unpack) dnnl_primitive_destroy(c->unpack);
    if (c->m_plain) dnnl_memory_destroy(c->m_plain);
    if (c->m_packed) dnnl_memory_destroy(c->m_packed);
    bound_free(&c->b);
    free(c);
}

const char *prim_conv_impl(const PrimConv *c)
{
    return impl_name(c->b.pd);
}

size_t prim_conv_scratch(const PrimConv *c)
{
    return c->b.scratch;
}

size_t prim_conv_packed_bytes(const PrimConv *c)
{
    return c->packed_bytes;
}

bool prim_conv_plain(const PrimConv *c)
{
    return c->plain;
}

void prim_conv_pack(const PrimConv *c, const float *oihw, void *packed)
{
    if (c->plain)
        memcpy(packed, oihw, c->packed_bytes);
    else
        reorder_run(c->b.prim, c->pack, c->m_plain, oihw, c->m_packed, packed);
}

void prim_conv_unpack(const PrimConv *c, const void *packed, float *oihw)
{
    if (c->plain)
        memcpy(oihw, packed, c->packed_bytes);
    else
        reorder_run(c->b.prim, c->unpack, c->m_packed, packed, c->m_plain, oihw);
}

void prim_conv_run(const PrimConv *c, const void *a, void *w, const void *b, void *out,
                   void *scratch)
{
    switch (c->dir) {
    case CONV_FWD:
        bound_set(&c->b, DNNL_ARG_SRC, a);
        bound_set(&c->b, DNNL_ARG_WEIGHTS, w);
        bound_set(&c->b, DNNL_ARG_BIAS, b);
        bound_set(&c->b, DNNL_ARG_DST, out);
        break;
    case CONV_BWD_DATA:
        bound_set(&c->b, DNNL_ARG_DIFF_DST, a);
        bound_set(&c->b, DNNL_ARG_WEIGHTS, w);
        bound_set(&c->b, DNNL_ARG_DIFF_SRC, out);
        break;
    case CONV_BWD_WEIGHTS:
        bound_set(&c->b, DNNL_ARG_SRC, a);
        bound_set(&c->b, DNNL_ARG_DIFF_WEIGHTS, w);
        bound_set(&c->b, DNNL_ARG_DIFF_DST, b);
        bound_set(&c->b, DNNL_ARG_DIFF_BIAS, out);
        break;
    }
    bound_run(&c->b, scratch);
}

double prim_conv_time(Prim *p, ConvDir dir, const ConvShape *s, int reps)
{
    PrimConv *c = prim_conv_new(p, dir, s, NULL);
    void *buf[MAX_ARGS] = {0};
    double best = -1;
    if (!c) return -1;
    for (int i = 0; i < c->b.nargs; i++) {
        const dnnl_memory_desc_t *d;
        must(dnnl_memory_get_memory_desc(c->b.arg[i].memory, &d), "descriptor");
        buf[i] = xaligned(dnnl_memory_desc_get_size(d));
        must(dnnl_memory_set_data_handle(c->b.arg[i].memory, buf[i]), "data handle");
    }
    for (int r = 0; r < reps + 2; r++) {
        struct timespec t0, t1;
        double t;
        clock_gettime(CLOCK_MONOTONIC, &t0);
        must(dnnl_primitive_execute(c->b.prv, p->stream, c->b.nargs, c->b.arg), "execute");
        must(dnnl_stream_wait(p->stream), "wait");
        clock_gettime(CLOCK_MONOTONIC, &t1);
        t = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
        if (r >= 2 && (best < 0 || t < best)) best = t;
    }
    for (int i = 0; i < c->b.nargs; i++) free(buf[i]);
    prim_conv_free(c);
    return best;
}

/* ---- pooling ---- */

struct PrimPool {
    Bound fwd, bwd;
    size_t workspace;
};

PrimPool *prim_pool_new(Prim *p, const PoolShape *s, bool train, Err *e)
{
    PrimPool *m = xcalloc(1, sizeof *m);
    dnnl_memory_desc_t src = desc4(s->n, s->c, s->ih, s->iw, dnnl_f32, dnnl_nhwc),
                       dst = desc4(s->n, s->c, s->oh, s->ow, dnnl_f32, dnnl_nhwc);
    dnnl_dims_t stride = {s->stride, s->stride}, kernel = {s->kh, s->kw}, pad = {s->pad, s->pad},
                pad_r;
    dnnl_alg_kind_t alg = s->max         ? dnnl_pooling_max
                          : s->count_pad ? dnnl_pooling_avg_include_padding
                                         : dnnl_pooling_avg_exclude_padding;
    dnnl_pooling_desc_t d;
    dnnl_primitive_attr_t attr = user_scratch();
    int r = -1;
    pad_r[0] = (s->oh - 1) * s->stride + s->kh - s->ih - s->pad;
    pad_r[1] = (s->ow - 1) * s->stride + s->kw - s->iw - s->pad;
    m->fwd.prim = m->bwd.prim = p;
    if (failed(dnnl_pooling_forward_desc_init(
                   &d, train ? dnnl_forward_training : dnnl_forward_inference, alg, &src, &dst,
                   stride, kernel, pad, pad_r),
               "pooling", e) ||
        failed(dnnl_primitive_desc_create(&m->fwd.pd, &d, attr, p->engine, NULL), "pooling", e))
        goto out;
    bound_arg(&m->fwd, DNNL_ARG_SRC, &src);
    bound_arg(&m->fwd, DNNL_ARG_DST, &dst);
    if (train && s->max) {
        const dnnl_memory_desc_t *ws = query(m->fwd.pd, dnnl_query_workspace_md);
        m->workspace = dnnl_memory_desc_get_size(ws);
        bound_arg(&m->fwd, DNNL_ARG_WORKSPACE, ws);
    }
    if (bound_make(&m->fwd, e)) goto out;
    if (train) {
        if (failed(dnnl_pooling_backward_desc_init(&d, alg, &src, &dst, stride, kernel, pad, pad_r),
                   "pooling", e) ||
            failed(dnnl_primitive_desc_create(&m->bwd.pd, &d, attr, p->engine, m->fwd.pd),
                   "pooling", e))
            goto out;
        bound_arg(&m->bwd, DNNL_ARG_DIFF_SRC, &src);
        bound_arg(&m->bwd, DNNL_ARG_DIFF_DST, &dst);
        if (s->max)
            bound_arg(&m->bwd, DNNL_ARG_WORKSPACE, query(m->fwd.pd, dnnl_query_workspace_md));
        if (bound_make(&m->bwd, e)) goto out;
    }
    r = 0;
out:
    dnnl_primitive_attr_destroy(attr);
    if (r == 0) return m;
    prim_pool_free(m);
    return NULL;
}

void prim_pool_free(PrimPool *m)
{
    if (!m) return;
    bound_free(&m->fwd);
    bound_free(&m->bwd);
    free(m);
}

size_t prim_pool_scratch(const PrimPool *m)
{
    return m->fwd.scratch > m->bwd.scratch ? m->fwd.scratch : m->bwd.scratch;
}

size_t prim_pool_workspace(const PrimPool *m)
{
    return m->workspace;
}

void prim_pool_fwd(const PrimPool *m, const float *src, float *dst, void *workspace, void *scratch)
{
    bound_set(&m->fwd, DNNL_ARG_SRC, src);
    bound_set(&m->fwd, DNNL_ARG_DST, dst);
    bound_set(&m->fwd, DNNL_ARG_WORKSPACE, workspace);
    bound_run(&m->fwd, scratch);
}

void prim_pool_bwd(const PrimPool *m, const float *ddst, float *dsrc, void *workspace,
                   void *scratch)
{
    bound_set(&m->bwd, DNNL_ARG_DIFF_DST, ddst);
    bound_set(&m->bwd, DNNL_ARG_DIFF_SRC, dsrc);
    bound_set(&m->bwd, DNNL_ARG_WORKSPACE, workspace);
    bound_run(&m->bwd, scratch);
}

void prim_sgemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda,
                const float *b, int ldb, float beta, float *c, int ldc)
{
    must(dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc),
         "sgemm");
}
