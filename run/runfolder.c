/* run/runfolder.c -- see runfolder.h. */
#include "run/runfolder.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fs.h"
#include "run/log.h"

#define RESOLVED "resolved.yml"

char *runfolder_path(const RunFolder *f, const char *name)
{
    return fs_join(f->dir, name);
}

/* PATH without its last name, in place; false when it has only one. */
static bool cut_name(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash || slash == path) return false;
    *slash = 0;
    return true;
}

char *runfolder_existing(const char *dir)
{
    char *p = xstrdup(dir);
    while (!fs_exists(p)) {
        if (cut_name(p)) continue;
        free(p);
        return xstrdup(dir[0] == '/' ? "/" : ".");
    }
    return p;
}

/* The folders from `dir` upwards that are longer than `kept`, as far as they are empty. */
static void remove_made(const char *dir, size_t kept)
{
    char *p = xstrdup(dir);
    while (strlen(p) > kept && (rmdir(p) == 0 || errno == ENOENT) && cut_name(p)) continue;
    free(p);
}

int runfolder_open(RunFolder *f, const char *dir, Err *e)
{
    char *checkpoints, *pictures, *there;
    long pid = 0;
    int r;
    *f = (RunFolder){.lock = -1, .unused = !fs_exists(dir)};
    if (fs_exists(dir) == 1) return err_set(e, ERR_RUN, "log_dir %s: is a file, not a folder", dir);
    there = runfolder_existing(dir);
    f->kept = str_eq(there, ".") ? 0 : strlen(there);
    free(there);
    if (fs_mkdirs(dir, e)) {
        remove_made(dir, f->kept);
        return -1;
    }
    f->dir = xstrdup(dir);
    r = fs_lock(dir, &f->lock, &pid, e);
    if (r != 1) f->lock = -1;
    if (r == 0)
        err_set(e, ERR_RUN,
                "log_dir %s: process %ld is working in it; wait for it, or give another log_dir",
                dir, pid);
    if (r != 1) {
        f->unused = false;
        runfolder_close(f);
        return -1;
    }
    fs_remove_temps(dir);
    checkpoints = runfolder_path(f, "checkpoints");
    if (fs_exists(checkpoints)) fs_remove_temps(checkpoints);
    pictures = runfolder_path(f, "pictures");
    if (fs_exists(pictures)) fs_remove_temps(pictures);
    free(pictures);
    free(checkpoints);
    return 0;
}

/* Whether the run here failed before its first checkpoint: there is nothing that another could spoil. */
static bool nothing_kept(const RunFolder *f)
{
    char *manifest = runfolder_path(f, "run.json"), *checkpoints = runfolder_path(f, "checkpoints");
    json_t *run = json_load_file(manifest, 0, NULL);
    const char *status = json_string_value(json_object_get(run, "status"));
    DIR *d = opendir(checkpoints);
    bool none = status && str_eq(status, "failed");
    for (const struct dirent *x; none && d && (x = readdir(d));) none = str_eq(x->d_name, ".") || str_eq(x->d_name, "..");
    if (d) closedir(d);
    json_decref(run);
    free(manifest);
    free(checkpoints);
    return none;
}

int runfolder_check_config(const RunFolder *f, const Config *c, Err *e)
{
    char *path = runfolder_path(f, RESOLVED);
    Str keys = {0};
    int r = 0;
    if (fs_exists(path)) {
        r = config_differs(c, path, &keys, e);
        if (r < 0)
            err_add(e, ERR_CONFIG,
                    "the run's own record of its configuration is damaged; without "
                    "that file it goes on unchecked");
        if (r == 1 && nothing_kept(f)) {
            log_msg(LOG_INFO, "log_dir %s: a run of another configuration failed here before its first checkpoint; it begins anew",
                    f->dir);
            r = 0;
        }
        if (r == 1)
            err_set(e, ERR_CONFIG,
                    "log_dir %s holds a run of another configuration; what differs: %s\n"
                    "give another log_dir=..., or remove the folder to start again",
                    f->dir, keys.s ? keys.s : "");
    }
    str_free(&keys);
    free(path);
    return r ? -1 : 0;
}

int runfolder_begin(RunFolder *f, const Config *c, Err *e)
{
    char *resolved = runfolder_path(f, RESOLVED), *log = runfolder_path(f, "log.txt");
    char *checkpoints = runfolder_path(f, "checkpoints");
    Str text = {0};
    int r = 0;
    f->unused = false;
    config_resolved(c, &text);
    if (!c->run.test_only) r = fs_mkdirs(checkpoints, e);
    if (!r) r = fs_write(resolved, text.s, text.len, e);
    if (!r) r = log_file(log, e);
    str_free(&text);
    free(checkpoints);
    free(resolved);
    free(log);
    return r;
}

void runfolder_close(RunFolder *f)
{
    if (!f->dir) return;
    if (f->unused) {
        char *lock = runfolder_path(f, ".lock");
        unlink(lock);
        remove_made(f->dir, f->kept);
        free(lock);
    }
    if (f->lock >= 0) fs_unlock(f->lock);
    free(f->dir);
    *f = (RunFolder){.lock = -1};
}
