/* test/bench.h -- parts of `make bench` in files of their own. */
#ifndef TEST_BENCH_H
#define TEST_BENCH_H

/* NET=fat: time of FAT's transform, forward and backward, over all layers of ResNet-20, VGG-7 and
 * ResNet-18, per step and as a share of the step. rounds 0: each net's own. */
void bench_fat(int rounds);

/* NET=quant: every quantizer's forward and backward in GB/s beside the memory's. */
void bench_quant(void);

#endif
