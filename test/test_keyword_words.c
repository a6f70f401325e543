/* test/test_keyword_words.c -- every word that shapes a net: what it makes of one. Units are given as spec_print
 * writes them; a word's line is there with it and not without it. The expectations are those of the original's
 * sources (models/resnet_.py, resnet.py, mobilenet.py, vgg_small_.py, layers.py, prone.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/words.h"

typedef struct Row {
    const char *word, *model, *beside, *options;
    int size;
    const char *with; /* a line, or a part of one, that only the word brings */
    const char *gone; /* what it takes away; NULL: nothing */
} Row;

#define BASIC "cifar10,origin,cbsa"
#define LDN   "cifar10,origin,cbsa,singleconv,fix,ReShapeResolution"

static const Row rows[] = {
    {"cifar10", "resnet20", "origin,cbsa", "", 32, " conv conv1 3x3 pad 1 <- 0 : 64 x 32 x 32 first\n", " pool max"},
    {"cifar100", "mobilenetv1", "origin,cbas", "", 32, " conv root.0 3x3 pad 1 <- 0 : 32 x 32 x 32 first\n", NULL},
    {"cifar10", "mobilenetv2", "cbas", "", 32, " conv features.2.conv2 3x3 pad 1 groups 96 <- ", NULL},
    {"TResNetStem", "resnet18", "origin,cbsa", "", 64, " conv conv1.conv 1x1 <- 1 : 64 x 16 x 16 first counted\n", " pool max"},
    {"TResNetStem", "resnet18", "origin,cbsa", "--stem_kernel 3", 64,
     " conv conv1.conv 3x3 pad 1 <- 1 : 64 x 16 x 16 first counted\n", " pool max"},
    {"TResNetStemMaxPool", "resnet18", "origin,cbsa", "", 64,
     "space_to_depth 2 <- 0 : 12 x 32 x 32\n  2 conv conv1.conv 1x1 <- 1 : 64 x 32 x 32 first counted\n"
     "  3 pool max 3x3 stride 2 pad 1 <- 2 : 64 x 16 x 16\n", NULL},
    {"fix_pooling", "resnet18", "origin,cbsa", "", 64, "act bn1.1 relu <- 2 : 64 x 32 x 32\n  4 pool max", NULL},
    {"preBN", "resnet18", "origin,bacs", "", 64, " norm bn2.0 batch <- ", " bn1.0"},
    {"patch_preBN_stem", "resnet18", "origin,bacs,preBN", "", 64, " act bn2.1 relu <- ", " bn1.0"},
    {"patch_preBN_stem", "resnet18", "origin,bacs,preBN,fix_pooling", "", 64, " norm bn1.0 batch <- 1 : 64 x 32 x 32\n", NULL},
    {"group_net", "resnet18", "cabs", "", 64, "  4 conv layer1.0.conv1.0 3x3 pad 1 <- 3", " bn1.1"},
    {"fixup", "resnet20", BASIC, "", 32, " scale layer1.0.fixup_scale from 1 <- ", " norm "},
    {"bias", "resnet20", BASIC ",fixup", "", 32, " shift layer3.2.fixup_bias2b from 0 <- ", NULL},
    {"bias", "resnet20", BASIC ",fixup", "", 32, " shift fixup_bias1 from 0 <- 1", NULL},
    {"first_last", "pytorch-resnet18", "", "", 64, " conv conv1 7x7 stride 2 pad 3 <- 0 : 64 x 32 x 32 signed\n", " last"},
    {"caffe_pooling", "pytorch-resnet18", "", "", 224, " pool max 3x3 stride 2 pad 0 ceil <- 3 : 64 x 56 x 56\n", NULL},
    {"origin", "resnet20", "cifar10,cbsa", "", 32, " add <- 9 3 : 64 x 32 x 32\n 11 conv layer1.1.conv1.0", NULL},
    {"origin", "mobilenetv1", "cifar10,cbas,bireal,react", "", 32, " norm model.0.bn2.0 batch", " add "},
    {"cbas", "resnet20", "cifar10", "", 32, "act layer1.0.relu1.0 relu <- 5 : 64 x 32 x 32\n  7 add <- 6 3", NULL},
    {"cbsa", "resnet20", "cifar10", "", 32, "norm layer1.0.bn1.0 batch <- 4 : 64 x 32 x 32\n  6 add <- 5 3", NULL},
    {"cabs", "resnet20", "cifar10", "", 32, "norm layer1.0.bn1.0 batch <- 5 : 64 x 32 x 32\n  7 add <- 6 3", NULL},
    {"bacs", "resnet20", "cifar10", "", 32, "conv layer1.0.conv1.0 3x3 pad 1 <- 5 : 64 x 32 x 32\n  7 add <- 6 3", NULL},
    {"bcas", "resnet20", "cifar10", "", 32, "act layer1.0.relu1.0 relu <- 5 : 64 x 32 x 32\n  7 add <- 6 3", NULL},
    {"bac", "vgg_small", "cifar10", "", 32, " act relu2 relu <- 2 : 128 x 32 x 32\n  4 conv conv2", " bn1 "},
    {"bac", "vgg_small", "cifar10,cba,abc", "", 32, " act relu2 relu <- 2 : 128 x 32 x 32\n  4 conv conv2", " bn1 "},
    {"cba", "vgg_small", "cifar10,abc", "", 32, " norm bn1 batch <- 1 : 128 x 32 x 32\n", NULL},
    {"abc", "vgg_small", "cifar10", "", 32, " norm bn2 batch <- 2 : 128 x 32 x 32\n  4 conv conv2", " bn1 "},
    {"fix", "resnet20", BASIC, "", 32, " act layer1.0.fix_relu relu <- 9", " relu2.0 "},
    {"fix", "resnet20", "cifar10,origin,bacs", "", 32, " norm layer1.0.fix_bn batch <- 9", NULL},
    {"fix", "resnet50", BASIC, "", 32, " act layer1.0.fix_relu relu <- ", " relu3.0 "},
    {"fix", "mobilenetv1", "cifar10,cbas,block_skip", "", 32, " norm model.0.skip.2 batch <- ", " model.0.skip.3 "},
    {"singleconv", "resnet20", BASIC, "", 32, " conv layer2.0.skip.1 1x1 stride 2 <- ", " pool avg 2x2"},
    {"singleconv", "mobilenetv1", "cifar10,cbsa,block_skip", "", 32, " conv model.1.skip.1 1x1 stride 2 <- ", " pool avg 2x2"},
    {"real_skip", "resnet20", BASIC, "", 32, " conv layer2.0.skip.1 1x1 <- 31 : 128 x 16 x 16 skip no-quant\n", NULL},
    {"real_skip", "resnet20", LDN, "--order cb", 32, " conv layer2.0.shrink.0.conv 1x1 <- 25 : 128 x 16 x 16 no-quant\n", NULL},
    {"real_skip", "pytorch-resnet18", "", "", 64, "layer2.0.downsample.0 1x1 stride 2 <- 18 : 128 x 8 x 8 skip no-quant\n", NULL},
    {"real_skip", "mobilenetv1", "cifar10,cbsa,block_skip", "", 32, " conv model.0.skip.1 1x1 <- 3 : 64 x 32 x 32 skip no-quant\n", NULL},
    {"identify_norm", "resnet20", BASIC, "", 32, " norm layer1.0.skip.1 batch <- 3 ", NULL},
    {"DCHR", "resnet20", BASIC, "", 32, " concat <- 31 31 : 128 x 16 x 16\n", " skip\n"},
    {"ReShapeResolution", "resnet20", BASIC, "--order cba", 32, " space_to_depth 2 <- 24 : 256 x 16 x 16\n", " skip"},
    {"ReShapeResolution", "resnet20", BASIC, "--order ac", 32, " act layer2.0.shrink.0 relu <- 24 : 64 x 32 x 32\n", NULL},
    {"ldn3x3", "resnet20", LDN, "--order c", 32, " conv layer2.0.shrink.0.conv 3x3 pad 1 <- ", " layer2.0.conv1.0 "},
    {"f0x0", "resnet20", LDN, "--order c", 32, " conv layer2.0.conv2.0 3x3 pad 1 <- 26 : 128", " layer2.0.conv1.0 "},
    {"f3x3", "resnet20", LDN, "--order c", 32, " conv layer2.0.conv1.0 3x3 stride 2 pad 1 <- ", " shrink"},
    {"f3x3", "resnet20", BASIC ",prone", "", 32, " conv layer1.0.conv1.0 3x3 pad 1 <- ", NULL},
    {"s1x1", "resnet20", LDN, "--order c", 32, " conv layer2.0.conv2.0 1x1 <- ", NULL},
    {"s1x1", "resnet20", BASIC ",prone", "", 32, " conv layer1.0.conv2.0 1x1 <- ", NULL},
    {"s3x3", "resnet20", BASIC ",prone", "", 32, " conv layer1.0.conv2.0 3x3 pad 1 <- ", NULL},
    {"prone", "resnet20", BASIC, "", 32,
     "space_to_depth 2 <- 3 : 256 x 16 x 16\n  5 conv layer1.0.conv1.0.conv 1x1 <- 4 : 256 x 16 x 16\n  6 depth_to_space 2 <- 5",
     " 3x3 stride 2"},
    {"prone", "resnet50", BASIC, "", 32, " conv layer2.0.conv2.0.conv 1x1 <- ", NULL},
    {"prone", "mobilenetv1", "cifar10,origin,cbas", "", 32, " conv model.0.depth_conv.0.conv 1x1 groups 32 <- ", NULL},
    {"prone", "mobilenetv2", "cifar10,cbas", "", 32, " conv features.2.conv2.conv 1x1 groups 96 <- ", NULL},
    {"no_prone_downsample", "resnet20", BASIC ",prone", "", 32, " conv layer2.0.conv1.0 3x3 stride 2 pad 1 <- ", NULL},
    {"no_prone_downsample", "mobilenetv1", "cifar10,origin,cbas,prone", "", 32, " conv model.1.depth_conv.0 3x3 stride 2 ", NULL},
    {"bn_before_restore", "resnet20", BASIC ",prone", "", 32, " norm layer1.0.conv1.0.bn batch <- 5 : 256 x 16 x 16\n", " layer1.0.bn1.0 "},
    {"bn_before_restore", "mobilenetv1", "cifar10,origin,cbas,prone", "", 32, " norm model.0.depth_conv.0.bn batch ", " model.0.bn1.0 "},
    {"force_padding", "resnet18", "origin,cbsa,fix_pooling,singleconv", "", 224,
     " conv layer4.0.conv1.0 3x3 stride 2 pad 2 <- ", NULL},
    {"force_padding", "resnet18", "origin,cbsa,fix_pooling,singleconv", "", 224,
     " conv layer4.0.skip.1 1x1 stride 2 pad 1 <- ", NULL},
    {"bireal", "mobilenetv1", "cifar10,cbas,react", "", 32, " conv model.0.point_conv.0.duplicates.1 1x1 <- ", NULL},
    {"bireal", "mobilenetv1", "cifar10,cbas,react", "", 32, "act model.0.relu1.0 relu <- 5 : 32 x 32 x 32\n  7 add <- 6 3", NULL},
    {"block_skip", "mobilenetv1", "cifar10,cbas", "", 32, " conv model.1.skip.1 1x1 <- ", NULL},
    {"react", "mobilenetv1", "cifar10,cbas,bireal", "", 32, " concat <- 7 7 : 64 x 32 x 32\n", NULL},
    {"normal3x3", "mobilenetv1", "cifar10,origin,cbas", "", 32, " conv model.0.depth_conv.0 3x3 pad 1 <- 3", " groups "},
    {"real_dp", "mobilenetv1", "cifar10,origin,cbas", "", 32, "depth_conv.0 3x3 pad 1 groups 32 <- 3 : 32 x 32 x 32 no-quant\n", NULL},
    {"real_pt", "mobilenetv1", "cifar10,origin,cbas", "", 32, "point_conv.0 1x1 <- 6 : 64 x 32 x 32 no-quant\n", NULL},
    {"group_norm", "resnet20", BASIC, "--fm_quant_group 4", 32, " norm bn1.0 group <- 1", " batch "},
    {"group_norm", "mobilenetv2", "cifar10,cbas", "--fm_quant_group 8", 32, " norm features.18.1 group <- ", " batch "},
    {"static_bn", "pytorch-resnet18", "", "", 64, " norm layer1.0.bn1 static <- ", " batch "},
    {"freeze_bn", "vgg_small", "cifar10,cba", "", 32, " norm bn7 frozen <- ", " batch "},
    {"reverse_bn", "nin", "cifar10", "", 32, " norm body.1 reverse <- ", " batch "},
    {"reverse_bn", "nin", "cifar10,instance-norm", "", 32, " norm body.1 reverse <- ", " instance "},
    {"instance_norm", "mobilenetv1", "cifar10,origin,cbas", "", 32, " norm root.1 instance <- ", " batch "},
    {"PReLU", "nin", "cifar10", "", 32, " act body.2 prelu <- ", " relu "},
    {"PReLU", "nin", "cifar10,NReLU,ReLU6", "", 32, " act body.2 prelu <- ", " relu6 "},
    {"NReLU", "mobilenetv2", "cifar10,cbas", "", 32, " conv features.18.0 1x1 <- ", " act "},
    {"ReLU6", "mobilenetv2", "cifar10,cbas", "", 32, " act features.18.2 relu6 <- ", " relu "},
    {"LReLU", "pytorch-resnet50", "", "", 64, " act layer1.0.relu3 leaky <- ", " relu <-"},
};

/* Words whose mark is no line: tested below, or refused wherever they would count. */
static const char *const elsewhere[] = {"zir", "f1x1"};

static int build(Spec *s, const Row *r, bool with, Err *e)
{
    char words[256];
    snprintf(words, sizeof words, "%s%s%s", r->beside, *r->beside && with ? "," : "", with ? r->word : "");
    return words_spec(s, r->model, words, r->options, 10, r->size, e);
}

/* What is wrong with a row, or nothing. */
static void check(const Row *r, const char *with, const char *without, Str *why)
{
    if (!strstr(with, r->with)) str_printf(why, "lacks '%s':\n%s", r->with, with);
    if (r->gone && strstr(with, r->gone)) str_printf(why, "has '%s':\n%s", r->gone, with);
    if (!strstr(without, r->with)) return;
    if (!r->gone || !strstr(without, r->gone)) str_printf(why, "is no different without it:\n%s", without);
}

static void lines(void **state)
{
    int bad = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const Row *r = &rows[i];
        Spec s;
        Str with = {0}, without = {0}, why = {0};
        Err e = {0};
        str_puts(&with, ""), str_puts(&without, "");
        if (build(&s, r, true, &e)) fail_msg("%s with %s,%s: %s", r->model, r->beside, r->word, e.msg);
        spec_print(&s, &with);
        spec_free(&s);
        e = (Err){0};
        if (!build(&s, r, false, &e)) spec_print(&s, &without);
        spec_free(&s);
        check(r, with.s, without.s, &why);
        if (why.len) print_error("%s with %s,%s %s %s\n", r->model, r->beside, r->word, r->options, why.s);
        bad += why.len > 0;
        str_free(&with);
        str_free(&without);
        str_free(&why);
    }
    if (bad) fail_msg("%d of %zu rows", bad, ARRAY_LEN(rows));
}

static void every_word(void **state)
{
    (void)state;
    for (int w = 0; w < NW_COUNT; w++) {
        bool found = false;
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) found = found || str_eq(rows[i].word, net_words[w].name);
        for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++) found = found || str_eq(elsewhere[i], net_words[w].name);
        if (!found) fail_msg("%s: no row here", net_words[w].name);
    }
}

/* zir: the last norm of a block starts with scale 0, fix_bn where there is one (used or not). */
static void zeros(void **state)
{
    static const struct {
        const char *model, *words, *zero;
        int norms; /* of them */
    } cases[] = {
        {"resnet20", "cifar10,origin,cbsa,zir", ".bn2.0", 9},
        {"resnet20", "cifar10,origin,cbsa,zir,fix", ".bn2.0", 9},
        {"resnet20", "cifar10,origin,bacs,zir", ".bn2.0", 9},
        {"resnet20", "cifar10,origin,bacs,zir,fix", ".fix_bn", 9},
        {"resnet20", "cifar10,bacs,zir,fix", ".fix_bn", 9},
        {"resnet50", "cifar10,origin,cbsa,zir", ".bn3.0", 16},
        {"mobilenetv1", "cifar10,origin,cbas,zir", "none", 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const Row r = {"", cases[i].model, cases[i].words, "", 32, "", NULL};
        Spec s;
        Err e = {0};
        int n = 0;
        if (build(&s, &r, false, &e)) fail_msg("%s with %s: %s", cases[i].model, cases[i].words, e.msg);
        for (int u = 0; u < s.n; u++) {
            if (s.u[u].kind != U_NORM) continue;
            if ((s.u[u].u.norm.weight_init == 0) != (bool)str_ends(s.u[u].name, cases[i].zero))
                fail_msg("%s with %s: %s starts with %g", cases[i].model, cases[i].words, s.u[u].name,
                         (double)s.u[u].u.norm.weight_init);
            n += s.u[u].u.norm.weight_init == 0;
        }
        assert_int_equal(n, cases[i].norms);
        spec_free(&s);
    }
}

/* f1x1 counts beside ReShapeResolution alone, where it is refused. */
static void refused(void **state)
{
    const Row r = {"f1x1", "resnet20", LDN, "--order c", 32, "", NULL};
    Spec s;
    Err e = {0};
    (void)state;
    assert_int_equal(build(&s, &r, true, &e), -1);
    assert_non_null(strstr(e.msg, "f1x1 pads its 1x1 convolution"));
    spec_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(every_word),
        cmocka_unit_test(zeros),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
