/* nets/keyword_mobilenet.h -- what the MobileNets of the keyword language share, and their blocks.
 *
 * Source: aim-uofa/model-quantization, models/mobilenet.py. `prefix` is "" or ends with a dot. */
#ifndef NETS_KEYWORD_MOBILENET_H
#define NETS_KEYWORD_MOBILENET_H

#include "nets/keyword.h"

enum { MOBILE_STEM = 32 }; /* channels, at width 1 */

/* Words that these nets refuse, apart from those of letters. -1 with `e` set. */
int kn_mobile_check(const Kn *k, const char *net, Err *e);
/* 1: the stride of the stem for small images (a word names a CIFAR set); else 2. */
int kn_mobile_stride(const Kn *k);
/* A 3x3 convolution, and norm and activation unless preBN: NAME.0, NAME.1, NAME.2, or NAME alone. */
int kn_mobile_stem(const Kn *k, int x, const char *name);
/* The 3x3 convolution of a block, without its groups and marks. */
KnConv kn_mobile_conv(const Kn *k, int x, int oc, int stride, const char *name);
/* Whether the norm behind it stands inside it (prone with bn_before_restore). */
bool kn_norm_inside(const Kn *k, const KnConv *c);

/* V1: a depthwise and a 1x1 convolution, each a unit of the letters cbas, cbsa or bacs. */
int kn_separable(const Kn *k, int x, int oc, int stride, const char *prefix);
/* V2: 1x1 to `expand` times the channels (not for 1), depthwise, 1x1, and the sum with the input where the shape
 * stays; cbas or bacs. */
int kn_inverted(const Kn *k, int x, int expand, int oc, int stride, const char *prefix);

#endif
