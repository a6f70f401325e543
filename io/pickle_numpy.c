/* io/pickle_numpy.c -- numpy arrays in pickles: the names CIFAR's python batches need, and what
 * they mean.
 *
 * An array is the call _reconstruct(ndarray, (0,), 'b') with the state (version, shape, dtype,
 * fortran order, bytes); a dtype is the call dtype('u1', 0, 1) with a state whose second entry is
 * the byte order. Nothing of numpy's objects or structured types is read. */
#include "io/pickle.h"

enum { NP_RECONSTRUCT = 1, NP_NDARRAY, NP_DTYPE, NP_ENCODE };

static const PyGlobal numpy_names[] = {
    {"numpy.core.multiarray", "_reconstruct", PG_CALL | PG_BUILD, NP_RECONSTRUCT},
    {"numpy._core.multiarray", "_reconstruct", PG_CALL | PG_BUILD, NP_RECONSTRUCT},
    {"numpy", "ndarray", 0, NP_NDARRAY},
    {"numpy", "dtype", PG_CALL | PG_BUILD, NP_DTYPE},
    {"_codecs", "encode", PG_LATIN1, NP_ENCODE},
};

const PickleRules pickle_numpy = {numpy_names, ARRAY_LEN(numpy_names), PICKLE_TEXT};

static bool is_call(const PyObj *o, int id)
{
    return o && o->kind == PY_CALL && o->g->id == id;
}

static const PyObj *item(const PyObj *tuple, size_t i)
{
    return tuple && tuple->kind == PY_TUPLE && i < tuple->n ? tuple->v[i] : NULL;
}

static int read_dtype(const PyObj *o, PyArray *a, Err *e)
{
    const PyObj *code, *order;
    if (!is_call(o, NP_DTYPE) || o->n != 2) return err_set(e, ERR_DATA, "a damaged numpy dtype");
    code = item(o->v[0], 0);
    order = item(o->v[1], 1);
    for (const char *t = "u1u2u4u8i1i2i4i8f2f4f8b1"; *t; t += 2) {
        char text[3] = {t[0], t[1], 0};
        if (!py_is_text(code, text)) continue;
        a->type = t[0];
        a->size = t[1] - '0';
        if (py_is_text(order, ">") && a->size > 1)
            return err_set(e, ERR_DATA, "a big-endian numpy array");
        return 0;
    }
    return err_set(e, ERR_DATA, "a numpy array whose type is not a plain number");
}

int py_ndarray(const PyObj *o, PyArray *a, Err *e)
{
    const PyObj *shape, *fortran, *data;
    uint64_t want;
    *a = (PyArray){0};
    if (!is_call(o, NP_RECONSTRUCT) || o->n != 2 || o->v[1]->kind != PY_TUPLE || o->v[1]->n != 5)
        return err_set(e, ERR_DATA, "a %s where a numpy array is wanted",
                       o ? py_kind_name(o->kind) : "missing entry");
    shape = o->v[1]->v[1];
    fortran = o->v[1]->v[3];
    data = o->v[1]->v[4];
    if (read_dtype(o->v[1]->v[2], a, e) < 0) return -1;
    if (shape->kind != PY_TUPLE || shape->n > ARRAY_LEN(a->dim) || data->kind != PY_BYTES)
        return err_set(e, ERR_DATA, "a damaged numpy array");
    want = (uint64_t)a->size;
    for (size_t i = 0; i < shape->n; i++) {
        int64_t d;
        if (!py_int(shape->v[i], &d) || d < 0 || __builtin_mul_overflow(want, (uint64_t)d, &want))
            return err_set(e, ERR_DATA, "a numpy array of impossible shape");
        a->dim[a->ndim++] = d;
    }
    if (want != data->n)
        return err_set(e, ERR_DATA, "a numpy array of %llu bytes by its shape, %zu in the file",
                       (unsigned long long)want, data->n);
    a->fortran = (fortran->kind == PY_BOOL || fortran->kind == PY_INT) && fortran->i;
    a->data = (const unsigned char *)data->s;
    return 0;
}
