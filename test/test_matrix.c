/* test/test_matrix.c -- every registered net with every registered method: train a step, evaluate, save, load,
 * resume; finite, and every weight has moved. What is refused stands in a table with its reason.
 *
 * The first net, which is small, runs every set-up of every method at every bit width it supports. By default the
 * others are one depth of each family, QRUN_FULL=1: every depth, with every set-up at one width; where they have
 * millions of weights, with the first set-up of each method. Prints a line for each net and one for all. Nets run
 * beside each other, each in a process of its own: test_matrix NET runs one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/exec.h"
#include "engine/par.h"
#include "io/fs.h"
#include "quant/qplan.h"
#include "run/checkpoint.h"
#include "test/jobs.h"
#include "test/probe/probe.h"
#include "test/support/temp.h"

/* What a user may combine, and the widths of it. */
typedef struct Setup {
    const char *label, *wt, *fm, *variant;
    bool power, additive;
    int min_bits, max_bits;
    const F8Opts *f8; /* NULL: not F8Net's */
} Setup;

/* F8Net: where lengths come from, how many there are, what is rounded; ours and the original's way. */
#define F8(type, stat, rescaled, ...)                                                              \
    &(const F8Opts)                                                                                \
    {                                                                                              \
        .format_type = type, .metric = stat, .momentum_for_metric = 0.1,                           \
        .rescale_forward = rescaled, __VA_ARGS__                                                   \
    }

// clang-format off
static const Setup setups[] = {
    {"float",            "none",   "none", "",         true,  true,  32, 32, NULL},
    {"apot cifar",       "apot",   "apot", "cifar",    true,  true,  2,  5, NULL},
    {"uniform cifar",    "apot",   "apot", "cifar",    false, true,  2,  5, NULL},
    {"pot cifar",        "apot",   "apot", "cifar",    true,  false, 2,  5, NULL},
    {"apot imagenet",    "apot",   "apot", "imagenet", true,  true,  2,  6, NULL},
    {"uniform imagenet", "apot",   "apot", "imagenet", false, true,  2,  8, NULL},
    {"pot imagenet",     "apot",   "apot", "imagenet", true,  false, 2,  8, NULL},
    {"apot mnist",       "apot",   "apot", "mnist",    true,  true,  2,  6, NULL},
    {"uniform mnist",    "apot",   "apot", "mnist",    false, true,  2,  8, NULL},
    {"pot mnist",        "apot",   "apot", "mnist",    true,  false, 2,  8, NULL},
    {"apot at 32",       "apot",   "apot", "cifar",    true,  true,  32, 32, NULL},
    {"apot mnist at 32", "apot",   "apot", "mnist",    true,  true,  32, 32, NULL},
    {"adabits",          "adabits", "adabits", "",      true,  true,  1,  16, NULL},
    {"adabits at 32",    "adabits", "adabits", "",      true,  true,  32, 32, NULL},
    {"fat cifar",        "fat",    "fat",  "cifar",    false, true,  2,  8, NULL},
    {"fat imagenet",     "fat",    "fat",  "imagenet", false, true,  2,  8, NULL},
    {"fat power",        "fat",    "fat",  "cifar",    true,  true,  2,  8, NULL},
    {"fat uniform",      "fat_uniform", "fat_uniform", "imagenet", false, true, 2, 8, NULL},
    {"hysteresis",       "hysteresis", "hysteresis", "", true, true, 1,  1, NULL},
    {"fixed8 fat",       "fixed8_fat", "fat", "cifar", false, true,  8,  8, NULL},
    {"fixed8",           "fixed8", "none", "",         true,  true,  8,  8, NULL},
    {"fixed8 apot",      "fixed8", "apot", "cifar",    true,  true,  8,  8, NULL},
    {"f8net",            "f8net",  "f8net", "",        true,  true,  8,  8,
     F8("per_layer", "std", true, .format_from_metric = true)},
    {"f8net original",   "f8net",  "f8net", "",        true,  true,  8,  8,
     F8("per_layer", "std", true, .format_from_metric = true, .original = true, .quant_avgpool = true, .pool_fusing = true)},
    {"f8net shared",     "f8net",  "f8net", "",        true,  true,  8,  8,
     F8("per_layer", "mae", true, .format_from_metric = true, .input_fraclen_sharing = true, .image = true)},
    {"f8net channels",   "f8net",  "f8net", "",        true,  true,  8,  8,
     F8("per_channel", "rms", true, .format_from_metric = true)},
    {"f8net model",      "f8net",  "f8net", "",        true,  true,  8,  8,
     F8("per_model", "std", true, .format_from_metric = true)},
    {"f8net search",     "f8net",  "f8net", "",        true,  true,  6,  8,
     F8("per_layer", "std", true, .format_grid_search = true, .no_clipping = true, .quant_bias = true)},
    {"f8net given",      "f8net",  "f8net", "",        true,  true,  4,  4,
     F8("", "std", false, .quant_bias = true)},
    {"f8net floating",   "f8net",  "f8net", "",        true,  true,  32, 32,
     F8("", "std", true, .floating_model = true)},
    {"f8net pure",       "f8net",  "f8net", "",        true,  true,  32, 32,
     F8("", "std", true, .floating_model = true, .floating_wo_clip = true, .original = true)},
    {"dorefa",           "dorefa", "dorefa", "",       true,  true,  1,  8, NULL},
    {"dorefa binary",    "dorefa", "dorefa", "",       true,  true,  1,  1, NULL},
    {"pact",             "pact",   "pact", "",         true,  true,  1,  8, NULL},
    {"pact warm",        "pact",   "pact", "",         true,  true,  2,  2, NULL},
    {"lsq",              "lsq",    "lsq",  "",         true,  true,  1,  8, NULL},
    {"lsq groups",       "lsq",    "lsq",  "",         true,  true,  2,  4, NULL},
    {"lsq ternary",      "lsq",    "lsq",  "",         true,  true,  1,  1, NULL},
    {"lq",               "lq",     "lq",   "",         true,  true,  1,  8, NULL},
    {"lq groups",        "lq",     "lq",   "",         true,  true,  2,  3, NULL},
    {"xnor",             "xnor",   "xnor", "",         true,  true,  1,  1, NULL},
    {"xnor++",           "xnor",   "xnor", "",         true,  true,  1,  1, NULL},
    {"fatnn",            "fatnn",  "fatnn", "",        true,  true,  1,  1, NULL},
    {"fatnn closed",     "fatnn",  "fatnn", "",        true,  true,  1,  1, NULL},
    {"fatnn groups",     "fatnn",  "fatnn", "",        true,  true,  1,  1, NULL},
    {"lsq padded",       "lsq",    "lsq",  "",         true,  true,  2,  2, NULL},
    {"dorefa outputs",   "dorefa", "dorefa", "",       true,  true,  4,  4, NULL},
    {"lsq outputs",      "lsq",    "lsq",  "",         true,  true,  4,  4, NULL},
};

/* Set-ups of the keyword language with other options than the default ones, for some widths. */
#define TAG(norm, type, factor, ...) {.scale = 0.5, .adaptive = norm, .grad_type = type, .grad_scale = factor, __VA_ARGS__}
#define USUAL TAG("none", "none", "none", .half_range = true)
typedef struct Language { const char *label; KwOpts kw; const char *ot; } Language;
static const Language language[] = {
    {"dorefa binary",    {.wt_bin = true, .independent_norm = true, .fm_custom = "none",
                          .tag = {TAG("var-mean", "none", "none", .gamma = true), TAG("none", "none", "none", .boundary = 2), USUAL}}, NULL},
    {"pact warm",        {.stable = 1, .fm_custom = "none",
                          .tag = {TAG("var-mean", "none", "none", 0), TAG("none", "none", "none", .correlate = 0.7), USUAL}}, NULL},
    {"lsq groups",       {.fm_custom = "none",
                          .tag = {TAG("none", "STE-scale", "scale-fan", .gamma = true, .quant_group = 2),
                                  TAG("none", "STE-scale", "scale-element", .quant_group = -1), USUAL}}, NULL},
    {"lq groups",        {.custom_update = true, .stable = 1, .fm_custom = "none",
                          .tag = {TAG("mean-var", "none", "none", .quant_group = 1),
                                  TAG("var", "none", "none", .quant_group = 2, .half_range = true), USUAL}}, NULL},
    {"xnor++",           {.fm_custom = "resolution",
                          .tag = {TAG("var-mean", "STE", "none", .gamma = true), TAG("none", "Triangle", "none", 0), USUAL}}, NULL},
    {"fatnn",            {.fm_custom = "none",
                          .tag = {TAG("none", "none", "none", .level = 3), TAG("none", "none", "none", .level = 4, .half_range = true), USUAL}}, NULL},
    {"fatnn closed",     {.fm_custom = "none", .closed_form = true, .custom_update = true, .stable = 1,
                          .tag = {TAG("var-mean", "STE-scale", "none", .level = 3, .gamma = true),
                                  TAG("none", "none", "none", .half_range = true), USUAL}}, NULL},
    {"fatnn groups",     {.fm_custom = "none", .proxquant = true, .proxquant_step = 5,
                          .tag = {TAG("var-mean", "none", "none", .level = 3, .quant_group = 2),
                                  TAG("none", "STE-scale", "none", .level = 3, .quant_group = -1), USUAL}}, NULL},
    {"lsq padded",       {.fm_custom = "none", .proxquant = true, .proxquant_step = 5,
                          .tag = {TAG("var-mean", "none", "none", 0), TAG("none", "none", "none", 0), USUAL}}, NULL},
    {"lsq ternary",      {.fm_custom = "none",
                          .tag = {TAG("var-mean", "none", "none", .level = 3, .quant_group = 1),
                                  TAG("none", "none", "none", .level = 3, .half_range = true), USUAL}}, NULL},
    {"dorefa outputs",   {.fm_custom = "none",
                          .tag = {TAG("var-mean", "none", "none", 0), USUAL, TAG("none", "none", "none", .boundary = 2)}}, "dorefa"},
    {"lsq outputs",      {.fm_custom = "none", .stable = 1,
                          .tag = {TAG("var-mean", "none", "none", 0), USUAL, TAG("none", "STE-scale", "scale-element", .quant_group = -1)}}, "lsq"},
};

/* What must be refused, and a part of what is said. */
static const struct {
    const char *wt, *fm, *ot, *variant;
    int wt_bit, fm_bit, ot_bit, first_bit;
    const char *why;
} refused[] = {
    {"apot",   "none",   "none", "cifar",    6,  32, 32, 0, "apot (cifar, additive) has 2 to 5 bits or 32 for weights, not 6"},
    {"apot",   "none",   "none", "imagenet", 7,  32, 32, 0, "has 2 to 6 bits or 32 for weights, not 7"},
    {"none",   "apot",   "none", "cifar",    32, 1,  32, 0, "for activations, not 1"},
    {"apot",   "apot",   "none", "imagnet",  4,  4,  32, 0, "did you mean 'imagenet'?"},
    {"apot",   "none",   "none", "cifar",    4,  32, 32, 9, "for weights, not 9"},
    {"none",   "none",   "apot", "cifar",    32, 32, 4,  0, "method 'apot' has no output quantizer"},
    {"none",   "fixed8", "none", "",         32, 8,  32, 0, "method 'fixed8' has no activation quantizer"},
    {"fixed8", "none",   "none", "",         4,  32, 32, 0, "fixed8 has 8 bits, not 4"},
    {"apto",   "none",   "none", "",         4,  32, 32, 0, "did you mean 'apot'?"},
    {"none",   "zzz",    "none", "",         32, 4,  32, 0, "fm_quant: unknown quantization method 'zzz'"},
    {"f8net",  "f8net",  "none", "",         1,  8,  32, 0, "fixed point of 1 bits; expected 2 to 16"},
    {"f8net",  "f8net",  "none", "",         8,  17, 32, 0, "fixed point of 17 bits; expected"},
    {"f8net",  "none",   "none", "",         8,  32, 32, 0, "quantizes weights and inputs together"},
    {"none",   "f8net",  "none", "",         32, 8,  32, 0, "quantizes weights and inputs together"},
    {"dorefa", "none",   "none", "",         9,  32, 32, 0, "dorefa has 1 to 8 bits or 32, not 9"},
    {"none",   "lsq",    "none", "",         32, 16, 32, 0, "lsq has 1 to 8 bits or 32, not 16"},
    {"fatnn",  "none",   "none", "",         2,  32, 32, 0, "fatnn has 3 levels of weights, not 4; expected wt_level: 3"},
    {"none",   "non-uniform", "none", "",    32, 3,  32, 0, "fatnn has 2 to 4 levels, not 8; expected"},
    {"none",   "none",   "pact", "",         32, 32, 4,  0, "method 'pact' has no output quantizer"},
};
// clang-format on

/* Methods that a net has not, for its structure, and a part of what is said. */
static const struct {
    const char *net, *method, *why;
} illegal_nets[] = {
    {"nin", "f8net", "needs a batch norm right behind each convolution, and none of its own bias"},
};

/* Drawn nets of a depth whose gradients, growing from layer to layer, pass the largest float. */
static const struct {
    const char *net, *label;
} beyond_floats[] = {
    {"resnet110_cifar", "dorefa outputs"},
};

enum { MANY_WEIGHTS = 2000000, MAX_NETS = 96 };

static const Language *language_of(const Setup *s)
{
    for (size_t i = 0; i < ARRAY_LEN(language); i++)
        if (str_eq(language[i].label, s->label)) return &language[i];
    return NULL;
}

/* Each family begins with its least depth. */
static bool first_of_family(const NetDef *net)
{
    for (int k = 0; nets[k] != net; k++)
        if (nets[k]->build == net->build) return false;
    return true;
}

static RigOpts options(const NetDef *net, const Setup *s, int bits)
{
    const Language *l = language_of(s);
    RigOpts o;
    rig_defaults(&o);
    o.net = net_usual(net);
    if (net->names == NAMES_KEYWORD) {
        if (!(o.net.width_alpha > 0 && o.net.width_alpha < 0.25)) o.net.width_alpha = 0.25; /* where there is such a thing */
        if (str_eq(s->fm, "xnor")) o.net.words |= NET_WORD(NReLU); /* signs of what ReLU leaves are all the same */
    }
    while (o.net.in_h > 32) o.net.in_h /= 2, o.net.in_w /= 2;
    if (net->in_h == o.net.in_h)
        o.net.in_h /= 2, o.net.in_w /= 2; /* 224 -> 28, 32 -> 16, 28 -> 14 */
    o.quant.extra_methods = NULL;
    o.quant.wt_quant = s->wt, o.quant.fm_quant = s->fm, o.quant.quant_variant = s->variant;
    o.quant.wt_bit = bits, o.quant.fm_bit = str_starts(s->wt, "fixed8") ? 5 : bits;
    o.quant.power = s->power, o.quant.additive = s->additive;
    if (s->f8) o.quant.f8 = *s->f8;
    if (l) o.quant.kw = l->kw;
    if (l && l->ot) o.quant.ot_quant = l->ot, o.quant.ot_bit = bits;
    o.optim.lr = 1e-3;
    if (str_eq(s->fm, "xnor")) o.optim.optimizer = "adam"; /* gradients that double from layer to layer */
    if (!first_of_family(net)) { /* so they do in drawn nets of 100 layers, or nothing comes through and decay alone moves weights */
        o.unit_gradients = true; /* and running statistics of the batch: see check_one */
        o.optim.lr = 1e-4, o.optim.weight_decay = 0.01;
    }
    o.optim.group[0] =
        (GroupRule){"alpha", 1e-7,
                    -1}; /* coarse levels at the start: channels without variance, huge gradients */
    o.optim.ngroups = str_eq(s->fm, "apot") || str_starts(s->fm, "fat") ? 1 : 0;
    if (str_eq(s->fm, "pact") || str_eq(s->fm, "lsq"))
        o.optim.group[o.optim.ngroups++] = (GroupRule){"clip_val", 1e-7, -1};
    return o;
}

static size_t weights(const ParamStore *ps)
{
    size_t n = 0;
    for (int i = 0; i < ps->n; i++)
        n += ps->p[i]->kind == PK_WEIGHT ? tensor_len(&ps->p[i]->value) : 0;
    return n;
}

/* The parameters as a file holds them, into a new net; its evaluation must be that of the one
 * saved. */
static void check_load(const char *what, Rig *r, const char *dir, double want)
{
    char *path = checkpoint_path(dir, CKPT_LAST);
    TensorFile f;
    double got;
    Err e = {0};
    if (tensors_read(&f, path, &e)) fail_msg("%s: %s", what, e.msg);
    checkpoint_strip(&f);
    if (tensors_into_store(&f, model_store(r->m), true, NULL, &e)) fail_msg("%s: %s", what, e.msg);
    tensors_free(&f);
    free(path);
    got = rig_eval(r, 0, &e);
    if (got != want)
        fail_msg("%s: loss %.9g after loading, %.9g before saving %s", what, got, want, e.msg);
}

static Rig open_rig(const char *what, const RigOpts *o)
{
    Rig r;
    Err e = {0};
    if (rig_open(&r, o, &e)) fail_msg("%s: %s", what, e.msg);
    return r;
}

/* Some weight of every trained convolution and classifier has moved from where it began. */
static void assert_moved(const char *what, const Rig *r, float *const *began)
{
    const ParamStore *ps = model_store(r->m);
    for (int i = 0; i < ps->n; i++) {
        const Param *p = ps->p[i];
        if (!began[i]) continue;
        if (!p->trained) fail_msg("%s: %s is not trained", what, p->name);
        if (!memcmp(p->value.data, began[i], tensor_bytes(&p->value))) fail_msg("%s: %s has not moved", what, p->name);
    }
}

/* Copies of the weights; NULL for other parameters. */
static float **copy_weights(const Rig *r)
{
    const ParamStore *ps = model_store(r->m);
    float **v = xcalloc((size_t)ps->n, sizeof *v);
    for (int i = 0; i < ps->n; i++) {
        if (ps->p[i]->kind != PK_WEIGHT) continue;
        v[i] = xaligned(tensor_bytes(&ps->p[i]->value));
        memcpy(v[i], ps->p[i]->value.data, tensor_bytes(&ps->p[i]->value));
    }
    return v;
}

static void free_weights(const Rig *r, float **v)
{
    for (int i = 0; i < model_store(r->m)->n; i++) free(v[i]);
    free(v);
}

/* Saves `a`, loads into a new net, resumes that, and takes one more step with both. */
static void check_files(const char *what, const RigOpts *o, Rig *a, double loss)
{
    char buf[300], *dir = temp_folder("matrix"), *folder;
    const char *d;
    Rig b = open_rig(what, o);
    Err e = {0};
    assert_non_null(dir);
    folder = fs_join(dir, "checkpoints");
    if (fs_mkdirs(folder, &e) || rig_save(a, dir, &e)) fail_msg("%s: %s", what, e.msg);
    check_load(what, &b, dir, loss);
    if (rig_resume(&b, dir, &e)) fail_msg("%s: %s", what, e.msg);
    if (!isfinite(rig_step(a, &e)) || !isfinite(rig_step(&b, &e))) fail_msg("%s: %s", what, e.msg);
    d = rig_difference(a, &b, buf, sizeof buf);
    if (d) fail_msg("%s: resumed: %s", what, d);
    assert_int_equal(temp_remove(dir), 0);
    free(folder);
    rig_close(&b);
}

/* Running statistics that one update, which moves them a tenth of the way, brings to those of its batch when
 * they are then taken ten times: means 0, and variances a little above 0, for channels that are the same
 * everywhere. As norms begin, maps of a drawn net of 100 layers end beyond all floats after one update. */
static void statistics_of_batch(ParamStore *ps, bool before)
{
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        const bool is_var = str_ends(p->name, ".running_var");
        float *v = p->value.data;
        if (!is_var && !str_ends(p->name, ".running_mean")) continue;
        for (size_t k = 0; k < tensor_len(&p->value); k++) v[k] = !before ? 10 * v[k] : is_var ? 0.01f : 0;
        param_touch(p);
    }
}

static void check_one(const char *what, const RigOpts *o)
{
    Rig a = open_rig(what, o);
    float **began = copy_weights(&a);
    double loss;
    Err e = {0};
    if (o->unit_gradients) statistics_of_batch(model_store(a.m), true);
    if (!isfinite(rig_step(&a, &e))) fail_msg("%s: %s", what, e.msg);
    if (o->unit_gradients) statistics_of_batch(model_store(a.m), false);
    assert_moved(what, &a, began);
    free_weights(&a, began);
    loss = rig_eval(&a, 0, &e);
    if (!isfinite(loss)) fail_msg("%s: evaluation gives %g %s", what, loss, e.msg);
    check_files(what, o, &a, loss);
    rig_close(&a);
}

static void assert_refused(const RigOpts *o, const char *why)
{
    Rig r;
    Err e = {0};
    if (!rig_open(&r, o, &e) && isfinite(rig_step(&r, &e))) fail_msg("%s: not refused: %s", o->net.model, why);
    assert_int_equal(e.kind, ERR_CONFIG);
    if (!strstr(e.msg, why)) fail_msg("%s: '%s' does not say '%s'", o->net.model, e.msg, why);
    rig_close(&r);
}

static size_t count_weights(const NetDef *net)
{
    RigOpts o = options(net, &setups[0], 32);
    Rig r;
    size_t n;
    o.net.plain_init = true;
    r = open_rig(net->name, &o);
    n = weights(model_store(r.m));
    rig_close(&r);
    return n;
}

/* No earlier set-up has these methods. */
static bool first_of_method(const Setup *s)
{
    for (const Setup *t = setups; t < s; t++)
        if (str_eq(t->wt, s->wt) && str_eq(t->fm, s->fm)) return false;
    return true;
}

static bool chosen(const NetDef *net, size_t n, const Setup *s, int bits)
{
    const int usual = s->f8 || s->min_bits > 4 ? s->max_bits : s->max_bits < 4 ? s->max_bits : 4;
    if (net == nets[0]) return true;
    return bits == usual && (n <= MANY_WEIGHTS || first_of_method(s));
}

static bool is_left_out(const NetDef *net, const Setup *s)
{
    for (size_t i = 0; i < ARRAY_LEN(beyond_floats); i++)
        if (str_eq(beyond_floats[i].net, net->name) && str_eq(beyond_floats[i].label, s->label)) {
            printf("# %s, %s: not run, its gradients pass the largest float\n", net->name, s->label);
            return true;
        }
    return false;
}

/* Why the pair is refused; NULL: it is not. */
static const char *illegal(const NetDef *net, const Setup *s)
{
    for (size_t i = 0; i < ARRAY_LEN(illegal_nets); i++)
        if (str_eq(illegal_nets[i].net, net->name) && str_eq(illegal_nets[i].method, s->wt)) return illegal_nets[i].why;
    return NULL;
}

static void net_with_every_method(void **state)
{
    const NetDef *net = *(const NetDef **)*state;
    const size_t n = count_weights(net);
    const double start = exec_now();
    int done = 0, methods = 0, not_allowed = 0;
    for (size_t k = 0; k < ARRAY_LEN(setups); k++) {
        const Setup *s = &setups[k];
        const int before = done;
        for (int bits = s->min_bits; bits <= s->max_bits; bits++) {
            char what[128];
            RigOpts o = options(net, s, bits);
            if (!chosen(net, n, s, bits) || is_left_out(net, s)) continue;
            o.net.plain_init = n > MANY_WEIGHTS; /* is drawn faster */
            snprintf(what, sizeof what, "%s, %s, %d bits", net->name, s->label, bits);
            if (illegal(net, s)) {
                assert_refused(&o, illegal(net, s));
                not_allowed++;
                continue;
            }
            check_one(what, &o);
            done++;
        }
        methods += done > before && first_of_method(s);
    }
    printf("# %-20s %9zu weights  %2d methods  %3d set-ups  %2d refused  %6.1f s\n", net->name, n, methods, done,
           not_allowed, exec_now() - start);
}

/* ---- refusals ---- */

static void illegal_pairs(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        RigOpts o = options(nets[0], &setups[0], 32);
        o.quant.wt_quant = refused[i].wt, o.quant.fm_quant = refused[i].fm,
        o.quant.ot_quant = refused[i].ot;
        o.quant.quant_variant = refused[i].variant;
        o.quant.wt_bit = refused[i].wt_bit, o.quant.fm_bit = refused[i].fm_bit,
        o.quant.ot_bit = refused[i].ot_bit;
        o.quant.first_bit = refused[i].first_bit;
        assert_refused(&o, refused[i].why);
    }
}

/* One bit below and above what a set-up supports. */
static void widths_end_where_they_say(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(setups); k++) {
        const Setup *s = &setups[k];
        RigOpts o;
        char why[32];
        if (s->max_bits == 32 || s->f8 || language_of(s)) continue; /* some of the method's widths */
        for (int side = 0; side < 2; side++) {
            const int bits = side ? s->max_bits + 1 : s->min_bits - 1;
            o = options(nets[0], s, bits);
            snprintf(why, sizeof why, "not %d", bits);
            assert_refused(&o, why);
        }
    }
}

static void every_method_is_here(void **state)
{
    (void)state;
    for (int i = 0; quant_methods[i]; i++) {
        const QMethod *m = quant_methods[i];
        bool wt = !m->role[Q_WEIGHT], fm = !m->role[Q_ACT], ot = !m->role[Q_OUT];
        for (size_t k = 0; k < ARRAY_LEN(setups); k++) {
            const Language *l = language_of(&setups[k]);
            wt = wt || str_eq(setups[k].wt, m->name);
            fm = fm || str_eq(setups[k].fm, m->name);
            ot = ot || (l && l->ot && str_eq(l->ot, m->name));
        }
        if (!wt || !fm || !ot)
            fail_msg("method '%s' has no row in `setups` for its %s", m->name,
                     !wt ? "weights" : !fm ? "activations" : "outputs");
    }
}

static bool full(void)
{
    const char *v = getenv("QRUN_FULL");
    return v && *v && !str_eq(v, "0");
}

static bool wanted(int i)
{
    return full() || first_of_family(nets[i]);
}

static struct {
    Jobs jobs;
    char text[MAX_NETS][12]; /* numbers of nets: rows may share a name */
    const char *arg[MAX_NETS];
    int n;
    double start;
} all;

static int start_all(void **state)
{
    (void)state;
    all.start = exec_now();
    jobs_start(&all.jobs, all.arg, all.n);
    return 0;
}

static int end_all(void **state)
{
    double cpu = 0;
    (void)state;
    for (int i = 0; i < all.n; i++) cpu += all.jobs.job[i].cpu_s;
    printf("# %d nets in %.1f s, %.1f s of processors\n", all.n, exec_now() - all.start, cpu);
    jobs_free(&all.jobs);
    return 0;
}

/* The lines of its table, or all it said. */
static void net_in_its_process(void **state)
{
    const Job *job = jobs_wait(&all.jobs, (int)((const char **)*state - all.arg));
    if (job->status) fail_msg("test_matrix %s: exit status %d:\n%s", job->arg, job->status, job->text.s ? job->text.s : "");
    for (const char *p = job->text.s; p && *p; p += strcspn(p, "\n") + 1) {
        if (*p == '#') printf("%.*s\n", (int)strcspn(p, "\n"), p);
        if (!p[strcspn(p, "\n")]) break;
    }
}

/* By number or name. */
static int one_net(const char *which)
{
    const NetDef *net = nets[0];
    struct CMUnitTest test = {NULL, net_with_every_method, NULL, NULL, &net};
    for (int i = 0; nets[i]; i++)
        if (str_eq(nets[i]->name, which) || i == atoi(which)) net = nets[i];
    test.name = net->name;
    return _cmocka_run_group_tests("matrix of a net", &test, 1, NULL, NULL);
}

int main(int argc, char **argv)
{
    struct CMUnitTest tests[3 + MAX_NETS] = {
        cmocka_unit_test(every_method_is_here),
        cmocka_unit_test(illegal_pairs),
        cmocka_unit_test(widths_end_where_they_say),
    };
    par_set_threads(1); /* small maps: threads would only wait for each other */
    if (argc > 1) return one_net(argv[1]);
    for (int i = 0; nets[i]; i++) {
        ASSERT(all.n < MAX_NETS, "more than %d nets", MAX_NETS);
        if (!wanted(i)) continue;
        snprintf(all.text[all.n], sizeof all.text[0], "%d", i);
        all.arg[all.n] = all.text[all.n];
        tests[3 + all.n] = (struct CMUnitTest){nets[i]->name, net_in_its_process, NULL, NULL, &all.arg[all.n]};
        all.n++;
    }
    return _cmocka_run_group_tests("matrix", tests, 3 + (size_t)all.n, start_all, end_all);
}
