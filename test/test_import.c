/* test/test_import.c -- checkpoints of other programs: pairing by position against the tables of
 * test/state_dicts/keymap_*.tsv, pytorchcv's file looked for and loaded, files of another depth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/fs.h"
#include "io/layers.h"
#include "quant/qplan.h"
#include "run/import.h"
#include "run/log.h"
#include "run/which_net.h"
#include "test/support/pth_write.h"
#include "test/support/temp.h"

static char *root;

static int make_root(void **state)
{
    (void)state;
    return temp_begin(&root, "import");
}

static int drop_root(void **state)
{
    (void)state;
    return temp_remove(root);
}

/* ---- checkpoints made of names and shapes ---- */

/* One row of a keymap. */
typedef struct Row {
    char net[96], source[96];
    int ndim, dim[4];     /* in the net */
    int stored, shape[4]; /* in the file: dimensions; 0: the file has no such tensor */
} Row;

typedef struct Keymap {
    Row *row;
    size_t n, cap;
} Keymap;

static int parse_shape(const char *s, int dim[4])
{
    int n = 0;
    char *end;
    while (n < 4 && *s >= '0' && *s <= '9') {
        dim[n++] = (int)strtol(s, &end, 10);
        s = *end == 'x' ? end + 1 : "";
    }
    return n;
}

static void read_keymap(Keymap *m, const char *file)
{
    char path[256], line[512];
    FILE *f;
    *m = (Keymap){0};
    snprintf(path, sizeof path, "test/state_dicts/keymap_f8net_%s.tsv", file);
    f = fopen(path, "r");
    if (!f) fail_msg("%s: cannot open", path);
    assert_non_null(fgets(line, sizeof line, f)); /* titles */
    while (fgets(line, sizeof line, f)) {
        Row r = {0};
        char *source = strchr(line, '\t'), *shape = source ? strchr(source + 1, '\t') : NULL, *more;
        if (!shape) fail_msg("%s: %s", path, line);
        *source++ = *shape++ = 0;
        snprintf(r.net, sizeof r.net, "%.95s", line);
        snprintf(r.source, sizeof r.source, "%.95s", source);
        r.ndim = parse_shape(shape, r.dim);
        more = strstr(shape, "(stored ");
        if (*source != '(')
            r.stored = parse_shape(more ? more + strlen("(stored ") : shape, r.shape);
        mem_grow(&m->row, &m->cap, m->n + 1, sizeof *m->row);
        m->row[m->n++] = r;
    }
    fclose(f);
}

static void keymap_free(Keymap *m)
{
    free(m->row);
}

/* Adds a tensor whose values are all `value`; without `data` only names and shapes count. */
static void add(TensorFile *f, const char *name, DType type, int ndim, const int *dim, bool data,
                float value)
{
    Tensor t = tensor_make(type, ndim, dim, NULL);
    if (data) {
        t.data = arena_alloc(&f->arena, tensor_bytes(&t));
        for (size_t i = 0; i < tensor_len(&t) && type == DT_F32; i++) ((float *)t.data)[i] = value;
    }
    f->v[f->n].name = arena_strdup(&f->arena, name);
    f->v[f->n++].t = t;
}

/* The source's state dict: its tensors, tensor i filled with i + 1, and a counter behind each norm.
 */
static void make_source(TensorFile *f, const Keymap *m, bool data)
{
    *f = (TensorFile){.format = "test"};
    f->v = arena_alloc(&f->arena, 2 * m->n * sizeof *f->v);
    for (size_t i = 0; i < m->n; i++) {
        const Row *r = &m->row[i];
        char name[160];
        if (!r->stored) continue;
        add(f, r->source, DT_F32, r->stored, r->shape, data, (float)(i + 1));
        if (!str_ends(r->source, "running_var")) continue;
        snprintf(name, sizeof name, "%.*snum_batches_tracked",
                 (int)(strlen(r->source) - strlen("running_var")), r->source);
        add(f, name, DT_S64, 0, NULL, data, 0);
    }
}

static void write_file(const TensorFile *f, const char *path)
{
    TensorOut *out = xcalloc((size_t)f->n, sizeof *out);
    Err e = {0};
    for (int i = 0; i < f->n; i++) out[i] = (TensorOut){f->v[i].name, &f->v[i].t};
    if (safetensors_write(path, out, f->n, NULL, 0, &e)) fail_msg("%s", e.msg);
    free(out);
}

/* ---- nets ---- */

typedef struct Net {
    Spec spec;
    QPlan qp;
    ParamStore store;
} Net;

static void make_net(Net *n, const char *model, int depth)
{
    const NetOpts o = {.model = model,
                       .names = "",
                       .depth = depth,
                       .num_classes = 1000,
                       .in_c = 3,
                       .in_h = 224,
                       .in_w = 224};
    static QOpts float_opts;
    Config c;
    Err e = {0};
    memset(n, 0, sizeof *n);
    config_default(&c);
    float_opts = c.quant;
    if (net_build(&n->spec, &o, &e) || qplan_build(&n->qp, &n->spec, &float_opts, &n->store, &e))
        fail_msg("%s: %s", model, e.msg);
    config_free(&c);
}

static void net_free(Net *n)
{
    qplan_free(&n->qp);
    spec_free(&n->spec);
    store_free(&n->store);
}

/* ---- the tables ---- */

static const struct {
    const char *keymap, *model;
    int depth;
    size_t tensors;
} tables[] = {
    {"resnet18_from_pytorchcv_resnet18", "models.fix_resnet", 18, 102},
    {"resnet50_from_pytorchcv_resnet50b", "models.fix_resnet", 50, 267},
    {"resnet50_from_nvidia", "models.fix_resnet", 50, 267},
    {"mobilenetv1_from_pytorchcv_mobilenet_w1", "models.fix_mobilenet_v1", 0, 137},
    {"mobilenetv2_from_pytorchcv_mobilenetv2b_w1", "models.fix_mobilenet_v2", 0, 262},
};

/* The pairs are exactly the rows, and every tensor of the net but the counters is in one. */
static void compare_pairs(const Keymap *m, const TensorFile *f, const Net *net, const char *title)
{
    int counters = 0;
    for (int i = 0; i < net->store.n; i++)
        counters += str_ends(net->store.p[i]->name, ".num_batches_tracked");
    assert_int_equal(f->n, m->n);
    assert_int_equal(f->n + counters, net->store.n);
    for (size_t i = 0; i < m->n; i++) {
        const Row *r = &m->row[i];
        const Tensor *t = &f->v[i].t;
        if (!str_eq(f->v[i].name, r->net))
            fail_msg("%s: row %zu: %s became %s, expected %s", title, i + 1, r->source,
                     f->v[i].name, r->net);
        assert_int_equal(t->ndim, r->ndim);
        assert_memory_equal(t->dim, r->dim, (size_t)r->ndim * sizeof *r->dim);
    }
}

static void pairs_of_the_tables(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(tables); k++) {
        Keymap m;
        TensorFile f;
        Net net;
        Err e = {0};
        Row *bias;
        Str pairs = {0};
        read_keymap(&m, tables[k].keymap);
        make_net(&net, tables[k].model, tables[k].depth);
        make_source(&f, &m, false);
        assert_int_equal(m.n, tables[k].tensors);
        bias = &m.row[m.n - 1];
        if (!bias->stored) { /* pytorchcv's MobileNet V2 has a classifier without bias */
            assert_int_equal(layers_rename(&f, &net.store, false, NULL, &e), -1);
            assert_string_equal(e.msg, "classifier.0.bias of the net has no counterpart: linear "
                                       "layer 1 of the file, output, has no bias");
            tensors_free(&f);
            snprintf(bias->source, sizeof bias->source, "output.bias");
            bias->stored = 1;
            bias->shape[0] = 1000;
            make_source(&f, &m, false);
        }
        if (layers_rename(&f, &net.store, false, &pairs, &e))
            fail_msg("%s: %s", tables[k].keymap, e.msg);
        compare_pairs(&m, &f, &net, tables[k].keymap);
        assert_true(str_starts(pairs.s, m.row[0].net));
        str_free(&pairs);
        tensors_free(&f);
        net_free(&net);
        keymap_free(&m);
    }
}

/* Any two rows of one kind exchanged where the shapes differ is found, with both names. */
static void shapes_are_checked(void **state)
{
    Keymap m;
    TensorFile f;
    Net net;
    Err e = {0};
    (void)state;
    read_keymap(&m, tables[0].keymap);
    make_net(&net, tables[0].model, tables[0].depth);
    make_source(&f, &m, false);
    f.v[0].t.dim[2] = 5;
    assert_int_equal(layers_rename(&f, &net.store, false, NULL, &e), -1);
    assert_int_equal(e.kind, ERR_DATA);
    assert_string_equal(e.msg,
                        "convolution 1: features.init_block.conv.conv.weight is [64, 3, 5, 7] in "
                        "the file, head.0.conv.weight is [64, 3, 7, 7] in the net");
    tensors_free(&f);

    make_source(&f, &m, false); /* a convolution with a bias */
    f.v[5].t = tensor_make(DT_F32, 1, (int[]){64}, NULL);
    f.v[5].name = "features.init_block.conv.conv.bias";
    for (int i = 5; i > 1; i--) { /* behind its weight */
        const char *name = f.v[i].name;
        Tensor t = f.v[i].t;
        f.v[i] = f.v[i - 1];
        f.v[i - 1].name = name;
        f.v[i - 1].t = t;
    }
    assert_int_equal(layers_rename(&f, &net.store, false, NULL, &e), -1);
    assert_string_equal(e.msg, "features.init_block.conv.conv.bias: convolution 1 of the net, "
                               "head.0.conv, has no bias");
    tensors_free(&f);

    make_source(&f, &m, false); /* its last layers are missing */
    f.n -= 2;
    assert_int_equal(layers_rename(&f, &net.store, false, NULL, &e), -1);
    assert_string_equal(e.msg, "it has 20 convolutions, 20 norms, 0 linear layers; the net has 20 "
                               "convolutions, 20 norms, 1 linear layer");
    tensors_free(&f);
    net_free(&net);
    keymap_free(&m);
}

/* ---- through the configuration ---- */

#define HEAD "dataset: synthetic\nnum_classes: 1000\nsynth_train: 8\nsynth_val: 4\n"

static char *put_config(const char *text)
{
    char *path = fs_join(root, "t.yml");
    Err e = {0};
    if (fs_write(path, text, strlen(text), &e)) fail_msg("%s", e.msg);
    return path;
}

/* Opens a session of the text with what comes before pretrained_file, then that; "" or the message,
 * with "R" for the folder. */
static void open_text(Config *c, Session *s, const char *text, char *msg, size_t size)
{
    char *path = put_config(text);
    Err e = {0};
    Str out = {0};
    int r;
    str_puts(&out, "");
    if (config_load(c, path, 0, NULL, &e)) fail_msg("%s", e.msg);
    r = session_open(s, c, &e) || session_load_first(s, &e) ||
        (*c->run.pretrained_file && session_load(s, c->run.pretrained_file, &e));
    if (r) {
        assert_int_equal(e.kind, ERR_DATA);
        for (const char *p = e.msg; *p;) {
            const bool here = str_starts(p, root);
            str_putn(&out, here ? "R" : p, 1);
            p += here ? strlen(root) : 1;
        }
    }
    snprintf(msg, size, "%s", out.s);
    str_free(&out);
    free(path);
}

static void expect_fault(const char *text, const char *want)
{
    Config c;
    Session s;
    char msg[4096];
    open_text(&c, &s, text, msg, sizeof msg);
    if (!str_eq(msg, want)) fail_msg("got      %s\nexpected %s", msg, want);
    session_free(&s);
    config_free(&c);
}

static void expect_filled(const Session *s, const Keymap *m)
{
    const ParamStore *ps = model_store(s->model);
    for (size_t i = 0; i < m->n; i++) {
        const Param *p = store_find(ps, m->row[i].net);
        const float *v;
        size_t n;
        if (!p) fail_msg("the net has no %s", m->row[i].net);
        v = p->value.data;
        n = tensor_len(&p->value);
        if (v[0] != (float)(i + 1) || v[n - 1] != (float)(i + 1))
            fail_msg("%s holds %g .. %g, expected %zu", p->name, (double)v[0], (double)v[n - 1],
                     i + 1);
    }
    for (int i = 0; i < ps->n; i++) /* clip levels keep their own */
        if (str_ends(ps->p[i]->name, ".alpha"))
            assert_true(*(const float *)ps->p[i]->value.data == 8.0f);
}

static void pytorchcv_is_found(void **state)
{
    static const char text[] = HEAD "model: models.fix_mobilenet_v1\nptcv_pretrained: True\n"
                                    "weight_format: [8, 7]\ninput_format: [8, 6]\n";
    Keymap m;
    TensorFile f;
    Config c;
    Session s;
    char msg[4096], *file = fs_join(root, "mobilenet_w1-0895-7e1d739f.pth"),
                    *again = fs_join(root, "mobilenet_w1.pth"),
                    *other = fs_join(root, "mobilenet_w1-5c106cde.pth");
    (void)state;
    setenv("QRUN_DATA_DIR", root, 1);
    setenv("XDG_DATA_HOME", root, 1);
    setenv("HOME", root, 1);
    expect_fault(text,
                 "R/t.yml:6:1: error: ptcv_pretrained: no weights of pytorchcv's "
                 "mobilenet_w1: looked for mobilenet_w1.pth and "
                 "mobilenet_w1-EEEE-HHHHHHHH.pth in R, R/qrun, R/.torch/models; name the file "
                 "with ptcv_pretrained_file (nothing is downloaded)");
    read_keymap(&m, tables[3].keymap);
    make_source(&f, &m, true);
    write_file(&f, file);
    write_file(&f, other); /* torchvision's way of naming: not taken for pytorchcv's */
    open_text(&c, &s, text, msg, sizeof msg);
    if (*msg) fail_msg("%s", msg);
    expect_filled(&s, &m);
    session_free(&s);
    config_free(&c);
    write_file(&f, again);
    expect_fault(text, "R/t.yml:6:1: error: ptcv_pretrained: 2 files of pytorchcv's mobilenet_w1: "
                       "R/mobilenet_w1-0895-7e1d739f.pth R/mobilenet_w1.pth; name the one meant "
                       "with ptcv_pretrained_file");
    unlink(again);
    unlink(other);
    free(file);
    free(again);
    free(other);
    tensors_free(&f);
    keymap_free(&m);
}

/* The file that pytorchcv_is_found has left, in other hands. */
static void of_another_net(void **state)
{
    (void)state;
    setenv("QRUN_DATA_DIR", root, 1);
#define FILE_V1 "mobilenet_w1-0895-7e1d739f.pth"
    char *text = xasprintf(HEAD "model: models.fix_mobilenet_v2\nnvidia_pretrained: True\n"
                                "nvidia_pretrained_file: %s/" FILE_V1 "\n",
                           root);
    expect_fault(text, "R/t.yml:7:1: error: nvidia_pretrained_file: R/" FILE_V1
                       " holds mobilenet_v1, but the configuration asks for model: "
                       "models.fix_mobilenet_v2");
    free(text);
    text = xasprintf(HEAD "model: resnet\ndepth: 18\nptcv_pretrained: yes\n"
                          "pretrained_file: %s/" FILE_V1 "\n",
                     root); /* the import is not even looked for: the file replaces it */
    expect_fault(text, "R/t.yml:8:1: error: pretrained_file: R/" FILE_V1
                       " holds mobilenet_v1, but the configuration asks for model: resnet with "
                       "depth: 18");
    free(text);
    expect_fault(
        HEAD
        "model: models.fix_mobilenet_v2\nptcv_pretrained: yes\nptcv_pretrained_file: nowhere\n",
        "R/t.yml:7:1: error: ptcv_pretrained_file: nowhere: no such checkpoint or run folder");
    expect_fault(
        HEAD "model: resnet20\nptcv_pretrained: yes\n",
        "R/t.yml:6:1: error: ptcv_pretrained: pytorchcv's counterpart of model: resnet20 is "
        "not known; name its file with ptcv_pretrained_file");
}

/* ---- by position from the project's own nets: cheap ones ---- */

/* The state dict of `model`: tensor i of the net filled with i + 1. */
static void own_tensors(TensorFile *f, const char *model, bool counters)
{
    Net net;
    make_net(&net, model, 0);
    *f = (TensorFile){.v = NULL};
    f->v = arena_alloc(&f->arena, (size_t)net.store.n * sizeof *f->v);
    for (int i = 0; i < net.store.n; i++) {
        const Param *p = net.store.p[i];
        if (!counters && str_ends(p->name, ".num_batches_tracked")) continue;
        add(f, p->name, p->value.dtype, p->value.ndim, p->value.dim, true, (float)(i + 1));
    }
    net_free(&net);
}

/* A checkpoint of `model` in the folder. */
static char *make_own(const char *model, const char *name, bool counters)
{
    char *path = fs_join(root, name);
    TensorFile f;
    own_tensors(&f, model, counters);
    write_file(&f, path);
    tensors_free(&f);
    return path;
}

/* The same as a file of PyTorch. */
static char *make_pth(const char *model, const char *name, const char *key)
{
    char *path = fs_join(root, name);
    TensorFile f;
    own_tensors(&f, model, true);
    assert_int_equal(pth_write(path, &f, key, "module."), 0);
    tensors_free(&f);
    return path;
}

/* Each layer of the session's net holds what make_own has put into the layer of `model` at the same
 * place among its kind: its index in that net + 1. */
static void expect_own(const Session *s, const char *model)
{
    const ParamStore *ps = model_store(s->model);
    Net source;
    Layers from, to;
    make_net(&source, model, 0);
    layers_of_store(&from, &source.store);
    layers_of_store(&to, ps);
    for (int kind = 0; kind < LAYER_NKINDS; kind++) {
        assert_int_equal(from.count[kind], to.count[kind]);
        assert_true(to.count[kind] > 0);
        for (int k = 0; k < to.count[kind]; k++) {
            const Layer *a = layers_at(&from, (LayerKind)kind, k),
                        *b = layers_at(&to, (LayerKind)kind, k);
            for (int part = 0; part < LAYER_NPARTS; part++) {
                const Param *p = b->part[part] < 0 ? NULL : ps->p[b->part[part]];
                const float want = (float)(a->part[part] + 1), *v = p ? p->value.data : NULL;
                if (p && (v[0] != want || v[tensor_len(&p->value) - 1] != want))
                    fail_msg("%s holds %g, expected %g", p->name, (double)v[0], (double)want);
            }
        }
    }
    layers_free(&from);
    layers_free(&to);
    net_free(&source);
}

/* {model: {module.NAME: ...}, last_epoch: 3} as F8Net saves it, by name into the quantized net,
 * whose own parameters keep their values; the bare dict with the same prefix, as NVIDIA's, by
 * position. */
static void files_of_pytorch(void **state)
{
    char *f8 = make_pth("models.fix_mobilenet_v1", "best_model.pt", "model"),
         *bare = make_pth("resnet20", "bare.pth.tar", NULL), *text, msg[4096];
    Config c;
    Session s;
    (void)state;
    text = xasprintf(HEAD "model: models.fix_mobilenet_v1\nweight_format: [8, 7]\n"
                          "input_format: [8, 6]\nfp_pretrained_file: %s\n",
                     f8);
    open_text(&c, &s, text, msg, sizeof msg);
    assert_string_equal(msg, "");
    expect_own(&s, "models.fix_mobilenet_v1");
    session_free(&s);
    config_free(&c);
    free(text);
    text = xasprintf(HEAD
                     "model: q_resnet_cifar\ndepth: 20\nbits_list: [32]\nnvidia_pretrained: True\n"
                     "nvidia_pretrained_file: %s\n",
                     bare);
    open_text(&c, &s, text, msg, sizeof msg);
    assert_string_equal(msg, "");
    expect_own(&s, "resnet20");
    session_free(&s);
    config_free(&c);
    free(text);
    free(f8);
    free(bare);
}

static void remapped(void **state)
{
    char *file = make_own("res20", "apot20.safetensors", true), *text, msg[4096];
    Config c;
    Session s;
    (void)state;
    text = xasprintf(HEAD "model: q_resnet_cifar\ndepth: 20\nbits_list: [32]\npretrained_file: %s\n"
                          "pretrained_model_remap_keys: True\n",
                     file);
    open_text(&c, &s, text, msg, sizeof msg);
    if (*msg) fail_msg("%s", msg);
    expect_own(&s, "res20");
    session_free(&s);
    config_free(&c);
    free(text);
    free(file);
}

static void another_depth(void **state)
{
    static const char *const keys[] = {"pretrained_file", "fp_pretrained_file"};
    char *file = make_own("resnet20", "r20.safetensors", true), *text, *want;
    Config c;
    Session s;
    char msg[4096];
    (void)state;
    for (int i = 0; i < 4; i++) { /* by name and by position */
        const char *key = keys[i % 2];
        text = xasprintf(HEAD "model: resnet32\n%s: %s\npretrained_model_remap_keys: %s\n", key,
                         file, i < 2 ? "no" : "yes");
        want = xasprintf("R/t.yml:6:1: error: %s: R/r20.safetensors holds resnet20_cifar, but the "
                         "configuration asks for model: resnet32",
                         key);
        expect_fault(text, want);
        free(want);
        free(text);
    }
    text = xasprintf(HEAD "model: resnet32\nfp_pretrained_file: %s\nstrict_load: no\n", file);
    open_text(&c, &s, text, msg, sizeof msg); /* asked for: takes what fits */
    assert_string_equal(msg, "");
    session_free(&s);
    config_free(&c);
    free(text);
    free(file);
}

/* A file without counters of batches, as PyTorch before 0.4.1 wrote it, is complete. */
static void without_counters(void **state)
{
    char *file = make_own("resnet20", "old.safetensors", false), *text, msg[4096];
    Config c;
    Session s;
    (void)state;
    text = xasprintf(HEAD "model: resnet20\npretrained_file: %s\n", file);
    open_text(&c, &s, text, msg, sizeof msg);
    assert_string_equal(msg, "");
    session_free(&s);
    config_free(&c);
    free(text);
    free(file);
}

/* Each net of the registry is told by its own convolutions; those of the keyword language that have
 * another row's by that one, which stands before it. */
static void nets_are_told_apart(void **state)
{
    (void)state;
    for (int i = 0; nets[i]; i++) {
        const NetOpts o = net_usual(nets[i]);
        Spec spec = {0};
        TensorFile f = {0};
        Err e = {0};
        const NetDef *found;
        int *order, at = 0;
        if (net_build(&spec, &o, &e)) fail_msg("%s", e.msg);
        order = xcalloc((size_t)spec.n, sizeof *order);
        spec_declaration_order(&spec, order);
        f.v = arena_alloc(&f.arena, (size_t)spec.n * sizeof *f.v);
        for (int k = 0; k < spec.n; k++) {
            const Unit *u = &spec.u[order[k]];
            const ConvAttr *a = &u->u.conv;
            char name[64];
            int dim[4];
            if (u->kind != U_CONV) continue;
            dim[0] = a->oc, dim[1] = u->ic / (a->groups ? a->groups : 1);
            dim[2] = dim[3] = a->k;
            snprintf(name, sizeof name, "c%d.weight", k);
            add(&f, name, DT_F32, 4, dim, false, 0);
        }
        found = which_net(&f);
        while (at < i && nets[at] != found) at++;
        if (found != nets[i] && (nets[i]->names != NAMES_KEYWORD || at == i))
            fail_msg("%s was taken for %s", nets[i]->name, found ? found->name : "none");
        free(order);
        tensors_free(&f);
        spec_free(&spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_of_the_tables),
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(pytorchcv_is_found),
        cmocka_unit_test(of_another_net),
        cmocka_unit_test(remapped),
        cmocka_unit_test(files_of_pytorch),
        cmocka_unit_test(another_depth),
        cmocka_unit_test(without_counters),
        cmocka_unit_test(nets_are_told_apart),
    };
    return cmocka_run_group_tests(tests, make_root, drop_root);
}
