/* test/test_pth.c -- PyTorch checkpoint files: the golden cases, damaged copies of small files, and
 * the published ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/rng.h"
#include "io/ckpt.h"
#include "io/fs.h"
#include "io/pth.h"
#include "test/golden_pth.h"

#define GOLDEN "test/golden/torch-checkpoints"
#define CASES  81

static int is_case(const struct dirent *d)
{
    return str_ends(d->d_name, ".yml");
}

static void test_golden(void **state)
{
    struct dirent **list;
    int n = scandir(GOLDEN, &list, is_case, alphasort), failed = 0;
    (void)state;
    for (int i = 0; i < n; i++) {
        char *path = fs_join(GOLDEN, list[i]->d_name);
        Arena a = {0};
        Str why = {0};
        Err e = {0};
        const Yaml *y = yaml_read(&a, path, &e);
        if (!y || golden_pth_case(y, GOLDEN, &why) != 1) {
            print_error("%s: %s\n", path, y ? why.s : e.msg);
            failed++;
        }
        str_free(&why);
        arena_free(&a);
        free(path);
        free(list[i]);
    }
    if (n >= 0) free(list);
    assert_int_equal(n, CASES);
    assert_int_equal(failed, 0);
}

/* ---- damage: never a crash; an error is one line with the name in it ---- */

/* The parsers alone, on a block of exactly n bytes: at the end of a mapped file the sanitizers see
 * nothing, here they do. */
static void damaged_memory(const char *bytes, size_t n)
{
    unsigned char *copy = xmalloc(n);
    Pickle p;
    Zip z;
    memcpy(copy, bytes, n);
    if (zip_open(&z, copy, n, NULL) == 0) {
        for (size_t i = 0; i < z.n; i++) {
            const unsigned char *content = zip_bytes(&z, &z.m[i], NULL);
            if (!content || z.m[i].method != 8) continue;
            pickle_read(&p, content, z.m[i].size, &pickle_numpy, NULL);
            pickle_free(&p);
        }
    }
    zip_close(&z);
    pickle_read(&p, copy, n, &pickle_numpy, NULL);
    pickle_free(&p);
    free(copy);
}

static int damaged_file(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    TensorFile t;
    Err e = {0};
    int rc;
    damaged_memory(bytes, n);
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

/* Cuts at every length, flips one bit of every byte, then several random bytes at once. */
static void damage(const char *name)
{
    char *from = fs_join(GOLDEN, name), path[40], *good, *bytes;
    size_t n = 0, cut = 0, flipped = 0, mixed = 0;
    Rng r = rng_stream(7, RNG_TEST, 1, 0);
    Err e = {0};
    int fd = memfd_create("damaged", 0), mixes = 2000; /* thousands of files: not to a disk */
    assert_true(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    good = fs_read(from, 0, &n, &e);
    assert_non_null(good);
    bytes = xmalloc(n);
    assert_int_equal(damaged_file(path, good, n), 0);
    for (size_t i = 0; i < n; i++) cut += (size_t)damaged_file(path, good, i);
    for (size_t i = 0; i < n; i++) {
        memcpy(bytes, good, n);
        bytes[i] = (char)(bytes[i] ^ 1 << rng_below(&r, 8));
        flipped += (size_t)damaged_file(path, bytes, n);
    }
    for (int i = 0; i < mixes; i++) {
        memcpy(bytes, good, n);
        for (uint32_t k = 1 + rng_below(&r, 6); k > 0; k--)
            bytes[rng_below(&r, (uint32_t)n)] = (char)rng_u32(&r);
        mixed += (size_t)damaged_file(path, bytes, n);
    }
    print_message("%s: refused %zu of %zu cuts, %zu of %zu flips, %zu of %d mixes\n", name, cut, n,
                  flipped, n, mixed, mixes);
    assert_int_equal(cut, n); /* a cut file is always noticed */
    assert_true(flipped > n / 20);
    assert_false(fs_exists("qrun_was_here"));
    close(fd);
    free(bytes);
    free(good);
    free(from);
}

static void test_damage_zip(void **state)
{
    (void)state;
    damage("ok_handmade.pth");
    damage("zip_deflated.pth");
}

static void test_damage_zip64(void **state)
{
    (void)state;
    damage("zip_bare_state_dict.pth");
}

static void test_damage_legacy(void **state)
{
    (void)state;
    damage("legacy_bare_state_dict.pth");
}

static void test_damage_protocol4(void **state)
{
    (void)state;
    damage("legacy_protocol4.pth");
}

/* ---- state dicts ---- */

static void test_state_dict(void **state)
{
    TensorFile f;
    Err e = {0};
    (void)state;
    assert_int_equal(tensors_read(&f, GOLDEN "/legacy_module_prefix.pth.tar", &e), 0);
    assert_string_equal(f.format, "pth-legacy");
    assert_int_equal(f.n, 8); /* the optimizer's are left out */
    assert_string_equal(f.v[0].name, "conv1.weight");
    assert_string_equal(tensors_meta(&f, "epoch"), "245");
    assert_string_equal(tensors_meta(&f, "best_prec"), "92.47");
    assert_non_null(tensors_find(&f, "bn1.num_batches_tracked"));
    assert_int_equal(tensors_find(&f, "bn1.num_batches_tracked")->dtype, DT_S64);
    assert_null(tensors_find(&f, "module.fc.bias"));
    tensors_free(&f);

    assert_int_equal(tensors_read(&f, GOLDEN "/zip_top_tensor.pth", &e), -1);
    assert_non_null(strstr(e.msg, "not a state dict"));
}

/* ---- published files ---- */

/* Sums computed once by a reader of its own (Python's pickle and struct). */
static const struct {
    const char *file, *format;
    int tensors;
    const char *name;
    int ndim, dim[4];
    double sum;
} published[] = {
    {"res20_32bit.pth.tar",
     "pth-legacy",
     128,
     "conv1.weight",
     4,
     {16, 3, 3, 3},
     -1.1156268714944069},
    {"res20_32bit.pth.tar", "pth-legacy", 128, "fc.weight", 2, {10, 64}, -0.0007049492560327053},
    {"res20_4bit.pth.tar", "pth-legacy", 168, "conv1.weight", 4, {16, 3, 3, 3}, -1.736301119715912},
    {"res20_4bit.pth.tar",
     "pth-legacy",
     168,
     "layer1.0.conv1.weight_quant.wgt_alpha",
     0,
     {0},
     2.0644352436065674},
    {"res20_3bit.pth.tar", "pth-legacy", 168, "conv1.weight", 4, {16, 3, 3, 3}, -1.99916087165954},
    {"res20_2bit.pth.tar",
     "pth-legacy",
     168,
     "layer3.2.bn2.running_var",
     1,
     {64},
     3260.941297531128},
    {"mnist_resnet10_4bit.pth.tar",
     "pth-zip",
     96,
     "conv1.weight",
     4,
     {16, 1, 7, 7},
     2.486640020055347},
    {"mnist_resnet10_4bit_uniform.pth.tar",
     "pth-zip",
     96,
     "layer4.0.downsample.1.running_var",
     1,
     {128},
     5786.560056686401},
};

static void test_published(void **state)
{
    const char *root = getenv("QRUN_DATA_DIR");
    (void)state;
    if (!root) {
        print_message("test_published: QRUN_DATA_DIR is not set\n");
        skip();
    }
    for (size_t k = 0; k < ARRAY_LEN(published); k++) {
        char *path = xasprintf("%s/apot/%s", root, published[k].file), shape[80];
        const char *name = published[k].name;
        const Tensor *t;
        TensorFile f;
        double sum = 0, off;
        Err e = {0};
        if (tensors_read(&f, path, &e) < 0) fail_msg("%s", e.msg);
        assert_string_equal(f.format, published[k].format);
        assert_int_equal(f.n, published[k].tensors);
        assert_non_null(tensors_meta(&f, "epoch"));
        t = tensors_find(&f, name);
        if (!t) fail_msg("%s: no %s", path, name);
        if (t->ndim != published[k].ndim ||
            memcmp(t->dim, published[k].dim, (size_t)t->ndim * sizeof *t->dim) != 0)
            fail_msg("%s: %s has shape %s", path, name, tensor_shape_text(t, shape));
        for (size_t i = 0; i < tensor_len(t); i++) sum += (double)((const float *)t->data)[i];
        off = sum > published[k].sum ? sum - published[k].sum : published[k].sum - sum;
        if (!(off <= 1e-12 * (sum < 0 ? -sum : sum) + 1e-15))
            fail_msg("%s: sum of %s is %.17g, expected %.17g", path, name, sum, published[k].sum);
        tensors_free(&f);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),        cmocka_unit_test(test_state_dict),
        cmocka_unit_test(test_damage_zip),    cmocka_unit_test(test_damage_zip64),
        cmocka_unit_test(test_damage_legacy), cmocka_unit_test(test_damage_protocol4),
        cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
