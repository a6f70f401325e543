/* nets/staged.h -- what nets of deJQK's AdaBits and F8Net share: `head`, `stage_S_layer_J.body`,
 * `.shortcut`, `tail` and `classifier` are sequences of convolutions, each with its norm.
 * Functions return the index of the unit they end with. */
#ifndef NETS_STAGED_H
#define NETS_STAGED_H

#include "nets/nets.h"

typedef struct StagedStyle {
    NetNames names; /* first: net_style */
    /* BODY.0.conv, BODY.0.bn, BODY.1.conv ...; else BODY.0, BODY.1, (ReLU), BODY.3 ... */
    bool joined;
} StagedStyle;

/* One convolution with its norm and, with `relu`, a ReLU. */
typedef struct StagedConv {
    int oc, k, stride, groups;
    bool relu;
} StagedConv;

/* A sequence named `group`; the first convolution gets `marks`. */
int staged_sequence(Spec *s, int x, const StagedStyle *st, const StagedConv *c, int n,
                    unsigned marks, const char *fmt, ...) PRINTF_LIKE(7, 8);

/* Blocks; their names begin with `prefix` ("stage_0_layer_0.", or nothing).
 *   residual   3x3, 3x3, sum with a shortcut (a 1x1 convolution where the shape changes), ReLU
 *   bottleneck 1x1 to a quarter of oc, 3x3 with the stride, 1x1 to oc; else as residual
 *   separable  depthwise 3x3, 1x1
 *   inverted   1x1 to `expand` times the channels (left out at 1), depthwise 3x3, 1x1 without ReLU,
 *              sum with the input where the shape stays. Its input may be negative: UM_SIGNED. */
int staged_residual(Spec *s, int x, const StagedStyle *st, int oc, int stride, const char *prefix);
int staged_bottleneck(Spec *s, int x, const StagedStyle *st, int oc, int stride,
                      const char *prefix);
int staged_separable(Spec *s, int x, const StagedStyle *st, int oc, int stride, const char *prefix);
int staged_inverted(Spec *s, int x, const StagedStyle *st, int expand, int oc, int stride,
                    const char *prefix);

/* Global average, flatten, `classifier.0` (marked UM_LAST). */
int staged_classifier(Spec *s, int x, int classes);

/* The row of `styles` (n of them) for a family; NULL with `e` set when there is none. */
const StagedStyle *staged_find(const StagedStyle *styles, int n, const NetDef *net, NetNames names,
                               Err *e);

#endif
