/* run/evaluate.c -- see evaluate.h. */
#include "run/evaluate.h"

#include "run/log.h"
#include "run/signals.h"

int evaluate(Session *s, Progress *p, Meter *m, Err *e)
{
    Loader *l = s->loader[SPLIT_VAL];
    const int size = session_eval_batch(s);
    const Batch *b;
    const double start = log_clock();
    int r;
    *m = (Meter){0};
    if (loader_seek(l, 0, 0, e)) return -1;
    while ((r = loader_next(l, &b, e)) == 1) {
        const float *logits;
        double loss;
        if (signals_stop()) return 1;
        if (model_eval(s->model, 0, b->x, b->label, b->n, size, &loss, &logits, e)) return -1;
        m->loss += loss;
        topk_count(&s->topk, logits, b->label, b->n, s->classes, m);
        if (p) progress_eval(p, b->number + 1);
    }
    if (r < 0) return -1;
    if (p) p->eval_s = log_clock() - start;
    return 0;
}
