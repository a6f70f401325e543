/* run/keys.h -- the key table as run/config*.c see it. Others use run/config.h. */
#ifndef RUN_KEYS_H
#define RUN_KEYS_H

#include <math.h>

#include "run/config.h"

#define NOMAX ((double)INFINITY)

typedef enum KeyKind { KK_SECTION, KK_VALUE, KK_LIST, KK_GROUPS, KK_POLICY, KK_IGNORED, KK_LATER } KeyKind;
typedef enum KeyType { KT_STR, KT_BOOL, KT_INT, KT_I64, KT_U64, KT_DBL } KeyType;

enum {
    KF_NO_RESULT = 1, /* cannot change results: may differ on resume */
    KF_MAY_GROW = 2,  /* may be larger on resume */
    KF_MAY_LACK = 4,  /* may be 0 (automatic) on one side on resume */
    KF_FOLDED = 8,    /* turned into another key while loading: not in resolved.yml */
    KF_SECONDS = 16,  /* 55m and 2h are accepted */
    KF_LEVELS = 32    /* a number of bits: with a fraction it is a number of levels */
};

/* The words a key may hold: at(i) is NULL behind the last. Empty is always allowed where the
 * default is empty. */
typedef struct Choices {
    const char *list; /* what `qrun list` calls them; NULL: few enough to be printed */
    const char *(*at)(size_t i);
    const char *(*lacks)(const char *word); /* why a word that one might expect is none; NULL: no such words */
    bool dashes; /* - in a word is as good as _ */
} Choices;

typedef struct Key {
    KeyKind kind;
    const char *name;    /* of a section: its word */
    const char *aliases; /* separated by spaces */
    KeyType type;        /* of the value, or of the list's elements */
    size_t offset, count_offset;
    size_t pair_offset; /* list: where the second numbers of entries [a, b] go, 0 for plain ones; 0: no pairs */
    int cap;         /* list: entries it can hold */
    const char *def; /* YAML; LATER: list of the values that change nothing */
    double min, max; /* 0, 0: none */
    const Choices *choices;
    unsigned flags;
    const char *from, *doc;
} Key;

extern const Key keys[];
extern const size_t nkeys;

typedef enum OriginKind { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_COMMAND, ORIGIN_RULE } OriginKind;

/* Where the value of keys[i] came from. */
typedef struct KeyState {
    OriginKind origin;
    const char *file; /* ORIGIN_FILE; ORIGIN_RULE: the rule */
    int line, col;
    const char *typed; /* the name used */
    bool bad;          /* the value given was refused */
    bool idle;         /* nothing reads it, which was noted: resolved.yml has the default */
    int repeated_line; /* an earlier line of the same file that set it too; 0: none */
} KeyState;

/* Whether `word` is the row's name or one of its aliases; `-` counts as `_`. */
bool key_named(const Key *k, const char *word);
/* Calls fn for each row whose name or alias is `word`; the number of rows. */
int keys_each(const char *word, void (*fn)(const Key *k, void *ctx), void *ctx);
const Key *key_find(const char *word);     /* the first of those rows, or NULL */
const Key *key_of(const char *canonical);  /* the row; asserts that there is one */
const char *key_suggest(const char *word); /* the nearest name or alias, or NULL */

static inline KeyState *key_state(const Config *c, const char *canonical)
{
    return &c->state[key_of(canonical) - keys];
}

bool choices_have(const Choices *ch, const char *word);
const char *choices_suggest(const Choices *ch, const char *word);
void choices_text(const Choices *ch, Str *out); /* "sgd, adam" or "a name from `qrun list nets`" */

size_t key_element_size(const Key *k);         /* of a list's field */
void key_range_text(const Key *k, Str *out); /* "0..1", "at least 1"; nothing when unbounded */
const char *key_type_text(const Key *k);     /* "number", "list of whole numbers" ... */

/* Is it a value of a Config? */
static inline bool key_has_value(const Key *k)
{
    return k->kind == KK_VALUE || k->kind == KK_LIST || k->kind == KK_GROUPS || k->kind == KK_POLICY;
}

/* The value as YAML that reads back to the same bits. */
void key_value_text(const Config *c, const Key *k, Str *out);
/* "FILE:LINE", "command line", "default", the rule. */
void key_origin_text(const KeyState *s, Str *out);

/* Faults of a run, collected so that all are reported at once. */
typedef struct Faults {
    Str *line; /* one per fault, in the order found */
    size_t n, cap;
} Faults;

/* A fault at a place: line 0 leaves line and column out. */
void fault_at(Faults *f, const char *file, int line, int col, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* A fault of the value of a key, where it was set. */
void fault_text(Faults *f, const char *text); /* a line that has its place */
/* Gives an error of kind ERR_CONFIG that names a key, and no place, the place of that key. Returns -1. */
int config_place(const Config *c, Err *e);
/* For rules over several keys (config_check.c, config_f8net.c). A key that was written down; two keys
 * that were not refused (b may be NULL); a value that follows from others. */
bool key_typed(const Config *c, const char *key);
bool keys_good(const Config *c, const char *a, const char *b);
void key_by_rule(Config *c, const char *key, const char *rule);
#define BY_KEYWORD "by keyword" /* the rule of words; a fault of such a value has the place of `keyword` */

void fault_key(Faults *f, const Config *c, const char *canonical, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* "KEY: text" lines of another area's check, at the place of their key where it is one of ours. */
void fault_lines(Faults *f, const Config *c, const char *text, const char *otherwise);

/* The family the net takes its names from: `names`, else that of the model's alias. */
NetNames config_family(const Config *c);

/* Sets what follows from other keys (folded keys, defaults by family), then looks for
 * contradictions. */
void config_derive(Config *c, Faults *f);
void config_check(const Config *c, Faults *f);
/* The same for F8Net's keys; `family`: the network's names are F8Net's. */
void config_derive_f8net(Config *c, bool family);
void config_check_f8net(const Config *c, Faults *f);
/* The same for AdaBits'. */
/* use_pretrain, use_quantize_weight. */
void config_derive_chain(Config *c, Faults *f);
void config_derive_adabits(Config *c, bool family);
void config_check_adabits(const Config *c, bool family, Faults *f);
/* The same for the keyword language's: its quantizers' keys, the words of `keyword`. */
void config_derive_words(Config *c, Faults *f);
void config_check_words(const Config *c, Faults *f);
void config_note_words(const Config *c); /* to the log */
/* What is said of a role with bits and without method where there is a keyword; false: there is none. */
bool config_wants_method(const Config *c, int role, Faults *f);
void config_derive_keyword(Config *c);
void config_derive_proxquant(Config *c); /* behind the words: a step without proxquant */
void config_check_keyword(const Config *c, Faults *f);
/* The keys that say what quantizes a role, and what they hold. */
typedef struct RoleKeys {
    const char *quant, *bit, *level, *enable;
} RoleKeys;
extern const RoleKeys role_keys[Q_NROLES];
const char *role_method(const QOpts *o, int role);
int role_bits(const QOpts *o, int role);
/* Keys that only some methods read (QMethod.keys). A method in use reads the key as it is set; those that
 * are set and not read; names of the methods that read one, nothing where it is no such key. */
bool config_reads(const Config *c, const char *key);
void config_derive_reads(Config *c);
void config_check_reads(const Config *c, Faults *f);
void config_readers(const char *key, Str *out);
/* The configuration's net with these options. 0, -1 with `e`, or 1 with `e` where the data do not say what it
 * reads. Release with spec_free, in any case. */
int config_net_spec(const Config *c, NetOpts o, Spec *s, Err *e);
/* Words and keys that change nothing of the net; those of a file of the original are noted, keys of others are
 * faults. Faults of the net's builder. */
void config_derive_net_words(Config *c);
void config_derive_net_keys(Config *c);
void config_check_net(const Config *c, Faults *f);
/* precision, fp16 and opt_level. */
void config_derive_precision(Config *c);
void config_check_precision(const Config *c, Faults *f);
/* The fields that are copies of others: optim.num_epochs, data.seed, net.num_classes, optim.gamma
 * ... */
void config_copy_fields(Config *c);

#endif
