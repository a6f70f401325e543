/* data/color.c -- brightness, contrast and saturation as Pillow's ImageEnhance does them: a blend
 * in float of the image with a degenerate one (black, its mean grey, itself in grey), cut to 8
 * bits. */
#include "data/transform.h"

/* ITU-R 601 in 16-bit fixed point, Pillow's convert("L"). */
static int grey(const unsigned char *p)
{
    return (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
}

static unsigned char blend(int from, int to, float f)
{
    float v = (float)from + f * (float)(to - from);
    return (unsigned char)(v <= 0.0f ? 0 : v >= 255.0f ? 255 : (int)v);
}

void image_brightness(Image *im, float f)
{
    size_t n = (size_t)im->h * (size_t)im->w * (size_t)im->c;
    for (size_t i = 0; i < n; i++) im->px[i] = blend(0, im->px[i], f);
}

void image_contrast(Image *im, float f)
{
    size_t n = (size_t)im->h * (size_t)im->w;
    uint64_t sum = 0;
    int mean;
    for (size_t i = 0; i < n; i++) sum += (uint64_t)(im->c == 3 ? grey(im->px + 3 * i) : im->px[i]);
    mean = (int)((double)sum / (double)n + 0.5);
    for (size_t i = 0; i < n * (size_t)im->c; i++) im->px[i] = blend(mean, im->px[i], f);
}

void image_saturation(Image *im, float f)
{
    size_t n = (size_t)im->h * (size_t)im->w;
    if (im->c != 3) return;
    for (size_t i = 0; i < n; i++) {
        unsigned char *p = im->px + 3 * i;
        int g = grey(p);
        for (int c = 0; c < 3; c++) p[c] = blend(g, p[c], f);
    }
}
