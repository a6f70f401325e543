/* test/probe/probe.h -- five methods that the engine must carry without knowing them, and a rig
 * that trains a small net with them.
 *
 * The probes are not registered: they come in through QOpts.extra_methods. `method_opts: smooth`
 * leaves the rounding out, so that every gradient can be checked by finite differences. */
#ifndef TEST_PROBE_PROBE_H
#define TEST_PROBE_PROBE_H

#include "optim/optim.h"
#include "run/model.h"

extern const QMethod
    probe_fold; /* fold.c: `.lower` folds the norm into the weight, in training too */
extern const QMethod probe_variants; /* variants.c: several bit widths, a clip level for each */
extern const QMethod probe_counting; /* counting.c: forward moves a saved buffer */
extern const QMethod probe_latent; /* latent.c: the optimizer moves a latent copy, after_step makes
                                      the weight of it */
extern const QMethod *const probe_methods[]; /* all of them, for QOpts.extra_methods */

/* policy.c: the rules of one epoch; 0, or -1 with `e`. */
int probe_policy(Model *m, int epoch, Err *e);

/* ---- rig.c ---- */

typedef struct RigOpts {
    NetOpts net;
    QOpts quant;
    OptimOpts optim;
    int batch, steps_per_epoch;                 /* the last batch of an epoch has half the size */
    int (*policy)(Model *m, int epoch, Err *e); /* or NULL */
    bool unit_gradients; /* each parameter's to a mean square of 1, before an update */
} RigOpts;

typedef struct Rig {
    const RigOpts *o;
    Model *m;
    Optim optim;
    int64_t step;
    int variants;
    float *x;
    int32_t *label;
} Rig;

/* ResNet-20 (or what the caller puts into net.model) on small images, float, SGD with momentum and
 * decay. */
void rig_defaults(RigOpts *o);
int rig_open(Rig *r, const RigOpts *o, Err *e);
void rig_close(Rig *r);

/* Gradients of step r->step, all variants, into the store; the summed loss. NaN with `e` on an
 * error. */
double rig_gradients(Rig *r, Err *e);
/* The same, then the update, after_step, and at the end of an epoch an evaluation. */
double rig_step(Rig *r, Err *e);
/* Mean loss of an evaluation of a fixed batch (not a full one). */
double rig_eval(Rig *r, int variant, Err *e);

int rig_save(Rig *r, const char *dir, Err *e);
/* As a resumed run: the policy replayed up to the epoch, then parameters, buffers and optimizer
 * state from the file. */
int rig_resume(Rig *r, const char *dir, Err *e);

/* Bytewise over parameters, buffers and slots: NULL when equal, else what differs (in `buf`). */
const char *rig_difference(const Rig *a, const Rig *b, char *buf, size_t n);
/* Compares `per_param` entries of each trained parameter's gradient with central differences;
 * buffers are put back before each evaluation. NULL, or what differs. *compared: how many entries.
 */
const char *rig_finite_differences(Rig *r, int per_param, int *compared, char *buf, size_t n);

#endif
