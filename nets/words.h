/* nets/words.h -- the words of the keyword language that shape a net (nets/words.def), as a set.
 *
 * Source: aim-uofa/model-quantization, option `keyword`. A word counts when it is written exactly so;
 * `-` is as good as `_` (group-norm, instance-norm ...). */
#ifndef NETS_WORDS_H
#define NETS_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum NetWord {
#define WORD(name, group, doc) NW_##name,
#include "nets/words.def"
#undef WORD
    NW_COUNT
} NetWord;

typedef enum NetWordGroup { NG_DATA, NG_STEM, NG_BLOCK, NG_ORDER, NG_ORDER_VGG, NG_NORM, NG_ACT } NetWordGroup;

typedef struct NetWordRow {
    const char *name; /* with _ */
    NetWordGroup group;
    const char *doc;
} NetWordRow;

extern const NetWordRow net_words[NW_COUNT];

typedef uint64_t NetWordSet; /* bit NW_x */

#define NET_WORD(name) ((NetWordSet)1 << NW_##name)

static inline bool net_word(NetWordSet set, NetWord w)
{
    return set >> w & 1;
}

/* The word, or -1. */
int net_word_find(const char *text);
/* The first word of an exclusive group that is in the set, or -1. */
int net_word_first(NetWordSet set, NetWordGroup group);

#endif
