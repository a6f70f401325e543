/* run/test.c -- test_only: evaluate one checkpoint, as it is or as a network of whole numbers. Writes
 * below log_dir/<test or the integer stage> and touches nothing of a training. */
#include <stdlib.h>

#include "io/fs.h"
#include "run/bn_calib.h"
#include "run/checkpoint.h"
#include "run/clips.h"
#include "run/evaluate.h"
#include "run/integer.h"
#include "run/export_key.h"
#include "run/log.h"
#include "run/manifest.h"
#include "run/modes.h"
#include "run/profiling.h"
#include "run/runfolder.h"
#include "run/signals.h"

/* pretrained_file, else what a training in log_dir left; "" where only fp_pretrained_file or an
 * import is asked for. The caller frees. */
static char *what_to_test(const RunOpts *o, Err *e)
{
    char *own = checkpoint_path(o->log_dir, CKPT_BEST);
    const bool trained = fs_exists(own) != 0;
    free(own);
    if (o->pretrained_file && *o->pretrained_file) {
        if (trained)
            log_msg(LOG_INFO,
                    "testing pretrained_file; for the net trained in log_dir: pretrained_file=%s",
                    o->log_dir);
        return weights_path(o->pretrained_file, e);
    }
    if (!trained && session_has_first(o)) return xstrdup("");
    if (trained || fs_exists(o->log_dir) == 2) return weights_path(o->log_dir, e);
    err_set(e, ERR_DATA, "nothing to test: no pretrained_file is given and %s holds no checkpoint",
            o->log_dir);
    return NULL;
}

/* The net with the weights that are to be tested, its norms calibrated where that is asked for. */
static int load_net(Session *s, Config *cfg, const char *weights, Err *e)
{
    const bool calibrate = cfg->run.bn_calib_before_test;
    if (session_open(s, cfg, e) || export_onnx_check(s, e)) return -1;
    if ((!*weights || !cfg->run.strict_load) && session_load_first(s, e)) return -1;
    if (*weights && session_load(s, weights, e)) return -1;
    profiling_log(s);
    return calibrate && (session_data(s, SPLIT_TRAIN, e) || bn_calibrate(s, e)) ? -1 : 0;
}

static int report(Session *s, Run *run, Manifest *man, const char *weights, const Meter *m,
                  const WidthMeters *w, Err *e)
{
    Str line = {0};
    int r;
    if (s->ints && s->ints->compared)
        log_msg(LOG_INFO, "%lld of %lld logits differ from the simulated net's, by at most %d",
                (long long)s->ints->differ, (long long)s->ints->compared, s->ints->largest);
    clips_print(s->model);
    evaluate_print(w);
    meter_result(m, w, &s->topk, manifest_seconds(man), &line);
    manifest_result(man, line.s, m, &s->topk, 0, -1, NULL);
    r = run_check_expectation(run->cfg, meter_percent(m, 0), e);
    if (manifest_save(man, "finished", r ? (int)ERR_EXPECT : 0, e)) r = -1;
    run_print_result(line.s);
    str_free(&line);
    return r ? r : export_onnx_session(s, weights, e);
}

static int stop(Run *run, Manifest *man, Err *e)
{
    run->signal = signals_stop();
    run->status = 128 + run->signal;
    log_msg(LOG_WARN, "stopped by a signal before the end of the test");
    return manifest_save(man, "stopped", run->status, e);
}

/* The network of whole numbers instead of the model, and its files. */
static int use_integers(Session *s, Integers *ints, const IntStage *st, const RunFolder *f,
                        const char *weights, Err *e)
{
    const ExportOpts o = {.net = s->cfg->net.model, .weights = weights, .input = &s->input};
    const char *folder = st->file ? st->folder(&s->cfg->run) : "";
    if (!*folder) folder = f->dir;
    if (integers_open(ints, s->model, st, session_eval_batch(s), e)) return -1;
    s->ints = ints;
    return st->file ? integers_write(ints, folder, st, &o, e) : 0;
}

static int test(Session *s, RunFolder *f, Integers *ints, Manifest **man, const char *weights, Run *run, Err *e)
{
    const IntStage *st = int_stage(&run->cfg->run);
    char *json, *resolved;
    Progress p;
    Meter m;
    WidthMeters w;
    int r;
    if (load_net(s, run->cfg, weights, e) || session_data(s, SPLIT_VAL, e)) return -1;
    if (!*weights && s->first) weights = s->first; /* for run.json */
    if (runfolder_begin(f, run->cfg, e)) return -1;
    if (st && use_integers(s, ints, st, f, weights, e)) return -1;
    json = runfolder_path(f, "run.json");
    resolved = runfolder_path(f, "resolved.yml");
    *man = manifest_open(json, false);
    manifest_begin(*man, run->cfg, st ? st->name : "test", run->argc, run->argv, resolved, weights, 0);
    manifest_data(*man, "val", &s->data[SPLIT_VAL]);
    free(json);
    free(resolved);
    signals_install();
    p = (Progress){.eval_batches = loader_batches(s->loader[SPLIT_VAL]), .last_shown = log_clock()};
    r = evaluate(s, &p, &m, &w, e);
    if (r < 0) return -1;
    return r > 0 ? stop(run, *man, e) : report(s, run, *man, weights, &m, &w, e);
}

int test_run(Run *run, Err *e)
{
    Session s = {0};
    RunFolder f = {.lock = -1};
    Manifest *man = NULL;
    Integers ints = {0};
    const IntStage *st = int_stage(&run->cfg->run);
    const char *out = st && st->file ? st->folder(&run->cfg->run) : "";
    char *dir = fs_join(run->cfg->run.log_dir, st ? st->name : "test"), *weights = what_to_test(&run->cfg->run, e);
    int r = -1;
    if (*out && integers_check_output(out, st, e)) {
        free(weights);
        weights = NULL;
    }
    if (weights && !runfolder_open(&f, dir, e)) r = test(&s, &f, &ints, &man, weights, run, e);
    if (r && man && e->kind != ERR_EXPECT) {
        Err ignored;
        manifest_save(man, "failed", (int)e->kind, &ignored);
    }
    manifest_free(man);
    integers_close(&ints);
    session_free(&s);
    runfolder_close(&f);
    free(weights);
    free(dir);
    return r;
}
