/*
** along.c -- see along.h.
*/
#include "along.h"

#include "../base/bridge.h"

#include <math.h>

static int numbers_new(const gq_field *f, gq_brownian *path, size_t n, gq_along *a) {
  int known = gq_brownian_moments(path);
  size_t wide = (f->moments > known ? f->moments : known) * f->intervals * n + gq_levy_numel(f);
  *a = (gq_along){ .field = f, .t = NAN, .n = n, .path = path };
  a->bytes = gq_round64(wide * sizeof(double));
  a->dw = gq_alloc(a->bytes + 64);
  return a->dw ? GQ_OK : gq_nomem(a->bytes);
}

int gq_along_new(const gq_field *f, gq_brownian *path, gq_along *a) {
  *a = (gq_along){ .field = f, .t = NAN };
  if (!path) return GQ_OK;
  size_t part = gq_round64(gq_along_bytes(f));
  GQ_TRY(numbers_new(f, gq_brownian_ref(path), gq_numel(f->wshape), a));
  a->bytes += 2 * part;
  a->cast = gq_allocate(f->on, 2 * part + 64);
  if (!a->cast) return gq_nomem(a->bytes);
  a->packed = gq_field_plain(f) ? a->cast : (char *)a->cast + part;
  return GQ_OK;
}

int gq_along_row(const gq_field *f, const gq_brownian *path, int64_t row, gq_along *a) {
  gq_brownian *own;
  GQ_TRY(gq_brownian_rows(path, row, 1, &own));
  return numbers_new(f, own, gq_numel(gq_brownian_shape(own)), a);
}

void gq_along_done(gq_along *a) {
  gq_brownian_free(a->path);
  gq_free(a->dw);
  if (a->cast) gq_release(a->field->on, a->cast);
  *a = (gq_along){ 0 };
}

/* After what the path gives. */
static double *levy_areas(const gq_along *a) { return a->dw + gq_brownian_moments(a->path) * a->n; }

static void negate(size_t n, double *x) {
  for (size_t i = 0; i < n; i++) x[i] = -x[i];
}

/* W, and what else steps read, from t to t1. Of the path backwards W and K, and Levy areas, change sign,
** and H does not. */
static int ask(gq_along *a, double t, double t1, double *dw) {
  size_t n = a->n;
  bool back = t1 < t;
  double s = back ? t1 : t, e = back ? t : t1;
  if (a->field->moments == 1) return gq_brownian_increment(a->path, t, t1, dw);
  GQ_TRY(gq_brownian_areas(a->path, s, e, dw));
  if (a->field->levy) GQ_TRY(gq_brownian_levy_areas(a->path, s, e, dw, dw + n, levy_areas(a)));
  if (!back) return GQ_OK;
  negate(n, dw);
  if (a->field->moments > 2) negate(n, dw + 2 * n);
  if (a->field->levy) negate(gq_levy_numel(a->field), levy_areas(a));
  return GQ_OK;
}

/* Of interval k of a step, where ask writes it. */
static double *interval(const gq_along *a, int k) {
  int known = gq_brownian_moments(a->path), moments = a->field->moments;
  return a->dw + (size_t)k * (moments > known ? moments : known) * a->n;
}

int gq_along_read(gq_along *a, double t, double t1) {
  double mid = t + (t1 - t) / 2;
  GQ_TRY(ask(a, t, t1, a->dw));
  if (a->field->intervals == 1) return GQ_OK;
  GQ_TRY(ask(a, t, mid, interval(a, 1)));
  return ask(a, mid, t1, interval(a, 2));
}

const double *gq_along_moment(const gq_along *a, int i) {
  int moments = a->field->moments;
  return interval(a, i / moments) + i % moments * a->n;
}

/* Moment i as states are: only noise of the state's shape is turned. */
static void turn(gq_along *a, int i) {
  size_t at = i * gq_moment_bytes(a->field);
  if (a->packed != a->cast) gq_field_pack(a->field, (char *)a->cast + at, (char *)a->packed + at);
}

/* dw as states are */
static void pack(gq_along *a, double t, double t1) {
  const gq_field *f = a->field;
  size_t each = gq_moment_bytes(f);
  a->t = t, a->t1 = t1;
  for (int i = 0; i < gq_along_moments(f); i++) {
    f->on->vec->put(f->dtype, a->n, gq_along_moment(a, i), (char *)a->cast + i * each, 1);
    turn(a, i);
  }
  if (f->levy)
    f->on->vec->put(f->dtype, gq_levy_numel(f), levy_areas(a), (char *)a->cast + f->moments * each, 1);
}

/* Of a step that both inverts and differentiates it is asked for twice. */
static bool known(const gq_along *a, double t, double t1) { return t == a->t && t1 == a->t1; }

/* By the device, where that can. */
static bool made_there(const gq_along *a) {
  return a->field->on->vec->path && a->field->moments * a->field->intervals == 1 &&
         gq_brownian_plain(a->path);
}

static int make(gq_along *a, double t, double t1) {
  const gq_field *f = a->field;
  double from = t, to = t1;
  gq_bridge tree;
  GQ_TRY(gq_brownian_tree(a->path, &from, &to, &tree));
  f->on->vec->path(f->dtype, gq_numel(f->wshape), &tree, from, to, a->cast);
  turn(a, 0);
  a->t = t, a->t1 = t1;
  return GQ_OK;
}

int gq_along_step(gq_along *a, double t, double t1) {
  if (known(a, t, t1)) return GQ_OK;
  if (made_there(a)) return make(a, t, t1);
  GQ_TRY(gq_along_read(a, t, t1));
  pack(a, t, t1);
  return GQ_OK;
}

int gq_along_back(gq_along *a, double t, double t1) {
  if (known(a, t, t1)) return GQ_OK;
  if (a->field->moments * a->field->intervals > 1 || made_there(a)) return gq_along_step(a, t, t1);
  GQ_TRY(gq_brownian_increment(a->path, t1, t, a->dw));
  negate(a->n, a->dw);
  pack(a, t, t1);
  return GQ_OK;
}
