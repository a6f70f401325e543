/* data/class_names.c -- see class_names.h. */
#include "data/class_names.h"

#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

// clang-format off
const char *const names_cifar10[10] = {
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};

/* The fine labels. */
const char *const names_cifar100[100] = {
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm"};

const char *const names_mnist[10] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
// clang-format on

enum { FILE_LIMIT = 1 << 24 };

const char *const *class_names_read(const char *path, int classes, Arena *a, Err *e)
{
    size_t len;
    char *text = fs_read(path, FILE_LIMIT, &len, e), *line = text;
    const char **names = arena_alloc(a, (size_t)classes * sizeof *names);
    int n = 0;
    if (!text) return NULL;
    while (len && strchr(" \t\r\n", text[len - 1])) text[--len] = 0; /* no empty lines at the end */
    for (; line && len; n++) {
        char *end = strchr(line, '\n');
        size_t k = end ? (size_t)(end - line) : strlen(line);
        while (k && strchr(" \t\r", line[k - 1])) k--;
        if (n < classes) names[n] = arena_printf(a, "%.*s", (int)k, line);
        line = end ? end + 1 : NULL;
    }
    free(text);
    if (n == classes) return names;
    err_set(e, ERR_DATA, "%s: %d lines; expected the names of %d classes, one a line", path, n,
            classes);
    return NULL;
}
