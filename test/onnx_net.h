/* test/onnx_net.h -- a net with random parameters and running statistics as a case for the judges:
 * its float file, a batch of images, and what qrun's own evaluation makes of them. Include cmocka.h
 * first. */
#ifndef TEST_ONNX_NET_H
#define TEST_ONNX_NET_H

#include "run/model.h"
#include "test/onnx_judge.h"

enum { ONNX_NET_CLASSES = 10 };

typedef struct OnnxNetCase {
    const NetDef *net; /* of the registry, or of `extra` */
    const NetDef *const *extra;
    const NetOpts *opts; /* NULL: what is usual for it */
    const QOpts *q;
    const char *label; /* behind the net's name */
    int size, batch;   /* of the images */
    int variant;       /* entry of bits_list */
    int flips;         /* images whose logits may differ: judge_allow */
    bool keep_norms;
} OnnxNetCase;

/* The model alone. */
Model *onnx_net_open(const OnnxNetCase *c);
/* Adds the case. Logits may differ by four times what a rounding of each weight makes of them, those
 * of nets with levels by 1e-4 of the largest. Fails the running test where the net has no logits to
 * speak of, or none that tell images apart from rounding. */
void onnx_net_add(Judge *j, const OnnxNetCase *c);

#endif
