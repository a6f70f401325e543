/* optim/optim.h -- optimizer rules, learning-rate schedules, parameter groups. */
#ifndef OPTIM_OPTIM_H
#define OPTIM_OPTIM_H

#include "engine/store.h"

#define OPTIM_MAX_LIST   16
#define OPTIM_MAX_GROUPS 16

/* A rule for parameters whose name contains `match`. lr < 0 / weight_decay < 0: the run's. */
typedef struct GroupRule {
    char match[64];
    double lr, weight_decay;
} GroupRule;

typedef struct OptimOpts {
    const char *optimizer; /* row of optim_rules */
    double lr, momentum, dampening, weight_decay;
    bool nesterov;
    double optim_eps;   /* rmsprop, adam: added to the root; 0: PyTorch's 1e-8 */
    double optim_decay; /* rmsprop: decay of the mean square; 0: PyTorch's 0.99 */
    double beta1, beta2;             /* adam; 0: 0.9, 0.999 */
    const char *weight_decay_scheme; /* row of decay_schemes; NULL or "": all */
    const char *lr_scheduler;        /* row of schedules */
    double lr_min;                   /* floor of the cosine, linear, poly and sgdr schedules */
    int milestones[OPTIM_MAX_LIST], nmilestones; /* multistep: epochs; sgdr, cos, poly: restarts */
    double lr_list[OPTIM_MAX_LIST];              /* custom: lr of epoch i; the last stays */
    int nlr_list;
    double gamma;                    /* multistep, step, decay, sgdr_step */
    int step_size;                   /* step: epochs */
    int cycle;                       /* sgdr: epochs of the first cycle */
    double cycle_mult, power;        /* sgdr; poly */
    double warmup_epochs, warmup_lr; /* linear from warmup_lr to lr; fractions of epochs allowed */
    int num_epochs;
    int milestone_compat; /* 1: "x gamma when epoch == milestone", missed by a later start */
    int start_epoch;      /* that later start; 0 for a resumed run */
    double step_epochs;   /* linear_decaying: what one update is of an epoch (batch / images) */
    GroupRule group[OPTIM_MAX_GROUPS];
    int ngroups;
    /* model-quantization's way of saying the same: parameters whose name contains an entry. The entry
     * quant_weight also pins the weights that a quantizer reads to custom_lr. */
    const char *custom_decay_list[OPTIM_MAX_LIST], *custom_lr_list[OPTIM_MAX_LIST];
    int ncustom_decay, ncustom_lr;
    double custom_decay, custom_lr;
    bool custom_lr_compat; /* schedules that move per epoch overwrite custom_lr where it is not pinned */
    int iter_size;         /* batches that an update sums; 0: 1 */
    double grad_clip;      /* largest norm of the gradients of an update; 0: any */
    int64_t wakeup;        /* batches in which every rate rises from 0 to what the schedule says */
} OptimOpts;

/* One update of one parameter. lr and wd are this parameter's, for this step; t counts the updates
 * made of it before (at t = 0 PyTorch's momentum buffer takes the gradient as it is): of one that is
 * trained from a later epoch on, fewer than the run has made. Elementwise: the
 * same for any number of threads. */
typedef struct OptimRule {
    const char *name, *doc;
    int nslots; /* float tensors of the parameter's shape, zeroed at the start */
    int momentum; /* which of them is the momentum */
    void (*step)(Param *p, const OptimOpts *o, double lr, double wd, int64_t t);
} OptimRule;

/* Schedule.needs: what must be given. */
enum {
    SN_MILESTONES = 1,
    SN_STEP_SIZE = 2,
    SN_LR_LIST = 4,
    SN_POWER = 8
};

/* Factor on every group's base rate. `epoch` counts from 0; it is fractional (progress within the
 * epoch) for schedules that move per iteration, and whole for the others. Only some of the first
 * kind have a warm-up, as in F8Net. */
typedef struct Schedule {
    const char *name, *doc;
    bool per_iteration, warmup;
    unsigned needs;
    double (*factor)(const OptimOpts *o, double epoch);
} Schedule;

/* Which parameters decay, by the dimensions of the tensor. */
typedef struct DecayScheme {
    const char *name, *doc;
    bool conv, depthwise; /* 4-d weights; those with dim[1] == 1 */
    bool fc;              /* 2-d, and anything else */
    bool vector, scalar;  /* 1-d, 0-d */
} DecayScheme;

extern const OptimRule optim_rules[]; /* all three ended by a NULL name */
extern const Schedule schedules[];
extern const DecayScheme decay_schemes[];

const OptimRule *optim_find(const char *name);
const Schedule *schedule_find(const char *name);
const DecayScheme *decay_scheme_find(const char *name); /* NULL or "": "all" */

enum { /* Optim.custom */
    OC_DECAY = 1,
    OC_LR = 2,
    OC_PINNED = 4
};

typedef struct Optim {
    const OptimRule *rule;
    const Schedule *schedule;
    const DecayScheme *scheme;
    const OptimOpts *opts; /* borrowed */
    int *group;            /* per parameter of the store: index into opts->group, or -1 */
    unsigned char *custom; /* per parameter: OC_ bits */
    int nparams;
    double awake; /* factor on every rate that is not pinned: wakeup */
    int64_t t; /* updates made; saved in checkpoints, as are Param.updates where they are others */
} Optim;

/* Allocates the slots in the store's arena, finds each parameter's group (the first rule that
 * matches). A group rule, or an entry of a custom list, that matches no parameter is a warning,
 * unless the net has no quantizer parameters at all. */
int optim_init(Optim *op, const OptimOpts *o, ParamStore *ps, Err *e);
/* Rate of group g (-1: the run's) at this epoch (fractional). */
double optim_lr(const Optim *op, int g, double epoch);
/* Rate of one parameter: its own, else what custom_lr_list, its group or the run say. */
double optim_param_lr(const Optim *op, const Param *p, double epoch);
bool optim_pinned(const Optim *op, const Param *p); /* custom_lr whatever the schedule */
/* wakeup: where `batch` batches of training have been seen before. */
void optim_wake(Optim *op, int64_t batch);
/* Weight decay of one parameter: its own, else its group's, else the run's where the scheme lets it
 * decay. */
double optim_decay(const Optim *op, const Param *p);
/* Only trained parameters; touches them. A parameter's own lr_fixed is not scheduled. */
void optim_step(Optim *op, ParamStore *ps, double epoch);
void optim_free(Optim *op);

/* L2 norm over all gradients. The same for any number of threads. */
double gradient_norm(const ParamStore *ps);
/* Scales all gradients by max_norm / (norm + 1e-6) where that is below 1, as PyTorch does. */
void gradient_clip(ParamStore *ps, double norm, double max_norm);

/* Checks the options against each other (milestones ascending, nesterov needs momentum ...): one
 * line per fault. */
int optim_check(const OptimOpts *o, Err *e);

#endif
