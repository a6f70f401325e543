/* run/runfolder.h -- the folder of a run: one process at a time, one configuration, everything
 * explained.
 *
 *   DIR/run.json         manifest (run/manifest.h)     DIR/resolved.yml  every key with its value
 *   DIR/log.txt          the log                       DIR/metrics.jsonl, curves.svg, tb/
 *   DIR/checkpoints/     run/checkpoint.h              DIR/<mode>/       what other modes write
 *   DIR/report.html      run/report.h                  DIR/pictures/     its pictures */
#ifndef RUN_RUNFOLDER_H
#define RUN_RUNFOLDER_H

#include "run/config.h"

typedef struct RunFolder {
    char *dir;
    int lock;     /* descriptor, -1: not held */
    size_t kept;  /* length of the part of dir that was there before */
    bool unused;  /* nothing has been put into it yet */
} RunFolder;

/* What exists of a folder's path: itself or its nearest parent. The caller frees. */
char *runfolder_existing(const char *dir);

/* Makes the folder if need be and takes its lock. Another process has it: ERR_RUN naming its pid.
 * Removes temporary files of dead processes. */
int runfolder_open(RunFolder *f, const char *dir, Err *e);

/* ERR_CONFIG naming the keys when the folder holds a run of another configuration, unless that failed before its first
 * checkpoint. */
int runfolder_check_config(const RunFolder *f, const Config *c, Err *e);

/* From here on the folder is in use: writes resolved.yml, starts log.txt. */
int runfolder_begin(RunFolder *f, const Config *c, Err *e);

/* Releases the lock; folders that this process made and did not use are removed again. */
void runfolder_close(RunFolder *f);

char *runfolder_path(const RunFolder *f, const char *name); /* the caller frees */

#endif
