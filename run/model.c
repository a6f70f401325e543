/* run/model.c -- see model.h. */
#include "run/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Graph, plan and primitives for one (phase, variant, batch, kind of targets). */
typedef struct Program {
    Phase phase;
    int variant, batch;
    bool soft; /* targets */
    Graph g;
    Plan plan;
    Lower lw;
    Exec x;
    struct Program *next;
} Program;

struct Model {
    Spec spec;
    ParamStore store;
    QPlan qp;
    QOpts qopts;
    Prim *prim;
    Program *programs;
    char *arena;         /* shared: programs never run at the same time */
    size_t arena_bytes;
    float smoothing;
    uint64_t seed;
    float *pad_x;        /* a partial evaluation batch, padded */
    size_t pad_len;      /* floats it has room for */
    const ModelWatch *watch;
};

int model_fits(const Spec *s, int copies, Err *e)
{
    const double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE), gib = 1 << 30;
    double floats = 0;
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        if (u->kind == U_CONV) floats += (double)u->c * (u->ic / u->u.conv.groups) * u->u.conv.k * u->u.conv.k;
        if (u->kind == U_LINEAR) floats += (double)u->c * u->ic;
    }
    if (!(have > 0) || floats * sizeof(float) * copies <= have) return 0;
    return err_set(e, ERR_CONFIG,
                   "net: %.3g weights%s take %.1f GiB, and this machine has %.1f; expected a smaller net "
                   "(width_alpha, base, num_classes, image_size)",
                   floats, copies > 1 ? ", their gradients and the optimizer's state" : "",
                   floats * sizeof(float) * copies / gib, have / gib);
}

Model *model_new(const NetOpts *no, const QOpts *qo, double label_smoothing, uint64_t seed, Err *e)
{
    Model *m = xcalloc(1, sizeof *m);
    m->smoothing = (float)label_smoothing;
    m->seed = seed;
    m->qopts = *qo;
    m->prim = prim_open(e);
    if (!m->prim || net_build(&m->spec, no, e) < 0 || model_fits(&m->spec, 1, e) || qplan_build(&m->qp, &m->spec, &m->qopts, &m->store, e) < 0) {
        model_free(m);
        return NULL;
    }
    store_init(&m->store, seed);
    return m;
}

static void program_free(Program *p)
{
    exec_free(&p->x);
    plan_free(&p->plan);
    lower_free(&p->lw);
    graph_free(&p->g);
    free(p);
}

void model_drop_programs(Model *m)
{
    while (m->programs) {
        Program *p = m->programs;
        m->programs = p->next;
        program_free(p);
    }
    /* Set again by the programs that follow: a run that is resumed never had the earlier ones. */
    for (int i = 0; i < m->store.n; i++) m->store.p[i]->trained = false;
}

void model_free(Model *m)
{
    if (!m) return;
    model_drop_programs(m);
    qplan_free(&m->qp);
    spec_free(&m->spec);
    store_free(&m->store);
    prim_close(m->prim);
    free(m->arena);
    free(m->pad_x);
    free(m);
}

const Spec *model_spec(const Model *m)
{
    return &m->spec;
}

ParamStore *model_store(Model *m)
{
    return &m->store;
}

QPlan *model_qplan(Model *m)
{
    return &m->qp;
}

Prim *model_prim(Model *m)
{
    return m->prim;
}

static void open_exec(Model *m, Program *p)
{
    exec_init(&p->x, &p->g, &p->plan, m->arena);
    p->x.phase = (int)p->phase;
    p->x.seed = m->seed;
}

static int too_large(const Program *p, size_t bytes, size_t left, Err *e)
{
    const bool train = p->phase == PH_TRAIN;
    char there[64] = "which this process is not given";
    if (bytes > left) snprintf(there, sizeof there, "and %.1f GiB of memory can be had", (double)left / 0x1p30);
    return err_set(e, ERR_RUN, "%s a batch of %d needs %.1f GiB of activations, %s; expected a smaller %s or image_size",
                   train ? "training on" : "evaluating", p->batch, (double)bytes / 0x1p30, there,
                   train ? "batch_size" : "val_batch_size");
}

/* Room for the newest program. The others hold pointers into the arena: when it must grow, they are pointed at the
 * new one. */
static int grow_arena(Model *m, Err *e)
{
    const size_t huge = (size_t)2 << 20, left = mem_left();
    size_t bytes = m->programs->plan.arena_bytes;
    if (bytes <= m->arena_bytes) return 0;
    bytes = (bytes + huge - 1) / huge * huge;
    if (bytes > m->arena_bytes && bytes - m->arena_bytes > left) return too_large(m->programs, bytes, left, e);
    free(m->arena);
    m->arena_bytes = 0;
    m->arena = aligned_alloc(huge, bytes);
    if (!m->arena) return too_large(m->programs, bytes, left, e);
    madvise(m->arena, bytes, MADV_HUGEPAGE); /* fewer TLB misses; harmless where it is refused */
    m->arena_bytes = bytes;
    for (Program *p = m->programs; p; p = p->next) {
        uint64_t version = p->x.weights_version;
        exec_free(&p->x);
        open_exec(m, p);
        if (version) p->x.weights_version = version; /* packed weights were made at it */
    }
    return 0;
}

/* Lowered and planned, without memory. */
static Program *program_planned(Model *m, Phase phase, int variant, int batch, bool soft, Err *e)
{
    Program *p = xcalloc(1, sizeof *p);
    p->phase = phase, p->variant = variant, p->batch = batch, p->soft = soft;
    graph_init(&p->g, phase == PH_TRAIN);
    if (lower_graph_to(&p->lw, &p->g, &m->qp, phase, variant, batch, soft, m->smoothing, e) < 0 ||
        graph_finish(&p->g, m->prim, e) < 0) {
        program_free(p);
        return NULL;
    }
    plan_make(&p->plan, &p->g, true);
    return p;
}

static Program *program_to(Model *m, Phase phase, int variant, int batch, bool soft, Err *e)
{
    Program *p;
    for (p = m->programs; p; p = p->next)
        if (p->phase == phase && p->variant == variant && p->batch == batch && p->soft == soft) return p;
    if (!(p = program_planned(m, phase, variant, batch, soft, e))) return NULL;
    if (phase == PH_TRAIN) store_alloc_grads(&m->store);
    p->next = m->programs;
    m->programs = p;
    if (grow_arena(m, e)) {
        m->programs = p->next;
        program_free(p);
        return NULL;
    }
    if (!p->x.g) open_exec(m, p);
    return p;
}

static Program *program(Model *m, Phase phase, int variant, int batch, Err *e)
{
    return program_to(m, phase, variant, batch, false, e);
}

int model_prepare(Model *m, Phase phase, int variant, int batch, Err *e)
{
    return program(m, phase, variant, batch, e) ? 0 : -1;
}

static int not_finite(Program *p, double loss, Err *e)
{
    const char *node;
    if (p->x.fault) return err_set(e, ERR_DIVERGED, "%s", p->x.fault);
    node = exec_find_nonfinite(&p->x);
    return err_set(e, ERR_DIVERGED, "the loss is %g; first not finite: the output of '%s'", loss, node ? node : "loss");
}

static Program *train_forward(Model *m, int variant, const Batch *b, int64_t step, Err *e)
{
    Program *p = program_to(m, PH_TRAIN, variant, b->n, b->target != NULL, e);
    if (!p) return NULL;
    exec_bind(&p->x, p->lw.input, b->x);
    exec_bind(&p->x, p->lw.labels, b->target ? (const void *)b->target : b->label);
    p->x.step = step;
    exec_forward(&p->x, 0);
    return p;
}

/* Batches are only read. */
static Batch hard_batch(const float *x, const int32_t *label, int n)
{
    union {
        const void *c;
        void *p;
    } images = {x}, labels = {label};
    return (Batch){.x = images.p, .label = labels.p, .n = n, .size = n};
}

int model_observe(Model *m, int variant, const float *x, const int32_t *label, int batch, int64_t step, Err *e)
{
    const Batch b = hard_batch(x, label, batch);
    Program *p = train_forward(m, variant, &b, step, e);
    if (!p) return -1;
    return p->x.fault ? err_set(e, ERR_DIVERGED, "%s", p->x.fault) : 0;
}

int model_train(Model *m, int variant, const float *x, const int32_t *label, int batch, int64_t step, double *loss,
                const float **logits, Err *e)
{
    const Batch b = hard_batch(x, label, batch);
    return model_train_batch(m, variant, &b, step, loss, logits, e);
}

int model_train_batch(Model *m, int variant, const Batch *b, int64_t step, double *loss, const float **logits, Err *e)
{
    Program *p = train_forward(m, variant, b, step, e);
    if (!p) return -1;
    *loss = (double)*(const float *)p->x.data[p->lw.loss] + p->x.aux_loss;
    if (logits) *logits = p->x.data[p->lw.logits];
    if (p->x.fault || !isfinite(*loss)) return not_finite(p, *loss, e);
    exec_backward(&p->x);
    return 0;
}

double cross_entropy_sum(const float *z, int classes, const int32_t *label, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++, z += classes)
        if (label[i] >= 0) sum += log_sum_exp(z, classes) - (double)z[label[i]];
    return sum;
}

void model_watch(Model *m, const ModelWatch *w)
{
    bool more = false;
    m->watch = w;
    for (int i = 0; i < m->spec.n; i++) {
        const bool plain = w && w->want[i] >> LT_INPUT & 1;
        more = more || (plain && !m->qp.u[i].plain_input);
        m->qp.u[i].plain_input = plain;
    }
    if (more) model_drop_programs(m);
}

/* One evaluation that is watched. */
typedef struct Watched {
    const ModelWatch *by;
    const Lower *lw;
    int n; /* images */
} Watched;

static void show(const Exec *x, int node, void *arg)
{
    const Watched *w = arg;
    for (int unit = 0; unit < w->lw->spec->n; unit++)
        for (int k = 0; w->by->want[unit] >> k; k++) {
            int at, v;
            Tensor t;
            if (!(w->by->want[unit] >> k & 1)) continue;
            v = lower_tensor(w->lw, unit, (LayerTensor)k, &at);
            if (v < 0 || at != node) continue;
            t = x->g->v[v].t;
            t.data = x->data[v];
            if (layer_tensor_is_map((LayerTensor)k)) t.dim[0] = w->n;
            w->by->see(w->by->arg, unit, (LayerTensor)k, &t);
        }
}

static void eval_forward(Model *m, Program *p, int n)
{
    Watched w = {m->watch, &p->lw, n};
    if (w.by) p->x.after = show, p->x.after_arg = &w;
    exec_forward(&p->x, store_version(&m->store));
    p->x.after = NULL;
}

int model_eval(Model *m, int variant, const float *x, const int32_t *label, int n, int batch, double *loss_sum,
               const float **logits, Err *e)
{
    const Unit *in = &m->spec.u[0];
    const int classes = m->spec.u[m->spec.out].c;
    const size_t image = (size_t)in->c * (size_t)in->h * (size_t)in->w;
    Program *p = program(m, PH_EVAL, variant, batch, e);
    const float *z;
    if (!p) return -1;
    ASSERT(n <= batch, "%d images for a batch of %d", n, batch);
    if (n < batch) {
        const size_t used = image * (size_t)n, all = image * (size_t)batch;
        if (m->pad_len < all) {
            free(m->pad_x);
            m->pad_x = xaligned(all * sizeof *m->pad_x);
            m->pad_len = all;
        }
        memcpy(m->pad_x, x, used * sizeof *x);
        memset(m->pad_x + used, 0, (all - used) * sizeof *x);
        x = m->pad_x;
    }
    exec_bind(&p->x, p->lw.input, x);
    eval_forward(m, p, n);
    if (p->x.fault) return err_set(e, ERR_DIVERGED, "%s", p->x.fault);
    z = p->x.data[p->lw.logits];
    if (logits) *logits = z;
    *loss_sum = cross_entropy_sum(z, classes, label, n);
    return 0;
}

static void after_step(QInst *q, void *arg)
{
    (void)arg;
    if (q->fn->after_step) q->fn->after_step(q);
}

void model_after_step(Model *m)
{
    qplan_each(&m->qp, after_step, NULL);
}

int model_plan_bytes(Model *m, Phase phase, int variant, int batch, size_t *bytes, Err *e)
{
    Program *p = program_planned(m, phase, variant, batch, false, e);
    if (!p) return -1;
    *bytes = p->plan.arena_bytes;
    program_free(p);
    return 0;
}

size_t model_arena_bytes(const Model *m)
{
    return m->arena_bytes;
}

void model_print(Model *m, Phase ph, int batch, Str *out)
{
    Err e = {0};
    Program *p = program(m, ph, 0, batch, &e);
    if (!p) {
        str_printf(out, "%s\n", e.msg);
        return;
    }
    graph_print(&p->g, out);
    str_printf(out, "%d nodes, %d blocks, arena %.1f MB (lower bound %.1f MB), kept %.1f MB\n", p->g.nn, p->plan.blocks,
               (double)p->plan.arena_bytes / 1e6, (double)p->plan.lower_bound / 1e6, (double)p->plan.fixed_bytes / 1e6);
}

/* Set, or a method's own attribute, on every instance whose name contains `pattern`. */
typedef struct SetArg {
    const char *pattern, *attr;
    double value;
    int done;
    bool graph_changed;
    Err *e;
} SetArg;

static void set_one(QInst *q, void *arg)
{
    SetArg *a = arg;
    if (a->done < 0 || !strstr(q->name, a->pattern)) return;
    if (str_eq(a->attr, "enable")) {
        if (q->bits >= 32) return; /* only declares parameters: there is nothing to switch */
        a->graph_changed = a->graph_changed || q->enabled != (a->value != 0);
        q->enabled = a->value != 0;
    } else if (!q->fn->set || q->fn->set(q, a->attr, a->value, a->e) < 0) {
        if (a->e && !a->e->msg[0]) err_set(a->e, ERR_CONFIG, "%s: no attribute '%s'", q->name, a->attr);
        a->done = -1;
        return;
    }
    a->graph_changed = a->graph_changed || q->relower;
    q->relower = false;
    a->done++;
}

int model_set(Model *m, const char *pattern, const char *attr, double value, Err *e)
{
    SetArg a = {pattern, attr, value, 0, false, e};
    qplan_each(&m->qp, set_one, &a);
    if (a.graph_changed) model_drop_programs(m);
    /* hoisted nodes may have read what was set */
    for (Program *p = m->programs; p; p = p->next) p->x.store_version = 0;
    return a.done;
}

int model_profile(Model *m, Phase ph, int batch, int steps, OpTime **t, int *n, double *total_s, Err *e)
{
    Program *p = program(m, ph, 0, batch, e);
    const Unit *in = &m->spec.u[0];
    size_t image = (size_t)in->c * (size_t)in->h * (size_t)in->w;
    float *x;
    int32_t *label;
    Rng r = rng_stream(m->seed, RNG_TEST, 0, 0);
    if (!p) return -1;
    x = xaligned(image * (size_t)batch * sizeof *x);
    label = xcalloc((size_t)batch, sizeof *label);
    for (size_t i = 0; i < image * (size_t)batch; i++) x[i] = (float)rng_range(&r, -1, 1);
    for (int i = 0; i < batch; i++) label[i] = i % m->spec.u[m->spec.out].c;
    exec_bind(&p->x, p->lw.input, x);
    if (ph == PH_TRAIN) exec_bind(&p->x, p->lw.labels, label);
    *n = p->g.nn;
    *t = xcalloc((size_t)p->g.nn, sizeof **t);
    *total_s = 0;
    p->x.timing = true;
    for (int s = 0; s < steps + 2; s++) {
        double t0 = exec_now(), all;
        exec_forward(&p->x, store_version(&m->store));
        if (ph == PH_TRAIN) exec_backward(&p->x);
        all = exec_now() - t0;
        if (s < 2) continue; /* warm-up */
        if (s == 2 || all < *total_s) *total_s = all;
        for (int i = 0; i < p->g.nn; i++) {
            const Node *nd = &p->g.n[i];
            OpTime *o = &(*t)[i];
            if (s == 2 || nd->t_fwd < o->fwd_s) o->fwd_s = nd->t_fwd;
            if (s == 2 || nd->t_bwd < o->bwd_s) o->bwd_s = nd->t_bwd;
        }
    }
    p->x.timing = false;
    for (int i = 0; i < p->g.nn; i++) {
        const Node *nd = &p->g.n[i];
        OpTime *o = &(*t)[i];
        o->name = nd->name, o->op = nd->op->name, o->impl = nd->impl ? nd->impl : "";
        o->flops = nd->flops;
        if (nd->hoisted) o->fwd_s = 0;
        for (int k = 0; k < nd->nin; k++) o->bytes += (double)tensor_bytes(&p->g.v[nd->in[k]].t);
        for (int k = 0; k < nd->nout; k++) o->bytes += (double)tensor_bytes(&p->g.v[nd->out[k]].t);
    }
    free(x);
    free(label);
    return 0;
}
