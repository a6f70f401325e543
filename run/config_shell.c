/* run/config_shell.c -- see config_shell.h.
 *
 * Source: aim-uofa/model-quantization, train.sh, task_cls.py, and config.py of its helper
 * repository: names, defaults, which options take a value. */
#include "run/config_shell.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "io/fs.h"
#include "io/shellvars.h"

/* ---- tables ---- */

typedef enum OptionKind {
    VALUE,  /* --x V */
    VALUES, /* --x V ...: with commas between them */
    LOWER,  /* --x V, in small letters */
    FLAG,   /* --x: true */
    OFF,    /* --x: false */
    IDLE,   /* without effect, with all values behind it */
    HERE    /* looked up in this file */
} OptionKind;

static const struct {
    const char *names; /* separated by spaces; those of one letter take one dash */
    OptionKind kind;
    const char *key; /* NULL: the first name */
} options[] = {
    {"dataset", VALUE, NULL},
    {"root", VALUE, "dataset_dir"},
    {"model arch m", VALUE, NULL},
    {"epochs", VALUE, "num_epochs"},
    {"addition_augment aa", FLAG, NULL},
    {"workers j", VALUE, "data_loader_workers"},
    {"iter_size", VALUE, NULL},
    {"batch_size b", VALUE, NULL},
    {"val_batch_size v", VALUE, NULL},
    {"lr", VALUE, NULL},
    {"lr_policy", VALUE, "lr_scheduler"},
    {"lr_decay", VALUE, NULL},
    {"eta_min", VALUE, "lr_min"},
    {"lr_fix_step", VALUE, "lr_step_size"},
    {"lr_custom_step", VALUE, "multistep_lr_milestones"},
    {"momentum", VALUE, NULL},
    {"weight_decay wd", VALUE, NULL},
    {"nesterov", FLAG, NULL},
    {"no_decay_small", IDLE, NULL},
    {"decay_small", FLAG, NULL},
    {"grad_clip", VALUE, NULL},
    {"save_freq s", IDLE, NULL},
    {"report_freq", VALUE, "log_interval"},
    {"seed", VALUE, "random_seed"},
    {"optimizer", LOWER, NULL},
    {"device_ids g", IDLE, NULL},
    {"distributed", IDLE, NULL},
    {"world_size", IDLE, NULL},
    {"fp16", FLAG, NULL},
    {"opt_level", VALUE, NULL},
    {"sync_bn", FLAG, NULL},
    {"wakeup", VALUE, NULL},
    {"warmup", VALUE, NULL},
    {"stable", VALUE, NULL},
    {"stable_epoch", VALUE, NULL},
    {"warmup_epoch", VALUE, NULL},
    {"extra_epoch", VALUE, NULL},
    {"delay", IDLE, NULL},
    {"evaluate e", FLAG, "test_only"},
    {"pretrained", HERE, NULL},
    {"resume r", FLAG, NULL},
    {"resume_file", IDLE, NULL},
    {"weights_dir", HERE, NULL},
    {"log_dir", VALUE, NULL},
    {"tensorboard", FLAG, NULL},
    {"verbose", IDLE, NULL},
    {"case", VALUE, "experiment"},
    {"keyword", HERE, NULL},
    {"re_init", FLAG, NULL},
    {"mixup_alpha", VALUE, NULL},
    {"mixup_enable", FLAG, NULL},
    {"probe_iteration", VALUE, NULL},
    {"probe_index", VALUES, NULL},
    {"probe_list", HERE, NULL},
    {"label_smooth", HERE, NULL},
    {"custom_decay_list", VALUE, NULL},
    {"custom_decay", VALUE, NULL},
    {"custom_lr_list", VALUE, NULL},
    {"custom_lr", VALUE, NULL},
    {"base", VALUE, NULL},
    {"width_alpha", VALUE, NULL},
    {"block_alpha", IDLE, NULL},
    {"se_reduction", IDLE, NULL},
    {"order", VALUE, NULL},
    {"stem_kernel", VALUE, NULL},
    {"num_classes", VALUE, NULL},
    {"input_size", VALUE, "image_size"},
    {"padding_after_quant", FLAG, NULL},
    {"policy", VALUE, NULL},
    {"proxquant_step ps", VALUE, NULL},
    {"fm_custom", VALUE, NULL},
    {"ot_independent_parameter", FLAG, NULL},
#define TAG(t, half)                                                                               \
    {t "_enable", FLAG, NULL}, {t "_bit", VALUE, NULL}, {t "_level", VALUE, NULL},                 \
        {t "_half_range", half, NULL}, {t "_scale", VALUE, NULL}, {t "_ratio", IDLE, NULL},        \
        {t "_correlate", VALUE, NULL}, {t "_separator", IDLE, NULL}, {t "_boundary", VALUE, NULL}, \
        {t "_quant_group", VALUE, NULL}, {t "_adaptive", VALUE, NULL},                             \
        {t "_grad_type", VALUE, NULL},                                                             \
    {                                                                                              \
        t "_grad_scale", VALUE, NULL                                                               \
    }
    TAG("fm", OFF),
    TAG("wt", FLAG),
    TAG("ot", FLAG),
#undef TAG
};

/* Variables that train.sh hands on as options; those of other names only serve other values. */
static const struct {
    const char *name, *option;
} variables[] = {
    {"dataset", "dataset"},
    {"root", "root"},
    {"model", "model"},
    {"base", "base"},
    {"epochs", "epochs"},
    {"train_batch", "batch_size"},
    {"val_batch", "val_batch_size"},
    {"case", "case"},
    {"keyword", "keyword"},
};

static const struct {
    const char *key, *value;
} defaults[] = {
    {"dataset", "imagenet"},  {"batch_size", "20"},      {"val_batch_size", "20"},
    {"lr", "0.01"},           {"lr_scheduler", "decay"}, {"lr_decay", "0.98"},
    {"lr_step_size", "30"},   {"momentum", "0.9"},       {"weight_decay", "0.0001"},
    {"random_seed", "2"},     {"log_interval", "20"},    {"names", "keyword"},
    {"strict_load", "false"}, {"wt_enable", "false"},    {"fm_enable", "false"},
    {"ot_enable", "false"},
};

bool shell_config_default(size_t i, const char **key, const char **value)
{
    if (i >= ARRAY_LEN(defaults)) return false;
    *key = defaults[i].key;
    *value = defaults[i].value;
    return true;
}

static const char *first_name(Arena *a, size_t i)
{
    return arena_printf(a, "%.*s", (int)strcspn(options[i].names, " "), options[i].names);
}

static const char *key_of_option(Arena *a, size_t i)
{
    return options[i].key ? options[i].key : first_name(a, i);
}

bool shell_config_option(Arena *a, size_t i, const char **key)
{
    if (i >= ARRAY_LEN(options)) return false;
    *key = options[i].kind == IDLE || options[i].kind == HERE ? "" : key_of_option(a, i);
    return true;
}

/* ---- reading ---- */

typedef struct Taken {
    const char *text;
    int line, col;
} Taken;

typedef struct Made {
    Arena *a;
    Faults *f;
    const char *file;
    Yaml *map;
    size_t cap;
    const Taken *here[ARRAY_LEN(options)]; /* HERE: the last value */
    bool on[ARRAY_LEN(options)];           /* given */
} Made;

static Yaml *scalar(Made *m, const char *text, int line, int col)
{
    Yaml *y = arena_alloc(m->a, sizeof *y);
    *y = (Yaml){.kind = Y_SCALAR, .file = m->file, .line = line, .col = col, .s = text};
    return y;
}

static void put(Made *m, const char *key, Yaml *v)
{
    Yaml *map = m->map;
    if ((size_t)map->n == m->cap) {
        const size_t cap = m->cap ? 2 * m->cap : 64;
        Yaml **k = arena_alloc(m->a, cap * sizeof *k), **val = arena_alloc(m->a, cap * sizeof *val);
        if (map->n) {
            memcpy(k, map->k, (size_t)map->n * sizeof *k);
            memcpy(val, map->v, (size_t)map->n * sizeof *val);
        }
        map->k = k;
        map->v = val;
        m->cap = cap;
    }
    map->k[map->n] = scalar(m, key, v->line, v->col);
    map->v[map->n++] = v;
}

/* Whether `name` is among the row's; `-` counts as `_`. */
static bool named(size_t row, const char *name, size_t len)
{
    for (const char *p = options[row].names;;) {
        const size_t n = strcspn(p, " ");
        bool same = n == len;
        for (size_t i = 0; i < n && same; i++) same = p[i] == (name[i] == '-' ? '_' : name[i]);
        if (same) return true;
        if (!p[n]) return false;
        p += n + 1;
    }
}

static int option_find(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (named(i, name, len)) return (int)i;
    return -1;
}

static const char *lower(Arena *a, const char *s)
{
    char *t = arena_strdup(a, s);
    for (char *p = t; *p; p++) *p = (char)tolower((unsigned char)*p);
    return t;
}

static void take(Made *m, int row, const char *text, int line, int col)
{
    const OptionKind kind = options[row].kind;
    m->on[row] = true;
    if (kind == HERE) {
        Taken *t = arena_alloc(m->a, sizeof *t);
        *t = (Taken){text, line, col};
        m->here[row] = t;
    } else if (kind != IDLE) {
        put(m, key_of_option(m->a, (size_t)row),
            scalar(m,
                   kind == FLAG    ? "true"
                   : kind == OFF   ? "false"
                   : kind == LOWER ? lower(m->a, text)
                                   : text,
                   line, col));
    }
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] && !isdigit((unsigned char)word[1]) && word[1] != '.';
}

static void unknown_option(Made *m, const ShellWord *w)
{
    const char *names[ARRAY_LEN(options)], *near;
    char *plain = arena_strdup(m->a, w->s + strspn(w->s, "-"));
    plain[strcspn(plain, "=")] = 0;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) names[i] = first_name(m->a, i);
    near = str_nearest(plain, names, ARRAY_LEN(names));
    fault_at(m->f, m->file, w->line, w->col, "unknown option '%.60s'%s%s%s", w->s,
             near ? "; did you mean '--" : "", near ? near : "", near ? "'?" : "");
}

/* What one word says: the option, and the value where that is part of the word. */
typedef struct Said {
    int row; /* -1: none is called so */
    const char *value;
} Said;

/* --name, --name=VALUE, -n, -nVALUE, -n=VALUE. */
static Said said(const char *word)
{
    const bool dashes = str_starts(word, "--");
    const char *name = word + 1 + dashes;
    const size_t len = dashes ? strcspn(name, "=") : 1;
    const char *rest = name + len;
    const Said s = {is_option(word) && (dashes || *name) ? option_find(name, len) : -1,
                    *rest == '=' ? rest + 1 : *rest ? rest : NULL};
    return s;
}

/* Behind an option without effect: all that is no option. */
static size_t skip_values(const ShellWord *w, size_t i, size_t n)
{
    while (i + 1 < n && !is_option(w[i + 1].s)) i++;
    return i;
}

/* The words of `options`, as the original's argument parser takes them. */
static void take_options(Made *m, const ShellWord *w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const Said s = said(w[i].s);
        OptionKind kind;
        if (s.row < 0 && !is_option(w[i].s)) {
            fault_at(m->f, m->file, w[i].line, w[i].col, "'%.60s' belongs to no option", w[i].s);
            continue;
        }
        if (s.row < 0) {
            unknown_option(m, &w[i]);
            i = skip_values(w, i, n);
            continue;
        }
        kind = options[s.row].kind;
        if (kind == FLAG || kind == OFF) {
            if (s.value)
                fault_at(m->f, m->file, w[i].line, w[i].col, "option '%.*s' takes no value",
                         (int)(s.value - w[i].s - (s.value[-1] == '=')), w[i].s);
            take(m, s.row, "", w[i].line, w[i].col);
        } else if (kind == IDLE) {
            log_msg(LOG_INFO, "%s:%d:%d: option '%.60s' has no effect", m->file, w[i].line, w[i].col, w[i].s);
            i = skip_values(w, i, n);
        } else if (s.value) {
            take(m, s.row, s.value, w[i].line, w[i].col);
        } else if (i + 1 < n && !is_option(w[i + 1].s)) {
            const ShellWord *first = &w[++i];
            const char *text = first->s;
            while (kind == VALUES && i + 1 < n && !is_option(w[i + 1].s))
                text = arena_printf(m->a, "%s,%s", text, w[++i].s);
            take(m, s.row, text, first->line, first->col);
        } else {
            fault_at(m->f, m->file, w[i].line, w[i].col, "option '%.60s' needs a value", w[i].s);
        }
    }
}

/* ---- options that need a second look ---- */

static const Taken *here(const Made *m, const char *name)
{
    return m->here[option_find(name, strlen(name))];
}

static bool given(const Made *m, const char *name)
{
    return m->on[option_find(name, strlen(name))];
}

/* The last value of a key, or NULL. */
static const Yaml *made(const Made *m, const char *key)
{
    return yaml_get(m->map, key);
}

static bool is_none(const char *s)
{
    return !*s || str_eq(s, "none") || str_eq(s, "None");
}

/* weights_dir/MODEL/NAME; none is nothing. */
static void put_pretrained(Made *m)
{
    const Taken *t = here(m, "pretrained"), *dir = here(m, "weights_dir");
    const Yaml *model = made(m, "model");
    Yaml *v;
    if (!t || is_none(t->text)) return;
    v = scalar(m,
               *t->text == '/' ? t->text
                               : arena_printf(m->a, "%s%s%s/%s", dir ? dir->text : "weights/",
                                              dir && !str_ends(dir->text, "/") ? "/" : "",
                                              model ? model->s : "unknow", t->text),
               t->line, t->col);
    v->quoted = true;
    put(m, "pretrained_file", v);
}

/* Words that nobody knows have no effect in the original. */
static void put_keyword(Made *m)
{
    const Taken *t = here(m, "keyword");
    Yaml *list = scalar(m, "", t ? t->line : 0, t ? t->col : 0);
    if (!t) return;
    list->kind = Y_LIST;
    list->v = arena_alloc(m->a, (strlen(t->text) + 1) * sizeof *list->v);
    for (const char *p = t->text; *p;) {
        const size_t blank = strspn(p, " \t\n,"), n = strcspn(p + blank, ",");
        char *word = arena_printf(m->a, "%.*s", (int)n, p + blank);
        const WordRow *row;
        p += blank + n;
        while (n && strchr(" \t\n", word[strlen(word) - 1]) && *word) word[strlen(word) - 1] = 0;
        if (!*word) continue;
        row = word_find(word);
        if (row)
            list->v[list->n++] = scalar(m, word, t->line, t->col);
        else
            log_msg(LOG_WARN,
                    "%s:%d:%d: keyword: nobody knows '%s'; it has no effect, as in the original",
                    m->file, t->line, t->col, word);
    }
    put(m, "keyword", list);
}

/* An option that counts only beside this word. */
static void put_beside(Made *m, const char *word, const char *option, const char *key)
{
    const Taken *t = here(m, option);
    const Yaml *list = made(m, "keyword");
    for (int i = 0; t && list && i < list->n; i++) {
        if (!str_eq(word_find(list->v[i]->s)->name, word)) continue;
        put(m, key, scalar(m, t->text, t->line, t->col));
        return;
    }
    if (t)
        log_msg(LOG_INFO, "%s:%d:%d: option '--%s' has no effect; expected %s in keyword too", m->file,
                t->line, t->col, option, word);
}

/* What follows from the data set: the original's transforms. DALI reads the same images. */
static void put_transforms(Made *m)
{
    const Yaml *set = made(m, "dataset");
    const char *name = set ? set->s : "imagenet";
    const int line = set ? set->line : 0, col = set ? set->col : 0;
    put(m, "data_transforms",
        scalar(m,
               str_starts(name, "cifar")      ? "keyword_cifar"
               : str_eq(name, "dali")         ? "keyword_dali"
               : given(m, "addition_augment") ? "keyword_imagenet_augment"
                                              : "keyword_imagenet",
               line, col));
    if (str_eq(name, "dali")) put(m, "dataset", scalar(m, "imagenet", line, col));
}

static bool takes_steps(const char *policy)
{
    static const char *const with[] = {"custom_step", "poly", "sgdr", "sgdr_step", "cos"};
    for (size_t i = 0; i < ARRAY_LEN(with); i++)
        if (str_eq(policy, with[i])) return true;
    return false;
}

static void finish(Made *m)
{
    const Yaml *policy = made(m, "lr_scheduler"), *epochs = made(m, "num_epochs");
    put_keyword(m);
    put_beside(m, "label-smooth", "label_smooth", "label_smoothing");
    put_beside(m, "probe", "probe_list", "probe_list");
    put_pretrained(m);
    put_transforms(m);
    if (policy && takes_steps(policy->s) && !made(m, "multistep_lr_milestones"))
        put(m, "multistep_lr_milestones", scalar(m, "20,30,40", policy->line, policy->col));
    if (!epochs && !given(m, "evaluate"))
        fault_at(m->f, m->file, 1, 1,
                 "epochs is missing; expected it, or --evaluate among the options");
}

/* ---- the file ---- */

bool shell_config_named(const char *path)
{
    static const char begin[] = "config.";
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    return str_starts(base, begin) && base[strlen(begin)] && !str_ends(base, ".yml") &&
           !str_ends(base, ".yaml");
}

/* A variable's value, stripped. */
static void take_variable(Made *m, const ShellVar *v, const char *option)
{
    const size_t gap = v->value.len ? strspn(v->value.s, " \t\n") : 0;
    const bool any = gap < v->value.len;
    char *text = arena_strdup(m->a, any ? v->value.s + gap : "");
    for (size_t n = strlen(text); n && strchr(" \t\n", text[n - 1]); n--) text[n - 1] = 0;
    if (!*text && !str_eq(option, "keyword")) return;
    take(m, option_find(option, strlen(option)), text, any ? v->value.line[gap] : v->line,
         any ? v->value.col[gap] : v->col);
}

static void take_variables(Made *m, const ShellFile *file)
{
    for (size_t i = 0; i < file->nvar; i++) {
        const ShellVar *v = &file->var[i];
        const char *option = NULL;
        for (size_t k = 0; k < ARRAY_LEN(variables); k++)
            if (str_eq(variables[k].name, v->name)) option = variables[k].option;
        if (!option) {
            if (!v->used && !str_eq(v->name, "options") && !str_eq(v->name, "DELAY"))
                log_msg(LOG_WARN,
                        "%s:%d:%d: %s has no effect; expected dataset, root, model, epochs, "
                        "options, ...",
                        m->file, v->line, v->col, v->name);
        } else if (str_eq(v->name, "root") && v->undefined) {
            log_msg(LOG_INFO,
                    "%s:%d:%d: root names a variable that is not set; the data set is looked for "
                    "in the usual places",
                    m->file, v->line, v->col);
        } else if (!(str_eq(v->name, "epochs") && v->value.len && str_eq(v->value.s, "0"))) {
            take_variable(m, v, option);
        }
    }
}

Yaml *shell_config_read(Arena *a, const char *path, Faults *f)
{
    ShellFile file;
    Made m = {.a = a, .f = f, .file = arena_strdup(a, path)};
    Err e = {0};
    if (shell_read(&file, path, &e)) {
        fault_text(f, e.msg);
        shell_free(&file);
        return NULL;
    }
    m.map = scalar(&m, "", 1, 1);
    m.map->kind = Y_MAP;
    take_variables(&m, &file);
    if (shell_get(&file, "options")) {
        ShellWord *w;
        const size_t n = shell_words(shell_get(&file, "options"), a, &w);
        take_options(&m, w, n);
    }
    finish(&m);
    shell_free(&file);
    return m.map;
}
