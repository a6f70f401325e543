/* nets/registry.c -- one row per net, and looking them up.
 *
 * An alias of several rows is a name without a depth: `resnet_cifar` with `depth: 20`. */
#include "nets/blocks.h"
#include "nets/flex.h"

#include <math.h>

#include <stdlib.h>

// clang-format off
#define NET(NAME, DOC, DEPTH, FAMILY, BUILD, C, SIZE, ...)                                         \
    &(const NetDef){.name = NAME, .doc = DOC, .arg = DEPTH, .names = FAMILY, .build = BUILD,       \
                    .in_c = C, .in_h = SIZE, .in_w = SIZE,                                         \
                    .alias = (const NetAlias[]){__VA_ARGS__, {NULL, NAMES_DEFAULT}}}

#define CIFAR(d)                                                                                   \
    NET("resnet" #d "_cifar", "ResNet-" #d " for 32x32 images", d, NAMES_APOT, net_resnet_cifar,   \
        3, 32, {"res" #d, NAMES_APOT}, {"resnet" #d, NAMES_APOT}, {"resnet_" #d, NAMES_FAT},       \
        {"resnet_cifar", NAMES_APOT}, {"q_resnet_cifar", NAMES_ADABITS},                           \
        {"models.q_resnet_cifar", NAMES_ADABITS})

#define IMAGENET(d)                                                                                \
    NET("resnet" #d, "ResNet-" #d " for ImageNet", d, NAMES_TORCHVISION, net_resnet, 3, 224,       \
        {"res" #d, NAMES_APOT}, {"resnet_" #d, NAMES_FAT}, {"resnet", NAMES_TORCHVISION},          \
        {"fix_resnet", NAMES_F8NET}, {"models.fix_resnet", NAMES_F8NET})

#define MNIST(d)                                                                                   \
    NET("mnist_resnet" #d, "ResNet-" #d " of a quarter of the width, for MNIST", d, NAMES_APOT,    \
        net_resnet_mnist, 1, 28, {"mnist_res" #d, NAMES_APOT}, {"mnist_resnet", NAMES_APOT})

#define VGG7                                                                                       \
    NET("vgg7_cifar", "VGG-7 for 32x32 images", 0, NAMES_FAT, net_vgg7, 3, 32,                     \
        {"vgg_7_bn", NAMES_FAT}, {"vgg7", NAMES_FAT})

#define MOBILENET(v)                                                                               \
    NET("mobilenet_v" #v, "MobileNet V" #v " for ImageNet", 0, NAMES_ADABITS, net_mobilenet_v##v,  \
        3, 224, {"q_mobilenet_v" #v, NAMES_ADABITS},                                               \
        {"models.q_mobilenet_v" #v, NAMES_ADABITS}, {"fix_mobilenet_v" #v, NAMES_F8NET},           \
        {"models.fix_mobilenet_v" #v, NAMES_F8NET})

/* ResNets of the keyword language, usually in torchvision's layout. */
#define KEYWORD(NAME, DOC, DEPTH, BUILD, SIZE, ...)                                                \
    &(const NetDef){.name = NAME, .doc = DOC, .arg = DEPTH, .names = NAMES_KEYWORD,                \
                    .build = BUILD, .in_c = 3, .in_h = SIZE, .in_w = SIZE, __VA_ARGS__}
#define TORCH_LAYOUT                                                                               \
    (NET_WORD(origin) | NET_WORD(cbsa) | NET_WORD(fix_pooling) | NET_WORD(singleconv) |            \
     NET_WORD(fix))
#define FLEX(NAME, d)                                                                              \
    KEYWORD(NAME, "flexible ResNet-" #d ", shaped by keyword", d, net_flex, 224,                   \
            .words = TORCH_LAYOUT)
#define FLEX_DEEP(NAME, d)                                                                         \
    KEYWORD(NAME, "flexible ResNet-" #d " of eight stages, for small width_alpha", d, net_flex,    \
            224, .words = TORCH_LAYOUT, .width_alpha = 0.0625)
#define FLEX_CIFAR(NAME, d)                                                                        \
    KEYWORD(NAME, "flexible ResNet-" #d ", shaped by keyword", d, net_flex, 32,                    \
            .words = TORCH_LAYOUT | NET_WORD(cifar10))
#define PYTORCH(d)                                                                                 \
    KEYWORD("pytorch-resnet" #d, "ResNet-" #d " with the keywords for norms and activations", d,   \
            net_pytorch_resnet, 224, .alias = NULL)
// clang-format on

const NetDef *const nets[] = {
    CIFAR(20),    CIFAR(32),    CIFAR(44),     CIFAR(56),     CIFAR(110), IMAGENET(18),
    IMAGENET(34), IMAGENET(50), IMAGENET(101), IMAGENET(152), MNIST(10),  MNIST(14),
    MNIST(18),    MNIST(34),    MNIST(50),     MNIST(101),    MNIST(152), MOBILENET(1),
    MOBILENET(2), VGG7,
    KEYWORD("mobilenetv1", "MobileNet V1 of the keyword language", 0, net_keyword_mobilenet_v1, 224,
            .words = NET_WORD(origin) | NET_WORD(cbas)),
    KEYWORD("mobilenetv2", "MobileNet V2 of the keyword language", 0, net_keyword_mobilenet_v2, 224,
            .words = NET_WORD(origin) | NET_WORD(cbas)),
    KEYWORD("vgg_small", "VGG-small of the keyword language, for 32x32 images", 0, net_vgg_small, 32,
            .words = NET_WORD(cifar10) | NET_WORD(cba)),
    KEYWORD("nin", "network in network of the keyword language, for 32x32 images", 0, net_nin, 32,
            .words = NET_WORD(cifar10)),
    FLEX("resnet18", 18),   FLEX_CIFAR("resnet20", 20), FLEX("resnet20_", 20),
    FLEX_CIFAR("resnet32", 32), FLEX("resnet34", 34), FLEX_DEEP("resnet34_", 34),
    FLEX_CIFAR("resnet44", 44), FLEX("resnet50", 50), FLEX("resnet101", 101),
    PYTORCH(18), PYTORCH(34), PYTORCH(50), PYTORCH(101),
    NULL,
};

static const struct {
    const char *text;
    NetNames names;
} families[] = {
    {"apot", NAMES_APOT},
    {"fat", NAMES_FAT},
    {"f8net", NAMES_F8NET},
    {"adabits", NAMES_ADABITS},
    {"hysteresis", NAMES_HYSTERESIS},
    {"keyword", NAMES_KEYWORD},
    {"torchvision", NAMES_TORCHVISION},
};

int net_names_parse(const char *text)
{
    if (!text || !*text) return NAMES_DEFAULT;
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (str_eq(text, families[i].text)) return (int)families[i].names;
    return -1;
}

const char *net_names_text(NetNames names)
{
    for (size_t i = 0; i < ARRAY_LEN(families); i++)
        if (families[i].names == names) return families[i].text;
    return "default";
}

/* Whether `net` answers to `name`; *names: the family that goes with it. */
static bool answers(const NetDef *net, const char *name, NetNames *names)
{
    *names = net->names;
    if (str_eq(net->name, name)) return true;
    for (const NetAlias *a = net->alias; a && a->name; a++) {
        if (!str_eq(a->name, name)) continue;
        *names = a->names;
        return true;
    }
    return false;
}

const NetDef *net_find(const char *name, NetNames *names)
{
    NetNames found;
    for (int i = 0; nets[i]; i++) {
        if (!answers(nets[i], name, &found)) continue;
        if (names) *names = found;
        return nets[i];
    }
    return NULL;
}

static int unknown_net(const char *name, Err *e)
{
    const char **all = NULL, *near;
    size_t n = 0, cap = 0;
    for (int i = 0; nets[i]; i++) {
        mem_grow(&all, &cap, n + 1, sizeof *all);
        all[n++] = nets[i]->name;
        for (const NetAlias *a = nets[i]->alias; a && a->name; a++) {
            mem_grow(&all, &cap, n + 1, sizeof *all);
            all[n++] = a->name;
        }
    }
    near = str_nearest(name, all, n);
    free(all);
    return near ? err_set(e, ERR_CONFIG, "model: unknown net '%s'; did you mean '%s'?", name, near)
                : err_set(e, ERR_CONFIG, "model: unknown net '%s'; see 'qrun list nets'", name);
}

/* Whether a row of the keyword language answers to `name`. Such rows share names (resnet18) with others;
 * they are meant where the family is asked for, and where no other row answers. */
static bool has_keyword_row(const char *name, bool other)
{
    NetNames family;
    for (int i = 0; nets[i]; i++)
        if (answers(nets[i], name, &family) && (family == NAMES_KEYWORD) != other) return true;
    return false;
}

/* Picks the row for o->model and o->depth. */
static const NetDef *choose(const NetOpts *o, NetNames *names, Err *e)
{
    const NetDef *found = NULL;
    const bool asked = net_names_parse(o->names) == NAMES_KEYWORD;
    const bool keyword = has_keyword_row(o->model, false) && (asked || !has_keyword_row(o->model, true));
    Str have = {0};
    int n = 0;
    for (int i = 0; o->extra && o->extra[i]; i++) {
        *names = o->extra[i]->names;
        if (str_eq(o->extra[i]->name, o->model)) return o->extra[i];
    }
    for (int i = 0; nets[i]; i++) {
        NetNames family;
        if (!answers(nets[i], o->model, &family) || (family == NAMES_KEYWORD) != keyword) continue;
        str_printf(&have, "%s%d", n++ ? ", " : "", nets[i]->arg);
        if (found && (found->arg == o->depth || nets[i]->arg != o->depth)) continue;
        found = nets[i];
        *names = family;
    }
    if (!found) {
        unknown_net(o->model, e);
    } else if (n > 1 && !o->depth) {
        err_set(e, ERR_CONFIG, "depth: net '%s' needs one; expected one of %s", o->model, have.s);
        found = NULL;
    } else if (o->depth && found->arg != o->depth) {
        err_set(e, ERR_CONFIG, "depth: net '%s' has no depth %d; expected %s%s", o->model, o->depth,
                n > 1 ? "one of " : "", have.s);
        found = NULL;
    }
    str_free(&have);
    return found;
}

const NetDef *net_select(const NetOpts *o, Err *e)
{
    NetNames names;
    return choose(o, &names, e);
}

NetOpts net_usual(const NetDef *net)
{
    return (NetOpts){.model = net->name,
                     .names = net->names == NAMES_KEYWORD ? net_names_text(NAMES_KEYWORD) : "",
                     .num_classes = 10,
                     .in_c = net->in_c,
                     .in_h = net->in_h,
                     .in_w = net->in_w,
                     .words = net->words,
                     .width_alpha = net->width_alpha};
}

Init init_uniform(int fan_in)
{
    const float bound = fan_in > 0 ? (float)(1 / sqrt(fan_in)) : 0;
    return (Init){INIT_UNIFORM, -bound, bound};
}

Init init_normal(int fan)
{
    return (Init){INIT_NORMAL, 0, (float)sqrt(2.0 / fan)};
}

/* As PyTorch's layers are made: uniform to 1 / sqrt(fan in), biases too. */
static void plain_init(Spec *s)
{
    for (int i = 0; i < s->n; i++) {
        Unit *u = &s->u[i];
        const bool conv = u->kind == U_CONV;
        const int fan_in = conv ? u->ic / (u->u.conv.groups ? u->u.conv.groups : 1) * u->u.conv.k * u->u.conv.k
                                : u->ic * u->ih * u->iw;
        const Init init = init_uniform(fan_in);
        if (conv) u->u.conv.init = u->u.conv.bias_init = init;
        if (u->kind == U_LINEAR) u->u.linear.init = u->u.linear.bias_init = init;
    }
}

int net_build(Spec *s, const NetOpts *o, Err *e)
{
    NetNames own = NAMES_DEFAULT;
    const NetDef *net = choose(o, &own, e);
    int wanted = net_names_parse(o->names);
    if (!net) return -1;
    if (wanted < 0) {
        const char *list[ARRAY_LEN(families)], *near;
        for (size_t i = 0; i < ARRAY_LEN(families); i++) list[i] = families[i].text;
        near = str_nearest(o->names, list, ARRAY_LEN(families));
        return err_set(e, ERR_CONFIG, "names: unknown family '%s'; %s%s%s", o->names,
                       near ? "did you mean '" : "expected apot, fat, torchvision, ...",
                       near ? near : "", near ? "'?" : "");
    }
    if (net->names == NAMES_KEYWORD && wanted != NAMES_DEFAULT && wanted != NAMES_KEYWORD)
        return err_set(e, ERR_CONFIG, "names: net '%s' has no names of family '%s'; it has those of: keyword",
                       net->name, net_names_text((NetNames)wanted));
    if (o->num_classes < 1)
        return err_set(e, ERR_CONFIG, "num_classes: %d; expected 1 or more", o->num_classes);
    if (net->build(s, net, wanted == NAMES_DEFAULT ? own : (NetNames)wanted, o, e)) return -1;
    if (o->plain_init) plain_init(s);
    for (int i = 0; i < s->n && o->freeze_norms; i++)
        if (s->u[i].kind == U_NORM && s->u[i].u.norm.kind == NK_BATCH) s->u[i].u.norm.kind = NK_FROZEN;
    return 0;
}

const void *net_style(const void *rows, size_t row_bytes, int n, const NetDef *net, NetNames names,
                      Err *e)
{
    const char *row = rows;
    Str have = {0};
    for (int i = 0; i < n; i++, row += row_bytes) {
        const NetNames of = *(const NetNames *)(const void *)row;
        if (of == names) {
            str_free(&have);
            return row;
        }
        str_printf(&have, "%s%s", i ? ", " : "", net_names_text(of));
    }
    err_set(e, ERR_CONFIG, "names: net '%s' has no names of family '%s'; it has those of: %s",
            net->name, net_names_text(names), have.s);
    str_free(&have);
    return NULL;
}
