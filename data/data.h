/* data/data.h -- data sets, transforms and the loader. */
#ifndef DATA_DATA_H
#define DATA_DATA_H

#include "engine/mem.h"
#include "engine/rng.h"

typedef enum Split { SPLIT_TRAIN, SPLIT_VAL } Split;
typedef enum InputKind { INPUT_NORMALIZED, INPUT_K256, INPUT_BYTE } InputKind; /* (x/255-m)/s; x/256*.. ; 0..255 */

typedef struct DataOpts {
    const char *dataset;             /* row of datasets */
    const char *dataset_dir;         /* folder or archive; "" = look in $QRUN_DATA_DIR and the XDG data folder */
    const char *train_dir, *val_dir; /* sub-folders of a class-per-folder tree */
    const char *data_transforms;     /* row of transform_recipes, "" = the data set's own */
    const char *on_bad_image;        /* "fail" | "skip" */
    const char *input;               /* "normalized", "k256", "byte" */
    const char *decoder;             /* "auto", "libjpeg", "stb" */
    double mean[3], std[3];          /* nmean 0: the recipe's */
    int nmean, nstd;
    int image_size;                  /* 0 = the recipe's */
    int num_classes;                 /* 0 = the data set's */
    int limit_train, limit_val;      /* 0 = all; else the first N samples (class-per-folder trees: N spread evenly) */
    int data_loader_workers;
    bool shuffle, drop_last;
    bool index_cache;                /* keep the lists of large class-per-folder trees (data/index.h) */
    uint64_t seed;
    double synth_noise;              /* dataset: synthetic; deviation of the pixel noise, 1 = full scale; < 0: the default */
    int synth_train, synth_val;      /* images drawn; 0: the defaults */
} DataOpts;

/* One data set, one split. Images are 8-bit RGB or grey, H,W,C. get() may be called from several threads at once. */
typedef struct Dataset {
    const struct DatasetDef *def;
    Split split;
    uint32_t count;
    int channels, classes;
    const char *const *class_names;  /* `classes` of them, or NULL */
    char *where;                     /* file or folder it was read from, for messages */
    void *priv;
    Arena arena;
} Dataset;

typedef struct Image {
    unsigned char *px;               /* h*w*c, owned by the caller's buffer (grown as needed) */
    size_t cap;
    int h, w, c;
} Image;

/* Which box (x0, y0, x1, y1) of an image of h x w pixels will be looked at; asked when the size is known. */
typedef struct ImagePart {
    void (*box)(const void *arg, int h, int w, int box[4]);
    const void *arg;
} ImagePart;

typedef struct DatasetDef {
    const char *name, *const *alias, *doc;
    int channels, classes, size;     /* size: side of an image, 0 = varies */
    const char *recipe;              /* default data_transforms */
    int (*open)(Dataset *d, const DataOpts *o, Err *e);  /* fills count, classes (as found), class_names, where, priv */
    int (*get)(const Dataset *d, uint32_t i, Image *im, int *label, Err *e);
    /* As get, of the same size; pixels outside the part may be of no meaning. NULL: get does it. */
    int (*get_part)(const Dataset *d, uint32_t i, const ImagePart *part, Image *im, int *label, Err *e);
    void (*close)(Dataset *d);
    const char *how_to_get;          /* printed when it is missing: commands to type, layout expected */
    const char *const *class_names;  /* `classes` of them, where they do not depend on its files; or NULL */
    const char *const *places;       /* its usual file and folder names below a data folder, best first, ended by NULL */
} DatasetDef;

extern const DatasetDef *const datasets[]; /* ended by NULL */
const DatasetDef *dataset_find(const char *name);
int dataset_open(Dataset *d, const DataOpts *o, Split split, Err *e); /* unknown: ERR_CONFIG; missing, damaged: ERR_DATA */
void dataset_close(Dataset *d);

/* A recipe is a named list of steps for training and one for evaluation, with its constants. */
typedef struct TransformRecipe TransformRecipe;
const TransformRecipe *recipe_find(const char *name);
extern const char *const recipe_names[]; /* ended by NULL */
const char *recipe_doc(const TransformRecipe *r); /* one line */
/* What reaches the net: channels, height, width, and the constants used. */
typedef struct InputShape {
    int c, h, w;
    float mean[3], std[3];
} InputShape;
int data_input_shape(const DataOpts *o, InputShape *s, int *classes, Err *e); /* without opening any file */

/* One image through the recipe into `out` (h*w*c floats, NHWC, normalised). Streams: (seed, purpose, epoch, index). */
int transform_apply(const TransformRecipe *r, const DataOpts *o, Split split, const InputShape *s, uint64_t epoch,
                    uint32_t index, const Image *im, float *out, Err *e);

/* Pillow's bilinear resize (triangle filter widened when shrinking, horizontal then vertical, 8-bit in between, 22-bit
 * coefficients), of the box x0,y0,x1,y1 of `src`. */
void image_resize(const Image *src, const double box[4], Image *dst, int out_h, int out_w);

/* ---- loader ---- */
typedef struct Batch {
    float *x;            /* [n, h, w, c], 64-byte aligned; entries beyond n are zero */
    int32_t *label;      /* -1 beyond n */
    float *target;       /* soft targets [size, classes], rows of sum 1; NULL: hard ones, `label` */
    uint32_t *index;     /* sample number in the data set */
    int n, size;         /* samples in it; capacity */
    uint64_t epoch;
    int64_t number;      /* batch number within the epoch */
} Batch;

typedef struct Loader Loader;
/* A bad image under on_bad_image "fail" is the error of its batch, in order. Under "skip" it is logged and counted; in training the next
 * good sample of the epoch's order takes its place, in validation the batch has one sample less.
 *
 * Starts the workers (plain threads, no OpenMP inside; 0 workers: loader_next does the work). Batches come in the same order for any number of workers.
 * Training: shuffled by (seed, RNG_SHUFFLE, epoch) when o->shuffle, last partial batch kept unless drop_last. */
Loader *loader_open(const Dataset *d, const DataOpts *o, const InputShape *s, Split split, int batch_size, Err *e);
int64_t loader_batches(const Loader *l);                               /* per epoch */
/* Positions at (epoch, batch): the next loader_next returns it. Called at the start of an epoch and on resume. */
int loader_seek(Loader *l, uint64_t epoch, int64_t batch, Err *e);
/* The next batch, valid until the following call; 1, or 0 at the end of the epoch, or -1 with `e` (which names the file). */
int loader_next(Loader *l, const Batch **b, Err *e);
int64_t loader_bad_images(const Loader *l);                            /* skipped so far */
double loader_wait_seconds(const Loader *l);                           /* time loader_next had to wait (0 workers: to work), in total */
void loader_close(Loader *l);

#endif
