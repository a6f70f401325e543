/* run/profile.c -- `qrun profile`: where the time of a step goes, op by op, against this machine's
 * peaks.
 *
 * Peaks are measured here: memory by a triad a = b + 3 c over arrays far larger than the caches (12
 * bytes an element), arithmetic by the best rate any convolution of the net reaches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "run/commands.h"
#include "run/session.h"

#define TRIAD_FLOATS (16u << 20)
#define STEPS        10

static double triad_gb_s(void)
{
    float *a = xaligned(TRIAD_FLOATS * sizeof *a), *b = xaligned(TRIAD_FLOATS * sizeof *b);
    float *c = xaligned(TRIAD_FLOATS * sizeof *c);
    double best = 0;
    PARALLEL_FOR(i, TRIAD_FLOATS)
    {
        b[i] = 1;
        c[i] = 2;
    }
    for (int k = 0; k < 6; k++) {
        const double start = log_clock();
        double rate;
        PARALLEL_FOR(i, TRIAD_FLOATS) a[i] = b[i] + 3 * c[i];
        rate = 12.0 * TRIAD_FLOATS / (log_clock() - start) * 1e-9;
        if (k && rate > best) best = rate; /* the first touches the pages */
    }
    free(a);
    free(b);
    free(c);
    return best;
}

static double rate(double amount, double seconds)
{
    return seconds > 0 ? amount / seconds * 1e-9 : 0;
}

/* "-" for what has no such figure. */
static const char *figure(double v, char *buf, size_t n)
{
    if (v > 0)
        snprintf(buf, n, "%.1f", v);
    else
        snprintf(buf, n, "-");
    return buf;
}

typedef struct Kind {
    const char *op;
    double fwd, bwd;
    int n;
} Kind;

static int by_time(const void *a, const void *b)
{
    const Kind *x = a, *y = b;
    const double tx = x->fwd + x->bwd, ty = y->fwd + y->bwd;
    return tx < ty ? 1 : tx > ty ? -1 : 0;
}

static void kinds_text(const OpTime *t, int n, double sum, Str *out)
{
    Kind *kind = xcalloc((size_t)n + 1, sizeof *kind);
    int nk = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < nk && strcmp(kind[k].op, t[i].op) != 0) k++;
        if (k == nk) kind[nk++].op = t[i].op;
        kind[k].fwd += t[i].fwd_s;
        kind[k].bwd += t[i].bwd_s;
        kind[k].n++;
    }
    qsort(kind, (size_t)nk, sizeof *kind, by_time);
    str_printf(out, "\n%-20s %5s %9s %9s %7s\n", "sums by kind", "ops", "fwd ms", "bwd ms",
               "share");
    for (int k = 0; k < nk; k++)
        str_printf(out, "%-20s %5d %9.3f %9.3f %6.1f%%\n", kind[k].op, kind[k].n, kind[k].fwd * 1e3,
                   kind[k].bwd * 1e3, 100 * (kind[k].fwd + kind[k].bwd) / sum);
    free(kind);
}

static void table_text(const OpTime *t, int n, double total, int batch, Str *out)
{
    const double gb_s = triad_gb_s();
    double sum = 0, peak = 0;
    char a[24], b[24];
    for (int i = 0; i < n; i++) {
        const double flops = rate(t[i].flops, t[i].fwd_s);
        sum += t[i].fwd_s + t[i].bwd_s;
        if (flops > peak) peak = flops;
    }
    str_printf(out, "%-32s %-14s %9s %9s %7s %9s %8s  %s\n", "op", "kind", "fwd ms", "bwd ms",
               "share", "GFLOP/s", "GB/s", "implementation");
    for (int i = 0; i < n; i++)
        str_printf(out, "%-32s %-14s %9.3f %9.3f %6.1f%% %9s %8s  %s\n", t[i].name, t[i].op,
                   t[i].fwd_s * 1e3, t[i].bwd_s * 1e3, 100 * (t[i].fwd_s + t[i].bwd_s) / sum,
                   figure(rate(t[i].flops, t[i].fwd_s), a, sizeof a),
                   figure(rate(t[i].bytes, t[i].fwd_s), b, sizeof b), t[i].impl ? t[i].impl : "");
    kinds_text(t, n, sum, out);
    str_printf(
        out,
        "\none run %.2f ms (%.2f ms in ops), %.0f img/s, without optimizer and data; rates are "
        "of the forward\npass, GB/s counts inputs and outputs once (from a cache it may pass "
        "the peak)\n"
        "peaks of this machine with %d threads: %.1f GFLOP/s (the best convolution), %.1f "
        "GB/s (triad)\n",
        total * 1e3, sum * 1e3, batch / total, par_threads(), peak, gb_s);
}

static int profile(Session *s, Err *e)
{
    const Phase ph = s->cfg->run.test_only ? PH_EVAL : PH_TRAIN;
    const int batch = ph == PH_EVAL ? session_eval_batch(s) : s->cfg->run.batch_size;
    OpTime *t;
    double total;
    int n;
    Str out = {0};
    store_alloc_grads(model_store(s->model));
    if (model_profile(s->model, ph, batch, STEPS, &t, &n, &total, e)) return -1;
    str_printf(&out, "%s, %s, batch %d, minimum of %d runs\n\n", s->cfg->net.model,
               ph == PH_EVAL ? "evaluation" : "training (test_only=true profiles evaluation)",
               batch, STEPS);
    table_text(t, n, total, batch, &out);
    free(t);
    print_out(&out);
    return 0;
}

int command_profile(Cli *c, Err *e)
{
    Config cfg;
    Session s = {0};
    int r;
    if (cli_config(c, &cfg, NULL, e)) return -1;
    r = session_open(&s, &cfg, e) || profile(&s, e) ? -1 : 0;
    session_free(&s);
    config_free(&cfg);
    return r;
}
