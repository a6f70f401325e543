/* quant/binhyst.h -- the activation half of the hysteresis method: binhyst_act.c. */
#ifndef QUANT_BINHYST_H
#define QUANT_BINHYST_H

#include "quant/quant.h"

extern const QFn binhyst_act;

#endif
