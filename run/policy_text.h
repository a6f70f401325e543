/* run/policy_text.h -- policies as text: files in the original's syntax, and maps in a configuration.
 *
 * File:                        The same in YAML:
 *   on init:                     policy:
 *     by_index: 0 1 2              on init:
 *     by_tag: fm                   - {by_index: [0, 1, 2], by_tag: fm, enable: False}
 *     enable: False                on epoch 10 20:
 *   on epoch: 10 20                - {by_index: all, by_tag: wt, level_num: -1}
 *     by_index: all
 *     by_tag: wt
 *     level_num: -1
 *
 * A file is read as the original reads it: `#` begins a comment, a line without `:` ends the reading, what
 * stands before the first by_ line of a section is dropped, of two sections of one name the last counts.
 * In a map all sections count. */
#ifndef RUN_POLICY_TEXT_H
#define RUN_POLICY_TEXT_H

#include "io/yaml.h"
#include "quant/policy.h"

/* Always fills `p`, in `a`. -1: also with one line in `e` for each thing that the original would have
 * passed over in silence. `text` is copied. */
int policy_parse(Policy *p, Arena *a, const char *file, const char *text, Err *e);
/* The file, or -1 with ERR_CONFIG. */
int policy_read(Policy *p, Arena *a, const char *file, Err *e);
/* A map of a configuration. */
int policy_from_yaml(Policy *p, Arena *a, const Yaml *map, Err *e);
/* A YAML map on one line that reads back to the same rules; '' for none. put: text as YAML. */
void policy_print(const Policy *p, void (*put)(const char *s, Str *out), Str *out);

#endif
