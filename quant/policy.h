/* quant/policy.h -- a policy: rules that set attributes of quantizers when a net is built and at the
 * start of epochs.
 *
 * Which quantizers a block sets:
 *   by_index   `all`, or numbers of layers: every convolution and linear layer in the order of declaration,
 *              from 0; the first and the last layer of a net count only where they are quantized, and
 *              the stem behind a space-to-depth (TResNetStem), which the original builds like the others
 *   by_tag     fm (inputs), wt (weights), ot (outputs), or several; all without it
 * Layers and tensors that stay float are passed over.
 *
 * Source: aim-uofa/model-quantization, models/policy.py. Differs: what would be ignored there (an unknown
 * attribute, a layer that is not there, a block that sets nothing) is a fault with its line. */
#ifndef QUANT_POLICY_H
#define QUANT_POLICY_H

#include <stdarg.h>

#include "quant/qplan.h"

typedef enum PolicyWhen { PW_INIT, PW_EPOCH, PW_NORM, PW_ELTWISE, PW_COUNT } PolicyWhen;
extern const char *const policy_when[PW_COUNT]; /* init, epoch, norm, eltwise */

/* `key: value`, or `key: v1 v2 ...`. */
typedef struct PolicyItem {
    const char *key;
    const char *const *value;
    int n;
    bool list;
    const char *file;
    int line, col; /* 0: of the command line */
} PolicyItem;

typedef struct PolicyBlock {
    const PolicyItem *item; /* by_index and by_tag, then what is set */
    int n;
} PolicyBlock;

typedef struct PolicySection {
    unsigned when;      /* 1 << PW_x; several, or none: a later one of its name has taken its place */
    const int *trigger; /* epoch: before which epochs, from 0 */
    int ntrigger;
    const PolicyBlock *block;
    int nblocks;
} PolicySection;

typedef struct Policy { /* owns nothing: all of it lies in the arena it was read into */
    const PolicySection *s;
    int n;
    bool told; /* its warnings have been given */
} Policy;

/* An item that begins a block's choice of quantizers. */
bool policy_chooses(const PolicyItem *item);
/* Blocks that choose nothing, or what is not there in any net. One line per fault. */
int policy_check(const Policy *p, Err *e);

/* Layers as by_index counts them: unit[i]. How many; unit has room for spec->n. */
int policy_layers(const QPlan *qp, int *unit);

/* The blocks of PW_INIT, or of PW_EPOCH with this epoch among their triggers. Number of values set, or -1
 * with ERR_CONFIG. Programs made before do not fit any more where it is not 0. */
int policy_apply(const Policy *p, PolicyWhen when, int64_t epoch, QPlan *qp, Err *e);
/* The first item that sets this attribute, or NULL. */
const PolicyItem *policy_sets(const Policy *p, const char *attr);
/* Whether any rule is for this epoch. */
bool policy_acts(const Policy *p, int64_t epoch);

/* Adds a fault of a policy at its place to those of `e`; -1. */
int policy_fault(Err *e, const char *file, int line, int col, const char *fmt, va_list ap);

#endif
