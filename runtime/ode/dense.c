/*
** dense.c -- a solve as a function of time: the accepted steps' interpolants, one after another.
*/
#include "dense.h"

#include <math.h>
#include <string.h>

typedef struct piece {
  double t, h, end; /* where the step began, its length, and how far it serves */
} piece;

struct gq_dense {
  gq_plan *plan;
  double first, last; /* last: where there are no steps */
  int64_t n, room;
  piece *pieces;
  char *data;  /* [n][1 + slopes] packed states: y, slopes */
  size_t part; /* bytes of one */
  void *state; /* scratch */
};

int gq_dense_new(gq_plan *p, double t0, double t1, const void *y0, gq_dense **out) {
  gq_dense *d = gq_calloc(1, sizeof *d);
  if (!d) return gq_nomem(sizeof *d);
  d->part = gq_part_bytes(p->field), d->first = t0;
  d->last = gq_numel(p->field->shape) ? t0 : t1; /* what has no numbers is known everywhere, without a step */
  d->state = gq_alloc(d->part + 64);
  if (!d->state) {
    gq_free(d);
    return gq_nomem(gq_part_bytes(p->field));
  }
  gq_field_pack(p->field, y0, d->state);
  d->plan = p;
  gq_plan_keep(p);
  *out = d;
  return GQ_OK;
}

void gq_dense_free(gq_dense *d) {
  if (!d) return;
  gq_plan_release(d->plan);
  gq_free(d->pieces);
  gq_free(d->data);
  gq_free(d->state);
  gq_free(d);
}

static int grow(gq_dense *d, size_t each, size_t *bytes) {
  int64_t room = d->room ? 2 * d->room : 16;
  piece *pieces = gq_realloc(d->pieces, room * sizeof *pieces);
  if (pieces) d->pieces = pieces;
  char *data = gq_realloc(d->data, room * each + 64);
  if (data) d->data = data;
  if (!pieces || !data) return gq_nomem(room * (each + sizeof *pieces));
  *bytes += (room - d->room) * (each + sizeof *pieces);
  d->room = room;
  return GQ_OK;
}

int gq_dense_add(gq_dense *d, const gq_walk *w, double end, size_t *bytes) {
  const gq_field *f = d->plan->field;
  size_t each = (1 + w->st->m->slopes) * d->part;
  if (d->n == d->room) GQ_TRY(grow(d, each, bytes));
  d->pieces[d->n] = (piece){ w->t, w->h1, end };
  char *at = d->data + d->n++ * each;
  memcpy(at, w->y[0], d->part);
  for (int i = 0; i < w->st->m->slopes; i++) gq_walk_slope_all(w, i, at + (1 + i) * d->part, f);
  return GQ_OK;
}

double gq_dense_first(const gq_dense *d) { return d->first; }
double gq_dense_last(const gq_dense *d) { return d->n ? d->pieces[d->n - 1].end : d->last; }
int64_t gq_dense_steps(const gq_dense *d) { return d->n; }

/* The step that holds t. */
static int64_t find(const gq_dense *d, double t) {
  double dir = d->pieces[0].h < 0 ? -1 : 1;
  int64_t lo = 0, hi = d->n;
  while (hi - lo > 1) {
    int64_t mid = (lo + hi) / 2;
    if (dir * (d->pieces[mid].t - t) <= 0) lo = mid;
    else hi = mid;
  }
  return lo;
}

static void packed_at(const gq_dense *d, double t) {
  const gq_tableau *m = d->plan->forward.m;
  const gq_field *f = d->plan->field;
  double wt[GQ_MAXSTAGES];
  int64_t i = find(d, t);
  const piece *p = &d->pieces[i];
  const char *at = d->data + i * (1 + m->slopes) * d->part;
  gq_tableau_weights(m, (t - p->t) / p->h, wt);
  memcpy(d->state, at, d->part);
  for (int k = 0; k < m->slopes; k++)
    if (wt[k] != 0) gq_axpy(f->dtype, gq_numel(f->shape), p->h * wt[k], at + (1 + k) * d->part, d->state);
}

int gq_dense_at(const gq_dense *d, int64_t n, const double *t, gq_tensor *out) {
  double first = d->first, last = gq_dense_last(d);
  for (int64_t i = 0; i < n; i++) {
    if (!(t[i] >= fmin(first, last) && t[i] <= fmax(first, last)))
      return gq_fail(GQ_EARG, "t = %.9g is outside of the solve, which went from %.9g to %.9g", t[i], first,
                     last);
    if (d->n) packed_at(d, t[i]);
    gq_field_unpack(d->plan->field, d->state, (char *)gq_tensor_data(out) + i * d->part);
  }
  return GQ_OK;
}

gq_shape gq_dense_shape(const gq_dense *d) { return d->plan->field->shape; }
gq_dtype gq_dense_dtype(const gq_dense *d) { return d->plan->field->dtype; }
