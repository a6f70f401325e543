/* run/config_value.h -- one value of a configuration into its field, for run/config*.c. */
#ifndef RUN_CONFIG_VALUE_H
#define RUN_CONFIG_VALUE_H

#include "run/keys.h"

/* One value on its way into the Config. */
typedef struct Setter {
    Config *c;
    Faults *f;
    const char *typed; /* name used; "" for defaults */
    const Yaml *value;
    OriginKind origin;
    const Yaml *at; /* the key's node; NULL for overrides and defaults */
} Setter;

/* The value of one row named by what was typed; ctx: Setter. Its faults are added to the list. */
void value_set(const Key *k, void *ctx);
void value_default(Config *c, const Key *k);
/* A value (as YAML) that follows from others; it must be a good one. */
void value_by_rule(Config *c, const Key *k, const char *value, const char *rule);

#endif
