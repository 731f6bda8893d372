/*
** along.h -- the Brownian path that a solve of an SDE goes along.
*/
#ifndef GQ_ALONG_H
#define GQ_ALONG_H

#include "../field/field.h"
#include "../sde/sde.h"

enum { GQ_ALONG_STEPS = 16 };   /* most that are made at once */
typedef struct gq_along {
  const gq_field *field;
  gq_brownian *path;           /* NULL: no SDE */
  size_t n;                    /* numbers of W */
  double *dw;                  /* W over a step, and what else of the path it reads, the host's; */
  void *cast, *packed;         /* in the state's dtype, and as slices hold states: of the step asked for, among */
  void *room;                  /* [most] of both, `each` bytes, */
  size_t each, bytes;
  int most, n_made;            /* those that are there: */
  double made[GQ_ALONG_STEPS][2];   /* from, to */
} gq_along;
int gq_along_new(const gq_field *f, gq_brownian *path, gq_along *a);
/* Of one row, for gq_along_read alone. */
int gq_along_row(const gq_field *f, const gq_brownian *path, int64_t row, gq_along *a);
void gq_along_done(gq_along *a);
static inline size_t gq_along_bytes(const gq_field *f) {
  return f->intervals * f->moments * gq_moment_bytes(f) + gq_levy_numel(f) * gq_dtype_size(f->dtype);
}
/* What steps from t to t1 read, in float64: [n] of moment i of what gq_along_moments counts. */
int gq_along_read(gq_along *a, double t, double t1);
const double *gq_along_moment(const gq_along *a, int i);
static inline int gq_along_moments(const gq_field *f) { return f->intervals * f->moments; }
/* A remainder below so much of a step of dt, as times rounded to float32 leave it, is no step of its own. */
#define GQ_ALONG_REST 1e-3
/* W(t1) - W(t), and what else steps read: a->cast and a->packed. */
int gq_along_step(gq_along *a, double t, double t1);
/* Is it there? Then a->cast and a->packed are of it. */
bool gq_along_known(gq_along *a, double t, double t1);
/* The same of t[0] to t[1], and of n - 1 steps that come next, each from t[i] to t[i + 1]: narrow ones are made at once.
** back: steps [t[i + 1], t[i]] are gone back. */
int gq_along_steps(gq_along *a, int n, const double *t, bool back);

#endif
