/* engine/mem.c -- see mem.h. */
#include "engine/mem.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *check(void *p, size_t n)
{
    ASSERT(p || !n, "out of memory: %zu bytes", n);
    return p;
}

void *xmalloc(size_t n)
{
    return check(malloc(n ? n : 1), n);
}

void *xcalloc(size_t n, size_t size)
{
    ASSERT(!size || n <= SIZE_MAX / size, "%zu elements of %zu bytes", n, size);
    return check(calloc(n ? n : 1, size ? size : 1), n * size);
}

void *xrealloc(void *p, size_t n)
{
    return check(realloc(p, n ? n : 1), n);
}

char *xstrndup(const char *s, size_t n)
{
    char *p = xmalloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

static char *vformat(const char *fmt, va_list ap)
{
    va_list again;
    int n;
    char *s;
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    ASSERT(n >= 0, "format '%s'", fmt);
    s = xmalloc((size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    char *s;
    va_start(ap, fmt);
    s = vformat(fmt, ap);
    va_end(ap);
    return s;
}

void *xaligned(size_t n)
{
    size_t size = mem_round_up(n);
    void *p;
    ASSERT(size >= n, "%zu bytes", n);
    p = check(aligned_alloc(MEM_ALIGN, size ? size : MEM_ALIGN), size);
    memset(p, 0, size ? size : MEM_ALIGN);
    return p;
}

void mem_grow(void *p, size_t *cap, size_t need, size_t size)
{
    size_t n = *cap ? *cap : 16;
    void *block; /* copied: *p is a pointer to the caller's type, not to void */
    if (need <= *cap) return;
    ASSERT(need <= SIZE_MAX / 2 / size, "%zu elements of %zu bytes", need, size);
    while (n < need) n *= 2;
    memcpy(&block, p, sizeof block);
    block = xrealloc(block, n * size);
    memcpy(p, &block, sizeof block);
    *cap = n;
}

typedef struct ArenaBlock {
    struct ArenaBlock *next;
    char *data;
    size_t used, size;
} ArenaBlock;

void *arena_alloc(Arena *a, size_t n)
{
    size_t need = mem_round_up(n);
    ArenaBlock *b = a->head;
    char *p;
    ASSERT(need >= n, "%zu bytes", n);
    if (!need) need = MEM_ALIGN;
    if (!b || b->size - b->used < need) {
        b = xcalloc(1, sizeof *b);
        b->size = need > 65536 ? need : 65536;
        b->data = xaligned(b->size);
        if (a->head && need > 65536) { /* a large block does not retire the one being filled */
            b->next = a->head->next;
            a->head->next = b;
        } else {
            b->next = a->head;
            a->head = b;
        }
    }
    p = b->data + b->used;
    b->used += need;
    a->total += need;
    return p;
}

char *arena_strdup(Arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}

char *arena_printf(Arena *a, const char *fmt, ...)
{
    va_list ap;
    char *s, *copy;
    va_start(ap, fmt);
    s = vformat(fmt, ap);
    va_end(ap);
    copy = arena_strdup(a, s);
    free(s);
    return copy;
}

void arena_free(Arena *a)
{
    ArenaBlock *b = a->head;
    while (b) {
        ArenaBlock *next = b->next;
        free(b->data);
        free(b);
        b = next;
    }
    a->head = NULL;
    a->total = 0;
}

void str_putn(Str *b, const char *s, size_t n)
{
    mem_grow(&b->s, &b->cap, b->len + n + 1, 1);
    memcpy(b->s + b->len, s, n);
    b->len += n;
    b->s[b->len] = 0;
}

void str_puts(Str *b, const char *s)
{
    str_putn(b, s, strlen(s));
}

void str_printf(Str *b, const char *fmt, ...)
{
    va_list ap;
    char *s;
    va_start(ap, fmt);
    s = vformat(fmt, ap);
    va_end(ap);
    str_puts(b, s);
    free(s);
}

void str_free(Str *b)
{
    free(b->s);
    *b = (Str){0};
}

bool str_eq(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

#define DIST_MAX 63

int str_distance(const char *a, const char *b)
{
    int d[DIST_MAX + 1][DIST_MAX + 1];
    int n = (int)strnlen(a, DIST_MAX), m = (int)strnlen(b, DIST_MAX);
    for (int i = 0; i <= n; i++) d[i][0] = i;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        for (int j = 1; j <= m; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            int best = d[i - 1][j - 1] + (ca != cb);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                cb == tolower((unsigned char)a[i - 2]) && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *str_nearest(const char *word, const char *const *names, size_t n)
{
    const char *best = NULL;
    int len = (int)strlen(word), limit = len <= 3 ? 1 : len <= 6 ? 2 : 3, least = limit + 1;
    for (size_t i = 0; i < n; i++) {
        int d;
        if (!names[i]) continue;
        d = str_distance(word, names[i]);
        if (d < least && 2 * d <= (int)strlen(names[i])) { /* more than half of a name is another name */
            least = d;
            best = names[i];
        }
    }
    return best;
}
