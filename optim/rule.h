/* optim/rule.h -- what the rules share: the tensors of one parameter, and running over them in
 * chunks. */
#ifndef OPTIM_RULE_H
#define OPTIM_RULE_H

#include "engine/par.h"
#include "optim/optim.h"

typedef struct RuleArgs {
    float *p;           /* the parameter */
    const float *g;     /* its gradient */
    const float *decay; /* what the weight-decay term reads */
    float *s[PARAM_MAX_SLOTS];
    float lr, wd;
    float a, b, c, d; /* the rule's own constants */
    bool first, nesterov;
} RuleArgs;

RuleArgs rule_args(const Param *p, double lr, double wd, int64_t t);

typedef void (*RuleChunk)(const RuleArgs *r, size_t lo, size_t hi);
void rule_run(const Param *p, const RuleArgs *r, RuleChunk f);

unsigned char custom_bits(const OptimOpts *o, const Param *p); /* OC_ bits: groups.c */

void sgd_step(Param *p, const OptimOpts *o, double lr, double wd, int64_t t);
void adam_step(Param *p, const OptimOpts *o, double lr, double wd, int64_t t);
void rmsprop_step(Param *p, const OptimOpts *o, double lr, double wd, int64_t t);

#endif
