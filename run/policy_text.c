/* run/policy_text.c -- see policy_text.h. */
#include "run/policy_text.h"

#include <stdlib.h>
#include <string.h>

#include "io/fs.h"

#define MAX_FILE ((size_t)1 << 20)
#define BLANKS   " \t\r\f\v"

/* What is being read. The arrays have room for one entry per line. */
typedef struct Reader {
    Arena *a;
    const char *file;
    int line, col;
    PolicySection *s;
    PolicyBlock *b;
    PolicyItem *it;
    int ns, nb, ni;
    bool open; /* the last block belongs to the last section and takes more */
    Err *e;
    int faults;
} Reader;

static void fault(Reader *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fault(Reader *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    policy_fault(r->e, r->file, r->line, r->col, fmt, ap);
    va_end(ap);
    r->faults++;
}

static Reader reader(Arena *a, const char *file, size_t lines, Err *e)
{
    return (Reader){.a = a,
                    .file = arena_strdup(a, file),
                    .s = arena_alloc(a, (lines + 1) * sizeof(PolicySection)),
                    .b = arena_alloc(a, (lines + 1) * sizeof(PolicyBlock)),
                    .it = arena_alloc(a, (lines + 1) * sizeof(PolicyItem)),
                    .e = e};
}

/* ---- words and values ---- */

/* A copy without the blanks at both ends. */
static const char *stripped(Arena *a, const char *s, size_t n)
{
    while (n && strchr(BLANKS, s[0])) s++, n--;
    while (n && strchr(BLANKS, s[n - 1])) n--;
    return arena_printf(a, "%.*s", (int)n, s);
}

/* Parts of `s` between the characters of `at`, blank ones left out; how many. */
static int split(Arena *a, const char *s, const char *at, const char ***part)
{
    int n = 0;
    *part = arena_alloc(a, (strlen(s) + 1) * sizeof **part);
    while (*s) {
        const size_t len = strcspn(s, at);
        const char *one = stripped(a, s, len);
        if (*one) (*part)[n++] = one;
        s += len + (s[len] != 0);
    }
    return n;
}

/* "a, b" and "a b" are lists. */
static void put_value(Reader *r, PolicyItem *it, const char *text)
{
    const char **part;
    const char *at = strchr(text, ',') ? "," : BLANKS;
    it->n = split(r->a, text, at, &part);
    it->list = text[strcspn(text, at)] != 0;
    it->value = part;
}

/* ---- sections ---- */

static unsigned when_of(const char *word)
{
    for (int i = 0; i < PW_COUNT; i++)
        if (str_eq(policy_when[i], word)) return 1u << i;
    return 0;
}

static void put_triggers(Reader *r, PolicySection *s, const char *const *word, int n)
{
    int *t = arena_alloc(r->a, ((size_t)n + 1) * sizeof *t);
    for (int i = 0; i < n; i++) {
        char *end;
        const long v = strtol(word[i], &end, 10);
        if (*end || v < 0 || v > 1000000)
            fault(r, "'%.40s' is not an epoch; expected numbers from 0", word[i]);
        else
            t[s->ntrigger++] = (int)v;
    }
    s->trigger = t;
    if (n && !(s->when & 1u << PW_EPOCH))
        fault(r, "'%.40s' behind a section that is not on epoch; expected on init: alone, or on epoch: 10 20", word[0]);
    if (s->when & 1u << PW_EPOCH && !n) fault(r, "on epoch without epochs; expected on epoch: 10 20");
    if (s->when & (1u << PW_NORM | 1u << PW_ELTWISE))
        log_msg(LOG_WARN, "%s:%d: policy: nothing here listens to the sections norm and eltwise", r->file,
                r->line);
}

static bool has(const PolicyBlock *b, const char *key)
{
    for (int i = 0; i < b->n; i++)
        if (str_eq(b->item[i].key, key)) return true;
    return false;
}

static bool sets(const PolicyBlock *b)
{
    for (int i = 0; i < b->n; i++)
        if (!policy_chooses(&b->item[i])) return true;
    return false;
}

/* A block that sets nothing is not one. */
static void end_block(Reader *r)
{
    const PolicyBlock *b = &r->b[r->nb];
    const int line = r->line, col = r->col;
    if (!r->open) return;
    if (sets(b)) {
        r->nb++;
        r->s[r->ns - 1].nblocks++;
    } else {
        r->line = b->item[0].line, r->col = b->item[0].col;
        fault(r, "a block that sets nothing; expected ATTRIBUTE: VALUE behind by_index");
        r->line = line, r->col = col;
    }
    r->open = false;
}

/* "on init epoch" before the colon. False: it is no header. */
static bool begin_section(Reader *r, const char *head, const char *triggers, bool last_counts)
{
    const char **word, **number;
    const int n = split(r->a, head, BLANKS, &word);
    unsigned when = 0;
    bool on = false;
    for (int i = 0; i < n; i++) on = on || str_eq(word[i], "on");
    if (!on) return false;
    for (int i = 0; i < n; i++) when |= when_of(word[i]);
    for (int i = 0; i < n && when; i++)
        if (!str_eq(word[i], "on") && !when_of(word[i]))
            fault(r, "unknown section '%.40s'; expected init, epoch, norm or eltwise", word[i]);
    if (!when) return false;
    end_block(r);
    for (int i = 0; i < r->ns && last_counts; i++) {
        if (r->s[i].when & when)
            log_msg(LOG_INFO, "%s:%d: policy: this section takes the place of an earlier one of its name",
                    r->file, r->line);
        r->s[i].when &= ~when;
    }
    r->s[r->ns] = (PolicySection){.when = when, .block = r->b + r->nb};
    put_triggers(r, &r->s[r->ns], number, split(r->a, triggers, BLANKS ",", &number));
    r->ns++;
    return true;
}

static void open_block(Reader *r)
{
    r->b[r->nb] = (PolicyBlock){.item = r->it + r->ni};
    r->open = true;
}

static PolicyItem *add_item(Reader *r, const char *key)
{
    PolicyItem *it = &r->it[r->ni++];
    *it = (PolicyItem){.key = key, .file = r->file, .line = r->line, .col = r->col};
    r->b[r->nb].n++;
    return it;
}

/* ---- files ---- */

static void assignment(Reader *r, const char *key, const char *value)
{
    const PolicyItem probe = {.key = key};
    if (str_starts(key, "on ")) {
        fault(r, "unknown section '%.40s'; expected init, epoch, norm or eltwise", key + 3);
        return;
    }
    if (!r->ns) { /* one fault for all lines before the first section: the file may be something else */
        if (!r->faults)
            fault(r, "'%.40s' stands in no section; expected on init: or on epoch: 10 20 before it", key);
        return;
    }
    if (policy_chooses(&probe)) {
        if (r->open && (sets(&r->b[r->nb]) || has(&r->b[r->nb], key))) end_block(r);
        if (!r->open) open_block(r);
    } else if (!r->open) {
        fault(r, "'%.40s' has no by_index before it; expected by_index: all, or numbers of layers", key);
        return;
    }
    put_value(r, add_item(r, key), value);
}

int policy_parse(Policy *p, Arena *a, const char *file, const char *text, Err *e)
{
    size_t lines = 1;
    Reader r;
    for (const char *s = text; *s; s++) lines += *s == '\n';
    r = reader(a, file, lines, e);
    for (int n = 1; *text; n++) {
        const size_t len = strcspn(text, "\n"), code = strcspn(text, "#\n");
        const char *line = stripped(a, text, code), *colon = strchr(line, ':');
        text += len + (text[len] != 0);
        if (!*line) continue;
        r.line = n, r.col = 1;
        if (!colon && r.faults && !r.ns) break;
        if (!colon) {
            fault(&r, "'%.40s' has no ':', and ends the reading in the original; expected KEY: VALUE", line);
            break;
        }
        const char *head = stripped(a, line, (size_t)(colon - line)),
                   *rest = stripped(a, colon + 1, strcspn(colon + 1, ":"));
        const bool begins = begin_section(&r, head, rest, true);
        if (strchr(colon + 1, ':') && r.ns) fault(&r, "a second ':'; expected KEY: VALUE");
        if (!begins) assignment(&r, head, rest);
    }
    end_block(&r);
    if (!r.ns && !r.faults) {
        r.line = r.col = 1;
        fault(&r, "no section in this file; expected on init: or on epoch: 10 20");
    }
    *p = (Policy){.s = r.s, .n = r.ns};
    if (policy_check(p, e)) r.faults++;
    return r.faults ? -1 : 0;
}

int policy_read(Policy *p, Arena *a, const char *file, Err *e)
{
    char *text = fs_read_text(file, MAX_FILE, e);
    int r;
    if (!text) return -1;
    r = policy_parse(p, a, file, text, e);
    free(text);
    return r;
}

/* ---- maps ---- */

static void at(Reader *r, const Yaml *y)
{
    r->file = y->file;
    r->line = y->line;
    r->col = y->col;
}

static void value_from(Reader *r, PolicyItem *it, const Yaml *v)
{
    const char **part;
    if (v->kind == Y_SCALAR) {
        put_value(r, it, v->s);
        return;
    }
    if (v->kind == Y_MAP) fault(r, "%s is a map; expected a value or a list of values", it->key);
    part = arena_alloc(r->a, ((size_t)v->n + 1) * sizeof *part);
    for (int i = 0; v->kind == Y_LIST && i < v->n; i++)
        if (v->v[i]->kind == Y_SCALAR)
            part[it->n++] = v->v[i]->s;
        else
            fault(r, "%s: entry %d is not a single value", it->key, i + 1);
    it->list = true;
    it->value = part;
}

static void block_from(Reader *r, const Yaml *map)
{
    at(r, map);
    if (map->kind != Y_MAP) {
        fault(r, "expected a map such as {by_index: all, by_tag: wt, level_num: -1}");
        return;
    }
    if (!map->n) return;
    open_block(r);
    for (int i = 0; i < map->n; i++) {
        at(r, map->k[i]);
        value_from(r, add_item(r, map->k[i]->s), map->v[i]);
    }
    end_block(r);
}

/* "on epoch 1 3": what stands before the first number, and the numbers. */
static void section_from(Reader *r, const Yaml *key, const Yaml *list)
{
    const size_t head = strcspn(key->s, "0123456789");
    at(r, key);
    if (!begin_section(r, arena_printf(r->a, "on %.*s", (int)head, key->s), key->s + head, false)) {
        fault(r, "'%.60s' is no section; expected on init, or on epoch 10 20", key->s);
        return;
    }
    if (list->kind == Y_LIST)
        for (int i = 0; i < list->n; i++) block_from(r, list->v[i]);
    else
        block_from(r, list);
}

static size_t count(const Yaml *y)
{
    size_t n = 1;
    for (int i = 0; i < y->n; i++) n += count(y->v[i]);
    return n;
}

int policy_from_yaml(Policy *p, Arena *a, const Yaml *map, Err *e)
{
    Reader r = reader(a, map->file, count(map), e);
    for (int i = 0; i < map->n; i++) section_from(&r, map->k[i], map->v[i]);
    *p = (Policy){.s = r.s, .n = r.ns};
    if (policy_check(p, e)) r.faults++;
    return r.faults ? -1 : 0;
}

/* ---- back to text ---- */

static void print_item(const PolicyItem *it, void (*put)(const char *s, Str *out), Str *out)
{
    put(it->key, out);
    str_puts(out, it->list ? ": [" : ": ");
    for (int i = 0; i < it->n; i++) {
        str_puts(out, i ? ", " : "");
        put(it->value[i], out);
    }
    str_puts(out, it->list ? "]" : "");
}

void policy_print(const Policy *p, void (*put)(const char *s, Str *out), Str *out)
{
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        const PolicySection *s = &p->s[i];
        if (!s->when) continue;
        str_printf(out, "%s\"on", n++ ? ", " : "{");
        for (int w = 0; w < PW_COUNT; w++)
            if (s->when & 1u << w) str_printf(out, " %s", policy_when[w]);
        for (int t = 0; t < s->ntrigger; t++) str_printf(out, " %d", s->trigger[t]);
        str_puts(out, "\": [");
        for (int b = 0; b < s->nblocks; b++) {
            str_puts(out, b ? ", {" : "{");
            for (int k = 0; k < s->block[b].n; k++) {
                str_puts(out, k ? ", " : "");
                print_item(&s->block[b].item[k], put, out);
            }
            str_puts(out, "}");
        }
        str_puts(out, "]");
    }
    str_puts(out, n ? "}" : "''");
}
