/* run/config_net.c -- what a configuration asks of its net: faults of the net's builder, and words and keys
 * that change nothing of it. A word of that kind is a line of the log, a key a fault; in a file of the
 * original, which never minded, a line too. */
#include <stddef.h>
#include <string.h>

#include "run/config.h"
#include "run/keys.h"

/* Keys that only nets read, and what they are for. */
static const struct NetKey {
    const char *name;
    size_t at, size;
    const char *use;
} net_keys[] = {
#define ROW(field, use) {#field, offsetof(NetOpts, field), sizeof((NetOpts){0}.field), use}
    ROW(base, "a net of blocks with parallel branches"),
    ROW(width_alpha, "a net of the keyword language whose width can be scaled"),
    ROW(order, "ReShapeResolution"),
    ROW(stem_kernel, "TResNetStem or TResNetStemMaxPool"),
#undef ROW
};

int config_net_spec(const Config *c, NetOpts o, Spec *s, Err *e)
{
    InputShape in;
    *s = (Spec){0};
    if (data_input_shape(&c->data, &in, &o.num_classes, e)) return 1;
    o.in_c = in.c;
    o.in_h = in.h;
    o.in_w = in.w;
    return net_build(s, &o, e);
}

static bool known(const Config *c)
{
    return c->net.model[0] && c->data.dataset[0] && keys_good(c, "model", "names") &&
           keys_good(c, "dataset", "image_size") && keys_good(c, "keyword", "num_classes");
}

/* Whether a net with these options is the one of the configuration. */
static bool same_net(const Config *c, const NetOpts *o)
{
    Spec a, b;
    Err e = {0};
    bool same = !config_net_spec(c, c->net, &a, &e);
    same = !config_net_spec(c, *o, &b, &e) && same && spec_equal(&a, &b);
    spec_free(&a);
    spec_free(&b);
    return same;
}

/* ---- words ---- */

void config_derive_net_words(Config *c)
{
    for (int i = 0; i < c->words.nuse && known(c); i++) {
        WordUse *u = &c->words.use[i];
        NetOpts without = c->net;
        if (u->row->effect != WE_NET || u->passed_over) continue;
        if (net_words[u->row->net].group == NG_DATA) { /* of the data too, so never without effect */
            if (config_family(c) != NAMES_KEYWORD)
                u->outcome = arena_printf(&c->arena, "classes and size of images; %s keeps its stem", c->net.model);
            continue;
        }
        without.words &= ~((NetWordSet)1 << u->row->net);
        if (!same_net(c, &without)) continue;
        u->passed_over = true;
        u->outcome = arena_printf(&c->arena, "no effect on %s", c->net.model);
    }
}

/* ---- keys ---- */

/* "order: c has no effect on model: resnet20 ..."; false where it is not typed, at its default, or has one. */
static bool is_idle(const Config *c, const struct NetKey *k, Str *text)
{
    NetOpts usual = c->net;
    Config plain;
    Str by_default = {0}, value = {0};
    text->len = 0;
    if (!key_typed(c, k->name) || !keys_good(c, k->name, NULL)) return false;
    config_default(&plain);
    memcpy((char *)&usual + k->at, (char *)&plain.net + k->at, k->size);
    key_value_text(&plain, key_of(k->name), &by_default);
    key_value_text(c, key_of(k->name), &value);
    if (!str_eq(by_default.s, value.s) && same_net(c, &usual))
        str_printf(text, "%s: %s has no effect on model: %s; expected %s, or %s", k->name, value.s, c->net.model,
                   by_default.s, k->use);
    config_free(&plain);
    str_free(&by_default);
    str_free(&value);
    return text->len > 0;
}

void config_derive_net_keys(Config *c)
{
    Str text = {0};
    for (size_t i = 0; i < ARRAY_LEN(net_keys) && c->words.original && known(c); i++) {
        if (!is_idle(c, &net_keys[i], &text)) continue;
        log_msg(LOG_INFO, "%s", text.s);
        key_state(c, net_keys[i].name)->idle = true;
    }
    str_free(&text);
}

void config_check_net(const Config *c, Faults *f)
{
    Spec s;
    Str text = {0};
    Err e = {0};
    if (f->n || !known(c)) return;
    if (config_net_spec(c, c->net, &s, &e) < 0 && config_family(c) == NAMES_KEYWORD) fault_lines(f, c, e.msg, "keyword");
    spec_free(&s);
    for (size_t i = 0; i < ARRAY_LEN(net_keys); i++)
        if (!key_state(c, net_keys[i].name)->idle && is_idle(c, &net_keys[i], &text))
            fault_key(f, c, net_keys[i].name, "%s", text.s);
    str_free(&text);
}
