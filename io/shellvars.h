/* io/shellvars.h -- assignments of a shell file, read without a shell: nothing is ever executed.
 *
 * Understood: comments, `name=value`, `name+=value`, `export name=value`, quotes of both kinds,
 * backslashes, `$name` and `${name}` of variables assigned before or, for names without small
 * letters, of the environment. Anything else is an error with its place. */
#ifndef IO_SHELLVARS_H
#define IO_SHELLVARS_H

#include "engine/mem.h"

/* A text whose characters remember where they were written. */
typedef struct ShellText {
    char *s; /* ends with a NUL; line and col have len entries */
    int *line, *col;
    size_t len, cap;
} ShellText;

typedef struct ShellVar {
    char *name;
    ShellText value;
    int line, col;  /* of its last assignment */
    bool undefined; /* its value names a variable that nobody knows */
    bool used;      /* by the value of another one */
} ShellVar;

typedef struct ShellFile {
    const char *file;
    ShellVar *var;
    size_t nvar, cap;
} ShellFile;

typedef struct ShellWord {
    const char *s;
    int line, col;
} ShellWord;

/* -1 with `e`: ERR_CONFIG, also for a missing file. Release with shell_free in either case. */
int shell_read(ShellFile *f, const char *path, Err *e);
void shell_free(ShellFile *f);
const ShellVar *shell_get(const ShellFile *f, const char *name);
/* The value, cut at blanks as the shell does it; strings and list live in `a`. How many. */
size_t shell_words(const ShellVar *v, Arena *a, ShellWord **out);

#endif
