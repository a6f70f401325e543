/* run/runrecord.c -- see runrecord.h. */
#include "run/runrecord.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

/* ---- run.json ---- */

static const json_t *at(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    return b ? json_object_get(v, b) : v;
}

const char *json_text_at(const json_t *o, const char *a, const char *b)
{
    const char *s = json_string_value(at(o, a, b));
    return s ? s : "";
}

double json_number_at(const json_t *o, const char *a, const char *b)
{
    const json_t *v = at(o, a, b);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

double runrecord_seconds(const RunRecord *r)
{
    const json_t *starts = json_object_get(r->run, "starts");
    double sum = 0;
    for (size_t i = 0; i < json_array_size(starts); i++) {
        const double v = json_number_at(json_array_get(starts, i), "seconds", NULL);
        if (isfinite(v)) sum += v;
    }
    return sum;
}

double runrecord_peak_memory(const RunRecord *r)
{
    const json_t *starts = json_object_get(r->run, "starts");
    double most = (double)NAN;
    for (size_t i = 0; i < json_array_size(starts); i++)
        most = fmax(most, json_number_at(json_array_get(starts, i), "peak_memory_bytes", NULL));
    return most;
}

double runrecord_speed(const RunRecord *r)
{
    const HistoryLine *l = history_find(&r->history, "epoch", "img_s");
    return l && l->n ? l->y[l->n - 1] : (double)NAN;
}

/* ---- resolved.yml: lines "KEY: VALUE   # ORIGIN" ---- */

static void add_line(RunRecord *r, const char *line, size_t n)
{
    const char *end = line + n, *colon = memchr(line, ':', n), *hash = NULL, *value;
    if (!n || *line == '#' || !colon) return;
    for (const char *s = colon; s + 2 < end; s++)
        if (s[0] == ' ' && s[1] == '#' && s[2] == ' ') hash = s;
    value = colon + 1;
    while (value < end && *value == ' ') value++;
    mem_grow(&r->option, &r->cap, (size_t)r->noptions + 1, sizeof *r->option);
    r->option[r->noptions].key = arena_printf(&r->arena, "%.*s", (int)(colon - line), line);
    r->option[r->noptions].origin =
        hash ? arena_printf(&r->arena, "%.*s", (int)(end - hash - 3), hash + 3) : "";
    if (hash) end = hash;
    if (value > end) value = end; /* nothing before the origin */
    while (end > value && end[-1] == ' ') end--;
    r->option[r->noptions++].value = arena_printf(&r->arena, "%.*s", (int)(end - value), value);
}

const char *runrecord_option(const RunRecord *r, const char *key)
{
    const char *found = "";
    for (int i = 0; i < r->noptions; i++)
        if (!strcmp(r->option[i].key, key)) found = r->option[i].value;
    return found;
}

/* ---- the folder ---- */

static void read_json(RunRecord *r, const char *path)
{
    r->run = fs_exists(path) ? json_load_file(path, 0, NULL) : NULL;
    if (json_is_object(r->run)) return;
    if (fs_exists(path)) log_msg(LOG_WARN, "%s: damaged; it is left out", path);
    json_decref(r->run);
    r->run = json_object();
}

int runrecord_read(RunRecord *r, const char *dir, Err *e)
{
    char *json = fs_join(dir, "run.json"), *resolved = fs_join(dir, "resolved.yml"),
         *metrics = fs_join(dir, "metrics.jsonl");
    int bad = 0;
    size_t len;
    Err why;
    *r = (RunRecord){.dir = dir};
    if (fs_exists(dir) != 2)
        bad = err_set(e, ERR_DATA, "%s: no such run folder", dir);
    else if (!fs_exists(json) && !fs_exists(resolved))
        bad = err_set(e, ERR_DATA, "%s: no run folder: neither run.json nor resolved.yml is in it",
                      dir);
    read_json(r, json);
    if (fs_exists(resolved) && !(r->resolved = fs_read(resolved, 0, &len, &why)))
        log_msg(LOG_WARN, "%s", why.msg);
    for (const char *s = r->resolved; s && *s; s += strcspn(s, "\n"), s += *s == '\n')
        add_line(r, s, strcspn(s, "\n"));
    if (fs_exists(metrics) && history_read(&r->history, metrics, &why))
        log_msg(LOG_WARN, "%s", why.msg);
    free(json);
    free(resolved);
    free(metrics);
    return bad;
}

void runrecord_free(RunRecord *r)
{
    json_decref(r->run);
    free(r->resolved);
    free(r->option);
    history_free(&r->history);
    arena_free(&r->arena);
    *r = (RunRecord){0};
}

const char *runrecord_number(double v, int digits, char buf[40])
{
    if (isfinite(v))
        snprintf(buf, 40, "%.*f", digits, v);
    else
        strcpy(buf, "-");
    return buf;
}
