/* data/decode.h -- JPEG and PNG bytes to 8-bit RGB. */
#ifndef DATA_DECODE_H
#define DATA_DECODE_H

#include "data/data.h"

typedef enum Decoder { DECODER_AUTO, DECODER_LIBJPEG, DECODER_STB } Decoder;

/* "auto": libjpeg for JPEG where it was built in, stb_image for the rest. "libjpeg" without it is
 * ERR_CONFIG. */
int decoder_find(const char *name, Decoder *d, Err *e);

/* True for the endings .jpg .jpeg .png, any case. */
bool decode_known_name(const char *name);

/* `n` bytes of an image file (JPEG or PNG, told by their first bytes) to RGB, 3 channels whatever
 * the file has: grey is repeated, transparency dropped, CMYK converted as Pillow does. im->px grows
 * as needed. Cut, damaged, or larger than 16384 pixels a side: ERR_DATA, naming `name`. May be
 * called from several threads at once; never prints. */
int decode_image(const void *bytes, size_t n, Decoder d, const char *name, Image *im, Err *e);

/* The same, where only a part of the image (NULL: all) must be right: in a JPEG the transformations
 * of the rest are left out. Its pixels and the faults found are those of decode_image. */
int decode_part(const void *bytes, size_t n, Decoder d, const char *name, const ImagePart *part,
                Image *im, Err *e);

#endif
