/* run/verify.c -- qrun verify: is every image there, and can it be decoded?
 *
 * Words: a configuration (all images of its data set, both splits), or image files, folders of
 * them, and lists (.txt: a file in each line, what follows a blank is its label). Each image at
 * fault is named on standard output; the exit status is then 3. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/decode.h"
#include "engine/par.h"
#include "io/fs.h"
#include "run/commands.h"
#include "run/config_shell.h"
#include "run/imagefiles.h"

enum { MAX_BYTES = 1 << 28, AT_ONCE = 4096 };

typedef struct Verify {
    Decoder decoder;
    ImageFiles files;
    int64_t looked, bad;
} Verify;

/* Image i of what `arg` is, into the buffer; -1 with `e`. Called from several threads. */
typedef int (*LookFn)(const void *arg, int64_t i, Image *im, Err *e);

/* Faults are printed in order, whichever thread found them. */
static void look_all(Verify *v, LookFn look, const void *arg, int64_t n)
{
    char **fault = xcalloc(AT_ONCE, sizeof *fault);
    for (int64_t from = 0; from < n; from += AT_ONCE) {
        const int64_t some = n - from < AT_ONCE ? n - from : AT_ONCE;
        Str out = {0};
        PARALLEL_FOR(i, some)
        {
            Image im = {0};
            Err e = {0};
            fault[i] = look(arg, from + i, &im, &e) ? xstrdup(e.msg) : NULL;
            free(im.px);
        }
        for (int64_t i = 0; i < some; i++) {
            if (!fault[i]) continue;
            str_printf(&out, "%s\n", fault[i]);
            v->bad++;
            free(fault[i]);
        }
        v->looked += some;
        print_out(&out);
    }
    free(fault);
}

/* ---- files ---- */

static int look_file(const void *arg, int64_t i, Image *im, Err *e)
{
    const Verify *v = arg;
    const char *path = v->files.path[i];
    size_t len;
    char *bytes = fs_read(path, MAX_BYTES, &len, e);
    const int r = bytes ? decode_image(bytes, len, v->decoder, path, im, e) : -1;
    free(bytes);
    return r;
}

/* A list's files stand relative to it. */
static int add_list(Verify *v, const char *list, Err *e)
{
    size_t len;
    char *text = fs_read(list, MAX_BYTES, &len, e), *line, *rest = text;
    const char *slash = strrchr(list, '/');
    char *dir = slash ? xstrndup(list, (size_t)(slash - list)) : xstrdup(".");
    int r = text ? 0 : -1;
    while (!r && (line = strsep(&rest, "\n"))) {
        char *path;
        line[strcspn(line, " \t\r")] = 0;
        if (!*line || *line == '#') continue;
        path = fs_join(dir, line);
        r = image_files_add(&v->files, path, e);
        free(path);
    }
    free(dir);
    free(text);
    return r;
}

static int verify_files(Verify *v, const Cli *c, Err *e)
{
    if (decoder_find("auto", &v->decoder, e)) return -1;
    for (int i = 0; i < c->nargs; i++)
        if (str_ends(c->args[i], ".txt") ? add_list(v, c->args[i], e)
                                         : image_files_add(&v->files, c->args[i], e))
            return -1;
    look_all(v, look_file, v, v->files.n);
    return 0;
}

/* ---- data sets ---- */

static int look_sample(const void *arg, int64_t i, Image *im, Err *e)
{
    const Dataset *d = arg;
    int label;
    return d->def->get(d, (uint32_t)i, im, &label, e);
}

static int verify_data(Verify *v, const Cli *c, Err *e)
{
    Config cfg;
    int r = 0;
    if (cli_config(c, &cfg, NULL, e)) return -1;
    cfg.data.on_bad_image = "skip"; /* opening goes on behind the first */
    for (int split = SPLIT_TRAIN; split <= SPLIT_VAL && !r; split++) {
        Dataset d;
        if ((r = dataset_open(&d, &cfg.data, (Split)split, e))) break;
        look_all(v, look_sample, &d, d.count);
        dataset_close(&d);
    }
    config_free(&cfg);
    return r;
}

static bool is_config(const char *word)
{
    return str_ends(word, ".yml") || str_ends(word, ".yaml") || str_eq(word, "smoke") ||
           shell_config_named(word);
}

int command_verify(Cli *c, Err *e)
{
    Verify v = {0};
    Str out = {0};
    int r;
    if (c->nargs < 1)
        return usage_fault(
            e, "verify: expected CONFIG [KEY=VALUE]..., or images, folders and lists of them");
    r = is_config(c->args[0]) ? verify_data(&v, c, e) : verify_files(&v, c, e);
    if (!r) {
        str_printf(&out, "%lld images, %lld at fault\n", (long long)v.looked, (long long)v.bad);
        print_out(&out);
        if (v.bad) c->run.status = (int)ERR_DATA; /* said on stdout; no fault of the program's */
    }
    image_files_free(&v.files);
    return r;
}
