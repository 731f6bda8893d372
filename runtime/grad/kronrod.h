/*
** kronrod.h -- the integral of a'df/dtheta to a tolerance: adaptive Gauss-Kronrod quadrature over dense z and a
** (the paper's section 1; SciMLSensitivity's QuadratureAdjoint). The steps of a are kept for one interval, and
** pieces end where steps of z or a do: a layer that the solvers resolve is not lost between the points of a rule.
*/
#ifndef GQ_KRONROD_H
#define GQ_KRONROD_H

#include "window.h"

typedef struct gq_kronrod {
  gq_window *steps;
  const gq_grads *total;
  gq_grads gauss, kronrod;     /* by 7 and by 15 points, of one piece */
} gq_kronrod;

int gq_kronrod_init(gq_kronrod *q, gq_window *steps, const gq_grads *total);
void gq_kronrod_done(gq_kronrod *q);
/* Add the integral over the steps kept, and forget them. */
int gq_kronrod_interval(gq_kronrod *q, double from, double to);

#endif
