/* test/test_strangers.c -- small text files and tensors of strangers at the edges of what their
 * readers expect: one clear line, or what stands there; never an endless loop, never a part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/fs.h"
#include "io/namemap.h"
#include "io/shellvars.h"
#include "run/listing.h"
#include "run/policy_text.h"
#include "run/runrecord.h"
#include "test/support/temp.h"

static char *dir;

/* Writes a file of the folder; its path stays valid until the test program ends. */
static const char *put(const char *name, const char *bytes, size_t n)
{
    static Arena paths;
    const char *path = arena_printf(&paths, "%s/%s", dir, name);
    Err e = {0};
    if (fs_write(path, bytes, n, &e)) fail_msg("%s", e.msg);
    return path;
}

static const char *put_text(const char *name, const char *text)
{
    return put(name, text, strlen(text));
}

static void expect_fault(int r, const Err *e, const char *path, const char *want)
{
    assert_int_equal(r, -1);
    assert_int_equal(e->kind, ERR_CONFIG);
    if (!strstr(e->msg, path) || !strstr(e->msg, want)) fail_msg("'%s', not '%s'", e->msg, want);
}

/* What stands behind a NUL would be left out in silence. */
static void nul_in_a_text(void **state)
{
    static const char names[] = "a\nb\0\nc\n", policy[] = "on init:\nby_index: all\n\0x: y\n",
                      shell[] = "a=1\n\0b=2\n";
    const char *path = put("names", names, sizeof names - 1), *other = put_text("other", "a\nb\n");
    NameMap m;
    Policy p;
    ShellFile f;
    Arena a = {0};
    Err e = {0};
    (void)state;
    expect_fault(namemap_read(&m, path, other, &e), &e, path, "not a text file");
    namemap_free(&m);
    e = (Err){0};
    expect_fault(namemap_read(&m, other, path, &e), &e, path, "not a text file");
    namemap_free(&m);
    e = (Err){0};
    path = put("policy", policy, sizeof policy - 1);
    expect_fault(policy_read(&p, &a, path, &e), &e, path, "not a text file");
    e = (Err){0};
    path = put("config.sh", shell, sizeof shell - 1);
    expect_fault(shell_read(&f, path, &e), &e, path, "not a text file");
    shell_free(&f);
    arena_free(&a);
}

/* An empty part is in every name, as often as one likes. */
static void empty_part_of_names(void **state)
{
    static const char *const bad[] = {"{,b}\n", "{a,}\n", "\"\"\n"};
    const char *to = put_text("to", "{x,y}\n");
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *from = put_text("from", bad[i]), *one = put_text("one", "x\n");
        NameMap m;
        Err e = {0};
        expect_fault(namemap_read(&m, from, strchr(bad[i], '{') ? to : one, &e), &e, from,
                     "an empty name");
        namemap_free(&m);
    }
}

/* Dimensions as long as they get: the text stays in its 128 bytes. */
static void long_shapes(void **state)
{
    char room[160];
    (void)state;
    for (int64_t first = 0; first < 1000000000; first = 10 * first + 1)
        for (int ndim = 0; ndim <= (int)ARRAY_LEN(((ListEntry *)NULL)->dim); ndim++) {
            ListEntry t = {.ndim = ndim};
            for (int i = 0; i < ndim; i++) t.dim[i] = i ? INT64_MAX : first;
            memset(room, 77, sizeof room);
            listing_shape(&t, room);
            for (size_t i = 128; i < sizeof room; i++) assert_int_equal(room[i], 77);
            assert_true(memchr(room, 0, 128) && room[strlen(room) - 1] == ']');
        }
}

static void option_without_a_value(void **state)
{
    RunRecord r;
    Err e = {0};
    (void)state;
    put_text("resolved.yml", "lr: 0.1   # file:1\nnote:   # file:2\nempty:\nmodel: resnet20\n");
    if (runrecord_read(&r, dir, &e)) fail_msg("%s", e.msg);
    assert_int_equal(r.noptions, 4);
    assert_string_equal(runrecord_option(&r, "lr"), "0.1");
    assert_string_equal(runrecord_option(&r, "note"), "");
    assert_string_equal(runrecord_option(&r, "empty"), "");
    assert_string_equal(runrecord_option(&r, "model"), "resnet20");
    runrecord_free(&r);
}

static int make_folder(void **state)
{
    (void)state;
    return (dir = temp_folder("strangers")) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nul_in_a_text),
        cmocka_unit_test(empty_part_of_names),
        cmocka_unit_test(long_shapes),
        cmocka_unit_test(option_without_a_value),
    };
    return cmocka_run_group_tests_name("strangers", tests, make_folder, drop_folder);
}
