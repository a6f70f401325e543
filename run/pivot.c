/* run/pivot.c -- see pivot.h. */
#include "run/pivot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The place of a value in a list, entered when new. */
static int place(const char **list, int *n, const char *value)
{
    for (int i = 0; i < *n; i++)
        if (str_eq(list[i], value)) return i;
    list[*n] = value;
    return (*n)++;
}

int pivot_make(Pivot *p, const RunRecord *run, int n, const char *rows, const char *by, Err *e)
{
    *p = (Pivot){.rows = rows, .by = by};
    for (int i = 0; i < n; i++) {
        const char *const key[] = {rows, by};
        for (int k = 0; k < 2; k++)
            if (!*runrecord_option(&run[i], key[k]))
                return err_set(e, ERR_CONFIG, "%s: the run has no key '%s'; expected a key of its resolved.yml",
                               run[i].dir, key[k]);
        const int r = place(p->row, &p->nrows, runrecord_option(&run[i], rows));
        const int c = place(p->column, &p->ncolumns, runrecord_option(&run[i], by));
        if (p->cell[r][c])
            return err_set(e, ERR_CONFIG, "%s and %s both have %s: %s and %s: %s; expected one run for each pair",
                           p->cell[r][c]->dir, run[i].dir, rows, p->row[r], by, p->column[c]);
        p->cell[r][c] = &run[i];
    }
    return 0;
}

static double top1(const RunRecord *r)
{
    return r ? json_number_at(r->run, "result", "top1") : (double)NAN;
}

/* Over the runs of a row: the sum of their seconds, the mean of their speeds. */
static void row_costs(const Pivot *p, int row, double *seconds, double *speed)
{
    int n = 0;
    double sum = 0;
    *seconds = 0;
    for (int c = 0; c < p->ncolumns; c++) {
        if (!p->cell[row][c]) continue;
        const double v = runrecord_speed(p->cell[row][c]);
        *seconds += runrecord_seconds(p->cell[row][c]);
        if (!isfinite(v)) continue;
        sum += v;
        n++;
    }
    *speed = n ? sum / n : (double)NAN;
}

void pivot_text(const Pivot *p, Str *out)
{
    char buf[40];
    str_printf(out, "| %s |", p->rows);
    for (int c = 0; c < p->ncolumns; c++) str_printf(out, " %s %s, top-1 (%%) |", p->by, p->column[c]);
    str_puts(out, " speed (images/s) | time (s) |\n|---|");
    for (int c = 0; c < p->ncolumns + 2; c++) str_puts(out, "---:|");
    str_puts(out, "\n");
    for (int r = 0; r < p->nrows; r++) {
        double seconds, speed;
        row_costs(p, r, &seconds, &speed);
        str_printf(out, "| %s |", p->row[r]);
        for (int c = 0; c < p->ncolumns; c++) str_printf(out, " %s |", runrecord_number(top1(p->cell[r][c]), 2, buf));
        str_printf(out, " %s |", runrecord_number(speed, 0, buf));
        str_printf(out, " %s |\n", runrecord_number(seconds, 0, buf));
    }
}

static json_t *json_number_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *pivot_json(const Pivot *p)
{
    json_t *rows = json_array();
    for (int r = 0; r < p->nrows; r++) {
        double seconds, speed;
        json_t *o = json_object(), *cells = json_object();
        row_costs(p, r, &seconds, &speed);
        for (int c = 0; c < p->ncolumns; c++)
            if (p->cell[r][c])
                json_object_set_new(cells, p->column[c], json_number_or_null(top1(p->cell[r][c])));
        json_object_set_new(o, p->rows, json_string(p->row[r]));
        json_object_set_new(o, "top1", cells);
        json_object_set_new(o, "images_per_second", json_number_or_null(speed));
        json_object_set_new(o, "seconds", json_number_or_null(seconds));
        json_array_append_new(rows, o);
    }
    return rows;
}

void pivot_page(const Pivot *p, Str *out)
{
    const int n = p->ncolumns + 3;
    HtmlColumn *column = xcalloc((size_t)n, sizeof *column);
    const char **cell = xcalloc((size_t)n, sizeof *cell);
    char(*buf)[40] = xcalloc((size_t)n, sizeof *buf);
    char(*title)[80] = xcalloc((size_t)n, sizeof *title);
    column[0] = (HtmlColumn){p->rows, false};
    for (int c = 0; c < p->ncolumns; c++) {
        snprintf(title[c], sizeof title[c], "%s %s, top-1 (%%)", p->by, p->column[c]);
        column[1 + c] = (HtmlColumn){title[c], true};
    }
    column[n - 2] = (HtmlColumn){"speed (images/s)", true};
    column[n - 1] = (HtmlColumn){"time (s)", true};
    html_table_begin(out, column, n);
    for (int r = 0; r < p->nrows; r++) {
        double seconds, speed;
        row_costs(p, r, &seconds, &speed);
        cell[0] = p->row[r];
        for (int c = 0; c < p->ncolumns; c++) cell[1 + c] = runrecord_number(top1(p->cell[r][c]), 2, buf[1 + c]);
        cell[n - 2] = runrecord_number(speed, 0, buf[n - 2]);
        cell[n - 1] = runrecord_number(seconds, 0, buf[n - 1]);
        html_row(out, column, n, cell);
    }
    html_table_end(out);
    free(title);
    free(buf);
    free(cell);
    free(column);
}

/* The columns that are numbers, from the least up. */
static int number_columns(const Pivot *p, int *column, double *x)
{
    int n = 0;
    for (int c = 0; c < p->ncolumns; c++) {
        char *end;
        const double v = strtod(p->column[c], &end);
        int at = n;
        if (*end || !isfinite(v)) continue;
        for (; at > 0 && x[at - 1] > v; at--) {
            x[at] = x[at - 1];
            column[at] = column[at - 1];
        }
        x[at] = v;
        column[at] = c;
        n++;
    }
    return n;
}

void pivot_picture(const Pivot *p, Pictures *to)
{
    int column[PIVOT_MAX];
    double *x = arena_alloc(&to->arena, PIVOT_MAX * sizeof *x);
    PlotSeries *s;
    const int n = number_columns(p, column, x);
    if (n < 2) return;
    s = xcalloc((size_t)p->nrows, sizeof *s);
    for (int r = 0; r < p->nrows; r++) {
        double *y = arena_alloc(&to->arena, (size_t)n * sizeof *y);
        for (int k = 0; k < n; k++) y[k] = top1(p->cell[r][column[k]]);
        s[r] = (PlotSeries){.name = p->row[r], .x = x, .y = y, .n = (size_t)n, .points = true};
    }
    pictures_add(to, "accuracy_by_key",
                 &(Plot){.title = arena_printf(&to->arena, "Accuracy by %s", p->by),
                         .xlabel = p->by,
                         .ylabel = "top-1 (%)",
                         .series = s,
                         .nseries = p->nrows});
    free(s);
}
