/* run/config_adabits.c -- what follows from AdaBits' keys, and what contradicts itself among them. */
#include "run/config.h"

#include <string.h>

#include "io/fs.h"
#include "run/keys.h"

static const char *python_bool(bool b)
{
    return b ? "True" : "False";
}

/* Of activations in one entry of bits_list. */
static int act_bits(const QOpts *q, int i)
{
    return q->act_bits_list[i] ? q->act_bits_list[i] : q->bits_list[i];
}

/* The folder below log_dir in which the original leaves its checkpoints: its settings, as Python
 * prints them. */
static void put_setting(const Config *c, Str *out)
{
    const QOpts *q = &c->quant;
    const struct {
        const char *name;
        bool value;
    } flag[] = {{"adaptive", c->run.adaptive_training},
                {"weight_only", q->weight_only},
                {"stats_sharing", q->stats_sharing},
                {"fp_pretrained", *c->run.fp_pretrained_file != 0},
                {"clamp", q->clamp},
                {"rescale", q->rescale},
                {"rescale_conv", q->rescale_conv}};
    str_puts(out, "bits_list_");
    key_value_text(c, key_of("bits_list"), out);
    for (size_t i = 0; i < ARRAY_LEN(flag); i++)
        str_printf(out, "/%s_%s", flag[i].name, python_bool(flag[i].value));
    str_printf(out, "/rescale_type_%s/switchbn_%s/weight_%s_act_%s/switch_alpha_%s/pact_fp_%s",
               q->rescale_type, python_bool(q->switch_norm), q->weight_quant_scheme,
               q->act_quant_scheme, python_bool(q->switch_alpha), python_bool(q->pact_fp));
}

/* pretrained_file lies in pretrained_dir, or there in the folder of the settings. */
static void derive_pretrained(Config *c)
{
    RunOpts *r = &c->run;
    const char *plain;
    Str setting = {0};
    if (!*r->pretrained_dir || !*r->pretrained_file || *r->pretrained_file == '/') return;
    put_setting(c, &setting);
    plain = arena_printf(&c->arena, "%s/%s", r->pretrained_dir, r->pretrained_file);
    r->pretrained_file = arena_printf(&c->arena, "%s/%s/%s", r->pretrained_dir, setting.s,
                                      r->pretrained_file);
    if (!fs_exists(r->pretrained_file)) r->pretrained_file = plain;
    str_free(&setting);
    key_by_rule(c, "pretrained_file", "below pretrained_dir");
}

/* The networks of AdaBits are quantized by it and decay as in its optimizer; its MobileNets have
 * first and last layers of at least 8 bits. */
void config_derive_adabits(Config *c, bool family)
{
    static const char rule[] = "by family of the model";
    QOpts *q = &c->quant;
    if (!family) return;
    if (q->nbits_list > 0 && !key_typed(c, "wt_quant") && !key_typed(c, "fm_quant")) {
        q->wt_quant = q->fm_quant = "adabits";
        key_by_rule(c, "wt_quant", rule);
        key_by_rule(c, "fm_quant", rule);
    }
    if (str_eq(q->wt_quant, "adabits") && !key_typed(c, "edge_min_bits") &&
        strstr(c->net.model, "mobilenet")) {
        q->edge_min_bits = 8;
        key_by_rule(c, "edge_min_bits", rule);
    }
    if (str_eq(c->optim.optimizer, "sgd") && !key_typed(c, "weight_decay_scheme")) {
        c->optim.weight_decay_scheme = "no_depthwise_no_bn";
        key_by_rule(c, "weight_decay_scheme", rule);
    }
    derive_pretrained(c);
}

/* Its networks are nothing without bits_list, and would train in float without a word. */
static void check_missing(const Config *c, Faults *f)
{
    const bool empty = key_typed(c, "bits_list");
    if (c->quant.nbits_list > 0 || key_typed(c, "wt_quant") || key_typed(c, "fm_quant")) return;
    fault_key(f, c, empty ? "bits_list" : "model",
              "bits_list: %s; model: %s expects a list of bit widths such as [5, 4, 3] ([32]: "
              "float)",
              empty ? "an empty list" : "is missing", c->net.model);
}

/* A start value for each width. */
static void check_clip_inits(const Config *c, Faults *f)
{
    const QOpts *q = &c->quant;
    if (!q->nact_clip_inits || !keys_good(c, "act_clip_inits", "act_clip_init")) return;
    if (q->nact_clip_inits != q->nbits_list)
        fault_key(f, c, "act_clip_inits", "act_clip_inits: %d values for %d entries of bits_list; expected as many",
                  q->nact_clip_inits, q->nbits_list);
    else if (!q->switch_alpha)
        fault_key(f, c, "act_clip_inits", "act_clip_inits has no effect with switch_alpha: false; expected "
                                          "act_clip_init");
    else if (q->act_clip_init > 0)
        fault_key(f, c, "act_clip_inits", "act_clip_inits contradicts act_clip_init: %g; expected one of them",
                  q->act_clip_init);
    for (int i = 0; i < q->nact_clip_inits; i++)
        if (!(q->act_clip_inits[i] > 0))
            fault_key(f, c, "act_clip_inits", "act_clip_inits: %g; expected values above 0", q->act_clip_inits[i]);
}

void config_check_adabits(const Config *c, bool family, Faults *f)
{
    const QOpts *q = &c->quant;
    if (!keys_good(c, "bits_list", NULL)) return;
    check_clip_inits(c, f);
    for (int i = 1; i < q->nbits_list; i++)
        for (int k = 0; k < i; k++)
            if (q->bits_list[k] == q->bits_list[i] && act_bits(q, k) == act_bits(q, i))
                fault_key(f, c, "bits_list", "bits_list: %d stands there twice", q->bits_list[i]);
    if (family) check_missing(c, f);
    if (c->run.adaptive_training && q->nbits_list == 0)
        fault_key(f, c, "adaptive_training",
                  "adaptive_training: true without bits_list; expected a list of bit widths");
}
