/* run/html.h -- a page that is one file: no scripts, nothing from outside, readable from a phone's
 * width on and on light and dark screens. */
#ifndef RUN_HTML_H
#define RUN_HTML_H

#include "run/pictures.h"

void html_begin(Str *out, const char *title);
void html_end(Str *out);

void html_text(Str *out, const char *s); /* escaped */
void html_heading(Str *out, const char *text);
void html_note(Str *out, const char *text); /* a paragraph in a quieter colour */

/* A big number with what it is. */
void html_tiles_begin(Str *out);
void html_tile(Str *out, const char *what, const char *value);
void html_tiles_end(Str *out);

/* Tables scroll sideways by themselves where they are too wide. Numbers stand at the right. */
typedef struct HtmlColumn {
    const char *title;
    bool number;
} HtmlColumn;
void html_table_begin(Str *out, const HtmlColumn *c, int n);
void html_row(Str *out, const HtmlColumn *c, int n, const char *const *cell);
void html_table_end(Str *out);

/* Pictures side by side, as many as there is room for: those whose name begins with one of `prefix`
 * (ended by NULL), or with `others` those of no such name. Returns how many. */
int html_pictures(Str *out, const Pictures *p, const char *const *prefix, bool others);
#define HTML_NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Preformatted text behind a line that opens it. */
void html_details(Str *out, const char *summary, const char *text);

#endif
