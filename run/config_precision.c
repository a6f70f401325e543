/* run/config_precision.c -- precision, and the original's fp16 and opt_level. */
#include "engine/prim.h"
#include "run/keys.h"

static bool fp16_asks_bf16(const Config *c)
{
    return c->run.fp16 && !str_eq(c->run.opt_level, "O0");
}

void config_derive_precision(Config *c)
{
    const bool bf16 = fp16_asks_bf16(c) && prim_has_bf16();
    if (fp16_asks_bf16(c) && !key_typed(c, "precision")) {
        c->run.precision = bf16 ? "bf16" : "f32";
        key_by_rule(c, "precision", bf16 ? "from fp16 and opt_level"
                                         : "fp16: this processor has no AVX-512 for bf16");
    }
    c->quant.bf16 = str_eq(c->run.precision, "bf16");
}

void config_check_precision(const Config *c, Faults *f)
{
    if (!keys_good(c, "precision", "opt_level")) return;
    if (fp16_asks_bf16(c) && key_typed(c, "precision") && !c->quant.bf16)
        fault_key(f, c, "precision",
                  "precision: f32 contradicts fp16: true with opt_level: %s; expected bf16",
                  c->run.opt_level);
    if (c->quant.bf16 && !prim_has_bf16())
        fault_key(f, c, "precision",
                  "precision: bf16 needs a processor with AVX-512; expected f32 on this one");
}
