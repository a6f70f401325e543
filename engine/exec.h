/* engine/exec.h -- runs a planned graph forward and backward. The gradient rule lives here and
 * nowhere else: param gradients always accumulate in the store; activation gradients are
 * contributions that are written once (graph.h). */
#ifndef ENGINE_EXEC_H
#define ENGINE_EXEC_H

#include "engine/plan.h"

struct Exec {
    Graph *g;
    void **data;         /* per value: its storage */
    char *arena, *fixed; /* fixed: hoisted values, owned */
    int phase;           /* the Phase of quant/quant.h, handed through */
    int64_t step;        /* seeds dropout and the like */
    uint64_t seed;
    uint64_t weights_version; /* changes whenever weights may have: packed copies compare it */
    uint64_t store_version;   /* at which hoisted nodes were run; 0: never */
    double aux_loss;          /* sum of auxiliary losses of the last forward */
    const char *fault; /* set by a node that cannot go on (constant weights ...); text lives as long
                          as the program */
    bool timing;
    /* Told each node of a forward pass right after it ran, while the values it read and wrote are
     * there; not hoisted ones. NULL: nobody looks. */
    void (*after)(const Exec *x, int node, void *arg);
    void *after_arg;
};

/* `arena` has at least plan->arena_bytes and outlives the Exec. */
void exec_init(Exec *x, Graph *g, const Plan *pl, char *arena);
void exec_free(Exec *x);
void exec_bind(Exec *x, int value, const void *data); /* an external value */

/* store_version: of the parameters now; hoisted nodes run again when it has changed. */
void exec_forward(Exec *x, uint64_t store_version);
void exec_backward(Exec *x);

/* The first node (in order) whose output is not finite when the forward pass is run again, or NULL.
 */
const char *exec_find_nonfinite(Exec *x);

/* ---- for ops ---- */
static inline void *exec_in(const Exec *x, const Node *n, int i)
{
    return x->data[n->in[i]];
}
static inline void *exec_out(const Exec *x, const Node *n, int i)
{
    return x->data[n->out[i]];
}
static inline Tensor exec_in_tensor(const Exec *x, const Node *n, int i)
{
    Tensor t = x->g->v[n->in[i]].t;
    t.data = x->data[n->in[i]];
    return t;
}
static inline Tensor exec_out_tensor(const Exec *x, const Node *n, int i)
{
    Tensor t = x->g->v[n->out[i]].t;
    t.data = x->data[n->out[i]];
    return t;
}
void *exec_save(const Exec *x, const Node *n);
void *exec_scratch(const Exec *x, const Node *n); /* forward */
void *exec_scratch_bwd(const Exec *x, const Node *n);
/* Gradients are of the value's type: ops without OP_BF16 only meet floats, the others cast.
 * Gradient of out[i], contributions summed (before backward is called); NULL when nobody sends one.
 */
const float *exec_gout(const Exec *x, const Node *n, int i);
/* The contributions themselves (ops with OP_GRAD_PARTS); returns their number. */
int exec_gout_parts(const Exec *x, const Node *n, int i, const float *part[GRAD_MAX_PARTS]);
/* Where to write the gradient of in[i]; NULL when it is not wanted. */
float *exec_gin(const Exec *x, const Node *n, int i);

double exec_now(void); /* seconds, monotonic */

#endif
