/*
** quadrature.c -- rules for integrals over [-1, 1], one row each (Norcliffe & Deisenroth, TMLR 2023,
** Appendix D): points ascending, weights that sum to 2.
*/
#include "../ode/ode.h"

#include <math.h>
#include <stdlib.h>

static int fill_legendre(int n, gq_key key, uint64_t stream, double *x, double *w) {
  return gq_gauss_legendre(n, x, w);
}

/* Both ends and the zeros of P'_N, N = n - 1: Newton's method on P_N-1 - x P_N = (1 - x^2) P'_N / N,
** whose derivative is -n P_N, from Chebyshev's points; weights 2 / (N n P_N(x)^2). */
static int fill_lobatto(int n, gq_key key, uint64_t stream, double *x, double *w) {
  int N = n - 1;
  for (int i = 0; i <= N / 2; i++) {
    double z = 2 * i == N ? 0 : -cos(M_PI * i / N), p0, p1;
    for (int it = 0; it < 100; it++) {
      p0 = 1, p1 = z;
      for (int k = 2; k <= N; k++) {
        double p2 = ((2 * k - 1) * z * p1 - (k - 1) * p0) / k;
        p0 = p1, p1 = p2;
      }
      double dz = i == 0 || 2 * i == N ? 0 : (z * p1 - p0) / (n * p1);
      z -= dz;
      if (fabs(dz) < 1e-16) break;
    }
    x[N - i] = -z, x[i] = z;
    w[i] = w[N - i] = 2 / ((double)N * n * p1 * p1);
  }
  return GQ_OK;
}

/* cos(i pi / N), N = n - 1, and the integrals of the cosine series through the values there. */
static int fill_clenshaw_curtis(int n, gq_key key, uint64_t stream, double *x, double *w) {
  int N = n - 1;
  for (int i = 0; i <= N; i++) {
    double sum = 1;
    for (int j = 1; j <= N / 2; j++)
      sum -= (2 * j == N ? 1 : 2) * cos(2 * M_PI * (i * j % N) / N) / (4.0 * j * j - 1);
    x[i] = 2 * i == N ? 0 : -cos(M_PI * i / N);
    w[i] = (i == 0 || i == N ? 1 : 2) * sum / N;
  }
  return GQ_OK;
}

/* Equally spaced points; the weights of one cell, times its length, repeated. */
static int composite(int n, int cell, const double *weights, double *x, double *w) {
  for (int i = 0; i < n; i++) x[i] = (2.0 * i - (n - 1)) / (n - 1), w[i] = 0;
  for (int i = 0; i + cell < n; i += cell)
    for (int j = 0; j <= cell; j++) w[i + j] += weights[j] * 2 * cell / (n - 1);
  return GQ_OK;
}

static int fill_trapezoid(int n, gq_key key, uint64_t stream, double *x, double *w) {
  return composite(n, 1, (double[]){ 1 / 2.0, 1 / 2.0 }, x, w);
}

static int fill_simpson(int n, gq_key key, uint64_t stream, double *x, double *w) {
  return composite(n, 2, (double[]){ 1 / 6.0, 4 / 6.0, 1 / 6.0 }, x, w);
}

static int fill_boole(int n, gq_key key, uint64_t stream, double *x, double *w) {
  return composite(n, 4, (double[]){ 7 / 90.0, 32 / 90.0, 12 / 90.0, 32 / 90.0, 7 / 90.0 }, x, w);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int fill_monte_carlo(int n, gq_key key, uint64_t stream, double *x, double *w) {
  gq_random_uniform(key, stream, 0, n, x);
  for (int i = 0; i < n; i++) x[i] = 2 * x[i] - 1, w[i] = 2.0 / n;
  qsort(x, n, sizeof *x, ascending);
  return GQ_OK;
}

const gq_quadrature gq_quadratures[] = {
  /* name, least points, in steps of, at most (0: any), random, fill, source */
  { "gauss-legendre", 1, 1, 64, false, fill_legendre, "Abramowitz & Stegun 25.4.29" },
  { "gauss-lobatto", 2, 1, 64, false, fill_lobatto, "Abramowitz & Stegun 25.4.32" },
  { "clenshaw-curtis", 2, 1, 64, false, fill_clenshaw_curtis, "Clenshaw & Curtis 1960" },
  { "trapezoid", 2, 1, 0, false, fill_trapezoid, "Abramowitz & Stegun 25.4.2" },
  { "simpson", 3, 2, 0, false, fill_simpson, "Abramowitz & Stegun 25.4.6" },
  { "boole", 5, 4, 0, false, fill_boole, "Abramowitz & Stegun 25.4.14" },
  { "monte-carlo", 1, 1, 0, true, fill_monte_carlo, "Norcliffe & Deisenroth 2023, App. D" },
};
const int gq_nquadratures = sizeof gq_quadratures / sizeof *gq_quadratures;

int gq_quadrature_points(const gq_quadrature *q, int n) {
  return n <= q->least ? q->least : q->least + (n - q->least + q->step - 1) / q->step * q->step;
}
