/*
** sde.h -- Brownian paths as functions of key and time. An SDE, dz = f(t, z) dt + G(t, z) dW (Ito) or o dW
** (Stratonovich), is solved along one by ode/, where gq_problem has its noise.
*/
#ifndef GQ_SDE_H
#define GQ_SDE_H

#include "../exec/exec.h"

/* W on [t0, t1] for the numbers of `shape`: a bridge tree over Philox, keyed by (seed, tree node,
** component); any query order gives the same path. tol: widest leaf of the tree, to be well below
** the steps taken; 0: 2^-18 of the interval. Values at dyadic times do not depend on it. */
typedef struct gq_brownian gq_brownian;
int gq_brownian_new(double t0, double t1, gq_shape shape, gq_dtype d, uint64_t seed, double tol, gq_brownian **b);
gq_brownian *gq_brownian_ref(gq_brownian *b);
void gq_brownian_free(gq_brownian *b_);                     /* one reference */
gq_shape gq_brownian_shape(const gq_brownian *b);
gq_dtype gq_brownian_dtype(const gq_brownian *b);           /* what it is cast to; values are doubles */
uint64_t gq_brownian_seed(const gq_brownian *b);
double gq_brownian_t0(const gq_brownian *b);
double gq_brownian_t1(const gq_brownian *b);
double gq_brownian_tol(const gq_brownian *b);               /* width of a leaf */
double gq_brownian_slack(const gq_brownian *b);             /* how far a time may miss an end by rounding: it is that end */
int gq_brownian_value(gq_brownian *b, double t, double *w);               /* W(t) - W(t0) */
int gq_brownian_increment(gq_brownian *b, double s, double t, double *dw);/* W(t) - W(s) */

/* Coefficients xi of eq. (15): {cosines, numel(shape)} normals; row i is a function of (seed, i),
** so more cosines refine the same path. */
void gq_cosines(uint64_t seed, int cosines, size_t n, double *xi);

#endif
