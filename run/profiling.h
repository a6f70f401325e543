/* run/profiling.h -- AdaBits' cost table (`profiling`, `profiling_only`): parameters, MACs, bytes and bit
 * operations of convolutions, linear layers and average pools, for each bit width. `qrun summary` counts
 * everything, norms included; the figures here are those of the original's table. */
#ifndef RUN_PROFILING_H
#define RUN_PROFILING_H

#include "run/session.h"

typedef struct Profiled {
    int64_t params, macs;
    double mbytes, gbitops;
} Profiled;

/* One unit at one variant; zeros for units that the table leaves out. */
Profiled profiling_unit(const struct QPlan *qp, int unit, int variant);
/* The whole net. */
Profiled profiling_total(const struct QPlan *qp, int variant);

/* The table of every width the net has; with `verbose` a line for each layer. */
void profiling_text(const Session *s, bool verbose, Str *out);
/* To the log, where `profiling` asks for it. */
void profiling_log(const Session *s);

#endif
