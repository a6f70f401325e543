/* run/pictures.h -- pictures of a run: named plots, for curves.svg, report.html and files of their
 * own. */
#ifndef RUN_PICTURES_H
#define RUN_PICTURES_H

#include "io/plot.h"
#include "run/history.h"

typedef struct Picture {
    const char *name, *note; /* name: of its file, without ending; note: a caption, or NULL */
    Plot plot;
} Picture;

typedef struct Pictures {
    Picture *v;
    int n;
    size_t cap;
    Arena arena; /* of names and series made here */
} Pictures;

/* Adds one; `series` is copied, the points are borrowed. */
Picture *pictures_add(Pictures *p, const char *name, const Plot *plot);
void pictures_free(Pictures *p);

/* What a metrics.jsonl shows: loss, accuracy, learning rate, speed, and how the quantizers'
 * parameters moved. Borrows `h`. */
void pictures_of_history(Pictures *p, const History *h);

/* The kinds of files, as the key `pictures` names them. */
typedef struct PictureForm {
    const char *name;
    bool svg, png;
} PictureForm;
extern const PictureForm picture_forms[]; /* ended by a NULL name; the first is the default */
const PictureForm *picture_form_find(const char *name); /* NULL: none of them */

/* One file: PNG where it ends in .png, else SVG. */
int picture_write(const char *path, const Plot *plot, Err *e);

/* Each as DIR/NAME.svg, DIR/NAME.png, or both. */
int pictures_write(const Pictures *p, const char *dir, const PictureForm *form, Err *e);

#endif
