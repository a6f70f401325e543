/* nets/flex.h -- the keyword language's ResNets: the flexible one, whose blocks the words shape
 * (flex.c, flex_block.c), and the plain one with torchvision's layout (pytorch_resnet.c).
 *
 * Source: aim-uofa/model-quantization, models/resnet_.py and models/resnet.py. Differs: what the
 * original stops at with an error of shapes is refused with the words' names; Fixup with several
 * branches, which it builds and never runs, is refused. */
#ifndef NETS_FLEX_H
#define NETS_FLEX_H

#include "nets/keyword.h"

typedef struct FlexBlock {
    const char *prefix; /* "layer1.0." or nothing */
    int planes;         /* channels; a bottleneck ends with four times as many */
    int stride;
    int feature_stride; /* of the image's side over the nominal side of the block's map */
    int stages;         /* of the net: Fixup's start values */
    bool bottleneck;
} FlexBlock;

/* Words that no block can be built from. -1 with `e` set. */
int flex_check(const Kn *k, const char *net, bool bottleneck, Err *e);
int flex_block(const Kn *k, int x, const FlexBlock *b);

/* A block of the plain one. */
int pytorch_block(const Kn *k, int x, const char *prefix, bool bottleneck, int planes, int stride);

int net_flex(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_pytorch_resnet(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);

#endif
