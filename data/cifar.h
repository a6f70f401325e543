/* data/cifar.h -- DatasetDef.open of CIFAR-10 and CIFAR-100 (told apart by def->classes). */
#ifndef DATA_CIFAR_H
#define DATA_CIFAR_H

#include "data/data.h"

int cifar_open(Dataset *d, const DataOpts *o, Err *e);

#endif
