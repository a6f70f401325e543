/* test/support/onnx_judge.c -- see test/onnx_judge.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "io/fs.h"
#include "run/log.h"
#include "test/onnx_judge.h"
#include "test/support/temp.h"

enum { NOT_INSTALLED = 77, NO_PROGRAM = 127 };

int judge_open(Judge *j)
{
    *j = (Judge){.dir = temp_folder("onnx")};
    return j->dir ? 0 : -1;
}

void judge_close(Judge *j)
{
    temp_remove(j->dir);
    for (int i = 0; i < j->n; i++) {
        free(j->c[i].name);
        free(j->c[i].model);
    }
    free(j->c);
    *j = (Judge){0};
}

const char *judge_add(Judge *j, const char *name)
{
    mem_grow(&j->c, &j->cap, (size_t)j->n + 1, sizeof *j->c);
    j->c[j->n] = (JudgeCase){xstrdup(name), xasprintf("%s/%s.onnx", j->dir, name), 0, 0};
    return j->c[j->n++].model;
}

void judge_allow(Judge *j, double atol, int flips)
{
    j->c[j->n - 1].atol = atol;
    j->c[j->n - 1].flips = flips;
}

static void put(const Judge *j, const char *what, const Tensor *t)
{
    char *path = xasprintf("%s/%s.%s.npy", j->dir, j->c[j->n - 1].name, what);
    Err e = {0};
    if (npy_write(path, t, &e)) fail_msg("%s", e.msg);
    free(path);
}

void judge_tensors(Judge *j, const Tensor *input, const Tensor *output)
{
    put(j, "in", input);
    put(j, "want", output);
}

/* Exit status of a shell command; what it says is in DIR/log. */
static int run(const Judge *j, const char *command)
{
    char *all = xasprintf("{ %s; } >'%s/log' 2>&1", command, j->dir);
    const int status = system(all);
    free(all);
    return status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *said(const Judge *j)
{
    char *path = xasprintf("%s/log", j->dir), *s;
    s = fs_read(path, 0, NULL, NULL);
    free(path);
    return s ? s : xstrdup("");
}

void judge_check(const Judge *j)
{
    /* python3 of the path may be another one than the package's */
    static const char *const python[] = {"python3", "/usr/bin/python3"};
    int status = NOT_INSTALLED;
    Str files = {0};
    for (int i = 0; i < j->n; i++) str_printf(&files, " '%s'", j->c[i].model);
    for (size_t i = 0; i < ARRAY_LEN(python); i++) {
        char *command = xasprintf("%s test/onnx/check.py%s", python[i], files.s ? files.s : "");
        status = run(j, command);
        free(command);
        if (status != NOT_INSTALLED && status != NO_PROGRAM) break;
    }
    str_free(&files);
    if (status == NOT_INSTALLED || status == NO_PROGRAM) {
        print_message("# python3-onnx is not installed\n");
        skip();
    }
    if (status != 0) {
        char *log = said(j);
        print_error("%s\n", log);
        free(log);
        fail_msg("the checker's exit status is %d", status);
    }
    print_message("# %d files pass the full check\n", j->n);
}

/* The log as comments of TAP. */
static void print_said(const char *log)
{
    for (const char *s = log; *s;) {
        const char *end = strchr(s, '\n');
        const int len = end ? (int)(end - s) : (int)strlen(s);
        print_message("# %.*s\n", len, s);
        s += len + (end != NULL);
    }
}

void judge_run(const Judge *j, const char *level)
{
    Str command = {0};
    char *log;
    int status;
    str_printf(&command, "node test/onnx/judge.mjs %s", level);
    for (int i = 0; i < j->n; i++)
        str_printf(&command, " '%s/%s=%g:%d'", j->dir, j->c[i].name, j->c[i].atol, j->c[i].flips);
    status = run(j, command.s);
    str_free(&command);
    log = said(j);
    print_said(log);
    free(log);
    if (status == NOT_INSTALLED || status == NO_PROGRAM) {
        print_message("# ONNX Runtime for node is not installed\n");
        skip();
    }
    if (status != 0) fail_msg("at level '%s' the exit status is %d", level, status);
}

/* ---- as tests ---- */

int judge_setup(void **state)
{
    static Judge j;
    *state = &j;
    log_set(LOG_WARN, NULL);
    return judge_open(&j);
}

int judge_teardown(void **state)
{
    judge_close(*state);
    return 0;
}

void judge_test_check(void **state)
{
    judge_check(*state);
}

void judge_test_all(void **state)
{
    judge_run(*state, "all");
}

void judge_test_disabled(void **state)
{
    judge_run(*state, "disabled");
}
