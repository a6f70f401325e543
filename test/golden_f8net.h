/* test/golden_f8net.h -- what the runners of F8Net's blocks and nets share. */
#ifndef TEST_GOLDEN_F8NET_H
#define TEST_GOLDEN_F8NET_H

#include "quant/f8net_ops.h"
#include "run/model.h"
#include "test/golden_state.h"

/* The options of a case, as the original (compat: original). False: the case is done. */
bool golden_f8net_opts(Case *c, QOpts *o);
/* Shapes, clip owners and followers against params.layers. */
void golden_f8net_links(Case *c, const QPlan *qp);

/* ---- golden_f8net_net.c ---- */
/* The small net of a case with its state; x: [n, c, h, w]. NULL: the case is done. */
Model *golden_f8net_mini(Case *c, const QOpts *o, const Tensor *x);
/* Evaluation of n images (NHWC) against outputs.<key>. */
void golden_f8net_logits(Case *c, Model *m, const float *x, int n, const char *key);

/* ---- golden_f8int.c: nets in whole numbers ---- */
/* An array as it is in its file, no float on the way; false fails the case. */
bool golden_integers(Case *c, const Yaml *v, const char *what, int64_t **to, size_t *n);
void golden_same_integers(Case *c, const char *what, const int32_t *got, const int64_t *want,
                          size_t n);
/* All stages of a small net: int_state, int_trace and the logits of each. x: NHWC. */
void golden_f8int_stages(Case *c, const QPlan *qp, const float *x, int n);
/* The stage of a full net that params.int_infer, integize and int_op_only name: outputs.logits and
 * the trace. */
void golden_f8int_net(Case *c, const QPlan *qp, const float *x, int n);

/* ---- golden_fixed_int.c: layers and pools in whole numbers ---- */
/* The integers of a convolution (with parameters bn.*, conv.weight of ps) or a linear layer (weight,
 * bias): outputs.int_weight, int_bias, int_x, lengths, and y where the case is of integer inference.
 * x: [n, c, h, w] or [n, c] as in the file. */
void golden_fixed_integers(Case *c, const F8Layer *l, const F8Layer *next, const ParamStore *ps,
                           const NormStats *st, const Tensor *x);
void golden_fixed_pool(Case *c);

#endif
