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

/* to += s x, numbers of the state */
static void add(const gq_attempt *w, double s, const void *x, double *to) {
  const gq_adams *a = w->own;
  double some[GQ_ADAMS_CHUNK];
  for (size_t at = 0; at < a->n; at += GQ_ADAMS_CHUNK) {
    size_t n = a->n - at < GQ_ADAMS_CHUNK ? a->n - at : GQ_ADAMS_CHUNK;
    w->field->on->vec->get(a->dtype, n, (const char *)x + at * gq_dtype_size(a->dtype), 1, some);
    for (size_t i = 0; i < n; i++) to[at + i] += s * some[i];
  }
}

static void store(const gq_attempt *w, const double *x, void *to) {
  w->field->on->vec->put(w->field->dtype, gq_numel(w->field->shape), x, to, 1);
}

/* z[1] = y at t + h by n steps of the midpoint rule, the first one Euler's. */
static int midpoints(gq_attempt *w, double t, double h, int n, const void *y, const void *f) {
  gq_adams *a = w->own;
  double s = h / n, *old = a->z[0], *now = a->z[1];
  w->field->on->vec->get(a->dtype, a->n, y, 1, old);
  memcpy(now, old, a->n * sizeof *now);
  add(w, s, f, now);
  for (int m = 1; m < n; m++) {
    void *z = a->state, *rate = a->rate;
    store(w, now, z);
    w->cost.nfe++;
    GQ_TRY(gq_evaluate_at(w->st->f, w->bind, t + m * s, &z, &rate, NULL, NULL));
    add(w, 2 * s, rate, old);
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
  store(w, a->column[a->columns - 1], y1);
  return gq_adams_slope_at(w, t1, h, y1, f1);
}

/* On the grid that the walk will go along; fewer steps where it ends before. */
int gq_adams_start(gq_attempt *w, const gq_control *c) {
  gq_adams *a = w->own;
  const gq_vectors *vec = w->field->on->vec;
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
    a->broken = vec->nonfinite(a->dtype, a->n, y) || vec->nonfinite(a->dtype, a->n, f);
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
  gq_copy(w->field->on, w->y1[0], a->start_y[j], bytes);
  gq_copy(w->field->on, w->f1[0], a->start_f[j], bytes);
  if (j == good) *ratio = NAN;
  a->offset = 0;
  for (int i = j; i < good; i++) a->offset -= a->start_h[i];
  a->points = a->count, a->ready = false;
  return GQ_OK;
}
