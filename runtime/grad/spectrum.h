/*
** spectrum.h -- are there nodes enough? The Legendre coefficients of a few scalars of the integrand, at its nodes.
**
** s(tau) = v'(a'df/dtheta)(tau), theta the biases (the wanted captures that are vectors or numbers, whose products
** are sums over rows and come a node at a time at no cost), v a fixed random vector. With Gauss-Legendre nodes x_j
** and weights w_j the sums c_k = sum_j w_j P_k(x_j) s_j, k < n, are the coefficients of the polynomial of degree
** n - 1 through the s_j. Where the last two are not small beside the largest, s is not resolved by n nodes.
*/
#ifndef GQ_SPECTRUM_H
#define GQ_SPECTRUM_H

#include <stddef.h>

enum { GQ_PROBES = 4, GQ_SPECTRUM_POINTS = 64 };

typedef struct gq_spectrum {   /* zeroed before its first use */
  int n, filled;               /* nodes of the present panel, and those that are there */
  double x[GQ_SPECTRUM_POINTS], s[GQ_SPECTRUM_POINTS][GQ_PROBES];
  double last[GQ_PROBES], largest[GQ_PROBES];   /* sums over panels */
  int panels;
} gq_spectrum;

/* Component i of the probes' vectors v: of either sign, 1/2 to 3/2 in size. */
void gq_spectrum_probe(size_t i, double *v);
/* One node of a panel of n, at x in [-1, 1]; s[GQ_PROBES]: with their weight. Panels come whole, one after another;
** those of fewer than 3 nodes tell nothing and are left out, as are those of more than GQ_SPECTRUM_POINTS. */
void gq_spectrum_add(gq_spectrum *q, int n, double x, const double *s);
/* The largest of the probes' ratios, last two coefficients to largest; NAN: no panel told anything. */
double gq_spectrum_ratio(const gq_spectrum *q);

#endif
