/* test/golden.h -- one golden case: its yml, its arrays, and what has been compared so far. See
 * golden.c. */
#ifndef TEST_GOLDEN_H
#define TEST_GOLDEN_H

#include "engine/graph.h"
#include "io/yaml.h"
#include "quant/quant.h"

typedef struct Case {
    const char *dir, *name; /* folder; file name without ending */
    const Yaml *y;
    Arena arena;            /* all that the case needs */
    double abs, rel, share; /* tolerance; share of values that may lie outside */
    int arrays;             /* compared */
    size_t values;
    double worst; /* largest error in units of the tolerance */
    bool failed, skipped;
    int reasons;
    Str why;  /* the first of them, separated by "; " */
    Str note; /* printed with the case, passed or not */
} Case;

/* Both may be called several times; a failure outweighs a skip. */
void case_fail(Case *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
void case_skip(Case *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool case_done(const Case *c); /* failed or skipped */
void case_again(Case *c);      /* forgets failures and figures: the case is judged anew */

/* Scalars by dotted path ("params.bit"); `other` when absent or null. A value of another type fails
 * the case. */
long long case_int(Case *c, const char *path, long long other);
double case_num(Case *c, const char *path, double other);
bool case_bool(Case *c, const char *path, bool other);
const char *case_str(Case *c, const char *path, const char *other);

/* An array as float, C order: the name of an .npy beside the yml, a number, or a list of numbers.
 * False fails the case. */
bool case_array(Case *c, const Yaml *v, const char *what, Tensor *t);

/* got against want[n]; fails the case with name, index, values, share and largest error. */
void case_compare(Case *c, const char *what, const float *got, const float *want, size_t n);
void case_compare_tol(Case *c, const char *what, const float *got, const float *want, size_t n,
                      double abs, double rel);
/* The array `v` of the yml, against got of n values. */
void case_expect(Case *c, const char *what, const Yaml *v, const float *got, size_t n);

/* "data/apot/x.pth" below $QRUN_DATA_DIR; NULL skips the case. */
const char *case_data(Case *c, const char *path);

/* The deterministic fills of the golden folders. */
double fill_unit(uint64_t i, uint64_t t); /* u in [0, 1) */
float fill_value(uint64_t i, uint64_t t); /* 2u - 1 */
float fill_noise(uint64_t i, uint64_t t, double amplitude);

/* A list of at most `max` whole numbers; how many. A path that is absent: 0. */
int case_ints(Case *c, const char *path, int *to, int max);

/* Quantizer options by name from `params`, and the bit width; a parameter that is neither an option
 * nor known to describe only skips the case. */
void case_quant_opts(Case *c, QOpts *o, int *bits);
/* The same for cases with keywords, and what a policy sets once the quantizer is made. */
void case_keyword_opts(Case *c, QOpts *o, int *bits);
void case_keyword_attributes(Case *c, QInst *q);
/* The method of the case: its name, or the row for the function of the original it was made with.
 * NULL skips the case. */
const QMethod *case_method(Case *c);
/* The parameter called `name` in a yml: its whole name, or its last part. NULL: there is none. */
Param *case_param(const ParamStore *ps, const char *name);
/* Sets every parameter of `ps` that `map` names; with `all`, a name that is not one (and not in
 * `except`) fails the case. */
void case_set_state(Case *c, ParamStore *ps, const Yaml *map, bool all, const char *except);

/* Hands a value on and keeps copies of it and of its gradient. */
typedef struct Tap {
    float *value, *grad;
    const float *upstream; /* the end of the graph: the gradient to start from */
    size_t n;
} Tap;

/* A node that taps value x of g; with `upstream` it is the end of the graph. Returns its value. */
int graph_tap(Case *c, Graph *g, const char *name, int x, Tap *t, const float *upstream);

/* Element i of parameter p, the t-th floating tensor of a state dict. */
float fill_param(const Param *p, uint64_t i, uint64_t t);

/* One runner per op. */
void golden_quantizer(Case *c); /* weight, activation */
void golden_layer(Case *c);
void golden_spectral(Case *c); /* FAT's transform alone */
void golden_optimizer(Case *c);
void golden_binarised_updates(Case *c); /* optimizer: hysteresis */
void golden_policy(Case *c);       /* format: its policy files */
void golden_lr_policy(Case *c);    /* schedule: model-quantization */
void golden_param_groups(Case *c); /* optimizer: model-quantization */
void golden_param_selection(Case *c);
void golden_pact_opts(Case *c, QOpts *o); /* hysteresis: the class of the original's activation */
void golden_loss(Case *c);     /* label-smoothed cross-entropy alone */
void golden_net(Case *c);
void golden_keyword_block(Case *c); /* block: said in words */
void golden_keyword_net(Case *c); /* net: said in words */
void golden_variants(Case *c);    /* layers and blocks at several widths */
void golden_variant_net(Case *c); /* nets at several widths */
struct QPlan;
/* Statistics of every layer against the file of `trace`, at these variants; nothing without one.
 * x: [batch, H, W, C]. */
void golden_trace(Case *c, struct QPlan *qp, const int *variant, int nvariants, const float *x,
                  int batch);
void golden_used_bias(Case *c, const QOpts *o, int bits); /* outputs.used_bias of a linear layer */
void golden_schedule(Case *c);
void golden_keyword_layer(Case *c);  /* layer: keyword language */
/* grads.params_flat, in the order of param_grads_order, against the gradients of ps. */
void case_flat_grads(Case *c, const ParamStore *ps);
void golden_fixed_layer(Case *c);    /* layer: fixed point */
void golden_f8net_block(Case *c);    /* block: fixed point */
void golden_f8net_net(Case *c);      /* net: fixed point */
void golden_int_requant(Case *c);    /* format: whole numbers to other lengths */
void golden_fixed(Case *c);          /* weight, activation: fixed point */
bool golden_fixed_format(Case *c);   /* false: not a case of fractional lengths */
void golden_format(Case *c);
void golden_show_params(Case *c);
void golden_fill_example(Case *c); /* the fill rule's example net */

#endif
