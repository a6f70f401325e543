/* run/session.h -- what the modes share: a configuration made into a net, data and loaders. */
#ifndef RUN_SESSION_H
#define RUN_SESSION_H

#include "run/config.h"
#include "run/metrics.h"
#include "run/model.h"

typedef struct Session {
    Config *cfg; /* borrowed */
    InputShape input; /* constants: of the config, else of a loaded checkpoint, else the recipe's */
    int classes;
    TopK topk;
    Model *model;
    char *first; /* the last file that session_load_first has read; NULL: none. Owned */
    Dataset data[2]; /* by Split */
    bool data_open[2];
    Loader *loader[2];
    struct Integers *ints; /* evaluation by whole numbers instead of `model`; NULL; borrowed */
    struct OriginalLog *original; /* log_file's lines of evaluations; NULL; borrowed */
    struct Dump *dump;     /* what evaluation reads and computes, kept; NULL; borrowed */
    struct Probe *probe;   /* so are tensors of its layers; NULL; borrowed */
    bool trains;           /* weights that are loaded are a start: rules of their epochs do not count */
    int64_t rules;         /* the policy's rules of epochs before this one are in force */
    int width[METER_MAX_WIDTHS], nwidths; /* variants trained and evaluated: all, or the last without adaptive_training */
} Session;

/* Threads, input shape, net, parameters with their initial values. Opens no file. On failure the
 * session is freed by session_free as well. */
int session_open(Session *s, Config *cfg, Err *e);
void session_free(Session *s);

/* Before session_open: whether a training of the net has room in memory; -1 with `e`. */
int session_fits(const Config *cfg, Err *e);

/* Puts the policy's rules of all epochs up to this one (from 0) into force, those that are not yet, in
 * their order. Called before parameters of that epoch are loaded; session_load does it for a checkpoint
 * of a run unless the session trains. */
int session_rules(Session *s, int64_t epoch, Err *e);

/* The data set of one split and its loader (batch_size or val_batch_size). */
int session_data(Session *s, Split split, Err *e);
int session_eval_batch(const Session *s);
/* "5bit", "w4a8": the k-th of the session's widths. */
const char *session_width_text(const Session *s, int k, char text[16]);
/* A file of one width: "net.onnx" and "5bit" give "net_5bit.onnx"; "" leaves the name. The caller
 * frees. */
char *path_of_width(const char *path, const char *width);
int64_t session_epoch_batches(const Session *s); /* of training: finetune_iters at most */

/* The file meant by pretrained_file: itself, or the best (else last) checkpoint of a run folder.
 * The caller frees; NULL with `e` when there is none. */
char *weights_path(const char *given, Err *e);
/* The same of a key's value; `e` says where it stands. */
char *weights_named(const Config *cfg, const char *key, const char *given, Err *e);

/* Weights from a file into the net. Quantizers' own parameters may be missing (going from 32 bit to
 * n) or left over (the other way); anything else that does not match is an error unless strict_load
 * is off. Takes the file's normalisation constants when the configuration does not set them. */
int session_load(Session *s, const char *path, Err *e);

/* What comes before pretrained_file: fp_pretrained_file, of which the names that fit are taken, then
 * the imports (run/import.h), unless pretrained_file is to replace them whole. */
int session_load_first(Session *s, Err *e);
bool session_has_first(const RunOpts *o); /* is any of these given? */

/* "key: value" lines of every key that can change results: what a checkpoint carries. No folder of
 * the run, no verbosity, so that two runs of one configuration write the same bytes wherever they
 * stand. */
void session_config_text(const Config *cfg, Str *out);

#endif
