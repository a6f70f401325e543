/* run/original_log.c -- see original_log.h. The line before an evaluation is the same text there in
 * quantized runs too. */
#include "run/original_log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void settings(FILE *f, const Config *c)
{
    const QOpts *q = &c->quant;
    const RunOpts *r = &c->run;
    fprintf(f, "CIRAR10 baseline using resnet20\n");
    fprintf(f, "epochs:  %d\nlearning rate:  %g\nmomentum:  %g\nprint-freq:  %d\nlog file:  %s\n",
            r->num_epochs, c->optim.lr, c->optim.momentum, r->log_interval, r->log_file);
    for (int i = 0; i < (int)ARRAY_LEN(q->quantize_layer); i++)
        fprintf(f, "quantize_layer%d:  %d\n", i + 1,
                q->quantize_layer[i] ? q->quantize_layer[i] : q->fm_bit);
    fprintf(f, "solver quantization:  %s\n", str_eq(q->wt_quant, "hysteresis") ? "True" : "False");
    fprintf(f, "sigmoid_alpha:  %g\nloss_regu:  %g\nweight_thres:  %g\n", q->sigmoid_alpha,
            q->loss_regu, q->weight_thres);
    fprintf(f, "use_alpha_decay:  %s\nstart_alpha:  %g\nend_alphaL  %g\n",
            q->use_alpha_decay ? "True" : "False", q->start_alpha, q->end_alpha);
}

int original_log_open(OriginalLog *l, const Config *c, Err *e)
{
    *l = (OriginalLog){.every = c->run.log_interval};
    if (!*c->run.log_file) return 0;
    l->f = fopen(c->run.log_file, "a");
    if (!l->f)
        return err_set(e, ERR_RUN, "log_file: %s: %s", c->run.log_file, strerror(errno));
    settings(l->f, c);
    return 0;
}

void original_log_close(OriginalLog *l)
{
    if (l->f) fclose(l->f);
    l->f = NULL;
}

void original_log_begin(OriginalLog *l, bool test)
{
    l->n = 0;
    l->time = l->data = 0;
    l->all = (Meter){0};
    if (l->f && test) fprintf(l->f, "Testing on model of full precision\n");
}

/* Adds a batch; whether it has a line. */
static bool add(OriginalLog *l, int64_t batch, double time, double data, const Meter *m)
{
    l->n++;
    l->time += time;
    l->data += data;
    meter_add(&l->all, m);
    return batch % l->every == 0;
}

static void values(OriginalLog *l, const Meter *m)
{
    fprintf(l->f, "Loss %.4f (%.4f)\tPrec %.3f%% (%.3f%%)\n", meter_loss(m), meter_loss(&l->all),
            meter_percent(m, 0), meter_percent(&l->all, 0));
    fflush(l->f);
}

void original_log_train(OriginalLog *l, int64_t epoch, int64_t batch, int64_t batches, double time,
                        double data, const Meter *m)
{
    if (!l->f || !add(l, batch, time, data, m)) return;
    fprintf(l->f,
            "Epoch: [%" PRId64 "][%" PRId64 "/%" PRId64
            "]\tTime %.3f (%.3f)\tData %.3f (%.3f)\t",
            epoch, batch, batches, time, l->time / (double)l->n, data, l->data / (double)l->n);
    values(l, m);
}

void original_log_test(OriginalLog *l, int64_t batch, int64_t batches, double time, const Meter *m)
{
    if (!l->f || !add(l, batch, time, 0, m)) return;
    fprintf(l->f, "Test: [%" PRId64 "/%" PRId64 "]\tTime %.3f (%.3f)\t", batch, batches, time,
            l->time / (double)l->n);
    values(l, m);
}

void original_log_end(OriginalLog *l)
{
    if (!l->f) return;
    fprintf(l->f, " * Prec %.3f%% \n", meter_percent(&l->all, 0));
    fflush(l->f);
}
