/*
** heuristic.h -- what the steps of a solve tell about how hard it is, to be added to a loss (Pal, Ma, Shah &
** Rackauckas, Opening the Blackbox: Accelerating Neural Differential Equations by Regularizing Internal Solver
** Heuristics, ICML 2021):
**
**     R_E = sum |h| E,  E = rms of the local error estimate h sum_i e_i k_i
**     R_S = sum S,      S = |k_i - k_j| / |y_i - y_j| of two stages at the step's end (Shampine 1977)
**
** over the accepted steps (with overshoot the last one counts as a whole). The rms is over all numbers of the state and
** in its units: the tolerances do not divide it, as they do in the authors' code. dopri8 joins its two estimates as its
** control does: e5^2 / sqrt(e5^2 + e3^2 / 100). S is a bound from below of a Lipschitz constant. A step's size is a
** constant in the derivatives, but for those that end at a measurement time.
*/
#ifndef GQ_HEURISTIC_H
#define GQ_HEURISTIC_H

#include "step.h"

typedef struct gq_heuristic {
  double error, stiffness;     /* E and S of a step */
  double slope[GQ_SUMS];       /* dE/dsum of the first two sums, dS/dsum of the others; 0 where there is none */
} gq_heuristic;

/* The stage before the slope at the end that is at the end too; -1: the method has none. */
int gq_stiffness_stage(const gq_tableau *m);
void gq_heuristic_of(const double sum[GQ_SUMS], const gq_field *f, gq_heuristic *e);

#endif
