/* run/test.c -- test_only: evaluate one checkpoint, as it is or as a network of whole numbers. Writes
 * below log_dir/<test or the integer stage> and touches nothing of a training. */
#include <stdlib.h>

#include "io/fs.h"
#include "run/bn_calib.h"
#include "run/checkpoint.h"
#include "run/clips.h"
#include "run/dump.h"
#include "run/evaluate.h"
#include "run/integer.h"
#include "run/export_key.h"
#include "run/log.h"
#include "run/manifest.h"
#include "run/modes.h"
#include "run/probe.h"
#include "run/profiling.h"
#include "run/runfolder.h"
#include "run/signals.h"
#include "run/which_net.h"

char *weights_to_test(const Config *cfg, Err *e)
{
    const RunOpts *o = &cfg->run;
    char *own = checkpoint_path(o->log_dir, CKPT_BEST);
    const bool trained = fs_exists(own) != 0;
    free(own);
    if (o->pretrained_file && *o->pretrained_file) {
        if (trained && !str_eq(o->pretrained_file, o->log_dir))
            log_msg(LOG_INFO,
                    "testing pretrained_file; for the net trained in log_dir: pretrained_file=%s",
                    o->log_dir);
        return weights_named(cfg, "pretrained_file", o->pretrained_file, e);
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
    if (session_open(s, cfg, e) || export_check(s, e) || probe_check(s, e)) return -1;
    if ((!*weights || !cfg->run.strict_load) && session_load_first(s, e)) return -1;
    if (*weights && session_load(s, weights, e)) return -1;
    profiling_log(s);
    return calibrate && (session_data(s, SPLIT_TRAIN, e) || bn_calibrate(s, e)) ? -1 : 0;
}

/* One test. */
typedef struct Test {
    Run *run;
    Session s;
    const IntStage *stage; /* NULL: the net as it is */
    Integers ints;
    Dump dump;
    RunFolder folder;
    Manifest *man;
    char *weights;
} Test;

static const char *mode_name(const Test *t)
{
    return t->stage ? t->stage->name : "test";
}

/* The folder the user wants the stage's files in; "": the test's own. */
static const char *wanted_folder(const Test *t)
{
    return t->stage && t->stage->file ? t->stage->folder(&t->run->cfg->run) : "";
}

/* Where the files named by the configuration go can be written. */
static int check_output(const Test *t, Err *e)
{
    const char *folder = wanted_folder(t), *dump = t->run->cfg->run.dump_dir;
    if (*folder && integers_check_output(folder, t->stage, e))
        return key_blame(t->run->cfg, t->stage->folder_key, e);
    if (*dump && dump_check(dump, e)) return key_blame(t->run->cfg, "dump_dir", e);
    return 0;
}

/* The network of whole numbers instead of the model. */
static int use_integers(Test *t, Err *e)
{
    Session *s = &t->s;
    const char *weights = *t->weights ? t->weights : s->first;
    if (!t->stage) return 0;
    if (integers_check_loaded(s->model, t->stage, weights, e) ||
        integers_open(&t->ints, s->model, t->stage, session_eval_batch(s), e))
        return key_blame(s->cfg, t->stage->name, e);
    s->ints = &t->ints;
    return 0;
}

static int write_integers(Test *t, Err *e)
{
    const ExportOpts o = {.net = t->s.cfg->net.model, .weights = t->weights, .input = &t->s.input};
    const char *folder = *wanted_folder(t) ? wanted_folder(t) : t->folder.dir;
    return t->stage && t->stage->file ? integers_write(&t->ints, folder, t->stage, &o, e) : 0;
}

static int use_dump(Test *t, Err *e)
{
    const char *dir = t->run->cfg->run.dump_dir;
    if (!*dir) return 0;
    if (dump_open(&t->dump, &t->s, dir, e)) return key_blame(t->run->cfg, "dump_dir", e);
    t->s.dump = &t->dump;
    return 0;
}

static int report(Test *t, const Meter *m, const WidthMeters *w, Err *e)
{
    Session *s = &t->s;
    Str line = {0};
    int r;
    if (s->ints && s->ints->compared)
        log_msg(LOG_INFO, "%lld of %lld logits differ from the simulated net's, by at most %d",
                (long long)s->ints->differ, (long long)s->ints->compared, s->ints->largest);
    clips_print(s->model);
    evaluate_print(w);
    meter_result(m, w, &s->topk, manifest_seconds(t->man), &line);
    manifest_result(t->man, line.s, m, &s->topk, 0, -1, NULL);
    r = run_check_expectation(t->run->cfg, meter_percent(m, 0), e);
    if (manifest_save(t->man, "finished", r ? (int)ERR_EXPECT : 0, e)) r = -1;
    run_print_result(line.s);
    str_free(&line);
    if (!r && s->dump) r = dump_close(s->dump, e);
    if (!r) r = probe_end(s, e);
    return r ? r : export_session(s, t->weights, e);
}

static int stop(Test *t, Err *e)
{
    t->run->signal = signals_stop();
    t->run->status = 128 + t->run->signal;
    log_msg(LOG_WARN, "stopped by a signal before the end of the test");
    return manifest_save(t->man, "stopped", t->run->status, e);
}

static void open_manifest(Test *t)
{
    const char *weights = t->weights;
    char *json = runfolder_path(&t->folder, "run.json");
    char *resolved = runfolder_path(&t->folder, "resolved.yml");
    if (!*weights && t->s.first) weights = t->s.first;
    t->man = manifest_open(json, false);
    manifest_begin(t->man, t->run->cfg, mode_name(t), t->run->argc, t->run->argv, resolved, weights,
                   0);
    manifest_data(t->man, "val", &t->s.data[SPLIT_VAL]);
    free(json);
    free(resolved);
}

static int test(Test *t, Err *e)
{
    Session *s = &t->s;
    Progress p;
    Meter m;
    WidthMeters w;
    int r;
    if (load_net(s, t->run->cfg, t->weights, e) || use_integers(t, e)) return -1;
    if (session_data(s, SPLIT_VAL, e) || runfolder_begin(&t->folder, t->run->cfg, e)) return -1;
    if (write_integers(t, e) || use_dump(t, e) || probe_begin(s, t->folder.dir, e)) return -1;
    open_manifest(t);
    signals_install();
    p = (Progress){.eval_batches = loader_batches(s->loader[SPLIT_VAL]), .last_shown = log_clock()};
    r = evaluate(s, &p, &m, &w, e);
    if (r < 0) return -1;
    return r > 0 ? stop(t, e) : report(t, &m, &w, e);
}

int test_run(Run *run, Err *e)
{
    Test t = {.run = run, .folder = {.lock = -1}, .stage = int_stage(&run->cfg->run)};
    char *dir = fs_join(run->cfg->run.log_dir, mode_name(&t));
    int r = -1;
    t.weights = weights_to_test(run->cfg, e);
    if (t.weights && !check_output(&t, e) && !runfolder_open(&t.folder, dir, e)) r = test(&t, e);
    if (r && t.man && e->kind != ERR_EXPECT) {
        Err ignored;
        manifest_save(t.man, "failed", (int)e->kind, &ignored);
    }
    manifest_free(t.man);
    dump_abandon(&t.dump);
    probe_abandon(&t.s);
    integers_close(&t.ints);
    session_free(&t.s);
    runfolder_close(&t.folder);
    free(t.weights);
    free(dir);
    return r;
}
