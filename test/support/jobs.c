/* test/support/jobs.c -- see test/jobs.h. */
#include "test/jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int at_a_time(void)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 16 ? 16 : (int)n;
}

static void start(Job *job)
{
    FILE *f = tmpfile();
    ASSERT(f, "no temporary file");
    job->out = dup(fileno(f));
    fclose(f);
    fflush(NULL);
    job->pid = fork();
    ASSERT(job->pid >= 0, "no process for %s", job->arg);
    if (job->pid) return;
    if (dup2(job->out, STDOUT_FILENO) >= 0 && dup2(job->out, STDERR_FILENO) >= 0)
        execl("/proc/self/exe", "test", job->arg, (char *)NULL);
    _exit(127);
}

static void fill_up(Jobs *j)
{
    while (j->next < j->n && j->running < at_a_time()) {
        start(&j->job[j->next++]);
        j->running++;
    }
}

void jobs_start(Jobs *j, const char *const *arg, int n)
{
    *j = (Jobs){.job = xcalloc((size_t)n + 1, sizeof *j->job), .n = n};
    for (int i = 0; i < n; i++) j->job[i].arg = arg[i];
    fill_up(j);
}

static void collect(Job *job, int status, const struct rusage *use)
{
    char buf[4096];
    ssize_t got;
    job->done = true;
    job->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    job->cpu_s = (double)(use->ru_utime.tv_sec + use->ru_stime.tv_sec) +
                 (double)(use->ru_utime.tv_usec + use->ru_stime.tv_usec) * 1e-6;
    lseek(job->out, 0, SEEK_SET);
    while ((got = read(job->out, buf, sizeof buf - 1)) > 0) str_printf(&job->text, "%.*s", (int)got, buf);
    close(job->out);
}

const Job *jobs_wait(Jobs *j, int i)
{
    while (!j->job[i].done) {
        struct rusage use;
        int status, pid = wait4(-1, &status, 0, &use);
        ASSERT(pid > 0, "no process to wait for");
        for (int k = 0; k < j->next; k++)
            if (j->job[k].pid == pid && !j->job[k].done) {
                collect(&j->job[k], status, &use);
                j->running--;
            }
        fill_up(j);
    }
    return &j->job[i];
}

void jobs_free(Jobs *j)
{
    for (int i = 0; i < j->n; i++) str_free(&j->job[i].text);
    free(j->job);
}
