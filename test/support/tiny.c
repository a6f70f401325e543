/* test/support/tiny.c -- see tiny.h. */
#include "test/support/tiny.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/fs.h"
#include "run/log.h"
#include "run/modes.h"

enum { MAX_KEYS = 32 };

static int load(Config *c, const char *root, const char *name, const char *const *more, const char *last,
                Err *e)
{
    static const char *const fixed[] = {"synth_train=24", "synth_val=8",   "batch_size=8",  "num_epochs=2",
                                        "model=resnet20", "plots=false",   "tensorboard=false",
                                        "threads=2",      "log_interval=1"};
    char *o[MAX_KEYS];
    int n = 0, r;
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) o[n++] = xstrdup(fixed[i]);
    o[n++] = xasprintf("log_dir=%s/%s", root, name);
    for (; more && *more && n < MAX_KEYS - 1; more++) o[n++] = xstrdup(*more);
    if (last) o[n++] = xstrdup(last);
    r = config_load(c, "smoke", n, o, e);
    while (n) free(o[--n]);
    return r;
}

void tiny_load(Config *c, const char *root, const char *name, const char *const *more)
{
    Err e = {0};
    if (load(c, root, name, more, NULL, &e)) fail_msg("%s", e.msg);
}

/* What it prints on stdout is swallowed. */
static int run_silently(Config *c, int *status, Err *e)
{
    char *argv[] = {xstrdup("qrun"), NULL};
    Run run = {.cfg = c, .argc = 1, .argv = argv, .started = log_clock()};
    int out = dup(STDOUT_FILENO), r;
    assert_non_null(freopen("/dev/null", "w", stdout));
    r = train_run(&run, e);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    free(argv[0]);
    log_close();
    *status = run.status;
    return r;
}

int tiny_run(Config *c)
{
    Err e = {0};
    int status;
    if (run_silently(c, &status, &e)) fail_msg("%s", e.msg);
    return status;
}

void tiny_train(const char *root, const char *name, const char *const *more)
{
    char *why = tiny_fault(root, name, more);
    if (why) fail_msg("%s", why);
}

char *tiny_fault(const char *root, const char *name, const char *const *more)
{
    Config c;
    Err e = {0};
    int status = 0, r = load(&c, root, name, more, NULL, &e);
    if (!r) r = run_silently(&c, &status, &e);
    config_free(&c);
    return r ? xstrdup(e.msg) : NULL;
}

int tiny_train_in_pieces(const char *root, const char *name, const char *const *more)
{
    enum { MOST = 100 };
    for (int n = 1; n < MOST; n++) {
        Config c;
        Err e = {0};
        int status;
        if (load(&c, root, name, more, "max_time=0.000001", &e)) fail_msg("%s", e.msg);
        status = tiny_run(&c);
        config_free(&c);
        if (!status) return n;
    }
    fail_msg("%s: not done after %d starts", name, MOST);
    return 0;
}

char *tiny_file(const char *root, const char *name, const char *file, size_t *len)
{
    char *dir = fs_join(root, name), *path = fs_join(dir, file), *text;
    Err e = {0};
    text = fs_read(path, 0, len, &e);
    if (!text) fail_msg("%s", e.msg);
    free(dir);
    free(path);
    return text;
}
