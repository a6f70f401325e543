/* engine/err.c -- see err.h. */
#include "engine/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static LogLevel the_level = LOG_INFO;
static LogSink the_sink;

static int vset(Err *e, ErrKind kind, size_t at, const char *fmt, va_list ap)
{
    if (!e) return -1;
    e->kind = kind;
    vsnprintf(e->msg + at, sizeof e->msg - at, fmt, ap);
    return -1;
}

int err_set(Err *e, ErrKind kind, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vset(e, kind, 0, fmt, ap);
    va_end(ap);
    return -1;
}

int err_at(Err *e, ErrKind kind, const char *file, int line, int col, const char *fmt, ...)
{
    va_list ap;
    int n;
    if (!e) return -1;
    n = line > 0 && col > 0 ? snprintf(e->msg, sizeof e->msg, "%s:%d:%d: error: ", file, line, col)
        : line > 0          ? snprintf(e->msg, sizeof e->msg, "%s:%d: error: ", file, line)
                            : snprintf(e->msg, sizeof e->msg, "%s: error: ", file);
    if (n < 0 || (size_t)n >= sizeof e->msg) n = 0;
    va_start(ap, fmt);
    vset(e, kind, (size_t)n, fmt, ap);
    va_end(ap);
    return -1;
}

int err_prefix(Err *e, const char *fmt, ...)
{
    va_list ap;
    char old[sizeof e->msg], head[1024];
    if (!e) return -1;
    memcpy(old, e->msg, sizeof old);
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    if (snprintf(e->msg, sizeof e->msg, "%s: %s", head, old) < 0) e->msg[0] = 0;
    return -1;
}

int err_add(Err *e, ErrKind kind, const char *fmt, ...)
{
    va_list ap;
    size_t n;
    if (!e) return -1;
    n = strlen(e->msg);
    if (n > 0 && n + 2 < sizeof e->msg) {
        e->msg[n++] = '\n';
        e->msg[n] = 0;
    }
    va_start(ap, fmt);
    vset(e, e->kind != ERR_NONE ? e->kind : kind, n, fmt, ap);
    va_end(ap);
    return -1;
}

void err_abort(const char *file, int line, const char *cond, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "qrun: internal error: %s:%d: '%s' does not hold: ", file, line, cond);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

void log_set(LogLevel level, LogSink sink)
{
    the_level = level;
    the_sink = sink;
}

LogLevel log_level(void)
{
    return the_level;
}

void log_msg(LogLevel level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug", "trace"};
    char text[4096];
    va_list ap;
    if (level > the_level) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (the_sink)
        the_sink(level, text);
    else
        fprintf(stderr, "%s: %s\n", names[level], text);
}
