/* engine/store.h -- named parameters and buffers: everything a checkpoint holds, shared by all
 * programs. */
#ifndef ENGINE_STORE_H
#define ENGINE_STORE_H

#include "engine/rng.h"
#include "engine/tensor.h"

struct OptimRule;

typedef enum ParamKind {
    PK_WEIGHT, /* convolution and fully connected weights, OIHW / OI */
    PK_BIAS,
    PK_NORM,  /* scale and shift of a norm */
    PK_CLIP,  /* a quantizer's trained parameter */
    PK_BUFFER /* saved, not trained: running statistics, quantizer state */
} ParamKind;

typedef enum InitKind {
    INIT_CONST,   /* a */
    INIT_NORMAL,  /* a = mean, b = deviation */
    INIT_UNIFORM, /* [a, b) */
    INIT_NONE     /* left alone: the owner fills it */
} InitKind;

typedef struct Init {
    InitKind kind;
    float a, b;
} Init;

#define PARAM_MAX_SLOTS 4

typedef struct Param {
    const char *name; /* the checkpoint key */
    int index;        /* place in the store: order of declaration = order of the state dict */
    ParamKind kind;
    Init init;
    Tensor value, grad; /* grad.data NULL for buffers, and before store_alloc_grads */
    bool trained; /* reached by backward in some program: others get neither update nor decay */
    bool quantized; /* a weight that a quantizer reads */
    const Tensor *decay_from; /* whose value the weight-decay term reads; NULL = own */
    const Tensor *step_on;    /* what the optimizer moves: a latent copy that the value is made from
                                 afterwards; NULL = own */
    float lr_fixed, wd_fixed; /* override the run's when has_lr / has_wd */
    bool has_lr, has_wd;
    Tensor slot[PARAM_MAX_SLOTS]; /* the optimizer's state; saved */
    int nslots, momentum;         /* momentum: the slot that holds it */
    int64_t updates;              /* that the optimizer has made of it */
    uint32_t version; /* bumped on every write: hoisted nodes and packed weights notice */
    bool loaded;      /* its value came from a file */
} Param;

typedef struct ParamStore {
    Param **p;
    int n;
    size_t cap;
    float *grads; /* one contiguous block, n_grads floats */
    size_t n_grads;
    Arena arena;
} ParamStore;

/* Declares a parameter; names are unique (asserted). Value is zeroed, filled by store_init. Never
 * fails. */
Param *store_add(ParamStore *ps, ParamKind kind, DType dtype, Init init, int ndim, const int *dim,
                 const char *fmt, ...) PRINTF_LIKE(7, 8);

/* One float (0-dimensional tensor). */
Param *store_scalar(ParamStore *ps, ParamKind kind, float value, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

Param *store_find(const ParamStore *ps, const char *name); /* NULL when absent */

/* Fills every parameter from its Init; the stream of a parameter is (seed, RNG_INIT, hash of its
 * name), so adding a parameter does not change the others. */
void store_init(ParamStore *ps, uint64_t seed);

void store_alloc_grads(ParamStore *ps); /* after the last store_add; zeroed */
void store_zero_grads(ParamStore *ps);

void param_touch(Param *p); /* its value was written */
float param_scalar(const Param *p);
void param_set_scalar(Param *p, float v);

/* Sum of versions over the store: equal means that nothing was written in between. */
uint64_t store_version(const ParamStore *ps);

void store_free(ParamStore *ps);

#endif
