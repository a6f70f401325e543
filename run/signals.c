/* run/signals.c -- see signals.h. */
#include "run/signals.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t stop_flag, status_flag, save_flag;

static void on_stop(int sig)
{
    if (stop_flag && sig == SIGINT) { /* asked twice: both calls are async-signal-safe */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (!stop_flag) stop_flag = sig;
}

static void on_status(int sig)
{
    (void)sig;
    status_flag = 1;
}

static void on_save(int sig)
{
    (void)sig;
    save_flag = 1;
}

static void install(int sig, void (*handler)(int))
{
    struct sigaction a = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    sigemptyset(&a.sa_mask);
    if (sigaction(sig, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
    sigaction(sig, &a, NULL);
}

void signals_install(void)
{
    install(SIGINT, on_stop);
    install(SIGTERM, on_stop);
    install(SIGHUP, on_stop);
    install(SIGUSR1, on_status);
    install(SIGUSR2, on_save);
}

int signals_stop(void)
{
    return stop_flag;
}

bool signals_take_status(void)
{
    bool was = status_flag;
    status_flag = 0;
    return was;
}

bool signals_take_save(void)
{
    bool was = save_flag;
    save_flag = 0;
    return was;
}

void signals_die(int sig)
{
    sigset_t set;
    signal(sig, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, sig);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    raise(sig);
}
