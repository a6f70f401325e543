/* test/test_onnx_words.c -- float nets that words of the keyword language shape as ONNX files, on ONNX Runtime: every
 * kind of unit that such a net has and others have not (space-to-depth and back, trained factors and offsets, repeated
 * channels, layers side by side, norms and activations of each kind, pools that round up). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test/onnx_net.h"
#include "test/words.h"

static const struct {
    const char *model, *words, *options, *label;
    int size;
} cases[] = {
    {"resnet20", "cifar10,origin,cbsa,fix,fixup,bias,singleconv,LReLU", "", "_fixup", 16},
    {"resnet20", "cifar10,cabs,PReLU", "--base 2", "_bireal_base2", 16},
    {"resnet20", "cifar10,origin,cbsa,fix,prone,singleconv", "--input_size 28", "_prone", 28},
    {"resnet20", "cifar10,origin,cbas,prone,bn_before_restore,no_prone_downsample", "", "_prone_norm", 32},
    {"resnet20", "cifar10,origin,bacs,preBN,patch_preBN_stem,DCHR,fix", "", "_dchr", 16},
    {"resnet20", "cifar10,bcas,identify_norm,ReLU6", "", "_bcas", 16},
    {"resnet18", "origin,cbsa,fix,TResNetStemMaxPool,fix_pooling,ReShapeResolution", "--order cba --stem_kernel 3", "_tresnet", 64},
    {"resnet50", "cifar10,origin,bacs,fix", "", "_bacs", 16},
    {"pytorch-resnet18", "caffe-pooling,reverse-bn", "", "_caffe", 70},
    {"mobilenetv1", "cifar10,cbas,bireal,react,ReLU6", "", "_bireal", 32},
    {"mobilenetv1", "cifar10,cbsa,block_skip,singleconv,normal3x3,group-norm", "--fm_quant_group 4", "_block_skip", 32},
    {"mobilenetv2", "cifar10,bacs,PReLU", "", "_bacs", 32},
    {"vgg_small", "cifar10,abc,static-bn", "", "_abc", 32},
    {"nin", "cifar10,LReLU", "", "_leaky", 32},
};

static void test_words(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Config c;
        const NetDef *net = NULL;
        Err e = {0};
        if (words_config(&c, cases[i].model, cases[i].words, cases[i].options, &e) || !(net = net_select(&c.net, &e)))
            fail_msg("%s with %s: %s", cases[i].model, cases[i].words, e.msg);
        c.net.width_alpha = 0.25; /* where there is such a thing */
        onnx_net_add(*state, &(OnnxNetCase){.net = net,
                                            .opts = &c.net,
                                            .q = &c.quant,
                                            .label = cases[i].label,
                                            .size = cases[i].size,
                                            .batch = 4});
        config_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(judge_test_check),
        cmocka_unit_test(judge_test_all),
        cmocka_unit_test(judge_test_disabled),
    };
    return cmocka_run_group_tests(tests, judge_setup, judge_teardown);
}
