/* test/golden_exact.h -- is a difference between two evaluations of a quantized net a rounding?
 *
 * A quantized net is not continuous. An activation within rounding distance of a decision threshold
 * may fall to either side, by the order in which a convolution adds its products (that is, by the
 * machine), and in training one such activation moves the statistics, and with them every logit. Such
 * a difference must be explained, not excused. Here the forward pass is computed a second time, by
 * other code, with every sum in double and quantizers alone as the program has them; the program's
 * own pass runs with a recorder in front of every activation quantizer. Where the two fall to
 * different sides of a threshold, and their distance is that of a rounding, the program's value is
 * set to the exact one, and it runs again. What is then left is compared with the case, within its
 * own tolerance. */
#ifndef TEST_GOLDEN_EXACT_H
#define TEST_GOLDEN_EXACT_H

#include "quant/lower.h"
#include "run/model.h"
#include "test/golden.h"

/* A method whose layers record what comes to their activation quantizers and replace single values.
 * `method` is the first member: quant/lower.h hands it to the lowering. Given to a model through
 * QOpts.extra_methods; outlives it. */
typedef struct Witness {
    QMethod method;
    const QMethod *list[2]; /* for extra_methods */
    struct RecordUnit *u;   /* by unit of the Spec */
    int n;
    bool settle;            /* false: only look on */
} Witness;

void witness_init(Witness *r, const QMethod *m);
void witness_free(Witness *r);

/* One batch as model_train (gradients from zero) or model_eval (sum of the losses); with r->settle
 * settled as above: what was replaced goes into the note of the case, a difference that is no rounding
 * fails it. */
int settled_run(Case *c, Model *m, Witness *r, Phase ph, const float *x, const int32_t *label,
                int batch, int64_t step, double *loss, const float **logits, Err *e);

/* Decided in double: FAT's activations and weights with uniform levels, and its first and last
 * weights. `y` of a weight comes with the program's own values; false with `e` where the exact one has
 * another level and lies further than `rounding` (in parts of the largest) from the threshold. */
void exact_fat_levels(const QInst *q, const double *x, double *y, size_t n);
bool exact_fat_weight(const QInst *q, double *y, double rounding, Err *e);
bool exact_fixed8(const QInst *q, double *y, double rounding, Err *e);

#endif
