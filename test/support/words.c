/* test/support/words.c -- see test/words.h. Through a file config.words, as the original reads it: there a
 * key without effect is no fault. */
#include "test/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fs.h"

/* -1 steps of warm-up are none. */
static void drop_no_warm_up(char *options)
{
    static const char none[] = "--stable -1";
    char *at = strstr(options, none);
    if (at) memset(at, ' ', strlen(none));
}

int words_config(Config *cfg, const char *model, const char *words, const char *options, Err *e)
{
    char dir[] = "/tmp/qrun-words-XXXXXX", path[64];
    Str text = {0};
    int status = -1;
    config_default(cfg);
    if (!mkdtemp(dir)) return err_set(e, ERR_RUN, "%s: cannot be made", dir);
    snprintf(path, sizeof path, "%s/config.words", dir);
    str_printf(&text,
               "model='%s'\ndataset='fake'\nepochs=1\nkeyword='%s'\noptions=\"$options %s\"\n",
               model, words, options);
    drop_no_warm_up(text.s);
    if (!fs_write(path, text.s, text.len, e)) {
        config_free(cfg);
        status = config_load(cfg, path, 0, NULL, e);
    }
    unlink(path);
    rmdir(dir);
    str_free(&text);
    return status;
}

int words_spec(Spec *s, const char *model, const char *words, const char *options, int classes, int size, Err *e)
{
    Config cfg;
    int status = -1;
    *s = (Spec){0};
    if (!words_config(&cfg, model, words, options, e)) {
        NetOpts o = cfg.net;
        o.num_classes = classes;
        o.in_c = 3;
        o.in_h = o.in_w = size;
        status = net_build(s, &o, e);
    }
    config_free(&cfg);
    return status;
}
