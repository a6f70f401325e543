/* test/golden_kwnet.c -- op `net` of the keyword language: logits of a net said by words, with filled
 * parameters, and the output of its third stage, which tells where a difference begins. */
#include "test/golden_words.h"

#include "run/model.h"
#include "test/golden_state.h"

typedef struct Images {
    int dim[4];          /* N, C, H, W */
    float *nchw, *nhwc;
} Images;

static bool make_images(Case *c, const NetOpts *o, bool mixed, Images *im)
{
    const int *d = im->dim;
    size_t n;
    if (case_ints(c, "params.input.shape", im->dim, 4) != 4 || d[0] < 1 || d[1] != o->in_c || d[2] != o->in_h ||
        d[3] != o->in_w) {
        case_fail(c, "params.input.shape is not the shape of some images of the net");
        return false;
    }
    n = (size_t)d[0] * (size_t)d[1] * (size_t)d[2] * (size_t)d[3];
    im->nchw = arena_alloc(&c->arena, n * sizeof *im->nchw);
    im->nhwc = arena_alloc(&c->arena, n * sizeof *im->nhwc);
    case_fill_image(im->nchw, n, (uint64_t)case_int(c, "params.input.fill_t", 0), mixed);
    nchw_to_nhwc(im->nchw, im->nhwc, d[0], d[1], d[2], d[3]);
    return true;
}

static void check_logits(Case *c, const NetOpts *o, const QOpts *q, bool mixed, const Images *im)
{
    const int n = im->dim[0];
    int32_t *label = arena_alloc(&c->arena, (size_t)n * sizeof *label);
    const float *logits;
    double loss;
    Err e = {0};
    Model *m = model_new(o, q, 0, 1, &e);
    if (m) case_fill_rows(c, model_store(m), mixed);
    if (!m || (!c->failed && model_eval(m, 0, im->nhwc, label, n, n, &loss, &logits, &e)))
        case_fail(c, "%s", e.msg);
    else if (!c->failed)
        case_expect(c, "logits", yaml_path(c->y, "outputs.logits"), logits, (size_t)(n * o->num_classes));
    model_free(m);
}

/* The last unit of a stage: its last one with a name, and the sum behind that. -1: there is no such stage. */
static int stage_end(const Spec *s, const char *prefix)
{
    int end = -1;
    for (int i = 0; i < s->n; i++)
        if (str_starts(s->u[i].name, prefix)) end = i;
    while (end >= 0 && s->u[end].reader >= 0 && s->u[s->u[end].reader].kind == U_ADD) end = s->u[end].reader;
    return end;
}

static void check_stage(Case *c, const NetOpts *o, const QOpts *q, bool mixed, const Images *im, const Yaml *file)
{
    SpecRun r = {.o = *q};
    Tensor x = tensor_make(DT_F32, 4, im->dim, im->nchw), want;
    Err e = {0};
    if (!case_array(c, file, "layer3", &want)) return;
    if (net_build(&r.spec, o, &e)) case_fail(c, "%s", e.msg);
    r.end = c->failed ? -1 : stage_end(&r.spec, "layer3.");
    if (r.end < 0) case_fail(c, "the net has no layer3");
    if (!c->failed && specrun_open(c, &r, r.spec.out, &x)) {
        const size_t n = tensor_len(&want);
        case_fill_rows(c, &r.ps, mixed);
        specrun_pass(c, &r, 0, "output of layer3", arena_alloc(&c->arena, n * sizeof(float)), want.data, n);
    }
    specrun_close(&r);
}

/* Of the logits: the original's pytorch-resnet has 1000 whatever is asked for. */
static int classes(Case *c)
{
    Tensor want;
    if (!case_array(c, yaml_path(c->y, "outputs.logits"), "logits", &want) || want.ndim != 2) return 1;
    return want.dim[1];
}

void golden_keyword_net(Case *c)
{
    const bool mixed = str_eq(case_str(c, "params.fill", ""), "mixed");
    const Yaml *stage = yaml_path(c->y, "outputs.layer3");
    Config cfg;
    if (case_words(c, &cfg)) {
        NetOpts o = cfg.net;
        Images im;
        o.num_classes = classes(c);
        o.in_c = 3;
        o.in_h = o.in_w = (int)case_int(c, "params.input_size", 32);
        if (make_images(c, &o, mixed, &im)) check_logits(c, &o, &cfg.quant, mixed, &im);
        if (!c->failed && stage) check_stage(c, &o, &cfg.quant, mixed, &im, stage);
    }
    config_free(&cfg);
}
