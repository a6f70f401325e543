/* run/html.c -- see html.h. */
#include "run/html.h"

#include <string.h>

enum { PICTURE_WIDTH = 400, PICTURE_HEIGHT = 300, WIDE_CELL = 32 /* letters: longer ones wrap */ };

static const char style[] =
    "<style>\n"
    ":root{color-scheme:light dark;--back:#f4f5f7;--card:#fff;--ink:#1a1a1a;--quiet:#5a5f68;"
    "--line:#dcdfe4;--accent:#0067a5}\n"
    "@media (prefers-color-scheme:dark){:root{--back:#121316;--card:#1b1c1f;--ink:#f0f0f0;"
    "--quiet:#a8adb5;--line:#35373c;--accent:#58b0ec}}\n"
    "*{box-sizing:border-box}\n"
    "html{-webkit-text-size-adjust:100%}\n"
    "body{margin:0;background:var(--back);color:var(--ink);"
    "font:15px/1.5 system-ui,'DejaVu Sans',Arial,sans-serif}\n"
    "main{max-width:1280px;margin:0 auto;padding:16px}\n"
    "h1{font-size:24px;line-height:1.25;margin:8px 0 2px;overflow-wrap:anywhere}\n"
    "h2{font-size:18px;margin:32px 0 10px;padding-bottom:4px;border-bottom:1px solid var(--line)}\n"
    "p{margin:6px 0;max-width:80ch;overflow-wrap:anywhere}\n"
    ".note,figcaption{color:var(--quiet);font-size:13px}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(128px,1fr));gap:10px;"
    "margin:14px 0}\n"
    ".tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 12px;"
    "overflow-wrap:anywhere}\n"
    ".tile b{display:block;font-size:19px;font-weight:600;line-height:1.3}\n"
    ".tile span{color:var(--quiet);font-size:13px}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));"
    "gap:12px}\n"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;"
    "padding:6px;overflow:hidden}\n"
    "figure svg{display:block;width:100%;height:auto}\n"
    "figcaption{padding:2px 8px 6px}\n"
    ".scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;"
    "margin:10px 0}\n"
    "table{border-collapse:collapse;width:100%;font-size:14px}\n"
    "th,td{padding:5px 12px;text-align:left;vertical-align:top;white-space:nowrap;"
    "border-bottom:1px solid var(--line)}\n"
    "tr:last-child td{border-bottom:0}\n"
    "th{color:var(--quiet);font-weight:600}\n"
    "td.w{white-space:normal;min-width:26ch;overflow-wrap:anywhere}\n"
    ".n{text-align:right;font-variant-numeric:tabular-nums}\n"
    "details{margin:10px 0}summary{cursor:pointer;color:var(--accent)}\n"
    "pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px;"
    "overflow-x:auto;font-size:12.5px;line-height:1.45}\n"
    "@media print{figure,.tile,.scroll{break-inside:avoid}}\n"
    "</style>\n";

void html_text(Str *out, const char *s)
{
    static const char special[] = "&<>\"";
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    for (; *s; s++) {
        const char *at = strchr(special, *s);
        if (at)
            str_puts(out, entity[at - special]);
        else
            str_putn(out, s, 1);
    }
}

static void element(Str *out, const char *open, const char *text, const char *close)
{
    str_puts(out, open);
    html_text(out, text);
    str_puts(out, close);
}

void html_begin(Str *out, const char *title)
{
    str_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                  "<link rel=\"icon\" href=\"data:,\">\n");
    element(out, "<title>", title, "</title>\n");
    str_puts(out, style);
    plot_style(out);
    element(out, "</head>\n<body>\n<main>\n<h1>", title, "</h1>\n");
}

void html_end(Str *out)
{
    str_puts(out, "</main>\n</body>\n</html>\n");
}

void html_heading(Str *out, const char *text)
{
    element(out, "<h2>", text, "</h2>\n");
}

void html_note(Str *out, const char *text)
{
    element(out, "<p class=\"note\">", text, "</p>\n");
}

void html_tiles_begin(Str *out)
{
    str_puts(out, "<div class=\"tiles\">\n");
}

void html_tile(Str *out, const char *what, const char *value)
{
    element(out, "<div class=\"tile\"><b>", value, "</b>");
    element(out, "<span>", what, "</span></div>\n");
}

void html_tiles_end(Str *out)
{
    str_puts(out, "</div>\n");
}

void html_table_begin(Str *out, const HtmlColumn *c, int n)
{
    str_puts(out, "<div class=\"scroll\"><table>\n<tr>");
    for (int i = 0; i < n; i++)
        element(out, c[i].number ? "<th class=\"n\">" : "<th>", c[i].title, "</th>");
    str_puts(out, "</tr>\n");
}

void html_row(Str *out, const HtmlColumn *c, int n, const char *const *cell)
{
    str_puts(out, "<tr>");
    for (int i = 0; i < n; i++) {
        const char *s = cell[i] ? cell[i] : "";
        element(out,
                c[i].number             ? "<td class=\"n\">"
                : strlen(s) > WIDE_CELL ? "<td class=\"w\">"
                                        : "<td>",
                s, "</td>");
    }
    str_puts(out, "</tr>\n");
}

void html_table_end(Str *out)
{
    str_puts(out, "</table></div>\n");
}

static bool begins_with_one(const char *name, const char *const *prefix)
{
    while (*prefix && !str_starts(name, *prefix)) prefix++;
    return *prefix != NULL;
}

int html_pictures(Str *out, const Pictures *p, const char *const *prefix, bool others)
{
    int shown = 0;
    for (int i = 0; i < p->n; i++) {
        Plot plot = p->v[i].plot;
        if (begins_with_one(p->v[i].name, prefix) == others) continue;
        if (!shown++) str_puts(out, "<div class=\"grid\">\n");
        plot.width = PICTURE_WIDTH;
        plot.height = PICTURE_HEIGHT;
        plot.bare = true;
        str_puts(out, "<figure>\n");
        plot_svg(&plot, out);
        if (p->v[i].note) element(out, "<figcaption>", p->v[i].note, "</figcaption>\n");
        str_puts(out, "</figure>\n");
    }
    if (shown) str_puts(out, "</div>\n");
    return shown;
}

void html_details(Str *out, const char *summary, const char *text)
{
    element(out, "<details><summary>", summary, "</summary>\n");
    element(out, "<pre>", text, "</pre></details>\n");
}
