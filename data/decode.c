/* data/decode.c -- see decode.h. The only file that includes libjpeg and stb_image.
 *
 * The originals read JPEG through Pillow, that is libjpeg with its defaults (slow integer DCT,
 * smooth upsampling), and so do we where libjpeg is there; stb_image differs from it by up to 3
 * levels. Both libraries carry on over damage: libjpeg with a warning, stb in silence. Here a cut
 * or damaged scan is an error; odd but complete files (stray bytes between segments, unknown
 * versions) pass, since such are in ImageNet. */
#include "data/decode.h"

#include <limits.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#ifdef HAVE_LIBJPEG
#include <jpeglib.h>
#include <jerror.h>
#endif

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_FAILURE_USERMSG
#define STBI_MAX_DIMENSIONS 16384
#include <stb/stb_image.h>

#define SIDE_LIMIT  16384
#define PIXEL_LIMIT (1u << 28)
#define TOO_LARGE   "%s: an image of %u x %u pixels; 1 to %d a side are read"

int decoder_find(const char *name, Decoder *d, Err *e)
{
    static const char *const names[] = {"auto", "libjpeg", "stb"};
    if (!name || !*name) name = "auto";
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!str_eq(name, names[i])) continue;
        *d = (Decoder)i;
#ifndef HAVE_LIBJPEG
        if (*d == DECODER_LIBJPEG)
            return err_set(e, ERR_CONFIG,
                           "decoder: this program was built without libjpeg; use auto or stb");
#endif
        return 0;
    }
    return err_set(e, ERR_CONFIG, "decoder: '%s' is none of auto, libjpeg, stb", name);
}

bool decode_known_name(const char *name)
{
    static const char *const ending[] = {".jpg", ".jpeg", ".png"};
    size_t n = strlen(name);
    for (size_t i = 0; i < ARRAY_LEN(ending); i++) {
        size_t k = strlen(ending[i]);
        if (n > k && !strcasecmp(name + n - k, ending[i])) return true;
    }
    return false;
}

static int image_room(Image *im, int h, int w, const char *name, Err *e)
{
    if (h < 1 || w < 1 || h > SIDE_LIMIT || w > SIDE_LIMIT ||
        (uint64_t)h * (uint64_t)w > PIXEL_LIMIT)
        return err_set(e, ERR_DATA, TOO_LARGE, name, (unsigned)w, (unsigned)h, SIDE_LIMIT);
    mem_grow(&im->px, &im->cap, (size_t)h * (size_t)w * 3, 1);
    im->h = h;
    im->w = w;
    im->c = 3;
    return 0;
}

#ifdef HAVE_LIBJPEG
typedef struct JpegErrors {
    struct jpeg_error_mgr mgr; /* first: libjpeg hands back a pointer to it */
    jmp_buf back;
    char text[JMSG_LENGTH_MAX];
} JpegErrors;

static JpegErrors *jpeg_errors(j_common_ptr c)
{
    return (JpegErrors *)(void *)c->err;
}

static void jpeg_fatal(j_common_ptr c)
{
    JpegErrors *je = jpeg_errors(c);
    je->mgr.format_message(c, je->text);
    longjmp(je->back, 1);
}

/* Level -1 is a warning: damage to the coded data ends the decoding, the rest is let pass. */
static void jpeg_message(j_common_ptr c, int level)
{
    int code = c->err->msg_code;
    if (level >= 0) return;
    if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE ||
        code == JWRN_MUST_RESYNC || code == JWRN_BOGUS_PROGRESSION || code == JWRN_NOT_SEQUENTIAL)
        jpeg_fatal(c);
}

static void jpeg_silent(j_common_ptr c)
{
    (void)c;
}

/* Adobe's CMYK is stored inverted; then as Pillow's CMYK to RGB: (255 - K) less its share C. */
static void cmyk_to_rgb(unsigned char *out, const unsigned char *in, int w, bool inverted)
{
    for (int x = 0; x < w; x++, in += 4, out += 3) {
        int k = inverted ? in[3] : 255 - in[3];
        for (int c = 0; c < 3; c++) {
            int ink = inverted ? 255 - in[c] : in[c], t = ink * k + 128;
            int v = k - (((t >> 8) + t) >> 8);
            out[c] = (unsigned char)(v < 0 ? 0 : v);
        }
    }
}

/* Columns around the box: smooth upsampling looks at the neighbours. */
#define MARGIN 16

/* Leaves out the columns outside the box; the first that is decoded. Exactness was checked with
 * libjpeg-turbo 2.1.5; progressive files are decoded whole, since their blocks may be smoothed
 * over the edges. */
static size_t crop_columns(struct jpeg_decompress_struct *c, const ImagePart *part, int box[4])
{
    JDIMENSION first = 0, w = c->image_width, end;
    box[0] = box[1] = 0, box[2] = (int)c->image_width, box[3] = (int)c->image_height;
#if defined(LIBJPEG_TURBO_VERSION_NUMBER) && LIBJPEG_TURBO_VERSION_NUMBER >= 2001005
    if (!part || c->progressive_mode || c->num_components == 4) return 0;
    part->box(part->arg, box[3], box[2], box);
    first = box[0] > MARGIN ? (JDIMENSION)(box[0] - MARGIN) : 0;
    end = (JDIMENSION)box[2] + MARGIN < w ? (JDIMENSION)box[2] + MARGIN : w;
    if (first == 0 && end == w) return 0;
    w = end - first;
    jpeg_crop_scanline(c, &first, &w);
#else
    (void)part, (void)end, (void)w;
#endif
    return first;
}

static void skip_rows(struct jpeg_decompress_struct *c, int to)
{
#if defined(LIBJPEG_TURBO_VERSION_NUMBER)
    if (to > (int)c->output_scanline) jpeg_skip_scanlines(c, (JDIMENSION)to - c->output_scanline);
#else
    (void)c, (void)to;
#endif
}

static int decode_libjpeg(const void *bytes, size_t n, const char *name, const ImagePart *part,
                          Image *im, Err *e)
{
    struct jpeg_decompress_struct c;
    JpegErrors je;
    unsigned char *volatile row = NULL;
    size_t left;
    int box[4];
    memset(&c, 0, sizeof(c));
    c.err = jpeg_std_error(&je.mgr);
    je.mgr.error_exit = jpeg_fatal;
    je.mgr.emit_message = jpeg_message;
    je.mgr.output_message = jpeg_silent;
    if (setjmp(je.back)) {
        jpeg_destroy_decompress(&c);
        free(row);
        return err_set(e, ERR_DATA, "%s: damaged JPEG: %s", name, je.text);
    }
    jpeg_create_decompress(&c);
    jpeg_mem_src(&c, bytes, (unsigned long)n);
    jpeg_read_header(&c, TRUE);
    c.out_color_space = c.num_components == 4 ? JCS_CMYK : JCS_RGB;
    if (image_room(im, (int)c.image_height, (int)c.image_width, name, e)) {
        jpeg_destroy_decompress(&c);
        return -1;
    }
    jpeg_start_decompress(&c);
    if (c.output_components == 4) row = xmalloc((size_t)im->w * 4);
    left = crop_columns(&c, part, box);
    skip_rows(&c, box[1]);
    while (c.output_scanline < c.output_height) {
        unsigned char *out, *to;
        /* not beyond the last row, so that damage behind the box is found too */
        if ((int)c.output_scanline >= box[3]) skip_rows(&c, im->h - 1);
        out = im->px + ((size_t)c.output_scanline * (size_t)im->w + left) * 3;
        to = row ? row : out;
        jpeg_read_scanlines(&c, &to, 1);
        if (row) cmyk_to_rgb(out, row, im->w, c.saw_Adobe_marker);
    }
    jpeg_finish_decompress(&c);
    jpeg_destroy_decompress(&c);
    free(row);
    return 0;
}
#endif

/* Does a JPEG reach its end mark? Segments are walked up to the scan; in coded data FF D9 can only
 * be that mark. */
static bool jpeg_complete(const unsigned char *p, size_t n)
{
    size_t i = 2;
    while (i + 4 <= n && p[i] == 0xFF && p[i + 1] != 0xDA) {
        if (p[i + 1] == 0xFF)
            i++; /* fill byte */
        else
            i += 2 + ((size_t)p[i + 2] << 8 | p[i + 3]);
    }
    for (; i + 1 < n; i++)
        if (p[i] == 0xFF && p[i + 1] == 0xD9) return true;
    return false;
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int decode_stb(const void *bytes, size_t n, bool jpeg, const char *name, Image *im, Err *e)
{
    int w = 0, h = 0, c = 0;
    unsigned char *px;
    const char *kind = jpeg ? "JPEG" : "PNG";
    if (jpeg && !jpeg_complete(bytes, n))
        return err_set(e, ERR_DATA, "%s: damaged JPEG: cut short", name);
    if (!jpeg && n >= 24) { /* stb calls what is too large "not of any known type" */
        const unsigned char *p = bytes;
        uint32_t pw = be32(p + 16), ph = be32(p + 20);
        if (pw > SIDE_LIMIT || ph > SIDE_LIMIT)
            return err_set(e, ERR_DATA, TOO_LARGE, name, pw, ph, SIDE_LIMIT);
    }
    if (!stbi_info_from_memory(bytes, (int)n, &w, &h, &c))
        return err_set(e, ERR_DATA, "%s: damaged %s: %s", name, kind, stbi_failure_reason());
    if (image_room(im, h, w, name, e)) return -1;
    px = stbi_load_from_memory(bytes, (int)n, &w, &h, &c, 3);
    if (!px) return err_set(e, ERR_DATA, "%s: damaged %s: %s", name, kind, stbi_failure_reason());
    if (w != im->w || h != im->h) {
        stbi_image_free(px);
        return err_set(e, ERR_DATA, "%s: damaged %s: two sizes", name, kind);
    }
    memcpy(im->px, px, (size_t)w * (size_t)h * 3);
    stbi_image_free(px);
    return 0;
}

int decode_part(const void *bytes, size_t n, Decoder d, const char *name, const ImagePart *part,
                Image *im, Err *e)
{
    const unsigned char *p = bytes;
    bool jpeg = n >= 4 && p[0] == 0xFF && p[1] == 0xD8;
    if (n > INT_MAX) return err_set(e, ERR_DATA, "%s: larger than 2 GiB", name);
    if (!n) return err_set(e, ERR_DATA, "%s: is empty", name);
    if (!jpeg && (n < 8 || memcmp(p, "\x89PNG\r\n\x1a\n", 8)))
        return err_set(e, ERR_DATA, "%s: neither JPEG nor PNG (starts with %02x %02x)", name, p[0],
                       n > 1 ? p[1] : 0);
#ifdef HAVE_LIBJPEG
    if (jpeg && d != DECODER_STB) return decode_libjpeg(bytes, n, name, part, im, e);
#endif
    (void)d, (void)part;
    return decode_stb(bytes, n, jpeg, name, im, e);
}

int decode_image(const void *bytes, size_t n, Decoder d, const char *name, Image *im, Err *e)
{
    return decode_part(bytes, n, d, name, NULL, im, e);
}
