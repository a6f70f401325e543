/* data/recipes.c -- the image pipelines of the original systems, one row each, under the names
 * their configs use.
 *
 * Rows are kept apart even where two agree today, because a configuration names what its original
 * did. `size` is the side that reaches the net; another image_size scales the resize before a crop
 * along (256 for 224). */
#include <string.h>

#include "data/transform.h"

#define IMAGENET_MEAN                                                                              \
    {                                                                                              \
        0.485, 0.456, 0.406                                                                        \
    }
#define IMAGENET_STD                                                                               \
    {                                                                                              \
        0.229, 0.224, 0.225                                                                        \
    }
#define CIFAR_MEAN                                                                                 \
    {                                                                                              \
        0.4914, 0.4822, 0.4465                                                                     \
    }
#define CIFAR_STD                                                                                  \
    {                                                                                              \
        0.2023, 0.1994, 0.2010                                                                     \
    }
#define CIFAR_MEAN_3                                                                               \
    {                                                                                              \
        0.491, 0.482, 0.447                                                                        \
    } /* three digits, and the deviation of all pixels */
#define CIFAR_STD_3                                                                                \
    {                                                                                              \
        0.247, 0.243, 0.262                                                                        \
    }

#define PAD_CROP                                                                                   \
    {                                                                                              \
        STEP_RANDOM_CROP, 4, 0                                                                     \
    }
#define FLIP                                                                                       \
    {                                                                                              \
        STEP_FLIP, 0, 0                                                                            \
    }
#define RESIZED_CROP                                                                               \
    {                                                                                              \
        STEP_RESIZED_CROP, 0, 0                                                                    \
    }
#define RESIZE_256                                                                                 \
    {                                                                                              \
        STEP_RESIZE_SHORT, 0, 256.0 / 224                                                          \
    }
#define CENTER_CROP                                                                                \
    {                                                                                              \
        STEP_CENTER_CROP, 0, 0                                                                     \
    }

// clang-format off
static const TransformRecipe recipes[] = {
    {"none", "normalise only; mean 0, std 1 unless given", 0, 0, {0, 0, 0}, {1, 1, 1}, {{0}}, {{0}}},
    {"synthetic", "normalise only", 3, 32, {0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}, {{0}}, {{0}}},
    /* AdaBits */
    {"cifar", "zero-pad 4, random crop, flip", 3, 32, CIFAR_MEAN, CIFAR_STD, {PAD_CROP, FLIP}, {{0}}},
    {"cinic", "zero-pad 4, random crop, flip", 3, 32, {0.4789, 0.4723, 0.4305}, {0.2421, 0.2383, 0.2587},
     {PAD_CROP, FLIP}, {{0}}},
    {"imagenet1k_basic", "random resized crop, flip; resize 256, centre crop", 3, 224, IMAGENET_MEAN, IMAGENET_STD,
     {RESIZED_CROP, FLIP}, {RESIZE_256, CENTER_CROP}},
    {"imagenet1k_mobile", "as imagenet1k_basic", 3, 224, IMAGENET_MEAN, IMAGENET_STD,
     {RESIZED_CROP, FLIP}, {RESIZE_256, CENTER_CROP}},
    {"imagenet1k_inception", "as imagenet1k_basic, mean and std 0.5", 3, 224, {0.5, 0.5, 0.5}, {0.5, 0.5, 0.5},
     {RESIZED_CROP, FLIP}, {RESIZE_256, CENTER_CROP}},
    /* F8Net */
    {"imagenet1k", "random resized crop, flip; resize 256, centre crop", 3, 224, IMAGENET_MEAN, IMAGENET_STD,
     {RESIZED_CROP, FLIP}, {RESIZE_256, CENTER_CROP}},
    /* APoT */
    {"apot_cifar", "zero-pad 4, random crop, flip", 3, 32, CIFAR_MEAN_3, CIFAR_STD_3, {PAD_CROP, FLIP}, {{0}}},
    {"apot_imagenet", "resize 256, random crop, flip; resize 256, centre crop", 3, 224, IMAGENET_MEAN, IMAGENET_STD,
     {RESIZE_256, {STEP_RANDOM_CROP, 0, 0}, FLIP}, {RESIZE_256, CENTER_CROP}},
    {"apot_mnist", "random crop, flip; centre crop", 1, 28, {0.131}, {0.308},
     {{STEP_RANDOM_CROP, 0, 0}, FLIP}, {CENTER_CROP}},
    /* FAT */
    {"fat_cifar", "zero-pad 4, random crop, flip", 3, 32, CIFAR_MEAN, CIFAR_STD, {PAD_CROP, FLIP}, {{0}}},
    {"fat_imagenet", "random resized crop, flip; resize 256, centre crop", 3, 224, IMAGENET_MEAN, IMAGENET_STD,
     {RESIZED_CROP, FLIP}, {RESIZE_256, CENTER_CROP}},
    /* Quantized_ResNet */
    {"hysteresis", "zero-pad 4, random crop, flip (CIFAR-10)", 3, 32, CIFAR_MEAN_3, CIFAR_STD_3,
     {PAD_CROP, FLIP}, {{0}}},
    {"hysteresis_cifar100", "zero-pad 4, random crop, flip", 3, 32, {0.507, 0.487, 0.441}, {0.267, 0.256, 0.276},
     {PAD_CROP, FLIP}, {{0}}},
    /* model-quantization */
    {"keyword_cifar", "flip, mirror-pad 4, random crop", 3, 32, CIFAR_MEAN, CIFAR_STD,
     {FLIP, {STEP_REFLECT_CROP, 4, 0}}, {{0}}},
    {"keyword_imagenet", "random resized crop, flip; resize 256, centre crop", 3, 224, IMAGENET_MEAN, IMAGENET_STD,
     {RESIZED_CROP, FLIP}, {RESIZE_256, CENTER_CROP}},
    {"keyword_imagenet_augment", "keyword_imagenet with colour jitter 0.4 and lighting 0.1", 3, 224, IMAGENET_MEAN,
     IMAGENET_STD, {RESIZED_CROP, FLIP, {STEP_JITTER, 0, 0.4}, {STEP_LIGHTING, 0, 0.1}}, {RESIZE_256, CENTER_CROP}},
    {"keyword_dali", "random area, shorter side to size, centre crop, flip; resize 256, centre crop", 3, 224,
     IMAGENET_MEAN, IMAGENET_STD, {{STEP_AREA_CROP, 0, 0}, {STEP_RESIZE_SHORT, 0, 1}, CENTER_CROP, FLIP},
     {RESIZE_256, CENTER_CROP}},
};

const char *const recipe_names[] = {
    "none", "synthetic", "cifar", "cinic", "imagenet1k_basic", "imagenet1k_mobile", "imagenet1k_inception",
    "imagenet1k", "apot_cifar", "apot_imagenet", "apot_mnist", "fat_cifar", "fat_imagenet", "hysteresis",
    "hysteresis_cifar100", "keyword_cifar", "keyword_imagenet", "keyword_imagenet_augment", "keyword_dali", NULL
};
// clang-format on
_Static_assert(ARRAY_LEN(recipes) + 1 == ARRAY_LEN(recipe_names),
               "a recipe without a name in the list");

const TransformRecipe *recipe_find(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_LEN(recipes); i++)
        if (str_eq(recipes[i].name, name)) return &recipes[i];
    return NULL;
}

const char *recipe_doc(const TransformRecipe *r)
{
    return r->doc;
}
