/* engine/graph.h -- primitive nodes on values: what a Spec is lowered to, for one (phase, variant,
 * batch).
 *
 * An op is a pointer to an OpDef, not an enum: a method file may bring its own. Gradients: every
 * edge (node m reads value v) contributes one buffer that m's backward WRITES; the backward of v's
 * producer sees the list of contributions and sums them while it reads (exec_gout_parts), or gets
 * them summed (exec_gout). Nothing is ever added into an activation gradient. */
#ifndef ENGINE_GRAPH_H
#define ENGINE_GRAPH_H

#include "engine/prim.h"
#include "engine/store.h"

#define NODE_MAX_IN    8
#define NODE_MAX_OUT   6
#define GRAD_MAX_PARTS 136 /* Group-Net: two readers for each of up to 64 branches */

typedef struct Graph Graph;
typedef struct Node Node;
typedef struct Exec Exec;

enum {                    /* OpDef.flags */
       OP_OWN_PARAMS = 1, /* adds into gradients of parameters that are not graph values: backward
                             runs even if no input wants one */
       OP_LOSS = 2,       /* starts the backward pass */
       OP_GRAD_PARTS = 4, /* backward reads exec_gout_parts: no summing pass is needed */
       OP_GRAD_ALIAS =
           8, /* gradient of every input = gradient of out[0], as it is (add): backward runs only
                 where it has more contributions than are handed on (Node.alias) */
       OP_HOISTABLE = 16, /* output depends on inputs and own parameters only: computed once per
                             parameter version outside training */
       OP_BF16 = 32,      /* reads and writes maps, and their gradients, in the type of the value:
                             float or bf16. Other ops never see bf16 (engine/bf16.h) */
       OP_BF16_FIRST = 64 /* with OP_BF16, in a bf16 graph: in[0] is bf16, other inputs float */
};

typedef struct OpDef {
    const char *name;
    unsigned flags;
    /* Creates primitives; fills save_bytes, scratch_bytes, bwd_in, bwd_out, flops. Shapes of
     * outputs are already set. NULL: nothing. */
    int (*prepare)(Graph *g, Node *n, Prim *p, Err *e);
    void (*forward)(Node *n, Exec *x);
    void (*backward)(Node *n, Exec *x); /* NULL: stops gradients */
    void (*release)(Node *n);
} OpDef;

typedef struct Value {
    const char *name;
    Tensor t; /* shape; data: parameter's, bound by the caller, or set by the plan */
    Param *param;
    bool external; /* bound before each run: image, labels */
    int producer;  /* node, or -1 */
    bool needs_grad;
    int nparts; /* gradient contributions */
    struct {
        int node, in;
    } part[GRAD_MAX_PARTS];
    bool hoisted;
    bool keep;       /* readable after the run */
    int first, last; /* lifetime on the time axis of plan.h */
    size_t gsum_off; /* where exec_gout sums the parts; SIZE_MAX: not needed */
} Value;

struct Node {
    const OpDef *op;
    const char *name;
    int nin, nout, in[NODE_MAX_IN], out[NODE_MAX_OUT];
    bool bf16;     /* may read and write bf16: OP_BF16, unless the maker says no */
    void *attr;  /* in the graph's arena */
    void *state; /* freed by op->release */
    /* set by prepare */
    unsigned bwd_in, bwd_out; /* bit i: backward reads in[i] / out[i] of the forward pass */
    bool inplace;             /* out[0] may take the storage of in[0] */
    bool grad_inplace; /* the gradient of in[0] may take the storage of a contribution to out[k]
                          (same bytes) */
    size_t save_bytes, scratch_bytes;
    const char *impl; /* implementation name, for printing */
    double flops;     /* forward, for profiles */
    /* set by graph_finish and the plan */
    bool hoisted, run_bwd;
    bool alias; /* the contributions to out[0] are those of the inputs: no backward, no buffers */
    bool gin_wanted[NODE_MAX_IN];
    size_t save_off, scratch_off, scratch_bwd_off, gin_off[NODE_MAX_IN];
    double t_fwd, t_bwd; /* seconds of the last run when timing is on */
};

struct Graph {
    Value *v;
    Node *n;
    int nv, nn;
    size_t cap_v, cap_n;
    bool train;
    bool bf16; /* maps between nodes that can are bf16; set between graph_init and the first node */
    Arena arena;
};

void graph_init(Graph *g, bool train);
void graph_free(Graph *g);

/* Values. Names are copied. */
int graph_external(Graph *g, Tensor t, const char *name);
int graph_param(Graph *g, Param *p); /* one value per parameter */
/* A node; attr (size bytes) is copied into the arena. Outputs are added with graph_out. Returns the
 * node. */
int graph_node(Graph *g, const OpDef *op, const char *name, int nin, const int *in,
               const void *attr, size_t size);
int graph_out(Graph *g, int node, Tensor t); /* returns the value */

/* needs_grad, hoisting, prepare of every node, contributions. */
int graph_finish(Graph *g, Prim *p, Err *e);
/* Internal consistency (indices, order, producers); ASSERTs. */
void graph_verify(const Graph *g);
void graph_print(const Graph *g, Str *out);

Tensor tensor_nhwc(int n, int c, int h, int w); /* a float activation */

#endif
