/* run/convert.c -- qrun convert OLD NEW: a checkpoint under other names, or as a net wants it.
 *
 * OLD is any checkpoint or run folder, NEW a .safetensors file; without NEW only the names are
 * printed. from=FILE and to=FILE rename (io/namemap.h), prefix=TEXT is put in front of every name,
 * keep=true leaves the old names in as well. config=FILE: what fits goes into that net, and
 * NEW holds all of its parameters.
 *
 * Source: aim-uofa/model-quantization, tools.py, actions update, raw, load and save. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "io/namemap.h"
#include "io/yaml.h"
#include "run/checkpoint.h"
#include "run/commands.h"
#include "run/session.h"

typedef struct Convert {
    const char *file[2]; /* OLD, NEW */
    int nfiles;
    const char *from, *to, *prefix, *config;
    bool keep;
    char *path; /* of OLD */
    TensorFile old;
    NameMap map;
    TensorOut *out;
    int nout, renamed;
    Arena arena;
    Str text;
} Convert;

/* ---- the command line ---- */

static const struct {
    const char *names; /* separated by blanks; the original's options among them */
    size_t field;
} words[] = {
    {"from mapping_from mf", offsetof(Convert, from)},
    {"to mapping_to mt", offsetof(Convert, to)},
    {"prefix case", offsetof(Convert, prefix)},
    {"config", offsetof(Convert, config)},
};

static bool among(const char *names, const char *word, size_t len)
{
    for (const char *p = names; *p;) {
        const size_t n = strcspn(p, " ");
        if (n == len && !memcmp(p, word, n)) return true;
        p += n + (p[n] == ' ');
    }
    return false;
}

/* KEY=VALUE: 1; another word: 0. */
static int take_word(Convert *v, const char *word, Err *e)
{
    const size_t n = strcspn(word, "=");
    if (!word[n] || fs_exists(word)) return 0;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (among(words[i].names, word, n)) {
            *(const char **)(void *)((char *)v + words[i].field) = word + n + 1;
            return 1;
        }
    if (among("keep", word, n)) {
        const Yaml y = {.kind = Y_SCALAR, .s = word + n + 1};
        return yaml_bool(&y, &v->keep)
                   ? 1
                   : usage_fault(e, "convert: %s; expected true or false", word);
    }
    return usage_fault(
        e, "convert: %s; expected from=FILE, to=FILE, prefix=TEXT, keep=true or config=FILE", word);
}

static int take_words(Convert *v, const Cli *c, Err *e)
{
    for (int i = 0; i < c->nargs; i++) {
        const int taken = take_word(v, c->args[i], e);
        if (taken < 0) return -1;
        if (taken) continue;
        if (v->nfiles == 2)
            return usage_fault(e, "convert: '%s' is one file too many; expected OLD NEW",
                               c->args[i]);
        v->file[v->nfiles++] = c->args[i];
    }
    if (!v->nfiles) return usage_fault(e, "convert: expected OLD NEW");
    if (!v->from != !v->to)
        return usage_fault(e, "convert: %s without %s", v->from ? "from" : "to",
                           v->from ? "to" : "from");
    if (v->nfiles < 2) return 0;
    if (!str_ends(v->file[1], ".safetensors"))
        return usage_fault(e, "convert: %s; expected a name that ends in .safetensors", v->file[1]);
    if (fs_exists(v->file[1]))
        return err_set(e, ERR_CONFIG, "%s: is there already; expected a new name", v->file[1]);
    return 0;
}

/* ---- names ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const TensorOut *)a)->name, ((const TensorOut *)b)->name);
}

static void put(Convert *v, const char *name, const Tensor *t)
{
    v->out[v->nout++] = (TensorOut){name, t};
}

/* Two tensors under one name would be one lost. */
static int check_distinct(const Convert *v, Err *e)
{
    TensorOut *sorted = xcalloc((size_t)v->nout + 1, sizeof *sorted);
    int r = 0;
    if (v->nout) memcpy(sorted, v->out, (size_t)v->nout * sizeof *sorted);
    qsort(sorted, (size_t)v->nout, sizeof *sorted, by_name);
    for (int i = 1; i < v->nout && !r; i++)
        if (str_eq(sorted[i].name, sorted[i - 1].name))
            r = err_set(e, ERR_CONFIG, "%s: two tensors would be named '%s'", v->path,
                        sorted[i].name);
    free(sorted);
    return r;
}

static int rename_all(Convert *v, Err *e)
{
    v->out = xcalloc(2 * (size_t)v->old.n + 1, sizeof *v->out);
    for (int i = 0; i < v->old.n; i++) {
        const char *name = v->old.v[i].name;
        char *mapped = namemap_apply(&v->map, name);
        const char *now = arena_printf(&v->arena, "%s%s", v->prefix ? v->prefix : "", mapped);
        free(mapped);
        if (!str_eq(now, name)) {
            str_printf(&v->text, "%s -> %s\n", name, now);
            v->renamed++;
            if (v->keep) put(v, name, &v->old.v[i].t);
        }
        put(v, now, &v->old.v[i].t);
    }
    for (size_t i = 0; i < v->map.n; i++)
        if (!v->map.pair[i].used)
            log_msg(LOG_WARN, "%s:%d: '%s' is in no name", v->from, v->map.pair[i].line,
                    v->map.pair[i].from);
    return check_distinct(v, e);
}

/* ---- the new file ---- */

static int write_new(const Convert *v, const TensorOut *t, int n, Err *e)
{
    MetaOut *m = xcalloc((size_t)v->old.nmeta + 1, sizeof *m);
    int nm = 0, r;
    for (int i = 0; i < v->old.nmeta; i++) /* the constants of the net's input, nothing of a run */
        if (str_starts(v->old.meta[i].key, "qrun.input"))
            m[nm++] = (MetaOut){v->old.meta[i].key, v->old.meta[i].value};
    r = safetensors_write(v->file[1], t, n, m, nm, e);
    free(m);
    return r;
}

/* Through a net: what fits of the renamed tensors, all else as the net begins. */
static int through_net(Convert *v, Err *e)
{
    Config cfg;
    Session s = {0};
    LoadReport report = {0};
    TensorFile renamed = {.v = NULL};
    ParamStore *ps;
    TensorOut *out = NULL;
    int r = config_load(&cfg, v->config, 0, NULL, e);
    if (!r) r = session_open(&s, &cfg, e);
    if (!r) {
        renamed = v->old;
        renamed.n = 0;
        renamed.v = arena_alloc(&v->arena, ((size_t)v->nout + 1) * sizeof *renamed.v);
        for (int i = 0; i < v->nout; i++) {
            renamed.v[renamed.n].name = v->out[i].name;
            renamed.v[renamed.n].type = "F32";
            renamed.v[renamed.n++].t = *v->out[i].t;
        }
        ps = model_store(s.model);
        r = tensors_into_store(&renamed, ps, false, &report, e);
        if (!r) {
            str_putn(&v->text, report.text.s ? report.text.s : "", report.text.len);
            str_printf(&v->text, "%s: %d tensors fit, %d are missing, %d are left over\n",
                       v->config, report.matched, report.missing, report.unexpected);
            out = xcalloc((size_t)ps->n + 1, sizeof *out);
            for (int i = 0; i < ps->n; i++) out[i] = (TensorOut){ps->p[i]->name, &ps->p[i]->value};
            if (v->nfiles == 2) r = write_new(v, out, ps->n, e);
        }
        load_report_free(&report);
    }
    free(out);
    session_free(&s);
    config_free(&cfg);
    return r;
}

int command_convert(Cli *c, Err *e)
{
    Convert v = {0};
    int r = take_words(&v, c, e);
    if (!r && !(v.path = weights_path(v.file[0], e))) r = -1;
    if (!r && v.from) r = namemap_read(&v.map, v.from, v.to, e);
    if (!r) r = tensors_read(&v.old, v.path, e);
    if (!r) checkpoint_strip(&v.old);
    if (!r) r = rename_all(&v, e);
    if (!r && v.config) r = through_net(&v, e);
    if (!r && !v.config && v.nfiles == 2) r = write_new(&v, v.out, v.nout, e);
    if (!r) {
        str_printf(&v.text, "%d tensors, %d renamed%s%s\n", v.old.n, v.renamed,
                   v.nfiles == 2 ? ": " : "; nothing written", v.nfiles == 2 ? v.file[1] : "");
        print_out(&v.text);
    }
    str_free(&v.text);
    free(v.out);
    free(v.path);
    namemap_free(&v.map);
    tensors_free(&v.old);
    arena_free(&v.arena);
    return r;
}
