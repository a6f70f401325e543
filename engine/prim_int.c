/* engine/prim_int.c -- see prim_int.h. */
#include "engine/prim_int.h"

#include <math.h>
#include <stdlib.h>

#include "engine/prim_dnnl.h"

struct PrimIntConv {
    Bound b;
    bool bias;
    size_t packed_bytes;
    dnnl_primitive_t pack;
    dnnl_memory_t m_plain, m_packed;
};

static dnnl_data_type_t type_of(DType t)
{
    return t == DT_U8 ? dnnl_u8 : t == DT_S8 ? dnnl_s8 : dnnl_s32;
}

static void describe(dnnl_memory_desc_t *d, int ndim, const dnnl_dims_t dims, dnnl_data_type_t type,
                     dnnl_format_tag_t tag)
{
    must(dnnl_memory_desc_init_by_tag(d, ndim, dims, type, tag), "descriptor");
}

/* What follows the sum: the shift as a scale, and a clip unless the type's own saturation does it.
 */
static dnnl_primitive_attr_t epilogue(const PrimIntShape *s)
{
    dnnl_primitive_attr_t attr = user_scratch();
    const bool own = s->dst == DT_U8 ? s->lo == 0 && s->hi == 255 : s->lo == -128 && s->hi == 127;
    const float scale = ldexpf(1, -s->shift);
    if (s->dst == DT_S32) return attr;
    must(dnnl_primitive_attr_set_output_scales(attr, 1, 0, &scale), "output scale");
    if (!own) {
        dnnl_post_ops_t po;
        must(dnnl_post_ops_create(&po), "post operations");
        must(dnnl_post_ops_append_eltwise(po, 1, dnnl_eltwise_clip, (float)s->lo, (float)s->hi),
             "clip");
        must(dnnl_primitive_attr_set_post_ops(attr, po), "post operations");
        must(dnnl_post_ops_destroy(po), "post operations");
    }
    return attr;
}

/* Before its 1x1 convolution oneDNN copies strided inputs into each thread's part of the scratch.
 * On SSE4.1 and AVX2 it copies 8 or 16 bytes at a time, also the last ones of a pixel: what is too
 * much falls into the part of the next thread, which may be computing with it (2.6.3 to 3.5;
 * test/test_intnet.c, strided_pixels). */
static bool spills(const char *impl, const ConvShape *s)
{
    return s->stride > 1 && s->ic % 16 != 0 && str_starts(impl, "jit_uni_int8_1x1:");
}

PrimIntConv *prim_int_conv_new(Prim *p, const PrimIntShape *shape, Err *e)
{
    PrimIntConv *c = xcalloc(1, sizeof *c);
    const ConvShape *s = &shape->conv;
    const int g = s->groups, reach = (s->k - 1) * s->dilation + 1, nd = g > 1 ? 5 : 4;
    const dnnl_dims_t src_dims = {s->n, s->ic, s->ih, s->iw},
                      dst_dims = {s->n, s->oc, s->oh, s->ow}, w4 = {s->oc, s->ic, s->k, s->k},
                      w5 = {g, s->oc / g, s->ic / g, s->k, s->k}, b1 = {s->oc},
                      stride = {s->stride, s->stride}, dil = {s->dilation - 1, s->dilation - 1},
                      pad = {s->pad, s->pad},
                      pad_r = {(s->oh - 1) * s->stride + reach - s->ih - s->pad,
                               (s->ow - 1) * s->stride + reach - s->iw - s->pad};
    dnnl_memory_desc_t src, dst, wei, plain, bias;
    const dnnl_memory_desc_t *w;
    dnnl_convolution_desc_t d;
    dnnl_primitive_attr_t attr = epilogue(shape);

    c->b.prim = p;
    c->bias = shape->dst != DT_S32;
    describe(&src, 4, src_dims, type_of(shape->src), dnnl_nhwc);
    describe(&dst, 4, dst_dims, type_of(shape->dst), dnnl_nhwc);
    describe(&wei, nd, g > 1 ? w5 : w4, dnnl_s8, dnnl_format_tag_any);
    describe(&plain, nd, g > 1 ? w5 : w4, dnnl_s8, g > 1 ? dnnl_goihw : dnnl_oihw);
    describe(&bias, 1, b1, dnnl_s32, dnnl_a);
    if (failed(dnnl_dilated_convolution_forward_desc_init(
                   &d, dnnl_forward_inference, dnnl_convolution_direct, &src, &wei,
                   c->bias ? &bias : NULL, &dst, stride, dil, pad, pad_r),
               "8-bit convolution", e) ||
        failed(sound_desc(&c->b.pd, &d, attr, p, NULL, spills, s), "8-bit convolution", e))
        goto fail;
    w = query(c->b.pd, dnnl_query_weights_md);
    bound_arg(&c->b, DNNL_ARG_SRC, &src);
    bound_arg(&c->b, DNNL_ARG_WEIGHTS, w);
    if (c->bias) bound_arg(&c->b, DNNL_ARG_BIAS, &bias);
    bound_arg(&c->b, DNNL_ARG_DST, &dst);
    c->packed_bytes = dnnl_memory_desc_get_size(w); /* with the library's own sums of weights */
    c->m_plain = memory(p, &plain);
    c->m_packed = memory(p, w);
    if (reorder_make(p, &plain, w, &c->pack, e) || bound_make(&c->b, e)) goto fail;
    dnnl_primitive_attr_destroy(attr);
    return c;
fail:
    err_prefix(e, "convolution %d -> %d channels, %dx%d, kernel %d, stride %d, groups %d", s->ic,
               s->oc, s->ih, s->iw, s->k, s->stride, g);
    dnnl_primitive_attr_destroy(attr);
    prim_int_conv_free(c);
    return NULL;
}

void prim_int_conv_free(PrimIntConv *c)
{
    if (!c) return;
    if (c->pack) dnnl_primitive_destroy(c->pack);
    if (c->m_plain) dnnl_memory_destroy(c->m_plain);
    if (c->m_packed) dnnl_memory_destroy(c->m_packed);
    bound_free(&c->b);
    free(c);
}

const char *prim_int_conv_impl(const PrimIntConv *c)
{
    return impl_name(c->b.pd);
}

size_t prim_int_conv_scratch(const PrimIntConv *c)
{
    return c->b.scratch;
}

size_t prim_int_conv_packed_bytes(const PrimIntConv *c)
{
    return c->packed_bytes;
}

void prim_int_conv_pack(const PrimIntConv *c, const int8_t *oihw, void *packed)
{
    reorder_run(c->b.prim, c->pack, c->m_plain, oihw, c->m_packed, packed);
}

void prim_int_conv_run(const PrimIntConv *c, const void *src, const void *packed,
                       const int32_t *bias, void *dst, void *scratch)
{
    bound_set(&c->b, DNNL_ARG_SRC, src);
    bound_set(&c->b, DNNL_ARG_WEIGHTS, packed);
    if (c->bias) bound_set(&c->b, DNNL_ARG_BIAS, bias);
    bound_set(&c->b, DNNL_ARG_DST, dst);
    bound_run(&c->b, scratch);
}
