/* test/golden_state.h -- what cases of layers, blocks and nets share: a state dict in one flat
 * array, and forward and backward passes of a Spec on a parameter. */
#ifndef TEST_GOLDEN_STATE_H
#define TEST_GOLDEN_STATE_H

#include "test/golden.h"

#include "quant/qplan.h"

/* Values of all floating parameters but "x" from the array inputs.state, as state_layout of the case
 * ([name, shape, offset]) says. False fails the case, also where the two sets of names differ. */
bool state_set(Case *c, ParamStore *ps);
/* Values of the entries of a layout against the array `want`. */
void state_check(Case *c, const ParamStore *ps, const char *layout_key, const Yaml *want);
/* Gradients; a layout of parameters tells in its fourth column who has one. */
void state_check_grads(Case *c, const ParamStore *ps, const char *layout_key, const Yaml *want);

/* Units from `begin` to `end` of a Spec are run on parameter x, which stands for the image; the
 * others are there for the links between layers only. The value of `end` is compared. */
typedef struct SpecRun {
    Spec spec;
    QOpts o;
    ParamStore ps;
    QPlan qp;
    Prim *prim;
    Param *x;
    bool train;
    int begin, end;
} SpecRun;

/* spec, o and train are set, and begin and end, which default to all of it; `out` is the Spec's output.
 * x: the image, N,C,H,W (missing dimensions: 1). False fails the case. */
bool specrun_open(Case *c, SpecRun *r, int out, Tensor *x);
void specrun_close(SpecRun *r);
/* Forward and backward of one variant; up, want: [n], N,C,H,W. */
void specrun_pass(Case *c, SpecRun *r, int variant, const char *what, const float *up,
                  const float *want, size_t n);
/* The gradient of x, N,C,H,W, against grads.x of the case. */
void specrun_check_dx(Case *c, const SpecRun *r);

#endif
