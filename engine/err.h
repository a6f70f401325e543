/* engine/err.h -- errors as values, assertions, and the one log function the engine may call.
 *
 * Three kinds of fault (see docs/architecture.md):
 *   1. the user's (config, file, data): functions return -1 with an Err filled in; only main prints
 * it;
 *   2. ours: ASSERT, kept in release builds;
 *   3. out of memory: xmalloc aborts. */
#ifndef ENGINE_ERR_H
#define ENGINE_ERR_H

#include <stdarg.h>
#include <stddef.h>

/* Also the exit status of the process. */
typedef enum ErrKind {
    ERR_NONE = 0,
    ERR_RUN = 1,      /* I/O, locked folder, anything else at run time */
    ERR_CONFIG = 2,   /* command line or configuration; nothing was started */
    ERR_DATA = 3,     /* data set, checkpoint or image missing or damaged */
    ERR_DIVERGED = 4, /* training produced a non-finite loss */
    ERR_EXPECT = 5    /* an expectation, diff or verification did not hold */
} ErrKind;

typedef struct Err {
    ErrKind kind;
    char msg[4096]; /* one line per fault, no trailing newline */
} Err;

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Fills `e` (replacing what it held) and returns -1, so that `return err_set(...)` reads well.
 * `e` may be NULL when the caller only wants the -1. */
int err_set(Err *e, ErrKind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same with a place: "FILE:LINE:COL: error: ..."; line or col 0 are left out. */
int err_at(Err *e, ErrKind kind, const char *file, int line, int col, const char *fmt, ...)
    PRINTF_LIKE(6, 7);

/* Puts "text: " in front of the message; keeps the kind; returns -1. */
int err_prefix(Err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Appends a further line (configuration errors are all reported at once); returns -1. */
int err_add(Err *e, ErrKind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Prints the place and the values, then aborts. For faults of the program only. */
_Noreturn void err_abort(const char *file, int line, const char *cond, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
#define ASSERT(cond, ...)                                                                          \
    do {                                                                                           \
        if (!(cond)) err_abort(__FILE__, __LINE__, #cond, __VA_ARGS__);                            \
    } while (0)

/* Levels of the console log. The level is the one mutable global of the program. */
typedef enum LogLevel { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE } LogLevel;

/* Where log lines go; run/log.c installs the console. The default prints "level: text" on stderr.
 */
typedef void (*LogSink)(LogLevel level, const char *text);
void log_set(LogLevel level, LogSink sink);
LogLevel log_level(void);
void log_msg(LogLevel level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
