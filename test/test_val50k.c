/* test/test_val50k.c -- imagenet1k_val50k: shuffled training images are left out, the same ones for
 * the same seed, and the validation set stays whole. With a rule that leaves out few. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/tree.h"
#include "io/fs.h"
#include "test/data_files.h"
#include "test/data_support.h"
#include "test/support/temp.h"

enum { CLASSES = 4, TRAIN = 40, VAL = 8, LEFT_OUT = 13 };

static char *dir;

static void put_pictures(void)
{
    Str jpeg = {0};
    put_hex(&jpeg, jpeg_rgb);
    for (int i = 0; i < TRAIN + VAL; i++) {
        char path[128], *slash;
        Err e = {0};
        snprintf(path, sizeof path, "%s/%s/n%02d/%03d.JPEG", dir, i < TRAIN ? "train" : "val",
                 i % CLASSES, i);
        slash = strrchr(path, '/');
        *slash = 0;
        assert_int_equal(fs_mkdirs(path, &e), 0);
        *slash = '/';
        assert_int_equal(fs_write(path, jpeg.s, jpeg.len, &e), 0);
    }
    str_free(&jpeg);
}

static void open_split(Dataset *d, Split split, uint64_t seed, uint32_t left_out)
{
    TreeRule rule = tree_imagenet_val50k;
    DataOpts o = opts("imagenet1k_val50k", dir);
    Err e = {0};
    assert_int_equal(rule.drop_train, 50000);
    rule.drop_train = left_out;
    o.seed = seed;
    *d = (Dataset){.def = dataset_find("imagenet1k_val50k"), .split = split};
    assert_non_null(d->def);
    if (tree_open(d, &o, &rule, dir, &e)) fail_msg("%s", e.msg);
}

/* Labels in order, one digit each. */
static void labels(const Dataset *d, char *text)
{
    for (uint32_t i = 0; i < d->count; i++) {
        Image im = {0};
        int label;
        Err e = {0};
        if (d->def->get(d, i, &im, &label, &e)) fail_msg("%s", e.msg);
        text[i] = (char)('0' + label);
        free(im.px);
    }
    text[d->count] = 0;
}

static void test_left_out(void **state)
{
    char all[TRAIN + 1], first[TRAIN + 1], again[TRAIN + 1], other[TRAIN + 1];
    Dataset d;
    (void)state;
    open_split(&d, SPLIT_TRAIN, 7, 0);
    assert_int_equal(d.count, TRAIN);
    labels(&d, all);
    dataset_close(&d);
    open_split(&d, SPLIT_TRAIN, 7, LEFT_OUT);
    assert_int_equal(d.count, TRAIN - LEFT_OUT);
    assert_int_equal(d.classes, CLASSES);
    labels(&d, first);
    dataset_close(&d);
    for (size_t i = 1; first[i]; i++) assert_true(first[i] >= first[i - 1]); /* order of the tree */
    open_split(&d, SPLIT_TRAIN, 7, LEFT_OUT);
    labels(&d, again);
    dataset_close(&d);
    assert_string_equal(first, again);
    open_split(&d, SPLIT_TRAIN, 8, LEFT_OUT);
    labels(&d, other);
    dataset_close(&d);
    assert_string_not_equal(first, other);
    open_split(&d, SPLIT_VAL, 7, LEFT_OUT);
    assert_int_equal(d.count, VAL);
    dataset_close(&d);
}

static void test_too_few(void **state)
{
    DataOpts o = opts("imagenet1k_val50k", dir);
    (void)state;
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, dir,
               "40 training images, of which data set imagenet1k_val50k leaves out 50000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_too_few),
    };
    int rc;
    if (!(dir = temp_folder("val50k"))) return 1;
    put_pictures();
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    return temp_remove(dir) && !rc ? 1 : rc;
}
