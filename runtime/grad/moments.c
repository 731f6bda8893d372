/*
** moments.c -- panels of measurement intervals and their polynomial forcing, see moments.h.
*/
#include "moments.h"

#include "../method/trail.h"

#include <math.h>
#include <string.h>

enum { ALL = GQ_MOMENTS + GQ_MOMENTS_LEFT };

/* Length of the forward step that reaches t from before. */
static double step_before(const gq_solution *s, double t) {
  double dir = s->t[s->nt - 1] < s->t[0] ? -1 : 1;
  const gq_steps *st = &s->steps;
  int64_t lo = 0, hi = st->n; /* the last step that begins before t */
  while (hi - lo > 1) {
    int64_t mid = (lo + hi) / 2;
    if (dir * (gq_step(st, mid).t - t) < 0) lo = mid;
    else hi = mid;
  }
  double end = lo + 1 < st->n ? gq_step(st, lo + 1).t : s->t[s->nt - 1];
  return fabs(end - gq_step(st, lo).t);
}

enum { FEW = 16 }; /* cotangents at a time */

/* Moments of the cotangents at times k .. k + n - 1, added to those before unless they are the first. */
static void add_moments(gq_panel *p, const gq_solution *s, gq_tensor *gz, int k, int n, bool first) {
  const gq_backend *on = s->plan->field->on;
  size_t size = gq_numel(s->z0->shape);
  double legendre[FEW][ALL], w[FEW];
  void *at[FEW + 2];
  for (int i = 0; i < n; i++) {
    gq_trail_legendre(ALL, (s->t[k + i] - p->middle) / p->half, legendre[i]);
    at[2 + i] = gq_at_time(s, gz, k + i);
  }
  for (int j = 0; j < ALL; j++) { /* half carries the direction of time: -q or +q */
    for (int i = 0; i < n; i++)
      w[i] = j < GQ_MOMENTS ? -legendre[i][j] * (2 * j + 1) / (2 * p->half) : legendre[i][j];
    at[0] = j < GQ_MOMENTS ? p->c[j] : p->left[j - GQ_MOMENTS];
    at[1] = first ? NULL : at[0];
    on->vec->combine(s->z0->dtype, 1, &size, n, w, at);
  }
}

/* Edges at times `from` and `to`: cotangents at edges are jumps, at times that repeat `to` too. */
static void set_panel(gq_panel *p, const gq_solution *s, gq_tensor *gz, int from, int to) {
  while (to < from - 1 && s->t[to + 1] == s->t[to]) to++;
  p->from = from, p->to = to, p->forced = to < from - 1;
  p->middle = (s->t[from] + s->t[to]) / 2, p->half = (s->t[from] - s->t[to]) / 2;
  for (int k = to + 1, n; k < from; k += n) {
    n = from - k < FEW ? from - k : FEW;
    add_moments(p, s, gz, k, n, k == to + 1);
  }
}

void gq_panel_begin(gq_panel *p, const gq_solution *s, gq_tensor *gz, int from) {
  double length = step_before(s, s->t[from]) * (1 + 1e-9);
  int to = from - 1;
  if (s->t[to] != s->t[from])
    while (to > 0 && fabs(s->t[to - 1] - s->t[from]) <= length) to--;
  set_panel(p, s, gz, from, to);
}

void gq_panel_shorten(gq_panel *p, const gq_solution *s, gq_tensor *gz, double length) {
  int to = p->to + 1;
  while (to < p->from - 1 && fabs(s->t[to] - s->t[p->from]) > length) to++;
  set_panel(p, s, gz, p->from, to);
}

/* exp(c x) has the coefficients c^j / (2j - 1)!! at first order in c. */
double gq_panel_error(const gq_panel *p, double kappa, double omega, const double *left_size) {
  double half = fabs(p->half), r = half * (kappa + omega), response = half * kappa, sum = 0;
  for (int j = 2; j < GQ_MOMENTS + 1; j++) response *= r / (2 * j - 1);
  for (int j = 0; j < GQ_MOMENTS_LEFT; j++, response *= r / (2 * (GQ_MOMENTS + j) - 1))
    sum += response * left_size[j];
  return sum;
}

void gq_panel_force(const gq_panel *p, const gq_solution *s, double t, void *dst) {
  size_t n = gq_numel(s->z0->shape);
  double w[GQ_MOMENTS];
  void *at[GQ_MOMENTS + 2] = { dst };
  if (p->forced) gq_trail_legendre(GQ_MOMENTS, (t - p->middle) / p->half, w);
  for (int j = 0; j < GQ_MOMENTS; j++) at[2 + j] = p->c[j];
  s->plan->field->on->vec->combine(s->z0->dtype, 1, &n, p->forced ? GQ_MOMENTS : 0, w, at);
}
