/* test/golden_options.c -- see golden_options.h. */
#include "test/golden_options.h"

void option_add(CaseOptions *o, const char *key, const char *value)
{
    ASSERT(o->n < CASE_MAX_OPTIONS, "%d options", o->n);
    o->text[o->n++] = arena_printf(&o->c->arena, "%s=%s", key, value);
}

void option_param(CaseOptions *o, const char *key, const char *name)
{
    const Yaml *v = yaml_path(o->c->y, arena_printf(&o->c->arena, "params.%s", name));
    Str s = {0};
    if (!v) return;
    if (v->kind == Y_LIST)
        for (int i = 0; i < v->n; i++) str_printf(&s, "%s%s", i ? "," : "", v->v[i]->s);
    else
        str_puts(&s, v->s);
    option_add(o, key, s.len ? s.s : "''");
    str_free(&s);
}

bool options_load(CaseOptions *o, Config *cfg)
{
    Err e = {0};
    if (!config_load(cfg, "", o->n, o->text, &e)) return true;
    case_fail(o->c, "%s", e.msg);
    return false;
}
