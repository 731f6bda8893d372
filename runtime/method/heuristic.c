/*
** heuristic.c -- error and stiffness of a step from the sums of squares that its program stores, and derivatives in
** those. A norm that is zero has none: zero is taken, so that a field at rest does not make a loss NaN.
*/
#include "heuristic.h"

#include <math.h>

int gq_stiffness_stage(const gq_tableau *m) {
  if (!m->steps->program || m->tuple || m->end >= m->stages) return -1;
  for (int i = m->end - 1; i > 0; i--)
    if (m->c[i] == 1) return i;
  return -1;
}

/* E = e5 / sqrt(e5 + e3 / 100) of mean squares; without e3 it is sqrt(e5). */
static void error_of(double e5, double e3, double n, gq_heuristic *e) {
  double both = e5 + 0.01 * e3, root = sqrt(both);
  if (!(e5 > 0)) return;
  e->error = e5 / root;
  e->slope[GQ_SUM_ERROR] = (1 - 0.5 * e5 / both) / root / n;
  e->slope[GQ_SUM_ERROR3] = -0.005 * e5 / both / root / n;
}

void gq_heuristic_of(const double sum[GQ_SUMS], const gq_field *f, gq_heuristic *e) {
  double n = gq_numel(f->shape), slopes = sum[GQ_SUM_SLOPES], states = sum[GQ_SUM_STATES];
  *e = (gq_heuristic){ 0 };
  error_of(sum[GQ_SUM_ERROR] / n, sum[GQ_SUM_ERROR3] / n, n, e);
  if (!(slopes > 0) || !(states > 0)) return;
  e->stiffness = sqrt(slopes / states);
  e->slope[GQ_SUM_SLOPES] = e->stiffness / (2 * slopes);
  e->slope[GQ_SUM_STATES] = -e->stiffness / (2 * states);
}
