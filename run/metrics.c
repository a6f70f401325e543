/* run/metrics.c -- see metrics.h. */
#include "run/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/fs.h"
#include "quant/quant.h"
#include "run/log.h"

void topk_init(TopK *t, const int *k, int n)
{
    t->n = 0;
    t->k[t->n++] = 1;
    for (int i = 0; i < n && t->n < TOPK_MAX; i++)
        if (k[i] > 1) t->k[t->n++] = k[i];
}

void topk_count(const TopK *t, const float *logits, const int32_t *label, int n, int classes,
                Meter *m)
{
    for (int i = 0; i < n; i++) {
        const float *l = logits + (size_t)i * (size_t)classes;
        int rank = 0;
        if (label[i] < 0 || label[i] >= classes) continue;
        for (int c = 0; c < classes; c++)
            rank += l[c] > l[label[i]] || (l[c] == l[label[i]] && c < label[i]);
        if (isnan(l[label[i]])) rank = classes;
        m->n++;
        for (int k = 0; k < t->n; k++) m->right[k] += rank < t->k[k];
    }
}

void meter_add(Meter *to, const Meter *m)
{
    to->loss += m->loss;
    to->n += m->n;
    for (int i = 0; i < TOPK_MAX; i++) to->right[i] += m->right[i];
}

double meter_loss(const Meter *m)
{
    const double mean = m->n > 0 ? m->loss / (double)m->n : 0;
    return isnan(mean) ? (double)NAN : mean; /* without a sign: "nan" wherever it is printed */
}

double meter_percent(const Meter *m, int i)
{
    return m->n > 0 ? 100.0 * (double)m->right[i] / (double)m->n : 0;
}

void meter_text(const Meter *m, Str *out)
{
    str_printf(out, "%" PRId64 " %a", m->n, m->loss);
    for (int i = 0; i < TOPK_MAX; i++) str_printf(out, " %" PRId64, m->right[i]);
}

int meter_parse(const char *text, Meter *m)
{
    char *end;
    const char *s = text;
    *m = (Meter){0};
    m->n = strtoll(s, &end, 10);
    if (end == s) return -1;
    m->loss = strtod(s = end, &end);
    if (end == s) return -1;
    for (int i = 0; i < TOPK_MAX; i++) {
        m->right[i] = strtoll(s = end, &end, 10);
        if (end == s) return -1;
    }
    return *end ? -1 : 0;
}

void meter_result(const Meter *m, const WidthMeters *w, const TopK *t, double seconds, Str *out)
{
    const int64_t images = w->n ? w->m[0].n : m->n;
    for (int i = 0; i < t->n; i++) str_printf(out, "top%d=%.2f ", t->k[i], meter_percent(m, i));
    str_printf(out, "loss=%.4f images=%" PRId64 " seconds=%.1f", meter_loss(m), images, seconds);
    for (int i = 0; i < w->n; i++) {
        char width[16];
        str_printf(out, " top1_%s=%.2f", width_text(w->bits[i], w->act_bits[i], width),
                   meter_percent(&w->m[i], 0));
    }
}

/* ---- metrics.jsonl ---- */

struct MetricsLog {
    FILE *f;
    char *path;
};

/* The step of one line, or -1 when it is no whole object. */
static int64_t line_step(const char *line, size_t n)
{
    json_t *o = json_loadb(line, n, 0, NULL);
    const json_t *s = o ? json_object_get(o, "step") : NULL;
    int64_t step = json_is_integer(s) ? (int64_t)json_integer_value(s) : -1;
    json_decref(o);
    return step;
}

static int cut_back(const char *path, int64_t keep_step, Err *e)
{
    Str keep = {0};
    size_t len;
    char *text;
    int r = 0;
    if (!fs_exists(path)) return 0;
    if (!(text = fs_read(path, 0, &len, e))) return -1;
    for (char *s = text, *end; s < text + len; s = end) {
        char *nl = memchr(s, '\n', (size_t)(text + len - s));
        int64_t step = nl ? line_step(s, (size_t)(nl - s)) : -1;
        end = nl ? nl + 1 : text + len;
        if (step >= 0 && step <= keep_step) str_putn(&keep, s, (size_t)(end - s));
    }
    if (keep.len != len) r = fs_write(path, keep.s ? keep.s : "", keep.len, e);
    str_free(&keep);
    free(text);
    return r;
}

MetricsLog *metrics_open(const char *path, int64_t keep_step, Err *e)
{
    MetricsLog *m;
    FILE *f;
    if (cut_back(path, keep_step, e)) return NULL;
    if (!(f = fopen(path, "ae"))) {
        err_set(e, ERR_RUN, "%s: cannot write: %s", path, strerror(errno));
        return NULL;
    }
    m = xcalloc(1, sizeof *m);
    m->f = f;
    m->path = xstrdup(path);
    return m;
}

/* JSON has no NaN; a value that is not finite is written as null. */
static void put_real(json_t *o, const char *key, double v)
{
    json_object_set_new(o, key, isfinite(v) ? json_real(v) : json_null());
}

static json_t *row_new(int64_t step, int64_t epoch, const char *split)
{
    return json_pack("{s:I, s:I, s:s}", "step", (json_int_t)step, "epoch", (json_int_t)epoch,
                     "split", split);
}

static int row_write(MetricsLog *m, json_t *o, Err *e)
{
    char *s;
    int bad;
    put_real(o, "time", floor(log_unix_time() * 10) / 10);
    s = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    bad = !s || fprintf(m->f, "%s\n", s) < 0 || fflush(m->f) != 0;
    free(s);
    json_decref(o);
    return bad ? err_set(e, ERR_RUN, "%s: cannot write: %s", m->path, strerror(errno)) : 0;
}

int metrics_row(MetricsLog *m, const TopK *t, const MetricsRow *r, Err *e)
{
    json_t *o = row_new(r->step, r->epoch, r->split);
    char key[16];
    put_real(o, "loss", meter_loss(r->meter));
    for (int i = 0; i < t->n; i++) {
        snprintf(key, sizeof key, "top%d", t->k[i]);
        put_real(o, key, meter_percent(r->meter, i));
    }
    put_real(o, "lr", r->lr);
    put_real(o, "img_s", floor(r->img_s * 10) / 10);
    if (!isnan(r->grad_norm)) put_real(o, "grad_norm", r->grad_norm);
    if (!isnan(r->data_wait)) put_real(o, "data_wait", floor(r->data_wait * 1e4) / 1e4);
    return row_write(m, o, e);
}

int metrics_values(MetricsLog *m, int64_t step, int64_t epoch, int n, const char *const *name,
                   const double *value, Err *e)
{
    json_t *o = row_new(step, epoch, "params");
    for (int i = 0; i < n; i++) put_real(o, name[i], value[i]);
    return row_write(m, o, e);
}

/* What cannot be synced (a pipe) says EINVAL. */
int metrics_sync(MetricsLog *m, Err *e)
{
    if (fflush(m->f) == 0 && (fsync(fileno(m->f)) == 0 || errno == EINVAL)) return 0;
    return err_set(e, ERR_RUN, "%s: cannot be written: %s", m->path, strerror(errno));
}

void metrics_close(MetricsLog *m)
{
    if (!m) return;
    fclose(m->f);
    free(m->path);
    free(m);
}

static void each_number(json_t *o, int64_t line, MetricsEach f, void *arg)
{
    const json_t *step = json_object_get(o, "step"), *split = json_object_get(o, "split");
    void *it;
    if (!json_is_integer(step) || !json_is_string(split)) return;
    for (it = json_object_iter(o); it; it = json_object_iter_next(o, it))
        if (json_is_real(json_object_iter_value(it)))
            f(arg, line, (int64_t)json_integer_value(step), json_string_value(split),
              json_object_iter_key(it), json_real_value(json_object_iter_value(it)));
}

int metrics_read(const char *path, MetricsEach f, void *arg, Err *e)
{
    size_t len;
    int64_t line = 0;
    char *text = fs_read(path, 0, &len, e);
    if (!text) return -1;
    for (char *s = text, *nl; (nl = memchr(s, '\n', (size_t)(text + len - s))); s = nl + 1) {
        json_t *o = json_loadb(s, (size_t)(nl - s), 0, NULL);
        if (json_is_object(o)) each_number(o, line++, f, arg);
        json_decref(o);
    }
    free(text);
    return 0;
}
