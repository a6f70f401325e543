/* test/golden_f8net.h -- what the runners of F8Net's blocks and nets share. */
#ifndef TEST_GOLDEN_F8NET_H
#define TEST_GOLDEN_F8NET_H

#include "test/golden_state.h"

/* The options of a case, as the original (compat: original). False: the case is done. */
bool golden_f8net_opts(Case *c, QOpts *o);
/* Shapes, clip owners and followers against params.layers. */
void golden_f8net_links(Case *c, const QPlan *qp);

#endif
