/* run/profiling.c -- see profiling.h.
 *
 * convolution, linear  params = weights + bias; MB = weights x bits / 8e6 + 4e-6 x (bias + clip levels);
 *                      G bit operations = MACs x weight bits x input bits x 1e-9
 * average pool         MACs = numbers read; bit operations at 32 x 32 bits
 *
 * Bits are those in effect: the first layer reads 32 bits. Source: deJQK/AdaBits,
 * utils/model_profiling.py. Left out: its columns of energy and latency, which are always 0, and its
 * times, for which there is `qrun profile`; norms, which its totals leave out too. */
#include "run/profiling.h"

#include <inttypes.h>
#include <stdio.h>

#include "quant/qplan.h"
#include "run/log.h"
#include "run/modes.h"

static int64_t count(const Param *p)
{
    return p ? (int64_t)tensor_len(&p->value) : 0;
}

static int64_t clip_levels(const QUnit *u, int variant)
{
    int64_t n = 0;
    for (int role = 0; role < Q_NROLES; role++)
        for (int i = 0; u->q[role] && i < u->q[role][variant].np; i++)
            if (u->q[role][variant].p[i]->kind == PK_CLIP)
                n += count(u->q[role][variant].p[i]);
    return n;
}

Profiled profiling_unit(const QPlan *qp, int unit, int variant)
{
    const Unit *u = &qp->spec->u[unit];
    const QUnit *qu = &qp->u[unit];
    Profiled c = {0};
    if (u->kind == U_POOL && u->u.pool.kind != POOL_MAX) {
        c.macs = (int64_t)u->ic * u->ih * u->iw;
        c.gbitops = (double)c.macs * 32 * 32 * 1e-9;
    } else if (u->kind == U_CONV || u->kind == U_LINEAR) {
        const int w = qplan_bits(qp, unit, Q_WEIGHT, variant),
                  a = qplan_bits(qp, unit, Q_ACT, variant);
        const int64_t weights = count(qu->weight), bias = count(qu->bias);
        c.params = weights + bias;
        c.macs = unit_macs(u);
        c.mbytes = (double)weights * w / 8e6 + 4e-6 * (double)(bias + clip_levels(qu, variant));
        c.gbitops = (double)c.macs * w * a * 1e-9;
    }
    return c;
}

Profiled profiling_total(const QPlan *qp, int variant)
{
    Profiled sum = {0};
    for (int i = 0; i < qp->spec->n; i++) {
        const Profiled c = profiling_unit(qp, i, variant);
        sum.params += c.params;
        sum.macs += c.macs;
        sum.mbytes += c.mbytes;
        sum.gbitops += c.gbitops;
    }
    return sum;
}

static void put_row(const char *name, const Profiled *c, Str *out)
{
    str_printf(out, "%-36s %12" PRId64 " %15" PRId64 " %10.4f %12.4f\n", name, c->params, c->macs,
               c->mbytes, c->gbitops);
}

static void put_width(const QPlan *qp, int variant, bool verbose, Str *out)
{
    const QOpts *o = qp->opts;
    char width[16];
    Profiled total = profiling_total(qp, variant);
    width_text(qp->bits[variant] ? qp->bits[variant] : o->wt_bit,
               qp->bits[variant] ? qp->act_bits[variant] : o->fm_bit, width);
    str_printf(out, "%-36s %12s %15s %10s %12s\n", width, "parameters", "MACs", "MB", "G bit ops");
    for (int i = 0; verbose && i < qp->spec->n; i++) {
        const Unit *u = &qp->spec->u[i];
        const Profiled c = profiling_unit(qp, i, variant);
        if (c.macs) put_row(*u->name ? u->name : unit_kind_name(u->kind), &c, out);
    }
    put_row("total", &total, out);
}

void profiling_text(const Session *s, bool verbose, Str *out)
{
    const QPlan *qp = model_qplan(s->model);
    for (int v = 0; v < qp->nvariants; v++) put_width(qp, v, verbose, out);
}

void profiling_log(const Session *s)
{
    const RunOpts *o = &s->cfg->run;
    Str text = {0};
    if (!o->nprofiling) return;
    profiling_text(s, o->model_profiling_verbose, &text);
    log_plain(LOG_INFO, "costs by bit width\n%.*s", (int)text.len - 1, text.s);
    str_free(&text);
}

int profiling_run(Run *run, Err *e)
{
    Session s = {0};
    Str text = {0};
    int r = session_open(&s, run->cfg, e);
    if (!r) {
        profiling_text(&s, run->cfg->run.model_profiling_verbose, &text);
        printf("%s", text.s);
    }
    str_free(&text);
    session_free(&s);
    return r;
}
