/* test/data_files.h -- builds data set files by hand for test_data_files.c: gzip, tar, PNG, idx,
 * CIFAR batches, and two small JPEGs. Everything is written without the libraries under test. */
#ifndef TEST_DATA_FILES_H
#define TEST_DATA_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/mem.h"

/* 16 x 16: red grows with x, green with y (16 a pixel), blue is 128. */
static const char jpeg_rgb[] = "ffd8ffdb0043000302020302020303030304030304050805050404050a070706080"
                               "c0a0c0c0b0a0b0b0d0e12100d0e11"
                               "0e0b0b1016101113141515150c0f171816141812141514ffdb00430103040405040"
                               "509050509140d0b0d141414141414"
                               "1414141414141414141414141414141414141414141414141414141414141414141"
                               "414141414141414141414ffc00011"
                               "080010001003012200021101031101ffc4001500010100000000000000000000000"
                               "000000708ffc40019100001050000"
                               "00000000000000000000000006072332a1ffc400150101010000000000000000000"
                               "0000000000204ffc4001b11000201"
                               "050000000000000000000000000006220507313251ffda000c03010002110311003"
                               "f0095528d4d21c19926d4d21c1892"
                               "6d4d21c19928d4d21c2bacb86641b6cfba4f87ffd9";
/* The same as inverted (Adobe) CMYK: cyan 16 x, magenta 16 y, yellow 100, black 40. */
static const char jpeg_cmyk[] = "ffd8ffee000e41646f626500640000000000ffdb00430003020203020203030303"
                                "04030304050805050404050a070706"
                                "080c0a0c0c0b0a0b0b0d0e12100d0e110e0b0b1016101113141515150c0f171816"
                                "141812141514ffc000140800100010"
                                "044311004d11005911004b1100ffc4001700010101010000000000000000000000"
                                "0000090807ffc4001a100100010500"
                                "0000000000000000000000000818446481a2ffda000e0443004d0059004b00003f"
                                "00d7b24aeb6d7b52595d3a43742554"
                                "92bad952595d02aac92bada555496574095524aeb654965740ffd9";

static inline void put_hex(Str *b, const char *hex)
{
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned v;
        char byte;
        sscanf(hex, "%2x", &v);
        byte = (char)v;
        str_putn(b, &byte, 1);
    }
}

static inline void put_int(Str *b, uint32_t v, int bytes, bool big)
{
    for (int i = 0; i < bytes; i++) {
        char c = (char)(v >> 8 * (big ? bytes - 1 - i : i) & 255);
        str_putn(b, &c, 1);
    }
}

static inline void put_fill(Str *b, int c, size_t n)
{
    mem_grow(&b->s, &b->cap, b->len + n + 1, 1);
    memset(b->s + b->len, c, n);
    b->len += n;
    b->s[b->len] = 0;
}

static inline uint32_t crc32_of(const char *p, size_t n)
{
    uint32_t c = 0xFFFFFFFFu;
    while (n--) {
        c ^= (unsigned char)*p++;
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
    }
    return ~c;
}

/* Deflate in stored blocks, without a wrapper. */
static inline void put_stored(Str *b, const char *p, size_t n)
{
    do {
        size_t k = n < 65535 ? n : 65535;
        put_int(b, k == n, 1, false);
        put_int(b, (uint32_t)k, 2, false);
        put_int(b, ~(uint32_t)k & 0xFFFF, 2, false);
        str_putn(b, p, k);
        p += k;
        n -= k;
    } while (n);
}

static inline void gzip(Str *b, const char *p, size_t n)
{
    put_hex(b, "1f8b0800000000000003");
    put_stored(b, p, n);
    put_int(b, crc32_of(p, n), 4, false);
    put_int(b, (uint32_t)n, 4, false);
}

/* One ustar member; `size` may lie about the data. */
static inline void tar_header(Str *b, const char *name, const char *prefix, char type,
                              uint64_t size)
{
    char h[512] = {0};
    unsigned sum = 0;
    memcpy(h, name, strnlen(name, 100));
    snprintf(h + 100, 24, "%07o%c%07o%c%07o", 0644, 0, 0, 0, 0);
    snprintf(h + 124, 12, "%011llo", (unsigned long long)size);
    snprintf(h + 136, 12, "%011o", 0);
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257, "ustar\00000", 8);
    memcpy(h + 345, prefix, strnlen(prefix, 155));
    for (int i = 0; i < 512; i++) sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
    str_putn(b, h, 512);
}

static inline void tar_member(Str *b, const char *name, char type, const char *data, size_t n)
{
    tar_header(b, name, "", type, n);
    str_putn(b, data, n);
    put_fill(b, 0, (512 - n % 512) % 512);
}

static inline void tar_end(Str *b)
{
    put_fill(b, 0, 1024);
}

static inline void png_chunk(Str *b, const char *type, const char *p, size_t n)
{
    Str c = {0};
    str_putn(&c, type, 4);
    str_putn(&c, p, n);
    put_int(b, (uint32_t)n, 4, true);
    str_putn(b, c.s, c.len);
    put_int(b, crc32_of(c.s, c.len), 4, true);
    str_free(&c);
}

/* 8 bits, `c` channels (1 grey, 3 RGB, 4 with alpha), pixel channel values x + 10 y + 50 ch. */
static inline void put_png(Str *b, int w, int h, int c)
{
    Str raw = {0}, z = {0}, head = {0};
    uint32_t s1 = 1, s2 = 0;
    for (int y = 0; y < h; y++) {
        put_int(&raw, 0, 1, true);
        for (int i = 0; i < w * c; i++)
            put_int(&raw, (uint32_t)(i / c + 10 * y + 50 * (i % c)) & 255, 1, true);
    }
    for (size_t i = 0; i < raw.len; i++) {
        s1 = (s1 + (unsigned char)raw.s[i]) % 65521;
        s2 = (s2 + s1) % 65521;
    }
    put_hex(&z, "7801");
    put_stored(&z, raw.s, raw.len);
    put_int(&z, s2 << 16 | s1, 4, true);
    put_int(&head, (uint32_t)w, 4, true);
    put_int(&head, (uint32_t)h, 4, true);
    put_int(&head, 8, 1, true);
    put_int(&head, c == 1 ? 0 : c == 3 ? 2 : 6, 1, true);
    put_int(&head, 0, 3, true);
    put_hex(b, "89504e470d0a1a0a");
    png_chunk(b, "IHDR", head.s, head.len);
    png_chunk(b, "IDAT", z.s, z.len);
    png_chunk(b, "IEND", "", 0);
    str_free(&raw), str_free(&z), str_free(&head);
}

/* Pixel of plane c at position i of record r, in every CIFAR file made here. */
static inline unsigned char cifar_pixel(int r, int c, int i)
{
    return (unsigned char)(7 * r + 50 * c + i % 97);
}

static inline void put_planes(Str *b, int r)
{
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 1024; i++) put_int(b, cifar_pixel(r, c, i), 1, true);
}

/* `n` records, record r labelled (first + r) % classes; CIFAR-100 has a coarse label in front. */
static inline void put_cifar_binary(Str *b, int n, int first, int classes)
{
    for (int r = 0; r < n; r++) {
        if (classes == 100) put_int(b, 3, 1, true);
        put_int(b, (uint32_t)((first + r) % classes), 1, true);
        put_planes(b, first + r);
    }
}

/* The same as Python 2 with numpy pickles it, protocol 2. */
static inline void put_cifar_pickle(Str *b, int n, int first, int classes)
{
    put_hex(b, "8002");
    str_puts(b, "}(U\x04"
                "datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK");
    put_hex(b, "0085");
    str_puts(b, "U\x01"
                "b");
    put_hex(b, "8752");
    str_puts(b, "(K\x01K");
    put_int(b, (uint32_t)n, 1, false);
    str_puts(b, "M");
    put_int(b, 3072, 2, false);
    put_hex(b, "86");
    str_puts(b, "cnumpy\ndtype\nU\x02"
                "u1K");
    put_hex(b, "004b0187");
    str_puts(b, "R(K\x03U\x01|NNNJ");
    put_hex(b, "ffffffff4affffffff4b00");
    str_puts(b, "tb");
    put_hex(b, "89");
    str_puts(b, "T");
    put_int(b, (uint32_t)n * 3072, 4, false);
    for (int r = 0; r < n; r++) put_planes(b, first + r);
    str_puts(b, "tb");
    str_puts(b, classes == 100 ? "U\x0b"
                                 "fine_labels"
                               : "U\x06"
                                 "labels");
    str_puts(b, "](");
    for (int r = 0; r < n; r++) {
        str_puts(b, "K");
        put_int(b, (uint32_t)((first + r) % classes), 1, false);
    }
    str_puts(b, "eu.");
}

static inline void put_idx(Str *b, int ndim, const uint32_t *dim, unsigned step)
{
    size_t n = 1;
    put_int(b, 0x800u | (unsigned)ndim, 4, true);
    for (int i = 0; i < ndim; i++) {
        put_int(b, dim[i], 4, true);
        n *= dim[i];
    }
    for (size_t i = 0; i < n; i++)
        put_int(b, (uint32_t)(i * step % (ndim == 1 ? 10 : 256)), 1, true);
}

/* Writes and frees; folders on the way are made. */
static inline void save(const char *dir, const char *name, Str *b)
{
    char path[1024];
    FILE *f;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0777);
        *p = '/';
    }
    remove(path); /* writing over a file makes some file systems wait for the disk */
    f = fopen(path, "wb");
    ASSERT(f && fwrite(b->s ? b->s : "", 1, b->len, f) == b->len && !fclose(f), "cannot write %s",
           path);
    str_free(b);
}

#endif
