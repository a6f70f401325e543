/* run/checkpoint.h -- what a checkpoint of a run holds, and where the files stand.
 *
 * Tensors: every parameter and buffer under its own name, the optimizer's state as
 * "optim.<slot>.<name>"; "optim.updates": those of each parameter, where they are not those of the run.
 * Metadata ("qrun.*"): position, meters, best so far, normalisation
 * constants, the resolved configuration. Nothing that was measured (no time, host or process): two
 * runs of one configuration write the same bytes.
 *
 *   DIR/checkpoints/last.safetensors      the newest
 *   DIR/checkpoints/previous.safetensors  the one before; what a damaged `last` falls back on
 *   DIR/checkpoints/best.safetensors      hard link to what `last` was when top-1 was best */
#ifndef RUN_CHECKPOINT_H
#define RUN_CHECKPOINT_H

#include "data/data.h"
#include "io/ckpt.h"
#include "optim/optim.h"
#include "run/metrics.h"

/* Where training stands, between two steps. */
typedef struct TrainState {
    int64_t epoch,
        batch;    /* the next batch to train on; batch == batches per epoch: evaluation is due */
    int64_t step; /* batches trained on: updates, unless iter_size sums several */
    int64_t summed; /* iter_size: batches whose gradients wait for their update; saved with them */
    Meter train, interval;         /* of the epoch so far; since the last "train" row */
    Meter val;                     /* the last evaluation, summed over the widths */
    WidthMeters widths;            /* each of them */
    int64_t val_step;              /* at which it was made, -1: none yet */
    Meter best;                    /* the evaluation with most top-1 right */
    int64_t best_step, best_epoch; /* best_step -1: none yet */
} TrainState;

/* All that goes into a file; everything borrowed. */
typedef struct Checkpoint {
    ParamStore *store;
    Optim *optim;
    InputShape *input;      /* its mean and std; set by checkpoint_resume */
    const char *input_kind; /* "normalized", ... */
    const char *config;     /* text of the resolved configuration without its folder names */
    TrainState *state;
} Checkpoint;

typedef enum CkptFile { CKPT_LAST, CKPT_PREVIOUS, CKPT_BEST } CkptFile;
char *checkpoint_path(const char *run_dir, CkptFile which); /* the caller frees */

/* Writes `last` (keeping the one before as `previous`), reads it back to verify it, then links
 * `best` when the best evaluation is that of this very step. */
int checkpoint_save(const char *run_dir, const Checkpoint *c, Err *e);

/* Finds the newest undamaged checkpoint and restores everything: 1 restored, 0 there is none, -1
 * damaged beyond use or not of this net. A damaged `last` is warned about and `previous`, then
 * `best` is taken. Repairs a `best` that a kill kept from being linked. */
int checkpoint_resume(const char *run_dir, Checkpoint *c, Err *e);

/* Links `best` to `last` when a kill came between the two at state `s`; warns when `best` is lost.
 */
int checkpoint_repair_best(const char *run_dir, const TrainState *s, Err *e);

/* The position alone, for deciding whether there is anything left to do: as checkpoint_resume. */
int checkpoint_peek(const char *run_dir, TrainState *s, Err *e);

/* The epoch (from 0) in which the last update of a run's checkpoint was made; -1: none was, or the file
 * is of something else. */
int64_t checkpoint_epoch(const TensorFile *f);

/* Is it one of ours? Then mean and std are those the net was trained with. */
bool checkpoint_input(const TensorFile *f, double mean[3], double std[3]);
void input_constants(InputShape *s, const double mean[3], const double std[3]);

/* Takes the tensors that are no parameters ("optim.*") out of a file that was read. */
void checkpoint_strip(TensorFile *f);

void state_init(TrainState *s);

#endif
