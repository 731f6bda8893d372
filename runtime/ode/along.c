/*
** along.c -- see along.h.
*/
#include "along.h"

#include "../base/bridge.h"

#include <math.h>

static int numbers_new(const gq_field *f, gq_brownian *path, size_t n, int most, gq_along *a) {
  int known = gq_brownian_moments(path);
  size_t wide = (f->moments > known ? f->moments : known) * f->intervals * n * most + gq_levy_numel(f);
  *a = (gq_along){ .field = f, .n = n, .path = path, .most = most };
  a->bytes = gq_round64(wide * sizeof(double));
  a->dw = gq_alloc(a->bytes + 64);
  return a->dw ? GQ_OK : gq_nomem(a->bytes);
}

/* By the device, where that can. */
static bool made_there(const gq_field *f, const gq_brownian *path) {
  return f->on->vec->path && f->moments * f->intervals == 1 && gq_brownian_plain(path);
}

enum { FEW = 1 << 15 /* numbers that are worth a round of threads, and stay near them */ };

/* Steps whose W is made at once. */
static int together(const gq_field *f, const gq_brownian *path) {
  int64_t n = gq_numel(f->wshape), most = n ? FEW / n : 1;
  if (f->moments * f->intervals > 1 || gq_brownian_moments(path) > 1) return 1;
  return most < 1 || made_there(f, path) ? 1 : most < GQ_ALONG_STEPS ? (int)most : GQ_ALONG_STEPS;
}

int gq_along_new(const gq_field *f, gq_brownian *path, gq_along *a) {
  *a = (gq_along){ .field = f };
  if (!path) return GQ_OK;
  size_t part = gq_round64(gq_along_bytes(f));
  GQ_TRY(numbers_new(f, gq_brownian_ref(path), gq_numel(f->wshape), together(f, path), a));
  a->each = (gq_field_plain(f) ? 1 : 2) * part;
  a->bytes += a->most * a->each;
  a->room = gq_allocate(f->on, a->most * a->each + 64);
  return a->room ? GQ_OK : gq_nomem(a->bytes);
}

int gq_along_row(const gq_field *f, const gq_brownian *path, int64_t row, gq_along *a) {
  gq_brownian *own;
  GQ_TRY(gq_brownian_rows(path, row, 1, &own));
  return numbers_new(f, own, gq_numel(gq_brownian_shape(own)), 1, a);
}

void gq_along_done(gq_along *a) {
  gq_brownian_free(a->path);
  gq_free(a->dw);
  if (a->room) gq_release(a->field->on, a->room);
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

static void take(gq_along *a, int k) {
  a->cast = (char *)a->room + k * a->each;
  a->packed = (char *)a->cast + (gq_field_plain(a->field) ? 0 : a->each / 2);
}

/* dw as states are */
static void pack(gq_along *a) {
  const gq_field *f = a->field;
  size_t each = gq_moment_bytes(f);
  for (int i = 0; i < gq_along_moments(f); i++) {
    f->on->vec->put(f->dtype, a->n, gq_along_moment(a, i), (char *)a->cast + i * each, 1);
    turn(a, i);
  }
  if (f->levy)
    f->on->vec->put(f->dtype, gq_levy_numel(f), levy_areas(a), (char *)a->cast + f->moments * each, 1);
}

/* Of a step that both inverts and differentiates it is asked for twice. */
bool gq_along_known(gq_along *a, double t, double t1) {
  for (int k = 0; k < a->n_made; k++)
    if (t == a->made[k][0] && t1 == a->made[k][1]) return take(a, k), true;
  return false;
}

static int make(gq_along *a, double t, double t1) {
  const gq_field *f = a->field;
  gq_bridge tree;
  GQ_TRY(gq_brownian_tree(a->path, &t, &t1, &tree));
  f->on->vec->path(f->dtype, gq_numel(f->wshape), &tree, t, t1, a->cast);
  turn(a, 0);
  return GQ_OK;
}

/* n steps, where that is all that is read: in the state's dtype at once, where the host may write there. */
static int make_few(gq_along *a, int n, const double *t, bool back) {
  const gq_field *f = a->field;
  bool host = f->on->device == gq_host;
  void *out[GQ_ALONG_STEPS];
  for (int k = 0; k < n; k++) take(a, k), out[k] = host ? a->cast : a->dw + k * a->n;
  GQ_TRY(gq_brownian_steps(a->path, n, t, back ? -1 : 1, host ? f->dtype : GQ_F64, out));
  for (int k = 0; k < n; k++) {
    take(a, k);
    if (!host) f->on->vec->put(f->dtype, a->n, a->dw + k * a->n, a->cast, 1);
    turn(a, 0);
  }
  take(a, 0);
  return GQ_OK;
}

int gq_along_steps(gq_along *a, int n, const double *t, bool back) {
  const gq_field *f = a->field;
  bool few = f->moments * f->intervals == 1 && gq_brownian_moments(a->path) == 1,
       there = made_there(f, a->path);
  if (gq_along_known(a, t[back], t[!back])) return GQ_OK;
  if (n > a->most) n = a->most;
  a->n_made = 0, take(a, 0);
  if (there) GQ_TRY(make(a, t[back], t[!back]));
  else if (few) GQ_TRY(make_few(a, n, t, back));
  else {
    GQ_TRY(gq_along_read(a, t[back], t[!back]));
    pack(a);
  }
  for (int k = 0; k < n; k++) a->made[k][0] = t[k + back], a->made[k][1] = t[k + !back];
  a->n_made = n;
  return GQ_OK;
}

int gq_along_step(gq_along *a, double t, double t1) {
  return gq_along_steps(a, 1, (double[]){ t, t1 }, false);
}
