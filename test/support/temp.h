/* test/support/temp.h -- a folder of a test program's own. */
#ifndef TEST_SUPPORT_TEMP_H
#define TEST_SUPPORT_TEMP_H

/* A new empty folder qrun-NAME.XXXXXX in $TMPDIR or /tmp; the caller frees the path. NULL when it
 * cannot be made. */
char *temp_folder(const char *name);
/* Removes it with all that is in it, and frees the path; 0 on success. NULL: nothing to do. */
int temp_remove(char *dir);
/* For a group's set_up: a new folder in *dir, and no log lines from here on. 0, or -1. */
int temp_begin(char **dir, const char *name);

#endif
