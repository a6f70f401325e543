/* run/main.h -- the program behind main(). */
#ifndef RUN_MAIN_H
#define RUN_MAIN_H

/* Reads the command line, does what it says, prints faults. The exit status: 0 done; 1 failed; 2
 * usage or configuration; 3 data, checkpoint or image; 4 diverged; 5 an expectation did not hold;
 * 75 stopped early on purpose. Does not return when a signal ended the run: the process dies of
 * that signal. */
int run_main(int argc, char **argv);

#endif
