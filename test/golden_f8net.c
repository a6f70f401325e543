/* test/golden_f8net.c -- op `block` in fixed point: the options of a case, the blocks of F8Net's nets
 * between a layer that owns their clip level and one that follows, and who is linked with whom. */
#include "test/golden_f8net.h"

#include <stdio.h>
#include <string.h>

#include "nets/staged.h"
#include "test/golden_trace.h"

bool golden_f8net_opts(Case *c, QOpts *o)
{
    int bits;
    F8Opts *f = &o->f8;
    case_quant_opts(c, o, &bits);
    if (!yaml_path(c->y, "params.format_type")) f->format_type = "per_layer";
    o->wt_bit = o->fm_bit = (int)case_int(c, "params.word_length", 8);
    f->nweight_format = f->ninput_format = 2;
    f->weight_format[0] = o->wt_bit, f->weight_format[1] = o->wt_bit - 1;
    f->input_format[0] = o->fm_bit, f->input_format[1] = o->fm_bit - 2;
    f->image = !case_bool(c, "params.normalize", false);
    f->original = true;
    return !case_done(c);
}

/* ---- links ---- */

/* The unit of a layer of the case; -1: none. */
static int layer_unit(const Spec *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (layer_named(&s->u[i], name)) return i;
    return -1;
}

enum { L_NAME, L_TYPE, L_CIN, L_COUT, L_K, L_STRIDE, L_PAD, L_GROUPS, L_INPUT, L_OWNER, L_NEXT, L_N };

static const Yaml *layer_row(Case *c, int i)
{
    const Yaml *all = yaml_path(c->y, "params.layers");
    if (all && all->kind == Y_LIST && i < all->n && all->v[i]->kind == Y_LIST && all->v[i]->n == L_N)
        return all->v[i];
    return NULL;
}

static int layer_number(const Yaml *row, int column)
{
    long long n = -1;
    return yaml_int(row->v[column], &n) ? (int)n : -1;
}

/* Shape and sign of the unit are those of the row. */
static bool same_layer(const Unit *u, const Yaml *row)
{
    const ConvAttr *a = &u->u.conv;
    const char *input = row->v[L_INPUT]->s;
    if (u->ic != layer_number(row, L_CIN) || u->c != layer_number(row, L_COUT)) return false;
    if (!(u->marks & UM_FIRST) && str_eq(input, "signed") != ((u->marks & UM_SIGNED) != 0))
        return false;
    if (u->kind != U_CONV) return str_eq(row->v[L_TYPE]->s, "fc");
    return a->k == layer_number(row, L_K) && a->stride == layer_number(row, L_STRIDE) &&
           a->pad == layer_number(row, L_PAD) && a->groups == layer_number(row, L_GROUPS);
}

void golden_f8net_links(Case *c, const QPlan *qp)
{
    const Spec *s = qp->spec;
    const Yaml *row;
    int n = 0;
    for (; (row = layer_row(c, n)); n++) {
        const int u = layer_unit(s, row->v[L_NAME]->s), owner = layer_unit(s, row->v[L_OWNER]->s),
                  next = layer_unit(s, row->v[L_NEXT]->s);
        if (u < 0 || !same_layer(&s->u[u], row))
            case_fail(c, "%s is %s", row->v[L_NAME]->s, u < 0 ? "missing" : "another layer here");
        else if (qp->links.clip_owner[u] != owner || qp->links.feeds[u] != next)
            case_fail(c, "%s has the clip level of %s and feeds %s, expected %s and %s",
                      row->v[L_NAME]->s, s->u[qp->links.clip_owner[u]].name,
                      qp->links.feeds[u] < 0 ? "-" : s->u[qp->links.feeds[u]].name,
                      row->v[L_OWNER]->s, row->v[L_NEXT]->s);
    }
    if (!n) case_fail(c, "the case lists no layers");
}

/* ---- blocks ---- */

static const StagedStyle style = {.names = NAMES_F8NET, .joined = true};

static int basic(Spec *s, int x, int expand, int oc, int stride)
{
    (void)expand;
    return staged_residual(s, x, &style, oc, stride, "blk.");
}

static int bottleneck(Spec *s, int x, int expand, int oc, int stride)
{
    (void)expand;
    return staged_bottleneck(s, x, &style, oc, stride, "blk.");
}

static int inverted(Spec *s, int x, int expand, int oc, int stride)
{
    return staged_inverted(s, x, &style, expand, oc, stride, "blk.");
}

static int separable(Spec *s, int x, int expand, int oc, int stride)
{
    (void)expand;
    return staged_separable(s, x, &style, oc, stride, "blk.");
}

/* By the class of the original; whether what follows reads signed numbers. */
static const struct {
    const char *source;
    int (*build)(Spec *s, int x, int expand, int oc, int stride);
    bool linear_end;
} blocks[] = {
    {"BasicBlock", basic, false},
    {"Bottleneck", bottleneck, false},
    {"InvertedResidual", inverted, true},
    {"DepthwiseSeparableConv", separable, false},
};

/* A convolution with its norm that is there for its clip level. */
static int beside(Spec *s, int x, int oc, int k, unsigned marks, const char *name)
{
    const NormAttr norm = {
        .kind = NK_BATCH, .eps = 1e-5f, .momentum = 0.1f, .affine = true, .weight_init = 1};
    x = spec_conv(s, x, (ConvAttr){.oc = oc, .k = k, .pad = k / 2, .stride = 1}, "%s.conv", name);
    spec_mark(s, x, marks);
    return spec_norm(s, x, norm, "%s.bn", name);
}

/* Output channels and kernel of a layer that the case has no row of. */
static bool weight_shape(Case *c, const char *name, int *oc, int *k)
{
    const Yaml *layout = yaml_get(c->y, "state_layout");
    for (int i = 0; layout && i < layout->n; i++) {
        const Yaml *row = layout->v[i];
        long long a, b;
        if (row->n < 2 || !str_starts(row->v[0]->s, name) || !str_ends(row->v[0]->s, ".conv.weight"))
            continue;
        if (row->v[1]->n != 4 || !yaml_int(row->v[1]->v[0], &a) || !yaml_int(row->v[1]->v[3], &b))
            case_fail(c, "no shape of %s", name);
        *oc = (int)a, *k = (int)b;
        return true;
    }
    return false;
}

/* What the rows of the body say of the block. */
static bool block_shape(Case *c, int *expand, int *oc, int *stride)
{
    const Yaml *row;
    *expand = *stride = 1, *oc = 0;
    for (int i = 0; (row = layer_row(c, i)); i++) {
        if (!strstr(row->v[L_NAME]->s, ".body.")) continue;
        if (i == 0 && layer_number(row, L_GROUPS) == 1)
            *expand = layer_number(row, L_COUT) / layer_number(row, L_CIN);
        *stride *= layer_number(row, L_STRIDE);
        *oc = layer_number(row, L_COUT);
    }
    return *oc > 0 && *stride > 0;
}

/* master (where there is one) reads what the block reads, nxt what it makes; both are left out of
 * the run, and end in averages so that the Spec has one output. Without a master the next layer is one
 * that shares nobody's level. */
static bool open_block(Case *c, SpecRun *r, Tensor *xs)
{
    Spec *s = &r->spec;
    int expand, oc, stride, k, x, heads[2], n = 0, wide;
    size_t b = 0;
    while (b < ARRAY_LEN(blocks) && !str_ends(case_str(c, "source", ""), blocks[b].source)) b++;
    if (b == ARRAY_LEN(blocks) || xs->ndim != 4 || !block_shape(c, &expand, &oc, &stride)) {
        case_skip(c, "not a block known to the runner");
        return false;
    }
    x = spec_input(s, xs->dim[1], xs->dim[2], xs->dim[3]);
    if (weight_shape(c, "master", &wide, &k)) heads[n++] = beside(s, x, wide, k, 0, "master");
    r->begin = s->n;
    r->end = blocks[b].build(s, x, expand, oc, stride);
    for (int i = r->begin; i <= r->end && !n; i++)
        if (s->u[i].marks & UM_SKIP) spec_mark(s, i, UM_OWN_CLIP);
    if (!weight_shape(c, "nxt", &wide, &k)) {
        case_fail(c, "the case has no next layer");
        return false;
    }
    heads[n] = beside(s, r->end, wide, k,
                      (n ? 0 : UM_OWN_CLIP) | (blocks[b].linear_end ? UM_SIGNED : 0), "nxt");
    for (int i = 0; i <= n; i++) heads[i] = spec_pool(s, heads[i], (PoolAttr){.kind = POOL_GLOBAL_AVG});
    return specrun_open(c, r, n ? spec_concat(s, heads, 2) : heads[0], xs) && state_set(c, &r->ps);
}

void golden_f8net_block(Case *c)
{
    SpecRun r = {.train = str_eq(case_str(c, "params.mode", ""), "train")};
    const Yaml *after = yaml_path(c->y, "outputs.state_after");
    Tensor x, y, up;
    if (!golden_f8net_opts(c, &r.o) || !case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "outputs.y"), "y", &y) ||
        !case_array(c, yaml_path(c->y, "upstream.y"), "upstream", &up))
        return;
    if (open_block(c, &r, &x)) {
        golden_f8net_links(c, &r.qp);
        specrun_pass(c, &r, 0, "y", up.data, y.data, tensor_len(&y));
        if (!c->failed) specrun_check_dx(c, &r);
        state_check_grads(c, &r.ps, "param_layout", yaml_path(c->y, "grads.params"));
        if (after) state_check(c, &r.ps, "state_layout", after);
    }
    specrun_close(&r);
}
