/* test/golden_trace.c -- op `net` with a `trace`: mean, deviation and largest magnitude of what
 * every convolution and linear layer reads and makes, at every width. The graph is lowered unfused,
 * so that all these values exist, and read by nodes of its own. */
#include "test/golden_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "quant/lower.h"

typedef struct SeenAttr {
    Seen *to;
} SeenAttr;

static int seen_prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)g, (void)n, (void)p, (void)e;
    return 0;
}

static void seen_forward(Node *n, Exec *x)
{
    Seen *s = ((const SeenAttr *)n->attr)->to;
    const float *v = exec_in(x, n, 0);
    double sum = 0, square = 0, most = 0;
    for (size_t i = 0; i < s->n; i++) {
        sum += (double)v[i];
        most = fmax(most, fabs((double)v[i]));
    }
    sum /= (double)s->n;
    for (size_t i = 0; i < s->n; i++) square += pow((double)v[i] - sum, 2);
    s->stat[SEEN_MEAN] = sum;
    s->stat[SEEN_STD] = sqrt(square / (double)(s->n > 1 ? s->n - 1 : 1));
    s->stat[SEEN_ABSMAX] = most;
    *(float *)exec_out(x, n, 0) = 0;
}

static const OpDef op_seen = {.name = "seen", .prepare = seen_prepare, .forward = seen_forward};

static void watch(Graph *g, const char *name, int value, Seen *to)
{
    const SeenAttr a = {to};
    to->n = tensor_len(&g->v[value].t);
    graph_out(g, graph_node(g, &op_seen, name, 1, &value, &a, sizeof a),
              tensor_make(DT_F32, 0, NULL, NULL));
}

static bool has_row(const Unit *u)
{
    return u->kind == U_CONV || u->kind == U_LINEAR;
}

bool layer_named(const Unit *u, const char *name)
{
    const size_t len = strlen(name);
    return has_row(u) && !strncmp(u->name, name, len) &&
           (!u->name[len] || str_eq(u->name + len, ".conv"));
}

bool golden_watch(Case *c, QPlan *qp, int variant, int batch, const float *x, Seen *seen)
{
    const Spec *spec = qp->spec;
    Graph g;
    Plan plan = {0};
    Exec ex = {0};
    Lower lw;
    Err e = {0};
    char *memory = NULL;
    Prim *prim = prim_open(&e);
    bool ok = false;
    graph_init(&g, false);
    if (!prim || lower_graph(&lw, &g, qp, PH_EVAL, variant, batch, 0, &e)) goto out;
    for (int i = 0, k = 0; i < spec->n; i++) {
        if (!has_row(&spec->u[i])) continue;
        watch(&g, spec->u[i].name, lw.value[spec->u[i].in[0]], &seen[k++]);
        watch(&g, spec->u[i].name, lw.value[i], &seen[k++]);
    }
    if (graph_finish(&g, prim, &e)) goto out;
    plan_make(&plan, &g, false);
    memory = xaligned(plan.arena_bytes + 1);
    exec_init(&ex, &g, &plan, memory);
    ex.phase = PH_EVAL;
    exec_bind(&ex, lw.input, x);
    exec_forward(&ex, store_version(qp->store));
    if (ex.fault) case_fail(c, "%s", ex.fault);
    ok = !ex.fault;
out:
    if (e.msg[0]) case_fail(c, "%s", e.msg);
    exec_free(&ex);
    plan_free(&plan);
    lower_free(&lw);
    graph_free(&g);
    free(memory);
    if (prim) prim_close(prim);
    return ok;
}

/* Those of the case; for deviations more where its own recomputation in double, with other
 * roundings, moved the logits of this width by more (`stats`: bits, deviation, largest and mean
 * difference). */
static SeenLimits limits_at(Case *c, int bits)
{
    const Yaml *stats = yaml_get(c->y, "stats");
    SeenLimits l = {case_num(c, "trace_tolerance.mean_abs", 0),
                case_num(c, "trace_tolerance.std_rel", 0)};
    for (int i = 0; stats && i < stats->n; i++) {
        long long of;
        double std, moved;
        if (stats->v[i]->n > 3 && yaml_int(stats->v[i]->v[0], &of) && of == bits &&
            yaml_double(stats->v[i]->v[1], &std) && yaml_double(stats->v[i]->v[3], &moved))
            l = (SeenLimits){fmax(l.mean, 4 * moved / std), fmax(l.std, 4 * moved / std)};
    }
    return l;
}

void golden_check_seen(Case *c, const char *layer, const char *side, const Seen *s,
                       const double want[SEEN_N], SeenLimits l)
{
    const double off[] = {
        fabs(s->stat[SEEN_MEAN] - want[SEEN_MEAN]) / (l.mean * fmax(1, want[SEEN_STD])),
        fabs(s->stat[SEEN_STD] - want[SEEN_STD]) / (l.std * fmax(want[SEEN_STD], 1e-6))};
    static const char *const name[] = {"mean", "deviation"};
    for (int i = SEEN_MEAN; i <= SEEN_STD; i++) {
        c->arrays++;
        c->values++;
        if (off[i] > c->worst) c->worst = off[i];
        if (!(off[i] <= 1))
            case_fail(c, "%s: %s of its %s is %.6g, expected %.6g", layer, name[i], side, s->stat[i],
                      want[i]);
    }
}

/* One row of the file: the width, the layer, three figures of its input and of its output. */
static bool read_row(const char *line, int *bits, char layer[128], double want[2][SEEN_N])
{
    return sscanf(line, "%d %127s %lf %lf %lf %lf %lf %lf", bits, layer, &want[0][SEEN_MEAN],
                  &want[0][SEEN_STD], &want[0][SEEN_ABSMAX], &want[1][SEEN_MEAN], &want[1][SEEN_STD],
                  &want[1][SEEN_ABSMAX]) == 8;
}

int golden_watched(const Spec *spec, const char *name)
{
    for (int i = 0, k = 0; i < spec->n; i++) {
        if (layer_named(&spec->u[i], name)) return k;
        k += has_row(&spec->u[i]);
    }
    return -1;
}

void golden_trace(Case *c, QPlan *qp, const int *variant, int nvariants, const float *x, int batch)
{
    QOpts *o = (QOpts *)(uintptr_t)qp->opts; /* the model's own copy */
    const char *file = case_str(c, "trace", "");
    SeenLimits l = {0, 0};
    const bool fuse = o->fuse;
    Seen *seen = arena_alloc(&c->arena, (size_t)qp->spec->n * 2 * sizeof *seen);
    int done = -1, bits, rows = 0;
    char layer[128], *text, *line, *rest;
    size_t size;
    Err e = {0};
    if (!*file) return;
    text = fs_read(arena_printf(&c->arena, "%s/%s", c->dir, file), 0, &size, &e);
    if (!text) {
        case_fail(c, "%s", e.msg);
        return;
    }
    o->fuse = false;
    for (line = strtok_r(text, "\n", &rest); line && !c->failed;
         line = strtok_r(NULL, "\n", &rest)) {
        double want[2][SEEN_N];
        const char *of;
        int k, at;
        if (!read_row(line, &bits, layer, want)) continue; /* the heading */
        for (k = 0; k < nvariants && qp->bits[variant[k]] != bits; k++) continue;
        at = golden_watched(qp->spec, layer);
        if (k == nvariants || at < 0) {
            case_fail(c, "%s: no layer %s at %d bits here", file, layer, bits);
            break;
        }
        if (k != done && !golden_watch(c, qp, variant[k], batch, x, seen)) break;
        if (k != done) l = limits_at(c, bits);
        done = k;
        of = arena_printf(&c->arena, "%s at %d bits", layer, bits);
        golden_check_seen(c, of, "input", &seen[2 * at], want[0], l);
        golden_check_seen(c, of, "output", &seen[2 * at + 1], want[1], l);
        rows++;
    }
    o->fuse = fuse;
    if (!rows) case_fail(c, "%s: no row", file);
    free(text);
}
