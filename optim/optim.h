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
    const char *optimizer;           /* row of optim_rules */
    double lr, momentum, dampening, weight_decay;
    bool nesterov;
    const char *weight_decay_scheme; /* "all" (norm and biases too), "weights" (convolution and fc only) */
    const char *lr_scheduler;        /* row of schedules */
    double lr_min;                   /* floor of the cosine and linear schedules */
    int milestones[OPTIM_MAX_LIST], nmilestones; /* multistep: epochs */
    double lr_list[OPTIM_MAX_LIST];  /* custom: lr of epoch i; the last stays */
    int nlr_list;
    double gamma;                    /* multistep, step, exp */
    int step_size;                   /* step: epochs */
    int cycle;                       /* sgdr: epochs of the first cycle */
    double cycle_mult, power;        /* sgdr; poly */
    double warmup_epochs, warmup_lr; /* linear from warmup_lr to lr; fractions of epochs allowed */
    int num_epochs;
    int milestone_compat;            /* 1: "x gamma when epoch == milestone", missed by a run that starts later */
    GroupRule group[OPTIM_MAX_GROUPS];
    int ngroups;
} OptimOpts;

/* One update of one parameter. lr and wd are this parameter's, for this step. `first` is the parameter's
 * first update (PyTorch's momentum buffer then takes the gradient as it is). Deterministic at a given thread count. */
typedef struct OptimRule {
    const char *name, *doc;
    int nslots;                      /* float tensors of the parameter's shape, zeroed at the start */
    void (*step)(Param *p, const OptimOpts *o, double lr, double wd, int64_t t);
} OptimRule;

/* Factor on every group's base rate. `epoch` counts from 0 and may be fractional: progress within the epoch, for
 * schedules that move per iteration. */
typedef struct Schedule {
    const char *name, *doc;
    bool per_iteration;
    double (*factor)(const OptimOpts *o, double epoch);
} Schedule;

extern const OptimRule optim_rules[]; /* ended by a NULL name */
extern const Schedule schedules[];

const OptimRule *optim_find(const char *name);
const Schedule *schedule_find(const char *name);

typedef struct Optim {
    const OptimRule *rule;
    const Schedule *schedule;
    const OptimOpts *opts;           /* borrowed */
    int *group;                      /* per parameter of the store: index into opts->group, or -1 */
    int nparams;
    int64_t t;                       /* updates made; saved in checkpoints */
} Optim;

/* Allocates the slots in the store's arena, finds each parameter's group (the first rule that matches). A group rule
 * that matches no parameter is a warning. */
int optim_init(Optim *op, const OptimOpts *o, ParamStore *ps, Err *e);
/* Rate of group g (-1: the run's) at this epoch (fractional) . */
double optim_lr(const Optim *op, int g, double epoch);
void optim_step(Optim *op, ParamStore *ps, double epoch); /* only trained parameters; touches them */
void optim_free(Optim *op);

/* Checks the options against each other (milestones ascending, nesterov needs momentum ...). */
int optim_check(const OptimOpts *o, Err *e);

#endif
