/* engine/prim_dnnl.h -- what the files of the oneDNN shim (prim*.c) share: the engine, status
 * checks, and a primitive with its arguments. Private to them: it shows dnnl.h. */
#ifndef ENGINE_PRIM_DNNL_H
#define ENGINE_PRIM_DNNL_H

#include <dnnl.h>
#include <string.h>

#include "engine/mem.h"
#include "engine/prim.h"

struct Prim {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

static inline int failed(dnnl_status_t s, const char *what, Err *e)
{
    if (s == dnnl_success) return 0;
    return err_set(e, ERR_RUN, "oneDNN: %s: status %d%s", what, (int)s,
                   s == dnnl_unimplemented   ? " (unimplemented)"
                   : s == dnnl_out_of_memory ? " (out of memory)"
                                             : "");
}

static inline void must(dnnl_status_t s, const char *what)
{
    ASSERT(s == dnnl_success, "oneDNN: %s: status %d", what, (int)s);
}

static inline dnnl_memory_t memory(const Prim *p, const dnnl_memory_desc_t *d)
{
    dnnl_memory_t m;
    must(dnnl_memory_create(&m, d, p->engine, DNNL_MEMORY_NONE), "memory");
    return m;
}

static inline const dnnl_memory_desc_t *query(const_dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    const dnnl_memory_desc_t *d = dnnl_primitive_desc_query_md(pd, what, 0);
    ASSERT(d, "query %d", (int)what);
    return d;
}

static inline const char *impl_name(const_dnnl_primitive_desc_t pd)
{
    const char *s = NULL;
    must(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &s), "implementation name");
    return s;
}

/* Whether the library's implementation of that name is not to be used for a convolution. */
typedef bool Faulty(const char *impl, const ConvShape *s);

/* The library's first implementation that is not faulty. */
static inline dnnl_status_t sound_desc(dnnl_primitive_desc_t *pd, const dnnl_convolution_desc_t *d,
                                       const_dnnl_primitive_attr_t attr, const Prim *p,
                                       const_dnnl_primitive_desc_t hint, Faulty *faulty,
                                       const ConvShape *s)
{
    dnnl_primitive_desc_iterator_t it;
    dnnl_status_t st = dnnl_primitive_desc_iterator_create(&it, d, attr, p->engine, hint);
    for (; st == dnnl_success; st = dnnl_primitive_desc_iterator_next(it)) {
        *pd = dnnl_primitive_desc_iterator_fetch(it);
        if (!faulty(impl_name(*pd), s)) break;
        dnnl_primitive_desc_destroy(*pd);
        *pd = NULL;
    }
    if (st == dnnl_success || st == dnnl_iterator_ends) dnnl_primitive_desc_iterator_destroy(it);
    return st;
}

/* A primitive with its arguments bound to memory objects whose data pointers are set at each run.
 */
#define MAX_ARGS 10
typedef struct Bound {
    const Prim *prim;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t prv;
    dnnl_exec_arg_t arg[MAX_ARGS];
    int nargs;
    size_t scratch;
} Bound;

static inline void bound_arg(Bound *b, int id, const dnnl_memory_desc_t *d)
{
    ASSERT(b->nargs < MAX_ARGS, "%d arguments", b->nargs);
    b->arg[b->nargs].arg = id;
    b->arg[b->nargs++].memory = memory(b->prim, d);
}

static inline void bound_set(const Bound *b, int id, const void *data)
{
    void *p;
    memcpy(&p, &data, sizeof p); /* oneDNN takes read-only arguments through void * */
    for (int i = 0; i < b->nargs; i++)
        if (b->arg[i].arg == id) {
            must(dnnl_memory_set_data_handle(b->arg[i].memory, p), "data handle");
            return;
        }
}

static inline int bound_make(Bound *b, Err *e)
{
    const dnnl_memory_desc_t *d = query(b->pd, dnnl_query_scratchpad_md);
    if (failed(dnnl_primitive_create(&b->prv, b->pd), "primitive", e)) return -1;
    b->scratch = dnnl_memory_desc_get_size(d);
    bound_arg(b, DNNL_ARG_SCRATCHPAD, d);
    return 0;
}

static inline void bound_run(const Bound *b, void *scratch)
{
    bound_set(b, DNNL_ARG_SCRATCHPAD, scratch);
    must(dnnl_primitive_execute(b->prv, b->prim->stream, b->nargs, b->arg), "execute");
    must(dnnl_stream_wait(b->prim->stream), "wait");
}

static inline void bound_free(Bound *b)
{
    for (int i = 0; i < b->nargs; i++) dnnl_memory_destroy(b->arg[i].memory);
    if (b->prv) dnnl_primitive_destroy(b->prv);
    if (b->pd) dnnl_primitive_desc_destroy(b->pd);
}

static inline dnnl_primitive_attr_t user_scratch(void)
{
    dnnl_primitive_attr_t a;
    must(dnnl_primitive_attr_create(&a), "attributes");
    must(dnnl_primitive_attr_set_scratchpad_mode(a, dnnl_scratchpad_mode_user), "scratchpad mode");
    return a;
}

/* Copies between two formats, weights into the packed one above all. */
static inline int reorder_make(const Prim *p, const dnnl_memory_desc_t *from,
                               const dnnl_memory_desc_t *to, dnnl_primitive_t *r, Err *e)
{
    dnnl_primitive_desc_t pd;
    dnnl_status_t s;
    if (failed(dnnl_reorder_primitive_desc_create(&pd, from, p->engine, to, p->engine, NULL),
               "reorder descriptor", e))
        return -1;
    s = dnnl_primitive_create(r, pd);
    dnnl_primitive_desc_destroy(pd);
    return failed(s, "reorder", e);
}

static inline void reorder_run(const Prim *p, dnnl_primitive_t r, dnnl_memory_t from,
                               const void *src, dnnl_memory_t to, void *dst)
{
    dnnl_exec_arg_t arg[2] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    void *s;
    memcpy(&s, &src, sizeof s);
    must(dnnl_memory_set_data_handle(from, s), "reorder source");
    must(dnnl_memory_set_data_handle(to, dst), "reorder target");
    must(dnnl_primitive_execute(r, p->stream, 2, arg), "reorder");
    must(dnnl_stream_wait(p->stream), "wait");
}

#endif
