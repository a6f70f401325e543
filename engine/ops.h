/* engine/ops.h -- the ops every lowering may use. Each maker adds one node and returns its (first)
 * output value. Shapes are checked here: a wrong one is a fault of the program (ASSERT), since
 * Specs were checked before. */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include "engine/exec.h"
#include "engine/spec.h"

/* x NHWC; w plain [oc, ic/groups, k, k]; bias [oc] or -1. n, ic, ih, iw, oh, ow are filled from the
 * values. */
int graph_conv(Graph *g, const char *name, int x, int w, int bias, ConvShape s);
/* x [n, ic] (any layout with 1x1 maps); w [oc, ic]; bias [oc] or -1. */
int graph_linear(Graph *g, const char *name, int x, int w, int bias);
/* The same as a convolution of maps of one pixel: what graph_linear makes in bf16 graphs. */
int graph_linear_as_conv(Graph *g, const char *name, int x, int w, int bias, int n, int ic, int oc);

/* Where a batch norm keeps its running statistics. */
typedef struct NormStats {
    Param *mean, *var, *count; /* buffers [c], [c], s64 scalar */
    float eps, momentum;
} NormStats;
/* Running statistics after one batch, for every op that takes batch statistics: running = (1 -
 * momentum) running + momentum batch, the variance unbiased (as PyTorch). var is biased, m the
 * number of values. count may be NULL. */
void norm_update_running(const NormStats *st, const float *mean, const float *var, int c, double m);
/* (x - mean) / sqrt(var + eps) [* scale + shift], mean and var (biased) of each image over each of
 * `groups` runs of channels. scale, shift: parameters [c], or both -1. */
int graph_group_norm(Graph *g, const char *name, int x, int groups, float eps, int scale,
                     int shift);
int graph_channel_affine(Graph *g, const char *name, int x, int scale,
                         int shift); /* x * scale + shift; parameters [c] */
int graph_act(Graph *g, const char *name, int x, ActAttr a,
              int slope); /* slope: parameter of PReLU, [c] or [1]; or -1 */
int graph_pool(Graph *g, const char *name, int x, PoolAttr a, int oh, int ow);
int graph_add(Graph *g, const char *name, int a, int b);
int graph_concat(Graph *g, const char *name, const int *x, int n);
int graph_scale(Graph *g, const char *name, int x, int scalar); /* times a parameter of one element */
int graph_shift(Graph *g, const char *name, int x, int scalar);
int graph_pad(Graph *g, const char *name, int x,
              const int pad[4]);                      /* zeros: top, bottom, left, right */
int graph_flatten(Graph *g, const char *name, int x); /* [n, c*h*w] in C,H,W order */
int graph_dropout(Graph *g, const char *name, int x,
                  float p); /* training: inverted; evaluation: the lowering leaves it out */
int graph_space_to_depth(Graph *g, const char *name, int x,
                         int block); /* PyTorch's pixel_unshuffle channel order */
int graph_depth_to_space(Graph *g, const char *name, int x, int block); /* pixel_shuffle */

/* log of the sum of exp(z[i]), i < k, the maximum taken out. */
double log_sum_exp(const float *z, int k);
/* Mean over the samples with label >= 0 of the cross-entropy with label smoothing eps: target = (1
 * - eps) onehot + eps / classes. out: scalar. labels: external s32 [n]. The sum of the plain
 * cross-entropy (without smoothing) per sample is not computed here. */
int graph_cross_entropy(Graph *g, const char *name, int logits, int labels, float smoothing);
/* The same with soft targets in place of onehot: external f32 [n, classes], rows of sum 1. */
int graph_soft_cross_entropy(Graph *g, const char *name, int logits, int targets, float smoothing);

#endif
