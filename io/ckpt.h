/* io/ckpt.h -- tensors in files: our safetensors checkpoints, and PyTorch's .pth read only. */
#ifndef IO_CKPT_H
#define IO_CKPT_H

#include "engine/store.h"

/* Any checkpoint file, read. Names as in the file; tensors in file order; F16/BF16/F64 converted to
 * f32, integers and bool kept (BOOL as u8, I16 as s32). */
typedef struct TensorFile {
    struct {
        const char *name;
        Tensor t;
        const char *type; /* in the file: "F32", "F16", "I64" ... */
    } *v;
    int n;
    struct {
        const char *key, *value;
    } *meta; /* safetensors __metadata__; .pth: scalars as text ("epoch", "best_prec") */
    int nmeta;
    const char *format; /* "safetensors", "pth-zip", "pth-legacy" */
    Arena arena;
} TensorFile;

/* By content, not by name. Every size and offset is checked; nothing is executed. Errors name the
 * file, ERR_DATA. */
int tensors_read(TensorFile *f, const char *path, Err *e);
const Tensor *tensors_find(const TensorFile *f, const char *name);
const char *tensors_meta(const TensorFile *f, const char *key); /* NULL when absent */
void tensors_free(TensorFile *f);

/* Atomic. Tensors in the given order (data without holes, each 8-byte aligned start by descending
 * element size is not required by readers), metadata keys sorted by the writer, header padded to 8.
 * Two checksums are stored, "qrun.crc32" over all tensor bytes and "qrun.header_crc32" over the
 * header, and verified by tensors_read. Names must be distinct. */
typedef struct TensorOut {
    const char *name;
    const Tensor *t;
} TensorOut;
typedef struct MetaOut {
    const char *key, *value;
} MetaOut;
int safetensors_write(const char *path, const TensorOut *t, int n, const MetaOut *m, int nm,
                      Err *e);

/* ---- PyTorch ---- */
/* The state dict only: under "state_dict", "model", "net" or at top level; "module." stripped if
 * every name has it. All other tensors (optimizer) are left out; scalars of the top level go to
 * meta. */
int pth_read(TensorFile *f, const char *path, Err *e);

/* ---- into a store ---- */
typedef struct LoadReport {
    int matched, missing, unexpected, reshaped;
    Str text; /* one line per name that is missing, unexpected or of another shape */
} LoadReport;
/* Copies by name. Shape mismatch is an error (0-d and [1] are the same). Missing (in the file) or
 * unexpected (in the file, not in the store) names are an error listing them when `strict`, else
 * reported. Values are touched. Integers load into float and int64. On an error nothing was
 * written. `r` may be NULL; else free it in either case. */
int tensors_into_store(const TensorFile *f, ParamStore *ps, bool strict, LoadReport *r, Err *e);
void load_report_free(LoadReport *r);

#endif
