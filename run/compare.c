/* run/compare.c -- qrun compare RUN...: what came out of several runs, and in which keys they
 * differ. As a table, as JSON, or with html=FILE as a page with their curves in one picture each;
 * with by=KEY as a table by two keys (run/pivot.h) instead. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "run/commands.h"
#include "run/html.h"
#include "run/pivot.h"
#include "run/runrecord.h"

enum { MAX_RUNS = PIVOT_MAX, MAX_CELL = 28 };

typedef struct Compare {
    RunRecord run[MAX_RUNS];
    int n;
    const char *html, *picture; /* files, or NULL */
    const char *by, *rows;      /* keys of a pivot table; by NULL: none */
    Pivot pivot;
} Compare;

/* ---- results: one row each ---- */

static double best_top1(const RunRecord *r)
{
    return json_number_at(r->run, "best", "top1");
}
static double last_top1(const RunRecord *r)
{
    return json_number_at(r->run, "result", "top1");
}
static double last_top5(const RunRecord *r)
{
    return json_number_at(r->run, "result", "top5");
}
static double last_loss(const RunRecord *r)
{
    return json_number_at(r->run, "result", "loss");
}
static double updates(const RunRecord *r)
{
    return json_number_at(r->run, "result", "step");
}
static double peak_memory(const RunRecord *r)
{
    return runrecord_peak_memory(r) / 1048576;
}

static const struct {
    const char *name, *title; /* name: the key in JSON */
    int digits;
    double (*get)(const RunRecord *r); /* NaN: not known */
} results[] = {
    {"best_top1", "top-1, best (%)", 2, best_top1},
    {"top1", "top-1, last (%)", 2, last_top1},
    {"top5", "top-5, last (%)", 2, last_top5},
    {"loss", "loss, last (nats)", 4, last_loss},
    {"updates", "updates", 0, updates},
    {"seconds", "time (s)", 1, runrecord_seconds},
    {"images_per_second", "speed (images/s)", 1, runrecord_speed},
    {"peak_memory_mib", "peak memory (MiB)", 0, peak_memory},
};

/* ---- keys ---- */

/* Every run has its own folder and name. */
static bool always_differs(const char *key)
{
    return str_eq(key, "log_dir") || str_eq(key, "experiment");
}

static bool differs(const Compare *c, const char *key)
{
    for (int i = 1; i < c->n; i++)
        if (strcmp(runrecord_option(&c->run[0], key), runrecord_option(&c->run[i], key)) != 0)
            return !always_differs(key);
    return false;
}

/* Was the key seen in an earlier run, or on an earlier line of this one? */
static bool seen(const Compare *c, int run, int option)
{
    const char *key = c->run[run].option[option].key;
    for (int i = 0; i < option; i++)
        if (!strcmp(c->run[run].option[i].key, key)) return true;
    for (int i = 0; i < run; i++)
        if (*runrecord_option(&c->run[i], key)) return true;
    return false;
}

/* Calls f for each key whose value is not the same everywhere; how many. */
static int each_difference(const Compare *c,
                           void (*f)(const Compare *c, const char *key, void *arg), void *arg)
{
    int n = 0;
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->run[i].noptions; k++) {
            const char *key = c->run[i].option[k].key;
            if (seen(c, i, k) || !differs(c, key)) continue;
            f(c, key, arg);
            n++;
        }
    return n;
}

static const char *value_of(const RunRecord *r, const char *key)
{
    const char *v = runrecord_option(r, key);
    return *v ? v : "-";
}

/* ---- text ---- */

static void put_cell(Str *out, const char *s, int width, bool last)
{
    const size_t n = strlen(s);
    if (n > (size_t)width)
        str_printf(out, "%.*s...", width - 3, s);
    else
        str_printf(out, "%s", s);
    if (!last) str_printf(out, "%*s", (int)(n > (size_t)width ? 2 : (size_t)width - n + 2), "");
}

typedef struct Table {
    Str out;
    int first, width[MAX_RUNS]; /* of the columns */
} Table;

static void widen(int *width, const char *s, int most)
{
    const int n = (int)strlen(s);
    if (n > *width) *width = n < most ? n : most;
}

/* How much of a row's values is left out at their beginning: when one is too long for its column, what all have in common but
 * for a few letters. */
static size_t in_common(const Compare *c, const char *key)
{
    enum { CONTEXT = 8 };
    const char *first = value_of(&c->run[0], key);
    size_t common = strlen(first);
    bool long_one = false;
    for (int i = 0; i < c->n; i++) {
        const char *v = value_of(&c->run[i], key);
        size_t k = 0;
        while (k < common && v[k] == first[k]) k++;
        common = k;
        long_one = long_one || strlen(v) > MAX_CELL;
    }
    return long_one && common > CONTEXT ? common - CONTEXT : 0;
}

static char *shown_value(const Compare *c, int i, const char *key)
{
    const char *v = value_of(&c->run[i], key);
    const size_t skip = in_common(c, key);
    return skip ? xasprintf("...%s", v + skip) : xstrdup(v);
}

static void put_difference(const Compare *c, const char *key, void *arg)
{
    Table *t = arg;
    put_cell(&t->out, key, t->first, false);
    for (int i = 0; i < c->n; i++) {
        char *v = shown_value(c, i, key);
        put_cell(&t->out, v, t->width[i], i + 1 == c->n);
        free(v);
    }
    str_puts(&t->out, "\n");
}

static void widen_difference(const Compare *c, const char *key, void *arg)
{
    Table *t = arg;
    widen(&t->first, key, (int)strlen(key));
    for (int i = 0; i < c->n; i++) {
        char *v = shown_value(c, i, key);
        widen(&t->width[i], v, MAX_CELL);
        free(v);
    }
}

static void print_text(const Compare *c)
{
    Table t = {.first = 24};
    if (c->by) {
        pivot_text(&c->pivot, &t.out);
        print_out(&t.out);
        return;
    }
    for (int i = 0; i < c->n; i++) {
        t.width[i] = 10;
        widen(&t.width[i], c->run[i].dir, MAX_CELL);
    }
    each_difference(c, widen_difference, &t);
    put_cell(&t.out, "run", t.first, false);
    for (int i = 0; i < c->n; i++) put_cell(&t.out, c->run[i].dir, t.width[i], i + 1 == c->n);
    str_puts(&t.out, "\n");
    put_cell(&t.out, "status", t.first, false);
    for (int i = 0; i < c->n; i++)
        put_cell(&t.out, json_text_at(c->run[i].run, "status", NULL), t.width[i], i + 1 == c->n);
    str_puts(&t.out, "\n");
    for (size_t k = 0; k < ARRAY_LEN(results); k++) {
        char buf[40];
        put_cell(&t.out, results[k].title, t.first, false);
        for (int i = 0; i < c->n; i++)
            put_cell(&t.out, runrecord_number(results[k].get(&c->run[i]), results[k].digits, buf),
                     t.width[i], i + 1 == c->n);
        str_puts(&t.out, "\n");
    }
    str_puts(&t.out, "\n");
    if (!each_difference(c, put_difference, &t)) str_puts(&t.out, "no key differs\n");
    print_out(&t.out);
}

/* ---- JSON ---- */

static json_t *json_of(const char *s)
{
    json_t *j = json_string(s);
    return j ? j : json_string("(not UTF-8)");
}

static void add_difference(const Compare *c, const char *key, void *arg)
{
    json_t *values = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(values, json_of(runrecord_option(&c->run[i], key)));
    json_object_set_new(arg, key, values);
}

static void print_json(const Compare *c)
{
    json_t *runs = json_array(), *keys = json_object(), *all;
    char *text;
    Str out = {0};
    for (int i = 0; i < c->n; i++) {
        json_t *o = json_object();
        json_object_set_new(o, "run", json_of(c->run[i].dir));
        json_object_set_new(o, "status", json_of(json_text_at(c->run[i].run, "status", NULL)));
        for (size_t k = 0; k < ARRAY_LEN(results); k++) {
            const double v = results[k].get(&c->run[i]);
            json_object_set_new(o, results[k].name, isfinite(v) ? json_real(v) : json_null());
        }
        json_array_append_new(runs, o);
    }
    each_difference(c, add_difference, keys);
    all = json_pack("{s:o, s:o}", "runs", runs, "differs", keys);
    if (c->by) json_object_set_new(all, "table", pivot_json(&c->pivot));
    text = json_dumps(all, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    str_printf(&out, "%s\n", text ? text : "{}");
    print_out(&out);
    free(text);
    json_decref(all);
}

/* ---- the page ---- */

static const struct {
    const char *name, *title, *ylabel, *split, *key;
} curves[] = {
    {"accuracy", "Accuracy, evaluation", "top-1 (%)", "val", "top1"},
    {"loss_evaluation", "Loss, evaluation", "loss (nats)", "val", "loss"},
    {"loss_training", "Loss, training", "loss (nats)", "epoch", "loss"},
    {"learning_rate", "Learning rate", "learning rate (factor)", "epoch", "lr"},
};

/* A run's name on the page: without the folders that all have in common. */
static const char *page_name(const Compare *c, int run)
{
    size_t n = 0;
    for (size_t k = 0; c->run[run].dir[k]; k++) {
        bool same = c->run[run].dir[k + 1] != '\0';
        for (int i = 0; i < c->n && same; i++) /* up to k they are the same */
            same = c->run[i].dir[k] == c->run[run].dir[k] && c->run[i].dir[k + 1];
        if (!same) break;
        if (c->run[run].dir[k] == '/') n = k + 1;
    }
    return c->run[run].dir + n;
}

static void add_curves(const Compare *c, Pictures *p)
{
    for (size_t k = 0; k < ARRAY_LEN(curves); k++) {
        PlotSeries s[MAX_RUNS];
        int n = 0;
        for (int i = 0; i < c->n; i++) {
            const HistoryLine *l = history_find(&c->run[i].history, curves[k].split, curves[k].key);
            if (l)
                s[n++] = (PlotSeries){
                    .name = page_name(c, i), .x = l->x, .y = l->y, .n = l->n, .points = l->n < 3};
        }
        if (n)
            pictures_add(p, curves[k].name,
                         &(Plot){.title = curves[k].title,
                                 .xlabel = "step (updates)",
                                 .ylabel = curves[k].ylabel,
                                 .series = s,
                                 .nseries = n});
    }
}

typedef struct PageTable {
    Str *out;
    HtmlColumn column[MAX_RUNS + 1];
} PageTable;

static void put_page_difference(const Compare *c, const char *key, void *arg)
{
    PageTable *t = arg;
    const char *cell[MAX_RUNS + 1] = {key};
    for (int i = 0; i < c->n; i++) cell[i + 1] = value_of(&c->run[i], key);
    html_row(t->out, t->column, c->n + 1, cell);
}

static int write_page(const Compare *c, Err *e)
{
    Str out = {0};
    PageTable t = {.out = &out, .column = {{"", false}}};
    Pictures p = {0};
    int r;
    for (int i = 0; i < c->n; i++) t.column[i + 1] = (HtmlColumn){page_name(c, i), true};
    html_begin(&out, "Comparison of runs");
    html_heading(&out, "Results");
    if (c->by) {
        pivot_page(&c->pivot, &out);
        pivot_picture(&c->pivot, &p);
    }
    html_table_begin(&out, t.column, c->n + 1);
    for (size_t k = 0; k < ARRAY_LEN(results); k++) {
        char buf[MAX_RUNS][40];
        const char *cell[MAX_RUNS + 1] = {results[k].title};
        for (int i = 0; i < c->n; i++)
            cell[i + 1] = runrecord_number(results[k].get(&c->run[i]), results[k].digits, buf[i]);
        html_row(&out, t.column, c->n + 1, cell);
    }
    html_table_end(&out);
    html_heading(&out, "Curves");
    add_curves(c, &p);
    html_pictures(&out, &p, HTML_NAMES(""), false);
    html_heading(&out, "Keys that differ");
    for (int i = 0; i < c->n; i++) t.column[i + 1].number = false;
    html_table_begin(&out, t.column, c->n + 1);
    each_difference(c, put_page_difference, &t);
    html_table_end(&out);
    html_end(&out);
    r = fs_write(c->html, out.s, out.len, e);
    pictures_free(&p);
    str_free(&out);
    return r;
}

static int write_picture(const Compare *c, Err *e)
{
    Pictures p = {0};
    int r;
    pivot_picture(&c->pivot, &p);
    r = p.n ? picture_write(c->picture, &p.v[0].plot, e)
            : err_set(e, ERR_CONFIG, "compare: picture=%s: by=%s has fewer than two numbers to draw over",
                      c->picture, c->by);
    pictures_free(&p);
    return r;
}

/* NAME=VALUE of the command itself: 1; a run: 0. */
static int take_option(Compare *c, const char *arg, Err *e)
{
    const struct {
        const char *name;
        const char **to;
    } option[] = {{"html=", &c->html}, {"picture=", &c->picture}, {"by=", &c->by}, {"rows=", &c->rows}};
    for (size_t i = 0; i < ARRAY_LEN(option); i++) {
        const size_t n = strlen(option[i].name);
        if (!str_starts(arg, option[i].name) || !arg[n]) continue;
        *option[i].to = arg + n;
        return 1;
    }
    if (!strchr(arg, '=') || fs_exists(arg)) return 0;
    return usage_fault(e, "compare: '%s'; expected a run folder, html=FILE, by=KEY, rows=KEY or picture=FILE",
                       arg);
}

int command_compare(Cli *cli, Err *e)
{
    Compare *c = xcalloc(1, sizeof *c);
    int r = 0;
    for (int i = 0; i < cli->nargs && !r; i++) {
        const int taken = take_option(c, cli->args[i], e);
        if (taken > 0) continue;
        if (taken < 0)
            r = -1;
        else if (c->n == MAX_RUNS)
            r = usage_fault(e, "compare: at most %d runs", MAX_RUNS);
        else
            r = runrecord_read(&c->run[c->n++], cli->args[i], e);
    }
    if (!r && c->n < 2) r = usage_fault(e, "compare: expected two run folders or more");
    if (!r && !c->by && (c->rows || c->picture))
        r = usage_fault(e, "compare: %s has no effect without by=KEY", c->rows ? "rows=" : "picture=");
    if (!r && c->by)
        r = pivot_make(&c->pivot, c->run, c->n, c->rows ? c->rows : "experiment", c->by, e);
    if (!r && c->html) r = write_page(c, e);
    if (!r && c->picture) r = write_picture(c, e);
    if (!r) (cli->json ? print_json : print_text)(c);
    for (int i = 0; i < c->n; i++) runrecord_free(&c->run[i]);
    free(c);
    return r;
}
