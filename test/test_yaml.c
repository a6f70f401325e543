/* test/test_yaml.c -- trees, places, includes, inheritance, scalars; damaged and hostile text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/rng.h"
#include "io/fs.h"
#include "io/yaml.h"
#include "test/support/temp.h"

static char *folder; /* of the files that the tests write */

static int make_folder(void **state)
{
    (void)state;
    folder = temp_folder("yaml");
    return folder ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    return temp_remove(folder);
}

static char *put_file(const char *name, const char *text)
{
    char *path = fs_join(folder, name);
    Err e = {0};
    if (fs_write(path, text, strlen(text), &e)) fail_msg("%s", e.msg);
    return path;
}

static Yaml *parse(Arena *a, const char *text)
{
    Err e = {0};
    Yaml *y = yaml_parse(a, "t.yml", text, strlen(text), &e);
    if (!y) fail_msg("%s", e.msg);
    return y;
}

/* Reads file `name` of the folder; the message without the folder's name, "" when it was read. */
static void read_message(const char *name, char *out, size_t size)
{
    Arena a = {0};
    Err e = {0};
    char *path = fs_join(folder, name);
    Str s = {0};
    str_puts(&s, "");
    if (!yaml_read(&a, path, &e)) {
        assert_int_equal(e.kind, ERR_CONFIG);
        for (const char *p = e.msg; *p;) {
            if (str_starts(p, folder))
                p += strlen(folder) + 1;
            else
                str_putn(&s, p++, 1);
        }
    }
    snprintf(out, size, "%s", s.s ? s.s : "");
    str_free(&s);
    free(path);
    arena_free(&a);
}

static void test_tree_and_places(void **state)
{
    Arena a = {0};
    Yaml *y =
        parse(&a, "# comment\nlr: 0.1\nlist: [1, 'two', {three: 3}]\nmap:\n  inner: x\nlr: 0.2\n");
    const Yaml *v;
    (void)state;
    assert_int_equal(y->kind, Y_MAP);
    assert_int_equal(y->n, 4);
    v = yaml_get(y, "lr"); /* the last one counts, both are there */
    assert_string_equal(v->s, "0.2");
    assert_int_equal(v->line, 6);
    assert_int_equal(v->col, 5);
    assert_string_equal(v->file, "t.yml");
    assert_int_equal(y->k[0]->line, 2);
    v = yaml_get(y, "list");
    assert_int_equal(v->n, 3);
    assert_true(v->v[1]->quoted);
    assert_false(v->v[0]->quoted);
    assert_string_equal(yaml_path(v->v[2], "three")->s, "3");
    assert_string_equal(yaml_path(y, "map.inner")->s, "x");
    assert_null(yaml_path(y, "map.none"));
    assert_null(yaml_path(y, "lr.none"));
    assert_null(yaml_get(y, "none"));
    assert_int_equal(parse(&a, "")->kind, Y_MAP);
    assert_int_equal(parse(&a, "# nothing\n")->n, 0);
    arena_free(&a);
}

static void test_scalars(void **state)
{
    static const struct {
        const char *text;
        const char *as_int, *as_double, *as_bool; /* "-": not of that type */
        bool null;
    } rows[] = {
        {"1", "1", "1", "-", false},
        {"-3", "-3", "-3", "-", false},
        {"+4", "4", "4", "-", false},
        {"1_000", "1000", "1000", "-", false},
        {"0x1F", "31", "31", "-", false},
        {"0o17", "15", "15", "-", false},
        {"010", "8", "8", "-", false},
        {"0b101", "5", "5", "-", false},
        {"1e-4", "-", "0.0001", "-", false},
        {"1.5", "-", "1.5", "-", false},
        {".5", "-", "0.5", "-", false},
        {"7.", "-", "7", "-", false},
        {"-.inf", "-", "-inf", "-", false},
        {".NAN", "-", "nan", "-", false},
        {".Inf", "-", "inf", "-", false},
        {"yes", "-", "-", "1", false},
        {"Off", "-", "-", "0", false},
        {"TRUE", "-", "-", "1", false},
        {"tRue", "-", "-", "-", false},
        {"~", "-", "-", "-", true},
        {"Null", "-", "-", "-", true},
        {"''", "-", "-", "-", false},
        {"'1'", "-", "-", "-", false},
        {"!!str 1", "-", "-", "-", false},
        {"1.2.3", "-", "-", "-", false},
        {"e5", "-", "-", "-", false},
        {"0x", "-", "-", "-", false},
        {"1e999", "-", "-", "-", false},
        {"99999999999999999999", "-", "1e+20", "-", false},
        {"infinity", "-", "-", "-", false},
        {"nan", "-", "-", "-", false},
        {"_1", "-", "-", "-", false},
        {"--1", "-", "-", "-", false},
        {"0x0x1", "-", "-", "-", false},
        {"1 2", "-", "-", "-", false},
        {"9223372036854775807", "9223372036854775807", "9.22337e+18", "-", false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Arena a = {0};
        Err e = {0};
        char got[128];
        long long n = 0;
        double d = 0;
        bool b = false;
        Yaml *y = yaml_value(&a, "command line", rows[i].text, &e);
        if (!y) fail_msg("%s", e.msg);
        if (yaml_int(y, &n))
            snprintf(got, sizeof got, "%lld", n);
        else
            snprintf(got, sizeof got, "-");
        if (strcmp(got, rows[i].as_int))
            fail_msg("'%s' as int: %s, expected %s", rows[i].text, got, rows[i].as_int);
        if (yaml_double(y, &d))
            snprintf(got, sizeof got, "%g", d);
        else
            snprintf(got, sizeof got, "-");
        if (strcmp(got, rows[i].as_double))
            fail_msg("'%s' as number: %s, expected %s", rows[i].text, got, rows[i].as_double);
        snprintf(got, sizeof got, "%s", !yaml_bool(y, &b) ? "-" : b ? "1" : "0");
        if (strcmp(got, rows[i].as_bool))
            fail_msg("'%s' as bool: %s, expected %s", rows[i].text, got, rows[i].as_bool);
        if (yaml_null(y) != rows[i].null) fail_msg("'%s' null: %d", rows[i].text, yaml_null(y));
        arena_free(&a);
    }
}

static void test_anchors_and_merge(void **state)
{
    Arena a = {0};
    Yaml *y =
        parse(&a, "a: &A {x: 1, y: 2}\nb: {y: 5, <<: *A}\nc: {<<: [{x: 8}, *A]}\nd: *A\n'<<': 3\n");
    (void)state;
    assert_string_equal(yaml_path(y, "b.x")->s, "1");
    assert_string_equal(yaml_path(y, "b.y")->s, "5"); /* its own, wherever the merge stands */
    assert_string_equal(yaml_path(y, "c.x")->s,
                        "8"); /* the earlier map of a list is the stronger one */
    assert_string_equal(yaml_path(y, "c.y")->s, "2");
    assert_ptr_equal(yaml_get(y, "d"), yaml_get(y, "a"));
    assert_non_null(yaml_get(y, "<<")); /* quoted: an ordinary key */
    arena_free(&a);
}

static void test_inheritance(void **state)
{
    Arena a = {0};
    Err e = {0};
    char *path;
    Yaml *y;
    (void)state;
    free(put_file("base.yml", "lr: 0.1\nwd: 1e-4\nmodel: m0\n"));
    free(put_file("more.yaml", "_default: base.yml\nwd: 2e-4\n"));
    free(put_file("note.txt", "two\nlines"));
    path = put_file("child.yml", "lr: 0.3\n_default: [base.yml, more.yaml]\nlist: !include "
                                 "base.yml\ntext: !include note.txt\n");
    y = yaml_read(&a, path, &e);
    if (!y) fail_msg("%s", e.msg);
    assert_string_equal(yaml_get(y, "lr")->s, "0.3");
    assert_string_equal(yaml_get(y, "wd")->s, "2e-4");
    assert_string_equal(yaml_get(y, "model")->s, "m0");
    assert_true(str_ends(yaml_get(y, "wd")->file, "/more.yaml"));
    assert_int_equal(yaml_get(y, "wd")->line, 2);
    assert_string_equal(yaml_path(y, "list.lr")->s, "0.1");
    assert_string_equal(yaml_get(y, "text")->s, "two\nlines");
    assert_null(yaml_get(y, "_default"));
    free(path);
    arena_free(&a);
}

static void test_bad_files(void **state)
{
    static const struct {
        const char *name, *text, *msg;
    } rows[] = {
        {"tab.yml", "a: 1\n\tb: 2\n",
         "tab.yml:2:1: error: a tab character; expected spaces for indentation"},
        {"indent.yml", "a: 1\n b: 2\n",
         "indent.yml:2:3: error: not valid YAML: mapping values are not allowed in this context"},
        {"flow.yml", "a: [1, 2\nb: 3\n",
         "flow.yml:2:2: error: not valid YAML: did not find expected ',' or ']', while parsing a "
         "flow sequence that begins in line 1"},
        {"utf.yml", "ok: 1\na: \xff\n",
         "utf.yml:2:4: error: not a text file: invalid leading UTF-8 octet"},
        {"control.yml", "a: \x01\n",
         "control.yml:1:4: error: not a text file: control characters are not allowed"},
        {"alias.yml", "a: *b\n", "alias.yml:1:4: error: alias *b: no such anchor before it"},
        {"loop.yml", "a: &x [*x]\n",
         "loop.yml:1:8: error: alias *x lies inside what it stands for"},
        {"tag.yml", "a: !!python/object x\n",
         "tag.yml:1:4: error: unknown tag 'tag:yaml.org,2002:python/object'; expected !include "
         "FILE or no tag"},
        {"nul.yml", "a: \"x\\0y\"\n", "nul.yml:1:4: error: a NUL character inside a value"},
        {"two.yml", "a: 1\n---\nb: 2\n",
         "two.yml:2:1: error: a second document; expected one per file"},
        {"key.yml", "? [a]\n: 1\n", "key.yml:1:3: error: a key is a word, not a list or a map"},
        {"self.yml", "a: 1\nb: !include self.yml\n",
         "self.yml:2:4: error: cannot include 'self.yml': it includes itself"},
        {"ping.yml", "_default: pong.yml\n", NULL},
        {"pong.yml", "_default: ping.yml\n",
         "ping.yml:1:11: error: cannot include 'pong.yml': it includes itself"},
        {"miss.yml", "_default: something.yml\n",
         "miss.yml:1:11: error: cannot include 'something.yml': no such file"},
        {"near.yml", "_default: alais.yml\n",
         "near.yml:1:11: error: cannot include 'alais.yml': no such file; did you mean "
         "'alias.yml'?"},
        {"noext.yml", "_default: alias\n",
         "noext.yml:1:11: error: cannot include 'alias': no such file; did you mean 'alias.yml'?"},
        {"dir.yml", "a: !include .\n", "dir.yml:1:4: error: cannot include '.': not a file"},
        {"empty.yml", "a: !include ''\n", "empty.yml:1:4: error: !include without a file name"},
        {"merge.yml", "<<: 3\n",
         "merge.yml:1:5: error: <<: expected a map (*alias or !include FILE), or a list of maps"},
        {"base2.yml", "_default: list.yml\n",
         "base2.yml:1:11: error: _default: expected a file that holds a map, or a list of such "
         "files"},
        {"null.yml", "_default:\n",
         "null.yml:1:10: error: _default: expected a file that holds a map, or a list of such "
         "files"},
    };
    char got[1024];
    (void)state;
    free(put_file("list.yml", "[1, 2]\n"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) free(put_file(rows[i].name, rows[i].text));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (!rows[i].msg) continue;
        read_message(rows[i].name, got, sizeof got);
        if (strcmp(got, rows[i].msg))
            fail_msg("%s\n     got: %s\nexpected: %s", rows[i].name, got, rows[i].msg);
    }
    read_message("absent.yml", got, sizeof got);
    assert_string_equal(got, "absent.yml: error: no such file");
    read_message("alia.yml", got, sizeof got);
    assert_string_equal(got, "alia.yml: error: no such file; did you mean 'alias.yml'?");
}

static void test_bounds(void **state)
{
    Str deep = {0}, laugh = {0};
    char got[1024];
    (void)state;
    str_puts(&deep, "a: ");
    for (int i = 0; i < 70; i++) str_puts(&deep, "[");
    for (int i = 0; i < 70; i++) str_puts(&deep, "]");
    free(put_file("deep.yml", deep.s));
    read_message("deep.yml", got, sizeof got);
    assert_string_equal(got, "deep.yml:1:68: error: nested more than 64 deep");
    str_puts(&laugh, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 12; i++) {
        str_printf(&laugh, "a%d: &a%d [", i, i);
        for (int j = 0; j < 10; j++) str_printf(&laugh, "%s*a%d", j ? "," : "", i - 1);
        str_puts(&laugh, "]\n");
    }
    free(put_file("laugh.yml", laugh.s));
    read_message("laugh.yml", got, sizeof got);
    assert_non_null(strstr(got, "more than 400000 values"));
    /* A chain of aliases one level deeper each must not exceed the depth either. */
    laugh.len = 0;
    str_puts(&laugh, "a0: &a0 [x]\n");
    for (int i = 1; i < 80; i++) str_printf(&laugh, "a%d: &a%d [*a%d]\n", i, i, i - 1);
    free(put_file("chain.yml", laugh.s));
    read_message("chain.yml", got, sizeof got);
    assert_non_null(strstr(got, "nested more than 64 deep"));
    /* Sixteen files each including the next twice: 65536 reads without a bound. */
    for (int i = 0; i < 16; i++) {
        char name[16], text[64];
        snprintf(name, sizeof name, "f%d.yml", i);
        snprintf(text, sizeof text, "a: !include f%d.yml\nb: !include f%d.yml\n", i + 1, i + 1);
        free(put_file(name, text));
    }
    free(put_file("f16.yml", "x: 1\n"));
    read_message("f0.yml", got, sizeof got);
    assert_non_null(strstr(got, "too many files in one configuration"));
    str_free(&deep);
    str_free(&laugh);
}

static void test_command_line_values(void **state)
{
    Arena a = {0};
    Err e = {0};
    Yaml *y = yaml_value(&a, "command line", "[1, 1e-4]", &e);
    (void)state;
    assert_int_equal(y->n, 2);
    assert_int_equal(y->line, 0);
    y = yaml_value(&a, "command line", "", &e);
    assert_true(yaml_null(y));
    assert_string_equal(y->s, "");
    assert_null(yaml_value(&a, "command line", "[1, 2", &e));
    assert_string_equal(e.msg,
                        "command line: error: not valid YAML: did not find expected ',' or ']'");
    arena_free(&a);
}

/* Bit flips, cuts and repeated pieces of real text: a tree or a message, never a crash. */
static void test_mutations(void **state)
{
    static const char *const files[] = {"configs/smoke.yml", "configs/apot/cifar_base.yml"};
    static const char extra[] = "a: &A {x: [1, 'q', \"\\u00e9\\x41\"], y: |\n  text\n}\nb: {<<: "
                                "*A}\nc: !!str 3\n? k\n: >-\n  f\n";
    int good = 0, bad = 0;
    (void)state;
    for (int i = 0; i < 6000; i++) {
        Arena a = {0};
        Err e = {0};
        Rng r = rng_stream(7, RNG_TEST, 0, (uint64_t)i);
        size_t n = sizeof extra - 1;
        char *text = i % 3 < 2 ? fs_read(files[i % 3], 0, &n, &e) : xstrdup(extra), *cut;
        if (!text) fail_msg("%s", e.msg);
        for (uint32_t k = rng_below(&r, 4); k > 0; k--)
            text[rng_below(&r, (uint32_t)n)] ^= (char)(1 << rng_below(&r, 8));
        if (rng_below(&r, 3) == 0) n = rng_below(&r, (uint32_t)n + 1);
        /* An exact copy: reading one byte too far is caught by the sanitizer. */
        cut = xmalloc(n ? n : 1);
        memcpy(cut, text, n);
        if (yaml_parse(&a, "m.yml", cut, n, &e)) {
            good++;
        } else {
            bad++;
            assert_int_equal(e.kind, ERR_CONFIG);
            assert_true(str_starts(e.msg, "m.yml:"));
        }
        free(cut);
        free(text);
        arena_free(&a);
    }
    assert_true(good > 500);
    assert_true(bad > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree_and_places),     cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_anchors_and_merge),   cmocka_unit_test(test_inheritance),
        cmocka_unit_test(test_bad_files),           cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_command_line_values), cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
