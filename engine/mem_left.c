/* engine/mem_left.c -- how much memory a program may still ask for.
 *
 * Linux grants more than there is and ends the process when it is used, in the middle of a step and without a word;
 * so what is large is compared with this number before it is allocated. */
#include "engine/mem.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* "Name:  1234 kB" of /proc/meminfo, in bytes; 0 where it is not there. */
static uint64_t meminfo(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    uint64_t kb = 0;
    if (at) sscanf(at + strlen(name), ": %" SCNu64, &kb);
    return kb * 1024;
}

static size_t read_small(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "r");
    const size_t n = f ? fread(buf, 1, size - 1, f) : 0;
    buf[n] = 0;
    if (f) fclose(f);
    return n;
}

size_t mem_left(void)
{
    char text[4096];
    uint64_t left = UINT64_MAX, limit;
    if (read_small("/proc/meminfo", text, sizeof text) && strstr(text, "MemAvailable"))
        left = meminfo(text, "MemAvailable") + meminfo(text, "SwapFree");
    /* A container's limit; what its use counts includes caches that give way, so only the limit is compared. */
    if (read_small("/sys/fs/cgroup/memory.max", text, sizeof text) && sscanf(text, "%" SCNu64, &limit) == 1 && limit < left)
        left = limit;
    return left > SIZE_MAX ? SIZE_MAX : (size_t)left;
}
