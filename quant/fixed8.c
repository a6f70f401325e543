/* quant/fixed8.c -- 8-bit weights of the first convolution and the classifier, as APoT and FAT have
 * them.
 *
 * y = round(w / s * 127) / 127 * s,   s = the largest weight (signed: not the largest magnitude)
 * dw = dy
 *
 * Source: yhhhli/APoT_Quantization, quant_layer.py, first_conv and last_fc: operations in this
 * order in float, round half to even, nothing is clipped, so weights below -s get codes below -127.
 * FAT's layers of this kind (fixed8_fat) also hold a matrix that nothing reads or trains.
 * Differs: s = 0 is a fault here; the original goes on with NaN. */
#include "quant/quant.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/par.h"
#include "quant/stat.h"

typedef struct Fixed8 {
    char fault[320];
} Fixed8;

static int init(QInst *q, ParamStore *ps, Err *e)
{
    (void)ps;
    if (q->bits != 8)
        return err_set(e, ERR_CONFIG, "%s: fixed8 has 8 bits, not %d", q->unit, q->bits);
    return 0;
}

static int fat_init(QInst *q, ParamStore *ps, Err *e)
{
    const int square[2] = {q->shape[0], q->shape[0]};
    store_add(ps, PK_CLIP, DT_F32, (Init){INIT_CONST, 1.0f / (float)square[0], 0}, 2, square,
              "%stransform.weight", q->name);
    return init(q, ps, e);
}

static void forward(QInst *q, const Tensor *x, Tensor *y, const QCtx *c)
{
    Fixed8 *f = q->priv;
    const size_t n = tensor_len(x);
    const float *w = x->data, s = n ? stat_max(w, n) : 0;
    float *out = y->data;
    (void)c;
    q->fault = NULL;
    if (s == 0 || !isfinite(s)) {
        snprintf(f->fault, sizeof f->fault,
                 "%sweight: the largest weight is %g; 8-bit weights need it finite and not 0",
                 q->name, (double)s);
        q->fault = f->fault;
        memset(out, 0, tensor_bytes(y));
        return;
    }
    PARALLEL_FOR(k, par_chunks(n))
    {
        const size_t at = (size_t)k * PAR_CHUNK;
        SIMD_FOR(i, par_chunk_len(n, (size_t)k))
        out[at + i] = rintf(w[at + i] / s * 127.0f) / 127.0f * s;
    }
}

static const QFn weight = {.priv_size = sizeof(Fixed8), .init = init, .forward = forward};
static const QFn fat_weight = {
    .priv_size = sizeof(Fixed8), .init = fat_init, .forward = forward};

const QMethod quant_fixed8 = {
    .name = "fixed8",
    .doc = "8-bit weights scaled by their largest value (first and last layers of APoT and FAT)",
    .role = {[Q_WEIGHT] = &weight},
    .traits = QT_ZERO_FIXED,
};

const QMethod quant_fixed8_fat = {
    .name = "fixed8_fat",
    .doc = "fixed8 with the unused matrix of FAT's first and last layers",
    .role = {[Q_WEIGHT] = &fat_weight},
    .traits = QT_ZERO_FIXED,
};
