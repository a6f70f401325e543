/* run/check.c -- `qrun check`: would this run work, and what would it take? Trains nothing, writes
 * nothing.
 *
 * The time is estimated from three updates on real batches of a net that is thrown away afterwards.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "data/class_names.h"
#include "io/fs.h"
#include "run/checkpoint.h"
#include "run/commands.h"
#include "run/export_key.h"
#include "run/probe.h"
#include "run/progress.h"
#include "run/recipe.h"
#include "run/runfolder.h"
#include "run/session.h"
#include "run/which_net.h"

#define STEPS 3

typedef struct Check {
    Session s;
    Optim optim;
    Str out;
} Check;

static void say(Check *k, const char *what, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void say(Check *k, const char *what, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    str_printf(&k->out, "%-12s %s\n", what, text);
}

/* Whether FOLDER, the value of KEY, is there or can be made, and written to. */
static int check_writable_folder(const char *key, const char *folder, Err *e)
{
    char *dir = runfolder_existing(folder);
    int r = 0;
    if (fs_exists(dir) != 2)
        r = err_set(e, ERR_RUN, "%s %s: %s is a file, not a folder", key, folder, dir);
    else if (access(dir, W_OK | X_OK))
        r = err_set(e, ERR_RUN, "%s %s: %s: %s", key, folder, dir, strerror(errno));
    free(dir);
    return r;
}

/* Files beside those of the run folder: log_file is appended to, class_names is for a later predict. */
static int check_files(const Check *k, Err *e)
{
    const RunOpts *o = &k->s.cfg->run;
    Arena a = {0};
    int r = 0;
    if (fs_exists(o->log_file) == 1 && access(o->log_file, W_OK))
        r = err_set(e, ERR_RUN, "log_file: %s: %s", o->log_file, strerror(errno));
    else if (*o->log_file && fs_exists(o->log_file) != 1 && fs_check_writable(o->log_file, e))
        r = key_blame(k->s.cfg, "log_file", e);
    else if (*o->class_names && !class_names_read(o->class_names, k->s.classes, &a, e))
        r = key_blame(k->s.cfg, "class_names", e);
    else if (o->test_only && *o->dump_dir)
        r = check_writable_folder("dump_dir", o->dump_dir, e);
    arena_free(&a);
    return r;
}

static int check_net(Check *k, Err *e)
{
    const bool trains = !k->s.cfg->run.test_only;
    ParamStore *ps;
    size_t n = 0;
    if (trains && (session_fits(k->s.cfg, e) || recipe_try(k->s.cfg, e))) return -1;
    if (session_open(&k->s, k->s.cfg, e) || export_check(&k->s, e) || probe_check(&k->s, e) || check_files(k, e)) return -1;
    ps = model_store(k->s.model);
    store_alloc_grads(ps);
    if (optim_init(&k->optim, &k->s.cfg->optim, ps, e)) return -1;
    for (int i = 0; i < ps->n; i++)
        n += ps->p[i]->kind != PK_BUFFER ? tensor_len(&ps->p[i]->value) : 0;
    say(k, "net", "%s on %d x %d x %d, %d classes, %zu parameters", k->s.cfg->net.model,
        k->s.input.c, k->s.input.h, k->s.input.w, k->s.classes, n);
    return 0;
}

static int check_tested(Check *k, Err *e)
{
    char *path = weights_to_test(k->s.cfg, e);
    int r = path ? 0 : -1;
    if (!r && (!*path || !k->s.cfg->run.strict_load)) r = session_load_first(&k->s, e);
    if (!r && *path) r = session_load(&k->s, path, e);
    if (!r) say(k, "weights", "%s fits", *path ? path : "fp_pretrained_file or the import");
    free(path);
    return r;
}

static int check_weights(Check *k, Err *e)
{
    const char *given = k->s.cfg->run.pretrained_file;
    char *path;
    int r;
    if (k->s.cfg->run.test_only) return check_tested(k, e);
    if (session_load_first(&k->s, e)) return -1;
    if ((!given || !*given) && session_has_first(&k->s.cfg->run)) {
        say(k, "weights", "fp_pretrained_file or the import fits");
        return 0;
    }
    if (!given || !*given) {
        say(k, "weights", "initial values of seed %" PRIu64, k->s.cfg->run.random_seed);
        return 0;
    }
    if (!(path = weights_named(k->s.cfg, "pretrained_file", given, e))) return -1;
    if (!(r = session_load(&k->s, path, e))) say(k, "weights", "%s fits", path);
    free(path);
    return r;
}

static int check_data(Check *k, Err *e)
{
    static const char *const what[] = {[SPLIT_TRAIN] = "train data", [SPLIT_VAL] = "val data"};
    for (int i = k->s.cfg->run.test_only ? SPLIT_VAL : SPLIT_TRAIN; i <= SPLIT_VAL; i++) {
        if (session_data(&k->s, (Split)i, e)) return -1;
        say(k, what[i], "%u images, %d classes, %s", k->s.data[i].count, k->s.data[i].classes,
            k->s.data[i].where ? k->s.data[i].where : k->s.data[i].def->name);
    }
    return 0;
}

static int check_disk(Check *k, Err *e)
{
    enum { COPIES = 4 }; /* last, previous, best, and the one being written */
    const ParamStore *ps = model_store(k->s.model);
    struct statvfs v;
    char *dir = runfolder_existing(k->s.cfg->run.log_dir);
    double need = 0, have;
    int r = 0;
    for (int i = 0; i < ps->n; i++)
        need += (double)tensor_bytes(&ps->p[i]->value) * (1 + ps->p[i]->nslots);
    need *= COPIES;
    if (statvfs(dir, &v)) {
        r = err_set(e, ERR_RUN, "%s: %s", dir, strerror(errno));
    } else {
        have = (double)v.f_bavail * (double)v.f_frsize;
        if (have < need)
            r = err_set(e, ERR_RUN, "%s: %.1f MB are free, the checkpoints need %.1f MB", dir,
                        have * 1e-6, need * 1e-6);
        else
            say(k, "disk", "checkpoints %.1f MB, free %.0f MB in %s", need * 1e-6, have * 1e-6,
                dir);
    }
    free(dir);
    return r;
}

/* Can the run write there, and does it hold no run of another configuration? */
static int check_folder(Check *k, Err *e)
{
    const RunFolder folder = {.dir = (char *)(uintptr_t)k->s.cfg->run.log_dir, .lock = -1};
    if (check_writable_folder("log_dir", folder.dir, e)) return -1;
    return k->s.cfg->run.test_only ? 0 : runfolder_check_config(&folder, k->s.cfg, e);
}

/* Seconds of one update: the least of three after one that builds the programs. */
static int time_update(Check *k, double *seconds, Err *e)
{
    Loader *l = k->s.loader[SPLIT_TRAIN];
    const Batch *b;
    *seconds = 0;
    if (loader_seek(l, 0, 0, e)) return -1;
    for (int i = 0; i <= STEPS; i++) {
        const double start = log_clock();
        double loss, took;
        int r = loader_next(l, &b, e);
        if (r < 0) return -1;
        if (r == 0) break;
        store_zero_grads(model_store(k->s.model));
        if (model_train(k->s.model, 0, b->x, b->label, b->n, i, &loss, NULL, e)) return -1;
        optim_step(&k->optim, model_store(k->s.model), 0);
        model_after_step(k->s.model);
        took = log_clock() - start;
        if (i <= 1 || took < *seconds) *seconds = took;
    }
    return 0;
}

static int check_time(Check *k, Err *e)
{
    const RunOpts *o = &k->s.cfg->run;
    Progress p;
    double step;
    char text[32];
    if (o->test_only) return 0;
    if (time_update(k, &step, e)) return -1;
    progress_plan(&p, o, 0, session_epoch_batches(&k->s),
                  loader_batches(k->s.loader[SPLIT_VAL]));
    p.step_s = step;
    say(k, "time",
        "%.1f ms an update, %.0f img/s; %" PRId64 " updates and %" PRId64 " evaluations: about %s",
        step * 1e3, o->batch_size / step, p.total_steps, p.evals_left,
        duration_text(progress_eta(&p, 0), text, sizeof text));
    say(k, "memory", "%.1f MiB of activations, beside the data set",
        (double)model_arena_bytes(k->s.model) / 1048576);
    return 0;
}

int command_check(Cli *c, Err *e)
{
    Config cfg;
    Check k = {0};
    int r;
    if (cli_config(c, &cfg, NULL, e)) return -1;
    k.s.cfg = &cfg;
    say(&k, "config", "%s, mode %s, log_dir %s", cfg.run.config_name, mode_select(&cfg)->name,
        cfg.run.log_dir);
    r = check_net(&k, e) || check_weights(&k, e) || check_data(&k, e) || check_folder(&k, e) ||
                check_disk(&k, e) || check_time(&k, e)
            ? -1
            : 0;
    if (!r) say(&k, "ok", "nothing stands in the way");
    print_out(&k.out);
    optim_free(&k.optim);
    session_free(&k.s);
    config_free(&cfg);
    return r;
}
