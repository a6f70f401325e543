/* run/config_f8net.c -- what follows from F8Net's keys, and what contradicts itself among them. */
#include "run/config.h"

#include "run/integer.h"
#include "run/keys.h"

static bool is_f8net(const Config *c)
{
    return str_eq(c->quant.wt_quant, "f8net") || str_eq(c->quant.fm_quant, "f8net");
}

/* Bits of what F8Net quantizes from a format, where they are not given. */
static void derive_bits(Config *c, const char *method, int *bits, const char *key, int n, int word)
{
    if (key_typed(c, key) || !str_eq(method, "f8net")) return;
    *bits = c->quant.f8.floating_model ? 32 : n ? word : 8;
    key_by_rule(c, key, "from the format");
}

/* Networks of the family are F8Net's as soon as a format or floating_model says so. */
void config_derive_f8net(Config *c, bool family)
{
    QOpts *q = &c->quant;
    F8Opts *f8 = &q->f8;
    const bool wanted = f8->nweight_format || f8->ninput_format || f8->floating_model;
    if (family && wanted && !key_typed(c, "wt_quant") && !key_typed(c, "fm_quant")) {
        q->wt_quant = q->fm_quant = "f8net";
        key_by_rule(c, "wt_quant", "by family of the model");
        key_by_rule(c, "fm_quant", "by family of the model");
    }
    if ((c->run.int_infer || c->run.integize || c->run.int_op_only) && !c->run.test_only) {
        c->run.test_only = true;
        key_by_rule(c, "test_only", "an integer stage is a test");
    }
    f8->original = str_eq(c->run.compat, "original");
    f8->image = str_eq(c->data.input, "k256");
    if (!is_f8net(c)) return;
    derive_bits(c, q->wt_quant, &q->wt_bit, "wt_bit", f8->nweight_format, f8->weight_format[0]);
    derive_bits(c, q->fm_quant, &q->fm_bit, "fm_bit", f8->ninput_format, f8->input_format[0]);
}

/* [word length, fractional length]: neg: one bit is the sign. */
static void check_format(const Config *c, Faults *f, const char *key, const int *v, int n, bool neg)
{
    if (n == 0 || !keys_good(c, key, NULL)) return;
    if (n != 2)
        fault_key(f, c, key, "%s has %d entries; expected [word length, fractional length]", key,
                  n);
    else if (v[0] < 1 + neg || v[0] > 16)
        fault_key(f, c, key, "%s: a word length of %d; expected %d to 16", key, v[0], 1 + neg);
    else if (v[1] > v[0] - neg)
        fault_key(f, c, key, "%s: a fractional length of %d with %d bits; expected 0 to %d", key,
                  v[1], v[0], v[0] - neg);
}

static void check_source(const Config *c, Faults *f)
{
    const F8Opts *o = &c->quant.f8;
    const bool source = o->format_from_metric || o->format_grid_search;
    if (o->floating_model) return;
    if (source && !o->format_type[0] && keys_good(c, "format_type", NULL))
        fault_key(f, c, o->format_grid_search ? "format_grid_search" : "format_from_metric",
                  "%s: true without format_type; expected per_layer, per_channel or per_model",
                  o->format_grid_search ? "format_grid_search" : "format_from_metric");
    if (o->format_from_metric && !o->format_grid_search &&
        keys_good(c, "format_from_metric", NULL) &&
        ((o->nweight_format && o->weight_format[0] != 8) ||
         (o->ninput_format && o->input_format[0] != 8)))
        fault_key(f, c, "format_from_metric",
                  "format_from_metric: its constants are for word lengths of 8; expected "
                  "format_grid_search: true, or lengths given by the formats");
}

/* The stages that work with integers need a net made of them. One fault for the strictest stage,
 * which is the one that would run; is there one? */
static bool check_stage(const Config *c, Faults *f)
{
    const IntStage *st = int_stage(&c->run);
    const F8Opts *o = &c->quant.f8;
    const size_t before = f->n;
    if (c->run.int_compare && !st && keys_good(c, "int_compare", NULL))
        fault_key(
            f, c, "int_compare",
            "int_compare: true without a stage of whole numbers; expected int_infer, integize or "
            "int_op_only: true");
    if (!st || !keys_good(c, st->name, NULL)) return f->n > before;
    if (!str_eq(c->quant.wt_quant, "f8net") || !str_eq(c->quant.fm_quant, "f8net") ||
        o->floating_model)
        fault_key(f, c, st->name,
                  "%s: the network is not quantized; expected wt_quant and fm_quant: f8net without "
                  "floating_model",
                  st->name);
    else if (c->quant.wt_bit > 8 || c->quant.fm_bit > 8)
        fault_key(f, c, st->name, "%s: word lengths of %d and %d; expected at most 8 bits",
                  st->name, c->quant.wt_bit, c->quant.fm_bit);
    else if (str_eq(o->format_type, "per_channel"))
        fault_key(
            f, c, st->name,
            "%s: format_type: per_channel has no shift common to a layer; expected per_layer or "
            "per_model",
            st->name);
    return f->n > before;
}

/* Formats of a network that F8Net does not quantize would be left out silently. */
static void check_unused(const Config *c, Faults *f)
{
    const F8Opts *o = &c->quant.f8;
    const struct {
        const char *key;
        bool on;
    } use[] = {{"weight_format", o->nweight_format > 0},
               {"input_format", o->ninput_format > 0},
               {"floating_model", o->floating_model}};
    for (size_t i = 0; i < ARRAY_LEN(use); i++)
        if (use[i].on && keys_good(c, use[i].key, "wt_quant"))
            fault_key(
                f, c, use[i].key,
                "%s has no effect with wt_quant: %s and fm_quant: %s; expected f8net for both",
                use[i].key, c->quant.wt_quant, c->quant.fm_quant);
}

/* Weights and inputs share their scaling. */
static void check_both(const Config *c, Faults *f)
{
    const bool weights = str_eq(c->quant.wt_quant, "f8net");
    const char *other = weights ? "fm_quant" : "wt_quant";
    if (str_eq(c->quant.wt_quant, c->quant.fm_quant) || !keys_good(c, "wt_quant", "fm_quant"))
        return;
    fault_key(f, c, other,
              "%s: %s with %s: f8net, which quantizes weights and inputs together; expected f8net",
              other, weights ? c->quant.fm_quant : c->quant.wt_quant,
              weights ? "wt_quant" : "fm_quant");
}

void config_check_f8net(const Config *c, Faults *f)
{
    const F8Opts *o = &c->quant.f8;
    const size_t before = f->n;
    check_format(c, f, "weight_format", o->weight_format, o->nweight_format, true);
    check_format(c, f, "input_format", o->input_format, o->ninput_format, false);
    if (check_stage(c, f) || f->n > before) return; /* what follows would say it again */
    if (!is_f8net(c)) {
        check_unused(c, f);
        return;
    }
    check_both(c, f);
    check_source(c, f);
    if (c->quant.first_bit && keys_good(c, "first_bit", NULL))
        fault_key(f, c, "first_bit",
                  "first_bit has no effect with f8net, whose layers all have the "
                  "word lengths of weight_format and input_format");
    if (c->quant.last_bit && keys_good(c, "last_bit", NULL))
        fault_key(f, c, "last_bit",
                  "last_bit has no effect with f8net, whose layers all have the "
                  "word lengths of weight_format and input_format");
    if (c->net.freeze_norms && keys_good(c, "less_bn", NULL))
        fault_key(f, c, "less_bn",
                  "less_bn: true with f8net, whose layers round their weights behind the norm of each "
                  "batch; expected less_bn: false");
    if (o->rescale_forward_conv && str_eq(c->quant.rescale_type, "constant") &&
        keys_good(c, "rescale_forward_conv", "rescale_type"))
        fault_key(f, c, "rescale_forward_conv",
                  "rescale_forward_conv: true with rescale_type: constant, which the norm behind a "
                  "convolution would undo; expected rescale_type: stddev");
    if (str_eq(o->format_type, "per_channel") && o->quant_bias &&
        keys_good(c, "quant_bias", "format_type"))
        fault_key(f, c, "quant_bias",
                  "quant_bias: true with format_type: per_channel: a bias has one length only; "
                  "expected per_layer");
}
