/* run/export_int.h -- what the parts of the export of integer networks share.
 *
 * A number of the network stands in the ONNX graph in one or more of three ways: as the 8-bit
 * integer, as a float that holds it exactly (magnitude below 2^24), or as s32. Signed 8-bit numbers
 * stand there as u8 with zero point 128, since runtimes do not mix u8 and s8 in one layer; in the
 * form without floats, and as the image, as s8. */
#ifndef RUN_EXPORT_INT_H
#define RUN_EXPORT_INT_H

#include "run/export.h"

typedef enum IntRep { REP_BYTE, REP_FLOAT, REP_INT, NREPS } IntRep;

enum { EXACT_FLOAT = 1 << 24 }; /* floats hold all whole numbers below it */

typedef struct IntValue {
    const char *rep[NREPS]; /* name of its value in the ONNX graph; NULL: not made */
    int rank;               /* 4, or 2 */
    DType type;             /* of rep[REP_BYTE], and its zero point */
    int zero;
    int64_t most; /* largest magnitude */
    int reader;   /* the only operation that reads it, or -1 */
    bool done;    /* written together with an earlier one */
} IntValue;

typedef struct IntExport {
    Onnx *m;
    const IntNet *net;
    const ExportOpts *o;
    IntValue *v; /* by operation */
    ExportForms forms;
    Err *e;
} IntExport;

/* "layer1.0.conv1", or kind and number for operations without a name. */
const char *int_op_name(const IntExport *x, int op, char *buf, size_t n);
#define INT_OP_NAME(x, op) int_op_name(x, op, (char[256]){0}, 256)

/* A value in one of its ways, converted where it is not there yet (to 8 bits: the image only). */
const char *int_value(IntExport *x, int op, IntRep rep);

/* The way other than 8 bits that costs least: float where it is exact and allowed, else s32. */
IntRep int_wide(const IntExport *x, int op);

/* A node whose name is NAME/PART. */
const char *int_part(IntExport *x, const char *op, const char *name, const char *part,
                     const char *const *in);

/* The zero point of an operation's 8-bit value. */
const char *int_zero(IntExport *x, int op);

/* Clip of its 8-bit value to [lo, hi], left out where the type ends there anyway. */
const char *int_clip_byte(IntExport *x, int op, const char *value, const char *name, int lo,
                          int hi);

/* export_requant.c: an operation IK_REQUANT. */
int export_requant(IntExport *x, int op);

#endif
