/* test/golden.c -- runs golden cases: what the original systems computed, against what qrun
 * computes.
 *
 *   golden DIR...
 *
 * A case is DIR/<case>.yml with its arrays beside it; a DIR without any stands for its folders.
 * Cases are dispatched by `op`, not by method: adding a method needs no code here. Every case is
 * printed with pass, FAIL or skip and the reason; the last line is `N passed, N failed, N skipped`.
 * Exit status 1 when one failed, 2 when there is nothing to run. Published weights and data are
 * read below $QRUN_DATA_DIR. */
#include "test/golden.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/golden_transform.h"

#define MAX_REASONS 3 /* shown; the rest is counted */

static void add_reason(Case *c, const char *fmt, va_list ap)
{
    char text[1024];
    if (c->reasons++ >= MAX_REASONS) return;
    vsnprintf(text, sizeof text, fmt, ap);
    str_printf(&c->why, "%s%s", c->why.len ? "; " : "", text);
}

void case_fail(Case *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_reason(c, fmt, ap);
    va_end(ap);
    c->failed = true;
}

void case_skip(Case *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_reason(c, fmt, ap);
    va_end(ap);
    c->skipped = true;
}

void case_again(Case *c)
{
    c->failed = false;
    c->reasons = c->arrays = 0;
    c->values = 0;
    c->worst = 0;
    str_free(&c->why);
}

bool case_done(const Case *c)
{
    return c->failed || c->skipped;
}

static const Yaml *scalar_at(Case *c, const char *path)
{
    const Yaml *v = yaml_path(c->y, path);
    return v && !yaml_null(v) ? v : NULL;
}

long long case_int(Case *c, const char *path, long long other)
{
    const Yaml *v = scalar_at(c, path);
    long long n = other;
    if (v && !yaml_int(v, &n)) case_fail(c, "%s is not a whole number", path);
    return n;
}

double case_num(Case *c, const char *path, double other)
{
    const Yaml *v = scalar_at(c, path);
    double x = other;
    if (v && !yaml_double(v, &x)) case_fail(c, "%s is not a number", path);
    return x;
}

bool case_bool(Case *c, const char *path, bool other)
{
    const Yaml *v = scalar_at(c, path);
    bool b = other;
    if (v && !yaml_bool(v, &b)) case_fail(c, "%s is neither true nor false", path);
    return b;
}

const char *case_str(Case *c, const char *path, const char *other)
{
    const Yaml *v = scalar_at(c, path);
    if (v && v->kind != Y_SCALAR) case_fail(c, "%s is not a word", path);
    return v && v->kind == Y_SCALAR ? v->s : other;
}

static void to_float(Case *c, Tensor *t)
{
    const size_t n = tensor_len(t);
    float *f;
    if (t->dtype == DT_F32) return;
    f = arena_alloc(&c->arena, (n ? n : 1) * sizeof *f);
    for (size_t i = 0; i < n; i++) {
        switch (t->dtype) {
        case DT_S64:
            f[i] = (float)((const int64_t *)t->data)[i];
            break;
        case DT_S32:
            f[i] = (float)((const int32_t *)t->data)[i];
            break;
        case DT_S8:
            f[i] = ((const int8_t *)t->data)[i];
            break;
        case DT_U8:
            f[i] = ((const uint8_t *)t->data)[i];
            break;
        default:
            f[i] = NAN;
            break;
        }
    }
    t->dtype = DT_F32;
    t->data = f;
}

static bool number_array(Case *c, const Yaml *v, const char *what, Tensor *t)
{
    const int n = v->kind == Y_LIST ? v->n : 1;
    float *f = arena_alloc(&c->arena, (n ? (size_t)n : 1) * sizeof *f);
    for (int i = 0; i < n; i++) {
        double x;
        const Yaml *item = v->kind == Y_LIST ? v->v[i] : v;
        if (item->kind != Y_SCALAR || !yaml_double(item, &x)) {
            case_fail(c, "%s is neither a file nor a number", what);
            return false;
        }
        f[i] = (float)x;
    }
    *t = tensor_make(DT_F32, v->kind == Y_LIST, &n, f);
    return true;
}

bool case_array(Case *c, const Yaml *v, const char *what, Tensor *t)
{
    Err e = {0};
    if (!v) {
        case_fail(c, "the case has no %s", what);
        return false;
    }
    if (v->kind != Y_SCALAR || !str_ends(v->s, ".npy")) return number_array(c, v, what, t);
    if (npy_read(arena_printf(&c->arena, "%s/%s", c->dir, v->s), &c->arena, t, &e)) {
        case_fail(c, "%s", e.msg);
        return false;
    }
    to_float(c, t);
    return true;
}

void case_compare_tol(Case *c, const char *what, const float *got, const float *want, size_t n,
                      double abs, double rel)
{
    size_t bad = 0, at = 0;
    double worst = -1, error = 0;
    for (size_t i = 0; i < n; i++) {
        const double g = (double)got[i], w = (double)want[i], limit = abs + rel * fabs(w);
        const bool same = g == w || (isnan(g) && isnan(w));
        const double err = same ? 0 : isfinite(g) && isfinite(w) ? fabs(g - w) : HUGE_VAL;
        const double units = err == 0 ? 0 : limit > 0 ? err / limit : HUGE_VAL;
        if (err > limit) bad++;
        if (units > worst) worst = units, error = err, at = i;
    }
    c->arrays++;
    c->values += n;
    if (worst > c->worst) c->worst = worst;
    if ((double)bad > c->share * (double)n)
        case_fail(c,
                  "%s[%zu] is %.9g, expected %.9g (off by %.3g); %zu of %zu (%.2f %%) beyond abs "
                  "%g rel %g",
                  what, at, (double)got[at], (double)want[at], error, bad, n,
                  100.0 * (double)bad / (double)n, abs, rel);
}

void case_compare(Case *c, const char *what, const float *got, const float *want, size_t n)
{
    case_compare_tol(c, what, got, want, n, c->abs, c->rel);
}

void case_expect(Case *c, const char *what, const Yaml *v, const float *got, size_t n)
{
    Tensor want;
    if (!case_array(c, v, what, &want)) return;
    if (tensor_len(&want) != n)
        case_fail(c, "%s has %zu values, expected %zu", what, n, tensor_len(&want));
    else
        case_compare(c, what, got, want.data, n);
}

const char *case_data(Case *c, const char *path)
{
    const char *root = getenv("QRUN_DATA_DIR");
    if (!root || !*root) {
        case_skip(c, "needs %s below $QRUN_DATA_DIR, which is not set", path);
        return NULL;
    }
    return arena_printf(&c->arena, "%s/%s", root, str_starts(path, "data/") ? path + 5 : path);
}

double fill_unit(uint64_t i, uint64_t t)
{
    return (double)(uint32_t)(i * 2654435761u + t * 40503u + 12345u) / 4294967296.0;
}

float fill_value(uint64_t i, uint64_t t)
{
    return (float)(2 * fill_unit(i, t) - 1);
}

float fill_noise(uint64_t i, uint64_t t, double amplitude)
{
    uint32_t h = (uint32_t)(i + t * 0x9E3779B9u);
    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    h ^= h >> 16;
    return (float)(amplitude * (2.0 * (double)h / 4294967296.0 - 1));
}

static void transform(Case *c)
{
    Str why = {0};
    int verdict = golden_transform_case(c->y, c->dir, &why);
    if (verdict == 0) case_fail(c, "%s", why.s ? why.s : "");
    if (verdict < 0) case_skip(c, "%s", why.s ? why.s : "");
    c->arrays++;
    str_free(&why);
}

static const struct {
    const char *op;
    void (*run)(Case *c);
} runners[] = {
    {"weight", golden_quantizer}, {"activation", golden_quantizer}, {"layer", golden_layer},
    {"block", golden_variants},
    {"net", golden_net},          {"optimizer", golden_optimizer}, {"schedule", golden_schedule},    {"format", golden_format},
    {"transform", transform},
};

static void run_case(Case *c)
{
    const char *op;
    Err e = {0};
    c->y = yaml_read(&c->arena, arena_printf(&c->arena, "%s/%s.yml", c->dir, c->name), &e);
    if (!c->y) {
        case_fail(c, "%s", e.msg);
        return;
    }
    c->abs = case_num(c, "tolerance.abs", 0);
    c->rel = case_num(c, "tolerance.rel", 0);
    c->share =
        case_num(c, "tolerance.max_mismatch_fraction", case_num(c, "max_mismatch_fraction", 0));
    op = case_str(c, "op", "");
    for (size_t i = 0; i < ARRAY_LEN(runners); i++) {
        if (!str_eq(runners[i].op, op)) continue;
        runners[i].run(c);
        return;
    }
    case_skip(c, "no runner for op '%s'", op);
}

typedef struct Totals {
    int passed, failed, skipped;
} Totals;

static void report(const Case *c, Totals *t)
{
    const char *folder = strrchr(c->dir, '/');
    folder = folder ? folder + 1 : c->dir;
    if (c->failed) {
        printf("FAIL %s/%s: %s", folder, c->name, c->why.s);
        if (c->reasons > MAX_REASONS) printf("; and %d more", c->reasons - MAX_REASONS);
        printf("\n");
        t->failed++;
    } else if (c->skipped) {
        printf("skip %s/%s: %s\n", folder, c->name, c->why.s);
        t->skipped++;
    } else if (!c->arrays) {
        printf("FAIL %s/%s: nothing was compared\n", folder, c->name);
        t->failed++;
    } else {
        printf("pass %s/%s: %d compared, %zu values, largest error %.3g of the tolerance%s\n", folder,
               c->name, c->arrays, c->values, c->worst, c->note.s ? c->note.s : "");
        t->passed++;
    }
}

static int is_case(const struct dirent *d)
{
    return d->d_name[0] != '.' && str_ends(d->d_name, ".yml");
}

/* Returns the number of cases, 0 when there are none, -1 when it is no folder. */
static int run_folder(const char *dir, Totals *t)
{
    struct dirent **list;
    int n = scandir(dir, &list, is_case, alphasort);
    if (n < 0) return -1;
    for (int i = 0; i < n; i++) {
        Case c = {.dir = dir, .name = NULL};
        c.name = arena_strdup(&c.arena, list[i]->d_name);
        *strrchr(list[i]->d_name, '.') = 0;
        c.name = arena_strdup(&c.arena, list[i]->d_name);
        run_case(&c);
        report(&c, t);
        fflush(stdout);
        str_free(&c.why);
        str_free(&c.note);
        arena_free(&c.arena);
        free(list[i]);
    }
    free(list);
    return n;
}

static int is_visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

/* The cases of the folders in `dir`; returns how many of them hold any. */
static int run_subfolders(const char *dir, Totals *t)
{
    struct dirent **list;
    int n = scandir(dir, &list, is_visible, alphasort), found = 0;
    for (int i = 0; i < n; i++) {
        char *sub = xasprintf("%s/%s", dir, list[i]->d_name);
        found += run_folder(sub, t) > 0;
        free(sub);
        free(list[i]);
    }
    if (n >= 0) free(list);
    return found;
}

int main(int argc, char **argv)
{
    Totals t = {0};
    int bad = argc < 2;
    if (bad) fprintf(stderr, "usage: golden DIR...\n");
    for (int i = 1; i < argc; i++) {
        size_t n = strlen(argv[i]);
        int found;
        while (n > 1 && argv[i][n - 1] == '/') argv[i][--n] = 0;
        found = run_folder(argv[i], &t);
        if (found == 0) found = run_subfolders(argv[i], &t);
        if (found > 0) continue;
        fprintf(stderr, "golden: error: %s: %s\n", argv[i],
                found ? "cannot be read" : "holds no cases (*.yml)");
        bad = 1;
    }
    if (argc >= 2) printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped);
    return bad ? 2 : t.failed ? 1 : 0;
}
