/* run/which_net.h -- the net a checkpoint belongs to, told by the shapes of its convolutions: for
 * the one line a user needs who named the file of another depth. */
#ifndef RUN_WHICH_NET_H
#define RUN_WHICH_NET_H

#include "io/ckpt.h"
#include "run/config.h"

/* The convolutions of `f`, in order, are those of the store. */
bool same_convolutions(const TensorFile *f, const ParamStore *ps);

/* Row of `nets` whose convolutions they are, in order; NULL: of none. */
const NetDef *which_net(const TensorFile *f);

/* -1 with `e` (one line naming both nets) when the file holds another known net than the one of
 * `ps`, else 0. The path and the place of the key that named the file are in front. */
int refuse_other_net(const Config *cfg, const char *key, const char *path, const TensorFile *f,
                     const ParamStore *ps, Err *e);

/* "FILE:LINE:COL: error: KEY: " of a key that was set, for faults found behind the configuration;
 * nothing for one that was not. */
void key_place(const Config *cfg, const char *key, Str *out);
/* Puts that in front of e->msg. Returns -1. */
int key_blame(const Config *cfg, const char *key, Err *e);

#endif
