/* run/dump.h -- dump_dir: what a test reads and computes, as .npy files, for comparing with another
 * program (an exported net on its runtime).
 *
 *   input.npy   [images, C, H, W]  as the net reads them; 8-bit numbers in integer stages
 *   output.npy  [images, classes]  logits; s32 in integer stages. Of several widths each has its
 * own: output_5bit.npy, output_4bit.npy, ... label.npy   [images] */
#ifndef RUN_DUMP_H
#define RUN_DUMP_H

#include "io/npy.h"
#include "run/session.h"

typedef struct Dump {
    NpyRows input, output[METER_MAX_WIDTHS], label;
    int nwidths;
    float *nchw; /* one image */
} Dump;

/* Whether they can be written there; makes the folder. */
int dump_check(const char *dir, Err *e);
/* Begins the files below `dir`, for the network of the session (its integers where it has them). */
int dump_open(Dump *d, const Session *s, const char *dir, Err *e);
void dump_batch(Dump *d, const Session *s, const Batch *b);
/* Of that batch at the session's k-th width. */
void dump_logits(Dump *d, const Session *s, int k, const Batch *b, const float *logits);
int dump_close(Dump *d, Err *e);
void dump_abandon(Dump *d); /* after a fault; one that was never opened is left alone */

#endif
