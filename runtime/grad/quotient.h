/*
** quotient.h -- gradients against difference quotients. Where dynamics compare the state they may jump as it passes
** something, which the gradient of no engine tells: the loss is held against that of solutions whose parameters and z0
** are a little others, in random directions.
*/
#ifndef GQ_GRAD_QUOTIENT_H
#define GQ_GRAD_QUOTIENT_H

#include "../ode/solution.h"

typedef struct gq_gradients {
  gq_tensor *z0, *t, **capture; /* NULL: not asked for */
} gq_gradients;

/* Tolerances of the loss by which the gradients of two solves may differ: the errors of steps add up to some. Of 10,800
** drawn passes (scripts/drawn.lua) those that were wrong differed by 2 or more, or not at all; a seventh of the false
** alarms by less than this. */
static const double GQ_SHOWS = 1.5;

/* The solutions on either side, GQ_QUOTIENTS times, into s->perturbed. */
int gq_quotient_solve(const gq_problem *p, const gq_ode_options *o, gq_solution *s);
/* How far the change of the loss between them is from what the gradients say, into s->info.quotient_error, where that
** is more than the tolerance of the loss. gz: the cotangents of z. */
int gq_quotient_check(gq_solution *s, gq_tensor *gz, const gq_gradients *g, double tolerance);

#endif
