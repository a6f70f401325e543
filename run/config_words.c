/* run/config_words.c -- what the words of `keyword` do to a configuration.
 *
 * Each becomes a key (wt_quant, custom_update ...) or a bit of NetOpts.words, so that nothing
 * behind this file knows of words. A key that was written down goes before a word. */
#include "run/config.h"

#include <stdio.h>
#include <string.h>

#include "run/config_value.h"
#include "run/keys.h"

static const char **method_of(Config *c, int role)
{
    QOpts *q = &c->quant;
    return role == Q_WEIGHT ? &q->wt_quant : role == Q_ACT ? &q->fm_quant : &q->ot_quant;
}

static int *bits_of(Config *c, int role)
{
    QOpts *q = &c->quant;
    return role == Q_WEIGHT ? &q->wt_bit : role == Q_ACT ? &q->fm_bit : &q->ot_bit;
}

static int levels_of(Config *c, int role)
{
    const int level = c->quant.kw.tag[role].level, bits = *bits_of(c, role);
    return level ? level : bits < 31 ? 1 << bits : 0;
}

static WordUse *use_of(Config *c, const char *name)
{
    for (int i = 0; i < c->words.nuse; i++)
        if (str_eq(c->words.use[i].row->name, name)) return &c->words.use[i];
    return NULL;
}

static void outcome(Config *c, WordUse *u, const char *text)
{
    u->outcome = u->outcome ? arena_printf(&c->arena, "%s, %s", u->outcome, text) : text;
}

/* ---- the list ---- */

/* The words in the order of the table, each once. */
static void collect(Config *c)
{
    WordOpts *w = &c->words;
    for (size_t r = 0; r < nword_rows; r++)
        for (int i = 0; i < w->nword; i++) {
            if (word_find(w->word[i]) != &word_rows[r]) continue;
            w->use[w->nuse++] = (WordUse){.row = &word_rows[r]};
            break;
        }
}

/* Whether the words of its group exclude each other. */
static bool excludes(NetWord w)
{
    return net_words[w].group != NG_STEM && net_words[w].group != NG_BLOCK;
}

/* Words that shape the net. What stays in the key `keyword` is these: the others become keys. */
static void shape_net(Config *c)
{
    static const char rule[] = BY_KEYWORD;
    WordOpts *w = &c->words;
    bool shaped = false;
    w->nword = 0;
    for (int i = 0; i < w->nuse; i++) {
        const WordRow *r = w->use[i].row;
        if (r->effect != WE_NET) continue;
        c->net.words |= (NetWordSet)1 << r->net;
        w->word[w->nword++] = r->name;
        shaped = shaped || net_words[r->net].group != NG_DATA;
    }
    if (shaped && !key_typed(c, "names")) {
        c->net.names = net_names_text(NAMES_KEYWORD);
        key_by_rule(c, "names", rule);
    }
    for (int i = 0; i < w->nuse; i++) {
        WordUse *u = &w->use[i];
        int first;
        if (u->row->effect != WE_NET) continue;
        first = net_word_first(c->net.words, net_words[u->row->net].group);
        u->passed_over = excludes(u->row->net) && first != (int)u->row->net;
        outcome(c, u,
                u->passed_over
                    ? arena_printf(&c->arena, "not used: %s goes before it", net_words[first].name)
                    : "shapes the net");
    }
}

/* cifar10, cifar100: classes and size of images, where they are not given. */
static void shape_data(Config *c)
{
    const int word = net_word_first(c->net.words, NG_DATA);
    WordUse *u = word >= 0 ? use_of(c, net_words[word].name) : NULL;
    if (!u) return;
    if (!key_typed(c, "num_classes")) {
        c->data.num_classes = word == NW_cifar10 ? 10 : 100;
        key_by_rule(c, "num_classes", BY_KEYWORD);
    }
    if (!key_typed(c, "image_size")) {
        c->data.image_size = 32;
        key_by_rule(c, "image_size", BY_KEYWORD);
    }
}

/* ---- methods ---- */

static bool family_given(Config *c)
{
    return use_of(c, "dorefa") || use_of(c, "pact");
}

/* The word that names the method of a role, or NULL. */
static WordUse *choose(Config *c, int role)
{
    const WordBeside here = family_given(c) ? WB_WITH : WB_WITHOUT;
    for (int i = 0; i < c->words.nuse; i++) {
        const WordRow *r = c->words.use[i].row;
        if (r->effect == WE_METHOD && (r->roles >> role & 1) &&
            (r->beside == WB_ANY || r->beside == here))
            return &c->words.use[i];
    }
    return NULL;
}

/* A role is quantized where its bits or levels are given and its switch is on. */
static bool role_asked(Config *c, int role)
{
    return c->words.enable[role] && (*bits_of(c, role) < 32 || c->quant.kw.tag[role].level > 1);
}

static void choose_method(Config *c, int role, Faults *f)
{
    WordUse *u = choose(c, role);
    const char **method = method_of(c, role);
    if (!c->words.enable[role]) {
        *method = "none";
        *bits_of(c, role) = 32;
        c->quant.kw.tag[role].level = 0;
        key_by_rule(c, role_keys[role].quant,
                    arena_printf(&c->arena, "by %s", role_keys[role].enable));
        key_by_rule(c, role_keys[role].bit,
                    arena_printf(&c->arena, "by %s", role_keys[role].enable));
        return;
    }
    if (!u || !role_asked(c, role)) return;
    if (key_typed(c, role_keys[role].quant)) {
        if (str_eq(*method, u->row->method)) return;
        u->passed_over = true;
        outcome(c, u,
                arena_printf(&c->arena, "not %s: %s, which is %s", role_keys[role].quant,
                             u->row->method, *method));
        return;
    }
    *method = u->row->method;
    if (!quant_find(*method))
        fault_key(f, c, "keyword", "keyword: %s is not available in this version (%s)",
                  u->row->name, u->row->doc);
    key_by_rule(c, role_keys[role].quant, BY_KEYWORD);
    outcome(c, u, arena_printf(&c->arena, "%s: %s", role_keys[role].quant, u->row->method));
}

/* What is said about method words that chose nothing. */
static void explain_methods(Config *c)
{
    for (int i = 0; i < c->words.nuse; i++) {
        WordUse *u = &c->words.use[i];
        bool asked = false;
        const char *first = NULL;
        if (u->row->effect != WE_METHOD || u->outcome) continue;
        for (int role = 0; role < Q_NROLES; role++) {
            const WordUse *chosen = role_asked(c, role) ? choose(c, role) : NULL;
            if (!(u->row->roles >> role & 1)) continue;
            asked = asked || role_asked(c, role);
            if (chosen && !first) first = chosen->row->name;
        }
        if (!asked) {
            outcome(c, u, "nothing is quantized by it: no bits or levels are given");
        } else if (u->row->beside == WB_WITH && !family_given(c)) {
            outcome(c, u, "not used without dorefa or pact");
        } else if (str_eq(u->row->name, "dorefa") || str_eq(u->row->name, "pact")) {
            outcome(c, u, arena_printf(&c->arena, "used through %s", first));
        } else {
            u->passed_over = true;
            outcome(c, u,
                    first ? arena_printf(&c->arena, "not used: %s goes before it", first)
                          : "not used");
        }
    }
}

/* ---- words that set a key ---- */

static bool holds(Config *c, const WordRow *r)
{
    const bool xnor = str_eq(c->quant.wt_quant, "xnor"), reads = config_reads(c, r->key);
    const bool on[WW_COUNT] = {
        [WW_ALWAYS] = true,
        [WW_READ] = reads,
        [WW_WT_TWO] = reads && levels_of(c, Q_WEIGHT) == 2,
        [WW_XNOR] = xnor,
        [WW_NOT_XNOR] = reads && !xnor,
    };
    return on[r->when];
}

static void set_keys(Config *c, Faults *f)
{
    for (int i = 0; i < c->words.nuse; i++) {
        WordUse *u = &c->words.use[i];
        const WordRow *r = u->row;
        const Key *k;
        if (r->effect != WE_SETS) continue;
        k = key_find(r->key);
        if (!k || k->kind == KK_LATER) {
            fault_key(f, c, "keyword", "keyword: %s is not available in this version (%s)", r->name,
                      r->doc);
            continue;
        }
        if (!holds(c, r)) {
            outcome(c, u, "no effect here");
            continue;
        }
        if (key_typed(c, r->key) && key_state(c, r->key)->origin != ORIGIN_RULE) {
            outcome(c, u, arena_printf(&c->arena, "%s is given", r->key));
            continue;
        }
        value_by_rule(c, k, r->value, BY_KEYWORD);
        outcome(c, u, arena_printf(&c->arena, "%s: %s", r->key, r->value));
    }
}

void config_derive_words(Config *c, Faults *f)
{
    /* Without its words nobody knows what a role would have been: that is not a second fault. */
    for (int role = 0; role < Q_NROLES && key_state(c, "keyword")->bad; role++)
        key_state(c, role_keys[role].quant)->bad = key_state(c, role_keys[role].level)->bad = true;
    collect(c);
    shape_net(c);
    shape_data(c);
    for (int role = 0; role < Q_NROLES; role++) choose_method(c, role, f);
    explain_methods(c);
    set_keys(c, f);
    for (int i = 0; i < c->words.nuse; i++)
        if (c->words.use[i].row->effect == WE_NOTHING) outcome(c, &c->words.use[i], "no effect");
}

/* ---- contradictions ---- */

static const WordUse *given(const Config *c, const char *name)
{
    for (int i = 0; i < c->words.nuse; i++)
        if (str_eq(c->words.use[i].row->name, name)) return &c->words.use[i];
    return NULL;
}

/* Words that shape a net need one that they can shape. */
static void check_net(const Config *c, Faults *f)
{
    Err e;
    const NetDef *net =
        keys_good(c, "model", "names") && c->net.model[0] ? net_select(&c->net, &e) : NULL;
    if (!net || net->names == NAMES_KEYWORD) return;
    for (int i = 0; i < c->words.nuse; i++) {
        const WordRow *r = c->words.use[i].row;
        if (r->effect != WE_NET || net_words[r->net].group == NG_DATA) continue;
        fault_key(f, c, "keyword",
                  "keyword: %s shapes nets of the keyword language, and model: %s%s%s is none; "
                  "expected a name from "
                  "`qrun list nets` with names: keyword",
                  r->name, c->net.model, str_eq(c->net.names, "keyword") ? "" : " with names: ",
                  str_eq(c->net.names, "keyword") ? "" : c->net.names);
        return;
    }
}

static void check_words(const Config *c, Faults *f)
{
    const char *family = given(c, "dorefa") ? "dorefa" : given(c, "pact") ? "pact" : NULL;
    for (int i = 0; i < c->words.nuse; i++) {
        const WordRow *r = c->words.use[i].row;
        if (r->effect == WE_REFUSED)
            fault_key(f, c, "keyword", "keyword: %s is %s; expected dorefa, pact, lq or xnor",
                      r->name, r->doc);
    }
    if (given(c, "gamma") && family)
        fault_key(f, c, "keyword",
                  "keyword: gamma belongs to xnor and contradicts %s; expected wt_gamma, or xnor "
                  "without %s",
                  family, family);
}

/* Methods that quantize in this role, and the words for them. */
static void put_methods(int role, bool words, Str *out)
{
    const char *sep = " (keyword: ";
    for (int i = 0; quant_methods[i]; i++)
        if (quant_methods[i]->role[role])
            str_printf(out, "%s%s", out->len ? ", " : "", quant_methods[i]->name);
    for (size_t i = 0; words && i < nword_rows; i++) {
        const WordRow *r = &word_rows[i];
        if (r->effect != WE_METHOD || !(r->roles >> role & 1) || !quant_find(r->method)->role[role]) continue;
        str_printf(out, "%s%s", sep, r->name);
        sep = ", ";
    }
    if (words) str_puts(out, ")");
}

/* A role without a method, or with one that has no such quantizer or not so many levels. */
static void check_role(const Config *c, int role, Faults *f)
{
    static const char *const tensors[Q_NROLES] = {"weights", "inputs of layers", "outputs of layers"};
    const QOpts *q = &c->quant;
    const char *quant = role_keys[role].quant, *bit = role_keys[role].bit;
    const QMethod *m = quant_find(role_method(q, role));
    const int bits = role_bits(q, role);
    if (!keys_good(c, quant, bit)) return;
    if (key_typed(c, role_keys[role].enable) && c->words.enable[role] && bits == 32)
        fault_key(f, c, role_keys[role].enable, "%s: true without %s; expected the number of bits",
                  role_keys[role].enable, bit);
    if (m && !m->role[role] && bits < 32) {
        const bool by_word = key_state(c, quant)->origin == ORIGIN_RULE;
        Str methods = {0};
        put_methods(role, by_word, &methods);
        fault_key(f, c, by_word ? "keyword" : quant, "%s: %s quantizes no %s; expected %s", quant,
                  m->name, tensors[role], methods.s);
        str_free(&methods);
    }
}

void config_check_words(const Config *c, Faults *f)
{
    if (!keys_good(c, "keyword", NULL)) return;
    check_words(c, f);
    check_net(c, f);
    for (int role = 0; role < Q_NROLES; role++) check_role(c, role, f);
}

bool config_wants_method(const Config *c, int role, Faults *f)
{
    const char *key = key_state(c, role_keys[role].bit)->origin == ORIGIN_RULE
                          ? role_keys[role].level
                          : role_keys[role].bit;
    if (!key_typed(c, "keyword") || key_typed(c, role_keys[role].quant)) return false;
    key_state(c, role_keys[role].quant)->bad = true; /* nothing more is said about it */
    for (int i = 0; i < c->words.nuse; i++) {
        const WordRow *r = c->words.use[i].row;
        if (r->effect != WE_METHOD || r->beside != WB_WITH || !(r->roles >> role & 1)) continue;
        fault_key(f, c, "keyword",
                  "keyword: %s counts only beside dorefa or pact; expected one of them too",
                  r->name);
        return true;
    }
    fault_key(f, c, key,
              "%s is given, but no word of `keyword` names a method; expected dorefa, pact, lq or "
              "xnor among them",
              key);
    return true;
}

void config_note_words(const Config *c)
{
    for (int i = 0; i < c->words.nuse; i++) {
        const WordUse *u = &c->words.use[i];
        log_msg(u->passed_over ? LOG_INFO : LOG_DEBUG, "keyword: %s: %s", u->row->name,
                u->outcome ? u->outcome : u->row->doc);
    }
}
