/* run/config_shell.h -- the `config.METHOD.PHASE...` files of model-quantization as configurations.
 *
 * A file assigns variables and appends to `options` what the original's script is called with. Both
 * become keys of the key table, at the place where they are written; the file is never executed.
 * Where a file is silent the original's own defaults count, not those of the key table. */
#ifndef RUN_CONFIG_SHELL_H
#define RUN_CONFIG_SHELL_H

#include "run/keys.h"

/* Whether a file's name makes it one: `config.` and more. */
bool shell_config_named(const char *path);
/* Its keys as a map, places included; NULL with faults. */
Yaml *shell_config_read(Arena *a, const char *path, Faults *f);
/* The original's defaults: name and YAML value i; false behind the last. */
bool shell_config_default(size_t i, const char **key, const char **value);
/* The key that option i stands for, "" where it has none; false behind the last. */
bool shell_config_option(Arena *a, size_t i, const char **key);

#endif
