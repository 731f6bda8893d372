/*
** spectrum.c -- see spectrum.h.
*/
#include "spectrum.h"

#include "../base/base.h"

#include <math.h>
#include <stdint.h>

/* Signs alone would cancel components that are alike: four pairs of them do in one problem out of sixteen. */
void gq_spectrum_probe(size_t i, double *v) {
  uint64_t h = gq_mix((uint64_t)i + 1);
  for (int p = 0; p < GQ_PROBES; p++, h >>= 16) /* 15 bits of size and one of sign */
    v[p] = (h & 1 ? 1 : -1) * (0.5 + (double)(h >> 1 & 0x7fff) / 0x8000);
}

/* |sum_j P_k(x_j) s_j| of one probe, for every k < n. */
static void coefficients(const gq_spectrum *q, int p, double *c) {
  for (int k = 0; k < q->n; k++) c[k] = 0;
  for (int j = 0; j < q->n; j++) {
    double before = 0, now = 1, next;
    for (int k = 0; k < q->n; k++, before = now, now = next) {
      c[k] += now * q->s[j][p];
      next = ((2 * k + 1) * q->x[j] * now - k * before) / (k + 1);
    }
  }
  for (int k = 0; k < q->n; k++) c[k] = fabs(c[k]);
}

static void panel(gq_spectrum *q) {
  double c[GQ_SPECTRUM_POINTS];
  for (int p = 0; p < GQ_PROBES; p++) {
    double largest = 0;
    coefficients(q, p, c);
    for (int k = 0; k < q->n; k++) largest = fmax(largest, c[k]);
    q->last[p] += fmax(c[q->n - 1], c[q->n - 2]);
    q->largest[p] += largest;
  }
  q->panels++;
}

void gq_spectrum_add(gq_spectrum *q, int n, double x, const double *s) {
  if (n < 3 || n > GQ_SPECTRUM_POINTS) return;
  q->n = n;
  q->x[q->filled] = x;
  for (int p = 0; p < GQ_PROBES; p++) q->s[q->filled][p] = s[p];
  if (++q->filled < n) return;
  panel(q);
  q->filled = 0;
}

double gq_spectrum_ratio(const gq_spectrum *q) {
  double ratio = q->panels ? 0 : NAN;
  for (int p = 0; p < GQ_PROBES; p++)
    if (q->largest[p] > 0) ratio = fmax(ratio, q->last[p] / q->largest[p]);
  return ratio;
}
