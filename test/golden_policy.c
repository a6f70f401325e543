/* test/golden_policy.c -- policy files of model-quantization: what is read, and what it makes of a net.
 */
#include "test/golden.h"

#include <stdio.h>
#include <string.h>

#include "quant/keyword.h"
#include "run/config.h"
#include "run/model.h"
#include "run/policy_text.h"

static Policy parsed(Case *c)
{
    const Yaml *text = yaml_get(c->y, "text");
    Policy p;
    Err e = {0};
    policy_parse(&p, &c->arena, c->name, text->s, &e); /* its complaints are ours: the original has none */
    return p;
}

/* ---- what is read ---- */

/* "list 0|1" or "all" */
static void value_text(const PolicyItem *it, Str *out)
{
    if (it->list) str_puts(out, "list ");
    for (int i = 0; i < it->n; i++) str_printf(out, "%s%s", i ? "|" : "", it->value[i]);
}

static void wanted_text(const Yaml *v, Str *out)
{
    if (v->kind == Y_SCALAR) {
        str_puts(out, v->s);
        return;
    }
    str_puts(out, "list ");
    for (int i = 0; i < v->n; i++) {
        bool b;
        const char *s = v->v[i]->s;
        if (!v->v[i]->quoted && yaml_bool(v->v[i], &b)) s = b ? "True" : "False";
        str_printf(out, "%s%s", i ? "|" : "", s);
    }
}

static void compare_block(Case *c, int i, const PolicyBlock *b, const Yaml *want)
{
    if (b->n != want->n) case_fail(c, "block %d has %d entries, expected %d", i, b->n, want->n);
    for (int k = 0; k < b->n && !case_done(c); k++) {
        Str got = {0}, text = {0};
        const Yaml *v = yaml_get(want, b->item[k].key);
        value_text(&b->item[k], &got);
        if (v) wanted_text(v, &text);
        if (!v || !str_eq(got.s, text.s))
            case_fail(c, "block %d: %s: %s, expected %s", i, b->item[k].key, got.s,
                      v ? text.s : "no such entry");
        c->arrays++, c->values++;
        str_free(&got);
        str_free(&text);
    }
}

static void compare_triggers(Case *c, const PolicySection *s, const Yaml *want)
{
    enum { MOST = 32 };
    const Yaml *list = yaml_get(want, "trigger");
    float got[MOST], expected[MOST];
    if (!list || list->n != s->ntrigger || list->n > MOST) {
        case_fail(c, "%d triggers, expected %d", s->ntrigger, list ? list->n : 0);
        return;
    }
    for (int i = 0; i < list->n; i++) {
        long long n = -1;
        yaml_int(list->v[i], &n);
        got[i] = (float)s->trigger[i], expected[i] = (float)n;
    }
    case_compare(c, "trigger", got, expected, (size_t)list->n);
}

static void read_section(Case *c, const Policy *p, const Yaml *want)
{
    const char *name = case_str(c, "params.section", "");
    const PolicySection *s = NULL;
    for (int i = 0; i < p->n; i++)
        for (int w = 0; w < PW_COUNT; w++)
            if (p->s[i].when & 1u << w && str_eq(policy_when[w], name)) s = &p->s[i];
    c->arrays++;
    if (!s && want->n) case_fail(c, "no section %s", name);
    if (s && s->nblocks != want->n - 1)
        case_fail(c, "%d blocks, expected %d", s->nblocks, want->n - 1);
    if (!s || case_done(c)) return;
    compare_triggers(c, s, want->v[0]);
    for (int i = 0; i < s->nblocks && !case_done(c); i++)
        compare_block(c, i, &s->block[i], want->v[i + 1]);
}

/* ---- what it makes of a net ---- */

static const char *word_of(const Yaml *row, const char *key)
{
    const Yaml *v = yaml_get(row, key);
    return v && v->kind == Y_SCALAR ? v->s : "";
}

static float number_of(const Yaml *row, const char *key)
{
    const Yaml *v = yaml_get(row, key);
    double x = 0;
    bool b;
    if (v && !yaml_double(v, &x) && yaml_bool(v, &b)) x = b;
    return (float)x;
}

/* The figures of one quantizer, as the case lists them and as they are. */
static const char *const fields[] = {"enable", "num_levels",  "level_num", "clip_val",
                                     "stable", "progressive", "correlate"};

static void figures(const QInst *q, float *to)
{
    const Keyword *k = q->priv;
    *to++ = q->enabled;
    *to++ = (float)k->num_levels;
    *to++ = (float)k->levels;
    *to++ = ((const float *)k->clip->value.data)[0];
    *to++ = (float)k->stable;
    *to++ = k->progressive;
    *to++ = k->o->correlate > 0 ? (float)k->o->correlate : -1;
}

static void compare_words(Case *c, const char *when, const QInst *q, const Yaml *row)
{
    const Keyword *k = q->priv;
    char name[256];
    snprintf(name, sizeof name, "%s%s", q->name,
             q->role == Q_WEIGHT ? "quant_weight" : "quant_activation");
    if (!str_eq(name, word_of(row, "name")))
        case_fail(c, "%s: layer %s is %s, expected %s", when, word_of(row, "index"), name,
                  word_of(row, "name"));
    if (!str_eq(k->o->adaptive, word_of(row, "adaptive")))
        case_fail(c, "%s: %s: adaptive is %s, expected %s", when, name, k->o->adaptive,
                  word_of(row, "adaptive"));
}

static void compare_state(Case *c, const char *when, const QPlan *qp)
{
    const size_t per = ARRAY_LEN(fields);
    const Yaml *rows = yaml_get(c->y, when);
    int *unit = arena_alloc(&c->arena, (size_t)qp->spec->n * sizeof *unit);
    const int layers = policy_layers(qp, unit);
    const size_t n = (size_t)rows->n * per;
    float *got = arena_alloc(&c->arena, n * sizeof *got),
          *want = arena_alloc(&c->arena, n * sizeof *want);
    for (int i = 0; i < rows->n && !case_done(c); i++) {
        const Yaml *row = rows->v[i];
        const int index = (int)number_of(row, "index");
        const QRole role = str_eq(word_of(row, "tag"), "wt") ? Q_WEIGHT : Q_ACT;
        const QInst *q = index < layers ? qp->u[unit[index]].q[role] : NULL;
        if (!q) {
            case_fail(c, "%s: layer %d of %d has no %s", when, index, layers, word_of(row, "tag"));
            return;
        }
        compare_words(c, when, q, row);
        figures(q, got + (size_t)i * per);
        for (size_t f = 0; f < per; f++) want[(size_t)i * per + f] = number_of(row, fields[f]);
    }
    if (!case_done(c)) case_compare(c, when, got, want, n);
}

static void apply_to_net(Case *c, const Policy *p, Model *m)
{
    enum { EPOCHS = 8 };
    Err e = {0};
    if (policy_apply(p, PW_INIT, 0, model_qplan(m), &e) < 0) case_fail(c, "%s", e.msg);
    if (!case_done(c)) compare_state(c, "after_init", model_qplan(m));
    for (int epoch = 0; epoch < EPOCHS && !case_done(c); epoch++) {
        const char *when = arena_printf(&c->arena, "after_epoch_%d", epoch);
        if (policy_apply(p, PW_EPOCH, epoch, model_qplan(m), &e) < 0) case_fail(c, "%s", e.msg);
        if (yaml_get(c->y, when) && !case_done(c)) compare_state(c, when, model_qplan(m));
    }
}

static void apply(Case *c, const Policy *p)
{
    const Yaml *words = yaml_path(c->y, "params.keyword");
    Str keyword = {0};
    char *text[8];
    int n = 0;
    Config cfg;
    Model *m;
    Err e = {0};
    for (int i = 0; i < words->n; i++)
        str_printf(&keyword, "%s%s", i ? "," : "keyword=", words->v[i]->s);
    text[n++] = keyword.s;
    text[n++] = arena_strdup(&c->arena, "model=resnet20");
    text[n++] = arena_strdup(&c->arena, "dataset=synthetic");
    text[n++] = arena_strdup(&c->arena, "width_alpha=0.25");
    text[n++] = arena_strdup(&c->arena, "wt_bit=2");
    text[n++] = arena_strdup(&c->arena, "fm_bit=2");
    text[n++] = arena_strdup(&c->arena, "wt_quant_group=1");
    if (config_load(&cfg, "", n, text, &e)) {
        case_fail(c, "%s", e.msg);
        str_free(&keyword);
        return;
    }
    cfg.net.num_classes = 10, cfg.net.in_c = 3, cfg.net.in_h = cfg.net.in_w = 32;
    m = model_new(&cfg.net, &cfg.quant, 0, 1, &e);
    if (m)
        apply_to_net(c, p, m);
    else
        case_fail(c, "%s", e.msg);
    model_free(m);
    config_free(&cfg);
    str_free(&keyword);
}

void golden_policy(Case *c)
{
    const Yaml *want = yaml_get(c->y, "expected");
    const Policy p = parsed(c);
    if (want && want->kind == Y_LIST)
        read_section(c, &p, want);
    else if (yaml_get(c->y, "after_init"))
        apply(c, &p);
    else
        case_skip(c, "a text that is no policy");
}
