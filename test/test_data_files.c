/* test/test_data_files.c -- data set files, made by hand in a temporary folder: read whole, and
 * refused with one clear line when cut, flipped, lying about their sizes or missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/decode.h"
#include "io/targz.h"
#include "test/data_files.h"
#include "test/data_support.h"
#include "test/support/temp.h"

static char *dir;
static int last_warnings;

static void quiet(LogLevel level, const char *text)
{
    (void)text;
    if (level == LOG_WARN) last_warnings++;
}

static char *at(const char *name) /* path of a test file, good for eight more calls */
{
    static char ring[8][1200];
    static int i;
    i = (i + 1) % 8;
    snprintf(ring[i], sizeof(ring[i]), "%s/%s", dir, name);
    return ring[i];
}

static void check_cifar(const DataOpts *o, Split split, uint32_t count, int first, int classes)
{
    Dataset d;
    Image im = {0};
    Err e;
    int label;
    open_ok(&d, o, split);
    assert_int_equal(d.count, count);
    assert_int_equal(d.classes, classes);
    for (uint32_t r = 0; r < count; r++) {
        assert_int_equal(d.def->get(&d, r, &im, &label, &e), 0);
        if (label != (first + (int)r) % classes)
            fail_msg("record %u: label %d, expected %d", r, label, (first + (int)r) % classes);
        for (int i = 0; i < 1024; i++)
            for (int c = 0; c < 3; c++)
                if (im.px[3 * i + c] != cifar_pixel(first + (int)r, c, i))
                    fail_msg("record %u pixel %d channel %d is %d, expected %d", r, i, c,
                             im.px[3 * i + c], cifar_pixel(first + (int)r, c, i));
    }
    free(im.px);
    dataset_close(&d);
}

/* ---- CIFAR ---- */

static void save_cifar(const char *folder, bool pickle, int per_batch)
{
    for (int i = 0; i < 6; i++) {
        Str b = {0};
        char name[80];
        (pickle ? put_cifar_pickle : put_cifar_binary)(&b, per_batch, i * per_batch, 10);
        if (i < 5)
            snprintf(name, sizeof(name), "%s/data_batch_%d%s", folder, i + 1, pickle ? "" : ".bin");
        else
            snprintf(name, sizeof(name), "%s/test_batch%s", folder, pickle ? "" : ".bin");
        save(dir, name, &b);
    }
}

static void cifar_tar(Str *tar, bool pickle)
{
    /* as distributed: a folder, the batches in no useful order */
    static const int order[] = {4, 1, 5, 0, 2, 3};
    tar_member(tar, "cifar/", '5', "", 0);
    for (int k = 0; k < 6; k++) {
        int i = order[k];
        Str b = {0};
        char name[80];
        (pickle ? put_cifar_pickle : put_cifar_binary)(&b, 3, i * 3, 10);
        if (i < 5)
            snprintf(name, sizeof(name), "./cifar/data_batch_%d%s", i + 1, pickle ? "" : ".bin");
        else
            snprintf(name, sizeof(name), "cifar/test_batch%s", pickle ? "" : ".bin");
        tar_member(tar, name, '0', b.s, b.len);
        str_free(&b);
    }
    tar_end(tar);
}

static void test_cifar(void **state)
{
    DataOpts o;
    Str b = {0}, z = {0};
    (void)state;
    save_cifar("c10bin", false, 7);
    o = opts("cifar10", at("c10bin"));
    check_cifar(&o, SPLIT_TRAIN, 35, 0, 10);
    check_cifar(&o, SPLIT_VAL, 7, 35, 10);
    o.limit_val = 3;
    check_cifar(&o, SPLIT_VAL, 3, 35, 10);
    save_cifar("usual/cifar-10-batches-py", true, 4);
    o = opts("CIFAR10", at("usual"));
    check_cifar(&o, SPLIT_TRAIN, 20, 0, 10);
    check_cifar(&o, SPLIT_VAL, 4, 20, 10);
    for (int pickle = 0; pickle < 2; pickle++) {
        cifar_tar(&b, pickle);
        gzip(&z, b.s, b.len);
        save(dir, "c.tar.gz", &z);
        save(dir, "c.tar", &b);
        o = opts("cifar10", at("c.tar.gz"));
        check_cifar(&o, SPLIT_TRAIN, 15, 0, 10);
        check_cifar(&o, SPLIT_VAL, 3, 15, 10);
        o = opts("cifar10", at("c.tar"));
        check_cifar(&o, SPLIT_TRAIN, 15, 0, 10);
    }
    put_cifar_binary(&b, 130, 0, 100);
    save(dir, "c100/train.bin", &b);
    put_cifar_pickle(&b, 5, 50, 100);
    save(dir, "c100py/test", &b);
    o = opts("cifar100", at("c100"));
    check_cifar(&o, SPLIT_TRAIN, 130, 0, 100);
    o = opts("CIFAR100", at("c100py"));
    check_cifar(&o, SPLIT_VAL, 5, 50, 100);
    o.num_classes = 10;
    open_fails(&o, SPLIT_VAL, ERR_CONFIG, "num_classes: 10", "100 classes");
}

static void test_cifar_damage(void **state)
{
    DataOpts o = opts("cifar10", at("bad"));
    Str b = {0}, good = {0};
    (void)state;
    open_fails(&o, SPLIT_VAL, ERR_DATA, "dataset_dir", "does not exist");
    put_cifar_binary(&b, 3, 0, 10);
    b.len -= 100;
    save(dir, "bad/test_batch.bin", &b);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "bad/test_batch.bin", "no whole number");
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "dataset_dir", "training images");
    save(dir, "bad/test_batch.bin", &b);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "bad/test_batch.bin", "0 bytes");
    put_cifar_binary(&b, 3, 0, 10);
    b.s[3073] = 10;
    save(dir, "bad/test_batch.bin", &b);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "bad/test_batch.bin",
               "record 1 has label 10; CIFAR-10 has 0..9");
    put_cifar_binary(&b, 3, 0, 10);
    save(dir, "bad/data_batch_1.bin", &b);
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "bad/data_batch_2.bin", "No such file");
    /* every cut and every flipped bit of a pickle's frame: refused, or read as it says; never a
     * crash */
    o.dataset_dir = at("badpy");
    put_cifar_pickle(&good, 2, 0, 10);
    for (size_t cut = 0; cut < good.len; cut += cut < 200 || cut + 40 > good.len ? 1 : 397) {
        str_putn(&b, good.s, cut);
        save(dir, "badpy/test_batch", &b);
        open_fails(&o, SPLIT_VAL, ERR_DATA, "badpy/test_batch", ":");
    }
    for (size_t bit = 0; bit < 8 * 230; bit++) {
        Dataset d;
        Err e = {0};
        size_t i = bit / 8 < 190 ? bit / 8 : good.len - 230 + bit / 8;
        str_putn(&b, good.s, good.len);
        b.s[i] ^= (char)(1 << bit % 8);
        save(dir, "badpy/test_batch", &b);
        if (dataset_open(&d, &o, SPLIT_VAL, &e))
            expect_error(-1, &e, ERR_DATA, "badpy/test_batch", ":");
        else
            dataset_close(&d);
    }
    str_free(&good);
}

/* ---- archives ---- */

static void test_targz(void **state)
{
    Str b = {0}, pax = {0}, lname = {0};
    Targz *t;
    TarMember m;
    Err e;
    char buf[16];
    (void)state;
    for (int i = 0; i < 60; i++) str_puts(&lname, "long");
    tar_header(&b, "file", "some/prefix", '0', 3);
    str_putn(&b, "abc", 3);
    put_fill(&b, 0, 509);
    str_puts(&lname, "/x");
    tar_member(&b, "././@LongLink", 'L', lname.s, lname.len + 1);
    tar_member(&b, "cut-off", '0', "0123456789", 10);
    str_puts(&pax, "16 path=pax/abc\n20 size=00000000005\n");
    tar_member(&b, "pax", 'x', pax.s, pax.len);
    tar_header(&b, "ignored", "", '0', 0);
    str_putn(&b, "hello", 5);
    put_fill(&b, 0, 507);
    tar_member(&b, "./last", '0', "z", 1);
    tar_end(&b);
    save(dir, "t.tar", &b);
    t = targz_open(at("t.tar"), &e);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, "some/prefix/file");
    assert_int_equal(targz_read(t, buf, 3, &e), 0);
    assert_memory_equal(buf, "abc", 3);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, lname.s);
    assert_int_equal(targz_read(t, buf, 4, &e), 0);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, "pax/abc");
    assert_int_equal(m.size, 5);
    assert_int_equal(targz_read(t, buf, 5, &e), 0);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(targz_next(t, &m, &e), 1);
    assert_string_equal(m.name, "last");
    assert_int_equal(targz_next(t, &m, &e), 0);
    assert_int_equal(targz_next(t, &m, &e), 0);
    targz_close(t);
    str_free(&pax);
    str_free(&lname);
}

/* Reads all of an archive; 0, or -1 with `e`. */
static int walk(const char *path, Err *e)
{
    Targz *t = targz_open(path, e);
    TarMember m;
    int rc = -1;
    if (!t) return -1;
    while ((rc = targz_next(t, &m, e)) == 1)
        ;
    targz_close(t);
    return rc;
}

static void test_targz_damage(void **state)
{
    Str tar = {0}, z = {0}, b = {0};
    Err e;
    int undetected = 0;
    (void)state;
    tar_member(&tar, "a/b.txt", '0', "some text", 9);
    tar_member(&tar, "a/c.txt", '0', "more", 4);
    tar_end(&tar);
    gzip(&z, tar.s, tar.len);
    for (size_t cut = 0; cut < z.len; cut += 13) { /* any cut of the compressed file */
        str_putn(&b, z.s, cut);
        save(dir, "cut.tar.gz", &b);
        expect_error(walk(at("cut.tar.gz"), &e), &e, ERR_DATA, "cut.tar.gz",
                     cut < 10 ? "archive" : "damaged");
    }
    for (size_t cut = 0; cut < tar.len - 512;
         cut += 37) { /* and of the plain one, up to the end mark */
        str_putn(&b, tar.s, cut);
        save(dir, "cut.tar", &b);
        expect_error(walk(at("cut.tar"), &e), &e, ERR_DATA, "cut.tar", "damaged");
    }
    for (size_t bit = 0; bit < 8 * z.len;
         bit += 5) { /* any flipped bit but those of the gzip header's time stamp ... */
        str_putn(&b, z.s, z.len);
        b.s[bit / 8] ^= (char)(1 << bit % 8);
        save(dir, "flip.tar.gz", &b);
        if (!walk(at("flip.tar.gz"), &e))
            undetected++;
        else
            expect_error(-1, &e, ERR_DATA, "flip.tar.gz", "");
    }
    if (undetected > 12) fail_msg("%d flipped bits went unnoticed", undetected);
    b.len = 0;
    tar_header(&b, "huge", "", '0', 077777777777u);
    save(dir, "huge.tar", &b);
    expect_error(walk(at("huge.tar"), &e), &e, ERR_DATA, "huge.tar", "ends after 512 bytes");
    tar_header(&b, "huge", "", 'L', 077777777777u);
    save(dir, "huge.tar", &b);
    expect_error(walk(at("huge.tar"), &e), &e, ERR_DATA, "huge.tar", "absurdly long");
    tar_member(&b, "p", 'x', "99999999999999999999 path=a\n", 28);
    save(dir, "pax.tar", &b);
    expect_error(walk(at("pax.tar"), &e), &e, ERR_DATA, "pax.tar", "malformed pax");
    tar_member(&b, "p", 'x', "30 size=99999999999999999999\n\n", 30);
    save(dir, "pax.tar", &b);
    expect_error(walk(at("pax.tar"), &e), &e, ERR_DATA, "pax.tar", "impossible size");
    tar_member(&b, "two\nlines", '0', "", 0);
    save(dir, "ctl.tar", &b);
    expect_error(walk(at("ctl.tar"), &e), &e, ERR_DATA, "ctl.tar", "control characters");
    put_fill(&b, 'x', 5000);
    save(dir, "junk.tar.gz", &b);
    expect_error(walk(at("junk.tar.gz"), &e), &e, ERR_DATA, "junk.tar.gz", "not a tar");
    str_free(&tar), str_free(&z);
    /* a data set in a damaged archive is an error of opening */
    cifar_tar(&tar, false);
    gzip(&z, tar.s, tar.len);
    z.len -= 2000;
    save(dir, "cifar-cut.tar.gz", &z);
    DataOpts o = opts("cifar10", at("cifar-cut.tar.gz"));
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "cifar-cut.tar.gz", "cut short");
    str_free(&tar);
    /* as is a member that claims 8 GB */
    tar_header(&tar, "x/train/a/1.jpg", "", '0', 077777777777u);
    save(dir, "claims.tar", &tar);
    o = opts("folder", at("claims.tar"));
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "claims.tar", "1.jpg");
}

/* ---- MNIST ---- */

static void test_mnist(void **state)
{
    static const uint32_t idim[] = {20, 28, 28}, ldim[] = {20}, other[] = {19},
                          big[] = {20, 28, 0x10000000};
    DataOpts o = opts("mnist", at("mnist"));
    Dataset d;
    Image im = {0};
    Str b = {0}, z = {0};
    int label;
    Err e;
    (void)state;
    put_idx(&b, 3, idim, 3);
    gzip(&z, b.s, b.len);
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "mnist", "no t10k-labels-idx1-ubyte");
    put_idx(&z, 1, ldim, 7);
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 20);
    assert_int_equal(d.def->get(&d, 13, &im, &label, &e), 0);
    assert_int_equal(label, 13 * 7 % 10);
    assert_int_equal(im.c, 1);
    for (int i = 0; i < 784; i++) assert_int_equal(im.px[i], (13 * 784 + i) * 3 % 256);
    free(im.px);
    dataset_close(&d);
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "dataset_dir", "training images");
    put_idx(&z, 1, other, 7);
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", "19 labels for the 20 images");
    put_idx(&z, 1, ldim, 7);
    z.s[12] = 10;
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", "label 4 is 10");
    put_idx(&z, 1, ldim, 7);
    z.s[3] = 3;
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", "starts with 00000803");
    for (size_t cut = 0; cut < 24; cut++) {
        put_idx(&z, 1, ldim, 7);
        z.len = cut;
        save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
        open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-labels-idx1-ubyte", ":");
    }
    gzip(&z, b.s, b.len);
    z.len -= 9;
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-images-idx3-ubyte.gz", "cut short");
    gzip(&z, b.s, b.len);
    z.s[500] ^= 4;
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-images-idx3-ubyte.gz", "wrong checksum");
    b.len = 0;
    put_int(&b, 0x803, 4, true);
    for (int i = 0; i < 3; i++) put_int(&b, big[i], 4, true);
    save(dir, "mnist/t10k-images-idx3-ubyte.gz", &b);
    put_idx(&z, 1, ldim, 7);
    save(dir, "mnist/t10k-labels-idx1-ubyte", &z);
    open_fails(&o, SPLIT_VAL, ERR_DATA, "t10k-images-idx3-ubyte.gz", "dimension 2");
}

/* ---- image files ---- */

static void test_decode(void **state)
{
    Image im = {0};
    Str b = {0}, half = {0};
    Err e;
    (void)state;
    put_hex(&b, jpeg_rgb);
    for (int dec = DECODER_AUTO; dec <= DECODER_STB; dec++) {
        int worst = 0;
        if (decode_image(b.s, b.len, (Decoder)dec, "a.jpg", &im, &e)) fail_msg("%s", e.msg);
        assert_true(im.h == 16 && im.w == 16 && im.c == 3);
        for (int i = 0; i < 256; i++) {
            int want[3] = {i % 16 * 16, i / 16 * 16, 128};
            for (int c = 0; c < 3; c++) {
                int err = abs(im.px[3 * i + c] - want[c]);
                if (err > worst) worst = err;
            }
        }
        if (worst > 16) fail_msg("decoder %d: %d away from what was encoded", dec, worst);
        for (size_t cut = 0; cut + 1 < b.len; cut++)
            expect_error(decode_image(b.s, cut, (Decoder)dec, "a.jpg", &im, &e), &e, ERR_DATA,
                         "a.jpg", "");
        for (size_t bit = 0; bit < 8 * b.len; bit++) { /* never a crash; a message names the file */
            str_putn(&half, b.s, b.len);
            half.s[bit / 8] ^= (char)(1 << bit % 8);
            if (decode_image(half.s, half.len, (Decoder)dec, "a.jpg", &im, &e))
                expect_error(-1, &e, ERR_DATA, "a.jpg", "");
            half.len = 0;
        }
    }
#ifdef HAVE_LIBJPEG
    b.len = 0;
    put_hex(&b, jpeg_cmyk);
    if (decode_image(b.s, b.len, DECODER_AUTO, "cmyk.jpg", &im, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < 256; i++) {
        int ink[3] = {i % 16 * 16, i / 16 * 16, 100};
        for (int c = 0; c < 3; c++) {
            int want = 215 - ink[c] * 215 / 255;
            if (abs(im.px[3 * i + c] - want) > 12)
                fail_msg("cmyk pixel %d channel %d: %d, about %d", i, c, im.px[3 * i + c], want);
        }
    }
#endif
    for (int c = 1; c <= 4; c += c == 1 ? 2 : 1) {
        b.len = 0;
        put_png(&b, 9, 5, c);
        if (decode_image(b.s, b.len, DECODER_AUTO, "a.png", &im, &e)) fail_msg("%s", e.msg);
        assert_true(im.h == 5 && im.w == 9 && im.c == 3);
        for (int i = 0; i < 45; i++)
            for (int k = 0; k < 3; k++)
                assert_int_equal(im.px[3 * i + k],
                                 (i % 9 + 10 * (i / 9) + (c == 1 ? 0 : 50 * k)) & 255);
        for (size_t cut = 0; cut + 16 < b.len; cut++)
            expect_error(decode_image(b.s, cut, DECODER_AUTO, "a.png", &im, &e), &e, ERR_DATA,
                         "a.png", "");
    }
    expect_error(decode_image("GIF89a..", 8, DECODER_AUTO, "a.gif", &im, &e), &e, ERR_DATA, "a.gif",
                 "neither JPEG nor PNG");
    free(im.px), str_free(&b), str_free(&half);
}

static void put_image(Str *b, const char *name, int side)
{
    if (str_ends(name, ".jpg"))
        put_hex(b, jpeg_rgb);
    else
        put_png(b, side, side, 3);
}

/* train/{ant,bee,cat}, val/{bee,cat}: classes are numbered over both. */
static const char *const tree_files[] = {
    "train/bee/2.jpg",     "train/bee/10.jpg", "train/ant/x.png", "train/cat/deep/a.png",
    "train/cat/b.PNG",     "val/bee/v.jpg",    "val/cat/w.png",   "train/ant/notes.txt",
    "train/.hidden/h.jpg", "train/bee/.2.jpg"};

static void check_tree(const char *where)
{
    static const int train_label[] = {0, 1, 1, 2, 2}, val_label[] = {1, 2};
    DataOpts o = opts("folder", where);
    Dataset d;
    Image im = {0};
    int label;
    Err e;
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(d.count, 5);
    assert_int_equal(d.classes, 3);
    assert_string_equal(d.class_names[0], "ant");
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(d.def->get(&d, i, &im, &label, &e), 0);
        assert_int_equal(label, train_label[i]);
    }
    assert_int_equal(im.h, 16);
    dataset_close(&d);
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(d.def->get(&d, i, &im, &label, &e), 0);
        assert_int_equal(label, val_label[i]);
    }
    dataset_close(&d);
    o.num_classes = 2;
    open_fails(&o, SPLIT_TRAIN, ERR_CONFIG, "num_classes: 2", "3 classes");
    o.num_classes = 0;
    o.val_dir = "nowhere";
    open_fails(&o, SPLIT_VAL, ERR_DATA, where,
               str_ends(where, ".gz") ? "nowhere/<class>" : "validation images");
    o.val_dir = "train";
    open_ok(&d, &o, SPLIT_VAL);
    assert_int_equal(d.count, 5);
    dataset_close(&d);
    free(im.px);
}

static void test_tree(void **state)
{
    Str tar = {0}, z = {0};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tree_files); i++) {
        Str b = {0};
        char name[200];
        put_image(&b, tree_files[i], 16);
        snprintf(name, sizeof(name), "wrap/%s", tree_files[i]);
        tar_member(&tar, name, '0', b.s, b.len);
        snprintf(name, sizeof(name), "tree/%s", tree_files[i]);
        save(dir, name, &b);
    }
    tar_end(&tar);
    gzip(&z, tar.s, tar.len);
    save(dir, "tree.tar.gz", &z);
    str_free(&tar);
    check_tree(at("tree"));
    check_tree(at("tree.tar.gz"));
}

/* A bad image among good ones: fail names it, at its batch and not before; skip counts it and goes
 * on. */
static void test_bad_images(void **state)
{
    DataOpts o;
    InputShape s;
    int classes;
    Err e;
    (void)state;
    for (int i = 0; i < 40; i++) {
        Str b = {0};
        char name[100];
        snprintf(name, sizeof(name), "mixed/%s/%c/%02d.png", i < 30 ? "train" : "val", 'a' + i % 2,
                 i);
        put_png(&b, i == 3 ? 90 : 80, 80, 3); /* large enough not to be decoded at opening */
        if (i == 7 || i == 12 || i == 33) b.len = 300;
        save(dir, name, &b);
    }
    o = opts("folder", at("mixed"));
    o.image_size = 32;
    o.num_classes = 2;
    o.shuffle = false;
    assert_int_equal(data_input_shape(&o, &s, &classes, &e), 0);
    for (int split = SPLIT_TRAIN; split <= SPLIT_VAL; split++) {
        uint64_t hash = 0;
        for (int workers = 0; workers < 4; workers++) {
            Dataset d;
            Loader *l;
            const Batch *b;
            uint64_t h = 1;
            int64_t samples = 0;
            o.data_loader_workers = workers;
            o.on_bad_image = "fail";
            open_ok(&d, &o, (Split)split);
            l = loader_open(&d, &o, &s, (Split)split, 5, &e);
            if (split == SPLIT_TRAIN) { /* order: a/00 02 .. 28, b/01 03 ..: 12 is sample 6, in the
                                           second batch */
                assert_int_equal(loader_next(l, &b, &e), 1);
                expect_error(loader_next(l, &b, &e), &e, ERR_DATA, "mixed/train/a/12.png",
                             "damaged PNG");
                expect_error(loader_next(l, &b, &e), &e, ERR_DATA, "mixed/train/a/12.png",
                             "damaged PNG");
                assert_int_equal(loader_seek(l, 1, 2, &e), 0);
                assert_int_equal(loader_next(l, &b, &e), 1);
            }
            loader_close(l);
            o.on_bad_image = "skip";
            last_warnings = 0;
            l = loader_open(&d, &o, &s, (Split)split, 5, &e);
            while (loader_next(l, &b, &e) == 1) {
                hash_bytes(&h, b->x, (size_t)b->size * 32 * 32 * 3 * sizeof(float));
                hash_bytes(&h, b->index, (size_t)b->n * sizeof(*b->index));
                samples += b->n;
                if (split == SPLIT_TRAIN && b->number == 1)
                    assert_int_equal(b->index[1], 7); /* 6 is bad, 7 is next */
            }
            assert_int_equal(samples, split == SPLIT_TRAIN ? 30 : 9);
            assert_int_equal(loader_bad_images(l), split == SPLIT_TRAIN ? 2 : 1);
            assert_int_equal(last_warnings, split == SPLIT_TRAIN ? 2 : 1);
            if (!workers) hash = h;
            if (h != hash) fail_msg("%d workers skip otherwise than none", workers);
            loader_close(l);
            dataset_close(&d);
        }
    }
    /* small images are decoded at opening: fail ends it there, skip remembers */
    Str small = {0};
    put_png(&small, 16, 16, 3);
    save(dir, "small/train/a/1.png", &small);
    put_png(&small, 16, 16, 3);
    small.len = 60;
    save(dir, "small/train/a/2.png", &small);
    o = opts("folder", at("small"));
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "small/train/a/2.png", "damaged PNG");
    o.on_bad_image = "skip";
    Dataset d;
    Image im = {0};
    int label;
    open_ok(&d, &o, SPLIT_TRAIN);
    assert_int_equal(d.def->get(&d, 0, &im, &label, &e), 0);
    expect_error(d.def->get(&d, 1, &im, &label, &e), &e, ERR_DATA, "small/train/a/2.png",
                 "damaged PNG");
    dataset_close(&d);
    free(im.px);
}

static void test_missing(void **state)
{
    char *before = getenv("QRUN_DATA_DIR") ? xstrdup(getenv("QRUN_DATA_DIR")) : NULL;
    DataOpts o = opts("cifar10", "");
    (void)state;
    setenv("QRUN_DATA_DIR", dir, 1);
    setenv("XDG_DATA_HOME", at("xdg"), 1);
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, dir, "cifar-10-binary.tar.gz");
    open_fails(&o, SPLIT_TRAIN, ERR_DATA, "xdg/qrun", "curl -LO");
    save_cifar("xdg/qrun/cifar-10-batches-bin", false, 2);
    check_cifar(&o, SPLIT_VAL, 2, 10, 10);
    o.dataset = "cifar1o";
    open_fails(&o, SPLIT_TRAIN, ERR_CONFIG, "dataset", "did you mean 'cifar10'");
    if (before)
        setenv("QRUN_DATA_DIR", before, 1);
    else
        unsetenv("QRUN_DATA_DIR");
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cifar),   cmocka_unit_test(test_cifar_damage),
        cmocka_unit_test(test_targz),   cmocka_unit_test(test_targz_damage),
        cmocka_unit_test(test_mnist),   cmocka_unit_test(test_decode),
        cmocka_unit_test(test_tree),    cmocka_unit_test(test_bad_images),
        cmocka_unit_test(test_missing),
    };
    int rc;
    log_set(LOG_WARN, quiet);
    if (!(dir = temp_folder("data_files"))) return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    return temp_remove(dir) && !rc ? 1 : rc;
}
