/* run/export_weights.c -- see export_weights.h. */
#include "run/export_weights.h"

#include <stdlib.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/fs.h"
#include "quant/qplan.h"
#include "run/which_net.h"

static bool wanted(const Session *s)
{
    return s->cfg->run.export_weights && *s->cfg->run.export_weights;
}

static int refuse(const Session *s, Err *e)
{
    const QPlan *qp = model_qplan(s->model);
    if (s->cfg->quant.nbits_list)
        return err_set(e, ERR_CONFIG, "a net of several widths has no one set of weights; expected one "
                                      "without bits_list");
    for (int i = 0; i < qp->spec->n; i++) {
        const QInst *q = qplan_get(qp, i, Q_WEIGHT, 0);
        if (q && q->method->lower)
            return err_set(e, ERR_CONFIG,
                           "%s makes weights together with the norms; expected "
                           "another method, or integize",
                           q->method->name);
    }
    return 0;
}

int export_weights_check(const Session *s, Err *e)
{
    if (!wanted(s)) return 0;
    if (fs_check_writable(s->cfg->run.export_weights, e) || refuse(s, e))
        return key_blame(s->cfg, "export_weights", e);
    return 0;
}

/* Whether p belongs to the weight quantizer of a layer. */
static bool only_quantizes(const QPlan *qp, const Param *p)
{
    for (int i = 0; i < qp->spec->n; i++) {
        const QInst *w = qplan_get(qp, i, Q_WEIGHT, 0);
        if (w && qinst_owns(w, p)) return true;
    }
    return false;
}

/* The weight as its quantizer leaves it, in memory of its own; NULL with `e`. */
static void *quantized(QInst *q, const Param *p, Err *e)
{
    Tensor y = p->value;
    QCtx c = {.phase = PH_EVAL};
    size_t save, scratch;
    qinst_need(q, &p->value, PH_EVAL, &save, &scratch);
    c.save = xaligned(save + 1);
    c.scratch = xaligned(scratch + 1);
    y.data = xaligned(tensor_bytes(&p->value));
    qinst_forward(q, &p->value, &y, &c);
    free(c.save);
    free(c.scratch);
    if (!q->fault) return y.data;
    err_set(e, ERR_DIVERGED, "%s", q->fault);
    free(y.data);
    return NULL;
}

static QInst *quantizer_of(const QPlan *qp, const Param *p)
{
    for (int i = 0; i < qp->spec->n; i++)
        if (qp->u[i].weight == p) return qplan_get(qp, i, Q_WEIGHT, 0);
    return NULL;
}

int export_weights_session(const Session *s, Err *e)
{
    const char *path = s->cfg->run.export_weights;
    const QPlan *qp;
    const ParamStore *ps;
    const MetaOut meta = {"weights", "as quantized"};
    TensorOut *out;
    Tensor *made; /* data NULL: the parameter itself is written */
    int n = 0, r = 0;
    if (!wanted(s)) return 0;
    qp = model_qplan(s->model), ps = model_store(s->model);
    out = xcalloc((size_t)ps->n, sizeof *out);
    made = xcalloc((size_t)ps->n, sizeof *made);
    for (int i = 0; i < ps->n && !r; i++) {
        const Param *p = ps->p[i];
        QInst *q = quantizer_of(qp, p);
        if (only_quantizes(qp, p)) continue;
        out[n] = (TensorOut){p->name, &p->value};
        if (q) {
            made[n] = p->value;
            made[n].data = quantized(q, p, e);
            out[n].t = &made[n];
            r = made[n].data ? 0 : -1;
        }
        n++;
    }
    if (!r) r = safetensors_write(path, out, n, &meta, 1, e);
    if (!r) log_msg(LOG_INFO, "%s: %d tensors, weights as quantized", path, n);
    for (int i = 0; i < ps->n; i++) free(made[i].data);
    free(made);
    free(out);
    return r;
}
