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
#include "run/progress.h"
#include "run/runrecord.h"

typedef struct Report {
    RunRecord record;
    Session *s; /* NULL: no layers */
    Pictures pictures;
    ReportLayers layers;
    Str page;
} Report;

/* ---- the head ---- */

static void tile_number(Str *out, const char *what, double v, const char *fmt_unit, int digits)
{
    char buf[48];
    if (!isfinite(v)) return;
    snprintf(buf, sizeof buf, "%.*f%s", digits, v, fmt_unit);
    html_tile(out, what, buf);
}

static void put_tiles(Report *r)
{
    const RunRecord *rec = &r->record;
    const double seconds = runrecord_seconds(rec);
    char took[32];
    Str *out = &r->page;
    html_tiles_begin(out);
    tile_number(out, "top-1, best evaluation", json_number_at(rec->run, "best", "top1"), " %", 2);
    tile_number(out, "top-1, last evaluation", json_number_at(rec->run, "result", "top1"), " %", 2);
    tile_number(out, "top-5, last evaluation", json_number_at(rec->run, "result", "top5"), " %", 2);
    tile_number(out, "loss, last evaluation", json_number_at(rec->run, "result", "loss"), "", 4);
    tile_number(out, "images evaluated", json_number_at(rec->run, "result", "images"), "", 0);
    tile_number(out, "updates", json_number_at(rec->run, "result", "step"), "", 0);
    if (seconds > 0) html_tile(out, "time, all starts", duration_text(seconds, took, sizeof took));
    tile_number(out, "images/s in training, last epoch", runrecord_speed(rec), "", 0);
    tile_number(out, "peak memory", runrecord_peak_memory(rec) / 1048576, " MiB", 0);
    html_tiles_end(out);
}

static void put_command(Report *r)
{
    const json_t *command = json_object_get(r->record.run, "command");
    Str line = {0};
    for (size_t i = 0; i < json_array_size(command); i++)
        str_printf(&line, "%s%s",
                   i ? " " : "Command: ", json_string_value(json_array_get(command, i)));
    if (line.len) html_note(&r->page, line.s);
    str_free(&line);
}

static void put_head(Report *r)
{
    const RunRecord *rec = &r->record;
    const char *name = json_text_at(rec->run, "experiment", NULL),
               *status = json_text_at(rec->run, "status", NULL);
    Str line = {0};
    html_begin(&r->page, *name ? name : rec->dir);
    if (rec->resolved)
        str_printf(&line, "%s on %s; weights %s, %s bits; activations %s, %s bits. ",
                   runrecord_option(rec, "model"), runrecord_option(rec, "dataset"),
                   runrecord_option(rec, "wt_quant"), runrecord_option(rec, "wt_bit"),
                   runrecord_option(rec, "fm_quant"), runrecord_option(rec, "fm_bit"));
    if (*status) str_printf(&line, "Mode %s, %s.", json_text_at(rec->run, "mode", NULL), status);
    if (line.len) html_note(&r->page, line.s);
    put_command(r);
    put_tiles(r);
    str_free(&line);
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
    html_note(
        &r->page,
        "Weights of the last checkpoint. SQNR: variance of the weights over that of what "
        "rounding loses, after the best scale and offset. Levels: the values that the rounded "
        "weights take.");
    html_pictures(&r->page, &r->pictures, HTML_NAMES("sqnr"), false);
    report_layers_table(&r->page, &r->layers);
    put_section(r, "Weights before rounding, and the levels", NULL, HTML_NAMES("weights_"));
    put_section(
        r, "Spectra and masks",
        "Magnitude: mean over the rows of the weight, as a share of the largest. Mask: what "
        "each frequency is multiplied by; mean, least and largest over the rows.",
        HTML_NAMES("spectrum_"));
}

/* ---- time, memory, configuration ---- */

static void put_starts(Report *r)
{
    static const HtmlColumn c[] = {
        {"start", false},  {"from update", true}, {"time", true},       {"peak memory (MiB)", true},
        {"threads", true}, {"exit status", true}, {"processor", false}, {"oneDNN", false}};
    const json_t *starts = json_object_get(r->record.run, "starts");
    html_heading(&r->page, "Time and memory");
    html_table_begin(&r->page, c, ARRAY_LEN(c));
    for (size_t i = 0; i < json_array_size(starts); i++) {
        const json_t *s = json_array_get(starts, i);
        const double peak = json_number_at(s, "peak_memory_bytes", NULL),
                     status = json_number_at(s, "exit", NULL),
                     seconds = json_number_at(s, "seconds", NULL);
        char from[24], took[32] = "", memory[24] = "", threads[24], exit_status[24] = "";
        const char *cell[] = {json_text_at(s, "start", NULL),
                              from,
                              took,
                              memory,
                              threads,
                              exit_status,
                              json_text_at(s, "machine", "cpu"),
                              json_text_at(s, "machine", "dnnl")};
        snprintf(from, sizeof from, "%.0f", json_number_at(s, "from_step", NULL));
        snprintf(threads, sizeof threads, "%.0f", json_number_at(s, "machine", "threads"));
        if (isfinite(seconds)) duration_text(seconds, took, sizeof took);
        if (isfinite(peak)) snprintf(memory, sizeof memory, "%.0f", peak / 1048576);
        if (isfinite(status)) snprintf(exit_status, sizeof exit_status, "%.0f", status);
        html_row(&r->page, c, ARRAY_LEN(c), cell);
    }
    html_table_end(&r->page);
}

static const HtmlColumn option_columns[] = {{"key", false}, {"value", false}, {"from", false}};

static void put_config(Report *r)
{
    const RunRecord *rec = &r->record;
    const int n = (int)ARRAY_LEN(option_columns);
    html_heading(&r->page, "Configuration");
    if (rec->resolved) {
        html_note(&r->page, "What was set; everything else has its default.");
        html_table_begin(&r->page, option_columns, n);
        for (int i = 0; i < rec->noptions; i++) {
            const RunOption *o = &rec->option[i];
            if (*o->origin)
                html_row(&r->page, option_columns, n,
                         (const char *const[]){o->key, o->value, o->origin});
        }
        html_table_end(&r->page);
        html_details(&r->page, "Every option (resolved.yml)", rec->resolved);
    }
    if (json_object_size(rec->run)) {
        char *all =
            json_dumps(rec->run, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        if (all) html_details(&r->page, "Everything that was recorded (run.json)", all);
        free(all);
    }
}

/* ---- the whole ---- */

static int write_all(Report *r, const PictureForm *form, Err *e)
{
    char *html = fs_join(r->record.dir, "report.html"), *dir = fs_join(r->record.dir, "pictures");
    int bad;
    if (r->s) report_layers_make(&r->layers, r->s);
    pictures_of_history(&r->pictures, &r->record.history);
    if (r->s) report_layers_pictures(&r->pictures, &r->layers);
    put_head(r);
    put_curves(r);
    put_layers(r);
    put_starts(r);
    put_config(r);
    html_end(&r->page);
    if (!form) form = picture_form_find(runrecord_option(&r->record, "pictures"));
    bad = fs_write(html, r->page.s, r->page.len, e) ||
          pictures_write(&r->pictures, dir, form ? form : picture_forms, e);
    if (r->s) report_layers_free(&r->layers);
    pictures_free(&r->pictures);
    str_free(&r->page);
    free(html);
    free(dir);
    return bad ? -1 : 0;
}

int report_write(const char *dir, Session *s, const PictureForm *form, Err *e)
{
    Report r = {.s = s};
    int bad = runrecord_read(&r.record, dir, e);
    if (!bad) bad = write_all(&r, form, e);
    runrecord_free(&r.record);
    return bad;
}

static int with_net(const char *dir, const char *resolved, const char *checkpoint,
                    const PictureForm *form, Err *e)
{
    Config cfg;
    Session s = {0};
    int r = config_load(&cfg, resolved, 0, NULL, e);
    if (!r) r = session_open(&s, &cfg, e) || session_load(&s, checkpoint, e) ? -1 : 0;
    if (!r) r = report_write(dir, &s, form, e);
    session_free(&s);
    config_free(&cfg);
    return r;
}

int report_folder(const char *dir, const PictureForm *form, Err *e)
{
    char *resolved = fs_join(dir, "resolved.yml"), *last = checkpoint_path(dir, CKPT_LAST);
    const bool net = fs_exists(resolved) && fs_exists(last);
    int r = net ? with_net(dir, resolved, last, form, e) : report_write(dir, NULL, form, e);
    free(resolved);
    free(last);
    return r;
}

static const char form_key[] = "pictures=";

/* "pictures=png" into form: 1; another word: 0. */
static int take_form(const char *word, const PictureForm **form, Err *e)
{
    const char *name = word + strlen(form_key);
    if (!str_starts(word, form_key)) return 0;
    *form = picture_form_find(name);
    return *form ? 1 : usage_fault(e, "report: %s; expected svg, png or both", word);
}

int command_report(Cli *c, Err *e)
{
    const PictureForm *form = NULL;
    int runs = 0;
    for (int i = 0; i < c->nargs; i++) {
        const int taken = take_form(c->args[i], &form, e);
        if (taken < 0) return -1;
        runs += !taken;
        if (!taken && strchr(c->args[i], '=') && fs_exists(c->args[i]) != 2)
            return usage_fault(e, "report: '%s'; expected a run folder or pictures=svg|png|both", c->args[i]);
    }
    if (!runs) return usage_fault(e, "report: expected RUN... [pictures=svg|png|both]");
    for (int i = 0; i < c->nargs; i++) {
        Str out = {0};
        if (str_starts(c->args[i], form_key)) continue;
        if (report_folder(c->args[i], form, e)) return -1;
        str_printf(&out, "%s/report.html\n", c->args[i]);
        print_out(&out);
    }
    return 0;
}
