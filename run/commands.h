/* run/commands.h -- the sub-commands: one row each, in cli.c; help is printed from the rows. */
#ifndef RUN_COMMANDS_H
#define RUN_COMMANDS_H

#include "run/log.h"
#include "run/modes.h"

/* One call of the program, after its options were read. */
typedef struct Cli {
    int argc; /* the whole command line */
    char **argv;
    int nargs; /* what follows the command (or FILE and what follows it) */
    char **args;
    LogOpts log;
    bool json;            /* --json */
    const char *max_time; /* --max-time, or NULL */
    const char *after;    /* --after, or NULL */
    Run run;              /* filled in by commands that train or test */
} Cli;

enum { CMD_HIDDEN = 1 /* for the build, not for people */, CMD_JSON = 2 /* takes --json */, CMD_AFTER = 4 /* takes --after */ };

typedef struct Command {
    const char *name, *args, *doc;
    int (*run)(Cli *c, Err *e); /* 0, or -1 with `e` */
    int flags;                  /* CMD_... */
} Command;

extern const Command commands[]; /* ended by a NULL name */
const Command *command_find(const char *name);

/* A fault of the command line: fills `e` and adds the line that names --help. */
int usage_fault(Err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* FILE [KEY=VALUE]... of this call, with `more` (may be NULL) as the last override. */
int cli_config(const Cli *c, Config *cfg, const char *more, Err *e);

void help_main(Str *out);
void help_command(const Command *c, Str *out);
void version_text(bool verbose, Str *out);

/* Prints and forgets; a closed stdout is a quiet end of output. */
void print_out(Str *s);

int command_run(Cli *c, Err *e);
int command_train(Cli *c, Err *e);
int command_test(Cli *c, Err *e);
int command_help(Cli *c, Err *e);
int command_show(Cli *c, Err *e);
int command_list(Cli *c, Err *e);
int command_path(Cli *c, Err *e);
int command_docs(Cli *c, Err *e);
int command_summary(Cli *c, Err *e);
int command_profile(Cli *c, Err *e);
int command_check(Cli *c, Err *e);
int command_predict(Cli *c, Err *e);
int command_compare(Cli *c, Err *e);
int command_inspect(Cli *c, Err *e);
int command_report(Cli *c, Err *e);
int command_diff(Cli *c, Err *e);
int command_convert(Cli *c, Err *e);
int command_verify(Cli *c, Err *e);

#endif
