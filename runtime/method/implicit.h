/*
** implicit.h -- steps of diagonally implicit Runge-Kutta methods, of any system that a walk integrates: the
** field, the field and its adjoint, or the adjoint along a path. What step programs are to explicit methods.
*/
#ifndef GQ_IMPLICIT_H
#define GQ_IMPLICIT_H

#include "attempt.h"

extern const gq_stepclass gq_implicit_steps;

#endif
