/*
** adams_start.c -- the first steps of a multistep method on a fixed grid, by extrapolation of the midpoint rule
** (Gragg 1965; Hairer, Norsett & Wanner II.9): 2 i substeps, i = 1 .. c, and the polynomial in h^2 through the
** results at zero have the order 2 c, at least the method's, so that the start does not spoil it; c^2 evaluations a
** step, and one at its end. All first steps are made before the first is handed on: the interpolant of each then
** goes through all their slopes.
*/
#include "adams_history.h"

#include <math.h>
#include <string.h>

static double number(const gq_adams *a, const void *x, size_t i) {
  return a->dtype == GQ_F32 ? ((const float *)x)[i] : ((const double *)x)[i];
}

static void store(const gq_adams *a, const double *x, void *to) {
  for (size_t i = 0; i < a->n; i++)
    if (a->dtype == GQ_F32) ((float *)to)[i] = (float)x[i];
    else ((double *)to)[i] = x[i];
}

/* z[1] = y at t + h by n steps of the midpoint rule, the first one Euler's. */
static int midpoints(gq_attempt *w, double t, double h, int n, const void *y, const void *f) {
  gq_adams *a = w->own;
  double s = h / n, *old = a->z[0], *now = a->z[1];
  for (size_t i = 0; i < a->n; i++) old[i] = number(a, y, i), now[i] = old[i] + s * number(a, f, i);
  for (int m = 1; m < n; m++) {
    void *z = a->state, *rate = a->rate;
    store(a, now, z);
    w->cost.nfe++;
    GQ_TRY(gq_evaluate_at(w->st->f, w->bind, t + m * s, &z, &rate, NULL, NULL));
    for (size_t i = 0; i < a->n; i++) old[i] += 2 * s * number(a, rate, i);
    double *swap = old;
    old = now, now = swap;
  }
  a->z[0] = old, a->z[1] = now;
  return GQ_OK;
}

/* Aitken and Neville's scheme: column l holds the last entry of row c with l eliminations, T_c,l+1. */
static void extrapolate(gq_adams *a, int c) {
  for (size_t i = 0; i < a->n; i++) {
    double now = a->z[1][i];
    for (int l = 1; l < c; l++) {
      double ratio = (double)c / (c - l), next = now + (now - a->column[l - 1][i]) / (ratio * ratio - 1);
      a->column[l - 1][i] = now;
      now = next;
    }
    a->column[c - 1][i] = now;
  }
}

static int one_step(gq_attempt *w, double t, double h, double t1, const void *y, const void *f, void *y1,
                    void *f1) {
  gq_adams *a = w->own;
  for (int c = 1; c <= a->columns; c++) {
    GQ_TRY(midpoints(w, t, h, 2 * c, y, f));
    extrapolate(a, c);
  }
  store(a, a->column[a->columns - 1], y1);
  return gq_adams_slope_at(w, t1, h, y1, f1);
}

/* On the grid that the walk will go along; fewer steps where it ends before. */
int gq_adams_start(gq_attempt *w, const gq_control *c) {
  gq_adams *a = w->own;
  gq_control grid = *c;
  double t = w->t;
  const void *y = w->y[0], *f = w->f[0];
  a->ahead = a->next = 0, a->broken = false;
  for (bool last = false; !last && a->ahead < a->starts;) {
    int j = a->ahead;
    double h = gq_control_fixed(&grid, t), t1 = grid.clamped ? grid.stop : t + h;
    if (gq_interrupted()) return gq_fail(GQ_EINTERRUPT, "interrupted at t = %.9g", t);
    if (t + h == t) break; /* the walk will say so */
    GQ_TRY(one_step(w, t, h, t1, y, f, a->start_y[j], a->start_f[j]));
    a->start_h[a->ahead++] = h;
    y = a->start_y[j], f = a->start_f[j];
    a->broken = gq_first_nonfinite(a->dtype, a->n, y) || gq_first_nonfinite(a->dtype, a->n, f);
    if (a->broken) break;
    int k = a->count < a->most ? a->count : a->most;
    gq_adams_coefficients(a, h, k);
    gq_adams_predict(w, k, h); /* for the differences alone */
    gq_adams_update(w, k, f);
    gq_adams_advance(a, h);
    t = t1, grid.index++;
    last = grid.clamped;
  }
  return GQ_OK;
}

int gq_adams_started(gq_attempt *w, double *ratio) {
  gq_adams *a = w->own;
  int j = a->next++, good = a->ahead - a->broken;
  size_t bytes = gq_part_bytes(w->field);
  memcpy(w->y1[0], a->start_y[j], bytes);
  memcpy(w->f1[0], a->start_f[j], bytes);
  if (j == good) *ratio = NAN;
  a->offset = 0;
  for (int i = j; i < good; i++) a->offset -= a->start_h[i];
  a->points = a->count, a->ready = false;
  return GQ_OK;
}
