/* io/onnx.c -- see onnx.h: building and writing. The messages of protobuf-c are linked in place;
 * the model's arena holds them, so nothing is freed one by one. */
#include "io/onnx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "io/onnx.pb-c.h"

enum { MAX_BYTES = 0x7fffffff }; /* what a protobuf message may have */

struct Onnx {
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset, *opsets[1];
    size_t cap_node, cap_init, cap_in, cap_out, cap_meta;
    Arena arena;
};

/* ---- pieces ---- */

static char *text(Onnx *m, const char *s)
{
    return arena_strdup(&m->arena, s);
}

/* A new message of the type, initialised, in the arena. */
#define MESSAGE(m, Type, INIT)                                                                     \
    ((Type *)memcpy(arena_alloc(&(m)->arena, sizeof(Type)), &(Type)INIT, sizeof(Type)))

/* Appends `item` to a repeated field kept by malloc. */
#define APPEND(list, n, cap, item)                                                                 \
    do {                                                                                           \
        mem_grow(&(list), &(cap), (n) + 1, sizeof *(list));                                        \
        (list)[(n)++] = (item);                                                                    \
    } while (0)

int onnx_type(DType t)
{
    static const int number[DT_NTYPES] = {
        [DT_F32] = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
        [DT_BF16] = ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16,
        [DT_S64] = ONNX__TENSOR_PROTO__DATA_TYPE__INT64,
        [DT_S32] = ONNX__TENSOR_PROTO__DATA_TYPE__INT32,
        [DT_S8] = ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
        [DT_U8] = ONNX__TENSOR_PROTO__DATA_TYPE__UINT8,
    };
    ASSERT((unsigned)t < DT_NTYPES, "type %d", (int)t);
    return number[t];
}

Onnx *onnx_new(const char *graph_name, const char *doc)
{
    Onnx *m = xcalloc(1, sizeof *m);
    m->model = (Onnx__ModelProto)ONNX__MODEL_PROTO__INIT;
    m->graph = (Onnx__GraphProto)ONNX__GRAPH_PROTO__INIT;
    m->opset = (Onnx__OperatorSetIdProto)ONNX__OPERATOR_SET_ID_PROTO__INIT;
    m->opset.domain = text(m, "");
    m->opset.has_version = 1;
    m->opset.version = ONNX_OPSET;
    m->opsets[0] = &m->opset;
    m->model.has_ir_version = 1;
    m->model.ir_version = ONNX_IR_VERSION;
    m->model.n_opset_import = 1;
    m->model.opset_import = m->opsets;
    m->model.producer_name = text(m, "qrun");
    m->model.producer_version = text(m, QRUN_VERSION);
    m->model.graph = &m->graph;
    m->graph.name = text(m, graph_name);
    if (doc && *doc) m->graph.doc_string = text(m, doc);
    return m;
}

void onnx_free(Onnx *m)
{
    if (!m) return;
    free(m->graph.node);
    free(m->graph.initializer);
    free(m->graph.input);
    free(m->graph.output);
    free(m->model.metadata_props);
    arena_free(&m->arena);
    free(m);
}

void *onnx_alloc(Onnx *m, size_t bytes)
{
    return arena_alloc(&m->arena, bytes);
}

void onnx_meta(Onnx *m, const char *key, const char *fmt, ...)
{
    Onnx__StringStringEntryProto *p =
        MESSAGE(m, Onnx__StringStringEntryProto, ONNX__STRING_STRING_ENTRY_PROTO__INIT);
    char *value = NULL;
    va_list ap;
    for (size_t i = 0; i < m->model.n_metadata_props; i++)
        ASSERT(strcmp(m->model.metadata_props[i]->key, key) != 0, "metadata '%s' twice", key);
    va_start(ap, fmt);
    if (vasprintf(&value, fmt, ap) < 0) value = xstrdup("");
    va_end(ap);
    p->key = text(m, key);
    p->value = text(m, value);
    free(value);
    APPEND(m->model.metadata_props, m->model.n_metadata_props, m->cap_meta, p);
}

/* ---- names ---- */

static Onnx__TensorProto *find_init(const Onnx *m, const char *name)
{
    for (size_t i = 0; i < m->graph.n_initializer; i++)
        if (!strcmp(m->graph.initializer[i]->name, name)) return m->graph.initializer[i];
    return NULL;
}

static bool value_exists(const Onnx *m, const char *name)
{
    const Onnx__GraphProto *g = &m->graph;
    for (size_t i = 0; i < g->n_input; i++)
        if (!strcmp(g->input[i]->name, name)) return true;
    for (size_t i = 0; i < g->n_node; i++)
        if (!strcmp(g->node[i]->output[0], name)) return true;
    return find_init(m, name) != NULL;
}

static bool node_exists(const Onnx *m, const char *name)
{
    for (size_t i = 0; i < m->graph.n_node; i++)
        if (!strcmp(m->graph.node[i]->name, name)) return true;
    return false;
}

/* ---- inputs and outputs ---- */

static Onnx__ValueInfoProto *value_info(Onnx *m, const char *name, DType type, int ndim,
                                        const int *dim)
{
    Onnx__ValueInfoProto *v = MESSAGE(m, Onnx__ValueInfoProto, ONNX__VALUE_INFO_PROTO__INIT);
    Onnx__TypeProto *t = MESSAGE(m, Onnx__TypeProto, ONNX__TYPE_PROTO__INIT);
    Onnx__TypeProto__Tensor *tensor =
        MESSAGE(m, Onnx__TypeProto__Tensor, ONNX__TYPE_PROTO__TENSOR__INIT);
    Onnx__TensorShapeProto *s = MESSAGE(m, Onnx__TensorShapeProto, ONNX__TENSOR_SHAPE_PROTO__INIT);
    s->n_dim = (size_t)ndim;
    s->dim = arena_alloc(&m->arena, (size_t)ndim * sizeof *s->dim);
    for (int i = 0; i < ndim; i++) {
        Onnx__TensorShapeProto__Dimension *d = MESSAGE(m, Onnx__TensorShapeProto__Dimension,
                                                       ONNX__TENSOR_SHAPE_PROTO__DIMENSION__INIT);
        if (i == 0) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            d->dim_param = text(m, "N");
        } else {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            d->dim_value = dim[i];
        }
        s->dim[i] = d;
    }
    tensor->has_elem_type = 1;
    tensor->elem_type = onnx_type(type);
    tensor->shape = s;
    t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    t->tensor_type = tensor;
    v->name = text(m, name);
    v->type = t;
    return v;
}

const char *onnx_input(Onnx *m, const char *name, DType type, int ndim, const int *dim)
{
    Onnx__ValueInfoProto *v = value_info(m, name, type, ndim, dim);
    ASSERT(!value_exists(m, name), "value '%s' twice", name);
    APPEND(m->graph.input, m->graph.n_input, m->cap_in, v);
    return v->name;
}

const char *onnx_output(Onnx *m, const char *value, const char *name, DType type, int ndim,
                        const int *dim)
{
    Onnx__ValueInfoProto *v = value_info(m, name, type, ndim, dim);
    char *old = text(m, value);
    int made = 0;
    ASSERT(!value_exists(m, name), "value '%s' twice", name);
    for (size_t i = 0; i < m->graph.n_node; i++) {
        Onnx__NodeProto *n = m->graph.node[i];
        for (size_t k = 0; k < n->n_input; k++)
            if (!strcmp(n->input[k], old)) n->input[k] = v->name;
        if (strcmp(n->output[0], old) != 0) continue;
        n->output[0] = v->name;
        made++;
    }
    ASSERT(made == 1, "output '%s' is made by %d nodes", old, made);
    APPEND(m->graph.output, m->graph.n_output, m->cap_out, v);
    return v->name;
}

/* ---- initializers ---- */

static const char *add_init(Onnx *m, DType type, int ndim, const int *dim, const void *data,
                            const char *name)
{
    Onnx__TensorProto *t = MESSAGE(m, Onnx__TensorProto, ONNX__TENSOR_PROTO__INIT);
    size_t n = 1;
    ASSERT(!value_exists(m, name), "value '%s' twice", name);
    t->n_dims = (size_t)ndim;
    t->dims = arena_alloc(&m->arena, (size_t)ndim * sizeof *t->dims);
    for (int i = 0; i < ndim; i++) n *= (size_t)(t->dims[i] = dim[i]);
    t->has_data_type = 1;
    t->data_type = onnx_type(type);
    t->name = text(m, name);
    t->has_raw_data = 1;
    t->raw_data.len = n * dtype_size(type);
    t->raw_data.data = (uint8_t *)(uintptr_t)data; /* read only */
    APPEND(m->graph.initializer, m->graph.n_initializer, m->cap_init, t);
    return t->name;
}

const char *onnx_init(Onnx *m, DType type, int ndim, const int *dim, const void *data,
                      const char *fmt, ...)
{
    char name[512];
    FORMAT_NAME(name, fmt);
    return add_init(m, type, ndim, dim, data, name);
}

/* `value` in the type's own form; it is exact in it. */
static void store_scalar_value(DType type, double value, void *out)
{
    switch (type) {
    case DT_F32:
        *(float *)out = (float)value;
        break;
    case DT_S64:
        *(int64_t *)out = (int64_t)value;
        break;
    case DT_S32:
        *(int32_t *)out = (int32_t)value;
        break;
    case DT_S8:
        *(int8_t *)out = (int8_t)value;
        break;
    case DT_U8:
        *(uint8_t *)out = (uint8_t)value;
        break;
    default:
        ASSERT(0, "no constants of type %s", dtype_name(type));
    }
}

const char *onnx_scalar(Onnx *m, DType type, double value)
{
    char name[64];
    const Onnx__TensorProto *t;
    void *data;
    snprintf(name, sizeof name, "const/%s/%.17g", dtype_name(type), value);
    if ((t = find_init(m, name))) return t->name;
    data = onnx_alloc(m, sizeof(int64_t));
    store_scalar_value(type, value, data);
    return add_init(m, type, 0, NULL, data, name);
}

const char *onnx_list(Onnx *m, int n, const int *v)
{
    Str name = {0};
    const Onnx__TensorProto *t;
    const char *made;
    int64_t *data;
    str_puts(&name, "const/s64/[");
    for (int i = 0; i < n; i++) str_printf(&name, "%s%d", i ? "," : "", v[i]);
    str_puts(&name, "]");
    if ((t = find_init(m, name.s))) {
        made = t->name;
    } else {
        data = onnx_alloc(m, (size_t)n * sizeof *data);
        for (int i = 0; i < n; i++) data[i] = v[i];
        made = add_init(m, DT_S64, 1, &n, data, name.s);
    }
    str_free(&name);
    return made;
}

/* ---- nodes ---- */

const char *onnx_node(Onnx *m, const char *op, const char *name, const char *const *in)
{
    Onnx__NodeProto *n = MESSAGE(m, Onnx__NodeProto, ONNX__NODE_PROTO__INIT);
    size_t nin = 0;
    n->name = text(m, name);
    for (int i = 2; node_exists(m, n->name); i++)
        n->name = arena_printf(&m->arena, "%s_%d", name, i);
    n->op_type = text(m, op);
    while (in[nin]) nin++;
    n->n_input = nin;
    n->input = arena_alloc(&m->arena, nin * sizeof *n->input);
    for (size_t i = 0; i < nin; i++) {
        ASSERT(!*in[i] || value_exists(m, in[i]), "%s %s reads '%s', which is not there", op, name,
               in[i]);
        n->input[i] = text(m, in[i]);
    }
    n->n_output = 1;
    n->output = arena_alloc(&m->arena, sizeof *n->output);
    n->output[0] = arena_printf(&m->arena, "%s/out", n->name);
    ASSERT(!value_exists(m, n->output[0]), "value '%s' twice", n->output[0]);
    APPEND(m->graph.node, m->graph.n_node, m->cap_node, n);
    return n->output[0];
}

/* A new attribute of the node added last. */
static Onnx__AttributeProto *attr(Onnx *m, const char *name,
                                  Onnx__AttributeProto__AttributeType type)
{
    enum { MOST = 8 };
    Onnx__AttributeProto *a = MESSAGE(m, Onnx__AttributeProto, ONNX__ATTRIBUTE_PROTO__INIT);
    Onnx__NodeProto *n;
    ASSERT(m->graph.n_node, "attribute '%s' without a node", name);
    n = m->graph.node[m->graph.n_node - 1];
    if (!n->attribute) n->attribute = arena_alloc(&m->arena, MOST * sizeof *n->attribute);
    ASSERT(n->n_attribute < MOST, "more than %d attributes", MOST);
    a->name = text(m, name);
    a->has_type = 1;
    a->type = type;
    n->attribute[n->n_attribute++] = a;
    return a;
}

void onnx_attr_int(Onnx *m, const char *name, int v)
{
    Onnx__AttributeProto *a = attr(m, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    a->has_i = 1;
    a->i = v;
}

void onnx_attr_ints(Onnx *m, const char *name, int n, const int *v)
{
    Onnx__AttributeProto *a = attr(m, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    a->n_ints = (size_t)n;
    a->ints = arena_alloc(&m->arena, (size_t)n * sizeof *a->ints);
    for (int i = 0; i < n; i++) a->ints[i] = v[i];
}

void onnx_attr_float(Onnx *m, const char *name, float v)
{
    Onnx__AttributeProto *a = attr(m, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    a->has_f = 1;
    a->f = v;
}

void onnx_attr_text(Onnx *m, const char *name, const char *v)
{
    Onnx__AttributeProto *a = attr(m, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    a->has_s = 1;
    a->s.data = (uint8_t *)text(m, v);
    a->s.len = strlen(v);
}

/* ---- writing ---- */

/* Protobuf's buffer that goes straight into the file. */
typedef struct FileBuffer {
    ProtobufCBuffer base;
    FILE *f;
} FileBuffer;

static void append_to_file(ProtobufCBuffer *b, size_t len, const uint8_t *data)
{
    FileBuffer *fb = (FileBuffer *)b; /* base is its first member */
    fwrite(data, 1, len, fb->f);      /* a fault stays in ferror and is reported by fs_commit */
}

/* The file holds what the model holds: names, sizes, and the bytes of every initializer. */
static int verify(const Onnx *m, const char *path, Err *e)
{
    const Onnx__GraphProto *g = &m->graph;
    OnnxFile f;
    const char *what = NULL;
    if (onnx_read(&f, path, e)) {
        onnx_file_free(&f);
        return -1;
    }
    if ((size_t)f.nnode != g->n_node || (size_t)f.ninit != g->n_initializer)
        what = "another number of nodes or initializers";
    for (int i = 0; !what && i < f.nnode; i++)
        if (strcmp(f.node[i].op, g->node[i]->op_type) || strcmp(f.node[i].name, g->node[i]->name))
            what = g->node[i]->name;
    for (int i = 0; !what && i < f.ninit; i++) {
        const Onnx__TensorProto *t = g->initializer[i];
        if (strcmp(f.init[i].name, t->name) || f.init[i].bytes != t->raw_data.len ||
            memcmp(f.init[i].data, t->raw_data.data, t->raw_data.len) != 0)
            what = t->name;
    }
    onnx_file_free(&f);
    return what ? err_set(e, ERR_EXPECT, "%s: read back, it differs from what was written: %s",
                          path, what)
                : 0;
}

int onnx_write(const Onnx *m, const char *path, Err *e)
{
    FileBuffer b = {.base = {.append = append_to_file}};
    AtomicFile a;
    const size_t bytes = onnx__model_proto__get_packed_size(&m->model);
    if (bytes > MAX_BYTES)
        return err_set(e, ERR_RUN, "%s: the model has %zu bytes; an ONNX file has at most %d", path,
                       bytes, MAX_BYTES);
    if (fs_begin(&a, path, e)) return -1;
    b.f = a.f;
    onnx__model_proto__pack_to_buffer(&m->model, &b.base);
    return fs_commit(&a, e) ? -1 : verify(m, path, e);
}
