/* run/integer.c -- see integer.h. */
#include "run/integer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/ckpt.h"
#include "io/fs.h"
#include "quant/f8int.h"
#include "quant/f8net.h"
#include "run/log.h"

static const char *integize_folder(const RunOpts *o)
{
    return o->integize_file_path;
}

static const char *int_op_only_folder(const RunOpts *o)
{
    return o->int_op_only_file_path;
}

static const IntStage stages[] = {
    {"int_op_only", true, "int_op_only_model", int_op_only_folder, "int_op_only_file_path", DT_S32},
    {"integize", true, "integized_model", integize_folder, "integize_file_path", DT_F32},
    {"int_infer", false, NULL, NULL, NULL, DT_S32},
};

const IntStage *int_stage(const RunOpts *o)
{
    return o->int_op_only ? &stages[0]
           : o->integize  ? &stages[1]
           : o->int_infer ? &stages[2]
                          : NULL;
}

/* Sums that 32 bits might not hold, by the ranges of the numbers. */
static void warn_of_wrapping(const IntNet *net)
{
    int64_t *bound = xcalloc((size_t)net->n, sizeof *bound);
    intnet_bounds(net, bound);
    for (int i = 0; i < net->n; i++)
        if (net->op[i].type == DT_S32 && bound[i] > INT32_MAX) {
            log_msg(LOG_WARN, "%s: sums of up to %lld might not fit 32 bits",
                    net->op[i].name[0] ? net->op[i].name : int_kind_name(net->op[i].kind),
                    (long long)bound[i]);
            break;
        }
    free(bound);
}

int integers_check_loaded(Model *m, const IntStage *st, const char *weights, Err *e)
{
    const QPlan *qp = model_qplan(m);
    for (int i = 0; i < qp->spec->n; i++) {
        F8Layer l;
        const Param *lacking;
        if (!f8net_is(qp, i)) continue;
        f8net_layer(qp, i, st->converted, &l);
        lacking = l.fraclen && !l.fraclen->loaded ? l.fraclen
                  : l.alpha && !l.alpha->loaded   ? l.alpha
                                                  : NULL;
        if (lacking)
            return err_set(e, ERR_DATA,
                           "%s: no '%s' in it; expected a checkpoint of training in fixed point",
                           weights, lacking->name);
    }
    return 0;
}

int integers_open(Integers *x, Model *m, const IntStage *st, int batch, Err *e)
{
    const IntOp *in;
    size_t image;
    *x = (Integers){0};
    if (f8int_build(model_qplan(m), st->converted, &x->net, &x->unit, e)) return -1;
    x->exec = intexec_new(&x->net, batch, model_prim(m), e);
    if (!x->exec) return -1;
    in = &x->net.op[0];
    x->classes = x->net.op[x->net.out].c;
    image = (size_t)in->c * (size_t)in->h * (size_t)in->w;
    x->image = xaligned((size_t)batch * image);
    x->sums = xcalloc((size_t)batch * (size_t)x->classes, sizeof *x->sums);
    x->logits = xcalloc((size_t)batch * (size_t)x->classes, sizeof *x->logits);
    log_msg(LOG_INFO, "%s: %s", st->name, intexec_how(x->exec));
    warn_of_wrapping(&x->net);
    return 0;
}

void integers_close(Integers *x)
{
    if (x->exec) intexec_free(x->exec);
    intnet_free(&x->net);
    free(x->image);
    free(x->sums);
    free(x->logits);
    *x = (Integers){0};
}

const float *integers_eval(Integers *x, const float *image, int n)
{
    const IntOp *in = &x->net.op[0];
    const size_t out = (size_t)n * (size_t)x->classes;
    f8int_image(&x->net, image, (size_t)n * (size_t)in->c * (size_t)in->h * (size_t)in->w,
                x->image);
    intexec_run(x->exec, x->image, n, x->sums);
    for (size_t i = 0; i < out; i++) x->logits[i] = (float)((double)x->sums[i] * x->unit);
    return x->logits;
}

void integers_compare(Integers *x, const float *simulated, int n)
{
    for (size_t i = 0; i < (size_t)n * (size_t)x->classes; i++) {
        const double apart = fabs((double)simulated[i] / x->unit - (double)x->sums[i]);
        x->differ += apart >= 0.5;
        if (apart > (double)x->largest) x->largest = (int32_t)fmin(rint(apart), INT32_MAX);
    }
    x->compared += (int64_t)n * x->classes;
}

/* ---- files ---- */

static char *output(const char *folder, const char *sub, const char *file, const char *ending)
{
    return xasprintf("%s/%s/%s%s", folder, sub, file, ending);
}

static int make_folders(const char *folder, Err *e)
{
    char *ckpt = fs_join(folder, "checkpoints"), *onnx = fs_join(folder, "onnx_files");
    int r = fs_mkdirs(ckpt, e);
    if (!r) r = fs_mkdirs(onnx, e);
    free(ckpt);
    free(onnx);
    return r;
}

int integers_check_output(const char *folder, const IntStage *st, Err *e)
{
    char *path = output(folder, "onnx_files", st->file, ".onnx");
    const int r = make_folders(folder, e) ? -1 : fs_check_writable(path, e);
    free(path);
    return r;
}

/* The numbers of one operation, under the names of the original's integer nets. */
typedef struct Entry {
    char name[4][256];
    Tensor t[4];
} Entry;

static void fill(Tensor *t, DType type, int ndim, const int *dim, size_t i, double v)
{
    if (!t->data) {
        *t = tensor_make(type, ndim, dim, NULL);
        t->data = xcalloc(tensor_len(t) + 1, sizeof(float));
    }
    if (type == DT_F32)
        ((float *)t->data)[i] = (float)v;
    else
        ((int32_t *)t->data)[i] = (int32_t)v;
}

static void fill_entry(Entry *en, const IntNet *net, const IntOp *op, DType type)
{
    const IntConv *c = &op->u.conv;
    const IntOp *in = &net->op[op->in[0]];
    const int one = 1, dim[] = {op->c, in->c / c->groups, c->k, c->k};
    const size_t n = (size_t)dim[0] * (size_t)dim[1] * (size_t)c->k * (size_t)c->k;
    static const char *const names[] = {"weight", "bias", "weight_fraclen", "input_fraclen"};
    for (int i = 0; i < 4; i++)
        snprintf(en->name[i], sizeof en->name[i], "%s.%s", op->name, names[i]);
    for (size_t i = 0; i < n; i++)
        fill(&en->t[0], type, op->kind == IK_LINEAR ? 2 : 4, dim, i, c->w[i]);
    for (size_t i = 0; i < (size_t)op->c; i++)
        fill(&en->t[1], type, 1, &op->c, i, c->bias ? (double)c->bias[i] : 0);
    fill(&en->t[2], type, 0, NULL, 0, c->weight_fl);
    fill(&en->t[3], type, 1, &one, 0, in->fl);
}

static int write_checkpoint(const IntNet *net, const char *path, const IntStage *st, Err *e)
{
    Entry *en = xcalloc((size_t)net->n, sizeof *en);
    TensorOut *out = xcalloc((size_t)net->n * 4, sizeof *out);
    const MetaOut meta[] = {{INT_STAGE_META, st->name}};
    int n = 0, r;
    for (int i = 0; i < net->n; i++) {
        if (net->op[i].kind != IK_CONV && net->op[i].kind != IK_LINEAR) continue;
        fill_entry(&en[i], net, &net->op[i], st->stored);
        for (int k = 0; k < 4; k++) out[n++] = (TensorOut){en[i].name[k], &en[i].t[k]};
    }
    r = safetensors_write(path, out, n, meta, 1, e);
    for (int i = 0; i < net->n; i++)
        for (int k = 0; k < 4; k++) free(en[i].t[k].data);
    free(en);
    free(out);
    return r;
}

int integers_write(const Integers *x, const char *folder, const IntStage *st, const ExportOpts *o,
                   Err *e)
{
    char *ckpt = output(folder, "checkpoints", st->file, ".safetensors");
    char *onnx = output(folder, "onnx_files", st->file, ".onnx");
    int r = make_folders(folder, e);
    if (!r) r = write_checkpoint(&x->net, ckpt, st, e);
    if (!r) r = export_intnet(&x->net, o, onnx, NULL, e);
    if (!r) log_msg(LOG_INFO, "wrote %s and %s", ckpt, onnx);
    free(ckpt);
    free(onnx);
    return r;
}
