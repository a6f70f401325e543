/* engine/op_loss.c -- softmax cross-entropy with label smoothing. Targets are hard (labels; samples
 * with -1 do not count) or soft (a row of sum 1 for each sample).
 *
 *   t_k = (1 - eps) s_k + eps / classes,  s_k = [k = label] or the soft target
 *   loss = mean over samples of -sum_k t_k log p_k;  dlogits = (p - t) / counted */
#include <math.h>

#include "engine/ops.h"
#include "engine/par.h"

typedef struct LossAttr {
    int n, classes;
    float smoothing;
} LossAttr;

static int prepare(Graph *g, Node *n, Prim *p, Err *e)
{
    (void)g, (void)p, (void)e;
    n->bwd_in = 3;
    return 0;
}

static int counted(const int32_t *label, int n)
{
    int m = 0;
    for (int i = 0; i < n; i++) m += label[i] >= 0;
    return m;
}

double log_sum_exp(const float *z, int k)
{
    double m = (double)z[0], sum = 0;
    for (int i = 1; i < k; i++) m = fmax(m, (double)z[i]);
    for (int i = 0; i < k; i++) sum += exp((double)z[i] - m);
    return m + log(sum);
}

static void forward(Node *n, Exec *x)
{
    const LossAttr *a = n->attr;
    const float *z = exec_in(x, n, 0);
    const int32_t *label = exec_in(x, n, 1);
    const double eps = (double)a->smoothing;
    double sum = 0;
    int m = counted(label, a->n);
    for (int i = 0; i < a->n; i++, z += a->classes) {
        double l, mean = 0;
        if (label[i] < 0) continue;
        l = log_sum_exp(z, a->classes);
        sum += (1 - eps) * (l - (double)z[label[i]]);
        if (eps == 0) continue;
        for (int k = 0; k < a->classes; k++) mean += l - (double)z[k];
        sum += eps * mean / a->classes;
    }
    *(float *)exec_out(x, n, 0) = (float)(m ? sum / m : 0);
}

static void backward(Node *n, Exec *x)
{
    const LossAttr *a = n->attr;
    const float *z = exec_in(x, n, 0);
    const int32_t *label = exec_in(x, n, 1);
    float *dz = exec_gin(x, n, 0);
    const double eps = (double)a->smoothing;
    int m = counted(label, a->n), classes = a->classes;
    if (!dz) return; /* nothing is trained */
    PARALLEL_FOR(i, a->n)
    {
        const float *u = z + i * classes;
        float *d = dz + i * classes;
        double l = label[i] < 0 ? 0 : log_sum_exp(u, classes);
        for (int k = 0; k < classes; k++) {
            double t = eps / classes + (k == label[i] ? 1 - eps : 0);
            d[k] = label[i] < 0 ? 0 : (float)((exp((double)u[k] - l) - t) / m);
        }
    }
}

static const OpDef op_loss = {"cross_entropy", OP_LOSS, prepare, forward, backward, NULL};

static void soft_forward(Node *n, Exec *x)
{
    const LossAttr *a = n->attr;
    const float *z = exec_in(x, n, 0), *s = exec_in(x, n, 1);
    const double eps = (double)a->smoothing;
    double sum = 0;
    for (int i = 0; i < a->n; i++, z += a->classes, s += a->classes) {
        const double l = log_sum_exp(z, a->classes);
        for (int k = 0; k < a->classes; k++)
            sum += ((1 - eps) * (double)s[k] + eps / a->classes) * (l - (double)z[k]);
    }
    *(float *)exec_out(x, n, 0) = (float)(sum / a->n);
}

static void soft_backward(Node *n, Exec *x)
{
    const LossAttr *a = n->attr;
    const float *z = exec_in(x, n, 0), *s = exec_in(x, n, 1);
    float *dz = exec_gin(x, n, 0);
    const double eps = (double)a->smoothing;
    const int classes = a->classes;
    if (!dz) return;
    PARALLEL_FOR(i, a->n)
    {
        const float *u = z + i * classes, *si = s + i * classes;
        float *d = dz + i * classes;
        const double l = log_sum_exp(u, classes);
        for (int k = 0; k < classes; k++) {
            const double t = (1 - eps) * (double)si[k] + eps / classes;
            d[k] = (float)((exp((double)u[k] - l) - t) / a->n);
        }
    }
}

static const OpDef op_soft_loss = {"soft_cross_entropy", OP_LOSS,       prepare,
                                   soft_forward,         soft_backward, NULL};

static int loss_node(Graph *g, const OpDef *op, const char *name, int logits, int targets,
                     float smoothing)
{
    const Tensor *t = &g->v[logits].t;
    LossAttr a = {t->dim[0], (int)(tensor_len(t) / (size_t)t->dim[0]), smoothing};
    int in[2] = {logits, targets};
    return graph_out(g, graph_node(g, op, name, 2, in, &a, sizeof a),
                     tensor_make(DT_F32, 0, NULL, NULL));
}

int graph_cross_entropy(Graph *g, const char *name, int logits, int labels, float smoothing)
{
    return loss_node(g, &op_loss, name, logits, labels, smoothing);
}

int graph_soft_cross_entropy(Graph *g, const char *name, int logits, int targets, float smoothing)
{
    ASSERT(tensor_len(&g->v[targets].t) == tensor_len(&g->v[logits].t),
           "%s: %zu targets, %zu logits", name, tensor_len(&g->v[targets].t),
           tensor_len(&g->v[logits].t));
    return loss_node(g, &op_soft_loss, name, logits, targets, smoothing);
}
