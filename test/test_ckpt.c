/* test/test_ckpt.c -- files, safetensors, numpy pickles, and loading into a parameter store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/rng.h"
#include "io/ckpt.h"
#include "io/fs.h"
#include "io/pickle.h"

typedef struct Folder {
    char dir[64];
    char *file; /* dir/a */
} Folder;

static int make_folder(void **state)
{
    Folder *t = xcalloc(1, sizeof *t);
    strcpy(t->dir, "/tmp/qrun-ckpt-XXXXXX");
    if (!mkdtemp(t->dir)) return -1;
    t->file = fs_join(t->dir, "a");
    *state = t;
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {"a", "b", ".lock", "x.tmp.abc", "sub/deep", "sub"};
    Folder *t = *state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *p = fs_join(t->dir, names[i]);
        remove(p);
        free(p);
    }
    if (rmdir(t->dir) < 0) print_error("%s: %s\n", t->dir, strerror(errno));
    free(t->file);
    free(t);
    return 0;
}

/* ---- fs ---- */

static void test_read_write(void **state)
{
    const Folder *t = *state;
    Err e = {0};
    size_t n = 99;
    char *s;
    assert_int_equal(fs_write(t->file, "one\0two", 7, &e), 0);
    s = fs_read(t->file, 0, &n, &e);
    assert_int_equal(n, 7);
    assert_memory_equal(s, "one\0two", 8); /* with the NUL behind it */
    free(s);
    s = fs_read(t->file, 7, &n, &e);
    assert_non_null(s);
    free(s);
    assert_null(fs_read(t->file, 6, &n, &e));
    assert_int_equal(e.kind, ERR_DATA);
    assert_non_null(strstr(e.msg, t->file));
    assert_null(fs_read(t->dir, 0, &n, &e));
    assert_non_null(strstr(e.msg, "folder"));
    assert_null(fs_read("/nonexistent/x", 0, &n, &e));
    assert_non_null(strstr(e.msg, "/nonexistent/x: No such file"));
    s = fs_read("/proc/self/status", 0, &n, &e); /* has no size */
    assert_non_null(s);
    assert_true(n > 100);
    free(s);
}

static void test_atomic(void **state)
{
    const Folder *t = *state;
    AtomicFile a;
    struct stat st;
    Err e = {0};
    char *s, *b = fs_join(t->dir, "b"), *tmp;
    assert_int_equal(fs_write(t->file, "old", 3, &e), 0);
    assert_int_equal(fs_begin(&a, t->file, &e), 0);
    fputs("new", a.f);
    fflush(a.f);
    s = fs_read(t->file, 0, NULL, &e);
    assert_string_equal(s, "old");
    free(s);
    fs_abandon(&a);
    tmp = xasprintf("%s.tmp.%ld", t->file, (long)getpid());
    assert_int_equal(fs_exists(tmp), 0);
    assert_int_equal(fs_write(t->file, "newer", 5, &e), 0);
    s = fs_read(t->file, 0, NULL, &e);
    assert_string_equal(s, "newer");
    free(s);
    assert_int_equal(fs_begin(&a, "/nonexistent/x", &e), -1);
    assert_int_equal(e.kind, ERR_RUN);

    /* a link that is replaced; a second time, when both are one file already */
    assert_int_equal(fs_write(b, "b", 1, &e), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(fs_link_or_copy(t->file, b, &e), 0);
    assert_int_equal(stat(b, &st), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(fs_link_or_copy("/nonexistent/x", b, &e), -1);
    assert_int_equal(fs_exists(b), 1);

    /* writing to a full device is noticed at the latest by commit */
    if (fs_exists("/dev/full")) {
        assert_int_equal(fs_begin(&a, t->file, &e), 0);
        fclose(a.f);
        a.f = fopen("/dev/full", "w");
        fputs("x", a.f);
        assert_int_equal(fs_commit(&a, &e), -1);
        assert_non_null(strstr(e.msg, t->file));
        assert_int_equal(fs_exists(tmp), 0);
    }
    free(tmp);
    free(b);
}

static void test_folders(void **state)
{
    const Folder *t = *state;
    char *deep = fs_join(t->dir, "sub/deep"), *odd = fs_join(t->dir, "x.tmp.abc"), *old, *mine;
    Err e = {0};
    pid_t gone = fork();
    if (gone == 0) _exit(0);
    assert_int_equal(waitpid(gone, NULL, 0), gone);
    assert_int_equal(fs_mkdirs(deep, &e), 0);
    assert_int_equal(fs_mkdirs(deep, &e), 0);
    assert_int_equal(fs_exists(deep), 2);
    assert_int_equal(fs_write(t->file, "", 0, &e), 0);
    assert_int_equal(fs_mkdirs(t->file, &e), -1);

    old = xasprintf("%s.tmp.%ld", t->file, (long)gone);
    mine = xasprintf("%s.tmp.%ld", t->file, (long)getppid());
    assert_int_equal(fs_write(old, "", 0, &e), 0);
    assert_int_equal(fs_write(mine, "", 0, &e), 0);
    assert_int_equal(fs_write(odd, "", 0, &e), 0);
    fs_remove_temps(t->dir);
    assert_int_equal(fs_exists(old), 0);
    assert_int_equal(fs_exists(mine), 1); /* its process lives */
    assert_int_equal(fs_exists(odd), 1);
    unlink(mine);
    free(deep);
    free(odd);
    free(old);
    free(mine);
    deep = fs_join("a/", "b");
    assert_string_equal(deep, "a/b");
    free(deep);
    deep = fs_join("a", "/b");
    assert_string_equal(deep, "/b");
    free(deep);
}

static void test_lock(void **state)
{
    const Folder *t = *state;
    int fd, fd2, status = 0;
    long pid;
    pid_t child;
    Err e = {0};
    assert_int_equal(fs_lock(t->dir, &fd, &pid, &e), 1);
    child = fork();
    if (child == 0) {
        long owner = 0;
        int other;
        _exit(fs_lock(t->dir, &other, &owner, &e) == 0 && owner == (long)getppid() ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(fs_lock(t->dir, &fd2, &pid, &e), 0);
    assert_int_equal(pid, getpid());
    fs_unlock(fd);
    assert_int_equal(fs_lock(t->dir, &fd, &pid, &e), 1);
    fs_unlock(fd);
    assert_int_equal(fs_lock("/nonexistent", &fd, &pid, &e), -1);
}

static void test_sha256(void **state)
{
    const Folder *t = *state;
    static const struct {
        size_t n;
        const char *hex;
    } cases[] = {
        /* n times 'a', by sha256sum */
        {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
        {1000, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"},
    };
    char a[1000], hex[65];
    Err e = {0};
    memset(a, 'a', sizeof a);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(fs_write(t->file, a, cases[i].n, &e), 0);
        assert_int_equal(fs_sha256(t->file, hex, &e), 0);
        assert_string_equal(hex, cases[i].hex);
    }
}

/* ---- safetensors ---- */

static float weight[2][3] = {{1, -2, 3.5f}, {0, -0.0f, 1e-30f}};
static int64_t steps = 1234567890123;
static int8_t codes[3] = {-128, 0, 127};
static uint8_t mask[2] = {0, 255};
static int32_t counts[1] = {-7};
static uint16_t small[2] = {0x3FC0, 0xC000}; /* bfloat16 1.5, -2 */

static int write_sample(const char *path, bool reverse_meta, Err *e)
{
    const Tensor t[] = {
        tensor_make(DT_U8, 1, (int[]){2}, mask),     tensor_make(DT_F32, 2, (int[]){2, 3}, weight),
        tensor_make(DT_S64, 0, NULL, &steps),        tensor_make(DT_S8, 1, (int[]){3}, codes),
        tensor_make(DT_F32, 2, (int[]){0, 3}, NULL), tensor_make(DT_S32, 1, (int[]){1}, counts),
        tensor_make(DT_BF16, 1, (int[]){2}, small)};
    const TensorOut out[] = {
        {"mask", &t[0]},  {"conv1.weight", &t[1]},        {"steps", &t[2]}, {"codes", &t[3]},
        {"empty", &t[4]}, {"counts \"\xC3\xA9\"", &t[5]}, {"small", &t[6]}};
    const MetaOut meta[] = {{"epoch", "3"}, {"config", "lr: 0.1\nbit: 4\n"}};
    const MetaOut turned[] = {meta[1], meta[0]};
    return safetensors_write(path, out, (int)ARRAY_LEN(out), reverse_meta ? turned : meta, 2, e);
}

static void check_sample(const TensorFile *f)
{
    const float *s;
    assert_int_equal(f->n, 7);
    assert_string_equal(f->format, "safetensors");
    assert_string_equal(f->v[0].name, "mask");
    assert_memory_equal(tensors_find(f, "mask")->data, mask, sizeof mask);
    assert_int_equal(tensors_find(f, "conv1.weight")->dim[1], 3);
    assert_memory_equal(tensors_find(f, "conv1.weight")->data, weight, sizeof weight);
    assert_int_equal(tensors_find(f, "steps")->ndim, 0);
    assert_memory_equal(tensors_find(f, "steps")->data, &steps, sizeof steps);
    assert_memory_equal(tensors_find(f, "codes")->data, codes, sizeof codes);
    assert_int_equal(tensors_find(f, "empty")->dim[0], 0);
    assert_memory_equal(tensors_find(f, "counts \"\xC3\xA9\"")->data, counts, sizeof counts);
    s = tensors_find(f, "small")->data;
    assert_int_equal(tensors_find(f, "small")->dtype, DT_F32);
    assert_true(s[0] == 1.5f && s[1] == -2.0f);
    assert_string_equal(tensors_meta(f, "epoch"), "3");
    assert_string_equal(tensors_meta(f, "config"), "lr: 0.1\nbit: 4\n");
    assert_null(tensors_meta(f, "nothing"));
    assert_null(tensors_find(f, "nothing"));
}

static void test_round_trip(void **state)
{
    const Folder *t = *state;
    TensorFile f;
    size_t n, n2;
    uint64_t header;
    Err e = {0};
    char *a, *b;
    assert_int_equal(write_sample(t->file, false, &e), 0);
    if (tensors_read(&f, t->file, &e) < 0) fail_msg("%s", e.msg);
    check_sample(&f);
    tensors_free(&f);
    a = fs_read(t->file, 0, &n, &e);
    memcpy(&header, a, sizeof header);
    assert_int_equal(header % 8, 0);
    assert_int_equal(write_sample(t->file, true, &e), 0); /* metadata in another order */
    b = fs_read(t->file, 0, &n2, &e);
    assert_int_equal(n, n2);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
}

static int damaged(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    TensorFile t;
    Err e = {0};
    int rc;
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    rc = tensors_read(&t, path, &e);
    if (rc == 0) {
        tensors_free(&t);
        return 0;
    }
    if (e.kind != ERR_DATA || !strstr(e.msg, path) || strchr(e.msg, '\n'))
        fail_msg("error %d '%s'", (int)e.kind, e.msg);
    return 1;
}

/* Every cut and every single flip of our own files is noticed: both halves carry a checksum. */
static void test_damage(void **state)
{
    const Folder *t = *state;
    Rng r = rng_stream(11, RNG_TEST, 2, 0);
    int fd = memfd_create("damaged", 0); /* thousands of files: not to a disk */
    char path[40];
    size_t n, accepted = 0;
    Err e = {0};
    char *good, *bytes;
    assert_int_equal(write_sample(t->file, false, &e), 0);
    assert_true(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    good = fs_read(t->file, 0, &n, &e);
    bytes = xmalloc(n + 1);
    for (size_t i = 0; i < n; i++)
        if (!damaged(path, good, i)) fail_msg("cut to %zu of %zu bytes, not noticed", i, n);
    for (size_t i = 0; i < n; i++) {
        memcpy(bytes, good, n);
        bytes[i] = (char)(bytes[i] ^ 1 << rng_below(&r, 8));
        if (damaged(path, bytes, n)) continue;
        accepted++; /* only where the name of a checksum was hit, so that there is none */
        if (!memmem(good + (i < 24 ? 0 : i - 24), 48, "crc32", 5))
            fail_msg("a flip in byte %zu of %zu, not noticed", i, n);
    }
    for (int k = 0; k < 3000; k++) {
        memcpy(bytes, good, n);
        for (uint32_t j = 1 + rng_below(&r, 5); j > 0; j--)
            bytes[rng_below(&r, (uint32_t)n)] = (char)rng_u32(&r);
        damaged(path, bytes, n);
    }
    memcpy(bytes, good, n);
    bytes[n] = 0;
    assert_int_equal(damaged(path, bytes, n + 1), 1);
    print_message("%zu bytes, %zu flips in names of checksums accepted\n", n, accepted);
    close(fd);
    free(good);
    free(bytes);
}

/* A file with the header `json` and n bytes of data; checks for an error that mentions `word`, or
 * for none. */
static void try_header(const char *path, const char *json, size_t n, const char *word)
{
    uint64_t len = strlen(json);
    FILE *f = fopen(path, "wb");
    TensorFile t;
    Err e = {0};
    int rc;
    fwrite(&len, 8, 1, f);
    fputs(json, f);
    for (size_t i = 0; i < n; i++) fputc(0, f);
    fclose(f);
    rc = tensors_read(&t, path, &e);
    if ((rc < 0) != (word != NULL) || (word && !strstr(e.msg, word)))
        fail_msg("%s: '%s', expected '%s'", json, rc < 0 ? e.msg : "no error",
                 word ? word : "none");
    if (rc == 0) tensors_free(&t);
}

static void test_headers(void **state)
{
    const char *p = ((const Folder *)*state)->file;
    static const struct {
        const char *json;
        size_t data;
        const char *word;
    } cases[] = {
        {"{}", 0, NULL},
        {"{}   ", 0, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, NULL},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}", 4, NULL},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         2, NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, "no tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}", 9, "gap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2,-1],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,2.5],\"data_offsets\":[0,0]}}", 0, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "dimensions"},
        {"{\"a\":{\"dtype\":\"F8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "F8"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "outside"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", 1,
         "not a dtype"},
        {"{\"a\":7}", 0, "not a dtype"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, "duplicate"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "overlaps"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "not a text"},
        {"{\"__metadata__\":[]}", 0, "not an object"},
        {"{\"__metadata__\":{\"qrun.crc32\":\"00000001\"}}", 0, "checksum"},
        {"{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "control"},
        {"{\"a\":", 0, "header"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        try_header(p, cases[i].json, cases[i].data, cases[i].word);
}

/* ---- numpy in pickles ---- */

/* As Python 2 writes a CIFAR batch: {'data': uint8 [2, 3], 'labels': [6, 9]}. */
static const char batch[] = "\x80\x02}q\x01(U\x04"
                            "dataq\x02"
                            "cnumpy.core.multiarray\n_reconstruct\nq\x03"
                            "cnumpy\nndarray\n"
                            "q\x04K\x00\x85U\x01"
                            "b\x87Rq\x05(K\x01K\x02K\x03\x86"
                            "cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R"
                            "q\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06"
                            "abcdeftbU\x06labelsq\x08"
                            "]q\x09(K\x06K\x09"
                            "eu.";

static void test_numpy(void **state)
{
    const PyObj *labels;
    PyArray a;
    Pickle p;
    int64_t v;
    Err e = {0};
    size_t n = sizeof batch - 1, read = 0;
    char *bad;
    (void)state;
    if (pickle_read(&p, batch, sizeof batch - 1, &pickle_numpy, &e) < 0) fail_msg("%s", e.msg);
    assert_int_equal(p.used, sizeof batch - 1);
    if (py_ndarray(py_get(p.top, "data"), &a, &e) < 0) fail_msg("%s", e.msg);
    assert_int_equal(a.type, 'u');
    assert_int_equal(a.ndim, 2);
    assert_int_equal(a.dim[0] * 10 + a.dim[1], 23);
    assert_false(a.fortran);
    assert_memory_equal(a.data, "abcdef", 6);
    labels = py_get(p.top, "labels");
    assert_int_equal(labels->n, 2);
    assert_true(py_int(labels->v[1], &v) && v == 9);
    assert_int_equal(py_ndarray(labels, &a, &e), -1);
    assert_int_equal(py_ndarray(py_get(p.top, "nothing"), &a, &e), -1);
    pickle_free(&p);
    bad = xmalloc(n);
    for (size_t i = 0; i < 256 * n; i++) { /* every byte by every other */
        memcpy(bad, batch, n);
        bad[i / 256] = (char)(i % 256);
        if (pickle_read(&p, bad, n, &pickle_numpy, &e) == 0)
            read += py_ndarray(py_get(p.top, "data"), &a, &e) == 0;
        pickle_free(&p);
    }
    print_message("%zu of %zu changed pickles still hold an array\n", read, 256 * n);
    free(bad);
}

/* ---- into a store ---- */

static void test_into_store(void **state)
{
    const Folder *t = *state;
    ParamStore ps = {0};
    Param *w = store_add(&ps, PK_WEIGHT, DT_F32, (Init){0}, 2, (int[]){2, 3}, "conv1.weight");
    Param *n = store_add(&ps, PK_BUFFER, DT_S64, (Init){0}, 1, (int[]){1}, "steps");
    Param *m = store_add(&ps, PK_BUFFER, DT_F32, (Init){0}, 1, (int[]){2}, "mask");
    Param *x;
    uint32_t version = w->version;
    LoadReport r;
    TensorFile f;
    Err e = {0};
    assert_int_equal(write_sample(t->file, false, &e), 0);
    assert_int_equal(tensors_read(&f, t->file, &e), 0);
    assert_int_equal(tensors_into_store(&f, &ps, true, &r, &e), -1); /* four unexpected */
    assert_int_equal(r.unexpected, 4);
    assert_non_null(strstr(r.text.s, "unexpected: codes s8 [3]\n"));
    assert_non_null(strstr(e.msg, "codes"));
    assert_int_equal(w->version, version); /* nothing was written */
    load_report_free(&r);

    assert_int_equal(tensors_into_store(&f, &ps, false, &r, &e), 0);
    assert_int_equal(r.matched * 100 + r.missing * 10 + r.reshaped, 300);
    assert_memory_equal(w->value.data, weight, sizeof weight);
    assert_true(w->version != version);
    assert_true(*(int64_t *)n->value.data == steps); /* [] and [1] are the same */
    assert_true(((float *)m->value.data)[1] == 255.0f);
    load_report_free(&r);

    x = store_add(&ps, PK_WEIGHT, DT_F32, (Init){0}, 1, (int[]){2}, "new");
    assert_int_equal(tensors_into_store(&f, &ps, false, &r, &e), 0);
    assert_int_equal(r.missing, 1);
    assert_non_null(strstr(r.text.s, "missing: new f32 [2]\n"));
    load_report_free(&r);
    store_add(&ps, PK_WEIGHT, DT_F32, (Init){0}, 1, (int[]){4}, "codes"); /* [3] in the file */
    assert_int_equal(tensors_into_store(&f, &ps, false, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "shape: codes is s8 [3] in the file, f32 [4] in the net"));
    assert_int_equal(x->value.dim[0], 2);
    tensors_free(&f);
    store_free(&ps);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_read_write), IN_FOLDER(test_atomic),  IN_FOLDER(test_folders),
        IN_FOLDER(test_lock),       IN_FOLDER(test_sha256),  IN_FOLDER(test_round_trip),
        IN_FOLDER(test_damage),     IN_FOLDER(test_headers), cmocka_unit_test(test_numpy),
        IN_FOLDER(test_into_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
