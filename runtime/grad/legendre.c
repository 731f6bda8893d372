/*
** legendre.c -- Gauss-Legendre nodes and weights on [-1, 1]: Newton's method on P_n from the
** asymptotic guess cos(pi (i - 1/4) / (n + 1/2)), Abramowitz & Stegun 22.16.6 and 25.4.29.
*/
#include "../ode/ode.h"

#include <math.h>
#include <string.h>
#include <pthread.h>

enum { TABLE = 64 };

/* P_n(x) and its derivative by the three-term recurrence. */
static double legendre(int n, double x, double *dp) {
  double p0 = 1, p1 = x;
  for (int k = 2; k <= n; k++) {
    double p2 = ((2 * k - 1) * x * p1 - (k - 1) * p0) / k;
    p0 = p1, p1 = p2;
  }
  *dp = n * (x * p1 - p0) / (x * x - 1);
  return p1;
}

static void compute(int n, double *x, double *w) {
  for (int i = 0; i < (n + 1) / 2; i++) {
    double z = cos(M_PI * (i + 0.75) / (n + 0.5)), dp = 1;
    for (int it = 0; it < 100; it++) {
      double dz = legendre(n, z, &dp) / dp;
      z -= dz;
      if (fabs(dz) < 1e-16) break;
    }
    if (2 * i + 1 == n) z = 0;
    legendre(n, z, &dp);
    x[n - 1 - i] = z, x[i] = -z;
    w[i] = w[n - 1 - i] = 2 / ((1 - z * z) * dp * dp);
  }
}

static double table_x[TABLE + 1][TABLE], table_w[TABLE + 1][TABLE];

static void fill_table(void) {
  table_w[1][0] = 2;
  for (int n = 2; n <= TABLE; n++) compute(n, table_x[n], table_w[n]);
}

int gq_gauss_legendre(int n, double *x, double *w) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (n < 1) return gq_fail(GQ_EARG, "Gauss-Legendre quadrature with %d nodes: at least 1 is needed", n);
  if (n > TABLE) {
    compute(n, x, w);
    return GQ_OK;
  }
  pthread_once(&once, fill_table);
  memcpy(x, table_x[n], n * sizeof *x);
  memcpy(w, table_w[n], n * sizeof *w);
  return GQ_OK;
}
