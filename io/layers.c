/* io/layers.c -- see layers.h. F8Net pairs its own net with pytorchcv's and NVIDIA's in this way
 * (snap-research/F8Net, fix_train.py), convolution by convolution. */
#include "io/layers.h"

#include <stdlib.h>
#include <string.h>

static const char *const part_name[LAYER_NPARTS] = {"weight", "bias", "running_mean",
                                                    "running_var"};
static const char *const kind_name[LAYER_NKINDS][2] = {
    {"convolution", "convolutions"}, {"norm", "norms"}, {"linear layer", "linear layers"}};

/* A file or a store, seen alike. */
typedef struct Entry {
    const char *name;
    const Tensor *t;
} Entry;

static Entry *entries_of_file(const TensorFile *f)
{
    Entry *x = xcalloc((size_t)f->n + 1, sizeof *x);
    for (int i = 0; i < f->n; i++) x[i] = (Entry){f->v[i].name, &f->v[i].t};
    return x;
}

static Entry *entries_of_store(const ParamStore *ps)
{
    Entry *x = xcalloc((size_t)ps->n + 1, sizeof *x);
    for (int i = 0; i < ps->n; i++) x[i] = (Entry){ps->p[i]->name, &ps->p[i]->value};
    return x;
}

static const char *ending(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Which part of a layer a tensor is by its name, or -1. Quantizers keep theirs below "..._quant".
 */
static int part_of(const char *name)
{
    if (strstr(name, "_quant.")) return -1;
    for (int i = 0; i < LAYER_NPARTS; i++)
        if (str_eq(ending(name), part_name[i])) return i;
    return -1;
}

/* ---- finding layers ---- */

static bool starts_layer(const Layers *l, const char *name, int prefix)
{
    const Layer *last = l->n ? &l->v[l->n - 1] : NULL;
    return !last || last->prefix != prefix || strncmp(last->name, name, (size_t)prefix) != 0;
}

static LayerKind kind_of(const Layer *l, const Entry *x)
{
    const int w = l->part[LP_WEIGHT];
    const int ndim = w < 0 ? 1 : x[w].t->ndim;
    return ndim == 4 ? LAYER_CONV : ndim == 2 ? LAYER_LINEAR : LAYER_NORM;
}

static bool is_layer(const Layer *l, LayerKind kind)
{
    return kind == LAYER_NORM ? l->part[LP_MEAN] >= 0 : l->part[LP_WEIGHT] >= 0;
}

static void find_layers(Layers *l, const Entry *x, int n)
{
    int kept = 0;
    *l = (Layers){.v = xcalloc((size_t)n + 1, sizeof *l->v)};
    for (int i = 0; i < n; i++) {
        const int part = part_of(x[i].name), prefix = (int)(ending(x[i].name) - x[i].name);
        Layer *last;
        if (part < 0) continue;
        if (starts_layer(l, x[i].name, prefix))
            l->v[l->n++] = (Layer){.name = x[i].name, .prefix = prefix, .part = {-1, -1, -1, -1}};
        last = &l->v[l->n - 1];
        last->part[part] = i;
    }
    for (int i = 0; i < l->n; i++) {
        Layer *at = &l->v[i];
        at->kind = kind_of(at, x);
        if (!is_layer(at, at->kind)) continue;
        l->count[at->kind]++;
        l->v[kept++] = *at;
    }
    l->n = kept;
}

void layers_of_file(Layers *l, const TensorFile *f)
{
    Entry *x = entries_of_file(f);
    find_layers(l, x, f->n);
    free(x);
}

void layers_of_store(Layers *l, const ParamStore *ps)
{
    Entry *x = entries_of_store(ps);
    find_layers(l, x, ps->n);
    free(x);
}

void layers_free(Layers *l)
{
    free(l->v);
    *l = (Layers){0};
}

const Layer *layers_at(const Layers *l, LayerKind kind, int k)
{
    for (int i = 0; i < l->n; i++)
        if (l->v[i].kind == kind && k-- == 0) return &l->v[i];
    return NULL;
}

void layers_text(const Layers *l, Str *out)
{
    for (int k = 0; k < LAYER_NKINDS; k++)
        str_printf(out, "%s%d %s", k ? ", " : "", l->count[k], kind_name[k][l->count[k] != 1]);
}

/* ---- pairing ---- */

typedef struct Pairs {
    TensorFile *f;
    const ParamStore *ps;
    Layers file, net;
    int *to; /* by tensor of the file: index of the parameter, -1: left out */
    Str *text;
} Pairs;

/* The last convolution of the file is the net's last linear layer, with a 1x1 kernel. */
static void squeeze_classifier(Pairs *p)
{
    Layer *last = NULL;
    Tensor *t;
    if (p->file.count[LAYER_CONV] != p->net.count[LAYER_CONV] + 1 ||
        p->file.count[LAYER_LINEAR] != p->net.count[LAYER_LINEAR] - 1)
        return;
    for (int i = 0; i < p->file.n; i++)
        if (p->file.v[i].kind == LAYER_CONV) last = &p->file.v[i];
    t = &p->f->v[last->part[LP_WEIGHT]].t;
    if (t->dim[2] != 1 || t->dim[3] != 1) return;
    *t = tensor_make(t->dtype, 2, t->dim, t->data);
    last->kind = LAYER_LINEAR;
    p->file.count[LAYER_CONV]--;
    p->file.count[LAYER_LINEAR]++;
}

static int counts_differ(const Pairs *p, Err *e)
{
    Str here = {0}, there = {0};
    layers_text(&p->file, &there);
    layers_text(&p->net, &here);
    err_set(e, ERR_DATA, "it has %s; the net has %s", there.s, here.s);
    str_free(&here);
    str_free(&there);
    return -1;
}

static int pair_part(Pairs *p, const Layer *from, const Layer *to, int part, int number, Err *e)
{
    const int i = from->part[part], k = to->part[part];
    char there[80], here[80];
    const Tensor *t, *want;
    if (i < 0 && k < 0) return 0;
    if (i < 0)
        return err_set(e, ERR_DATA,
                       "%.*s%s of the net has no counterpart: %s %d of the file, %.*s, has no %s",
                       to->prefix, to->name, part_name[part], kind_name[from->kind][0], number,
                       from->prefix - (from->prefix > 0), from->name, part_name[part]);
    if (k < 0)
        return err_set(e, ERR_DATA, "%s: %s %d of the net, %.*s, has no %s", p->f->v[i].name,
                       kind_name[to->kind][0], number, to->prefix - (to->prefix > 0), to->name,
                       part_name[part]);
    t = &p->f->v[i].t;
    want = &p->ps->p[k]->value;
    if (!tensor_same_shape(t, want))
        return err_set(e, ERR_DATA, "%s %d: %s is %s in the file, %s is %s in the net",
                       kind_name[to->kind][0], number, p->f->v[i].name, tensor_shape_text(t, there),
                       p->ps->p[k]->name, tensor_shape_text(want, here));
    p->to[i] = k;
    return 0;
}

static int pair_layers(Pairs *p, Err *e)
{
    for (int kind = 0; kind < LAYER_NKINDS; kind++) {
        if (p->file.count[kind] != p->net.count[kind]) return counts_differ(p, e);
        for (int k = 0; k < p->net.count[kind]; k++) {
            const Layer *from = layers_at(&p->file, (LayerKind)kind, k),
                        *to = layers_at(&p->net, (LayerKind)kind, k);
            for (int part = 0; part < LAYER_NPARTS; part++)
                if (pair_part(p, from, to, part, k + 1, e)) return -1;
        }
    }
    return 0;
}

/* The next entry at or behind `i` that ends as `like` does and is no part of a layer, or -1. */
static int next_other(const Entry *x, int n, int i, const char *like)
{
    for (; i < n; i++)
        if (str_eq(ending(x[i].name), ending(like)) && part_of(x[i].name) < 0) return i;
    return -1;
}

/* Counters and quantizers' tensors with the ending of the file's entry `first`, when there are as
 * many in the net, each of the same shape. */
static void pair_others(Pairs *p, const Entry *file, const Entry *net, int first)
{
    const char *like = file[first].name;
    int i = first, k = next_other(net, p->ps->n, 0, like);
    while (i >= 0 && k >= 0 && tensor_len(file[i].t) == tensor_len(net[k].t)) {
        i = next_other(file, p->f->n, i + 1, like);
        k = next_other(net, p->ps->n, k + 1, like);
    }
    if (i >= 0 || k >= 0) return;
    i = first, k = next_other(net, p->ps->n, 0, like);
    while (i >= 0) {
        p->to[i] = k;
        i = next_other(file, p->f->n, i + 1, like);
        k = next_other(net, p->ps->n, k + 1, like);
    }
}

static void pair_rest(Pairs *p)
{
    Entry *file = entries_of_file(p->f), *net = entries_of_store(p->ps);
    for (int i = 0; i < p->f->n; i++) {
        bool seen = part_of(file[i].name) >= 0;
        for (int j = 0; j < i && !seen; j++) seen = next_other(file, j + 1, j, file[i].name) == j;
        if (!seen) pair_others(p, file, net, i);
    }
    free(file);
    free(net);
}

static void rename_tensors(Pairs *p)
{
    TensorFile *f = p->f;
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        char shape[80];
        if (p->to[i] < 0) continue;
        if (p->text)
            str_printf(p->text, "%s\t%s\t%s\n", p->ps->p[p->to[i]]->name, f->v[i].name,
                       tensor_shape_text(&f->v[i].t, shape));
        f->v[n] = f->v[i];
        f->v[n++].name = p->ps->p[p->to[i]]->name;
    }
    f->n = n;
}

int layers_rename(TensorFile *f, const ParamStore *ps, bool all, Str *pairs, Err *e)
{
    Pairs p = {.f = f, .ps = ps, .text = pairs};
    int r;
    layers_of_file(&p.file, f);
    layers_of_store(&p.net, ps);
    p.to = xmalloc(((size_t)f->n + 1) * sizeof *p.to);
    for (int i = 0; i < f->n; i++) p.to[i] = -1;
    squeeze_classifier(&p);
    r = pair_layers(&p, e);
    if (!r && all) pair_rest(&p);
    if (!r) rename_tensors(&p);
    layers_free(&p.file);
    layers_free(&p.net);
    free(p.to);
    return r;
}
