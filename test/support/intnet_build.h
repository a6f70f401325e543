/* test/support/intnet_build.h -- integer networks to test and to time: random ones of all
 * operations, and one of the shape of ResNet-18. Weights are random; shifts keep numbers in range.
 */
#ifndef TEST_SUPPORT_INTNET_BUILD_H
#define TEST_SUPPORT_INTNET_BUILD_H

#include "quant/intnet.h"

void intnet_random(IntNet *net, uint64_t seed);
void intnet_resnet18(IntNet *net, int size, int classes, uint64_t seed);

#endif
