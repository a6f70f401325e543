/* run/record.c -- see record.h. The tags are those of the originals and of common use. */
#include "run/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "run/clips.h"

int record_open(Recorder *r, const RunFolder *f, const Session *s, int64_t keep_step, Err *e)
{
    const RunOpts *o = &s->cfg->run;
    *r = (Recorder){.s = s, .metrics = runfolder_path(f, "metrics.jsonl")};
    if (o->plots) r->curves = runfolder_path(f, "curves.svg");
    if (!(r->log = metrics_open(r->metrics, keep_step, e))) return -1;
    if (o->tensorboard) {
        char *dir = runfolder_path(f, "tb");
        r->tf = tfevents_open(dir, keep_step, e);
        free(dir);
        if (!r->tf) return -1;
    }
    return 0;
}

typedef struct Scalar {
    const char *tag;
    double v;
} Scalar;

static int scalars(Recorder *r, int64_t step, const Scalar *s, size_t n, Err *e)
{
    for (size_t i = 0; r->tf && i < n; i++)
        if (!isnan(s[i].v) && tfevents_scalar(r->tf, s[i].tag, step, s[i].v, e)) return -1;
    return 0;
}

int record_interval(Recorder *r, const MetricsRow *row, Err *e)
{
    const Scalar s[] = {
        {"loss/train", meter_loss(row->meter)},
        {"top1/train", meter_percent(row->meter, 0)},
        {"lr", row->lr},
        {"img_per_s", row->img_s},
        {"grad_norm", row->grad_norm},
        {"data_wait", row->data_wait},
    };
    if (metrics_row(r->log, &r->s->topk, row, e)) return -1;
    return scalars(r, row->step, s, ARRAY_LEN(s), e);
}

static int record_val(Recorder *r, const MetricsRow *train, const Meter *val, Err *e)
{
    MetricsRow row = *train;
    row.split = "val";
    row.meter = val;
    row.grad_norm = row.data_wait = (double)NAN;
    if (metrics_row(r->log, &r->s->topk, &row, e)) return -1;
    for (int i = 0; r->tf && i < r->s->topk.n; i++) {
        char tag[32];
        snprintf(tag, sizeof tag, "top%d/val", r->s->topk.k[i]);
        if (tfevents_scalar(r->tf, tag, row.step, meter_percent(val, i), e)) return -1;
    }
    return scalars(
        r, row.step,
        (const Scalar[]){{"loss/val", meter_loss(val)}, {"test_acc", meter_percent(val, 0)}}, 2, e);
}

/* Rows "val_5bit" ... and their curves. */
static int record_widths(Recorder *r, const MetricsRow *train, const WidthMeters *w, Err *e)
{
    MetricsRow row = *train;
    row.grad_norm = row.data_wait = (double)NAN;
    for (int k = 0; k < w->n; k++) {
        char split[24], top1[32], loss[32], width[16];
        snprintf(split, sizeof split, "val_%s", width_text(w->bits[k], w->act_bits[k], width));
        snprintf(top1, sizeof top1, "top1/%s", split);
        snprintf(loss, sizeof loss, "loss/%s", split);
        row.split = split;
        row.meter = &w->m[k];
        if (metrics_row(r->log, &r->s->topk, &row, e) ||
            scalars(r, row.step,
                    (const Scalar[]){{top1, meter_percent(row.meter, 0)},
                                     {loss, meter_loss(row.meter)}},
                    2, e))
            return -1;
    }
    return 0;
}

int record_epoch(Recorder *r, const MetricsRow *train, const Meter *val, const WidthMeters *w,
                 Err *e)
{
    const Scalar s[] = {{"train_acc", meter_percent(train->meter, 0)}, {"lr", train->lr}};
    ClipList c = {0};
    int bad;
    clips_collect(r->s->model, &c);
    bad = metrics_row(r->log, &r->s->topk, train, e) ||
          scalars(r, train->step, s, ARRAY_LEN(s), e) || (val && (record_val(r, train, val, e) || record_widths(r, train, w, e)));
    if (!bad && c.n)
        bad = metrics_values(r->log, train->step, train->epoch, c.n, c.tag, c.value, e);
    for (int i = 0; !bad && r->tf && i < c.n; i++)
        bad = tfevents_scalar(r->tf, c.tag[i], train->step, c.value[i], e);
    clips_free(&c);
    return bad ? -1 : 0;
}

int record_flush(Recorder *r, bool curves, Err *e)
{
    if (metrics_sync(r->log, e)) return -1;
    if (r->tf && tfevents_flush(r->tf, e)) return -1;
    return curves && r->curves ? curves_write(r->metrics, r->curves, e) : 0;
}

void record_close(Recorder *r)
{
    if (r->tf) tfevents_close(r->tf);
    metrics_close(r->log);
    free(r->metrics);
    free(r->curves);
    *r = (Recorder){0};
}
