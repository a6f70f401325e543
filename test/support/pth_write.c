/* test/support/pth_write.c -- see pth_write.h. Five pickles, then for each storage its length and
 * its bytes. */
#include "test/support/pth_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_byte(Str *s, int byte)
{
    const char c = (char)byte;
    str_putn(s, &c, 1);
}

static void put_le(Str *s, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) put_byte(s, (int)(v >> 8 * i & 255));
}

static void put_text(Str *s, const char *text) /* BINUNICODE */
{
    put_byte(s, 'X');
    put_le(s, strlen(text), 4);
    str_puts(s, text);
}

static void put_int(Str *s, int v) /* BININT */
{
    put_byte(s, 'J');
    put_le(s, (uint32_t)v, 4);
}

static void put_ordered_dict(Str *s)
{
    str_puts(s, "ccollections\nOrderedDict\n)R");
}

static void put_tensor(Str *s, const Tensor *t, int storage)
{
    char key[16];
    int stride[TENSOR_MAX_DIM], step = 1;
    for (int d = t->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= t->dim[d];
    }
    snprintf(key, sizeof key, "%d", storage);
    str_puts(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(s, "storage");
    str_printf(s, "ctorch\n%sStorage\n", t->dtype == DT_S64 ? "Long" : "Float");
    put_text(s, key);
    put_text(s, "cpu");
    put_int(s, (int)tensor_len(t));
    str_puts(s, "NtQ");
    put_int(s, 0);
    str_puts(s, "(");
    for (int d = 0; d < t->ndim; d++) put_int(s, t->dim[d]);
    str_puts(s, "t(");
    for (int d = 0; d < t->ndim; d++) put_int(s, stride[d]);
    put_byte(s, 't');
    put_byte(s, 0x89); /* requires_grad: False */
    put_ordered_dict(s);
    str_puts(s, "tR");
}

static void put_state_dict(Str *s, const TensorFile *f, const char *prefix)
{
    put_ordered_dict(s);
    for (int i = 0; i < f->n; i++) {
        char *name = xasprintf("%s%s", prefix, f->v[i].name);
        put_text(s, name);
        put_tensor(s, &f->v[i].t, i);
        put_byte(s, 's');
        free(name);
    }
}

static void put_head(Str *s)
{
    static const char magic[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                      version[] = "\x80\x02M\xe9\x03.";
    str_putn(s, magic, sizeof magic - 1);
    str_putn(s, version, sizeof version - 1);
    str_puts(s, "\x80\x02}");
    put_text(s, "protocol_version");
    put_int(s, 1001);
    put_byte(s, 's');
    put_text(s, "little_endian");
    put_byte(s, 0x88);
    str_puts(s, "s.");
}

static void put_object(Str *s, const TensorFile *f, const char *key, const char *prefix)
{
    str_puts(s, "\x80\x02");
    if (key) {
        str_puts(s, "}");
        put_text(s, key);
    }
    put_state_dict(s, f, prefix);
    if (key) {
        str_puts(s, "s");
        put_text(s, "last_epoch");
        put_int(s, 3);
        str_puts(s, "s");
    }
    str_puts(s, ".\x80\x02](");
    for (int i = 0; i < f->n; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        put_text(s, number);
    }
    str_puts(s, "e.");
}

int pth_write(const char *path, const TensorFile *f, const char *key, const char *prefix)
{
    FILE *out = fopen(path, "wb");
    Str s = {0};
    int r = 0;
    if (!out) return -1;
    put_head(&s);
    put_object(&s, f, key, prefix);
    r |= fwrite(s.s, 1, s.len, out) != s.len;
    for (int i = 0; i < f->n; i++) {
        const Tensor *t = &f->v[i].t;
        const int64_t n = (int64_t)tensor_len(t);
        r |= fwrite(&n, sizeof n, 1, out) != 1;
        r |= fwrite(t->data, 1, tensor_bytes(t), out) != tensor_bytes(t);
    }
    str_free(&s);
    r |= fclose(out) != 0;
    return r ? -1 : 0;
}
