/* io/onnx_read.c -- see onnx.h: reading a file and checking what every runtime relies on. */
#include "io/onnx.h"

#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "io/onnx.pb-c.h"

static const char *text(OnnxFile *f, const char *s)
{
    return s ? arena_strdup(&f->arena, s) : "";
}

/* Bytes of one element of ONNX's types; 0: no type of fixed size. */
static size_t element_size(int type)
{
    switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8:
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT8:
    case ONNX__TENSOR_PROTO__DATA_TYPE__BOOL:
        return 1;
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT16:
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT16:
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16:
    case ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16:
        return 2;
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT32:
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT32:
        return 4;
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT64:
    case ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE:
        return 8;
    default:
        return 0;
    }
}

/* ---- names: a sorted list that tells whether one is there ---- */

typedef struct Names {
    const char **s;
    size_t n, cap;
} Names;

/* Where `name` stands or belongs. */
static size_t name_place(const Names *t, const char *name, bool *found)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const int c = strcmp(t->s[mid], name);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}

static bool name_has(const Names *t, const char *name)
{
    bool found;
    name_place(t, name, &found);
    return found;
}

/* Adds it; false when it was there. */
static bool name_add(Names *t, const char *name)
{
    bool found;
    const size_t at = name_place(t, name, &found);
    if (found) return false;
    mem_grow(&t->s, &t->cap, t->n + 1, sizeof *t->s);
    memmove(t->s + at + 1, t->s + at, (t->n - at) * sizeof *t->s);
    t->s[at] = name;
    t->n++;
    return true;
}

/* ---- tensors ---- */

static int read_init(OnnxFile *f, OnnxTensor *t, const Onnx__TensorProto *p, const char *path,
                     Err *e)
{
    size_t size, n = 1;
    *t = (OnnxTensor){.name = text(f, p->name), .type = p->data_type, .ndim = (int)p->n_dims};
    if (p->n_dims > ARRAY_LEN(t->dim))
        return err_set(e, ERR_DATA, "%s: initializer '%s' has %zu dimensions; at most %zu are read",
                       path, t->name, p->n_dims, ARRAY_LEN(t->dim));
    size = element_size(t->type);
    if (!size)
        return err_set(e, ERR_DATA, "%s: initializer '%s' has data type %d, which is not read",
                       path, t->name, t->type);
    for (int i = 0; i < t->ndim; i++) {
        t->dim[i] = p->dims[i];
        if (t->dim[i] < 0 || (t->dim[i] && n > SIZE_MAX / 16 / (size_t)t->dim[i]))
            return err_set(e, ERR_DATA, "%s: initializer '%s' has an impossible shape", path,
                           t->name);
        n *= (size_t)t->dim[i];
    }
    if (!p->has_raw_data) return 0; /* typed lists are allowed; they are only counted here */
    t->bytes = p->raw_data.len;
    if (t->bytes != n * size)
        return err_set(e, ERR_DATA, "%s: initializer '%s' has %zu bytes; its shape asks for %zu",
                       path, t->name, t->bytes, n * size);
    t->data = memcpy(arena_alloc(&f->arena, t->bytes + 1), p->raw_data.data, t->bytes);
    return 0;
}

static int read_value(OnnxFile *f, OnnxTensor *t, const Onnx__ValueInfoProto *p, const char *path,
                      Err *e)
{
    const Onnx__TypeProto__Tensor *type;
    *t = (OnnxTensor){.name = text(f, p->name)};
    if (!p->type || p->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ||
        !p->type->tensor_type || !p->type->tensor_type->has_elem_type)
        return err_set(e, ERR_DATA, "%s: '%s' is no tensor of a known type", path, t->name);
    type = p->type->tensor_type;
    t->type = type->elem_type;
    if (!type->shape) return 0;
    if (type->shape->n_dim > ARRAY_LEN(t->dim))
        return err_set(e, ERR_DATA, "%s: '%s' has %zu dimensions; at most %zu are read", path,
                       t->name, type->shape->n_dim, ARRAY_LEN(t->dim));
    t->ndim = (int)type->shape->n_dim;
    for (int i = 0; i < t->ndim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = type->shape->dim[i];
        t->dim[i] = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
                        ? d->dim_value
                        : -1;
    }
    return 0;
}

static void read_node(OnnxFile *f, OnnxNodeInfo *n, const Onnx__NodeProto *p)
{
    *n = (OnnxNodeInfo){.op = text(f, p->op_type), .name = text(f, p->name)};
    n->nin = (int)p->n_input;
    n->nout = (int)p->n_output;
    n->in = arena_alloc(&f->arena, p->n_input * sizeof *n->in);
    n->out = arena_alloc(&f->arena, p->n_output * sizeof *n->out);
    for (size_t i = 0; i < p->n_input; i++) n->in[i] = text(f, p->input[i]);
    for (size_t i = 0; i < p->n_output; i++) n->out[i] = text(f, p->output[i]);
}

static int read_graph(OnnxFile *f, const Onnx__ModelProto *m, const char *path, Err *e)
{
    const Onnx__GraphProto *g = m->graph;
    f->ir_version = m->has_ir_version ? m->ir_version : 0;
    for (size_t i = 0; i < m->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = m->opset_import[i];
        if (!o->domain || !*o->domain) f->opset = o->version;
    }
    if (!f->ir_version || !f->opset)
        return err_set(e, ERR_DATA, "%s: not an ONNX model: no %s", path,
                       f->ir_version ? "opset of the standard operators" : "IR version");
    if (!g) return err_set(e, ERR_DATA, "%s: the model has no graph", path);
    f->producer = text(f, m->producer_name);
    f->init = arena_alloc(&f->arena, g->n_initializer * sizeof *f->init);
    f->input = arena_alloc(&f->arena, g->n_input * sizeof *f->input);
    f->output = arena_alloc(&f->arena, g->n_output * sizeof *f->output);
    f->node = arena_alloc(&f->arena, g->n_node * sizeof *f->node);
    f->meta = arena_alloc(&f->arena, m->n_metadata_props * sizeof *f->meta);
    for (size_t i = 0; i < g->n_initializer; i++)
        if (read_init(f, &f->init[f->ninit++], g->initializer[i], path, e)) return -1;
    for (size_t i = 0; i < g->n_input; i++)
        if (read_value(f, &f->input[f->ninput++], g->input[i], path, e)) return -1;
    for (size_t i = 0; i < g->n_output; i++)
        if (read_value(f, &f->output[f->noutput++], g->output[i], path, e)) return -1;
    for (size_t i = 0; i < g->n_node; i++) read_node(f, &f->node[f->nnode++], g->node[i]);
    for (size_t i = 0; i < m->n_metadata_props; i++) {
        f->meta[f->nmeta].key = text(f, m->metadata_props[i]->key);
        f->meta[f->nmeta++].value = text(f, m->metadata_props[i]->value);
    }
    return 0;
}

/* ---- structure ---- */

static int check_structure(const OnnxFile *f, const char *path, Names *made, Names *nodes,
                           Names *read, Err *e)
{
    if (!f->ninput || !f->noutput || !f->nnode)
        return err_set(e, ERR_DATA, "%s: a graph of %d inputs, %d nodes and %d outputs", path,
                       f->ninput, f->nnode, f->noutput);
    for (int i = 0; i < f->ninput + f->ninit; i++) {
        const char *name = i < f->ninput ? f->input[i].name : f->init[i - f->ninput].name;
        if (!name_add(made, name))
            return err_set(e, ERR_DATA, "%s: value '%s' is made twice", path, name);
    }
    for (int i = 0; i < f->nnode; i++) {
        const OnnxNodeInfo *n = &f->node[i];
        if (!*n->op || !n->nout)
            return err_set(e, ERR_DATA, "%s: node '%s' has no %s", path, n->name,
                           *n->op ? "output" : "operator");
        if (*n->name && !name_add(nodes, n->name))
            return err_set(e, ERR_DATA, "%s: two nodes are called '%s'", path, n->name);
        for (int k = 0; k < n->nin; k++) {
            if (!*n->in[k]) continue; /* an optional input left out */
            if (!name_has(made, n->in[k]))
                return err_set(e, ERR_DATA, "%s: node '%s' (%s) reads '%s' before it is made", path,
                               n->name, n->op, n->in[k]);
            name_add(read, n->in[k]);
        }
        for (int k = 0; k < n->nout; k++)
            if (*n->out[k] && !name_add(made, n->out[k]))
                return err_set(e, ERR_DATA, "%s: value '%s' is made twice", path, n->out[k]);
    }
    for (int i = 0; i < f->noutput; i++) {
        if (!name_has(made, f->output[i].name))
            return err_set(e, ERR_DATA, "%s: nothing makes the output '%s'", path,
                           f->output[i].name);
        name_add(read, f->output[i].name);
    }
    for (int i = 0; i < f->ninit; i++)
        if (!name_has(read, f->init[i].name))
            return err_set(e, ERR_DATA, "%s: nothing reads the initializer '%s'", path,
                           f->init[i].name);
    return 0;
}

int onnx_read(OnnxFile *f, const char *path, Err *e)
{
    Names made = {0}, nodes = {0}, read = {0};
    Onnx__ModelProto *m;
    FileMap map;
    int r;
    *f = (OnnxFile){0};
    if (fs_map(&map, path, e)) return -1;
    m = onnx__model_proto__unpack(NULL, map.len, map.data);
    fs_unmap(&map);
    if (!m) return err_set(e, ERR_DATA, "%s: cut short, or not an ONNX file", path);
    r = read_graph(f, m, path, e);
    onnx__model_proto__free_unpacked(m, NULL);
    if (!r) r = check_structure(f, path, &made, &nodes, &read, e);
    free(made.s);
    free(nodes.s);
    free(read.s);
    return r;
}

void onnx_file_free(OnnxFile *f)
{
    arena_free(&f->arena);
    *f = (OnnxFile){0};
}
