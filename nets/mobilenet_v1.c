/* nets/mobilenet_v1.c -- MobileNet V1 (Howard et al. 2017): a 3x3 stem with stride 2, 13 depthwise
 * separable blocks, global average, classifier.
 *
 * Source: deJQK/AdaBits models/q_mobilenet_v1.py. */
#include <stdio.h>

#include "nets/blocks.h"
#include "nets/staged.h"

static const StagedStyle styles[] = {{.names = NAMES_ADABITS},
                                     {.names = NAMES_F8NET, .joined = true}};

int net_mobilenet_v1(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    static const struct {
        int oc, n, stride;
    } stage[] = {{64, 1, 1}, {128, 2, 2}, {256, 2, 2}, {512, 6, 2}, {1024, 2, 2}};
    const StagedStyle *st = staged_find(styles, ARRAY_LEN(styles), net, names, e);
    const StagedConv head = {32, 3, 2, 1, true};
    int x;
    if (!st) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = staged_sequence(s, x, st, &head, 1, UM_FIRST, "head");
    for (int i = 0; i < (int)ARRAY_LEN(stage); i++)
        for (int j = 0; j < stage[i].n; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "stage_%d_layer_%d.", i, j);
            x = staged_separable(s, x, st, stage[i].oc, j ? 1 : stage[i].stride, prefix);
        }
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}
