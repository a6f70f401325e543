/* run/signals.h -- what the outside asks of a running job.
 *
 *   SIGINT, SIGTERM, SIGHUP  finish the step, save, then end by that signal, so that a script stops
 *   SIGINT once more         end at once; writes are atomic, so the last checkpoint is intact
 *   SIGUSR1                  a status line, and on
 *   SIGUSR2                  save now, and on
 *
 * A signal that was ignored at the start (nohup) stays ignored. Handlers only set flags, which are
 * the program's only mutable globals beside the console. */
#ifndef RUN_SIGNALS_H
#define RUN_SIGNALS_H

#include <stdbool.h>

void signals_install(void);
int signals_stop(void);         /* the signal that asked to stop, or 0 */
bool signals_take_status(void); /* SIGUSR1 came since the last call */
bool signals_take_save(void);   /* SIGUSR2 came since the last call */
void signals_die(int sig); /* restores the default action and raises: the process ends by `sig` */

#endif
