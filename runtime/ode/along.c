/*
** along.c -- see along.h.
*/
#include "along.h"

#include <math.h>

int gq_along_new(const gq_field *f, gq_brownian *path, gq_along *a) {
  size_t n = gq_numel(f->wshape), part = gq_round64(gq_along_bytes(f)), wide = gq_round64(n * sizeof(double));
  *a = (gq_along){ .field = f, .t = NAN };
  if (!path) return GQ_OK;
  a->bytes = wide + 2 * part;
  a->dw = gq_alloc(wide + 64), a->cast = gq_allocate(f->on, 2 * part + 64);
  a->path = gq_brownian_ref(path);
  if (!a->dw || !a->cast) return gq_nomem(a->bytes);
  a->packed = gq_field_plain(f) ? a->cast : (char *)a->cast + part;
  return GQ_OK;
}

void gq_along_done(gq_along *a) {
  gq_brownian_free(a->path);
  gq_free(a->dw);
  if (a->cast) gq_release(a->field->on, a->cast);
  *a = (gq_along){ 0 };
}

/* dw as states are */
static void pack(gq_along *a, double t, double t1) {
  const gq_field *f = a->field;
  a->t = t, a->t1 = t1;
  f->on->vec->put(f->dtype, gq_numel(f->wshape), a->dw, a->cast, 1);
  if (a->packed != a->cast)
    gq_field_pack(f, a->cast, a->packed); /* only noise of the state's shape is turned */
}

/* Of a step that both inverts and differentiates it is asked for twice. */
static bool known(const gq_along *a, double t, double t1) { return t == a->t && t1 == a->t1; }

int gq_along_step(gq_along *a, double t, double t1) {
  if (known(a, t, t1)) return GQ_OK;
  GQ_TRY(gq_brownian_increment(a->path, t, t1, a->dw));
  pack(a, t, t1);
  return GQ_OK;
}

int gq_along_back(gq_along *a, double t, double t1) {
  size_t n = gq_numel(a->field->wshape);
  if (known(a, t, t1)) return GQ_OK;
  GQ_TRY(gq_brownian_increment(a->path, t1, t, a->dw));
  for (size_t i = 0; i < n; i++) a->dw[i] = -a->dw[i];
  pack(a, t, t1);
  return GQ_OK;
}
