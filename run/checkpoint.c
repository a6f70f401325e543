/* run/checkpoint.c -- see checkpoint.h. */
#include "run/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

#define FORMAT      "1"
#define SLOT_PREFIX "optim."
#define SUMMED_KEY  "qrun.summed" /* only where there are any */
#define SUMMED_NAME SLOT_PREFIX "gradients"
#define COUNTS_NAME SLOT_PREFIX "updates"
#define WIDTH_KEY   "qrun.meter_width."
#define MAX_META    (24 + METER_MAX_WIDTHS)

static const char *const file_names[] = {
    [CKPT_LAST] = "checkpoints/last.safetensors",
    [CKPT_PREVIOUS] = "checkpoints/previous.safetensors",
    [CKPT_BEST] = "checkpoints/best.safetensors",
};

char *checkpoint_path(const char *run_dir, CkptFile which)
{
    return fs_join(run_dir, file_names[which]);
}

void state_init(TrainState *s)
{
    *s = (TrainState){.val_step = -1, .best_step = -1};
}

/* ---- metadata ---- */

/* The state as text; `get` reads what `put` wrote. */
static const struct {
    const char *key;
    size_t offset;
} integers[] =
    {
        {"qrun.epoch", offsetof(TrainState, epoch)},
        {"qrun.batch", offsetof(TrainState, batch)},
        {"qrun.step", offsetof(TrainState, step)},
        {"qrun.val_step", offsetof(TrainState, val_step)},
        {"qrun.best_step", offsetof(TrainState, best_step)},
        {"qrun.best_epoch", offsetof(TrainState, best_epoch)},
},
  meters[] = {
      {"qrun.meter_train", offsetof(TrainState, train)},
      {"qrun.meter_interval", offsetof(TrainState, interval)},
      {"qrun.meter_val", offsetof(TrainState, val)},
      {"qrun.meter_best", offsetof(TrainState, best)},
};

typedef struct MetaList {
    MetaOut v[MAX_META];
    int n;
    Arena arena;
} MetaList;

static void put(MetaList *m, const char *key, const char *value)
{
    ASSERT(m->n < MAX_META, "%d metadata keys", m->n);
    m->v[m->n++] = (MetaOut){key, arena_strdup(&m->arena, value)};
}

static void put_int(MetaList *m, const char *key, int64_t v)
{
    put(m, key, arena_printf(&m->arena, "%" PRId64, v));
}

static void put_three(MetaList *m, const char *key, const float v[3])
{
    put(m, key,
        arena_printf(&m->arena, "%.9g %.9g %.9g", (double)v[0], (double)v[1], (double)v[2]));
}

static void put_state(MetaList *m, const Checkpoint *c)
{
    const char *s = (const char *)c->state;
    put(m, "qrun.format", FORMAT);
    put(m, "qrun.config", c->config);
    put(m, "qrun.input", c->input_kind);
    put_three(m, "qrun.input_mean", c->input->mean);
    put_three(m, "qrun.input_std", c->input->std);
    put_int(m, "qrun.updates", c->optim->t);
    if (c->state->summed) put_int(m, SUMMED_KEY, c->state->summed);
    for (size_t i = 0; i < ARRAY_LEN(integers); i++) {
        int64_t v;
        memcpy(&v, s + integers[i].offset, sizeof v);
        put_int(m, integers[i].key, v);
    }
    for (size_t i = 0; i < ARRAY_LEN(meters); i++) {
        Str t = {0};
        Meter v;
        memcpy(&v, s + meters[i].offset, sizeof v);
        meter_text(&v, &t);
        put(m, meters[i].key, t.s);
        str_free(&t);
    }
    for (int k = 0; k < c->state->widths.n; k++) {
        Str t = {0};
        str_printf(&t, "%d", c->state->widths.bits[k]);
        if (c->state->widths.act_bits[k]) str_printf(&t, "/%d", c->state->widths.act_bits[k]);
        str_puts(&t, " ");
        meter_text(&c->state->widths.m[k], &t);
        put(m, arena_printf(&m->arena, WIDTH_KEY "%d", k), t.s);
        str_free(&t);
    }
}

static int get_int(const TensorFile *f, const char *path, const char *key, int64_t *v, Err *e)
{
    const char *s = tensors_meta(f, key);
    char *end;
    if (!s)
        return err_set(e, ERR_DATA, "%s: no '%s' in it: not the checkpoint of a run", path, key);
    errno = 0;
    *v = strtoll(s, &end, 10);
    if (end == s || *end || errno)
        return err_set(e, ERR_DATA, "%s: '%s' is \"%.40s\", not a number", path, key, s);
    return 0;
}

/* Positions are far from where sums of them would overflow. */
static bool plausible(const TrainState *s, int64_t updates)
{
    const int64_t most = (int64_t)1 << 53;
    return s->epoch >= 0 && s->epoch < INT32_MAX && s->batch >= 0 && s->batch < INT32_MAX &&
           s->step >= 0 && s->step < most && updates >= 0 && updates < most && s->val_step >= -1 &&
           s->val_step <= s->step && s->best_step >= -1 && s->best_step <= s->step &&
           s->best_epoch >= 0 && s->best_epoch < INT32_MAX && s->summed >= 0 &&
           s->summed <= s->step;
}

static int get_widths(const TensorFile *f, const char *path, WidthMeters *w, Err *e)
{
    for (int k = 0; k < METER_MAX_WIDTHS; k++) {
        char key[32], *end;
        const char *t;
        long bits, act = 0;
        snprintf(key, sizeof key, WIDTH_KEY "%d", k);
        if (!(t = tensors_meta(f, key))) break;
        bits = strtol(t, &end, 10);
        if (*end == '/') act = strtol(end + 1, &end, 10);
        if (bits < 1 || bits > 32 || act < 0 || act > 32 || *end != ' ' ||
            meter_parse(end + 1, &w->m[k]))
            return err_set(e, ERR_DATA, "%s: '%s' is damaged", path, key);
        w->bits[k] = (int)bits;
        w->act_bits[k] = (int)act;
        w->n = k + 1;
    }
    return 0;
}

static int get_state(const TensorFile *f, const char *path, TrainState *state, int64_t *updates,
                     Err *e)
{
    TrainState st;
    char *s = (char *)&st;
    const char *format = tensors_meta(f, "qrun.format");
    state_init(&st);
    if (format && strcmp(format, FORMAT) != 0)
        return err_set(e, ERR_DATA, "%s: checkpoint format %.20s; this program reads " FORMAT, path,
                       format);
    for (size_t i = 0; i < ARRAY_LEN(integers); i++) {
        int64_t v;
        if (get_int(f, path, integers[i].key, &v, e)) return -1;
        memcpy(s + integers[i].offset, &v, sizeof v);
    }
    for (size_t i = 0; i < ARRAY_LEN(meters); i++) {
        const char *t = tensors_meta(f, meters[i].key);
        Meter v;
        if (!t || meter_parse(t, &v))
            return err_set(e, ERR_DATA, "%s: '%s' is missing or damaged", path, meters[i].key);
        memcpy(s + meters[i].offset, &v, sizeof v);
    }
    if (get_widths(f, path, &st.widths, e)) return -1;
    if (get_int(f, path, "qrun.updates", updates, e)) return -1;
    if (tensors_meta(f, SUMMED_KEY) && get_int(f, path, SUMMED_KEY, &st.summed, e)) return -1;
    if (!plausible(&st, *updates))
        return err_set(e, ERR_DATA, "%s: an impossible position in the run", path);
    *state = st;
    return 0;
}

int64_t checkpoint_epoch(const TensorFile *f)
{
    Err none;
    TrainState st;
    int64_t updates;
    if (!tensors_meta(f, "qrun.format") || get_state(f, "", &st, &updates, &none)) return -1;
    return st.batch > 0 ? st.epoch : st.epoch - 1;
}

static bool get_three(const TensorFile *f, const char *key, double v[3])
{
    const char *s = tensors_meta(f, key);
    return s && sscanf(s, "%lf %lf %lf", &v[0], &v[1], &v[2]) == 3;
}

bool checkpoint_input(const TensorFile *f, double mean[3], double std[3])
{
    if (!get_three(f, "qrun.input_mean", mean) || !get_three(f, "qrun.input_std", std))
        return false;
    for (int i = 0; i < 3; i++)
        if (!isfinite(mean[i]) || !isfinite(std[i]) || std[i] <= 0) return false;
    return true;
}

void input_constants(InputShape *s, const double mean[3], const double std[3])
{
    for (int i = 0; i < 3; i++) {
        s->mean[i] = (float)mean[i];
        s->std[i] = (float)std[i];
    }
}

/* ---- tensors ---- */

void checkpoint_strip(TensorFile *f)
{
    int n = 0;
    for (int i = 0; i < f->n; i++)
        if (!str_starts(f->v[i].name, SLOT_PREFIX)) f->v[n++] = f->v[i];
    f->n = n;
}

static const char *slot_name(Arena *a, const Param *p, int slot)
{
    return arena_printf(a, SLOT_PREFIX "%d.%s", slot, p->name);
}

/* How often each parameter was updated, in the order of the store; NULL where all of those that
 * have optimizer state were at every update. */
static int64_t *own_counts(Arena *a, const Checkpoint *c)
{
    int64_t *count = arena_alloc(a, (size_t)c->store->n * sizeof *count);
    bool other = false;
    for (int i = 0; i < c->store->n; i++) {
        const Param *p = c->store->p[i];
        count[i] = p->updates;
        other = other || (p->nslots && p->updates != c->optim->t);
    }
    return other ? count : NULL;
}

static int write_file(const char *path, const Checkpoint *c, Err *e)
{
    MetaList m = {.n = 0};
    TensorOut *t;
    const int len = (int)c->store->n_grads;
    const Tensor sums = tensor_make(DT_F32, 1, &len, c->store->grads),
                 counts = tensor_make(DT_S64, 1, &c->store->n, own_counts(&m.arena, c));
    int n = 0, r;
    t = xcalloc((size_t)c->store->n * (1 + PARAM_MAX_SLOTS) + 2, sizeof *t);
    for (int i = 0; i < c->store->n; i++)
        t[n++] = (TensorOut){c->store->p[i]->name, &c->store->p[i]->value};
    for (int i = 0; i < c->store->n; i++)
        for (int k = 0; k < c->store->p[i]->nslots; k++)
            t[n++] = (TensorOut){slot_name(&m.arena, c->store->p[i], k), &c->store->p[i]->slot[k]};
    if (c->state->summed) t[n++] = (TensorOut){SUMMED_NAME, &sums};
    if (counts.data) t[n++] = (TensorOut){COUNTS_NAME, &counts};
    put_state(&m, c);
    r = safetensors_write(path, t, n, m.v, m.n, e);
    free(t);
    arena_free(&m.arena);
    return r;
}

static int load_slots(const TensorFile *f, const char *path, ParamStore *ps, Err *e)
{
    Arena a = {0};
    int r = 0;
    for (int i = 0; i < ps->n && !r; i++)
        for (int k = 0; k < ps->p[i]->nslots && !r; k++) {
            Tensor *to = &ps->p[i]->slot[k];
            const char *name = slot_name(&a, ps->p[i], k);
            const Tensor *t = tensors_find(f, name);
            if (!t || t->dtype != to->dtype || tensor_len(t) != tensor_len(to))
                r = err_set(e, ERR_DATA, "%s: optimizer state '%s' is missing or of another shape",
                            path, name);
            else
                memcpy(to->data, t->data, tensor_bytes(to));
        }
    arena_free(&a);
    return r;
}

static int load_gradients(const TensorFile *f, const char *path, ParamStore *ps, Err *e)
{
    const Tensor *t = tensors_find(f, SUMMED_NAME);
    if (!t || t->dtype != DT_F32 || tensor_len(t) != ps->n_grads)
        return err_set(e, ERR_DATA, "%s: '" SUMMED_NAME "' is missing or of another length", path);
    memcpy(ps->grads, t->data, tensor_bytes(t));
    return 0;
}

/* `updates`: those of the run. */
static int load_counts(const TensorFile *f, const char *path, ParamStore *ps, int64_t updates,
                       Err *e)
{
    const Tensor *t = tensors_find(f, COUNTS_NAME);
    if (t && (t->dtype != DT_S64 || tensor_len(t) != (size_t)ps->n))
        return err_set(e, ERR_DATA, "%s: '" COUNTS_NAME "' is of another length", path);
    for (int i = 0; i < ps->n; i++) {
        int64_t n = updates;
        if (t) memcpy(&n, (const char *)t->data + (size_t)i * sizeof n, sizeof n);
        if (n < 0 || n > updates)
            return err_set(e, ERR_DATA,
                           "%s: '" COUNTS_NAME "': %" PRId64 " updates of %s, %" PRId64
                           " of the run",
                           path, n, ps->p[i]->name, updates);
        ps->p[i]->updates = n;
    }
    return 0;
}

static int load_file(const char *path, Checkpoint *c, Err *e)
{
    TensorFile f;
    LoadReport report = {0};
    int64_t updates = 0;
    int r;
    if (tensors_read(&f, path, e)) return -1;
    r = get_state(&f, path, c->state, &updates, e);
    if (!r) r = load_slots(&f, path, c->store, e);
    if (!r && c->state->summed) r = load_gradients(&f, path, c->store, e);
    if (!r) r = load_counts(&f, path, c->store, updates, e);
    checkpoint_strip(&f);
    if (!r && tensors_into_store(&f, c->store, true, &report, e)) r = err_prefix(e, "%s", path);
    if (!r) {
        double mean[3], std[3];
        c->optim->t = updates;
        if (checkpoint_input(&f, mean, std)) input_constants(c->input, mean, std);
    }
    load_report_free(&report);
    tensors_free(&f);
    return r;
}

/* ---- files ---- */

/* A file that reads back with its checksum; its position in *s. */
static int peek_file(const char *path, TrainState *s, Err *e)
{
    TensorFile f;
    int64_t updates;
    int r;
    if (tensors_read(&f, path, e)) return -1;
    r = get_state(&f, path, s, &updates, e);
    tensors_free(&f);
    return r;
}

int checkpoint_save(const char *run_dir, const Checkpoint *c, Err *e)
{
    char *last = checkpoint_path(run_dir, CKPT_LAST),
         *previous = checkpoint_path(run_dir, CKPT_PREVIOUS);
    char *best = checkpoint_path(run_dir, CKPT_BEST);
    TrainState back;
    int r = 0;
    if (fs_exists(last)) r = fs_link_or_copy(last, previous, e);
    if (!r) r = write_file(last, c, e);
    if (!r && (r = peek_file(last, &back, e)))
        err_prefix(e, "the checkpoint just written does not read back (the one before is %s)",
                   previous);
    if (!r && c->state->best_step >= 0 && c->state->best_step == c->state->step)
        r = fs_link_or_copy(last, best, e);
    if (r && e && e->kind == ERR_DATA) e->kind = ERR_RUN; /* writing failed, not the user's data */
    free(last);
    free(previous);
    free(best);
    return r;
}

/* Sets a damaged `last` aside and puts the file that was read in its place, so that the next save
 * does not replace the one good copy. */
static int put_in_place(const char *good, const char *last, Err *e)
{
    char *aside = xasprintf("%s.damaged", last);
    int r = 0;
    if (fs_exists(last) && rename(last, aside))
        r = err_set(e, ERR_RUN, "%s: cannot rename: %s", last, strerror(errno));
    if (!r) r = fs_link_or_copy(good, last, e);
    free(aside);
    return r;
}

/* Runs `load` on last, previous, best in this order until one succeeds. *used: which; 1, 0 none
 * there, -1. Damage on the way is told once, by the caller that goes on from there. */
static int first_good(const char *run_dir, int (*load)(const char *, void *, Err *), void *arg,
                      bool tell, CkptFile *used, Err *e)
{
    static const CkptFile order[] = {CKPT_LAST, CKPT_PREVIOUS, CKPT_BEST};
    Err first = {0};
    int found = 0;
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        char *path = checkpoint_path(run_dir, order[i]);
        Err here = {0};
        int there = fs_exists(path), r = there ? load(path, arg, &here) : -1;
        free(path);
        if (!there) continue;
        if (!r) {
            if (i > 0 && tell)
                log_msg(LOG_WARN, "%s; going on from %s instead",
                        found ? first.msg : "checkpoints/last.safetensors is missing",
                        file_names[order[i]]);
            *used = order[i];
            return 1;
        }
        if (!found++) first = here;
    }
    if (!found) return 0;
    return err_set(e, first.kind, "%s", first.msg);
}

static int load_cb(const char *path, void *arg, Err *e)
{
    return load_file(path, arg, e);
}

static int peek_cb(const char *path, void *arg, Err *e)
{
    return peek_file(path, arg, e);
}

int checkpoint_peek(const char *run_dir, TrainState *s, Err *e)
{
    CkptFile used;
    return first_good(run_dir, peek_cb, s, false, &used, e);
}

int checkpoint_repair_best(const char *run_dir, const TrainState *s, Err *e)
{
    char *last = checkpoint_path(run_dir, CKPT_LAST), *best = checkpoint_path(run_dir, CKPT_BEST);
    Err damage;
    TrainState b;
    int r = 0;
    if (s->best_step >= 0) {
        const bool readable = peek_file(best, &b, &damage) == 0;
        if (s->best_step == s->step && !(readable && b.step == s->best_step))
            r = fs_link_or_copy(last, best, e);
        else if (!readable)
            log_msg(LOG_WARN,
                    "%s is missing or damaged; it comes back with the next better evaluation",
                    best);
    }
    free(last);
    free(best);
    return r;
}

int checkpoint_resume(const char *run_dir, Checkpoint *c, Err *e)
{
    char *last = checkpoint_path(run_dir, CKPT_LAST);
    CkptFile used;
    int r = first_good(run_dir, load_cb, c, true, &used, e);
    if (r == 1 && used != CKPT_LAST) {
        char *good = checkpoint_path(run_dir, used);
        if (put_in_place(good, last, e)) r = -1;
        free(good);
    }
    free(last);
    if (r == 1 && checkpoint_repair_best(run_dir, c->state, e)) r = -1;
    return r;
}
