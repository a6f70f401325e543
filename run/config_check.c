/* run/config_check.c -- what follows from several keys, and what contradicts itself.
 *
 * A rule is skipped when one of its keys was refused already: its fault has been reported. */
#include "run/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/keys.h"

bool key_typed(const Config *c, const char *key)
{
    return key_state(c, key)->origin != ORIGIN_DEFAULT;
}

bool keys_good(const Config *c, const char *a, const char *b)
{
    return !key_state(c, a)->bad && (!b || !key_state(c, b)->bad);
}

void fault_key(Faults *f, const Config *c, const char *canonical, const char *fmt, ...)
{
    const KeyState *own = key_state(c, canonical), *words = key_state(c, "keyword");
    const KeyState *st = own->origin == ORIGIN_RULE && str_eq(own->file, BY_KEYWORD) ? words : own;
    const char *file = *c->run.config_file ? c->run.config_file : "command line";
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (st->origin == ORIGIN_FILE || st->origin == ORIGIN_COMMAND)
        fault_at(f, st->file, st->line, st->col, "%s", text);
    else
        fault_at(f, file, 0, 0, "%s", text);
}

/* A key of the configuration whose name stands in `text`; levels may have been given as bits. */
static const Key *key_in(const Config *c, const char *text)
{
    for (const char *p = text; *p;) {
        const size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789_"), tag = strlen("wt_");
        char word[64], bits[64];
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        snprintf(bits, sizeof bits, "%.*s%s", (int)tag, word, "bit");
        for (size_t i = 0; i < nkeys && n; i++)
            if (keys[i].kind != KK_SECTION && (c->state[i].line > 0 || c->state[i].origin == ORIGIN_COMMAND) &&
                (str_eq(keys[i].name, word) || (str_ends(word, "_level") && str_eq(keys[i].name, bits))))
                return &keys[i];
        p += n ? n : 1;
    }
    return NULL;
}

int config_place(const Config *c, Err *e)
{
    const Key *k;
    if (e->kind != ERR_CONFIG || strstr(e->msg, ": error: ")) return -1;
    k = key_in(c, e->msg);
    if (!k && key_state(c, "keyword")->line > 0) k = key_of("keyword");
    if (k) {
        const KeyState *st = key_state(c, k->name);
        if (st->line > 0)
            err_prefix(e, "%s:%d:%d: error", st->file, st->line, st->col);
        else
            err_prefix(e, "%s: error", st->file);
    }
    return -1;
}

void key_by_rule(Config *c, const char *key, const char *rule)
{
    KeyState *st = key_state(c, key);
    st->origin = ORIGIN_RULE;
    st->file = rule;
}

/* ---- what follows ---- */

void config_copy_fields(Config *c)
{
    bool exponential =
        str_starts(c->optim.lr_scheduler, "exp") || str_eq(c->optim.lr_scheduler, "decay");
    c->optim.num_epochs = c->run.num_epochs;
    c->optim.start_epoch = c->run.start_epoch;
    c->optim.custom_lr_compat = str_eq(c->run.compat, "original");
    c->net.plain_init = !c->run.reset_parameters;
    c->optim.gamma = exponential ? c->run.exp_decaying_lr_gamma : c->run.multistep_lr_gamma;
    c->optim.step_size = exponential ? c->run.exp_decaying_period : c->run.lr_step_size;
    c->data.seed = c->run.random_seed;
    c->net.num_classes = c->data.num_classes;
    c->net.norm_groups = c->quant.kw.tag[Q_ACT].quant_group > 0 ? c->quant.kw.tag[Q_ACT].quant_group : 0;
}

/* The family the net takes its names from: `names`, else that of the model's alias. */
NetNames config_family(const Config *c)
{
    NetNames names = NAMES_DEFAULT;
    int given = c->net.names[0] ? net_names_parse(c->net.names) : -1;
    if (given >= 0) return (NetNames)given;
    if (c->net.model[0]) net_find(c->net.model, &names);
    return names;
}

static void derive_input(Config *c, Faults *f)
{
    NetNames fam = config_family(c);
    bool plain = fam == NAMES_F8NET || fam == NAMES_ADABITS;
    if (key_typed(c, "normalize") && keys_good(c, "normalize", "input")) {
        const char *in = c->data.input;
        if (in[0] && (c->run.normalize != str_eq(in, "normalized")))
            fault_key(f, c, "normalize", "normalize: %s contradicts input: %s",
                      c->run.normalize ? "true" : "false", in);
        else if (!c->run.normalize && !plain && !in[0] && keys_good(c, "model", "names"))
            fault_key(f, c, "normalize",
                      "normalize: false is for F8Net's and AdaBits' networks; expected input: k256 "
                      "or byte");
    }
    if (c->data.input[0]) return;
    c->data.input = c->run.normalize || !plain ? "normalized"
                    : fam == NAMES_F8NET       ? "k256"
                                               : "byte";
    key_by_rule(c, "input", key_typed(c, "normalize") ? "from normalize" : "by family of the model");
}

/* addition_augment is a recipe of its own; the original reads it with ImageNet only. */
static void derive_augment(Config *c, Faults *f)
{
    static const char recipe[] = "keyword_imagenet_augment";
    if (!c->run.addition_augment || !keys_good(c, "addition_augment", "data_transforms")) return;
    if (!key_typed(c, "data_transforms")) {
        c->data.data_transforms = recipe;
        key_by_rule(c, "data_transforms", "from addition_augment");
    } else if (!str_eq(c->data.data_transforms, recipe) && !c->words.original) {
        fault_key(f, c, "addition_augment", "addition_augment: true contradicts data_transforms: %s",
                  c->data.data_transforms);
    }
}

static void derive_batch(Config *c, Faults *f)
{
    long long total = (long long)c->run.batch_size_per_gpu * c->run.num_gpus_per_job;
    if (c->run.batch_size_per_gpu == 0 || !keys_good(c, "batch_size_per_gpu", "num_gpus_per_job"))
        return;
    if (key_typed(c, "batch_size")) {
        if (total != c->run.batch_size && keys_good(c, "batch_size", NULL))
            fault_key(
                f, c, "batch_size_per_gpu",
                "batch_size_per_gpu: %d times num_gpus_per_job: %d contradicts batch_size: %d",
                c->run.batch_size_per_gpu, c->run.num_gpus_per_job, c->run.batch_size);
        return;
    }
    if (total > key_of("batch_size")->max) {
        fault_key(f, c, "batch_size_per_gpu",
                  "batch_size_per_gpu: times num_gpus_per_job gives %lld; expected a batch_size of "
                  "at most %g",
                  total, key_of("batch_size")->max);
        return;
    }
    c->run.batch_size = (int)total;
    key_by_rule(c, "batch_size", "batch_size_per_gpu times num_gpus_per_job");
}

/* decay_small, and the rule of the keyword family's program. */
static void derive_decay(Config *c, Faults *f)
{
    const char *asked = c->run.decay_small ? "all" : "no_small";
    const bool typed = key_typed(c, "decay_small");
    if (!typed && config_family(c) != NAMES_KEYWORD) return;
    if (!keys_good(c, "decay_small", "weight_decay_scheme")) return;
    if (key_typed(c, "weight_decay_scheme")) {
        if (typed && !str_eq(c->optim.weight_decay_scheme, asked))
            fault_key(f, c, "decay_small", "decay_small: %s contradicts weight_decay_scheme: %s",
                      c->run.decay_small ? "true" : "false", c->optim.weight_decay_scheme);
        return;
    }
    c->optim.weight_decay_scheme = asked;
    key_by_rule(c, "weight_decay_scheme", typed ? "from decay_small" : "by family of the model");
}

void config_derive(Config *c, Faults *f)
{
    config_derive_keyword(c);
    config_derive_words(c, f);
    config_derive_proxquant(c);
    config_derive_reads(c);
    derive_decay(c, f);
    config_derive_adabits(c, config_family(c) == NAMES_ADABITS);
    derive_batch(c, f);
    derive_augment(c, f);
    derive_input(c, f);
    config_derive_f8net(c, config_family(c) == NAMES_F8NET);
    config_derive_precision(c);
    if (!c->run.log_dir[0]) {
        c->run.log_dir = arena_printf(&c->arena, "results/%s", c->run.config_name);
        key_by_rule(c, "log_dir", "from the file's name");
    }
    config_derive_chain(c, f);
    if (!c->run.experiment[0]) {
        c->run.experiment = c->run.config_name;
        key_by_rule(c, "experiment", "from the file's name");
    }
    if (!key_typed(c, "topk") &&
        c->data.num_classes > 0) /* the default reports nothing that all networks would reach */
        while (c->run.ntopk > 1 && c->run.topk[c->run.ntopk - 1] > c->data.num_classes)
            c->run.ntopk--;
    config_copy_fields(c);
    config_derive_net_words(c);
    config_derive_net_keys(c);
}

/* ---- contradictions ---- */

static void check_required(const Config *c, Faults *f)
{
    if (!c->net.model[0] && keys_good(c, "model", NULL))
        fault_key(f, c, "model", "model is missing; expected a name from `qrun list nets`");
    if (!c->data.dataset[0] && keys_good(c, "dataset", NULL))
        fault_key(f, c, "dataset", "dataset is missing; expected a name from `qrun list datasets`");
}

/* A method without bits would silently train in float, bits without a method too. */
static void check_quant(const Config *c, Faults *f)
{
    const struct {
        const char *quant, *bit, *method;
        int bits;
    } role[] = {{"wt_quant", "wt_bit", c->quant.wt_quant, c->quant.wt_bit},
                {"fm_quant", "fm_bit", c->quant.fm_quant, c->quant.fm_bit},
                {"ot_quant", "ot_bit", c->quant.ot_quant, c->quant.ot_bit}};
    for (size_t i = 0; i < ARRAY_LEN(role); i++) {
        bool none = str_eq(role[i].method, "none");
        if (!keys_good(c, role[i].quant, role[i].bit)) continue;
        if (none && role[i].bits < 32 && !config_wants_method(c, (int)i, f))
            fault_key(
                f, c, role[i].bit,
                "%s: %d has no effect with %s: none; expected 32, or a name from `qrun list quant` for %s",
                role[i].bit, role[i].bits, role[i].quant, role[i].quant);
        if (!none && !key_typed(c, role[i].bit) && c->quant.nbits_list == 0)
            fault_key(f, c, role[i].quant,
                      "%s: %s without %s; expected the number of bits (32 = float)", role[i].quant,
                      role[i].method, role[i].bit);
    }
    for (size_t i = 0; i < ARRAY_LEN(role) && c->quant.nbits_list > 0; i++) {
        const QMethod *m =
            keys_good(c, role[i].quant, "bits_list") ? quant_find(role[i].method) : NULL;
        if (!m || str_eq(role[i].method, "none") || m->traits & QT_VARIANTS) continue;
        fault_key(f, c, "bits_list",
                  "bits_list with %s: %s, which has one width only; expected adabits",
                  role[i].quant, role[i].method);
        break;
    }
    config_check_adabits(c, config_family(c) == NAMES_ADABITS, f);
    if (c->quant.nbits_list > 0 && str_eq(role[0].method, "none") &&
        str_eq(role[1].method, "none") && keys_good(c, "wt_quant", "fm_quant") &&
        keys_good(c, "bits_list", NULL))
        fault_key(f, c, "bits_list",
                  "bits_list has no effect with wt_quant: none and fm_quant: none; expected a name "
                  "from `qrun list quant` for them");
}

static void check_data(const Config *c, Faults *f)
{
    const DataOpts *d = &c->data;
    int batch = c->run.batch_size;
    if (keys_good(c, "mean", "std")) {
        if (d->nmean != d->nstd)
            fault_key(f, c, d->nmean ? "mean" : "std",
                      "mean has %d entries and std has %d; expected as many in both", d->nmean,
                      d->nstd);
        if (d->nmean == 2) fault_key(f, c, "mean", "mean has 2 entries; expected 1 or 3");
        for (int i = 0; i < d->nstd; i++)
            if (d->std[i] <= 0) {
                fault_key(f, c, "std", "std: entry %d is 0; expected more than 0", i + 1);
                break;
            }
    }
    if (d->nmean && !str_eq(d->input, "normalized") && keys_good(c, "mean", "input"))
        fault_key(f, c, "mean", "mean and std have no effect with input: %s", d->input);
    if (d->drop_last && d->limit_train > 0 && d->limit_train < batch &&
        keys_good(c, "limit_train", "batch_size"))
        fault_key(f, c, "drop_last",
                  "drop_last: true leaves no batch with limit_train: %d and batch_size: %d",
                  d->limit_train, batch);
}

/* "KEY: text" lines of another area's check, at the place of their key where it is one of ours. */
void fault_lines(Faults *f, const Config *c, const char *text, const char *otherwise)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        char *line = xstrndup(text, n), *key = xstrndup(text, strcspn(text, ":\n"));
        const Key *k = key_find(key);
        fault_key(f, c, k ? k->name : otherwise, "%s", line);
        free(line);
        free(key);
        text += n + (text[n] == '\n');
    }
}

static void check_custom(const Config *c, const char *key, const char *const *list, int n, Faults *f)
{
    for (int i = 0; i < n && keys_good(c, key, NULL); i++)
        if (!*list[i])
            fault_key(f, c, key, "%s: entry %d is empty; expected a part of parameters' names", key,
                      i + 1);
}

static void check_optim(const Config *c, Faults *f)
{
    const OptimOpts *o = &c->optim;
    size_t before = f->n;
    bool multistep =
        str_starts(o->lr_scheduler, "multistep") || str_eq(o->lr_scheduler, "custom_step");
    Err e = {0};
    for (int i = 1; i < o->nmilestones; i++)
        if (o->milestones[i] <= o->milestones[i - 1]) {
            fault_key(f, c, "multistep_lr_milestones",
                      "multistep_lr_milestones: %d after %d; expected ascending epochs",
                      o->milestones[i], o->milestones[i - 1]);
            break;
        }
    if (multistep && o->nmilestones == 0 && keys_good(c, "lr_scheduler", "multistep_lr_milestones"))
        fault_key(f, c, "lr_scheduler",
                  "lr_scheduler: %s without multistep_lr_milestones; expected a list of epochs",
                  o->lr_scheduler);
    if (str_eq(o->lr_scheduler, "custom") && o->nlr_list == 0 && keys_good(c, "lr_scheduler", "lr_list"))
        fault_key(f, c, "lr_scheduler",
                  "lr_scheduler: custom without lr_list; expected a list of rates");
    check_custom(c, "custom_decay_list", o->custom_decay_list, o->ncustom_decay, f);
    check_custom(c, "custom_lr_list", o->custom_lr_list, o->ncustom_lr, f);
    if (o->nesterov && (o->momentum == 0 || o->dampening != 0) && keys_good(c, "momentum", "dampening"))
        fault_key(f, c, "nesterov",
                  "nesterov: true with momentum: %g and dampening: %g; expected momentum above 0 "
                  "and dampening 0",
                  o->momentum, o->dampening);
    /* The originals' rule for large batches has no such limit: there the rate never arrives. */
    if (o->warmup_epochs > o->num_epochs &&
        key_state(c, "warmup_epochs")->origin != ORIGIN_RULE &&
        keys_good(c, "warmup_epochs", "num_epochs"))
        fault_key(f, c, "warmup_epochs", "warmup_epochs: %g is more than num_epochs: %d",
                  o->warmup_epochs, o->num_epochs);
    if (o->lr_min > o->lr && keys_good(c, "lr", "lr_min"))
        fault_key(f, c, "lr_min", "lr_min: %g is more than lr: %g", o->lr_min, o->lr);
    if (f->n == before && keys_good(c, "optimizer", "lr_scheduler") &&
        keys_good(c, "weight_decay_scheme", NULL) && optim_check(o, &e))
        fault_lines(f, c, e.msg, "optimizer");
}

/* The two originals whose files always have the key never read it. */
static void check_resume(const Config *c, Faults *f)
{
    const Yaml value = {.kind = Y_SCALAR, .s = c->run.resume};
    bool b;
    if (!*c->run.resume || yaml_bool(&value, &b) || config_family(c) == NAMES_F8NET ||
        config_family(c) == NAMES_ADABITS)
        return;
    fault_key(f, c, "resume",
              "resume: a run continues from its own log_dir; weights of another file are given by "
              "pretrained_file; expected nothing, true or false");
}

static void check_run(const Config *c, Faults *f)
{
    const RunOpts *r = &c->run;
    const PolicyItem *stable = policy_sets(&r->policy, "stable");
    if (stable && r->stable_epoch && keys_good(c, "stable_epoch", "policy"))
        fault_key(f, c, "stable_epoch", "stable_epoch: %d contradicts stable: %s of the policy (%s:%d); expected "
                  "one of them", r->stable_epoch, stable->value[0], stable->file, stable->line);
    check_resume(c, f);
    if (r->start_epoch >= run_epochs(r) && keys_good(c, "start_epoch", "num_epochs"))
        fault_key(f, c, "start_epoch", "start_epoch: %d; expected less than num_epochs: %d",
                  r->start_epoch, r->num_epochs);
    for (int i = 0; i < r->ntopk && keys_good(c, "topk", "num_classes"); i++) {
        if (i > 0 && r->topk[i] <= r->topk[i - 1]) {
            fault_key(f, c, "topk", "topk: %d after %d; expected ascending numbers", r->topk[i],
                      r->topk[i - 1]);
            break;
        }
        if (c->data.num_classes > 0 && r->topk[i] > c->data.num_classes) {
            fault_key(f, c, "topk", "topk: %d is more than num_classes: %d", r->topk[i],
                      c->data.num_classes);
            break;
        }
    }
    if (r->nvidia_pretrained && !*r->nvidia_pretrained_file && !*r->pretrained_file &&
        keys_good(c, "nvidia_pretrained_file", "nvidia_pretrained"))
        fault_key(f, c, "nvidia_pretrained",
                  "nvidia_pretrained: true without nvidia_pretrained_file; expected the checkpoint");
    if (r->ntopk == 0 && keys_good(c, "topk", NULL))
        fault_key(f, c, "topk", "topk: an empty list; expected at least one number");
}

void config_check(const Config *c, Faults *f)
{
    check_required(c, f);
    config_check_precision(c, f);
    check_quant(c, f);
    check_data(c, f);
    check_optim(c, f);
    check_run(c, f);
    config_check_f8net(c, f);
    config_check_keyword(c, f);
    config_check_reads(c, f);
    config_check_words(c, f);
    config_check_net(c, f);
}
