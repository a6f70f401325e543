/* data/mnist.h -- DatasetDef.open of MNIST and sets in its format. */
#ifndef DATA_MNIST_H
#define DATA_MNIST_H

#include "data/data.h"

int mnist_open(Dataset *d, const DataOpts *o, Err *e);

#endif
