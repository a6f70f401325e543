/* io/yaml.h -- YAML text to a tree with places. The only user of libyaml. Used for configs, goldens
 * and policies. */
#ifndef IO_YAML_H
#define IO_YAML_H

#include "engine/mem.h"

typedef enum YamlKind { Y_SCALAR, Y_LIST, Y_MAP } YamlKind;

typedef struct Yaml {
    YamlKind kind;
    const char *file; /* as given by the caller, or of the included file */
    int line, col;    /* from 1 */
    const char *s;    /* scalar: its text */
    bool quoted;      /* scalar in quotes or a block: a string whatever it looks like */
    int n;            /* list, map: entries */
    struct Yaml **v;  /* list, map: values */
    struct Yaml **k;  /* map: keys (scalars); a repeated key appears twice, in file order */
} Yaml;

/* Inheritance: a map may hold `_default: FILE` (or a list of files, later ones stronger) and YAML's
 * `<<: *anchor` (or a list, earlier ones stronger, or `<<: !include FILE`). Their entries are put
 * in front of the map's own, so that the last entry of a name is the one that counts; the two keys
 * themselves are gone from the tree.
 *
 * Nodes live in `a`. `!include FILE` (relative to the including file) is replaced by that file's
 * tree; cycles, aliases that grow without bound, depth > 64 and files over 16 MiB are errors with
 * file, line, column. Missing file: ERR_CONFIG with a suggestion of a similarly named file of that
 * folder. An included file that does not end in .yml or .yaml is inserted as text. An empty file is
 * an empty map. All errors have kind ERR_CONFIG. */
Yaml *yaml_read(Arena *a, const char *path, Err *e);
Yaml *yaml_parse(Arena *a, const char *name, const char *text, size_t len, Err *e);
/* One value as typed on the command line: errors and nodes carry `name` and no line (0). Empty text
 * is a null scalar. */
Yaml *yaml_value(Arena *a, const char *name, const char *text, Err *e);

const Yaml *yaml_get(const Yaml *map, const char *key);     /* the last of that name, or NULL */
const Yaml *yaml_path(const Yaml *map, const char *dotted); /* "params.bit" */

/* Scalars, by YAML 1.1 as PyYAML reads them (yes/no/on/off, ~, 0x, 0o, 1_000, .inf) except that
 * 1e-4 is a number. 1: converted; 0: it is not of that type. */
int yaml_bool(const Yaml *y, bool *v);
int yaml_int(const Yaml *y, long long *v);
int yaml_double(const Yaml *y, double *v);
bool yaml_null(const Yaml *y); /* ~, null, empty */

/* Of the libyaml in use: "0.2.5". */
const char *yaml_version(void);

#endif
