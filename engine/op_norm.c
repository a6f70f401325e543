/* engine/op_norm.c -- running statistics of batch norms. The norm itself is a chain, alone or with
 * what follows (quant/chain.c): oneDNN's was measured to be off by 8e-6 in the mean and 3e-6 in the
 * variance of a 16x16x32x32 map, which is enough to move quantization levels. */
#include "engine/ops.h"

void norm_update_running(const NormStats *st, const float *mean, const float *var, int c, double m)
{
    float *rm = st->mean->value.data, *rv = st->var->value.data;
    double unbias = m > 1 ? m / (m - 1) : 1;
    for (int i = 0; i < c; i++) {
        rm[i] = st->momentum * mean[i] + (1 - st->momentum) * rm[i];
        rv[i] = st->momentum * (float)((double)var[i] * unbias) + (1 - st->momentum) * rv[i];
    }
    if (st->count) ++*(int64_t *)st->count->value.data;
    param_touch(st->mean);
    param_touch(st->var);
    if (st->count) param_touch(st->count);
}
