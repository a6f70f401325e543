/* quant/intexec.c -- see intexec.h.
 *
 * Operations are gathered into steps: a convolution, with a single requantization behind it inside
 * where that is proven; or a pass (intpass.h) that takes one or two maps of raw sums through bias,
 * alignment, ReLU and maximum, and writes whatever is read of the result.
 *
 * A batch goes through in groups of images. As long as maps are larger than weights, a group is cut
 * into slices of one image per thread that run through all those steps one after the other, so that
 * maps stay in the second-level cache; the later steps take the whole group, so that weights are
 * fetched less often. */
#include "quant/intexec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "engine/plan.h"
#include "quant/intconv.h"
#include "quant/intpass.h"

#define SLICES 4 /* in a group */

enum { BUF_NONE = -1, BUF_IMAGE = -2, BUF_LOGITS = -3 };

typedef enum StepKind { ST_CONV, ST_PASS, ST_POOL, ST_SUM } StepKind;

typedef struct Step {
    StepKind kind;
    int in[2], out; /* buffers; the pass: its terms and the 32-bit result */
    int qout[PASS_MAX_Q];
    bool own[2]; /* the term's buffer is read by nobody else */
    int scratch; /* convolution */
    I8Conv *conv;
    Pass pass;     /* pointers to maps are filled in at each run */
    PassPool pool; /* sum: input's shape */
} Step;

typedef struct Buf {
    size_t image_bytes, fixed_bytes;
    bool crosses; /* written in slices, read by the group */
} Buf;

struct IntExec {
    const IntNet *net;
    Prim *prim;
    int batch, group, slice; /* images */
    size_t image_bytes, classes;
    Step *step;
    int nsteps;
    size_t cap_steps;
    int early; /* steps that run slice by slice */
    Buf *buf;
    PlanBlock *block; /* of each buffer: steps it lives in, place in the arena */
    int nbufs;
    size_t cap_bufs, cap_blocks;
    char *arena;
    void *staged;    /* the images when they are fewer than a group */
    int32_t *logits; /* of a group */
    Arena mem;       /* tables of biases */
    char how[512];
    int now;      /* while building: images per step; then per operation: */
    int *value;   /* buffer with its value or raw sums, BUF_NONE: not stored */
    I8Conv **raw; /* the convolution whose bias is still to be added to that */
    bool *live, *done;
    IntRange *range;
    int requants, fused, ways[I8_NWAYS];
};

/* ---- the net ---- */

static bool reads(const IntOp *op, int i)
{
    return (op->nin > 0 && op->in[0] == i) || (op->nin > 1 && op->in[1] == i);
}

/* The next operation after `from` that reads i, or n. */
static int next_reader(const IntExec *x, int i, int from)
{
    int r = from + 1;
    while (r < x->net->n && !(x->live[r] && reads(&x->net->op[r], i))) r++;
    return r;
}

/* The only reader of i when it is of that kind, else -1. */
static int sole_reader(const IntExec *x, int i, IntKind kind)
{
    const int r = next_reader(x, i, i);
    if (i == x->net->out || r == x->net->n || next_reader(x, i, r) < x->net->n) return -1;
    return x->net->op[r].kind == kind ? r : -1;
}

static bool same_requant(const IntOp *a, const IntOp *b)
{
    return a->type == b->type && a->u.requant.shift == b->u.requant.shift &&
           a->u.requant.divisor == b->u.requant.divisor && a->u.requant.lo == b->u.requant.lo &&
           a->u.requant.hi == b->u.requant.hi;
}

/* The requantization all readers of i do, or -1 when they differ. */
static int common_requant(const IntExec *x, int i)
{
    const IntOp *op = x->net->op;
    const int first = next_reader(x, i, i);
    if (i == x->net->out || first == x->net->n) return -1;
    for (int r = first; r < x->net->n; r = next_reader(x, i, r))
        if (op[r].kind != IK_REQUANT || !same_requant(&op[r], &op[first])) return -1;
    return first;
}

static void mark_live(IntExec *x)
{
    x->live[x->net->out] = true;
    for (int i = x->net->n - 1; i >= 0; i--)
        for (int k = 0; x->live[i] && k < x->net->op[i].nin; k++)
            x->live[x->net->op[i].in[k]] = true;
    x->live[0] = true;
}

/* ---- buffers and steps ---- */

static size_t len_of(const IntOp *op)
{
    return (size_t)op->c * (size_t)op->h * (size_t)op->w;
}

static int new_buf(IntExec *x, size_t image_bytes, size_t fixed_bytes)
{
    mem_grow(&x->buf, &x->cap_bufs, (size_t)x->nbufs + 1, sizeof *x->buf);
    mem_grow(&x->block, &x->cap_blocks, (size_t)x->nbufs + 1, sizeof *x->block);
    x->buf[x->nbufs] = (Buf){.image_bytes = image_bytes, .fixed_bytes = fixed_bytes};
    x->block[x->nbufs] = (PlanBlock){.first = x->nsteps, .last = x->nsteps};
    return x->nbufs++;
}

static int new_map(IntExec *x, const IntOp *op, DType type)
{
    return new_buf(x, len_of(op) * dtype_size(type), 0);
}

/* Where the 32-bit value of operation i goes. */
static int new_value(IntExec *x, int i)
{
    return x->value[i] = i == x->net->out ? BUF_LOGITS : new_map(x, &x->net->op[i], DT_S32);
}

static void use_buf(IntExec *x, int b)
{
    if (b >= 0) x->block[b].last = x->nsteps;
}

static void add_step(IntExec *x, const Step *s)
{
    for (int k = 0; k < 2; k++) use_buf(x, s->in[k]);
    use_buf(x, s->out);
    mem_grow(&x->step, &x->cap_steps, (size_t)x->nsteps + 1, sizeof *x->step);
    x->step[x->nsteps++] = *s;
}

static Step step_of(StepKind kind)
{
    return (Step){.kind = kind, .in = {BUF_NONE, BUF_NONE}, .out = BUF_NONE, .scratch = BUF_NONE};
}

/* ---- passes ---- */

static const int32_t *bias_table(IntExec *x, const I8Conv *c, int channels)
{
    int32_t *t = arena_alloc(&x->mem, pass_wide(channels) * sizeof *t);
    pass_widen(c ? i8conv_bias(c) : NULL, channels, t);
    return t;
}

static void pass_term(IntExec *x, Step *s, int i, int shift)
{
    const int k = s->pass.nterms++;
    s->in[k] = x->value[i];
    s->own[k] = x->raw[i] != NULL;
    s->pass.term[k].shift = shift;
    s->pass.term[k].bias = bias_table(x, x->raw[i], x->net->op[i].c);
}

static void pass_window(const IntExec *x, Step *s, int pool)
{
    const IntOp *op = &x->net->op[pool], *in = &x->net->op[op->in[0]];
    s->pass.window.k = op->u.pool.k;
    s->pass.window.stride = op->u.pool.stride;
    s->pass.window.pad = op->u.pool.pad;
    s->pass.window.ih = in->h;
    s->pass.window.iw = in->w;
}

static int pass_requant(IntExec *x, Step *s, int r)
{
    const IntOp *op = &x->net->op[r];
    const int k = s->pass.nq++;
    s->pass.q[k] = (PassQuant){op->type,         op->u.requant.shift, op->u.requant.divisor,
                               op->u.requant.lo, op->u.requant.hi,    NULL};
    return x->value[r] = s->qout[k] = new_map(x, op, op->type);
}

/* Adding the bias keeps the order of any two sums of operation i. */
static bool never_wraps(const IntExec *x, int i)
{
    const IntOp *op = &x->net->op[i];
    if (op->kind != IK_CONV) return true;
    return !int_range_wraps(x->range[i]) &&
           !int_range_wraps(intnet_conv_range(x->net, i, x->range[op->in[0]], false));
}

/* The pass computes operation i; takes in what follows, and writes what is read of it. */
static void finish_pass(IntExec *x, Step *s, int i)
{
    const IntOp *op = x->net->op;
    const int relu = sole_reader(x, i, IK_RELU), root = i;
    int pool, first[PASS_MAX_Q];
    bool whole;
    if (relu >= 0) {
        s->pass.relu = x->done[relu] = true;
        i = relu;
    }
    pool = sole_reader(x, i, IK_MAXPOOL); /* neither bias nor ReLU changes which is the largest */
    if (pool >= 0 && s->pass.nterms == 1 && !s->pass.window.k && never_wraps(x, root)) {
        pass_window(x, s, pool);
        x->done[pool] = true;
        i = pool;
    }
    s->pass.n = x->now;
    s->pass.h = op[i].h;
    s->pass.w = op[i].w;
    s->pass.c = op[i].c;
    whole = i == x->net->out;
    for (int r = next_reader(x, i, i); r < x->net->n; r = next_reader(x, i, r)) {
        int k = 0;
        if (op[r].kind == IK_REQUANT) {
            while (k < s->pass.nq && !same_requant(&op[r], &op[first[k]])) k++;
            if (k < PASS_MAX_Q) {
                if (k == s->pass.nq) {
                    first[k] = r;
                    pass_requant(x, s, r);
                }
                x->value[r] = s->qout[k];
                x->done[r] = true;
                continue;
            }
        }
        whole = true;
    }
    for (int k = 0; k < s->pass.nterms && i != x->net->out && !s->pass.window.k; k++)
        if (whole && s->own[k]) x->value[i] = s->out = s->in[k];
    if (whole && s->out == BUF_NONE) s->out = new_value(x, i);
    add_step(x, s);
}

/* ---- convolutions ---- */

/* bias, ReLU, one requantization, and perhaps a maximum that may as well come after it */
static bool fuse_of(IntExec *x, int i, I8Fuse *f, int *pool, int *requant)
{
    const int relu = sole_reader(x, i, IK_RELU), end = relu >= 0 ? relu : i;
    const IntOp *q;
    *pool = sole_reader(x, end, IK_MAXPOOL);
    *requant = common_requant(x, *pool >= 0 ? *pool : end);
    if (*requant < 0 || x->net->op[*requant].u.requant.divisor != 1) return false;
    q = &x->net->op[*requant];
    *f = (I8Fuse){q->type, q->u.requant.shift, q->u.requant.lo, q->u.requant.hi};
    if (relu >= 0 && f->lo < 0) f->lo = f->hi < 0 ? f->hi : 0;
    return true;
}

static void mark_done(IntExec *x, int i)
{
    const int relu = sole_reader(x, i, IK_RELU),
              pool = sole_reader(x, relu >= 0 ? relu : i, IK_MAXPOOL);
    if (relu >= 0) x->done[relu] = true;
    if (pool >= 0) x->done[pool] = true;
}

static void add_conv(IntExec *x, int i)
{
    const IntOp *op = &x->net->op[i];
    Step s = step_of(ST_CONV);
    I8Fuse f;
    int pool, requant;
    const bool wish = fuse_of(x, i, &f, &pool, &requant);
    s.in[0] = x->value[op->in[0]];
    s.conv = i8conv_new(x->prim, x->net, i, x->range[op->in[0]], x->now, wish ? &f : NULL);
    s.scratch = new_buf(x, 0, i8conv_scratch(s.conv));
    x->ways[i8conv_way(s.conv)]++;
    if (i8conv_fused(s.conv)) {
        const int end = x->net->op[requant].in[0];
        int b = s.out = new_map(x, op, f.type);
        add_step(x, &s);
        mark_done(x, i);
        if (pool >= 0) {
            const IntOp *po = &x->net->op[pool];
            Step m = step_of(ST_POOL);
            m.pool = (PassPool){
                f.type,         x->now, po->h, po->w, po->c, po->u.pool.k, po->u.pool.stride,
                po->u.pool.pad, op->h,  op->w};
            m.in[0] = b;
            b = m.out = new_map(x, po, f.type);
            add_step(x, &m);
        }
        for (int r = next_reader(x, end, end); r < x->net->n; r = next_reader(x, end, r)) {
            x->value[r] = b;
            x->done[r] = true;
            x->fused++;
        }
        return;
    }
    x->value[i] = s.out = new_map(x, op, DT_S32);
    x->raw[i] = s.conv;
    add_step(x, &s);
    if (sole_reader(x, i, IK_ADD) >= 0) return; /* its pass adds the bias */
    s = step_of(ST_PASS);
    pass_term(x, &s, i, 0);
    x->value[i] = BUF_NONE;
    x->raw[i] = NULL;
    finish_pass(x, &s, i);
}

/* ---- building ---- */

static void add_op(IntExec *x, int i)
{
    const IntOp *op = &x->net->op[i], *in = op->nin ? &x->net->op[op->in[0]] : NULL;
    Step s = step_of(ST_PASS);
    switch (op->kind) {
    case IK_INPUT:
        x->value[i] = BUF_IMAGE;
        return;
    case IK_CONV:
    case IK_LINEAR:
        add_conv(x, i);
        return;
    case IK_RELU:
        pass_term(x, &s, op->in[0], 0);
        s.pass.relu = true;
        break;
    case IK_ADD:
        for (int k = 0; k < 2; k++) pass_term(x, &s, op->in[k], op->u.shift[k]);
        break;
    case IK_REQUANT: /* one too many for the pass that computed its input */
        pass_term(x, &s, op->in[0], 0);
        s.pass.n = x->now;
        s.pass.h = op->h;
        s.pass.w = op->w;
        s.pass.c = op->c;
        pass_requant(x, &s, i);
        add_step(x, &s);
        return;
    case IK_MAXPOOL:
        if (op->type == DT_S32) {
            pass_term(x, &s, op->in[0], 0);
            pass_window(x, &s, i);
            break;
        }
        s = step_of(ST_POOL);
        s.pool = (PassPool){op->type,          x->now,         op->h, op->w, op->c, op->u.pool.k,
                            op->u.pool.stride, op->u.pool.pad, in->h, in->w};
        s.in[0] = x->value[op->in[0]];
        x->value[i] = s.out = new_map(x, op, op->type);
        add_step(x, &s);
        return;
    case IK_SUM: {
        Step sum = step_of(ST_SUM);
        sum.pool = (PassPool){.n = x->now, .ih = in->h, .iw = in->w, .c = op->c};
        sum.in[0] = x->value[op->in[0]];
        x->value[i] = sum.out = new_map(x, op, DT_S32);
        add_step(x, &sum);
        pass_term(x, &s, i, 0);
        break;
    }
    case IK_NKINDS:
        return;
    }
    finish_pass(x, &s, i);
}

static void describe(IntExec *x)
{
    static const char *const name[I8_NWAYS] = {"direct", "with split weights", "shifted to u8",
                                               "shifted to u8 with split weights", "by own loops"};
    char version[128];
    size_t n = 0;
    int convs = 0;
    for (int w = 0; w < I8_NWAYS; w++) convs += x->ways[w];
    n += (size_t)snprintf(x->how, sizeof x->how,
                          "int8 by oneDNN %s: ", prim_version(version, sizeof version));
    for (int w = 0; w < I8_NWAYS; w++)
        if (x->ways[w])
            n += (size_t)snprintf(x->how + n, sizeof x->how - n, "%d of %d convolutions %s, ",
                                  x->ways[w], convs, name[w]);
    if (x->ways[I8_DIRECT] < convs)
        n += (size_t)snprintf(x->how + n, sizeof x->how - n,
                              "as its sums are not exact on this CPU otherwise; ");
    snprintf(x->how + n, sizeof x->how - n, "%d of %d requantizations inside a convolution",
             x->fused, x->requants);
}

/* The first operation from which on every convolution has more bytes of weights than of sums. */
static int cut_of(const IntNet *net)
{
    int cut = net->n;
    for (int i = net->n - 1; i > 0; i--) {
        const IntOp *op = &net->op[i], *in = &net->op[op->in[0]];
        size_t weights;
        if (op->kind != IK_CONV && op->kind != IK_LINEAR) continue;
        weights = (size_t)op->c * (op->kind == IK_LINEAR
                                       ? len_of(in)
                                       : (size_t)(in->c / op->u.conv.groups) *
                                             (size_t)op->u.conv.k * (size_t)op->u.conv.k);
        if (weights < len_of(op) * sizeof(int32_t)) break;
        cut = i;
    }
    return cut;
}

/* What a slice writes for the group must outlive the steps of the slices after it. */
static void place(IntExec *x)
{
    size_t bytes;
    for (int b = 0; b < x->nbufs; b++) {
        Buf *u = &x->buf[b];
        PlanBlock *k = &x->block[b];
        const bool late = k->last >= x->early;
        u->crosses = late && k->first < x->early;
        if (u->crosses) k->first = 0;
        k->bytes = u->image_bytes * (size_t)(late ? x->group : x->slice) + u->fixed_bytes;
        k->bytes = (k->bytes + MEM_ALIGN) / MEM_ALIGN * MEM_ALIGN;
    }
    bytes = plan_place(x->block, x->nbufs, NULL);
    ASSERT(plan_overlap(x->block, x->nbufs) < 0, "buffer %d overlaps",
           plan_overlap(x->block, x->nbufs));
    x->arena = xaligned(bytes + MEM_ALIGN);
}

IntExec *intexec_new(const IntNet *net, int batch, Prim *p, Err *e)
{
    IntExec *x;
    const size_t n = (size_t)net->n;
    const int cut = cut_of(net);
    for (int i = 0; i < net->n; i++)
        if (net->op[i].c > PASS_MAX_C) {
            err_set(e, ERR_CONFIG, "%s: %d channels; integer execution takes at most %d",
                    net->op[i].name, net->op[i].c, PASS_MAX_C);
            return NULL;
        }
    ASSERT(net->n > 1 && batch > 0 && net->op[net->out].type == DT_S32, "%d operations, batch %d",
           net->n, batch);
    x = xcalloc(1, sizeof *x);
    x->net = net;
    x->prim = p;
    x->batch = batch;
    x->slice = par_threads() < batch ? par_threads() : batch;
    x->group = x->slice * (cut == net->n               ? 1
                           : batch / x->slice < SLICES ? batch / x->slice
                                                       : SLICES);
    x->now = x->slice;
    x->image_bytes = len_of(&net->op[0]);
    x->classes = len_of(&net->op[net->out]);
    x->value = xcalloc(n, sizeof *x->value);
    x->raw = xcalloc(n, sizeof *x->raw);
    x->live = xcalloc(n, sizeof *x->live);
    x->done = xcalloc(n, sizeof *x->done);
    x->range = xcalloc(n, sizeof *x->range);
    intnet_ranges(net, x->range);
    mark_live(x);
    for (int i = 0; i < net->n; i++) x->value[i] = BUF_NONE;
    for (int i = 0; i < net->n; i++) {
        if (i == cut) {
            x->early = x->nsteps;
            x->now = x->group;
        }
        if (!x->live[i]) continue;
        x->requants += net->op[i].kind == IK_REQUANT;
        if (!x->done[i]) add_op(x, i);
    }
    if (cut == net->n) x->early = x->nsteps;
    place(x);
    x->staged = xaligned(x->image_bytes * (size_t)x->group);
    x->logits = xaligned(x->classes * (size_t)x->group * sizeof *x->logits);
    describe(x);
    return x;
}

void intexec_free(IntExec *x)
{
    if (!x) return;
    for (int i = 0; i < x->nsteps; i++) i8conv_free(x->step[i].conv);
    free(x->step);
    free(x->buf);
    free(x->block);
    free(x->arena);
    free(x->staged);
    free(x->logits);
    free(x->value);
    free(x->raw);
    free(x->live);
    free(x->done);
    free(x->range);
    arena_free(&x->mem);
    free(x);
}

const char *intexec_how(const IntExec *x)
{
    return x->how;
}

/* ---- running ---- */

/* first: of the slice within its group; 0 for steps that take the group */
static void *at(const IntExec *x, int b, int first)
{
    if (b == BUF_NONE) return NULL;
    if (b == BUF_LOGITS) return x->logits + (size_t)first * x->classes;
    return x->arena + x->block[b].off +
           (x->buf[b].crosses ? (size_t)first * x->buf[b].image_bytes : 0);
}

static void run_step(const IntExec *x, const Step *s, const void *image, int first)
{
    const void *in = s->in[0] == BUF_IMAGE ? image : at(x, s->in[0], first);
    void *out = at(x, s->out, first);
    Pass p;
    switch (s->kind) {
    case ST_CONV:
        i8conv_run(s->conv, in, out, at(x, s->scratch, 0));
        break;
    case ST_PASS:
        p = s->pass;
        for (int k = 0; k < p.nterms; k++) p.term[k].src = at(x, s->in[k], first);
        p.dst = out;
        for (int k = 0; k < p.nq; k++) p.q[k].dst = at(x, s->qout[k], first);
        pass_run(&p);
        break;
    case ST_POOL:
        pass_maxpool(&s->pool, in, out);
        break;
    case ST_SUM:
        pass_sum(in, s->pool.n, (size_t)s->pool.ih * (size_t)s->pool.iw, s->pool.c, out);
        break;
    }
}

/* The last group reaches back when images are left over; fewer images than a group are staged, and
 * what is computed of the rest is not looked at. */
void intexec_run(IntExec *x, const void *image, int n, int32_t *logits)
{
    const int count = n < x->group ? n : x->group;
    ASSERT(n > 0 && n <= x->batch, "%d images, made for %d", n, x->batch);
    for (int next = 0; next < n; next += count) {
        const int begin = next + count <= n ? next : n - count;
        const char *src = (const char *)image + (size_t)begin * x->image_bytes;
        if (count < x->group) src = memcpy(x->staged, src, (size_t)count * x->image_bytes);
        for (int first = 0; first < count; first += x->slice)
            for (int i = 0; i < x->early; i++)
                run_step(x, &x->step[i], src + (size_t)first * x->image_bytes, first);
        for (int i = x->early; i < x->nsteps; i++) run_step(x, &x->step[i], src, 0);
        memcpy(logits + (size_t)begin * x->classes, x->logits,
               (size_t)count * x->classes * sizeof *logits);
    }
}
