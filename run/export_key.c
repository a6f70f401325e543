/* run/export_key.c -- see export_key.h. */
#include "run/export_key.h"

#include <stdlib.h>

#include "io/fs.h"
#include "run/integer.h"
#include "run/which_net.h"

static bool wanted(const Config *c)
{
    return c->run.export_onnx && *c->run.export_onnx;
}

/* The width that is written of several: the last one evaluated. */
static int variant(const Session *s)
{
    return s->width[s->nwidths - 1];
}

int export_onnx_check(const Session *s, Err *e)
{
    if (!wanted(s->cfg)) return 0;
    if (fs_check_writable(s->cfg->run.export_onnx, e) ||
        (!int_stage(&s->cfg->run) && export_float_check(model_qplan(s->model), variant(s), e)))
        return key_blame(s->cfg, "export_onnx", e);
    return 0;
}

int export_onnx_session(const Session *s, const char *weights, Err *e)
{
    const ExportOpts o = {
        .net = s->cfg->net.model, .weights = weights, .input = &s->input, .variant = variant(s)};
    const char *path = s->cfg->run.export_onnx;
    if (!wanted(s->cfg)) return 0;
    if (s->ints ? export_intnet(&s->ints->net, &o, path, NULL, e)
                : export_float(model_qplan(s->model), &o, path, e))
        return -1;
    log_msg(LOG_INFO, "%s: the net as an ONNX graph, %s, opset %d", path,
            s->ints ? "whole numbers" : "float", ONNX_OPSET);
    return 0;
}

int export_onnx_file(Config *cfg, const char *weights, Err *e)
{
    Session s = {0};
    char *path = NULL;
    int r = -1;
    if (!wanted(cfg)) return 0;
    if (!session_open(&s, cfg, e) && !export_onnx_check(&s, e) &&
        (path = weights_path(weights, e)) && !session_load(&s, path, e))
        r = export_onnx_session(&s, path, e);
    free(path);
    session_free(&s);
    return r;
}
