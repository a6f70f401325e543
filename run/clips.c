/* run/clips.c -- see clips.h. */
#include "run/clips.h"

#include <stdlib.h>

#include "quant/qplan.h"
#include "run/log.h"

/* Calls f for every unit whose weight is quantized, in the order of the modules. */
static void each_layer(Model *m,
                       void (*f)(const Unit *u, QInst *wt, QInst *act, void *arg),
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

/* The first trained parameter of a quantizer is its clip level, or one for each entry of bits_list. */
static void put_clips(ClipList *c, const char *prefix, const Unit *u, const QInst *q)
{
    const size_t n = q && q->np && q->p[0]->kind == PK_CLIP ? tensor_len(&q->p[0]->value) : 0;
    if (n != 1 && n != (size_t)(q ? q->opts->nbits_list : 0)) return;
    for (size_t i = 0; i < n; i++) {
        char width[16];
        put(c,
            n == 1 ? arena_printf(&c->arena, "%s/%s", prefix, u->name)
                   : arena_printf(&c->arena, "%s/%s/%s", prefix, u->name,
                                  width_text(q->opts->bits_list[i], q->opts->act_bits_list[i], width)),
            (double)((const float *)q->p[0]->value.data)[i]);
    }
}

/* What the method has to say beyond them. */
static void put_figures(ClipList *c, const Unit *u, QInst *q)
{
    QFigure f[4];
    const int n = q && q->fn->figures ? q->fn->figures(q, f, (int)ARRAY_LEN(f)) : 0;
    for (int i = 0; i < n; i++)
        put(c, arena_printf(&c->arena, "%s/%s", f[i].name, u->name), f[i].value);
}

static void collect(const Unit *u, QInst *wt, QInst *act, void *arg)
{
    put_clips(arg, "alpha_wgt", u, wt);
    put_clips(arg, "alpha_act", u, act);
    put_figures(arg, u, wt);
    put_figures(arg, u, act);
}

void clips_collect(Model *m, ClipList *c)
{
    each_layer(m, collect, c);
}

void clips_free(ClipList *c)
{
    free(c->tag);
    free(c->value);
    arena_free(&c->arena);
    *c = (ClipList){0};
}
