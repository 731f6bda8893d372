/*
** moments.c -- panels of measurement intervals and their polynomial forcing, see moments.h.
*/
#include "moments.h"

#include <math.h>
#include <string.h>

static void legendre(double x, double *p) {
  p[0] = 1, p[1] = x;
  for (int j = 2; j < GQ_MOMENTS; j++) p[j] = ((2 * j - 1) * x * p[j - 1] - (j - 1) * p[j - 2]) / j;
}

/* Length of the forward step that reaches t from before. */
static double step_before(const gq_solution *s, double t) {
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1;
  int lo = 0, hi = s->nknots; /* the last knot before t */
  while (hi - lo > 1) {
    int mid = (lo + hi) / 2;
    if (dir * (s->knots[mid] - t) < 0) lo = mid;
    else hi = mid;
  }
  double end = lo + 1 < s->nknots ? s->knots[lo + 1] : s->t[s->nt - 1];
  return fabs(end - s->knots[lo]);
}

void gq_panel_begin(gq_panel *p, const gq_solution *s, gq_tensor *gz, int from) {
  size_t n = gq_numel(s->z0->shape);
  double length = step_before(s, s->t[from]) * (1 + 1e-9), w[GQ_MOMENTS];
  p->from = from, p->to = from - 1;
  while (p->to > 0 && fabs(s->t[p->to - 1] - s->t[from]) <= length) p->to--;
  p->middle = (s->t[from] + s->t[p->to]) / 2, p->half = (s->t[from] - s->t[p->to]) / 2;
  p->forced = p->to < from - 1;
  for (int j = 0; j < GQ_MOMENTS; j++) memset(p->c[j], 0, n * gq_dtype_size(s->z0->dtype));
  for (int k = p->to + 1; k < from; k++) {
    legendre((s->t[k] - p->middle) / p->half, w);
    for (int j = 0; j < GQ_MOMENTS; j++) /* half carries the direction of time: -q or +q */
      gq_axpy(s->z0->dtype, n, -w[j] * (2 * j + 1) / (2 * p->half), gq_at_time(s, gz, k), p->c[j]);
  }
}

void gq_panel_force(const gq_panel *p, const gq_solution *s, double t, void *dst) {
  size_t n = gq_numel(s->z0->shape);
  double w[GQ_MOMENTS];
  memset(dst, 0, n * gq_dtype_size(s->z0->dtype));
  if (!p->forced) return;
  legendre((t - p->middle) / p->half, w);
  for (int j = 0; j < GQ_MOMENTS; j++) gq_axpy(s->z0->dtype, n, w[j], p->c[j], dst);
}
