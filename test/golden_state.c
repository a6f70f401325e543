/* test/golden_state.c -- see golden_state.h. */
#include "test/golden_state.h"

#include <stdlib.h>
#include <string.h>

#include "quant/lower.h"

/* ---- state in one flat array ---- */

typedef struct Entry {
    const char *name;
    size_t at;
    bool graded; /* layouts of parameters: has a gradient */
    Param *p;
} Entry;

/* Entry i of a layout [name, shape, offset, graded]; false fails the case. */
static bool entry(Case *c, const Yaml *layout, int i, const ParamStore *ps, Entry *e)
{
    const Yaml *row = layout->v[i];
    long long at;
    bool graded = false;
    if (row->kind != Y_LIST || row->n < 3 || row->v[0]->kind != Y_SCALAR ||
        !yaml_int(row->v[2], &at) || (row->n > 3 && !yaml_bool(row->v[3], &graded))) {
        case_fail(c, "a layout has a row that is not [name, shape, offset]");
        return false;
    }
    *e = (Entry){row->v[0]->s, (size_t)at, graded, store_find(ps, row->v[0]->s)};
    if (!e->p) case_fail(c, "there is no parameter %s", e->name);
    return e->p != NULL;
}

/* The entry lies within an array of n values. */
static bool within(Case *c, const Entry *e, size_t n)
{
    if (e->at + tensor_len(&e->p->value) <= n) return true;
    case_fail(c, "the state ends before %s", e->name);
    return false;
}

bool state_set(Case *c, ParamStore *ps)
{
    const Yaml *layout = yaml_get(c->y, "state_layout");
    Tensor all;
    int floats = 0;
    if (!layout || !case_array(c, yaml_path(c->y, "inputs.state"), "state", &all)) return false;
    for (int i = 0; i < layout->n; i++) {
        Entry en;
        if (!entry(c, layout, i, ps, &en) || !within(c, &en, tensor_len(&all))) return false;
        memcpy(en.p->value.data, (float *)all.data + en.at, tensor_bytes(&en.p->value));
        param_touch(en.p);
    }
    for (int k = 0; k < ps->n; k++)
        floats += ps->p[k]->value.dtype == DT_F32 && !str_eq(ps->p[k]->name, "x");
    if (floats != layout->n)
        case_fail(c, "%d floating tensors here, %d in the case", floats, layout->n);
    return !c->failed;
}

static void check(Case *c, const ParamStore *ps, const char *layout_key, const Yaml *want_y,
                  bool grads)
{
    const Yaml *layout = yaml_get(c->y, layout_key);
    Tensor want;
    if (!layout || !want_y || !case_array(c, want_y, layout_key, &want)) return;
    for (int i = 0; i < layout->n; i++) {
        Entry en;
        if (!entry(c, layout, i, ps, &en) || !within(c, &en, tensor_len(&want))) return;
        if (grads && en.graded != en.p->trained)
            case_fail(c, "%s %s a gradient", en.name, en.graded ? "should have" : "has");
        if (!grads || en.graded)
            case_compare(c, arena_printf(&c->arena, "%s%s", grads ? "gradient of " : "", en.name),
                         grads ? en.p->grad.data : en.p->value.data, (float *)want.data + en.at,
                         tensor_len(&en.p->value));
    }
}

void state_check(Case *c, const ParamStore *ps, const char *layout_key, const Yaml *want)
{
    check(c, ps, layout_key, want, false);
}

void state_check_grads(Case *c, const ParamStore *ps, const char *layout_key, const Yaml *want)
{
    check(c, ps, layout_key, want, true);
}

/* ---- passes of a Spec ---- */

bool specrun_open(Case *c, SpecRun *r, int out, Tensor *x)
{
    Err e = {0};
    while (x->ndim < 4) x->dim[x->ndim++] = 1;
    out = spec_flatten(&r->spec, out); /* N,C,H,W on disk */
    if (!r->end) r->end = out;
    r->x = store_add(&r->ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, 4, x->dim, "x");
    r->x->value.layout = LY_NHWC;
    r->prim = prim_open(&e);
    if (!r->prim || spec_finish(&r->spec, out, &e) < 0 ||
        qplan_build(&r->qp, &r->spec, &r->o, &r->ps, &e) < 0) {
        case_fail(c, "%s", e.msg);
        return false;
    }
    store_init(&r->ps, 1);
    store_alloc_grads(&r->ps);
    nchw_to_nhwc(x->data, r->x->value.data, x->dim[0], x->dim[1], x->dim[2], x->dim[3]);
    return true;
}

void specrun_close(SpecRun *r)
{
    qplan_free(&r->qp);
    spec_free(&r->spec);
    store_free(&r->ps);
    prim_close(r->prim);
}

/* Units outside of begin..end get a value, so that they are not lowered. */
static int lower_range(Lower *lw, const SpecRun *r, Err *e)
{
    for (int i = 1; i < lw->spec->n && r->begin; i++)
        if (i < r->begin || i > r->end) lower_set(lw, i, lw->input);
    return lower_units(lw, e);
}

void specrun_pass(Case *c, SpecRun *r, int variant, const char *what, const float *up,
                  const float *want, size_t n)
{
    const Phase phase = r->train ? PH_TRAIN : PH_EVAL;
    Graph g;
    Plan plan = {0};
    Exec x = {0};
    Lower lw;
    Tap tap;
    Err e = {0};
    char *memory = NULL;
    int y;
    graph_init(&g, true);
    lower_begin(&lw, &g, &r->qp, phase, variant, r->x->value.dim[0]);
    lw.input = graph_param(&g, r->x);
    if (lower_range(&lw, r, &e)) goto out;
    y = lw.value[r->end];
    if (tensor_len(&g.v[y].t) != n) {
        case_fail(c, "%s has %zu values, expected %zu", what, tensor_len(&g.v[y].t), n);
        goto out;
    }
    if (g.v[y].t.ndim == 4) y = graph_flatten(&g, "flat", y);
    graph_tap(c, &g, "end", y, &tap, up);
    if (graph_finish(&g, r->prim, &e)) goto out;
    plan_make(&plan, &g, true);
    memory = xaligned(plan.arena_bytes + 1);
    exec_init(&x, &g, &plan, memory);
    x.phase = (int)phase;
    exec_forward(&x, store_version(&r->ps));
    if (x.fault) {
        case_fail(c, "%s", x.fault);
        goto out;
    }
    exec_backward(&x);
    case_compare(c, what, tap.value, want, n);
out:
    if (e.msg[0]) case_fail(c, "%s", e.msg);
    exec_free(&x);
    plan_free(&plan);
    lower_free(&lw);
    graph_free(&g);
    free(memory);
}

void specrun_check_dx(Case *c, const SpecRun *r)
{
    const int *d = r->x->value.dim;
    float *dx = arena_alloc(&c->arena, tensor_bytes(&r->x->value));
    nhwc_to_nchw(r->x->grad.data, dx, d[0], d[1], d[2], d[3]);
    case_expect(c, "gradient of x", yaml_path(c->y, "grads.x"), dx, tensor_len(&r->x->value));
}
