/* io/gz.c -- see gz.h. zlib checks the CRC of every member; what is left to us is to ask for its
 * verdict, because gzread hands out the bytes of a cut stream without complaint. */
#include "io/gz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define GZ_STEP (1u << 20)

char *gz_read(const char *path, size_t limit, size_t *len, Err *e)
{
    gzFile f = gzopen(path, "rb");
    char *buf = NULL;
    size_t n = 0, cap = 0;
    int code = Z_OK;
    if (!f) {
        err_set(e, ERR_DATA, "%s: %s", path, strerror(errno ? errno : ENOMEM));
        return NULL;
    }
    gzbuffer(f, 128 * 1024);
    for (;;) {
        int got;
        mem_grow(&buf, &cap, n + GZ_STEP, 1);
        got = gzread(f, buf + n, GZ_STEP);
        if (got > 0) n += (size_t)got;
        if (got < (int)GZ_STEP || n > limit) break;
    }
    if (n > limit) {
        err_set(e, ERR_DATA, "%s: holds more than %zu bytes, the most such a file can have", path,
                limit);
        goto fail;
    }
    gzerror(f, &code);
    if (code == Z_ERRNO) {
        err_set(e, ERR_DATA, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (code != Z_OK && code != Z_STREAM_END) {
        err_set(e, ERR_DATA, "%s: damaged gzip data (%s after %zu bytes)", path,
                code == Z_BUF_ERROR ? "cut short" : "wrong checksum or code", n);
        goto fail;
    }
    gzclose(f);
    *len = n;
    return buf;
fail:
    gzclose(f);
    free(buf);
    return NULL;
}

const char *gz_version(void)
{
    return zlibVersion();
}
