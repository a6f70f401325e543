/* run/export_key.c -- see export_key.h. */
#include "run/export_key.h"

#include <stdlib.h>

#include "io/fs.h"
#include "run/export_weights.h"
#include "run/integer.h"
#include "run/which_net.h"

static bool wanted(const Config *c)
{
    return c->run.export_onnx && *c->run.export_onnx;
}

/* One file to write. */
typedef struct Target {
    char *path;     /* owned */
    char width[16]; /* of several; else empty */
    int variant;
} Target;

/* That of the k-th width. */
static Target target(const Session *s, int k)
{
    Target t = {.variant = s->width[k]};
    if (s->nwidths > 1) session_width_text(s, k, t.width);
    t.path = path_of_width(s->cfg->run.export_onnx, t.width);
    return t;
}

static int check(const Session *s, const Target *t, Err *e)
{
    if (fs_check_writable(t->path, e)) return -1;
    return int_stage(&s->cfg->run) ? 0 : export_float_check(model_qplan(s->model), t->variant, e);
}

int export_check(const Session *s, Err *e)
{
    if (export_weights_check(s, e)) return -1;
    for (int k = 0; wanted(s->cfg) && k < s->nwidths; k++) {
        Target t = target(s, k);
        const int r = check(s, &t, e);
        free(t.path);
        if (r) return key_blame(s->cfg, "export_onnx", e);
    }
    return 0;
}

static int write(const Session *s, const Target *t, const char *weights, Err *e)
{
    const ExportOpts o = {.net = s->cfg->net.model,
                          .weights = weights,
                          .input = &s->input,
                          .variant = t->variant,
                          .width = *t->width ? t->width : NULL};
    if (s->ints ? export_intnet(&s->ints->net, &o, t->path, NULL, e)
                : export_float(model_qplan(s->model), &o, t->path, e))
        return -1;
    log_msg(LOG_INFO, "%s: the net%s%s as an ONNX graph, %s, opset %d", t->path,
            *t->width ? " at " : "", t->width, s->ints ? "whole numbers" : "float", ONNX_OPSET);
    if (!s->ints && s->cfg->quant.bf16)
        log_msg(LOG_INFO, "%s: computes in float; logits of this run are those of bf16", t->path);
    return 0;
}

int export_session(const Session *s, const char *weights, Err *e)
{
    if (export_weights_session(s, e)) return -1;
    for (int k = 0; wanted(s->cfg) && k < s->nwidths; k++) {
        Target t = target(s, k);
        const int r = write(s, &t, weights, e);
        free(t.path);
        if (r) return -1;
    }
    return 0;
}

int export_file(Config *cfg, const char *weights, Err *e)
{
    Session s = {0};
    char *path = NULL;
    int r = -1;
    if (!wanted(cfg) && !*cfg->run.export_weights) return 0;
    if (!session_open(&s, cfg, e) && !export_check(&s, e) &&
        (path = weights_path(weights, e)) && !session_load(&s, path, e))
        r = export_session(&s, path, e);
    free(path);
    session_free(&s);
    return r;
}
