/* test/support/form_run.c -- see test/form_run.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test/form_run.h"

typedef struct Map {
    int images, pixels, c;
} Map;

static float level(const QuantForm *f, int channel, float x)
{
    const int at = f->tables == 1 ? 0 : channel;
    int k = 0;
    for (int i = 1; i < f->nlevels; i++) {
        const float t = f->threshold[i * f->tables + at];
        k = (f->above ? x > t : x >= t) ? i : k;
    }
    return f->value[k * f->tables + at];
}

static float apply(const QuantForm *f, const FormStep *s, int channel, float x, float v)
{
    switch (s->op) {
    case FORM_MAX:
        return x > v ? x : v;
    case FORM_MIN:
        return x < v ? x : v;
    case FORM_ADD:
        return x + v;
    case FORM_MUL:
        return x * v;
    case FORM_DIV:
        return x / v;
    case FORM_ROUND:
        return rintf(x);
    case FORM_FLOOR:
        return floorf(x);
    case FORM_ABS:
        return fabsf(x);
    case FORM_SQRT:
        return sqrtf(x);
    case FORM_LEVELS:
        return level(f, channel, x);
    case FORM_MEAN:
    case FORM_NOPS:
        break;
    }
    fail_msg("step %d", (int)s->op);
    return 0;
}

/* Values at + i * step, i < n. */
static void mean(const float *x, float *y, size_t at, size_t n, size_t step)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[at + i * step];
    for (size_t i = 0; i < n; i++) y[at + i * step] = (float)(sum / (double)n);
}

static void means(const Map *m, FormPart part, const float *x, float *y)
{
    const size_t c = (size_t)m->c, image = (size_t)m->pixels * c;
    for (size_t i = 0; i < (size_t)m->images; i++) {
        if (part == FORM_IMAGE) mean(x, y, i * image, image, 1);
        for (size_t p = 0; part == FORM_PIXEL && p < (size_t)m->pixels; p++)
            mean(x, y, i * image + p * c, c, 1);
        for (size_t k = 0; part == FORM_MAP && k < c; k++)
            mean(x, y, i * image + k, (size_t)m->pixels, c);
    }
}

void form_run(const QuantForm *f, int images, int pixels, const float *x, float *y)
{
    const Map m = {images, pixels, f->c ? f->c : 1};
    const size_t n = (size_t)images * (size_t)pixels * (size_t)m.c;
    float *value = xcalloc((size_t)(f->n + 1) * n, sizeof *value);
    memcpy(value, x, n * sizeof *x);
    for (int i = 0; i < f->n; i++) {
        const FormStep *s = &f->step[i];
        const float *a = value + (size_t)s->left * n,
                    *b = s->right < 0 ? NULL : value + (size_t)s->right * n;
        float *to = value + (size_t)(i + 1) * n;
        assert_true(s->left >= 0 && s->left <= i && s->right <= i);
        if (s->op == FORM_MEAN) {
            means(&m, s->part, a, to);
            continue;
        }
        for (size_t k = 0; k < n; k++) {
            const int channel = (int)(k % (size_t)m.c);
            to[k] = apply(f, s, channel, a[k],
                          b ? b[k] : s->by_channel ? s->by_channel[channel] : s->v);
        }
    }
    memcpy(y, value + (size_t)f->n * n, n * sizeof *y);
    free(value);
}
