/* io/pickle_text.c -- the opcodes of protocol 0, whose arguments are lines of text. */
#include "io/pickle_machine.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FLOAT_CHARS 64 /* characters of a number */

/* A line as a terminated number text; false when it is too long or holds a NUL. */
static bool number_line(Machine *m, char buf[FLOAT_CHARS])
{
    size_t n;
    const char *s = pm_line(m, &n);
    if (!s) return false;
    if (n == 0 || n >= FLOAT_CHARS || memchr(s, 0, n) || isspace((unsigned char)s[0])) {
        pm_fault(m, "a malformed number");
        return false;
    }
    memcpy(buf, s, n);
    buf[n] = 0;
    return true;
}

/* INT and LONG; "00" and "01" are how booleans are written. */
int pm_text_int(Machine *m, int arg)
{
    char buf[FLOAT_CHARS], *end;
    long long v;
    (void)arg;
    if (!number_line(m, buf)) return -1;
    if (str_eq(buf, "00") || str_eq(buf, "01")) return pm_push_int(m, PY_BOOL, buf[1] == '1');
    errno = 0;
    v = strtoll(buf, &end, 10);
    if (*end == 'L' && end != buf) end++;
    if (end == buf || *end || errno) return pm_fault(m, "'%s' is not an integer of 8 bytes", buf);
    return pm_push_int(m, PY_INT, v);
}

int pm_text_float(Machine *m, int arg)
{
    char buf[FLOAT_CHARS], *end;
    double v;
    (void)arg;
    if (!number_line(m, buf)) return -1;
    v = strtod(buf, &end);
    return end == buf || *end ? pm_fault(m, "'%s' is not a number", buf) : pm_push_float(m, v);
}

/* PUT and GET. */
int pm_text_memo(Machine *m, int put)
{
    char buf[FLOAT_CHARS], *end;
    unsigned long long i;
    if (!number_line(m, buf)) return -1;
    i = strtoull(buf, &end, 10);
    if (!isdigit((unsigned char)buf[0]) || *end) return pm_fault(m, "memo index '%s'", buf);
    return put ? pm_memo_put(m, i) : pm_memo_get(m, i);
}

/* `digits` hexadecimal digits at s (n left), or -1. */
static long hex(const char *s, size_t n, size_t digits)
{
    long v = 0;
    if (n < digits) return -1;
    for (size_t i = 0; i < digits; i++) {
        int c = tolower((unsigned char)s[i]);
        if (!isxdigit(c)) return -1;
        v = v << 4 | (isdigit(c) ? c - '0' : c - 'a' + 10);
    }
    return v;
}

/* The escapes of repr(): 's' is behind the backslash; returns the characters used, 0 when it is
 * none. */
static size_t unescape(const char *s, size_t n, char *out)
{
    static const char from[] = "\\'\"nrtabfv", to[] = "\\'\"\n\r\t\a\b\f\v";
    const char *at;
    size_t k = 0;
    int v = 0;
    if (!n) return 0;
    if (s[0] == 'x') {
        long h = hex(s + 1, n - 1, 2);
        *out = (char)h;
        return h < 0 ? 0 : 3;
    }
    for (; k < 3 && k < n && s[k] >= '0' && s[k] <= '7'; k++) v = v * 8 + (s[k] - '0');
    if (k) {
        *out = (char)v;
        return k;
    }
    at = s[0] ? strchr(from, s[0]) : NULL;
    if (!at) return 0;
    *out = to[at - from];
    return 1;
}

static size_t put_utf8(char *out, unsigned long c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

/* One character, or escape, of s (n bytes are left) to out; *put: the bytes written. Returns the
 * bytes read, 0 for an unknown escape. */
typedef size_t Decode(const char *s, size_t n, char *out, size_t *put);

static size_t decode_byte(const char *s, size_t n, char *out, size_t *put)
{
    const size_t used = *s == '\\' ? unescape(s + 1, n - 1, out) : 0;
    *put = 1;
    if (*s == '\\') return used ? 1 + used : 0;
    *out = *s;
    return 1;
}

static size_t decode_letter(const char *s, size_t n, char *out, size_t *put)
{
    const size_t digits = *s != '\\' || n < 2 ? 0 : s[1] == 'u' ? 4 : s[1] == 'U' ? 8 : 0;
    const long c = digits ? hex(s + 2, n - 2, digits) : (unsigned char)*s;
    if (c < 0 || c > 0x10FFFF) return 0;
    *put = put_utf8(out, (unsigned long)c);
    return digits ? 2 + digits : 1;
}

static int push_decoded(Machine *m, const char *s, size_t n, Decode *one, PyKind kind)
{
    char *out = pm_take(m, 2 * n); /* Latin-1 grows to two bytes at most, escapes shrink */
    size_t k = 0;
    for (size_t i = 0, used, put = 0; i < n; i += used, k += put)
        if (!(used = one(s + i, n - i, out + k, &put)))
            return pm_fault(m, "an unknown escape in a text");
    return pm_push_text(m, kind, out, k);
}

/* STRING: repr() of a Python 2 str, with its quotes. */
int pm_text_string(Machine *m, int arg)
{
    size_t n;
    const char *s = pm_line(m, &n);
    (void)arg;
    if (!s) return -1;
    if (n < 2 || (s[0] != '\'' && s[0] != '"') || s[n - 1] != s[0])
        return pm_fault(m, "a string without quotes");
    return push_decoded(m, s + 1, n - 2, decode_byte, PY_BYTES);
}

/* UNICODE: Latin-1 with \uXXXX and \UXXXXXXXX. */
int pm_text_unicode(Machine *m, int arg)
{
    size_t n;
    const char *s = pm_line(m, &n);
    (void)arg;
    return s ? push_decoded(m, s, n, decode_letter, PY_STR) : -1;
}

/* LIST and DICT: everything above the mark. */
int pm_text_container(Machine *m, int kind)
{
    size_t k;
    PyObj **t = pm_pop_mark(m, &k), **item, *o;
    if (!t) return -1;
    item = pm_take(m, k * sizeof *item);
    if (k) memcpy(item, t, k * sizeof *item);
    o = pm_push_new(m, (PyKind)kind);
    if (!o) return -1;
    if (kind == PY_DICT) return pm_put_pairs(m, o, item, k);
    pm_append(m, o, item, k, 1);
    return 0;
}
