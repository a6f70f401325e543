/* run/summary.c -- `qrun summary`: what a net costs, layer by layer and in total.
 *
 * Bit operations of a layer = MACs x weight bits x input bits (32 for float). Weight bytes =
 * weights at their bits, everything else of the layer at 4 bytes. Quantizers' own parameters count
 * with their layer. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "quant/qplan.h"
#include "run/commands.h"
#include "run/session.h"

typedef struct Cost {
    int64_t params, macs;
    double bops, bytes;
} Cost;

static int64_t count(const Param *p)
{
    return p && p->kind != PK_BUFFER ? (int64_t)tensor_len(&p->value) : 0;
}

static Cost unit_cost(const QPlan *qp, int i, int wbits, int abits)
{
    const QUnit *u = &qp->u[i];
    const int64_t weights = count(u->weight);
    int64_t others = count(u->bias);
    Cost c = {.macs = unit_macs(&qp->spec->u[i])};
    for (int v = 0; v < qp->nvariants; v++) {
        if (!v || u->norm[v].scale != u->norm[0].scale)
            others += count(u->norm[v].scale) + count(u->norm[v].shift);
        for (int role = 0; role < Q_NROLES; role++)
            for (int k = 0; u->q[role] && k < u->q[role][v].np; k++)
                if (!v || u->q[role][v].p[k] != u->q[role][0].p[k]) /* variants may share it */
                    others += count(u->q[role][v].p[k]);
    }
    c.params = weights + others;
    c.bops = (double)c.macs * wbits * abits;
    c.bytes = (double)((weights * wbits + 7) / 8) + 4.0 * (double)others;
    return c;
}

static void cost_add(Cost *to, const Cost *c)
{
    to->params += c->params;
    to->macs += c->macs;
    to->bops += c->bops;
    to->bytes += c->bytes;
}

/* 1234567 -> "1.23 M" */
static const char *scaled(double v, char *buf, size_t n)
{
    static const char *const unit[] = {"", " k", " M", " G", " T"};
    size_t u = 0;
    while (v >= 1000 && u + 1 < ARRAY_LEN(unit)) {
        v /= 1000;
        u++;
    }
    snprintf(buf, n, u ? "%.2f%s" : "%.0f%s", v, unit[u]);
    return buf;
}

typedef struct Memory {
    size_t train, eval, store;
} Memory;

/* Planned activations of both phases, and parameters with gradients and one optimizer slot each. */
static int memory(Session *s, Memory *m, Err *e)
{
    const ParamStore *ps = model_store(s->model);
    const OptimRule *rule = optim_find(s->cfg->optim.optimizer);
    const int train = s->cfg->run.batch_size, eval = session_eval_batch(s);
    *m = (Memory){0};
    if (model_plan_bytes(s->model, PH_EVAL, 0, eval, &m->eval, e) ||
        model_plan_bytes(s->model, PH_TRAIN, 0, train, &m->train, e))
        return -1;
    for (int i = 0; i < ps->n; i++) {
        const size_t bytes = tensor_bytes(&ps->p[i]->value);
        m->store +=
            ps->p[i]->kind == PK_BUFFER ? bytes : bytes * (2 + (size_t)(rule ? rule->nslots : 0));
    }
    return 0;
}

static void row_text(const Unit *u, const Cost *c, int wbits, int abits, Str *out)
{
    char shape[48], params[24], macs[24], bops[24], bytes[24], bits[16] = "";
    snprintf(shape, sizeof shape, "%d x %d x %d", u->c, u->h, u->w);
    if (c->macs) snprintf(bits, sizeof bits, "%d/%d", wbits, abits);
    str_printf(out, "%-28s %-14s %-16s %9s %9s %6s %9s %9s\n", u->name, unit_kind_name(u->kind),
               shape, c->params ? scaled((double)c->params, params, sizeof params) : "",
               c->macs ? scaled((double)c->macs, macs, sizeof macs) : "", bits,
               c->macs ? scaled(c->bops, bops, sizeof bops) : "",
               c->params ? scaled(c->bytes, bytes, sizeof bytes) : "");
}

static json_t *cost_json(const Cost *c)
{
    return json_pack("{s:I, s:I, s:f, s:f}", "params", (json_int_t)c->params, "macs",
                     (json_int_t)c->macs, "bops", c->bops, "bytes", c->bytes);
}

static json_t *row_json(const Unit *u, const Cost *c, int wbits, int abits)
{
    json_t *o = cost_json(c);
    json_object_update_new(o, json_pack("{s:s, s:s, s:[i,i,i], s:i, s:i}", "layer", u->name, "type",
                                        unit_kind_name(u->kind), "output", u->c, u->h, u->w,
                                        "weight_bits", wbits, "input_bits", abits));
    return o;
}

static void totals_text(const Session *s, const Cost *t, const Memory *m, Str *out)
{
    char a[24], b[24], c[24];
    str_printf(out, "\ntotal   %" PRId64 " parameters, %s MACs, ", t->params,
               scaled((double)t->macs, a, sizeof a));
    str_printf(out, "%s bit operations, %s bytes of weights\n", scaled(t->bops, b, sizeof b),
               scaled(t->bytes, c, sizeof c));
    str_printf(
        out,
        "memory  activations %.1f MiB in training (batch %d), %.1f MiB in evaluation (batch %d);\n"
        "        parameters with gradients and optimizer state %.1f MiB\n",
        (double)m->train / 1048576, s->cfg->run.batch_size, (double)m->eval / 1048576,
        session_eval_batch(s), (double)m->store / 1048576);
}

static void print_json(const Session *s, json_t *layers, const Cost *t, const Memory *m)
{
    json_t *o = json_pack("{s:s, s:o, s:o, s:{s:I, s:I, s:I, s:i, s:i}}", "model",
                          s->cfg->net.model, "layers", layers, "total", cost_json(t), "memory",
                          "train_bytes", (json_int_t)m->train, "eval_bytes", (json_int_t)m->eval,
                          "parameter_bytes", (json_int_t)m->store, "batch", s->cfg->run.batch_size,
                          "val_batch", session_eval_batch(s));
    char *text = json_dumps(o, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15));
    Str out = {0};
    str_printf(&out, "%s\n", text ? text : "{}");
    print_out(&out);
    free(text);
    json_decref(o);
}

static void summarize(Session *s, const Memory *mem, bool json)
{
    const Spec *spec = model_spec(s->model);
    const QPlan *qp = model_qplan(s->model);
    json_t *layers = json_array();
    Cost total = {0};
    Str out = {0};
    str_printf(&out, "%s on %d x %d x %d, %d classes\n\n%-28s %-14s %-16s %9s %9s %6s %9s %9s\n",
               s->cfg->net.model, s->input.c, s->input.h, s->input.w, s->classes, "layer", "type",
               "output", "params", "MACs", "w/a", "bit ops", "bytes");
    for (int i = 0; i < spec->n; i++) {
        const int w = qplan_bits(qp, i, Q_WEIGHT, 0), a = qplan_bits(qp, i, Q_ACT, 0);
        const Cost c = unit_cost(qp, i, w, a);
        cost_add(&total, &c);
        row_text(&spec->u[i], &c, w, a, &out);
        json_array_append_new(layers, row_json(&spec->u[i], &c, w, a));
    }
    totals_text(s, &total, mem, &out);
    if (json) {
        str_free(&out);
        print_json(s, layers, &total, mem);
    } else {
        json_decref(layers);
        print_out(&out);
    }
}

int command_summary(Cli *c, Err *e)
{
    Config cfg;
    Session s = {0};
    Memory mem;
    int r;
    if (cli_config(c, &cfg, NULL, e)) return -1;
    r = session_open(&s, &cfg, e) || memory(&s, &mem, e) ? -1 : 0;
    if (!r) summarize(&s, &mem, c->json);
    session_free(&s);
    config_free(&cfg);
    return r;
}
