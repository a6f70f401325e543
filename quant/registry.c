/* quant/registry.c -- one row per quantization method; `qrun list quant` prints it. */
#include "quant/quant.h"

extern const QMethod quant_adabits, quant_apot, quant_fixed8;

const QMethod *const quant_methods[] = {
    &quant_adabits,
    &quant_apot,
    &quant_fixed8,
    NULL,
};
