/* run/log.c -- see log.h. */
#include "run/log.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name, *color;
} levels[] = {
    {"error", "\033[1;31m"}, {"warning", "\033[33m"}, {"info", "\033[32m"},
    {"debug", "\033[36m"},   {"trace", "\033[2m"},
};

static struct {
    pthread_mutex_t lock;
    LogLevel level;
    bool color, json, live, progress;
    bool line_open; /* a progress line stands on the terminal without its newline */
    FILE *file;
} console = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO, .progress = true};

double log_unix_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double log_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *log_iso_time(double unix_time, char *buf)
{
    time_t s = (time_t)unix_time;
    struct tm tm;
    gmtime_r(&s, &tm);
    strftime(buf, 24, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return buf;
}

static bool env_set(const char *name)
{
    const char *v = getenv(name);
    return v && *v;
}

/* no-color.org and the CLICOLOR convention; an explicit --color wins over both. */
static bool color_wanted(When w)
{
    const char *term = getenv("TERM"), *force = getenv("CLICOLOR_FORCE");
    if (w != WHEN_AUTO) return w == WHEN_ALWAYS;
    if (env_set("NO_COLOR")) return false;
    if (force && *force && strcmp(force, "0") != 0) return true;
    return isatty(STDERR_FILENO) && !(term && !strcmp(term, "dumb"));
}

static bool live_wanted(When w)
{
    const char *term = getenv("TERM");
    return w != WHEN_NEVER && isatty(STDERR_FILENO) && !(term && !strcmp(term, "dumb"));
}

static void clear_live(void)
{
    if (!console.line_open) return;
    fputs("\r\033[K", stderr);
    console.line_open = false;
}

static void put_json(FILE *f, const char *stamp, LogLevel level, const char *text)
{
    json_t *o =
        json_pack("{s:s, s:s, s:s}", "time", stamp, "level", levels[level].name, "text", text);
    char *s = o ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    fprintf(f, "%s\n", s ? s : "{}"); /* "{}": the text is not UTF-8 */
    free(s);
    json_decref(o);
}

static void put_line(FILE *f, bool color, const char *stamp, LogLevel level, const char *text)
{
    if (color)
        fprintf(f, "\033[2m%s\033[0m %s%s\033[0m %s\n", stamp, levels[level].color,
                levels[level].name, text);
    else
        fprintf(f, "%s %s %s\n", stamp, levels[level].name, text);
}

static void sink(LogLevel level, const char *text)
{
    char stamp[24];
    log_iso_time(log_unix_time(), stamp);
    pthread_mutex_lock(&console.lock);
    if (level <= console.level) {
        clear_live();
        if (console.json)
            put_json(stderr, stamp, level, text);
        else
            put_line(stderr, console.color, stamp, level, text);
        fflush(stderr);
    }
    if (console.file) {
        put_line(console.file, false, stamp, level, text);
        fflush(console.file);
    }
    pthread_mutex_unlock(&console.lock);
}

void log_open(const LogOpts *o)
{
    console.level = o->level;
    console.color = color_wanted(o->color);
    console.json = o->json;
    console.progress = o->progress != WHEN_NEVER && o->level >= LOG_INFO;
    console.live = console.progress && !o->json && live_wanted(o->progress);
    log_set(o->level > LOG_INFO ? o->level : LOG_INFO, sink);
}

int log_file(const char *path, Err *e)
{
    FILE *f = fopen(path, "ae");
    if (!f) return err_set(e, ERR_RUN, "%s: cannot write: %s", path, strerror(errno));
    pthread_mutex_lock(&console.lock);
    if (console.file) fclose(console.file);
    console.file = f;
    pthread_mutex_unlock(&console.lock);
    return 0;
}

void log_plain(LogLevel level, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (console.json) {
        sink(level, text);
        return;
    }
    pthread_mutex_lock(&console.lock);
    if (level <= console.level) {
        clear_live();
        fprintf(stderr, "%s\n", text);
        fflush(stderr);
    }
    if (console.file && level <= LOG_INFO) {
        fprintf(console.file, "%s\n", text);
        fflush(console.file);
    }
    pthread_mutex_unlock(&console.lock);
}

void log_err(const Err *e)
{
    const char *s = e->msg;
    while (*s) {
        int n = (int)strcspn(s, "\n");
        char line[sizeof e->msg];
        snprintf(line, sizeof line, "%.*s", n, s);
        /* configuration errors name their place and say "error" themselves; further lines are hints
         */
        log_plain(LOG_ERROR, "%s%s",
                  s != e->msg || strstr(line, ": error: ") ? "" : "qrun: error: ", line);
        s += n;
        s += *s == '\n';
    }
}

void log_close(void)
{
    pthread_mutex_lock(&console.lock);
    clear_live();
    fflush(stderr);
    if (console.file) fclose(console.file);
    console.file = NULL;
    pthread_mutex_unlock(&console.lock);
}

bool log_is_live(void)
{
    return console.live;
}

bool log_wants_progress(void)
{
    return console.progress;
}

static int terminal_width(void)
{
    struct winsize w;
    const char *columns = getenv("COLUMNS");
    if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col > 0) return w.ws_col;
    return columns && atoi(columns) > 0 ? atoi(columns) : 80;
}

void log_live(const char *text)
{
    if (!console.live) return;
    pthread_mutex_lock(&console.lock);
    fprintf(stderr, "\r%.*s\033[K", terminal_width() - 1, text);
    fflush(stderr);
    console.line_open = true;
    pthread_mutex_unlock(&console.lock);
}
