/* run/report.c -- report.html of a run: what came out, how it went, its layers, its configuration.
 * Everything is read from the folder; only the part on layers needs the net. */
#include "run/report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "run/checkpoint.h"
#include "run/commands.h"
#include "run/log.h"
#include "run/progress.h"

typedef struct Report {
    const char *dir;
    Session *s;         /* NULL: no layers */
    json_t *run;        /* run.json; an empty object where there is none */
    char *resolved;     /* text of resolved.yml, or NULL */
    History history;
    Pictures pictures;
    ReportLayers layers;
    Str page;
} Report;

/* ---- run.json ---- */

static const json_t *at(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    return b ? json_object_get(v, b) : v;
}

static const char *text_at(const json_t *o, const char *a, const char *b)
{
    const char *s = json_string_value(at(o, a, b));
    return s ? s : "";
}

/* NaN where it is no number. */
static double number_at(const json_t *o, const char *a, const char *b)
{
    const json_t *v = at(o, a, b);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static char *command_text(const json_t *command)
{
    Str s = {0};
    for (size_t i = 0; i < json_array_size(command); i++)
        str_printf(&s, "%s%s", i ? " " : "", json_string_value(json_array_get(command, i)));
    return s.s ? s.s : xstrdup("");
}

/* The largest of a field over all starts. */
static double most_of(const json_t *starts, const char *field)
{
    double most = (double)NAN;
    for (size_t i = 0; i < json_array_size(starts); i++)
        most = fmax(most, number_at(json_array_get(starts, i), field, NULL));
    return most;
}

static double sum_of(const json_t *starts, const char *field)
{
    double sum = 0;
    for (size_t i = 0; i < json_array_size(starts); i++) {
        const double v = number_at(json_array_get(starts, i), field, NULL);
        if (isfinite(v)) sum += v;
    }
    return sum;
}

/* ---- resolved.yml ---- */

/* The value of a line "KEY: VALUE   # ORIGIN", cut into `value` and `origin` ("": the default);
 * false: no such line. */
static bool split_line(const char *line, size_t n, Str *key, Str *value, Str *origin)
{
    const char *colon = memchr(line, ':', n), *end = line + n, *hash = NULL;
    key->len = value->len = origin->len = 0;
    str_puts(key, "");
    str_puts(value, "");
    str_puts(origin, "");
    if (!n || *line == '#' || !colon) return false;
    str_putn(key, line, (size_t)(colon - line));
    for (const char *s = colon; s + 2 < end; s++)
        if (s[0] == ' ' && s[1] == '#' && s[2] == ' ') hash = s;
    if (hash) str_putn(origin, hash + 3, (size_t)(end - hash - 3));
    end = hash ? hash : end;
    for (colon++; colon < end && *colon == ' '; colon++) continue;
    while (end > colon && end[-1] == ' ') end--;
    str_putn(value, colon, (size_t)(end - colon));
    return true;
}

static void each_option(const char *text,
                        void (*f)(void *arg, const char *key, const char *value, const char *origin),
                        void *arg)
{
    Str key = {0}, value = {0}, origin = {0};
    for (const char *s = text; s && *s; s += strcspn(s, "\n"), s += *s == '\n')
        if (split_line(s, strcspn(s, "\n"), &key, &value, &origin))
            f(arg, key.s, value.s, origin.s);
    str_free(&key);
    str_free(&value);
    str_free(&origin);
}

typedef struct Wanted {
    const char *key;
    char *value;
} Wanted;

static void match_option(void *arg, const char *key, const char *value, const char *origin)
{
    Wanted *w = arg;
    (void)origin;
    if (!str_eq(key, w->key)) return;
    free(w->value);
    w->value = xstrdup(value);
}

/* The caller frees; "" where it is not there. */
static char *option(const Report *r, const char *key)
{
    Wanted w = {.key = key};
    each_option(r->resolved, match_option, &w);
    return w.value ? w.value : xstrdup("");
}

/* ---- the head ---- */

static void tile_number(Str *out, const char *what, double v, const char *fmt_unit, int digits)
{
    char buf[48];
    if (!isfinite(v)) return;
    snprintf(buf, sizeof buf, "%.*f%s", digits, v, fmt_unit);
    html_tile(out, what, buf);
}

static double last_value(const History *h, const char *split, const char *key)
{
    const HistoryLine *l = history_find(h, split, key);
    return l && l->n ? l->y[l->n - 1] : (double)NAN;
}

static void put_tiles(Report *r)
{
    const json_t *starts = at(r->run, "starts", NULL);
    const double seconds = sum_of(starts, "seconds"), peak = most_of(starts, "peak_memory_bytes");
    char took[32];
    Str *out = &r->page;
    html_tiles_begin(out);
    tile_number(out, "top-1, best evaluation", number_at(r->run, "best", "top1"), " %", 2);
    tile_number(out, "top-1, last evaluation", number_at(r->run, "result", "top1"), " %", 2);
    tile_number(out, "top-5, last evaluation", number_at(r->run, "result", "top5"), " %", 2);
    tile_number(out, "loss, last evaluation", number_at(r->run, "result", "loss"), "", 4);
    tile_number(out, "images evaluated", number_at(r->run, "result", "images"), "", 0);
    tile_number(out, "updates", number_at(r->run, "result", "step"), "", 0);
    if (seconds > 0) html_tile(out, "time, all starts", duration_text(seconds, took, sizeof took));
    tile_number(out, "training speed, last epoch", last_value(&r->history, "epoch", "img_s"),
                " images/s", 0);
    tile_number(out, "peak memory", peak / 1048576, " MiB", 0);
    html_tiles_end(out);
}

static void put_head(Report *r)
{
    char *model = option(r, "model"), *dataset = option(r, "dataset"), *wt = option(r, "wt_quant"),
         *fm = option(r, "fm_quant"), *wt_bit = option(r, "wt_bit"), *fm_bit = option(r, "fm_bit"),
         *command = command_text(at(r->run, "command", NULL));
    const char *name = text_at(r->run, "experiment", NULL);
    Str line = {0};
    html_begin(&r->page, *name ? name : r->dir);
    if (*model)
        str_printf(&line, "%s on %s; weights %s, %s bits; activations %s, %s bits. ", model, dataset,
                   wt, wt_bit, fm, fm_bit);
    if (*text_at(r->run, "status", NULL))
        str_printf(&line, "Mode %s, %s.", text_at(r->run, "mode", NULL),
                   text_at(r->run, "status", NULL));
    html_note(&r->page, line.s ? line.s : "No run.json and no resolved.yml stand in this folder.");
    if (*command) {
        line.len = 0;
        str_printf(&line, "Command: %s", command);
        html_note(&r->page, line.s);
    }
    put_tiles(r);
    str_free(&line);
    free(model);
    free(dataset);
    free(wt);
    free(fm);
    free(wt_bit);
    free(fm_bit);
    free(command);
}

/* ---- curves and layers ---- */

/* A section of those pictures, if there are any. */
static void put_section(Report *r, const char *heading, const char *note, const char *const *names)
{
    Str pictures = {0};
    if (html_pictures(&pictures, &r->pictures, names, false)) {
        html_heading(&r->page, heading);
        if (note) html_note(&r->page, note);
        str_putn(&r->page, pictures.s, pictures.len);
    }
    str_free(&pictures);
}

static void put_curves(Report *r)
{
    static const char *const not_here[] = {"sqnr",     "weights_", "spectrum_", "clip_",
                                           "fraclen_", "mask_",    "flips",     NULL};
    html_heading(&r->page, "Training");
    if (!html_pictures(&r->page, &r->pictures, not_here, true))
        html_note(&r->page, "No metrics.jsonl was written here: nothing was trained.");
    put_section(r, "Quantizers in training", NULL,
                HTML_NAMES("clip_", "fraclen_", "mask_", "flips"));
}

static void put_layers(Report *r)
{
    html_heading(&r->page, "Layers");
    if (!r->s) {
        html_note(&r->page, "No checkpoint stands in this folder.");
        return;
    }
    html_note(&r->page,
              "Weights of the last checkpoint. SQNR: variance of the weights over that of what "
              "rounding loses, after the best scale and offset. Levels: the values that the rounded "
              "weights take.");
    html_pictures(&r->page, &r->pictures, HTML_NAMES("sqnr"), false);
    report_layers_table(&r->page, &r->layers);
    put_section(r, "Weights before rounding, and the levels", NULL, HTML_NAMES("weights_"));
    put_section(r, "Spectra and masks",
                "Magnitude: mean over the rows of the weight, as a share of the largest. Mask: what "
                "each frequency is multiplied by; mean, least and largest over the rows.",
                HTML_NAMES("spectrum_"));
}

/* ---- time, memory, configuration ---- */

static void put_starts(Report *r)
{
    static const HtmlColumn c[] = {{"start", false},        {"from update", true}, {"time", true},
                                   {"peak memory (MiB)", true}, {"threads", true},
                                   {"exit status", true},   {"processor", false},  {"oneDNN", false}};
    const json_t *starts = at(r->run, "starts", NULL);
    html_heading(&r->page, "Time and memory");
    html_table_begin(&r->page, c, ARRAY_LEN(c));
    for (size_t i = 0; i < json_array_size(starts); i++) {
        const json_t *s = json_array_get(starts, i);
        const double peak = number_at(s, "peak_memory_bytes", NULL),
                     status = number_at(s, "exit", NULL), seconds = number_at(s, "seconds", NULL);
        char from[24], took[32] = "", memory[24] = "", threads[24], exit_status[24] = "";
        const char *cell[] = {text_at(s, "start", NULL), from, took, memory, threads, exit_status,
                              text_at(s, "machine", "cpu"), text_at(s, "machine", "dnnl")};
        snprintf(from, sizeof from, "%.0f", number_at(s, "from_step", NULL));
        snprintf(threads, sizeof threads, "%.0f", number_at(s, "machine", "threads"));
        if (isfinite(seconds)) duration_text(seconds, took, sizeof took);
        if (isfinite(peak)) snprintf(memory, sizeof memory, "%.0f", peak / 1048576);
        if (isfinite(status)) snprintf(exit_status, sizeof exit_status, "%.0f", status);
        html_row(&r->page, c, ARRAY_LEN(c), cell);
    }
    html_table_end(&r->page);
}

static const HtmlColumn option_columns[] = {{"key", false}, {"value", false}, {"from", false}};

static void put_option(void *arg, const char *key, const char *value, const char *origin)
{
    const char *cell[] = {key, value, origin};
    if (*origin) html_row(arg, option_columns, ARRAY_LEN(option_columns), cell);
}

static void put_config(Report *r)
{
    html_heading(&r->page, "Configuration");
    if (r->resolved) {
        html_note(&r->page, "What was set; everything else has its default.");
        html_table_begin(&r->page, option_columns, ARRAY_LEN(option_columns));
        each_option(r->resolved, put_option, &r->page);
        html_table_end(&r->page);
        html_details(&r->page, "Every option (resolved.yml)", r->resolved);
    }
    if (json_object_size(r->run)) {
        char *all = json_dumps(r->run, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        if (all) html_details(&r->page, "Everything that was recorded (run.json)", all);
        free(all);
    }
}

/* ---- the whole ---- */

static void read_folder(Report *r)
{
    char *json = fs_join(r->dir, "run.json"), *resolved = fs_join(r->dir, "resolved.yml"),
         *metrics = fs_join(r->dir, "metrics.jsonl");
    Err ignored;
    size_t len;
    r->run = fs_exists(json) ? json_load_file(json, 0, NULL) : NULL;
    if (!json_is_object(r->run)) {
        if (fs_exists(json)) log_msg(LOG_WARN, "%s: damaged; the report goes without it", json);
        json_decref(r->run);
        r->run = json_object();
    }
    if (fs_exists(resolved)) r->resolved = fs_read(resolved, 0, &len, &ignored);
    if (fs_exists(metrics) && history_read(&r->history, metrics, &ignored))
        log_msg(LOG_WARN, "%s", ignored.msg);
    free(json);
    free(resolved);
    free(metrics);
}

int report_write(const char *dir, Session *s, Err *e)
{
    Report r = {.dir = dir, .s = s};
    char *html = fs_join(dir, "report.html"), *pictures = fs_join(dir, "pictures");
    int bad;
    read_folder(&r);
    if (s) report_layers_make(&r.layers, s);
    pictures_of_history(&r.pictures, &r.history);
    if (s) report_layers_pictures(&r.pictures, &r.layers);
    put_head(&r);
    put_curves(&r);
    put_layers(&r);
    put_starts(&r);
    put_config(&r);
    html_end(&r.page);
    bad = fs_write(html, r.page.s, r.page.len, e) || pictures_write(&r.pictures, pictures, e);
    if (s) report_layers_free(&r.layers);
    pictures_free(&r.pictures);
    history_free(&r.history);
    json_decref(r.run);
    free(r.resolved);
    str_free(&r.page);
    free(html);
    free(pictures);
    return bad ? -1 : 0;
}

static int with_net(const char *dir, const char *resolved, const char *checkpoint, Err *e)
{
    Config cfg;
    Session s = {0};
    int r = config_load(&cfg, resolved, 0, NULL, e);
    if (!r) r = session_open(&s, &cfg, e) || session_load(&s, checkpoint, e) ? -1 : 0;
    if (!r) r = report_write(dir, &s, e);
    session_free(&s);
    config_free(&cfg);
    return r;
}

int report_folder(const char *dir, Err *e)
{
    char *resolved = fs_join(dir, "resolved.yml"), *json = fs_join(dir, "run.json"),
         *last = checkpoint_path(dir, CKPT_LAST);
    int r;
    if (fs_exists(dir) != 2)
        r = err_set(e, ERR_DATA, "%s: no such run folder", dir);
    else if (!fs_exists(resolved) && !fs_exists(json))
        r = err_set(e, ERR_DATA, "%s: no run folder: neither run.json nor resolved.yml is in it",
                    dir);
    else if (fs_exists(resolved) && fs_exists(last))
        r = with_net(dir, resolved, last, e);
    else
        r = report_write(dir, NULL, e);
    free(resolved);
    free(json);
    free(last);
    return r;
}

int command_report(Cli *c, Err *e)
{
    if (c->nargs < 1) return usage_fault(e, "report: expected RUN...");
    for (int i = 0; i < c->nargs; i++) {
        Str out = {0};
        if (report_folder(c->args[i], e)) return -1;
        str_printf(&out, "%s/report.html\n", c->args[i]);
        print_out(&out);
    }
    return 0;
}
