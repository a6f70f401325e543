/* data/loader.c -- worker threads fill a ring of batches in a fixed order.
 *
 * The unit of work is a chunk of samples of one batch; workers claim chunks in (batch, chunk) order
 * under the lock, and only of batches that have a free place in the ring. Which worker makes a
 * sample never matters: its pixels depend on (seed, epoch, sample) alone. Waiting is on condition
 * variables, nobody spins. A batch is finished (bad samples counted, the order of messages fixed)
 * by the consumer. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/transform.h"

#define RING        4  /* batches: one in use, others ready or in the making */
#define CHUNK       16 /* samples */
#define WORKERS_MAX 256
#define TRIES       1000 /* samples in a row that may be bad */

typedef struct Slot {
    Batch b;
    int64_t number; /* batch it holds or is being filled with; -1: none */
    int todo;       /* chunks not yet done */
    char **bad;     /* b.size messages of bad samples, or NULL */
    bool *lost;     /* b.size: nothing usable at this place */
} Slot;

/* What one thread works with. */
typedef struct Worker {
    struct Loader *l;
    pthread_t thread;
    TransformScratch sc;
} Worker;

struct Loader {
    const Dataset *d;
    Transform t;
    Split split;
    uint64_t seed;
    bool shuffle, skip;
    int batch;
    int64_t batches;
    uint32_t *order; /* of the epoch */
    uint64_t epoch;
    Slot slot[RING];
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    int64_t next, claimed; /* batch the consumer wants; batch of which chunks are claimed */
    int chunk;             /* next chunk of `claimed` */
    int busy;              /* chunks in the making */
    bool paused, quit;
    int64_t holding; /* batch handed out, -1: none */
    Err failed;      /* of the epoch; kind ERR_NONE: none */
    int64_t bad_images;
    double waited;
    int workers;
    Worker *w; /* workers, or 1 for the consumer itself */
};

static int batch_len(const Loader *l, int64_t number)
{
    int64_t rest = (int64_t)l->d->count - number * l->batch;
    return rest < l->batch ? (int)rest : l->batch;
}

static int chunks_of(const Loader *l, int64_t number)
{
    return (batch_len(l, number) + CHUNK - 1) / CHUNK;
}

/* What ImagePart.box is given. */
typedef struct SampleAt {
    const Transform *t;
    uint64_t epoch;
    uint32_t index;
} SampleAt;

static void part_of(const void *arg, int h, int w, int box[4])
{
    const SampleAt *s = arg;
    transform_source(s->t, s->epoch, s->index, h, w, box);
}

static int read_image(Worker *w, uint32_t index, int *label, Err *e)
{
    const Loader *l = w->l;
    const SampleAt at = {&l->t, l->epoch, index};
    const ImagePart part = {part_of, &at};
    if (l->d->def->get_part) return l->d->def->get_part(l->d, index, &part, &w->sc.in, label, e);
    return l->d->def->get(l->d, index, &w->sc.in, label, e);
}

/* One sample into place `at` of the batch; -1 with `e` naming the image. */
static int make_sample(Worker *w, Slot *s, int at, uint32_t index, Err *e)
{
    const Loader *l = w->l;
    const InputShape *sh = &l->t.shape;
    size_t len = (size_t)sh->h * (size_t)sh->w * (size_t)sh->c;
    int label;
    if (read_image(w, index, &label, e)) return -1;
    if (transform_run(&l->t, &w->sc, l->epoch, index, &w->sc.in, s->b.x + len * (size_t)at, e))
        return err_prefix(e, "%s: sample %u", l->d->where, index);
    s->b.label[at] = label;
    s->b.index[at] = index;
    return 0;
}

/* The place of a bad training sample goes to the next good one of the epoch's order. */
static void replace(Worker *w, Slot *s, int at, size_t pos)
{
    const Loader *l = w->l;
    Err err;
    for (uint32_t k = 1; k < l->d->count && k <= TRIES; k++)
        if (!make_sample(w, s, at, l->order[(pos + k) % l->d->count], &err)) return;
    s->lost[at] = true;
}

static void fill_chunk(Worker *w, Slot *s, int64_t number, int chunk)
{
    const Loader *l = w->l;
    int end = (chunk + 1) * CHUNK, n = batch_len(l, number);
    if (end > n) end = n;
    for (int at = chunk * CHUNK; at < end; at++) {
        size_t pos = (size_t)number * (size_t)l->batch + (size_t)at;
        Err err;
        s->lost[at] = false;
        if (!make_sample(w, s, at, l->order[pos], &err)) continue;
        s->bad[at] = xstrdup(err.msg);
        if (l->skip && l->split == SPLIT_TRAIN)
            replace(w, s, at, pos);
        else
            s->lost[at] = true;
    }
}

/* Takes the next chunk when there is one and a place for it; lock held. */
static bool claim(Loader *l, int64_t *number, int *chunk)
{
    int64_t oldest = l->holding >= 0 ? l->holding : l->next;
    Slot *s;
    if (l->paused || l->claimed >= l->batches || l->claimed >= oldest + RING) return false;
    s = &l->slot[l->claimed % RING];
    if (!l->chunk) {
        s->number = l->claimed;
        s->todo = chunks_of(l, l->claimed);
    }
    *number = l->claimed;
    *chunk = l->chunk++;
    if (l->chunk == chunks_of(l, l->claimed)) {
        l->claimed++;
        l->chunk = 0;
    }
    l->busy++;
    return true;
}

/* Lock held on entry and exit; one chunk. */
static void work_on(Worker *w, int64_t number, int chunk)
{
    Loader *l = w->l;
    Slot *s = &l->slot[number % RING];
    pthread_mutex_unlock(&l->lock);
    fill_chunk(w, s, number, chunk);
    pthread_mutex_lock(&l->lock);
    l->busy--;
    if (--s->todo == 0 || l->paused) pthread_cond_broadcast(&l->done);
}

static void *worker_main(void *arg)
{
    Worker *w = arg;
    Loader *l = w->l;
    int64_t number;
    int chunk;
    pthread_mutex_lock(&l->lock);
    while (!l->quit) {
        if (claim(l, &number, &chunk))
            work_on(w, number, chunk);
        else
            pthread_cond_wait(&l->work, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void clear_messages(Slot *s)
{
    for (int i = 0; i < s->b.size; i++) {
        free(s->bad[i]);
        s->bad[i] = NULL;
    }
}

Loader *loader_open(const Dataset *d, const DataOpts *o, const InputShape *s, Split split,
                    int batch_size, Err *e)
{
    const TransformRecipe *r = data_recipe(o, e);
    size_t len = (size_t)s->h * (size_t)s->w * (size_t)s->c;
    Transform t;
    Loader *l;
    sigset_t all, before;
    int code = 0;
    if (!r || transform_prepare(&t, r, o, split, s, e)) return NULL;
    if (batch_size < 1 || o->data_loader_workers < 0 || o->data_loader_workers > WORKERS_MAX) {
        err_set(e, ERR_CONFIG,
                "batch_size: %d must be at least 1, data_loader_workers: %d within 0..%d",
                batch_size, o->data_loader_workers, WORKERS_MAX);
        return NULL;
    }
    if (o->on_bad_image && *o->on_bad_image && strcmp(o->on_bad_image, "fail") &&
        strcmp(o->on_bad_image, "skip")) {
        err_set(e, ERR_CONFIG, "on_bad_image: '%s' is neither fail nor skip", o->on_bad_image);
        return NULL;
    }
    if (len * sizeof(float) * (size_t)batch_size > mem_left() / RING) {
        err_set(e, ERR_RUN, "%d batches of %d images need %.1f GiB, and %.1f GiB of memory can be had; expected a smaller %s",
                RING, batch_size, (double)len * sizeof(float) * batch_size * RING / 0x1p30, (double)mem_left() / 0x1p30,
                split == SPLIT_TRAIN ? "batch_size" : "val_batch_size");
        return NULL;
    }
    l = xcalloc(1, sizeof(*l));
    l->d = d;
    l->t = t;
    l->split = split;
    l->seed = o->seed;
    l->shuffle = split == SPLIT_TRAIN && o->shuffle;
    l->skip = str_eq(o->on_bad_image, "skip");
    l->batch = batch_size;
    l->batches = (int64_t)d->count / batch_size;
    if (d->count % (uint32_t)batch_size && !(split == SPLIT_TRAIN && o->drop_last)) l->batches++;
    if (!l->batches) {
        err_set(e, ERR_CONFIG, "drop_last: the %u images of %s make not one batch of %d", d->count,
                d->where, batch_size);
        free(l);
        return NULL;
    }
    l->order = xmalloc((size_t)d->count * sizeof(*l->order));
    l->holding = -1;
    l->paused = true;
    for (int i = 0; i < RING; i++) {
        Slot *sl = &l->slot[i];
        sl->b.x = xaligned(len * (size_t)batch_size * sizeof(float));
        sl->b.label = xmalloc((size_t)batch_size * sizeof(*sl->b.label));
        sl->b.index = xcalloc((size_t)batch_size, sizeof(*sl->b.index));
        sl->b.size = batch_size;
        sl->bad = xcalloc((size_t)batch_size, sizeof(*sl->bad));
        sl->lost = xcalloc((size_t)batch_size, sizeof(*sl->lost));
    }
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, NULL);
    l->w = xcalloc((size_t)(o->data_loader_workers ? o->data_loader_workers : 1), sizeof(*l->w));
    l->w[0].l = l;
    /* signals are the main thread's business */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < o->data_loader_workers && !code; i++) {
        l->w[i].l = l;
        code = pthread_create(&l->w[i].thread, NULL, worker_main, &l->w[i]);
        l->workers += !code;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) {
        err_set(e, ERR_RUN, "data_loader_workers: only %d of %d threads could be started: %s",
                l->workers, o->data_loader_workers, strerror(code));
        loader_close(l);
        return NULL;
    }
    if (loader_seek(l, 0, 0, e)) {
        loader_close(l);
        return NULL;
    }
    return l;
}

int64_t loader_batches(const Loader *l)
{
    return l->batches;
}

int loader_seek(Loader *l, uint64_t epoch, int64_t batch, Err *e)
{
    if (batch < 0 || batch > l->batches)
        return err_set(e, ERR_DATA,
                       "%s: batch %lld of an epoch of %lld; the data set is not the one the run "
                       "was begun with",
                       l->d->where, (long long)batch, (long long)l->batches);
    pthread_mutex_lock(&l->lock);
    if (!l->paused && l->epoch == epoch && l->next == batch && l->holding < 0 &&
        l->failed.kind == ERR_NONE) { /* it stands there: what is made already stays */
        pthread_mutex_unlock(&l->lock);
        return 0;
    }
    l->paused = true;
    while (l->busy) pthread_cond_wait(&l->done, &l->lock);
    for (int i = 0; i < RING; i++) {
        l->slot[i].number = -1;
        clear_messages(&l->slot[i]);
    }
    for (uint32_t i = 0; i < l->d->count; i++) l->order[i] = i;
    if (l->shuffle) {
        Rng g = rng_stream(l->seed, RNG_SHUFFLE, epoch, 0);
        rng_shuffle(&g, l->order, l->d->count);
    }
    l->epoch = epoch;
    l->next = l->claimed = batch;
    l->chunk = 0;
    l->holding = -1;
    l->failed.kind = ERR_NONE;
    l->paused = false;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Moves the samples of a validation batch together over those that were lost. */
static void compact(Slot *s, size_t len)
{
    int n = 0;
    for (int i = 0; i < s->b.n; i++) {
        if (s->lost[i]) continue;
        if (n != i) {
            memcpy(s->b.x + len * (size_t)n, s->b.x + len * (size_t)i, len * sizeof(float));
            s->b.label[n] = s->b.label[i];
            s->b.index[n] = s->b.index[i];
        }
        n++;
    }
    s->b.n = n;
}

/* A complete slot becomes the batch the caller sees; -1 when one of its images is bad and that is
 * an error. */
static int finish(Loader *l, Slot *s, int64_t number)
{
    const InputShape *sh = &l->t.shape;
    size_t len = (size_t)sh->h * (size_t)sh->w * (size_t)sh->c;
    s->b.n = batch_len(l, number);
    s->b.epoch = l->epoch;
    s->b.number = number;
    for (int i = 0; i < s->b.n; i++) {
        if (!s->bad[i]) continue;
        if (!l->skip) return err_set(&l->failed, ERR_DATA, "%s", s->bad[i]);
        log_msg(LOG_WARN, "skipped: %s", s->bad[i]);
        l->bad_images++;
        if (s->lost[i] && l->split == SPLIT_TRAIN)
            return err_set(&l->failed, ERR_DATA, "%s: too many bad images in a row; the first: %s",
                           l->d->where, s->bad[i]);
    }
    clear_messages(s);
    compact(s, len);
    for (int i = s->b.n; i < s->b.size; i++) s->b.label[i] = -1, s->b.index[i] = 0;
    memset(s->b.x + len * (size_t)s->b.n, 0, len * (size_t)(s->b.size - s->b.n) * sizeof(float));
    return 0;
}

/* Waits until batch l->next is complete, or makes it; lock held. */
static Slot *wait_for(Loader *l)
{
    Slot *s = &l->slot[l->next % RING];
    double start = s->number != l->next || s->todo ? seconds() : 0;
    while (s->number != l->next || s->todo) {
        int64_t number;
        int chunk;
        if (!l->workers) {
            bool got = claim(l, &number, &chunk);
            ASSERT(got, "batch %lld cannot be claimed", (long long)l->next);
            work_on(&l->w[0], number, chunk);
            continue;
        }
        pthread_cond_wait(&l->done, &l->lock);
    }
    if (start > 0) l->waited += seconds() - start;
    return s;
}

int loader_next(Loader *l, const Batch **b, Err *e)
{
    int rc = 0;
    *b = NULL;
    pthread_mutex_lock(&l->lock);
    l->holding = -1;
    pthread_cond_broadcast(&l->work);
    while (!rc && l->failed.kind == ERR_NONE && l->next < l->batches) {
        Slot *s = wait_for(l);
        if (!finish(l, s, l->next)) {
            l->holding = l->next++;
            if (s->b.n) *b = &s->b, rc = 1;
        }
    }
    if (l->failed.kind != ERR_NONE) rc = err_set(e, l->failed.kind, "%s", l->failed.msg);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

int64_t loader_bad_images(const Loader *l)
{
    return l->bad_images;
}

double loader_wait_seconds(const Loader *l)
{
    return l->waited;
}

void loader_close(Loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->workers; i++) pthread_join(l->w[i].thread, NULL);
    for (int i = 0; i < (l->workers ? l->workers : 1); i++) transform_scratch_free(&l->w[i].sc);
    for (int i = 0; i < RING; i++) {
        Slot *s = &l->slot[i];
        if (s->bad) clear_messages(s);
        free(s->b.x), free(s->b.label), free(s->b.index), free(s->bad), free(s->lost);
    }
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    free(l->order);
    free(l->w);
    free(l);
}
