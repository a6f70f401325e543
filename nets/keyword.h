/* nets/keyword.h -- what the builders of the keyword language's nets share: layers as the words
 * ask, a unit of a letter order, the shortcut branch, the order in which parameters are declared.
 *
 * Source: aim-uofa/model-quantization, models/layers.py, resnet_.py, mobilenet.py, prone.py.
 * Differs: the words for norms count in every net (the original's flexible nets call their norm
 * with the words in the wrong place, so they always build a batch norm).
 *
 * Functions return the index of the unit they end with. Names are those of checkpoints; where a
 * letter has no parameters its name is only printed. Illegal words are ERR_CONFIG "keyword: ...":
 * those that do not depend on the net by kn_begin, others by kn_fault, which spec_finish reports.
 */
#ifndef NETS_KEYWORD_H
#define NETS_KEYWORD_H

#include "nets/nets.h"

typedef enum KnInit {
    KI_FAN_OUT, /* normal, deviation sqrt(2 / (oc k k)), whatever the groups */
    KI_FAN_IN,  /* normal, deviation sqrt(2 / (ic/groups k k)) */
    KI_TORCH    /* uniform within 1 / sqrt(fan in) */
} KnInit;

typedef struct Kn {
    Spec *s;
    const NetOpts *o;
    int order; /* NW_cbas, NW_cbsa, NW_cabs, NW_bacs or NW_bcas; -1: none was given */
    KnInit init;
    bool no_norms; /* Fixup: kn_norm does nothing */
} Kn;

/* Checks the options all nets share. -1 with `e` set. */
int kn_begin(Kn *k, Spec *s, const NetOpts *o, KnInit init, Err *e);
static inline bool kn_word(const Kn *k, NetWord w)
{
    return net_word(k->o->words, w);
}
/* -1 with `e` set unless the words hold one of the letter orders `allowed` (ended by -1). */
int kn_need_order(const Kn *k, const char *net, const int *allowed, Err *e);
/* -1 with `e` set unless `base` is 1: for nets that have no parallel branches. */
int kn_need_one_branch(const Kn *k, const char *net, Err *e);
/* Marks the layers whose input may be negative (UM_SIGNED), then spec_finish. */
int kn_finish(const Kn *k, int out, Err *e);
/* Records "keyword: ..." as the Spec's fault. */
void kn_fault(const Kn *k, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* int(channels * width_alpha), at least 1. */
int kn_width(const NetOpts *o, int channels);

/* ---- layers ---- */

typedef struct KnConv {
    const char *name;
    int oc, k, stride, pad, groups;
    bool bias;
    bool zero;   /* starts at 0 */
    double gain; /* on the deviation of the start values; 0: 1 */
    unsigned marks;
    bool prone; /* space-to-depth, 1x1, depth-to-space: layers NAME.conv and, with
                   bn_before_restore, NAME.bn; pad is not looked at */
} KnConv;

int kn_conv(const Kn *k, int x, const KnConv *c);
int kn_norm(const Kn *k, int x, const char *fmt, ...) PRINTF_LIKE(3, 4);
int kn_act(const Kn *k, int x, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* A norm or activation (with PReLU) that the original makes and never applies: its parameters
 * alone. */
void kn_unused_norm(const Kn *k, int x, const char *fmt, ...) PRINTF_LIKE(3, 4);
void kn_unused_act(const Kn *k, int x, const char *fmt, ...) PRINTF_LIKE(3, 4);
int kn_add(const Kn *k, int x, int skip);     /* their sum, where they are of one size */
int kn_repeat(const Kn *k, int x, int times); /* the channels of x, `times` times */
/* Global average, flatten, linear layer (marked UM_LAST), fan in's uniform distribution. */
int kn_classifier(const Kn *k, int x, const char *name);
int kn_linear(const Kn *k, int x, const char *name); /* the linear layer alone */

/* ---- a unit: convolution, norm, activation and sum in the order of the word ---- */

typedef struct KnUnit {
    int (*conv)(const Kn *k, int x, const void *arg); /* NULL: left out */
    const void *arg;
    const char *norm, *act; /* NULL: left out */
    int skip;               /* what letter s adds; -1: nothing */
    const char *shift;      /* trained offset that letter s adds instead; NULL: none */
} KnUnit;

int kn_unit(const Kn *k, int x, const KnUnit *u);
/* KnUnit.conv for a KnConv. */
int kn_unit_conv(const Kn *k, int x, const void *conv);

/* ---- the shortcut ---- */

typedef struct KnSkip {
    const char *name;       /* "layer2.0.skip": its parts are NAME.0, NAME.1, ... */
    int width, stride, pad; /* pad: of the strided convolution under singleconv */
} KnSkip;

/* The branch, or x itself where the shape stays (and identify_norm does not ask for a norm). */
int kn_skip(const Kn *k, int x, const KnSkip *b);

/* ---- names ---- */

/* Declares the units from `begin` on in the order of `group` (ended by NULL): first those whose
 * name begins with PREFIXgroup[0], and so on, then the others; within a group they keep their
 * order. */
void kn_declare(Spec *s, int begin, const char *prefix, const char *const *group);

#endif
