/* data/registry.c -- one row per data set; opening by name; what the net will see. */
#include <stdlib.h>
#include <string.h>

#include "data/cifar.h"
#include "data/class_names.h"
#include "data/mnist.h"
#include "data/samples.h"
#include "data/synth.h"
#include "data/transform.h"
#include "data/tree.h"
#include "data/where.h"

/* ---- trees: the rule is the only difference ---- */

static bool any_test(const DatasetDef *def, const DataOpts *o, const char *path, bool folder,
                     Split split)
{
    (void)def;
    return tree_has(&tree_any, o, path, folder, split);
}

static bool imagenet_test(const DatasetDef *def, const DataOpts *o, const char *path, bool folder,
                          Split split)
{
    (void)def;
    return tree_has(&tree_imagenet, o, path, folder, split);
}

static bool cinic_test(const DatasetDef *def, const DataOpts *o, const char *path, bool folder,
                       Split split)
{
    (void)def;
    return tree_has(&tree_cinic, o, path, folder, split);
}

static int open_tree(Dataset *d, const DataOpts *o, const TreeRule *r, PlaceTest test, Err *e)
{
    char *path = data_locate(d->def, o, d->split, test, e);
    int rc = path ? tree_open(d, o, r, path, e) : -1;
    free(path);
    return rc;
}

static int any_open(Dataset *d, const DataOpts *o, Err *e)
{
    return open_tree(d, o, &tree_any, any_test, e);
}

static int imagenet_open(Dataset *d, const DataOpts *o, Err *e)
{
    return open_tree(d, o, &tree_imagenet, imagenet_test, e);
}

static int val50k_open(Dataset *d, const DataOpts *o, Err *e)
{
    return open_tree(d, o, &tree_imagenet_val50k, imagenet_test, e);
}

static int cinic_open(Dataset *d, const DataOpts *o, Err *e)
{
    return open_tree(d, o, &tree_cinic, cinic_test, e);
}

/* ---- the table ---- */

// clang-format off
#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static const DatasetDef set_cifar10 = {
    .name = "cifar10",
    .alias = NAMES("CIFAR10", "cifar-10", "CIFAR-10"),
    .doc = "CIFAR-10: binary or Python batches, or image files in train/ and test/; folder or .tar.gz",
    .channels = 3, .classes = 10, .size = 32, .recipe = "apot_cifar", .class_names = names_cifar10,
    .open = cifar_open, .get = samples_get, .close = samples_close,
    .how_to_get = "to get it: curl -LO https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (162 MB, MD5 "
                  "c32a1d4ab5d03f1284b67883e8d87530), then dataset_dir=cifar-10-binary.tar.gz, or put it into $QRUN_DATA_DIR; "
                  "expected: data_batch_1.bin ... data_batch_5.bin and test_batch.bin, or train/<class>/ and test/<class>/",
    .places = NAMES("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz",
                    "cifar10", "cifar-10", "CIFAR10", "cifar-10-subset", "cifar10-jpeg", "cifar10-jpeg.tar.gz")};

static const DatasetDef set_cifar100 = {
    .name = "cifar100",
    .alias = NAMES("CIFAR100", "cifar-100", "CIFAR-100"),
    .doc = "CIFAR-100 (fine labels): binary or Python batches, or image files in train/ and test/; folder or .tar.gz",
    .channels = 3, .classes = 100, .size = 32, .recipe = "hysteresis_cifar100", .class_names = names_cifar100,
    .open = cifar_open, .get = samples_get, .close = samples_close,
    .how_to_get = "to get it: curl -LO https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz (161 MB, MD5 "
                  "03b5dce01913d631647c71ecec9e9cb8), then dataset_dir=cifar-100-binary.tar.gz, or put it into $QRUN_DATA_DIR; "
                  "expected: train.bin and test.bin, or train/<class>/ and test/<class>/",
    .places = NAMES("cifar-100-binary", "cifar-100-python", "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz",
                    "cifar100", "cifar-100", "CIFAR100")};

static const DatasetDef set_mnist = {
    .name = "mnist",
    .alias = NAMES("MNIST"),
    .doc = "MNIST: idx files, plain or .gz",
    .channels = 1, .classes = 10, .size = 28, .recipe = "apot_mnist", .class_names = names_mnist,
    .open = mnist_open, .get = samples_get, .close = samples_close,
    .how_to_get = "to get it: for f in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do curl -LO "
                  "https://ossci-datasets.s3.amazonaws.com/mnist/$f-ubyte.gz; done, in a folder that dataset_dir names, "
                  "or in $QRUN_DATA_DIR/mnist",
    .places = NAMES("mnist", "MNIST", "MNIST/raw", "raw")};

static const char imagenet_how[] =
    "to get it: register at https://image-net.org/download-images, unpack ILSVRC2012_img_train.tar (a .tar for each class) and "
    "ILSVRC2012_img_val.tar; expected: <dataset_dir>/train/<wnid>/*.JPEG and <dataset_dir>/val/<wnid>/*.JPEG";

static const DatasetDef set_imagenet = {
    .name = "imagenet1k",
    .alias = NAMES("imagenet", "ImageNet", "dali"),
    .doc = "ImageNet: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; folder or .tar.gz",
    .channels = 3, .classes = 1000, .size = 0, .recipe = "imagenet1k_basic",
    .open = imagenet_open, .get = samples_get, .get_part = samples_get_part, .close = samples_close,
    .how_to_get = imagenet_how,
    .places = NAMES("imagenet1k", "imagenet", "ImageNet", "ILSVRC2012")};

static const DatasetDef set_val50k = {
    .name = "imagenet1k_val50k",
    .doc = "ImageNet without 50,000 shuffled training images (AdaBits)",
    .channels = 3, .classes = 1000, .size = 0, .recipe = "imagenet1k_basic",
    .open = val50k_open, .get = samples_get, .get_part = samples_get_part, .close = samples_close,
    .how_to_get = imagenet_how,
    .places = NAMES("imagenet1k", "imagenet", "ImageNet", "ILSVRC2012")};

static const DatasetDef set_cinic = {
    .name = "cinic10",
    .alias = NAMES("CINIC10", "CINIC-10", "cinic-10"),
    .doc = "CINIC-10: train/<class>/*.png and valid/<class>/*.png; folder or .tar.gz",
    .channels = 3, .classes = 10, .size = 32, .recipe = "cinic", .class_names = names_cifar10,
    .open = cinic_open, .get = samples_get, .close = samples_close,
    .how_to_get = "to get it: https://datashare.ed.ac.uk/handle/10283/3192 (CINIC-10.tar.gz); expected: train/<class>/*.png and "
                  "valid/<class>/*.png, unpacked or as it is",
    .places = NAMES("CINIC-10", "cinic-10", "cinic10", "CINIC-10.tar.gz")};

static const DatasetDef set_folder = {
    .name = "folder",
    .alias = NAMES("imagefolder", "ImageFolder"),
    .doc = "any images: train/<class>/*.jpg|png and val/<class>/*.jpg|png (train_dir, val_dir); folder or .tar.gz",
    .channels = 3, .classes = 0, .size = 0, .recipe = "imagenet1k_basic",
    .open = any_open, .get = samples_get, .get_part = samples_get_part, .close = samples_close,
    .how_to_get = "expected: <dataset_dir>/train/<class>/*.jpg|jpeg|png and <dataset_dir>/val/<class>/...; other names of the two "
                  "sub-folders: train_dir, val_dir"};

static const DatasetDef set_synthetic = {
    .name = "synthetic",
    .doc = "ten shapes drawn at random place, size, angle and colour; needs no files",
    .channels = 3, .classes = 10, .size = 32, .recipe = "synthetic", .class_names = synth_names,
    .open = synth_open, .get = samples_get, .close = samples_close};

static const DatasetDef set_fake = {
    .name = "fake",
    .doc = "100,000 black images of 300 x 300, labels 0..999 in turn; for measuring",
    .channels = 3, .classes = 1000, .size = 0, .recipe = "imagenet1k_basic",
    .open = fake_open, .get = fake_get, .close = fake_close};
// clang-format on

const DatasetDef *const datasets[] = {&set_cifar10, &set_cifar100, &set_mnist,  &set_imagenet,
                                      &set_val50k,  &set_cinic,    &set_folder, &set_synthetic,
                                      &set_fake,    NULL};

const DatasetDef *dataset_find(const char *name)
{
    for (const DatasetDef *const *d = datasets; *d && name; d++) {
        if (str_eq((*d)->name, name)) return *d;
        for (const char *const *a = (*d)->alias; a && *a; a++)
            if (str_eq(*a, name)) return *d;
    }
    return NULL;
}

static const DatasetDef *find_or_say(const char *name, Err *e)
{
    const char *names[ARRAY_LEN(datasets)], *near;
    const DatasetDef *def = dataset_find(name);
    if (def) return def;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) names[i] = datasets[i] ? datasets[i]->name : NULL;
    near = str_nearest(name ? name : "", names, ARRAY_LEN(names));
    err_set(e, ERR_CONFIG, "dataset: unknown data set '%s'%s%s%s", name ? name : "",
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

/* Labels must fit the net. A tree may have fewer classes than the net: then its labels are places
 * among those it has. */
static int check_classes(Dataset *d, const DataOpts *o, Err *e)
{
    int want = o->num_classes ? o->num_classes : d->def->classes ? d->def->classes : d->classes;
    if (d->classes > want)
        return err_set(e, ERR_CONFIG, "num_classes: %d, but %s has %d classes", want, d->where,
                       d->classes);
    if (d->classes < want) {
        log_msg(LOG_WARN, "%s has %d classes, num_classes is %d: its labels are 0..%d", d->where,
                d->classes, want, d->classes - 1);
        d->class_names = NULL; /* which of the net's classes they are is not known */
    }
    d->classes = want;
    return 0;
}

int dataset_open(Dataset *d, const DataOpts *o, Split split, Err *e)
{
    const DatasetDef *def = find_or_say(o->dataset, e);
    int limit = split == SPLIT_TRAIN ? o->limit_train : o->limit_val;
    memset(d, 0, sizeof(*d));
    if (!def) return -1;
    d->def = def;
    d->split = split;
    if (def->open(d, o, e) || check_classes(d, o, e)) {
        dataset_close(d);
        return -1;
    }
    if (limit > 0 && (uint32_t)limit < d->count) d->count = (uint32_t)limit;
    log_msg(LOG_DEBUG, "data set %s: %u %s images, %d classes, from %s", def->name, d->count,
            split_name(split), d->classes, d->where);
    return 0;
}

void dataset_close(Dataset *d)
{
    if (d->def) d->def->close(d);
    free(d->where);
    arena_free(&d->arena);
    memset(d, 0, sizeof(*d));
}

/* Copies the recipe's constants, or the user's: one for all channels, or one each. */
static int constants(const char *key, const double *given, int n, const double *own, int own_n,
                     int channels, float *out, Err *e)
{
    if (n && n != 1 && n != channels)
        return err_set(e, ERR_CONFIG, "%s: %d values for images of %d channels; give 1 or %d", key,
                       n, channels, channels);
    if (!n && own_n && own_n != channels)
        return err_set(e, ERR_CONFIG,
                       "data_transforms: its %s is for %d channels, the images have %d; set %s",
                       key, own_n, channels, key);
    for (int c = 0; c < channels; c++) out[c] = (float)(n ? given[n == 1 ? 0 : c] : own[c]);
    return 0;
}

static const TransformRecipe *recipe_or_say(const DatasetDef *def, const DataOpts *o, Err *e)
{
    const char *name = o->data_transforms && *o->data_transforms ? o->data_transforms : def->recipe,
               *near;
    const TransformRecipe *r = recipe_find(name);
    size_t n = 0;
    if (r) return r;
    while (recipe_names[n]) n++;
    near = str_nearest(name, recipe_names, n);
    err_set(e, ERR_CONFIG, "data_transforms: unknown recipe '%s'%s%s%s", name,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

const TransformRecipe *data_recipe(const DataOpts *o, Err *e)
{
    const DatasetDef *def = find_or_say(o->dataset, e);
    return def ? recipe_or_say(def, o, e) : NULL;
}

int data_input_shape(const DataOpts *o, InputShape *s, int *classes, Err *e)
{
    const DatasetDef *def = find_or_say(o->dataset, e);
    const TransformRecipe *r = def ? recipe_or_say(def, o, e) : NULL;
    InputKind kind;
    memset(s, 0, sizeof(*s));
    if (!r || input_kind_find(o->input, &kind, e)) return -1;
    s->c = def->channels;
    s->h = s->w = o->image_size ? o->image_size : r->size ? r->size : def->size;
    if (s->h < 1)
        return err_set(e, ERR_CONFIG, "image_size: needed with data set %s and data_transforms %s",
                       def->name, r->name);
    if (o->nstd < 0 || o->nstd > 3 || o->nmean < 0 || o->nmean > 3)
        return err_set(e, ERR_CONFIG, "mean, std: 1 or %d values", s->c);
    if (kind == INPUT_NORMALIZED) {
        if (constants("mean", o->mean, o->nmean, r->mean, r->channels, s->c, s->mean, e)) return -1;
        if (constants("std", o->std, o->nstd, r->std, r->channels, s->c, s->std, e)) return -1;
    } else {
        for (int c = 0; c < s->c; c++) s->std[c] = 1;
    }
    for (int c = 0; c < s->c; c++)
        if (!(s->std[c] > 0))
            return err_set(e, ERR_CONFIG, "std: %g is not above 0", (double)s->std[c]);
    *classes = o->num_classes ? o->num_classes : def->classes;
    if (*classes < 1)
        return err_set(e, ERR_CONFIG, "num_classes: needed with data set %s", def->name);
    return 0;
}
