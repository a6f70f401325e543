/* run/dump.c -- see dump.h. */
#include "run/dump.h"

#include <stdlib.h>

#include "run/integer.h"

static int begin(NpyRows *f, const char *dir, const char *name, DType type, int ndim,
                 const int *dim, Err *e)
{
    char *path = fs_join(dir, name);
    const int r = npy_open(f, path, type, ndim, dim, e);
    free(path);
    return r;
}

int dump_check(const char *dir, Err *e)
{
    char *path = fs_join(dir, "input.npy");
    const int r = fs_mkdirs(dir, e) ? -1 : fs_check_writable(path, e);
    free(path);
    return r;
}

static int failed(Dump *d)
{
    dump_abandon(d);
    return -1;
}

int dump_open(Dump *d, const Session *s, const char *dir, Err *e)
{
    const int image[] = {s->input.c, s->input.h, s->input.w};
    const DType in = s->ints ? s->ints->net.op[0].type : DT_F32, out = s->ints ? DT_S32 : DT_F32;
    char width[16];
    *d = (Dump){.nwidths = s->nwidths};
    d->nchw = xcalloc((size_t)image[0] * (size_t)image[1] * (size_t)image[2], sizeof *d->nchw);
    if (fs_mkdirs(dir, e) || begin(&d->input, dir, "input.npy", in, 3, image, e) ||
        begin(&d->label, dir, "label.npy", DT_S32, 0, NULL, e))
        return failed(d);
    for (int k = 0; k < s->nwidths; k++) {
        char *name =
            path_of_width("output.npy", s->nwidths > 1 ? session_width_text(s, k, width) : "");
        const int r = begin(&d->output[k], dir, name, out, 1, &s->classes, e);
        free(name);
        if (r) return failed(d);
    }
    return 0;
}

/* Image i of the batch in C,H,W order, in the type of the file. */
static void put_image(Dump *d, const Session *s, const Batch *b, int i)
{
    const int c = s->input.c, h = s->input.h, w = s->input.w;
    const size_t len = (size_t)c * (size_t)h * (size_t)w, map = (size_t)h * (size_t)w;
    if (!s->ints) {
        nhwc_to_nchw(b->x + (size_t)i * len, d->nchw, 1, c, h, w);
    } else {
        const unsigned char *from = (const unsigned char *)s->ints->image + (size_t)i * len;
        unsigned char *to = (unsigned char *)d->nchw;
        for (size_t p = 0; p < map; p++)
            for (int k = 0; k < c; k++) to[(size_t)k * map + p] = from[p * (size_t)c + (size_t)k];
    }
    npy_rows(&d->input, d->nchw, 1);
}

void dump_batch(Dump *d, const Session *s, const Batch *b)
{
    for (int i = 0; i < b->n; i++) put_image(d, s, b, i);
    npy_rows(&d->label, b->label, b->n);
}

void dump_logits(Dump *d, const Session *s, int k, const Batch *b, const float *logits)
{
    npy_rows(&d->output[k], s->ints ? (const void *)s->ints->sums : logits, b->n);
}

int dump_close(Dump *d, Err *e)
{
    int r = npy_close(&d->input, e);
    for (int k = 0; k < d->nwidths && !r; k++) r = npy_close(&d->output[k], e);
    if (!r) r = npy_close(&d->label, e);
    dump_abandon(d);
    return r;
}

void dump_abandon(Dump *d)
{
    npy_abandon(&d->input);
    for (int k = 0; k < d->nwidths; k++) npy_abandon(&d->output[k]);
    npy_abandon(&d->label);
    free(d->nchw);
    d->nchw = NULL;
}
