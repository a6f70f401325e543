/* data/transform.h -- a recipe made ready for one split: what the loader's workers run. */
#ifndef DATA_TRANSFORM_H
#define DATA_TRANSFORM_H

#include "data/data.h"
#include "data/resize.h"

typedef enum StepKind {
    STEP_END,
    STEP_RESIZE_SHORT, /* shorter side to size * a (rounded), the other in proportion */
    STEP_CENTER_CROP,
    STEP_RANDOM_CROP,  /* after `pad` zero pixels on each side */
    STEP_REFLECT_CROP, /* the same with mirrored borders (the edge itself not repeated) */
    STEP_RESIZED_CROP, /* random area and aspect, scaled to size x size (torchvision's
                          RandomResizedCrop) */
    STEP_AREA_CROP,    /* random area and aspect, not scaled (DALI's random crop while decoding) */
    STEP_FLIP,         /* left-right, one in two */
    STEP_JITTER,       /* brightness, contrast, saturation by a, each, in random order */
    STEP_LIGHTING      /* along the colour axes of ImageNet, deviation a (AlexNet) */
} StepKind;

typedef struct Step {
    StepKind kind;
    int pad;
    double a;
} Step;

#define RECIPE_MAX_STEPS 6

struct TransformRecipe {
    const char *name, *doc;
    int channels, size; /* of what reaches the net; channels 0: any */
    double mean[3], std[3];
    Step train[RECIPE_MAX_STEPS], val[RECIPE_MAX_STEPS]; /* ended by STEP_END */
};

typedef struct Transform {
    const TransformRecipe *recipe;
    const Step *steps;
    InputShape shape;
    InputKind input;
    uint64_t seed;
    float table[3][256]; /* pixel value to network input */
} Transform;

/* Buffers of one worker; zeroed is ready. */
typedef struct TransformScratch {
    Image in, tmp[2];
    ResizeScratch resize;
} TransformScratch;

int transform_prepare(Transform *t, const TransformRecipe *r, const DataOpts *o, Split split,
                      const InputShape *s, Err *e);
/* -1 when the image does not come out in the shape wanted; the caller knows its name. */
int transform_run(const Transform *t, TransformScratch *sc, uint64_t epoch, uint32_t index,
                  const Image *im, float *out, Err *e);
/* The box (x0, y0, x1, y1) of an image of h x w pixels that transform_run looks at. */
void transform_source(const Transform *t, uint64_t epoch, uint32_t index, int h, int w, int box[4]);
void transform_scratch_free(TransformScratch *sc);

/* The recipe of the options, or the data set's own. */
const TransformRecipe *data_recipe(const DataOpts *o, Err *e);

int input_kind_find(const char *name, InputKind *k, Err *e);

/* torchvision 0.8: shorter side to `side`, and the corner of a centre crop. */
void resize_short_size(int h, int w, int side, int *oh, int *ow);
int center_crop_corner(int n, int crop);

/* Pillow's enhancers on 8-bit RGB, in place: 0 = the degenerate image, 1 = unchanged. */
void image_brightness(Image *im, float f);
void image_contrast(Image *im, float f);
void image_saturation(Image *im, float f);

#endif
