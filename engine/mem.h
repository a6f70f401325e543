/* engine/mem.h -- memory that cannot fail, arenas, growing strings, and "did you mean". */
#ifndef ENGINE_MEM_H
#define ENGINE_MEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/err.h"

/* The text of a variadic function's format, cut off where the array `name` ends. Wants <stdio.h>. */
#define FORMAT_NAME(name, fmt)                                                                     \
    do {                                                                                           \
        va_list ap_;                                                                               \
        va_start(ap_, fmt);                                                                        \
        vsnprintf(name, sizeof(name), fmt, ap_);                                                   \
        va_end(ap_);                                                                               \
    } while (0)

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MEM_ALIGN    64 /* what oneDNN and AVX-512 like */

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size); /* aborts on overflow of n * size too */
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2); /* the caller frees */

/* To the next multiple of MEM_ALIGN. */
static inline size_t mem_round_up(size_t n)
{
    return (n + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

/* 64-byte aligned, zeroed; release with free(). */
void *xaligned(size_t n);

/* Grows `*p` (elements of `size` bytes, capacity `*cap`) to hold at least `need` elements. */
void mem_grow(void *p, size_t *cap, size_t need, size_t size);

/* Things that live and die together. All blocks are zeroed and 64-byte aligned.
 * A zeroed Arena is empty and ready. */
typedef struct Arena {
    struct ArenaBlock *head;
    size_t total; /* bytes handed out */
} Arena;

void *arena_alloc(Arena *a, size_t n);
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
void arena_free(Arena *a);

/* A growing string; a zeroed Str is empty (s == NULL). */
typedef struct Str {
    char *s;
    size_t len, cap;
} Str;

void str_putn(Str *b, const char *s, size_t n);
void str_puts(Str *b, const char *s);
void str_printf(Str *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void str_free(Str *b);

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* Bytes that can be had without another process or this one being ended for it: free memory and caches, swap,
 * within a container's limit. SIZE_MAX where the system does not say. */
size_t mem_left(void);

/* Damerau-Levenshtein distance, case-insensitive. */
int str_distance(const char *a, const char *b);

/* The entry of `names` (n of them, NULLs skipped) nearest to `word`, or NULL when none is near
 * enough to be worth suggesting. */
const char *str_nearest(const char *word, const char *const *names, size_t n);

#endif
