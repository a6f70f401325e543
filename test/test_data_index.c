/* test/test_data_index.c -- lists of class-per-folder trees: order, cache, and trees that are not
 * as they should be. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/index.h"
#include "io/fs.h"
#include "test/data_files.h"
#include "test/data_support.h"
#include "test/support/temp.h"

static char *dir;
static char logged[4096]; /* the last line of the log */
static int warnings;

static void listen_log(LogLevel level, const char *text)
{
    warnings += level == LOG_WARN;
    snprintf(logged, sizeof(logged), "%s", text);
}

static const char *at(const char *name)
{
    static char path[64][1024];
    static int turn;
    turn = (turn + 1) % 64;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void put(const char *name, const char *text)
{
    Str b = {0};
    str_puts(&b, text);
    save(dir, name, &b);
}

static void put_picture(const char *name, int side)
{
    Str b = {0};
    put_png(&b, side, side, 3);
    save(dir, name, &b);
}

/* A new file: writing over one makes some file systems wait for the disk. */
static void overwrite(const char *path, const char *bytes, size_t n)
{
    FILE *f;
    remove(path);
    f = fopen(path, "wb");
    assert_true(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
}

/* A folder as if changed N seconds ago. */
static void age(const char *name, int seconds)
{
    struct timespec now, t[2];
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec -= seconds;
    t[0] = t[1] = now;
    assert_int_equal(utimensat(AT_FDCWD, at(name), t, 0), 0);
}

static void same_lists(const TreeIndex *a, const TreeIndex *b)
{
    assert_string_equal(a->path, b->path);
    assert_int_equal(a->nimages, b->nimages);
    assert_int_equal(a->nfolders, b->nfolders);
    for (size_t i = 0; i < a->nimages; i++)
        assert_string_equal(a->text + a->image[i], b->text + b->image[i]);
    for (size_t i = 0; i < a->nfolders; i++) {
        assert_string_equal(a->text + a->folder[i].name, b->text + b->folder[i].name);
        assert_int_equal(a->folder[i].images, b->folder[i].images);
        assert_int_equal(a->folder[i].class, b->folder[i].class);
    }
}

static void test_order(void **state)
{
    static const char *const want[] = {"a/1.png",       "a/10.jpg",    "a/2.JPEG",
                                       "a/sub-1.png",   "a/sub/3.png", "b\nc/\xc3\xa9 \n.png",
                                       "\xc3\xa4/x.png"};
    TreeIndex x;
    Err e = {0};
    (void)state;
    for (size_t i = ARRAY_LEN(want); i-- > 0;) {
        char name[100];
        snprintf(name, sizeof(name), "order/%s", want[i]);
        put(name, "");
    }
    put("order/a/notes.txt", "");
    put("order/a/.3.png", "");
    put("order/top.png", "");
    put("order/.git/x.png", "");
    mkdir(at("order/empty"), 0777);
    assert_int_equal(mkfifo(at("order/a/pipe.png"), 0666), 0);
    assert_int_equal(symlink("1.png", at("order/a/4.png")), 0);
    assert_int_equal(index_list(&x, at("order"), &e), 0);
    assert_int_equal(x.nimages, ARRAY_LEN(want) + 1);
    for (size_t i = 0, k = 0; i < x.nimages; i++)
        if (!str_eq(x.text + x.image[i], "a/4.png"))
            assert_string_equal(x.text + x.image[i], want[k++]);
    assert_int_equal(x.nfolders, 6); /* itself, a, a/sub, b c, empty, ae */
    assert_int_equal(x.folder[1].images, 6);
    assert_int_equal(x.folder[2].class, 0);
    index_free(&x);
}

/* What is read is what was listed; a file with any byte changed or cut anywhere is not. */
static void test_cache(void **state)
{
    TreeIndex x, y;
    Err e = {0};
    Str why = {0};
    char *file, *bytes, *copy;
    size_t n;
    (void)state;
    for (int i = 0; i < 30; i++) {
        char name[100];
        snprintf(name, sizeof(name), "tree/c%d/%s%d.png", i % 3, i % 5 ? "" : "deep/", i);
        put(name, "");
    }
    assert_int_equal(index_list(&x, at("tree"), &e), 0);
    assert_non_null(file = index_cache_file(x.path));
    assert_non_null(strstr(file, "/cache/qrun/trees/"));
    assert_int_equal(index_load(&y, x.path, file, &why), 0);
    assert_non_null(strstr(why.s, "not listed before"));
    assert_int_equal(index_save(&x, file, &why), 0); /* a later change could have the same time */
    assert_non_null(strstr(why.s, "changed just now"));
    assert_int_equal(fs_exists(file), 0);
    index_free(&x);
    for (int i = 0; i < 3; i++) {
        char name[100];
        snprintf(name, sizeof(name), "tree/c%d/deep", i);
        age(name, 100 + i);
        snprintf(name, sizeof(name), "tree/c%d", i);
        age(name, 50 + i);
    }
    age("tree", 30);
    assert_int_equal(index_list(&x, at("tree"), &e), 0);
    assert_int_equal(index_save(&x, file, &why), 1);
    assert_int_equal(index_load(&y, x.path, file, &why), 1);
    same_lists(&x, &y);
    index_free(&y);
    assert_int_equal(index_load(&y, "/elsewhere", file, &why), 0);
    assert_non_null(strstr(why.s, "/elsewhere") ? NULL : strstr(why.s, x.path));
    bytes = fs_read(file, 0, &n, &e);
    copy = xmalloc(n);
    for (size_t i = 0; i < n; i++) {
        memcpy(copy, bytes, n);
        copy[i] ^= 1;
        overwrite(file, copy, i % 2 ? i : n);
        why.len = 0;
        if (index_load(&y, x.path, file, &why) || !strstr(why.s, "damaged"))
            fail_msg("%s at byte %zu of %zu: %s", i % 2 ? "cut" : "changed", i, n, why.s);
    }
    overwrite(file, bytes, n);
    put("tree/c1/deep/new.png", "");
    why.len = 0;
    assert_int_equal(index_load(&y, x.path, file, &why), 0);
    assert_non_null(strstr(why.s, "tree/c1/deep has changed"));
    age("tree/c1/deep", 60);
    assert_int_equal(index_load(&y, x.path, file, &why), 0);
    free(bytes), free(copy), free(file);
    str_free(&why);
    index_free(&x);
}

/* Through the data set: large trees are kept, changes seen, a cache that cannot be written or is
 * damaged is no fault. */
static void test_open(void **state)
{
    char *where = xstrdup(at("large")), *file, *real;
    DataOpts o = opts("folder", where);
    Dataset d;
    (void)state;
    put_picture("large/train/c0/!.png", 80); /* the first image is looked at */
    for (int i = 0; i < INDEX_CACHE_MIN; i++) {
        char name[100];
        int fd;
        snprintf(name, sizeof(name), "large/train/c%d", i / 2500);
        if (i % 2500 == 0) mkdir(at(name), 0777);
        snprintf(name, sizeof(name), "large/train/c%d/%05d.png", i / 2500, i);
        fd = open(at(name), O_CREAT | O_WRONLY, 0666);
        assert_true(fd >= 0 && !close(fd));
    }
    for (int i = 0; i < 4; i++) {
        char name[100];
        snprintf(name, sizeof(name), "large/train/c%d", i);
        age(name, 100);
    }
    age("large/train", 100);
    real = realpath(at("large/train"), NULL);
    file = index_cache_file(real);
    log_set(LOG_DEBUG, listen_log);
    for (int turn = 0; turn < 7; turn++) {
        static const char *const say[] = {
            "index_cache: false", "not listed before", "read in", "damaged",
            "has changed",        "read in",           "not kept"};
        TreeIndex x;
        Err e = {0};
        o.index_cache = turn > 0;
        if (turn == 3) overwrite(file, "qrunidx", 7);
        if (turn == 4) put("large/train/c3/zz.png", ""), age("large/train/c3", 10);
        if (turn == 6) setenv("XDG_CACHE_HOME", at("large/train/c0/!.png"), 1);
        assert_int_equal(index_open(&x, at("large/train"), o.index_cache, &e), 0);
        if (!strstr(logged, say[turn])) fail_msg("turn %d: '%s'", turn, logged);
        index_free(&x);
        open_ok(&d, &o, SPLIT_TRAIN);
        assert_int_equal(d.count, INDEX_CACHE_MIN + 1 + (turn >= 4));
        assert_int_equal(d.classes, 4);
        dataset_close(&d);
        if (fs_exists(file) != (turn > 0)) fail_msg("turn %d: %s", turn, file);
    }
    log_set(LOG_WARN, listen_log);
    setenv("XDG_CACHE_HOME", at("cache"), 1);
    free(file), free(real), free(where);
}

/* One line, naming the place. */
static void fails(const char *tree, ErrKind kind, const char *file, const char *what)
{
    DataOpts o = opts("folder", at(tree));
    Dataset d;
    Err e = {0};
    Image im = {0};
    int rc = dataset_open(&d, &o, SPLIT_TRAIN, &e), label;
    if (!rc) { /* read when needed: the worst of its images */
        for (uint32_t i = 0; i < d.count && !rc; i++) rc = d.def->get(&d, i, &im, &label, &e);
        dataset_close(&d);
    }
    free(im.px);
    expect_error(rc, &e, kind, file, what);
    if (strchr(e.msg, '\n')) fail_msg("more than one line: %s", e.msg);
}

/* A PNG whose head says side x side pixels, with none in it. */
static void put_empty_png(const char *name, uint32_t side)
{
    Str b = {0}, head = {0};
    put_int(&head, side, 4, true), put_int(&head, side, 4, true);
    put_hex(&head, "0802000000");
    put_hex(&b, "89504e470d0a1a0a");
    png_chunk(&b, "IHDR", head.s, head.len);
    png_chunk(&b, "IDAT", "cut", 3);
    png_chunk(&b, "IEND", "", 0);
    save(dir, name, &b);
    str_free(&head);
}

static void test_bad_trees(void **state)
{
    DataOpts o;
    Dataset d;
    (void)state;
    put("none/train/a/readme.txt", "");
    fails("none", ERR_DATA, "none", "no .jpg, .jpeg or .png below train/<class>/");
    put_picture("round/train/a/1.png", 80);
    assert_int_equal(symlink("..", at("round/train/a/up")), 0);
    fails("round", ERR_DATA, "train/a/up", "a link to a folder that it lies in");
    put_picture("deep/train/1/2/3/4/5/6/7/8/9/x.png", 80);
    fails("deep", ERR_DATA, "6/7/8/9", "nested deeper than 8");
    put_picture("loop/train/a/1.png", 80);
    assert_int_equal(symlink("self.png", at("loop/train/a/self.png")), 0);
    fails("loop", ERR_DATA, "a/self.png", "symbolic links");
    put_picture("gone/train/a/1.png", 80);
    assert_int_equal(symlink("nowhere.png", at("gone/train/a/link.png")), 0);
    fails("gone", ERR_DATA, "a/link.png", "No such file");
    put_picture("zero/train/a/1.png", 80);
    put("zero/train/a/2.jpg", "");
    fails("zero", ERR_DATA, "a/2.jpg", "is empty");
    put_picture("text/train/a/1.png", 80);
    put("text/train/a/new\nline \xc3\xa9.jpg", "not an image");
    fails("text", ERR_DATA, "a/new?line \xc3\xa9.jpg", "neither JPEG nor PNG");
    put_picture("huge/train/a/1.png", 80);
    put_empty_png("huge/train/a/2.png", 1000000);
    fails("huge", ERR_DATA, "a/2.png", "1000000 x 1000000 pixels; 1 to 16384");
    put_empty_png("huge/train/a/2.png", 16000); /* large but lawful */
    fails("huge", ERR_DATA, "a/2.png", "damaged PNG");
    /* a class without images is said, and keeps its number */
    put_picture("holes/train/a/1.png", 80);
    put_picture("holes/train/c/1.png", 80);
    mkdir(at("holes/train/b"), 0777);
    o = opts("folder", at("holes"));
    warnings = 0;
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(logged, "1 of 3 class folders hold no image, the first: b"));
    assert_int_equal(d.count, 2);
    assert_int_equal(d.classes, 3);
    dataset_close(&d);
}

static void test_closed(void **state)
{
    bool super = !geteuid(); /* reads everything */
    (void)state;
    put_picture("closed/train/a/1.png", 80);
    put_picture("closed/train/b/2.png", 80);
    chmod(at("closed/train/b/2.png"), 0);
    if (super && (chmod(dir, 0755) || seteuid(65534))) skip();
    fails("closed", ERR_DATA, "b/2.png", "Permission denied");
    if (super) assert_int_equal(seteuid(0), 0);
    chmod(at("closed/train/b"), 0);
    if (super) assert_int_equal(seteuid(65534), 0);
    fails("closed", ERR_DATA, "train/b", "Permission denied");
    if (super) assert_int_equal(seteuid(0), 0);
    chmod(at("closed/train/b"), 0777);
}

/* CINIC-10: training in train, validation in valid; test is there by val_dir. */
static void test_cinic(void **state)
{
    static const char *const cls[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                      "dog",      "frog",       "horse", "ship", "truck"};
    DataOpts o = opts("cinic10", at("CINIC-10"));
    Dataset d;
    InputShape s;
    int classes;
    Err e;
    (void)state;
    for (int i = 0; i < 60; i++) {
        char name[100];
        snprintf(name, sizeof(name), "CINIC-10/%s/%s/img-%d.png",
                 i < 30   ? "train"
                 : i < 50 ? "valid"
                          : "test",
                 cls[i % 10], i);
        put_picture(name, 32);
    }
    for (int k = 0; k < 3; k++) {
        Image im = {0};
        int label;
        if (k == 2) o.val_dir = "test";
        open_ok(&d, &o, k ? SPLIT_VAL : SPLIT_TRAIN);
        assert_int_equal(d.count, k == 0 ? 30 : k == 1 ? 20 : 10);
        assert_int_equal(d.classes, 10);
        assert_string_equal(d.class_names[9], "truck");
        assert_int_equal(d.def->get(&d, d.count - 1, &im, &label, &e), 0);
        assert_int_equal(label, 9);
        assert_int_equal(im.w, 32);
        free(im.px);
        dataset_close(&d);
    }
    o.dataset_dir = dir; /* found below a folder of data sets */
    open_ok(&d, &o, SPLIT_TRAIN);
    dataset_close(&d);
    o.dataset = "CINIC10"; /* the original's spelling */
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    assert_true(s.h == 32 && classes == 10 && fabsf(s.mean[2] - 0.4305f) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),  cmocka_unit_test(test_cache),
        cmocka_unit_test(test_open),   cmocka_unit_test(test_bad_trees),
        cmocka_unit_test(test_closed), cmocka_unit_test(test_cinic),
    };
    int rc;
    log_set(LOG_WARN, listen_log);
    if (!(dir = temp_folder("data_index"))) return 1;
    setenv("XDG_CACHE_HOME", at("cache"), 1);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    return temp_remove(dir) && !rc ? 1 : rc;
}
