/* nets/mobilenet_v2.c -- MobileNet V2 (Sandler et al. 2018): a 3x3 stem with stride 2, 17 inverted
 * residual blocks with linear ends, a 1x1 convolution to 1280 channels, global average, classifier.
 *
 * Source: deJQK/AdaBits models/q_mobilenet_v2.py: ReLU where the paper has ReLU6. */
#include <stdio.h>

#include "nets/blocks.h"
#include "nets/staged.h"

static const StagedStyle styles[] = {{.names = NAMES_ADABITS},
                                     {.names = NAMES_F8NET, .joined = true}};

int net_mobilenet_v2(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e)
{
    static const struct {
        int expand, oc, n, stride;
    } stage[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                 {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    const StagedStyle *st = staged_find(styles, ARRAY_LEN(styles), net, names, e);
    const StagedConv head = {32, 3, 2, 1, true}, tail = {1280, 1, 1, 1, true};
    int x;
    if (!st) return -1;
    x = spec_input(s, o->in_c, o->in_h, o->in_w);
    x = staged_sequence(s, x, st, &head, 1, UM_FIRST, "head");
    for (int i = 0; i < (int)ARRAY_LEN(stage); i++)
        for (int j = 0; j < stage[i].n; j++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "stage_%d_layer_%d.", i, j);
            x = staged_inverted(s, x, st, stage[i].expand, stage[i].oc, j ? 1 : stage[i].stride,
                                prefix);
        }
    x = staged_sequence(s, x, st, &tail, 1, UM_SIGNED, "tail");
    return spec_finish(s, staged_classifier(s, x, o->num_classes), e);
}
