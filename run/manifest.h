/* run/manifest.h -- run.json: what ran, on what, how often it was started, and what came out.
 *
 * Everything that was measured belongs here and not into a checkpoint. Rewritten atomically. */
#ifndef RUN_MANIFEST_H
#define RUN_MANIFEST_H

#include "run/config.h"
#include "run/metrics.h"

typedef struct Manifest Manifest;

/* With `keep` goes on with PATH if it is there (a damaged one is warned about and begun anew).
 * Never NULL. */
Manifest *manifest_open(const char *path, bool keep);
void manifest_free(Manifest *m);

/* Adds this start of the program. `resolved` is the file whose SHA-256 is recorded; `init` the
 * checkpoint the weights came from, or NULL. Warns when the last start was on another kind of
 * machine. */
void manifest_begin(Manifest *m, const Config *c, const char *mode, int argc, char **argv,
                    const char *resolved, const char *init, int64_t from_step);
void manifest_data(Manifest *m, const char *split, const Dataset *d);

/* Seconds of all starts, this one included. */
double manifest_seconds(const Manifest *m);

/* Result line and figures; `line` is what a repeated call prints again. */
void manifest_result(Manifest *m, const char *line, const Meter *meter, const TopK *t, int64_t step,
                     int64_t best_step, const Meter *best);
const char *manifest_line(const Manifest *m); /* NULL: none yet */

/* Brings this start's times up to date and writes the file. status: "running", "finished",
 * "stopped", "failed"; exit: the process's status, -1 while it runs. */
int manifest_save(Manifest *m, const char *status, int exit_status, Err *e);

#endif
