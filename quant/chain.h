/* quant/chain.h -- norm + residual sum + activation + activation quantizers as one node: one pass
 * over the map for the statistics, one to apply; backward recomputes from the convolution's output
 * instead of storing every step. */
#ifndef QUANT_CHAIN_H
#define QUANT_CHAIN_H

#include "engine/ops.h"
#include "quant/quant.h"

#define CHAIN_MAX_Q        4
#define CHAIN_MAX_CHANNELS 8192

typedef enum ChainNorm {
    CHAIN_NO_NORM,
    CHAIN_BATCH,  /* batch statistics; running ones are updated */
    CHAIN_RUNNING /* running statistics, constants in backward */
} ChainNorm;

typedef struct ChainSpec {
    ChainNorm norm;
    NormStats st;
    int scale, shift; /* values, -1: not affine */
    int residual;     /* value added before the activation, or -1 */
    ActKind act;      /* AK_NONE, AK_RELU, AK_RELU6 */
    bool plain;       /* the activation itself is an output (the first) */
    int nq;
    QInst *q[CHAIN_MAX_Q]; /* elementwise activation quantizers: one output each */
} ChainSpec;

/* Outputs: out[0] the plain activation if wanted (else -1), out[1 + k] quantizer k. */
void graph_chain(Graph *g, const char *name, int x, const ChainSpec *c, int out[1 + CHAIN_MAX_Q]);

/* A quantizer as a node of its own: any role, whole-tensor or elementwise. Weight nodes are hoisted
 * outside training. */
int graph_quant(Graph *g, const char *name, int x, QInst *q);

#endif
