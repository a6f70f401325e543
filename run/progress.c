/* run/progress.c -- see progress.h. */
#include "run/progress.h"

#include <inttypes.h>
#include <stdio.h>

#include "run/log.h"

#define LIVE_EVERY  0.1
#define PLAIN_EVERY 30.0

bool progress_evaluates(const RunOpts *o, int64_t epoch)
{
    return (epoch + 1) % o->eval_every_epochs == 0 || epoch + 1 == run_epochs(o);
}

void progress_plan(Progress *p, const RunOpts *o, int64_t epoch, int64_t batches,
                   int64_t eval_batches)
{
    *p = (Progress){.epochs = run_epochs(o),
                    .batches = batches,
                    .total_steps = batches * run_epochs(o),
                    .eval_batches = eval_batches,
                    .last_shown = log_clock()};
    if (o->max_steps > 0 && o->max_steps < p->total_steps) p->total_steps = o->max_steps;
    for (; epoch * batches < p->total_steps; epoch++)
        p->evals_left += progress_evaluates(o, epoch) || (epoch + 1) * batches >= p->total_steps;
}

void progress_step(Progress *p, double seconds)
{
    enum { MEMORY = 50 }; /* steps that the smoothed duration looks back on */
    if (p->seen++ == 0) return;
    if (p->step_s <= 0)
        p->step_s = seconds;
    else
        p->step_s += (seconds - p->step_s) / (double)(p->seen < MEMORY ? p->seen : MEMORY);
}

double progress_eta(const Progress *p, int64_t step)
{
    /* forward only, without gradients: about a third of a training step, until one was timed */
    double eval_s = p->eval_s > 0 ? p->eval_s : p->step_s * (double)p->eval_batches / 3;
    if (p->step_s <= 0) return -1;
    return (double)(p->total_steps - step) * p->step_s + (double)p->evals_left * eval_s;
}

const char *duration_text(double seconds, char *buf, size_t n)
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (s < 60)
        snprintf(buf, n, "%" PRId64 " s", s);
    else if (s < 3600)
        snprintf(buf, n, "%" PRId64 ":%02d", s / 60, (int)(s % 60));
    else
        snprintf(buf, n, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
    return buf;
}

void progress_line(const Progress *p, const ProgressNow *n, Str *out)
{
    char eta[32];
    double left = progress_eta(p, n->step);
    str_printf(out, "epoch %" PRId64 "/%" PRId64 " %" PRId64 "/%" PRId64, n->epoch, p->epochs,
               n->batch, p->batches);
    /* what matters most comes first: a narrow terminal cuts the end off */
    if (left >= 0) str_printf(out, "  ETA %s", duration_text(left, eta, sizeof eta));
    str_printf(out, "  loss %.4f  top1 %.2f  %.0f img/s  lr %.3g  wait %.0f%%",
               meter_loss(n->meter), meter_percent(n->meter, 0), n->img_s, n->lr, 100 * n->wait);
}

static bool due(Progress *p)
{
    double now = log_clock();
    if (!log_wants_progress() || now - p->last_shown < (log_is_live() ? LIVE_EVERY : PLAIN_EVERY))
        return false;
    p->last_shown = now;
    return true;
}

void progress_show(Progress *p, const ProgressNow *n)
{
    Str s = {0};
    if (!due(p)) return;
    progress_line(p, n, &s);
    if (log_is_live())
        log_live(s.s);
    else
        log_msg(LOG_INFO, "%s", s.s);
    str_free(&s);
}

void progress_eval(Progress *p, int64_t batch)
{
    char text[96];
    if (!due(p)) return;
    snprintf(text, sizeof text, "evaluation: batch %" PRId64 "/%" PRId64, batch, p->eval_batches);
    if (log_is_live())
        log_live(text);
    else
        log_msg(LOG_INFO, "%s", text);
}

void progress_batch(const char *phase, int64_t batch, const Meter *m, const TopK *topk)
{
    Str s = {0};
    str_printf(&s, "%s batch %" PRId64 ": loss %.4f", phase, batch, meter_loss(m));
    for (int i = 0; i < topk->n; i++)
        str_printf(&s, "  top%d %.2f", topk->k[i], meter_percent(m, i));
    log_msg(LOG_INFO, "%s", s.s);
    str_free(&s);
}
