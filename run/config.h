/* run/config.h -- every option of a run, from one key table (run/keys.def). */
#ifndef RUN_CONFIG_H
#define RUN_CONFIG_H

#include "data/data.h"
#include "io/yaml.h"
#include "nets/nets.h"
#include "optim/optim.h"
#include "quant/policy.h"
#include "quant/quant.h"
#include "run/keywords.h"

typedef struct RunOpts {
    const char *config_file, *config_name; /* as typed; base name without ending */
    const char *log_dir;                   /* default results/<config name> */
    bool test_only;
    bool int_infer, integize, int_op_only; /* F8Net's integer stages */
    const char *dump_dir;                  /* of a test */
    const char *probe_list[32];            /* tensors of layers that it writes */
    int nprobe_list, probe_index[256], nprobe_index, probe_iteration;
    bool int_compare;                      /* with the simulated net */
    const char *integize_file_path, *int_op_only_file_path;
    const char *pretrained_file;    /* .pth or .safetensors, or a run folder (its best) */
    const char *fp_pretrained_file; /* loaded before it: what fits */
    bool ptcv_pretrained, nvidia_pretrained; /* weights of another program, paired by position */
    const char *ptcv_pretrained_file, *nvidia_pretrained_file;
    bool pretrained_model_remap_keys; /* so are those of the two files above */
    bool bn_calib_before_test;        /* norms' statistics anew from training batches */
    int64_t bn_calib_batch_num;       /* so many; -1: an epoch */
    int64_t finetune_iters;           /* 0: whole epochs; else their first so many batches */
    bool print_each_iter;
    const char *pretrained_dir;     /* AdaBits: where pretrained_file lies */
    const char *resume;             /* -> nothing: see config_check.c */
    bool reset_parameters;          /* -> net.plain_init */
    int start_epoch;                /* first epoch of a run that begins, from 0 */
    const char *profiling[2];       /* words gpu, cpu: log the cost table after training, before a test */
    int nprofiling;
    bool profiling_only, model_profiling_verbose; /* print it and stop; a line for each layer */
    bool adaptive_training;         /* train and evaluate all entries of bits_list; false: the last */
    bool strict_load;               /* missing or unexpected names are an error */
    int batch_size, val_batch_size; /* val 0: as batch_size */
    uint64_t random_seed;
    int threads; /* 0: OMP_NUM_THREADS or all */
    int topk[4], ntopk;
    double label_smoothing;
    int num_epochs;    /* = optim.num_epochs */
    int extra_epoch;   /* after them, at the last rate; see run_epochs */
    int64_t freeze_steps; /* batches that change no parameter */
    int freeze_epochs;    /* the same in epochs, where freeze_steps is 0 */
    int stable_epoch;     /* quant.kw.stable in epochs */
    bool mixup_enable;
    double mixup_alpha;
    bool lr_test; /* print the course of the rate and stop */
    bool decay_small; /* -> optim.weight_decay_scheme */
    Policy policy;
    int64_t max_steps; /* 0: no limit; stop after this many updates in total */
    double max_time;   /* seconds; 0: no limit; then exit 75 */
    int save_every_epochs;
    int64_t save_every_steps;
    double save_every_seconds;
    int eval_every_epochs;
    int log_interval;       /* steps between metrics.jsonl train lines */
    int show_params_every;  /* epochs between prints of the clipping thresholds; 0 = never */
    double expect_top1_min; /* exit 5 below it; < 0: no expectation */
    const char *precision;  /* "f32" | "bf16" -> quant.bf16 */
    bool fp16;              /* the original's: with an opt_level above O0 -> precision: bf16 */
    const char *opt_level;  /* "O0".."O3" */
    const char *compat;     /* "corrected" | "original" */
    bool tensorboard, plots;
    const char *pictures;       /* form of picture files: "svg", "png", "both" */
    const char *class_names;    /* file for predict; "": the data set's */
    const char *log_file;       /* appended to in the layout of Quantized_ResNet; "": none */
    const char *export_weights; /* file of weights as quantized; "": none */
    const char *export_onnx; /* file the net is written to at the end; "": none */
    const char *experiment; /* name shown, default config name */
    /* Keys of the originals that other options are made from while loading. */
    bool addition_augment;                            /* -> data.data_transforms */
    bool normalize;                                   /* -> data.input */
    bool use_pretrain;                                /* -> pretrained_file */
    bool use_quantize_weight;                         /* -> quant.wt_quant, wt_bit */
    int batch_size_per_gpu, num_gpus_per_job;         /* -> batch_size */
    double multistep_lr_gamma, exp_decaying_lr_gamma; /* -> optim.gamma, by schedule */
    int exp_decaying_period, lr_step_size;            /* -> optim.step_size, by schedule */
} RunOpts;

/* Epochs of a whole run. */
static inline int64_t run_epochs(const RunOpts *o)
{
    return (int64_t)o->num_epochs + o->extra_epoch;
}

typedef struct Config {
    NetOpts net;
    QOpts quant;
    DataOpts data;
    OptimOpts optim;
    RunOpts run;
    WordOpts words;
    struct KeyState *state; /* per key: where the value came from */
    Arena arena;
} Config;

/* Every option at its default. Release with config_free. */
void config_default(Config *c);
/* Reads the file (includes first), then the overrides "key=value" in order, then checks ranges and
 * contradictions. All faults at once in `e`, one per line. `file` "" : only defaults and overrides;
 * "smoke": the embedded configs/smoke.yml. `app:FILE` and `bs:N` are accepted among `file` and
 * `overrides` as the originals take them, with their rule for large batches (config_note_ignored
 * says so). -1 with ERR_CONFIG; `c` may then still be passed to config_free only. */
int config_load(Config *c, const char *file, int noverrides, char **overrides, Err *e);
void config_free(Config *c);

void config_show(const Config *c, Str *out);     /* every key: value, and where it came from */
void config_resolved(const Config *c, Str *out); /* resolved.yml: loads to the same config */
/* Keys whose value differs between two resolved files, leaving out those that cannot change results
 * (verbosity, threads' absence, num_epochs made larger ...); for refusing to resume. 0 the same, 1
 * different (names in out), -1 error. */
int config_differs(const Config *c, const char *resolved_file, Str *out, Err *e);
size_t config_help(const char *pattern, Str *out); /* NULL: all keys; returns how many matched */
void config_docs(Str *out);                      /* docs/keys.md */
/* Logs rules applied, and at -v keys without effect and repeated keys. */
void config_note_ignored(const Config *c);

/* proxquant: the share of float tensors in an epoch (quant/keyword.h). */
double config_proxquant_share(const Config *c, int epoch);

#endif
