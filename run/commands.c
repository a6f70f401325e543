/* run/commands.c -- the small commands: run, train, test, show, list, path, help, docs, and
 * --version. */
#include "run/commands.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/prim.h"
#include "io/fs.h"
#include "io/gz.h"
#include "io/yaml.h"
#include "run/after.h"
#include "run/checkpoint.h"
#include "run/keys.h"

void print_out(Str *s)
{
    fwrite(s->s ? s->s : "", 1, s->len, stdout);
    fflush(stdout);
    str_free(s);
}

/* ---- configurations ---- */

int cli_config(const Cli *c, Config *cfg, const char *more, Err *e)
{
    char **o = xcalloc((size_t)c->nargs + 3, sizeof *o), *max_time = NULL;
    int n = 0, r;
    const bool none = c->nargs < 1 || !*c->args[0];
    if (none || (strchr(c->args[0], '=') && !fs_exists(c->args[0]))) {
        free(o);
        return usage_fault(e,
                           none ? "no configuration file given"
                                        : "a configuration file comes before '%s'",
                           none ? "" : c->args[0]);
    }
    for (int i = 1; i < c->nargs; i++) o[n++] = c->args[i];
    if (c->max_time) o[n++] = max_time = xasprintf("max_time=%s", c->max_time);
    if (more) o[n++] = xstrdup(more);
    r = config_load(cfg, c->args[0], n, o, e);
    if (more) free(o[n - 1]);
    free(max_time);
    free(o);
    if (r)
        config_free(cfg);
    else
        config_note_ignored(cfg);
    return r;
}

static int wait_for(const char *pid, Err *e)
{
    bool waited;
    if (after_process(pid, &waited, e)) return -1;
    log_msg(LOG_INFO, waited ? "process %s has ended" : "there is no process %s; beginning at once", pid);
    return 0;
}

static int run_config(Cli *c, const char *more, bool must_train, Err *e)
{
    Config cfg;
    int r;
    if (cli_config(c, &cfg, more, e)) return -1;
    if (c->after && wait_for(c->after, e)) {
        config_free(&cfg);
        return -1;
    }
    c->run.cfg = &cfg;
    c->run.argc = c->argc;
    c->run.argv = c->argv;
    if (must_train && mode_select(&cfg)->run != train_run)
        r = usage_fault(e, "%s: the configuration asks for '%s', not for training", c->args[0],
                        mode_select(&cfg)->name);
    else
        r = mode_select(&cfg)->run(&c->run, e);
    c->run.cfg = NULL;
    config_free(&cfg);
    return r;
}

int command_run(Cli *c, Err *e)
{
    return run_config(c, NULL, false, e);
}

int command_train(Cli *c, Err *e)
{
    return run_config(c, NULL, true, e);
}

int command_test(Cli *c, Err *e)
{
    return run_config(c, "test_only=true", false, e);
}

int command_show(Cli *c, Err *e)
{
    Config cfg;
    Str out = {0};
    if (cli_config(c, &cfg, NULL, e)) return -1;
    config_show(&cfg, &out);
    print_out(&out);
    config_free(&cfg);
    return 0;
}

/* ---- lists ---- */

static void item(Str *out, const char *name, const char *doc)
{
    str_printf(out, "%-20s%s%s\n", name, *doc ? "  " : "", doc);
}

static void list_nets(Str *out)
{
    for (int i = 0; nets[i]; i++) {
        item(out, nets[i]->name, nets[i]->doc);
        if (!nets[i]->alias || !nets[i]->alias[0].name) continue;
        str_printf(out, "%-22salso:", "");
        for (const NetAlias *a = nets[i]->alias; a->name; a++)
            str_printf(out, "%s %s (%s)", a == nets[i]->alias ? "" : ",", a->name,
                       net_names_text(a->names));
        str_puts(out, "\n");
    }
}

static void list_quant(Str *out)
{
    for (int i = 0; quant_methods[i]; i++) {
        item(out, quant_methods[i]->name, quant_methods[i]->doc);
        if (quant_methods[i]->alias)
            str_printf(out, "%-22salso: %s\n", "", quant_methods[i]->alias);
    }
}

static void list_datasets(Str *out)
{
    for (int i = 0; datasets[i]; i++) {
        item(out, datasets[i]->name, datasets[i]->doc);
        if (!datasets[i]->alias || !datasets[i]->alias[0]) continue;
        str_printf(out, "%-22salso:", "");
        for (const char *const *a = datasets[i]->alias; *a; a++)
            str_printf(out, "%s %s", a == datasets[i]->alias ? "" : ",", *a);
        str_puts(out, "\n");
    }
}

static void list_transforms(Str *out)
{
    for (int i = 0; recipe_names[i]; i++) str_printf(out, "%s\n", recipe_names[i]);
}

static void list_optimizers(Str *out)
{
    for (const OptimRule *r = optim_rules; r->name; r++) item(out, r->name, r->doc);
}

static void list_schedules(Str *out)
{
    for (const Schedule *s = schedules; s->name; s++) item(out, s->name, s->doc);
}

static void list_modes(Str *out)
{
    for (const Mode *m = modes; m->name; m++) item(out, m->name, m->doc);
}

static const struct {
    const char *name;
    void (*print)(Str *out);
} lists[] = {
    {"nets", list_nets},
    {"quant", list_quant},
    {"keywords", words_list},
    {"datasets", list_datasets},
    {"transforms", list_transforms},
    {"optimizers", list_optimizers},
    {"schedules", list_schedules},
    {"modes", list_modes},
};

int command_list(Cli *c, Err *e)
{
    const char *names[ARRAY_LEN(lists)], *near;
    Str out = {0}, all = {0};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        names[i] = lists[i].name;
        str_printf(&all, "%s%s", i ? ", " : "", names[i]);
        if (c->nargs != 1 || !str_eq(c->args[0], names[i])) continue;
        lists[i].print(&out);
        print_out(&out);
        str_free(&all);
        return 0;
    }
    near = c->nargs == 1 ? str_nearest(c->args[0], names, ARRAY_LEN(names)) : NULL;
    if (c->nargs > 1)
        usage_fault(e, "list: one word at most; expected one of %s", all.s);
    else
        usage_fault(e, "list: %s%s%s; expected one of %s%s%s%s", c->nargs ? "'" : "nothing named",
                    c->nargs ? c->args[0] : "", c->nargs ? "'" : "", all.s,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    str_free(&all);
    return -1;
}

int command_path(Cli *c, Err *e)
{
    const bool best = c->nargs == 2 && str_eq(c->args[0], "best");
    char *path;
    Str out = {0};
    int r = 0;
    if (c->nargs != 2 || (!best && !str_eq(c->args[0], "last")))
        return usage_fault(e, "path: expected best|last RUN");
    path = checkpoint_path(c->args[1], best ? CKPT_BEST : CKPT_LAST);
    if (fs_exists(path)) {
        str_printf(&out, "%s\n", path);
        print_out(&out);
    } else {
        r = err_set(e, ERR_DATA, "%s: no such checkpoint%s", path,
                    fs_exists(c->args[1]) ? "" : "; there is no such folder");
    }
    free(path);
    return r;
}

/* ---- help ---- */

static int help_no_key(const char *pattern, Err *e)
{
    const char *like = key_suggest(pattern);
    return usage_fault(e, "help: no key matches '%s'%s%s%s", pattern,
                       like ? "; did you mean '" : "; `qrun help keys` lists all", like ? like : "",
                       like ? "'?" : "");
}

int command_help(Cli *c, Err *e)
{
    const Command *cmd = c->nargs ? command_find(c->args[0]) : NULL;
    Str out = {0};
    if (c->nargs > 1) return usage_fault(e, "help: one word at most");
    if (!c->nargs)
        help_main(&out);
    else if (cmd)
        help_command(cmd, &out);
    else if (!config_help(str_eq(c->args[0], "keys") ? NULL : c->args[0], &out))
        return help_no_key(c->args[0], e);
    print_out(&out);
    return 0;
}

int command_docs(Cli *c, Err *e)
{
    Str out = {0};
    const bool keywords = c->nargs == 1 && str_eq(c->args[0], "keywords");
    if (!keywords && (c->nargs != 1 || !str_eq(c->args[0], "keys")))
        return usage_fault(e, "docs: expected keys or keywords");
    if (keywords)
        words_docs(&out);
    else
        config_docs(&out);
    print_out(&out);
    return 0;
}

void version_text(bool verbose, Str *out)
{
    char dnnl[256];
    str_puts(out, "qrun " QRUN_VERSION "\n"
                  "License Apache-2.0: <https://www.apache.org/licenses/LICENSE-2.0>.\n"
                  "There is NO WARRANTY, to the extent permitted by law.\n");
    if (!verbose) return;
    str_printf(out, "oneDNN %s\n", prim_version(dnnl, sizeof dnnl));
    str_printf(out, "libyaml %s\nzlib %s\njansson %s\ncompiler %s\n", yaml_version(), gz_version(),
               jansson_version_str(), __VERSION__);
}
