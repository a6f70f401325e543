/* run/log.h -- the console: levels, colours, time stamps, the redrawn progress line, and log.txt.
 *
 * Everything here goes to stderr; stdout belongs to results. Lines look like
 *   2026-01-31T12:00:00Z info train: ...
 * A carriage return is only ever written to a terminal. LogSink (engine/err.h) carries no argument,
 * so the console is one static object inside log.c; lines may come from several threads. */
#ifndef RUN_LOG_H
#define RUN_LOG_H

#include <stdbool.h>

#include "engine/err.h"

typedef enum When { WHEN_AUTO, WHEN_ALWAYS, WHEN_NEVER } When;

typedef struct LogOpts {
    LogLevel level; /* of the console; log.txt always gets at least LOG_INFO */
    When color,
        progress; /* auto: only on a terminal; colour also heeds NO_COLOR, TERM, CLICOLOR_FORCE */
    bool json;    /* one JSON object a line instead of text */
} LogOpts;

void log_open(const LogOpts *o);        /* installs itself as the engine's sink */
int log_file(const char *path, Err *e); /* from now on appends to `path` too */
void log_plain(LogLevel level, const char *fmt, ...)
    PRINTF_LIKE(2, 3);      /* a line without stamp and level */
void log_err(const Err *e); /* what ends the program: every line of the message */
void log_close(void);

/* True when progress is to be redrawn in place; otherwise the caller logs a plain line now and
 * then. */
bool log_is_live(void);
bool log_wants_progress(void);
void log_live(const char *text); /* replaces the progress line; cut to the terminal's width */

/* "2026-01-31T12:00:00Z" of a Unix time; buf has at least 24 bytes. Returns buf. */
const char *log_iso_time(double unix_time, char *buf);
double log_unix_time(void);
double log_clock(void); /* seconds of a monotonic clock */

#endif
