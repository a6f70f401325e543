/* run/which_net.c -- see which_net.h. */
#include "run/which_net.h"

#include <stdlib.h>

#include "io/layers.h"
#include "run/keys.h"

typedef int ConvShape[4]; /* O, I/groups, kh, kw */

static int convolutions_of_file(const TensorFile *f, ConvShape **out)
{
    Layers l;
    int n = 0;
    layers_of_file(&l, f);
    *out = xcalloc((size_t)l.n + 1, sizeof **out);
    for (int i = 0; i < l.n; i++) {
        if (l.v[i].kind != LAYER_CONV) continue;
        for (int d = 0; d < 4; d++) (*out)[n][d] = f->v[l.v[i].part[LP_WEIGHT]].t.dim[d];
        n++;
    }
    layers_free(&l);
    return n;
}

bool same_convolutions(const TensorFile *f, const ParamStore *ps)
{
    Layers l;
    ConvShape *file;
    const int n = convolutions_of_file(f, &file);
    bool same;
    int k = 0;
    layers_of_store(&l, ps);
    same = l.count[LAYER_CONV] == n;
    for (int i = 0; same && i < l.n; i++) {
        if (l.v[i].kind != LAYER_CONV) continue;
        for (int d = 0; d < 4; d++)
            same = same && file[k][d] == ps->p[l.v[i].part[LP_WEIGHT]]->value.dim[d];
        k++;
    }
    layers_free(&l);
    free(file);
    return same;
}

/* A classifier stored as a 1x1 convolution may follow the net's own. */
static bool fits(const ConvShape *file, int n, const NetDef *net)
{
    NetOpts o = net_usual(net);
    Spec s = {0};
    Err e;
    int *order, k = 0;
    bool same;
    if (n) o.in_c = file[0][1];
    same = net_build(&s, &o, &e) == 0;
    order = same ? xcalloc((size_t)s.n, sizeof *order) : NULL;
    if (same) spec_declaration_order(&s, order);
    for (int i = 0; same && i < s.n; i++) {
        const Unit *u = &s.u[order[i]];
        const ConvAttr *a = &u->u.conv;
        if (u->kind != U_CONV) continue;
        same = k < n && file[k][0] == a->oc && file[k][1] == u->ic / (a->groups ? a->groups : 1) &&
               file[k][2] == a->k && file[k][3] == a->k;
        k++;
    }
    same = same && (k == n || (k == n - 1 && file[k][2] == 1 && file[k][3] == 1));
    free(order);
    spec_free(&s);
    return same;
}

const NetDef *which_net(const TensorFile *f)
{
    ConvShape *file;
    const int n = convolutions_of_file(f, &file);
    const NetDef *found = NULL;
    for (int i = 0; n > 1 && nets[i] && !found; i++)
        if (fits(file, n, nets[i])) found = nets[i];
    free(file);
    return found;
}

void key_place(const Config *cfg, const char *key, Str *out)
{
    const KeyState *st = key_state(cfg, key);
    if (st->origin == ORIGIN_FILE)
        str_printf(out, "%s:%d:%d: error: %s: ", st->file, st->line, st->col, st->typed);
    else if (st->origin == ORIGIN_COMMAND)
        str_printf(out, "command line: error: %s: ", st->typed);
}

int key_blame(const Config *cfg, const char *key, Err *e)
{
    Str text = {0};
    key_place(cfg, key, &text);
    if (e) {
        str_puts(&text, e->msg);
        err_set(e, e->kind, "%s", text.s);
    }
    str_free(&text);
    return -1;
}

int refuse_other_net(const Config *cfg, const char *key, const char *path, const TensorFile *f,
                     const ParamStore *ps, Err *e)
{
    const NetDef *other = same_convolutions(f, ps) ? NULL : which_net(f);
    const NetOpts *o = &cfg->net;
    Str text = {0};
    if (!other) return 0;
    key_place(cfg, key, &text);
    str_printf(&text, "%s holds %s, but the configuration asks for model: %s", path, other->name,
               o->model);
    if (o->depth) str_printf(&text, " with depth: %d", o->depth);
    err_set(e, ERR_DATA, "%s", text.s);
    str_free(&text);
    return -1;
}
