/* data/synth.h -- drawn and empty images: data sets that need no files. */
#ifndef DATA_SYNTH_H
#define DATA_SYNTH_H

#include "data/data.h"

extern const char *const synth_names[10];
int synth_open(Dataset *d, const DataOpts *o, Err *e);
int fake_open(Dataset *d, const DataOpts *o, Err *e);
int fake_get(const Dataset *d, uint32_t i, Image *im, int *label, Err *e);
void fake_close(Dataset *d);

#endif
