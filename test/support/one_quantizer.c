/* test/support/one_quantizer.c -- see one_quantizer.h. */
#include "test/support/one_quantizer.h"

#include <stdlib.h>
#include <string.h>

int one_quantizer_init(OneQuantizer *t, const char *method, QRole role, int bits, int rows, int n,
                       const char *variant, bool power)
{
    const int dim[2] = {rows, n};
    memset(t, 0, sizeof *t);
    qopts_default(&t->o);
    t->o.power = power;
    t->o.quant_variant = variant;
    t->x = store_add(&t->ps, PK_WEIGHT, DT_F32, (Init){INIT_NORMAL, 0, 1}, 2, dim, "l.weight");
    if (qinst_init(&t->q, quant_find(method), role, bits, 0, &t->o, &t->ps, t->x, 0, 2, dim, "l.",
                   &t->e))
        return -1;
    store_init(&t->ps, 1);
    store_alloc_grads(&t->ps);
    return 0;
}

void one_quantizer_free(OneQuantizer *t)
{
    if (t->q.fn) qinst_free(&t->q);
    store_free(&t->ps);
    free(t->save);
    t->save = NULL;
}

void one_quantizer_forward(OneQuantizer *t, Phase ph, float *out)
{
    Tensor y = t->x->value;
    size_t save, scratch;
    QCtx c = {.phase = ph};
    qinst_need(&t->q, &y, ph, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    y.data = out;
    qinst_forward(&t->q, &t->x->value, &y, &c);
    free(t->save);
    t->save = c.save;
    free(c.scratch);
}

void one_quantizer_backward(OneQuantizer *t, const float *dy, float *dx)
{
    const Tensor *x = &t->x->value;
    float *in = xaligned(tensor_bytes(x));
    Tensor g = *x, d = *x;
    size_t save, scratch;
    QCtx c = {.phase = PH_TRAIN, .save = t->save};
    qinst_need(&t->q, x, PH_TRAIN, &save, &scratch);
    c.scratch = xaligned(scratch + 1);
    memcpy(in, dy, tensor_bytes(x));
    g.data = in;
    d.data = dx;
    qinst_backward(&t->q, x, &g, &d, &c);
    free(c.scratch);
    free(in);
}
