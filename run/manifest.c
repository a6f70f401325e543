/* run/manifest.c -- see manifest.h. */
#include "run/manifest.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/par.h"
#include "engine/prim.h"
#include "io/fs.h"
#include "run/log.h"

#define SCHEMA 1

#ifndef QRUN_REVISION /* the build passes the git revision, "+dirty" included, when there is one   \
                       */
#define QRUN_REVISION "unknown"
#endif
#ifndef QRUN_CFLAGS
#define QRUN_CFLAGS "unknown"
#endif
#ifndef QRUN_VERSION
#define QRUN_VERSION "0"
#endif

struct Manifest {
    char *path;
    json_t *root, *start; /* start: this start's object, borrowed from root */
    double clock;
};

Manifest *manifest_open(const char *path, bool keep)
{
    Manifest *m = xcalloc(1, sizeof *m);
    json_error_t je;
    m->path = xstrdup(path);
    if (keep && fs_exists(path)) {
        m->root = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
        if (!json_is_object(m->root)) {
            log_msg(LOG_WARN, "%s:%d:%d: %s; it is written anew", path, je.line, je.column,
                    je.text);
            json_decref(m->root);
            m->root = NULL;
        }
    }
    if (!m->root) m->root = json_object();
    m->clock = log_clock();
    return m;
}

void manifest_free(Manifest *m)
{
    if (!m) return;
    json_decref(m->root);
    free(m->path);
    free(m);
}

/* Text that may not be UTF-8 (host names, arguments) must not lose the whole record. */
static json_t *text(const char *s)
{
    json_t *j = json_string(s ? s : "");
    return j ? j : json_string("(not UTF-8)");
}

static void set_text(json_t *o, const char *key, const char *s)
{
    json_object_set_new(o, key, text(s));
}

static void set_time(json_t *o, const char *key, double t)
{
    char buf[24];
    set_text(o, key, log_iso_time(t, buf));
}

static void cpu_model(char *buf, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    snprintf(buf, n, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!str_starts(line, "model name") || !colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(buf, n, "%s", colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (f) fclose(f);
}

static json_t *machine(void)
{
    char host[256] = "", cpu[256], isa[256];
    json_t *o = json_object();
    gethostname(host, sizeof host - 1);
    cpu_model(cpu, sizeof cpu);
    set_text(o, "host", host);
    set_text(o, "cpu", cpu);
    json_object_set_new(o, "threads", json_integer(par_threads()));
    set_text(o, "dnnl", prim_version(isa, sizeof isa));
    return o;
}

/* Sums are added in another order with other threads or instructions: results may differ in the
 * last bits. */
static void warn_other_machine(const json_t *starts, const json_t *now)
{
    static const char *const keys[] = {"cpu", "threads", "dnnl"};
    const json_t *last = json_array_get(starts, json_array_size(starts) - 1);
    const json_t *was = json_object_get(last, "machine");
    for (size_t i = 0; was && i < ARRAY_LEN(keys); i++) {
        const json_t *a = json_object_get(was, keys[i]), *b = json_object_get(now, keys[i]);
        char *as, *bs;
        if (!a || json_equal(a, b)) continue;
        as = json_dumps(a, JSON_ENCODE_ANY);
        bs = json_dumps(b, JSON_ENCODE_ANY);
        log_msg(LOG_WARN,
                "the run goes on with %s %s instead of %s: results may differ in the last bits",
                keys[i], bs ? bs : "?", as ? as : "?");
        free(as);
        free(bs);
    }
}

static json_t *program(void)
{
    json_t *o = json_object();
    set_text(o, "version", QRUN_VERSION);
    set_text(o, "revision", QRUN_REVISION);
    set_text(o, "compiler", __VERSION__);
    set_text(o, "flags", QRUN_CFLAGS);
    return o;
}

static json_t *file_record(const char *path)
{
    char sum[65];
    json_t *o = json_object();
    Err ignored;
    set_text(o, "file", path);
    if (!fs_sha256(path, sum, &ignored)) set_text(o, "sha256", sum);
    return o;
}

void manifest_begin(Manifest *m, const Config *c, const char *mode, int argc, char **argv,
                    const char *resolved, const char *init, int64_t from_step)
{
    json_t *starts = json_object_get(m->root, "starts"), *command = json_array();
    if (!json_is_array(starts)) {
        json_object_set_new(m->root, "starts", json_array());
        starts = json_object_get(m->root, "starts");
    }
    for (int i = 0; i < argc; i++) json_array_append_new(command, text(argv[i]));
    json_object_set_new(m->root, "schema", json_integer(SCHEMA));
    set_text(m->root, "mode", mode);
    set_text(m->root, "experiment", c->run.experiment);
    json_object_set_new(m->root, "program", program());
    json_object_set_new(m->root, "command", command);
    json_object_set_new(m->root, "seed", json_integer((json_int_t)c->run.random_seed));
    json_object_set_new(m->root, "config", file_record(resolved));
    json_object_del(m->root, "result"); /* of a run that was shorter */
    json_object_del(m->root, "best");
    if (init && *init) json_object_set_new(m->root, "init", file_record(init));
    m->start = json_object();
    m->clock = log_clock();
    set_time(m->start, "start", log_unix_time());
    json_object_set_new(m->start, "from_step", json_integer((json_int_t)from_step));
    json_object_set_new(m->start, "pid", json_integer(getpid()));
    json_object_set_new(m->start, "machine", machine());
    warn_other_machine(starts, json_object_get(m->start, "machine"));
    json_array_append_new(starts, m->start);
}

void manifest_data(Manifest *m, const char *split, const Dataset *d)
{
    json_t *data = json_object_get(m->root, "data"), *o = json_object();
    struct stat st;
    if (!json_is_object(data)) {
        json_object_set_new(m->root, "data", json_object());
        data = json_object_get(m->root, "data");
    }
    set_text(o, "dataset", d->def->name);
    set_text(o, "where", d->where);
    json_object_set_new(o, "images", json_integer(d->count));
    json_object_set_new(o, "classes", json_integer(d->classes));
    if (d->where && !stat(d->where, &st) && S_ISREG(st.st_mode))
        json_object_set_new(o, "bytes", json_integer((json_int_t)st.st_size));
    json_object_set_new(data, split, o);
}

static void update_start(Manifest *m)
{
    struct rusage used;
    if (!m->start) return;
    if (!getrusage(RUSAGE_SELF, &used))
        json_object_set_new(m->start, "peak_memory_bytes",
                            json_integer((json_int_t)used.ru_maxrss * 1024));
    set_time(m->start, "end", log_unix_time());
    json_object_set_new(m->start, "seconds", json_real(log_clock() - m->clock));
}

double manifest_seconds(const Manifest *m)
{
    const json_t *starts = json_object_get(m->root, "starts");
    double sum = m->start ? log_clock() - m->clock : 0;
    for (size_t i = 0; i < json_array_size(starts); i++) {
        const json_t *s = json_array_get(starts, i);
        if (s != m->start) sum += json_number_value(json_object_get(s, "seconds"));
    }
    return sum;
}

static json_t *figures(const Meter *meter, const TopK *t, int64_t step)
{
    const double loss = meter_loss(meter);
    json_t *o = json_object();
    char key[16];
    for (int i = 0; i < t->n; i++) {
        snprintf(key, sizeof key, "top%d", t->k[i]);
        json_object_set_new(o, key, json_real(meter_percent(meter, i)));
    }
    json_object_set_new(o, "right", json_integer((json_int_t)meter->right[0]));
    json_object_set_new(o, "images", json_integer((json_int_t)meter->n));
    json_object_set_new(o, "loss", isfinite(loss) ? json_real(loss) : json_null());
    json_object_set_new(o, "step", json_integer((json_int_t)step));
    return o;
}

void manifest_result(Manifest *m, const char *line, const Meter *meter, const TopK *t, int64_t step,
                     int64_t best_step, const Meter *best)
{
    json_t *o = figures(meter, t, step);
    set_text(o, "line", line);
    json_object_set_new(m->root, "result", o);
    if (best_step >= 0) json_object_set_new(m->root, "best", figures(best, t, best_step));
}

const char *manifest_line(const Manifest *m)
{
    return json_string_value(json_object_get(json_object_get(m->root, "result"), "line"));
}

int manifest_save(Manifest *m, const char *status, int exit_status, Err *e)
{
    char *s;
    int r;
    update_start(m);
    set_text(m->root, "status", status);
    if (m->start && exit_status >= 0)
        json_object_set_new(m->start, "exit", json_integer(exit_status));
    s = json_dumps(m->root, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    if (!s) return err_set(e, ERR_RUN, "%s: cannot be written as JSON", m->path);
    r = fs_write(m->path, s, strlen(s), e);
    free(s);
    return r;
}
