/* test/support/temp.c -- see temp.h. */
#include "test/support/temp.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/mem.h"

char *temp_folder(const char *name)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = xasprintf("%s/qrun-%s.XXXXXX", tmp && *tmp ? tmp : "/tmp", name);
    if (mkdtemp(dir)) return dir;
    free(dir);
    return NULL;
}

int temp_remove(char *dir)
{
    char *command = dir ? xasprintf("rm -rf '%s'", dir) : NULL;
    const int r = command ? system(command) : 0;
    if (r) fprintf(stderr, "# %s stays\n", dir);
    free(command);
    free(dir);
    return r;
}

static void say_nothing(LogLevel level, const char *text)
{
    (void)level;
    (void)text;
}

int temp_begin(char **dir, const char *name)
{
    log_set(LOG_ERROR, say_nothing);
    return (*dir = temp_folder(name)) ? 0 : -1;
}
