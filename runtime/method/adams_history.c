/*
** adams_history.c -- coefficients of the sums over the history, and f at its end; see adams_history.h.
*/
#include "adams_history.h"

#include <string.h>

void gq_adams_integrals(int n, const double *alpha, double *g) {
  double row[GQ_ADAMS_ROOM + 1]; /* g_i,q */
  for (int q = 1; q <= n; q++) row[q] = 1.0 / q;
  g[1] = 1;
  for (int i = 2; i <= n; i++) {
    for (int q = 1; q <= n + 1 - i; q++) row[q] -= alpha[i - 1] * row[q + 1];
    g[i] = row[1];
  }
}

void gq_adams_coefficients(gq_adams *a, double h, int k) {
  double alpha[GQ_ADAMS_ROOM], psi = h, old = 0;
  a->beta[1] = a->sigma[1] = 1;
  for (int i = 1; i <= k; i++) {
    bool known = i < a->count; /* there is a step to look back on */
    alpha[i] = h / psi;
    a->sigma[i + 1] = i * alpha[i] * a->sigma[i];
    old += known ? a->past[i - 1] : 0;
    a->beta[i + 1] = known ? a->beta[i] * psi / old : 0;
    psi += known ? a->past[i - 1] : 0;
  }
  gq_adams_integrals(k + 1, alpha, a->g);
}

void gq_adams_advance(gq_adams *a, double h) {
  memmove(a->past + 1, a->past, (GQ_ADAMS_ROOM - 1) * sizeof *a->past);
  a->past[0] = h;
  if (a->count < a->most + 1) a->count++;
}

int gq_adams_slope_at(gq_attempt *w, double t, double h, void *y, void *f) {
  w->cost.nfe++;
  return gq_evaluate_at(w->st->f, w->bind, gq_attempt_begin(w, t, h < 0 ? 1 : -1), &y, &f, NULL, NULL);
}
