/*
** implicit.h -- steps of diagonally implicit Runge-Kutta methods, of any system that a walk integrates: the
** field, the field and its adjoint, or the adjoint along a path. What step programs are to explicit methods.
*/
#ifndef GQ_IMPLICIT_H
#define GQ_IMPLICIT_H

#include "attempt.h"

extern const gq_stepclass gq_implicit_steps;

/* One stage of a class of its own, whose a->own is what init of gq_implicit_steps made, of the drift where this is an
** SDE. y1 <- Y = y1 + hg f(t + h, Y); *ratio: 0, or infinite or NaN as of attempts. */
int gq_implicit_solve(gq_attempt *a, double hg, double *ratio);
/* Backwards, at the Y of y1: *v (kept till the next call) is (1 - hg J)'^-1 cy, dL/d(y1 as it came in);
** products are added. */
int gq_implicit_solve_back(gq_attempt *a, double hg, void **v);

#endif
