/* run/predict.c -- qrun predict CONFIG IMAGE...: the five likeliest classes of each image.
 *
 * CONFIG is a configuration (its pretrained_file, else the best checkpoint of its log_dir) or a run
 * folder (its best checkpoint). Images go through the evaluation transform of its recipe; where
 * that has no resizing, as CIFAR's, an image of another size is first brought to the net's by its
 * shorter side and cut in the middle. An image that cannot be read does not keep the others from
 * being classified; the exit status is then 3. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/class_names.h"
#include "data/decode.h"
#include "data/transform.h"
#include "io/fs.h"
#include "run/commands.h"
#include "run/imagefiles.h"
#include "run/log.h"
#include "run/session.h"
#include "run/which_net.h"

enum { SHOWN = 5, MAX_BATCH = 64, MAX_BYTES = 1 << 28 };

typedef struct Predict {
    Config cfg;
    Session s;
    Transform transform;
    TransformScratch scratch;
    Decoder decoder;
    Image image;
    ImageFiles files; /* "-": standard input */
    const char *const *names; /* of the classes, or NULL */
    Dataset data;             /* only for the names */
    bool data_open;
    Arena arena;  /* of names from a file */
    json_t *rows; /* with --json */
} Predict;

/* KEY=VALUE: an option; anything else, or what is there as a file, an image. */
static bool is_override(const char *word)
{
    const size_t key = strcspn(word, "=");
    return word[key] && key &&
           key == strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "0123456789_.:") &&
           !fs_exists(word);
}

/* ---- the net ---- */

/* What is often typed in place of CONFIG. */
static int check_first(const char *word, Err *e)
{
    static const char *const checkpoint[] = {".safetensors", ".pth", ".pt", ".pth.tar", ".onnx"};
    if (fs_exists(word) != 1) return 0;
    if (decode_known_name(word))
        return usage_fault(
            e, "predict: %s is an image; expected a configuration or a run folder first", word);
    for (size_t i = 0; i < ARRAY_LEN(checkpoint); i++)
        if (str_ends(word, checkpoint[i]))
            return usage_fault(
                e,
                "predict: %s is no configuration; expected one or a run folder first, "
                "then pretrained_file=%s",
                word, word);
    return 0;
}

/* CONFIG and its options; a run folder stands for its resolved.yml with the folder's own weights.
 */
static int read_config(Predict *p, const Cli *c, Err *e)
{
    const bool run = fs_exists(c->args[0]) == 2;
    char **args = xcalloc((size_t)c->nargs + 4, sizeof *args);
    char none[] = "pretrained_file=\"\""; /* the run's own started from it; one that is typed counts */
    char *resolved = run ? fs_join(c->args[0], "resolved.yml") : xstrdup(c->args[0]),
         *dir = run ? xasprintf("log_dir=%s", c->args[0]) : NULL;
    Cli own = *c;
    int r = 0;
    own.args = args;
    own.nargs = 0;
    args[own.nargs++] = resolved;
    if (run) {
        args[own.nargs++] = dir;
        args[own.nargs++] = none;
        if (!fs_exists(resolved))
            r = err_set(e, ERR_CONFIG,
                        "%s: a folder without resolved.yml; expected a configuration "
                        "or a run folder",
                        c->args[0]);
    }
    for (int i = 1; i < c->nargs; i++)
        if (is_override(c->args[i])) args[own.nargs++] = c->args[i];
    if (!r) r = cli_config(&own, &p->cfg, NULL, e);
    free(args);
    free(resolved);
    free(dir);
    return r;
}

static int load_weights(Predict *p, Err *e)
{
    const RunOpts *o = &p->cfg.run;
    const bool given = o->pretrained_file && *o->pretrained_file;
    char *path;
    int r;
    if (!given && session_has_first(o) && fs_exists(o->log_dir) != 2)
        return session_load_first(&p->s, e);
    if (!given && fs_exists(o->log_dir) != 2)
        return err_set(e, ERR_DATA,
                       "no net to predict with: no pretrained_file is given and %s "
                       "holds no checkpoint",
                       o->log_dir);
    if (!(path = weights_path(given ? o->pretrained_file : o->log_dir, e))) return -1;
    r = session_load(&p->s, path, e);
    free(path);
    return r;
}

/* The file's; or those that all copies of the data set have; or what its files say. Else the
 * classes are numbers. */
static int find_names(Predict *p, Err *e)
{
    const char *file = p->cfg.run.class_names;
    const DatasetDef *def = dataset_find(p->cfg.data.dataset);
    Err why = {0};
    if (*file) {
        p->names = class_names_read(file, p->s.classes, &p->arena, e);
        return p->names ? 0 : key_blame(&p->cfg, "class_names", e);
    }
    if (def && def->class_names && def->classes == p->s.classes) {
        p->names = def->class_names;
        return 0;
    }
    if (dataset_open(&p->data, &p->cfg.data, SPLIT_VAL, &why)) {
        why.msg[strcspn(why.msg, "\n")] = 0;
    } else {
        p->data_open = true;
        if (p->data.classes == p->s.classes) p->names = p->data.class_names;
        snprintf(why.msg, sizeof why.msg, "%s has no names for %d classes", p->data.where,
                 p->s.classes);
    }
    if (!p->names)
        log_msg(LOG_WARN, "classes are shown as numbers; class_names=FILE names them (%s)",
                why.msg);
    return 0;
}

static int open_net(Predict *p, Err *e)
{
    const TransformRecipe *recipe = data_recipe(&p->cfg.data, e);
    if (!recipe || decoder_find(p->cfg.data.decoder, &p->decoder, e) ||
        session_open(&p->s, &p->cfg, e) || load_weights(p, e) || find_names(p, e))
        return -1;
    return transform_prepare(&p->transform, recipe, &p->cfg.data, SPLIT_VAL, &p->s.input, e);
}

/* ---- one image ---- */

static char *read_stdin(size_t *len, Err *e)
{
    Str s = {0};
    char buf[65536];
    size_t n;
    while ((n = fread(buf, 1, sizeof buf, stdin)) > 0 && s.len < MAX_BYTES) str_putn(&s, buf, n);
    *len = s.len;
    if (!s.len || s.len >= MAX_BYTES || ferror(stdin)) {
        err_set(e, ERR_DATA, "standard input: %s",
                ferror(stdin) ? strerror(errno)
                : s.len       ? "too long for an image"
                              : "empty; expected an image");
        str_free(&s);
        return NULL;
    }
    return s.s;
}

/* As Pillow's conversion to "L". */
static void to_grey(Image *im)
{
    const size_t n = (size_t)im->h * (size_t)im->w;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *p = im->px + 3 * i;
        im->px[i] = (unsigned char)((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);
    }
    im->c = 1;
}

static bool resizes(const Step *s)
{
    while (s->kind != STEP_END && s->kind != STEP_RESIZE_SHORT) s++;
    return s->kind == STEP_RESIZE_SHORT;
}

/* The image as the net reads it. */
static int read_image(Predict *p, const char *file, float *out, Err *e)
{
    static const Step fit[] = {
        {STEP_RESIZE_SHORT, 0, 1}, {STEP_CENTER_CROP, 0, 0}, {STEP_END, 0, 0}};
    const bool from_stdin = str_eq(file, "-");
    const char *name = from_stdin ? "standard input" : file;
    Transform t = p->transform;
    size_t len;
    char *bytes = from_stdin ? read_stdin(&len, e) : fs_read(file, MAX_BYTES, &len, e);
    int r = bytes ? decode_image(bytes, len, p->decoder, name, &p->image, e) : -1;
    free(bytes);
    if (r) return -1;
    if (t.shape.c == 1) to_grey(&p->image);
    if ((p->image.h != t.shape.h || p->image.w != t.shape.w) && !resizes(t.steps)) t.steps = fit;
    return transform_run(&t, &p->scratch, 0, 0, &p->image, out, e) ? err_prefix(e, "%s", name) : 0;
}

/* ---- results ---- */

typedef struct Guess {
    int class;
    double probability;
} Guess;

static int best_guesses(const float *z, int classes, Guess top[SHOWN])
{
    double sum = 0, most = -INFINITY;
    int n = 0;
    for (int c = 0; c < classes; c++) most = fmax(most, (double)z[c]);
    for (int c = 0; c < classes; c++) {
        const Guess g = {c, exp((double)z[c] - most)};
        int at = n < SHOWN ? n++ : SHOWN;
        sum += g.probability;
        while (at > 0 && top[at - 1].probability < g.probability) {
            if (at < SHOWN) top[at] = top[at - 1];
            at--;
        }
        if (at < SHOWN) top[at] = g;
    }
    for (int i = 0; i < n; i++) top[i].probability /= sum;
    return n;
}

static const char *class_name(const Predict *p, int class, char buf[32])
{
    if (p->names && p->names[class]) return p->names[class];
    snprintf(buf, 32, "class %d", class);
    return buf;
}

static json_t *json_text(const char *s)
{
    json_t *j = json_string(s);
    return j ? j : json_string("(not UTF-8)");
}

static void show(Predict *p, const char *file, const float *z)
{
    Guess top[SHOWN];
    const int n = best_guesses(z, p->s.classes, top);
    char buf[32];
    Str out = {0};
    if (p->rows) {
        json_t *list = json_array();
        for (int i = 0; i < n; i++)
            json_array_append_new(list, json_pack("{s:i, s:o, s:f}", "class", top[i].class, "name",
                                                  json_text(class_name(p, top[i].class, buf)),
                                                  "probability", top[i].probability));
        json_array_append_new(p->rows,
                              json_pack("{s:o, s:o}", "image", json_text(file), "top", list));
        return;
    }
    str_printf(&out, "%s\n", file);
    for (int i = 0; i < n; i++)
        str_printf(&out, "  %6.2f %%  %s\n", 100 * top[i].probability,
                   class_name(p, top[i].class, buf));
    print_out(&out);
}

static void show_fault(Predict *p, const char *file, const Err *why, Err *e)
{
    if (p->rows)
        json_array_append_new(p->rows, json_pack("{s:o, s:o}", "image", json_text(file), "error",
                                                 json_text(why->msg)));
    err_add(e, ERR_DATA, "%s", why->msg);
}

/* All images, in batches; 0, or -1 with a line for each that could not be read. */
static int classify(Predict *p, Err *e)
{
    const InputShape *in = &p->s.input;
    const size_t size = (size_t)in->c * (size_t)in->h * (size_t)in->w;
    const int batch = p->files.n < MAX_BATCH ? p->files.n : MAX_BATCH;
    float *x = xaligned((size_t)batch * size * sizeof *x);
    int32_t *label = xcalloc((size_t)batch, sizeof *label);
    const char **name = xcalloc((size_t)batch, sizeof *name);
    int r = 0;
    memset(label, -1, (size_t)batch * sizeof *label);
    for (int i = 0, n = 0; i < p->files.n && r >= 0; i++) {
        const float *z;
        double ignored;
        Err why = {0};
        if (read_image(p, p->files.path[i], x + (size_t)n * size, &why))
            show_fault(p, p->files.path[i], &why, e);
        else
            name[n++] = p->files.path[i];
        if (!n || (n < batch && i + 1 < p->files.n)) continue;
        r = model_eval(p->s.model, p->s.width[0], x, label, n, batch, &ignored, &z, e);
        for (int k = 0; k < n && !r; k++) show(p, name[k], z + (size_t)k * (size_t)p->s.classes);
        n = 0;
    }
    free(x);
    free(label);
    free(name);
    return r || e->kind ? -1 : 0;
}

static void print_rows(const Predict *p)
{
    char *text = json_dumps(p->rows, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    Str out = {0};
    str_printf(&out, "%s\n", text ? text : "[]");
    print_out(&out);
    free(text);
}

static void close_all(Predict *p)
{
    image_files_free(&p->files);
    free(p->image.px);
    json_decref(p->rows);
    transform_scratch_free(&p->scratch);
    if (p->data_open) dataset_close(&p->data);
    arena_free(&p->arena);
    session_free(&p->s);
    config_free(&p->cfg);
}

int command_predict(Cli *c, Err *e)
{
    Predict p = {0};
    int r = 0;
    if (c->nargs < 1) return usage_fault(e, "predict: expected CONFIG [KEY=VALUE]... IMAGE...");
    r = check_first(c->args[0], e);
    for (int i = 1; i < c->nargs && !r; i++)
        if (!is_override(c->args[i])) r = image_files_add(&p.files, c->args[i], e);
    if (!r && !p.files.n) r = usage_fault(e, "predict: no image given");
    if (!r) r = read_config(&p, c, e);
    if (!r) r = open_net(&p, e);
    if (!r) {
        if (c->json) p.rows = json_array();
        r = classify(&p, e);
        if (p.rows) print_rows(&p);
    }
    close_all(&p);
    return r;
}
