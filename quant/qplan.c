/* quant/qplan.c -- see qplan.h. */
#include "quant/qplan.h"

#include <stdio.h>
#include <stdlib.h>

static bool is_float(const char *method)
{
    return !method || !method[0] || str_eq(method, "none") || str_eq(method, "float");
}

static const QMethod *lookup(const QOpts *o, const char *name)
{
    for (int i = 0; o->extra_methods && o->extra_methods[i]; i++)
        if (str_eq(o->extra_methods[i]->name, name)) return o->extra_methods[i];
    return quant_find(name);
}

static const QMethod *find_method(const QOpts *o, const char *name, const char *key, Err *e)
{
    const char *names[64];
    size_t n = 0;
    const QMethod *m = lookup(o, name);
    const char *near;
    if (m) return m;
    while (quant_methods[n] && n < ARRAY_LEN(names)) names[n] = quant_methods[n]->name, n++;
    near = str_nearest(name, names, n);
    err_set(e, ERR_CONFIG, "%s: unknown quantization method '%s'%s%s%s", key, name, near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "");
    return NULL;
}

/* Which method quantizes a role of a unit, at how many bits; NULL: float. */
typedef struct Choice {
    const QMethod *method;
    int bits;
} Choice;

static Choice choose(const QPlan *qp, const Unit *u, QRole role, int variant, const QMethod *const method[Q_NROLES])
{
    const QOpts *o = qp->opts;
    const QMethod *m = method[role];
    const bool edge = (u->marks & (UM_FIRST | UM_LAST)) != 0;
    const int asked = u->marks & UM_FIRST ? o->first_bit : u->marks & UM_LAST ? o->last_bit : 0;
    int bits = role == Q_ACT && qp->act_bits[variant] ? qp->act_bits[variant]
               : qp->bits[variant]                    ? qp->bits[variant]
               : role == Q_WEIGHT                     ? o->wt_bit
               : role == Q_ACT                        ? o->fm_bit
                                                      : o->ot_bit;
    Choice none = {NULL, 32};
    if (!m || (u->marks & UM_NO_QUANT)) return none;
    if (u->marks & UM_WIDE && m->wide_method) m = lookup(o, m->wide_method);
    if (m->unit_bits) {
        bits = asked && role == Q_WEIGHT ? asked : m->unit_bits(o, role, u->marks, bits);
        return (Choice){m, bits};
    }
    if (edge) {
        const bool own_rule = m->default_edge_bits && (!asked || asked == m->default_edge_bits);
        if (asked == 32) return none;
        if (own_rule && m->edge_method) { /* weights only, by a simpler method */
            if (role != Q_WEIGHT) return none;
            return (Choice){lookup(o, m->edge_method), m->default_edge_bits};
        }
        if (own_rule) bits = m->default_edge_bits;
        if (asked) bits = asked;
        if (role == Q_ACT && (u->marks & UM_FIRST)) return none; /* the image itself */
    }
    if (bits >= 32 && !(m->traits & QT_DECLARES_AT_32)) return none;
    return (Choice){m, bits};
}

static int add_instances(QPlan *qp, int unit, QRole role, const QMethod *const method[Q_NROLES], Err *e)
{
    const Unit *u = &qp->spec->u[unit];
    QUnit *qu = &qp->u[unit];
    char name[256];
    int act_shape[3] = {u->ic, u->ih, u->iw}, out_shape[3] = {u->c, u->h, u->w};
    const int conv_groups = u->kind == U_CONV && u->u.conv.groups > 1 ? u->u.conv.groups : 1;
    for (int v = 0; v < qp->nvariants; v++) {
        Choice c = choose(qp, u, role, v, method);
        QInst *q;
        int nd = 3;
        const int *dim = role == Q_ACT ? act_shape : out_shape;
        if (!c.method) continue;
        if (!c.method->role[role])
            return err_set(e, ERR_CONFIG, "%s: method '%s' has no %s quantizer", u->name, c.method->name,
                           role == Q_WEIGHT ? "weight" : role == Q_ACT ? "activation" : "output");
        if (!qu->q[role]) qu->q[role] = arena_alloc(&qp->arena, (size_t)qp->nvariants * sizeof *qu->q[role]);
        q = &qu->q[role][v];
        if (role == Q_WEIGHT) {
            nd = qu->weight->value.ndim;
            dim = qu->weight->value.dim;
        }
        snprintf(name, sizeof name, "%s.", u->name);
        if (qinst_init_grouped(q, c.method, role, c.bits, v, qp->opts, qp->store, role == Q_WEIGHT ? qu->weight : NULL, u->marks,
                               conv_groups, nd, dim, name, e) < 0)
            return -1;
        if (role == Q_WEIGHT && q->enabled) qu->weight->quantized = true;
        if (c.method->lower && role != Q_OUT) qu->method = c.method;
    }
    return 0;
}

static void declare_affine(QPlan *qp, const Unit *u, NormParams *p, const char *name)
{
    const ParamKind kind = u->u.norm.kind == NK_FROZEN ? PK_BUFFER : PK_NORM;
    p->scale = store_add(qp->store, kind, DT_F32, (Init){INIT_CONST, u->u.norm.weight_init, 0}, 1, &u->c, "%s.weight", name);
    p->shift = store_add(qp->store, kind, DT_F32, (Init){INIT_CONST, 0, 0}, 1, &u->c, "%s.bias", name);
}

static void declare_stats(QPlan *qp, const Unit *u, NormParams *p, const char *name)
{
    ParamStore *ps = qp->store;
    const NormAttr *a = &u->u.norm;
    const bool fixed = a->kind == NK_STATIC || a->kind == NK_FROZEN;
    if (!norm_has_stats(a->kind)) return;
    p->mean = store_add(ps, PK_BUFFER, DT_F32, (Init){INIT_CONST, 0, 0}, 1, &u->c, "%s.running_mean", name);
    p->var = store_add(ps, PK_BUFFER, DT_F32, (Init){INIT_CONST, fixed ? 1 - a->eps : 1, 0}, 1, &u->c, "%s.running_var", name);
    if (!fixed)
        p->count = store_add(ps, PK_BUFFER, DT_S64, (Init){INIT_CONST, 0, 0}, 0, NULL, "%s.num_batches_tracked", name);
}

/* With a bits_list there is a norm for each entry, NAME.bn.0, NAME.bn.1, ...: checkpoints hold all of them even where only the first
 * is used. Variants beyond the list take the first. */
static void declare_norm(QPlan *qp, int unit)
{
    const Unit *u = &qp->spec->u[unit];
    const QOpts *o = qp->opts;
    NormParams *norm = qp->u[unit].norm, shared = {0};
    if (!o->nbits_list) {
        if (u->u.norm.affine) declare_affine(qp, u, norm, u->name);
        declare_stats(qp, u, norm, u->name);
    } else if (o->stats_sharing && u->u.norm.affine) {
        declare_affine(qp, u, &shared, u->name);
    }
    for (int v = 0; v < o->nbits_list; v++) {
        char name[256];
        snprintf(name, sizeof name, "%s.bn.%d", u->name, v);
        norm[v] = shared;
        if (u->u.norm.affine && !shared.scale) declare_affine(qp, u, &norm[v], name);
        declare_stats(qp, u, &norm[v], name);
    }
    for (int v = 1; v < qp->nvariants; v++)
        if (v >= o->nbits_list || !o->switch_norm) norm[v] = norm[0];
}

static int declare(QPlan *qp, int unit, const QMethod *const method[Q_NROLES], Err *e)
{
    const Unit *u = &qp->spec->u[unit];
    QUnit *qu = &qp->u[unit];
    ParamStore *ps = qp->store;
    static const QRole order[] = {Q_ACT, Q_WEIGHT, Q_OUT};
    const int one = 1;
    const bool first = u->kind == U_CONV && method[Q_ACT] && method[Q_ACT]->traits & QT_DECLARES_FIRST;
    if (first && add_instances(qp, unit, Q_ACT, method, e) < 0) return -1;
    switch (u->kind) {
    case U_CONV: {
        const ConvAttr *a = &u->u.conv;
        int dim[4] = {a->oc, u->ic / (a->groups ? a->groups : 1), a->k, a->k};
        qu->weight = store_add(ps, PK_WEIGHT, DT_F32, a->init, 4, dim, "%s.weight", u->name);
        if (a->bias) qu->bias = store_add(ps, PK_BIAS, DT_F32, a->bias_init, 1, &a->oc, "%s.bias", u->name);
        break;
    }
    case U_LINEAR: {
        const LinearAttr *a = &u->u.linear;
        int dim[2] = {a->out, u->ic * u->ih * u->iw};
        qu->weight = store_add(ps, PK_WEIGHT, DT_F32, a->init, 2, dim, "%s.weight", u->name);
        if (a->bias) qu->bias = store_add(ps, PK_BIAS, DT_F32, a->bias_init, 1, &a->out, "%s.bias", u->name);
        break;
    }
    case U_NORM:
        declare_norm(qp, unit);
        return 0;
    case U_SCALE:
    case U_SHIFT:
        qu->weight = store_add(ps, PK_BIAS, DT_F32, (Init){INIT_CONST, u->u.init, 0}, 1, &one, "%s", u->name);
        return 0;
    case U_ACT:
        if (u->u.act.kind == AK_PRELU)
            qu->weight = store_add(ps, PK_BIAS, DT_F32, (Init){INIT_CONST, u->u.act.slope, 0}, 1,
                                   u->u.act.one_slope ? &one : &u->c, "%s.weight", u->name);
        return 0;
    default:
        return 0;
    }
    for (size_t i = first; i < ARRAY_LEN(order); i++)
        if (add_instances(qp, unit, order[i], method, e) < 0) return -1;
    return 0;
}

int qplan_build(QPlan *qp, const Spec *spec, const QOpts *opts, ParamStore *store, Err *e)
{
    const char *const name[Q_NROLES] = {[Q_WEIGHT] = opts->wt_quant, [Q_ACT] = opts->fm_quant, [Q_OUT] = opts->ot_quant};
    static const char *const key[Q_NROLES] = {[Q_WEIGHT] = "wt_quant", [Q_ACT] = "fm_quant", [Q_OUT] = "ot_quant"};
    const QMethod *method[Q_NROLES] = {NULL};
    int *order, r = 0;
    *qp = (QPlan){.spec = spec, .opts = opts, .store = store, .nvariants = (opts->nbits_list ? opts->nbits_list : 1) + opts->nextra};
    ASSERT(qp->nvariants <= QPLAN_MAX_VARIANTS, "%d variants", qp->nvariants);
    for (int v = 0; v < opts->nbits_list; v++) {
        qp->bits[v] = opts->bits_list[v];
        qp->act_bits[v] = opts->act_bits_list[v];
    }
    for (int i = 0; i < opts->nextra; i++) {
        qp->bits[qp->nvariants - opts->nextra + i] = opts->extra_bits[i];
        qp->act_bits[qp->nvariants - opts->nextra + i] = opts->extra_act_bits[i];
    }
    for (int i = 0; i < Q_NROLES; i++) {
        if (is_float(name[i])) continue;
        method[i] = find_method(opts, name[i], key[i], e);
        if (!method[i]) return -1;
        if (opts->nbits_list > 0 && !(method[i]->traits & QT_VARIANTS))
            return err_set(e, ERR_CONFIG, "bits_list: method '%s' (%s) has one width only; expected adabits", name[i], key[i]);
    }
    qp->act_method = method[Q_ACT];
    links_find(&qp->links, spec, !opts->f8.original);
    qp->u = xcalloc((size_t)spec->n, sizeof *qp->u);
    order = xcalloc((size_t)spec->n, sizeof *order);
    spec_declaration_order(spec, order);
    for (int i = 0; i < spec->n && r == 0; i++) r = declare(qp, order[i], method, e);
    free(order);
    return r;
}

void qplan_each(QPlan *qp, void (*f)(QInst *q, void *arg), void *arg)
{
    for (int i = 0; i < qp->spec->n; i++)
        for (int r = 0; r < Q_NROLES; r++)
            for (int v = 0; qp->u[i].q[r] && v < qp->nvariants; v++)
                if (qp->u[i].q[r][v].fn) f(&qp->u[i].q[r][v], arg);
}

static void release(QInst *q, void *arg)
{
    (void)arg;
    qinst_free(q);
}

void qplan_free(QPlan *qp)
{
    if (qp->u) qplan_each(qp, release, NULL);
    free(qp->u);
    links_free(&qp->links);
    arena_free(&qp->arena);
    *qp = (QPlan){0};
}

QInst *qplan_get(const QPlan *qp, int unit, QRole role, int variant)
{
    QInst *q = qp->u[unit].q[role];
    if (!q || !q[variant].fn || !q[variant].enabled) return NULL;
    return &q[variant];
}

bool qplan_pads_first(const QPlan *qp, int unit, const QInst *q)
{
    const Unit *u = &qp->spec->u[unit];
    return u->kind == U_CONV && u->u.conv.pad > 0 && q->fn->pad_matters &&
           !q->opts->kw.padding_after_quant && q->fn->pad_matters(q);
}

int qplan_bits(const QPlan *qp, int unit, QRole role, int variant)
{
    const QInst *q = qplan_get(qp, unit, role, variant);
    return q ? q->bits : 32;
}
