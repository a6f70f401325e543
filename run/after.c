/* run/after.c -- see after.h. The kernel tells when a process has ended; where it cannot (before
 * Linux 5.3), once a second it is asked. */
#include "run/after.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static bool alive(pid_t pid)
{
    return kill(pid, 0) == 0 || errno == EPERM;
}

int after_process(const char *text, bool *waited, Err *e)
{
    char *end;
    const long number = strtol(text, &end, 10);
    const pid_t pid = (pid_t)number;
    int fd;
    *waited = false;
    if (end == text || *end || number < 1 || number > INT_MAX)
        return err_set(e, ERR_CONFIG,
                       "--after: '%s' is no process number; expected a whole number such as %ld",
                       text, (long)getppid());
    if (pid == getpid())
        return err_set(e, ERR_CONFIG, "--after: %ld is this process itself", number);
    if (!alive(pid)) return 0;
    *waited = true;
    log_msg(LOG_INFO, "waiting for process %ld to end", number);
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        while (poll(&p, 1, -1) < 0 && errno == EINTR) continue;
        close(fd);
        return 0;
    }
    while (alive(pid)) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    return 0;
}
