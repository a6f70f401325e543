/* test/golden_options.h -- a configuration of what a case states: options go through run/config.h
 * as a user's would, so that its rules are compared too. */
#ifndef TEST_GOLDEN_OPTIONS_H
#define TEST_GOLDEN_OPTIONS_H

#include "run/config.h"
#include "test/golden.h"

enum { CASE_MAX_OPTIONS = 24 };

/* A zeroed one with its case is empty. */
typedef struct CaseOptions {
    Case *c;
    int n;
    char *text[CASE_MAX_OPTIONS]; /* in the case's arena */
} CaseOptions;

void option_add(CaseOptions *o, const char *key, const char *value);
/* key: params.NAME, where the case has it; lists as the originals' flags are typed: a,b,c. */
void option_param(CaseOptions *o, const char *key, const char *name);
/* Fails the case where the options are refused. */
bool options_load(CaseOptions *o, Config *cfg);

#endif
