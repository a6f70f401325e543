/* nets/blocks.h -- what the ResNet builders share. Functions return the index of the unit they end
 * with. */
#ifndef NETS_BLOCKS_H
#define NETS_BLOCKS_H

#include "nets/nets.h"

typedef enum ConvInit {
    CI_FAN_OUT, /* normal, deviation sqrt(2 / (k k oc)): He et al., "fan out" */
    CI_TORCH    /* uniform within 1 / sqrt(fan in): what PyTorch does when nobody says otherwise */
} ConvInit;

/* In what the families differ, the topology being the same. */
typedef struct NetStyle {
    NetNames names; /* first: net_style */
    ConvInit init;
    bool convs_first; /* a block declares conv1, conv2, ... before bn1, bn2, ... */
    const char *fc;   /* name of the classifier */
} NetStyle;

int block_conv(Spec *s, int x, const NetStyle *st, int oc, int k, int stride, const char *fmt, ...)
    PRINTF_LIKE(7, 8);
int block_norm(Spec *s, int x, const char *fmt, ...) PRINTF_LIKE(3, 4);
int block_relu(Spec *s, int x, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Residual blocks, the ReLU after the sum included; `width` counts channels before the expansion.
 * The shortcut is a 1x1 convolution with a norm (marked UM_SKIP) where the shape changes.
 * Parameters begin with `prefix` and a dot. */
typedef int (*BlockFn)(Spec *s, int x, const NetStyle *st, int width, int stride,
                       const char *prefix);
int block_basic(Spec *s, int x, const NetStyle *st, int width, int stride, const char *prefix);
int block_bottleneck(Spec *s, int x, const NetStyle *st, int width, int stride, const char *prefix);

/* n blocks named layer<stage>.<0..n-1>; the first has the stride. */
int block_stage(Spec *s, int x, const NetStyle *st, BlockFn block, int stage, int width, int n,
                int stride);

/* Global average, flatten, classifier (marked UM_LAST). */
int block_classifier(Spec *s, int x, const NetStyle *st, int classes);

/* The row of `styles` (n of them) for a family; NULL with `e` set when the net is not offered in
 * it. */
const NetStyle *style_find(const NetStyle *styles, int n, const NetDef *net, NetNames names,
                           Err *e);

/* Builders, rows of registry.c. */
int net_resnet_cifar(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_resnet(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_mobilenet_v1(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_mobilenet_v2(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_vgg7(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_vgg_small(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_nin(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_keyword_mobilenet_v1(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_keyword_mobilenet_v2(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);
int net_resnet_mnist(Spec *s, const NetDef *net, NetNames names, const NetOpts *o, Err *e);

#endif
