/* run/config_keyword.c -- what follows from the keys of the keyword language's quantizers, and what
 * contradicts itself among them. */
#include "run/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/keyword.h"
#include "run/keys.h"

/* Methods under their own names; bits from a number of levels, where they are not given. */
void config_derive_keyword(Config *c)
{
    int *const bits[Q_NROLES] = {
        [Q_WEIGHT] = &c->quant.wt_bit, [Q_ACT] = &c->quant.fm_bit, [Q_OUT] = &c->quant.ot_bit};
    const char **const method[Q_NROLES] = {
        [Q_WEIGHT] = &c->quant.wt_quant, [Q_ACT] = &c->quant.fm_quant, [Q_OUT] = &c->quant.ot_quant};
    for (int r = 0; r < Q_NROLES; r++) {
        const QMethod *m = quant_find(*method[r]);
        if (m) *method[r] = m->name; /* in place of an alias */
    }
    for (int r = 0; r < Q_NROLES; r++) {
        const RoleKeys *key = &role_keys[r];
        int *level = &c->quant.kw.tag[r].level;
        if (c->words.level[r] && !key_typed(c, key->level)) {
            *level = c->words.level[r];
            key_by_rule(c, key->level, arena_printf(&c->arena, "from %s", key->bit));
        }
        if (*level < 2 || key_typed(c, key->bit)) continue;
        *bits[r] = (int)floor(log2((double)*level));
        key_by_rule(c, key->bit, "from the number of levels");
    }
}

static void check_binary(const Config *c, Faults *f)
{
    const int level = c->quant.kw.tag[Q_WEIGHT].level, bits = c->quant.wt_bit;
    const int levels = level ? level : bits < 31 ? 1 << bits : 0;
    if (c->quant.kw.wt_bin && levels != 2 && keys_good(c, "wt_bin", "wt_bit"))
        fault_key(f, c, "wt_bin", "wt_bin: true with %d levels; expected wt_bit: 1", levels);
}

/* Start of a clip level under two names; a number of levels that is none. */
static void check_tag(const Config *c, int role, Faults *f)
{
    const KwTag *o = &c->quant.kw.tag[role];
    const double start = role == Q_WEIGHT ? c->quant.wt_clip_init : c->quant.act_clip_init;
    const char *key = role == Q_WEIGHT ? "wt_boundary" : "fm_boundary";
    if (role != Q_OUT && o->boundary > 0 && start > 0 && keys_good(c, key, NULL))
        fault_key(f, c, key, "%s: %g contradicts %s: %g; expected one of them", key, o->boundary,
                  role == Q_WEIGHT ? "wt_clip_init" : "act_clip_init", start);
    if (o->level == 1)
        fault_key(f, c, role_keys[role].level, "%s: 1 level; expected 2 to 256, or 0",
                  role_keys[role].level);
}

/* Epochs of lr_custom_step, where the schedule has such; -1: it has none. */
static int custom_steps(const OptimOpts *o)
{
    static const char *const with[] = {"sgdr", "sgdr_step", "multistep", "custom_step"};
    for (size_t i = 0; i < ARRAY_LEN(with); i++)
        if (str_eq(o->lr_scheduler, with[i])) return o->nmilestones;
    return -1;
}

double config_proxquant_share(const Config *c, int epoch)
{
    return kw_proxquant_share(c->quant.kw.proxquant_step, epoch, c->optim.milestones,
                              custom_steps(&c->optim));
}

/* proxquant_step is given, and nothing blends. */
static bool idle_step(const Config *c)
{
    Config plain;
    bool idle;
    config_default(&plain);
    idle = !c->quant.kw.proxquant && c->quant.kw.proxquant_step != plain.quant.kw.proxquant_step &&
           keys_good(c, "proxquant", "proxquant_step");
    config_free(&plain);
    return idle;
}

void config_derive_proxquant(Config *c)
{
    if (!c->words.original || !idle_step(c)) return;
    log_msg(LOG_INFO, "proxquant_step: %d has no effect with proxquant: false", c->quant.kw.proxquant_step);
    key_state(c, "proxquant_step")->idle = true;
}

static void check_proxquant(const Config *c, Faults *f)
{
    const KwOpts *o = &c->quant.kw;
    if (o->proxquant && o->proxquant_step < 10 && custom_steps(&c->optim) < 0 &&
        keys_good(c, "proxquant_step", "lr_scheduler"))
        fault_key(f, c, "proxquant",
                  "proxquant_step: %d counts the steps of lr_scheduler: multistep, sgdr or "
                  "sgdr_step, not of %s; expected one of them, or 10 and more for epochs",
                  o->proxquant_step, c->optim.lr_scheduler);
    if (!key_state(c, "proxquant_step")->idle && idle_step(c))
        fault_key(f, c, "proxquant_step",
                  "proxquant_step: %d has no effect with proxquant: false", o->proxquant_step);
}

void config_check_keyword(const Config *c, Faults *f)
{
    check_binary(c, f);
    for (int r = 0; r < Q_NROLES; r++) check_tag(c, r, f);
    check_proxquant(c, f);
}
