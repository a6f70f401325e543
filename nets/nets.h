/* nets/nets.h -- a net is a function that writes a Spec, and one row in registry.c. */
#ifndef NETS_NETS_H
#define NETS_NETS_H

#include "engine/spec.h"
#include "nets/words.h"

/* PyTorch's own initial values: uniform within 1 / sqrt(fan in). */
Init init_uniform(int fan_in);
/* Those of He et al.: normal, deviation sqrt(2 / fan). */
Init init_normal(int fan);

/* The family whose parameter names (and initialisation) a net takes. */
typedef enum NetNames {
    NAMES_DEFAULT, /* that of the alias the user typed */
    NAMES_APOT,
    NAMES_FAT,
    NAMES_F8NET,
    NAMES_ADABITS,
    NAMES_HYSTERESIS,
    NAMES_KEYWORD,
    NAMES_TORCHVISION
} NetNames;

typedef struct NetOpts {
    const char *model;         /* as typed: a name or an alias */
    const char *names;         /* family, or "" for the alias' own */
    int depth;                 /* for nets named without one ("resnet"); 0 = from the name */
    int num_classes;
    bool freeze_norms;         /* batch norms as they are: NK_FROZEN */
    bool plain_init;           /* PyTorch's own initial values instead of the family's */
    int in_c, in_h, in_w;      /* from the data set and image_size */
    /* The keyword language: what its nets (NAMES_KEYWORD) look at. */
    NetWordSet words;
    int base;                  /* parallel branches of a block; 0: 1 */
    double width_alpha;        /* factor on channels; 0: 1 */
    const char *order;         /* letters c, b, a of ReShapeResolution's prefix; NULL or "": none given */
    int stem_kernel;           /* of the TResNet stems: 1 or 3; 0: 1 */
    int norm_groups;           /* of group-norm; 0: not given */
    const struct NetDef *const *extra; /* looked up before `nets`: tests, trials. NULL, or ended by NULL */
} NetOpts;

struct NetDef;
typedef struct NetAlias {
    const char *name;          /* what the user may type */
    NetNames names;
} NetAlias;

typedef struct NetDef {
    const char *name, *doc;
    int arg;                   /* the builder's own: depth */
    NetNames names;            /* family when typed by `name` */
    const NetAlias *alias;     /* ended by a NULL name; may be NULL */
    int (*build)(Spec *s, const struct NetDef *net, NetNames names, const NetOpts *o, Err *e);
    int in_c, in_h, in_w;      /* usual input, for tests and `qrun list nets` */
    NetWordSet words;          /* NAMES_KEYWORD: words it is usually built with */
    double width_alpha;        /* the same, of its width; 0: 1 */
} NetDef;

extern const NetDef *const nets[];  /* ended by NULL */

/* Looks up name and aliases; builds and finishes the Spec. Unknown name: ERR_CONFIG with a suggestion. */
const NetDef *net_find(const char *name, NetNames *names);
int net_build(Spec *s, const NetOpts *o, Err *e);
/* The row that net_build takes, by o->model and o->depth alone; NULL with ERR_CONFIG. */
const NetDef *net_select(const NetOpts *o, Err *e);
/* Options that choose just this row: its own family and words, its usual input, 10 classes. */
NetOpts net_usual(const NetDef *net);

/* "apot" -> NAMES_APOT; -1 when there is no such family. */
int net_names_parse(const char *text);
const char *net_names_text(NetNames names);
/* Of a builder's rows, structs of row_bytes that begin with their NetNames, that of a family; NULL with
 * ERR_CONFIG where the net is not offered in it. */
const void *net_style(const void *rows, size_t row_bytes, int n, const NetDef *net, NetNames names, Err *e);

#endif
