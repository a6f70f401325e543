/* run/session.c -- see session.h. */
#include "run/session.h"

#include <inttypes.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/par.h"
#include "io/ckpt.h"
#include "io/fs.h"
#include "run/checkpoint.h"
#include "run/fan_out.h"
#include "run/import.h"
#include "run/integer.h"
#include "run/keys.h"
#include "run/which_net.h"

static void choose_widths(Session *s)
{
    const int n = s->cfg->quant.nbits_list;
    const bool all = s->cfg->run.adaptive_training;
    s->nwidths = all && n ? n : 1;
    for (int k = 0; k < s->nwidths; k++) s->width[k] = all || !n ? k : n - 1;
}

/* oneDNN counts the values of a tensor in 32 bits in places; a batch of images beyond that ends in its arithmetic. */
static int batch_fits(const Session *s, const char *key, int batch, Err *e)
{
    const InputShape *in = &s->input;
    const int64_t most = INT32_MAX / ((int64_t)in->c * in->h * in->w);
    if (batch <= most) return 0;
    err_set(e, ERR_CONFIG, "%s: %d images of %d x %d x %d; expected at most %" PRId64, key, batch, in->c, in->h, in->w, most);
    return config_place(s->cfg, e);
}

int session_open(Session *s, Config *cfg, Err *e)
{
    NetOpts no = cfg->net;
    *s = (Session){.cfg = cfg};
    choose_widths(s);
    par_set_threads(cfg->run.threads);
    topk_init(&s->topk, cfg->run.topk, cfg->run.ntopk);
    if (data_input_shape(&cfg->data, &s->input, &s->classes, e)) return -1;
    if (batch_fits(s, "batch_size", cfg->run.batch_size, e) || batch_fits(s, "val_batch_size", session_eval_batch(s), e))
        return -1;
    no.num_classes = s->classes;
    no.in_c = s->input.c;
    no.in_h = s->input.h;
    no.in_w = s->input.w;
    s->model = model_new(&no, &cfg->quant, cfg->run.label_smoothing, cfg->run.random_seed, e);
    if (!s->model) return config_place(cfg, e);
    return policy_apply(&cfg->run.policy, PW_INIT, 0, model_qplan(s->model), e) < 0 ? -1 : 0;
}

int session_fits(const Config *cfg, Err *e)
{
    const OptimRule *rule = optim_find(cfg->optim.optimizer);
    Spec s;
    const int r = config_net_spec(cfg, cfg->net, &s, e) || model_fits(&s, 2 + (rule ? rule->nslots : 0), e);
    spec_free(&s);
    return r ? config_place(cfg, e) : 0;
}

int session_rules(Session *s, int64_t epoch, Err *e)
{
    for (; s->rules <= epoch; s->rules++) {
        const int n = policy_apply(&s->cfg->run.policy, PW_EPOCH, s->rules, model_qplan(s->model), e);
        if (n < 0) return -1;
        if (n > 0) model_drop_programs(s->model);
    }
    return 0;
}

const char *session_width_text(const Session *s, int k, char text[16])
{
    const QOpts *q = &s->cfg->quant;
    const int v = s->width[k];
    return v < q->nbits_list ? width_text(q->bits_list[v], q->act_bits_list[v], text) : "";
}

char *path_of_width(const char *path, const char *width)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    if (!*width) return xstrdup(path);
    if (!dot || dot == path || (slash && dot <= slash + 1)) dot = path + strlen(path);
    return xasprintf("%.*s_%s%s", (int)(dot - path), path, width, dot);
}

int session_eval_batch(const Session *s)
{
    return s->cfg->run.val_batch_size > 0 ? s->cfg->run.val_batch_size : s->cfg->run.batch_size;
}

/* Batches that are left over at the end of an epoch make no update: there must be enough for one. */
static int check_sums(const Session *s, Err *e)
{
    const int64_t batches = session_epoch_batches(s);
    if (s->cfg->run.test_only || s->cfg->optim.iter_size <= batches) return 0;
    err_set(e, ERR_CONFIG, "an update sums %d batches, and an epoch has %" PRId64 "; expected at most as many",
            s->cfg->optim.iter_size, batches);
    return key_blame(s->cfg, "iter_size", e);
}

int session_data(Session *s, Split split, Err *e)
{
    Dataset *d = &s->data[split];
    int batch = split == SPLIT_TRAIN ? s->cfg->run.batch_size : session_eval_batch(s);
    if (dataset_open(d, &s->cfg->data, split, e)) return config_place(s->cfg, e);
    s->data_open[split] = true;
    if (d->classes > s->classes)
        return err_set(e, ERR_DATA, "%s: %d classes, but the net has num_classes: %d", d->where,
                       d->classes, s->classes);
    s->loader[split] = loader_open(d, &s->cfg->data, &s->input, split, batch, e);
    if (!s->loader[split]) return -1;
    if (loader_batches(s->loader[split]) < 1)
        return err_set(e, ERR_DATA, "%s: %u images make no batch of %d", d->where, d->count, batch);
    return split == SPLIT_TRAIN ? check_sums(s, e) : 0;
}

int64_t session_epoch_batches(const Session *s)
{
    const int64_t whole = loader_batches(s->loader[SPLIT_TRAIN]), cut = s->cfg->run.finetune_iters;
    return cut > 0 && cut < whole ? cut : whole;
}

void session_free(Session *s)
{
    for (int i = 0; i < 2; i++) {
        if (s->loader[i]) loader_close(s->loader[i]);
        if (s->data_open[i]) dataset_close(&s->data[i]);
    }
    if (s->model) model_free(s->model);
    free(s->first);
    *s = (Session){0};
}

/* ---- weights ---- */

char *weights_path(const char *given, Err *e)
{
    static const CkptFile order[] = {CKPT_BEST, CKPT_LAST};
    if (fs_exists(given) != 2) {
        if (fs_exists(given)) return xstrdup(given);
        err_set(e, ERR_DATA, "%s: no such checkpoint or run folder", given);
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        char *path = checkpoint_path(given, order[i]);
        if (fs_exists(path)) return path;
        free(path);
    }
    err_set(e, ERR_DATA, "%s: no checkpoint in this run folder (checkpoints/best.safetensors)",
            given);
    return NULL;
}

char *weights_named(const Config *cfg, const char *key, const char *given, Err *e)
{
    char *path = weights_path(given, e);
    if (!path && cfg->run.use_pretrain && str_eq(key, "pretrained_file"))
        err_set(e, ERR_DATA,
                "use_pretrain: no checkpoint in %s, the run one bit wider; expected that it is "
                "trained first, or another file as pretrained_file",
                given);
    if (!path) key_blame(cfg, key, e);
    return path;
}

/* Names that every net has with or without quantizers; what ends otherwise belongs to a quantizer.
 */
static bool is_plain_name(const char *name)
{
    static const char *const ends[] = {"weight", "bias", "running_mean", "running_var",
                                       "num_batches_tracked"};
    const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (!strcmp(last, ends[i])) return true;
    return false;
}

/* Older files have no counters of batches, and nothing here reads them. */
static bool is_counter(const char *name)
{
    return str_ends(name, ".num_batches_tracked");
}

static bool is_quantizers(const Param *p)
{
    return p->kind == PK_CLIP || (p->kind == PK_BUFFER && !is_plain_name(p->name));
}

typedef struct Pairing {
    int kept, left_over; /* quantizers' own: not in the file; only in the file */
    Str faults;          /* everything else, one line each */
    int nfaults;
} Pairing;

static void fault(Pairing *p, const char *what, const char *name)
{
    enum { SHOWN = 20 };
    if (p->nfaults < SHOWN) str_printf(&p->faults, "\n  %s: %s", what, name);
    if (p->nfaults++ == SHOWN) str_puts(&p->faults, "\n  ...");
}

static void pair(const TensorFile *f, const ParamStore *ps, Pairing *p)
{
    *p = (Pairing){0};
    for (int i = 0; i < ps->n; i++) {
        const Param *q = ps->p[i];
        if (tensors_find(f, q->name)) continue;
        if (is_counter(q->name)) continue;
        if (is_quantizers(q))
            p->kept++;
        else
            fault(p, "missing in the file", q->name);
    }
    for (int i = 0; i < f->n; i++) {
        if (store_find(ps, f->v[i].name)) continue;
        if (is_plain_name(f->v[i].name))
            fault(p, "not in the net", f->v[i].name);
        else
            p->left_over++;
    }
}

static int load(Session *s, const char *key, const TensorFile *f, const char *path, bool strict,
                Err *e)
{
    LoadReport report = {0};
    Pairing p;
    const char *stage = tensors_meta(f, INT_STAGE_META);
    int r = 0;
    if (stage) {
        err_set(e, ERR_DATA,
                "%s: the whole numbers that %s has written; expected the checkpoint they were made "
                "from",
                path, stage);
        return key_blame(s->cfg, key, e);
    }
    pair(f, model_store(s->model), &p);
    if (p.nfaults && s->cfg->run.strict_load &&
        refuse_other_net(s->cfg, key, path, f, model_store(s->model), e)) {
        str_free(&p.faults);
        return -1;
    }
    if (p.nfaults && strict)
        r = err_set(e, ERR_DATA,
                    "%s: %d names do not match the net %s (strict_load=false takes what does):%s",
                    path, p.nfaults, s->cfg->net.model, p.faults.s);
    if (!r) {
        r = tensors_into_store(f, model_store(s->model), false, &report, e);
        if (r && e && !strstr(e->msg, path)) err_prefix(e, "%s", path);
    }
    if (!r && !report.matched)
        r = err_set(e, ERR_DATA, "%s: no name in it is one of the net %s", path, s->cfg->net.model);
    if (r) key_blame(s->cfg, key, e);
    if (!r) {
        log_msg(
            LOG_INFO,
            "%s (%s): %d tensors loaded; of the quantizers %d keep initial values, %d left over",
            path, f->format, report.matched, p.kept, p.left_over);
        if (p.nfaults)
            log_msg(s->cfg->run.strict_load ? LOG_INFO : LOG_WARN, "%s: %d names do not match:%s", path, p.nfaults, p.faults.s);
        if (report.text.s) log_msg(LOG_DEBUG, "%s:\n%s", path, report.text.s);
    }
    str_free(&p.faults);
    load_report_free(&report);
    return r;
}

/* Fixed-point weights of F8Net's own program have learned its rules for sums and pools. */
static void advise_compat(const Session *s, const TensorFile *f, const char *path)
{
    bool fixed = false;
    if (!str_starts(f->format, "pth") || s->cfg->quant.f8.original) return;
    for (int i = 0; i < f->n && !fixed; i++) fixed = str_ends(f->v[i].name, "input_fraclen");
    if (fixed)
        log_msg(LOG_WARN, "%s: fixed-point weights of the original program; compat: original "
                          "evaluates them as it did", path);
}

static int load_file(Session *s, const char *key, const char *path, bool strict, Err *e)
{
    TensorFile f;
    double mean[3], std[3];
    int r;
    if (tensors_read(&f, path, e)) return key_blame(s->cfg, key, e);
    checkpoint_strip(&f);
    if (s->cfg->run.pretrained_model_remap_keys &&
        import_by_position(s, key, path, &f, true, e)) {
        tensors_free(&f);
        return -1;
    }
    if (s->cfg->quant.nbits_list) {
        const int made = fan_out(&f, model_store(s->model));
        if (made) log_msg(LOG_INFO, "%s: %d tensors repeated for the widths", path, made);
    }
    advise_compat(s, &f, path);
    if (!s->trains && session_rules(s, checkpoint_epoch(&f), e)) {
        tensors_free(&f);
        return -1;
    }
    r = load(s, key, &f, path, strict, e);
    if (!r && checkpoint_input(&f, mean, std)) {
        const DataOpts *d = &s->cfg->data;
        for (int i = 0; i < 3; i++) {
            if (d->nmean) mean[i] = (double)s->input.mean[i];
            if (d->nstd) std[i] = (double)s->input.std[i];
        }
        input_constants(&s->input, mean, std);
    }
    tensors_free(&f);
    return r;
}

int session_load(Session *s, const char *path, Err *e)
{
    return load_file(s, "pretrained_file", path, s->cfg->run.strict_load, e);
}

static bool named(const char *file)
{
    return file && *file;
}

bool session_has_first(const RunOpts *o)
{
    return named(o->fp_pretrained_file) || import_wanted(o);
}

int session_load_first(Session *s, Err *e)
{
    const RunOpts *o = &s->cfg->run;
    char *path;
    int r;
    if (named(o->fp_pretrained_file)) {
        path = weights_named(s->cfg, "fp_pretrained_file", o->fp_pretrained_file, e);
        if (!path) return -1;
        r = load_file(s, "fp_pretrained_file", path, false, e);
        free(s->first);
        s->first = path;
        if (r) return -1;
    }
    if (!import_wanted(o)) return 0;
    if (!named(o->pretrained_file) || !o->strict_load) return import_weights(s, e);
    log_msg(LOG_INFO, "ptcv_pretrained, nvidia_pretrained: nothing is read, since pretrained_file "
                      "replaces every weight");
    return 0;
}

void session_config_text(const Config *cfg, Str *out)
{
    for (size_t i = 0; i < nkeys; i++) {
        const Key *k = &keys[i];
        if (!key_has_value(k) || k->flags & (KF_NO_RESULT | KF_FOLDED)) continue;
        str_printf(out, "%s: ", k->name);
        key_value_text(cfg, k, out);
        str_puts(out, "\n");
    }
}
