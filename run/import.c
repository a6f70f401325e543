/* run/import.c -- see import.h. Source: snap-research/F8Net, fix_train.py:56-180, which takes
 * convolution weights, norms and the classifier, and neither counters nor clip levels. */
#include "run/import.h"

#include <ctype.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "data/where.h"
#include "io/fs.h"
#include "io/layers.h"
#include "run/checkpoint.h"
#include "run/which_net.h"

/* pytorchcv's name of each net here; the `b` nets stride in the 3x3 convolution, as ours do. */
static const struct {
    const char *net, *ptcv;
} ptcv_names[] = {
    {"resnet18", "resnet18"},
    {"resnet34", "resnet34"},
    {"resnet50", "resnet50b"},
    {"resnet101", "resnet101b"},
    {"resnet152", "resnet152b"},
    {"mobilenet_v1", "mobilenet_w1"},
    {"mobilenet_v2", "mobilenetv2b_w1"},
};

typedef struct Import {
    const char *key;
    bool wanted;
    const char *file_key, *file;
    char *(*find)(const Session *s, Err *e); /* the file where none is named; NULL: it must be */
} Import;

/* ---- pytorchcv's files ---- */

/* NAME.pth, or NAME-EEEE-HHHHHHHH.pth: the error in parts of 10,000 and the start of a hash, as
 * pytorchcv's own download is called. */
static bool is_ptcv_file(const char *path, const char *name)
{
    static const char pattern[] = "-dddd-xxxxxxxx.pth";
    const char *slash = strrchr(path, '/'), *s = slash ? slash + 1 : path;
    if (!str_starts(s, name)) return false;
    s += strlen(name);
    if (str_eq(s, ".pth")) return true;
    for (const char *p = pattern; *p; p++, s++) {
        const int c = (unsigned char)*s;
        if (*p == 'd' ? !isdigit(c) : *p == 'x' ? !isxdigit(c) : *s != *p) return false;
    }
    return !*s;
}

/* Every such file of a folder into *found, one a line. */
static int look_in(const char *dir, const char *name, Str *found)
{
    char *pattern = xasprintf("%s/%s*.pth", dir, name);
    glob_t g;
    int n = 0;
    if (!glob(pattern, 0, NULL, &g)) {
        for (size_t i = 0; i < g.gl_pathc; i++)
            if (is_ptcv_file(g.gl_pathv[i], name))
                str_printf(found, "%s%s", n++ ? "\n" : "", g.gl_pathv[i]);
        globfree(&g);
    }
    free(pattern);
    return n;
}

static const char *ptcv_name(const NetOpts *o)
{
    const NetDef *net = net_select(o, NULL);
    for (size_t i = 0; net && i < ARRAY_LEN(ptcv_names); i++)
        if (str_eq(net->name, ptcv_names[i].net)) return ptcv_names[i].ptcv;
    return NULL;
}

static char *find_ptcv(const Session *s, Err *e)
{
    const char *name = ptcv_name(&s->cfg->net), *env = getenv("QRUN_DATA_DIR"),
               *home = getenv("HOME");
    char *dir[] = {env && *env ? xstrdup(env) : NULL, data_user_folder(),
                   home && *home ? fs_join(home, ".torch/models") : NULL};
    Str found = {0}, looked = {0};
    int n = 0;
    if (!name)
        err_set(e, ERR_DATA,
                "pytorchcv's counterpart of model: %s is not known; name its file with "
                "ptcv_pretrained_file",
                s->cfg->net.model);
    for (size_t i = 0; i < ARRAY_LEN(dir); i++) {
        if (!dir[i]) continue;
        if (name && !n) n = look_in(dir[i], name, &found);
        str_printf(&looked, "%s%s", looked.len ? ", " : "", dir[i]);
        free(dir[i]);
    }
    if (name && n == 0)
        err_set(e, ERR_DATA,
                "no weights of pytorchcv's %s: looked for %s.pth and %s-EEEE-HHHHHHHH.pth in %s; "
                "name the file with ptcv_pretrained_file (nothing is downloaded)",
                name, name, name, looked.s ? looked.s : "no folder: $QRUN_DATA_DIR is not set");
    else if (n > 1) {
        for (char *p = found.s; *p; p++)
            if (*p == '\n') *p = ' ';
        err_set(e, ERR_DATA,
                "%d files of pytorchcv's %s: %s; name the one meant with ptcv_pretrained_file", n,
                name, found.s);
    }
    str_free(&looked);
    if (n == 1) return found.s;
    str_free(&found);
    return NULL;
}

/* ---- loading ---- */

int import_by_position(Session *s, const char *key, const char *path, TensorFile *f, bool all,
                       Err *e)
{
    ParamStore *ps = model_store(s->model);
    Str pairs = {0}, place = {0};
    int r = refuse_other_net(s->cfg, key, path, f, ps, e);
    if (!r && layers_rename(f, ps, all, &pairs, e)) {
        key_place(s->cfg, key, &place);
        r = err_prefix(e, "%s%s does not fit the net %s", place.s ? place.s : "", path,
                       s->cfg->net.model);
    }
    if (!r) log_msg(LOG_DEBUG, "%s: paired by position:\n%s", path, pairs.s ? pairs.s : "");
    str_free(&pairs);
    str_free(&place);
    return r;
}

static int load(Session *s, const char *key, const char *path, Err *e)
{
    TensorFile f;
    LoadReport report = {0};
    int r;
    if (tensors_read(&f, path, e)) return key_blame(s->cfg, key, e);
    checkpoint_strip(&f);
    r = import_by_position(s, key, path, &f, false, e) ||
                tensors_into_store(&f, model_store(s->model), false, &report, e)
            ? -1
            : 0;
    if (!r)
        log_msg(LOG_INFO, "%s: %s (%s): %d tensors taken by position, %d of the net's keep theirs",
                key, path, f.format, report.matched, report.missing);
    load_report_free(&report);
    tensors_free(&f);
    return r;
}

static int run_import(Session *s, const Import *im, Err *e)
{
    const bool named = im->file && *im->file;
    char *path = named ? weights_path(im->file, e) : im->find(s, e);
    Str place = {0};
    if (path) {
        free(s->first);
        s->first = path;
        return load(s, named ? im->file_key : im->key, path, e);
    }
    key_place(s->cfg, named ? im->file_key : im->key, &place);
    str_puts(&place, e ? e->msg : "");
    err_set(e, ERR_DATA, "%s", place.s);
    str_free(&place);
    return -1;
}

bool import_wanted(const RunOpts *o)
{
    return o->ptcv_pretrained || o->nvidia_pretrained;
}

int import_weights(Session *s, Err *e)
{
    const RunOpts *o = &s->cfg->run;
    const Import all[] = {
        {"ptcv_pretrained", o->ptcv_pretrained, "ptcv_pretrained_file", o->ptcv_pretrained_file,
         find_ptcv},
        {"nvidia_pretrained", o->nvidia_pretrained, "nvidia_pretrained_file",
         o->nvidia_pretrained_file, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].wanted && run_import(s, &all[i], e)) return -1;
    return 0;
}
