/* run/probe.c -- see probe.h. */
#include "run/probe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bf16.h"
#include "io/npy.h"
#include "run/integer.h"
#include "run/log.h"
#include "run/which_net.h"

/* The tensors that every layer has. */
static const char *const items[LT_COUNT] = {
    [LT_INPUT] = "before-quant", [LT_QUANTIZED] = "after-quant",
    [LT_WEIGHT] = "weight",      [LT_QUANTIZED_WEIGHT] = "weight-quant",
    [LT_OUTPUT] = "output",
};

/* One tensor of one layer at one width. */
typedef struct ProbeFile {
    int index, unit, width; /* width: which of the session's */
    int which;              /* LayerTensor; LT_COUNT: `param` */
    const Param *param;     /* of the quantizer of its input */
    const char *item;
    char *name; /* of the file */
    NpyRows rows;
    Tensor shape;
    bool there;
} ProbeFile;

struct Probe {
    const Session *s;
    char *dir;
    int width; /* evaluated now */
    int left;  /* batches */
    ModelWatch watch;
    unsigned *want;
    ProbeFile *file;
    int nfiles;
    size_t cap;
    float *buf; /* a tensor as it is written */
    size_t len;
    Err fault; /* the first one of writing */
    bool failed;
};

static bool wanted(const Session *s)
{
    return s->cfg->run.nprobe_list > 0;
}

/* ---- what is asked for ---- */

static int item_find(const char *name)
{
    for (int k = 0; k < LT_COUNT; k++)
        if (str_eq(items[k], name)) return k;
    return LT_COUNT;
}

/* What the quantizer calls this parameter, where it is one of its own or shared with it: clip_val of
 * "layer1.0.conv1.quant_activation.clip_val"; else NULL. */
static const char *held_as(const QInst *q, const Param *p)
{
    const char *dot = strrchr(p->name, '.');
    bool held = qinst_owns(q, p);
    for (int i = 0; i < q->np; i++) held = held || q->p[i] == p;
    return !held ? NULL : dot ? dot + 1 : p->name;
}

static const QInst *input_quantizer(const Session *s, int unit, int width)
{
    return qplan_get(model_qplan(s->model), unit, Q_ACT, s->width[width]);
}

static const Param *quantizer_param(const Session *s, int unit, int width, const char *name)
{
    const QInst *q = input_quantizer(s, unit, width);
    const ParamStore *ps = model_store(s->model);
    for (int i = 0; q && i < ps->n; i++) {
        const char *held = held_as(q, ps->p[i]);
        if (held && str_eq(held, name)) return ps->p[i];
    }
    return NULL;
}

static bool quantized(const Session *s, int unit)
{
    for (int k = 0; k < s->nwidths; k++)
        if (input_quantizer(s, unit, k) ||
            qplan_get(model_qplan(s->model), unit, Q_WEIGHT, s->width[k]))
            return true;
    return false;
}

/* The layers of a net by their numbers, and which of them are asked for. */
typedef struct Layers {
    int *unit, n;
    bool *chosen;
    int nchosen;
} Layers;

static void layers_find(Layers *l, const Session *s)
{
    const RunOpts *o = &s->cfg->run;
    const QPlan *qp = model_qplan(s->model);
    *l = (Layers){.unit = xcalloc((size_t)qp->spec->n, sizeof *l->unit),
                  .chosen = xcalloc((size_t)qp->spec->n, sizeof *l->chosen)};
    l->n = policy_layers(qp, l->unit);
    for (int i = 0; i < l->n; i++) {
        l->chosen[i] = !o->nprobe_index && quantized(s, l->unit[i]);
        for (int k = 0; k < o->nprobe_index; k++) l->chosen[i] |= o->probe_index[k] == i;
        l->nchosen += l->chosen[i];
    }
}

static void layers_free(Layers *l)
{
    free(l->unit);
    free(l->chosen);
}

static void put_range(const Session *s, const Layers *l, Str *out)
{
    const Unit *u = model_spec(s->model)->u;
    str_printf(out, "0 (%s) to %d (%s)", u[l->unit[0]].name, l->n - 1, u[l->unit[l->n - 1]].name);
}

static int check_layers(const Session *s, const Layers *l, Err *e)
{
    const RunOpts *o = &s->cfg->run;
    Str range = {0};
    int r = 0;
    if (!l->n) {
        err_set(e, ERR_CONFIG, "the net has no layer that can be quantized");
        return key_blame(s->cfg, "probe_list", e);
    }
    put_range(s, l, &range);
    for (int k = 0; k < o->nprobe_index && !r; k++) {
        if (o->probe_index[k] < l->n) continue;
        err_set(e, ERR_CONFIG, "there is no layer %d; expected %s", o->probe_index[k], range.s);
        r = key_blame(s->cfg, "probe_index", e);
    }
    if (!r && !l->nchosen) {
        err_set(e, ERR_CONFIG,
                "no layer is quantized; expected probe_index too, numbers of layers from %s",
                range.s);
        r = key_blame(s->cfg, "probe_list", e);
    }
    str_free(&range);
    return r;
}

enum { MAX_NAMES = 64 };

/* What may be asked for: the items, then what quantizers of the chosen layers hold. */
static size_t allowed_names(const Session *s, const Layers *l, const char *names[MAX_NAMES])
{
    const ParamStore *ps = model_store(s->model);
    size_t n = 0;
    for (; n < LT_COUNT; n++) names[n] = items[n];
    for (int i = 0; i < l->n * s->nwidths; i++) {
        const QInst *q = input_quantizer(s, l->unit[i / s->nwidths], i % s->nwidths);
        for (int j = 0; q && l->chosen[i / s->nwidths] && j < ps->n; j++) {
            const char *held = held_as(q, ps->p[j]);
            size_t k = 0;
            while (held && k < n && !str_eq(names[k], held)) k++;
            if (held && k == n && n < MAX_NAMES) names[n++] = held;
        }
    }
    return n;
}

static int check_items(const Session *s, const Layers *l, Err *e)
{
    const RunOpts *o = &s->cfg->run;
    const char *names[MAX_NAMES];
    const size_t n = allowed_names(s, l, names);
    for (int i = 0; i < o->nprobe_list; i++) {
        const char *near = str_nearest(o->probe_list[i], names, n);
        Str text = {0};
        bool known = false;
        for (size_t k = 0; k < n; k++) known = known || str_eq(names[k], o->probe_list[i]);
        if (known) continue;
        for (size_t k = 0; k < n; k++) str_printf(&text, "%s%s", k ? ", " : "", names[k]);
        err_set(e, ERR_CONFIG, "no tensor '%s'; expected %s%s%s%s", o->probe_list[i], text.s,
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        str_free(&text);
        return key_blame(s->cfg, "probe_list", e);
    }
    return 0;
}

int probe_check(const Session *s, Err *e)
{
    const IntStage *stage = int_stage(&s->cfg->run);
    Layers l;
    int r;
    if (!wanted(s)) return 0;
    if (stage) {
        err_set(e, ERR_CONFIG,
                "with %s another net is evaluated, of whole numbers; expected it without %s",
                stage->name, stage->name);
        return key_blame(s->cfg, "probe_list", e);
    }
    layers_find(&l, s);
    r = check_layers(s, &l, e) || check_items(s, &l, e) ? -1 : 0;
    layers_free(&l);
    return r;
}

/* ---- the files ---- */

static void add_file(Probe *p, int index, int unit, int width, const char *item)
{
    const Session *s = p->s;
    const int which = item_find(item);
    const Param *param = which == LT_COUNT ? quantizer_param(s, unit, width, item) : NULL;
    char text[16], *name;
    if (which == LT_COUNT && !param) return; /* another layer has it */
    for (int i = 0; i < p->nfiles; i++) {
        const ProbeFile *f = &p->file[i];
        if (f->index == index && f->width == width && str_eq(f->item, item))
            return; /* asked for twice */
    }
    name = xasprintf("%d-%s-%s.npy", index, model_spec(s->model)->u[unit].name, item);
    mem_grow(&p->file, &p->cap, (size_t)p->nfiles + 1, sizeof *p->file);
    p->file[p->nfiles++] = (ProbeFile){
        .index = index,
        .unit = unit,
        .width = width,
        .which = which,
        .param = param,
        .item = item,
        .name = path_of_width(name, s->nwidths > 1 ? session_width_text(s, width, text) : "")};
    if (!param) p->want[unit] |= 1u << which;
    free(name);
}

static float *room(Probe *p, size_t len)
{
    if (p->len < len) {
        free(p->buf);
        p->buf = xaligned(len * sizeof *p->buf);
        p->len = len;
    }
    return p->buf;
}

/* Its numbers as floats in the order of its dimensions: in p->buf, or where they stand. */
static const void *plain(Probe *p, const Tensor *t)
{
    const size_t len = tensor_len(t);
    const float *x = t->data;
    float *to;
    if (t->dtype == DT_F32 && t->layout == LY_ROW) return x;
    to = room(p, 2 * len);
    if (t->dtype == DT_BF16) {
        bf16_copy(t->data, DT_BF16, to + len, DT_F32, len);
        x = to + len;
    }
    if (t->layout == LY_ROW) return x;
    nhwc_to_nchw(x, to, t->dim[0], t->dim[1], t->dim[2], t->dim[3]);
    return to;
}

/* Rows of a map, behind those that are there; or a whole tensor. */
static int put(Probe *p, ProbeFile *f, const Tensor *t, bool map, Err *e)
{
    char *path = fs_join(p->dir, f->name);
    int r = 0;
    if (!map) {
        Tensor whole = *t;
        whole.layout = LY_ROW;
        r = npy_write(path, &whole, e);
        f->shape = whole;
    } else {
        if (!f->there) r = npy_open(&f->rows, path, DT_F32, t->ndim - 1, t->dim + 1, e);
        if (!r) {
            npy_rows(&f->rows, plain(p, t), t->dim[0]);
            f->shape = f->rows.shape;
        }
    }
    f->there = f->there || !r;
    free(path);
    return r;
}

static void see(void *arg, int unit, LayerTensor which, const Tensor *t)
{
    Probe *p = arg;
    const bool map = layer_tensor_is_map(which);
    for (int i = 0; i < p->nfiles && !p->failed; i++) {
        ProbeFile *f = &p->file[i];
        if (f->unit != unit || f->which != (int)which || f->width != p->width) continue;
        if (map || !f->there) p->failed = put(p, f, t, map, &p->fault) != 0;
    }
}

static void list_files(Probe *p)
{
    const RunOpts *o = &p->s->cfg->run;
    Layers l;
    layers_find(&l, p->s);
    for (int i = 0; i < l.n; i++)
        for (int k = 0; k < p->s->nwidths && l.chosen[i]; k++)
            for (int j = 0; j < o->nprobe_list; j++) add_file(p, i, l.unit[i], k, o->probe_list[j]);
    layers_free(&l);
}

int probe_begin(Session *s, const char *folder, Err *e)
{
    const char *dump = s->cfg->run.dump_dir;
    Probe *p;
    if (!wanted(s)) return 0;
    s->probe = p = xcalloc(1, sizeof *p);
    p->s = s;
    p->dir = *dump ? xstrdup(dump) : fs_join(folder, "probe");
    p->left = s->cfg->run.probe_iteration;
    p->want = xcalloc((size_t)model_spec(s->model)->n, sizeof *p->want);
    p->watch = (ModelWatch){p->want, see, p};
    list_files(p);
    if (fs_mkdirs(p->dir, e)) return *dump ? key_blame(s->cfg, "dump_dir", e) : -1;
    model_watch(s->model, &p->watch);
    return 0;
}

void probe_width(Probe *p, int k)
{
    p->width = k;
}

int probe_batch(Probe *p, Err *e)
{
    if (p->left > 0 && --p->left == 0) model_watch(p->s->model, NULL);
    if (p->failed) *e = p->fault;
    return p->failed ? -1 : 0;
}

/* ---- probe.json ---- */

/* The quantizer whose output this tensor is, or NULL. */
static const QInst *quantizer_of(const Probe *p, const ProbeFile *f)
{
    const QPlan *qp = model_qplan(p->s->model);
    const int variant = p->s->width[f->width];
    if (f->which == LT_QUANTIZED_WEIGHT) return qplan_get(qp, f->unit, Q_WEIGHT, variant);
    return f->which == LT_QUANTIZED || f->param ? qplan_get(qp, f->unit, Q_ACT, variant) : NULL;
}

static void describe(const Probe *p, const ProbeFile *f, Str *out)
{
    const QInst *q = quantizer_of(p, f);
    json_t *o = json_object(), *shape = json_array();
    char width[16], *text;
    for (int i = 0; i < f->shape.ndim; i++)
        json_array_append_new(shape, json_integer(f->shape.dim[i]));
    json_object_set_new(o, "file", json_string(f->name));
    json_object_set_new(o, "index", json_integer(f->index));
    json_object_set_new(o, "layer", json_string(model_spec(p->s->model)->u[f->unit].name));
    json_object_set_new(o, "item", json_string(f->item));
    if (p->s->nwidths > 1)
        json_object_set_new(o, "width", json_string(session_width_text(p->s, f->width, width)));
    json_object_set_new(o, "shape", shape);
    json_object_set_new(o, "method", json_string(q ? q->method->name : "none"));
    json_object_set_new(o, "bits", json_integer(q ? q->bits : 32));
    text = json_dumps(o, JSON_PRESERVE_ORDER);
    str_printf(out, "%s%s", out->len ? ",\n " : "[", text);
    free(text);
    json_decref(o);
}

static int write_index(const Probe *p, Err *e)
{
    char *path = fs_join(p->dir, "probe.json");
    Str s = {0};
    int r;
    for (int i = 0; i < p->nfiles; i++)
        if (p->file[i].there) describe(p, &p->file[i], &s);
    str_puts(&s, s.len ? "]\n" : "[]\n");
    r = fs_write(path, s.s, s.len, e);
    str_free(&s);
    free(path);
    return r;
}

static int put_params(Probe *p, Err *e)
{
    for (int i = 0; i < p->nfiles; i++) {
        ProbeFile *f = &p->file[i];
        if (f->param && put(p, f, &f->param->value, false, e)) return -1;
    }
    return 0;
}

static int finish(Probe *p, Err *e)
{
    if (put_params(p, e)) return -1;
    for (int i = 0; i < p->nfiles; i++)
        if (p->file[i].rows.open && npy_close(&p->file[i].rows, e)) return -1;
    if (write_index(p, e)) return -1;
    log_msg(LOG_INFO, "%s: tensors of layers, listed in probe.json", p->dir);
    return 0;
}

int probe_end(Session *s, Err *e)
{
    const int r = s->probe ? finish(s->probe, e) : 0;
    probe_abandon(s);
    return r;
}

void probe_abandon(Session *s)
{
    Probe *p = s->probe;
    if (!p) return;
    model_watch(s->model, NULL);
    for (int i = 0; i < p->nfiles; i++) {
        npy_abandon(&p->file[i].rows);
        free(p->file[i].name);
    }
    free(p->file);
    free(p->buf);
    free(p->want);
    free(p->dir);
    free(p);
    s->probe = NULL;
}
