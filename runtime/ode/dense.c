/*
** dense.c -- a solve as a function of time: the accepted steps' interpolants, one after another.
*/
#include "dense.h"

#include <math.h>

struct gq_dense {
  gq_plan *plan;
  double first, last;
  gq_steps steps; /* with y, then the slopes, packed */
  size_t part;    /* bytes of one */
  void *state;    /* scratch */
};

int gq_dense_new(gq_plan *p, double t0, double t1, const void *y0, gq_dense **out) {
  gq_dense *d = gq_calloc(1, sizeof *d);
  if (!d) return gq_nomem(sizeof *d);
  d->part = gq_part_bytes(p->field), d->first = t0;
  d->last = gq_numel(p->field->shape) ? t0 : t1; /* what has no numbers is known everywhere, without a step */
  d->state = gq_allocate(p->field->on, d->part + 64);
  if (!d->state) {
    gq_free(d);
    return gq_nomem(gq_part_bytes(p->field));
  }
  d->steps = (gq_steps){ .on = p->field->on, .least = 16, .each = (1 + p->forward.m->slopes) * d->part };
  gq_field_pack(p->field, y0, d->state);
  d->plan = p;
  gq_plan_keep(p);
  *out = d;
  return GQ_OK;
}

void gq_dense_free(gq_dense *d) {
  if (!d) return;
  gq_steps_done(&d->steps);
  gq_release(d->plan->field->on, d->state);
  gq_plan_release(d->plan);
  gq_free(d);
}

int gq_dense_add(gq_dense *d, const gq_walk *w, double end, size_t *bytes) {
  GQ_TRY(gq_steps_add(&d->steps, (gq_step_record){ .t = w->a.t, .h = w->a.h, .stop = -1 }, bytes));
  char *at = gq_steps_data(&d->steps, d->steps.n - 1);
  gq_copy(d->steps.on, at, w->a.y[0], d->part);
  gq_walk_slopes(w, 0, at + d->part, d->part);
  d->last = end;
  return GQ_OK;
}

double gq_dense_first(const gq_dense *d) { return d->first; }
double gq_dense_last(const gq_dense *d) { return d->last; }
int64_t gq_dense_steps(const gq_dense *d) { return d->steps.n; }

/* The step that holds t. */
static int64_t find(const gq_dense *d, double t) {
  double dir = gq_step(&d->steps, 0).h < 0 ? -1 : 1;
  int64_t lo = 0, hi = d->steps.n;
  while (hi - lo > 1) {
    int64_t mid = (lo + hi) / 2;
    if (dir * (gq_step(&d->steps, mid).t - t) <= 0) lo = mid;
    else hi = mid;
  }
  return lo;
}

static void packed_at(const gq_dense *d, double t) {
  int64_t i = find(d, t);
  const gq_step_record r = gq_step(&d->steps, i);
  const char *y = gq_steps_data(&d->steps, i);
  gq_step_at(&r, d->plan->forward.m, d->plan->field, t, y, y + d->part, d->part, d->state);
}

int gq_dense_at(const gq_dense *d, int64_t n, const double *t, gq_tensor *out) {
  double first = d->first, last = d->last;
  for (int64_t i = 0; i < n; i++) {
    if (!(t[i] >= fmin(first, last) && t[i] <= fmax(first, last)))
      return gq_fail(GQ_EARG, "t = %.9g is outside of the solve, which went from %.9g to %.9g", t[i], first,
                     last);
    if (d->steps.n) packed_at(d, t[i]);
    gq_field_unpack(d->plan->field, d->state, (char *)gq_tensor_data(out) + i * d->part);
  }
  return GQ_OK;
}

gq_shape gq_dense_shape(const gq_dense *d) { return d->plan->field->shape; }
gq_dtype gq_dense_dtype(const gq_dense *d) { return d->plan->field->dtype; }
const gq_device *gq_dense_device(const gq_dense *d) { return d->plan->field->on->device; }
