/* run/config_reads.c -- which keys the methods of a run read, by their own rows (QMethod.keys).
 *
 * A key that stands in some method's rows, and is not at its default, has no effect unless a method in
 * use reads it: that is a fault, and names those that do. Beside words and in files of the original, whose
 * options come with them and which never minded, it is a note, and the run's record has the default. */
#include "run/config.h"

#include <stdlib.h>
#include <string.h>

#include "run/keys.h"

const RoleKeys role_keys[Q_NROLES] = {
    [Q_WEIGHT] = {"wt_quant", "wt_bit", "wt_level", "wt_enable"},
    [Q_ACT] = {"fm_quant", "fm_bit", "fm_level", "fm_enable"},
    [Q_OUT] = {"ot_quant", "ot_bit", "ot_level", "ot_enable"},
};

const char *role_method(const QOpts *o, int role)
{
    return role == Q_WEIGHT ? o->wt_quant : role == Q_ACT ? o->fm_quant : o->ot_quant;
}

int role_bits(const QOpts *o, int role)
{
    return role == Q_WEIGHT ? o->wt_bit : role == Q_ACT ? o->fm_bit : o->ot_bit;
}

/* ---- rows ---- */

/* The row of a role for this key at or behind `k` (NULL: from the first); NULL: none. */
static const QKey *row_of(const QMethod *m, int role, const char *key, const QKey *k)
{
    k = k ? k + 1 : m ? m->keys[role] : NULL;
    while (k && k->key && !str_eq(k->key, key)) k++;
    return k && k->key ? k : NULL;
}

#define EACH_ROW(k, m, role, key)                                                                  \
    for (const QKey *k = row_of(m, role, key, NULL); k; k = row_of(m, role, key, k))

/* Roles in which some method reads the key: bits 1 << QRole. */
static unsigned roles_of(const char *key)
{
    unsigned roles = 0;
    for (int i = 0; quant_methods[i]; i++)
        for (int r = 0; r < Q_NROLES; r++)
            if (row_of(quant_methods[i], r, key, NULL)) roles |= 1u << r;
    return roles;
}

/* ---- values ---- */

typedef struct Reads {
    const Config *c;
    Config plain; /* every key at its default */
} Reads;

static Reads reads_open(const Config *c)
{
    Reads x = {.c = c};
    config_default(&x.plain);
    return x;
}

static bool has_value(const Config *c, const char *key, const char *value)
{
    Str now = {0};
    bool same;
    key_value_text(c, key_of(key), &now);
    same = str_eq(now.s, value);
    str_free(&now);
    return same;
}

static bool is_default(const Reads *x, const char *key)
{
    Str usual = {0};
    bool same;
    key_value_text(&x->plain, key_of(key), &usual);
    same = has_value(x->c, key, usual.s);
    str_free(&usual);
    return same;
}

/* A policy sets the attribute that the key is the start of: wt_adaptive is the start of adaptive. */
static bool policy_sets_key(const Config *c, const char *key)
{
    const char *attr = key;
    for (int r = 0; r < Q_NROLES; r++)
        if (!strncmp(key, role_keys[r].quant, 3)) attr = key + 3;
    return policy_sets(&c->run.policy, attr) != NULL;
}

static bool row_takes(const Config *c, const QKey *k)
{
    return !k->value || has_value(c, k->key, k->value);
}

/* What a row wants beside its key is there. */
static bool row_holds(const Reads *x, const QKey *k)
{
    if (!k->with || policy_sets_key(x->c, k->with)) return true;
    if (k->with_value) return has_value(x->c, k->with, k->with_value);
    return !is_default(x, k->with) || (str_eq(k->with, "stable") && !is_default(x, "stable_epoch"));
}

/* A key that a net reads too. */
static bool net_reads(const Config *c, const char *key)
{
    return str_eq(key, "fm_quant_group") && net_word_first(c->net.words, NG_NORM) == NW_group_norm;
}

static bool reads(const Reads *x, const char *key)
{
    if (net_reads(x->c, key)) return true;
    for (int r = 0; r < Q_NROLES; r++)
        EACH_ROW(k, quant_find(role_method(&x->c->quant, r)), r, key)
            if (row_takes(x->c, k) && row_holds(x, k)) return true;
    return false;
}

bool config_reads(const Config *c, const char *key)
{
    Reads x = reads_open(c);
    const bool yes = reads(&x, key);
    config_free(&x.plain);
    return yes;
}

/* ---- what is said ---- */

/* Values of a key other than its default. */
static void put_others(const Key *k, Str *out)
{
    const char *word;
    int n = 0;
    if (k->type == KT_BOOL)
        str_puts(out, str_eq(k->def, "true") ? "false" : "true");
    else if (!k->choices)
        str_printf(out, "%s %s", k->min == strtod(k->def, NULL) ? "more than" : "another than", k->def);
    for (size_t i = 0; k->choices && (word = k->choices->at(i)); i++)
        if (!str_eq(word, k->def)) str_printf(out, "%s%s", n++ ? ", " : "", word);
}

/* A method in use would read the key, were another key not as it is. */
static bool lacks_another(const Reads *x, const char *key, const char *value, Str *out)
{
    for (int r = 0; r < Q_NROLES; r++)
        EACH_ROW(k, quant_find(role_method(&x->c->quant, r)), r, key) {
            if (!row_takes(x->c, k) || row_holds(x, k)) continue;
            str_printf(out, "%s: %s has no effect with %s: ", key, value, k->with);
            key_value_text(x->c, key_of(k->with), out);
            str_puts(out, "; expected ");
            if (k->with_value)
                str_puts(out, k->with_value);
            else
                put_others(key_of(k->with), out);
            return true;
        }
    return false;
}

/* Methods that read the key as it is set: first those that want nothing else. */
static void put_methods(const Reads *x, const char *key, unsigned roles, Str *out)
{
    const size_t begin = out->len;
    for (int wants = 0; wants < 2; wants++)
        for (int i = 0; quant_methods[i]; i++) {
            const QKey *found = NULL;
            for (int r = 0; r < Q_NROLES; r++)
                if (roles >> r & 1)
                    EACH_ROW(k, quant_methods[i], r, key)
                        if (row_takes(x->c, k) && !k->with == !wants) found = k;
            if (!found) continue;
            str_printf(out, "%s%s", out->len > begin ? ", " : "", quant_methods[i]->name);
            if (found->with) str_printf(out, " with %s", found->with);
            if (found->with_value) str_printf(out, ": %s", found->with_value);
        }
}

/* The values that some method reads. */
static void put_values(const Key *key, unsigned roles, Str *out)
{
    const char *word;
    str_puts(out, key->def);
    for (size_t w = 0; key->choices && (word = key->choices->at(w)); w++) {
        bool taken = false;
        for (int i = 0; quant_methods[i]; i++)
            for (int r = 0; r < Q_NROLES; r++)
                if (roles >> r & 1)
                    EACH_ROW(k, quant_methods[i], r, key->name)
                        taken = taken || str_eq(k->value, word);
        if (taken) str_printf(out, ", %s", word);
    }
}

/* "wt_quant: lsq and fm_quant: none": outputs only where they are quantized, or nothing else is meant. */
static void put_in_use(const Config *c, unsigned roles, Str *out)
{
    const size_t begin = out->len;
    for (int r = 0; r < Q_NROLES; r++) {
        const char *method = role_method(&c->quant, r);
        if (!(roles >> r & 1) || (r == Q_OUT && out->len > begin && str_eq(method, "none"))) continue;
        str_printf(out, "%s%s: %s", out->len > begin ? " and " : "", role_keys[r].quant, method);
    }
}

/* Whether a key is set and not read, with what is to be said about it. */
static bool is_idle(const Reads *x, const Key *k, Str *text)
{
    const unsigned roles = key_has_value(k) ? roles_of(k->name) : 0;
    Str value = {0}, methods = {0};
    if (!roles || !keys_good(x->c, k->name, "policy")) return false;
    for (int r = 0; r < Q_NROLES; r++)
        if ((roles >> r & 1) && !keys_good(x->c, role_keys[r].quant, NULL)) return false;
    if (is_default(x, k->name) || reads(x, k->name)) return false;
    text->len = 0;
    key_value_text(x->c, k, &value);
    put_methods(x, k->name, roles, &methods);
    if (!methods.len) {
        str_printf(text, "%s: %s is for no method; expected ", k->name, value.s);
        put_values(k, roles, text);
    } else if (!lacks_another(x, k->name, value.s, text)) {
        str_printf(text, "%s: %s has no effect with ", k->name, value.s);
        put_in_use(x->c, roles, text);
        str_printf(text, "; expected %s", methods.s);
    }
    str_free(&value);
    str_free(&methods);
    return true;
}

void config_derive_reads(Config *c)
{
    Reads x = reads_open(c);
    Str text = {0};
    for (size_t i = 0; i < nkeys && (c->words.original || c->words.nuse > 0); i++) {
        if (!is_idle(&x, &keys[i], &text)) continue;
        log_msg(LOG_INFO, "%s", text.s);
        c->state[i].idle = true;
    }
    str_free(&text);
    config_free(&x.plain);
}

void config_check_reads(const Config *c, Faults *f)
{
    Reads x = reads_open(c);
    Str text = {0};
    for (size_t i = 0; i < nkeys; i++)
        if (!c->state[i].idle && is_idle(&x, &keys[i], &text)) fault_key(f, c, keys[i].name, "%s", text.s);
    str_free(&text);
    config_free(&x.plain);
}

void config_readers(const char *key, Str *out)
{
    int n = 0;
    for (int i = 0; quant_methods[i]; i++) {
        bool any = false;
        for (int r = 0; r < Q_NROLES; r++) any = any || row_of(quant_methods[i], r, key, NULL);
        if (any) str_printf(out, "%s%s", n++ ? ", " : "", quant_methods[i]->name);
    }
}
