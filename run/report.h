/* run/report.h -- report.html of a run folder, and its pictures as files: pictures/NAME.svg. */
#ifndef RUN_REPORT_H
#define RUN_REPORT_H

#include "run/html.h"
#include "run/layerview.h"
#include "run/session.h"

/* From what stands in the folder; `s`: the net with the weights to show, or NULL for a report
 * without layers. `form`: of the pictures; NULL: as the folder's configuration says. */
int report_write(const char *dir, Session *s, const PictureForm *form, Err *e);

/* The same with the net of the folder's own last checkpoint, where there is one. */
int report_folder(const char *dir, const PictureForm *form, Err *e);

/* ---- the part on layers (report_layers.c) ---- */
typedef struct ReportLayers {
    LayerViews *width; /* one for each variant shown */
    int n, shown;      /* shown: of which histograms are drawn, the one of the fewest bits */
    char (*name)[16];  /* "4bit"; "" when there is only one */
} ReportLayers;

void report_layers_make(ReportLayers *r, Session *s);
void report_layers_free(ReportLayers *r);
/* "sqnr", "weights_<layer>", "spectrum_<layer>", "spectrum_mask_<layer>". Borrows `r`. */
void report_layers_pictures(Pictures *p, const ReportLayers *r);
void report_layers_table(Str *out, const ReportLayers *r);

#endif
