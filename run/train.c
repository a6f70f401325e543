/* run/train.c -- training: epochs, evaluations, checkpoints, and how to stop and go on.
 *
 * A run that is killed at any moment and started again ends with the bytes of an undisturbed one:
 *
 *   - A checkpoint is only taken between two updates. It holds the exact position, the meters' sums
 *     and the best evaluation so far; all that is random follows from (seed, purpose, epoch, index).
 *   - An evaluation follows the last update of its epoch, and the checkpoint follows the evaluation:
 *     it is either wholly in the state or made again (`due` below).
 *   - Rows of an epoch are written after its evaluation, and no interval row at its last update, so
 *     that cutting metrics back to a step is never ambiguous. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "run/checkpoint.h"
#include "run/clips.h"
#include "run/evaluate.h"
#include "run/export_key.h"
#include "run/log.h"
#include "run/manifest.h"
#include "run/mixup.h"
#include "run/modes.h"
#include "run/original_log.h"
#include "run/probe.h"
#include "run/profiling.h"
#include "run/progress.h"
#include "run/recipe.h"
#include "run/record.h"
#include "run/report.h"
#include "run/runfolder.h"
#include "run/signals.h"

#define EX_TEMPFAIL 75 /* stopped early on purpose, with a checkpoint */

typedef struct Trainer {
    Run *run;
    const RunOpts *o;
    Session s;
    RunFolder folder;
    Optim optim;
    TrainState st;
    Checkpoint ckpt;
    Manifest *manifest;
    Recorder rec;
    Progress progress;
    OriginalLog original;
    Meter last; /* of the last update */
    Mixup mixup; /* with mixup_enable */
    int64_t frozen; /* batches at the start that change no parameter */
    Str config_text;
    int64_t batches, whole; /* per epoch; as many without finetune_iters */
    double saved, curves; /* log_clock() of the last checkpoint, of the last picture */
    double epoch_s, epoch_wait; /* this process' part of the epoch */
    double interval_s, interval_wait;
    int64_t epoch_n, interval_n;
    double lr;     /* of the last update */
    bool stopping; /* a signal or max_time: save and end */
} Trainer;

/* ---- where it stands ---- */

static bool at_max_steps(const RunOpts *o, const TrainState *st)
{
    return o->max_steps > 0 && st->step >= o->max_steps;
}

/* The last update of an epoch (or of the run) has been made, its evaluation not yet. */
static bool due(const Trainer *t)
{
    if (t->st.step == 0 || t->st.val_step == t->st.step) return false;
    return t->st.batch == t->batches || at_max_steps(t->o, &t->st);
}

static bool finished(const RunOpts *o, const TrainState *st)
{
    return (st->epoch >= run_epochs(o) || at_max_steps(o, st)) && st->val_step == st->step;
}

/* Where the schedules stand. Epochs that finetune_iters cuts short keep their length for those that
 * move with each update: they count updates, as the original's do. */
static double fractional_epoch(const Trainer *t, int64_t batch)
{
    const Schedule *s = t->optim.schedule;
    const int64_t last = t->optim.opts->num_epochs;
    if (t->st.epoch >= last) /* extra_epoch: the last update's of the schedule */
        return (double)last - 1 / (double)t->whole;
    if (t->batches < t->whole && s->per_iteration && s->warmup)
        return (double)(t->st.epoch * t->batches + batch) / (double)t->whole;
    return (double)t->st.epoch + (double)batch / (double)t->whole;
}

/* The rate of the update that this batch of the epoch makes; its place for the optimizer's step. */
static double set_rate(Trainer *t, int64_t batch)
{
    const double epoch = fractional_epoch(t, batch);
    optim_wake(&t->optim, t->st.epoch * t->batches + batch);
    t->lr = optim_lr(&t->optim, -1, epoch);
    return epoch;
}

/* ---- saving ---- */

static int save(Trainer *t, Err *e)
{
    if (record_flush(&t->rec, false, e)) return -1;
    if (checkpoint_save(t->folder.dir, &t->ckpt, e)) return -1;
    t->saved = log_clock();
    return 0;
}

/* After an update. Where an evaluation is due the checkpoint comes after it, unless the process is
 * to end. */
static int save_if_wanted(Trainer *t, Err *e)
{
    const RunOpts *o = t->o;
    bool now = signals_take_save();
    if (!due(t))
        now |= (o->save_every_steps > 0 && t->st.step % o->save_every_steps == 0) ||
               (o->save_every_seconds > 0 && log_clock() - t->saved >= o->save_every_seconds);
    if (signals_stop() || (o->max_time > 0 && log_clock() - t->run->started >= o->max_time))
        t->stopping = true;
    if (!now && !t->stopping) return 0;
    return save(t, e);
}

/* ---- one update ---- */

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static int interval_row(Trainer *t, double grad_norm, Err *e)
{
    const MetricsRow row = {.step = t->st.step,
                            .epoch = t->st.epoch + 1,
                            .split = "train",
                            .meter = &t->st.interval,
                            .lr = t->lr,
                            .img_s = share((double)t->interval_n, t->interval_s),
                            .grad_norm = grad_norm,
                            .data_wait = share(t->interval_wait, t->interval_s)};
    int r = record_interval(&t->rec, &row, e);
    t->st.interval = (Meter){0};
    t->interval_s = t->interval_wait = 0;
    t->interval_n = 0;
    return r;
}

static void show(Trainer *t)
{
    const ProgressNow now = {.epoch = t->st.epoch + 1,
                             .batch = t->st.batch,
                             .step = t->st.step,
                             .meter = &t->st.train,
                             .lr = t->lr,
                             .img_s = share((double)t->epoch_n, t->epoch_s),
                             .wait = share(t->epoch_wait, t->epoch_s)};
    if (signals_take_status()) {
        Str s = {0};
        progress_line(&t->progress, &now, &s);
        log_plain(LOG_WARN, "status: %s", s.s); /* asked for, so shown at -q as well */
        str_free(&s);
    }
    progress_show(&t->progress, &now);
}

/* An interval row follows this update; none at the last one of an epoch, whose rows come after its
 * evaluation. */
static bool row_wanted(const Trainer *t, int64_t step)
{
    return step % t->o->log_interval == 0;
}

/* The optimizer's part, when the gradients of iter_size batches are there. Those left over at the end
 * of an epoch are forgotten, as in the original. */
static void apply_gradients(Trainer *t, bool want_norm, double *grad_norm)
{
    const OptimOpts *o = t->optim.opts;
    const double epoch = set_rate(t, t->st.batch);
    const int64_t seen = t->st.epoch * t->batches + t->st.batch;
    ParamStore *ps = model_store(t->s.model);
    const bool whole = ++t->st.summed == (o->iter_size > 1 ? o->iter_size : 1);
    const bool clips = whole && o->grad_clip > 0;
    if (want_norm || clips) *grad_norm = gradient_norm(ps);
    if (whole && seen >= t->frozen) {
        if (clips) gradient_clip(ps, *grad_norm, o->grad_clip);
        optim_step(&t->optim, ps, epoch);
        model_after_step(t->s.model);
    }
    if (whole || t->st.batch + 1 == t->batches) t->st.summed = 0;
}

static int update(Trainer *t, const Batch *b, double *grad_norm, Err *e)
{
    Meter m = {0};
    ASSERT(b->number == t->st.batch, "batch %" PRId64 " at %" PRId64, (int64_t)b->number, t->st.batch);
    if (!t->st.summed) store_zero_grads(model_store(t->s.model));
    if (t->o->mixup_enable) b = mixup_batch(&t->mixup, b);
    for (int k = 0; k < t->s.nwidths; k++) { /* gradients of all widths add up */
        const float *logits;
        Meter one = {0};
        if (model_train_batch(t->s.model, t->s.width[k], b, t->st.step, &one.loss, &logits, e))
            return err_prefix(e, "epoch %" PRId64 ", update %" PRId64, t->st.epoch + 1,
                              t->st.step + 1);
        topk_count(&t->s.topk, logits, b->label, b->n, t->s.classes, &one);
        one.loss *= (double)one.n;
        meter_add(&m, &one);
    }
    apply_gradients(t, row_wanted(t, t->st.step + 1), grad_norm);
    if (t->o->print_each_iter) progress_batch("train", b->number + 1, &m, &t->s.topk);
    meter_add(&t->st.train, &m);
    meter_add(&t->st.interval, &m);
    t->last = m;
    t->st.step++;
    t->st.batch = b->number + 1;
    return 0;
}

/* Trains to the end of the epoch, to max_steps, or until asked to stop. */
static int train_epoch(Trainer *t, Err *e)
{
    Loader *l = t->s.loader[SPLIT_TRAIN];
    const Batch *b;
    int r = 1;
    if (t->st.batch >= t->batches || at_max_steps(t->o, &t->st)) return 0;
    if (loader_seek(l, (uint64_t)t->st.epoch, t->st.batch, e)) return -1;
    t->epoch_s = t->epoch_wait = t->interval_s = t->interval_wait = 0;
    t->epoch_n = t->interval_n = 0;
    original_log_begin(&t->original, false);
    while (!t->stopping && t->st.batch < t->batches && !at_max_steps(t->o, &t->st)) {
        double start = log_clock(), waited = loader_wait_seconds(l), took, grad_norm = (double)NAN;
        if ((r = loader_next(l, &b, e)) != 1) break;
        if (update(t, b, &grad_norm, e)) return -1;
        took = log_clock() - start;
        waited = loader_wait_seconds(l) - waited;
        t->epoch_s += took;
        t->interval_s += took;
        t->epoch_wait += waited;
        t->interval_wait += waited;
        t->epoch_n += b->n;
        t->interval_n += b->n;
        progress_step(&t->progress, took);
        original_log_train(&t->original, t->st.epoch, b->number, t->batches, took, waited, &t->last);
        if (row_wanted(t, t->st.step) && !due(t) && interval_row(t, grad_norm, e)) return -1;
        show(t);
        if (save_if_wanted(t, e)) return -1;
    }
    if (r < 0) return -1;
    if (r == 0) t->st.batch = t->batches;
    return 0;
}

/* ---- the end of an epoch ---- */

static void log_epoch(const Trainer *t, const Meter *val)
{
    const TrainState *st = &t->st;
    Str s = {0};
    char eta[32];
    double left = progress_eta(&t->progress, st->step);
    str_printf(&s, "epoch %" PRId64 "/%" PRId64 "  train loss %.4f top1 %.2f", st->epoch + 1,
               run_epochs(t->o), meter_loss(&st->train), meter_percent(&st->train, 0));
    if (val)
        str_printf(&s, "  val loss %.4f top1 %.2f  best %.2f (epoch %" PRId64 ")", meter_loss(val),
                   meter_percent(val, 0), meter_percent(&st->best, 0), st->best_epoch);
    str_printf(&s, "  lr %.4g  %.0f img/s  wait %.0f%%", t->lr,
               share((double)t->epoch_n, t->epoch_s), 100 * share(t->epoch_wait, t->epoch_s));
    if (left > 0) str_printf(&s, "  ETA %s", duration_text(left, eta, sizeof eta));
    log_msg(LOG_INFO, "%s", s.s);
    str_free(&s);
    if (t->epoch_s > 10 && share(t->epoch_wait, t->epoch_s) > 0.3)
        log_msg(LOG_WARN,
                "%.0f%% of the epoch went into waiting for data: more data_loader_workers may help",
                100 * share(t->epoch_wait, t->epoch_s));
}

/* 0 done, 1 interrupted (nothing of it is in the state), -1. */
static int evaluate_now(Trainer *t, Err *e)
{
    TrainState *st = &t->st;
    Meter m;
    WidthMeters w;
    int r = evaluate(&t->s, &t->progress, &m, &w, e);
    if (!r) r = probe_end(&t->s, e); /* of the first one */
    if (r) return r;
    t->progress.evals_left -= t->progress.evals_left > 0;
    st->val = m;
    st->widths = w;
    st->val_step = st->step;
    if (st->best_step < 0 || m.right[0] > st->best.right[0]) {
        st->best = m;
        st->best_step = st->step;
        st->best_epoch = st->epoch + 1;
    }
    return 0;
}

static int end_epoch(Trainer *t, Err *e)
{
    TrainState *st = &t->st;
    const bool last = at_max_steps(t->o, st) || st->epoch + 1 >= run_epochs(t->o),
               whole = st->batch == t->batches;
    const bool evaluated = last || progress_evaluates(t->o, st->epoch);
    MetricsRow row;
    bool keep;
    if (evaluated && due(t)) {
        int r = evaluate_now(t, e);
        if (r < 0) return -1;
        if (r > 0) {
            t->stopping = true;
            return save(t, e);
        }
    }
    row = (MetricsRow){.step = st->step,
                       .epoch = st->epoch + 1,
                       .split = "epoch",
                       .meter = &st->train,
                       .lr = t->lr,
                       .img_s = share((double)t->epoch_n, t->epoch_s),
                       .grad_norm = (double)NAN,
                       .data_wait = share(t->epoch_wait, t->epoch_s)};
    if (record_epoch(&t->rec, &row, evaluated ? &st->val : NULL, &st->widths, e)) return -1;
    log_epoch(t, evaluated ? &st->val : NULL);
    if (evaluated) evaluate_print(&st->widths);
    if (whole) {
        st->epoch++;
        st->batch = 0;
        st->train = st->interval = (Meter){0};
    }
    keep = last || st->best_step == st->step ||
           (t->o->save_every_epochs > 0 && st->epoch % t->o->save_every_epochs == 0);
    if (keep && save(t, e)) return -1;
    if (record_flush(&t->rec, last || log_clock() - t->curves > 10, e)) return -1;
    if (last || log_clock() - t->curves > 10) t->curves = log_clock();
    return manifest_save(t->manifest, "running", -1, e);
}

static int loop(Trainer *t, Err *e)
{
    while (t->st.epoch < run_epochs(t->o) && !t->stopping) {
        if (recipe_epoch(&t->s, t->st.epoch, e)) return -1;
        if (t->o->show_params_every > 0 && t->st.batch == 0 &&
            t->st.epoch % t->o->show_params_every == 0)
            clips_print(t->s.model);
        if (train_epoch(t, e)) return -1;
        if (t->stopping) break;
        if (end_epoch(t, e)) return -1;
        if (t->stopping || finished(t->o, &t->st)) break;
        if (signals_stop()) { /* it came while saving */
            t->stopping = true;
            if (save(t, e)) return -1;
        }
    }
    return 0;
}

/* ---- start and end ---- */

/* A picture that cannot be written is no reason to call a finished training failed. */
static void write_report(Trainer *t)
{
    const PictureForm *form = picture_form_find(t->o->pictures);
    Err why = {0};
    if (!t->o->plots) return;
    if (t->s.model ? report_write(t->folder.dir, &t->s, form, &why)
                   : report_folder(t->folder.dir, form, &why))
        log_msg(LOG_WARN, "no report: %s", why.msg);
}

static int finish(Trainer *t, Err *e)
{
    Str line = {0};
    int r;
    meter_result(&t->st.val, &t->st.widths, &t->s.topk, manifest_seconds(t->manifest), &line);
    manifest_result(t->manifest, line.s, &t->st.val, &t->s.topk, t->st.step, t->st.best_step,
                    &t->st.best);
    r = run_check_expectation(t->run->cfg, meter_percent(&t->st.val, 0), e);
    if (manifest_save(t->manifest, "finished", r ? (int)ERR_EXPECT : 0, e)) r = -1;
    write_report(t);
    log_msg(LOG_INFO, "done: best top1 %.2f in epoch %" PRId64 "; everything is in %s",
            meter_percent(&t->st.best, 0), t->st.best_epoch, t->folder.dir);
    run_print_result(line.s);
    str_free(&line);
    return r ? r : export_file(t->run->cfg, t->folder.dir, e);
}

/* One argument as a shell takes it, quoted where it must be: topk=[1,5] is a pattern there. */
static void put_shell_word(const char *s, Str *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "@%+=:,./_-";
    if (*s && !s[strspn(s, plain)]) {
        str_puts(out, s);
        return;
    }
    str_puts(out, "'");
    for (; *s; s++) *s == '\'' ? str_puts(out, "'\\''") : str_putn(out, s, 1);
    str_puts(out, "'");
}

static int stopped(Trainer *t, Err *e)
{
    Str command = {0};
    t->run->signal = signals_stop();
    t->run->status = t->run->signal ? 128 + t->run->signal : EX_TEMPFAIL;
    for (int i = 0; i < t->run->argc; i++) {
        if (i) str_puts(&command, " ");
        put_shell_word(t->run->argv[i], &command);
    }
    log_msg(LOG_WARN, "%s: saved at epoch %" PRId64 ", update %" PRId64 "; to go on, type: %s",
            t->run->signal ? "stopped by a signal" : "max_time is over", t->st.epoch + 1,
            t->st.step, command.s);
    str_free(&command);
    return manifest_save(t->manifest, "stopped", t->run->status, e);
}

/* Killed between its last checkpoint and its record: what follows the one makes the other. */
static int recover_record(Trainer *t, Err *e)
{
    char *metrics = runfolder_path(&t->folder, "metrics.jsonl"),
         *svg = runfolder_path(&t->folder, "curves.svg");
    int r = t->o->plots && fs_exists(metrics) ? curves_write(metrics, svg, e) : 0;
    free(metrics);
    free(svg);
    return r ? -1 : finish(t, e);
}

/* A run that has nothing left to do says so and prints its line again. */
static int already_finished(Trainer *t, Err *e)
{
    char *path = runfolder_path(&t->folder, "run.json");
    const char *line;
    int r;
    t->manifest = manifest_open(path, true);
    free(path);
    topk_init(&t->s.topk, t->o->topk, t->o->ntopk);
    log_msg(LOG_INFO,
            "%s: this run is finished; give another log_dir, or a larger num_epochs, to train more",
            t->folder.dir);
    line = manifest_line(t->manifest);
    if (checkpoint_repair_best(t->folder.dir, &t->st, e)) return -1;
    if (!line) return recover_record(t, e);
    run_print_result(line);
    r = run_check_expectation(t->run->cfg, meter_percent(&t->st.val, 0), e);
    return r ? r : export_file(t->run->cfg, t->folder.dir, e);
}

static int prepare_net(Trainer *t, bool resume, char **init, Err *e)
{
    if (session_fits(t->run->cfg, e) || recipe_try(t->run->cfg, e)) return -1;
    if (session_open(&t->s, t->run->cfg, e) || export_check(&t->s, e) || probe_check(&t->s, e))
        return -1;
    t->s.trains = true;
    store_alloc_grads(model_store(t->s.model));
    if (optim_init(&t->optim, &t->run->cfg->optim, model_store(t->s.model), e)) return -1;
    session_config_text(t->run->cfg, &t->config_text);
    t->ckpt = (Checkpoint){.store = model_store(t->s.model),
                           .optim = &t->optim,
                           .input = &t->s.input,
                           .input_kind = t->run->cfg->data.input,
                           .config = t->config_text.s,
                           .state = &t->st};
    if (!resume && session_load_first(&t->s, e)) return -1;
    if (t->o->pretrained_file && *t->o->pretrained_file && !resume) {
        *init = weights_named(t->run->cfg, "pretrained_file", t->o->pretrained_file, e);
        if (!*init || session_load(&t->s, *init, e)) return -1;
    }
    if (!resume) t->st.epoch = t->o->start_epoch;
    if (resume && session_rules(&t->s, t->st.batch > 0 ? t->st.epoch : t->st.epoch - 1, e)) return -1;
    if (resume && checkpoint_resume(t->folder.dir, &t->ckpt, e) != 1) return -1;
    return 0;
}

/* What is counted in batches of the training set. */
static void prepare_recipe(Trainer *t)
{
    const RunOpts *o = t->o;
    const InputShape *in = &t->s.input;
    recipe_begin(&t->s, t->batches);
    t->frozen = o->freeze_steps > 0 ? o->freeze_steps : o->freeze_epochs * t->batches;
    if (o->mixup_enable)
        mixup_init(&t->mixup, o->mixup_alpha, o->random_seed, t->s.classes,
                   (size_t)in->c * (size_t)in->h * (size_t)in->w, o->batch_size);
}

/* What cannot be lowered, or has no room, is found before anything is put into the folder. The program is the one of
 * the first update; blended targets have one of their own, made when they come. */
static int prepare_program(Trainer *t, Err *e)
{
    const uint32_t images = t->s.data[SPLIT_TRAIN].count;
    const int batch = images < (uint32_t)t->o->batch_size ? (int)images : t->o->batch_size;
    size_t bytes;
    return t->o->mixup_enable ? model_plan_bytes(t->s.model, PH_TRAIN, t->s.width[0], batch, &bytes, e)
                              : model_prepare(t->s.model, PH_TRAIN, t->s.width[0], batch, e);
}

static int prepare_data(Trainer *t, Err *e)
{
    t->s.original = &t->original;
    if (session_data(&t->s, SPLIT_TRAIN, e) || session_data(&t->s, SPLIT_VAL, e)) return -1;
    t->batches = session_epoch_batches(&t->s);
    t->whole = loader_batches(t->s.loader[SPLIT_TRAIN]);
    t->run->cfg->optim.step_epochs =
        (double)t->o->batch_size / (double)t->s.data[SPLIT_TRAIN].count;
    if (t->st.batch > t->batches)
        return err_set(e, ERR_DATA,
                       "%s: the checkpoint stands at batch %" PRId64 " of an epoch of %" PRId64
                       ": the data set is not the one the run was started with",
                       t->folder.dir, t->st.batch, t->batches);
    prepare_recipe(t);
    progress_plan(&t->progress, t->o, t->st.epoch, t->batches,
                  loader_batches(t->s.loader[SPLIT_VAL]));
    return 0;
}

static int begin(Trainer *t, bool resume, const char *init, Err *e)
{
    char *manifest = runfolder_path(&t->folder, "run.json"),
         *resolved = runfolder_path(&t->folder, "resolved.yml");
    int r = runfolder_begin(&t->folder, t->run->cfg, e);
    if (!r) {
        t->manifest = manifest_open(manifest, true);
        manifest_begin(t->manifest, t->run->cfg, "train", t->run->argc, t->run->argv, resolved,
                       init ? init : t->s.first, t->st.step);
        manifest_data(t->manifest, "train", &t->s.data[SPLIT_TRAIN]);
        manifest_data(t->manifest, "val", &t->s.data[SPLIT_VAL]);
        r = manifest_save(t->manifest, "running", -1, e);
    }
    if (!r) r = record_open(&t->rec, &t->folder, &t->s, !resume ? -1 : t->st.step - due(t), e);
    if (!r) r = probe_begin(&t->s, t->folder.dir, e);
    free(manifest);
    free(resolved);
    if (r) return -1;
    log_msg(LOG_INFO, "%s: %s, %s, %u images, %" PRId64 " updates an epoch; log_dir %s",
            t->o->experiment, t->run->cfg->net.model, t->run->cfg->data.dataset,
            t->s.data[SPLIT_TRAIN].count, t->batches, t->folder.dir);
    if (resume)
        log_msg(LOG_INFO, "going on from epoch %" PRId64 ", update %" PRId64, t->st.epoch + 1,
                t->st.step);
    t->saved = t->curves = log_clock();
    set_rate(t, t->st.batch - due(t)); /* rows of an evaluation tell that of the last update */
    return 0;
}

static int train(Trainer *t, Err *e)
{
    char *init = NULL;
    int r, resume;
    if (runfolder_open(&t->folder, t->o->log_dir, e) ||
        runfolder_check_config(&t->folder, t->run->cfg, e))
        return -1;
    if ((resume = checkpoint_peek(t->folder.dir, &t->st, e)) < 0) return -1;
    if (resume && finished(t->o, &t->st)) return already_finished(t, e);
    signals_install();
    if (original_log_open(&t->original, t->run->cfg, e)) return -1;
    r = prepare_net(t, resume, &init, e) || prepare_data(t, e) || prepare_program(t, e) ||
        begin(t, resume, init, e) || loop(t, e);
    free(init);
    if (r) return -1;
    if (t->stopping) return stopped(t, e);
    profiling_log(&t->s);
    return finish(t, e);
}

int train_run(Run *run, Err *e)
{
    Trainer t = {.run = run, .o = &run->cfg->run, .folder = {.lock = -1}};
    int r;
    state_init(&t.st);
    r = train(&t, e);
    if (r && e->kind == ERR_DIVERGED)
        err_add(e, ERR_DIVERGED,
                "the last good state, of update %" PRId64
                " at the latest, stays in %s/checkpoints; a "
                "lower lr or a warm-up may help",
                t.st.step, t.o->log_dir);
    if (r && t.manifest && e->kind != ERR_EXPECT) {
        Err ignored;
        manifest_save(t.manifest, "failed", (int)e->kind, &ignored);
    }
    record_close(&t.rec);
    original_log_close(&t.original);
    manifest_free(t.manifest);
    optim_free(&t.optim);
    mixup_free(&t.mixup);
    probe_abandon(&t.s);
    session_free(&t.s);
    str_free(&t.config_text);
    runfolder_close(&t.folder);
    return r;
}
