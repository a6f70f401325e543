/* run/export_key.c -- see export_key.h. */
#include "run/export_key.h"

#include <stdlib.h>

#include "io/fs.h"
#include "run/export.h"
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
    Str place = {0};
    int r;
    if (!wanted(s->cfg)) return 0;
    r = fs_check_writable(s->cfg->run.export_onnx, e) ||
        export_float_check(model_qplan(s->model), variant(s), e);
    if (!r) return 0;
    key_place(s->cfg, "export_onnx", &place);
    if (e) {
        str_puts(&place, e->msg);
        err_set(e, ERR_CONFIG, "%s", place.s);
    }
    str_free(&place);
    return -1;
}

int export_onnx_session(const Session *s, const char *weights, Err *e)
{
    const ExportOpts o = {
        .net = s->cfg->net.model, .weights = weights, .input = &s->input, .variant = variant(s)};
    if (!wanted(s->cfg)) return 0;
    if (export_float(model_qplan(s->model), &o, s->cfg->run.export_onnx, e)) return -1;
    log_msg(LOG_INFO, "%s: the net as an ONNX graph, float, opset %d", s->cfg->run.export_onnx,
            ONNX_OPSET);
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
