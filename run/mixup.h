/* run/mixup.h -- mixup: a batch blended with itself in another order.
 *
 * x' = lam x + (1 - lam) x[order],  t' = lam t + (1 - lam) t[order],  lam ~ Beta(alpha, alpha), once per
 * batch. lam and the order follow from (seed, epoch, batch) alone. label' is that of the image with the
 * larger share: what accuracies of training count.
 *
 * Source: Zhang et al. 2018. model-quantization's own call of it leads to a function that is not there;
 * its options mixup_enable and mixup_alpha are meant for this. */
#ifndef RUN_MIXUP_H
#define RUN_MIXUP_H

#include "data/data.h"

typedef struct Mixup {
    double alpha;
    uint64_t seed;
    int classes;
    size_t image; /* floats of one */
    uint32_t *order;
    Batch b; /* the blended batch; owns x, label, target */
} Mixup;

void mixup_init(Mixup *m, double alpha, uint64_t seed, int classes, size_t image, int batch_size);
/* Valid until the next call. */
const Batch *mixup_batch(Mixup *m, const Batch *b);
void mixup_free(Mixup *m); /* also one that is zeroed */

double draw_beta(Rng *r, double alpha); /* Beta(alpha, alpha), in [0, 1] */

#endif
