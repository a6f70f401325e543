/* run/config_chain.c -- flags of FAT and of Quantized_ResNet that stand for other keys. */
#include <stdio.h>
#include <string.h>

#include "run/config.h"
#include "run/keys.h"

/* The last "BITSbit" in `path`; NULL: there is none. */
static const char *width_in(const char *path, int bits)
{
    char text[16];
    const char *at = NULL;
    snprintf(text, sizeof text, "%dbit", bits);
    for (const char *s = path; (s = strstr(s, text)); s++)
        if (s == path || s[-1] < '0' || s[-1] > '9') at = s;
    return at;
}

/* FAT's chain: each width starts from the one above it, 5 bits from the float net. */
static void derive_pretrain(Config *c, Faults *f)
{
    RunOpts *r = &c->run;
    const int bits = c->quant.wt_bit;
    const char *at;
    int length;
    if (!r->use_pretrain || r->test_only || *r->pretrained_file || bits >= 32 ||
        !keys_good(c, "use_pretrain", "wt_bit") || !keys_good(c, "log_dir", "pretrained_file"))
        return;
    if (bits == 5 && str_eq(c->quant.quant_variant, "imagenet")) {
        fault_key(f, c, "use_pretrain",
                  "use_pretrain: 5 bits of an ImageNet network start from float weights; expected "
                  "their file as pretrained_file");
        return;
    }
    at = width_in(r->log_dir, bits);
    if (!at) {
        fault_key(f, c, "use_pretrain",
                  "use_pretrain: the run one bit wider is looked for beside log_dir: %s; expected a "
                  "log_dir with '%dbit' in its name, or pretrained_file",
                  r->log_dir, bits);
        return;
    }
    length = snprintf(NULL, 0, "%dbit", bits);
    r->pretrained_file =
        arena_printf(&c->arena, "%.*s%dbit%s", (int)(at - r->log_dir), r->log_dir,
                     bits == 5 ? 32 : bits + 1, at + length);
    key_by_rule(c, "pretrained_file", "use_pretrain: one bit wider");
}

/* Whether the user gave bits to the activations of some stage. */
static bool stage_bits_given(const QOpts *q)
{
    bool some = false;
    for (size_t i = 0; i < ARRAY_LEN(q->quantize_layer); i++)
        some = some || (q->quantize_layer[i] > 0 && q->quantize_layer[i] < 32);
    return some;
}

static void derive_hysteresis(Config *c, Faults *f)
{
    QOpts *q = &c->quant;
    if (c->run.use_quantize_weight && keys_good(c, "wt_quant", "wt_bit")) {
        if ((key_typed(c, "wt_quant") && !str_eq(q->wt_quant, "hysteresis")) ||
            (key_typed(c, "wt_bit") && q->wt_bit != 1)) {
            fault_key(f, c, "use_quantize_weight",
                      "use_quantize_weight: true contradicts wt_quant: %s, wt_bit: %d; expected "
                      "hysteresis and 1",
                      q->wt_quant, q->wt_bit);
            return;
        }
        q->wt_quant = "hysteresis";
        q->wt_bit = 1;
        key_by_rule(c, "wt_quant", "use_quantize_weight");
        key_by_rule(c, "wt_bit", "use_quantize_weight");
    }
    if (!stage_bits_given(q) || key_typed(c, "fm_quant") || !keys_good(c, "fm_quant", "fm_bit"))
        return;
    q->fm_quant = "hysteresis";
    key_by_rule(c, "fm_quant", "quantize_layer1..3");
    if (!key_typed(c, "fm_bit")) key_by_rule(c, "fm_bit", "quantize_layer1..3");
}

void config_derive_chain(Config *c, Faults *f)
{
    derive_pretrain(c, f);
    derive_hysteresis(c, f);
}
