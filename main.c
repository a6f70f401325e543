/* main.c -- qrun: trains, quantizes and evaluates convolutional networks on a CPU. See README.md. */
#include <stdlib.h>
#include <unistd.h>

#include "run/main.h"

/* libgomp's waiting threads spin for milliseconds by default. Where other processes compute too, they
 * burn the time slices of the threads they wait for: a training beside three others was measured at a
 * tenth of its speed, with a short spin at its fair share; alone the difference is within the noise.
 * The library reads its environment before main(), hence the program starts itself again, once. Who
 * sets either variable is left alone; results do not depend on it. */
static void wait_politely(char **argv)
{
    char self[4096]; /* by its own name, so that ps and top show that */
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || n <= 0) return;
    self[n] = 0;
    if (!setenv("GOMP_SPINCOUNT", "1000", 1)) execv(self, argv);
    /* here only when that is not possible: then as it is */
}

int main(int argc, char **argv)
{
    wait_politely(argv);
    return run_main(argc, argv);
}
