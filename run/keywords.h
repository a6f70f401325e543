/* run/keywords.h -- the words of the key `keyword`: one row each, from nets/words.def (what shapes a
 * net) and run/keywords.def (all others). What they do to a configuration: config_words.c.
 *
 * Source: aim-uofa/model-quantization, option `keyword`. The order of words never matters. */
#ifndef RUN_KEYWORDS_H
#define RUN_KEYWORDS_H

#include "nets/words.h"
#include "quant/quant.h"

#define KEYWORD_MAX 64

typedef enum WordEffect { WE_SECTION, WE_NET, WE_METHOD, WE_SETS, WE_NOTHING, WE_REFUSED } WordEffect;

/* Whether dorefa or pact must be among the words. */
typedef enum WordBeside { WB_ANY, WB_WITH, WB_WITHOUT } WordBeside;

/* What must hold for a key to be set. Keys that are read: as set by the words above, and alone. */
typedef enum WordWhen {
    WW_ALWAYS,
    WW_READ,     /* a method in use reads the key (QMethod.keys) */
    WW_WT_TWO,   /* and weights have two levels */
    WW_XNOR,     /* weights by xnor */
    WW_NOT_XNOR, /* weights by another method that reads the key */
    WW_COUNT
} WordWhen;

typedef struct WordRow {
    WordEffect effect;
    const char *name;        /* of a section: "" */
    const char *doc;
    NetWord net;             /* WE_NET */
    unsigned roles;          /* WE_METHOD: bits 1 << QRole */
    WordBeside beside;
    const char *method;
    const char *key, *value; /* WE_SETS */
    WordWhen when;
} WordRow;

extern const WordRow word_rows[];
extern const size_t nword_rows;

/* One word of a configuration, and what became of it. */
typedef struct WordUse {
    const WordRow *row;
    const char *outcome; /* for people: "wt_quant: lsq, fm_quant: lsq" */
    bool passed_over;    /* another word goes before it: worth a line in the log */
} WordUse;

/* The key `keyword` and its companions, in a Config. */
typedef struct WordOpts {
    const char *word[KEYWORD_MAX]; /* as typed; once loaded: those that shape the net */
    int nword;
    bool enable[Q_NROLES];         /* wt_enable ...: false switches the quantizers of a role off */
    int level[Q_NROLES];           /* from a number of bits with a fraction (1.585: 3); 0: none */
    bool original;                 /* a file of the original: what has no effect is only noted */
    WordUse use[KEYWORD_MAX];
    int nuse;
} WordOpts;

const WordRow *word_find(const char *text); /* or NULL */
/* The i-th word that may be typed; NULL behind the last. */
const char *word_at(size_t i);

void words_list(Str *out); /* qrun list keywords */
void words_docs(Str *out); /* docs/keywords.md */

#endif
