/* run/clips.c -- see clips.h. */
#include "run/clips.h"

#include <stdlib.h>

#include "quant/qplan.h"
#include "run/log.h"

/* Calls f for every unit whose weight is quantized, in the order of the modules. */
static void each_layer(Model *m, void (*f)(const Unit *u, QInst *wt, QInst *act, void *arg),
                       void *arg)
{
    const Spec *spec = model_spec(m);
    const QPlan *qp = model_qplan(m);
    int *order = xcalloc((size_t)spec->n, sizeof *order);
    spec_declaration_order(spec, order);
    for (int i = 0; i < spec->n; i++) {
        QInst *wt = qplan_get(qp, order[i], Q_WEIGHT, 0), *act = qplan_get(qp, order[i], Q_ACT, 0);
        if (wt || act) f(&spec->u[order[i]], wt, act, arg);
    }
    free(order);
}

static void print(const Unit *u, QInst *wt, QInst *act, void *arg)
{
    char line[512] = "";
    (void)u;
    (void)arg;
    if (wt && wt->fn->show && wt->fn->show(wt, act, line, sizeof line) > 0 && *line)
        log_plain(LOG_INFO, "%s", line);
}

void clips_print(Model *m)
{
    each_layer(m, print, NULL);
}

static void put(ClipList *c, const char *tag, double value)
{
    mem_grow(&c->tag, &c->cap, (size_t)c->n + 1, sizeof *c->tag);
    mem_grow(&c->value, &c->value_cap, (size_t)c->n + 1, sizeof *c->value);
    c->tag[c->n] = tag;
    c->value[c->n++] = value;
}

/* The first trained parameter of a quantizer is its clip level, or one for each entry of bits_list.
 */
static void put_clips(ClipList *c, const char *prefix, const Unit *u, const QInst *q)
{
    const size_t n = q && q->np && q->p[0]->kind == PK_CLIP ? tensor_len(&q->p[0]->value) : 0;
    if (n != 1 && n != (size_t)(q ? q->opts->nbits_list : 0)) return;
    for (size_t i = 0; i < n; i++) {
        char width[16];
        put(c,
            n == 1
                ? arena_printf(&c->arena, "%s/%s", prefix, u->name)
                : arena_printf(&c->arena, "%s/%s/%s", prefix, u->name,
                               width_text(q->opts->bits_list[i], q->opts->act_bits_list[i], width)),
            (double)((const float *)q->p[0]->value.data)[i]);
    }
}

static void put_figures(ClipList *c, const Unit *u, const QFigure *f, int n)
{
    for (int i = 0; i < n; i++)
        put(c, arena_printf(&c->arena, "%s/%s", f[i].name, u->name), f[i].value);
}

typedef struct Collect {
    ClipList *list;
    const QPlan *qp;
} Collect;

/* Clip levels, and what the method has to say beyond them. */
static void collect(const Unit *u, QInst *wt, QInst *act, void *arg)
{
    const Collect *c = arg;
    QInst *const both[] = {wt, act};
    QFigure f[4];
    put_clips(c->list, "alpha_wgt", u, wt);
    put_clips(c->list, "alpha_act", u, act);
    for (size_t i = 0; i < ARRAY_LEN(both); i++)
        if (both[i] && both[i]->fn->figures)
            put_figures(c->list, u, f, both[i]->fn->figures(both[i], f, (int)ARRAY_LEN(f)));
    if (wt && wt->method->figures)
        put_figures(c->list, u, f,
                    wt->method->figures(c->qp, (int)(u - c->qp->spec->u), f, (int)ARRAY_LEN(f)));
}

void clips_collect(Model *m, ClipList *c)
{
    Collect to = {c, model_qplan(m)};
    each_layer(m, collect, &to);
}

void clips_free(ClipList *c)
{
    free(c->tag);
    free(c->value);
    arena_free(&c->arena);
    *c = (ClipList){0};
}
