/* optim/schedule.c -- learning-rate schedules, as factors on the base rate.
 *
 * Spellings of several originals stand side by side: F8Net and AdaBits (multistep, exp_decaying,
 * linear_decaying, cos_annealing, each with an _iter form), model-quantization (fix, fix_step,
 * custom_step, decay, poly, sgdr, cos). Where an original's rule has a quirk, its spelling has it
 * too; see the comments. e = epoch, E = num_epochs, W = warmup_epochs. */
#include "optim/optim.h"

#include <math.h>

/* A rate relative to the run's: floors and starts of warm-ups are given as rates. */
static double relative(const OptimOpts *o, double rate)
{
    return o->lr > 0 ? rate / o->lr : 0;
}

static double above_floor(const OptimOpts *o, double x)
{
    double floor_ = relative(o, o->lr_min);
    return floor_ + (1 - floor_) * x;
}

static double half_cosine(const OptimOpts *o, double progress)
{
    return above_floor(o, (1 + cos(M_PI * progress)) / 2);
}

/* Share of the epochs behind the warm-up that is over. */
static double after_warmup(const OptimOpts *o, double e)
{
    double length = o->num_epochs - o->warmup_epochs;
    return length > 0 ? (e - o->warmup_epochs) / length : 0;
}

static double constant(const OptimOpts *o, double e)
{
    (void)o;
    (void)e;
    return 1;
}

static double multistep(const OptimOpts *o, double e)
{
    double f = 1;
    for (int i = 0; i < o->nmilestones; i++) {
        bool missed = o->milestone_compat && o->milestones[i] < o->start_epoch;
        if (o->milestones[i] <= floor(e) && !missed) f *= o->gamma;
    }
    return f;
}

static double step(const OptimOpts *o, double e)
{
    return pow(o->gamma, floor(e / (o->step_size > 0 ? o->step_size : 1)));
}

static double decay(const OptimOpts *o, double e)
{
    return pow(o->gamma, e);
}

static double exp_decaying_iter(const OptimOpts *o, double e)
{
    return exp(-8 * after_warmup(o, e));
}

/* F8Net subtracts a further piece before each update, and counts from W without a warm-up, so that
 * the factor exceeds 1 in the first W epochs. */
static double linear_decaying(const OptimOpts *o, double e)
{
    double f = 1 - (e - o->warmup_epochs + o->step_epochs) / o->num_epochs;
    return fmax(f, relative(o, o->lr_min));
}

static double linear(const OptimOpts *o, double e)
{
    return above_floor(o, 1 - after_warmup(o, e));
}

/* Per epoch, F8Net has no warm-up: the cosine's left half stands in for it. */
static double cos_annealing(const OptimOpts *o, double e)
{
    return half_cosine(o, after_warmup(o, e));
}

/* The cycle that epoch e is in. Cycles begin at 0 and at each milestone, the last ends at E;
 * without milestones they are `cycle` epochs long, each cycle_mult times the one before; without
 * both there is one. */
typedef struct Cycle {
    double start, length;
    int index;
} Cycle;

static Cycle cycle_at(const OptimOpts *o, double e)
{
    Cycle c = {.length = o->num_epochs};
    if (o->nmilestones) {
        int n = 0;
        while (n < o->nmilestones && o->milestones[n] <= e) n++;
        c.index = n;
        c.start = n ? o->milestones[n - 1] : 0;
        c.length = (n < o->nmilestones ? o->milestones[n] : o->num_epochs) - c.start;
    } else if (o->cycle > 0) {
        double mult = o->cycle_mult >= 1 ? o->cycle_mult : 1;
        c.index = mult > 1 ? 0 : (int)(e / o->cycle); /* many short ones: not one by one */
        c.start = (double)c.index * o->cycle;
        for (c.length = o->cycle; e >= c.start + c.length; c.index++) {
            c.start += c.length;
            c.length *= mult;
        }
    }
    if (c.length <= 0) c.length = 1;
    return c;
}

/* A cosine from `top` to the floor in each cycle. The cycle that a warm-up ends in begins there. */
static double cosine_cycle(const OptimOpts *o, double e, Cycle c, double top)
{
    const double floor_ = relative(o, o->lr_min);
    if (c.start < o->warmup_epochs && o->warmup_epochs < c.start + c.length) {
        c.length -= o->warmup_epochs - c.start;
        c.start = o->warmup_epochs;
    }
    return floor_ + (top - floor_) * (1 + cos(M_PI * (e - c.start) / c.length)) / 2;
}

static double sgdr(const OptimOpts *o, double e)
{
    return cosine_cycle(o, e, cycle_at(o, e), 1);
}

static double sgdr_step(const OptimOpts *o, double e)
{
    const Cycle c = cycle_at(o, e);
    return cosine_cycle(o, e, c, pow(o->gamma, c.index));
}

/* Per epoch; the first epoch of a later cycle is already its second step. */
static double cos_epoch(const OptimOpts *o, double e)
{
    Cycle c = cycle_at(o, e);
    return half_cosine(o, (e - c.start + (c.index > 0)) / c.length);
}

static double poly(const OptimOpts *o, double e)
{
    Cycle c = cycle_at(o, e);
    return above_floor(o, pow(1 - (e - c.start) / c.length, o->power));
}

static double custom(const OptimOpts *o, double e)
{
    int i = (int)e;
    if (!o->nlr_list) return 1;
    return relative(o, o->lr_list[i < o->nlr_list ? i : o->nlr_list - 1]);
}

// clang-format off
const Schedule schedules[] = {
    /*                                                                                       update warm-up needs */
    {"constant",           "lr as given",                                                    false, false, 0,             constant},
    {"fix",                "same as constant",                                               false, false, 0,             constant},
    {"fixed",              "same as constant",                                               false, false, 0,             constant},
    {"multistep",          "times gamma at each milestone (epoch)",                          false, false, SN_MILESTONES, multistep},
    {"custom_step",        "same as multistep",                                              false, false, SN_MILESTONES, multistep},
    {"multistep_iter",     "multistep behind a warm-up",                                     true,  true,  SN_MILESTONES, multistep},
    {"step",               "times gamma every step_size epochs",                             false, false, SN_STEP_SIZE,  step},
    {"fix_step",           "same as step",                                                   false, false, SN_STEP_SIZE,  step},
    {"exp_decaying",       "same as step",                                                   false, false, 0,             step},
    {"decay",              "times gamma every epoch",                                        false, false, 0,             decay},
    {"exp_decaying_iter",  "warm-up, then exponentially to lr / 2981 at the end",            true,  true,  0,             exp_decaying_iter},
    {"linear",             "warm-up, then linearly to lr_min",                               true,  true,  0,             linear},
    {"linear_decaying",    "linearly, F8Net's form: no warm-up, offset by warmup_epochs",    true,  false, 0,             linear_decaying},
    {"cosine",             "warm-up, then half a cosine to lr_min, per update",              true,  true,  0,             cos_annealing},
    {"cos_annealing_iter", "same as cosine",                                                 true,  true,  0,             cos_annealing},
    {"cos_annealing",      "half a cosine to lr_min, per epoch, without warm-up",            false, false, 0,             cos_annealing},
    {"cos",                "cosine per epoch, restarting at each milestone",                 false, false, 0,             cos_epoch},
    {"sgdr",               "cosine per update, restarting at milestones or every cycle",     true,  true,  0,             sgdr},
    {"sgdr_step",          "sgdr, each cycle beginning gamma times lower",                   true,  true,  0,             sgdr_step},
    {"poly",               "(1 - progress)^power to lr_min, restarting at milestones",       false, false, SN_POWER,      poly},
    {"custom",             "lr_list: one rate per epoch, the last one stays",                false, false, SN_LR_LIST,    custom},
    {NULL, NULL, false, false, 0, NULL},
};
// clang-format on

const Schedule *schedule_find(const char *name)
{
    for (const Schedule *s = schedules; s->name; s++)
        if (str_eq(s->name, name)) return s;
    return NULL;
}

double optim_lr(const Optim *op, int g, double epoch)
{
    const OptimOpts *o = op->opts;
    double base = g >= 0 && o->group[g].lr >= 0 ? o->group[g].lr : o->lr, f;
    if (op->schedule->warmup && epoch < o->warmup_epochs) {
        double start = relative(o, o->warmup_lr);
        f = start + (1 - start) * epoch / o->warmup_epochs;
    } else {
        f = op->schedule->factor(o, op->schedule->per_iteration ? epoch : floor(epoch));
    }
    return base * f * op->awake;
}
