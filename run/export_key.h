/* run/export_key.h -- export_onnx: FILE and export_weights: FILE, the keys. The net of a test is
 * written after it, that of a training when it has finished: its best checkpoint. For ONNX, where several widths are evaluated there is a
 * file for each, with the width in its name: net.onnx gives net_5bit.onnx, net_4bit.onnx, ... */
#ifndef RUN_EXPORT_KEY_H
#define RUN_EXPORT_KEY_H

#include "run/session.h"

/* Before any work: the files can be written, and the net as what is asked for. Faults name the place of
 * the key. 0 also when nothing is to be exported, here and below. */
int export_check(const Session *s, Err *e);

/* The session's net as it is now. `weights`: the file it came from, for the metadata; or NULL. */
int export_session(const Session *s, const char *weights, Err *e);

/* The net in a file, or the best one of a run folder. */
int export_file(Config *cfg, const char *weights, Err *e);

#endif
