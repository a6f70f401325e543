/* quant/policy.c -- see policy.h. */
#include "quant/policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/keyword.h"

const char *const policy_when[PW_COUNT] = {"init", "epoch", "norm", "eltwise"};

static const char *const tags[Q_NROLES] = {[Q_WEIGHT] = "wt", [Q_ACT] = "fm", [Q_OUT] = "ot"};

bool policy_chooses(const PolicyItem *item)
{
    return strstr(item->key, "by_") != NULL;
}

static const PolicyItem *find(const PolicyBlock *b, const char *key)
{
    const PolicyItem *found = NULL;
    for (int i = 0; i < b->n; i++)
        if (str_eq(b->item[i].key, key)) found = &b->item[i];
    return found;
}

/* ---- faults that need no net ---- */

int policy_fault(Err *e, const char *file, int line, int col, const char *fmt, va_list ap)
{
    char text[400];
    Err one;
    vsnprintf(text, sizeof text, fmt, ap);
    err_at(&one, ERR_CONFIG, file, line, col, "policy: %s", text);
    return err_add(e, ERR_CONFIG, "%s", one.msg);
}

static int fault(Err *e, const PolicyItem *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
static int fault(Err *e, const PolicyItem *at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    policy_fault(e, at->file, at->line, at->col, fmt, ap);
    va_end(ap);
    return -1;
}

/* A layer's number, or -1. */
static int number(const char *s)
{
    char *end;
    const long n = strtol(s, &end, 10);
    return *s && !*end && n >= 0 && n < 1000000 ? (int)n : -1;
}

static int check_chooser(const PolicyItem *it, Err *e)
{
    static const char *const known[] = {"by_index", "by_tag"};
    const bool index = str_eq(it->key, known[0]);
    int r = 0;
    if (!index && !str_eq(it->key, known[1]))
        return fault(e, it, "unknown '%.40s'; expected by_index or by_tag", it->key);
    for (int i = 0; i < it->n; i++) {
        const char *v = it->value[i];
        bool good = index && (number(v) >= 0 || (!it->list && str_eq(v, "all")));
        for (int t = 0; t < Q_NROLES && !index; t++) good = good || strstr(v, tags[t]);
        if (!good)
            r = fault(e, it, "%s: '%.40s'; expected %s", it->key, v,
                      index ? "all, or numbers of layers from 0" : "fm, wt, ot or several of them");
    }
    if (!it->n) r = fault(e, it, "%s without a value", it->key);
    return r;
}

static int check_block(const PolicyBlock *b, Err *e)
{
    int r = 0;
    for (int i = 0; i < b->n; i++)
        if (policy_chooses(&b->item[i]) && check_chooser(&b->item[i], e)) r = -1;
        else if (!b->item[i].n)
            r = fault(e, &b->item[i], "%s without a value", b->item[i].key);
    if (!find(b, "by_index") && !r)
        r = fault(e, &b->item[0], "a block without by_index sets nothing; expected by_index: all, or "
                                  "numbers of layers");
    return r;
}

int policy_check(const Policy *p, Err *e)
{
    int r = 0;
    for (int s = 0; s < p->n; s++)
        for (int b = 0; b < p->s[s].nblocks; b++)
            if (check_block(&p->s[s].block[b], e)) r = -1;
    return r;
}

/* ---- choosing ---- */

int policy_layers(const QPlan *qp, int *unit)
{
    int n = 0;
    int *order = xcalloc((size_t)qp->spec->n, sizeof *order);
    spec_declaration_order(qp->spec, order);
    for (int i = 0; i < qp->spec->n; i++) {
        const Unit *u = &qp->spec->u[order[i]];
        bool counts = !(u->marks & (UM_FIRST | UM_LAST)) || u->marks & UM_COUNTED;
        if (u->kind != U_CONV && u->kind != U_LINEAR) continue;
        for (int r = 0; r < Q_NROLES; r++) {
            const QInst *q = qp->u[order[i]].q[r];
            counts = counts || (q && q->fn && q->bits < 32);
        }
        if (counts) unit[n++] = order[i];
    }
    free(order);
    return n;
}

static bool has_index(const PolicyItem *it, int index)
{
    for (int i = 0; i < it->n; i++)
        if (str_eq(it->value[i], "all") || number(it->value[i]) == index) return true;
    return false;
}

/* As the original tests it: in a list the tag itself, in a single word any part of it. */
static bool has_tag(const PolicyItem *it, const char *tag)
{
    for (int i = 0; it && i < it->n; i++)
        if (it->list ? str_eq(it->value[i], tag) : strstr(it->value[i], tag) != NULL) return true;
    return !it;
}

/* ---- setting ---- */

static int truth(const char *s)
{
    if (str_eq(s, "True") || str_eq(s, "true")) return 1;
    return str_eq(s, "False") || str_eq(s, "false") ? 0 : -1;
}

/* 0, -1, or QSET_UNKNOWN. */
static int set_value(QInst *q, const char *attr, const char *value, Err *e)
{
    char *end;
    double v = strtod(value, &end);
    int r;
    if (q->fn->set_text) return q->fn->set_text(q, attr, value, e);
    if (!q->fn->set) return QSET_UNKNOWN;
    if (end != value && !*end && isfinite((float)v)) return q->fn->set(q, attr, v, e);
    v = truth(value);
    r = q->fn->set(q, attr, v < 0 ? (double)NAN : v, e); /* NaN: is there such an attribute? The fault ends the run */
    if (r == QSET_UNKNOWN || v >= 0) return r;
    return err_set(e, ERR_CONFIG, "%s: %s: %.40s; expected a number", q->unit, attr, value);
}

static int set_enabled(QInst *q, const char *value, Err *e)
{
    const int on = truth(value);
    if (on < 0) return err_set(e, ERR_CONFIG, "enable: %.40s; expected True or False", value);
    q->enabled = on;
    return 0;
}

static int set_item(QInst *q, const PolicyItem *it, Err *e)
{
    if (it->list && it->n != 1)
        return err_set(e, ERR_CONFIG, "%.40s: %d values; expected one", it->key, it->n);
    if (str_eq(it->key, "enable")) return set_enabled(q, it->value[0], e);
    return set_value(q, it->key, it->value[0], e);
}

typedef struct Apply {
    QPlan *qp;
    const int *unit;
    int layers, done;
    bool told;
    Err *e;
} Apply;

static int check_index(const Apply *a, const PolicyItem *it)
{
    for (int i = 0; i < it->n; i++)
        if (number(it->value[i]) >= a->layers)
            return fault(a->e, it, "by_index: %s; the net has %d layers that may be quantized, 0 to %d",
                         it->value[i], a->layers, a->layers - 1);
    return 0;
}

/* One assignment for one quantizer. *knew: it has this attribute. */
static int apply_one(Apply *a, QInst *q, const PolicyItem *it, bool *knew)
{
    Err why = {0};
    const int r = set_item(q, it, &why);
    if (r == QSET_UNKNOWN) return 0;
    if (!*knew && !a->told && q->fn->set_text == kw_set_text && kw_attr_idle(q, it->key))
        log_msg(LOG_WARN, "%s:%d: policy: %s has no effect on %s once the net is made", it->file, it->line,
                it->key, q->method->name);
    *knew = true;
    if (r < 0) return fault(a->e, it, "%s", why.msg);
    a->done++;
    return 0;
}

static int apply_item(Apply *a, const PolicyBlock *b, const PolicyItem *it)
{
    static const QRole order[] = {Q_ACT, Q_WEIGHT, Q_OUT};
    const PolicyItem *index = find(b, "by_index"), *tag = find(b, "by_tag");
    const char *method = NULL;
    bool knew = str_eq(it->key, "global_buffer"); /* nothing reads what it publishes */
    for (int i = 0; i < a->layers; i++)
        for (size_t r = 0; r < ARRAY_LEN(order) && has_index(index, i); r++) {
            QInst *q = a->qp->u[a->unit[i]].q[order[r]];
            if (!q || !has_tag(tag, tags[order[r]])) continue;
            for (int v = 0; v < a->qp->nvariants; v++) {
                if (!q[v].fn || q[v].bits >= 32) continue;
                method = q[v].method->name;
                if (apply_one(a, &q[v], it, &knew)) return -1;
            }
        }
    if (!method && !a->told)
        log_msg(LOG_WARN, "%s:%d: policy: %s: none of these layers is quantized", it->file, it->line,
                it->key);
    if (method && !knew)
        return fault(a->e, it, "no quantizer chosen here (%s) has an attribute '%.40s'", method, it->key);
    return 0;
}

static int apply_block(Apply *a, const PolicyBlock *b)
{
    if (check_index(a, find(b, "by_index"))) return -1;
    for (int i = 0; i < b->n; i++)
        if (!policy_chooses(&b->item[i]) && apply_item(a, b, &b->item[i])) return -1;
    return 0;
}

static bool acts(const PolicySection *s, PolicyWhen when, int64_t epoch)
{
    if (!(s->when & 1u << when)) return false;
    for (int i = 0; i < s->ntrigger && when == PW_EPOCH; i++)
        if (s->trigger[i] == epoch) return true;
    return when != PW_EPOCH;
}

const PolicyItem *policy_sets(const Policy *p, const char *attr)
{
    for (int s = 0; s < p->n; s++) /* norm and eltwise set nothing, nor does a section that was replaced */
        for (int b = 0; b < p->s[s].nblocks && p->s[s].when & (1u << PW_INIT | 1u << PW_EPOCH); b++) {
            const PolicyItem *it = find(&p->s[s].block[b], attr);
            if (it) return it;
        }
    return NULL;
}

static bool any_acts(const Policy *p, PolicyWhen when, int64_t epoch)
{
    for (int i = 0; i < p->n; i++)
        if (acts(&p->s[i], when, epoch)) return true;
    return false;
}

bool policy_acts(const Policy *p, int64_t epoch)
{
    return any_acts(p, PW_EPOCH, epoch);
}

int policy_apply(const Policy *p, PolicyWhen when, int64_t epoch, QPlan *qp, Err *e)
{
    int *unit, r = 0;
    Apply a = {.qp = qp, .told = p->told, .e = e};
    if (!any_acts(p, when, epoch)) return 0; /* most epochs */
    a.unit = unit = xcalloc((size_t)qp->spec->n, sizeof *unit);
    a.layers = policy_layers(qp, unit);
    for (int s = 0; s < p->n && !r; s++)
        for (int b = 0; b < p->s[s].nblocks && !r && acts(&p->s[s], when, epoch); b++)
            r = apply_block(&a, &p->s[s].block[b]);
    free(unit);
    return r ? -1 : a.done;
}
