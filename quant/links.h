/* quant/links.h -- which layers meet at a value: who owns the clip level of a layer's input, and
 * who consumes its output.
 *
 * Values that hold the same numbers up to clipping form a class: a sum joins its inputs and its
 * output; ReLU, max pool, dropout, pad and flatten their input and output; so does the norm behind
 * a convolution. Convolutions, linear layers, average pools and concatenations begin a class of
 * their own.
 *   clip_owner(u)  the first layer, in Spec order, that reads the class of u's input; a unit marked
 *                  UM_OWN_CLIP is its own
 *   feeds(u)       the first layer after u that reads the class of u's output; average pools are
 *                  looked through
 * Source: "master" and "following" layers of F8Net, found there by hand. */
#ifndef QUANT_LINKS_H
#define QUANT_LINKS_H

#include "engine/spec.h"

typedef struct Links {
    int *clip_owner,
        *feeds; /* per unit: conv or linear unit; -1 for other kinds, and where nothing is fed */
} Links;

/* strict: one clip level for all that read a class, whatever their marks, and average pools keep the
 * class: then every two terms of a sum are numbers in units of the same level. */
void links_find(Links *l, const Spec *s, bool strict);
void links_free(Links *l);

#endif
