/* test/test_run.c -- metrics, checkpoints of a run, the run folder, the time left. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/fs.h"
#include "io/tfevents.h"
#include "run/checkpoint.h"
#include "run/log.h"
#include "run/manifest.h"
#include "run/modes.h"
#include "run/progress.h"
#include "run/runfolder.h"
#include "run/session.h"
#include "test/support/temp.h"

static char *root;

static char *path_of(const char *name)
{
    return fs_join(root, name);
}

static void write_text(const char *path, const char *text)
{
    Err e = {0};
    if (fs_write(path, text, strlen(text), &e)) fail_msg("%s", e.msg);
}

static char *read_text(const char *path, size_t *len)
{
    Err e = {0};
    char *s = fs_read(path, 0, len, &e);
    if (!s) fail_msg("%s", e.msg);
    return s;
}

/* ---- metrics ---- */

static void topk_ranks(void **state)
{
    /* rows: plain; a tie that the lower index wins; the same tie lost; NaN; not counted */
    const float logits[] = {0, 3, 1, 2, 5, 5, 0, 0, 5, 5, 0, 0, (float)NAN, 0, 0, 0, 1, 2, 3, 4};
    const int32_t label[] = {3, 0, 1, 0, -1};
    TopK t;
    Meter m = {0};
    (void)state;
    topk_init(&t, (const int[]){5, 1, 2}, 3);
    assert_int_equal(t.n, 3);
    assert_int_equal(t.k[0], 1);
    assert_int_equal(t.k[1], 5);
    assert_int_equal(t.k[2], 2);
    topk_count(&t, logits, label, 5, 4, &m);
    assert_int_equal(m.n, 4);
    assert_int_equal(m.right[0], 1);
    assert_int_equal(m.right[1], 4);
    assert_int_equal(m.right[2], 3);
}

static void meter_round_trip(void **state)
{
    const Meter m = {.loss = 1.0 / 3 * 1e7, .n = 1234567890123, .right = {1, 2, 3, 4, 5}};
    Meter back;
    Str s = {0};
    (void)state;
    meter_text(&m, &s);
    assert_int_equal(meter_parse(s.s, &back), 0);
    assert_memory_equal(&m, &back, sizeof m);
    s.s[s.len - 1] = 'x';
    assert_int_equal(meter_parse(s.s, &back), -1);
    assert_int_equal(meter_parse("", &back), -1);
    assert_int_equal(meter_parse("12 0x1p0 1 2", &back), -1);
    str_free(&s);
}

static void result_line(void **state)
{
    const Meter m = {.loss = 2301, .n = 10000, .right = {9258, 9980}};
    TopK t;
    Str s = {0};
    (void)state;
    topk_init(&t, (const int[]){1, 5}, 2);
    meter_result(&m, &(WidthMeters){0}, &t, 12.34, &s);
    assert_string_equal(s.s, "top1=92.58 top5=99.80 loss=0.2301 images=10000 seconds=12.3");
    str_free(&s);
}

static void count_line(void *arg, int64_t line, int64_t step, const char *split, const char *key,
                       double value)
{
    double *sum = arg;
    (void)line;
    (void)split;
    if (!strcmp(key, "loss")) *sum += value * (double)step;
}

static void metrics_are_cut_back(void **state)
{
    char *path = path_of("metrics.jsonl"), *text;
    const Meter m = {.loss = 3, .n = 2, .right = {1}};
    Meter bad = m;
    TopK t;
    Err e = {0};
    MetricsLog *log;
    double sum = 0;
    size_t len;
    (void)state;
    topk_init(&t, NULL, 0);
    log = metrics_open(path, -1, &e);
    assert_non_null(log);
    for (int i = 1; i <= 4; i++)
        assert_int_equal(metrics_row(log, &t,
                                     &(MetricsRow){.step = i,
                                                   .epoch = 1,
                                                   .split = "train",
                                                   .meter = &m,
                                                   .lr = 0.1,
                                                   .grad_norm = (double)NAN},
                                     &e),
                         0);
    bad.loss = (double)NAN; /* JSON has none: null, and the file stays readable */
    assert_int_equal(
        metrics_row(log, &t, &(MetricsRow){.step = 4, .epoch = 1, .split = "val", .meter = &bad},
                    &e),
        0);
    metrics_close(log);
    text = read_text(path, &len);
    assert_non_null(strstr(
        text, "{\"step\":1,\"epoch\":1,\"split\":\"train\",\"loss\":1.5,\"top1\":50.0,\"lr\":0.1"));
    assert_non_null(strstr(text, "\"loss\":null"));
    assert_null(strstr(text, "grad_norm\":null"));
    text[len - 5] = 0; /* a torn last line */
    write_text(path, text);
    free(text);
    log = metrics_open(path, 2, &e);
    assert_non_null(log);
    metrics_close(log);
    assert_int_equal(metrics_read(path, count_line, &sum, &e), 0);
    assert_true(fabs(sum - 1.5 * (1 + 2)) < 1e-12);
    free(path);
}

/* ---- checkpoints ---- */

typedef struct Net {
    ParamStore ps;
    Optim optim;
    OptimOpts opts;
    InputShape input;
    TrainState st;
    Checkpoint ckpt;
} Net;

static void net_init(Net *n, float value)
{
    Err e = {0};
    memset(n, 0, sizeof *n);
    n->opts = (OptimOpts){.optimizer = "adam",
                          .lr = 0.1,
                          .lr_scheduler = "constant",
                          .num_epochs = 5,
                          .gamma = 0.1,
                          .power = 1,
                          .weight_decay_scheme = "all"};
    store_add(&n->ps, PK_WEIGHT, DT_F32, (Init){INIT_CONST, value, 0}, 2, (const int[]){3, 5},
              "conv.weight");
    store_scalar(&n->ps, PK_CLIP, value * 2, "conv.alpha");
    store_add(&n->ps, PK_BUFFER, DT_S64, (Init){INIT_NONE, 0, 0}, 0, NULL,
              "bn.num_batches_tracked");
    store_init(&n->ps, 1);
    store_alloc_grads(&n->ps);
    if (optim_init(&n->optim, &n->opts, &n->ps, &e)) fail_msg("%s", e.msg);
    n->input = (InputShape){3, 8, 8, {0.1f, 0.2f, 0.3f}, {value, 2, 3}};
    state_init(&n->st);
    n->ckpt = (Checkpoint){&n->ps, &n->optim, &n->input, "normalized", "lr: 0.1\n", &n->st};
}

static void net_free(Net *n)
{
    optim_free(&n->optim);
    store_free(&n->ps);
}

/* One update that leaves traces everywhere. */
static void net_step(Net *n)
{
    for (size_t i = 0; i < n->ps.n_grads; i++)
        n->ps.grads[i] = (float)i * 0.01f + (float)n->st.step;
    n->ps.p[0]->trained = n->ps.p[1]->trained = true;
    optim_step(&n->optim, &n->ps, 0);
    ++*(int64_t *)n->ps.p[2]->value.data;
    n->st.step++;
    n->st.batch++;
    n->st.train.loss += 0.1;
    n->st.train.n += 3;
}

static void assert_same_net(const Net *a, const Net *b)
{
    for (int i = 0; i < a->ps.n; i++) {
        const Param *p = a->ps.p[i], *q = b->ps.p[i];
        if (memcmp(p->value.data, q->value.data, tensor_bytes(&p->value)))
            fail_msg("%s differs", p->name);
        for (int k = 0; k < p->nslots; k++)
            if (memcmp(p->slot[k].data, q->slot[k].data, tensor_bytes(&p->slot[k])))
                fail_msg("%s: slot %d differs", p->name, k);
    }
    assert_memory_equal(&a->st, &b->st, sizeof a->st);
    assert_int_equal(a->optim.t, b->optim.t);
    assert_memory_equal(&a->input, &b->input, sizeof a->input);
}

static char *run_dir(const char *name)
{
    char *dir = path_of(name), *ck = fs_join(dir, "checkpoints");
    Err e = {0};
    if (fs_mkdirs(ck, &e)) fail_msg("%s", e.msg);
    free(ck);
    return dir;
}

static void save_ok(const char *dir, const Net *n)
{
    Err e = {0};
    if (checkpoint_save(dir, &n->ckpt, &e)) fail_msg("%s", e.msg);
}

static void flip_byte(const char *path, size_t from_end)
{
    FILE *f = fopen(path, "r+b");
    int c;
    assert_non_null(f);
    fseek(f, -(long)from_end, SEEK_END);
    c = fgetc(f);
    fseek(f, -(long)from_end, SEEK_END);
    fputc(c ^ 1, f);
    fclose(f);
}

static void checkpoint_round_trip(void **state)
{
    char *one = run_dir("one"), *two = run_dir("two"), *a, *b, *ta, *tb;
    size_t la, lb;
    Net n, m;
    Err e = {0};
    (void)state;
    net_init(&n, 1);
    net_init(&m, 7);
    assert_int_equal(checkpoint_resume(one, &m.ckpt, &e), 0);
    net_step(&n);
    net_step(&n);
    save_ok(one, &n);
    save_ok(two, &n);
    if (checkpoint_resume(one, &m.ckpt, &e) != 1) fail_msg("%s", e.msg);
    assert_same_net(&n, &m);
    net_step(&n);
    net_step(&m);
    assert_same_net(&n, &m);
    a = checkpoint_path(one, CKPT_LAST);
    b = checkpoint_path(two, CKPT_LAST);
    ta = read_text(a, &la);
    tb = read_text(b, &lb);
    assert_int_equal(la, lb);
    assert_memory_equal(ta, tb, la); /* nothing measured, no folder name in it */
    free(ta);
    free(tb);
    free(a);
    free(b);
    free(one);
    free(two);
    net_free(&n);
    net_free(&m);
}

static void best_follows_its_evaluation(void **state)
{
    char *dir = run_dir("best"), *best = checkpoint_path(dir, CKPT_BEST);
    TrainState s;
    Net n, m;
    Err e = {0};
    (void)state;
    net_init(&n, 1);
    net_init(&m, 1);
    net_step(&n);
    save_ok(dir, &n);
    assert_int_equal(fs_exists(best), 0);
    n.st.val_step = n.st.best_step = n.st.step; /* an evaluation, the best so far */
    save_ok(dir, &n);
    assert_int_equal(fs_exists(best), 1);
    unlink(best); /* as if killed between the two */
    if (checkpoint_resume(dir, &m.ckpt, &e) != 1) fail_msg("%s", e.msg);
    assert_int_equal(fs_exists(best), 1);
    net_step(&n);
    save_ok(dir, &n); /* later, not better: best stays what it was */
    if (checkpoint_peek(dir, &s, &e) != 1) fail_msg("%s", e.msg);
    assert_int_equal(s.step, 2);
    {
        TensorFile f;
        if (tensors_read(&f, best, &e)) fail_msg("%s", e.msg);
        assert_string_equal(tensors_meta(&f, "qrun.step"), "1");
        checkpoint_strip(&f);
        assert_int_equal(f.n, 3);
        tensors_free(&f);
    }
    free(best);
    free(dir);
    net_free(&n);
    net_free(&m);
}

static void damage_falls_back(void **state)
{
    char *dir = run_dir("damage"), *last = checkpoint_path(dir, CKPT_LAST),
         *previous = checkpoint_path(dir, CKPT_PREVIOUS);
    char *aside = xasprintf("%s.damaged", last), *text;
    size_t len;
    Net n, m;
    Err e = {0};
    (void)state;
    net_init(&n, 1);
    net_init(&m, 1);
    net_step(&n);
    save_ok(dir, &n);
    net_step(&n);
    save_ok(dir, &n);
    flip_byte(last, 3); /* in the tensors */
    if (checkpoint_resume(dir, &m.ckpt, &e) != 1) fail_msg("%s", e.msg);
    assert_int_equal(m.st.step, 1);
    assert_int_equal(fs_exists(aside), 1);
    net_step(&m); /* the same update again: the same net */
    assert_same_net(&n, &m);
    save_ok(dir, &m);

    text = read_text(last, &len); /* in the metadata: the step says 2 */
    {
        char *at = NULL;
        for (size_t i = 0; i + 20 < len && !at; i++)
            if (!memcmp(text + i, "\"qrun.step\":\"2\"", 15)) at = text + i;
        assert_non_null(at);
        at[13] = '7';
        if (fs_write(last, text, len, &e)) fail_msg("%s", e.msg);
    }
    free(text);
    if (checkpoint_resume(dir, &m.ckpt, &e) != 1) fail_msg("%s", e.msg);
    assert_int_equal(m.st.step, 1);

    flip_byte(last, 3);
    write_text(previous, "no checkpoint");
    assert_int_equal(checkpoint_resume(dir, &m.ckpt, &e), -1);
    assert_int_equal(e.kind, ERR_DATA);
    assert_non_null(strstr(e.msg, last));
    free(aside);
    free(last);
    free(previous);
    free(dir);
    net_free(&n);
    net_free(&m);
}

static void other_net_is_refused(void **state)
{
    char *dir = run_dir("other");
    Net n, m;
    Err e = {0};
    (void)state;
    net_init(&n, 1);
    net_init(&m, 1);
    store_scalar(&m.ps, PK_BIAS, 0, "fc.bias");
    save_ok(dir, &n);
    assert_int_equal(checkpoint_resume(dir, &m.ckpt, &e), -1);
    assert_int_equal(e.kind, ERR_DATA);
    assert_non_null(strstr(e.msg, "fc.bias"));
    free(dir);
    net_free(&n);
    net_free(&m);
}

/* ---- run folder ---- */

static void folder_is_locked(void **state)
{
    char *dir = path_of("locked");
    RunFolder f;
    Err e = {0};
    int status;
    pid_t child;
    (void)state;
    if (runfolder_open(&f, dir, &e)) fail_msg("%s", e.msg);
    child = fork();
    if (child == 0) {
        char want[64];
        RunFolder g;
        Err ce = {0};
        int r = runfolder_open(&g, dir, &ce);
        snprintf(want, sizeof want, "process %ld", (long)getppid());
        _exit(r == -1 && ce.kind == ERR_RUN && strstr(ce.msg, want) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    runfolder_close(&f);
    assert_int_equal(fs_exists(dir),
                     0); /* made by this process and not used: nothing stays behind */
    free(dir);
}

static void another_config_is_refused(void **state)
{
    char *dir = path_of("config"), *o1 = xstrdup("lr=0.05"), *o2 = xstrdup("lr=0.07"),
         *o3 = xstrdup("num_epochs=900");
    char *overrides[2] = {NULL, NULL};
    Config c;
    RunFolder f;
    Err e = {0};
    (void)state;
    overrides[0] = o1;
    if (config_load(&c, "smoke", 1, overrides, &e)) fail_msg("%s", e.msg);
    if (runfolder_open(&f, dir, &e) || runfolder_check_config(&f, &c, &e) ||
        runfolder_begin(&f, &c, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(runfolder_check_config(&f, &c, &e), 0);
    config_free(&c);
    overrides[0] = o2;
    if (config_load(&c, "smoke", 1, overrides, &e)) fail_msg("%s", e.msg);
    assert_int_equal(runfolder_check_config(&f, &c, &e), -1);
    assert_int_equal(e.kind, ERR_CONFIG);
    assert_non_null(strstr(e.msg, "lr"));
    assert_null(strstr(e.msg, "momentum"));
    config_free(&c);
    overrides[0] = o1;
    overrides[1] = o3; /* longer is the same run */
    if (config_load(&c, "smoke", 2, overrides, &e)) fail_msg("%s", e.msg);
    if (runfolder_check_config(&f, &c, &e)) fail_msg("%s", e.msg);
    config_free(&c);
    runfolder_close(&f);
    assert_int_equal(fs_exists(dir), 2);
    log_close();
    free(o1);
    free(o2);
    free(o3);
    free(dir);
}

static void manifest_goes_on(void **state)
{
    char *path = path_of("run.json"), *arg = xstrdup("qrun");
    const Meter m = {.loss = 1, .n = 2, .right = {1}};
    Config c;
    TopK t;
    Err e = {0};
    Manifest *man;
    (void)state;
    topk_init(&t, NULL, 0);
    config_default(&c);
    c.run.experiment = "test";
    man = manifest_open(path, true);
    assert_null(manifest_line(man));
    manifest_begin(man, &c, "train", 1, &arg, path, NULL, 0);
    manifest_result(man, "top1=50.00", &m, &t, 3, 2, &m);
    if (manifest_save(man, "finished", 0, &e)) fail_msg("%s", e.msg);
    manifest_free(man);
    man = manifest_open(path, true);
    assert_string_equal(manifest_line(man), "top1=50.00");
    manifest_free(man);
    write_text(path, "{\"schema\": 1, "); /* damaged: begun anew, no crash */
    man = manifest_open(path, true);
    assert_null(manifest_line(man));
    if (manifest_save(man, "running", -1, &e)) fail_msg("%s", e.msg);
    manifest_free(man);
    config_free(&c);
    free(arg);
    free(path);
}

/* ---- progress ---- */

static void time_left(void **state)
{
    Progress p = {.total_steps = 100, .eval_batches = 30, .evals_left = 2};
    char text[32];
    (void)state;
    assert_true(progress_eta(&p, 0) < 0);
    progress_step(&p, 50); /* the first builds the programs */
    assert_true(progress_eta(&p, 1) < 0);
    progress_step(&p, 0.5);
    assert_true(fabs(progress_eta(&p, 20) - (80 * 0.5 + 2 * 30 * 0.5 / 3)) < 1e-9);
    p.eval_s = 4;
    assert_true(fabs(progress_eta(&p, 20) - (80 * 0.5 + 2 * 4)) < 1e-9);
    assert_string_equal(duration_text(59.2, text, sizeof text), "59 s");
    assert_string_equal(duration_text(62, text, sizeof text), "1:02");
    assert_string_equal(duration_text(3600 + 61, text, sizeof text), "1:01:01");
}

/* ---- a whole run, in this process ---- */

/* The smallest run there is, in ROOT/whole, with one more override (may be NULL). */
static void load_tiny(Config *c, const char *more)
{
    static const char *const fixed[] = {
        "synth_train=96", "synth_val=64",         "batch_size=32",  "num_epochs=2",
        "model=resnet20", "mean=[0.4, 0.5, 0.6]", "log_interval=1", "std=[0.2, 0.2, 0.2]"};
    char *o[ARRAY_LEN(fixed) + 2];
    int n = 0;
    Err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) o[n++] = xstrdup(fixed[i]);
    o[n++] = xasprintf("log_dir=%s/whole", root);
    if (more) o[n++] = xstrdup(more);
    if (config_load(c, "smoke", n, o, &e)) fail_msg("%s", e.msg);
    while (n) free(o[--n]);
}

/* How often each tag was seen at each step, as "tag@step " in one text. */
static void note_scalar(void *arg, const char *tag, int64_t step, double value, double wall)
{
    (void)value;
    (void)wall;
    str_printf(arg, "%s@%lld ", tag, (long long)step);
}

static int occurrences(const char *text, const char *part)
{
    int n = 0;
    for (const char *s = text; (s = strstr(s, part)); s += strlen(part)) n++;
    return n;
}

static char *only_file_in(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *f;
    char *path = NULL;
    assert_non_null(d);
    while ((f = readdir(d)))
        if (f->d_name[0] != '.') {
            assert_null(path);
            path = fs_join(dir, f->d_name);
        }
    closedir(d);
    assert_non_null(path);
    return path;
}

/* Runs `c` to its end; the exit status. What it prints on stdout is swallowed. */
static int run_config(Config *c)
{
    char *argv[] = {xstrdup("qrun"), NULL};
    Run run = {.cfg = c, .argc = 1, .argv = argv, .started = log_clock()};
    Err e = {0};
    int out = dup(STDOUT_FILENO), r;
    assert_non_null(freopen("/dev/null", "w", stdout));
    r = train_run(&run, &e);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    free(argv[0]);
    log_close();
    if (r) fail_msg("%s", e.msg);
    return run.status;
}

static void events_of_a_resumed_run(void **state)
{
    static const char *const wanted[] = {
        " loss/train@1 ",
        " loss/train@2 ",
        " loss/train@4 ",
        " loss/train@5 ",
        " top1/train@1 ",
        " img_per_s@2 ",
        " grad_norm@2 ",
        " lr@1 ",
        " loss/val@3 ",
        " top1/val@3 ",
        " top5/val@6 ",
        " test_acc@3 ",
        " test_acc@6 ",
        " train_acc@6 ",
        " alpha_wgt/layer1.0.conv1@3 ",
        " alpha_act/layer3.2.conv2@6 ",
    };
    char *tb = path_of("whole/tb"), *events;
    Config c;
    Str seen = {0};
    Err e = {0};
    (void)state;
    load_tiny(&c, "max_time=0.000001"); /* one update, then stopped with a checkpoint */
    assert_int_equal(run_config(&c), 75);
    config_free(&c);
    load_tiny(&c, NULL);
    assert_int_equal(run_config(&c), 0);
    config_free(&c);
    events = only_file_in(tb);
    str_puts(&seen, " ");
    if (tfevents_read(events, note_scalar, &seen, &e)) fail_msg("%s", e.msg);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        if (occurrences(seen.s, wanted[i]) != 1)
            fail_msg("%d times%s", occurrences(seen.s, wanted[i]), wanted[i]);
    str_free(&seen);
    free(events);
    free(tb);
}

/* A net keeps the constants it was trained with, unless the configuration sets them. */
static void constants_travel(void **state)
{
    static const float trained[] = {0.4f, 0.5f, 0.6f};
    char *overrides[] = {xstrdup("bit=3"), xstrdup("mean=[0.1, 0.1, 0.1]"),
                         xstrdup("std=[0.3, 0.3, 0.3]")};
    char *run = path_of("whole");
    Err e = {0};
    (void)state;
    for (int n = 1; n <= 3; n += 2) {
        Config c;
        Session s = {0};
        char *path = weights_path(run, &e);
        if (!path || config_load(&c, "smoke", n, overrides, &e) || session_open(&s, &c, &e) ||
            session_load(&s, path, &e))
            fail_msg("%s", e.msg);
        for (int i = 0; i < 3; i++) {
            assert_true(s.input.mean[i] == (n == 1 ? trained[i] : 0.1f));
            assert_true(s.input.std[i] == (n == 1 ? 0.2f : 0.3f));
        }
        session_free(&s);
        config_free(&c);
        free(path);
    }
    free(overrides[0]);
    free(overrides[1]);
    free(overrides[2]);
    free(run);
}

static int set_up(void **state)
{
    (void)state;
    return temp_begin(&root, "run");
}

static int tear_down(void **state)
{
    (void)state;
    return temp_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topk_ranks),
        cmocka_unit_test(meter_round_trip),
        cmocka_unit_test(result_line),
        cmocka_unit_test(metrics_are_cut_back),
        cmocka_unit_test(checkpoint_round_trip),
        cmocka_unit_test(best_follows_its_evaluation),
        cmocka_unit_test(damage_falls_back),
        cmocka_unit_test(other_net_is_refused),
        cmocka_unit_test(folder_is_locked),
        cmocka_unit_test(another_config_is_refused),
        cmocka_unit_test(manifest_goes_on),
        cmocka_unit_test(time_left),
        cmocka_unit_test(events_of_a_resumed_run),
        cmocka_unit_test(constants_travel),
    };
    return cmocka_run_group_tests_name("run", tests, set_up, tear_down);
}
