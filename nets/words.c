/* nets/words.c -- see words.h. */
#include "nets/words.h"

const NetWordRow net_words[NW_COUNT] = {
#define WORD(name, group, doc) [NW_##name] = {#name, NG_##group, doc},
#include "nets/words.def"
#undef WORD
};

_Static_assert(NW_COUNT <= 64, "a NetWordSet has 64 bits");

static bool same(const char *name, const char *text)
{
    for (; *name && (*name == *text || (*name == '_' && *text == '-')); name++, text++) continue;
    return !*name && !*text;
}

int net_word_find(const char *text)
{
    for (int w = 0; w < NW_COUNT; w++)
        if (same(net_words[w].name, text)) return w;
    return -1;
}

int net_word_first(NetWordSet set, NetWordGroup group)
{
    for (int w = 0; w < NW_COUNT; w++)
        if (net_words[w].group == group && net_word(set, (NetWord)w)) return w;
    return -1;
}
