/* engine/spec.c -- see spec.h: adding units with their shapes, the analyses, printing. */
#include "engine/spec.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[U_NKINDS] = {
    [U_INPUT] = "input",
    [U_CONV] = "conv",
    [U_LINEAR] = "linear",
    [U_NORM] = "norm",
    [U_ACT] = "act",
    [U_POOL] = "pool",
    [U_ADD] = "add",
    [U_CONCAT] = "concat",
    [U_SCALE] = "scale",
    [U_SHIFT] = "shift",
    [U_PAD] = "pad",
    [U_FLATTEN] = "flatten",
    [U_DROPOUT] = "dropout",
    [U_SPACE_TO_DEPTH] = "space_to_depth",
    [U_DEPTH_TO_SPACE] = "depth_to_space",
};

const char *unit_kind_name(UnitKind k)
{
    ASSERT((unsigned)k < U_NKINDS, "unit kind %d", (int)k);
    return kind_names[k];
}

/* Records the first fault only: what follows it is mostly its consequence. */
static void fault(Spec *s, const Unit *u, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void fault(Spec *s, const Unit *u, const char *fmt, ...)
{
    char text[256];
    if (s->err.kind != ERR_NONE) return;
    FORMAT_NAME(text, fmt);
    err_set(&s->err, ERR_CONFIG, "net: %s%s%s (unit %d): %s", unit_kind_name(u->kind),
            *u->name ? " " : "", u->name, (int)(u - s->u), text);
}

/* Appends a unit reading x[0..nx-1]; its shape is that of x[0] until the caller sets another. The
 * pointer is good until the next unit is added. */
static Unit *add(Spec *s, UnitKind kind, const int *x, int nx, const char *name)
{
    Unit *u;
    ASSERT(nx <= UNIT_MAX_IN, "%s: %d inputs", unit_kind_name(kind), nx);
    for (int i = 0; i < nx; i++)
        ASSERT(x[i] >= 0 && x[i] < s->n, "%s %s: reads unit %d of %d", unit_kind_name(kind), name,
               x[i], s->n);
    mem_grow(&s->u, &s->cap, (size_t)s->n + 1, sizeof *s->u);
    u = &s->u[s->n];
    memset(u, 0, sizeof *u);
    u->kind = kind;
    u->name = arena_strdup(&s->arena, name);
    u->nin = nx;
    u->order = (float)s->n;
    u->reader = u->norm = -1;
    s->n++;
    for (int i = 0; i < nx; i++) u->in[i] = x[i];
    if (nx) {
        const Unit *src = &s->u[x[0]];
        u->c = u->ic = src->c;
        u->h = u->ih = src->h;
        u->w = u->iw = src->w;
    }
    return u;
}

/* Sets the output shape, or 1 x 1 x 1 and a fault if it is impossible. Returns the unit's index. */
static int shape(Spec *s, Unit *u, int64_t c, int64_t h, int64_t w)
{
    bool ok = c >= 1 && h >= 1 && w >= 1;
    if (!ok)
        fault(s, u, "output of %lld x %lld x %lld from an input of %d x %d x %d", (long long)c,
              (long long)h, (long long)w, u->ic, u->ih, u->iw);
    else if (c > INT_MAX / h / w) {
        fault(s, u, "output of %lld x %lld x %lld is too large", (long long)c, (long long)h,
              (long long)w);
        ok = false;
    }
    u->c = ok ? (int)c : 1;
    u->h = ok ? (int)h : 1;
    u->w = ok ? (int)w : 1;
    return (int)(u - s->u);
}

#define NAME_MAX_LEN 256

int spec_input(Spec *s, int c, int h, int w)
{
    Unit *u = add(s, U_INPUT, NULL, 0, "");
    u->ic = c;
    u->ih = h;
    u->iw = w;
    return shape(s, u, c, h, w);
}

int spec_conv(Spec *s, int x, ConvAttr a, const char *fmt, ...)
{
    char name[NAME_MAX_LEN];
    Unit *u;
    int64_t extent, oh, ow;
    FORMAT_NAME(name, fmt);
    u = add(s, U_CONV, &x, 1, name);
    if (!a.stride) a.stride = 1;
    if (!a.dilation) a.dilation = 1;
    if (!a.groups) a.groups = 1;
    u->u.conv = a;
    if (a.oc < 1 || a.k < 1 || a.stride < 1 || a.pad < 0 || a.dilation < 1 || a.groups < 1) {
        fault(s, u, "oc %d, kernel %d, stride %d, padding %d, dilation %d, groups %d", a.oc, a.k,
              a.stride, a.pad, a.dilation, a.groups);
        u->u.conv = (ConvAttr){.oc = 1, .k = 1, .stride = 1, .dilation = 1, .groups = 1};
        return shape(s, u, 1, u->ih, u->iw);
    }
    if (u->ic % a.groups || a.oc % a.groups) {
        fault(s, u, "%d groups do not divide %d input and %d output channels", a.groups, u->ic,
              a.oc);
        u->u.conv.groups = 1;
    }
    if ((int64_t)a.oc * (u->ic / u->u.conv.groups) > INT_MAX / a.k / a.k)
        fault(s, u, "a weight of %d x %d x %d x %d is too large", a.oc, u->ic, a.k, a.k);
    extent = (int64_t)a.dilation * (a.k - 1) + 1;
    oh = u->ih + 2 * (int64_t)a.pad - extent;
    ow = u->iw + 2 * (int64_t)a.pad - extent;
    return shape(s, u, a.oc, oh < 0 ? 0 : oh / a.stride + 1, ow < 0 ? 0 : ow / a.stride + 1);
}

int spec_linear(Spec *s, int x, LinearAttr a, const char *fmt, ...)
{
    char name[NAME_MAX_LEN];
    Unit *u;
    FORMAT_NAME(name, fmt);
    u = add(s, U_LINEAR, &x, 1, name);
    u->u.linear = a;
    if (u->ih != 1 || u->iw != 1)
        fault(s, u, "reads %d x %d x %d; flatten it first", u->ic, u->ih, u->iw);
    else if (a.out > 0 && u->ic > INT_MAX / a.out)
        fault(s, u, "a weight of %d x %d is too large", a.out, u->ic);
    return shape(s, u, a.out, 1, 1);
}

int spec_norm(Spec *s, int x, NormAttr a, const char *fmt, ...)
{
    char name[NAME_MAX_LEN];
    Unit *u;
    FORMAT_NAME(name, fmt);
    u = add(s, U_NORM, &x, 1, name);
    u->u.norm = a;
    if (!(a.eps >= 0) || !(a.momentum >= 0 && a.momentum <= 1))
        fault(s, u, "eps %g, momentum %g", (double)a.eps, (double)a.momentum);
    if (a.kind == NK_GROUP && (a.groups < 1 || u->ic % a.groups))
        fault(s, u, "%d groups do not divide %d channels", a.groups, u->ic);
    return s->n - 1;
}

int spec_act(Spec *s, int x, ActAttr a, const char *fmt, ...)
{
    char name[NAME_MAX_LEN];
    Unit *u;
    FORMAT_NAME(name, fmt);
    u = add(s, U_ACT, &x, 1, name);
    u->u.act = a;
    return s->n - 1;
}

/* PyTorch's rule: in ceil mode the last window must start inside the input or its left padding. */
static int64_t pool_out(const PoolAttr *a, int in)
{
    int64_t span = in + 2 * (int64_t)a->pad - a->k, out;
    if (span < 0) return 0;
    out = (span + (a->ceil_mode ? a->stride - 1 : 0)) / a->stride + 1;
    if (a->ceil_mode && (out - 1) * a->stride >= in + (int64_t)a->pad) out--;
    return out;
}

int spec_pool(Spec *s, int x, PoolAttr a)
{
    Unit *u = add(s, U_POOL, &x, 1, "");
    if (!a.stride) a.stride = a.k;
    u->u.pool = a;
    if (a.kind == POOL_GLOBAL_AVG) return shape(s, u, u->ic, 1, 1);
    if (a.k < 1 || a.stride < 1 || a.pad < 0 || a.pad > a.k / 2) {
        fault(s, u, "kernel %d, stride %d, padding %d; padding is at most half the kernel", a.k,
              a.stride, a.pad);
        u->u.pool = (PoolAttr){.kind = a.kind, .k = 1, .stride = 1};
        return s->n - 1;
    }
    return shape(s, u, u->ic, pool_out(&a, u->ih), pool_out(&a, u->iw));
}

int spec_add(Spec *s, int a, int b)
{
    Unit *u = add(s, U_ADD, (const int[]){a, b}, 2, "");
    const Unit *y = &s->u[b];
    if (u->c != y->c || u->h != y->h || u->w != y->w)
        fault(s, u, "unit %d is %d x %d x %d, unit %d is %d x %d x %d", a, u->c, u->h, u->w, b,
              y->c, y->h, y->w);
    return s->n - 1;
}

int spec_concat(Spec *s, const int *x, int n)
{
    Unit *u;
    int64_t c = 0;
    ASSERT(n >= 1, "concat of %d units", n);
    u = add(s, U_CONCAT, x, n, "");
    for (int i = 0; i < n; i++) {
        const Unit *y = &s->u[x[i]];
        if (y->h != u->h || y->w != u->w)
            fault(s, u, "unit %d has a map of %d x %d, unit %d of %d x %d", x[0], u->h, u->w, x[i],
                  y->h, y->w);
        c += y->c;
    }
    return shape(s, u, c, u->h, u->w);
}

int spec_scale(Spec *s, int x, float init, const char *fmt, ...)
{
    char name[NAME_MAX_LEN];
    FORMAT_NAME(name, fmt);
    add(s, U_SCALE, &x, 1, name)->u.init = init;
    return s->n - 1;
}

int spec_shift(Spec *s, int x, float init, const char *fmt, ...)
{
    char name[NAME_MAX_LEN];
    FORMAT_NAME(name, fmt);
    add(s, U_SHIFT, &x, 1, name)->u.init = init;
    return s->n - 1;
}

int spec_pad(Spec *s, int x, int top, int bottom, int left, int right)
{
    Unit *u = add(s, U_PAD, &x, 1, "");
    int pad[4] = {top, bottom, left, right};
    for (int i = 0; i < 4; i++) {
        if (pad[i] < 0) {
            fault(s, u, "padding %d", pad[i]);
            pad[i] = 0;
        }
        u->u.pad[i] = pad[i];
    }
    return shape(s, u, u->ic, (int64_t)u->ih + pad[0] + pad[1], (int64_t)u->iw + pad[2] + pad[3]);
}

int spec_flatten(Spec *s, int x)
{
    Unit *u = add(s, U_FLATTEN, &x, 1, "");
    return shape(s, u, (int64_t)u->ic * u->ih * u->iw, 1, 1);
}

int spec_dropout(Spec *s, int x, float p)
{
    Unit *u = add(s, U_DROPOUT, &x, 1, "");
    u->u.p = p;
    if (!(p >= 0 && p < 1)) fault(s, u, "probability %g is outside [0, 1)", (double)p);
    return s->n - 1;
}

int spec_space_to_depth(Spec *s, int x, int block)
{
    Unit *u = add(s, U_SPACE_TO_DEPTH, &x, 1, "");
    u->u.block = block;
    if (block < 1 || u->ih % block || u->iw % block) {
        fault(s, u, "blocks of %d do not divide a map of %d x %d", block, u->ih, u->iw);
        u->u.block = 1;
        return s->n - 1;
    }
    return shape(s, u, (int64_t)u->ic * block * block, u->ih / block, u->iw / block);
}

int spec_depth_to_space(Spec *s, int x, int block)
{
    Unit *u = add(s, U_DEPTH_TO_SPACE, &x, 1, "");
    u->u.block = block;
    if (block < 1 || block > 1024 || u->ic % (block * block)) {
        fault(s, u, "blocks of %d do not divide %d channels", block, u->ic);
        u->u.block = 1;
        return s->n - 1;
    }
    return shape(s, u, u->ic / (block * block), (int64_t)u->ih * block, (int64_t)u->iw * block);
}

void spec_mark(Spec *s, int unit, unsigned marks)
{
    ASSERT(unit >= 0 && unit < s->n, "unit %d of %d", unit, s->n);
    s->u[unit].marks |= marks;
}

void spec_declare_before(Spec *s, int unit, int before)
{
    float hi, lo = -1;
    ASSERT(unit >= 0 && unit < s->n && before >= 0 && before < s->n, "units %d, %d of %d", unit,
           before, s->n);
    hi = s->u[before].order;
    for (int i = 0; i < s->n; i++)
        if (i != unit && s->u[i].order < hi && s->u[i].order > lo) lo = s->u[i].order;
    s->u[unit].order = lo + (hi - lo) / 2;
    ASSERT(s->u[unit].order > lo && s->u[unit].order < hi, "no room between %g and %g", (double)lo,
           (double)hi);
}

void spec_declaration_order(const Spec *s, int *order)
{
    for (int i = 0; i < s->n; i++) { /* insertion sort: nearly sorted already */
        int k = i;
        while (k > 0 && s->u[order[k - 1]].order > s->u[i].order) {
            order[k] = order[k - 1];
            k--;
        }
        order[k] = i;
    }
}

/* Units whose parameters carry their name. */
static bool has_params(const Unit *u)
{
    switch (u->kind) {
    case U_CONV:
    case U_LINEAR:
    case U_SCALE:
    case U_SHIFT:
        return true;
    case U_NORM:
        return u->u.norm.affine || norm_has_stats(u->u.norm.kind);
    case U_ACT:
        return u->u.act.kind == AK_PRELU;
    default:
        return false;
    }
}

/* By name, then as they stand. */
static int by_name(const void *a, const void *b)
{
    const Unit *const *x = a, *const *y = b;
    const int c = strcmp((*x)->name, (*y)->name);
    return c ? c : (*x > *y) - (*x < *y);
}

static void check_names(Spec *s)
{
    const Unit **named = xcalloc((size_t)s->n, sizeof *named);
    size_t n = 0;
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        if (!has_params(u)) continue;
        if (!*u->name) fault(s, u, "has parameters but no name");
        named[n++] = u;
    }
    qsort(named, n, sizeof *named, by_name);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(named[i]->name, named[i - 1]->name))
            fault(s, named[i], "unit %d has the same name", (int)(named[i - 1] - s->u));
    free(named);
}

static void count_readers(Spec *s)
{
    for (int i = 0; i < s->n; i++) {
        s->u[i].nreaders = 0;
        s->u[i].reader = s->u[i].norm = -1;
    }
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        for (int k = 0; k < u->nin && !(u->marks & UM_UNUSED); k++) {
            Unit *src = &s->u[u->in[k]];
            bool again = false;
            for (int j = 0; j < k; j++) again |= u->in[j] == u->in[k];
            if (again) continue;
            src->reader = src->nreaders++ ? -1 : i;
        }
    }
    if (s->n) s->u[s->out].reader = -1; /* the output is read from outside too */
    for (int i = 0; i < s->n; i++) {
        Unit *u = &s->u[i];
        if ((u->kind == U_CONV || u->kind == U_LINEAR) && u->reader >= 0 &&
            s->u[u->reader].kind == U_NORM)
            u->norm = u->reader;
    }
}

int spec_finish(Spec *s, int out, Err *e)
{
    ASSERT(out >= 0 && out < s->n, "output %d of %d units", out, s->n);
    s->out = out;
    count_readers(s);
    check_names(s);
    for (int i = 0; i < s->n; i++)
        if (s->u[i].marks & UM_UNUSED) {
            if (i == out || s->u[i].nreaders) fault(s, &s->u[i], "is marked as unused and is read");
        } else if (i != out && !s->u[i].nreaders) {
            fault(s, &s->u[i], "nothing reads it");
        }
    if (s->u[out].h != 1 || s->u[out].w != 1)
        fault(s, &s->u[out], "the output is a map of %d x %d, not logits", s->u[out].h,
              s->u[out].w);
    return s->err.kind == ERR_NONE ? 0 : err_set(e, s->err.kind, "%s", s->err.msg);
}

int64_t unit_macs(const Unit *u)
{
    if (u->kind == U_CONV)
        return (int64_t)u->c * u->h * u->w * (u->ic / u->u.conv.groups) * u->u.conv.k * u->u.conv.k;
    if (u->kind == U_LINEAR) return (int64_t)u->ic * u->c;
    return 0;
}

static void print_attr(const Unit *u, Str *out)
{
    static const char *const norms[] = {"batch",  "group",  "instance",
                                        "static", "frozen", "reverse"};
    static const char *const acts[] = {"relu", "relu6", "leaky", "prelu", "none"};
    static const char *const pools[] = {"max", "avg", "global avg"};
    switch (u->kind) {
    case U_CONV:
        str_printf(out, " %dx%d", u->u.conv.k, u->u.conv.k);
        if (u->u.conv.stride > 1) str_printf(out, " stride %d", u->u.conv.stride);
        if (u->u.conv.pad) str_printf(out, " pad %d", u->u.conv.pad);
        if (u->u.conv.dilation > 1) str_printf(out, " dilation %d", u->u.conv.dilation);
        if (u->u.conv.groups > 1) str_printf(out, " groups %d", u->u.conv.groups);
        if (u->u.conv.bias) str_puts(out, " bias");
        break;
    case U_LINEAR:
        if (u->u.linear.bias) str_puts(out, " bias");
        break;
    case U_NORM:
        str_printf(out, " %s", norms[u->u.norm.kind]);
        break;
    case U_ACT:
        str_printf(out, " %s", acts[u->u.act.kind]);
        break;
    case U_POOL:
        str_printf(out, " %s", pools[u->u.pool.kind]);
        if (u->u.pool.kind != POOL_GLOBAL_AVG)
            str_printf(out, " %dx%d stride %d pad %d%s", u->u.pool.k, u->u.pool.k, u->u.pool.stride,
                       u->u.pool.pad, u->u.pool.ceil_mode ? " ceil" : "");
        break;
    case U_SCALE:
    case U_SHIFT:
        str_printf(out, " from %g", (double)u->u.init);
        break;
    case U_PAD:
        str_printf(out, " %d %d %d %d", u->u.pad[0], u->u.pad[1], u->u.pad[2], u->u.pad[3]);
        break;
    case U_DROPOUT:
        str_printf(out, " %g", (double)u->u.p);
        break;
    case U_SPACE_TO_DEPTH:
    case U_DEPTH_TO_SPACE:
        str_printf(out, " %d", u->u.block);
        break;
    default:
        break;
    }
}

void spec_print(const Spec *s, Str *out)
{
    static const struct {
        unsigned mark;
        const char *text;
    } marks[] = {
        {UM_FIRST, " first"},       {UM_LAST, " last"},         {UM_SKIP, " skip"},
        {UM_OWN_CLIP, " own-clip"}, {UM_NO_QUANT, " no-quant"}, {UM_SIGNED, " signed"},
        {UM_INNER, " inner"},       {UM_WIDE, " wide"},         {UM_UNUSED, " unused"},
        {UM_COUNTED, " counted"},
    };
    for (int i = 0; i < s->n; i++) {
        const Unit *u = &s->u[i];
        str_printf(out, "%3d %s", i, unit_kind_name(u->kind));
        if (*u->name) str_printf(out, " %s", u->name);
        print_attr(u, out);
        if (u->nin) str_puts(out, " <-");
        for (int k = 0; k < u->nin; k++) str_printf(out, " %d", u->in[k]);
        str_printf(out, " : %d x %d x %d", u->c, u->h, u->w);
        for (size_t k = 0; k < ARRAY_LEN(marks); k++)
            if (u->marks & marks[k].mark) str_puts(out, marks[k].text);
        str_puts(out, i == s->out ? " out\n" : "\n");
    }
}

void spec_free(Spec *s)
{
    arena_free(&s->arena);
    free(s->u);
    *s = (Spec){0};
}
