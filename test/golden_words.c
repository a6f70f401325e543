/* test/golden_words.c -- see golden_words.h. */
#include "test/golden_words.h"

#include <math.h>
#include <string.h>

#include "test/words.h"

bool case_words(Case *c, Config *cfg)
{
    const Yaml *list = yaml_path(c->y, "params.keyword");
    /* A layer alone needs no words, nor does a plain block. */
    const bool plain = str_starts(case_str(c, "params.block", ""), "pytorch");
    const char *any = str_eq(case_str(c, "op", ""), "layer") ? "nin" : plain ? "pytorch-resnet18" : "resnet20";
    Str words = {0};
    Err e = {0};
    for (int i = 0; list && list->kind == Y_LIST && i < list->n; i++)
        str_printf(&words, "%s%s", i ? ", " : "", list->v[i]->s);
    if (words_config(cfg, case_str(c, "params.model", any), words.s ? words.s : "",
                     case_str(c, "params.options", ""), &e))
        case_fail(c, "%s", e.msg);
    str_free(&words);
    return !c->failed;
}

/* ---- fills ---- */

static double fill_mixed(uint64_t i, uint64_t t)
{
    uint32_t h = (uint32_t)(i * 2654435761u + t * 40503u + 12345u);
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    h ^= h >> 16;
    return (double)h / 4294967296.0;
}

static double unit_value(uint64_t i, uint64_t t, bool mixed)
{
    return mixed ? fill_mixed(i, t) : fill_unit(i, t);
}

void case_fill_image(float *x, size_t n, uint64_t t, bool mixed)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)(2 * unit_value(i, t, mixed) - 1);
}

/* value = add + factor * (u or 2u - 1) */
static const struct Kind {
    const char *name;
    double add, factor; /* factor 0: by fan in */
    bool half;          /* u, not 2u - 1 */
} kinds[] = {
    {"conv", 0, 0, false},      {"fc", 0, 0, false},        {"bias", 0, 0.1, false}, {"bn_bias", 0, 0.1, false},
    {"bn_mean", 0, 0.1, false}, {"bn_weight", 1, 0.1, false}, {"bn_var", 1, 0.5, true},
};

static double spread(const Param *p, const struct Kind *k, bool mixed)
{
    double fan = 1;
    if (k->factor != 0) return k->factor;
    for (int i = 1; i < p->value.ndim; i++) fan *= p->value.dim[i];
    return sqrt((mixed && str_eq(k->name, "conv") ? 7.5 : 3.0) / fan);
}

static void fill_row(Case *c, Param *p, const Yaml *row, bool mixed)
{
    const Yaml *kind = yaml_get(row, "kind"), *t = yaml_get(row, "t"), *v = yaml_get(row, "value");
    float *to = p->value.data;
    long long at = 0;
    double value = 0;
    if (kind && str_eq(kind->s, "keep")) return;
    if (kind && str_eq(kind->s, "const") && v && yaml_double(v, &value)) {
        for (size_t i = 0; i < tensor_len(&p->value); i++) to[i] = (float)value;
        param_touch(p);
        return;
    }
    for (size_t k = 0; kind && t && yaml_int(t, &at) && k < ARRAY_LEN(kinds); k++) {
        if (!str_eq(kinds[k].name, kind->s)) continue;
        for (size_t i = 0; i < tensor_len(&p->value); i++) {
            const double u = unit_value(i, (uint64_t)at, mixed);
            to[i] = (float)(kinds[k].add + spread(p, &kinds[k], mixed) * (kinds[k].half ? u : 2 * u - 1));
        }
        param_touch(p);
        return;
    }
    case_fail(c, "%s: a row of unknown kind", p->name);
}

static bool same_shape(const Param *p, const Yaml *shape)
{
    bool same = shape && shape->kind == Y_LIST && shape->n == p->value.ndim;
    for (int i = 0; same && i < shape->n; i++) {
        long long d = 0;
        same = yaml_int(shape->v[i], &d) && d == p->value.dim[i];
    }
    return same;
}

void case_fill_rows(Case *c, ParamStore *ps, bool mixed)
{
    const Yaml *rows = yaml_get(c->y, "state");
    int at = 0;
    for (int i = 0; i < ps->n && !c->failed; i++) {
        Param *p = ps->p[i];
        const Yaml *row = rows && at < rows->n ? rows->v[at] : NULL, *name = row ? yaml_get(row, "name") : NULL;
        if (str_eq(p->name, "x")) continue;
        at++;
        if (!name || !str_eq(name->s, p->name + (str_starts(p->name, LAYER) ? strlen(LAYER) : 0)))
            case_fail(c, "tensor %d is %s, expected %s", at - 1, p->name, name ? name->s : "no more");
        else if (!same_shape(p, yaml_get(row, "shape")))
            case_fail(c, "%s has another shape", p->name);
        else if (p->value.dtype == DT_F32)
            fill_row(c, p, row, mixed);
    }
    if (!c->failed && rows && at < rows->n) case_fail(c, "there is no tensor %s", yaml_get(rows->v[at], "name")->s);
}
