/* quant/registry.c -- one row per quantization method; `qrun list quant` prints it. */
#include "quant/quant.h"

extern const QMethod quant_adabits, quant_apot, quant_dorefa, quant_f8net, quant_fat, quant_fat_uniform, quant_fatnn, quant_fixed8,
    quant_fixed8_fat, quant_hysteresis, quant_lq, quant_lsq, quant_pact, quant_xnor;

const QMethod *const quant_methods[] = {
    &quant_adabits,
    &quant_apot,
    &quant_dorefa,
    &quant_f8net,
    &quant_fat,
    &quant_fat_uniform,
    &quant_fatnn,
    &quant_fixed8,
    &quant_fixed8_fat,
    &quant_hysteresis,
    &quant_lq,
    &quant_lsq,
    &quant_pact,
    &quant_xnor,
    NULL,
};
