/* run/evaluate.c -- see evaluate.h. */
#include "run/evaluate.h"

#include "run/dump.h"
#include "run/integer.h"
#include "run/log.h"
#include "run/original_log.h"
#include "run/probe.h"
#include "run/signals.h"

/* Logits of the integer network; with int_compare the simulated net's too, to count against them. */
static int eval_integers(Session *s, const Batch *b, double *loss, const float **logits, Err *e)
{
    *logits = integers_eval(s->ints, b->x, b->n);
    if (s->cfg->run.int_compare) {
        const float *simulated;
        double ignored;
        if (model_eval(s->model, 0, b->x, b->label, b->n, session_eval_batch(s), &ignored, &simulated, e))
            return -1;
        integers_compare(s->ints, simulated, b->n);
    }
    *loss = cross_entropy_sum(*logits, s->classes, b->label, b->n);
    return 0;
}

static int eval_width(Session *s, int width, const Batch *b, double *loss, const float **logits, Err *e)
{
    if (s->ints) return eval_integers(s, b, loss, logits, e);
    return model_eval(s->model, width, b->x, b->label, b->n, session_eval_batch(s), loss, logits, e);
}

static int one_batch(Session *s, const Batch *b, Meter *m, WidthMeters *w, Err *e)
{
    Meter all = {0}; /* widths of this batch */
    const double start = log_clock();
    for (int k = 0; k < s->nwidths; k++) {
        const float *logits;
        Meter now = {0};
        if (s->probe) probe_width(s->probe, k);
        if (eval_width(s, s->width[k], b, &now.loss, &logits, e)) return -1;
        if (s->dump && k == 0) dump_batch(s->dump, s, b);
        if (s->dump) dump_logits(s->dump, s, k, b, logits);
        topk_count(&s->topk, logits, b->label, b->n, s->classes, &now);
        meter_add(m, &now);
        meter_add(&all, &now);
        if (w->n) meter_add(&w->m[k], &now);
    }
    if (s->probe && probe_batch(s->probe, e)) return -1;
    if (s->original)
        original_log_test(s->original, b->number, loader_batches(s->loader[SPLIT_VAL]),
                          log_clock() - start, &all);
    if (s->cfg->run.print_each_iter) progress_batch("val", b->number + 1, &all, &s->topk);
    return 0;
}

int evaluate(Session *s, Progress *p, Meter *m, WidthMeters *w, Err *e)
{
    Loader *l = s->loader[SPLIT_VAL];
    const Batch *b;
    const double start = log_clock();
    int r;
    *m = (Meter){0};
    *w = (WidthMeters){.n = s->nwidths > 1 ? s->nwidths : 0};
    for (int k = 0; k < w->n; k++) {
        w->bits[k] = s->cfg->quant.bits_list[s->width[k]];
        w->act_bits[k] = s->cfg->quant.act_bits_list[s->width[k]];
    }
    if (loader_seek(l, 0, 0, e)) return -1;
    if (s->original) original_log_begin(s->original, true);
    while ((r = loader_next(l, &b, e)) == 1) {
        if (signals_stop()) return 1;
        if (one_batch(s, b, m, w, e)) return -1;
        if (p) progress_eval(p, b->number + 1);
    }
    if (r < 0) return -1;
    if (s->original) original_log_end(s->original);
    if (p) p->eval_s = log_clock() - start;
    return 0;
}

void evaluate_print(const WidthMeters *w)
{
    for (int k = 0; k < w->n; k++) {
        const double loss = meter_loss(&w->m[k]), top1 = meter_percent(&w->m[k], 0);
        char pair[16];
        if (w->act_bits[k])
            log_msg(LOG_INFO, "     %s  loss %.4f  top1 %.2f",
                    width_text(w->bits[k], w->act_bits[k], pair), loss, top1);
        else
            log_msg(LOG_INFO, "  %2d bits  loss %.4f  top1 %.2f", w->bits[k], loss, top1);
    }
}
